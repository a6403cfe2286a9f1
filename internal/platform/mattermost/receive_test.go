package mattermost_test

import (
	"bytes"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"hermes/internal/domain"
	"hermes/internal/health"
	"hermes/internal/platform"
	"hermes/internal/platform/mattermost"
	"hermes/testkit/adapter"
	"hermes/testkit/fault"
	fake "hermes/testkit/mattermost"
)

func TestADirectMessage(t *testing.T) {
	r := newRig(t, func(c *mattermost.Config) { c.Reactions = true })
	alice := r.srv.AddUser("alice")
	stop := r.connect(t)
	m := r.srv.Say(alice, "hello\x00 there")
	in := r.sink.Wait(t, r.ctx, 1)[0]
	if in.Text != "hello there" || in.UserID != alice.ID || in.UserName != "alice" || in.ChatName != "alice" || in.ChatID != r.srv.Direct(alice) ||
		in.ChatType != domain.ChatDM || in.ThreadID != "" || !in.Mentioned || in.EventID != m.ID || in.MessageID != m.ID || !in.SentAt.Equal(m.At) {
		t.Errorf("stored %+v", in)
	}
	if err := r.srv.WaitCalls(r.ctx, "POST /reactions", 1); err != nil {
		t.Fatal(err)
	}
	if _, err := r.srv.WaitFor(r.ctx, in.ChatID, func(m fake.Message) bool { return slices.Equal(m.Reactions, []string{"eyes"}) }); err != nil {
		t.Error("the message was not acknowledged by a reaction")
	}
	if p := r.part(); p.State != health.OK || p.Evidence["bot"] != "@hermes" || p.Evidence["reconnects"] != "0" || p.Evidence["last_event"] == "" {
		t.Errorf("health %+v", p)
	}
	if got := r.Capabilities().MentionName; got != "@hermes" {
		t.Errorf("the bot is called %q", got)
	}
	if err := stop(); err != nil {
		t.Errorf("Run ended with %v", err)
	}
}

func TestWhoIsHeardInAChannel(t *testing.T) {
	for _, tt := range []struct {
		name, text string
		want       string // "" is not heard
		change     func(*mattermost.Config)
	}{
		{name: "chatter", text: "hello"},
		{name: "named first", text: "@hermes: what now?", want: "what now?"},
		{name: "named last", text: "what now, @Hermes", want: "what now"},
		{name: "named within", text: "ask @hermes, please", want: "ask @hermes, please"},
		{name: "only named", text: "@hermes", want: "@hermes"},
		{name: "named at the end of a sentence", text: "so says @hermes.", want: "so says @hermes."},
		{name: "a longer name", text: "@hermes-two hello"},
		{name: "an address", text: "mail bob@hermes now"},
		{name: "everybody", text: "@channel @all @here hello"},
		{name: "a command by exclamation mark", text: "@hermes !stop now", want: "/stop now"},
		{name: "no command", text: "@hermes !wow", want: "!wow"},
		{name: "a pattern", text: "Computer, hello", want: "Computer, hello", change: func(c *mattermost.Config) {
			c.MentionPatterns = []*regexp.Regexp{regexp.MustCompile("^Computer")}
		}},
		{name: "no need", text: "hello", want: "hello", change: func(c *mattermost.Config) { c.RequireMention = false }},
		{name: "free response", text: "hello", want: "hello", change: func(c *mattermost.Config) { c.Free = []string{"#town"} }},
		{name: "allowed elsewhere", text: "@hermes hello", change: func(c *mattermost.Config) { c.Allowed = []string{"other"} }},
		{name: "allowed", text: "@hermes hello", want: "hello", change: func(c *mattermost.Config) { c.Allowed = []string{"other", "town"} }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := newRig(t, tt.change)
			alice, town := r.srv.AddUser("alice"), r.srv.AddChannel("Town", "O")
			if err := r.SetCommands(r.ctx, []platform.Command{{Name: "stop"}}); err != nil {
				t.Fatal(err)
			}
			r.connect(t)
			r.srv.Post(fake.Post{From: alice, Channel: town.ID, Text: tt.text})
			r.srv.Say(alice, "the end")
			var got []string
			for _, in := range r.sink.Wait(t, r.ctx, 1) {
				got = append(got, in.Text)
			}
			want := []string{"the end"}
			if tt.want != "" {
				want = []string{tt.want, "the end"}
				got = adapter.Texts(r.sink.Wait(t, r.ctx, 2))
			}
			if !slices.Equal(got, want) {
				t.Errorf("heard %q, want %q", got, want)
			}
		})
	}
}

