package delivery

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"hermes/internal/domain"
	"hermes/internal/platform"
)

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
