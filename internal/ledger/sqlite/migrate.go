package sqlite

import (
	"context"
	"embed"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"time"

	"hermes/internal/domain"
)

//go:embed migrations/*.sql
var migrationFiles embed.FS

// migration is one numbered step of the schema. Steps only expand: a program
// of the release before must be able to work on the result.
type migration struct {
	number int
	name   string
	text   string
}

// migrations lists the embedded steps in order; their numbers run from 1
// without gaps, which a test holds.
func migrations() []migration {
	names, err := fs.Glob(migrationFiles, "migrations/*.sql")
	if err != nil {
		panic(err) // the pattern is constant
	}
	out := make([]migration, len(names))
	for i, n := range names { // Glob sorts
		b, err := migrationFiles.ReadFile(n)
		if err != nil {
			panic(err) // embedded
		}
		num, _, _ := strings.Cut(strings.TrimPrefix(n, "migrations/"), "_")
		k, _ := strconv.Atoi(num)
		out[i] = migration{number: k, name: n, text: string(b)}
	}
	return out
}

func headSchema() int {
	m := migrations()
	return m[len(m)-1].number
}

// migrate brings the schema to o.maxSchema and tells which one the file has
// now. A newer file is used as it is, where it allows that.
func migrate(ctx context.Context, c *conn, o Options) (int, error) {
	version, err := schemaVersion(c)
	if err != nil {
		return 0, err
	}
	if version >= o.maxSchema {
		return version, checkReader(c, version, o)
	}
	if version > 0 {
		if err := backup(c, o, version); err != nil {
			return 0, err
		}
	}
	for _, m := range migrations() {
		if m.number > o.maxSchema {
			break
		}
		if err := applyMigration(ctx, c, m); err != nil {
			return 0, err
		}
	}
	if version, err = schemaVersion(c); err != nil {
		return 0, err
	}
	return version, checkReader(c, version, o)
}

func schemaVersion(c *conn) (v int, err error) {
	_, err = c.one("PRAGMA user_version", nil, &v)
	return v, err
}

// checkReader refuses a ledger whose schema this program must not touch.
func checkReader(c *conn, version int, o Options) error {
	if version <= o.maxSchema {
		return nil
	}
	var oldest string
	if _, err := c.one(`SELECT value FROM meta WHERE key = 'oldest_reader'`, nil, &oldest); err != nil {
		return err
	}
	if n, _ := strconv.Atoi(oldest); n > 0 && n <= o.maxSchema {
		return nil
	}
	return domain.E(domain.Config, nil, "the ledger %s was written by a newer hermes (schema %d; this program knows %d and the ledger asks for at least %s); use the newer program, or restore the copy that it left beside the ledger",
		o.Path, version, o.maxSchema, oldest)
}

// applyMigration takes one step, unless another process was faster.
func applyMigration(ctx context.Context, c *conn, m migration) error {
	for {
		_, err := c.exec("BEGIN IMMEDIATE")
		if err == nil {
			break
		}
		if !isBusy(err) {
			return err
		}
		if ctx.Err() != nil {
			return domain.E(domain.Unavailable, err, "the ledger is held by another process, so its schema cannot be brought up to date; try again")
		}
		time.Sleep(busyRetry)
	}
	version, err := schemaVersion(c)
	if err == nil && version < m.number {
		if err = c.script(m.text); err == nil {
			err = c.script(fmt.Sprintf("PRAGMA user_version = %d", m.number))
		}
	}
	if err == nil {
		_, err = c.exec("COMMIT")
	}
	if err != nil {
		_, _ = c.exec("ROLLBACK") // the error that matters is err
		return fmt.Errorf("migration %s: %w", m.name, err)
	}
	return nil
}

// backup copies the ledger before its schema changes. A copy of the same
// schema that is there already was made by an attempt that did not end, and
// the ledger may have gone on since; it is replaced.
func backup(c *conn, o Options, version int) error {
	path := fmt.Sprintf("%s.schema-%d", o.Path, version)
	tmp := path + ".part"
	if err := os.Remove(tmp); err != nil && !os.IsNotExist(err) {
		return err
	}
	if _, err := c.exec("VACUUM INTO ?", tmp); err != nil {
		return fmt.Errorf("copy before the upgrade: %w", err)
	}
	if err := os.Chmod(tmp, 0o600); err != nil {
		return err
	}
	o.Log.Info("the ledger is upgraded; a copy of it was made", "schema", version, "copy", path)
	return os.Rename(tmp, path)
}
