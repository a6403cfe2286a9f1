package ledgertest

import (
	"regexp"
	"time"

	"hermes/internal/domain"
	"hermes/internal/ledger"
)

var turnCases = []testCase{
	{"usage adds up by quarter of an hour, kind and outcome", func(e *env) {
		end := func(text string, at time.Time, state domain.TurnState, u domain.Usage) {
			e.accept(text)
			_, err := e.s.FinishTurn(e.ctx, e.claim().Ref(), ledger.Finish{State: state, Usage: u, Now: at})
			e.ok(err)
		}
		early, late := start.Truncate(ledger.UsageSlotLength), start.Truncate(ledger.UsageSlotLength).Add(ledger.UsageSlotLength)
		end("before", early.Add(-time.Millisecond), domain.TurnDone, domain.Usage{Calls: 9})
		end("one", early, domain.TurnDone, domain.Usage{Calls: 1, InputTokens: 10, OutputTokens: 2, CachedTokens: 4})
		end("two", late.Add(-time.Millisecond), domain.TurnDone, domain.Usage{Calls: 2, InputTokens: 20, OutputTokens: 3})
		end("failed", early, domain.TurnFailed, domain.Usage{})
		end("later", late, domain.TurnDone, domain.Usage{Calls: 1})
		c, err := e.s.StartTurn(e.ctx, ledger.NewTurn{Kind: domain.TurnAPI, SessionKey: "other", Source: domain.Source{Address: domain.Address{Platform: domain.PlatformAPI}}}, e.now)
		e.ok(err)
		_, err = e.s.FinishTurn(e.ctx, c.Ref(), ledger.Finish{State: domain.TurnDone, Usage: domain.Usage{Calls: 5}, Now: early})
		e.ok(err)
		got, err := e.s.Usage(e.ctx, early)
		e.ok(err)
		for i := range got {
			got[i].At = got[i].At.UTC()
		}
		e.equal("usage", got, []ledger.UsageSlot{
			{At: early, Kind: domain.TurnAPI, Platform: domain.PlatformAPI, State: domain.TurnDone, Turns: 1, Usage: domain.Usage{Calls: 5}},
			{At: early, Kind: domain.TurnChat, Platform: "telegram", State: domain.TurnDone, Turns: 2, Usage: domain.Usage{Calls: 3, InputTokens: 30, OutputTokens: 5, CachedTokens: 4}},
			{At: early, Kind: domain.TurnChat, Platform: "telegram", State: domain.TurnFailed, Turns: 1, Usage: domain.Usage{}},
			{At: late, Kind: domain.TurnChat, Platform: "telegram", State: domain.TurnDone, Turns: 1, Usage: domain.Usage{Calls: 1}},
		})
	}},
	{"a message becomes a running turn", func(e *env) {
		in := event("e1", "look at this")
		in.ReplyText = "two\nlines"
		in.Attachments = []domain.Attachment{{Kind: domain.Image, Ref: "i"}, {Kind: domain.Document, Ref: "d"}}
		_, err := e.s.AcceptInbound(e.ctx, batch(in))
		e.ok(err)
		c := e.claim()
		e.equal("input", c.Turn.Input, []domain.Message{{Role: domain.RoleUser, Content: "> two\n> lines\n\nlook at this",
			Images: []domain.Attachment{{Kind: domain.Image, Ref: "i"}}, At: in.SentAt}})
		e.equal("kind and state", []any{c.Turn.Kind, c.Turn.State, c.Turn.Attempt, c.Turn.Resumed}, []any{domain.TurnChat, domain.TurnRunning, 1, false})
		e.equal("source", c.Turn.Source, in.Source)
		e.equal("session", c.Turn.SessionID, c.Session.ID)
		if !c.NewSession || !regexp.MustCompile(`^\d{8}_\d{6}_[0-9a-f]{8}$`).MatchString(string(c.Session.ID)) {
			e.Errorf("session %q (new: %v)", c.Session.ID, c.NewSession)
		}
		e.equal("events", len(c.Inbound), 1)
		e.equal("event state", c.Inbound[0].State, domain.InboundClaimed)
		got, err := e.s.Turn(e.ctx, c.Turn.ID)
		e.ok(err)
		e.equal("turn as read", got, c.Turn)
		e.idle() // one at a time
		_, err = e.s.Turn(e.ctx, c.Turn.ID+1)
		e.code(err, domain.NotFound)
	}},
	{"messages are taken one by one, or all together", func(e *env) {
		e.accept("one", "two")
		c := e.claim()
		e.equal("first", texts(c.Turn.Input), []string{"one"})
		_, err := e.s.FinishTurn(e.ctx, c.Ref(), done(e.now))
		e.ok(err)
		e.accept("three", "/command")
		c, ok, err := e.s.ClaimTurn(e.ctx, key, ledger.ClaimOptions{Now: e.now, Collect: true})
		e.ok(err)
		e.equal("claimed", ok, true)
		e.equal("the rest", texts(c.Turn.Input), []string{"two", "three"})
	}},
	{"the end of a turn is one fact", func(e *env) {
		ids := e.accept("q")
		c := e.claim()
		usage := domain.Usage{Calls: 2, InputTokens: 30, OutputTokens: 4, CachedTokens: 5}
		answer := domain.Message{Role: domain.RoleAssistant, Content: "a", Reasoning: "thought", At: start,
			ToolCalls: []domain.ToolCall{{ID: "c1", Name: "terminal", Arguments: "{not json"}}}
		out, err := e.s.FinishTurn(e.ctx, c.Ref(), ledger.Finish{State: domain.TurnDone, Now: e.after(3), Usage: usage,
			Messages: append(c.Turn.Input, answer), Deliveries: []domain.NewDelivery{to(chat, "a"), to(chat2, "b")}})
		e.ok(err)
		turn, err := e.s.Turn(e.ctx, c.Turn.ID)
		e.ok(err)
		e.equal("turn", []any{turn.State, turn.EndedAt, turn.Usage}, []any{domain.TurnDone, e.after(3), usage})
		in, err := e.s.Inbound(e.ctx, ids[0])
		e.ok(err)
		e.equal("event", in.State, domain.InboundDone)
		d := e.delivery(out.Deliveries[0])
		e.equal("delivery", []any{d.TurnID, d.InboundID, d.State, d.CreatedAt}, []any{c.Turn.ID, ids[0], domain.DeliveryPending, e.after(3)})
		ms, err := e.s.History(e.ctx, c.Session.ID)
		e.ok(err)
		for i := range ms {
			if ms[i].ID == 0 {
				e.Error("a message has no id")
			}
			ms[i].ID = 0
		}
		e.equal("transcript", ms, append(c.Turn.Input, answer))
		s, err := e.s.Session(e.ctx, c.Session.ID)
		e.ok(err)
		e.equal("session", []any{s.MessageCount, s.Usage, s.UpdatedAt}, []any{2, usage, e.after(3)})
		_, err = e.s.FinishTurn(e.ctx, c.Ref(), done(e.now))
		e.code(err, domain.Fenced)
		_, err = e.s.FinishTurn(e.ctx, c.Ref(), ledger.Finish{State: domain.TurnRunning})
		e.code(err, domain.Invalid)
	}},
	{"a started turn runs in the session that it names", func(e *env) {
		n := ledger.NewTurn{Kind: domain.TurnAPI, SessionKey: "agent:main:api_server:dm", SessionID: "api-1", Source: source(chat),
			Input: []domain.Message{{Role: domain.RoleUser, Content: "q", At: start}}}
		c, err := e.s.StartTurn(e.ctx, n, e.now)
		e.ok(err)
		e.equal("new", c.NewSession, true)
		_, err = e.s.FinishTurn(e.ctx, c.Ref(), done(e.now, n.Input...))
		e.ok(err)
		c, err = e.s.StartTurn(e.ctx, n, e.now)
		e.ok(err)
		e.equal("session", []any{c.Session.ID, c.NewSession, c.Session.MessageCount}, []any{domain.SessionID("api-1"), false, 1})
		got, err := e.s.Turn(e.ctx, c.Turn.ID)
		e.ok(err)
		e.equal("turn as read", got, c.Turn)
		_, err = e.s.CurrentSession(e.ctx, n.SessionKey)
		e.code(err, domain.NotFound)
		_, err = e.s.StartTurn(e.ctx, ledger.NewTurn{}, e.now)
		e.code(err, domain.Invalid)
	}},
	{"a session is reset by its age", func(e *env) {
		first := e.say("q", "a").Session.ID
		e.accept("much later")
		c, ok, err := e.s.ClaimTurn(e.ctx, key, ledger.ClaimOptions{Now: e.after(90), ResetBefore: e.now, ResetReason: "idle"})
		e.ok(err)
		e.equal("not older than the limit", []any{ok, c.Session.ID}, []any{true, first})
		e.ok(e.s.RequeueTurn(e.ctx, c.Ref()))
		c, _, err = e.s.ClaimTurn(e.ctx, key, ledger.ClaimOptions{Now: e.after(99), ResetBefore: e.after(98), ResetReason: "idle"})
		e.ok(err)
		e.equal("a turn that goes on keeps its session", c.Session.ID, first)
		_, err = e.s.FinishTurn(e.ctx, c.Ref(), done(e.after(100)))
		e.ok(err)
		e.accept("next day")
		c, _, err = e.s.ClaimTurn(e.ctx, key, ledger.ClaimOptions{Now: e.after(300), ResetBefore: e.after(200), ResetReason: "daily"})
		e.ok(err)
		e.equal("new session", c.NewSession, true)
		old, err := e.s.Session(e.ctx, first)
		e.ok(err)
		e.equal("end", []any{old.EndReason, old.EndedAt}, []any{"daily", e.after(300)})
	}},
	{"a background turn does not hold up the conversation", func(e *env) {
		_, err := e.s.StartTurn(e.ctx, ledger.NewTurn{Kind: domain.TurnBackground, SessionKey: key, SessionID: "background-1", Source: source(chat)}, e.now)
		e.ok(err)
		e.accept("meanwhile")
		c := e.claim()
		e.equal("input", texts(c.Turn.Input), []string{"meanwhile"})
		e.idle()
	}},
	{"open turns are listed, and those that do not run can be cancelled", func(e *env) {
		e.accept("q")
		c := e.claim()
		e.code(e.s.CancelTurn(e.ctx, c.Turn.ID, "stop", e.now), domain.Conflict)
		e.ok(e.s.RequeueTurn(e.ctx, c.Ref()))
		open, err := e.s.OpenTurns(e.ctx, key)
		e.ok(err)
		e.equal("open", len(open), 1)
		e.equal("state", open[0].State, domain.TurnQueued)
		e.ok(e.s.CancelTurn(e.ctx, c.Turn.ID, "stopped by the user", e.now))
		turn, err := e.s.Turn(e.ctx, c.Turn.ID)
		e.ok(err)
		e.equal("turn", []any{turn.State, turn.Error}, []any{domain.TurnInterrupted, "stopped by the user"})
		in, err := e.s.Inbound(e.ctx, c.Inbound[0].ID)
		e.ok(err)
		e.equal("its event", in.State, domain.InboundDone)
		e.idle()
		open, err = e.s.OpenTurns(e.ctx, "")
		e.ok(err)
		e.equal("open", len(open), 0)
		e.code(e.s.CancelTurn(e.ctx, 999, "", e.now), domain.NotFound)
	}},
	{"a deleted session has no open turn", func(e *env) {
		c := e.say("q", "a")
		e.accept("more")
		running := e.claim()
		e.code(e.s.DeleteSession(e.ctx, c.Session.ID), domain.Conflict)
		_, err := e.s.FinishTurn(e.ctx, running.Ref(), done(e.now))
		e.ok(err)
		e.ok(e.s.DeleteSession(e.ctx, c.Session.ID))
		e.code(e.s.DeleteSession(e.ctx, c.Session.ID), domain.NotFound)
		_, err = e.s.Session(e.ctx, c.Session.ID)
		e.code(err, domain.NotFound)
		e.equal("history", e.history(c.Session.ID), nil)
		e.equal("a new one begins", e.say("again", "yes").NewSession, true)
	}},
}

