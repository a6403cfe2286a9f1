package sqlite

import (
	"context"
	"errors"
	"os"
	"time"

	"hermes/internal/domain"
	"hermes/internal/ledger"
)

// CopyTo writes a whole copy of the ledger at path to a file that does not exist
// yet, readable by this user only, as it stands at one instant. Others may work
// on the ledger meanwhile. Errors: NotFound; as Open.
func CopyTo(ctx context.Context, path, to string) (err error) {
	if _, err := os.Stat(path); err != nil {
		return domain.E(domain.NotFound, err, "there is no ledger %s", path)
	}
	dsn, err := connector(path, false)
	if err != nil {
		return classifyFile(err, path)
	}
	c, err := openConn(dsn)
	if err != nil {
		return classifyFile(err, path)
	}
	defer func() { err = errors.Join(err, c.close()) }()
	if err := copyTo(ctx, c, to); err != nil {
		return errors.Join(classifyFile(err, path), os.Remove(to))
	}
	return nil
}

// Settle ends what the ledger at path, which is a copy of one that went on since,
// had accepted and not ended: it may have happened meanwhile, and must not happen
// again by itself. Deliveries become dead and can be sent by hand. Nobody may have
// the file open. Errors: as Open.
func Settle(ctx context.Context, path, reason string, now time.Time) (w ledger.Waiting, err error) {
	dsn, err := connector(path, false)
	if err != nil {
		return w, classifyFile(err, path)
	}
	c, err := openConn(dsn)
	if err != nil {
		return w, classifyFile(err, path)
	}
	defer func() { err = errors.Join(err, c.close()) }()
	w.At = now
	if _, err := c.exec("BEGIN IMMEDIATE"); err != nil {
		return w, classifyFile(err, path)
	}
	steps := []struct {
		count *int
		q     string
		args  []any
	}{
		{&w.Deliveries, `UPDATE delivery SET state = 'dead', reason = ?, ended_at = ?, process = NULL WHERE ended_at IS NULL`, []any{reason, now}},
		{&w.Turns, `UPDATE turn SET state = 'interrupted', error = ?, ended_at = ?, process = NULL WHERE ended_at IS NULL`, []any{reason, now}},
		{&w.Events, `UPDATE inbound SET state = 'done', ended_at = ? WHERE state IN ('received', 'claimed')`, []any{now}},
		{&w.Runs, `UPDATE run SET state = 'interrupted', error = ?, ended_at = ?, process = NULL WHERE ended_at IS NULL AND state IN ('due', 'running')`, []any{reason, now}},
		{nil, `UPDATE question SET answer = ?, answered_at = ? WHERE answered_at IS NULL`, []any{domain.AnswerExpired, now}},
		{nil, `UPDATE lease SET process = NULL`, nil},
		{nil, `DELETE FROM process`, nil},
	}
	for _, s := range steps {
		n, err := c.exec(s.q, s.args...)
		if err != nil {
			return w, classifyFile(errors.Join(err, ctx.Err()), path)
		}
		if s.count != nil {
			*s.count = int(n)
		}
	}
	if _, err := c.one(`SELECT count(*) FROM job WHERE enabled = 1 AND next_at < ?`, []any{now}, &w.Jobs); err != nil {
		return w, classifyFile(err, path)
	}
	if _, err := c.exec("COMMIT"); err != nil {
		return w, classifyFile(err, path)
	}
	return w, nil
}
