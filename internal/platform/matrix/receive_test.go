package matrix_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"hermes/internal/domain"
	"hermes/internal/health"
	"hermes/internal/platform"
	"hermes/internal/platform/matrix"
	"hermes/testkit/adapter"
	"hermes/testkit/fault"
	fake "hermes/testkit/matrix"
)

const syncs = "GET /v3/sync"

func TestADirectMessage(t *testing.T) {
	r := newRig(t, nil)
	ann := r.srv.AddUser("Ann")
	stop := r.connect(t)
	// What is said before the invitation is accepted counts too.
	dm := r.srv.Invite(ann, true)
	id := r.srv.Say(ann, dm, "hello\x00 there")
	in := r.sink.Wait(t, r.ctx, 1)[0]
	if in.Text != "hello there" || in.UserID != ann.ID || in.UserName != "Ann" || in.ChatName != "Ann" || in.ChatID != dm ||
		in.ChatType != domain.ChatDM || in.ThreadID != "" || !in.Mentioned || in.EventID != id || in.MessageID != id || in.Account != r.srv.User().ID || in.SentAt.IsZero() {
		t.Errorf("stored %+v", in)
	}
	if err := r.srv.WaitRead(r.ctx, dm, id); err != nil {
		t.Error("the message is not shown as read")
	}
	var directs map[string][]string
	if err := r.srv.AccountData("m.direct", &directs); err != nil || !slices.Equal(directs[ann.ID], []string{dm}) {
		t.Errorf("direct rooms: %v, %v", directs, err)
	}
	p := r.part()
	if p.State != health.OK || p.Evidence["bot"] != r.srv.User().ID || p.Evidence["reconnects"] != "0" || p.Evidence["last_event"] == "" {
		t.Errorf("health %+v", p)
	}
	if got := r.Capabilities().MentionName; got != r.srv.User().ID {
		t.Errorf("the account is called %q", got)
	}
	if err := stop(); err != nil {
		t.Errorf("Run ended with %v", err)
	}
}

func TestWhatWasSaidBeforeAnybodyListenedIsNotHeard(t *testing.T) {
	r := newRig(t, nil)
	ann := r.srv.AddUser("Ann")
	old := r.srv.Open(fake.Room{By: ann})
	r.srv.Enter(old)
	r.srv.Say(ann, old, "long ago")
	room := r.srv.Open(fake.Room{By: ann, Uninvited: true, Public: true})
	r.srv.Say(ann, room, "before you came")
	r.connect(t)
	r.srv.Enter(room)
	r.srv.Say(ann, room, "welcome")
	r.srv.Say(ann, old, "now")
	got := adapter.Texts(r.sink.Wait(t, r.ctx, 2))
	slices.Sort(got)
	if !slices.Equal(got, []string{"now", "welcome"}) {
		t.Errorf("heard %q", got)
	}
}

