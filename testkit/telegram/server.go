package telegram

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"hermes/testkit/port"
)

// Options are what a server starts with. The zero value is usable.
type Options struct {
	Addr     string           // to listen on; "" means 127.0.0.1 and a free port
	Listener net.Listener     // in place of an address to listen on; may be nil
	Token    string           // the bot's; "" means one that looks real
	Username string           // the bot's, without the @; "" means hermes_test_bot
	Keep     int              // messages kept a chat; 0 means 10,000
	Limits   Limits           // flood control; none by default
	Privacy  bool             // the bot sees of groups only what is addressed to it, https://core.telegram.org/bots/features#privacy-mode
	Now      func() time.Time // the clock of dates and flood control; nil means time.Now
}

// Server is a fake Bot API for one bot. Its methods are safe for concurrent use.
type Server struct {
	self   User
	token  string
	addr   string // that clients are told
	port   *port.Port
	keep   int
	hidden bool // privacy mode
	now    func() time.Time
	done   chan struct{}

	mu      sync.Mutex
	changed chan struct{} // closed at the next change, while somebody waits
	http    *http.Server  // nil while dark
	closed  bool

	users map[int64]*User
	chats map[int64]*chatState
	files map[string]*stored
	ids   int64 // last id given to a person, file or query

	queue      []queued
	lastUpdate int64
	confirmed  int64 // highest update that the bot confirmed
	allowed    []string
	poller     *poller
	webhook    string

	commands []Command
	queries  map[string]*query
	faults   []*armed
	limits   Limits
	sent     window
	calls    map[string]int
	floods   int
}

// New starts a server.
func New(o Options) (*Server, error) {
	s := &Server{
		token: o.Token, addr: o.Addr, keep: o.Keep, hidden: o.Privacy, now: o.Now, limits: o.Limits,
		done:  make(chan struct{}),
		users: map[int64]*User{}, chats: map[int64]*chatState{}, files: map[string]*stored{},
		queries: map[string]*query{}, calls: map[string]int{},
		ids: 1000, lastUpdate: 700_000_000,
	}
	if s.token == "" {
		s.token = "7000000001:AAF-fake_token_of_the_test_server_0000"
	}
	if s.addr == "" {
		s.addr = "127.0.0.1:0"
	}
	if s.keep <= 0 {
		s.keep = 10_000
	}
	if s.now == nil {
		s.now = time.Now
	}
	digits, _, _ := strings.Cut(s.token, ":")
	id, err := strconv.ParseInt(digits, 10, 64)
	if err != nil {
		return nil, errors.New("telegram fake: a token begins with digits and a colon")
	}
	s.self = User{ID: id, IsBot: true, FirstName: "Hermes", Username: "hermes_test_bot"}
	if o.Username != "" {
		s.self.Username = o.Username
	}
	if s.port, err = port.Open(s.addr, o.Listener); err != nil {
		return nil, err
	}
	s.addr = s.port.Addr()
	if err = s.ComeBack(); err != nil {
		s.port.Release()
		return nil, err
	}
	return s, nil
}

// URL is the base URL, to be used in place of https://api.telegram.org.
func (s *Server) URL() string { return "http://" + s.addr }

// Behind makes the server tell clients another address (host and port), that of
// a proxy in front of it. It is called before anybody connects.
func (s *Server) Behind(addr string) { s.addr = addr }

// Token is the bot's token.
func (s *Server) Token() string { return s.token }

// Bot is the bot itself.
func (s *Server) Bot() User { return s.self }

// Close stops the server and cuts every connection.
func (s *Server) Close() {
	s.mu.Lock()
	h := s.http
	s.http = nil
	if !s.closed {
		s.closed = true
		close(s.done)
	}
	s.mu.Unlock()
	if h != nil {
		h.Close()
	}
	s.port.Release()
}

// GoDark cuts every connection and refuses new ones until ComeBack. What the
// server knows stays.
func (s *Server) GoDark() {
	s.mu.Lock()
	h := s.http
	s.http = nil
	s.mu.Unlock()
	if h != nil {
		h.Close()
	}
}

// ComeBack listens again at the same address, which stayed its own.
func (s *Server) ComeBack() error {
	ln, err := s.port.Listen()
	if err != nil {
		return err
	}
	s.serve(ln)
	return nil
}

func (s *Server) serve(ln net.Listener) {
	h := &http.Server{Handler: http.HandlerFunc(s.handle), ReadHeaderTimeout: time.Minute}
	s.mu.Lock()
	if s.closed || s.http != nil {
		s.mu.Unlock()
		ln.Close()
		return
	}
	s.http = h
	s.mu.Unlock()
	go h.Serve(ln) //nolint:errcheck // it ends when the server is closed
}

