package gateway

import (
	"context"
	"time"

	"hermes/internal/clock"
)

// longSleep is how long the machine must have been suspended for its connections
// to count as lost. A shorter sleep is no more than a slow network.
const longSleep = 30 * time.Second

// watchSleep makes the connections anew when the machine has slept: the other
// side and the routers in between have forgotten them, and nothing else tells so
// before a poll or a heartbeat has run into its limit, which does not count the
// sleep.
func (g *Gateway) watchSleep(ctx context.Context) {
	clock.Watch(ctx, func(slept, _ time.Duration) { g.slept(slept) })
}

// slept is told that the machine was suspended for so long.
func (g *Gateway) slept(d time.Duration) {
	if d < longSleep {
		return
	}
	g.Log.Info("the machine slept; the connections to the platforms are made anew", "for", d.Round(time.Second).String())
	for _, l := range g.links {
		if l.exclusive() { // the others only listen
			l.renew()
		}
	}
}

// renew ends the present connection, or the pause before the next; run connects
// again at once.
func (l *link) renew() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.again != nil {
		l.renewed = true
		l.again()
	}
}

// renewable gives a context that renew ends. done must be called; it tells
// whether renew has ended it.
func (l *link) renewable(ctx context.Context) (_ context.Context, done func() (renewed bool)) {
	ctx, cancel := context.WithCancel(ctx)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.again, l.renewed = cancel, false
	return ctx, func() bool {
		cancel()
		l.mu.Lock()
		defer l.mu.Unlock()
		l.again = nil
		return l.renewed
	}
}
