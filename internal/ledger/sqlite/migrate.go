package sqlite

import (
	"cmp"
	"context"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"hermes/internal/domain"
	"hermes/internal/ledger"
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

// migrate makes the schema of a new file, and brings an older one to
// o.maxSchema where this process may do that now. It tells which schema the file
// has. A newer file is used as it is, where it allows that.
func migrate(ctx context.Context, c *conn, o Options) (int, error) {
	version, err := schemaVersion(c)
	switch {
	case err != nil:
		return 0, err
	case version >= o.maxSchema:
		return version, checkReader(c, version, o)
	case version == 0, !o.KeepSchema && o.Kind != kindCommand:
		return upgrade(ctx, c, o)
	case o.KeepSchema:
		return version, nil
	}
	// A command must not change what a gateway of an older program works on.
	holder, found, err := liveServer(c, o)
	if err != nil {
		return 0, err
	}
	if found {
		return 0, domain.E(domain.Conflict, nil, "the ledger has schema %d and this program works with schema %d, but the %s with PID %d was started from an older program; restart it first (`hermes gateway restart`), which brings the ledger up to date", version, o.maxSchema, holder.Kind, holder.PID)
	}
	return upgrade(ctx, c, o)
}

// upgrade copies the ledger and applies what is missing, all or nothing: one that
// fails leaves the schema with which the program before goes on.
func upgrade(ctx context.Context, c *conn, o Options) (int, error) {
	limited, cancel := context.WithTimeout(ctx, busyLimit)
	defer cancel()
	lock, err := waitLock(limited, filepath.Join(runDir(o.Path), "upgrade.lock"))
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
		return 0, upgradeBusy(err)
	}
	if err != nil {
		return 0, err
	}
	defer lock.Close()
	version, err := schemaVersion(c)
	if err != nil || version >= o.maxSchema {
		return version, err // another process was faster
	}
	if version > 0 {
		if err := backup(ctx, c, o, version); err != nil {
			return version, err
		}
	}
	if err := applyMigrations(ctx, c, o); err != nil {
		return version, err
	}
	if version, err = schemaVersion(c); err != nil {
		return version, err
	}
	return version, checkReader(c, version, o)
}

// steps are the migrations that the program knows.
func (o Options) steps() []migration {
	all := append(migrations(), o.extraSteps...)
	return all[:min(len(all), o.maxSchema)]
}

func schemaVersion(c *conn) (v int, err error) {
	_, err = c.one("PRAGMA user_version", nil, &v)
	return v, err
}

// Keys of meta that tell about the schema.
const (
	metaOldestReader = "oldest_reader" // the oldest schema number that a program must know to open the file
	metaUpgradedBy   = "upgraded_by"   // the program, and when, that brought the schema to where it is
)

func meta(c *conn, key string) (value string, err error) {
	_, err = c.one(`SELECT value FROM meta WHERE key = ?`, []any{key}, &value)
	return value, err
}

// oldestReader is the schema number that a program must know to open the file.
func oldestReader(c *conn) (int, error) {
	text, err := meta(c, metaOldestReader)
	n, _ := strconv.Atoi(text)
	return n, err
}

// checkReader refuses a ledger whose schema this program must not touch.
func checkReader(c *conn, version int, o Options) error {
	if version <= o.maxSchema {
		return nil
	}
	oldest, err := oldestReader(c)
	if err != nil {
		return err
	}
	if oldest > 0 && oldest <= o.maxSchema {
		return nil
	}
	by, err := meta(c, metaUpgradedBy)
	if err != nil {
		return err
	}
	if by == "" {
		by = "a newer hermes"
	}
	return domain.E(domain.Config, nil, "this program is too old for the ledger %s: it knows schema %d, and the ledger, brought to schema %d by %s, asks for a program that knows at least %d; use the newer program, or stop hermes and put back the copy that was made before the upgrade (%s.schema-*), which knows nothing of what came after it",
		o.Path, o.maxSchema, version, by, oldest, o.Path)
}

