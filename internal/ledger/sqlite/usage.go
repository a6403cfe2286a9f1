package sqlite

import (
	"context"
	"time"

	"hermes/internal/ledger"
)

// Usage sums what ended turns used. The index turn_ended finds them.
func (s *Store) Usage(ctx context.Context, from time.Time) (out []ledger.UsageSlot, err error) {
	slot := ledger.UsageSlotLength.Milliseconds()
	err = s.readAll(ctx, func(c *conn) error {
		return c.each(`SELECT ended_at / ?1 * ?1 AS slot, kind, coalesce(source ->> '$.platform', ''), state, count(*),
				coalesce(sum(usage ->> '$.calls'), 0), coalesce(sum(usage ->> '$.input_tokens'), 0),
				coalesce(sum(usage ->> '$.output_tokens'), 0), coalesce(sum(usage ->> '$.cached_tokens'), 0)
			FROM turn WHERE ended_at IS NOT NULL AND ended_at >= ?2
			GROUP BY 1, 2, 3, 4 ORDER BY 1, 2, 3, 4`, []any{slot, from}, func(r row) error {
			var u ledger.UsageSlot
			err := r.scan(&u.At, &u.Kind, &u.Platform, &u.State, &u.Turns,
				&u.Usage.Calls, &u.Usage.InputTokens, &u.Usage.OutputTokens, &u.Usage.CachedTokens)
			out = append(out, u)
			return err
		})
	})
	return out, err
}
