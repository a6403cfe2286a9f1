package telegram_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"hermes/internal/domain"
	"hermes/internal/health"
	"hermes/internal/platform"
	"hermes/internal/platform/telegram"
	"hermes/testkit/adapter"
	"hermes/testkit/fault"
)

func itoa(n int64) string { return strconv.FormatInt(n, 10) }

func TestNothingIsConfirmedBeforeItIsCommitted(t *testing.T) {
	r := newRig(t, nil)
	entered, release := make(chan struct{}), make(chan struct{})
	r.sink.SetAccept(func([]domain.Inbound) error {
		select {
		case entered <- struct{}{}:
		case <-release:
		}
		<-release
		return nil
	})
	alice := r.srv.AddUser("Alice")
	r.srv.Say(alice, "hello")
	r.run(t)
	receive(t, r.ctx, entered)
	if r.srv.Confirmed() != 0 || r.srv.Pending() != 1 {
		t.Fatalf("confirmed %d with %d pending before the commit", r.srv.Confirmed(), r.srv.Pending())
	}
	close(release)
	in := r.sink.Wait(t, r.ctx, 1)[0]
	update, _ := strconv.ParseInt(in.EventID, 10, 64)
	if err := r.srv.WaitConfirmed(r.ctx, update); err != nil {
		t.Fatal(err)
	}
	if cursor, _ := r.sink.Cursor(r.ctx, ""); cursor != itoa(update+1) {
		t.Errorf("the cursor is %s, want %d", cursor, update+1)
	}
	want := domain.Source{
		Address: address(alice.ID), Account: "7000000001", ChatType: domain.ChatDM, ChatName: "Alice",
		UserID: itoa(alice.ID), UserName: "Alice", MessageID: "1",
	}
	if in.Source != want || in.Text != "hello" || !in.Mentioned || in.SentAt.IsZero() {
		t.Errorf("stored as %+v", in)
	}
	if err := r.srv.WaitPolling(r.ctx); err != nil {
		t.Fatal(err)
	}
	if p := r.part(); p.State != health.OK || p.Evidence["bot"] != "@hermes_test_bot" || p.Evidence["reconnects"] != "0" || p.LastOK.IsZero() {
		t.Errorf("status is %+v", p)
	}
}

func TestAFailingInboxLosesNothing(t *testing.T) {
	r := newRig(t, nil)
	alice := r.srv.AddUser("Alice")
	var tries int
	failing := make(chan struct{})
	r.sink.SetAccept(func([]domain.Inbound) error {
		if tries++; tries <= 5 {
			if tries == 3 {
				close(failing)
			}
			return domain.E(domain.StorageFull, nil, "the disk is full")
		}
		return nil
	})
	r.srv.Say(alice, "1")
	r.run(t)
	receive(t, r.ctx, failing)
	if p := r.part(); p.State != health.Degraded || p.Code != "storage_full" || !strings.Contains(p.Message, "the disk is full") {
		t.Errorf("while it fails, status is %+v", p)
	}
	r.srv.Say(alice, "2")
	r.srv.Say(alice, "3")
	if got := adapter.Texts(r.sink.Wait(t, r.ctx, 3)); strings.Join(got, "") != "123" {
		t.Errorf("stored %v", got)
	}
}

func TestAnEventThatCannotBeStoredBlocksNothing(t *testing.T) {
	r := newRig(t, nil)
	alice := r.srv.AddUser("Alice")
	r.sink.SetAccept(func(events []domain.Inbound) error {
		for _, e := range events {
			if e.Text == "poison" {
				return domain.E(domain.Invalid, nil, "no")
			}
		}
		return nil
	})
	for _, s := range []string{"a", "poison", "b"} {
		r.srv.Say(alice, s)
	}
	r.srv.Say(alice, "poison")
	r.run(t)
	got := r.sink.Wait(t, r.ctx, 2)
	if strings.Join(adapter.Texts(got), "") != "ab" {
		t.Errorf("stored %v", adapter.Texts(got))
	}
	update, _ := strconv.ParseInt(got[1].EventID, 10, 64)
	if err := r.srv.WaitConfirmed(r.ctx, update+1); err != nil {
		t.Fatal("the loop is stuck at the event: ", err)
	}
}