func TestWhoIsHeardInARoom(t *testing.T) {
	me := "@hermes:" + fake.Domain
	pill := `<a href="https://matrix.to/#/` + me + `">Hermes</a>: what now?`
	for _, tt := range []struct {
		name, want string // want "" is not heard
		post       fake.Post
		change     func(*matrix.Config)
	}{
		{name: "chatter", post: fake.Post{Text: "hello"}},
		{name: "mentioned", post: fake.Post{Text: "Hermes what now?", Mentions: []string{me}}, want: "what now?"},
		{name: "mentioned by its id", post: fake.Post{Text: me + ": what now?", Mentions: []string{me}}, want: "what now?"},
		{name: "mentioned last", post: fake.Post{Text: "what now, Hermes", Mentions: []string{me}}, want: "what now"},
		{name: "mentioned within", post: fake.Post{Text: "ask Hermes, please", Mentions: []string{me}}, want: "ask Hermes, please"},
		{name: "only mentioned", post: fake.Post{Text: "Hermes", Mentions: []string{me}}, want: "Hermes"},
		{name: "typed", post: fake.Post{Text: "@hermes, what now?"}, want: "what now?"},
		{name: "typed without a sign", post: fake.Post{Text: "hermes: what now?"}, want: "what now?"},
		{name: "spoken of", post: fake.Post{Text: "hermes is a god of the Greeks"}},
		{name: "a longer name", post: fake.Post{Text: "@hermes-two hello"}},
		{name: "an address", post: fake.Post{Text: "mail bob@hermes now"}},
		{name: "everybody", post: fake.Post{Text: "@room hello", Content: map[string]any{"m.mentions": map[string]any{"room": true}}}},
		{name: "an old client's pill", post: fake.Post{Text: "Hermes: what now?", HTML: pill, Legacy: true}, want: "what now?"},
		{name: "a new client's quotation of a pill", post: fake.Post{Text: "He wrote what now?", HTML: "<blockquote>" + pill + "</blockquote>"}},
		{name: "a command", post: fake.Post{Text: "@hermes !stop now"}, want: "/stop now"},
		{name: "no command", post: fake.Post{Text: "@hermes !wow"}, want: "!wow"},
		{name: "a pattern", post: fake.Post{Text: "Computer, hello"}, want: "Computer, hello", change: func(c *matrix.Config) { c.MentionPatterns = patterns("^computer") }},
		{name: "no need", post: fake.Post{Text: "hello"}, want: "hello", change: func(c *matrix.Config) { c.RequireMention = false }},
		{name: "free response", post: fake.Post{Text: "hello"}, want: "hello", change: func(c *matrix.Config) { c.Free = []string{"#town"} }},
		{name: "allowed elsewhere", post: fake.Post{Text: "@hermes hello"}, change: func(c *matrix.Config) { c.Allowed = []string{"other"} }},
		{name: "allowed", post: fake.Post{Text: "@hermes hello"}, want: "hello", change: func(c *matrix.Config) { c.Allowed = []string{"other", "town"} }},
		{name: "a bot", post: fake.Post{Text: "@hermes beep", Kind: "m.notice"}},
		{name: "a bot that is allowed", post: fake.Post{Text: "@hermes beep", Kind: "m.notice"}, want: "beep", change: func(c *matrix.Config) { c.AllowBots = true }},
		{name: "an emote", post: fake.Post{Text: "asks @hermes", Kind: "m.emote"}, want: "* asks"},
		{name: "a place", post: fake.Post{Text: "@hermes", Kind: "m.location"}},
		{name: "an odd body", post: fake.Post{Text: "x", Content: map[string]any{"body": 7, "m.mentions": map[string]any{"user_ids": "no list"}}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, tt.change)
			ann := r.srv.AddUser("Ann")
			if err := r.SetCommands(r.ctx, []platform.Command{{Name: "stop"}}); err != nil {
				t.Fatal(err)
			}
			r.connect(t)
			town, dm := r.room(t, ann, "Town"), r.direct(t, ann)
			tt.post.From, tt.post.Room = ann, town
			r.srv.Post(tt.post)
			r.srv.Say(ann, dm, "the end")
			want := []string{"the end"}
			if tt.want != "" {
				want = []string{tt.want, "the end"}
			}
			if got := adapter.Texts(r.sink.Wait(t, r.ctx, len(want))); !slices.Equal(got, want) {
				t.Errorf("heard %q, want %q", got, want)
			}
		})
	}
}

func TestThreads(t *testing.T) {
	for _, own := range []bool{false, true} {
		t.Run(fmt.Sprintf("own=%v", own), func(t *testing.T) {
			r := newRig(t, func(c *matrix.Config) { c.OwnThreads = own })
			ann := r.srv.AddUser("Ann")
			stop := r.connect(t)
			town := r.room(t, ann, "Town")
			root := r.srv.Say(ann, town, "@hermes hello")
			in := r.sink.Wait(t, r.ctx, 1)[0]
			want := ""
			if own {
				want = root
			}
			if in.ThreadID != want || in.ChatType != domain.ChatGroup || in.ChatName != "Town" {
				t.Fatalf("stored %+v, want thread %q", in, want)
			}
			// Once the account has written in a thread, it need not be named there.
			to := address(town)
			to.ThreadID = root
			if _, err := r.Send(r.ctx, to, domain.Part{Text: "hi"}, "n1"); err != nil {
				t.Fatal(err)
			}
			if m, err := r.srv.Next(r.ctx, town); err != nil || m.Thread != root || m.ReplyTo != root {
				t.Errorf("answered %+v, %v", m, err)
			}
			other := r.srv.Say(ann, town, "something else")
			r.srv.Post(fake.Post{From: ann, Room: town, Thread: other, Text: "not for you"})
			r.srv.Post(fake.Post{From: ann, Room: town, Thread: root, Text: "and now?"})
			events := r.sink.Wait(t, r.ctx, 2)
			if got := adapter.Texts(events); !slices.Equal(got, []string{"hello", "and now?"}) || events[1].ThreadID != root || !events[1].Mentioned {
				t.Errorf("heard %q, %+v", got, events[1])
			}
			// The next life of the process finds it out.
			stop()
			r.Adapter = r.another(t)
			r.srv.Post(fake.Post{From: ann, Room: town, Thread: root, Text: "and later?"})
			r.connect(t)
			if got := adapter.Texts(r.sink.Wait(t, r.ctx, 3)); got[2] != "and later?" {
				t.Errorf("heard %q", got)
			}
		})
	}
}

