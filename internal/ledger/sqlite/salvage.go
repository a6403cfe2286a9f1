package sqlite

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	sqlite3 "modernc.org/sqlite/lib"

	"hermes/internal/domain"
	"hermes/internal/ledger"
	"hermes/internal/plain"
)

// A ledger with damaged pages is not given up: what can be read of it is copied,
// table by table, into a new file that then takes its place, and the damaged one
// is kept beside it. The new file is whole before anything is renamed, so that a
// crash at any instant leaves either the damaged ledger or the new one.

// salvageNote is the note under which a ledger tells of what it was made from.
const salvageNote = "ledger.salvaged"

// isDamaged tells that SQLite found pages that contradict each other.
func isDamaged(err error) bool { return resultCode(err)&0xff == sqlite3.SQLITE_CORRUPT }

func salvagePath(ledger string) string { return ledger + ".salvage" }

// DamageMark is a file that says that a process met damage; the next start looks
// at the whole ledger then, which it otherwise has no time for.
func DamageMark(ledger string) string { return filepath.Join(runDir(ledger), "damaged") }

// suspect tells whether a process before this one met damage, and there is some.
func suspect(o Options) bool {
	if _, err := os.Stat(DamageMark(o.Path)); err != nil {
		return false
	}
	if damagedFile(o.Path) {
		return true
	}
	_ = os.Remove(DamageMark(o.Path)) // a disk's passing fault
	return false
}

// damagedFile looks at every page of a file.
func damagedFile(path string) bool {
	c, err := openReader(path)
	if err != nil {
		return isDamaged(err)
	}
	defer func() { _ = c.close() }() // nothing was written
	found := ""
	if _, err := c.one("PRAGMA quick_check(1)", nil, &found); err != nil {
		return isDamaged(err)
	}
	return found != "ok"
}

func openReader(path string) (*conn, error) {
	dsn, err := connector(path, true)
	if err != nil {
		return nil, err
	}
	return openConn(dsn)
}

// salvage puts a new ledger with everything that can be read in the place of a
// damaged one. Errors: Unavailable while another process has the ledger open.
func salvage(ctx context.Context, o Options) error {
	lock, err := waitLock(ctx, filepath.Join(runDir(o.Path), "aside.lock"))
	if err != nil {
		return err
	}
	defer lock.Close()
	if !damagedFile(o.Path) {
		return nil // another process was faster, or the disk is well again
	}
	if pid, found := anybodyElse(runDir(o.Path)); found {
		return domain.E(domain.Unavailable, nil, "the ledger %s is damaged, and another process (%s) has it open; what can be read is saved as soon as that one has ended", o.Path, pid)
	}
	s := interrupted(o)
	if s == nil {
		kept, err := freeName(o.Path + ".damaged-" + o.Now().UTC().Format("20060102T150405Z"))
		if err != nil {
			return err
		}
		o.Log.Error("the ledger is damaged; what can be read of it is moved into a new one", "component", "ledger", "kept", kept)
		if s, err = rebuild(ctx, o, kept); err != nil {
			return err
		}
	}
	if err := moveAside(o.Path, s.Kept); err != nil {
		return err
	}
	if err := os.Rename(salvagePath(o.Path), o.Path); err != nil {
		return err
	}
	_ = os.Remove(DamageMark(o.Path)) // it would cost the next start a look
	o.Log.Error("a new ledger stands in the place of the damaged one", "component", "ledger", "rows", s.Rows, "incomplete", s.Lost, "kept", s.Kept)
	return nil
}

// anybodyElse finds a process that is registered and alive, by its lock.
func anybodyElse(dir string) (pid string, found bool) {
	names, _ := filepath.Glob(filepath.Join(dir, "process-*.lock"))
	for _, n := range names {
		f, err := plain.Open(n)
		if err != nil {
			continue
		}
		held := syscall.Flock(int(f.Fd()), syscall.LOCK_SH|syscall.LOCK_NB) != nil
		text := make([]byte, 16)
		k, _ := f.Read(text)
		f.Close()
		if held {
			return "PID " + strings.TrimSpace(string(text[:k])), true
		}
	}
	return "", false
}

// finishSalvage puts a new ledger in place that was whole when a crash came
// between the two renames.
func finishSalvage(o Options) error {
	if _, err := os.Stat(o.Path); !errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if salvaged(salvagePath(o.Path)) == nil {
		return nil
	}
	return os.Rename(salvagePath(o.Path), o.Path)
}

