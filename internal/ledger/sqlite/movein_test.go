package sqlite

import (
	"testing"
	"time"

	"hermes/internal/domain"
	"hermes/internal/ledger"
)

// What is moved in comes once, in order, and goes again unless it was continued.
func TestMoveIn(t *testing.T) {
	ctx := t.Context()
	s, err := Open(ctx, Options{Path: t.TempDir() + "/ledger.db", Kind: "cli"})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	at := time.UnixMilli(1_780_000_000_000).UTC()
	session := func(id domain.SessionID, key domain.SessionKey) ledger.MovedSession {
		return ledger.MovedSession{Session: domain.Session{ID: id, Key: key, CreatedAt: at, UpdatedAt: at}, Current: true}
	}
	message := func(id domain.SessionID, text string, h ledger.Hidden) ledger.MovedMessage {
		return ledger.MovedMessage{Session: id, Hidden: h, Message: domain.Message{Role: domain.RoleUser, Content: text, At: at.Add(time.Minute)}}
	}
	list := []ledger.MovedSession{session("one", "k1"), session("two", "k2"), session("three", "k1")}
	for range 2 {
		if n, err := s.MoveSessions(ctx, "store", list); err != nil || n != 3 {
			t.Fatalf("%d sessions, %v", n, err)
		}
	}
	if n, err := s.MoveSessions(ctx, "another", list); err != nil || n != 0 {
		t.Errorf("%d sessions of another store, %v", n, err)
	}
	if c, err := s.CurrentSession(ctx, "k1"); err != nil || c.ID != "one" {
		t.Errorf("current %s, %v", c.ID, err)
	}
	batch := []ledger.MovedMessage{message("one", "a", ledger.Active), message("none", "b", ledger.Active), message("one", "c", ledger.Undone), message("two", "d", ledger.Summed), message("one", "e", ledger.Active)}
	count, err := s.MoveMessages(ctx, "store", 5, batch)
	if err != nil || count != (ledger.MovedCount{Taken: 4, Unknown: 1}) {
		t.Errorf("%+v, %v", count, err)
	}
	if _, err := s.MoveMessages(ctx, "store", 5, batch); !domain.IsCode(err, domain.Conflict) {
		t.Errorf("the same batch again: %v", err)
	}
	ms, err := s.History(ctx, "one")
	if err != nil || len(ms) != 2 || ms[0].Content != "a" || ms[1].Content != "e" {
		t.Errorf("%+v, %v", ms, err)
	}
	one, err := s.Session(ctx, "one")
	if err != nil || one.MessageCount != 2 || !one.UpdatedAt.Equal(at.Add(time.Minute)) {
		t.Errorf("%+v, %v", one, err)
	}
	c, err := s.StartTurn(ctx, ledger.NewTurn{Kind: domain.TurnAPI, SessionKey: "k1", SessionID: "one"}, at)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.FinishTurn(ctx, c.Ref(), ledger.Finish{State: domain.TurnDone, Now: at}); err != nil {
		t.Fatal(err)
	}
	count, err = s.MoveMessages(ctx, "store", 6, []ledger.MovedMessage{message("one", "f", ledger.Active), message("two", "g", ledger.Active)})
	if err != nil || count != (ledger.MovedCount{Taken: 1, WentOn: 1}) {
		t.Errorf("%+v, %v", count, err)
	}
	if err := s.UndoMove(ctx, "one"); !domain.IsCode(err, domain.Conflict) {
		t.Errorf("undo of a session that went on: %v", err)
	}
	for _, want := range []domain.Code{"", domain.NotFound} {
		if err := s.UndoMove(ctx, "two"); domain.CodeOf(err) != want {
			t.Errorf("undo: %v, want %q", err, want)
		}
	}
	left, err := s.MovedSessions(ctx, "", 10)
	if err != nil || len(left) != 2 || left[0].Session != "one" || left[1].Session != "three" || left[0].Messages != 3 {
		t.Errorf("%+v, %v", left, err)
	}
	if after, err := s.MovedSessions(ctx, "one", 10); err != nil || len(after) != 1 {
		t.Errorf("%+v, %v", after, err)
	}
	if err := s.ForgetOrigin(ctx, "store"); err != nil {
		t.Fatal(err)
	}
	if n, err := s.MovedUpTo(ctx, "store"); err != nil || n != 0 {
		t.Errorf("read to %d, %v", n, err)
	}
}