func TestReplies(t *testing.T) {
	r := newRig(t, nil)
	ann := r.srv.AddUser("Ann")
	r.connect(t)
	town := r.room(t, ann, "Town")
	id, err := r.Send(r.ctx, address(town), domain.Part{Text: "mine"}, "n1")
	if err != nil {
		t.Fatal(err)
	}
	theirs := r.srv.Say(ann, town, "theirs")
	r.srv.Post(fake.Post{From: ann, Room: town, ReplyTo: theirs, Text: "> <@ann:fake.test> theirs\n\nnot for you", Legacy: true})
	r.srv.Post(fake.Post{From: ann, Room: town, ReplyTo: id, Text: "> <@hermes:fake.test> mine\n> more\n\nwhy?", Legacy: true})
	r.srv.Post(fake.Post{From: ann, Room: town, ReplyTo: theirs, Text: "@hermes see", Mentions: []string{r.srv.User().ID}})
	events := r.sink.Wait(t, r.ctx, 2)
	if events[0].Text != "why?" || events[0].ReplyText != "mine" || events[1].Text != "see" || events[1].ReplyText != "theirs" {
		t.Errorf("stored %+v", events)
	}
}

func TestEditsAndDeletedMessagesAreNotHeard(t *testing.T) {
	r := newRig(t, nil)
	ann := r.srv.AddUser("Ann")
	r.connect(t)
	dm := r.direct(t, ann)
	id := r.srv.Say(ann, dm, "helo")
	r.srv.Edit(ann, dm, id, "hello")
	r.srv.Post(fake.Post{From: ann, Room: dm, Content: map[string]any{"msgtype": nil, "body": nil}}) // what redaction leaves
	r.srv.Say(ann, dm, "the end")
	if got := adapter.Texts(r.sink.Wait(t, r.ctx, 2)); !slices.Equal(got, []string{"helo", "the end"}) {
		t.Errorf("heard %q", got)
	}
}

func TestAGapIsFilled(t *testing.T) {
	r := newRig(t, func(c *matrix.Config) { c.RequireMention = false })
	ann := r.srv.AddUser("Ann")
	stop := r.connect(t)
	town, dm := r.room(t, ann, "Town"), r.direct(t, ann)
	r.srv.Say(ann, town, "before")
	r.sink.Wait(t, r.ctx, 1)
	stop()
	var want []string
	for i := range 260 {
		text := fmt.Sprint("m", i)
		want = append(want, text)
		r.srv.Say(ann, town, text)
	}
	r.srv.Say(ann, dm, "and here")
	r.Adapter = r.another(t)
	r.connect(t)
	events := r.sink.Wait(t, r.ctx, 262)
	var got []string
	for _, in := range events {
		if in.ChatID == town {
			got = append(got, in.Text)
		}
	}
	if !slices.Equal(got, append([]string{"before"}, want...)) {
		t.Errorf("heard %q", got)
	}
}

func TestASyncThatIsNotStoredComesAgain(t *testing.T) {
	r := newRig(t, nil)
	ann := r.srv.AddUser("Ann")
	stop := r.connect(t)
	dm := r.direct(t, ann)
	refused := make(chan struct{}, 100)
	r.sink.SetAccept(func([]domain.Inbound) error {
		select {
		case refused <- struct{}{}:
		default:
		}
		return domain.E(domain.Unavailable, nil, "the disk is full")
	})
	r.srv.Say(ann, dm, "hello")
	select {
	case <-refused:
	case <-r.ctx.Done():
		t.Fatal("nothing was to be stored")
	}
	r.logs.Wait(t, r.ctx, "could not be stored", 1)
	if p := r.part(); p.State != health.Degraded {
		t.Errorf("health %+v", p)
	}
	stop()
	r.sink.SetAccept(nil)
	r.Adapter = r.another(t)
	r.connect(t)
	if got := adapter.Texts(r.sink.Wait(t, r.ctx, 1)); !slices.Equal(got, []string{"hello"}) {
		t.Errorf("heard %q", got)
	}
}

