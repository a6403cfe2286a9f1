package delivery

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"hermes/internal/domain"
	"hermes/internal/health"
	"hermes/internal/platform"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// inBubble runs a test with a started dispatcher and one adapter, on fake time.
func inBubble(t *testing.T, change func(o *Options), a *script, fn func(t *testing.T, b *bench)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		b := newBench(change)
		if a != nil {
			if a.name == "" {
				a.name = "p"
			}
			b.d.Attach(a)
		}
		if err := b.d.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		fn(t, b)
		if err := b.d.Stop(context.Background()); err != nil {
			t.Errorf("stop: %v", err)
		}
	})
}

func wantTexts(t *testing.T, a *script, chat string, want ...string) {
	t.Helper()
	if got := a.texts(chat); !slices.Equal(got, want) {
		t.Errorf("sent to %q: %q, want %q", chat, got, want)
	}
}

func retry(after time.Duration) error {
	return &platform.Error{Kind: platform.Retry, Reason: "busy", RetryAfter: after}
}

func TestOrderIsKeptAcrossRetries(t *testing.T) {
	a := &script{do: func(_ context.Context, n int, _ sent) error {
		if n%3 != 0 {
			return retry(0)
		}
		return nil
	}}
	inBubble(t, nil, a, func(t *testing.T, b *bench) {
		b.send("1", "a", "b", "c", "d")
		time.Sleep(time.Hour)
		wantTexts(t, a, "1", "a", "b", "c", "d")
		if d := b.store.row(2); d.State != domain.DeliverySent || d.Receipt == "" || d.Attempt != 3 {
			t.Errorf("second delivery: %+v", d)
		}
	})
}

// TestWhatWaitsIsFoundAtStart covers messages of an earlier life, due and later.
func TestWhatWaitsIsFoundAtStart(t *testing.T) {
	a := &script{name: "p"}
	synctest.Test(t, func(t *testing.T) {
		b := newBench(nil)
		to := domain.Address{Platform: "p", ChatID: "1"}
		later := domain.Address{Platform: "p", ChatID: "2"}
		_, _ = b.store.Enqueue(t.Context(), []domain.NewDelivery{
			{To: to, Part: domain.Part{Text: "now"}},
			{To: later, Part: domain.Part{Text: "later"}, NotBefore: time.Now().Add(10 * time.Second)},
		}, time.Now())
		b.d.Attach(a)
		_ = b.d.Start(t.Context())
		synctest.Wait()
		wantTexts(t, a, "", "now")
		time.Sleep(10*time.Second + time.Millisecond)
		synctest.Wait()
		wantTexts(t, a, "", "now", "later")
		_ = b.d.Stop(t.Context())
	})
}

// TestLostWakeUp shows that the safety scan finds what nobody announced.
func TestLostWakeUp(t *testing.T) {
	a := &script{}
	inBubble(t, nil, a, func(t *testing.T, b *bench) {
		synctest.Wait()
		_, _ = b.store.Enqueue(t.Context(), []domain.NewDelivery{{To: domain.Address{Platform: "p", ChatID: "1"}, Part: domain.Part{Text: "x"}}}, time.Now())
		time.Sleep(scanEvery + time.Second)
		wantTexts(t, a, "1", "x")
	})
}

func TestIdleDoesNotPoll(t *testing.T) {
	reads := 0
	inBubble(t, nil, &script{}, func(t *testing.T, b *bench) {
		b.store.failing(func(string) error { reads++; return nil })
		time.Sleep(time.Hour)
		b.store.mu.Lock()
		defer b.store.mu.Unlock()
		if reads > 61 {
			t.Errorf("%d reads in an idle hour", reads)
		}
	})
}

