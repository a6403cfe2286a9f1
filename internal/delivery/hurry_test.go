package delivery

import (
	"context"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"hermes/internal/domain"
	"hermes/internal/platform"
)

var unreachable = &platform.Error{Kind: platform.Retry, Code: "p_unreachable", Reason: "it cannot be reached"}

// away is a platform that cannot be reached until it is back.
func away(back *atomic.Bool) *script {
	return &script{do: func(context.Context, int, sent) error {
		if !back.Load() {
			return unreachable
		}
		return nil
	}}
}

// After an outage nobody waits out a back-off that was meant for it: the first
// message that goes takes the others with it.
func TestTheFirstThatGoesTakesTheOthersWithIt(t *testing.T) {
	var back atomic.Bool
	a := away(&back)
	inBubble(t, nil, a, func(t *testing.T, b *bench) {
		for _, chat := range []string{"1", "2", "3", "4"} {
			b.send(chat, "to "+chat)
			time.Sleep(40 * time.Second)
		}
		time.Sleep(time.Hour)
		back.Store(true)
		returned := time.Now()
		time.Sleep(6 * time.Minute) // by then at least one has had its turn
		synctest.Wait()
		log := a.entries()
		if len(log) != 4 {
			t.Fatalf("%d of 4 were sent", len(log))
		}
		if spread := log[3].at.Sub(log[0].at); spread > time.Second {
			t.Errorf("the last was sent %s after the first, which was sent %s after the outage", spread, log[0].at.Sub(returned))
		}
	})
}

// A proof from the other direction does the same for one who waits alone.
func TestAConnectionThatIsBackSendsAtOnce(t *testing.T) {
	var back atomic.Bool
	a := away(&back)
	inBubble(t, nil, a, func(t *testing.T, b *bench) {
		b.send("1", "first", "second")
		time.Sleep(time.Hour)
		b.d.Hurry("p") // a connection that only seems to be back: one attempt, and the outage goes on
		synctest.Wait()
		back.Store(true)
		b.d.Hurry("another")
		b.d.Hurry("p")
		synctest.Wait()
		wantTexts(t, a, "1", "first", "second")
	})
}

// What fails for a reason of its own keeps to its back-off, whatever else goes,
// and a pause that the platform asked for is kept to.
func TestOnlyAnOutageIsCutShort(t *testing.T) {
	for name, e := range map[string]*platform.Error{
		"a fault of its own": {Kind: platform.Retry, Code: "p_500", Reason: "the server has a fault"},
		"a pause asked for":  {Kind: platform.Retry, Code: "p_429", Reason: "slow down", RetryAfter: 10 * time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			var tries atomic.Int64
			a := &script{do: func(_ context.Context, _ int, c sent) error {
				if c.to.ChatID == "bad" {
					tries.Add(1)
					return e
				}
				return nil
			}}
			inBubble(t, nil, a, func(t *testing.T, b *bench) {
				b.send("bad", "poison")
				for range 600 {
					b.send("good", "fine")
					b.d.Hurry("p")
					time.Sleep(time.Second)
				}
				if n := tries.Load(); n > 10 {
					t.Errorf("it was tried %d times in ten minutes", n)
				}
			})
		})
	}
	t.Run("a pause asked for before an outage", func(t *testing.T) {
		var back atomic.Bool
		var asked time.Time
		a := &script{do: func(_ context.Context, n int, c sent) error {
			switch {
			case c.to.ChatID == "limited" && asked.IsZero():
				asked = c.at
				return &platform.Error{Kind: platform.Retry, Code: "p_429", Reason: "slow down", RetryAfter: 10 * time.Minute}
			case c.to.ChatID == "other" && !back.Load():
				return unreachable
			}
			return nil
		}}
		inBubble(t, nil, a, func(t *testing.T, b *bench) {
			b.send("limited", "patient")
			b.send("other", "hasty")
			time.Sleep(time.Minute)
			back.Store(true)
			b.d.Hurry("p")
			time.Sleep(20 * time.Minute)
			log := a.entries()
			i := slices.IndexFunc(log, func(c sent) bool { return c.text == "patient" })
			if i < 0 || log[i].at.Sub(asked) < 10*time.Minute {
				t.Errorf("sent %+v, asked for a pause at %s", log, asked)
			}
		})
	})
}

// The ledger may be closed to it, or another may take a message meanwhile: the
// others are sent, and nothing is sent twice.
func TestAHurryThatFailsLosesNothing(t *testing.T) {
	var back atomic.Bool
	a := away(&back)
	inBubble(t, nil, a, func(t *testing.T, b *bench) {
		b.send("1", "one")
		b.send("2", "two")
		time.Sleep(time.Hour)
		b.store.failing(func(verb string) error {
			if verb == "again" {
				return domain.E(domain.Unavailable, nil, "the disk is full")
			}
			return nil
		})
		back.Store(true)
		b.d.Hurry("p")
		time.Sleep(6 * time.Minute)
		b.store.failing(nil)
		time.Sleep(6 * time.Minute)
		wantTexts(t, a, "1", "one")
		wantTexts(t, a, "2", "two")
	})
}