func TestWhatIsNobodysWordIsNotHeard(t *testing.T) {
	r := newRig(t, nil)
	alice := r.srv.AddUser("alice")
	dm := r.srv.Direct(alice)
	r.connect(t)
	r.srv.Post(fake.Post{From: alice, Text: "alice joined", Type: "system_join_channel"})
	r.srv.Post(fake.Post{From: alice, Text: "beep", Props: map[string]any{"from_bot": "true"}})
	r.srv.Post(fake.Post{From: alice, Text: "boop", Props: map[string]any{"from_webhook": "true"}})
	r.srv.Post(fake.Post{From: alice, Text: "  "})
	if _, err := r.Send(r.ctx, address(dm), domain.Part{Text: "mine"}, "n1"); err != nil {
		t.Fatal(err)
	}
	r.srv.Say(alice, "hello")
	if got := adapter.Texts(r.sink.Wait(t, r.ctx, 1)); !slices.Equal(got, []string{"hello"}) {
		t.Errorf("heard %q", got)
	}
}

func TestBotsWhereTheyAreAllowed(t *testing.T) {
	r := newRig(t, func(c *mattermost.Config) { c.AllowBots = true })
	other := r.srv.AddUser("other")
	r.connect(t)
	r.srv.Post(fake.Post{From: other, Text: "beep", Props: map[string]any{"from_bot": "true"}})
	r.sink.Wait(t, r.ctx, 1)
}

func TestThreads(t *testing.T) {
	for _, own := range []bool{false, true} {
		t.Run(fmt.Sprintf("own=%v", own), func(t *testing.T) {
			r := newRig(t, func(c *mattermost.Config) { c.Threads = own })
			alice, town := r.srv.AddUser("alice"), r.srv.AddChannel("Town", "P")
			r.connect(t)
			root := r.srv.Post(fake.Post{From: alice, Channel: town.ID, Text: "@hermes hello"})
			in := r.sink.Wait(t, r.ctx, 1)[0]
			want := ""
			if own {
				want = root.ID
			}
			if in.ThreadID != want || in.ChatType != domain.ChatGroup || in.ChatName != "Town" {
				t.Fatalf("stored %+v, want thread %q", in, want)
			}
			// Once the bot has written in a thread, it need not be named there.
			to := address(town.ID)
			to.ThreadID = root.ID
			if _, err := r.Send(r.ctx, to, domain.Part{Text: "hi"}, "n1"); err != nil {
				t.Fatal(err)
			}
			other := r.srv.Post(fake.Post{From: alice, Channel: town.ID, Text: "something else"})
			r.srv.Post(fake.Post{From: alice, Channel: town.ID, Root: other.ID, Text: "not for the bot"})
			r.srv.Post(fake.Post{From: alice, Channel: town.ID, Root: root.ID, Text: "and now?"})
			events := r.sink.Wait(t, r.ctx, 2)
			if got := adapter.Texts(events); !slices.Equal(got, []string{"hello", "and now?"}) || events[1].ThreadID != root.ID || !events[1].Mentioned {
				t.Errorf("heard %q, %+v", got, events[1])
			}
			if r.srv.Messages(town.ID)[1].Root != root.ID {
				t.Error("the answer is not in the thread")
			}
		})
	}
}

func TestAThreadThatIsIgnored(t *testing.T) {
	r := newRig(t, nil)
	alice, town := r.srv.AddUser("alice"), r.srv.AddChannel("Town", "O")
	root := r.srv.Post(fake.Post{From: alice, Channel: town.ID, Text: "noise"})
	r.config.IgnoredThreads = []string{root.ID}
	r.Adapter = r.another(t)
	r.connect(t)
	r.srv.Post(fake.Post{From: alice, Channel: town.ID, Root: root.ID, Text: "@hermes hello"})
	r.srv.Post(fake.Post{From: alice, Channel: town.ID, Text: "@hermes end"})
	if got := adapter.Texts(r.sink.Wait(t, r.ctx, 1)); !slices.Equal(got, []string{"end"}) {
		t.Errorf("heard %q", got)
	}
}