func TestStuckChatBlocksNobody(t *testing.T) {
	var free chan struct{}
	a := &script{do: func(_ context.Context, _ int, c sent) error {
		if c.to.ChatID == "stuck" {
			<-free // also beyond the end of its context
		}
		return nil
	}}
	inBubble(t, nil, a, func(t *testing.T, b *bench) {
		free = make(chan struct{})
		b.send("stuck", "a")
		for i := range 50 {
			b.send(fmt.Sprint(i), "x")
		}
		synctest.Wait()
		if n := len(a.texts("")); n != 50 {
			t.Errorf("%d of 50 sent beside a stuck chat", n)
		}
		time.Sleep(sendTimeout + grace + time.Millisecond)
		if d := b.store.row(1); d.State != domain.DeliveryRetrying || !d.Uncertain || !strings.Contains(d.Reason, "did not answer") {
			t.Errorf("stuck delivery: %+v", d)
		}
		close(free)
	})
}

func TestSlowPlatformBlocksNoOther(t *testing.T) {
	slow := &script{name: "slow", do: func(ctx context.Context, _ int, _ sent) error { <-ctx.Done(); return ctx.Err() }}
	a := &script{}
	inBubble(t, nil, a, func(t *testing.T, b *bench) {
		b.d.Attach(slow)
		for i := range 3 * perPlatform {
			to := domain.Address{Platform: "slow", ChatID: fmt.Sprint(i)}
			_, _ = b.store.Enqueue(t.Context(), []domain.NewDelivery{{To: to, Part: domain.Part{Text: "x"}}}, time.Now())
			b.d.Wake(to)
		}
		synctest.Wait()
		if n := slow.count(); n != perPlatform {
			t.Errorf("%d sends at once, want %d", n, perPlatform)
		}
		b.send("1", "quick")
		synctest.Wait()
		wantTexts(t, a, "1", "quick")
		b.d.Detach("slow")
	})
}

func TestGlobalRetryAfterHoldsThePlatform(t *testing.T) {
	a := &script{do: func(_ context.Context, n int, _ sent) error {
		if n == 1 {
			return &platform.Error{Kind: platform.Retry, Reason: "flood", RetryAfter: 30 * time.Second, Global: true}
		}
		return nil
	}}
	inBubble(t, nil, a, func(t *testing.T, b *bench) {
		start := time.Now()
		b.send("1", "a")
		synctest.Wait()
		b.send("2", "b")
		time.Sleep(29 * time.Second)
		if n := a.count(); n != 1 {
			t.Fatalf("%d calls while the platform is held", n)
		}
		time.Sleep(2 * time.Second)
		wantTexts(t, a, "1", "a")
		wantTexts(t, a, "2", "b")
		if at := a.entries()[0].at.Sub(start); at < 30*time.Second {
			t.Errorf("sent after %s", at)
		}
	})
}

func TestChatRetryAfterHoldsItsThreads(t *testing.T) {
	a := &script{do: func(_ context.Context, n int, _ sent) error {
		if n == 1 {
			return retry(20 * time.Second)
		}
		return nil
	}}
	inBubble(t, nil, a, func(t *testing.T, b *bench) {
		b.send("1", "a")
		synctest.Wait()
		thread := domain.Address{Platform: "p", ChatID: "1", ThreadID: "7"}
		_, _ = b.store.Enqueue(t.Context(), []domain.NewDelivery{{To: thread, Part: domain.Part{Text: "t"}}}, time.Now())
		b.d.Wake(thread)
		b.send("2", "other")
		time.Sleep(10 * time.Second)
		wantTexts(t, a, "", "other")
		time.Sleep(11 * time.Second)
		if n := len(a.texts("1")); n != 2 {
			t.Errorf("%d of 2 sent after the hold", n)
		}
	})
}

func TestRates(t *testing.T) {
	a := &script{caps: platform.Capabilities{PerChatEvery: time.Second, PerGroupEvery: 3 * time.Second, Burst: 2, PerSecond: 10}}
	inBubble(t, nil, a, func(t *testing.T, b *bench) {
		start := time.Now()
		b.send("1", "a", "b", "c", "d")
		b.send("-1", "a", "b", "c", "d")
		time.Sleep(time.Minute)
		last := map[string]time.Duration{}
		for _, c := range a.entries() {
			last[c.to.ChatID] = c.at.Sub(start)
		}
		if got := last["1"]; got < 2*time.Second || got > 3*time.Second {
			t.Errorf("four messages to a chat took %s, want 2 s", got)
		}
		if got := last["-1"]; got < 6*time.Second || got > 7*time.Second {
			t.Errorf("four messages to a group took %s, want 6 s", got)
		}
		start = time.Now()
		for i := range 50 {
			b.send(fmt.Sprint("many", i), "x")
		}
		time.Sleep(time.Minute)
		log := a.entries()
		if got := log[len(log)-1].at.Sub(start); got < 3900*time.Millisecond || got > 6*time.Second {
			t.Errorf("50 messages at 10/s took %s", got)
		}
	})
}

