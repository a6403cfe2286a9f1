package service

import (
	"context"
	"os"
	"slices"
	"time"

	"hermes/internal/starts"
)

// limitAnswer is how long a start that follows a death waits for its manager's
// word on how many more it allows.
const limitAnswer = time.Second

// OwnLimit tells how often the manager of this process starts it before it gives
// its unit up. A process that no unit runs has no limit; one whose manager does
// not answer has one that is not known. getenv gives the process's environment.
func OwnLimit(ctx context.Context, getenv func(string) string) starts.Limit {
	unit, system, ok := unitOf("self")
	if !ok || getenv("INVOCATION_ID") == "" {
		return starts.Limit{Known: true}
	}
	ctx, cancel := context.WithTimeout(ctx, limitAnswer)
	defer cancel()
	m, err := Open(system, getenv)
	if err != nil {
		return starts.Limit{Managed: true}
	}
	u, err := m.Show(ctx, unit)
	switch {
	case err != nil:
		return starts.Limit{Managed: true}
	case u.MainPID != 0 && u.MainPID != os.Getpid():
		return starts.Limit{Known: true} // it merely descends from some unit
	}
	return LimitOf(u)
}

// LimitOf reads a unit's limit.
func LimitOf(u Unit) starts.Limit {
	l := starts.Limit{Known: true, Burst: u.LimitBurst, Span: u.LimitSpan, Delay: u.RestartDelay, Stops: slices.Contains(u.NoRestart, "78")}
	switch u.Restart {
	case "always", "on-failure":
		l.Managed = true
	default: // a death is its end at once
		l.Burst, l.Span = 1, max(l.Span, time.Minute)
	}
	return l
}
