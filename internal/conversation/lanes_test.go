package conversation

import (
	"context"
	"strings"
	"testing"
	"time"

	"hermes/internal/domain"
	"hermes/internal/health"
	"hermes/internal/home"
	"hermes/internal/platform/telegram"
	"hermes/testkit/llm"
)

func TestAMessageIsAnswered(t *testing.T) {
	w := setUp(t, obey, nil)
	ann := w.tg.AddUser("Ann")
	w.tg.Say(ann, "hello")
	w.sees(ann.ID, "you said: hello")
	w.tg.Say(ann, "again")
	w.sees(ann.ID, "you said: again")
	reqs := w.llm.Requests()
	if n := len(reqs[1].Messages); n != 4 { // system, hello, answer, again
		t.Errorf("the second turn knew %d messages", n)
	}
}

func TestQueueModeAnswersAllThatCameTogether(t *testing.T) {
	w := setUp(t, obey, nil)
	w.hold = make(chan struct{})
	ann := w.tg.AddUser("Ann")
	w.tg.Say(ann, "use slow")
	_ = w.llm.Wait(t.Context(), 1)
	w.tg.Say(ann, "one")
	w.sees(ann.ID, "yours comes next")
	close(w.hold)
	w.sees(ann.ID, "result: at last")
	w.sees(ann.ID, "you said: one")
}

func TestInterruptModeEndsWhatRuns(t *testing.T) {
	w := setUp(t, obey, func(c *home.Config) { c.Display.BusyMode = BusyInterrupt })
	ann := w.tg.AddUser("Ann")
	w.tg.Say(ann, "use slow")
	waitRuns(t, w, "slow")
	w.tg.Say(ann, "no, this")
	w.sees(ann.ID, "you said: no, this")
	if n := w.shown(ann.ID, "at last"); n != 0 {
		t.Error("the interrupted turn answered")
	}
	last := w.llm.Requests()[1]
	var all strings.Builder
	for _, m := range last.Messages {
		all.WriteString(m.Text() + "|")
	}
	if !strings.Contains(all.String(), "use slow") {
		t.Errorf("the interrupted message is part of the history: %s", all.String())
	}
}

func waitRuns(t *testing.T, w *world, name string) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); w.ran(name) == 0; {
		if time.Now().After(deadline) {
			t.Fatalf("the tool %s was never called", name)
		}
	}
}

func TestSteerModeJoinsTheRunningTurn(t *testing.T) {
	w := setUp(t, obey, func(c *home.Config) { c.Display.BusyMode = BusySteer })
	w.hold = make(chan struct{})
	ann := w.tg.AddUser("Ann")
	w.tg.Say(ann, "use slow")
	waitRuns(t, w, "slow")
	w.tg.Say(ann, "and be quick")
	w.sees(ann.ID, "take it in at the next step")
	close(w.hold)
	w.sees(ann.ID, "you said: and be quick")
	if n := len(w.llm.Requests()); n != 2 {
		t.Errorf("%d model calls; the text should have joined the turn", n)
	}
}

func TestSteerCommandJoinsOnce(t *testing.T) {
	w := setUp(t, obey, nil)
	w.hold = make(chan struct{})
	ann := w.tg.AddUser("Ann")
	w.tg.Say(ann, "use slow")
	waitRuns(t, w, "slow")
	w.tg.Say(ann, "/steer mind the gap")
	w.sees(ann.ID, "take it in at the next step")
	close(w.hold)
	w.sees(ann.ID, "you said: mind the gap")
	w.tg.Say(ann, "/steer alone")
	w.sees(ann.ID, "you said: alone")
	if n := w.shown(ann.ID, "you said: mind the gap"); n != 1 {
		t.Errorf("shown %d times", n)
	}
}

func TestStopEndsTheTurnAndDropsTheQueue(t *testing.T) {
	w := setUp(t, obey, nil)
	ann := w.tg.AddUser("Ann")
	w.tg.Say(ann, "use slow")
	waitRuns(t, w, "slow")
	w.tg.Say(ann, "dropped")
	w.sees(ann.ID, "yours comes next")
	w.tg.Say(ann, "/stop")
	w.sees(ann.ID, "Stopped")
	w.tg.Say(ann, "after")
	w.sees(ann.ID, "you said: after")
	if w.shown(ann.ID, "dropped") != 0 {
		t.Error("what waited was answered")
	}
	w.tg.Say(ann, "/stop")
	w.sees(ann.ID, "Nothing is running")
}