func TestFencedEndsRun(t *testing.T) {
	r := newRig(t, nil)
	r.sink.SetAccept(func([]domain.Inbound) error { return domain.E(domain.Fenced, nil, "another process owns the account") })
	if err := r.Run(r.ctx, r.sink); domain.CodeOf(err) != domain.Fenced {
		t.Errorf("Run ended with %v", err)
	}
}

func TestAnEventThatCannotBeStoredBlocksNothing(t *testing.T) {
	r := newRig(t, nil)
	ann := r.srv.AddUser("Ann")
	stop := r.connect(t)
	dm := r.direct(t, ann)
	stop()
	for _, s := range []string{"a", "bad", "c"} {
		r.srv.Say(ann, dm, s)
	}
	r.sink.SetAccept(func(all []domain.Inbound) error {
		if slices.ContainsFunc(all, func(in domain.Inbound) bool { return in.Text == "bad" }) {
			return domain.E(domain.Invalid, nil, "it cannot be stored")
		}
		return nil
	})
	r.Adapter = r.another(t)
	r.connect(t)
	if got := adapter.Texts(r.sink.Wait(t, r.ctx, 2)); !slices.Equal(got, []string{"a", "c"}) {
		t.Errorf("heard %q", got)
	}
}

func TestInvitations(t *testing.T) {
	r := newRig(t, nil)
	ann, eve := r.srv.AddUser("Ann"), r.srv.AddUser("eve")
	early := r.srv.Invite(ann, false) // before anybody listened
	stop := r.connect(t)
	if err := r.srv.WaitJoined(r.ctx, early); err != nil {
		t.Fatal("an invitation that was there was not accepted")
	}
	bad := r.srv.Invite(eve, true)
	r.logs.Wait(t, r.ctx, "the invitation stays open", 1)
	if r.srv.Membership(bad) != "invite" {
		t.Error("a stranger's invitation was accepted")
	}
	if got := r.part().Evidence["invitations"]; !strings.Contains(got, eve.ID) {
		t.Errorf("status says %q", got)
	}
	// One that fails is tried again, in a later life too.
	const join = "POST /v3/join/{room}"
	cancel := r.srv.Fail(join, fault.Fault{Times: -1, Status: 502, Body: "<html>"})
	later := r.srv.Invite(ann, true)
	r.logs.Wait(t, r.ctx, "a room could not be joined", 1)
	r.sink.WaitCursor(t, r.ctx, later)
	stop()
	cancel()
	r.Adapter = r.another(t)
	r.connect(t)
	if err := r.srv.WaitJoined(r.ctx, later); err != nil {
		t.Fatal("the invitation was not accepted in the next life")
	}
	if r.srv.Membership(bad) != "invite" {
		t.Error("a stranger's invitation was accepted later")
	}
}

func TestRoomsThatAreEncryptedAreTold(t *testing.T) {
	r := newRig(t, nil)
	ann := r.srv.AddUser("Ann")
	stop := r.connect(t)
	dark := r.srv.Open(fake.Room{By: ann, Direct: true, Encrypted: true})
	if m, err := r.srv.Next(r.ctx, dark); err != nil || m.Kind != "m.notice" || !strings.Contains(m.Text, "end-to-end encrypted") {
		t.Fatalf("the room was told %+v, %v", m, err)
	}
	r.srv.Whisper(ann, dark)
	dm := r.direct(t, ann)
	r.srv.Say(ann, dm, "in the clear")
	r.sink.Wait(t, r.ctx, 1)
	r.srv.Encrypt(ann, dm)
	r.srv.Whisper(ann, dm)
	if _, err := r.srv.Next(r.ctx, dm); err != nil {
		t.Fatal("the room that became encrypted was not told")
	}
	r.sink.WaitCursor(t, r.ctx, dm+`"]`)
	if got := r.part().Evidence["encryption"]; !strings.Contains(got, "2 rooms") {
		t.Errorf("status says %q", got)
	}
	for _, room := range []string{dark, dm} {
		_, err := r.Send(r.ctx, address(room), domain.Part{Text: "secret"}, "n"+room)
		if e := adapter.Fails(t, err, platform.GiveUp); e.Code != "matrix_encrypted" {
			t.Errorf("refused with %+v", e)
		}
	}
	// It is said once, in a later life too.
	stop()
	r.srv.ForgetTransactions()
	r.Adapter = r.another(t)
	r.connect(t)
	r.srv.Whisper(ann, dark)
	clear := r.direct(t, ann)
	r.srv.Say(ann, clear, "the end")
	r.sink.Wait(t, r.ctx, 2)
	if n := len(r.srv.Replies(dark)); n != 1 {
		t.Errorf("it was said %d times", n)
	}
	if got := r.part().Evidence["encryption"]; !strings.Contains(got, "2 rooms") {
		t.Errorf("status says %q in the next life", got)
	}
}

