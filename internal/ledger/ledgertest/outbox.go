package ledgertest

import (
	"time"

	"hermes/internal/domain"
	"hermes/internal/ledger"
)

var outboxCases = []testCase{
	{"a delivery goes its way", func(e *env) {
		want := domain.NewDelivery{To: chat2, Kind: "reply", Edit: "old", RunID: 0, Part: domain.Part{Text: "<b>x</b>", Plain: "x", Markup: true, ReplyTo: "m", Silent: true,
			Attachments: []domain.Attachment{{Kind: domain.Document, Path: "/x"}}, Buttons: []domain.Button{{Label: "Yes", Command: "/approve 1"}}}}
		id := e.enqueue(want)[0]
		d := e.send(chat2)
		e.equal("content", d.NewDelivery, want)
		e.equal("claim", []any{d.ID, d.State, d.Attempt, d.Uncertain, d.CreatedAt}, []any{id, domain.DeliverySending, 1, false, e.now})
		if len(d.Nonce) < 16 || len(d.Nonce) > 25 {
			e.Errorf("nonce %q", d.Nonce)
		}
		e.ok(e.s.MarkSent(e.ctx, ref(d), "receipt-1", e.after(2)))
		got := e.delivery(id)
		e.equal("sent", []any{got.State, got.Receipt, got.SentAt, got.Nonce}, []any{domain.DeliverySent, "receipt-1", e.after(2), d.Nonce})
		e.code(e.s.MarkSent(e.ctx, ref(d), "again", e.now), domain.Fenced)
		e.code(e.s.MarkDead(e.ctx, ref(d), "x", e.now), domain.Fenced)
		e.blocked(chat2, time.Time{})
	}},
	{"order is kept within an address and nowhere else", func(e *env) {
		ids := e.enqueue(to(chat, "1"), to(chat, "2"), to(chat2, "other"))
		first := e.send(chat)
		e.equal("head", first.ID, ids[0])
		e.blocked(chat, time.Time{}) // being sent
		e.equal("other address", e.send(chat2).ID, ids[2])
		e.ok(e.s.MarkRetry(e.ctx, ref(first), e.after(30), "503", false, nil, nil))
		e.blocked(chat, e.after(30)) // the second waits behind it
		due, err := e.s.DueAddresses(e.ctx)
		e.ok(err)
		e.equal("due", due, []ledger.DueAddress{{To: chat, Next: e.after(30)}})
		e.now = e.after(30)
		again := e.send(chat)
		e.equal("retry", []any{again.ID, again.Attempt, again.Nonce, again.Reason, again.Uncertain}, []any{ids[0], 2, first.Nonce, "503", false})
		e.ok(e.s.MarkDead(e.ctx, ref(again), "blocked by the user", e.now))
		e.equal("next", e.send(chat).ID, ids[1])
	}},
	{"an attempt speaks only for itself", func(e *env) {
		e.enqueue(to(chat, "1"))
		first := e.send(chat)
		e.ok(e.s.MarkRetry(e.ctx, ref(first), e.now, "cut", true, nil, nil))
		second := e.send(chat)
		e.equal("uncertain", second.Uncertain, true)
		e.code(e.s.MarkSent(e.ctx, ref(first), "r", e.now), domain.Fenced)
		e.code(e.s.MarkRetry(e.ctx, ref(first), e.now, "", false, nil, nil), domain.Fenced)
		plain, edit := domain.Part{Text: "plain"}, ""
		e.ok(e.s.MarkRetry(e.ctx, ref(second), e.now, "markup refused", false, &plain, &edit))
		third := e.send(chat)
		e.equal("third", []any{third.Part, third.Edit, third.Uncertain}, []any{plain, "", true})
		e.ok(e.s.MarkSent(e.ctx, ref(third), "r", e.now))
	}},
	{"not before its time", func(e *env) {
		d := to(chat, "later")
		d.NotBefore = e.after(10)
		e.enqueue(d)
		e.blocked(chat, e.after(10))
		due, err := e.s.DueAddresses(e.ctx)
		e.ok(err)
		e.equal("due", due, []ledger.DueAddress{{To: chat, Next: e.after(10)}})
		e.now = e.after(10)
		e.equal("then", e.send(chat).NotBefore, d.NotBefore)
	}},
	{"a migrated chat takes its messages along", func(e *env) {
		ids := e.enqueue(to(chat, "1"), to(chat, "2"))
		d := e.send(chat)
		e.ok(e.s.MoveAddress(e.ctx, chat, chat2))
		e.blocked(chat, time.Time{})
		e.ok(e.s.MarkSent(e.ctx, ref(d), "r", e.now))
		e.equal("at the new place", e.send(chat2).ID, ids[1])
	}},
	{"people can retry and drop", func(e *env) {
		ids := e.enqueue(to(chat, "1"), to(chat, "2"))
		_, err := e.s.RetryDelivery(e.ctx, ids[0], e.now)
		e.code(err, domain.Conflict)
		d := e.send(chat)
		e.code(e.s.DropDelivery(e.ctx, ids[0], "x", e.now), domain.Conflict)
		e.ok(e.s.MarkDead(e.ctx, ref(d), "no", e.now))
		e.ok(e.s.DropDelivery(e.ctx, ids[1], "not wanted", e.now))
		e.equal("dropped", []any{e.delivery(ids[1]).State, e.delivery(ids[1]).Reason}, []any{domain.DeliveryDead, "not wanted"})
		got, err := e.s.RetryDelivery(e.ctx, ids[0], e.now)
		e.ok(err)
		e.equal("revived", got.State, domain.DeliveryPending)
		e.equal("sent again", e.send(chat).ID, ids[0])
		_, err = e.s.RetryDelivery(e.ctx, 999, e.now)
		e.code(err, domain.NotFound)
		e.code(e.s.DropDelivery(e.ctx, 999, "", e.now), domain.NotFound)
	}},
	{"what comes back is dead", func(e *env) {
		ids := e.enqueue(to(chat, "1"), to(chat, "2"))
		back := func(a domain.Address, receipt string) bool {
			ok, err := e.s.MarkReturned(e.ctx, a.Platform, a.ChatID, receipt, "nobody there", e.now)
			e.ok(err)
			return ok
		}
		first := ref(e.send(chat))
		e.equal("before it was sent", back(chat, "r1"), false)
		e.ok(e.s.MarkSent(e.ctx, first, "r1", e.now))
		e.equal("another receipt", back(chat, "r2"), false)
		e.equal("another chat", back(chat2, "r1"), false)
		e.equal("this one", back(chat, "r1"), true)
		d := e.delivery(ids[0])
		e.equal("its state", d.State, domain.DeliveryDead)
		e.equal("its reason", d.Reason, "nobody there")
		e.equal("twice", back(chat, "r1"), false)
		_, err := e.s.RetryDelivery(e.ctx, ids[0], e.now)
		e.ok(err)
		e.ok(e.s.MarkSent(e.ctx, ref(e.send(chat)), "r1", e.now))
		e.equal("sent again", e.delivery(ids[0]).State, domain.DeliverySent)
		e.equal("and back again", back(chat, "r1"), true)
	}},
	{"deliveries are listed newest first", func(e *env) {
		ids := e.enqueue(to(chat, "1"), to(chat2, "2"), to(chat, "3"))
		e.ok(e.s.MarkSent(e.ctx, ref(e.send(chat)), "r", e.now))
		e.ok(e.s.MarkDead(e.ctx, ref(e.send(chat2)), "r", e.now))
		list := func(f ledger.DeliveryFilter) (out []int64) {
			ds, err := e.s.Deliveries(e.ctx, f)
			e.ok(err)
			for _, d := range ds {
				out = append(out, d.ID)
			}
			return out
		}
		e.equal("all", list(ledger.DeliveryFilter{}), []int64{ids[2], ids[1], ids[0]})
		e.equal("limit", list(ledger.DeliveryFilter{Limit: 1}), []int64{ids[2]})
		e.equal("before", list(ledger.DeliveryFilter{Before: ids[1]}), []int64{ids[0]})
		e.equal("dead or pending", list(ledger.DeliveryFilter{States: []domain.DeliveryState{domain.DeliveryDead, domain.DeliveryPending}}), []int64{ids[2], ids[1]})
		e.equal("of a platform", list(ledger.DeliveryFilter{Platform: chat.Platform, Limit: 1, States: []domain.DeliveryState{domain.DeliverySent}}), []int64{ids[0]})
		e.equal("of another platform", list(ledger.DeliveryFilter{Platform: "another"}), nil)
		e.equal("of a turn", list(ledger.DeliveryFilter{TurnID: 5}), nil)
		_, err := e.s.Deliveries(e.ctx, ledger.DeliveryFilter{States: []domain.DeliveryState{"nonsense"}})
		e.code(err, domain.Invalid)
	}},
	{"a message needs a place to go", func(e *env) {
		_, err := e.s.Enqueue(e.ctx, []domain.NewDelivery{{}}, e.now)
		e.code(err, domain.Invalid)
	}},
	{"the log of a chat is what its reader saw", func(e *env) {
		e.accept("hi")
		stranger := event("x", "let me in")
		stranger.State = domain.InboundRefused
		_, err := e.s.AcceptInbound(e.ctx, batch(stranger))
		e.ok(err)
		question := to(chat, "May I?")
		question.Kind = "question"
		e.enqueue(question, to(chat, "unsent"))
		asked := e.send(chat)
		e.ok(e.s.MarkSent(e.ctx, ref(asked), "r1", e.after(1)))
		e.now = e.after(2)
		e.ok(e.s.MarkSent(e.ctx, ref(e.send(chat)), "r2", e.now))
		edit := to(chat, "Allowed.")
		edit.Edit = "r1"
		e.enqueue(edit, to(chat, "never sent"))
		e.ok(e.s.MarkSent(e.ctx, ref(e.send(chat)), "r1", e.after(1)))
		log, err := e.s.ChatLog(e.ctx, chat, 0)
		e.ok(err)
		var lines, refs []string
		for _, l := range log {
			lines = append(lines, l.Role+"/"+l.Kind+": "+l.Part.Text)
			refs = append(refs, l.Ref)
		}
		e.equal("log", lines, []string{"user/: hi", "assistant/question: Allowed.", "assistant/notice: unsent"})
		e.equal("receipts", refs[1:], []string{"r1", "r2"})
		log, err = e.s.ChatLog(e.ctx, chat, 1)
		e.ok(err)
		e.equal("tail", len(log), 1)
		e.equal("the newest", log[0].Part.Text, "unsent")
	}},
}
