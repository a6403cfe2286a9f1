package delivery

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"hermes/internal/domain"
)

func TestStopFinishesWhatIsBeingSent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(nil)
		a := &script{name: "p", do: func(context.Context, int, sent) error { time.Sleep(5 * time.Second); return nil }}
		b.d.Attach(a)
		_ = b.d.Start(t.Context())
		b.send("1", "a", "b")
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		if err := b.d.Stop(ctx); err != nil {
			t.Errorf("stop: %v", err)
		}
		if b.store.row(1).State != domain.DeliverySent || b.store.row(2).State != domain.DeliveryPending {
			t.Errorf("after stop: %s, %s", b.store.row(1).State, b.store.row(2).State)
		}
		if err := b.d.Check(t.Context()); !domain.IsCode(err, domain.Conflict) {
			t.Errorf("check after stop: %v", err)
		}
	})
}

func TestStopCutsOffAtItsLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(nil)
		a := &script{name: "p", do: func(ctx context.Context, _ int, _ sent) error { <-ctx.Done(); return ctx.Err() }}
		b.d.Attach(a)
		_ = b.d.Start(t.Context())
		b.send("1", "a")
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := b.d.Stop(ctx); !domain.IsCode(err, domain.Timeout) {
			t.Errorf("stop: %v", err)
		}
		if d := b.store.row(1); d.State != domain.DeliveryRetrying || !d.Uncertain {
			t.Errorf("delivery: %+v", d)
		}
	})
}

func TestCheckAnswers(t *testing.T) {
	inBubble(t, nil, &script{}, func(t *testing.T, b *bench) {
		if err := b.d.Check(t.Context()); err != nil {
			t.Error(err)
		}
	})
	b := newBench(nil) // never started: nobody answers
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := b.d.Check(ctx); !domain.IsCode(err, domain.Cancelled) {
		t.Errorf("check of what does not run: %v", err)
	}
	if err := b.d.Stop(t.Context()); err != nil {
		t.Errorf("stop of what does not run: %v", err)
	}
}
