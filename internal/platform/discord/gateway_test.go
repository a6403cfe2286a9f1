package discord_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"hermes/internal/domain"
	"hermes/internal/health"
	"hermes/internal/platform"
	"hermes/internal/platform/discord"
	"hermes/internal/secret"
	"hermes/testkit/adapter"
	fake "hermes/testkit/discord"
	"hermes/testkit/fault"
)

func TestAMessageComesAndTheProofOfLifeWithIt(t *testing.T) {
	r := newRig(t, fake.Options{Heartbeat: 20 * time.Millisecond}, nil)
	ann := r.srv.AddUser("Ann")
	dm := r.srv.DM(ann)
	stop := r.connected(t)
	id := r.srv.Say(ann, dm, "hello")
	e := r.sink.Wait(t, r.ctx, 1)[0]
	if e.Text != "hello" || e.EventID != id || e.MessageID != id || e.ChatID != dm || e.ChatType != domain.ChatDM ||
		e.UserID != ann.ID || e.UserName != "Ann" || !e.Mentioned || e.Account != r.srv.Bot().ID || e.SentAt.IsZero() {
		t.Errorf("%+v", e)
	}
	must(t, r.srv.WaitBeats(r.ctx, 3))
	if p := r.part(); p.State != health.OK || p.Evidence["bot"] != "@hermes" || p.Evidence["last_event"] == "" || p.Evidence["reconnects"] != "0" || p.Evidence["sessions_today"] != "1" {
		t.Errorf("%+v", p)
	}
	if c := r.Capabilities(); c.MentionName != "@hermes" {
		t.Errorf("the name is %q", c.MentionName)
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
	must(t, r.srv.WaitGone(r.ctx))
}

// Each way in which a connection ends, with what follows it.
func TestAConnectionThatEndsIsMadeAgain(t *testing.T) {
	for name, c := range map[string]struct {
		end        func(*fake.Server)
		identifies int // in all; the others are resumes
	}{
		"cut":                    {(*fake.Server).CutGateway, 1},
		"asked to":               {(*fake.Server).AskReconnect, 1},
		"invalid, resumable":     {func(s *fake.Server) { s.Invalidate(true) }, 1},
		"invalid":                {func(s *fake.Server) { s.Invalidate(false) }, 2},
		"unknown error":          {func(s *fake.Server) { s.CloseWith(4000) }, 1},
		"rate limited":           {func(s *fake.Server) { s.CloseWith(4008) }, 1},
		"invalid sequence":       {func(s *fake.Server) { s.CloseWith(4007) }, 2},
		"timed out":              {func(s *fake.Server) { s.CloseWith(4009) }, 2},
		"not authenticated":      {func(s *fake.Server) { s.CloseWith(4003) }, 2},
		"resume that is refused": {func(s *fake.Server) { s.ForgetSessions(); s.CutGateway() }, 2},
		"gone for a while": {func(s *fake.Server) {
			s.GoDark()
			if err := s.ComeBack(); err != nil {
				panic(err)
			}
		}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, fake.Options{}, nil)
			ann := r.srv.AddUser("Ann")
			dm := r.srv.DM(ann)
			r.connected(t)
			r.srv.Say(ann, dm, "before")
			r.sink.Wait(t, r.ctx, 1)
			c.end(r.srv)
			r.srv.Say(ann, dm, "in between")
			must(t, r.srv.WaitConnected(r.ctx))
			r.srv.Say(ann, dm, "after")
			if got := adapter.Texts(r.sink.Wait(t, r.ctx, 3)); !slices.Equal(got, []string{"before", "in between", "after"}) {
				t.Errorf("stored %q", got)
			}
			if n := r.srv.Identifies(); c.identifies != 0 && n != c.identifies {
				t.Errorf("%d sessions were begun, want %d (%d resumes)", n, c.identifies, r.srv.Resumes())
			}
		})
	}
}

