package ledgertest

import (
	"strings"
	"time"

	"hermes/internal/domain"
	"hermes/internal/ledger"
)

var inboxCases = []testCase{
	{"an accepted event reads back whole", func(e *env) {
		in := event("e1", "hello")
		in.ReplyText, in.Mentioned = "what was said", true
		in.Attachments = []domain.Attachment{{Kind: domain.Image, Ref: "file-1", Name: "a.png", MIME: "image/png", Size: 12}}
		acc, err := e.s.AcceptInbound(e.ctx, batch(in))
		e.ok(err)
		got, err := e.s.Inbound(e.ctx, acc[0].ID)
		e.ok(err)
		in.ID = acc[0].ID
		e.equal("event", got, in)
		_, err = e.s.Inbound(e.ctx, acc[0].ID+1)
		e.code(err, domain.NotFound)
	}},
	{"a known event is dropped, the others of its batch are not", func(e *env) {
		first := e.accept("one")
		again := event("one/0", "one, told differently")
		acc, err := e.s.AcceptInbound(e.ctx, batch(again, event("two", "two")))
		e.ok(err)
		e.equal("first", acc[0], ledger.Accepted{ID: first[0], Duplicate: true})
		e.equal("second is new", acc[1].Duplicate, false)
		got, err := e.s.Inbound(e.ctx, first[0])
		e.ok(err)
		e.equal("text", got.Text, "one")
		other := event("one/0", "same id, other account")
		other.Account = "bot2"
		acc, err = e.s.AcceptInbound(e.ctx, ledger.Batch{Platform: "telegram", Account: "bot2", Events: []ledger.Event{{Inbound: other}}})
		e.ok(err)
		e.equal("duplicate", acc[0].Duplicate, false)
	}},
	{"a duplicate brings no replies and no pairing", func(e *env) {
		ev := ledger.Event{Inbound: event("e1", "let me in"), Replies: []domain.NewDelivery{to(chat, "your code is 1234")},
			Pairing: &ledger.Pairing{Platform: "telegram", UserID: "u9", CodeHash: "h", Salt: "s", RequestedAt: start}}
		ev.Inbound.State = domain.InboundRefused
		for range 2 {
			_, err := e.s.AcceptInbound(e.ctx, ledger.Batch{Platform: "telegram", Account: "bot", Events: []ledger.Event{ev}})
			e.ok(err)
			ev.Pairing = &ledger.Pairing{Platform: "telegram", UserID: "u9", CodeHash: "another"}
		}
		ds, err := e.s.Deliveries(e.ctx, ledger.DeliveryFilter{})
		e.ok(err)
		e.equal("replies", len(ds), 1)
		ps, err := e.s.ListPairings(e.ctx, "telegram")
		e.ok(err)
		e.equal("pairings", ps, []ledger.Pairing{{Platform: "telegram", UserID: "u9", CodeHash: "h", Salt: "s", RequestedAt: start}})
		e.idle() // a refused event makes no turn
	}},
	{"the cursor is committed with the batch", func(e *env) {
		b := batch(event("e1", "x"))
		b.Cursor = "42"
		_, err := e.s.AcceptInbound(e.ctx, b)
		e.ok(err)
		_, err = e.s.AcceptInbound(e.ctx, batch(event("e2", "x"))) // "" leaves it
		e.ok(err)
		e.kill()
		got, err := e.s.Cursor(e.ctx, "telegram", "bot")
		e.ok(err)
		e.equal("cursor", got, "42")
		got, err = e.s.Cursor(e.ctx, "telegram", "nobody")
		e.ok(err)
		e.equal("unknown cursor", got, "")
	}},
	{"an event cannot be accepted as anything else", func(e *env) {
		in := event("e1", "x")
		in.State = domain.InboundClaimed
		b := batch(in)
		b.Cursor = "9"
		_, err := e.s.AcceptInbound(e.ctx, b)
		e.code(err, domain.Invalid)
		got, err := e.s.Cursor(e.ctx, "telegram", "bot")
		e.ok(err)
		e.equal("cursor", got, "")
	}},
	{"an event that is only sent on is done with its messages", func(e *env) {
		in := event("e1", "x")
		in.State = domain.InboundDone
		b := batch(in)
		to := domain.Address{Platform: "telegram", ChatID: "9"}
		b.Events[0].Replies = []domain.NewDelivery{{To: to, Part: domain.Part{Text: "x"}}}
		for i := range 2 {
			got, err := e.s.AcceptInbound(e.ctx, b)
			e.ok(err)
			e.equal("repeated", got[0].Duplicate, i == 1)
			e.equal("messages", len(got[0].Replies), 1-i)
		}
		keys, err := e.s.ActiveKeys(e.ctx)
		e.ok(err)
		e.equal("lanes with work", len(keys), 0)
		stored, err := e.s.Inbound(e.ctx, 1)
		e.ok(err)
		e.equal("state", stored.State, domain.InboundDone)
	}},
	{"commands and messages are listed apart", func(e *env) {
		button := event("b1", "approve 7")
		button.Button = true
		_, err := e.s.AcceptInbound(e.ctx, batch(event("c1", "/status"), event("t1", "hi"), button, event("t2", "//no command")))
		e.ok(err)
		texts := func(ins []domain.Inbound, err error) (out []string) {
			e.ok(err)
			for _, in := range ins {
				out = append(out, in.Text)
			}
			return out
		}
		e.equal("commands", texts(e.s.ReceivedCommands(e.ctx, key)), []string{"/status", "approve 7"})
		e.equal("messages", texts(e.s.Received(e.ctx, key)), []string{"hi", "//no command"})
		keys, err := e.s.ActiveKeys(e.ctx)
		e.ok(err)
		e.equal("active", keys, []domain.SessionKey{key})
	}},
	{"a command works once", func(e *env) {
		acc, err := e.s.AcceptInbound(e.ctx, batch(event("c1", "/status")))
		e.ok(err)
		eff := ledger.Effects{Key: key, Deliveries: []domain.NewDelivery{to(chat, "all is well")}}
		out, err := e.s.FinishCommand(e.ctx, acc[0].ID, e.now, eff)
		e.ok(err)
		e.equal("answers", len(out.Deliveries), 1)
		e.equal("of the event", e.delivery(out.Deliveries[0]).InboundID, acc[0].ID)
		_, err = e.s.FinishCommand(e.ctx, acc[0].ID, e.now, eff)
		e.code(err, domain.Conflict)
		_, err = e.s.FinishCommand(e.ctx, acc[0].ID+100, e.now, eff)
		e.code(err, domain.NotFound)
		ds, err := e.s.Deliveries(e.ctx, ledger.DeliveryFilter{})
		e.ok(err)
		e.equal("deliveries", len(ds), 1)
		in, err := e.s.Inbound(e.ctx, acc[0].ID)
		e.ok(err)
		e.equal("state", in.State, domain.InboundDone)
		keys, err := e.s.ActiveKeys(e.ctx)
		e.ok(err)
		e.equal("active keys", keys, nil)
	}},
	{"any text survives", func(e *env) {
		for _, text := range []string{
			"", " ", "a\x00b", strings.Repeat("ü", 500_000), "👩‍👩‍👧‍👦 \u202e gnp", "line\r\nline", `{"a":"\u0000"}`, "'; DROP TABLE inbound; --",
		} {
			id := e.accept(text)[0]
			got, err := e.s.Inbound(e.ctx, id)
			e.ok(err)
			if got.Text != text {
				e.Errorf("a text of %d bytes came back as %d bytes, %.40q", len(text), len(got.Text), got.Text)
			}
		}
	}},
	{"invalid UTF-8 is kept or marked, never refused", func(e *env) {
		in := event("e1", "bad \xff\xfe end")
		in.UserName = "na\xc3me"
		acc, err := e.s.AcceptInbound(e.ctx, batch(in))
		e.ok(err)
		got, err := e.s.Inbound(e.ctx, acc[0].ID)
		e.ok(err)
		if got.Text != in.Text && got.Text != strings.ToValidUTF8(in.Text, "\uFFFD") {
			e.Errorf("text became %q", got.Text)
		}
		c := e.claim()
		_, err = e.s.FinishTurn(e.ctx, c.Ref(), done(e.now, c.Turn.Input...))
		e.ok(err)
	}},
}

