package slack_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"hermes/internal/domain"
	"hermes/internal/health"
	"hermes/internal/platform"
	"hermes/internal/platform/slack"
	"hermes/testkit/adapter"
	"hermes/testkit/fault"
	fake "hermes/testkit/slack"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestADirectMessageIsCommittedThenAcknowledged(t *testing.T) {
	r := newRig(t, nil)
	ann := r.srv.AddUser("Ann")
	dm := r.srv.Direct(ann)
	r.connect(t)
	hold := make(chan struct{})
	r.sink.SetAccept(func(events []domain.Inbound) error {
		if len(events) > 0 {
			<-hold
		}
		return nil
	})
	m := r.srv.Say(ann, dm, "hello & <good> morning")
	before := r.srv.Acked()
	must(t, r.srv.WaitCalls(r.ctx, "ping", r.srv.Calls("ping")+5)) // time passes, by evidence
	if n := r.srv.Acked(); n != before {
		t.Errorf("%d envelopes were acknowledged before their event was stored", n-before)
	}
	close(hold)
	got := r.sink.Wait(t, r.ctx, 1)[0]
	must(t, r.srv.WaitAcked(r.ctx, before+1))
	want := domain.Source{Address: domain.Address{Platform: slack.Name, ChatID: dm}, Account: "T0FAKETEAM:" + r.srv.Bot().ID, ChatType: domain.ChatDM, ChatName: "Ann", UserID: ann.ID, UserName: "Ann", MessageID: m.TS}
	if got.Text != "hello & <good> morning" || got.Source != want || got.EventID != dm+":"+m.TS || !got.Mentioned {
		t.Errorf("it was read as %q in %#v", got.Text, got.Source)
	}
	if p := r.part(); p.State != health.OK || p.Evidence["bot"] != "@hermes" || p.Evidence["workspace"] != "Acme" || p.Evidence["last_event"] == "" {
		t.Errorf("the evidence is %+v", p)
	}
}

// What is not acknowledged in time comes again, and is known then.
func TestARedeliveredEventIsKnown(t *testing.T) {
	r := newRigWith(t, fake.Options{RedeliverAfter: 20 * time.Millisecond}, nil)
	ann := r.srv.AddUser("ann")
	r.connect(t)
	again := make(chan struct{})
	var once atomic.Bool
	r.sink.SetAccept(func(events []domain.Inbound) error {
		if len(events) > 0 && once.CompareAndSwap(false, true) {
			<-again
		}
		return nil
	})
	r.srv.Say(ann, r.srv.Direct(ann), "once")
	pings := r.srv.Calls("ping")
	must(t, r.srv.WaitCalls(r.ctx, "ping", pings+5)) // long enough to be sent again
	close(again)
	r.srv.Say(ann, r.srv.Direct(ann), "twice")
	events := r.sink.Wait(t, r.ctx, 2)
	if len(events) != 2 || events[0].Text != "once" || events[1].Text != "twice" {
		t.Errorf("stored were %q", adapter.Texts(events))
	}
}

func TestWhatWasSaidWhileAwayIsRead(t *testing.T) {
	r := newRig(t, nil)
	ann := r.srv.AddUser("ann")
	dm, general := r.srv.Direct(ann), r.srv.AddChannel("general", "public_channel")
	stop := r.connect(t)
	first := r.srv.Say(ann, general, r.srv.Mention()+" begin")
	r.sink.Wait(t, r.ctx, 1)
	must(t, stop())

	r.srv.Say(ann, dm, "one")
	r.srv.Say(ann, general, "chatter")
	r.srv.Say(ann, general, r.srv.Mention()+" two")
	r.srv.Post(fake.Post{From: ann, Channel: general, Thread: first.TS, Text: r.srv.Mention() + " in the thread"})
	bob := r.srv.AddUser("bob")
	r.srv.Say(bob, r.srv.Direct(bob), "a first word")
	r.Adapter = r.another(t) // the next life
	r.connect(t)
	events := r.sink.Wait(t, r.ctx, 5)
	got := map[string]bool{}
	for _, in := range events {
		got[in.Text] = true
	}
	for _, want := range []string{"begin", "one", "two", "in the thread", "a first word"} {
		if !got[want] {
			t.Errorf("%q was not read: %q", want, adapter.Texts(events))
		}
	}
	if len(events) != 5 {
		t.Errorf("stored were %q", adapter.Texts(events))
	}
}

