package sqlite

import (
	"context"
	"encoding/json"
	"strconv"
	"time"

	"hermes/internal/domain"
	"hermes/internal/ledger"
)

var _ ledger.MoveIn = (*Store)(nil)

// What was moved in is remembered in notes, in the transaction that brings it:
// one for each session, and one for each origin.
const (
	movedSession = "moved.session/"
	movedOrigin  = "moved.origin/"
)

// moveGroup bounds the sessions of one transaction.
const moveGroup = 200

func readMoved(c *conn, id domain.SessionID) (m ledger.MovedState, found bool, err error) {
	found, err = c.one(`SELECT value FROM note WHERE key = ?`, []any{movedSession + string(id)}, asJSON{&m})
	m.Session = id
	return m, found, err
}

func writeMoved(c *conn, m ledger.MovedState) error {
	text, err := json.Marshal(m)
	if err != nil {
		return err
	}
	_, err = c.exec(`INSERT INTO note (key, value) VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value`, movedSession+string(m.Session), text)
	return err
}

// MoveSessions adds sessions of another system.
func (s *Store) MoveSessions(ctx context.Context, origin string, list []ledger.MovedSession) (taken int, err error) {
	for len(list) > 0 {
		part := list[:min(len(list), moveGroup)]
		list = list[len(part):]
		n, err := write(ctx, s, ordinary, func(c *conn) (n int, err error) {
			for _, one := range part {
				ok, err := moveSession(c, origin, one)
				if err != nil {
					return 0, err
				}
				n += int(bit(ok))
			}
			return n, nil
		})
		taken += n
		if err != nil {
			return taken, err
		}
	}
	return taken, nil
}

