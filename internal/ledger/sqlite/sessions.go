package sqlite

import (
	"context"
	"crypto/rand"
	"fmt"
	"slices"
	"time"

	"hermes/internal/domain"
	"hermes/internal/ledger"
)

const sessionColumns = `n, id, key, source, title, model, created_at, updated_at, ended_at, end_reason, parent,
	message_count, calls, input_tokens, output_tokens, cached_tokens`

// sessionRow is a session with its number.
type sessionRow struct {
	domain.Session
	n int64
}

func sessionRows(c *conn, where string, args ...any) (out []sessionRow, err error) {
	err = c.each(`SELECT `+sessionColumns+` FROM session `+where, args, func(r row) error {
		var s sessionRow
		err := r.scan(&s.n, &s.ID, &s.Key, asJSON{&s.Source}, &s.Title, &s.Model, &s.CreatedAt, &s.UpdatedAt, &s.EndedAt, &s.EndReason, &s.Parent,
			&s.MessageCount, &s.Usage.Calls, &s.Usage.InputTokens, &s.Usage.OutputTokens, &s.Usage.CachedTokens)
		out = append(out, s)
		return err
	})
	return out, err
}

func sessionByNumber(c *conn, n int64) (sessionRow, error) {
	rows, err := sessionRows(c, `WHERE n = ?`, n)
	if err == nil && len(rows) == 0 {
		err = domain.E(domain.NotFound, nil, "the session of this turn was deleted; it cannot go on")
	}
	if err != nil {
		return sessionRow{}, err
	}
	return rows[0], nil
}

func sessionNumber(c *conn, id domain.SessionID) (n int64, found bool, err error) {
	found, err = c.one(`SELECT n FROM session WHERE id = ?`, []any{id}, &n)
	return n, found, err
}

func currentSession(c *conn, key domain.SessionKey) (n int64, found bool, err error) {
	found, err = c.one(`SELECT n FROM session WHERE key = ? AND current = 1`, []any{key}, &n)
	return n, found, err
}

// newSessionID gives YYYYMMDD_HHMMSS_<8 hex>.
func newSessionID(now time.Time) domain.SessionID {
	var b [4]byte
	rand.Read(b[:]) // never fails
	return domain.SessionID(fmt.Sprintf("%s_%x", now.UTC().Format("20060102_150405"), b))
}

// createSession makes a session; id "" gives it a new one.
func createSession(c *conn, id domain.SessionID, key domain.SessionKey, current bool, src domain.Source, now time.Time) (int64, domain.Session, error) {
	if id == "" {
		id = newSessionID(now)
	}
	s := domain.Session{ID: id, Key: key, Source: src, CreatedAt: toMillis(now), UpdatedAt: toMillis(now)}
	source, err := encode(src)
	if err != nil {
		return 0, s, err
	}
	n, err := c.insert(`INSERT INTO session (id, key, current, platform, source, created_at, updated_at) VALUES (?, ?, ?, ?, ?, ?, ?)`,
		id, key, current, src.Platform, source, now, now)
	return n, s, err
}

// fixedSession finds the named session or makes it. It does not become the
// key's session: it was asked for by name.
func fixedSession(c *conn, id domain.SessionID, key domain.SessionKey, src domain.Source, now time.Time) (n int64, isNew bool, err error) {
	n, found, err := sessionNumber(c, id)
	if err != nil || found {
		return n, false, err
	}
	n, _, err = createSession(c, id, key, false, src, now)
	return n, true, err
}

func endSession(c *conn, key domain.SessionKey, reason string, now time.Time) error {
	_, err := c.exec(`UPDATE session SET current = 0, ended_at = ?, end_reason = ? WHERE key = ? AND current = 1`, now, reason, key)
	return err
}

func addToSession(c *conn, n int64, messages int, u domain.Usage, now time.Time) error {
	_, err := c.exec(`UPDATE session SET updated_at = ?, message_count = message_count + ?, calls = calls + ?,
		input_tokens = input_tokens + ?, output_tokens = output_tokens + ?, cached_tokens = cached_tokens + ? WHERE n = ?`,
		now, messages, u.Calls, u.InputTokens, u.OutputTokens, u.CachedTokens, n)
	return err
}

