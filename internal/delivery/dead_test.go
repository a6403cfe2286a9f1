package delivery

import (
	"context"
	"testing"
	"time"

	"hermes/internal/domain"
	"hermes/internal/ledger"
	"hermes/internal/ledger/sqlite"
)

// What was given up counts until it is acknowledged, once it died again it
// counts again, and what the operator dropped never does.
func TestUnseenDead(t *testing.T) {
	ctx, now := t.Context(), time.Now()
	s, err := sqlite.Open(ctx, sqlite.Options{Path: t.TempDir() + "/ledger.db", Kind: "cli", Now: time.Now, NoBallast: true})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	to := domain.Address{Platform: "telegram", ChatID: "1"}
	for range 3 {
		if _, err := s.Enqueue(ctx, []domain.NewDelivery{{To: to, Part: domain.Part{Plain: "x"}}}, now); err != nil {
			t.Fatal(err)
		}
	}
	die := func() {
		t.Helper()
		d, ok, _, err := s.ClaimDelivery(ctx, to, now)
		if err != nil || !ok {
			t.Fatal(ok, err)
		}
		if err := s.MarkDead(ctx, ledger.DeliveryRef{ID: d.ID, Attempt: d.Attempt}, "no such chat", now); err != nil {
			t.Fatal(err)
		}
	}
	unseen := func(want int) {
		t.Helper()
		list, err := UnseenDead(ctx, s)
		if err != nil || len(list) != want {
			t.Fatalf("%d unseen (%v), not %d", len(list), err, want)
		}
	}
	unseen(0)
	die()
	die()
	unseen(2)
	if n, err := AcknowledgeDead(ctx, s); n != 2 || err != nil {
		t.Fatal(n, err)
	}
	unseen(0)
	if n, err := AcknowledgeDead(context.Background(), s); n != 0 || err != nil {
		t.Fatal(n, err)
	}
	if err := s.DropDelivery(ctx, 3, Dropped, now); err != nil {
		t.Fatal(err)
	}
	unseen(0)
	if _, err := s.RetryDelivery(ctx, 1, now); err != nil {
		t.Fatal(err)
	}
	if err := ForgetSeen(ctx, s, 1); err != nil {
		t.Fatal(err)
	}
	unseen(0) // it is being tried
	die()
	unseen(1)
}
