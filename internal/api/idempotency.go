package api

import (
	"container/list"
	"context"
	"crypto/sha256"
	"net/http"
	"sync"
	"time"
)

// Bounds of the remembered answers.
const (
	replayCount = 1000
	replayAge   = 300 * time.Second
	replayBytes = 16 << 20
)

// replayCache remembers how turns with an Idempotency-Key ended, so that a
// repeated request gets the answer and not another turn.
type replayCache struct {
	now func() time.Time

	mu    sync.Mutex
	byKey map[string]*list.Element // of *replay
	order *list.List               // oldest first
	bytes int
}

// replay is one key's turn. Its fields below done are set before done closes.
type replay struct {
	key     string
	request [sha256.Size]byte
	at      time.Time
	size    int
	done    chan struct{}
	end     turnEnd
	kept    bool
}

func newReplayCache(now func() time.Time) *replayCache {
	return &replayCache{now: now, byKey: map[string]*list.Element{}, order: list.New()}
}

// fingerprint tells requests apart.
func fingerprint(sessionKey string, body []byte) [sha256.Size]byte {
	h := sha256.New()
	h.Write([]byte(sessionKey))
	h.Write([]byte{0})
	h.Write(body)
	return [sha256.Size]byte(h.Sum(nil))
}

// join gives the key's turn, and whether the caller is the one to run it.
func (c *replayCache) join(key string, request [sha256.Size]byte) (e *replay, leads bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.trim()
	if el, ok := c.byKey[key]; ok {
		return el.Value.(*replay), false
	}
	e = &replay{key: key, request: request, at: c.now(), done: make(chan struct{})}
	c.byKey[key] = c.order.PushBack(e)
	return e, true
}

// finish publishes how the turn ended. Without keep the key is free again.
func (c *replayCache) finish(e *replay, end turnEnd, keep bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e.end, e.kept = end, keep
	if keep {
		e.size = len(end.result.Text)
		c.bytes += e.size
	} else if el, ok := c.byKey[e.key]; ok && el.Value == e {
		c.drop(el)
	}
	close(e.done)
	c.trim()
}

// trim drops what is too old or too much. Turns that still run are kept, and
// are bounded by the number of slots.
func (c *replayCache) trim() {
	limit := c.now().Add(-replayAge)
	for el := c.order.Front(); el != nil; {
		next := el.Next()
		e := el.Value.(*replay)
		if e.kept && (e.at.Before(limit) || c.order.Len() > replayCount || c.bytes > replayBytes) {
			c.drop(el)
		}
		el = next
	}
}

func (c *replayCache) drop(el *list.Element) {
	e := c.order.Remove(el).(*replay)
	delete(c.byKey, e.key)
	if e.kept {
		c.bytes -= e.size
	}
}

// answerOnce runs the turn, or answers with the one that ran under this key.
func (s *Server) answerOnce(ctx context.Context, a *answer) {
	for {
		e, leads := s.replays.join(a.key, a.digest)
		if leads {
			s.lead(ctx, a, e)
			return
		}
		if e.request != a.digest {
			s.fail(a.w, &apiError{status: http.StatusConflict, kind: "invalid_request_error", code: "idempotency_key_conflict",
				message: "This Idempotency-Key was used with a different request. Use a new key.", final: true})
			return
		}
		select {
		case <-e.done:
		case <-ctx.Done():
			s.counts.gone.Add(1)
			return
		}
		if e.kept {
			a.w.Header().Set("Idempotency-Replayed", "true")
			a.replay(e.end)
			return
		}
		// The one who ran it went away unanswered: run it for this one.
	}
}

// lead runs the turn and publishes its end, also when it panics.
func (s *Server) lead(ctx context.Context, a *answer, e *replay) {
	var end turnEnd
	keep := false
	defer func() { s.replays.finish(e, end, keep) }()
	end, keep = a.run(ctx)
	// What asks to be tried again later must not be answered from memory.
	keep = keep && (end.failure == nil || end.failure.retryAfter == 0)
}

// replay answers with a turn that has ended.
func (a *answer) replay(end turnEnd) {
	if !a.req.Stream {
		a.write(end)
		return
	}
	a.newStream(func() {}, end.result.Model).finish(end)
}