func editSession(c *conn, n int64, title, model *string) error {
	if title != nil {
		if _, err := c.exec(`UPDATE session SET title = ? WHERE n = ?`, *title, n); err != nil {
			return err
		}
	}
	if model != nil {
		if _, err := c.exec(`UPDATE session SET model = ? WHERE n = ?`, *model, n); err != nil {
			return err
		}
	}
	return nil
}

// messageBody is the part of a message that no query looks at.
type messageBody struct {
	Reasoning  string              `json:"reasoning,omitempty"`
	Images     []domain.Attachment `json:"images,omitempty"`
	ToolCalls  []domain.ToolCall   `json:"tool_calls,omitempty"`
	ToolCallID string              `json:"tool_call_id,omitempty"`
	ToolName   string              `json:"tool_name,omitempty"`
}

// newMessage is a message to be stored, with everything encoded.
type newMessage struct {
	domain.Message
	body []byte // nil for plain text, which is the common case
}

func prepareMessages(ms []domain.Message) ([]newMessage, error) {
	out := make([]newMessage, len(ms))
	for i, m := range ms {
		out[i].Message = m
		if m.Reasoning == "" && len(m.Images) == 0 && len(m.ToolCalls) == 0 && m.ToolCallID == "" && m.ToolName == "" {
			continue
		}
		var err error
		if out[i].body, err = encode(messageBody{m.Reasoning, m.Images, m.ToolCalls, m.ToolCallID, m.ToolName}); err != nil {
			return nil, err
		}
	}
	return out, nil
}

func insertMessages(c *conn, session int64, ms []newMessage, now time.Time) error {
	for _, m := range ms {
		at := m.At
		if at.IsZero() {
			at = now
		}
		if _, err := c.exec(`INSERT INTO message (session, role, content, body, at) VALUES (?, ?, ?, ?, ?)`, session, m.Role, m.Content, m.body, at); err != nil {
			return err
		}
	}
	return nil
}

// storedMessage is a message with the id that it stands in for, 0 for an
// ordinary one.
type storedMessage struct {
	domain.Message
	place int64
}

const messageColumns = `message.id, message.role, message.content, message.body, message.at, message.place`

func scanMessage(r row) (m storedMessage, err error) {
	var b messageBody
	err = r.scan(&m.ID, &m.Role, &m.Content, asJSON{&b}, &m.At, &m.place)
	m.Reasoning, m.Images, m.ToolCalls, m.ToolCallID, m.ToolName = b.Reasoning, b.Images, b.ToolCalls, b.ToolCallID, b.ToolName
	return m, err
}

// activeMessages is the transcript as the model sees it, summaries where what
// they replaced had been.
func activeMessages(c *conn, session int64) (out []storedMessage, err error) {
	err = c.each(`SELECT `+messageColumns+` FROM message WHERE session = ? AND status = 1 ORDER BY id`, []any{session}, func(r row) error {
		m, err := scanMessage(r)
		out = append(out, m)
		return err
	})
	slices.SortStableFunc(out, func(a, b storedMessage) int { return int(a.position() - b.position()) })
	return out, err
}

func (m storedMessage) position() int64 {
	if m.place != 0 {
		return m.place
	}
	return m.ID
}

// Session reads one.
func (s *Store) Session(ctx context.Context, id domain.SessionID) (domain.Session, error) {
	return s.oneSession(ctx, notFound("session", id), `WHERE id = ?`, id)
}

// CurrentSession is the key's session.
func (s *Store) CurrentSession(ctx context.Context, key domain.SessionKey) (domain.Session, error) {
	return s.oneSession(ctx, notFound("session of", key), `WHERE key = ? AND current = 1`, key)
}

func (s *Store) oneSession(ctx context.Context, missing error, where string, args ...any) (out domain.Session, err error) {
	err = s.read(ctx, func(c *conn) error {
		rows, err := sessionRows(c, where, args...)
		if err == nil && len(rows) == 0 {
			err = missing
		}
		if err == nil {
			out = rows[0].Session
		}
		return err
	})
	return out, err
}

