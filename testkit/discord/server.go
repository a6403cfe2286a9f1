package discord

import (
	"context"
	"encoding/base64"
	"errors"
	"net"
	"net/http"
	"strconv"
	"sync"
	"time"

	"hermes/testkit/port"
)

// Options are what a server starts with. The zero value is usable.
type Options struct {
	Addr      string           // to listen on; "" means 127.0.0.1 and a free port
	Listener  net.Listener     // in place of an address to listen on; may be nil
	Token     string           // the bot's; "" means one that looks real. Its first part is the bot's id in base64
	Username  string           // the bot's; "" means hermes
	Heartbeat time.Duration    // that the bot is told; 0 means 41.25 s
	Messages  int              // that a channel takes in five seconds; 0 means no limit
	Now       func() time.Time // the clock of ids and limits; nil means time.Now
}

// Server is a fake Discord for one bot. Its methods are safe for concurrent use.
type Server struct {
	self  User
	token string
	addr  string // that clients are told
	port  *port.Port
	beat  time.Duration
	limit int
	now   func() time.Time
	done  chan struct{}
	wg    sync.WaitGroup

	mu      sync.Mutex
	changed chan struct{} // closed at the next change, while somebody waits
	http    *http.Server  // nil while dark
	closed  bool

	lastID   uint64
	users    map[string]*User
	guilds   []*guildState
	channels map[string]*channelState
	files    map[string][]byte
	nonces   map[string]nonceMark
	windows  map[string]window
	commands []Command
	presses  map[string]bool // interactions, and whether they were answered
	calls    map[string]int
	faults   []*armed

	conns    map[*gwConn]bool
	sessions map[string]*gwSession
	gateway  gatewayState
}

type nonceMark struct {
	message string
	at      time.Time
}

type window struct {
	began time.Time
	used  int
}

// nonceFor is how long enforce_nonce finds an earlier message, "the past few
// minutes", https://discord.com/developers/docs/resources/message#create-message.
const nonceFor = 3 * time.Minute

// discordEpoch is the first instant of ids, Unix milliseconds,
// https://discord.com/developers/docs/reference#snowflakes.
const discordEpoch = 1420070400000

// New starts a server.
func New(o Options) (*Server, error) {
	s := &Server{
		token: o.Token, addr: o.Addr, beat: o.Heartbeat, limit: o.Messages, now: o.Now, done: make(chan struct{}),
		users: map[string]*User{}, channels: map[string]*channelState{}, files: map[string][]byte{},
		nonces: map[string]nonceMark{}, windows: map[string]window{}, presses: map[string]bool{}, calls: map[string]int{},
		conns: map[*gwConn]bool{}, sessions: map[string]*gwSession{}, gateway: gatewayState{remaining: 1000},
	}
	if s.now == nil {
		s.now = time.Now
	}
	if s.beat <= 0 {
		s.beat = 41250 * time.Millisecond
	}
	if s.token == "" {
		s.token = Token("1100000000000000001", "Gfake1.secret_of_the_test_server_00000000000000")
	}
	if s.addr == "" {
		s.addr = "127.0.0.1:0"
	}
	id, err := base64.RawStdEncoding.DecodeString(firstPart(s.token))
	if err != nil {
		return nil, errors.New("discord fake: a token begins with the bot's id in base64")
	}
	if o.Username == "" {
		o.Username = "hermes"
	}
	s.self = User{ID: string(id), Username: o.Username, Bot: true}
	s.users[s.self.ID] = &s.self
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

// Token makes a bot token from a bot's id and the rest, which has a dot in it.
func Token(id, rest string) string {
	return base64.RawStdEncoding.EncodeToString([]byte(id)) + "." + rest
}

func firstPart(token string) string {
	for i, r := range token {
		if r == '.' {
			return token[:i]
		}
	}
	return token
}

// URL is the base URL, to be used in place of https://discord.com.
func (s *Server) URL() string { return "http://" + s.addr }

// Behind makes the server tell clients another address (host and port), that of
// a proxy in front of it. It is called before anybody connects.
func (s *Server) Behind(addr string) { s.addr = addr }

// Token is the bot's token.
func (s *Server) Token() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.token
}

// ResetToken makes the server know another token only.
func (s *Server) ResetToken(token string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.token = token
}

// Bot is the bot itself.
func (s *Server) Bot() User { return s.self }

// Close stops the server, cuts every connection and waits for its goroutines.
func (s *Server) Close() {
	s.mu.Lock()
	if !s.closed {
		s.closed = true
		close(s.done)
	}
	s.mu.Unlock()
	s.GoDark()
	s.wg.Wait()
	s.port.Release()
}

// GoDark cuts every connection and refuses new ones until ComeBack. What the
// server knows stays, sessions included.
func (s *Server) GoDark() {
	s.mu.Lock()
	h := s.http
	s.http = nil
	var conns []*gwConn
	for c := range s.conns {
		conns = append(conns, c)
	}
	s.mu.Unlock()
	if h != nil {
		h.Close()
	}
	for _, c := range conns {
		c.cut()
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
	h := &http.Server{Handler: s.routes(), ReadHeaderTimeout: time.Minute}
	s.mu.Lock()
	if s.closed || s.http != nil {
		s.mu.Unlock()
		ln.Close()
		return
	}
	s.http = h
	s.mu.Unlock()
	s.wg.Go(func() { _ = h.Serve(ln) }) // it ends when the server is closed
}

// newID gives the next id; the caller holds s.mu.
func (s *Server) newID() string {
	s.lastID = max(s.lastID+1, uint64(s.now().UnixMilli()-discordEpoch)<<22)
	return strconv.FormatUint(s.lastID, 10)
}

// touch wakes everybody who waits for a change; the caller holds s.mu.
func (s *Server) touch() {
	if s.changed != nil {
		close(s.changed)
		s.changed = nil
	}
}

// until waits for a condition, which is called with s.mu held.
func (s *Server) until(ctx context.Context, done func() bool) error {
	for {
		s.mu.Lock()
		if done() {
			s.mu.Unlock()
			return nil
		}
		if s.changed == nil {
			s.changed = make(chan struct{})
		}
		c := s.changed
		s.mu.Unlock()
		select {
		case <-c:
		case <-s.done:
			return errors.New("discord fake: the server was closed")
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