func TestUnlimitedIgnoresRates(t *testing.T) {
	a := &script{caps: platform.Capabilities{PerChatEvery: time.Hour, PerSecond: 1}}
	inBubble(t, func(o *Options) { o.Unlimited = true }, a, func(t *testing.T, b *bench) {
		b.send("1", "a", "b", "c")
		synctest.Wait()
		wantTexts(t, a, "1", "a", "b", "c")
	})
}

func TestPanicKillsNothing(t *testing.T) {
	a := &script{do: func(_ context.Context, n int, _ sent) error {
		if n == 1 {
			panic("boom")
		}
		return nil
	}}
	inBubble(t, nil, a, func(t *testing.T, b *bench) {
		b.send("1", "a")
		time.Sleep(time.Minute)
		wantTexts(t, a, "1", repeatMark+"\na")
	})
}

// TestUnknownOutcome cuts the first attempt off and shows what comes next.
func TestUnknownOutcome(t *testing.T) {
	lost := &platform.Error{Kind: platform.Retry, Reason: "cut off", Uncertain: true}
	tests := []struct {
		name      string
		onUnknown string
		caps      platform.Capabilities
		edit      string
		fail      error
		wait      time.Duration
		want      []string
		state     domain.DeliveryState
	}{
		{name: "resend, marked", fail: lost, want: []string{repeatMark + "\na"}, state: domain.DeliverySent},
		{name: "any other error is uncertain", fail: errors.New("broken pipe"), want: []string{repeatMark + "\na"}, state: domain.DeliverySent},
		{name: "certain failure, not marked", fail: retry(0), want: []string{"a"}, state: domain.DeliverySent},
		{name: "drop", onUnknown: Drop, fail: lost, state: domain.DeliveryDead},
		{name: "always deduped", onUnknown: Drop, caps: platform.Capabilities{Idempotency: platform.IdempotencyAlways}, fail: lost, want: []string{"a"}, state: domain.DeliverySent},
		{name: "within the window", onUnknown: Drop, caps: platform.Capabilities{Idempotency: platform.IdempotencyWindow, IdempotencyFor: time.Minute}, fail: lost, want: []string{"a"}, state: domain.DeliverySent},
		{name: "after the window", caps: platform.Capabilities{Idempotency: platform.IdempotencyWindow, IdempotencyFor: time.Millisecond}, fail: lost, want: []string{repeatMark + "\na"}, state: domain.DeliverySent},
		{name: "an edit is never marked", onUnknown: Drop, edit: "7", fail: lost, want: []string{"a"}, state: domain.DeliverySent},
		{name: "no room for the mark", caps: platform.Capabilities{MaxText: 10}, fail: lost, want: []string{"a"}, state: domain.DeliverySent},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			a := &script{caps: tt.caps, do: func(_ context.Context, n int, _ sent) error {
				if n == 1 {
					return tt.fail
				}
				return nil
			}}
			inBubble(t, func(o *Options) { o.OnUnknown = tt.onUnknown }, a, func(t *testing.T, b *bench) {
				to := domain.Address{Platform: "p", ChatID: "1"}
				_, _ = b.store.Enqueue(t.Context(), []domain.NewDelivery{{To: to, Edit: tt.edit, Part: domain.Part{Text: "a"}}}, time.Now())
				b.d.Wake(to)
				time.Sleep(time.Minute)
				wantTexts(t, a, "1", tt.want...)
				if d := b.store.row(1); d.State != tt.state {
					t.Errorf("state %s (%s), want %s", d.State, d.Reason, tt.state)
				}
			})
		})
	}
}

