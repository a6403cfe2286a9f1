package delivery

import (
	"context"
	"encoding/json"
	"slices"

	"hermes/internal/domain"
	"hermes/internal/ledger"
)

// Dropped is the reason of a message that the operator gave up, which is no
// fault.
const Dropped = "dropped by the operator"

const (
	deadNote = "delivery.dead_seen" // the note with the ids that were acknowledged
	maxDead  = 1000                 // dead messages that are looked at, newest first
)

// DeadStore is the part of the ledger that knows what was given up.
type DeadStore interface {
	Deliveries(ctx context.Context, f ledger.DeliveryFilter) ([]domain.Delivery, error)
	Note(ctx context.Context, key string) (string, error)
	SetNote(ctx context.Context, key, value string) error
}

// UnseenDead gives the messages that were given up and that nobody has
// acknowledged, newest first, at most 1000. Those are a fault that status
// shows; errors are the store's.
func UnseenDead(ctx context.Context, s DeadStore) ([]domain.Delivery, error) {
	list, err := s.Deliveries(ctx, ledger.DeliveryFilter{States: []domain.DeliveryState{domain.DeliveryDead}, Limit: maxDead})
	if err != nil || len(list) == 0 {
		return nil, err
	}
	seen, err := seenDead(ctx, s)
	return slices.DeleteFunc(list, func(d domain.Delivery) bool { return d.Reason == Dropped || slices.Contains(seen, d.ID) }), err
}

// AcknowledgeDead tells that somebody has seen what was given up so far: it
// stays dead and listed, but is no fault any more. It gives how many they were.
func AcknowledgeDead(ctx context.Context, s DeadStore) (int, error) {
	unseen, err := UnseenDead(ctx, s)
	if err != nil || len(unseen) == 0 {
		return 0, err
	}
	seen, err := seenDead(ctx, s)
	if err != nil {
		return 0, err
	}
	for _, d := range unseen {
		seen = append(seen, d.ID)
	}
	slices.Sort(seen)
	// The oldest go first: they are what the ledger forgets first, too.
	return len(unseen), setSeenDead(ctx, s, seen[max(0, len(seen)-maxDead):])
}

// ForgetSeen tells that a message is tried again, so that its next end counts
// anew.
func ForgetSeen(ctx context.Context, s DeadStore, id int64) error {
	seen, err := seenDead(ctx, s)
	if i := slices.Index(seen, id); err == nil && i >= 0 {
		err = setSeenDead(ctx, s, slices.Delete(seen, i, i+1))
	}
	return err
}

func seenDead(ctx context.Context, s DeadStore) ([]int64, error) {
	text, err := s.Note(ctx, deadNote)
	if err != nil || text == "" {
		return nil, err
	}
	var ids []int64
	if err := json.Unmarshal([]byte(text), &ids); err != nil {
		return nil, domain.E(domain.Internal, err, "the note of the acknowledged messages cannot be read")
	}
	return ids, nil
}

func setSeenDead(ctx context.Context, s DeadStore, ids []int64) error {
	text, err := json.Marshal(ids)
	if err != nil {
		return domain.E(domain.Internal, err, "the note of the acknowledged messages cannot be written")
	}
	return s.SetNote(ctx, deadNote, string(text))
}
