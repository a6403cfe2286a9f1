// Package intake brings what an adapter received into the ledger, and holds on
// until it is there.
package intake

import (
	"context"
	"log/slog"
	"time"

	"hermes/internal/domain"
	"hermes/internal/health"
	"hermes/internal/platform"
)

// Intake is the way from one connection to the sink. Its fields are constant
// while it is used; it is as safe for concurrent use as the functions in it.
type Intake struct {
	Sink    platform.Sink
	Service string // as people call it: "Slack"
	Health  *health.Reporter
	Log     *slog.Logger
	Now     func() time.Time
	Scrub   func(error) error // takes credentials out of an error

	First, Most time.Duration // of the back-off while events cannot be stored

	// Stored, unless it is nil, is called after each commit with the events that
	// were in it, which may be none.
	Stored func([]domain.Inbound)
	// Stuck, unless it is nil, is told whenever events cannot be stored.
	Stuck func()
}

// Accept commits events with the position behind them ("" keeps the stored one).
// It tries again until that succeeded, so that nothing is acknowledged before;
// what can never be stored is left out, since it must not block what follows.
// The error is the sink's, when it says that another process owns the account
// (domain.Fenced) or ctx ended.
func (i *Intake) Accept(ctx context.Context, account string, events []domain.Inbound, cursor string) error {
	wait, told := i.First, false
	for len(events) > 0 || cursor != "" {
		err := i.Sink.Accept(ctx, account, events, cursor)
		if err == nil {
			i.stored(events, told)
			return nil
		}
		code := domain.CodeOf(err)
		switch {
		case ctx.Err() != nil, code == domain.Fenced:
			return err
		case code == domain.Invalid, code == domain.TooLarge:
			if len(events) > 1 {
				return i.each(ctx, account, events, cursor)
			}
			if len(events) == 0 {
				return nil // nobody waits for a position
			}
			i.Log.Error("an event that cannot be stored was left out", "event", events[0].EventID, "error", i.Scrub(err))
			events = nil
			continue
		}
		if i.Stuck != nil {
			i.Stuck()
		}
		i.Health.Degraded(string(code), "messages from "+i.Service+" wait, because they cannot be stored: "+domain.MessageOf(err)+"; none is lost")
		i.Log.Warn("messages could not be stored; they are not acknowledged", "events", len(events), "error", i.Scrub(err), "wait", wait)
		if !platform.Sleep(ctx, wait) {
			return err
		}
		wait, told = min(2*wait, i.Most), true
	}
	return nil
}

// each finds the event that the sink refuses; the others are stored. The
// position moves with the last of them.
func (i *Intake) each(ctx context.Context, account string, events []domain.Inbound, cursor string) error {
	for k := range events {
		at := ""
		if k == len(events)-1 {
			at = cursor
		}
		if err := i.Accept(ctx, account, events[k:k+1], at); err != nil {
			return err
		}
	}
	return nil
}

func (i *Intake) stored(events []domain.Inbound, told bool) {
	if told { // that they wait
		i.Health.OK()
	}
	if len(events) > 0 {
		i.Health.Note("last_event", i.Now().UTC().Format(time.RFC3339))
	}
	if i.Stored != nil {
		i.Stored(events)
	}
}
