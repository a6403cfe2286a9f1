// Package intake hands what an adapter received to the sink that commits it, and
// keeps on while nothing can be stored: what was not committed is never
// acknowledged, and an event that can never be stored does not block the others.
package intake

import (
	"context"
	"log/slog"
	"time"

	"hermes/internal/domain"
	"hermes/internal/health"
	"hermes/internal/platform"
)

// Intake is the way of one connected account into a sink. It is used by one
// goroutine at a time.
type Intake struct {
	Sink   platform.Sink
	What   string // what waits while nothing can be stored, for people: "messages from Slack wait, because they cannot be stored"
	Log    *slog.Logger
	Health *health.Reporter
	Scrub  func(error) error // takes the account's secrets out of an error
	Now    func() time.Time

	First, Most time.Duration // between attempts; the pause doubles from the one to the other

	// Waiting is told when something begins to wait, once for each attempt, and
	// that nothing does any more; may be nil.
	Waiting func(bool)
	// Stored is told what was committed, after each commit; may be nil.
	Stored func(events []domain.Inbound)
}

// Accept commits events with the position behind them ("" keeps the stored one),
// and again until the sink has done so. An event that the sink refuses by itself
// (domain.Invalid, domain.TooLarge) is left out, and the log says so. It returns
// the sink's error when ctx has ended, and when the account is another process's by
// now (domain.Fenced): nothing may be acknowledged then.
func (i Intake) Accept(ctx context.Context, account string, events []domain.Inbound, cursor string) error {
	wait, waited := i.First, false
	for {
		err := i.Sink.Accept(ctx, account, events, cursor)
		if err == nil {
			i.stored(events, waited)
			return nil
		}
		code := domain.CodeOf(err)
		switch {
		case ctx.Err() != nil, code == domain.Fenced:
			return err
		case code == domain.Invalid, code == domain.TooLarge:
			// Trying the same again cannot help, and must not block what follows.
			if len(events) > 1 {
				return i.acceptEach(ctx, account, events, cursor)
			}
			if len(events) == 0 {
				return nil
			}
			i.Log.Error("an event that cannot be stored was left out", "event", events[0].EventID, "error", i.Scrub(err))
			if events = nil; cursor == "" {
				return nil
			}
			continue
		}
		if waited = true; i.Waiting != nil {
			i.Waiting(true)
		}
		i.Health.Degraded(string(code), i.What+": "+domain.MessageOf(err)+"; none is lost")
		i.Log.Warn("messages could not be stored; they are tried again", "events", len(events), "error", i.Scrub(err), "wait", wait)
		if !platform.Sleep(ctx, wait) {
			return err
		}
		wait = min(2*wait, i.Most)
	}
}

// acceptEach finds the event that the sink refuses; the others are stored.
func (i Intake) acceptEach(ctx context.Context, account string, events []domain.Inbound, cursor string) error {
	for n := range events {
		at := ""
		if n == len(events)-1 {
			at = cursor
		}
		if err := i.Accept(ctx, account, events[n:n+1], at); err != nil {
			return err
		}
	}
	return nil
}

// stored notes the evidence.
func (i Intake) stored(events []domain.Inbound, waited bool) {
	if waited && i.Waiting != nil {
		i.Waiting(false)
	}
	if len(events) > 0 {
		i.Health.Note("last_event", i.Now().UTC().Format(time.RFC3339))
	}
	if i.Stored != nil {
		i.Stored(events)
	}
}
