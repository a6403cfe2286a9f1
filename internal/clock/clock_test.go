package clock_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"go.uber.org/goleak"

	"hermes/internal/clock"
	"hermes/internal/clock/clocktest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestSystemWaitsForTheWall(t *testing.T) {
	w := clock.System()
	until := w.Now().Add(40 * time.Millisecond)
	if err := w.WaitUntil(t.Context(), until); err != nil {
		t.Fatal(err)
	}
	if now := w.Now(); now.Before(until) {
		t.Errorf("woke at %v, before %v", now, until)
	}
	if err := w.WaitUntil(t.Context(), w.Now().Add(-time.Hour)); err != nil {
		t.Errorf("an instant in the past: %v", err)
	}
}

func TestSystemWaitEndsWithItsContext(t *testing.T) {
	w := clock.System()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- w.WaitUntil(ctx, w.Now().Add(24*time.Hour)) }()
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want context.Canceled", err)
	}
	if err := w.WaitUntil(ctx, w.Now()); !errors.Is(err, context.Canceled) {
		t.Errorf("with a dead context: got %v, want context.Canceled", err)
	}
}

func TestFakeClock(t *testing.T) {
	begin := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	c := clocktest.New(begin)
	done := make(chan error, 1)
	go func() { done <- c.WaitUntil(t.Context(), begin.Add(time.Hour)) }()
	if _, err := c.Waiting(t.Context(), func(u time.Time) bool { return u.Equal(begin.Add(time.Hour)) }); err != nil {
		t.Fatal(err)
	}
	c.Set(begin.Add(-time.Hour)) // the waiter may think again
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	go func() { done <- c.WaitUntil(t.Context(), begin.Add(time.Hour)) }()
	if _, err := c.Waiting(t.Context(), func(u time.Time) bool { return u.Equal(begin.Add(time.Hour)) }); err != nil {
		t.Fatal(err)
	}
	c.Advance(time.Hour)
	select {
	case <-done:
		t.Fatal("it woke an hour early")
	default:
	}
	c.Advance(time.Hour)
	if err := <-done; err != nil {
		t.Error(err)
	}
}