// TestClassification gives the first attempt each kind of error.
func TestClassification(t *testing.T) {
	tests := []struct {
		name  string
		fail  platform.Error
		in    domain.NewDelivery
		calls []string // text and, behind "@", the message that is edited
		state domain.DeliveryState
	}{
		{"gone for good", platform.Error{Kind: platform.GiveUp, Reason: "blocked by the user"}, domain.NewDelivery{Part: domain.Part{Text: "x"}}, []string{"x"}, domain.DeliveryDead},
		{"markup refused", platform.Error{Kind: platform.MarkupRefused, Reason: "bad entity"}, domain.NewDelivery{Part: domain.Part{Text: "<b>x", Plain: "x", Markup: true}}, []string{"<b>x", "x"}, domain.DeliverySent},
		{"markup refused of plain text", platform.Error{Kind: platform.MarkupRefused}, domain.NewDelivery{Part: domain.Part{Text: "x"}}, []string{"x"}, domain.DeliveryDead},
		{"edit refused", platform.Error{Kind: platform.EditRefused}, domain.NewDelivery{Edit: "9", Part: domain.Part{Text: "x"}}, []string{"x@9", "x"}, domain.DeliverySent},
		{"edit refused of no edit", platform.Error{Kind: platform.EditRefused}, domain.NewDelivery{Part: domain.Part{Text: "x"}}, []string{"x"}, domain.DeliveryDead},
		{"taken over", platform.Error{Kind: platform.TakenOver}, domain.NewDelivery{Part: domain.Part{Text: "x"}}, []string{"x", "x"}, domain.DeliverySent},
		{"moved nowhere", platform.Error{Kind: platform.Moved}, domain.NewDelivery{Part: domain.Part{Text: "x"}}, []string{"x"}, domain.DeliveryDead},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var mu sync.Mutex
			var calls []string
			a := &script{do: func(_ context.Context, n int, c sent) error {
				if c.edit != "" {
					c.text += "@" + c.edit
				}
				mu.Lock()
				defer mu.Unlock()
				calls = append(calls, c.text)
				if n == 1 {
					return &tt.fail
				}
				return nil
			}}
			inBubble(t, nil, a, func(t *testing.T, b *bench) {
				tt.in.To = domain.Address{Platform: "p", ChatID: "1"}
				_, _ = b.store.Enqueue(t.Context(), []domain.NewDelivery{tt.in}, time.Now())
				b.d.Wake(tt.in.To)
				time.Sleep(time.Minute)
				mu.Lock()
				defer mu.Unlock()
				if !slices.Equal(calls, tt.calls) {
					t.Errorf("calls %q, want %q", calls, tt.calls)
				}
				if d := b.store.row(1); d.State != tt.state {
					t.Errorf("state %s, want %s", d.State, tt.state)
				}
			})
		})
	}
}

func TestMovedChat(t *testing.T) {
	a := &script{do: func(_ context.Context, _ int, c sent) error {
		if c.to.ChatID == "old" {
			return &platform.Error{Kind: platform.Moved, Reason: "upgraded", NewChatID: "new"}
		}
		return nil
	}}
	inBubble(t, nil, a, func(t *testing.T, b *bench) {
		b.send("old", "a", "b")
		synctest.Wait()
		wantTexts(t, a, "new", "a", "b")
	})
}

func TestRefusedCredentialsPauseThePlatform(t *testing.T) {
	a := &script{do: func(context.Context, int, sent) error {
		return &platform.Error{Kind: platform.BadCredentials, Reason: "401: set a new token"}
	}}
	inBubble(t, nil, a, func(t *testing.T, b *bench) {
		b.send("1", "a")
		synctest.Wait()
		b.send("2", "b")
		time.Sleep(48 * time.Hour)
		if n := a.count(); n != 1 {
			t.Errorf("%d calls with refused credentials", n)
		}
		if p := b.part("delivery"); p.State != health.Down || !strings.Contains(p.Message, "set a new token") {
			t.Errorf("health: %+v", p)
		}
		good := &script{name: "p"}
		b.d.Attach(good)
		synctest.Wait()
		wantTexts(t, good, "1", "a")
		wantTexts(t, good, "2", "b")
		if p := b.part("delivery"); p.State != health.OK {
			t.Errorf("health afterwards: %+v", p)
		}
	})
}

