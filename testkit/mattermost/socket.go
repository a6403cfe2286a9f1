package mattermost

import (
	"context"
	"encoding/json"
	"net/http"
	"time"

	"github.com/coder/websocket"
)

// sendQueue is how many frames wait for a slow client before it is let go.
const sendQueue = 4096

// socket is one websocket, https://api.mattermost.com/#tag/WebSocket. Its
// fields are guarded by Server.mu.
type socket struct {
	conn   *websocket.Conn
	out    chan []byte
	seq    int64 // of the next event
	authed bool
}

// action is what a client sends.
type action struct {
	Seq    int64          `json:"seq"`
	Action string         `json:"action"`
	Data   map[string]any `json:"data"`
}

// event is what the server sends.
type event struct {
	Event     string         `json:"event"`
	Data      map[string]any `json:"data"`
	Broadcast map[string]any `json:"broadcast"`
	Seq       int64          `json:"seq"`
}

// reply answers an action.
type reply struct {
	Status   string         `json:"status"`
	Data     map[string]any `json:"data,omitempty"`
	SeqReply int64          `json:"seq_reply"`
	Error    *apiError      `json:"error,omitempty"`
}

func (s *Server) websocket(w http.ResponseWriter, r *http.Request) {
	s.Serve(w, r, "GET /websocket", "", func(w http.ResponseWriter) { s.serveSocket(w, r) })
}

func (s *Server) serveSocket(w http.ResponseWriter, r *http.Request) {
	conn, err := websocket.Accept(w, r, nil)
	if err != nil {
		return
	}
	defer conn.CloseNow()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	k := &socket{conn: conn, out: make(chan []byte, sendQueue)}
	written := make(chan struct{})
	go func() {
		defer close(written)
		k.write(ctx)
	}()
	for s.serveAction(ctx, k) {
	}
	s.mu.Lock()
	delete(s.sockets, k)
	s.Touch()
	s.mu.Unlock()
	cancel()
	conn.CloseNow()
	<-written
}

func (k *socket) write(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case b := <-k.out:
			wctx, cancel := context.WithTimeout(ctx, 10*time.Second)
			err := k.conn.Write(wctx, websocket.MessageText, b)
			cancel()
			if err != nil {
				return
			}
		}
	}
}

// serveAction reads one action and answers it; false ends the connection, as a
// real server does when the token is wrong.
func (s *Server) serveAction(ctx context.Context, k *socket) bool {
	_, b, err := k.conn.Read(ctx)
	if err != nil {
		return false
	}
	var a action
	if json.Unmarshal(b, &a) != nil {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case a.Seq <= 0:
		s.push(k, reply{Status: "FAIL", Error: refuse(http.StatusBadRequest, "api.web_socket_router.bad_seq.app_error", "Invalid sequence for WebSocket message.")})
	case a.Action == "authentication_challenge":
		if k.authed {
			return true
		}
		if a.Data["token"] != s.token {
			return false
		}
		k.authed = true
		s.sockets[k] = true
		s.opened++
		s.Touch()
		s.emit(k, event{Event: "hello", Data: map[string]any{"connection_id": s.newID("w"), "server_version": "10.5.0"}, Broadcast: map[string]any{"user_id": s.self.ID}})
		s.push(k, reply{Status: "OK", SeqReply: a.Seq})
	case !k.authed:
		s.push(k, reply{Status: "FAIL", SeqReply: a.Seq, Error: refuse(http.StatusUnauthorized, "api.web_socket_router.not_authenticated.app_error", "WebSocket connection is not authenticated. Please log in and try again.")})
	case a.Action == "ping":
		s.Count("ping")
		if !s.mute {
			s.push(k, reply{Status: "OK", Data: map[string]any{"text": "pong", "version": "10.5.0"}, SeqReply: a.Seq})
		}
	default:
		s.push(k, reply{Status: "FAIL", SeqReply: a.Seq, Error: refuse(http.StatusBadRequest, "api.web_socket_router.bad_action.app_error", "Unknown WebSocket action.")})
	}
	return true
}

// emit sends an event with its number; the caller holds s.mu.
func (s *Server) emit(k *socket, e event) {
	e.Seq = k.seq
	k.seq++
	if e.Event != "hello" && s.lose > 0 {
		s.lose--
		return
	}
	s.push(k, e)
}

// push queues a frame; the caller holds s.mu.
func (s *Server) push(k *socket, v any) {
	b, err := json.Marshal(v)
	if err != nil || s.silent {
		return
	}
	select {
	case k.out <- b:
	default:
		go k.conn.CloseNow() // too slow
	}
}

// CutSockets ends every websocket without a word.
func (s *Server) CutSockets() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for k := range s.sockets {
		go k.conn.CloseNow()
	}
}

// LoseEvents makes the next n events get their numbers and not be sent.
func (s *Server) LoseEvents(n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lose = n
}

// MutePings makes the server leave pings unanswered, or answer them again.
func (s *Server) MutePings(mute bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mute = mute
}

// Silence makes the websockets a black hole: they stay open and say nothing,
// new ones too.
func (s *Server) Silence(on bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.silent = on
}

// Sockets is how many websockets of the bot are open.
func (s *Server) Sockets() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.sockets)
}

// WaitSockets waits until n websockets have ever been let in.
func (s *Server) WaitSockets(ctx context.Context, n int) error {
	return s.Until(ctx, func() bool { return s.opened >= n })
}
