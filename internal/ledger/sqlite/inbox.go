package sqlite

import (
	"context"
	"fmt"
	"time"

	"hermes/internal/domain"
	"hermes/internal/ledger"
)

// inboundBody is the part of an event that no query looks at.
type inboundBody struct {
	ChatType    domain.ChatType     `json:"chat_type,omitempty"`
	ChatName    string              `json:"chat_name,omitempty"`
	UserID      string              `json:"user_id,omitempty"`
	UserName    string              `json:"user_name,omitempty"`
	MessageID   string              `json:"message_id,omitempty"`
	Attachments []domain.Attachment `json:"attachments,omitempty"`
	Button      bool                `json:"button,omitempty"`
	Mentioned   bool                `json:"mentioned,omitempty"`
}

const inboundColumns = `id, platform, account, event_id, chat_id, thread_id, session_key, state, text, reply_text, body, sent_at, received_at`

func scanInbound(r row) (domain.Inbound, error) {
	var in domain.Inbound
	var b inboundBody
	err := r.scan(&in.ID, &in.Platform, &in.Account, &in.EventID, &in.ChatID, &in.ThreadID, &in.SessionKey,
		&in.State, &in.Text, &in.ReplyText, asJSON{&b}, &in.SentAt, &in.ReceivedAt)
	in.ChatType, in.ChatName, in.UserID, in.UserName, in.MessageID = b.ChatType, b.ChatName, b.UserID, b.UserName, b.MessageID
	in.Attachments, in.Button, in.Mentioned = b.Attachments, b.Button, b.Mentioned
	return in, err
}

func inbounds(c *conn, where string, args ...any) (out []domain.Inbound, err error) {
	err = c.each(`SELECT `+inboundColumns+` FROM inbound WHERE `+where, args, func(r row) error {
		in, err := scanInbound(r)
		out = append(out, in)
		return err
	})
	return out, err
}

// AcceptInbound commits a batch and the cursor. It may use the reserve of a
// full disk no more than anything else: an event that is not committed is not
// acknowledged, and its platform brings it again.
func (s *Store) AcceptInbound(ctx context.Context, b ledger.Batch) ([]ledger.Accepted, error) {
	rows := make([]newInbound, len(b.Events))
	for i, e := range b.Events {
		var err error
		if rows[i], err = prepareInbound(e); err != nil {
			return nil, err
		}
	}
	return write(ctx, s, ordinary, func(c *conn) ([]ledger.Accepted, error) {
		now := s.now()
		out := make([]ledger.Accepted, len(rows))
		for i, n := range rows {
			var err error
			if out[i], err = n.insert(c, now); err != nil {
				return nil, err
			}
		}
		if b.Cursor == "" {
			return out, nil
		}
		_, err := c.exec(`INSERT INTO position (platform, account, value) VALUES (?, ?, ?)
			ON CONFLICT (platform, account) DO UPDATE SET value = excluded.value`, b.Platform, b.Account, b.Cursor)
		return out, err
	})
}

// newInbound is an event with everything encoded.
type newInbound struct {
	ledger.Event
	body    []byte
	replies []newDelivery
}

func prepareInbound(e ledger.Event) (newInbound, error) {
	in := e.Inbound
	if in.State == "" {
		in.State = domain.InboundReceived
	}
	if in.State != domain.InboundReceived && in.State != domain.InboundRefused && in.State != domain.InboundDone {
		return newInbound{}, domain.E(domain.Invalid, nil, "an event can be accepted as received, refused or done, not as %q", in.State)
	}
	e.Inbound = in
	n := newInbound{Event: e}
	var err error
	n.body, err = encode(inboundBody{in.ChatType, in.ChatName, in.UserID, in.UserName, in.MessageID, in.Attachments, in.Button, in.Mentioned})
	if err != nil {
		return n, err
	}
	n.replies, err = prepareDeliveries(e.Replies)
	return n, err
}