// The first message of a thread may be older than what is read of its channel.
func TestAnOldThreadIsRemembered(t *testing.T) {
	var clock atomic.Int64
	clock.Store(time.Now().Add(-5 * 24 * time.Hour).UnixMicro())
	r := newRigWith(t, fake.Options{Now: func() time.Time { return time.UnixMicro(clock.Load()) }}, nil)
	ann, general := r.srv.AddUser("ann"), r.srv.AddChannel("general", "public_channel")
	root := r.srv.Post(fake.Post{From: ann, Channel: general, Text: "old"})
	other := r.srv.Post(fake.Post{From: ann, Channel: general, Text: "old as well"})
	clock.Store(time.Now().UnixMicro())
	// The first one is among the threads that a former life remembered.
	r.sink.SetCursor(fmt.Sprintf(`{"from":1,"seen":%d,"threads":[{"c":%q,"t":%q}]}`, time.Now().Add(-time.Minute).UnixMicro(), general, root.TS))
	r.srv.Post(fake.Post{From: ann, Channel: general, Thread: other.TS, Text: r.srv.Mention() + " and there?"})
	r.srv.Post(fake.Post{From: ann, Channel: general, Thread: root.TS, Text: r.srv.Mention() + " still there?"})
	r.connect(t)
	if got := r.sink.Wait(t, r.ctx, 1)[0]; got.Text != "still there?" || got.ThreadID != root.TS {
		t.Errorf("read was %+v", got)
	}
}

// An event that no connection was given is found when the next one is made.
func TestALostEventIsFoundAfterAConnect(t *testing.T) {
	r := newRig(t, nil)
	ann := r.srv.AddUser("ann")
	dm := r.srv.Direct(ann)
	r.connect(t)
	r.srv.Post(fake.Post{From: ann, Channel: dm, Text: "unheard", Unheard: true})
	r.srv.CutSockets()
	if got := r.sink.Wait(t, r.ctx, 1)[0]; got.Text != "unheard" {
		t.Errorf("read was %q", got.Text)
	}
	must(t, r.srv.WaitSockets(r.ctx, 2))
}

func TestAnEventLostWithoutATraceIsFound(t *testing.T) {
	r := newRig(t, func(c *slack.Config) { c.CheckEvery = 30 * time.Millisecond })
	ann := r.srv.AddUser("ann")
	r.connect(t)
	r.srv.Post(fake.Post{From: ann, Channel: r.srv.Direct(ann), Text: "unheard", Unheard: true})
	if got := r.sink.Wait(t, r.ctx, 1)[0]; got.Text != "unheard" {
		t.Errorf("read was %q", got.Text)
	}
}

// What was said before comes before what is said now, in each conversation.
func TestOrderIsKeptWhileTheHistoryIsRead(t *testing.T) {
	r := newRig(t, nil)
	ann := r.srv.AddUser("ann")
	dm := r.srv.Direct(ann)
	r.connect(t)()
	for _, text := range []string{"one", "two", "three"} {
		r.srv.Say(ann, dm, text)
	}
	hold := make(chan struct{})
	r.srv.Fail("conversations.history", fault.Fault{Hold: hold})
	read := r.srv.Calls("conversations.history")
	r.Adapter = r.another(t)
	r.run(t)
	must(t, r.srv.WaitCalls(r.ctx, "conversations.history", read+1))
	r.srv.Say(ann, dm, "four")
	close(hold)
	if got := strings.Join(adapter.Texts(r.sink.Wait(t, r.ctx, 4)), " "); got != "one two three four" {
		t.Errorf("stored were %s", got)
	}
}

// Slack renews connections now and then; a press in that instant is not lost.
func TestARefreshLosesNothing(t *testing.T) {
	for _, reason := range []string{"warning", "refresh_requested"} {
		t.Run(reason, func(t *testing.T) {
			r := newRig(t, nil)
			ann := r.srv.AddUser("ann")
			dm := r.srv.Direct(ann)
			r.connect(t)
			hold := make(chan struct{})
			r.srv.Fail("apps.connections.open", fault.Fault{Hold: hold})
			r.srv.Disconnect(reason)
			must(t, r.srv.WaitCalls(r.ctx, "apps.connections.open", 2))
			if n := r.srv.Sockets(); n != 1 {
				t.Errorf("%d connections are open while the new one is made, want the old one", n)
			}
			close(hold)
			must(t, r.srv.WaitSockets(r.ctx, 2))
			envelope := r.srv.Command(ann, dm, "/hermes", "status")
			must(t, r.srv.WaitAck(r.ctx, envelope))
			r.srv.CutLeaving()
			r.srv.Say(ann, dm, "after it")
			if got := adapter.Texts(r.sink.Wait(t, r.ctx, 2)); got[1] != "after it" {
				t.Errorf("stored were %q", got)
			}
			if p := r.part(); p.State != health.OK {
				t.Errorf("it is shown as %+v", p)
			}
		})
	}
}

