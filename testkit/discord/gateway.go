package discord

import (
	"context"
	"encoding/json"
	"net/http"
	"strings"
	"sync"

	"github.com/coder/websocket"
)

// Opcodes, https://discord.com/developers/docs/topics/opcodes-and-status-codes#gateway.
const (
	opDispatch  = 0
	opHeartbeat = 1
	opIdentify  = 2
	opResume    = 6
	opReconnect = 7
	opInvalid   = 9
	opHello     = 10
	opAck       = 11
)

// Intents, https://discord.com/developers/docs/events/gateway#list-of-intents.
const (
	IntentGuilds         = 1 << 0
	IntentGuildMessages  = 1 << 9
	IntentDirectMessages = 1 << 12
	IntentMessageContent = 1 << 15
)

const (
	maxReplay = 10_000 // dispatches that a session keeps for a resume
	maxOut    = 20_000 // frames that wait for a slow client
)

type frame struct {
	Op   int    `json:"op"`
	Data any    `json:"d"`
	Seq  *int64 `json:"s"`
	Type any    `json:"t"` // null but in dispatches
}

// gwSession is what a resume finds,
// https://discord.com/developers/docs/events/gateway#resuming.
type gwSession struct {
	id      string
	seq     int64
	intents int
	log     []frame
	conn    *gwConn // nil while nobody is connected
}

// gwConn is one websocket.
type gwConn struct {
	s    *Server
	ws   *websocket.Conn
	out  chan frame
	gone chan struct{}
	once sync.Once
	ses  *gwSession
}

// upgrade serves wss://gateway.discord.gg.
func (s *Server) upgrade(w http.ResponseWriter, r *http.Request) {
	ws, err := websocket.Accept(w, r, &websocket.AcceptOptions{InsecureSkipVerify: true})
	if err != nil {
		return
	}
	ws.SetReadLimit(4096) // "clients are limited to sending payloads of 4096 bytes"
	c := &gwConn{s: s, ws: ws, out: make(chan frame, maxOut), gone: make(chan struct{})}
	s.mu.Lock()
	leave := s.Enter()
	if leave == nil {
		s.mu.Unlock()
		_ = ws.CloseNow()
		return
	}
	defer leave()
	s.conns[c] = true
	s.Touch()
	s.mu.Unlock()
	var wg sync.WaitGroup
	wg.Go(c.writer)
	c.write(frame{Op: opHello, Data: map[string]any{"heartbeat_interval": s.beat.Milliseconds()}})
	c.reader()
	c.cut()
	wg.Wait()
	s.mu.Lock()
	delete(s.conns, c)
	if c.ses != nil && c.ses.conn == c {
		c.ses.conn = nil
	}
	s.Touch()
	s.mu.Unlock()
}

// cut ends the connection without a word.
func (c *gwConn) cut() {
	c.once.Do(func() {
		close(c.gone)
		_ = c.ws.CloseNow()
	})
}

func (c *gwConn) closeWith(code int, reason string) {
	c.once.Do(func() {
		close(c.gone)
		_ = c.ws.Close(websocket.StatusCode(code), reason)
		_ = c.ws.CloseNow()
	})
}

// write queues a frame.
func (c *gwConn) write(f frame) {
	select {
	case c.out <- f:
	case <-c.gone:
	default:
		go c.cut() // a client that does not read
	}
}

func (c *gwConn) writer() {
	for {
		select {
		case <-c.gone:
			return
		case f := <-c.out:
			c.s.mu.Lock()
			silent := c.s.gateway.silent
			c.s.mu.Unlock()
			if silent {
				continue
			}
			body, err := json.Marshal(f)
			if err != nil {
				continue
			}
			ctx, cancel := context.WithTimeout(context.Background(), defaultWait)
			err = c.ws.Write(ctx, websocket.MessageText, body)
			cancel()
			if err != nil {
				c.cut()
				return
			}
		}
	}
}

func (c *gwConn) reader() {
	for {
		_, body, err := c.ws.Read(context.Background())
		if err != nil {
			if websocket.CloseStatus(err) == websocket.StatusNormalClosure || websocket.CloseStatus(err) == websocket.StatusGoingAway {
				c.end() // 1000 and 1001 invalidate the session
			}
			return
		}
		var f struct {
			Op   int             `json:"op"`
			Data json.RawMessage `json:"d"`
		}
		if json.Unmarshal(body, &f) != nil {
			c.closeWith(4002, "Error while decoding payload.")
			return
		}
		if code, reason := c.take(f.Op, f.Data); code != 0 {
			c.closeWith(code, reason)
			return
		}
	}
}

func (c *gwConn) end() {
	c.s.mu.Lock()
	defer c.s.mu.Unlock()
	if c.ses != nil {
		delete(c.s.sessions, c.ses.id)
	}
}

// take handles what the client sends; a code closes the connection.
func (c *gwConn) take(op int, data json.RawMessage) (code int, reason string) {
	s := c.s
	switch op {
	case opHeartbeat:
		s.mu.Lock()
		s.gateway.beats++
		deaf := s.gateway.deaf
		s.Touch()
		s.mu.Unlock()
		if !deaf {
			c.write(frame{Op: opAck})
		}
	case opIdentify:
		return c.identify(data)
	case opResume:
		return c.resume(data)
	case 3, 4, 8:
	default:
		return 4001, "Unknown opcode."
	}
	return 0, ""
}

