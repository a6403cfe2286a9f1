package sqlite

import (
	"context"
	"iter"
	"strings"
	"time"

	"hermes/internal/domain"
	"hermes/internal/ledger"
)

// turnColumns are read with the session's name joined in; see turnFrom.
const (
	turnColumns = `t.id, t.kind, t.session_key, coalesce(s.id, ''), t.source, t.state, t.fence, t.attempt, t.resumed, t.input,
		t.preview, t.error, t.created_at, t.started_at, t.ended_at, t.usage, t.run_id, t.session`
	turnFrom = ` FROM turn t LEFT JOIN session s ON s.n = t.session `
)

// turnRow is a turn with what only the ledger knows.
type turnRow struct {
	domain.Turn
	runID   int64
	session int64 // 0 until it has one
}

func scanTurn(r row) (t turnRow, err error) {
	err = r.scan(&t.ID, &t.Kind, &t.SessionKey, &t.SessionID, asJSON{&t.Source}, &t.State, &t.Fence, &t.Attempt, &t.Resumed, asJSON{&t.Input},
		&t.Preview, &t.Error, &t.CreatedAt, &t.StartedAt, &t.EndedAt, asJSON{&t.Usage}, &t.runID, &t.session)
	return t, err
}

func turnRows(c *conn, where string, args ...any) (out []turnRow, err error) {
	err = c.each(`SELECT `+turnColumns+turnFrom+where, args, func(r row) error {
		t, err := scanTurn(r)
		out = append(out, t)
		return err
	})
	return out, err
}

// newTurn is a turn to be made, with everything encoded.
type newTurn struct {
	ledger.NewTurn
	source, input []byte
}

func prepareTurn(n ledger.NewTurn) (p newTurn, err error) {
	p.NewTurn = n
	if n.Kind == "" || n.SessionKey == "" {
		return p, domain.E(domain.Invalid, nil, "a turn needs a kind and a session key")
	}
	if p.source, err = encode(n.Source); err != nil {
		return p, err
	}
	p.input, err = encode(n.Input)
	return p, err
}

// insert queues the turn. A fixed session is made here where it is missing; the
// key's session is chosen when the turn is claimed.
func (n newTurn) insert(c *conn, now time.Time) (int64, error) {
	var session int64
	if n.SessionID != "" {
		var err error
		if session, _, err = fixedSession(c, n.SessionID, n.SessionKey, n.Source, now); err != nil {
			return 0, err
		}
	}
	id, err := c.insert(`INSERT INTO turn (kind, session_key, session, source, state, run_id, input, created_at) VALUES (?, ?, ?, ?, 'queued', ?, ?, ?)`,
		n.Kind, n.SessionKey, nullID(session), n.source, nullID(n.RunID), n.input, now)
	if err != nil {
		return 0, err
	}
	return id, linkRun(c, n.RunID, id)
}

func linkRun(c *conn, run, turn int64) error {
	if run == 0 {
		return nil
	}
	_, err := c.exec(`UPDATE run SET turn_id = ? WHERE id = ?`, turn, run)
	return err
}

// StartTurn creates and claims a turn at once. It does not ask what else the
// session is doing: that is the caller's order to keep.
func (s *Store) StartTurn(ctx context.Context, n ledger.NewTurn, now time.Time) (ledger.Claim, error) {
	p, err := prepareTurn(n)
	if err != nil {
		return ledger.Claim{}, err
	}
	return write(ctx, s, ordinary, func(c *conn) (ledger.Claim, error) {
		if err := s.checkSelf(c); err != nil {
			return ledger.Claim{}, err
		}
		session, isNew, err := s.sessionFor(c, n.SessionID, n.SessionKey, n.Source, ledger.ClaimOptions{Now: now})
		if err != nil {
			return ledger.Claim{}, err
		}
		cl := ledger.Claim{NewSession: isNew, RunID: n.RunID, Turn: domain.Turn{
			Kind: n.Kind, SessionKey: n.SessionKey, Source: n.Source, Input: n.Input,
		}}
		err = s.insertRunning(c, &cl, session, p, 0, now)
		return cl, err
	})
}

// insertRunning stores a new turn as running and completes the claim.
func (s *Store) insertRunning(c *conn, cl *ledger.Claim, session sessionRow, p newTurn, inbound int64, now time.Time) (err error) {
	t := &cl.Turn
	t.ID, err = c.insert(`INSERT INTO turn (kind, session_key, session, source, state, fence, attempt, process, inbound_id, run_id, input, created_at, started_at)
		VALUES (?, ?, ?, ?, 'running', 1, 1, ?, ?, ?, ?, ?, ?)`,
		t.Kind, t.SessionKey, session.n, p.source, s.self.ID, nullID(inbound), nullID(p.RunID), p.input, now, now)
	if err != nil {
		return err
	}
	t.State, t.Fence, t.Attempt, t.SessionID = domain.TurnRunning, 1, 1, session.ID
	t.CreatedAt, t.StartedAt = toMillis(now), toMillis(now)
	cl.Session = session.Session
	return linkRun(c, p.RunID, t.ID)
}

