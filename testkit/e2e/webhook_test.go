package e2e

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"

	"hermes/internal/control"
	"hermes/internal/health"
	"hermes/testkit/fault"
	"hermes/testkit/llm"
	"hermes/testkit/webhook"
)

// Webhooks as their users have them: answered to a chat of another platform and
// to an address, repeated by their senders, sent on without an agent, subscribed
// while the gateway runs, and caught by a crash.
func TestWebhook(t *testing.T) {
	t.Parallel()
	const back = "whsec_dGhlIHJlY2VpdmVyJ3Mgc2VjcmV0IG9mIGVuZCB0byBlbmQ="
	rec, err := webhook.NewReceiver(back, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(rec.Close)
	port := freePort(t)
	w := setUp(t, options{brain: obedient(llm.NewGate())})
	key := w.newSecret("the webhooks' secret", "wh-")
	ann := w.tg.AddUser("ann")
	w.write(".env", w.env+fmt.Sprintf("WEBHOOK_ENABLED=true\nWEBHOOK_HOST=127.0.0.1\nWEBHOOK_PORT=%d\nWEBHOOK_SECRET=%s\nTELEGRAM_HOME_CHANNEL=%d\nBACK_SECRET=%s\n", port, key, ann.ID, back))
	w.write("config.yaml", w.config+fmt.Sprintf(`platforms:
  webhook:
    extra:
      routes:
        chat: {prompt: "look at {what}", deliver: telegram}
        only: {prompt: "**{what}** happened", deliver: telegram, deliver_only: true}
        post: {prompt: "tell of {what}", deliver: webhook, deliver_extra: {url: %q}, secret: "${BACK_SECRET}"}
`, rec.URL()))
	w.mu.Lock()
	w.secrets["the receiver's secret"] = back
	w.mu.Unlock()
	url := fmt.Sprintf("http://127.0.0.1:%d/webhooks/", port)
	call := func(c webhook.Call, want int) webhook.Answer {
		t.Helper()
		a, err := c.Send(w.deadline())
		if err != nil || a.Status != want {
			t.Fatalf("answered %d %v, %v; want %d\n%s", a.Status, a.Body, err, want, w.logs())
		}
		return a
	}
	posted := func(text string) (n int) {
		for _, p := range rec.Posts() {
			if strings.Contains(p.Text, text) && !p.Dropped { // by its id, which a receiver can know again
				n++
			}
		}
		return n
	}
	awaitPost := func(text string) {
		t.Helper()
		p, err := rec.WaitFor(w.deadline(), func(p webhook.Post) bool { return strings.Contains(p.Text, text) })
		if err != nil || !p.Signed {
			t.Fatalf("%q was not posted, or not signed: %+v, %v\n%s", text, p, err, w.logs())
		}
	}

	p := w.start()
	w.waitStatus("webhooks are taken", takesWebhooks)
	call(webhook.GitHub(url+"chat", key, "push", "d-1", `{"what":"the first"}`), http.StatusAccepted)
	w.sees(ann.ID, "look at the first")
	call(webhook.GitHub(url+"chat", key, "push", "d-1", `{"what":"the first"}`), http.StatusOK)
	call(webhook.GitHub(url+"only", key, "x", "d-2", `{"what":"/stop"}`), http.StatusAccepted)
	w.sees(ann.ID, "/stop happened")
	call(webhook.GitHub(url+"post", back, "x", "d-3", `{"what":"the post"}`), http.StatusAccepted)
	awaitPost("tell of the post")
	call(webhook.GitHub(url+"chat", "another", "push", "d-9", `{}`), http.StatusUnauthorized)

	out, code := w.run("webhook", "subscribe", "late", "--prompt", "late {what}", "--deliver", "telegram", "--secret", back)
	if code != 0 {
		t.Fatal(out)
	}
	w.mu.Lock()
	w.seen = w.seen[:len(w.seen)-1] // which shows the secret, as it is meant to
	w.mu.Unlock()
	if out, code := w.run("webhook", "test", "late", "--payload", `{"what":"subscriber"}`); code != 0 || !strings.Contains(out, "202") {
		t.Fatal(out)
	}
	w.sees(ann.ID, "late subscriber")
	w.settled()

	// Killed with an event accepted and its answer not yet posted.
	rec.Fail("post", fault.Lost())
	call(webhook.GitHub(url+"post", back, "x", "d-4", `{"what":"the crash"}`), http.StatusAccepted)
	w.eventually("the answer is being posted", func() bool {
		s, _ := w.status()
		return s.Ledger.Delivery["sending"] == 1
	})
	p.Kill()
	if _, err := webhook.GitHub(url+"chat", key, "push", "d-5", `{}`).Send(w.deadline()); err == nil {
		t.Error("a call was answered while nobody runs")
	}
	p = w.start()
	w.waitStatus("webhooks are taken", takesWebhooks)
	awaitPost("tell of the crash")
	// The sender that got no answer, or does not trust it, comes again.
	call(webhook.GitHub(url+"post", back, "x", "d-4", `{"what":"the crash"}`), http.StatusAccepted)
	call(webhook.GitHub(url+"chat", key, "push", "d-5", `{"what":"after it"}`), http.StatusAccepted)
	w.sees(ann.ID, "look at after it")
	w.settled()
	for _, text := range []string{"look at the first", "happened", "late subscriber", "look at after it"} {
		if n := w.count(ann.ID, text); n != 1 {
			t.Errorf("%q was said %d times", text, n)
		}
	}
	for _, text := range []string{"tell of the post", "tell of the crash"} {
		if n := posted(text); n != 1 {
			t.Errorf("%q was posted %d times", text, n)
		}
	}
	w.stop(p)
}

// Webhooks are called without a pause while one process takes over from
// another; none is refused, and each is answered once.
func TestWebhookHandOver(t *testing.T) {
	t.Parallel()
	port := freePort(t)
	w := setUp(t, options{brain: obedient(llm.NewGate())})
	key := w.newSecret("the webhooks' secret", "wh-")
	ann := w.tg.AddUser("ann")
	w.write(".env", w.env+fmt.Sprintf("WEBHOOK_ENABLED=true\nWEBHOOK_HOST=127.0.0.1\nWEBHOOK_PORT=%d\nWEBHOOK_SECRET=%s\nWEBHOOK_RATE_LIMIT=-1\nTELEGRAM_HOME_CHANNEL=%d\n", port, key, ann.ID))
	w.write("config.yaml", w.config+"platforms: {webhook: {extra: {routes: {log: {prompt: 'look at {n}'}}}}}\n")
	w.start()
	w.waitStatus("webhooks are taken", takesWebhooks)
	ctx, cancel := context.WithCancel(w.deadline())
	var calls, failed int
	var first error
	var load sync.WaitGroup
	load.Go(func() {
		for ; ctx.Err() == nil; calls++ {
			a, err := webhook.GitHub(fmt.Sprintf("http://127.0.0.1:%d/webhooks/log", port), key, "x", fmt.Sprint("n", calls), fmt.Sprintf(`{"n":%d}`, calls)).Send(context.WithoutCancel(ctx))
			if err != nil || a.Status != http.StatusAccepted {
				failed++
				if first == nil {
					first = fmt.Errorf("call %d: %d, %w", calls, a.Status, err)
				}
			}
		}
	})
	next := w.launch(nil, "gateway", "run", "--replace")
	err := next.Ready(w.deadline())
	w.waitStatus("the new process serves alone", func(s control.Status) bool { return s.PID == next.Cmd.Process.Pid })
	cancel()
	load.Wait()
	if err != nil {
		t.Fatal(err)
	}
	if failed > 0 {
		t.Errorf("%d of %d calls failed; the first: %v\n%s", failed, calls, first, w.logs())
	}
	w.settled()
	asked := map[string]int{}
	for _, r := range w.brain.Requests() {
		asked[r.LastUser()]++
	}
	if len(asked) != calls {
		t.Errorf("%d calls were made, and the model was asked %d things", calls, len(asked))
	}
	for what, n := range asked {
		if n != 1 {
			t.Errorf("the model was asked %d times: %s", n, what)
		}
	}
}

// takesWebhooks tells whether the listener proves that it is there.
func takesWebhooks(s control.Status) bool {
	for _, part := range s.Parts {
		if part.Name == "platform.webhook" {
			return part.State == health.OK
		}
	}
	return false
}