// interrupted finds a new ledger that was whole when a crash came while the
// damaged one was renamed, its log first: what is left under its name knows less.
func interrupted(o Options) *ledger.Salvage {
	s := salvaged(salvagePath(o.Path))
	if s == nil {
		return nil
	}
	if _, err := os.Stat(s.Kept + "-wal"); err != nil {
		return nil
	}
	return s
}

// salvaged reads what a new ledger says of itself, nil where it was not finished.
func salvaged(path string) *ledger.Salvage {
	if _, err := os.Stat(path); err != nil {
		return nil
	}
	c, err := openReader(path)
	if err != nil {
		return nil
	}
	defer func() { _ = c.close() }() // nothing was written
	found, _ := salvageOf(c)         // one that cannot be read was not finished
	return found
}

// salvageOf reads what a ledger says of its making, nil when it was never
// salvaged.
func salvageOf(c *conn) (*ledger.Salvage, error) {
	text := ""
	if found, err := c.one(`SELECT value FROM note WHERE key = ?`, []any{salvageNote}, &text); err != nil || !found {
		return nil, err
	}
	s := &ledger.Salvage{}
	if err := json.Unmarshal([]byte(text), s); err != nil {
		return nil, fmt.Errorf("note %s: %w", salvageNote, err)
	}
	return s, nil
}

// Salvaged tells of what the ledger was made from after damage, nil for none.
func (s *Store) Salvaged(ctx context.Context) (found *ledger.Salvage, err error) {
	err = s.read(ctx, func(c *conn) (err error) {
		found, err = salvageOf(c)
		return err
	})
	return found, err
}

// SalvageTold notes that people were told of a salvage, once.
func (s *Store) SalvageTold(ctx context.Context) error {
	return writeOnly(ctx, s, essential, func(c *conn) error {
		found, err := salvageOf(c)
		if err != nil || found == nil {
			return err
		}
		found.Told = true
		text, _ := json.Marshal(found) // plain values
		_, err = c.exec(`UPDATE note SET value = ? WHERE key = ?`, string(text), salvageNote)
		return err
	})
}

// rebuild makes the new ledger beside the damaged one, in one transaction.
func rebuild(ctx context.Context, o Options, kept string) (*ledger.Salvage, error) {
	path := salvagePath(o.Path)
	s := &ledger.Salvage{At: o.Now().UTC(), Kept: kept}
	for _, suffix := range []string{"-wal", "-shm", ""} { // of an attempt that did not end
		if err := os.Remove(path + suffix); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return s, err
		}
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	if err != nil {
		return s, err
	}
	f.Close()
	from, err := openReader(o.Path)
	switch {
	case err == nil:
		defer func() { _ = from.close() }() // nothing was written
	case !isDamaged(err):
		return s, err
	}
	dsn, err := connector(path, false)
	if err != nil {
		return s, err
	}
	to, err := openConn(dsn)
	if err != nil {
		return s, err
	}
	fresh := o
	fresh.Path, fresh.KeepSchema = path, false
	if _, err = upgrade(ctx, to, fresh); err == nil {
		err = fillFrom(ctx, from, to, s)
	}
	return s, errors.Join(err, to.close()) // which takes the log into the file
}

// fillFrom copies what can be read, and notes what was done, all or nothing.
// from is nil where not even the list of tables can be read.
func fillFrom(ctx context.Context, from, to *conn, s *ledger.Salvage) error {
	if _, err := to.exec("BEGIN IMMEDIATE"); err != nil {
		return err
	}
	var tables []string
	err := to.each(`SELECT name FROM pragma_table_list WHERE schema = 'main' AND type = 'table' AND name NOT LIKE 'sqlite_%' ORDER BY name`, nil, func(r row) error {
		var name string
		err := r.scan(&name)
		tables = append(tables, name)
		return err
	})
	for _, t := range tables {
		if err != nil || t == "meta" { // which tells of the file itself
			continue
		}
		var whole bool
		var n int
		if n, whole, err = copyTable(ctx, from, to, t); !whole {
			s.Lost = append(s.Lost, t)
		}
		s.Rows += n
	}
	if err == nil {
		err = freeOrphans(to)
	}
	if err == nil {
		text, _ := json.Marshal(s) // plain values
		_, err = to.exec(`INSERT INTO note (key, value) VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value`, salvageNote, string(text))
	}
	if err == nil {
		_, err = to.exec("COMMIT")
	}
	if err != nil {
		_, _ = to.exec("ROLLBACK") // the error that matters is err
	}
	return err
}