var journalCases = []testCase{
	{"the journal comes back with the turn", func(e *env) {
		e.accept("q")
		c := e.claim()
		want := []domain.Step{
			{Seq: 1, Kind: domain.StepAnswer, Message: domain.Message{Role: domain.RoleAssistant, ToolCalls: []domain.ToolCall{{ID: "c1", Name: "terminal", Arguments: "{}"}}}, Usage: domain.Usage{Calls: 1, InputTokens: 9}, At: e.now},
			{Seq: 2, Kind: domain.StepToolStarted, CallID: "c1", Tool: "terminal", At: e.after(1)},
		}
		for _, st := range want {
			seq, err := e.s.AppendStep(e.ctx, c.Ref(), st)
			e.ok(err)
			e.equal("seq", seq, st.Seq)
		}
		e.ok(e.s.SetPreview(e.ctx, c.Ref(), "p1"))
		e.ok(e.s.RequeueTurn(e.ctx, c.Ref()))
		again := e.claim()
		e.equal("steps", again.Steps, want)
		e.equal("turn", []any{again.Turn.ID, again.Turn.Attempt, again.Turn.Resumed, again.Turn.Preview}, []any{c.Turn.ID, 2, true, "p1"})
		e.equal("events", len(again.Inbound), 1)
		if again.Turn.Fence <= c.Turn.Fence {
			e.Errorf("the fence went from %d to %d", c.Turn.Fence, again.Turn.Fence)
		}
	}},
	{"a steered message joins the turn", func(e *env) {
		e.accept("q")
		c := e.claim()
		id := e.accept("by the way")[0]
		st := domain.Step{Kind: domain.StepInput, Message: domain.Message{Role: domain.RoleUser, Content: "by the way"}}
		e.ok(e.s.JoinTurn(e.ctx, c.Ref(), id, st))
		e.code(e.s.JoinTurn(e.ctx, c.Ref(), id, st), domain.Conflict)
		in, err := e.s.Inbound(e.ctx, id)
		e.ok(err)
		e.equal("event", in.State, domain.InboundClaimed)
		e.ok(e.s.RequeueTurn(e.ctx, c.Ref()))
		c = e.claim()
		e.equal("steps", []any{len(c.Steps), len(c.Inbound)}, []any{1, 2})
		_, err = e.s.FinishTurn(e.ctx, c.Ref(), done(e.now))
		e.ok(err)
		in, err = e.s.Inbound(e.ctx, id)
		e.ok(err)
		e.equal("event", in.State, domain.InboundDone)
		e.idle()
	}},
	{"an old fence writes nothing", func(e *env) {
		e.accept("q")
		old := e.claim()
		e.ok(e.s.RequeueTurn(e.ctx, old.Ref()))
		c := e.claim()
		waiting := e.accept("more")[0]
		writes := map[string]func(ledger.TurnRef) error{
			"AppendStep": func(t ledger.TurnRef) error {
				_, err := e.s.AppendStep(e.ctx, t, domain.Step{Kind: domain.StepInput})
				return err
			},
			"JoinTurn": func(t ledger.TurnRef) error {
				return e.s.JoinTurn(e.ctx, t, waiting, domain.Step{Kind: domain.StepInput})
			},
			"SetPreview":  func(t ledger.TurnRef) error { return e.s.SetPreview(e.ctx, t, "p") },
			"RequeueTurn": func(t ledger.TurnRef) error { return e.s.RequeueTurn(e.ctx, t) },
			"SuspendTurn": func(t ledger.TurnRef) error {
				_, _, err := e.s.SuspendTurn(e.ctx, t, domain.Question{Kind: domain.AskClarify}, []domain.NewDelivery{to(chat, "?")})
				return err
			},
			"FinishTurn": func(t ledger.TurnRef) error {
				_, err := e.s.FinishTurn(e.ctx, t, ledger.Finish{State: domain.TurnDone, Now: e.now, Messages: []domain.Message{reply("a")}, Deliveries: []domain.NewDelivery{to(chat, "a")}})
				return err
			},
		}
		for name, write := range writes {
			if err := write(old.Ref()); !domain.IsCode(err, domain.Fenced) {
				e.Errorf("%s with an old fence: %v", name, err)
			}
		}
		ds, err := e.s.Deliveries(e.ctx, ledger.DeliveryFilter{})
		e.ok(err)
		e.equal("deliveries", len(ds), 0)
		e.equal("transcript", e.history(c.Session.ID), nil)
		_, err = e.s.AppendStep(e.ctx, c.Ref(), domain.Step{Kind: domain.StepInput, At: time.Time{}})
		e.ok(err) // the new claim is unharmed
	}},
}

