package discord

import (
	"net"
	"net/http"
	"strconv"
	"time"
)

// Fault is one way to misbehave in a call. Zero fields do nothing; the fields
// that are set apply in the order in which they stand here.
type Fault struct {
	Channel string          // only calls that name this channel
	Times   int             // how often; 0 means once, below 0 until it is taken back
	Hold    <-chan struct{} // wait for this to be closed before anything else
	// BlackHole never answers: the connection stays open until the client goes,
	// the fault is taken back or the server closes.
	BlackHole bool
	Act       bool // carry the call out before failing
	Stall     bool // then wait until the client goes, and close the connection
	Cut       bool // close the connection without an answer

	Status     int     // the answer's HTTP status
	Code       int     // the JSON error code
	Message    string  // "" means the status text
	RetryAfter float64 // seconds, of a 429
	Global     bool    // of a 429
	Body       string  // in place of a JSON answer, e.g. a front end's HTML
}

// BadGateway is the answer of a front end whose server is away.
func BadGateway() Fault {
	return Fault{Status: http.StatusBadGateway, Body: "<html><head><title>502 Bad Gateway</title></head></html>"}
}

// CutBefore drops the connection; the call is not carried out.
func CutBefore() Fault { return Fault{Cut: true} }

// CutAfter carries the call out and drops the connection in place of
// answering: to the client the outcome is unknown.
func CutAfter() Fault { return Fault{Cut: true, Act: true} }

// TooMany is a refusal by the rate limit of a route, or of the whole bot,
// https://discord.com/developers/docs/topics/rate-limits#exceeding-a-rate-limit.
func TooMany(seconds float64, global bool) Fault {
	return Fault{Status: http.StatusTooManyRequests, RetryAfter: seconds, Global: global, Message: "You are being rate limited."}
}

// armed is a fault that waits for its call.
type armed struct {
	Fault
	call string // "" means any
	left int    // below 0: no end
	gone chan struct{}
}

// Fail arms a fault for a call (see Calls for their names; "" means every one).
// Faults of one call apply one after the other. The returned function takes it
// back, and lets go of what it holds.
func (s *Server) Fail(call string, f Fault) (cancel func()) {
	a := &armed{Fault: f, call: call, left: f.Times, gone: make(chan struct{})}
	if a.left == 0 {
		a.left = 1
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults = append(s.faults, a)
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		select {
		case <-a.gone:
			return
		default:
		}
		a.left = 0
		close(a.gone)
	}
}

// fault takes the fault that applies to a call, or nil.
func (s *Server) fault(call, channel string) *armed {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, f := range s.faults {
		if f.left == 0 || f.call != "" && f.call != call || f.Channel != "" && f.Channel != channel {
			continue
		}
		if f.left > 0 {
			f.left--
		}
		if f.left == 0 {
			s.faults = append(s.faults[:i:i], s.faults[i+1:]...)
		}
		return f
	}
	return nil
}

// wait holds a call as its fault says; false when it is never to be answered.
func (f *armed) wait(s *Server, r *http.Request) bool {
	hold := f.Hold
	if f.BlackHole {
		hold = make(chan struct{})
	}
	if hold == nil {
		return true
	}
	select {
	case <-hold:
		return true
	case <-f.gone:
		return true
	case <-r.Context().Done():
	case <-s.done:
	}
	return false
}

// answer writes what the fault gives in place of the call's answer.
func (f *armed) answer(w http.ResponseWriter) {
	switch {
	case f.Cut || f.Stall:
		cut(w)
	case f.Body != "":
		if f.RetryAfter > 0 {
			w.Header().Set("Retry-After", strconv.FormatFloat(f.RetryAfter, 'f', -1, 64))
		}
		w.Header().Set("Content-Type", "text/html")
		w.WriteHeader(max(f.Status, http.StatusOK))
		_, _ = w.Write([]byte(f.Body)) // the client may be gone
	default:
		tell(w, refusal{status: f.Status, Code: f.Code, Message: f.Message, RetryAfter: f.RetryAfter, Global: f.Global})
	}
}

// stall waits until nobody waits for the answer any more.
func (f *armed) stall(s *Server, r *http.Request) {
	select {
	case <-f.gone:
	case <-r.Context().Done():
	case <-s.done:
	}
}

func (f *armed) answers() bool { return f.Stall || f.Cut || f.Status != 0 || f.Body != "" }

// cut ends the connection in the middle of the exchange.
func cut(w http.ResponseWriter) {
	if h, ok := w.(http.Hijacker); ok {
		if c, _, err := h.Hijack(); err == nil {
			if t, ok := c.(*net.TCPConn); ok {
				_ = t.SetLinger(0) // a reset is nicer, a close will do
			}
			c.Close()
			return
		}
	}
	panic(http.ErrAbortHandler)
}

// gatewayState is how the gateway misbehaves, and what it counted.
type gatewayState struct {
	deaf       bool // heartbeats are not answered
	silent     bool // nothing is sent at all, hello included
	refused    int  // intents
	remaining  int  // sessions that the bot may begin
	identifies int
	resumes    int
	beats      int
}

// DropAcks makes the gateway leave heartbeats unanswered.
func (s *Server) DropAcks(on bool) { s.misbehave(func(g *gatewayState) { g.deaf = on }) }

// Silence is a black hole: connections stay open, and nothing comes any more,
// not even hello.
func (s *Server) Silence(on bool) { s.misbehave(func(g *gatewayState) { g.silent = on }) }

// RefuseIntents makes the gateway close with 4014 what asks for them.
func (s *Server) RefuseIntents(mask int) { s.misbehave(func(g *gatewayState) { g.refused = mask }) }

// LimitSessions sets how many sessions the bot may begin,
// https://discord.com/developers/docs/events/gateway#session-start-limit.
func (s *Server) LimitSessions(n int) { s.misbehave(func(g *gatewayState) { g.remaining = n }) }

func (s *Server) misbehave(f func(*gatewayState)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f(&s.gateway)
	s.touch()
}

// CloseWith closes every gateway connection with a code.
func (s *Server) CloseWith(code int) {
	for _, c := range s.open() {
		c.closeWith(code, "")
	}
}

// CutGateway drops every gateway connection without a word.
func (s *Server) CutGateway() {
	for _, c := range s.open() {
		c.cut()
	}
}

// AskReconnect sends opcode 7 on every connection.
func (s *Server) AskReconnect() {
	for _, c := range s.open() {
		c.write(frame{Op: opReconnect})
	}
}

// Invalidate sends opcode 9 on every connection; sessions that are not
// resumable are forgotten.
func (s *Server) Invalidate(resumable bool) {
	if !resumable {
		s.ForgetSessions()
	}
	for _, c := range s.open() {
		c.write(frame{Op: opInvalid, Data: resumable})
	}
}

// ForgetSessions makes every resume fail.
func (s *Server) ForgetSessions() {
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.sessions)
}

// AskHeartbeat sends opcode 1 on every connection.
func (s *Server) AskHeartbeat() {
	for _, c := range s.open() {
		c.write(frame{Op: opHeartbeat})
	}
}

func (s *Server) open() []*gwConn {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []*gwConn
	for c := range s.conns {
		out = append(out, c)
	}
	return out
}

const defaultWait = 10 * time.Second // of a write to a client