func TestFilesIn(t *testing.T) {
	r := newRig(t, nil)
	alice := r.srv.AddUser("alice")
	r.connect(t)
	r.srv.Post(fake.Post{From: alice, Files: []fake.File{{Name: "../a\x07b.png", Data: []byte("picture")}, {Name: "v.ogg", MIME: "audio/ogg", Data: []byte("voice")}, {Name: "x.svg", MIME: "image/svg+xml", Data: []byte("<svg/>")}}})
	in := r.sink.Wait(t, r.ctx, 1)[0]
	if len(in.Attachments) != 3 || in.Attachments[0].Name != "ab.png" || in.Attachments[0].Kind != domain.Image || in.Attachments[1].Kind != domain.Audio || in.Attachments[2].Kind != domain.Document {
		t.Fatalf("stored %+v", in.Attachments)
	}
	var b bytes.Buffer
	at, err := r.Fetch(r.ctx, in.Attachments[0], 100, &b)
	if err != nil || b.String() != "picture" || at.Size != 7 || at.MIME != "image/png" {
		t.Errorf("fetched %q, %+v, %v", b.String(), at, err)
	}
	_, err = r.Fetch(r.ctx, in.Attachments[0], 6, &b)
	adapter.Fails(t, err, platform.GiveUp)
	lie := in.Attachments[0]
	lie.Size = 0
	b.Reset()
	_, err = r.Fetch(r.ctx, lie, 6, &b)
	adapter.Fails(t, err, platform.GiveUp)
	if b.Len() > 6 {
		t.Errorf("%d bytes were written, at most 6 may be", b.Len())
	}
	for _, ref := range []string{"../users/me", strings.Repeat("z", 26)} {
		_, err = r.Fetch(r.ctx, domain.Attachment{Ref: ref, Name: "x"}, 100, &b)
		adapter.Fails(t, err, platform.GiveUp)
	}
	r.srv.Fail("GET /files/{id}", fault.BadGateway())
	_, err = r.Fetch(r.ctx, in.Attachments[1], 100, &b)
	if e := adapter.Fails(t, err, platform.Retry); e.Uncertain {
		t.Error("a download that may be repeated is called uncertain")
	}
}

func TestWhatWasSaidBeforeTheFirstConnectIsNotAnswered(t *testing.T) {
	r := newRig(t, nil)
	alice := r.srv.AddUser("alice")
	r.srv.Say(alice, "old")
	stop := r.connect(t)
	stop()
	r.srv.Say(alice, "new")
	r.connect(t)
	if got := adapter.Texts(r.sink.Wait(t, r.ctx, 1)); !slices.Equal(got, []string{"new"}) {
		t.Errorf("heard %q", got)
	}
}

func TestWhatIsSaidWhileAwayIsHeardOnce(t *testing.T) {
	r := newRig(t, nil)
	alice, town := r.srv.AddUser("alice"), r.srv.AddChannel("Town", "O")
	stop := r.connect(t)
	r.srv.Say(alice, "before")
	r.sink.Wait(t, r.ctx, 1)
	stop()
	gone := r.srv.Say(alice, "taken back")
	r.srv.Delete(gone.ID)
	r.srv.Say(alice, "one")
	r.srv.Post(fake.Post{From: alice, Channel: town.ID, Text: "@hermes two"})
	bob := r.srv.AddUser("bob") // who writes to the bot for the first time
	r.srv.Say(bob, "three")
	r.Adapter = r.another(t)
	r.connect(t)
	events := r.sink.Wait(t, r.ctx, 4)
	got := adapter.Texts(events)
	slices.Sort(got)
	if !slices.Equal(got, []string{"before", "one", "three", "two"}) {
		t.Errorf("heard %q", got)
	}
	for _, in := range events {
		if in.UserName == "" || in.ChatName == "" {
			t.Errorf("from the history: %+v", in)
		}
	}
	r.srv.Say(alice, "after")
	if got := adapter.Texts(r.sink.Wait(t, r.ctx, 5)); got[4] != "after" {
		t.Errorf("heard %q", got)
	}
}

