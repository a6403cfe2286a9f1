//go:build !linux

package clock

import (
	"context"
	"time"
)

// waitUntil waits in slices, for want of a timer on the wall clock.
func waitUntil(ctx context.Context, now func() time.Time, t time.Time) error {
	return waitSliced(ctx, now, t)
}

// watch looks in slices.
func watch(ctx context.Context, look func()) { watchSliced(ctx, look) }
