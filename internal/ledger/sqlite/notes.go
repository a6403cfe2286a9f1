package sqlite

import (
	"context"

	"hermes/internal/domain"
	"hermes/internal/ledger"
)

func putPairing(c *conn, p ledger.Pairing) error {
	_, err := c.exec(`INSERT OR REPLACE INTO pairing (platform, user_id, user_name, code_hash, salt, requested_at, approved_at) VALUES (?, ?, ?, ?, ?, ?, ?)`,
		p.Platform, p.UserID, p.UserName, p.CodeHash, p.Salt, p.RequestedAt, p.ApprovedAt)
	return err
}

// PutPairing stores a request or an approval.
func (s *Store) PutPairing(ctx context.Context, p ledger.Pairing) error {
	return writeOnly(ctx, s, ordinary, func(c *conn) error { return putPairing(c, p) })
}

// ListPairings lists, ordered by platform and user.
func (s *Store) ListPairings(ctx context.Context, platform domain.Platform) (out []ledger.Pairing, err error) {
	err = s.read(ctx, func(c *conn) error {
		return c.each(`SELECT platform, user_id, user_name, code_hash, salt, requested_at, approved_at FROM pairing
			WHERE ?1 = '' OR platform = ?1 ORDER BY platform, user_id`, []any{platform}, func(r row) error {
			var p ledger.Pairing
			err := r.scan(&p.Platform, &p.UserID, &p.UserName, &p.CodeHash, &p.Salt, &p.RequestedAt, &p.ApprovedAt)
			out = append(out, p)
			return err
		})
	})
	return out, err
}

// DeletePairing removes a user's entry.
func (s *Store) DeletePairing(ctx context.Context, platform domain.Platform, userID string) error {
	return writeOnly(ctx, s, essential, func(c *conn) error {
		n, err := c.exec(`DELETE FROM pairing WHERE platform = ? AND user_id = ?`, platform, userID)
		if err == nil && n == 0 {
			err = domain.E(domain.NotFound, nil, "no user %s of %s is paired or waits to be", userID, platform)
		}
		return err
	})
}

// Note reads a small value.
func (s *Store) Note(ctx context.Context, key string) (value string, err error) {
	err = s.read(ctx, func(c *conn) error {
		_, err := c.one(`SELECT value FROM note WHERE key = ?`, []any{key}, &value)
		return err
	})
	return value, err
}

// SetNote writes a small value; "" removes it.
func (s *Store) SetNote(ctx context.Context, key, value string) error {
	return writeOnly(ctx, s, ordinary, func(c *conn) error {
		if value == "" {
			_, err := c.exec(`DELETE FROM note WHERE key = ?`, key)
			return err
		}
		_, err := c.exec(`INSERT INTO note (key, value) VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value`, key, value)
		return err
	})
}