func TestADeadConnectionIsNoticed(t *testing.T) {
	t.Run("no acknowledgement", func(t *testing.T) {
		r := newRig(t, fake.Options{Heartbeat: 20 * time.Millisecond}, nil)
		r.connected(t)
		r.srv.DropAcks(true)
		must(t, r.srv.WaitResumes(r.ctx, 1))
		r.srv.DropAcks(false)
		r.logs.Wait(t, r.ctx, "has not answered a heartbeat", 1)
		must(t, r.srv.WaitConnected(r.ctx))
	})
	t.Run("silence", func(t *testing.T) {
		r := newRig(t, fake.Options{Heartbeat: 20 * time.Millisecond}, nil)
		r.Impatient()
		ann := r.srv.AddUser("Ann")
		dm := r.srv.DM(ann)
		r.connected(t)
		r.srv.Say(ann, dm, "before")
		r.sink.Wait(t, r.ctx, 1)
		r.srv.Silence(true)
		r.logs.Wait(t, r.ctx, "did not say hello", 1)
		r.srv.Say(ann, dm, "meanwhile")
		r.srv.Silence(false)
		if got := adapter.Texts(r.sink.Wait(t, r.ctx, 2)); got[1] != "meanwhile" {
			t.Errorf("stored %q", got)
		}
	})
	t.Run("asked for a heartbeat", func(t *testing.T) {
		r := newRig(t, fake.Options{}, nil)
		r.connected(t)
		r.srv.AskHeartbeat()
		must(t, r.srv.WaitBeats(r.ctx, 1))
	})
}

func TestATokenThatIsRefused(t *testing.T) {
	for name, refuse := range map[string]func(*rig){
		"by REST":        func(r *rig) { r.srv.ResetToken(fake.Token("1100000000000000001", "Gnew.x")) },
		"by the gateway": func(r *rig) { r.srv.CloseWith(4004) },
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, fake.Options{}, nil)
			if name == "by REST" {
				refuse(r)
			}
			done := make(chan error, 1)
			go func() { done <- r.Run(r.ctx, r.sink) }()
			if name != "by REST" {
				must(t, r.srv.WaitConnected(r.ctx))
				refuse(r)
			}
			e := adapter.Fails(t, <-done, platform.BadCredentials)
			if !strings.Contains(e.Reason, "LoginFailure: Improper token") || !strings.Contains(e.Reason, ".env line 2 (DISCORD_BOT_TOKEN)") {
				t.Error(e.Reason)
			}
			if p := r.part(); p.State != health.Down || p.Code != "discord_token" {
				t.Errorf("%+v", p)
			}
		})
	}
}

// Without the intent the bot still serves direct messages and mentions, and
// says what is to be switched on.
func TestTheContentIntentIsRefused(t *testing.T) {
	r := newRig(t, fake.Options{Heartbeat: 20 * time.Millisecond}, nil)
	r.srv.RefuseIntents(fake.IntentMessageContent)
	ann := r.srv.AddUser("Ann")
	dm := r.srv.DM(ann)
	r.connected(t)
	r.srv.Say(ann, dm, "hello")
	r.sink.Wait(t, r.ctx, 1)
	must(t, r.srv.WaitBeats(r.ctx, 2))
	if p := r.part(); p.State != health.Degraded || p.Code != "discord_4014" || !strings.Contains(p.Message, "Message Content Intent") || !strings.Contains(p.Message, "https://discord.com/developers/applications") {
		t.Errorf("%+v", p)
	}
}

func TestAllIntentsAreRefused(t *testing.T) {
	r := newRig(t, fake.Options{}, nil)
	r.srv.RefuseIntents(fake.IntentGuilds)
	e := adapter.Fails(t, r.Run(r.ctx, r.sink), platform.Retry)
	if e.Code != "discord_4014" || e.RetryAfter == 0 {
		t.Errorf("%+v", e)
	}
}

func TestSessionsAreCountedAndBounded(t *testing.T) {
	day := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	cursor := fmt.Sprintf(`{"seen":"1","day":"2026-03-01","identifies":%d}`, discord.MaxIdentifies-1)
	r := newRig(t, fake.Options{}, nil)
	a, err := discord.New(discord.Config{Token: secret.Value(r.srv.Token()), BaseURL: r.srv.URL()}, discord.Deps{Deps: platform.Deps{Now: func() time.Time { return day }}})
	must(t, err)
	a.Hasten()
	t.Cleanup(a.CloseIdle)
	r.sink.SetCursor(cursor)
	r.Adapter = a
	done := make(chan error, 1)
	go func() { done <- a.Run(r.ctx, r.sink) }()
	must(t, r.srv.WaitConnected(r.ctx))
	if got, _ := r.sink.Cursor(r.ctx, ""); !strings.Contains(got, fmt.Sprintf(`"identifies":%d`, discord.MaxIdentifies)) {
		t.Errorf("the session was begun before it was counted: %s", got)
	}
	r.srv.Invalidate(false)
	e := adapter.Fails(t, <-done, platform.Retry)
	if e.Code != "discord_identifies" || e.RetryAfter != 12*time.Hour {
		t.Errorf("%+v", e)
	}
	if n := r.srv.Identifies(); n != 1 {
		t.Errorf("%d sessions were begun", n)
	}
}

