package ledger

import (
	"context"
	"time"

	"hermes/internal/domain"
)

// MovedSession is a session that another system kept. Its MessageCount is
// ignored: the messages come by MoveIn.Messages.
type MovedSession struct {
	domain.Session
	// Current asks for it to be the key's session; a key that has one keeps it.
	Current bool
}

// MovedMessage is a message of such a session.
type MovedMessage struct {
	Session domain.SessionID
	Message domain.Message // ID is ignored
	// Hidden keeps it out of what the model sees: Undone for one that was taken
	// back, Summed for one that a summary replaced and that stays searchable.
	Hidden Hidden
}

// Hidden says why a message is not part of the active transcript.
type Hidden int

// The reasons.
const (
	Active Hidden = iota
	Undone
	Summed
)

// MovedState is what the ledger remembers of a session that it took in.
type MovedState struct {
	Session  domain.SessionID `json:"-"`
	Origin   string           `json:"origin"`   // the store that it came from
	Messages int              `json:"messages"` // that were taken, hidden ones included
	Last     int64            `json:"last"`     // the id here of the last of them
}

// MovedCount tells what became of a batch of messages.
type MovedCount struct {
	Taken int
	// WentOn counts those of sessions that were continued here since, Unknown
	// those of sessions that did not come from the origin, or were deleted here.
	WentOn, Unknown int
}

// MoveIn takes over what another system kept. An origin names one store of that
// system. Each verb may be called again with what was given before, after a
// crash as well: nothing is taken twice.
type MoveIn interface {
	// MoveSessions adds sessions; one whose id is there is left alone. taken
	// counts those that are there because of this origin, now or before.
	MoveSessions(ctx context.Context, origin string, list []MovedSession) (taken int, err error)
	// MoveMessages appends messages, in the order in which they were written,
	// and remembers with them that the origin is read up to upTo, a number that
	// only rises. domain.Conflict when it was read that far before.
	MoveMessages(ctx context.Context, origin string, upTo int64, list []MovedMessage) (MovedCount, error)
	// MovedUpTo tells how far an origin was read; 0 at first.
	MovedUpTo(ctx context.Context, origin string) (int64, error)
	// MovedSessions lists what was taken in, by session id, from after on.
	MovedSessions(ctx context.Context, after domain.SessionID, limit int) ([]MovedState, error)
	// UndoMove removes a session that was taken in, and forgets that it was.
	// domain.NotFound when it was not; domain.Conflict when it was continued
	// here, and it stays.
	UndoMove(ctx context.Context, id domain.SessionID) error
	// ForgetOrigin forgets how far an origin was read.
	ForgetOrigin(ctx context.Context, origin string) error
}

// Waiting counts what a store had accepted and not ended: what is settled when
// a copy of it is put back.
type Waiting struct {
	Deliveries int       `json:"deliveries"`
	Turns      int       `json:"turns"`
	Events     int       `json:"events"`
	Runs       int       `json:"runs"`
	Jobs       int       `json:"jobs_due"` // whose instant has passed
	At         time.Time `json:"at"`
}
