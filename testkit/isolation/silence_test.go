package isolation

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"hermes/internal/health"
	"hermes/internal/platform"
	"hermes/testkit/accounts"
	"hermes/testkit/adapter"
)

// TestABlackHoleIsSeenAndLeft lets each connection be swallowed for ten minutes:
// status must show it, and what was said meanwhile is heard once packets come
// through again.
func TestABlackHoleIsSeenAndLeft(t *testing.T) {
	for _, name := range accounts.Names() {
		if name == "webhook" { // which has no connection of its own; see TestABlackHoleOutwardsIsSeenAndLeft
			continue
		}
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { swallow(t, name) })
		})
	}
}

// The bounds, in simulated time.
const (
	seenWithin = 6 * time.Minute // the mailbox is proved every four minutes, and an answer may take its time
	leftWithin = 6 * time.Minute // the longest back-off
)

func swallow(t *testing.T, name string) {
	account, err := accounts.New(name)
	must(t, err)
	n := account.Network()
	registry := health.New(time.Now)
	part := registry.Part("platform")
	a, err := account.Connect(nil, part)
	must(t, err)
	say := account.Chat().Say
	in := adapter.NewInbox()
	ctx, cancel := context.WithCancel(t.Context())
	var run sync.WaitGroup
	run.Go(func() { supervise(ctx, a, in, part) })
	defer func() {
		cancel()
		account.Close()
		run.Wait()
	}()
	until := func(what string, limit time.Duration, ok func() bool) time.Duration {
		t.Helper()
		for began := time.Now(); ; time.Sleep(time.Second) { // simulated
			if ok() {
				return time.Since(began)
			}
			if time.Since(began) > limit {
				t.Fatalf("not within %s: %s\nstatus: %+v\nheard: %q", limit, what, registry.Parts(), adapter.Texts(in.Events()))
			}
		}
	}
	state := func() health.State { return registry.Parts()[0].State }
	until("it is connected", time.Minute, func() bool { return state() == health.OK })
	say("before")
	until("it hears", time.Minute, func() bool { return heard(in, "before") > 0 })
	time.Sleep(time.Minute) // of quiet, simulated

	n.BlackHole(true)
	began := time.Now()
	say("meanwhile")
	seen := until("status shows the black hole", seenWithin, func() bool { return state() != health.OK })
	shown := registry.Parts()[0]
	dials := n.Dials()
	time.Sleep(10*time.Minute - time.Since(began)) // simulated
	if state() == health.OK {
		t.Errorf("at the end of the black hole it is shown as well: %+v", registry.Parts())
	}
	if n.Dials() == dials {
		t.Error("after it was seen no new connection was tried")
	}
	if heard(in, "meanwhile") > 0 {
		t.Error("something came through the black hole")
	}
	n.BlackHole(false)
	left := until("what was said meanwhile is heard, and status shows it well", leftWithin, func() bool { return heard(in, "meanwhile") > 0 && state() == health.OK })
	say("after")
	until("it hears again", time.Minute, func() bool { return heard(in, "after") > 0 })
	for _, text := range []string{"before", "meanwhile", "after"} {
		if heard(in, text) != 1 {
			t.Errorf("%q was accepted %d times", text, heard(in, text))
		}
	}
	t.Logf("shown after %s as %s %s, heard again %s after it had ended", seen, shown.State, shown.Code, left)
}

// supervise runs the adapter again when it gives up, as the gateway does.
func supervise(ctx context.Context, a platform.Adapter, in *adapter.Inbox, part *health.Reporter) {
	for pause := time.Second; ctx.Err() == nil; pause = min(2*pause, 5*time.Minute) {
		err := a.Run(ctx, in)
		if ctx.Err() != nil || err == nil {
			return
		}
		e := platform.AsError(err)
		part.Degraded(e.Code, e.Reason)
		select {
		case <-time.After(pause):
		case <-ctx.Done():
		}
	}
}

// heard counts the events that say a text.
func heard(in *adapter.Inbox, text string) (n int) {
	for _, e := range in.Events() {
		if lastWord(e.Text) == text {
			n++
		}
	}
	return n
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