func bare(token string) string { return strings.TrimPrefix(token, "Bot ") }

func (c *gwConn) identify(data json.RawMessage) (int, string) {
	var id struct {
		Token   string `json:"token"`
		Intents *int   `json:"intents"`
	}
	if json.Unmarshal(data, &id) != nil || id.Intents == nil {
		return 4002, "Error while decoding payload."
	}
	s := c.s
	s.mu.Lock()
	defer s.mu.Unlock()
	s.gateway.identifies++
	s.gateway.remaining--
	s.Touch()
	switch {
	case c.ses != nil:
		return 4005, "Already authenticated."
	case bare(id.Token) != s.token:
		return 4004, "Authentication failed."
	case *id.Intents&s.gateway.refused != 0:
		return 4014, "Disallowed intent(s)."
	}
	c.ses = &gwSession{id: "session" + s.newID(), intents: *id.Intents, conn: c}
	s.sessions[c.ses.id] = c.ses
	away := []map[string]any{}
	for _, g := range s.guilds {
		away = append(away, map[string]any{"id": g.id, "unavailable": true})
	}
	s.dispatch(c.ses, "READY", map[string]any{
		"v": 10, "user": s.self, "session_id": c.ses.id, "resume_gateway_url": "ws://" + s.Addr() + "/gateway",
		"guilds": away, "application": map[string]any{"id": s.self.ID, "flags": 0},
	})
	if c.ses.intents&IntentGuilds != 0 {
		for _, g := range s.guilds {
			s.dispatch(c.ses, "GUILD_CREATE", s.showGuild(g))
		}
	}
	return 0, ""
}

func (c *gwConn) resume(data json.RawMessage) (int, string) {
	var r struct {
		Token   string `json:"token"`
		Session string `json:"session_id"`
		Seq     int64  `json:"seq"`
	}
	if json.Unmarshal(data, &r) != nil {
		return 4002, "Error while decoding payload."
	}
	s := c.s
	s.mu.Lock()
	defer s.mu.Unlock()
	s.gateway.resumes++
	s.Touch()
	ses := s.sessions[r.Session]
	switch {
	case bare(r.Token) != s.token:
		return 4004, "Authentication failed."
	case ses == nil:
		c.write(frame{Op: opInvalid, Data: false})
		return 0, ""
	case r.Seq > ses.seq:
		return 4007, "Invalid seq."
	}
	c.ses = ses
	ses.conn = c
	for _, f := range ses.log {
		if *f.Seq > r.Seq {
			c.write(f)
		}
	}
	s.dispatch(ses, "RESUMED", map[string]any{})
	return 0, ""
}

// dispatch gives an event to a session; the caller holds s.mu.
func (s *Server) dispatch(ses *gwSession, kind string, data any) {
	ses.seq++
	n := ses.seq
	// The event is what it was when it happened, so it is written down now.
	body, err := json.Marshal(data)
	if err != nil {
		return
	}
	f := frame{Op: opDispatch, Data: json.RawMessage(body), Seq: &n, Type: kind}
	if len(ses.log) < maxReplay {
		ses.log = append(ses.log, f)
	}
	if ses.conn != nil {
		ses.conn.write(f)
	}
}

// tellAll gives an event to every session with an intent; the caller holds s.mu.
func (s *Server) tellAll(intent int, kind string, data func(ses *gwSession) any) {
	for _, ses := range s.sessions {
		if intent == 0 || ses.intents&intent != 0 {
			s.dispatch(ses, kind, data(ses))
		}
	}
	s.Touch()
}

// Connected tells whether a bot has a session and a connection.
func (s *Server) Connected() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.connected()
}

func (s *Server) connected() bool {
	for c := range s.conns {
		if c.ses != nil && c.ses.conn == c {
			return true
		}
	}
	return false
}

// WaitConnected waits until a bot has a session and a connection.
func (s *Server) WaitConnected(ctx context.Context) error { return s.Until(ctx, s.connected) }

// WaitGone waits until no connection is open.
func (s *Server) WaitGone(ctx context.Context) error {
	return s.Until(ctx, func() bool { return len(s.conns) == 0 })
}

// Identifies counts the sessions that were asked for.
func (s *Server) Identifies() int { return s.counted(func(g gatewayState) int { return g.identifies }) }

// Resumes counts the resumes that were asked for.
func (s *Server) Resumes() int { return s.counted(func(g gatewayState) int { return g.resumes }) }

func (s *Server) counted(f func(gatewayState) int) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return f(s.gateway)
}

// WaitIdentifies waits until n sessions were asked for.
func (s *Server) WaitIdentifies(ctx context.Context, n int) error {
	return s.Until(ctx, func() bool { return s.gateway.identifies >= n })
}

// WaitResumes waits until n resumes were asked for.
func (s *Server) WaitResumes(ctx context.Context, n int) error {
	return s.Until(ctx, func() bool { return s.gateway.resumes >= n })
}

// WaitBeats waits until n heartbeats have come.
func (s *Server) WaitBeats(ctx context.Context, n int) error {
	return s.Until(ctx, func() bool { return s.gateway.beats >= n })
}