func TestApprovalByButton(t *testing.T) {
	w := setUp(t, obey, nil)
	ann := w.tg.AddUser("Ann")
	w.tg.Say(ann, "use danger")
	q := w.sees(ann.ID, "This deletes things")
	if len(q.Buttons) == 0 || !strings.Contains(q.Text, "rm -r x") {
		t.Fatalf("%+v", q)
	}
	if w.ran("danger") != 0 {
		t.Fatal("it ran before it was approved")
	}
	w.tg.Press(ann, q, "/approve session")
	w.sees(ann.ID, "result: done it")
	w.tg.Say(ann, "use danger")
	waitFor(t, func() bool { return w.shown(ann.ID, "result: done it") == 2 }, "the second one needs no question in this session")
	w.tg.Say(ann, "/new")
	w.sees(ann.ID, "new session")
	w.tg.Say(ann, "use danger")
	waitFor(t, func() bool { return w.shown(ann.ID, "This deletes things") == 2 }, "a new session asks again")
	w.tg.Say(ann, "/deny")
	w.sees(ann.ID, "the user refused it")
	if n := w.ran("danger"); n != 2 {
		t.Errorf("ran %d times", n)
	}
}

func waitFor(t *testing.T, ok func() bool, what string) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !ok(); {
		if time.Now().After(deadline) {
			t.Fatal(what)
		}
	}
}

func TestPlainWordsAnswerAndAnythingElseRefuses(t *testing.T) {
	w := setUp(t, obey, func(c *home.Config) { c.Display.BusyMode = BusyInterrupt })
	ann := w.tg.AddUser("Ann")
	w.tg.Say(ann, "use danger")
	w.sees(ann.ID, "This deletes things")
	w.tg.Say(ann, "yes")
	w.sees(ann.ID, "result: done it")
	w.tg.Say(ann, "use danger")
	waitFor(t, func() bool { return w.shown(ann.ID, "This deletes things") == 2 }, "asked again")
	w.tg.Say(ann, "wait, list it first")
	w.sees(ann.ID, "you said: wait, list it first")
	if n := w.ran("danger"); n != 1 {
		t.Errorf("ran %d times", n)
	}
}

func TestClarifyWithAChoice(t *testing.T) {
	w := setUp(t, obey, nil)
	ann := w.tg.AddUser("Ann")
	w.tg.Say(ann, "use which")
	q := w.sees(ann.ID, "Which one?")
	w.tg.Press(ann, q, "/answer 2")
	w.sees(ann.ID, "they said blue")
	w.tg.Say(ann, "use which")
	waitFor(t, func() bool { return w.shown(ann.ID, "Which one?") == 2 }, "asked again")
	w.tg.Say(ann, "neither")
	w.sees(ann.ID, "they said neither")
}

func TestAnUnansweredQuestionExpires(t *testing.T) {
	w := setUp(t, obey, func(c *home.Config) { c.Approvals.Timeout = 50 * time.Millisecond })
	ann := w.tg.AddUser("Ann")
	w.tg.Say(ann, "use danger")
	w.sees(ann.ID, "This deletes things")
	w.sees(ann.ID, "nobody approved it in time")
	if w.ran("danger") != 0 {
		t.Error("it ran")
	}
}

// A waiting turn holds nothing in the process: it survives a restart.
func TestAQuestionSurvivesARestart(t *testing.T) {
	w := setUp(t, obey, nil)
	ann := w.tg.AddUser("Ann")
	w.tg.Say(ann, "use danger")
	w.sees(ann.ID, "This deletes things")
	dir := w.Profile.Home
	w.stop()
	w.start(dir)
	w.tg.Say(ann, "/approve")
	w.sees(ann.ID, "result: done it")
}

