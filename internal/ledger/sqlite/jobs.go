package sqlite

import (
	"cmp"
	"context"
	"slices"
	"strings"
	"time"

	"hermes/internal/domain"
	"hermes/internal/ledger"
)

// bound is a LIMIT that is a parameter. SQLite looks at the value of a bare one
// when it plans, and then plans anew whenever a value is bound
// (https://sqlite.org/c3ref/c_dbconfig_defensive.html, ENABLE_QPSG): a third of
// the time of a scheduler that fires often.
const bound = `(? + 0)`

const jobColumns = `id, name, enabled, definition, next_at, created_at, updated_at, version`

func jobs(c *conn, where string, args ...any) (out []domain.Job, err error) {
	err = c.each(`SELECT `+jobColumns+` FROM job `+where, args, func(r row) error {
		var j domain.Job
		err := r.scan(&j.ID, &j.Name, &j.Enabled, &j.Definition, &j.NextAt, &j.CreatedAt, &j.UpdatedAt, &j.Version)
		out = append(out, j)
		return err
	})
	return out, err
}

// PutJob inserts a job or updates the version that was read.
func (s *Store) PutJob(ctx context.Context, j domain.Job) (domain.Job, error) {
	if j.ID == "" {
		return j, domain.E(domain.Invalid, nil, "a job needs an id")
	}
	definition, err := encode(j.Definition) // compact, and known to be JSON
	if err != nil {
		return j, err
	}
	return write(ctx, s, ordinary, func(c *conn) (domain.Job, error) {
		j, now := j, s.now()
		j.Definition = definition
		j.UpdatedAt = toMillis(now)
		if j.CreatedAt.IsZero() {
			j.CreatedAt = now
		}
		j.CreatedAt, j.NextAt = toMillis(j.CreatedAt), toMillis(j.NextAt)
		if j.Version == 0 {
			j.Version = 1
			n, err := c.exec(`INSERT INTO job (id, name, enabled, definition, next_at, created_at, updated_at, version)
				VALUES (?, ?, ?, ?, ?, ?, ?, 1) ON CONFLICT (id) DO NOTHING`, j.ID, j.Name, j.Enabled, definition, j.NextAt, j.CreatedAt, now)
			if err == nil && n == 0 {
				err = domain.E(domain.Conflict, nil, "a job %s exists already; edit it, or choose another id", j.ID)
			}
			return j, err
		}
		n, err := c.exec(`UPDATE job SET name = ?, enabled = ?, definition = ?, next_at = ?, updated_at = ?, version = version + 1 WHERE id = ? AND version = ?`,
			j.Name, j.Enabled, definition, j.NextAt, now, j.ID, j.Version)
		if err != nil {
			return j, err
		}
		if n == 0 {
			found, err := c.one(`SELECT 1 FROM job WHERE id = ?`, []any{j.ID}, new(int64))
			if err == nil && !found {
				err = notFound("job", j.ID)
			} else if err == nil {
				err = domain.E(domain.Conflict, nil, "job %s was changed meanwhile; read it again and repeat the change", j.ID)
			}
			return j, err
		}
		j.Version++
		return j, nil
	})
}

// Job reads one.
func (s *Store) Job(ctx context.Context, id domain.JobID) (j domain.Job, err error) {
	err = s.read(ctx, func(c *conn) error {
		js, err := jobs(c, `WHERE id = ?`, id)
		if err == nil && len(js) == 0 {
			err = notFound("job", id)
		}
		if err == nil {
			j = js[0]
		}
		return err
	})
	return j, err
}

// ListJobs lists by name.
func (s *Store) ListJobs(ctx context.Context, f ledger.JobFilter) (out []domain.Job, err error) {
	limit := f.Limit
	if limit <= 0 {
		limit = -1
	}
	where, args := jobsWhere(f)
	err = s.read(ctx, func(c *conn) (err error) {
		out, err = jobs(c, where+`ORDER BY name, id LIMIT ? OFFSET ?`, append(args, limit, f.Offset)...)
		return err
	})
	return out, err
}

// CountJobs counts them.
func (s *Store) CountJobs(ctx context.Context, f ledger.JobFilter) (n int, err error) {
	where, args := jobsWhere(f)
	err = s.read(ctx, func(c *conn) error {
		_, err := c.one(`SELECT count(*) FROM job `+where, args, &n)
		return err
	})
	return n, err
}

// jobsWhere words a filter.
func jobsWhere(f ledger.JobFilter) (where string, args []any) {
	var conds []string
	switch {
	case f.Scheduled:
		conds = append(conds, `enabled = 1 AND next_at IS NOT NULL`)
	case f.EnabledOnly:
		conds = append(conds, `enabled = 1`)
	}
	if f.Name != "" {
		conds, args = append(conds, `name = ? COLLATE NOCASE`), append(args, f.Name)
	}
	if len(conds) == 0 {
		return ``, nil
	}
	return `WHERE ` + strings.Join(conds, ` AND `) + ` `, args
}

