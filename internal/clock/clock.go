// Package clock waits for instants of the wall clock. Go's own timers run on
// the monotonic clock: they stand still while the machine sleeps and do not
// notice that somebody set the time, so that "at 09:00" drifts. A Wall waits
// for what the clock on the wall shows.
package clock

import (
	"context"
	"time"
)

// Wall is a wall clock. Implementations are safe for concurrent use.
type Wall interface {
	// Now is the wall time, without a monotonic reading.
	Now() time.Time
	// WaitUntil returns nil as soon as the wall clock shows t or later, at once
	// when it already does. A suspend of the machine is taken into account. When
	// the clock is set back meanwhile it returns nil early, so that the caller
	// can think again about what it waits for. It returns ctx's error when ctx
	// ends first.
	WaitUntil(ctx context.Context, t time.Time) error
}

// System is the machine's wall clock.
func System() Wall { return system{} }

type system struct{}

// Now strips the monotonic reading, so that comparisons use the wall time.
func (system) Now() time.Time { return time.Now().Round(0) }

// WaitUntil waits with the best means that the operating system has.
func (s system) WaitUntil(ctx context.Context, t time.Time) error {
	return waitUntil(ctx, s.Now, t)
}

// slice bounds one monotonic sleep where nothing tells that the clock was set.
const slice = 30 * time.Second

// setBack is by how much a clock must go back to count as set.
const setBack = time.Second

// waitSliced waits in slices and looks at the wall clock after each.
func waitSliced(ctx context.Context, now func() time.Time, t time.Time) error {
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		before := now()
		left := t.Sub(before)
		if left <= 0 {
			return nil
		}
		timer := time.NewTimer(min(left, slice))
		select {
		case <-ctx.Done():
			timer.Stop()
			return ctx.Err()
		case <-timer.C:
		}
		if now().Before(before.Add(-setBack)) {
			return nil
		}
	}
}