func TestTheConnectionIsRebuilt(t *testing.T) {
	for _, tt := range []struct {
		name  string
		fault fault.Fault
	}{
		{"cut", fault.Fault{Cut: true, Times: 10}}, // net/http itself repeats what is cut on a connection that was used before,
		{"bad gateway", fault.BadGateway()},
		{"garbled", fault.Fault{Body: "<html>welcome</html>"}},
		{"limited", fake.TooMany(5)},
		{"an error of its own", fault.Fault{Status: 500, Code: "M_UNKNOWN"}},
		{"black hole", fault.Fault{BlackHole: true}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, func(c *matrix.Config) { c.PollTimeout = 100 * time.Millisecond })
			ann := r.srv.AddUser("Ann")
			r.connect(t)
			dm := r.direct(t, ann)
			r.srv.Say(ann, dm, "one")
			r.sink.Wait(t, r.ctx, 1)
			r.srv.Fail(syncs, tt.fault)
			r.logs.Wait(t, r.ctx, "connected to Matrix", 2)
			r.srv.Say(ann, dm, "two")
			if got := adapter.Texts(r.sink.Wait(t, r.ctx, 2)); !slices.Equal(got, []string{"one", "two"}) {
				t.Errorf("heard %q", got)
			}
			if p := r.part(); p.State != health.OK || p.Evidence["reconnects"] == "0" {
				t.Errorf("health %+v", p)
			}
		})
	}
}

func TestAServerThatIsAway(t *testing.T) {
	r := newRig(t, nil)
	ann := r.srv.AddUser("Ann")
	r.connect(t)
	dm := r.direct(t, ann)
	r.srv.GoDark()
	r.logs.Wait(t, r.ctx, "is not heard", 2)
	if p := r.part(); p.State != health.Degraded || p.Code != "matrix_unreachable" && p.Code != "matrix_poll_cut" {
		t.Errorf("health %+v", p)
	}
	r.srv.Say(ann, dm, "meanwhile")
	if err := r.srv.ComeBack(); err != nil {
		t.Fatal(err)
	}
	if got := adapter.Texts(r.sink.Wait(t, r.ctx, 1)); !slices.Equal(got, []string{"meanwhile"}) {
		t.Errorf("heard %q", got)
	}
}

func TestRunGivesUp(t *testing.T) {
	r := newRig(t, nil)
	r.GiveUpAfter(3)
	r.srv.GoDark()
	adapter.Fails(t, r.Run(r.ctx, r.sink), platform.Retry)
}

func TestAPositionThatTheServerForgot(t *testing.T) {
	r := newRig(t, nil)
	ann := r.srv.AddUser("Ann")
	stop := r.connect(t)
	dm := r.direct(t, ann)
	r.srv.Say(ann, dm, "one")
	r.sink.Wait(t, r.ctx, 1)
	stop()
	r.srv.ForgetTokens()
	for i := range 70 {
		r.srv.Say(ann, dm, fmt.Sprint("m", i))
	}
	r.Adapter = r.another(t)
	r.connect(t)
	got := adapter.Texts(r.sink.Wait(t, r.ctx, 71))
	if got[0] != "one" || got[1] != "m0" || got[70] != "m69" || len(got) != 71 {
		t.Errorf("heard %q", got)
	}
}