func TestRestartGoesOnFromTheCursor(t *testing.T) {
	r := newRig(t, nil)
	alice := r.srv.AddUser("Alice")
	r.srv.Say(alice, "1")
	stop := r.run(t)
	r.sink.Wait(t, r.ctx, 1)
	if err := stop(); err != nil {
		t.Fatalf("Run ended with %v when it was stopped", err)
	}
	r.srv.Say(alice, "2")
	r.run(t)
	if got := adapter.Texts(r.sink.Wait(t, r.ctx, 2)); strings.Join(got, "") != "12" {
		t.Errorf("stored %v", got)
	}
}

func TestUpdateIDsMayJumpBack(t *testing.T) {
	r := newRig(t, nil)
	alice := r.srv.AddUser("Alice")
	r.run(t)
	r.srv.Say(alice, "1")
	r.sink.Wait(t, r.ctx, 1)
	r.srv.SkipUpdates(-500_000)
	r.srv.Say(alice, "2")
	if got := adapter.Texts(r.sink.Wait(t, r.ctx, 2)); strings.Join(got, "") != "12" {
		t.Errorf("stored %v", got)
	}
}

func TestFaultsOfThePollHeal(t *testing.T) {
	for _, c := range []struct {
		name  string
		fault fault.Fault
		code  string
	}{
		{"502", fault.BadGateway(), "telegram_502"},
		{"500 in JSON", fault.Fault{Status: 500}, "telegram_500"},
		{"429", fault.TooMany(1), "telegram_429"},
		{"cut", fault.CutBefore(), "telegram_poll_cut"},
		{"a page of something else", fault.Fault{Status: 200, Body: "<html>Log in to the hotel's network</html>"}, "telegram_poll_garbled"},
		{"a proxy's 403", fault.Fault{Status: 403, Body: "<html>no</html>"}, "telegram_403"},
		{"never answered", fault.Fault{BlackHole: true}, "telegram_poll_stuck"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, nil)
			alice := r.srv.AddUser("Alice")
			r.srv.Fail("getUpdates", c.fault)
			r.srv.Say(alice, "hello")
			r.run(t)
			r.sink.Wait(t, r.ctx, 1)
			if !strings.Contains(r.logs.String(), "code="+c.code+" ") {
				t.Errorf("the log does not say %s:\n%s", c.code, r.logs)
			}
			if p := r.part(); p.State != health.OK {
				t.Errorf("in the end, status is %+v", p)
			}
		})
	}
}

func TestAServerThatIsGoneComesBack(t *testing.T) {
	r := newRig(t, nil)
	alice := r.srv.AddUser("Alice")
	r.run(t)
	if err := r.srv.WaitPolling(r.ctx); err != nil {
		t.Fatal(err)
	}
	r.srv.GoDark()
	r.srv.Say(alice, "are you there?")
	r.logs.Wait(t, r.ctx, "code=telegram_unreachable", 1)
	if p := r.part(); p.State != health.Degraded || p.Code != "telegram_unreachable" {
		t.Errorf("while it is gone, status is %+v", p)
	}
	if err := r.srv.ComeBack(); err != nil {
		t.Fatal(err)
	}
	r.sink.Wait(t, r.ctx, 1)
	if err := r.srv.WaitPolling(r.ctx); err != nil {
		t.Fatal(err)
	}
	if p := r.part(); p.State != health.OK {
		t.Errorf("status is %+v", p)
	}
}

func TestRunGivesUpAfterTooManyFailures(t *testing.T) {
	r := newRig(t, nil)
	r.GiveUpAfter(3)
	r.srv.GoDark()
	e := adapter.Fails(t, r.Run(r.ctx, r.sink), platform.Retry)
	if e.Code != "telegram_unreachable" || e.Uncertain {
		t.Errorf("got %+v", e)
	}
}

func TestARefusedTokenIsNamed(t *testing.T) {
	r := newRig(t, func(c *telegram.Config) { c.Token = "7000000001:another" })
	e := adapter.Fails(t, r.Run(r.ctx, r.sink), platform.BadCredentials)
	if !strings.Contains(e.Reason, ".env line 2 (TELEGRAM_BOT_TOKEN)") || strings.Contains(e.Error(), "another") {
		t.Errorf("it says %q", e)
	}
	if p := r.part(); p.State != health.Down || p.Message != e.Reason {
		t.Errorf("status is %+v", p)
	}
}

