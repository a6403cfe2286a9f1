package discord

import (
	"encoding/base64"
	"errors"
	"net"
	"strconv"
	"sync"
	"time"

	"hermes/testkit/wire"
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
	*wire.Server
	self  User
	token string
	beat  time.Duration
	limit int
	now   func() time.Time

	mu sync.Mutex

	lastID   uint64
	users    map[string]*User
	guilds   []*guildState
	channels map[string]*channelState
	files    map[string][]byte
	nonces   map[string]nonceMark
	windows  map[string]window
	commands []Command
	presses  map[string]bool // interactions, and whether they were answered

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
		token: o.Token, beat: o.Heartbeat, limit: o.Messages, now: o.Now,
		users: map[string]*User{}, channels: map[string]*channelState{}, files: map[string][]byte{},
		nonces: map[string]nonceMark{}, windows: map[string]window{}, presses: map[string]bool{},
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
	id, err := base64.RawStdEncoding.DecodeString(firstPart(s.token))
	if err != nil {
		return nil, errors.New("discord fake: a token begins with the bot's id in base64")
	}
	if o.Username == "" {
		o.Username = "hermes"
	}
	s.self = User{ID: string(id), Username: o.Username, Bot: true}
	s.users[s.self.ID] = &s.self
	s.Server, err = wire.New(wire.Options{Name: "discord", Addr: o.Addr, Listener: o.Listener, State: &s.mu, Refuse: misbehave, Dark: s.CutGateway})
	if err != nil {
		return nil, err
	}
	return s, s.Start(s.routes())
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

// ResetToken makes the server know another token only.
func (s *Server) ResetToken(token string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.token = token
}

// Bot is the bot itself.
func (s *Server) Bot() User { return s.self }

// Token is the bot's token.
func (s *Server) Token() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.token
}

// newID gives the next id; the caller holds s.mu.
func (s *Server) newID() string {
	s.lastID = max(s.lastID+1, uint64(s.now().UnixMilli()-discordEpoch)<<22)
	return strconv.FormatUint(s.lastID, 10)
}
