package slack

import (
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"time"

	"github.com/coder/websocket"
)

// sendQueue is how many frames wait for a slow client before it is let go.
const sendQueue = 4096

// maxConnections is how many a real app may have.
const maxConnections = 10

// socket is one connection of Socket Mode. Its fields are guarded by Server.mu.
type socket struct {
	conn    *websocket.Conn
	out     chan []byte
	leaving bool // it was told to go, and gets no more
}

// envelope is one event, press or command on its way.
type envelope struct {
	Type     string `json:"type"`
	ID       string `json:"envelope_id"`
	Payload  any    `json:"payload"`
	Answers  bool   `json:"accepts_response_payload"`
	Attempt  int    `json:"retry_attempt,omitempty"`
	Reason   string `json:"retry_reason,omitempty"`
	timer    *time.Timer
	finished bool
}

// maxRedeliveries is how often an event comes again,
// https://docs.slack.dev/apis/events-api/#retries.
const maxRedeliveries = 3

// openConnection is https://docs.slack.dev/reference/methods/apps.connections.open.
func (s *Server) openConnection(url.Values) (answer, string) {
	if len(s.sockets) >= maxConnections {
		return nil, "too_many_websockets"
	}
	ticket := s.newID("K")
	s.tickets[ticket] = true
	return answer{"url": "ws://" + s.Addr() + "/link/?ticket=" + ticket + "&app_id=" + appID}, ""
}

func (s *Server) websocket(w http.ResponseWriter, r *http.Request) {
	s.Serve(w, r, "socket", "", func(w http.ResponseWriter) { s.serveSocket(w, r) })
}

func (s *Server) serveSocket(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	ticket := r.URL.Query().Get("ticket")
	known := s.tickets[ticket]
	delete(s.tickets, ticket)
	mute := s.mute
	s.mu.Unlock()
	if !known {
		http.Error(w, "invalid ticket", http.StatusForbidden)
		return
	}
	conn, err := websocket.Accept(w, r, &websocket.AcceptOptions{InsecureSkipVerify: true, OnPingReceived: func(context.Context, []byte) bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.Count("ping")
		return !s.mute
	}})
	if err != nil {
		return
	}
	defer conn.CloseNow()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	k := &socket{conn: conn, out: make(chan []byte, sendQueue)}
	s.mu.Lock()
	s.sockets = append(s.sockets, k)
	s.opened++
	s.push(k, map[string]any{"type": "hello", "num_connections": len(s.sockets), "connection_info": map[string]any{"app_id": appID},
		"debug_info": map[string]any{"host": "applink-fake", "started": s.o.Now().UTC().Format(time.DateTime), "build_number": 1, "approximate_connection_time": 18060}})
	s.Touch()
	s.mu.Unlock()
	written := make(chan struct{})
	go func() {
		defer close(written)
		k.write(ctx, s.o.PingEvery, !mute)
		conn.CloseNow() // as Slack does with one that does not answer its ping
	}()
	for s.takeAck(ctx, k) {
	}
	s.mu.Lock()
	s.sockets = slices.DeleteFunc(s.sockets, func(o *socket) bool { return o == k })
	s.Touch()
	s.mu.Unlock()
	cancel()
	conn.CloseNow()
	<-written
}

// write sends what is queued, and pings as Slack does.
func (k *socket) write(ctx context.Context, pingEvery time.Duration, pings bool) {
	tick := time.NewTicker(pingEvery)
	defer tick.Stop()
	for {
		var b []byte
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		case b = <-k.out:
		}
		wctx, cancel := context.WithTimeout(ctx, 10*time.Second)
		var err error
		switch {
		case b != nil:
			err = k.conn.Write(wctx, websocket.MessageText, b)
		case pings:
			err = k.conn.Ping(wctx)
		}
		cancel()
		if err != nil {
			return
		}
	}
}