var questionCases = []testCase{
	{"a question suspends its turn until it is answered", func(e *env) {
		e.accept("rm it")
		c := e.claim()
		q, ids, err := e.s.SuspendTurn(e.ctx, c.Ref(), domain.Question{Kind: domain.AskApproval, CallID: "c1", Text: "May I?", Detail: "rm -r x",
			Key: "rm", Choices: []string{"once", "deny"}, AskedAt: e.now, ExpiresAt: e.after(60)}, []domain.NewDelivery{to(chat, "May I?")})
		e.ok(err)
		e.equal("asked", []any{len(ids), q.TurnID, q.SessionKey}, []any{1, c.Turn.ID, key})
		_, err = e.s.AppendStep(e.ctx, c.Ref(), domain.Step{Kind: domain.StepInput})
		e.code(err, domain.Fenced) // it does not run any more
		e.accept("are you there?")
		e.idle()
		open, err := e.s.OpenQuestions(e.ctx, key)
		e.ok(err)
		e.equal("open", open, []domain.Question{q})
		e.kill() // waiting holds no process
		rec, err := e.s.Recover(e.ctx, e.now)
		e.ok(err)
		e.equal("requeued", rec.Requeued, 0)
		got, err := e.s.AnswerQuestion(e.ctx, ledger.Answer{Question: q.ID, Text: domain.ApproveSession, By: "u1"}, e.after(5))
		e.ok(err)
		e.equal("answer", []any{got.Answer, got.AnsweredAt}, []any{domain.ApproveSession, e.after(5)})
		keys, err := e.s.ActiveKeys(e.ctx)
		e.ok(err)
		e.equal("active", keys, []domain.SessionKey{key})
		again := e.claim()
		e.equal("turn goes on", []any{again.Turn.ID, again.Turn.Attempt, again.Turn.Resumed}, []any{c.Turn.ID, 2, false})
		e.equal("answers", again.Answers, []domain.Question{got})
		_, err = e.s.AnswerQuestion(e.ctx, ledger.Answer{Question: q.ID, Text: domain.ApproveDeny}, e.now)
		e.code(err, domain.Conflict)
		_, err = e.s.AnswerQuestion(e.ctx, ledger.Answer{Question: q.ID + 9, Text: "x"}, e.now)
		e.code(err, domain.NotFound)
		_, err = e.s.Question(e.ctx, q.ID+9)
		e.code(err, domain.NotFound)
		stored, err := e.s.Question(e.ctx, q.ID)
		e.ok(err)
		e.equal("as read", stored, got)
	}},
	{"what an approval allows", func(e *env) {
		for _, c := range []struct {
			answer             string
			here, inAnotherOne bool
		}{{domain.ApproveOnce, false, false}, {domain.ApproveDeny, false, false}, {domain.ApproveSession, true, false}, {domain.ApproveAlways, true, true}} {
			e.accept("do " + c.answer)
			turn := e.claim()
			q, _, err := e.s.SuspendTurn(e.ctx, turn.Ref(), domain.Question{Kind: domain.AskApproval, Key: "key " + c.answer}, nil)
			e.ok(err)
			_, err = e.s.AnswerQuestion(e.ctx, ledger.Answer{Question: q.ID, Text: c.answer, By: "u1"}, e.now)
			e.ok(err)
			here, err := e.s.Granted(e.ctx, turn.Session.ID, q.Key)
			e.ok(err)
			there, err := e.s.Granted(e.ctx, "20200101_000000_00000000", q.Key)
			e.ok(err)
			e.equal(c.answer, []bool{here, there}, []bool{c.here, c.inAnotherOne})
			_, err = e.s.FinishTurn(e.ctx, e.claim().Ref(), done(e.now))
			e.ok(err)
		}
	}},
	{"a question that nobody answers expires", func(e *env) {
		e.accept("q")
		c := e.claim()
		q, _, err := e.s.SuspendTurn(e.ctx, c.Ref(), domain.Question{Kind: domain.AskApproval, Key: "k", ExpiresAt: e.after(60)}, nil)
		e.ok(err)
		expired, next, err := e.s.ExpireQuestions(e.ctx, e.after(59))
		e.ok(err)
		e.equal("not yet", []any{len(expired), next}, []any{0, e.after(60)})
		expired, next, err = e.s.ExpireQuestions(e.ctx, e.after(60))
		e.ok(err)
		e.equal("now", []any{len(expired), next}, []any{1, time.Time{}})
		e.equal("answer", []any{expired[0].ID, expired[0].Answer}, []any{q.ID, domain.AnswerExpired})
		e.equal("the turn goes on", e.claim().Turn.ID, c.Turn.ID)
	}},
	{"a cancelled turn asks no more", func(e *env) {
		e.accept("q")
		c := e.claim()
		q, _, err := e.s.SuspendTurn(e.ctx, c.Ref(), domain.Question{Kind: domain.AskClarify}, nil)
		e.ok(err)
		e.ok(e.s.CancelTurn(e.ctx, c.Turn.ID, "stop", e.now))
		open, err := e.s.OpenQuestions(e.ctx, "")
		e.ok(err)
		e.equal("open", len(open), 0)
		_, err = e.s.AnswerQuestion(e.ctx, ledger.Answer{Question: q.ID, Text: "late"}, e.now)
		e.code(err, domain.Conflict)
	}},
	{"a command answers a question once", func(e *env) {
		e.accept("q")
		c := e.claim()
		q, _, err := e.s.SuspendTurn(e.ctx, c.Ref(), domain.Question{Kind: domain.AskClarify}, nil)
		e.ok(err)
		e.command(ledger.Effects{Answer: &ledger.Answer{Question: q.ID, Text: "blue", By: "u1"}})
		e.equal("answer", e.claim().Answers[0].Answer, "blue")
		acc, err := e.s.AcceptInbound(e.ctx, batch(event("c2", "/answer")))
		e.ok(err)
		_, err = e.s.FinishCommand(e.ctx, acc[0].ID, e.now, ledger.Effects{Key: key, Answer: &ledger.Answer{Question: 999}})
		e.code(err, domain.NotFound)
	}},
}