func TestSocketModeSwitchedOff(t *testing.T) {
	r := newRig(t, nil)
	r.GiveUpAfter(1)
	done := make(chan error, 1)
	go func() { done <- r.Run(r.ctx, r.sink) }()
	r.logs.Wait(t, r.ctx, "all that was written in Slack is read", 1)
	r.srv.Disconnect("link_disabled")
	if e := adapter.Fails(t, <-done, platform.Retry); e.Code != "slack_socket_mode" || !strings.Contains(e.Reason, "switch it on") {
		t.Errorf("it says %v", e)
	}
}

func TestASilentSocketIsReplaced(t *testing.T) {
	r := newRig(t, func(c *slack.Config) { c.PingTimeout = 50 * time.Millisecond })
	ann := r.srv.AddUser("ann")
	r.connect(t)
	r.srv.MutePings(true)
	r.logs.Wait(t, r.ctx, "slack_silent", 1)
	r.srv.MutePings(false)
	r.srv.Say(ann, r.srv.Direct(ann), "heard again")
	r.sink.Wait(t, r.ctx, 1)
}

func TestABlackHoleIsNoticed(t *testing.T) {
	r := newRig(t, nil)
	r.Adapter.HelloWithin(50 * time.Millisecond)
	r.srv.Silence(true)
	r.run(t)
	r.logs.Wait(t, r.ctx, "did not greet the websocket", 2)
	if p := r.part(); p.State != health.Degraded {
		t.Errorf("it is shown as %+v", p)
	}
	r.srv.Silence(false)
	r.logs.Wait(t, r.ctx, "Slack answers again", 1)
}

func TestAServerThatGoesAwayAndComesBack(t *testing.T) {
	r := newRig(t, nil)
	ann := r.srv.AddUser("ann")
	r.connect(t)
	r.srv.GoDark()
	r.logs.Wait(t, r.ctx, "Slack is not heard", 2)
	r.srv.Say(ann, r.srv.Direct(ann), "in the dark")
	must(t, r.srv.ComeBack())
	if got := r.sink.Wait(t, r.ctx, 1)[0]; got.Text != "in the dark" {
		t.Errorf("read was %q", got.Text)
	}
}

func TestARevokedTokenEndsIt(t *testing.T) {
	r := newRig(t, nil)
	r.srv.Revoke(true)
	e := adapter.Fails(t, r.Run(r.ctx, r.sink), platform.BadCredentials)
	if !strings.Contains(e.Reason, ".env line 2 (SLACK_BOT_TOKEN)") || strings.Contains(e.Error(), r.srv.Token()) {
		t.Errorf("it says %v", e)
	}
	if p := r.part(); p.State != health.Down {
		t.Errorf("it is shown as %+v", p)
	}
}

func TestTheStoreThatIsBusyIsAskedAgain(t *testing.T) {
	r := newRig(t, nil)
	ann := r.srv.AddUser("ann")
	r.connect(t)
	var tries atomic.Int32
	r.sink.SetAccept(func(events []domain.Inbound) error {
		if len(events) > 0 && tries.Add(1) < 3 {
			return domain.E(domain.Unavailable, nil, "the disk is full")
		}
		return nil
	})
	r.srv.Say(ann, r.srv.Direct(ann), "kept")
	r.sink.Wait(t, r.ctx, 1)
	if n := tries.Load(); n < 3 {
		t.Errorf("it was stored at attempt %d", n)
	}
}

func TestAnEventThatCannotBeStoredBlocksNoOther(t *testing.T) {
	r := newRig(t, nil)
	ann := r.srv.AddUser("ann")
	dm := r.srv.Direct(ann)
	r.connect(t)
	r.sink.SetAccept(func(events []domain.Inbound) error {
		for _, in := range events {
			if in.Text == "bad" {
				return domain.E(domain.Invalid, nil, "it is bad")
			}
		}
		return nil
	})
	for _, text := range []string{"one", "bad", "two"} {
		r.srv.Say(ann, dm, text)
	}
	if got := strings.Join(adapter.Texts(r.sink.Wait(t, r.ctx, 2)), " "); got != "one two" {
		t.Errorf("stored were %s", got)
	}
	must(t, r.srv.WaitAcked(r.ctx, 3))
}

func TestAnotherOwnerEndsIt(t *testing.T) {
	r := newRig(t, nil)
	ann := r.srv.AddUser("ann")
	r.sink.SetAccept(func([]domain.Inbound) error { return domain.E(domain.Fenced, nil, "somebody else serves") })
	done := make(chan error, 1)
	go func() { done <- r.Run(r.ctx, r.sink) }()
	r.srv.Say(ann, r.srv.Direct(ann), "hello")
	if err := <-done; domain.CodeOf(err) != domain.Fenced {
		t.Errorf("Run gave %v", err)
	}
}

