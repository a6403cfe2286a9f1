package gateway

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"hermes/internal/platform"
	"hermes/internal/platform/telegram"
)

// absent is an adapter whose connection lives until its context ends, or fails at
// once with an hour to wait.
type absent struct {
	*crashing
	runs  chan struct{}
	fails bool
}

func (a *absent) Run(ctx context.Context, _ platform.Sink) error {
	select {
	case a.runs <- struct{}{}:
	case <-ctx.Done():
		return nil
	}
	if a.fails {
		return &platform.Error{Kind: platform.Retry, Code: "gone", Reason: "nobody is there", RetryAfter: time.Hour}
	}
	<-ctx.Done()
	return nil
}

// After a long sleep of the machine nobody waits for a connection that the other
// side has forgotten, nor for the end of a pause that began before.
func TestALongSleepRenewsConnections(t *testing.T) {
	for name, fails := range map[string]bool{"a connection": false, "a pause": true} {
		t.Run(name, func(t *testing.T) {
			a := &absent{crashing: newCrashing(), runs: make(chan struct{}, 16), fails: fails}
			s := newSetup(t, nil, "")
			var l *link
			s.serve(func(g *Gateway) {
				l = &link{name: telegram.Name, adapter: a, part: g.health.Part("platform.telegram"), log: g.Log, g: g}
				g.attach(l)
			})
			connects := func() bool {
				select {
				case <-a.runs:
					return true
				default:
					return false
				}
			}
			s.until("it connects", connects)
			for range 3 {
				s.until("it connects again", func() bool {
					l.renew()
					return connects()
				})
			}
		})
	}
}

// A short sleep, and what only listens, are left alone.
func TestWhatASleepLeavesAlone(t *testing.T) {
	g := &Gateway{}
	renewed := func(scope string, slept time.Duration) bool {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		l := &link{kind: kind{scope: scope}}
		g.links = []*link{l}
		g.Log = slog.New(slog.DiscardHandler)
		connection, done := l.renewable(ctx)
		g.slept(slept)
		return done() && connection.Err() != nil
	}
	if !renewed("a-token", time.Hour) {
		t.Error("an hour asleep, and the connection stands")
	}
	if renewed("a-token", longSleep-1) {
		t.Error("a nap cut the connection")
	}
	if renewed("", time.Hour) {
		t.Error("what only listens was stopped")
	}
}