func TestASecondPollerIsTolerableForAWhile(t *testing.T) {
	r := newRig(t, nil)
	alice := r.srv.AddUser("Alice")
	r.run(t)
	if err := r.srv.WaitPolling(r.ctx); err != nil {
		t.Fatal(err)
	}
	resp, err := http.Get(r.srv.URL() + "/bot" + r.srv.Token() + "/getUpdates")
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	http.DefaultClient.CloseIdleConnections()
	r.srv.Say(alice, "hello")
	r.sink.Wait(t, r.ctx, 1)
	if !strings.Contains(r.logs.String(), "code=telegram_409") {
		t.Errorf("the log does not name the conflict:\n%s", r.logs)
	}
}

func TestASecondPollerThatStaysIsReported(t *testing.T) {
	r := newRig(t, nil)
	r.Hasten(0)
	r.srv.Fail("getUpdates", fault.Fault{Status: 409, Times: -1})
	e := adapter.Fails(t, r.Run(r.ctx, r.sink), platform.TakenOver)
	if p := r.part(); p.State != health.Down || p.Code != "telegram_409" || !strings.Contains(e.Reason, "another program polls this bot") {
		t.Errorf("status is %+v, error %v", p, e)
	}
}

func TestPollersThatCutEachOtherByTurnsAreReported(t *testing.T) {
	r := newRig(t, nil)
	r.Hasten(time.Nanosecond) // the first conflict is tolerated, one that follows soon is not
	r.srv.Fail("getUpdates", fault.Fault{Status: 409})
	r.srv.Fail("getUpdates", fault.Fault{})
	r.srv.Fail("getUpdates", fault.Fault{Status: 409})
	adapter.Fails(t, r.Run(r.ctx, r.sink), platform.TakenOver)
	if n := r.srv.Calls("getUpdates"); n != 3 {
		t.Errorf("it gave up after %d polls, want 3", n)
	}
}

func TestAWebhookInTheWay(t *testing.T) {
	r := newRig(t, nil)
	r.srv.SetWebhook("https://example.org/hook")
	e := adapter.Fails(t, r.Run(r.ctx, r.sink), platform.TakenOver)
	if e.Code != "telegram_webhook" || !strings.Contains(e.Reason, "delete_webhook: true") {
		t.Errorf("it says %+v", e)
	}

	for _, ours := range []func(*telegram.Config){
		func(c *telegram.Config) { c.DeleteWebhook = true },
		func(c *telegram.Config) { c.WebhookURL = "https://example.org/hook" },
	} {
		r = newRig(t, ours)
		r.srv.SetWebhook("https://example.org/hook")
		r.srv.Say(r.srv.AddUser("Alice"), "hello")
		r.run(t)
		r.sink.Wait(t, r.ctx, 1)
	}
}

func TestFencedEndsRun(t *testing.T) {
	r := newRig(t, nil)
	r.sink.SetAccept(func([]domain.Inbound) error { return domain.E(domain.Fenced, nil, "another process has the bot") })
	r.srv.Say(r.srv.AddUser("Alice"), "hello")
	if err := r.Run(r.ctx, r.sink); !domain.IsCode(err, domain.Fenced) {
		t.Errorf("Run ended with %v", err)
	}
	if r.srv.Confirmed() != 0 {
		t.Error("the update was confirmed")
	}
}

func TestRunStopsAtOnceInALongPoll(t *testing.T) {
	r := newRig(t, func(c *telegram.Config) { c.PollTimeout = time.Hour })
	stop := r.run(t)
	if err := r.srv.WaitPolling(r.ctx); err != nil {
		t.Fatal(err)
	}
	if err := stop(); err != nil || r.ctx.Err() != nil {
		t.Errorf("it ended with %v, %v", err, r.ctx.Err())
	}
}

func TestUpdatesThatCannotBeReadAreSurvived(t *testing.T) {
	r := newRig(t, nil)
	alice := r.srv.AddUser("Alice")
	private := map[string]any{"id": alice.ID, "type": "private", "first_name": "Alice"}
	from := map[string]any{"id": alice.ID, "first_name": "Alice"}
	r.srv.PushUpdate("message", "no object at all")
	r.srv.PushUpdate("message", map[string]any{"message_id": 1, "from": from, "chat": private, "date": 1, "text": "from afar",
		"forward_origin": map[string]any{"type": "telepathy"}})
	r.srv.PushUpdate("message", map[string]any{"message_id": 2, "from": from, "chat": private, "date": 1, "text": "nul \x00 here"})
	r.srv.PushUpdate("message", map[string]any{"message_id": 3, "from": from, "chat": private, "date": 1, "new_chat_title": "nothing said"})
	r.srv.Say(alice, "last")
	r.run(t)
	got := adapter.Texts(r.sink.Wait(t, r.ctx, 3))
	if fmt.Sprintf("%q", got) != `["from afar" "nul  here" "last"]` {
		t.Errorf("stored %q", got)
	}
}