func TestALongAbsence(t *testing.T) {
	r := newRig(t, nil)
	alice := r.srv.AddUser("alice")
	stop := r.connect(t)
	stop()
	const n = 1350 // more than one listing holds
	for i := range n {
		r.srv.Say(alice, fmt.Sprint(i))
	}
	r.connect(t)
	for i, in := range r.sink.Wait(t, r.ctx, n) {
		if in.Text != fmt.Sprint(i) {
			t.Fatalf("the message %d says %q", i, in.Text)
		}
	}
	if r.srv.Calls("GET /channels/{id}/posts") < 3 {
		t.Error("the older pages were not read")
	}
}

func TestAGapIsFilledFromTheHistory(t *testing.T) {
	r := newRig(t, nil)
	alice := r.srv.AddUser("alice")
	r.connect(t)
	r.srv.LoseEvents(2)
	for _, s := range []string{"one", "two", "three"} {
		r.srv.Say(alice, s)
	}
	if got := adapter.Texts(r.sink.Wait(t, r.ctx, 3)); !slices.Equal(got, []string{"one", "two", "three"}) {
		t.Errorf("heard %q", got)
	}
	if n := r.srv.Calls("GET /websocket"); n != 1 {
		t.Errorf("the socket was opened %d times", n)
	}
	// What the socket and the history both bring is handed on once.
	r.srv.CutSockets()
	if err := r.srv.WaitSockets(r.ctx, 2); err != nil {
		t.Fatal(err)
	}
	r.srv.Say(alice, "four")
	r.sink.Wait(t, r.ctx, 4)
	if n := r.sink.Again(); n != 0 {
		t.Errorf("%d events were handed on twice", n)
	}
}

func TestTheRateLimiterDoesNotKeepTheHistoryFromEnding(t *testing.T) {
	r := newRig(t, nil)
	stop := r.connect(t)
	stop()
	const n = 3
	for i := range n {
		r.srv.Say(r.srv.AddUser(fmt.Sprint("user", i)), "hello")
	}
	// Every second request is refused: whoever begins anew gets nowhere.
	r.srv.Fail("GET /channels/{id}/posts", fault.Fault{Hold: closed()})
	r.srv.Fail("GET /channels/{id}/posts", fake.TooMany(1))
	r.srv.Fail("GET /channels/{id}/posts", fault.Fault{Hold: closed()})
	r.srv.Fail("GET /channels/{id}/posts", fake.TooMany(1))
	r.connect(t)
	r.sink.Wait(t, r.ctx, n)
	if got := r.srv.Calls("GET /users/{id}/channels"); got != 2 {
		t.Errorf("the channels were listed %d times, want once for each connect", got)
	}
}

func TestASocketThatLosesEventsAtItsEndIsFoundOut(t *testing.T) {
	r := newRig(t, func(c *mattermost.Config) { c.CheckEvery = 20 * time.Millisecond })
	alice := r.srv.AddUser("alice")
	r.connect(t)
	r.srv.LoseEvents(1)
	r.srv.Say(alice, "unheard")
	r.sink.Wait(t, r.ctx, 1)
}

func TestASilentSocketIsOpenedAgain(t *testing.T) {
	for name, misbehave := range map[string]func(*fake.Server, bool){
		"pings are not answered": (*fake.Server).MutePings,
		"a black hole":           (*fake.Server).Silence,
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, func(c *mattermost.Config) { c.PingTimeout, c.SendTimeout = 50*time.Millisecond, 200*time.Millisecond })
			alice := r.srv.AddUser("alice")
			r.connect(t)
			misbehave(r.srv, true)
			r.srv.Say(alice, "hello")
			r.logs.Wait(t, r.ctx, "mattermost_silent", 1)
			misbehave(r.srv, false)
			if got := adapter.Texts(r.sink.Wait(t, r.ctx, 1)); !slices.Equal(got, []string{"hello"}) {
				t.Errorf("heard %q", got)
			}
		})
	}
}