// upgradeBusy says that the schema waits for others; err may be nil.
func upgradeBusy(err error) error {
	return domain.E(domain.Unavailable, err, "the ledger is held by another process, so its schema cannot be brought up to date; it is tried again")
}

// applyMigrations takes the missing steps in one transaction.
func applyMigrations(ctx context.Context, c *conn, o Options) error {
	limit := time.Now().Add(busyLimit)
	for {
		_, err := c.exec("BEGIN IMMEDIATE")
		if err == nil {
			break
		}
		if !isBusy(err) {
			return err
		}
		if ctx.Err() != nil || time.Now().After(limit) {
			return upgradeBusy(err)
		}
		time.Sleep(busyRetry)
	}
	err := takeSteps(c, o)
	if err == nil {
		_, err = c.exec("COMMIT")
	}
	if err != nil {
		_, _ = c.exec("ROLLBACK") // the error that matters is err
	}
	return err
}

// takeSteps runs the missing steps in the open transaction.
func takeSteps(c *conn, o Options) error {
	from, err := schemaVersion(c)
	if err != nil || from >= o.maxSchema {
		return err
	}
	for _, m := range o.steps()[from:] {
		if err := c.script(m.text); err != nil {
			return failedStep(err, o, m)
		}
	}
	if err := c.script(fmt.Sprintf("PRAGMA user_version = %d", o.maxSchema)); err != nil {
		return err
	}
	by := fmt.Sprintf("hermes %s on %s", cmp.Or(o.Program, "of an unknown version"), o.Now().UTC().Format(time.RFC3339))
	if _, err := c.exec(`INSERT INTO meta (key, value) VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value`, metaUpgradedBy, by); err != nil {
		return err
	}
	oldest, err := oldestReader(c)
	if err != nil || oldest <= from || from == 0 {
		return err
	}
	// The steps lock out programs of the schema before. None may be at work.
	p, found, err := liveServer(c, o)
	if err == nil && found {
		err = domain.E(domain.Conflict, nil, "schema %d of the ledger cannot be used by the %s with PID %d, which was started from an older program; stop it, then start this one", o.maxSchema, p.Kind, p.PID)
	}
	return err
}

// failedStep says that an upgrade was taken back. What has a code of its own, as
// it passes by itself, keeps it.
func failedStep(err error, o Options, m migration) error {
	if classified := classifyFile(err, o.Path); !domain.IsCode(classified, domain.Internal) {
		return classified
	}
	return domain.E(domain.Internal, err, "the ledger %s could not be brought to schema %d (%s) and was left as it was: %v; the program before works with it", o.Path, m.number, m.name, err)
}

// liveServer finds another process that serves from the ledger and lives.
func liveServer(c *conn, o Options) (p ledger.Process, found bool, err error) {
	err = c.each(`SELECT `+processColumns+` FROM process WHERE kind <> ?`, []any{kindCommand}, func(r row) error {
		var one ledger.Process
		if err := scanProcess(r, &one); err != nil {
			return err
		}
		if !found && one.ID != o.self && lives(runDir(o.Path), one) {
			p, found = one, true
		}
		return nil
	})
	return p, found, err
}

// Upgrade brings the schema up to date in a ledger that was opened with
// KeepSchema, once this process is the one that serves: a copy is made first, and
// a step that fails leaves everything as it was. It is called once, before
// anything but Check is. Errors: as Open; Conflict when a step would lock out a
// process that still runs.
func (s *Store) Upgrade(ctx context.Context) error {
	if !s.opened.KeepSchema {
		return nil
	}
	dsn, err := connector(s.path, false)
	if err != nil {
		return s.classify(err)
	}
	c, err := openConn(dsn)
	if err != nil {
		return s.classify(err)
	}
	s.schema, err = upgrade(ctx, c, s.opened)
	if cerr := c.close(); err == nil {
		err = cerr
	}
	if err != nil {
		return s.classify(err)
	}
	s.indexer.start()
	return nil
}