func TestABurst(t *testing.T) {
	r := newRig(t, nil)
	alice := r.srv.AddUser("Alice")
	const n = 1050 // more than ten batches
	for i := range n {
		r.srv.Say(alice, strconv.Itoa(i))
	}
	r.run(t)
	for i, in := range r.sink.Wait(t, r.ctx, n) {
		if in.Text != strconv.Itoa(i) {
			t.Fatalf("event %d is %q: out of order", i, in.Text)
		}
	}
}

func TestConfigIsChecked(t *testing.T) {
	for name, c := range map[string]telegram.Config{
		"no token":  {},
		"no digits": {Token: "abc:def"},
		"no colon":  {Token: "123"},
		"a path":    {Token: "123:../../x"},
		"base URL":  {Token: "123:abc", BaseURL: "localhost"},
		"proxy":     {Token: "123:abc", Proxy: "::"},
	} {
		_, err := telegram.New(c, platform.Deps{})
		if !domain.IsCode(err, domain.Config) {
			t.Errorf("%s: %v", name, err)
		}
		if c.Token.IsSet() && err != nil && strings.Contains(err.Error(), c.Token.Reveal()) {
			t.Errorf("%s: the token stands in %q", name, err)
		}
	}
}

// TestTheTokenNeverShows goes through every way to fail, with everything
// logged: neither an error nor the log (see newRig) may hold the token.
func TestTheTokenNeverShows(t *testing.T) {
	faults := []fault.Fault{fault.CutBefore(), fault.BadGateway(), fault.TooMany(1), {BlackHole: true}, {Status: 200, Body: "no JSON"}, {Status: 200, Body: `{"ok":true,"result":7}`}}
	for _, status := range []int{301, 302, 400, 401, 403, 404, 409, 413, 418, 500, 503} {
		faults = append(faults, fault.Fault{Status: status}, fault.Fault{Status: status, Body: "<html>"})
	}
	run := func(r *rig, what string) {
		check := func(err error) {
			if err != nil && (strings.Contains(err.Error(), r.srv.Token()) || strings.Contains(fmt.Sprintf("%+v", err), r.srv.Token())) {
				t.Errorf("%s: the token stands in %v", what, err)
			}
			for e := err; e != nil; e = errors.Unwrap(e) {
				if strings.Contains(fmt.Sprintf("%#v", e), r.srv.Token()) {
					t.Errorf("%s: the token stands in %#v", what, e)
				}
			}
		}
		ctx, cancel := context.WithTimeout(r.ctx, 200*time.Millisecond)
		defer cancel()
		to := address(5)
		_, err := r.Send(ctx, to, domain.Part{Text: "x"}, "n")
		check(err)
		check(r.Edit(ctx, to, "1", domain.Part{Text: "x"}))
		check(r.Typing(ctx, to))
		check(r.SetCommands(ctx, []platform.Command{{Name: "x"}}))
		_, err = r.Fetch(ctx, domain.Attachment{Ref: "x"}, 10, &adapter.Log{})
		check(err)
		r.GiveUpAfter(1)
		check(r.Run(ctx, r.sink))
	}
	for _, f := range faults {
		r := newRig(t, nil)
		f.Times = -1
		r.srv.Fail("", f)
		run(r, fmt.Sprintf("%+v", f))
	}
	r := newRig(t, nil)
	r.srv.GoDark()
	run(r, "gone")
	r = newRig(t, func(c *telegram.Config) { c.Proxy = "http://127.0.0.1:1" })
	run(r, "no proxy")
	r = newRig(t, func(c *telegram.Config) { c.BaseURL = "http://no-such-host.invalid" })
	run(r, "no such host")
}

// BenchmarkReceive is the time from a person's message to its commit.
func BenchmarkReceive(b *testing.B) {
	r := newRig(b, nil)
	alice := r.srv.AddUser("Alice")
	stored := make(chan struct{})
	r.sink.SetAccept(func([]domain.Inbound) error { stored <- struct{}{}; return nil })
	r.run(b)
	for b.Loop() {
		r.srv.Say(alice, "x")
		<-stored
	}
}