// DeleteJob removes a job; its runs stay.
func (s *Store) DeleteJob(ctx context.Context, id domain.JobID) error {
	return writeOnly(ctx, s, ordinary, func(c *conn) error {
		n, err := c.exec(`DELETE FROM job WHERE id = ?`, id)
		if err == nil && n == 0 {
			err = notFound("job", id)
		}
		return err
	})
}

const nextDueQuery = `SELECT min(next_at) FROM job WHERE enabled = 1 AND next_at IS NOT NULL`

// NextDue is the earliest instant of the enabled jobs.
func (s *Store) NextDue(ctx context.Context) (t time.Time, err error) {
	err = s.read(ctx, func(c *conn) error {
		_, err := c.one(nextDueQuery, nil, &t)
		return err
	})
	return t, err
}

const dueJobsWhere = `WHERE enabled = 1 AND next_at IS NOT NULL AND next_at <= ? ORDER BY next_at LIMIT ` + bound

// DueJobs lists the enabled jobs whose instant has come.
func (s *Store) DueJobs(ctx context.Context, now time.Time, limit int) (out []domain.Job, err error) {
	if limit <= 0 {
		limit = -1
	}
	err = s.read(ctx, func(c *conn) (err error) {
		out, err = jobs(c, dueJobsWhere, now, limit)
		return err
	})
	return out, err
}

const runColumns = `id, job, instant, manual, state, fence, coalesce(turn_id, 0), started_at, ended_at, error, output, usage, ` + deliveryOutcome

func scanRun(r row) (v domain.Run, err error) {
	err = r.scan(&v.ID, &v.Job, &v.Instant, &v.Manual, &v.State, &v.Fence, &v.TurnID, &v.StartedAt, &v.EndedAt, &v.Error, &v.Output, asJSON{&v.Usage}, &v.Delivery)
	return v, err
}

func runRows(c *conn, where string, args ...any) (out []domain.Run, err error) {
	err = c.each(`SELECT `+runColumns+` FROM run WHERE `+where, args, func(r row) error {
		v, err := scanRun(r)
		out = append(out, v)
		return err
	})
	return out, err
}

// Fire records firings and moves the job on, if nobody was faster. It answers
// with the runs that it made; an instant that has one already is left out.
func (s *Store) Fire(ctx context.Context, id domain.JobID, from, next time.Time, runs []domain.Run) ([]domain.Run, error) {
	for _, r := range runs {
		if r.State == domain.RunRunning {
			return nil, domain.E(domain.Invalid, nil, "a run is fired as due or as ended; it runs when it is claimed")
		}
	}
	return write(ctx, s, essential, func(c *conn) ([]domain.Run, error) {
		n, err := c.exec(`UPDATE job SET next_at = ?, version = version + 1 WHERE id = ? AND next_at IS ?`, next, id, from)
		if err != nil {
			return nil, err
		}
		if n == 0 {
			return nil, domain.E(domain.Conflict, nil, "job %s is not due at that instant any more; it was fired or changed by another", id)
		}
		var out []domain.Run
		for _, r := range runs {
			made, err := insertRun(c, id, r, s.now())
			if err != nil {
				return nil, err
			}
			if made.ID != 0 {
				out = append(out, made)
			}
		}
		return out, nil
	})
}

// ForgetMissed removes what a clock that was wrong made.
func (s *Store) ForgetMissed(ctx context.Context, after time.Time) (int, error) {
	return write(ctx, s, ordinary, func(c *conn) (int, error) {
		n, err := c.exec(`DELETE FROM run WHERE state IN ('missed', 'skipped') AND instant > ?`, after)
		return int(n), err
	})
}

// insertRun stores a firing; the ID is 0 when the instant has one.
func insertRun(c *conn, job domain.JobID, r domain.Run, now time.Time) (domain.Run, error) {
	if r.State == "" {
		r.State = domain.RunDue
	}
	if r.State.Ended() && r.EndedAt.IsZero() {
		r.EndedAt = now
	}
	r.ID, r.Job, r.Fence, r.Delivery = 0, job, 0, ""
	r.Instant, r.StartedAt, r.EndedAt = toMillis(r.Instant), toMillis(r.StartedAt), toMillis(r.EndedAt)
	_, err := c.one(`INSERT INTO run (job, instant, manual, state, started_at, ended_at, error, output, usage) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)
		ON CONFLICT (job, instant) DO NOTHING RETURNING id`,
		[]any{job, r.Instant, r.Manual, r.State, r.StartedAt, r.EndedAt, r.Error, r.Output, encodeUsage(r.Usage)}, &r.ID)
	return r, err
}

