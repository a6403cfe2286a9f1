package clock

import (
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// A machine that slept: the wall moved by an hour while the monotonic clock
// moved by one slice. The sliced wait must notice after that slice.
func TestSlicedWaitNoticesASetClock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		var jump atomic.Int64
		now := func() time.Time { return time.Now().Add(time.Duration(jump.Load())).Round(0) }
		until := now().Add(time.Hour)
		time.AfterFunc(time.Second, func() { jump.Store(int64(2 * time.Hour)) })
		if err := waitSliced(context.Background(), now, until); err != nil {
			t.Fatal(err)
		}
		if waited := time.Since(begin); waited > slice {
			t.Errorf("noticed after %v, want at most %v", waited, slice)
		}
	})
}

func TestSlicedWaitEndsWhenTheClockIsSetBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		var jump atomic.Int64
		now := func() time.Time { return time.Now().Add(time.Duration(jump.Load())).Round(0) }
		time.AfterFunc(time.Second, func() { jump.Store(int64(-2 * time.Hour)) })
		if err := waitSliced(context.Background(), now, now().Add(time.Hour)); err != nil {
			t.Fatal(err)
		}
		if waited := time.Since(begin); waited > slice {
			t.Errorf("noticed after %v, want at most %v", waited, slice)
		}
	})
}

func TestSlicedWaitEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := waitSliced(ctx, time.Now, time.Now().Add(time.Hour)); err != context.DeadlineExceeded {
			t.Errorf("got %v", err)
		}
	})
}