func (n newInbound) insert(c *conn, now time.Time) (ledger.Accepted, error) {
	in := n.Inbound
	received, ended := in.ReceivedAt, time.Time{}
	if received.IsZero() {
		received = now
	}
	if in.State != domain.InboundReceived {
		ended = now
	}
	var acc ledger.Accepted
	stored, err := c.one(`INSERT INTO inbound (platform, account, event_id, chat_id, thread_id, session_key, state, command,
		text, reply_text, body, sent_at, received_at, ended_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
		ON CONFLICT (platform, account, event_id) DO NOTHING RETURNING id`,
		[]any{in.Platform, in.Account, in.EventID, in.ChatID, in.ThreadID, in.SessionKey, in.State, in.IsCommand() || in.Button,
			in.Text, in.ReplyText, n.body, in.SentAt, received, ended}, &acc.ID)
	if err != nil {
		return acc, err
	}
	if !stored {
		acc.Duplicate = true
		_, err := c.one(`SELECT id FROM inbound WHERE platform = ? AND account = ? AND event_id = ?`,
			[]any{in.Platform, in.Account, in.EventID}, &acc.ID)
		return acc, err
	}
	if n.Pairing != nil {
		if err := putPairing(c, *n.Pairing); err != nil {
			return acc, err
		}
	}
	acc.Replies, err = insertDeliveries(c, n.replies, origin{inbound: acc.ID}, now)
	return acc, err
}

// Cursor is the stored position of a platform's account.
func (s *Store) Cursor(ctx context.Context, platform domain.Platform, account string) (cursor string, err error) {
	err = s.read(ctx, func(c *conn) error {
		_, err := c.one(`SELECT value FROM position WHERE platform = ? AND account = ?`, []any{platform, account}, &cursor)
		return err
	})
	return cursor, err
}

// Inbound reads one event.
func (s *Store) Inbound(ctx context.Context, id int64) (in domain.Inbound, err error) {
	err = s.read(ctx, func(c *conn) error {
		found, err := inbounds(c, `id = ?`, id)
		if err != nil {
			return err
		}
		if len(found) == 0 {
			return notFound("event", id)
		}
		in = found[0]
		return nil
	})
	return in, err
}

// ReceivedCommands lists the commands and pressed buttons that wait.
func (s *Store) ReceivedCommands(ctx context.Context, key domain.SessionKey) (out []domain.Inbound, err error) {
	err = s.read(ctx, func(c *conn) (err error) {
		out, err = inbounds(c, `session_key = ? AND state = 'received' AND command = 1 ORDER BY id`, key)
		return err
	})
	return out, err
}

// Received lists the messages that wait.
func (s *Store) Received(ctx context.Context, key domain.SessionKey) (out []domain.Inbound, err error) {
	err = s.read(ctx, func(c *conn) (err error) {
		out, err = inbounds(c, `session_key = ? AND state = 'received' AND command = 0 ORDER BY id`, key)
		return err
	})
	return out, err
}

const activeKeysQuery = `SELECT session_key FROM inbound INDEXED BY inbound_received WHERE state = 'received'
	UNION SELECT session_key FROM turn INDEXED BY turn_open WHERE ended_at IS NULL AND state = 'queued'`

// ActiveKeys lists the sessions that have something to do. An answered
// question has queued its turn again, so waiting turns need no look.
func (s *Store) ActiveKeys(ctx context.Context) (keys []domain.SessionKey, err error) {
	err = s.read(ctx, func(c *conn) error {
		return c.each(activeKeysQuery, nil, func(r row) error {
			var k domain.SessionKey
			err := r.scan(&k)
			keys = append(keys, k)
			return err
		})
	})
	return keys, err
}

// FinishCommand ends a received command with its effects.
func (s *Store) FinishCommand(ctx context.Context, inbound int64, now time.Time, e ledger.Effects) (ledger.Applied, error) {
	p, err := prepareEffects(e)
	if err != nil {
		return ledger.Applied{}, err
	}
	return write(ctx, s, essential, func(c *conn) (ledger.Applied, error) {
		n, err := c.exec(`UPDATE inbound SET state = 'done', ended_at = ? WHERE id = ? AND state = 'received'`, now, inbound)
		if err != nil {
			return ledger.Applied{}, err
		}
		if n == 0 {
			found, err := c.one(`SELECT 1 FROM inbound WHERE id = ?`, []any{inbound}, new(int64))
			if err == nil && !found {
				err = notFound("event", inbound)
			} else if err == nil {
				err = domain.E(domain.Conflict, nil, "event %d was finished before, and its effects stand; nothing was done again", inbound)
			}
			return ledger.Applied{}, err
		}
		return p.apply(c, inbound, now)
	})
}

// effects are ledger.Effects with everything encoded.
type effects struct {
	ledger.Effects
	turn       newTurn
	deliveries []newDelivery
}

func prepareEffects(e ledger.Effects) (p effects, err error) {
	p.Effects = e
	if e.Queue != nil {
		if p.turn, err = prepareTurn(*e.Queue); err != nil {
			return p, err
		}
	}
	p.deliveries, err = prepareDeliveries(e.Deliveries)
	return p, err
}

