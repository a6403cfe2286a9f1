package webhook_test

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"hermes/internal/domain"
	"hermes/internal/platform/webhook"
	"hermes/internal/secret"
	"hermes/testkit/adapter"
	fake "hermes/testkit/webhook"
)

// Each service's own way to sign lets a call in, and nothing else does.
func TestWhoMayCall(t *testing.T) {
	r := newRig(t, config())
	r.serve()
	own, common := r.url("own"), r.url("common")
	now := r.now
	unsigned := fake.Plain(own, routeKey, `{}`)
	unsigned.Header.Del("X-Webhook-Signature")
	changed := fake.GitHub(own, routeKey, "push", "c1", `{"a":1}`)
	changed.Body = `{"a":2}`
	moved := fake.Standard(common, commonKey, "m1", now, `{}`)
	moved.Header.Set("Webhook-Id", "m2")
	recorded := fake.Standard(own, routeKey, "s9", now.Add(-time.Hour), `{}`)
	confused := fake.Plain(own, routeKey, "x1."+recorded.Header.Get("webhook-timestamp")+".{}")
	weaker := fake.GitHub(own, routeKey, "push", "w1", `{}`)
	weaker.Header.Set("Webhook-Signature", "v1,AAAA")
	for _, c := range []struct {
		what   string
		call   fake.Call
		status int
	}{
		{"GitHub", fake.GitHub(own, routeKey, "push", "g1", `{}`), 202},
		{"GitLab", fake.GitLab(own, routeKey, "Push Hook", "l1", `{}`), 202},
		{"Standard Webhooks, an ordinary secret", fake.Standard(own, routeKey, "s1", now, `{}`), 202},
		{"Standard Webhooks, the common whsec_ secret", fake.Standard(common, commonKey, "s2", now, `{}`), 202},
		{"a signature over the body", fake.Plain(own, routeKey, `{"n":1}`), 202},
		{"nothing", unsigned, 401},
		{"another secret", fake.GitHub(own, "another secret altogether", "push", "g2", `{}`), 401},
		{"another route's secret", fake.GitHub(own, commonKey, "push", "g3", `{}`), 401},
		{"another token", fake.GitLab(own, "x", "push", "l2", `{}`), 401},
		{"another body", changed, 401},
		{"another id", moved, 401},
		{"an old one", recorded, 401},
		{"one from the future", fake.Standard(own, routeKey, "s3", now.Add(time.Hour), `{}`), 401},
		{"one in the clock's tolerance", fake.Standard(own, routeKey, "s4", now.Add(-4*time.Minute), `{}`), 202},
		{"a recorded call's signed text as a body", confused, 401},
		{"a bad strong signature beside a good weak one", weaker, 401},
		{"no such route", fake.GitHub(r.url("none"), routeKey, "push", "g4", `{}`), 404},
	} {
		a, err := c.call.Send(r.ctx)
		if err != nil {
			t.Fatalf("%s: %v", c.what, err)
		}
		if a.Status != c.status {
			t.Errorf("%s: answered %d, want %d (%v)", c.what, a.Status, c.status, a.Body)
		}
	}
	if n := len(r.sink.Events()); n != 6 {
		t.Errorf("%d events were stored", n)
	}
	if got := r.health.Parts()[0].Evidence["refused"]; got != "10" {
		t.Errorf("%s calls are said to be refused", got)
	}
}