func TestDiscordHasNoSessionsLeft(t *testing.T) {
	r := newRig(t, fake.Options{}, nil)
	r.srv.LimitSessions(0)
	e := adapter.Fails(t, r.Run(r.ctx, r.sink), platform.Retry)
	if e.Code != "discord_identifies" || e.RetryAfter != time.Hour || r.srv.Identifies() != 0 {
		t.Errorf("%+v", e)
	}
}

func TestAnUnreachableDiscordEndsTheRun(t *testing.T) {
	r := newRig(t, fake.Options{}, nil)
	r.srv.Fail("gateway", fault.Fault{Times: -1, Status: 502, Body: "<html>"})
	e := adapter.Fails(t, r.Run(r.ctx, r.sink), platform.Retry)
	if e.Code != "discord_502" || r.part().State != health.Degraded {
		t.Errorf("%+v %+v", e, r.part())
	}
}

// What was said while the process was away is read back, in channels that it
// knew and in those of its servers that it did not, once.
func TestHistoryIsReadAfterAStart(t *testing.T) {
	r := newRig(t, fake.Options{}, nil)
	ann := r.srv.AddUser("Ann")
	dm := r.srv.DM(ann)
	g := r.srv.AddGuild("guild")
	known, unknown, quiet := r.srv.AddChannel(g, "known"), r.srv.AddChannel(g, "unknown"), r.srv.AddChannel(g, "quiet")
	r.srv.Say(ann, unknown, "long before the first start")
	stop := r.connected(t)
	r.srv.Say(ann, dm, "one")
	r.srv.Say(ann, known, "two")
	r.sink.Wait(t, r.ctx, 2)
	must(t, stop())
	must(t, r.srv.WaitGone(r.ctx))
	r.srv.Say(ann, dm, "three")
	r.srv.Say(ann, known, "four")
	r.srv.Say(ann, unknown, "five")
	for i := range 250 { // more than two pages
		r.srv.Say(ann, known, fmt.Sprint("flood ", i))
	}
	r.connected(t)
	r.srv.Say(ann, dm, "last")
	got := adapter.Texts(r.sink.Wait(t, r.ctx, 2+3+250+1))
	slices.Sort(got)
	if i := slices.Index(got, "long before the first start"); i >= 0 || len(got) != 256 {
		t.Errorf("%d events", len(got))
	}
	for _, want := range []string{"one", "two", "three", "four", "five", "flood 249", "last"} {
		if !slices.Contains(got, want) {
			t.Errorf("%q was lost", want)
		}
	}
	_ = quiet
	if cursor, _ := r.sink.Cursor(r.ctx, ""); !strings.Contains(cursor, dm) {
		t.Errorf("the cursor is %s", cursor)
	}
}

// A channel whose history fails keeps its position, so that nothing is passed over.
func TestHistoryThatFailsIsReadLater(t *testing.T) {
	r := newRig(t, fake.Options{}, nil)
	ann := r.srv.AddUser("Ann")
	dm := r.srv.DM(ann)
	stop := r.connected(t)
	r.srv.Say(ann, dm, "one")
	r.sink.Wait(t, r.ctx, 1)
	must(t, stop())
	must(t, r.srv.WaitGone(r.ctx))
	r.srv.Say(ann, dm, "two")
	r.srv.Fail("get_messages", fault.Fault{Times: 6, Status: 500, Message: "Internal"})
	r.connected(t)
	r.logs.Wait(t, r.ctx, "history could not be read", 1)
	r.srv.Say(ann, dm, "three")
	r.sink.Wait(t, r.ctx, 2)
	r.srv.Say(ann, dm, "four")
	got := adapter.Texts(r.sink.Wait(t, r.ctx, 4))
	slices.Sort(got)
	if !slices.Equal(got, []string{"four", "one", "three", "two"}) {
		t.Errorf("stored %q", got)
	}
}

// Nothing is acknowledged, and the sequence does not move, while the sink fails.
func TestASinkThatFails(t *testing.T) {
	r := newRig(t, fake.Options{}, nil)
	ann := r.srv.AddUser("Ann")
	dm := r.srv.DM(ann)
	failing := true
	tries := 0
	r.sink.SetAccept(func(events []domain.Inbound) error {
		if len(events) == 0 || !failing {
			return nil
		}
		if tries++; tries == 3 {
			failing = false
		}
		return domain.E(domain.StorageFull, nil, "the disk is full")
	})
	r.connected(t)
	id := r.srv.Slash(ann, dm, "status", "all of it")
	e := r.sink.Wait(t, r.ctx, 1)[0]
	if e.Text != "/status all of it" || e.EventID != "i"+id || e.ChatType != domain.ChatDM {
		t.Errorf("%+v", e)
	}
	must(t, r.srv.WaitAnswered(r.ctx, id))
	r.logs.Wait(t, r.ctx, "the disk is full", 1)
}

