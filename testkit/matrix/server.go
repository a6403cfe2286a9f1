package matrix

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

// Domain is the server's name in ids.
const Domain = "fake.test"

// Options are what a server starts with. The zero value is usable.
type Options struct {
	Addr        string           // to listen on; "" means 127.0.0.1 and a free port
	Listener    net.Listener     // in place of an address to listen on; may be nil
	Token       string           // the account's; "" means one that looks real
	Password    string           // the account's; "" means one of its own
	Name        string           // the account's, without "@" and server; "" means hermes
	MaxFileSize int64            // bytes; 0 means 50 MB
	Old         bool             // speaks a version before 1.11: media without authentication
	Now         func() time.Time // the clock of events; nil means time.Now
}

// User is a person or the account.
type User struct {
	ID   string
	Name string // as shown
}

// Server is a fake homeserver with one account. Its methods are safe for
// concurrent use.
type Server struct {
	*wire.Server
	mux  *http.ServeMux
	o    Options
	self User

	mu      sync.Mutex
	epoch   int               // in the tokens of syncs: another one knows none of them
	devices map[string]string // by token
	soft    bool              // tokens that are not known are said to be logged out softly
	ids     int
	last    int64 // origin_server_ts given last
	stream  int   // position of the last event

	users   map[string]*User
	rooms   map[string]*room
	order   []string // of rooms
	aliases map[string]string
	account map[string]json.RawMessage // account data by type
	dataAt  map[string]int             // where in the stream they were set
	txns    map[string]string          // events by device, room, type and transaction
	files   map[string]*File
}

// New starts a server.
func New(o Options) (*Server, error) {
	if o.Token == "" {
		o.Token = "syt_aGVybWVz_fakeTokenOfTheTest_0Zk1Lx"
	}
	if o.Password == "" {
		o.Password = "fake password of the test"
	}
	if o.Name == "" {
		o.Name = "hermes"
	}
	if o.MaxFileSize == 0 {
		o.MaxFileSize = 50 << 20
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	s := &Server{
		o: o, devices: map[string]string{o.Token: "FAKEDEVICE"}, users: map[string]*User{}, rooms: map[string]*room{}, aliases: map[string]string{},
		account: map[string]json.RawMessage{}, dataAt: map[string]int{}, txns: map[string]string{}, files: map[string]*File{},
	}
	s.self = User{ID: "@" + o.Name + ":" + Domain, Name: "Hermes"}
	s.users[s.self.ID] = &s.self
	s.routes()
	var err error
	s.Server, err = wire.New(wire.Options{Name: "matrix", Addr: o.Addr, Listener: o.Listener, State: &s.mu, Refuse: misbehave})
	if err != nil {
		return nil, err
	}
	return s, s.Start(s.mux)
}

// Token is the account's token.
func (s *Server) Token() string { return s.o.Token }

// Password is the account's password.
func (s *Server) Password() string { return s.o.Password }

// User is the account itself.
func (s *Server) User() User { return s.self }

// newID gives a number for an id; the caller holds s.mu.
func (s *Server) newID() string {
	s.ids++
	return fmt.Sprintf("%08d", s.ids)
}

// stamp gives the next instant, in milliseconds; the caller holds s.mu.
func (s *Server) stamp() int64 {
	s.last = max(s.last+1, s.o.Now().UnixMilli())
	return s.last
}

// apiError is a refusal, https://spec.matrix.org/v1.15/client-server-api/#standard-error-response.
type apiError struct {
	status  int
	Code    string `json:"errcode"`
	Message string `json:"error"`
	Soft    bool   `json:"soft_logout,omitempty"`
	RetryMS int64  `json:"retry_after_ms,omitempty"`
}

func refuse(status int, code, message string) *apiError {
	return &apiError{status: status, Code: code, Message: message}
}

func errForbidden(message string) *apiError {
	return refuse(http.StatusForbidden, "M_FORBIDDEN", message)
}

func errAbsent(message string) *apiError {
	return refuse(http.StatusNotFound, "M_NOT_FOUND", message)
}

// caller is who makes a request.
type caller struct {
	token, device string
	r             *http.Request
	body          []byte
}

func (c *caller) path(name string) string { return c.r.PathValue(name) }

// handler carries a request out. It is called with s.mu held and gives what is
// answered as JSON, or a file's content.
type handler func(c *caller) (any, *apiError)

// route serves a pattern such as "GET /v3/sync", which is also the name that
// faults and counts know it by; those of media have their whole path.
func (s *Server) route(pattern string, public bool, h handler) {
	method, path, _ := strings.Cut(pattern, " ")
	if !strings.HasPrefix(path, "/_matrix/") {
		path = "/_matrix/client" + path
	}
	s.mux.HandleFunc(method+" "+path, func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(io.LimitReader(r.Body, s.o.MaxFileSize+1<<20))
		if err != nil {
			return
		}
		s.Serve(w, r, pattern, "", func(w http.ResponseWriter) {
			result, refusal := s.handle(&caller{r: r, body: body}, pattern, public, h)
			answer(w, result, refusal)
		})
	})
}

func (s *Server) handle(c *caller, pattern string, public bool, h handler) (any, *apiError) {
	if pattern == "GET /v3/sync" {
		return s.sync(c)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if e := s.admit(c); e != nil && !public {
		return nil, e
	}
	return h(c)
}

// admit finds out whose request it is; the caller holds s.mu.
func (s *Server) admit(c *caller) *apiError {
	token, ok := strings.CutPrefix(c.r.Header.Get("Authorization"), "Bearer ")
	if !ok {
		return refuse(http.StatusUnauthorized, "M_MISSING_TOKEN", "Missing access token")
	}
	c.token, c.device = token, s.devices[token]
	if c.device == "" {
		e := refuse(http.StatusUnauthorized, "M_UNKNOWN_TOKEN", "Invalid access token passed.")
		e.Soft = s.soft
		return e
	}
	return nil
}

// answer writes a result or a refusal.
func answer(w http.ResponseWriter, result any, refusal *apiError) {
	if f, ok := result.(*File); ok && refusal == nil {
		w.Header().Set("Content-Type", f.MIME)
		w.Header().Set("Content-Length", strconv.Itoa(len(f.Data)))
		w.Write(f.Data) //nolint:errcheck // the client may be gone
		return
	}
	w.Header().Set("Content-Type", "application/json")
	if refusal != nil {
		w.WriteHeader(refusal.status)
		result = refusal
	}
	json.NewEncoder(w).Encode(result) //nolint:errcheck // as above
}
