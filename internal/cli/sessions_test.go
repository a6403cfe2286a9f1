package cli

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"hermes/internal/domain"
	"hermes/internal/ledger"
	"hermes/internal/ledger/sqlite"
)

// prune deletes what is old, and leaves what is young or still at work.
func TestPrune(t *testing.T) {
	ctx, now := t.Context(), time.Now()
	s, err := sqlite.Open(ctx, sqlite.Options{Path: t.TempDir() + "/ledger.db", Kind: "cli", Now: time.Now, NoBallast: true})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	begin := func(id domain.SessionID, at time.Time) ledger.Claim {
		t.Helper()
		c, err := s.StartTurn(ctx, ledger.NewTurn{Kind: domain.TurnAPI, SessionID: id, SessionKey: domain.SessionKey("agent:main:api_server:dm:" + id),
			Source: domain.Source{Address: domain.Address{Platform: domain.PlatformAPI, ChatID: string(id)}},
			Input:  []domain.Message{{Role: domain.RoleUser, Content: "hello", At: at}}}, at)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	end := func(c ledger.Claim, at time.Time) {
		t.Helper()
		_, err := s.FinishTurn(ctx, c.Ref(), ledger.Finish{State: domain.TurnDone, Now: at, Messages: []domain.Message{{Role: domain.RoleUser, Content: "hello", At: at}}})
		if err != nil {
			t.Fatal(err)
		}
	}
	old := now.Add(-40 * 24 * time.Hour)
	end(begin("20260101_000000_aaaaaaaa", old), old)
	begin("20260101_000000_bbbbbbbb", old)
	end(begin("20260101_000000_cccccccc", now), now)

	var out, errs bytes.Buffer
	app := &App{Streams: Streams{In: strings.NewReader(""), Out: &out, Err: &errs}, Now: func() time.Time { return now }}
	if err := app.prune(ctx, s, "", 30, false); !domain.IsCode(err, domain.Cancelled) {
		t.Errorf("without a yes: %v", err)
	}
	if err := app.prune(ctx, s, "telegram", 30, true); err != nil || !strings.Contains(out.String(), "No session is that old.") {
		t.Errorf("of another source: %v, %q", err, &out)
	}
	if err := app.prune(ctx, s, "", 30, true); err != nil || !strings.Contains(out.String(), "Deleted 1 session(s)") || !strings.Contains(errs.String(), "bbbbbbbb stays") {
		t.Errorf("%v, %q, %q", err, &out, &errs)
	}
	left, err := s.ListSessions(ctx, ledger.SessionFilter{})
	if err != nil || len(left) != 2 {
		t.Errorf("left are %+v, %v", left, err)
	}
	one, err := findSession(ctx, s, "20260101_000000_c")
	if err != nil || one.ID != "20260101_000000_cccccccc" {
		t.Errorf("found %s, %v", one.ID, err)
	}
}