// ClaimRun makes a due run running.
func (s *Store) ClaimRun(ctx context.Context, id int64, now time.Time) (domain.Run, bool, error) {
	type result struct {
		r  domain.Run
		ok bool
	}
	res, err := write(ctx, s, essential, func(c *conn) (res result, err error) {
		if err := s.checkSelf(c); err != nil {
			return res, err
		}
		n, err := c.exec(`UPDATE run SET state = 'running', fence = fence + 1, process = ?, started_at = ? WHERE id = ? AND state = 'due'`, s.self.ID, now, id)
		if err != nil || n == 0 {
			return res, err
		}
		rows, err := runRows(c, `id = ?`, id)
		if err != nil {
			return res, err
		}
		return result{rows[0], true}, nil
	})
	return res.r, res.ok, err
}

// endRun ends a run that this process holds.
func (s *Store) endRun(c *conn, e ledger.RunEnd, now time.Time) error {
	if !e.State.Ended() {
		return domain.E(domain.Invalid, nil, "a run cannot end as %q", e.State)
	}
	n, err := c.exec(`UPDATE run SET state = ?, error = ?, output = ?, usage = ?, ended_at = ?, process = NULL
		WHERE id = ? AND fence = ? AND state = 'running' AND process = ?`,
		e.State, e.Error, e.Output, encodeUsage(e.Usage), now, e.Ref.ID, e.Ref.Fence, s.self.ID)
	if err == nil && n == 0 {
		err = fenced("run", e.Ref.ID)
	}
	return err
}

// FinishRun ends a claimed run with its deliveries.
func (s *Store) FinishRun(ctx context.Context, e ledger.RunEnd, d []domain.NewDelivery, now time.Time) ([]int64, error) {
	ds, err := prepareDeliveries(d)
	if err != nil {
		return nil, err
	}
	return write(ctx, s, essential, func(c *conn) ([]int64, error) {
		if err := s.endRun(c, e, now); err != nil {
			return nil, err
		}
		return insertDeliveries(c, ds, origin{run: e.Ref.ID}, now)
	})
}

// DueRuns lists what waits to be run.
func (s *Store) DueRuns(ctx context.Context, limit int) (out []domain.Run, err error) {
	if limit <= 0 {
		limit = -1
	}
	err = s.read(ctx, func(c *conn) (err error) {
		out, err = runRows(c, `state = 'due' ORDER BY instant, id LIMIT `+bound, limit)
		return err
	})
	return out, err
}

// runsIn are the conditions by state. Each is asked by itself, so that its part
// of the index is read from the end.
var runsIn = map[domain.RunState]string{
	domain.RunDue: `state = 'due'`, domain.RunRunning: `state = 'running'`, domain.RunOK: `state = 'ok'`,
	domain.RunSilent: `state = 'silent'`, domain.RunFailed: `state = 'failed'`, domain.RunTimedOut: `state = 'timed_out'`,
	domain.RunInterrupted: `state = 'interrupted'`, domain.RunMissed: `state = 'missed'`, domain.RunSkipped: `state = 'skipped'`,
}

// Runs lists, newest instant first.
func (s *Store) Runs(ctx context.Context, f ledger.RunFilter) (out []domain.Run, err error) {
	limit := f.Limit
	if limit <= 0 {
		limit = 20
	}
	var where strings.Builder
	var args []any
	if f.Job != "" {
		where.WriteString(` AND job = ?`)
		args = append(args, f.Job)
	}
	if !f.Since.IsZero() {
		where.WriteString(` AND instant >= ?`)
		args = append(args, f.Since)
	}
	args = append(args, limit)
	conds := []string{`1`}
	if len(f.States) > 0 {
		conds = conds[:0]
		for _, st := range slices.Compact(slices.Sorted(slices.Values(f.States))) {
			cond, known := runsIn[st]
			if !known {
				return nil, domain.E(domain.Invalid, nil, "%q is no state of a run", st)
			}
			conds = append(conds, cond)
		}
	}
	err = s.readAll(ctx, func(c *conn) error {
		for _, cond := range conds {
			rows, err := runRows(c, cond+where.String()+` ORDER BY instant DESC, id DESC LIMIT `+bound, args...)
			if err != nil {
				return err
			}
			out = append(out, rows...)
		}
		return nil
	})
	slices.SortFunc(out, func(a, b domain.Run) int {
		return cmp.Or(b.Instant.Compare(a.Instant), cmp.Compare(b.ID, a.ID))
	})
	return out[:min(len(out), limit)], err
}
