package sqlite

import (
	"context"
	"time"

	"hermes/internal/domain"
	"hermes/internal/ledger"
)

func questions(c *conn, rest string, args ...any) (out []domain.Question, err error) {
	err = c.each(`SELECT id, turn_id, session_key, kind, call_id, text, detail, grant_key, choices, answer, asked_at, expires_at, answered_at
		FROM question `+rest, args, func(r row) error {
		var q domain.Question
		err := r.scan(&q.ID, &q.TurnID, &q.SessionKey, &q.Kind, &q.CallID, &q.Text, &q.Detail, &q.Key, asJSON{&q.Choices},
			&q.Answer, &q.AskedAt, &q.ExpiresAt, &q.AnsweredAt)
		out = append(out, q)
		return err
	})
	return out, err
}

// Question reads one.
func (s *Store) Question(ctx context.Context, id int64) (q domain.Question, err error) {
	err = s.read(ctx, func(c *conn) (err error) {
		q, err = questionByID(c, id)
		return err
	})
	return q, err
}

func questionByID(c *conn, id int64) (domain.Question, error) {
	qs, err := questions(c, `WHERE id = ?`, id)
	if err == nil && len(qs) == 0 {
		err = notFound("question", id)
	}
	if err != nil {
		return domain.Question{}, err
	}
	return qs[0], nil
}

// OpenQuestions lists those that wait for an answer.
func (s *Store) OpenQuestions(ctx context.Context, key domain.SessionKey) (out []domain.Question, err error) {
	err = s.read(ctx, func(c *conn) (err error) {
		if key == "" {
			out, err = questions(c, `INDEXED BY question_open WHERE answered_at IS NULL ORDER BY id`)
		} else {
			out, err = questions(c, `WHERE session_key = ? AND answered_at IS NULL ORDER BY id`, key)
		}
		return err
	})
	return out, err
}

// AnswerQuestion answers one and queues its turn again.
func (s *Store) AnswerQuestion(ctx context.Context, a ledger.Answer, now time.Time) (domain.Question, error) {
	return write(ctx, s, essential, func(c *conn) (domain.Question, error) { return answerQuestion(c, a, now) })
}

// answerQuestion records the answer with what it allows from now on. A turn
// that no longer waits stays as it is.
func answerQuestion(c *conn, a ledger.Answer, now time.Time) (domain.Question, error) {
	q, err := questionByID(c, a.Question)
	if err != nil {
		return q, err
	}
	if !q.AnsweredAt.IsZero() {
		return q, domain.E(domain.Conflict, nil, "question %d was answered before (%s); the first answer stands", q.ID, q.Answer)
	}
	q.Answer, q.AnsweredAt = a.Text, toMillis(now)
	if _, err := c.exec(`UPDATE question SET answer = ?, answered_by = ?, answered_at = ? WHERE id = ?`, a.Text, a.By, now, q.ID); err != nil {
		return q, err
	}
	if err := permit(c, q, a, now); err != nil {
		return q, err
	}
	_, err = c.exec(`UPDATE turn SET state = 'queued', resumed = 0 WHERE id = ? AND state = 'waiting'`, q.TurnID)
	return q, err
}

// permit remembers an approval that holds for longer than once.
func permit(c *conn, q domain.Question, a ledger.Answer, now time.Time) error {
	if q.Kind != domain.AskApproval || q.Key == "" {
		return nil
	}
	var session domain.SessionID
	switch a.Text {
	case domain.ApproveAlways:
	case domain.ApproveSession:
		_, err := c.one(`SELECT session FROM question WHERE id = ?`, []any{q.ID}, &session)
		if err != nil || session == "" { // "" would mean for ever
			return err
		}
	default:
		return nil
	}
	_, err := c.exec(`INSERT INTO permission (session, key, by, at) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING`, session, q.Key, a.By, now)
	return err
}

// ExpireQuestions answers what is over its time.
func (s *Store) ExpireQuestions(ctx context.Context, now time.Time) ([]domain.Question, time.Time, error) {
	const due = `WHERE answered_at IS NULL AND expires_at IS NOT NULL AND expires_at <= ? ORDER BY expires_at`
	const nextAt = `SELECT min(expires_at) FROM question WHERE answered_at IS NULL AND expires_at IS NOT NULL`
	// Nothing is due nearly always, and then there is nothing to write.
	var next time.Time
	err := s.read(ctx, func(c *conn) error {
		_, err := c.one(nextAt, nil, &next)
		return err
	})
	if err != nil || next.IsZero() || next.After(now) {
		return nil, next, err
	}
	type result struct {
		expired []domain.Question
		next    time.Time
	}
	res, err := write(ctx, s, essential, func(c *conn) (res result, err error) {
		if res.expired, err = questions(c, due, now); err != nil {
			return res, err
		}
		for i, q := range res.expired {
			if res.expired[i], err = answerQuestion(c, ledger.Answer{Question: q.ID, Text: domain.AnswerExpired}, now); err != nil {
				return res, err
			}
		}
		_, err = c.one(nextAt, nil, &res.next)
		return res, err
	})
	return res.expired, res.next, err
}

// Granted tells whether a key was allowed for the session or for ever.
func (s *Store) Granted(ctx context.Context, session domain.SessionID, key string) (ok bool, err error) {
	err = s.read(ctx, func(c *conn) (err error) {
		ok, err = c.one(`SELECT 1 FROM permission WHERE key = ?1 AND session IN ('', ?2)`, []any{key, session}, new(int64))
		return err
	})
	return ok, err
}
