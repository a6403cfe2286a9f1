package ledgertest

import (
	"time"

	"hermes/internal/domain"
	"hermes/internal/ledger"
)

// origin names the other system's store in these cases.
const origin = "store"

// in gives the part of the store that takes over what another system kept.
func (e *env) in() ledger.MoveIn {
	e.Helper()
	in, ok := e.s.(ledger.MoveIn)
	if !ok {
		e.Fatalf("%T takes nothing over", e.s)
	}
	return in
}

// kept is a session that another system kept.
func (e *env) kept(id domain.SessionID, key domain.SessionKey) ledger.MovedSession {
	return ledger.MovedSession{Session: domain.Session{ID: id, Key: key, CreatedAt: e.now, UpdatedAt: e.now}, Current: true}
}

// said is a message of such a session, a minute after its beginning.
func (e *env) said(id domain.SessionID, text string, h ledger.Hidden) ledger.MovedMessage {
	return ledger.MovedMessage{Session: id, Hidden: h, Message: domain.Message{Role: domain.RoleUser, Content: text, At: e.now.Add(time.Minute)}}
}

// moved takes over three sessions, two of one key.
func (e *env) moved() ledger.MoveIn {
	e.Helper()
	in := e.in()
	n, err := in.MoveSessions(e.ctx, origin, []ledger.MovedSession{e.kept("one", "k1"), e.kept("two", "k2"), e.kept("three", "k1")})
	e.ok(err)
	e.equal("sessions taken", n, 3)
	return in
}

// goOn lets a session go on after it was taken over.
func (e *env) goOn(id domain.SessionID, key domain.SessionKey) {
	e.Helper()
	c, err := e.s.StartTurn(e.ctx, ledger.NewTurn{Kind: domain.TurnAPI, SessionKey: key, SessionID: id}, e.now)
	e.ok(err)
	_, err = e.s.FinishTurn(e.ctx, c.Ref(), ledger.Finish{State: domain.TurnDone, Now: e.now})
	e.ok(err)
}

var moveInCases = []testCase{
	{"sessions are taken over once, and by one origin", func(e *env) {
		in := e.moved()
		list := []ledger.MovedSession{e.kept("one", "k1"), e.kept("two", "k2"), e.kept("three", "k1")}
		n, err := in.MoveSessions(e.ctx, origin, list)
		e.ok(err)
		e.equal("again", n, 3)
		n, err = in.MoveSessions(e.ctx, "another", list)
		e.ok(err)
		e.equal("by another origin", n, 0)
		c, err := e.s.CurrentSession(e.ctx, "k1")
		e.ok(err)
		e.equal("the first that claims a key is in it", c.ID, domain.SessionID("one"))
	}},
	{"messages come in order, and a batch once", func(e *env) {
		in := e.moved()
		batch := []ledger.MovedMessage{e.said("one", "a", ledger.Active), e.said("none", "b", ledger.Active), e.said("one", "c", ledger.Undone), e.said("two", "d", ledger.Summed), e.said("one", "e", ledger.Active)}
		count, err := in.MoveMessages(e.ctx, origin, 5, batch)
		e.ok(err)
		e.equal("taken", count, ledger.MovedCount{Taken: 4, Unknown: 1})
		_, err = in.MoveMessages(e.ctx, origin, 5, batch)
		e.code(err, domain.Conflict)
		e.equal("what the model sees", e.history("one"), []string{"a", "e"})
		one, err := e.s.Session(e.ctx, "one")
		e.ok(err)
		e.equal("counted", one.MessageCount, 2)
		e.equal("used last", one.UpdatedAt, e.now.Add(time.Minute))
	}},
	{"a session that went on takes no more, and stays", func(e *env) {
		in := e.moved()
		e.goOn("one", "k1")
		count, err := in.MoveMessages(e.ctx, origin, 6, []ledger.MovedMessage{e.said("one", "f", ledger.Active), e.said("two", "g", ledger.Active)})
		e.ok(err)
		e.equal("taken", count, ledger.MovedCount{Taken: 1, WentOn: 1})
		e.code(in.UndoMove(e.ctx, "one"), domain.Conflict)
		e.equal("what was said is there", e.history("two"), []string{"g"})
	}},
	{"a session goes again, once", func(e *env) {
		in := e.moved()
		_, err := in.MoveMessages(e.ctx, origin, 1, []ledger.MovedMessage{e.said("two", "d", ledger.Active)})
		e.ok(err)
		e.ok(in.UndoMove(e.ctx, "two"))
		e.code(in.UndoMove(e.ctx, "two"), domain.NotFound)
		_, err = e.s.Session(e.ctx, "two")
		e.code(err, domain.NotFound)
	}},
	{"what came is listed by session, in pages", func(e *env) {
		in := e.moved()
		_, err := in.MoveMessages(e.ctx, origin, 3, []ledger.MovedMessage{e.said("one", "a", ledger.Active), e.said("one", "b", ledger.Undone), e.said("one", "c", ledger.Summed)})
		e.ok(err)
		all, err := in.MovedSessions(e.ctx, "", 10)
		e.ok(err)
		var ids []domain.SessionID
		for _, s := range all {
			ids = append(ids, s.Session)
		}
		e.equal("sessions", ids, []domain.SessionID{"one", "three", "two"})
		e.equal("messages of the first", all[0].Messages, 3)
		after, err := in.MovedSessions(e.ctx, "one", 1)
		e.ok(err)
		e.equal("page", len(after), 1)
		e.equal("first of the page", after[0].Session, domain.SessionID("three"))
	}},
	{"how far an origin was read outlives the process, until it is forgotten", func(e *env) {
		in := e.moved()
		n, err := in.MovedUpTo(e.ctx, origin)
		e.ok(err)
		e.equal("at first", n, int64(0))
		_, err = in.MoveMessages(e.ctx, origin, 41, nil)
		e.ok(err)
		e.kill()
		n, err = e.in().MovedUpTo(e.ctx, origin)
		e.ok(err)
		e.equal("after a kill", n, int64(41))
		e.ok(e.in().ForgetOrigin(e.ctx, origin))
		n, err = e.in().MovedUpTo(e.ctx, origin)
		e.ok(err)
		e.equal("forgotten", n, int64(0))
	}},
}
