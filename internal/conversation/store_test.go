package conversation

import (
	"context"
	"errors"
	"sync/atomic"

	"hermes/internal/domain"
	"hermes/internal/ledger"
)

// failingStore is a ledger whose disk can be full.
type failingStore struct {
	Store
	fail    atomic.Bool
	ends    atomic.Bool // only the ends of turns find no space
	refused atomic.Int64
}

var errFull = errors.New("no space left on device")

// AcceptInbound fails while the disk is full.
func (s *failingStore) AcceptInbound(ctx context.Context, b ledger.Batch) ([]ledger.Accepted, error) {
	if s.fail.Load() {
		s.refused.Add(1)
		return nil, domain.E(domain.StorageFull, errFull, "the disk is full")
	}
	return s.Store.AcceptInbound(ctx, b)
}

// FinishTurn fails while ends do.
func (s *failingStore) FinishTurn(ctx context.Context, t ledger.TurnRef, f ledger.Finish) (ledger.Finished, error) {
	if s.ends.Load() {
		s.refused.Add(1)
		var none ledger.Finished
		return none, domain.E(domain.StorageFull, errFull, "the disk is full")
	}
	return s.Store.FinishTurn(ctx, t, f)
}