// toMillis gives t as it will be read back.
func toMillis(t time.Time) time.Time {
	if t.IsZero() {
		return t
	}
	return time.UnixMilli(t.UnixMilli()).UTC()
}

// sessionFor finds or makes the session of a turn: the named one, else the
// key's, after the reset policy had its say.
func (s *Store) sessionFor(c *conn, id domain.SessionID, key domain.SessionKey, src domain.Source, o ledger.ClaimOptions) (sessionRow, bool, error) {
	if id != "" {
		n, isNew, err := fixedSession(c, id, key, src, o.Now)
		if err != nil {
			return sessionRow{}, false, err
		}
		row, err := sessionByNumber(c, n)
		return row, isNew, err
	}
	rows, err := sessionRows(c, `WHERE key = ? AND current = 1`, key)
	if err != nil {
		return sessionRow{}, false, err
	}
	if len(rows) > 0 {
		if o.ResetBefore.IsZero() || !rows[0].UpdatedAt.Before(o.ResetBefore) {
			return rows[0], false, nil
		}
		if err := endSession(c, key, o.ResetReason, o.Now); err != nil {
			return sessionRow{}, false, err
		}
	}
	n, created, err := createSession(c, "", key, true, src, o.Now)
	return sessionRow{created, n}, true, err
}

// ClaimTurn claims the session's next work. A background turn that runs beside
// the conversation does not hold it up.
func (s *Store) ClaimTurn(ctx context.Context, key domain.SessionKey, o ledger.ClaimOptions) (ledger.Claim, bool, error) {
	type result struct {
		c  ledger.Claim
		ok bool
	}
	res, err := write(ctx, s, essential, func(c *conn) (res result, err error) {
		if err := s.checkSelf(c); err != nil {
			return res, err
		}
		open, err := turnRows(c, `WHERE t.session_key = ? AND t.ended_at IS NULL ORDER BY t.id`, key)
		if err != nil {
			return res, err
		}
		var queued *turnRow
		for i, t := range open {
			switch {
			case t.State == domain.TurnQueued && queued == nil:
				queued = &open[i]
			case t.State != domain.TurnQueued && t.Kind != domain.TurnBackground:
				return res, nil // one at a time
			}
		}
		if queued != nil {
			res.c, err = s.claimQueued(c, *queued, o)
			return result{res.c, err == nil}, err
		}
		res.c, res.ok, err = s.claimEvents(c, key, o)
		return res, err
	})
	return res.c, res.ok, err
}

// claimQueued makes a queued turn run, for the first time or again.
func (s *Store) claimQueued(c *conn, t turnRow, o ledger.ClaimOptions) (cl ledger.Claim, err error) {
	var session sessionRow
	if t.session != 0 {
		session, err = sessionByNumber(c, t.session)
	} else {
		session, cl.NewSession, err = s.sessionFor(c, "", t.SessionKey, t.Source, o)
	}
	if err != nil {
		return cl, err
	}
	t.State, t.Fence, t.Attempt, t.StartedAt = domain.TurnRunning, t.Fence+1, t.Attempt+1, toMillis(o.Now)
	if _, err := c.exec(`UPDATE turn SET state = 'running', fence = ?, attempt = ?, process = ?, session = ?, started_at = ? WHERE id = ?`,
		t.Fence, t.Attempt, s.self.ID, session.n, o.Now, t.ID); err != nil {
		return cl, err
	}
	t.SessionID = session.ID
	cl.Turn, cl.Session, cl.RunID = t.Turn, session.Session, t.runID
	if t.Attempt == 1 {
		return cl, nil
	}
	if cl.Inbound, err = inbounds(c, `turn_id = ? AND state = 'claimed' ORDER BY id`, t.ID); err != nil {
		return cl, err
	}
	if cl.Steps, err = steps(c, t.ID); err != nil {
		return cl, err
	}
	cl.Answers, err = questions(c, `WHERE turn_id = ? AND answered_at IS NOT NULL ORDER BY id`, t.ID)
	return cl, err
}

// claimEvents makes a turn of the oldest message, or of all that wait. The
// answer goes where the newest of them came from.
func (s *Store) claimEvents(c *conn, key domain.SessionKey, o ledger.ClaimOptions) (cl ledger.Claim, ok bool, err error) {
	const all = `session_key = ? AND state = 'received' AND command = 0 ORDER BY id`
	if o.Collect {
		cl.Inbound, err = inbounds(c, all, key)
	} else {
		cl.Inbound, err = inbounds(c, all+` LIMIT 1`, key)
	}
	if err != nil || len(cl.Inbound) == 0 {
		return cl, false, err
	}
	last := cl.Inbound[len(cl.Inbound)-1]
	n := ledger.NewTurn{Kind: domain.TurnChat, SessionKey: key, Source: last.Source}
	for _, in := range cl.Inbound {
		n.Input = append(n.Input, inputMessage(in))
	}
	p, err := prepareTurn(n)
	if err != nil {
		return cl, false, err
	}
	session, isNew, err := s.sessionFor(c, "", key, last.Source, o)
	if err != nil {
		return cl, false, err
	}
	cl.NewSession = isNew
	cl.Turn = domain.Turn{Kind: n.Kind, SessionKey: key, Source: n.Source, Input: n.Input}
	if err := s.insertRunning(c, &cl, session, p, last.ID, o.Now); err != nil {
		return cl, false, err
	}
	for i := range cl.Inbound {
		cl.Inbound[i].State = domain.InboundClaimed
		if _, err := c.exec(`UPDATE inbound SET state = 'claimed', turn_id = ? WHERE id = ?`, cl.Turn.ID, cl.Inbound[i].ID); err != nil {
			return cl, false, err
		}
	}
	return cl, true, nil
}