func TestDisconnectsLoseNothing(t *testing.T) {
	r := newRig(t, nil)
	alice := r.srv.AddUser("alice")
	r.connect(t)
	const n = 10
	for i := range n {
		r.srv.Say(alice, fmt.Sprint(i))
		r.srv.CutSockets()
		if err := r.srv.WaitSockets(r.ctx, i+2); err != nil {
			t.Fatal(err)
		}
	}
	for i, in := range r.sink.Wait(t, r.ctx, n) {
		if in.Text != fmt.Sprint(i) {
			t.Fatalf("the message %d says %q", i, in.Text)
		}
	}
	r.logs.Wait(t, r.ctx, "Mattermost answers again", 1)
	if p := r.part(); p.Evidence["reconnects"] == "0" {
		t.Errorf("health %+v", p)
	}
}

func TestAServerThatIsGoneForAWhile(t *testing.T) {
	r := newRig(t, nil)
	alice := r.srv.AddUser("alice")
	r.connect(t)
	r.srv.GoDark()
	r.srv.Say(alice, "hello")
	r.logs.Wait(t, r.ctx, "Mattermost is not heard", 2)
	if p := r.part(); p.State != health.Degraded {
		t.Errorf("health %+v", p)
	}
	if err := r.srv.ComeBack(); err != nil {
		t.Fatal(err)
	}
	r.sink.Wait(t, r.ctx, 1)
}

func TestAChannelThatCannotBeReadStopsNoOther(t *testing.T) {
	r := newRig(t, nil)
	alice, shut := r.srv.AddUser("alice"), r.srv.AddChannel("Shut", "P")
	stop := r.connect(t)
	stop()
	r.srv.Post(fake.Post{From: alice, Channel: shut.ID, Text: "@hermes unseen"})
	r.srv.Forbid(shut.ID, true)
	r.srv.Say(alice, "hello")
	r.connect(t)
	if got := adapter.Texts(r.sink.Wait(t, r.ctx, 1)); !slices.Equal(got, []string{"hello"}) {
		t.Errorf("heard %q", got)
	}
}

func TestAFailureInTheMiddleOfTheHistory(t *testing.T) {
	for _, pattern := range []string{"GET /users/me", "GET /users/{id}/channels", "GET /channels/{id}/posts", "GET /users/{id}", "GET /websocket"} {
		t.Run(pattern, func(t *testing.T) {
			r := newRig(t, nil)
			alice, bob := r.srv.AddUser("alice"), r.srv.AddUser("bob")
			stop := r.connect(t)
			stop()
			r.srv.Say(alice, "one")
			r.srv.Say(bob, "two")
			r.srv.Fail(pattern, fault.CutBefore())
			r.srv.Fail(pattern, fault.BadGateway())
			r.srv.Fail(pattern, fake.TooMany(1))
			r.Adapter = r.another(t)
			r.run(t)
			if got := r.sink.Wait(t, r.ctx, 2); len(got) != 2 {
				t.Errorf("heard %q", adapter.Texts(got))
			}
		})
	}
}

func TestNothingIsLostThatCannotBeStored(t *testing.T) {
	r := newRig(t, nil)
	alice := r.srv.AddUser("alice")
	stop := r.connect(t)
	var refused atomic.Int32
	r.sink.SetAccept(func([]domain.Inbound) error {
		if refused.Add(1) < 3 {
			return domain.E(domain.Unavailable, nil, "the disk is full")
		}
		return nil
	})
	r.srv.Say(alice, "hello")
	r.sink.Wait(t, r.ctx, 1)
	// A process that ends before the commit hears the message in its next life.
	r.sink.SetAccept(func(events []domain.Inbound) error {
		if len(events) == 0 {
			return nil
		}
		refused.Store(100)
		return domain.E(domain.Unavailable, nil, "the disk is full")
	})
	r.srv.Say(alice, "again")
	r.logs.Wait(t, r.ctx, "could not be stored", 3)
	stop()
	r.sink.SetAccept(nil)
	r.connect(t)
	if got := adapter.Texts(r.sink.Wait(t, r.ctx, 2)); !slices.Equal(got, []string{"hello", "again"}) {
		t.Errorf("heard %q", got)
	}
}

