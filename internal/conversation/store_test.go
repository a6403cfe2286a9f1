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
