package sqlite

import (
	"context"
	"os"
	"time"

	"hermes/internal/domain"
	"hermes/internal/ledger"
)

const (
	tidyRows  = 200 // deleted in one transaction
	tidyPages = 256 // given back in one transaction
)

// Tidy applies the retention limits. The rows of ended turns go with the
// deliveries, which refer to them; transcripts are never tidied.
func (s *Store) Tidy(ctx context.Context, now time.Time, r ledger.Retention) error {
	type rule struct {
		keep  time.Duration
		query string // deletes some rows that ended before a time
	}
	rules := []rule{
		{r.Inbound, `DELETE FROM inbound WHERE id IN (SELECT id FROM inbound WHERE ended_at IS NOT NULL AND ended_at < ? LIMIT ?)`},
		{r.Steps, `DELETE FROM step WHERE turn_id IN (SELECT turn.id FROM turn WHERE ended_at IS NOT NULL AND ended_at < ?
			AND EXISTS (SELECT 1 FROM step WHERE step.turn_id = turn.id) LIMIT ?)`},
		{r.Deliveries, `DELETE FROM delivery WHERE id IN (SELECT id FROM delivery WHERE ended_at IS NOT NULL AND ended_at < ? LIMIT ?)`},
		{r.Deliveries, `DELETE FROM question WHERE turn_id IN (SELECT turn.id FROM turn WHERE ended_at IS NOT NULL AND ended_at < ?
			AND EXISTS (SELECT 1 FROM question WHERE question.turn_id = turn.id) LIMIT ?)`},
		{r.Deliveries, `DELETE FROM turn WHERE id IN (SELECT id FROM turn WHERE ended_at IS NOT NULL AND ended_at < ?
			AND NOT EXISTS (SELECT 1 FROM step WHERE step.turn_id = turn.id) LIMIT ?)`},
	}
	for _, rule := range rules {
		if rule.keep <= 0 {
			continue
		}
		if err := s.deleteAll(ctx, rule.query, now.Add(-rule.keep), tidyRows); err != nil {
			return err
		}
	}
	if err := s.tidyRuns(ctx, r.RunsPerJob); err != nil {
		return err
	}
	s.reserve.start()
	return s.giveBack(ctx)
}

// deleteAll repeats a bounded DELETE until nothing is left for it.
func (s *Store) deleteAll(ctx context.Context, q string, args ...any) error {
	for {
		n, err := write(ctx, s, essential, func(c *conn) (int64, error) { return c.exec(q, args...) })
		if err != nil || n == 0 {
			return err
		}
	}
}

// tidyRuns keeps the newest ended runs of each job.
func (s *Store) tidyRuns(ctx context.Context, keep int) error {
	if keep <= 0 {
		return nil
	}
	var crowded []domain.JobID
	err := s.read(ctx, func(c *conn) error {
		return c.each(`SELECT job FROM run GROUP BY job HAVING count(*) > ?`, []any{keep}, func(r row) error {
			var id domain.JobID
			err := r.scan(&id)
			crowded = append(crowded, id)
			return err
		})
	})
	if err != nil {
		return err
	}
	for _, id := range crowded {
		err := s.deleteAll(ctx, `DELETE FROM run WHERE id IN (SELECT id FROM run WHERE job = ?1 AND ended_at IS NOT NULL AND instant <
			(SELECT instant FROM run WHERE job = ?1 AND ended_at IS NOT NULL ORDER BY instant DESC LIMIT 1 OFFSET ?2) LIMIT ?3)`,
			id, keep-1, tidyRows)
		if err != nil {
			return err
		}
	}
	return nil
}

// giveBack returns free pages to the file system, a few at a time.
func (s *Store) giveBack(ctx context.Context) error {
	for {
		left, err := write(ctx, s, essential, func(c *conn) (left int64, err error) {
			var before int64
			if _, err := c.one("PRAGMA freelist_count", nil, &before); err != nil || before == 0 {
				return 0, err
			}
			if err := c.each("PRAGMA incremental_vacuum("+formatID(tidyPages)+")", nil, func(row) error { return nil }); err != nil {
				return 0, err
			}
			if _, err := c.one("PRAGMA freelist_count", nil, &left); left >= before {
				return 0, err // a file from before auto_vacuum
			}
			return left, err
		})
		if err != nil || left == 0 {
			return err
		}
	}
}

// Info describes the store. Every count comes from an index.
func (s *Store) Info(ctx context.Context) (ledger.Info, error) {
	info := ledger.Info{Kind: "sqlite", Location: s.path, Schema: s.schema, SetAside: s.setAside}
	info.Ballast, info.FullSince = s.reserve.state()
	for _, suffix := range []string{"", "-wal", "-shm"} {
		if st, err := os.Stat(s.path + suffix); err == nil {
			info.Bytes += st.Size()
		}
	}
	dayAgo := s.now().Add(-24 * time.Hour)
	err := s.readAll(ctx, func(c *conn) (err error) {
		if info.Inbound, err = counts(c, inboundCounts); err != nil {
			return err
		}
		if info.Turns, err = counts(c, turnCounts, dayAgo); err != nil {
			return err
		}
		if info.Delivery, err = counts(c, deliveryCounts); err != nil {
			return err
		}
		if _, err = c.one(`SELECT count(*) FROM session`, nil, &info.Sessions); err != nil {
			return err
		}
		if _, err = c.one(`SELECT count(*) FROM message`, nil, &info.Messages); err != nil {
			return err
		}
		info.Salvaged, err = salvageOf(c)
		return err
	})
	return info, err
}

const (
	inboundCounts = `SELECT 'received', count(*) FROM inbound INDEXED BY inbound_received WHERE state = 'received'
		UNION ALL SELECT 'claimed', count(*) FROM inbound INDEXED BY inbound_claimed WHERE state = 'claimed'
		UNION ALL SELECT state, count(*) FROM inbound INDEXED BY inbound_ended WHERE ended_at IS NOT NULL GROUP BY state`
	turnCounts = `SELECT state, count(*) FROM turn INDEXED BY turn_open WHERE ended_at IS NULL GROUP BY state
		UNION ALL SELECT state, count(*) FROM turn WHERE ended_at IS NOT NULL AND ended_at > ? GROUP BY state`
	deliveryCounts = `SELECT state, count(*) FROM delivery INDEXED BY delivery_open WHERE ended_at IS NULL GROUP BY state
		UNION ALL SELECT 'dead', count(*) FROM delivery INDEXED BY delivery_dead WHERE state = 'dead'
		UNION ALL SELECT 'sent', count(*) FROM delivery INDEXED BY delivery_chat WHERE state = 'sent'`
)

// counts reads pairs of a name and a number; names without any are left out.
func counts(c *conn, q string, args ...any) (map[string]int64, error) {
	out := map[string]int64{}
	err := c.each(q, args, func(r row) error {
		var name string
		var n int64
		err := r.scan(&name, &n)
		if n > 0 {
			out[name] += n
		}
		return err
	})
	return out, err
}
