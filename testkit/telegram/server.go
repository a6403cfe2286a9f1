package telegram

import (
	"encoding/json"
	"errors"
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
	*wire.Server
	self   User
	token  string
	keep   int
	hidden bool // privacy mode
	now    func() time.Time

	mu sync.Mutex

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
	limits   Limits
	sent     window
	floods   int
}

// New starts a server.
func New(o Options) (*Server, error) {
	s := &Server{
		token: o.Token, keep: o.Keep, hidden: o.Privacy, now: o.Now, limits: o.Limits,
		users: map[int64]*User{}, chats: map[int64]*chatState{}, files: map[string]*stored{},
		queries: map[string]*query{},
		ids:     1000, lastUpdate: 700_000_000,
	}
	if s.token == "" {
		s.token = "7000000001:AAF-fake_token_of_the_test_server_0000"
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
	s.Server, err = wire.New(wire.Options{Name: "telegram", Addr: o.Addr, Listener: o.Listener, State: &s.mu, Refuse: misbehave})
	if err != nil {
		return nil, err
	}
	return s, s.Start(http.HandlerFunc(s.handle))
}

// Token is the bot's token.
func (s *Server) Token() string { return s.token }

// Bot is the bot itself.
func (s *Server) Bot() User { return s.self }

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
	chat := ""
	if perr == nil {
		chat = p.values["chat_id"]
	}
	s.Serve(w, r, method, chat, func(w http.ResponseWriter) {
		switch {
		case perr != nil:
			answer(w, nil, perr)
		case !strings.Contains(token, ":"):
			answer(w, nil, &apiError{Code: http.StatusNotFound, Description: "Not Found"})
		case token != s.token:
			answer(w, nil, &apiError{Code: http.StatusUnauthorized, Description: "Unauthorized"})
		default:
			result, err := s.call(r.Context(), method, p)
			answer(w, result, err)
		}
	})
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