// freeOrphans makes up the processes that rows say hold them and that could not
// be read, so that Recover takes those rows over as it does after a crash.
func freeOrphans(c *conn) error {
	for _, table := range []string{"turn", "run", "delivery", "lease"} {
		_, err := c.exec(`INSERT OR IGNORE INTO process (id, boot_id, pid, start_time, kind, since)
			SELECT DISTINCT process, '', 0, 0, 'lost', 0 FROM ` + table + ` WHERE process IS NOT NULL`)
		if err != nil {
			return err
		}
	}
	return nil
}

// sharedColumns are those of a table that both files have.
func sharedColumns(from, to *conn, table string) (names []string, rowid bool, err error) {
	columns := func(c *conn) (out []string, err error) {
		err = c.each(`SELECT name FROM pragma_table_info(?)`, []any{table}, func(r row) error {
			var n string
			err := r.scan(&n)
			out = append(out, n)
			return err
		})
		return out, err
	}
	old, err := columns(from)
	if err != nil {
		return nil, false, err
	}
	new, err := columns(to)
	if err != nil {
		return nil, false, err
	}
	_, err = to.one(`SELECT NOT wr FROM pragma_table_list WHERE schema = 'main' AND name = ?`, []any{table}, &rowid)
	return slices.DeleteFunc(new, func(n string) bool { return !slices.Contains(old, n) }), rowid, err
}

// copyTable copies the rows of a table that can be read. whole is false when
// some could not. An error is one of the new ledger.
func copyTable(ctx context.Context, from, to *conn, table string) (n int, whole bool, err error) {
	if from == nil {
		return 0, false, nil
	}
	names, byRow, err := sharedColumns(from, to, table)
	if isDamaged(err) || err == nil && len(names) == 0 {
		return 0, false, nil
	}
	if err != nil {
		return 0, false, err
	}
	list := `"` + strings.Join(names, `", "`) + `"`
	insert := fmt.Sprintf(`INSERT OR IGNORE INTO %s (%s) VALUES (%s)`, table, list, strings.TrimSuffix(strings.Repeat("?, ", len(names)), ", "))
	keep := func(values row) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		args := make([]any, len(values))
		for i, v := range values {
			switch v := v.(type) {
			case nil, int64, string, []byte:
				args[i] = v
			default:
				args[i] = fmt.Sprint(v) // no column holds such; the page lies
			}
		}
		k, err := to.exec(insert, args...)
		n += int(k)
		return err
	}
	if !byRow {
		whole, err = copyKeyed(from, table, list, keep)
		return n, whole, err
	}
	whole, err = copyRows(from, table, list, keep)
	return n, whole, err
}

// mostSteps bounds the search for readable rows behind a damaged page.
const mostSteps = 64

// copyRows reads by row id, and behind a page that cannot be read goes on from
// ever further away, until rows appear again.
func copyRows(from *conn, table, list string, keep func(row) error) (whole bool, err error) {
	next, step, whole := int64(-1<<62), int64(1), true
	for steps := 0; steps < mostSteps; steps++ {
		var kept error
		read := from.each(`SELECT rowid, `+list+` FROM `+table+` WHERE rowid >= ? ORDER BY rowid`, []any{next}, func(r row) error {
			id, _ := r[0].(int64)
			if kept = keep(r[1:]); kept == nil {
				next, step, steps = id+1, 1, 0
			}
			return kept
		})
		if kept != nil {
			return false, kept
		}
		if read == nil {
			return whole, nil
		}
		if next < 0 {
			next = 0 // not even the first could be read
		}
		whole = false
		next += step
		step *= 2
	}
	return false, nil
}

// copyKeyed reads a table without row ids from both ends.
func copyKeyed(from *conn, table, list string, keep func(row) error) (whole bool, err error) {
	for _, order := range []string{"", " DESC"} {
		var kept error
		read := from.each(`SELECT `+list+` FROM `+table+` ORDER BY 1`+order, nil, func(r row) error {
			kept = keep(r)
			return kept
		})
		if kept != nil {
			return false, kept
		}
		if read == nil {
			return order == "", nil
		}
	}
	return false, nil
}
