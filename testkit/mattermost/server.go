package mattermost

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"hermes/testkit/wire"
)

// Options are what a server starts with. The zero value is usable.
type Options struct {
	Addr        string           // to listen on; "" means 127.0.0.1 and a free port
	Listener    net.Listener     // in place of an address to listen on; may be nil
	Token       string           // the bot's; "" means one that looks real
	Username    string           // the bot's; "" means hermes
	MaxPostSize int              // characters; 0 means 16383
	MaxFileSize int64            // bytes; 0 means 100 MB
	Now         func() time.Time // the clock of posts; nil means time.Now
}

// Server is a fake server with one bot. Its methods are safe for concurrent use.
type Server struct {
	*wire.Server
	mux  *http.ServeMux
	o    Options
	self User

	mu    sync.Mutex
	token string
	ids   int
	last  int64 // create_at or update_at given last

	users    map[string]*User
	channels map[string]*channelState
	order    []string // of channels
	posts    map[string]*post
	files    map[string]*stored
	pending  map[string]pending
	sockets  map[*socket]bool
	opened   int // sockets that were ever let in

	lose   int  // events that get a number and are not sent
	mute   bool // pings are not answered
	silent bool // sockets send nothing at all
}

// User is a person or a bot, https://api.mattermost.com/#tag/users.
type User struct {
	ID       string `json:"id"`
	Username string `json:"username"`
	IsBot    bool   `json:"is_bot,omitempty"`
}

type pending struct {
	post string // "" while it is being made
	at   time.Time
}

// pendingFor is how long a server remembers a pending_post_id.
const pendingFor = 30 * time.Second

// New starts a server.
func New(o Options) (*Server, error) {
	if o.Token == "" {
		o.Token = "fake7token8of9the0test1srv"
	}
	if o.Username == "" {
		o.Username = "hermes"
	}
	if o.MaxPostSize == 0 {
		o.MaxPostSize = 16383
	}
	if o.MaxFileSize == 0 {
		o.MaxFileSize = 100 << 20
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	s := &Server{
		o: o, token: o.Token, users: map[string]*User{}, channels: map[string]*channelState{},
		posts: map[string]*post{}, files: map[string]*stored{}, pending: map[string]pending{}, sockets: map[*socket]bool{},
	}
	s.self = User{ID: s.newID("b"), Username: o.Username, IsBot: true}
	s.users[s.self.ID] = &s.self
	s.routes()
	var err error
	s.Server, err = wire.New(wire.Options{Name: "mattermost", Addr: o.Addr, Listener: o.Listener, State: &s.mu, Refuse: misbehave, Dark: s.CutSockets})
	if err != nil {
		return nil, err
	}
	return s, s.Start(s.mux)
}

// Token is the bot's token.
func (s *Server) Token() string { return s.o.Token }

// Bot is the bot itself.
func (s *Server) Bot() User { return s.self }

// newID gives an id of 26 letters and digits; the caller holds s.mu, or is New.
func (s *Server) newID(kind string) string {
	s.ids++
	return fmt.Sprintf("%s%025d", kind, s.ids)
}

// stamp gives the next instant, in milliseconds; the caller holds s.mu.
func (s *Server) stamp() int64 {
	s.last = max(s.last+1, s.o.Now().UnixMilli())
	return s.last
}

// apiError is a refusal, https://api.mattermost.com/#tag/errors.
type apiError struct {
	ID        string `json:"id"`
	Message   string `json:"message"`
	Detailed  string `json:"detailed_error"`
	RequestID string `json:"request_id"`
	Status    int    `json:"status_code"`
}

func refuse(status int, id, message string) *apiError {
	return &apiError{ID: id, Message: message, RequestID: "q0000000000000000000000001", Status: status}
}

func errPermission() *apiError {
	return refuse(http.StatusForbidden, "api.context.permissions.app_error", "You do not have the appropriate permissions.")
}

func errAbsent(what string) *apiError {
	return refuse(http.StatusNotFound, "app."+what+".get.app_error", "Unable to get the "+what+".")
}

// handler carries a request out. It is called with s.mu held and gives what is
// answered as JSON, or a file's content.
type handler func(r *http.Request, body []byte) (any, *apiError)

// route serves a pattern such as "POST /posts", which is also the name that
// faults and counts know it by.
func (s *Server) route(pattern string, status int, h handler) {
	method, path, _ := strings.Cut(pattern, " ")
	s.mux.HandleFunc(method+" /api/v4"+path, func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(io.LimitReader(r.Body, s.o.MaxFileSize+1<<20))
		if err != nil {
			return
		}
		s.Serve(w, r, pattern, "", func(w http.ResponseWriter) {
			result, refusal := s.handle(r, body, h)
			answer(w, status, result, refusal)
		})
	})
}

func (s *Server) handle(r *http.Request, body []byte, h handler) (any, *apiError) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if r.Header.Get("Authorization") != "Bearer "+s.token {
		return nil, refuse(http.StatusUnauthorized, "api.context.session_expired.app_error", "Invalid or expired session, please login again.")
	}
	return h(r, body)
}

// answer writes a result or a refusal.
func answer(w http.ResponseWriter, status int, result any, refusal *apiError) {
	if f, ok := result.(*stored); ok && refusal == nil {
		w.Header().Set("Content-Type", f.info.MIMEType)
		w.Header().Set("Content-Length", strconv.Itoa(len(f.data)))
		w.Write(f.data) //nolint:errcheck // the client may be gone
		return
	}
	w.Header().Set("Content-Type", "application/json")
	if refusal != nil {
		status, result = refusal.Status, refusal
	}
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(result) //nolint:errcheck // as above
}