// What runs past the drain limit goes on after the next start, and its user is
// told in one line.
func TestATurnIsHandedToTheNextLife(t *testing.T) {
	gate := llm.NewGate()
	held := true
	w := setUp(t, func(r llm.Request) llm.Reply {
		if held {
			return llm.Reply{Text: "late", Before: gate.Pass}
		}
		return llm.Reply{Text: "here it is"}
	}, nil)
	ann := w.tg.AddUser("Ann")
	w.tg.Say(ann, "hello")
	<-gate.Arrived()
	dir := w.Profile.Home
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := w.Stop(ctx); !domain.IsCode(err, domain.Timeout) {
		t.Errorf("stop: %v", err)
	}
	w.stop()
	held = false
	gate.Open()
	w.start(dir)
	w.sees(ann.ID, "here it is")
	if w.shown(ann.ID, "late") != 0 || w.shown(ann.ID, "here it is") != 1 {
		t.Error(w.tg.Transcript(ann.ID))
	}
}

func TestAPanicEndsThatTurnOnly(t *testing.T) {
	w := setUp(t, func(r llm.Request) llm.Reply {
		return obey(r)
	}, nil)
	ann, bob := w.tg.AddUser("Ann"), w.tg.AddUser("Bob")
	w.tg.Say(ann, "use boom")
	w.tg.Say(bob, "hello")
	w.sees(bob.ID, "you said: hello")
	w.sees(ann.ID, "crashed")
	w.tg.Say(ann, "still there?")
	w.sees(ann.ID, "you said: still there?")
}

func TestAFailureIsToldAndRetryWorks(t *testing.T) {
	fail := true
	w := setUp(t, func(r llm.Request) llm.Reply {
		if fail {
			return llm.Fail(401).Reply()
		}
		return obey(r)
	}, nil)
	ann := w.tg.AddUser("Ann")
	w.tg.Say(ann, "hello")
	w.sees(ann.ID, "/retry")
	fail = false
	w.tg.Say(ann, "/retry")
	w.sees(ann.ID, "you said: hello")
	w.tg.Say(ann, "/undo")
	w.sees(ann.ID, "Taken back")
	w.tg.Say(ann, "fresh")
	w.sees(ann.ID, "you said: fresh")
	reqs := w.llm.Requests()
	for _, m := range reqs[len(reqs)-1].Messages {
		if m.Text() == "hello" {
			t.Error("what was undone is still told to the model")
		}
	}
}

func TestBackgroundRunsBeside(t *testing.T) {
	w := setUp(t, obey, nil)
	w.hold = make(chan struct{})
	ann := w.tg.AddUser("Ann")
	w.tg.Say(ann, "/background use slow")
	w.sees(ann.ID, "Started in the background")
	w.tg.Say(ann, "meanwhile")
	w.sees(ann.ID, "you said: meanwhile")
	close(w.hold)
	w.sees(ann.ID, "Background task finished")
	w.tg.Say(ann, "/bg use danger")
	w.sees(ann.ID, "This deletes things")
	w.tg.Say(ann, "/approve")
	w.sees(ann.ID, "result: done it")
}

func TestSessionCommands(t *testing.T) {
	w := setUp(t, obey, nil)
	ann := w.tg.AddUser("Ann")
	say := func(text, want string) {
		t.Helper()
		w.tg.Say(ann, text)
		w.sees(ann.ID, want)
	}
	say("/status", "No session yet")
	say("/title x", "No session yet")
	say("first", "you said: first")
	say("/title The plan", "Title set: The plan")
	say("/status", "The plan")
	say("/usage", "Model calls: 1")
	say("/whoami", "agent:main:telegram:dm:")
	say("/model", "Model: m (custom)")
	say("/model other", "uses other from now on")
	say("second", "you said: second")
	if r := w.llm.Requests(); r[len(r)-1].Model != "other" {
		t.Errorf("model %q", r[len(r)-1].Model)
	}
	say("/new", "A new session")
	say("third", "you said: third")
	say("/sessions", "The plan")
	say("/resume the plan", "Back in session")
	say("fourth", "you said: fourth")
	r := w.llm.Requests()
	if last := r[len(r)-1]; len(last.Messages) != 6 || last.Model != "other" { // system, first, a, second, a, fourth
		t.Errorf("%d messages, model %q", len(last.Messages), last.Model)
	}
	say("/help", "/sethome")
	say("/nonsense", "I do not know /nonsense")
	say("/sethome", "cannot be set here")
	say("/queue next thing", "you said: next thing")
	say("/compress", "one summary")
	say("/approve", "nothing waits")
}

