// Package clocktest is a wall clock for tests, which moves only when told to.
package clocktest

import (
	"context"
	"sync"
	"time"
)

// Clock is a clock.Wall that tests set. It is safe for concurrent use.
type Clock struct {
	mu      sync.Mutex
	now     time.Time
	waiting map[*waiter]struct{}
	changed chan struct{} // closed and replaced whenever somebody begins to wait
}

type waiter struct {
	until time.Time
	wake  chan struct{}
}

// New makes a clock that shows t.
func New(t time.Time) *Clock {
	return &Clock{now: t.Round(0), waiting: map[*waiter]struct{}{}, changed: make(chan struct{})}
}

// Now is what the clock shows.
func (c *Clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

// Set sets the clock, forward or back, and wakes whoever waited for that.
func (c *Clock) Set(t time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	back := t.Before(c.now)
	c.now = t.Round(0)
	for w := range c.waiting {
		if back || !c.now.Before(w.until) {
			close(w.wake)
			delete(c.waiting, w)
		}
	}
}

// Advance moves the clock by d.
func (c *Clock) Advance(d time.Duration) { c.Set(c.Now().Add(d)) }

// WaitUntil waits until the clock was set to t or later.
func (c *Clock) WaitUntil(ctx context.Context, t time.Time) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	c.mu.Lock()
	if !c.now.Before(t) {
		c.mu.Unlock()
		return nil
	}
	w := &waiter{until: t, wake: make(chan struct{})}
	c.waiting[w] = struct{}{}
	close(c.changed)
	c.changed = make(chan struct{})
	c.mu.Unlock()
	select {
	case <-w.wake:
		return nil
	case <-ctx.Done():
		c.mu.Lock()
		delete(c.waiting, w)
		c.mu.Unlock()
		return ctx.Err()
	}
}

// Waiting blocks until somebody waits for an instant for which ok holds, and
// returns it. It fails with ctx's error.
func (c *Clock) Waiting(ctx context.Context, ok func(until time.Time) bool) (time.Time, error) {
	for {
		c.mu.Lock()
		for w := range c.waiting {
			if ok(w.until) {
				c.mu.Unlock()
				return w.until, nil
			}
		}
		changed := c.changed
		c.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
			return time.Time{}, ctx.Err()
		}
	}
}
