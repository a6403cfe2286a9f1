package telegram

import (
	"context"
	"encoding/json"
	"net/http"
	"slices"
	"time"
)

// queued is an update that the bot has not confirmed.
type queued struct {
	id  int64
	raw json.RawMessage
	at  time.Time
}

// kept is how long Telegram keeps an update,
// https://core.telegram.org/bots/api#getting-updates.
const kept = 24 * time.Hour

// poller is a getUpdates that waits.
type poller struct{ taken chan struct{} }

// What getUpdates answers while somebody else receives.
const (
	conflictPoller  = "Conflict: terminated by other getUpdates request; make sure that only one bot instance is running"
	conflictWebhook = "Conflict: can't use getUpdates method while webhook is active; use deleteWebhook to delete the webhook first"
)

const longestPoll = 50 // seconds

// push queues an update of a kind; the caller holds s.mu.
func (s *Server) push(kind string, v any) int64 {
	if s.allowed != nil && !slices.Contains(s.allowed, kind) {
		return 0
	}
	s.lastUpdate++
	raw, err := json.Marshal(map[string]any{"update_id": s.lastUpdate, kind: v})
	if err != nil {
		panic(err) // a wire type that cannot be marshalled
	}
	s.queue = append(s.queue, queued{s.lastUpdate, raw, time.Now()})
	s.Touch()
	return s.lastUpdate
}

// PushUpdate queues an update of any kind and form, e.g. one that a later Bot
// API brings, and gives its id. fields must marshal to JSON.
func (s *Server) PushUpdate(kind string, fields any) int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.push(kind, fields)
}

// SkipUpdates makes the next update's id jump, as it does after a week without
// updates (https://core.telegram.org/bots/api#update).
func (s *Server) SkipUpdates(by int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lastUpdate += by
}

// Pending is the number of updates that the bot has not confirmed.
func (s *Server) Pending() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.queue)
}

// Confirmed is the highest id among the updates that the bot confirmed; 0 when
// it has confirmed none.
func (s *Server) Confirmed() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.confirmed
}

// WaitConfirmed waits until the bot has confirmed everything up to the update.
func (s *Server) WaitConfirmed(ctx context.Context, update int64) error {
	return s.Until(ctx, func() bool { return s.confirmed >= update })
}

// WaitPolling waits until a getUpdates is waiting for updates.
func (s *Server) WaitPolling(ctx context.Context) error {
	return s.Until(ctx, func() bool { return s.poller != nil })
}

// SetWebhook sets the bot's webhook, as another program would; "" deletes it.
// Nothing is ever sent to it.
func (s *Server) SetWebhook(url string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.webhook = url
	s.Touch()
}

// getUpdates is https://core.telegram.org/bots/api#getupdates. As with
// Telegram, a second poller ends the first one's wait with a conflict.
func (s *Server) getUpdates(ctx context.Context, p *params) (any, *apiError) {
	limit := int(p.number("limit"))
	if limit <= 0 || limit > 100 {
		limit = 100
	}
	var allowed []string
	if err := p.object("allowed_updates", &allowed); err != nil {
		return nil, err
	}
	deadline := time.NewTimer(time.Duration(min(p.number("timeout"), longestPoll)) * time.Second)
	defer deadline.Stop()
	me := &poller{taken: make(chan struct{})}

	s.mu.Lock()
	defer s.mu.Unlock()
	if s.poller != nil {
		close(s.poller.taken)
		s.poller = nil
	}
	if _, given := p.values["allowed_updates"]; given {
		s.allowed = allowed
		if len(allowed) == 0 {
			s.allowed = nil
		}
	}
	s.confirm(p.number("offset"))
	for expired := p.number("timeout") <= 0; ; {
		if s.webhook != "" {
			return nil, &apiError{Code: http.StatusConflict, Description: conflictWebhook}
		}
		if batch := s.batch(p.number("offset"), limit); len(batch) > 0 || expired {
			return batch, nil
		}
		s.poller = me
		s.Touch() // for WaitPolling
		changed := s.Changed()
		s.mu.Unlock()
		gone := false
		select {
		case <-changed:
		case <-deadline.C:
			expired = true
		case <-me.taken:
		case <-ctx.Done():
			gone = true
		case <-s.Done():
			gone = true
		}
		s.mu.Lock()
		if s.poller == me {
			s.poller = nil
		}
		select {
		case <-me.taken:
			return nil, &apiError{Code: http.StatusConflict, Description: conflictPoller}
		default:
		}
		if gone {
			return []json.RawMessage{}, nil
		}
	}
}

// batch gives the updates from an offset on.
func (s *Server) batch(offset int64, limit int) []json.RawMessage {
	s.queue = slices.DeleteFunc(s.queue, func(q queued) bool { return time.Since(q.at) > kept })
	out := []json.RawMessage{}
	for _, q := range s.queue {
		if q.id >= offset && len(out) < limit {
			out = append(out, q.raw)
		}
	}
	return out
}

// confirm forgets the updates before an offset; a negative one keeps that many
// of the latest. One beyond anything that was given out confirms nothing.
func (s *Server) confirm(offset int64) {
	switch {
	case offset < 0:
		s.queue = s.queue[max(0, len(s.queue)+int(offset)):]
	case offset > 0 && offset <= s.lastUpdate+1:
		i := 0
		for i < len(s.queue) && s.queue[i].id < offset {
			s.confirmed = s.queue[i].id
			i++
		}
		s.queue = s.queue[i:]
	}
	s.Touch()
}