// TestAttachDuringAFailingSend replaces the adapter while a send that will be
// refused is under way: nothing may be left lying.
func TestAttachDuringAFailingSend(t *testing.T) {
	var refuse chan struct{}
	a := &script{do: func(context.Context, int, sent) error {
		<-refuse
		return &platform.Error{Kind: platform.BadCredentials, Reason: "401"}
	}}
	inBubble(t, nil, a, func(t *testing.T, b *bench) {
		refuse = make(chan struct{})
		b.send("1", "a")
		synctest.Wait()
		good := &script{name: "p"}
		b.d.Attach(good)
		synctest.Wait()
		close(refuse)
		synctest.Wait()
		wantTexts(t, good, "1", "a")
	})
}

func TestNoAdapterWaitsAndIsSeen(t *testing.T) {
	inBubble(t, nil, nil, func(t *testing.T, b *bench) {
		claims := 0
		b.store.failing(func(verb string) error {
			if verb == "claim" {
				claims++
			}
			return nil
		})
		b.send("1", "a")
		time.Sleep(72 * time.Hour)
		synctest.Wait()
		if p := b.part("delivery"); p.State != health.Degraded || p.Code != "not_connected" || !strings.Contains(p.Message, "p (1)") {
			t.Errorf("health: %+v", p)
		}
		b.store.mu.Lock()
		if claims != 0 {
			t.Errorf("%d claims without an adapter", claims)
		}
		b.store.mu.Unlock()
		a := &script{name: "p"}
		b.d.Attach(a)
		synctest.Wait()
		wantTexts(t, a, "1", "a") // however old: no attempt has failed
	})
}

func TestMaxAge(t *testing.T) {
	a := &script{do: func(context.Context, int, sent) error { return retry(0) }}
	inBubble(t, nil, a, func(t *testing.T, b *bench) {
		b.send("1", "a", "b")
		time.Sleep(25 * time.Hour)
		d := b.store.row(1)
		if d.State != domain.DeliveryDead || d.Reason != "could not be delivered within 24h: busy" {
			t.Errorf("delivery: %+v", d)
		}
		if d.Attempt < 250 || d.Attempt > 400 {
			t.Errorf("%d attempts in a day with at most 5 min between", d.Attempt)
		}
		if p := b.part("delivery"); p.Evidence["dead"] == "0" {
			t.Errorf("health: %+v", p)
		}
	})
}

func TestMaxAttempts(t *testing.T) {
	a := &script{do: func(context.Context, int, sent) error { return retry(0) }}
	inBubble(t, func(o *Options) { o.MaxAttempts = 3 }, a, func(t *testing.T, b *bench) {
		b.send("1", "a")
		time.Sleep(time.Hour)
		if d := b.store.row(1); d.State != domain.DeliveryDead || d.Attempt != 3 {
			t.Errorf("delivery: %+v", d)
		}
	})
}

// TestReceiptSurvivesLedgerFailure makes the ledger fail after the send.
func TestReceiptSurvivesLedgerFailure(t *testing.T) {
	a := &script{}
	inBubble(t, nil, a, func(t *testing.T, b *bench) {
		full := true
		b.store.failing(func(verb string) error {
			if verb == "sent" && full {
				return domain.E(domain.StorageFull, nil, "disk full")
			}
			return nil
		})
		b.send("1", "a")
		time.Sleep(10 * time.Minute)
		if p := b.part("delivery"); p.State != health.Degraded || p.Code != "ledger" {
			t.Errorf("health: %+v", p)
		}
		b.store.mu.Lock()
		full = false
		b.store.mu.Unlock()
		time.Sleep(time.Minute)
		if d := b.store.row(1); d.State != domain.DeliverySent || d.Receipt != "id1" {
			t.Errorf("delivery: %+v", d)
		}
		if a.count() != 1 {
			t.Errorf("sent %d times", a.count())
		}
	})
}

