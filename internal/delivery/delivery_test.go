package delivery

import (
	"context"
	"errors"
	"fmt"
	"os"
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

func TestMain(m *testing.M) {
	if path := os.Getenv(crashEnv); path != "" {
		sendAndHang(path)
	}
	goleak.VerifyTestMain(m)
}

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
		defer func() {
			if err := b.d.Stop(context.Background()); err != nil {
				t.Errorf("stop: %v", err)
			}
		}()
		fn(t, b)
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
		b.d.Wake(to) // before the start: harmless
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

func TestChatsThatMoveToEachOther(t *testing.T) {
	a := &script{do: func(_ context.Context, _ int, c sent) error {
		return &platform.Error{Kind: platform.Moved, Reason: "moved", NewChatID: map[string]string{"x": "y", "y": "x"}[c.to.ChatID]}
	}}
	inBubble(t, nil, a, func(t *testing.T, b *bench) {
		b.send("x", "a")
		time.Sleep(time.Minute)
		if d := b.store.row(1); d.State != domain.DeliveryDead || a.count() > maxMoves+1 {
			t.Errorf("%s after %d calls", d.State, a.count())
		}
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

// TestLostClaimEndsTheAttempt shows that an outcome is not pressed upon a ledger
// that gave the message to another process.
func TestLostClaimEndsTheAttempt(t *testing.T) {
	a := &script{}
	inBubble(t, nil, a, func(t *testing.T, b *bench) {
		marks := 0
		b.store.failing(func(verb string) error {
			if verb == "sent" {
				marks++
				return domain.E(domain.Fenced, nil, "another process has it")
			}
			return nil
		})
		b.send("1", "a")
		time.Sleep(10 * time.Minute)
		b.store.mu.Lock()
		defer b.store.mu.Unlock()
		if marks != 1 || a.count() != 1 {
			t.Errorf("%d marks, %d sends", marks, a.count())
		}
	})
}

func TestWakeAll(t *testing.T) {
	a := &script{}
	inBubble(t, nil, a, func(t *testing.T, b *bench) {
		synctest.Wait()
		_, _ = b.store.Enqueue(t.Context(), []domain.NewDelivery{{To: domain.Address{Platform: "p", ChatID: "1"}, Part: domain.Part{Text: "x"}}}, time.Now())
		b.d.WakeAll()
		synctest.Wait()
		wantTexts(t, a, "1", "x")
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

// TestMoreAddressesThanRoom fills the memory for addresses: the scan makes up
// for what found no place.
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