func moveSession(c *conn, origin string, m ledger.MovedSession) (taken bool, err error) {
	n, found, err := sessionNumber(c, m.ID)
	if err != nil {
		return false, err
	}
	if found {
		before, was, err := readMoved(c, m.ID)
		if err != nil || !was || before.Origin != origin || !m.Current {
			return was && before.Origin == origin, err
		}
		return true, makeCurrent(c, n, m.Key)
	}
	source, err := encode(m.Source)
	if err != nil {
		return false, err
	}
	n, err = c.insert(`INSERT INTO session (id, key, current, platform, source, title, model, created_at, updated_at, ended_at, end_reason, parent,
		calls, input_tokens, output_tokens, cached_tokens) VALUES (?, ?, 0, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
		m.ID, m.Key, m.Source.Platform, source, m.Title, m.Model, m.CreatedAt, m.UpdatedAt, m.EndedAt, m.EndReason, m.Parent,
		m.Usage.Calls, m.Usage.InputTokens, m.Usage.OutputTokens, m.Usage.CachedTokens)
	if err != nil {
		return false, err
	}
	if m.Current {
		if err := makeCurrent(c, n, m.Key); err != nil {
			return false, err
		}
	}
	return true, writeMoved(c, ledger.MovedState{Session: m.ID, Origin: origin})
}

// makeCurrent gives the key this session unless it has one, or had one here: who
// began another since does not want the old one back.
func makeCurrent(c *conn, n int64, key domain.SessionKey) error {
	_, err := c.exec(`UPDATE session SET current = 1 WHERE n = ?1 AND NOT EXISTS (SELECT 1 FROM session WHERE key = ?2 AND current = 1)
		AND NOT EXISTS (SELECT 1 FROM turn WHERE session_key = ?2 AND session IS NOT NULL)`, n, key)
	return err
}

// MoveMessages appends messages of sessions that MoveSessions brought.
func (s *Store) MoveMessages(ctx context.Context, origin string, upTo int64, list []ledger.MovedMessage) (ledger.MovedCount, error) {
	prepared := make([]newMessage, len(list))
	for i, m := range list {
		one, err := prepareMessages([]domain.Message{m.Message})
		if err != nil {
			return ledger.MovedCount{}, err
		}
		prepared[i] = one[0]
	}
	count, err := write(ctx, s, ordinary, func(c *conn) (ledger.MovedCount, error) {
		return moveMessages(c, origin, upTo, list, prepared)
	})
	if err == nil {
		s.indexer.wake()
	}
	return count, err
}

// moving is a session while a batch is added to it.
type moving struct {
	n      int64
	state  ledger.MovedState
	refuse *int // the count of those that are not taken; nil when they are
	active int
	latest time.Time // of the messages that were added
}

func moveMessages(c *conn, origin string, upTo int64, list []ledger.MovedMessage, prepared []newMessage) (count ledger.MovedCount, err error) {
	if before, err := movedUpTo(c, origin); err != nil {
		return count, err
	} else if before >= upTo {
		return count, domain.E(domain.Conflict, nil, "another process moves the same messages in; nothing was added twice")
	}
	sessions := map[domain.SessionID]*moving{}
	for i, m := range list {
		one := sessions[m.Session]
		if one == nil {
			if one, err = startMoving(c, origin, m.Session, &count); err != nil {
				return count, err
			}
			sessions[m.Session] = one
		}
		if one.refuse != nil {
			*one.refuse++
			continue
		}
		status := [...]int{ledger.Active: 1, ledger.Undone: 0, ledger.Summed: 2}[m.Hidden]
		p := prepared[i]
		if one.state.Last, err = c.insert(`INSERT INTO message (session, status, role, content, body, at) VALUES (?, ?, ?, ?, ?, ?)`,
			one.n, status, p.Role, p.Content, p.body, p.At); err != nil {
			return count, err
		}
		one.state.Messages++
		if p.At.After(one.latest) {
			one.latest = p.At
		}
		one.active += int(bit(m.Hidden == ledger.Active))
		count.Taken++
	}
	for _, one := range sessions {
		if one.refuse != nil {
			continue
		}
		if _, err := c.exec(`UPDATE session SET message_count = message_count + ?1, updated_at = max(updated_at, coalesce(?2, 0)) WHERE n = ?3`, one.active, one.latest, one.n); err != nil {
			return count, err
		}
		if err := writeMoved(c, one.state); err != nil {
			return count, err
		}
	}
	_, err = c.exec(`INSERT INTO note (key, value) VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value`, movedOrigin+origin, strconv.FormatInt(upTo, 10))
	return count, err
}

func startMoving(c *conn, origin string, id domain.SessionID, count *ledger.MovedCount) (*moving, error) {
	m := &moving{}
	state, was, err := readMoved(c, id)
	if err != nil {
		return nil, err
	}
	n, found, err := sessionNumber(c, id)
	if err != nil {
		return nil, err
	}
	if !was || !found || state.Origin != origin {
		m.refuse = &count.Unknown
		return m, nil
	}
	m.n, m.state = n, state
	on, err := wentOn(c, n, state)
	if on {
		m.refuse = &count.WentOn
	}
	return m, err
}

// wentOn tells whether a session was continued here: it has a turn, or a message
// that was not moved in.
func wentOn(c *conn, n int64, m ledger.MovedState) (bool, error) {
	return c.one(`SELECT 1 WHERE EXISTS (SELECT 1 FROM turn WHERE session = ?1)
		OR EXISTS (SELECT 1 FROM message WHERE session = ?1 AND status = 1 AND id > ?2)`, []any{n, m.Last}, new(int64))
}

func movedUpTo(c *conn, origin string) (int64, error) {
	var text string
	found, err := c.one(`SELECT value FROM note WHERE key = ?`, []any{movedOrigin + origin}, &text)
	if err != nil || !found {
		return 0, err
	}
	return strconv.ParseInt(text, 10, 64)
}

// MovedUpTo tells how far an origin was read.
func (s *Store) MovedUpTo(ctx context.Context, origin string) (upTo int64, err error) {
	err = s.read(ctx, func(c *conn) (err error) {
		upTo, err = movedUpTo(c, origin)
		return err
	})
	return upTo, err
}

// MovedSessions lists what was taken in.
func (s *Store) MovedSessions(ctx context.Context, after domain.SessionID, limit int) (out []ledger.MovedState, err error) {
	err = s.read(ctx, func(c *conn) error {
		// "0" follows "/": the keys of this kind end before it.
		return c.each(`SELECT substr(key, ?1), value FROM note WHERE key > ?2 AND key < 'moved.session0' ORDER BY key LIMIT ?3`,
			[]any{len(movedSession) + 1, movedSession + string(after), limit}, func(r row) error {
				var m ledger.MovedState
				var id string
				err := r.scan(&id, asJSON{&m})
				m.Session = domain.SessionID(id)
				out = append(out, m)
				return err
			})
	})
	return out, err
}

// UndoMove removes a session that was taken in.
func (s *Store) UndoMove(ctx context.Context, id domain.SessionID) error {
	return writeOnly(ctx, s, essential, func(c *conn) error {
		state, was, err := readMoved(c, id)
		if err == nil && !was {
			err = domain.E(domain.NotFound, nil, "session %s was not moved in", id)
		}
		if err != nil {
			return err
		}
		n, found, err := sessionNumber(c, id)
		if err != nil {
			return err
		}
		if found {
			on, err := wentOn(c, n, state)
			if err != nil {
				return err
			}
			if on {
				return domain.E(domain.Conflict, nil, "session %s was continued since it was moved in", id)
			}
			if err := deleteSession(c, n, id); err != nil {
				return err
			}
		}
		_, err = c.exec(`DELETE FROM note WHERE key = ?`, movedSession+string(id))
		return err
	})
}

// ForgetOrigin forgets how far an origin was read.
func (s *Store) ForgetOrigin(ctx context.Context, origin string) error {
	return s.SetNote(ctx, movedOrigin+origin, "")
}