// apply changes what the command changes, in the order of ledger.Effects.
func (e effects) apply(c *conn, inbound int64, now time.Time) (out ledger.Applied, err error) {
	steps := []func() error{
		func() error { return e.endSession(c, now) },
		func() error { return e.resume(c, now) },
		func() error { out.Undone, err = e.undo(c, now); return err },
		func() error { return e.edit(c, now) },
		func() error {
			if e.Answer == nil {
				return nil
			}
			_, err := answerQuestion(c, *e.Answer, now)
			return err
		},
		func() error {
			if e.Queue == nil {
				return nil
			}
			out.TurnID, err = e.turn.insert(c, now)
			return err
		},
		func() error { out.Dropped, err = e.dropQueued(c, out.TurnID, now); return err },
		func() error {
			out.Deliveries, err = insertDeliveries(c, e.deliveries, origin{inbound: inbound}, now)
			return err
		},
	}
	for _, step := range steps {
		if err := step(); err != nil {
			return ledger.Applied{}, err
		}
	}
	return out, nil
}

func (e effects) endSession(c *conn, now time.Time) error {
	if e.EndSession == "" {
		return nil
	}
	return endSession(c, e.Key, e.EndSession, now)
}

func (e effects) resume(c *conn, now time.Time) error {
	if e.Resume == "" {
		return nil
	}
	n, found, err := sessionNumber(c, e.Resume)
	if err != nil {
		return err
	}
	if !found {
		return notFound("session", e.Resume)
	}
	// The key's session, where it is another one, makes room.
	if _, err := c.exec(`UPDATE session SET current = 0, ended_at = ?, end_reason = 'resume' WHERE key = ? AND current = 1 AND n <> ?`, now, e.Key, n); err != nil {
		return err
	}
	_, err = c.exec(`UPDATE session SET key = ?, current = 1, ended_at = NULL, end_reason = '', updated_at = ? WHERE n = ?`, e.Key, now, n)
	return err
}

// undo takes back the last e.Undo user messages of the key's session with all
// that follows. A summary is no message of the user and stays.
func (e effects) undo(c *conn, now time.Time) ([]domain.Message, error) {
	if e.Undo <= 0 {
		return nil, nil
	}
	n, found, err := currentSession(c, e.Key)
	if err != nil || !found {
		return nil, err
	}
	history, err := activeMessages(c, n)
	if err != nil {
		return nil, err
	}
	from, left := len(history), e.Undo
	for i := len(history) - 1; i >= 0 && left > 0 && history[i].place == 0; i-- {
		if from = i; history[i].Role == domain.RoleUser {
			left--
		}
	}
	out := make([]domain.Message, 0, len(history)-from)
	for _, m := range history[from:] {
		if _, err := c.exec(`UPDATE message SET status = 0 WHERE id = ?`, m.ID); err != nil {
			return nil, err
		}
		out = append(out, m.Message)
	}
	_, err = c.exec(`UPDATE session SET message_count = message_count - ?, updated_at = ? WHERE n = ?`, len(out), now, n)
	return out, err
}

func (e effects) edit(c *conn, now time.Time) error {
	if e.Title == nil && e.Model == nil {
		return nil
	}
	n, found, err := currentSession(c, e.Key)
	if err != nil {
		return err
	}
	if !found {
		// A model chosen before the first message must hold for it.
		if n, _, err = createSession(c, "", e.Key, true, domain.Source{}, now); err != nil {
			return err
		}
	}
	return editSession(c, n, e.Title, e.Model)
}

// dropQueued ends what waits behind the command, but for the turn that the
// same command has queued.
func (e effects) dropQueued(c *conn, keep int64, now time.Time) (int, error) {
	if !e.DropQueued {
		return 0, nil
	}
	n, err := c.exec(`UPDATE inbound SET state = 'done', ended_at = ? WHERE session_key = ? AND state = 'received'`, now, e.Key)
	if err != nil {
		return 0, err
	}
	turns, err := c.ids(`SELECT id FROM turn WHERE session_key = ? AND ended_at IS NULL AND state = 'queued' AND id <> ?`, e.Key, keep)
	if err != nil {
		return 0, err
	}
	for _, id := range turns {
		if err := interruptTurn(c, id, "dropped by a command", now); err != nil {
			return 0, err
		}
	}
	return int(n) + len(turns), nil
}

// quoted puts the message that was answered in front, as people do.
func quoted(in domain.Inbound) string {
	if in.ReplyText == "" {
		return in.Text
	}
	var b []byte
	for line := range splitLines(in.ReplyText) {
		b = fmt.Appendf(b, "> %s\n", line)
	}
	return string(b) + "\n" + in.Text
}
