package sqlite

import (
	"context"
	"time"

	"hermes/internal/domain"
	"hermes/internal/ledger"
)

func steps(c *conn, turn int64) (out []domain.Step, err error) {
	err = c.each(`SELECT seq, kind, call_id, tool, message, usage, at FROM step WHERE turn_id = ? ORDER BY seq`, []any{turn}, func(r row) error {
		var st domain.Step
		err := r.scan(&st.Seq, &st.Kind, &st.CallID, &st.Tool, asJSON{&st.Message}, asJSON{&st.Usage}, &st.At)
		out = append(out, st)
		return err
	})
	return out, err
}

// insertStep appends to the journal. now stands in for a missing time.
func insertStep(c *conn, turn int64, st domain.Step, message []byte, now time.Time) (seq int, err error) {
	at := st.At
	if at.IsZero() {
		at = now
	}
	_, err = c.one(`INSERT INTO step (turn_id, seq, kind, call_id, tool, message, usage, at)
		VALUES (?1, (SELECT coalesce(max(seq), 0) + 1 FROM step WHERE turn_id = ?1), ?2, ?3, ?4, ?5, ?6, ?7) RETURNING seq`,
		[]any{turn, st.Kind, st.CallID, st.Tool, message, encodeUsage(st.Usage), at}, &seq)
	return seq, err
}

// AppendStep adds to the journal of a running turn.
func (s *Store) AppendStep(ctx context.Context, t ledger.TurnRef, st domain.Step) (int, error) {
	message, err := encode(st.Message)
	if err != nil {
		return 0, err
	}
	return write(ctx, s, ordinary, func(c *conn) (int, error) {
		if err := s.checkHeld(c, t); err != nil {
			return 0, err
		}
		return insertStep(c, t.ID, st, message, s.now())
	})
}

// JoinTurn gives a received event to a running turn.
func (s *Store) JoinTurn(ctx context.Context, t ledger.TurnRef, inbound int64, st domain.Step) error {
	message, err := encode(st.Message)
	if err != nil {
		return err
	}
	return writeOnly(ctx, s, ordinary, func(c *conn) error {
		if err := s.updateHeld(c, t, `inbound_id = ?`, inbound); err != nil {
			return err
		}
		n, err := c.exec(`UPDATE inbound SET state = 'claimed', turn_id = ? WHERE id = ? AND state = 'received'`, t.ID, inbound)
		if err != nil {
			return err
		}
		if n == 0 {
			return domain.E(domain.Conflict, nil, "event %d is answered elsewhere already; it was not given to turn %d", inbound, t.ID)
		}
		_, err = insertStep(c, t.ID, st, message, s.now())
		return err
	})
}

// SetPreview records the id of the streamed preview.
func (s *Store) SetPreview(ctx context.Context, t ledger.TurnRef, messageID string) error {
	return writeOnly(ctx, s, ordinary, func(c *conn) error {
		return s.updateHeld(c, t, `preview = ?`, messageID)
	})
}

// SuspendTurn makes a running turn wait for an answer.
func (s *Store) SuspendTurn(ctx context.Context, t ledger.TurnRef, q domain.Question, ask []domain.NewDelivery) (domain.Question, []int64, error) {
	type result struct {
		q   domain.Question
		ids []int64
	}
	choices, err := encode(q.Choices)
	if err != nil {
		return domain.Question{}, nil, err
	}
	deliveries, err := prepareDeliveries(ask)
	if err != nil {
		return domain.Question{}, nil, err
	}
	res, err := write(ctx, s, essential, func(c *conn) (result, error) {
		q := q
		now := s.now()
		if err := s.updateHeld(c, t, `state = 'waiting', process = NULL`); err != nil {
			return result{}, err
		}
		rows, err := turnRows(c, `WHERE t.id = ?`, t.ID)
		if err != nil {
			return result{}, err
		}
		turn := rows[0]
		q.TurnID, q.SessionKey, q.Answer, q.AnsweredAt = t.ID, turn.SessionKey, "", time.Time{}
		if q.AskedAt.IsZero() {
			q.AskedAt = now
		}
		q.AskedAt, q.ExpiresAt = toMillis(q.AskedAt), toMillis(q.ExpiresAt)
		q.ID, err = c.insert(`INSERT INTO question (turn_id, session_key, session, kind, call_id, text, detail, grant_key, choices, asked_at, expires_at)
			VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`, q.TurnID, q.SessionKey, turn.SessionID, q.Kind, q.CallID, q.Text, q.Detail, q.Key, choices, q.AskedAt, q.ExpiresAt)
		if err != nil {
			return result{}, err
		}
		ids, err := insertDeliveries(c, deliveries, origin{turn: t.ID, run: turn.runID}, now)
		return result{q, ids}, err
	})
	return res.q, res.ids, err
}

// FinishTurn ends a running turn with all that it leaves.
func (s *Store) FinishTurn(ctx context.Context, t ledger.TurnRef, f ledger.Finish) (ledger.Finished, error) {
	switch f.State {
	case domain.TurnDone, domain.TurnFailed, domain.TurnInterrupted:
	default:
		return ledger.Finished{}, domain.E(domain.Invalid, nil, "a turn ends as done, failed or interrupted, not as %q", f.State)
	}
	messages, err := prepareMessages(f.Messages)
	if err != nil {
		return ledger.Finished{}, err
	}
	deliveries, err := prepareDeliveries(f.Deliveries)
	if err != nil {
		return ledger.Finished{}, err
	}
	out, err := write(ctx, s, essential, func(c *conn) (out ledger.Finished, err error) {
		var session, inbound, run int64
		found, err := c.one(`UPDATE turn SET state = ?, error = ?, usage = ?, ended_at = ?, process = NULL`+held+` RETURNING session, inbound_id, run_id`,
			[]any{f.State, f.Error, encodeUsage(f.Usage), f.Now, t.ID, t.Fence, s.self.ID}, &session, &inbound, &run)
		if err != nil {
			return out, err
		}
		if !found {
			return out, fenced("turn", t.ID)
		}
		if inbound != 0 {
			if _, err := c.exec(`UPDATE inbound SET state = 'done', ended_at = ? WHERE turn_id = ? AND state = 'claimed'`, f.Now, t.ID); err != nil {
				return out, err
			}
		}
		if err := insertMessages(c, session, messages, f.Now); err != nil {
			return out, err
		}
		if err := addToSession(c, session, len(messages), f.Usage, f.Now); err != nil {
			return out, err
		}
		if f.Run != nil {
			if err := s.endRun(c, *f.Run, f.Now); err != nil {
				return out, err
			}
		}
		out.Deliveries, err = insertDeliveries(c, deliveries, origin{turn: t.ID, inbound: inbound, run: run}, f.Now)
		return out, err
	})
	if err == nil && len(messages) > 0 {
		s.indexer.wake()
	}
	return out, err
}