func TestAnEventThatTheStoreRefusesStopsNoOther(t *testing.T) {
	r := newRig(t, nil)
	alice := r.srv.AddUser("alice")
	stop := r.connect(t)
	stop()
	for _, s := range []string{"one", "bad", "two"} {
		r.srv.Say(alice, s)
	}
	r.sink.SetAccept(func(events []domain.Inbound) error {
		if slices.ContainsFunc(events, func(in domain.Inbound) bool { return in.Text == "bad" }) {
			return domain.E(domain.Invalid, nil, "it is bad")
		}
		return nil
	})
	r.connect(t)
	if got := adapter.Texts(r.sink.Wait(t, r.ctx, 2)); !slices.Equal(got, []string{"one", "two"}) {
		t.Errorf("heard %q", got)
	}
}

func TestHowRunEnds(t *testing.T) {
	t.Run("the token is refused", func(t *testing.T) {
		r := newRig(t, nil)
		r.srv.Revoke(true)
		e := adapter.Fails(t, r.Run(r.ctx, r.sink), platform.BadCredentials)
		if !strings.Contains(e.Reason, "MATTERMOST_TOKEN") {
			t.Errorf("it does not say where the token stands: %s", e.Reason)
		}
		if p := r.part(); p.State != health.Down {
			t.Errorf("health %+v", p)
		}
	})
	t.Run("the token is revoked", func(t *testing.T) {
		r := newRig(t, nil)
		done := make(chan error, 1)
		go func() { done <- r.Run(r.ctx, r.sink) }()
		r.logs.Wait(t, r.ctx, "connected to Mattermost", 1)
		r.srv.Revoke(true)
		r.srv.CutSockets()
		adapter.Fails(t, <-done, platform.BadCredentials)
	})
	t.Run("it is no Mattermost", func(t *testing.T) {
		r := newRig(t, nil)
		r.GiveUpAfter(2)
		r.srv.Fail("GET /users/me", fault.Fault{Times: -1, Status: http.StatusOK, Body: "<html>"})
		e := adapter.Fails(t, r.Run(r.ctx, r.sink), platform.Retry)
		if !strings.Contains(e.Reason, "MATTERMOST_URL") {
			t.Errorf("it does not say what to do: %s", e.Reason)
		}
	})
	t.Run("another address", func(t *testing.T) {
		r := newRig(t, nil)
		r.GiveUpAfter(1)
		r.srv.Fail("GET /users/me", fault.Redirect(http.StatusMovedPermanently, "https://127.0.0.1/"))
		e := adapter.Fails(t, r.Run(r.ctx, r.sink), platform.Retry)
		if !strings.Contains(e.Reason, "MATTERMOST_URL") {
			t.Errorf("it does not say what to do: %s", e.Reason)
		}
	})
	t.Run("a proxy that passes no websocket", func(t *testing.T) {
		r := newRig(t, nil)
		r.GiveUpAfter(1)
		r.srv.Fail("GET /websocket", fault.Fault{Status: http.StatusBadRequest})
		e := adapter.Fails(t, r.Run(r.ctx, r.sink), platform.Retry)
		if e.Code != "mattermost_socket_400" || !strings.Contains(e.Reason, "proxy") {
			t.Errorf("it says %q: %s", e.Code, e.Reason)
		}
	})
	t.Run("another process owns the account", func(t *testing.T) {
		r := newRig(t, nil)
		r.sink.SetAccept(func([]domain.Inbound) error { return domain.E(domain.Fenced, nil, "another one") })
		if err := r.Run(r.ctx, r.sink); !domain.IsCode(err, domain.Fenced) {
			t.Errorf("Run ended with %v", err)
		}
	})
	t.Run("the inbox cannot be read", func(t *testing.T) {
		r := newRig(t, nil)
		want := errors.New("no cursor")
		if err := r.Run(r.ctx, adapter.NoCursor{Inbox: r.sink, Err: want}); !errors.Is(err, want) {
			t.Errorf("Run ended with %v", err)
		}
	})
}