// inputMessage is an event as the model is to see it.
func inputMessage(in domain.Inbound) domain.Message {
	m := domain.Message{Role: domain.RoleUser, Content: quoted(in), At: in.SentAt}
	for _, a := range in.Attachments {
		if a.Kind == domain.Image {
			m.Images = append(m.Images, a)
		}
	}
	return m
}

func splitLines(s string) iter.Seq[string] { return strings.SplitSeq(strings.TrimRight(s, "\n"), "\n") }

// RequeueTurn puts a running turn back.
func (s *Store) RequeueTurn(ctx context.Context, t ledger.TurnRef) error {
	return writeOnly(ctx, s, essential, func(c *conn) error {
		return s.updateHeld(c, t, `state = 'queued', resumed = 1, process = NULL`)
	})
}

// held is the condition of every write of a claimed turn.
const held = ` WHERE id = ? AND fence = ? AND state = 'running' AND process = ?`

// updateHeld changes columns of a turn that this claim still holds.
func (s *Store) updateHeld(c *conn, t ledger.TurnRef, set string, args ...any) error {
	n, err := c.exec(`UPDATE turn SET `+set+held, append(args, t.ID, t.Fence, s.self.ID)...)
	if err == nil && n == 0 {
		err = fenced("turn", t.ID)
	}
	return err
}

// checkHeld answers Fenced when the claim is over.
func (s *Store) checkHeld(c *conn, t ledger.TurnRef) error {
	found, err := c.one(`SELECT 1 FROM turn`+held, []any{t.ID, t.Fence, s.self.ID}, new(int64))
	if err == nil && !found {
		err = fenced("turn", t.ID)
	}
	return err
}

// Turn reads one turn.
func (s *Store) Turn(ctx context.Context, id int64) (t domain.Turn, err error) {
	err = s.read(ctx, func(c *conn) error {
		rows, err := turnRows(c, `WHERE t.id = ?`, id)
		if err == nil && len(rows) == 0 {
			err = notFound("turn", id)
		}
		if err == nil {
			t = rows[0].Turn
		}
		return err
	})
	return t, err
}

// OpenTurns lists the turns that have not ended.
func (s *Store) OpenTurns(ctx context.Context, key domain.SessionKey) (out []domain.Turn, err error) {
	err = s.read(ctx, func(c *conn) error {
		var rows []turnRow
		var err error
		if key == "" {
			rows, err = turnRows(c, `WHERE t.ended_at IS NULL ORDER BY t.session_key, t.id`)
		} else {
			rows, err = turnRows(c, `WHERE t.session_key = ? AND t.ended_at IS NULL ORDER BY t.id`, key)
		}
		for _, t := range rows {
			out = append(out, t.Turn)
		}
		return err
	})
	return out, err
}

// CancelTurn ends a turn that does not run.
func (s *Store) CancelTurn(ctx context.Context, id int64, reason string, now time.Time) error {
	return writeOnly(ctx, s, essential, func(c *conn) error {
		var state domain.TurnState
		found, err := c.one(`SELECT state FROM turn WHERE id = ?`, []any{id}, &state)
		switch {
		case err != nil:
			return err
		case !found:
			return notFound("turn", id)
		case state != domain.TurnQueued && state != domain.TurnWaiting:
			return domain.E(domain.Conflict, nil, "turn %d is %s; only a queued or waiting turn can be cancelled", id, state)
		}
		return interruptTurn(c, id, reason, now)
	})
}

// interruptTurn ends a turn whatever it does, with its events and questions.
func interruptTurn(c *conn, id int64, reason string, now time.Time) error {
	if _, err := c.exec(`UPDATE turn SET state = 'interrupted', error = ?, ended_at = ?, process = NULL WHERE id = ?`, reason, now, id); err != nil {
		return err
	}
	if _, err := c.exec(`UPDATE inbound SET state = 'done', ended_at = ? WHERE turn_id = ? AND state = 'claimed'`, now, id); err != nil {
		return err
	}
	_, err := c.exec(`UPDATE question SET answer = 'expired', answered_at = ? WHERE turn_id = ? AND answered_at IS NULL`, now, id)
	return err
}
