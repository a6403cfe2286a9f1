package webhook_test

import (
	"strings"
	"testing"
	"time"

	"hermes/internal/domain"
	"hermes/internal/platform"
	"hermes/internal/platform/webhook"
	"hermes/internal/secret"
	"hermes/testkit/adapter"
	"hermes/testkit/fault"
	fake "hermes/testkit/webhook"
)

func posting(t *testing.T) (*rig, *fake.Receiver) {
	t.Helper()
	rec, err := fake.NewReceiver(commonKey, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(rec.Close)
	c := config()
	c.SendTimeout = 5 * time.Second
	c.Targets = map[string]webhook.Target{"ops": {URL: rec.URL(), Secrets: []secret.Value{"the new secret", commonKey}}}
	c.Routes["back"] = webhook.Route{Deliver: "webhook", Extra: map[string]string{"url": rec.URL()}}
	c.Routes["named"] = webhook.Route{Deliver: "webhook", Extra: map[string]string{"target": "ops"}}
	c.Routes["lost"] = webhook.Route{Deliver: "webhook", Extra: map[string]string{"target": "nobody"}}
	c.Routes["chat"] = webhook.Route{Deliver: "telegram"}
	c.Routes["room"] = webhook.Route{Deliver: "discord", Extra: map[string]string{"chat_id": "{channel}", "thread_id": "7"}}
	c.Routes["fixed"] = webhook.Route{Deliver: "discord", Extra: map[string]string{"chat_id": "55"}}
	c.Routes["homeless"] = webhook.Route{Deliver: "slack"}
	r := newRig(t, c)
	t.Cleanup(func() { r.CloseIdle() })
	return r, rec
}

// A post is signed with each secret, and its id is the same at every attempt.
func TestPosts(t *testing.T) {
	r, rec := posting(t)
	at := func(chat, thread string) domain.Address {
		return domain.Address{Platform: "webhook", ChatID: chat, ThreadID: thread}
	}
	for range 2 {
		if id, err := r.Send(r.ctx, at("ops", ""), domain.Part{Text: "one"}, "n1"); err != nil || id != "msg_n1" {
			t.Fatal(id, err)
		}
	}
	if _, err := r.Send(r.ctx, at("back", "e-7"), domain.Part{Text: "two"}, "n2"); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Send(r.ctx, at("named", "e-8"), domain.Part{Text: "three"}, "n3"); err != nil {
		t.Fatal(err)
	}
	if id, err := r.Send(r.ctx, at("own", "e-9"), domain.Part{Text: "for the log"}, "n4"); err != nil || id != "log:n4" {
		t.Fatal(id, err)
	}
	if !strings.Contains(r.logs.String(), "for the log") {
		t.Error("what is to be logged is not")
	}
	posts := rec.Posts()
	if len(posts) != 4 {
		t.Fatalf("%d posts", len(posts))
	}
	for i, want := range []fake.Post{
		{ID: "msg_n1", Signed: true, Route: "ops", Text: "one"}, {ID: "msg_n1", Signed: true, Route: "ops", Text: "one", Dropped: true},
		{ID: "msg_n2", Signed: true, Route: "back", Event: "e-7", Text: "two"}, {ID: "msg_n3", Signed: true, Route: "named", Event: "e-8", Text: "three"},
	} {
		got := posts[i]
		got.Raw = ""
		if got != want {
			t.Errorf("post %d is %+v, want %+v", i, got, want)
		}
	}
}

// Every way to fail is told apart.
func TestPostFailures(t *testing.T) {
	r, rec := posting(t)
	send := func(chat string, p domain.Part) *platform.Error {
		t.Helper()
		_, err := r.Send(r.ctx, domain.Address{Platform: "webhook", ChatID: chat}, p, "n")
		return adapter.ErrorOf(t, err)
	}
	text := domain.Part{Text: "x"}
	for _, c := range []struct {
		fault     fault.Fault
		kind      platform.Kind
		uncertain bool
		after     time.Duration
	}{
		{fault.Fault{Status: 400}, platform.GiveUp, false, 0},
		{fault.Fault{Status: 401}, platform.GiveUp, false, 0},
		{fault.Fault{Status: 410}, platform.GiveUp, false, 0},
		{fault.Redirect(302, "/other"), platform.GiveUp, false, 0},
		{fault.Fault{Status: 429, RetryAfter: 17}, platform.Retry, false, 17 * time.Second},
		{fault.Fault{Status: 503}, platform.Retry, false, 0},
		{fault.Fault{Status: 500}, platform.Retry, true, 0},
		{fault.CutAfter(), platform.Retry, true, 0},
	} {
		rec.Fail("post", c.fault)
		if e := send("ops", text); e.Kind != c.kind || e.Uncertain != c.uncertain || e.RetryAfter != c.after {
			t.Errorf("%+v: %+v", c.fault, e)
		}
	}
	rec.Close()
	if e := send("ops", text); e.Kind != platform.Retry || e.Uncertain || strings.Contains(e.Error(), "/in") {
		t.Errorf("nobody listens: %+v (%v)", e, e)
	}
	for chat, what := range map[string]string{"nowhere": "neither a route nor a target", "lost": "does not stand under", "homeless": "names no chat there", "chat": "only sends on to telegram:home"} {
		if e := send(chat, text); e.Kind != platform.GiveUp || !strings.Contains(e.Reason, what) {
			t.Errorf("%s: %+v", chat, e)
		}
	}
	if e := send("ops", domain.Part{}); e.Kind != platform.GiveUp {
		t.Errorf("nothing to send: %+v", e)
	}
}

// A route's answers go to the chat that it names, to the one that the event
// names, or to the platform's home channel.
func TestWhereAnswersGo(t *testing.T) {
	r, _ := posting(t)
	r.serve()
	r.call(fake.GitHub(r.url("room"), commonKey, "x", "d1", `{"channel":"99/1"}`), 202)
	dynamic := r.sink.Events()[0].Address
	for _, c := range []struct{ from, to domain.Address }{
		{dynamic, domain.Address{Platform: "discord", ChatID: "99/1", ThreadID: "7"}},
		{domain.Address{Platform: "webhook", ChatID: "chat", ThreadID: "x"}, domain.Address{Platform: "telegram", ChatID: "home"}},
		{domain.Address{Platform: "webhook", ChatID: "fixed", ThreadID: "x"}, domain.Address{Platform: "discord", ChatID: "55"}},
		{domain.Address{Platform: "webhook", ChatID: "back", ThreadID: "x"}, domain.Address{Platform: "webhook", ChatID: "back", ThreadID: "x"}},
		{domain.Address{Platform: "webhook", ChatID: "own"}, domain.Address{Platform: "webhook", ChatID: "own"}},
		{domain.Address{Platform: "webhook", ChatID: "ops"}, domain.Address{Platform: "webhook", ChatID: "ops"}},
		{domain.Address{Platform: "webhook", ChatID: "homeless"}, domain.Address{Platform: "webhook", ChatID: "homeless"}},
	} {
		if got := r.Route(c.from); got != c.to {
			t.Errorf("%v goes to %v, want %v", c.from, got, c.to)
		}
	}
}