// A connection that ends while its events wait to be stored takes nothing with
// it, even where the session is over as well.
func TestAConnectionEndsBeforeTheCommit(t *testing.T) {
	r := newRig(t, fake.Options{}, nil)
	ann := r.srv.AddUser("Ann")
	dm := r.srv.DM(ann)
	r.connected(t)
	r.srv.Say(ann, dm, "zero")
	r.sink.Wait(t, r.ctx, 1)
	r.sink.SetAccept(func(events []domain.Inbound) error {
		if len(events) > 0 && !strings.Contains(r.logs.String(), "has ended") {
			r.srv.ForgetSessions()
			r.srv.CutGateway()
			return domain.E(domain.StorageFull, nil, "the disk is full")
		}
		return nil
	})
	r.srv.Say(ann, dm, "one")
	if got := adapter.Texts(r.sink.Wait(t, r.ctx, 2)); !slices.Equal(got, []string{"zero", "one"}) {
		t.Errorf("stored %q", got)
	}
}

// A flood while the store is slow is taken in order, and a connection whose
// answers wait behind it is not taken for dead.
func TestAFloodWaitsForASlowStore(t *testing.T) {
	const flood = 3000
	r := newRig(t, fake.Options{Heartbeat: 300 * time.Millisecond}, nil)
	ann := r.srv.AddUser("Ann")
	dm := r.srv.DM(ann)
	r.connected(t)
	gate := make(chan struct{})
	r.sink.SetAccept(func(events []domain.Inbound) error {
		if len(events) > 0 {
			select {
			case <-gate:
			case <-r.ctx.Done():
				return r.ctx.Err()
			}
		}
		return nil
	})
	var want []string
	for i := range flood {
		want = append(want, fmt.Sprint(i))
		r.srv.Say(ann, dm, want[i])
	}
	must(t, r.srv.WaitBeats(r.ctx, 4))
	close(gate)
	if got := adapter.Texts(r.sink.Wait(t, r.ctx, flood)); !slices.Equal(got, want) {
		t.Errorf("%d events, in another order", len(got))
	}
	if n := r.srv.Resumes(); n != 0 {
		t.Errorf("it was connected anew %d times", n)
	}
}

// What was not for us is not read again after a start.
func TestThePositionMovesOverChatter(t *testing.T) {
	w := newWorld(t, func(c *discord.Config) { c.RequireMention = true })
	w.connected(t)
	id := w.srv.Say(w.ann, w.channel, "chatter")
	w.sink.WaitCursor(t, w.ctx, id)
}

// A black hole does not hold up the end.
func TestTheEndOfADeafConnection(t *testing.T) {
	r := newRig(t, fake.Options{}, nil)
	stop := r.connected(t)
	r.logs.Wait(t, r.ctx, "is connected", 1)
	r.srv.Silence(true)
	if err := stop(); err != nil {
		t.Error(err)
	}
}

func TestAnEventThatCannotBeStoredBlocksNothing(t *testing.T) {
	r := newRig(t, fake.Options{}, nil)
	ann := r.srv.AddUser("Ann")
	dm := r.srv.DM(ann)
	r.sink.SetAccept(func(events []domain.Inbound) error {
		if slices.Contains(adapter.Texts(events), "bad") {
			return domain.E(domain.Invalid, nil, "it cannot be stored")
		}
		return nil
	})
	r.connected(t)
	for _, s := range []string{"one", "bad", "two"} {
		r.srv.Say(ann, dm, s)
	}
	if got := adapter.Texts(r.sink.Wait(t, r.ctx, 2)); !slices.Equal(got, []string{"one", "two"}) {
		t.Errorf("stored %q", got)
	}
}

func TestAnotherProcessOwnsTheAccount(t *testing.T) {
	r := newRig(t, fake.Options{}, nil)
	r.sink.SetAccept(func([]domain.Inbound) error { return domain.E(domain.Fenced, nil, "another process") })
	if err := r.Run(r.ctx, r.sink); domain.CodeOf(err) != domain.Fenced {
		t.Error(err)
	}
}