// apiError is an error answer, https://core.telegram.org/bots/api#making-requests.
type apiError struct {
	Code        int    `json:"error_code"`
	Description string `json:"description"`
	Parameters  struct {
		MigrateTo  int64 `json:"migrate_to_chat_id,omitempty"`
		RetryAfter int   `json:"retry_after,omitempty"`
	} `json:"parameters,omitzero"`
}

func badRequest(description string) *apiError {
	return &apiError{Code: http.StatusBadRequest, Description: "Bad Request: " + description}
}

func forbidden(description string) *apiError {
	return &apiError{Code: http.StatusForbidden, Description: "Forbidden: " + description}
}

// handle serves /bot<token>/<method> and /file/bot<token>/<path>.
func (s *Server) handle(w http.ResponseWriter, r *http.Request) {
	if path, ok := strings.CutPrefix(r.URL.Path, "/file/bot"); ok {
		s.download(w, r, path)
		return
	}
	path, ok := strings.CutPrefix(r.URL.Path, "/bot")
	token, method, ok2 := strings.Cut(path, "/")
	if !ok || !ok2 {
		answer(w, nil, &apiError{Code: http.StatusNotFound, Description: "Not Found"})
		return
	}
	method = canonical(method)
	p, perr := readParams(r)
	var chat int64
	if perr == nil {
		chat, _ = strconv.ParseInt(p.values["chat_id"], 10, 64)
	}
	s.count(method)
	f := s.fault(method, chat)
	if f != nil && !f.wait(s, r) {
		cut(w)
		return
	}
	act := func() (any, *apiError) {
		switch {
		case perr != nil:
			return nil, perr
		case !strings.Contains(token, ":"):
			return nil, &apiError{Code: http.StatusNotFound, Description: "Not Found"}
		case token != s.token:
			return nil, &apiError{Code: http.StatusUnauthorized, Description: "Unauthorized"}
		}
		return s.call(r.Context(), method, p)
	}
	if f == nil || !f.answers() {
		result, err := act()
		answer(w, result, err)
		return
	}
	if f.Act {
		act() //nolint:errcheck // the answer is what gets lost
	}
	switch {
	case f.Cut:
		cut(w)
	case f.Body != "":
		w.Header().Set("Content-Type", "text/html")
		w.WriteHeader(max(f.Status, http.StatusOK))
		w.Write([]byte(f.Body)) //nolint:errcheck // the client may be gone
	default:
		answer(w, nil, f.reply())
	}
}

// answer writes the envelope.
func answer(w http.ResponseWriter, result any, err *apiError) {
	w.Header().Set("Content-Type", "application/json")
	if err != nil {
		if err.Parameters.RetryAfter > 0 {
			w.Header().Set("Retry-After", strconv.Itoa(err.Parameters.RetryAfter))
		}
		w.WriteHeader(err.Code)
		json.NewEncoder(w).Encode(struct { //nolint:errcheck // the client may be gone
			OK bool `json:"ok"`
			*apiError
		}{false, err})
		return
	}
	json.NewEncoder(w).Encode(map[string]any{"ok": true, "result": result}) //nolint:errcheck // as above
}

// cut ends the connection in the middle of the exchange.
func cut(w http.ResponseWriter) {
	if h, ok := w.(http.Hijacker); ok {
		if c, _, err := h.Hijack(); err == nil {
			if t, ok := c.(*net.TCPConn); ok {
				t.SetLinger(0) //nolint:errcheck // a reset is nicer, a close will do
			}
			c.Close()
			return
		}
	}
	panic(http.ErrAbortHandler)
}

// count counts a call and tells those who wait for it.
func (s *Server) count(method string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls[method]++
	s.touch()
}

// touch wakes everybody who waits for a change; the caller holds s.mu.
func (s *Server) touch() {
	if s.changed != nil {
		close(s.changed)
		s.changed = nil
	}
}

// change is closed at the next change; the caller holds s.mu.
func (s *Server) change() <-chan struct{} {
	if s.changed == nil {
		s.changed = make(chan struct{})
	}
	return s.changed
}

// until waits for a condition, which is called with s.mu held.
func (s *Server) until(ctx context.Context, done func() bool) error {
	for {
		s.mu.Lock()
		if done() {
			s.mu.Unlock()
			return nil
		}
		c := s.change()
		s.mu.Unlock()
		select {
		case <-c:
		case <-s.done:
			return errors.New("telegram fake: the server was closed")
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