// While callers change their secret, the one before holds too; a route that
// requires a time takes no signature without one; no secret is no way in, but
// for a loopback address that says so.
func TestSecrets(t *testing.T) {
	c := config()
	c.Routes["two"] = webhook.Route{Secret: []string{"the new secret", "the old secret"}}
	c.Routes["timed"] = webhook.Route{Secret: []string{routeKey}, Timestamp: true}
	c.Routes["open"] = webhook.Route{Secret: []string{webhook.NoAuth}}
	r := newRig(t, c)
	r.serve()
	r.call(fake.GitHub(r.url("two"), "the new secret", "x", "1", `{}`), 202)
	r.call(fake.GitHub(r.url("two"), "the old secret", "x", "2", `{}`), 202)
	r.call(fake.GitHub(r.url("two"), "the older secret", "x", "3", `{}`), 401)
	r.call(fake.GitHub(r.url("timed"), routeKey, "x", "4", `{}`), 401)
	r.call(fake.Standard(r.url("timed"), routeKey, "5", r.now, `{}`), 202)
	open := fake.Call{URL: r.url("open"), Body: `{}`, Header: http.Header{}}
	r.call(open, 202)
	open.Header.Set("Origin", "https://evil.example")
	r.call(open, 401)

	for what, wrong := range map[string]webhook.Config{
		"has no secret":            {Routes: map[string]webhook.Route{"a": {}}},
		"a loopback address only":  {Routes: map[string]webhook.Route{"a": {Secret: []string{webhook.NoAuth}}}},
		"fewer than 8 characters":  {Secrets: []secret.Value{"short"}},
		"at most 4 are tried":      {Routes: map[string]webhook.Route{"a": {Secret: []string{"12345678", "22345678", "32345678", "42345678", "52345678"}}}},
		"no name":                  {Secrets: []secret.Value{routeKey}, Routes: map[string]webhook.Route{"../a": {}}},
		"script is not supported":  {Secrets: []secret.Value{routeKey}, Routes: map[string]webhook.Route{"a": {Script: "x.sh"}}},
		"deliver_extra.url is":     {Secrets: []secret.Value{routeKey}, Routes: map[string]webhook.Route{"a": {Deliver: "webhook"}}},
		"must not hold a password": {Targets: map[string]webhook.Target{"a": {URL: "https://u:p@example.com"}}},
		"needs deliver":            {Secrets: []secret.Value{routeKey}, Routes: map[string]webhook.Route{"a": {DeliverOnly: true}}},
	} {
		if _, err := webhook.New(wrong, webhook.Deps{}); !domain.IsCode(err, domain.Config) || !strings.Contains(err.Error(), what) {
			t.Errorf("want %q, got %v", what, err)
		}
	}
}

// 202 is said of what is stored and of nothing else; what was stored before is
// said to be known, and what a full disk refused comes again.
func TestAcceptedMeansStored(t *testing.T) {
	r := newRig(t, config())
	r.serve()
	call := fake.GitHub(r.url("own"), routeKey, "push", "d-1", `{}`)
	r.sink.SetAccept(func([]domain.Inbound) error { return domain.E(domain.StorageFull, nil, "the disk is full") })
	if a := r.call(call, 503); a.Header.Get("Retry-After") == "" {
		t.Error("the caller is not told to come again")
	}
	r.sink.SetAccept(func([]domain.Inbound) error { return domain.E(domain.Invalid, nil, "no") })
	r.call(call, 422)
	r.sink.SetAccept(nil)
	if a := r.call(call, 202); a.Body["delivery_id"] != "d-1" || a.Body["status"] != "accepted" || a.Body["event"] != "push" {
		t.Errorf("answered %v", a.Body)
	}
	if a := r.call(call, 200); a.Body["status"] != "duplicate" {
		t.Errorf("answered %v", a.Body)
	}
	// A body without an id is the same event for ten minutes, and another later.
	plain := fake.Plain(r.url("own"), routeKey, `{"disk":"full"}`)
	r.call(plain, 202)
	r.now = r.now.Add(6 * time.Minute)
	r.call(plain, 200)
	r.now = r.now.Add(30 * time.Minute)
	r.call(plain, 202)
	events := r.sink.Events()
	if len(events) != 3 {
		t.Fatalf("%d events were stored", len(events))
	}
	in := events[0]
	want := domain.Source{Address: domain.Address{Platform: "webhook", ChatID: "own", ThreadID: "d-1"}, ChatType: domain.ChatDM, ChatName: "own", UserID: "webhook:own", UserName: "webhook own", MessageID: "d-1"}
	if in.Source != want || in.EventID != "own/d-1" || in.IsCommand() || in.Forward {
		t.Errorf("stored %+v", in)
	}
}