// takeAck reads one acknowledgement; false when the connection has ended.
func (s *Server) takeAck(ctx context.Context, k *socket) bool {
	_, b, err := k.conn.Read(ctx)
	if err != nil {
		return false
	}
	var in struct {
		ID string `json:"envelope_id"`
	}
	if json.Unmarshal(b, &in) != nil {
		return true
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if e := s.waiting[in.ID]; e != nil {
		s.finish(e)
		s.acked = append(s.acked, in.ID)
		s.Touch()
	}
	return true
}

// finish ends an envelope's time; the caller holds s.mu.
func (s *Server) finish(e *envelope) {
	e.finished = true
	e.timer.Stop()
	delete(s.waiting, e.ID)
}

// deliver sends an envelope to a connection, if there is one, and again while
// it is not acknowledged; the caller holds s.mu. It gives the envelope's id.
func (s *Server) deliver(kind string, payload any) string {
	e := &envelope{Type: kind, ID: "e-" + s.newID("E"), Payload: payload, Answers: kind != "events_api"}
	s.attempt(e)
	return e.ID
}

// attempt sends an envelope once; the caller holds s.mu. Only events come again.
func (s *Server) attempt(e *envelope) {
	var to *socket
	for _, k := range s.sockets {
		if !k.leaving {
			to = k
		}
	}
	if to == nil {
		return // it is in the history, if anywhere
	}
	s.push(to, e)
	s.waiting[e.ID] = e
	e.timer = time.AfterFunc(s.o.RedeliverAfter, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if e.finished || s.Closed() {
			return
		}
		s.finish(e)
		if e.Type == "events_api" && e.Attempt < maxRedeliveries {
			again := &envelope{Type: e.Type, ID: "e-" + s.newID("E"), Payload: e.Payload, Attempt: e.Attempt + 1, Reason: "timeout"}
			s.attempt(again)
		}
		s.Touch()
	})
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

// PushRaw sends a frame as it is to every connection.
func (s *Server) PushRaw(frame string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, k := range s.sockets {
		k.out <- []byte(frame)
	}
}

// Disconnect tells every connection to go, for a reason: warning,
// refresh_requested or link_disabled. They get no events any more and are
// closed when their client closes them, or by CutLeaving.
func (s *Server) Disconnect(reason string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, k := range s.sockets {
		k.leaving = true
		s.push(k, map[string]any{"type": "disconnect", "reason": reason, "debug_info": map[string]any{"host": "applink-fake"}})
	}
}

// CutLeaving closes the connections that were told to go.
func (s *Server) CutLeaving() { s.cutSockets(func(k *socket) bool { return k.leaving }) }

// CutSockets ends every connection without a word.
func (s *Server) CutSockets() { s.cutSockets(func(*socket) bool { return true }) }

func (s *Server) cutSockets(which func(*socket) bool) {
	s.mu.Lock()
	var gone []*socket
	for _, k := range s.sockets {
		if which(k) {
			gone = append(gone, k)
		}
	}
	s.mu.Unlock()
	for _, k := range gone {
		k.conn.CloseNow()
	}
}

// MutePings makes the server neither answer pings nor send any on new
// connections, or do so again.
func (s *Server) MutePings(mute bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mute = mute
}

// Silence makes the connections a black hole: they stay open and say nothing,
// new ones too.
func (s *Server) Silence(on bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.silent = on
}

// Sockets is how many connections are open.
func (s *Server) Sockets() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.sockets)
}

// WaitSockets waits until n connections have ever been let in.
func (s *Server) WaitSockets(ctx context.Context, n int) error {
	return s.Until(ctx, func() bool { return s.opened >= n })
}

// Acked is how many envelopes were acknowledged.
func (s *Server) Acked() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.acked)
}

// WaitAcked waits until n envelopes were acknowledged.
func (s *Server) WaitAcked(ctx context.Context, n int) error {
	return s.Until(ctx, func() bool { return len(s.acked) >= n })
}

// WaitAck waits until an envelope was acknowledged.
func (s *Server) WaitAck(ctx context.Context, envelope string) error {
	return s.Until(ctx, func() bool { return slices.Contains(s.acked, envelope) })
}

func itoa(n int) string { return strconv.Itoa(n) }
