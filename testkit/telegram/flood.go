package telegram

import (
	"fmt"
	"net/http"
	"time"
)

// Limits is flood control. Zero fields do not limit.
type Limits struct {
	Chat      int // messages to one chat within ChatIn
	ChatIn    time.Duration
	Group     int // messages to one group within a minute
	PerSecond int // messages to all chats within a second
}

// RealLimits are those of
// https://core.telegram.org/bots/faq#my-bot-is-hitting-limits-how-do-i-avoid-this:
// about one message a second to a chat with short bursts let through, twenty a
// minute to a group, about thirty a second over all.
func RealLimits() Limits {
	return Limits{Chat: 5, ChatIn: 4 * time.Second, Group: 20, PerSecond: 30}
}

// SetLimits switches flood control on or, with a zero value, off.
func (s *Server) SetLimits(l Limits) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.limits = l
	s.sent = window{}
	for _, c := range s.chats {
		c.sent = window{}
	}
}

// window holds the instants of the latest sends.
type window struct{ at []time.Time }

// full tells whether n sends lie within the span, and how long until one fits.
func (w *window) full(now time.Time, n int, span time.Duration) (wait time.Duration, full bool) {
	if n <= 0 || len(w.at) < n {
		return 0, false
	}
	free := w.at[len(w.at)-n].Add(span)
	return free.Sub(now), free.After(now)
}

func (w *window) add(now time.Time, keep int) {
	w.at = append(w.at, now)
	if len(w.at) > 2*keep+64 {
		w.at = append(w.at[:0:0], w.at[len(w.at)-keep-1:]...)
	}
}

// flood refuses a message that is over the limits; the caller holds s.mu.
func (s *Server) flood(c *chatState) *apiError {
	l := s.limits
	if l == (Limits{}) {
		return nil
	}
	now := s.now()
	for _, k := range []struct {
		w    *window
		n    int
		span time.Duration
	}{
		{&s.sent, l.PerSecond, time.Second},
		{&c.sent, l.Chat, l.ChatIn},
		{&c.sent, l.Group * groupOnly(c), time.Minute},
	} {
		if wait, full := k.w.full(now, k.n, k.span); full {
			s.floods++
			return tooMany(int((wait + time.Second - 1) / time.Second))
		}
	}
	s.sent.add(now, l.PerSecond)
	c.sent.add(now, max(l.Chat, l.Group))
	return nil
}

func groupOnly(c *chatState) int {
	if c.Type == "private" {
		return 0
	}
	return 1
}

func tooMany(seconds int) *apiError {
	e := &apiError{Code: http.StatusTooManyRequests, Description: fmt.Sprintf("Too Many Requests: retry after %d", seconds)}
	e.Parameters.RetryAfter = seconds
	return e
}
