// Package reconnect keeps the connection to a platform alive: it counts what
// fails, shows it, waits and lets the adapter try again.
package reconnect

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"strconv"
	"time"

	"hermes/internal/health"
	"hermes/internal/platform"
)

// Line is one connection, over all its attempts. It belongs to one goroutine.
type Line struct {
	Service string // as people call it: "Slack"
	Health  *health.Reporter
	Log     *slog.Logger

	First, Most time.Duration // of the back-off after a failure
	Failures    int           // in a row before the connection is given up
	// Cut, unless it is nil, closes what is kept open: a connection that went
	// deaf must not be asked again.
	Cut func()

	up       bool
	failures int // in a row
	ups      int
}

// Run lets session connect and serve again and again, until ctx ends (nil), its
// error is none of the platform's (which is returned: it is the sink's), or the
// connection is given up (Down).
func (l *Line) Run(ctx context.Context, session func(context.Context) error) error {
	for ctx.Err() == nil {
		err := session(ctx)
		if ctx.Err() != nil {
			return nil //nolint:nilerr // it was asked to end
		}
		var e *platform.Error
		if !errors.As(err, &e) {
			return err
		}
		if err := l.Down(ctx, e); err != nil {
			return err
		}
	}
	return nil
}

// Up records a proof of life of the connection.
func (l *Line) Up() {
	if l.failures > 0 {
		l.Log.Info(l.Service+" answers again", "failures", l.failures)
	}
	if !l.up {
		l.Renewed()
	}
	l.failures, l.up = 0, true
	l.Health.OK()
}

// IsUp tells whether there was a proof of life since the last failure.
func (l *Line) IsUp() bool { return l.up }

// Renewed counts a connection that took the place of another in good order.
func (l *Line) Renewed() {
	l.ups++
	l.Health.Note("reconnects", strconv.Itoa(l.ups-1))
}

// Down shows a failure and waits before the next attempt. It returns the error
// when there is to be none: the credentials are refused, or it failed Failures
// times in a row.
func (l *Line) Down(ctx context.Context, e *platform.Error) error {
	l.Failed()
	if e.Kind == platform.BadCredentials || l.Spent() {
		return e
	}
	l.Wait(ctx, e, max(l.Backoff(), e.RetryAfter))
	return nil
}

// Failed counts a failure. Whoever decides by itself what comes of it calls
// Failed, Spent and Wait in place of Down.
func (l *Line) Failed() {
	l.failures++
	l.up = false
	if l.Cut != nil {
		l.Cut()
	}
}

// Spent tells whether it has failed too often.
func (l *Line) Spent() bool { return l.failures >= l.Failures }

// Wait shows a failure and waits.
func (l *Line) Wait(ctx context.Context, e *platform.Error, wait time.Duration) {
	l.Health.Degraded(e.Code, e.Reason)
	l.Log.Warn(l.Service+" is not heard", "code", e.Code, "reason", e.Reason, "cause", e.Cause, "attempt", l.failures, "wait", wait)
	platform.Sleep(ctx, wait)
}

// Backoff is the pause after the failures so far.
func (l *Line) Backoff() time.Duration { return Backoff(l.First, l.Most, l.failures) }

// Backoff doubles from the first pause to the longest, less up to a quarter by
// chance, so that many accounts do not return in step.
func Backoff(first, most time.Duration, failures int) time.Duration {
	d := min(first<<min(max(failures-1, 0), 16), most)
	return d - time.Duration(rand.Int64N(int64(d)/4+1))
}