func TestRoomsThatAreLeftAndRenamed(t *testing.T) {
	r := newRig(t, func(c *matrix.Config) { c.RequireMention = false })
	ann := r.srv.AddUser("Ann")
	r.connect(t)
	town := r.room(t, ann, "Town")
	r.srv.Say(ann, town, "one")
	r.sink.Wait(t, r.ctx, 1)
	before := r.renamed.Load()
	r.srv.Rename(ann, town, "City")
	r.srv.Say(ann, town, "two")
	if in := r.sink.Wait(t, r.ctx, 2)[1]; in.ChatName != "City" {
		t.Errorf("stored %+v", in)
	}
	if r.renamed.Load() == before {
		t.Error("that the room has another name was not told")
	}
	r.srv.Kick(ann, town)
	dm := r.direct(t, ann)
	r.srv.Say(ann, dm, "three")
	r.sink.Wait(t, r.ctx, 3)
	_, err := r.Send(r.ctx, address(town), domain.Part{Text: "hello?"}, "n1")
	if e := adapter.Fails(t, err, platform.GiveUp); !strings.Contains(e.Reason, "invite") {
		t.Errorf("refused with %v", e)
	}
}

func TestAThirdPersonMakesAGroup(t *testing.T) {
	r := newRig(t, nil)
	ann, bob := r.srv.AddUser("Ann"), r.srv.AddUser("Bob")
	r.connect(t)
	dm := r.direct(t, ann)
	r.srv.Say(ann, dm, "one")
	r.sink.Wait(t, r.ctx, 1)
	r.srv.Join(bob, dm)
	r.srv.Say(bob, dm, "chatter")
	r.srv.Say(bob, dm, "@hermes hello")
	if in := r.sink.Wait(t, r.ctx, 2)[1]; in.Text != "hello" || in.ChatType != domain.ChatGroup || in.UserName != "Bob" {
		t.Errorf("stored %+v", in)
	}
}

func TestBadCredentials(t *testing.T) {
	for _, tt := range []struct {
		status     int
		code, want string
	}{
		{http.StatusUnauthorized, "M_UNKNOWN_TOKEN", "matrix_token"}, {http.StatusForbidden, "M_USER_DEACTIVATED", "matrix_deactivated"}, {http.StatusUnauthorized, "M_USER_LOCKED", "matrix_locked"},
	} {
		r := newRig(t, nil)
		r.srv.Fail("GET /v3/account/whoami", fault.Fault{Times: -1, Status: tt.status, Code: tt.code})
		e := adapter.Fails(t, r.Run(r.ctx, r.sink), platform.BadCredentials)
		if e.Code != tt.want || r.part().State != health.Down || strings.Contains(e.Error(), r.srv.Token()) {
			t.Errorf("%s: %+v, health %+v", tt.code, e, r.part())
		}
		adapter.Fails(t, r.Check(r.ctx), platform.BadCredentials)
	}
	r := newRig(t, nil)
	if err := r.Check(r.ctx); err != nil {
		t.Errorf("good credentials: %v", err)
	}
	a := r.with(t, func(c *matrix.Config) { c.UserID = "@other:" + fake.Domain })
	if e := adapter.Fails(t, a.Check(r.ctx), platform.BadCredentials); e.Code != "matrix_other_user" {
		t.Errorf("another account's token: %v", e)
	}
}

func TestATokenThatIsRevokedWhileListening(t *testing.T) {
	r := newRig(t, nil)
	ctx := r.ctx
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx, r.sink) }()
	r.logs.Wait(t, r.ctx, "connected to Matrix", 1)
	r.srv.Revoke(false)
	e := adapter.Fails(t, <-done, platform.BadCredentials)
	if !strings.Contains(e.Reason, ".env line 2") {
		t.Errorf("it does not say where the token stands: %v", e)
	}
}

// Whatever the sink says when it is asked where the inbox stands ends Run.
func TestACursorThatCannotBeRead(t *testing.T) {
	r := newRig(t, nil)
	broken := errors.New("no ledger")
	if err := r.Run(r.ctx, adapter.NoCursor{Inbox: r.sink, Err: broken}); !errors.Is(err, broken) {
		t.Errorf("Run ended with %v", err)
	}
}

func TestRoomsHaveNames(t *testing.T) {
	r := newRig(t, nil)
	ann := r.srv.AddUser("Ann")
	for _, o := range []fake.Room{{Name: "Town Hall", Alias: "town"}, {Name: "Quiet"}, {Direct: true}} {
		o.By = ann
		r.srv.Enter(r.srv.Open(o))
	}
	got, err := r.Channels(r.ctx)
	if err != nil || len(got) != 2 {
		t.Fatalf("%+v, %v", got, err)
	}
	b, _ := json.Marshal(got)
	if c := got[0]; c.Name != "town" || c.Title != "Town Hall" || c.Space != fake.Domain || got[1].Name != "Quiet" {
		t.Errorf("listed %s", b)
	}
}