func TestABrokenCursorEndsRun(t *testing.T) {
	r := newRig(t, nil)
	broken := errors.New("the ledger is closed")
	if err := r.Run(r.ctx, adapter.NoCursor{Inbox: r.sink, Err: broken}); !errors.Is(err, broken) {
		t.Errorf("Run gave %v", err)
	}
}

func TestRunEndsSoon(t *testing.T) {
	r := newRig(t, nil)
	stop := r.connect(t)
	began := time.Now()
	must(t, stop())
	if d := time.Since(began); d > 10*time.Second {
		t.Errorf("it took %s", d)
	}
}

// A frame and a message that make no sense cost nothing else.
func TestNonsenseIsLeftOut(t *testing.T) {
	r := newRig(t, nil)
	ann := r.srv.AddUser("ann")
	dm := r.srv.Direct(ann)
	r.connect(t)()
	r.srv.Post(fake.Post{From: ann, Channel: dm, Text: "odd", Raw: map[string]any{"user": 7, "files": "none"}})
	r.srv.Say(ann, dm, "sound")
	r.Adapter = r.another(t)
	r.connect(t)
	for _, frame := range []string{`nonsense`, `{}`, `[1]`, `{"type":"events_api","envelope_id":"x1"}`, `{"type":"events_api","envelope_id":"x2","payload":{"event":[]}}`,
		`{"type":"interactive","envelope_id":"x3","payload":"x"}`, `{"type":"slash_commands","envelope_id":"x4","payload":[]}`, `{"type":"new_kind","envelope_id":"x5"}`} {
		r.srv.PushRaw(frame)
	}
	r.srv.Say(ann, dm, "after it")
	if got := strings.Join(adapter.Texts(r.sink.Wait(t, r.ctx, 2)), " "); got != "sound after it" {
		t.Errorf("stored were %s", got)
	}
}

// The history of very many conversations waits for Slack's limit, and what is
// said meanwhile is heard all the same.
func TestALongHistoryDelaysNobody(t *testing.T) {
	r := newRig(t, nil)
	ann := r.srv.AddUser("ann")
	for range 30 {
		r.srv.AddChannel("c", "public_channel")
	}
	r.ObeyTiers()
	stop := r.run(t)
	must(t, r.srv.WaitCalls(r.ctx, "conversations.history", 10))
	r.srv.Say(ann, r.srv.Direct(ann), "meanwhile")
	r.sink.Wait(t, r.ctx, 1)
	if n := r.srv.Calls("conversations.history"); n > 25 {
		t.Errorf("%d histories were read at once", n)
	}
	must(t, stop())
}

func TestMissingPermissionsAreNamed(t *testing.T) {
	r := newRig(t, nil)
	r.srv.DropScope("mpim:read")
	ann := r.srv.AddUser("ann")
	r.connect(t)
	if p := r.part(); p.State != health.OK || p.Evidence["missing_permissions"] != "mpim:read" {
		t.Errorf("it is shown as %+v", p)
	}
	r.srv.Say(ann, r.srv.Direct(ann), "hello")
	r.sink.Wait(t, r.ctx, 1)
}

func TestCheck(t *testing.T) {
	r := newRig(t, nil)
	must(t, r.Check(r.ctx))
	if n := r.srv.Sockets(); n != 0 {
		t.Errorf("%d connections were opened", n)
	}
	r.srv.Fail("apps.connections.open", fake.Refusal("invalid_auth"))
	if e := adapter.Fails(t, r.Check(r.ctx), platform.BadCredentials); !strings.Contains(e.Reason, "SLACK_APP_TOKEN") {
		t.Errorf("it says %v", e)
	}
	r.srv.Revoke(true)
	adapter.Fails(t, r.Check(r.ctx), platform.BadCredentials)
	r.srv.Revoke(false)
	r.srv.GoDark()
	ctx, cancel := context.WithTimeout(r.ctx, 5*time.Second)
	defer cancel()
	adapter.Fails(t, r.Check(ctx), platform.Retry)
}

func TestTokensOfTwoApps(t *testing.T) {
	r := newRigWith(t, fake.Options{AppToken: "xapp-1-A0OTHERAPP-100-secret0of0another"}, nil)
	e := adapter.Fails(t, r.Check(r.ctx), platform.BadCredentials)
	if !strings.Contains(e.Reason, "A0OTHERAPP") || !strings.Contains(e.Reason, "A0FAKEAPP1") {
		t.Errorf("it says %v", e)
	}
}