// ListSessions lists, most recently used first.
func (s *Store) ListSessions(ctx context.Context, f ledger.SessionFilter) (out []domain.Session, err error) {
	limit := f.Limit
	if limit <= 0 {
		limit = 50
	}
	where, args := `WHERE 1`, []any{}
	if f.Key != "" {
		where, args = where+` AND key = ?`, append(args, f.Key)
	}
	if f.Source != "" {
		where, args = where+` AND platform = ?`, append(args, f.Source)
	}
	err = s.read(ctx, func(c *conn) error {
		rows, err := sessionRows(c, where+` ORDER BY updated_at DESC, n DESC LIMIT ? OFFSET ?`, append(args, limit, f.Offset)...)
		for _, r := range rows {
			out = append(out, r.Session)
		}
		return err
	})
	return out, err
}

// History is the active transcript.
func (s *Store) History(ctx context.Context, id domain.SessionID) (out []domain.Message, err error) {
	err = s.readAll(ctx, func(c *conn) error {
		n, found, err := sessionNumber(c, id)
		if err != nil || !found {
			return err
		}
		ms, err := activeMessages(c, n)
		for _, m := range ms {
			out = append(out, m.Message)
		}
		return err
	})
	return out, err
}

// Compress replaces the beginning of a transcript by a summary.
func (s *Store) Compress(ctx context.Context, id domain.SessionID, upTo int64, summary domain.Message) error {
	ms, err := prepareMessages([]domain.Message{summary})
	if err != nil {
		return err
	}
	err = writeOnly(ctx, s, ordinary, func(c *conn) error {
		n, found, err := sessionNumber(c, id)
		if err != nil {
			return err
		}
		if !found {
			return notFound("session", id)
		}
		var place int64
		found, err = c.one(`SELECT coalesce(place, id) FROM message WHERE id = ? AND session = ? AND status = 1`, []any{upTo, n}, &place)
		if err != nil {
			return err
		}
		if !found {
			return domain.E(domain.NotFound, nil, "session %s has no active message %d to be compressed up to", id, upTo)
		}
		replaced, err := c.exec(`UPDATE message SET status = 2 WHERE session = ? AND status = 1 AND coalesce(place, id) <= ?`, n, place)
		if err != nil {
			return err
		}
		now := s.now()
		if err := insertMessages(c, n, ms, now); err != nil {
			return err
		}
		if _, err := c.exec(`UPDATE message SET place = ? WHERE id = last_insert_rowid()`, place); err != nil {
			return err
		}
		_, err = c.exec(`UPDATE session SET message_count = message_count - ? + 1 WHERE n = ?`, replaced, n)
		return err
	})
	if err == nil {
		s.indexer.wake()
	}
	return err
}

// EditSession changes title and model.
func (s *Store) EditSession(ctx context.Context, id domain.SessionID, title, model *string) error {
	return writeOnly(ctx, s, ordinary, func(c *conn) error {
		n, found, err := sessionNumber(c, id)
		if err == nil && !found {
			err = notFound("session", id)
		}
		if err != nil {
			return err
		}
		return editSession(c, n, title, model)
	})
}

// DeleteSession removes a session, its messages and their words.
func (s *Store) DeleteSession(ctx context.Context, id domain.SessionID) error {
	return writeOnly(ctx, s, essential, func(c *conn) error {
		n, found, err := sessionNumber(c, id)
		if err == nil && !found {
			err = notFound("session", id)
		}
		if err != nil {
			return err
		}
		open, err := c.one(`SELECT 1 FROM turn INDEXED BY turn_open WHERE ended_at IS NULL AND session = ?`, []any{n}, new(int64))
		if err != nil {
			return err
		}
		if open {
			return domain.E(domain.Conflict, nil, "session %s has a turn that has not ended; stop it first", id)
		}
		return deleteSession(c, n, id)
	})
}

// deleteSession removes a session that has no open turn.
func deleteSession(c *conn, n int64, id domain.SessionID) error {
	if err := unindexSession(c, n); err != nil {
		return err
	}
	for _, q := range []string{
		`DELETE FROM message WHERE session = ?1`,
		`DELETE FROM step WHERE turn_id IN (SELECT id FROM turn WHERE session = ?1)`,
		`UPDATE turn SET session = NULL, input = '[]' WHERE session = ?1`,
		`DELETE FROM session WHERE n = ?1`,
	} {
		if _, err := c.exec(q, n); err != nil {
			return err
		}
	}
	_, err := c.exec(`DELETE FROM permission WHERE session = ?`, id)
	return err
}
