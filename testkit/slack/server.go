package slack

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"hermes/testkit/wire"
)

// Options are what a server starts with. The zero value is usable.
type Options struct {
	Addr     string       // to listen on; "" means 127.0.0.1 and a free port
	Listener net.Listener // in place of an address to listen on; may be nil
	Token    string       // the bot's; "" means one that looks real
	AppToken string       // the app's; "" means one that looks real
	Name     string       // the bot's; "" means hermes
	Team     string       // the workspace's name; "" means Acme
	// RedeliverAfter is how long an acknowledgement may take; 0 means 300 ms.
	RedeliverAfter time.Duration
	// PingEvery is the time between the server's pings; 0 means 200 ms.
	PingEvery time.Duration
	Now       func() time.Time // the clock of messages; nil means time.Now
}

// Server is a fake workspace with one app. Its methods are safe for concurrent use.
type Server struct {
	*wire.Server
	mux  *http.ServeMux
	o    Options
	self User

	mu    sync.Mutex
	token string
	ids   int
	last  int64 // ts given last, microseconds

	users    map[string]*User
	channels map[string]*channelState
	order    []string // of channels
	files    map[string]*stored
	tickets  map[string]bool
	sockets  []*socket
	opened   int // sockets that were ever let in
	waiting  map[string]*envelope
	acked    []string // ids of envelopes, in order
	noScope  map[string]bool

	mute   bool // pings are not answered
	silent bool // sockets send nothing at all
}

// User is a person or a bot, https://docs.slack.dev/reference/objects/user-object.
type User struct {
	ID    string
	Name  string
	IsBot bool
}

const (
	teamID = "T0FAKETEAM"
	appID  = "A0FAKEAPP1"
	botID  = "B0FAKEBOT1"
)

// New starts a server.
func New(o Options) (*Server, error) {
	or := func(s *string, other string) {
		if *s == "" {
			*s = other
		}
	}
	or(&o.Token, "xoxb-1000000000001-1000000000002-fake0token0of0the0bot00")
	or(&o.AppToken, "xapp-1-"+appID+"-1000000000003-fake0token0of0the0app")
	or(&o.Name, "hermes")
	or(&o.Team, "Acme")
	if o.RedeliverAfter == 0 {
		o.RedeliverAfter = 300 * time.Millisecond
	}
	if o.PingEvery == 0 {
		o.PingEvery = 200 * time.Millisecond
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	s := &Server{
		o: o, token: o.Token, users: map[string]*User{}, channels: map[string]*channelState{},
		files: map[string]*stored{}, tickets: map[string]bool{}, waiting: map[string]*envelope{}, noScope: map[string]bool{},
	}
	s.self = User{ID: s.newID("U"), Name: o.Name, IsBot: true}
	s.users[s.self.ID] = &s.self
	s.routes()
	var err error
	s.Server, err = wire.New(wire.Options{Name: "slack", Addr: o.Addr, Listener: o.Listener, State: &s.mu, Refuse: misbehave, Dark: s.CutSockets})
	if err != nil {
		return nil, err
	}
	return s, s.Start(s.mux)
}

// Token is the bot's token.
func (s *Server) Token() string { return s.o.Token }

// AppToken is the app-level token.
func (s *Server) AppToken() string { return s.o.AppToken }

// Bot is the bot itself.
func (s *Server) Bot() User { return s.self }

// Mention is how a message names the bot.
func (s *Server) Mention() string { return "<@" + s.self.ID + ">" }

// newID gives an id such as U0000000001; the caller holds s.mu, or is New.
func (s *Server) newID(kind string) string {
	s.ids++
	return fmt.Sprintf("%s%010d", kind, s.ids)
}

// stamp gives the next ts; the caller holds s.mu.
func (s *Server) stamp() string {
	s.last = max(s.last+1, s.o.Now().UnixMicro())
	return fmt.Sprintf("%d.%06d", s.last/1_000_000, s.last%1_000_000)
}

// answer is the JSON of an answer, without ok.
type answer map[string]any

// refuse is an answer with ok: false,
// https://docs.slack.dev/apis/web-api/#evaluating_responses.
func refuse(name, needed string) answer {
	a := answer{"ok": false, "error": name}
	if needed != "" {
		a["needed"], a["provided"] = needed, "chat:write"
	}
	return a
}

// method carries a request out. It is called with s.mu held; what it refuses it
// refuses by name.
type method func(q url.Values) (answer, string)

// route serves a method of the Web API under its name, which is also the one
// that faults and counts know it by. scope is what it needs, if anything.
func (s *Server) route(name, scope string, m method) {
	s.mux.HandleFunc("/api/"+name, func(w http.ResponseWriter, r *http.Request) {
		q, err := params(r)
		if err != nil {
			http.Error(w, "the arguments cannot be read", http.StatusBadRequest)
			return
		}
		act := func() answer {
			s.mu.Lock()
			defer s.mu.Unlock()
			if refused := s.authorise(r, q, name); refused != "" {
				return refuse(refused, "")
			}
			if s.noScope[scope] {
				return refuse("missing_scope", scope)
			}
			a, refused := m(q)
			if strings.HasPrefix(refused, "missing_scope:") {
				return refuse("missing_scope", strings.TrimPrefix(refused, "missing_scope:"))
			}
			if refused != "" {
				return refuse(refused, "")
			}
			if a == nil {
				a = answer{}
			}
			a["ok"] = true
			return a
		}
		s.Serve(w, r, name, "", func(w http.ResponseWriter) {
			tell(w, http.StatusOK, act())
		})
	})
}

// authorise checks the token; the caller holds s.mu.
func (s *Server) authorise(r *http.Request, q url.Values, name string) string {
	token := strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")
	if token == "" {
		token = q.Get("token")
	}
	wants, other := s.token, s.o.AppToken
	if name == "apps.connections.open" {
		wants, other = other, wants
	}
	switch token {
	case wants:
		return ""
	case other:
		return "not_allowed_token_type"
	case "":
		return "not_authed"
	}
	return "invalid_auth"
}

// params reads the arguments of a method, in each form that Slack takes.
func params(r *http.Request) (url.Values, error) {
	if err := r.ParseForm(); err != nil {
		return nil, err
	}
	if !strings.HasPrefix(r.Header.Get("Content-Type"), "application/json") {
		return r.Form, nil
	}
	body, err := io.ReadAll(io.LimitReader(r.Body, 1<<20))
	if err != nil {
		return nil, err
	}
	var in map[string]any
	if len(body) > 0 {
		if err := json.Unmarshal(body, &in); err != nil {
			return nil, err
		}
	}
	for k, v := range in {
		switch v := v.(type) {
		case string:
			r.Form.Set(k, v)
		default:
			b, _ := json.Marshal(v) // it was JSON
			r.Form.Set(k, string(b))
		}
	}
	return r.Form, nil
}
