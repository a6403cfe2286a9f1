package e2e

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"hermes/internal/control"
	"hermes/internal/health"
	"hermes/testkit/fault"
	"hermes/testkit/llm"
	"hermes/testkit/rig"
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

// Webhooks are called without a pause while one life of the gateway follows
// another. A successor beside the old process and a restart in place refuse
// nothing; a death may, and the caller comes again. What was accepted is answered
// once, whichever way.
func TestWebhookLives(t *testing.T) {
	t.Parallel()
	const lives = 3
	for mode, c := range map[string]struct {
		env     string
		next    func(w *world, p *rig.Process) *rig.Process
		mayFail bool
	}{
		"a successor beside it": {next: func(w *world, _ *rig.Process) *rig.Process {
			next := w.launch(nil, "gateway", "run", "--replace")
			if err := next.Ready(w.deadline()); err != nil {
				w.t.Fatal(err)
			}
			w.waitStatus("the new process serves alone", func(s control.Status) bool { return s.PID == next.Cmd.Process.Pid })
			return next
		}},
		"in place": {env: "HERMES_GATEWAY_HANDOVER=exec", next: func(w *world, p *rig.Process) *rig.Process {
			before, _ := w.status()
			if out, code := w.run("gateway", "restart"); code != 0 {
				w.t.Fatal(out)
			}
			w.waitStatus("the same process serves anew", func(s control.Status) bool {
				return s.PID == p.Cmd.Process.Pid && s.StartedAt.After(before.StartedAt) && takesWebhooks(s)
			})
			return p
		}},
		"killed": {mayFail: true, next: func(w *world, p *rig.Process) *rig.Process {
			p.Kill()
			return w.start()
		}},
	} {
		t.Run(mode, func(t *testing.T) {
			w, b := callWebhooks(t, c.env)
			p := w.start()
			w.waitStatus("webhooks are taken", takesWebhooks)
			b.begin()
			for range lives {
				b.goOn()
				p = c.next(w, p)
			}
			b.goOn()
			b.finish(c.mayFail)
			w.stop(p)
		})
	}
}

// callers call a route one call after another: each until it is taken, and answered.
type callers struct {
	w    *world
	rec  *webhook.Receiver
	url  string
	key  string
	stop context.CancelFunc
	work sync.WaitGroup

	mu     sync.Mutex
	taken  []string // the texts of the calls that were answered 2xx
	failed []string
}

// callWebhooks makes a home whose webhooks are answered to a receiver.
func callWebhooks(t *testing.T, env string) (*world, *callers) {
	t.Helper()
	rec, err := webhook.NewReceiver(webhookKey, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(rec.Close)
	port := freePort(t)
	w := setUp(t, options{})
	w.secrets["the webhooks' secret"] = webhookKey
	if env != "" {
		w.home.Env = append(w.home.Env, env)
	}
	w.write(".env", w.env+fmt.Sprintf("WEBHOOK_ENABLED=true\nWEBHOOK_HOST=127.0.0.1\nWEBHOOK_PORT=%d\nWEBHOOK_SECRET=%s\nWEBHOOK_RATE_LIMIT=-1\n", port, webhookKey))
	w.write("config.yaml", w.config+fmt.Sprintf("platforms: {webhook: {extra: {routes: {ask: {prompt: '{text}', deliver: webhook, deliver_extra: {url: %q}}}}}}\n", rec.URL()))
	return w, &callers{w: w, rec: rec, url: fmt.Sprintf("http://127.0.0.1:%d/webhooks/ask", port), key: webhookKey}
}

const webhookKey = "whsec_dGhlIHNlY3JldCBvZiB0aGUgbGl2ZXMgYW5kIGRlYXRocw=="

func (b *callers) begin() {
	ctx, stop := context.WithCancel(b.w.deadline())
	b.stop = stop
	for c := range 4 {
		b.work.Go(func() {
			for n := 0; ctx.Err() == nil; n++ {
				text := fmt.Sprintf("call-%d-%d", c, n)
				b.call(text)
				// Posts have a limit of their own; an answer that never comes is told at the end.
				_, _ = b.rec.WaitFor(ctx, func(p webhook.Post) bool { return strings.HasSuffix(p.Text, text) })
			}
		})
	}
}

// call makes a call as senders do: with the same id until it is taken.
func (b *callers) call(text string) {
	call := webhook.GitHub(b.url, b.key, "ask", text, fmt.Sprintf(`{"text":%q}`, text))
	ctx := b.w.deadline()
	for {
		a, err := call.Send(ctx)
		b.mu.Lock()
		if err == nil && a.Status/100 == 2 {
			b.taken = append(b.taken, text)
			b.mu.Unlock()
			return
		}
		b.failed = append(b.failed, fmt.Sprintf("%s: %d, %v", text, a.Status, err))
		b.mu.Unlock()
		select {
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
			return
		}
	}
}

// goOn waits until more calls were taken.
func (b *callers) goOn() {
	b.w.t.Helper()
	count := func() int {
		b.mu.Lock()
		defer b.mu.Unlock()
		return len(b.taken)
	}
	n := count()
	b.w.eventually("calls are taken", func() bool { return count() > n+15 })
}

// finish ends the calls, and holds that each that was taken is answered once.
func (b *callers) finish(mayFail bool) {
	t := b.w.t
	t.Helper()
	b.stop()
	b.work.Wait()
	if len(b.failed) > 0 && !mayFail {
		t.Errorf("%d calls failed beside %d that were taken; the first: %s\n%s", len(b.failed), len(b.taken), b.failed[0], b.w.logs())
	}
	answers := func() (by map[string]int) {
		by = map[string]int{}
		for _, p := range b.rec.Posts() {
			// A repetition is known by its id. After a death somebody may be told of it.
			if at := strings.LastIndex(p.Text, "call-"); at >= 0 && !p.Dropped {
				by[p.Text[at:]]++
			}
		}
		return by
	}
	b.w.eventually("every call is answered", func() bool { return len(answers()) >= len(b.taken) })
	b.w.settled()
	by := answers()
	for _, text := range b.taken {
		if by[text] != 1 {
			t.Errorf("%q was accepted and answered %d times", text, by[text])
		}
	}
	for text := range by {
		if !slices.Contains(b.taken, text) {
			t.Errorf("%q was answered, which nobody was told is taken", text)
		}
	}
	t.Logf("%d calls taken and answered once; %d times one was not taken at first", len(b.taken), len(b.failed))
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
