package isolation

import (
	"context"
	"fmt"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"hermes/internal/delivery"
	"hermes/internal/domain"
	"hermes/internal/health"
	"hermes/internal/ledger/sqlite"
	"hermes/internal/platform/webhook"
	"hermes/internal/secret"
	"hermes/testkit/adapter"
	"hermes/testkit/fault"
	"hermes/testkit/port"
	webhookfake "hermes/testkit/webhook"
)

// TestABlackHoleOutwardsIsSeenAndLeft swallows for ten minutes what webhooks post,
// which have no connection of their own that could be proved. Calls are taken all
// the while, status shows what waits, and once packets come through again each
// answer is there once; one whose fate is unknown keeps its id, and says that it
// may be a repeat.
func TestABlackHoleOutwardsIsSeenAndLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newPosting(t)
		w.call("before")
		w.until("the answer is posted", time.Minute, func() bool { return w.posted("before", false) == 1 })

		// One is on its way: the receiver has it, and nobody hears of that.
		hold := make(chan struct{})
		w.rec.Fail("post", fault.Fault{Act: true, Then: hold, Cut: true})
		w.call("underway")
		w.until("the receiver has it", time.Minute, func() bool { return w.posted("underway", false) == 1 })
		w.out.BlackHole(true)
		close(hold)

		began := time.Now()
		w.call("meanwhile-0")
		w.until("status shows the black hole", seenWithin, func() bool { return w.waits() })
		seen, n := time.Since(began), 1
		for ; time.Since(began) < 10*time.Minute; n++ {
			w.call(fmt.Sprintf("meanwhile-%d", n))
			time.Sleep(time.Minute) // simulated
		}
		if !w.waits() {
			t.Errorf("at the end of the black hole it is shown as well: %+v", w.registry.Parts())
		}
		if got := len(w.rec.Posts()); got != 2 {
			t.Errorf("%d posts came through the black hole", got-2)
		}
		w.out.BlackHole(false)
		began = time.Now()
		w.until("every answer is posted, and status shows it well", postedWithin, func() bool {
			for i := range n {
				if w.posted(fmt.Sprintf("meanwhile-%d", i), false) != 1 {
					return false
				}
			}
			return w.posted("underway", true) == 1 && !w.waits()
		})
		t.Logf("shown after %s, all posted %s after it had ended", seen, time.Since(began))
		if got := w.posted("underway", false); got != 1 {
			t.Errorf("the receiver took the one that was on its way %d times", got)
		}
		for _, p := range w.rec.Posts() {
			if !p.Signed || strings.Contains(p.Text, "may be a repeat") != p.Dropped {
				t.Errorf("posted %+v", p)
			}
		}
	})
}

// posting is a webhook that answers what it is asked to a receiver, with a
// delivery of its own and a network in either direction.
type posting struct {
	t        *testing.T
	in, out  *port.Network
	rec      *webhookfake.Receiver
	url      string
	registry *health.Registry
}

// postedWithin is the longest back-off of delivery, six minutes, and an attempt.
const postedWithin = 8 * time.Minute

const postingKey = "whsec_dGhlIHNlY3JldCBvZiB0aGUgYmxhY2sgaG9sZQ=="

func newPosting(t *testing.T) *posting {
	w := &posting{t: t, in: &port.Network{}, out: &port.Network{}, registry: health.New(time.Now)}
	far, err := w.out.Listen()
	must(t, err)
	w.rec, err = webhookfake.NewReceiver(postingKey, far)
	must(t, err)
	t.Cleanup(w.rec.Close)
	near, err := w.in.Listen()
	must(t, err)
	w.url = "http://" + near.Addr().String() + "/webhooks/ask"

	store, err := sqlite.Open(t.Context(), sqlite.Options{Path: filepath.Join(t.TempDir(), "ledger.db"), Kind: "test", Now: time.Now, NoBallast: true})
	must(t, err)
	t.Cleanup(func() { must(t, store.Close()) })
	client := &http.Client{Transport: &http.Transport{DialContext: w.out.Dial, DisableKeepAlives: true}}
	a, err := webhook.New(webhook.Config{
		Host: "127.0.0.1", Secrets: []secret.Value{postingKey}, PerMinute: -1,
		Routes: map[string]webhook.Route{"ask": {Prompt: "{text}", Deliver: "webhook", Extra: map[string]string{"url": w.rec.URL()}}},
	}, webhook.Deps{HTTP: client, Listener: near, Health: w.registry.Part("platform.webhook")})
	must(t, err)
	var log adapter.Log
	d := delivery.New(delivery.Options{Store: store, Now: time.Now, Log: log.Logger(), Health: w.registry})
	d.Attach(a)
	must(t, d.Start(t.Context()))
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Hour)
		defer cancel()
		must(t, d.Stop(ctx))
		if t.Failed() {
			t.Logf("delivery said:\n%s", log.Tail(8000))
		}
	})
	inbox := adapter.NewInbox()
	inbox.SetAccept(func(events []domain.Inbound) error { // an agent that is quick
		for _, e := range events {
			to := domain.Address{Platform: webhook.Name, ChatID: e.ChatID, ThreadID: e.ThreadID}
			if _, err := store.Enqueue(context.Background(), []domain.NewDelivery{{To: to, Kind: "reply", Part: domain.Part{Text: "heard " + e.Text}}}, time.Now()); err != nil {
				return err
			}
			d.Wake(to)
		}
		return nil
	})
	adapter.Run(t, t.Context(), a, inbox)
	w.until("calls are taken", time.Minute, func() bool {
		for _, p := range w.registry.Parts() {
			if p.Name == "platform.webhook" {
				return p.State == health.OK
			}
		}
		return false
	})
	return w
}

// call asks something, which must be taken at once.
func (w *posting) call(text string) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), 10*time.Second)
	defer cancel()
	a, err := webhookfake.GitHub(w.url, postingKey, "ask", text+"-end", fmt.Sprintf(`{"text":%q}`, text)).SendOver(ctx, w.in.Dial)
	if err != nil || a.Status != http.StatusAccepted {
		w.t.Fatalf("%q was answered %d: %v", text, a.Status, err)
	}
}

// posted counts the posts that answer a call, those that a receiver took or those
// that it dropped.
func (w *posting) posted(text string, dropped bool) (n int) {
	for _, p := range w.rec.Posts() {
		if lastWord(p.Text) == text && p.Dropped == dropped {
			n++
		}
	}
	return n
}

// waits tells whether status says that what was written for webhooks waits.
func (w *posting) waits() bool {
	for _, p := range w.registry.Parts() {
		if p.Name == "delivery" {
			return p.State == health.Degraded && strings.Contains(p.Message, string(webhook.Name))
		}
	}
	return false
}

func (w *posting) until(what string, limit time.Duration, ok func() bool) {
	w.t.Helper()
	for began := time.Now(); !ok(); time.Sleep(time.Second) { // simulated
		if time.Since(began) > limit {
			w.t.Fatalf("not within %s: %s\nstatus: %+v\nposts: %+v", limit, what, w.registry.Parts(), w.rec.Posts())
		}
	}
}