// What the route does not want is answered kindly and stored nowhere.
func TestEventsAndFilters(t *testing.T) {
	c := config()
	c.Routes["ci"] = webhook.Route{Events: []string{"push", "Push Hook"}, Filters: map[string]any{"ref": []any{"refs/heads/main", "refs/heads/rel"}, "n": 7.0}}
	r := newRig(t, c)
	r.serve()
	url := r.url("ci")
	for i, c := range []struct {
		event, body string
		status      int
	}{
		{"push", `{"ref":"refs/heads/main","n":7}`, 202},
		{"Push Hook", `{"ref":"refs/heads/rel","n":7}`, 202},
		{"issues", `{"ref":"refs/heads/main","n":7}`, 200},
		{"push", `{"ref":"refs/heads/other","n":7}`, 200},
		{"push", `{"n":7}`, 200},
		{"push", `no JSON at all`, 200},
	} {
		if a := r.call(fake.Standard(url, commonKey, fmt.Sprint("e", i), r.now, c.body).With("X-GitHub-Event", c.event), c.status); c.status == 200 && a.Body["status"] != "ignored" {
			t.Errorf("%s %s: %v", c.event, c.body, a.Body)
		}
	}
}

// What the agent is asked: values in their places, bounded, and an event never
// begins a command.
func TestPrompts(t *testing.T) {
	c := config()
	c.Routes["pr"] = webhook.Route{Prompt: "{action} #{number} by {user.login}: {labels.1.name} {labels} {absent.x} {body}", Skills: []string{"review"}}
	c.Routes["say"] = webhook.Route{Prompt: "{text}"}
	c.Routes["only"] = webhook.Route{Prompt: "/{text}", DeliverOnly: true, Deliver: "telegram"}
	r := newRig(t, c)
	r.serve()
	r.call(fake.GitHub(r.url("pr"), commonKey, "pull_request", "1", `{"action":"opened","number":42,"user":{"login":"ann"},"labels":[{"name":"a"},{"name":"b"}],"body":"{action}\u0000"}`), 202)
	r.call(fake.GitHub(r.url("say"), commonKey, "x", "2", `{"text":"/approve"}`), 202)
	r.call(fake.GitHub(r.url("only"), commonKey, "x", "3", `{"text":"stop"}`), 202)
	r.call(fake.GitHub(r.url("common"), commonKey, "x", "4", `{"big":"`+strings.Repeat("ä", 9000)+`"}`), 202)
	form := fake.Plain(r.url("say"), commonKey, `payload=%7B%22text%22%3A%22from+a+form%22%7D`)
	form.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	r.call(form, 202)
	got := r.sink.Events()
	for i, want := range []string{
		`opened #42 by ann: b [{"name":"a"},{"name":"b"}] {absent.x} {action}`, "/approve", "/stop", `{"big":"ä`, "from a form",
	} {
		if !strings.Contains(got[i].Text, want) {
			t.Errorf("event %d: no %q in %q", i, want, got[i].Text)
		}
	}
	if !strings.Contains(got[0].Text, "review") {
		t.Errorf("the skill is not named: %q", got[0].Text)
	}
	if got[1].IsCommand() {
		t.Error("an event became a command")
	}
	if !got[2].Forward || got[2].Text != "/stop" {
		t.Errorf("what is only to be delivered is %+v", got[2])
	}
	if n := len(got[3].Text); n > 9000 {
		t.Errorf("the whole event has %d bytes", n)
	}
}

// A caller is bounded in the size of its calls, and in their number a minute.
func TestBounds(t *testing.T) {
	c := config()
	c.MaxBody, c.PerMinute = 1000, 3
	r := newRig(t, c)
	r.serve()
	r.call(fake.Plain(r.url("own"), routeKey, strings.Repeat("x", 1001)), 413)
	for i := range 3 {
		r.call(fake.GitHub(r.url("own"), routeKey, "x", fmt.Sprint(i), `{}`), 202)
	}
	a := r.call(fake.GitHub(r.url("own"), routeKey, "x", "3", `{}`), 429)
	if a.Header.Get("Retry-After") != "20" && a.Header.Get("Retry-After") != "21" {
		t.Errorf("Retry-After %q", a.Header.Get("Retry-After"))
	}
	r.call(fake.GitHub(r.url("common"), commonKey, "x", "3", `{}`), 202) // another route's limit is its own
	r.call(fake.GitHub(r.url("own"), routeKey, "x", "0", `{}`), 200)     // what is known costs nothing
	r.now = r.now.Add(21 * time.Second)
	r.call(fake.GitHub(r.url("own"), routeKey, "x", "3", `{}`), 202)

	res, err := http.Get(strings.TrimSuffix(r.url(""), "/webhooks/") + "/health")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if res.StatusCode != 200 {
		t.Errorf("/health answers %d", res.StatusCode)
	}
	http.DefaultClient.CloseIdleConnections()
}

