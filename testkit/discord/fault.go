package discord

import (
	"net/http"
	"strconv"
	"time"

	"hermes/testkit/fault"
)

// TooMany is a refusal by the rate limit of a route, or of the whole bot,
// https://discord.com/developers/docs/topics/rate-limits#exceeding-a-rate-limit.
func TooMany(seconds float64, global bool) fault.Fault {
	return refused(refusal{status: http.StatusTooManyRequests, RetryAfter: seconds, Global: global, Message: "You are being rate limited."})
}

// SlowMode is the refusal of a channel in which one may not write so often.
func SlowMode(seconds float64) fault.Fault {
	return refused(refusal{status: http.StatusBadRequest, Code: 20016, Message: "slowmode", RetryAfter: seconds})
}

func refused(r refusal) fault.Fault {
	return fault.Answer(func(w http.ResponseWriter) { tell(w, r) })
}

// misbehave writes a fault's answer, whose Code is a JSON error code.
func misbehave(w http.ResponseWriter, f fault.Fault) {
	code, _ := strconv.Atoi(f.Code) // "" is none
	tell(w, refusal{status: f.Status, Code: code, Message: f.Message, RetryAfter: f.RetryAfter})
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
func (s *Server) DropAcks(on bool) { s.change(func(g *gatewayState) { g.deaf = on }) }

// Silence is a black hole: connections stay open, and nothing comes any more,
// not even hello.
func (s *Server) Silence(on bool) { s.change(func(g *gatewayState) { g.silent = on }) }

// RefuseIntents makes the gateway close with 4014 what asks for them.
func (s *Server) RefuseIntents(mask int) { s.change(func(g *gatewayState) { g.refused = mask }) }

// LimitSessions sets how many sessions the bot may begin,
// https://discord.com/developers/docs/events/gateway#session-start-limit.
func (s *Server) LimitSessions(n int) { s.change(func(g *gatewayState) { g.remaining = n }) }

func (s *Server) change(f func(*gatewayState)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f(&s.gateway)
	s.Touch()
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