var effectCases = []testCase{
	{"effects that fail leave nothing", func(e *env) {
		e.say("q", "a")
		acc, err := e.s.AcceptInbound(e.ctx, batch(event("c1", "/resume x")))
		e.ok(err)
		_, err = e.s.FinishCommand(e.ctx, acc[0].ID, e.now, ledger.Effects{Key: key, EndSession: "reset", Resume: "20200101_000000_00000000",
			Deliveries: []domain.NewDelivery{to(chat, "resumed")}})
		e.code(err, domain.NotFound)
		_, err = e.s.CurrentSession(e.ctx, key)
		e.ok(err) // not ended
		cmds, err := e.s.ReceivedCommands(e.ctx, key)
		e.ok(err)
		e.equal("commands that wait", len(cmds), 1)
	}},
	{"a reset gives the key another session", func(e *env) {
		first := e.say("q", "a").Session
		e.command(ledger.Effects{EndSession: "reset"})
		_, err := e.s.CurrentSession(e.ctx, key)
		e.code(err, domain.NotFound)
		old, err := e.s.Session(e.ctx, first.ID)
		e.ok(err)
		e.equal("reason", old.EndReason, "reset")
		e.equal("ended", old.EndedAt, e.now)
		c := e.say("q2", "a2")
		if !c.NewSession || c.Session.ID == first.ID {
			e.Errorf("the turn after a reset runs in session %s (new: %v)", c.Session.ID, c.NewSession)
		}
		e.command(ledger.Effects{Resume: first.ID})
		cur, err := e.s.CurrentSession(e.ctx, key)
		e.ok(err)
		e.equal("current", cur.ID, first.ID)
		e.equal("not ended", cur.EndedAt, time.Time{})
	}},
	{"undo takes back whole exchanges", func(e *env) {
		id := e.say("q1", "a1").Session.ID
		e.say("q2", "a2")
		e.say("q3", "a3")
		out := e.command(ledger.Effects{Undo: 2})
		e.equal("undone", texts(out.Undone), []string{"q2", "a2", "q3", "a3"})
		e.equal("left", e.history(id), []string{"q1", "a1"})
		s, err := e.s.Session(e.ctx, id)
		e.ok(err)
		e.equal("count", s.MessageCount, 2)
		out = e.command(ledger.Effects{Undo: 5})
		e.equal("undone", texts(out.Undone), []string{"q1", "a1"})
		e.equal("nothing left to undo", len(e.command(ledger.Effects{Undo: 1}).Undone), 0)
	}},
	{"title and model of the key's session", func(e *env) {
		title, model, none := "Trip", "big-model", ""
		e.command(ledger.Effects{Model: &model}) // before the first message
		c := e.say("q", "a")
		e.equal("model", c.Session.Model, model)
		e.command(ledger.Effects{Title: &title, Model: &none})
		s, err := e.s.CurrentSession(e.ctx, key)
		e.ok(err)
		e.equal("title", s.Title, title)
		e.equal("model", s.Model, "")
	}},
	{"a command queues a turn and drops what waited", func(e *env) {
		e.accept("old 1", "old 2")
		out := e.command(ledger.Effects{DropQueued: true, Queue: &ledger.NewTurn{Kind: domain.TurnChat, SessionKey: key, Source: source(chat),
			Input: []domain.Message{{Role: domain.RoleUser, Content: "instead", At: start}}}})
		e.equal("dropped", out.Dropped, 2)
		c := e.claim()
		e.equal("turn", c.Turn.ID, out.TurnID)
		e.equal("input", texts(c.Turn.Input), []string{"instead"})
		_, err := e.s.FinishTurn(e.ctx, c.Ref(), done(e.now))
		e.ok(err)
		e.idle()
	}},
}

// command accepts a slash command and finishes it with effects.
func (e *env) command(eff ledger.Effects) ledger.Applied {
	e.Helper()
	e.commands++
	acc, err := e.s.AcceptInbound(e.ctx, batch(event("command "+time.Duration(e.commands).String(), "/do")))
	e.ok(err)
	eff.Key = key
	out, err := e.s.FinishCommand(e.ctx, acc[0].ID, e.now, eff)
	e.ok(err)
	return out
}

func texts(ms []domain.Message) (out []string) {
	for _, m := range ms {
		out = append(out, m.Content)
	}
	return out
}