// A request in flight when the adapter is told to end is answered, and what
// waits in the socket's queue is for who has the socket next.
func TestEndsWithoutLosingCalls(t *testing.T) {
	r := newRig(t, config())
	stop := r.serve()
	tcp, err := r.Listener().(*net.TCPListener).File() // as a successor has it
	if err != nil {
		t.Fatal(err)
	}
	shared, err := net.FileListener(tcp)
	tcp.Close()
	if err != nil {
		t.Fatal(err)
	}
	defer shared.Close()
	url := r.url("own")
	entered, release := make(chan struct{}), make(chan struct{})
	r.sink.SetAccept(func([]domain.Inbound) error { close(entered); <-release; return nil })
	answers := make(chan int, 1)
	go func() {
		a, _ := fake.GitHub(url, routeKey, "x", "1", `{}`).Send(r.ctx)
		answers <- a.Status
	}()
	<-entered
	ended := make(chan error, 1)
	go func() { ended <- stop() }()
	close(release)
	if got := <-answers; got != 202 {
		t.Errorf("the call in flight was answered %d", got)
	}
	if err := <-ended; err != nil {
		t.Errorf("Run: %v", err)
	}
	go func() {
		a, _ := fake.GitHub(url, routeKey, "x", "2", `{}`).Send(r.ctx)
		answers <- a.Status
	}()
	next := newRig(t, config())
	next.Adapter, err = webhook.New(config(), webhook.Deps{Listener: shared})
	if err != nil {
		t.Fatal(err)
	}
	next.serve()
	if got := <-answers; got != 202 {
		t.Errorf("the call that waited was answered %d", got)
	}
}

// A taken port is told, and harms nothing else.
func TestPortInUse(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c := config()
	c.Port = l.Addr().(*net.TCPAddr).Port
	r := newRig(t, c)
	if e := adapter.ErrorOf(t, r.Run(r.ctx, r.sink)); e.Code != "port_in_use" || !strings.Contains(e.Reason, "WEBHOOK_PORT") {
		t.Errorf("%+v", e)
	}
}

// Subscriptions are served as soon as the file holds them, and until it does
// not; a damaged file changes nothing.
func TestSubscriptions(t *testing.T) {
	c := config()
	c.Subscriptions = filepath.Join(t.TempDir(), "webhook_subscriptions.json")
	r := newRig(t, c)
	r.serve()
	call := fake.GitHub(r.url("later"), "the subscriber's secret", "x", "1", `{}`)
	r.call(call, 404)
	if replaced, err := c.Subscribe("later", webhook.Route{Secret: []string{"the subscriber's secret"}, Description: "x"}); err != nil || replaced {
		t.Fatal(replaced, err)
	}
	r.call(call, 202)
	if info, err := os.Stat(c.Subscriptions); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the list's mode is %v, %v", info.Mode(), err)
	}
	if err := os.WriteFile(c.Subscriptions, []byte("{damaged"), 0o600); err != nil {
		t.Fatal(err)
	}
	r.call(call, 200)
	if _, err := c.Subscribe("x", webhook.Route{}); !domain.IsCode(err, domain.Config) {
		t.Errorf("a damaged list is written over: %v", err)
	}
	// As the other system writes it.
	if err := os.WriteFile(c.Subscriptions, []byte(`{"later":{"description":"","events":["push"],"secret":"their secret","prompt":"","skills":[],"deliver":"log","created_at":"2026-06-01T10:00:00Z"}}`), 0o600); err != nil {
		t.Fatal(err)
	}
	r.call(fake.GitHub(r.url("later"), "their secret", "push", "2", `{}`), 202)
	if err := c.Unsubscribe("later"); err != nil {
		t.Fatal(err)
	}
	r.call(call, 404)
	if err := c.Unsubscribe("later"); !domain.IsCode(err, domain.NotFound) {
		t.Errorf("%v", err)
	}
	if _, err := c.Subscribe("own", webhook.Route{}); !domain.IsCode(err, domain.Conflict) {
		t.Errorf("%v", err)
	}
	if _, err := c.Subscribe("Bad Name", webhook.Route{}); !domain.IsCode(err, domain.Invalid) {
		t.Errorf("%v", err)
	}
	if _, err := c.Find("nowhere"); !domain.IsCode(err, domain.NotFound) || errors.Is(err, os.ErrNotExist) {
		t.Errorf("%v", err)
	}
}
