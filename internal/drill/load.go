package drill

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"hermes/internal/domain"
)

// The load, light enough for any machine.
const (
	probeEvery   = 25 * time.Millisecond
	messageEvery = 100 * time.Millisecond
	probeLimit   = time.Minute // a client that waits between two lives
	// command is answered by the gateway itself, once, and changes nothing.
	command = "/title"
)

// load is programs and a person who go on while the gateway dies.
type load struct {
	o      Options
	name   string
	stop   context.CancelFunc
	work   sync.WaitGroup
	once   sync.Once
	fresh  *http.Client // a connection a request
	kept   *http.Client // kept connections
	good   atomic.Int64
	asked  atomic.Int64
	turned chan struct{} // an answer came

	mu      sync.Mutex
	refused int64
	failed  int64
	cut     int64
	last    time.Time // of the last answer
	gap     time.Duration
	rooms   []string // of messages that were accepted
}

// startLoad begins.
func startLoad(ctx context.Context, o Options, name string) *load {
	ctx, stop := context.WithCancel(ctx)
	l := &load{o: o, name: name, stop: stop, last: o.Now(), turned: make(chan struct{}, 1)}
	l.fresh = &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: probeLimit}
	l.kept = &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 1}, Timeout: probeLimit}
	if o.Address == "" {
		l.every(ctx, probeEvery, func(ctx context.Context, _ int) { l.judge(ctx, o.Ask(ctx)) })
		return l
	}
	for range 2 { // one may wait while the other sees what a new connection meets
		l.every(ctx, probeEvery, func(ctx context.Context, _ int) { l.judge(ctx, l.get(ctx, l.fresh, "/health")) })
	}
	l.every(ctx, probeEvery, func(ctx context.Context, _ int) { l.judge(ctx, l.get(ctx, l.kept, "/v1/models")) })
	l.every(ctx, messageEvery, l.say)
	return l
}

// every does something again and again until the load ends.
func (l *load) every(ctx context.Context, pause time.Duration, do func(ctx context.Context, n int)) {
	l.work.Go(func() {
		tick := time.NewTicker(pause)
		defer tick.Stop()
		for n := 0; ; n++ {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
				do(ctx, n)
			}
		}
	})
}

// end ends the load; it may be called again.
func (l *load) end() {
	l.once.Do(func() {
		l.stop()
		l.work.Wait()
		l.fresh.CloseIdleConnections()
		l.kept.CloseIdleConnections()
	})
}

// served waits until n more requests were answered.
func (l *load) served(ctx context.Context, n int64) error {
	ctx, cancel := context.WithTimeout(ctx, l.o.Patience)
	defer cancel()
	for want := l.good.Load() + n; l.good.Load() < want; {
		select {
		case <-ctx.Done():
			return domain.E(domain.Timeout, ctx.Err(), "it was asked for %s and gave %d of %d answers", l.o.Patience, n-(want-l.good.Load()), n)
		case <-l.turned:
		}
	}
	return nil
}

// get makes one request.
func (l *load) get(ctx context.Context, c *http.Client, path string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, l.o.Address+path, nil)
	if err != nil {
		return err
	}
	return l.do(c, req, http.StatusOK, nil)
}

func (l *load) do(c *http.Client, req *http.Request, status int, into any) error {
	if l.o.Key.IsSet() {
		req.Header.Set("Authorization", "Bearer "+l.o.Key.Reveal())
	}
	res, err := c.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	text, err := io.ReadAll(io.LimitReader(res.Body, 1<<20))
	if err != nil {
		return err
	}
	if res.StatusCode != status {
		return fmt.Errorf("status %d", res.StatusCode)
	}
	if into != nil {
		return json.Unmarshal(text, into)
	}
	return nil
}

// judge counts the outcome of a request.
func (l *load) judge(ctx context.Context, err error) {
	if err != nil && ctx.Err() != nil {
		return // the load's own end
	}
	l.asked.Add(1)
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case err == nil:
		now := l.o.Now()
		l.gap = max(l.gap, now.Sub(l.last))
		l.last = now
		l.good.Add(1)
		select {
		case l.turned <- struct{}{}:
		default:
		}
	case errors.Is(err, syscall.ECONNREFUSED), domain.IsCode(err, domain.NotFound): // nobody at the control socket
		l.refused++
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		l.cut++
	default:
		l.failed++
	}
}

// say sends one chat message, in a room of its own, so that its replies can be
// counted. Only what was accepted must be answered.
func (l *load) say(ctx context.Context, n int) {
	room := fmt.Sprintf("%s-%d", l.name, n)
	body, err := json.Marshal(map[string]string{"client_id": room, "room": room, "text": command})
	if err != nil {
		return
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, l.o.Address+"/chat/api/messages", bytes.NewReader(body))
	if err != nil {
		return
	}
	req.Header.Set("Content-Type", "application/json")
	req.GetBody = nil // no silent second try
	if l.do(l.fresh, req, http.StatusAccepted, nil) == nil {
		l.mu.Lock()
		l.rooms = append(l.rooms, room)
		l.mu.Unlock()
	}
}

// count puts the figures into a result, once every reply is there or the wait
// for it is over.
func (l *load) count(r *Result) {
	ctx, cancel := context.WithTimeout(context.Background(), replyLimit)
	defer cancel()
	r.Requests, r.Refused, r.Failed, r.Cut, r.Gap = l.asked.Load(), l.refused, l.failed, l.cut, l.gap.Seconds()
	r.Messages = len(l.rooms)
	for _, room := range l.rooms {
		switch n := l.replies(ctx, room); {
		case n == 0:
			r.Lost++
		case n > 1:
			r.Doubled++
		}
	}
	l.kept.CloseIdleConnections()
}

// replies waits for the reply in a room, and counts them.
func (l *load) replies(ctx context.Context, room string) int {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		var log struct {
			Entries []struct {
				Role string `json:"role"`
			} `json:"entries"`
		}
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, l.o.Address+"/chat/api/log?room="+room, nil)
		n := 0
		if err == nil && l.do(l.kept, req, http.StatusOK, &log) == nil {
			for _, e := range log.Entries {
				if e.Role == "assistant" {
					n++
				}
			}
		}
		if n > 0 {
			return n
		}
		select {
		case <-ctx.Done():
			return 0
		case <-tick.C:
		}
	}
}