func TestNothingIsSentWithoutAClaim(t *testing.T) {
	a := &script{}
	inBubble(t, nil, a, func(t *testing.T, b *bench) {
		full := true
		b.store.failing(func(verb string) error {
			if verb == "claim" && full {
				return domain.E(domain.StorageFull, nil, "disk full")
			}
			return nil
		})
		b.send("1", "a")
		time.Sleep(10 * time.Minute)
		if a.count() != 0 {
			t.Fatal("sent without a claim")
		}
		b.store.mu.Lock()
		full = false
		b.store.mu.Unlock()
		time.Sleep(2 * time.Minute)
		wantTexts(t, a, "1", "a")
	})
}

func TestScanFailureIsRetried(t *testing.T) {
	a := &script{name: "p"}
	synctest.Test(t, func(t *testing.T) {
		b := newBench(nil)
		n := 0
		b.store.failing(func(verb string) error {
			if verb == "due" {
				if n++; n < 4 {
					return domain.E(domain.Unavailable, nil, "busy")
				}
			}
			return nil
		})
		_, _ = b.store.Enqueue(t.Context(), []domain.NewDelivery{{To: domain.Address{Platform: "p", ChatID: "1"}, Part: domain.Part{Text: "x"}}}, time.Now())
		b.d.Attach(a)
		_ = b.d.Start(t.Context())
		time.Sleep(30 * time.Second)
		wantTexts(t, a, "1", "x")
		_ = b.d.Stop(t.Context())
	})
}

func TestThousandAddresses(t *testing.T) {
	a := &script{}
	inBubble(t, nil, a, func(t *testing.T, b *bench) {
		for i := range 1000 {
			b.send(fmt.Sprint(i), "a", "b", "c")
		}
		synctest.Wait()
		for i := range 1000 {
			wantTexts(t, a, fmt.Sprint(i), "a", "b", "c")
		}
		b.d.mu.Lock()
		defer b.d.mu.Unlock()
		if len(b.d.lanes) != 0 || len(b.d.timers) != 0 {
			t.Errorf("%d lanes are kept when idle", len(b.d.lanes))
		}
	})
}

// TestBusyAddressLetsOthersIn gives more addresses than goroutines a backlog.
func TestMoreAddressesThanRoom(t *testing.T) {
	a := &script{}
	inBubble(t, nil, a, func(t *testing.T, b *bench) {
		b.d.mu.Lock()
		for i := range maxLanes { // all room is taken
			b.d.lanes[domain.Address{Platform: "other", ChatID: fmt.Sprint(i)}] = &lane{state: running}
		}
		b.d.mu.Unlock()
		b.send("1", "a")
		synctest.Wait()
		wantTexts(t, a, "1")
		b.d.mu.Lock()
		clear(b.d.lanes)
		b.d.mu.Unlock()
		b.send("2", "b") // its end finds that there is room again
		synctest.Wait()
		wantTexts(t, a, "1", "a")
	})
}

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

func TestLimiterStateIsBounded(t *testing.T) {
	l := newLimits(platform.Capabilities{PerChatEvery: time.Second}, &script{}, false)
	for i := range 3 * maxChats {
		l.reserve(fmt.Sprint(i), time.Now())
	}
	if len(l.chats) != maxChats || l.recent.Len() != maxChats {
		t.Errorf("%d chats are kept, want %d", len(l.chats), maxChats)
	}
}

func TestBackoffGrowsAndIsBounded(t *testing.T) {
	for n, want := range map[int]time.Duration{1: time.Second, 2: 2 * time.Second, 5: 16 * time.Second, 9: 4 * time.Minute, 100: 5 * time.Minute} {
		if got := backoffAt(n); got < want*7/10 || got > want*13/10 {
			t.Errorf("after %d failures: %s, want about %s", n, got, want)
		}
	}
}