func TestStrangersAreRefusedDurably(t *testing.T) {
	w := setUp(t, obey, func(c *home.Config) {
		c.Platforms[telegram.Name] = home.PlatformConfig{Enabled: true, PairDMs: true}
	})
	eve := w.tg.AddUser("Eve")
	w.tg.Say(eve, "let me in")
	m := w.sees(eve.ID, "pairing code")
	code := m.Text[strings.Index(m.Text, "telegram ")+len("telegram "):]
	if _, err := w.Gate.Approve(t.Context(), telegram.Name, strings.Fields(code)[0]); err != nil {
		t.Fatal(err)
	}
	w.tg.Say(eve, "hello")
	w.sees(eve.ID, "you said: hello")
	if n := w.llm.Count(); n != 1 {
		t.Errorf("%d model calls; the first message must not have made one", n)
	}
}

func TestChatForAProgram(t *testing.T) {
	w := setUp(t, obey, nil)
	ask := func(text string, stored bool) (*ChatResult, error) {
		return w.Chat(t.Context(), &ChatRequest{SessionID: "api-1", Stored: stored, Kind: domain.TurnAPI,
			Source: domain.Source{Address: domain.Address{Platform: domain.PlatformAPI, ChatID: "api-1"}, ChatType: domain.ChatDM},
			System: "be kind", Input: domain.Message{Role: domain.RoleUser, Content: text}}, nil)
	}
	r, err := ask("hello", true)
	if err != nil || r.Text != "you said: hello" || !r.Completed || r.Usage.Calls != 1 {
		t.Fatalf("%+v %v", r, err)
	}
	if _, err := ask("more", true); err != nil {
		t.Fatal(err)
	}
	reqs := w.llm.Requests()
	if n := len(reqs[1].Messages); n != 4 || !strings.Contains(reqs[1].Messages[0].Text(), "be kind") {
		t.Errorf("%d messages; a stored session knows its past", n)
	}
	if r, err = ask("use danger", true); err != nil || w.ran("danger") != 0 || !strings.Contains(r.Text, "nobody can be asked") {
		t.Errorf("%+v %v", r, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		waitRuns(t, w, "slow")
		cancel()
	}()
	_, err = w.Chat(ctx, &ChatRequest{SessionID: "api-2", Kind: domain.TurnAPI, Source: domain.Source{Address: domain.Address{Platform: domain.PlatformAPI, ChatID: "api-2"}},
		Input: domain.Message{Role: domain.RoleUser, Content: "use slow"}}, nil)
	if err == nil {
		t.Error("a caller who leaves ends the turn")
	}
	open, err := w.store.OpenTurns(t.Context(), "")
	if err != nil || len(open) != 0 {
		t.Errorf("open turns %+v %v", open, err)
	}
	w.stop()
	if _, err := ask("late", false); !domain.IsCode(err, domain.Unavailable) {
		t.Errorf("while stopping: %v", err)
	}
}

// A full disk: nothing is acknowledged, and everything is answered once there
// is space again.
func TestAFullDiskLosesNothing(t *testing.T) {
	w := setUp(t, obey, nil)
	w.disk.fail.Store(true)
	ann := w.tg.AddUser("Ann")
	w.tg.Say(ann, "hello")
	waitFor(t, func() bool { return w.disk.refused.Load() >= 2 }, "the batch is tried again")
	if w.tg.Pending() == 0 {
		t.Error("the update was confirmed although nothing was stored")
	}
	w.disk.fail.Store(false)
	w.sees(ann.ID, "you said: hello")
}

// A failure of the ledger that only a turn's end met is shown until that end is
// stored, and no longer.
func TestAnEndThatIsStoredEndsTheAlarm(t *testing.T) {
	w := setUp(t, obey, nil)
	state := func() health.State {
		for _, p := range w.Health.Parts() {
			if p.Name == "ledger" {
				return p.State
			}
		}
		return ""
	}
	w.disk.ends.Store(true)
	ann := w.tg.AddUser("Ann")
	w.tg.Say(ann, "hello")
	waitFor(t, func() bool { return w.disk.refused.Load() >= 2 && state() == health.Degraded }, "the failure is shown")
	w.disk.ends.Store(false)
	w.sees(ann.ID, "you said: hello")
	waitFor(t, func() bool { return state() == health.OK }, "the alarm ends")
}
