package handover

import (
	"context"
	"database/sql"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	_ "modernc.org/sqlite" // the driver

	"hermes/internal/failpoint"
	"hermes/testkit/rig"
)

// Where a release keeps its schema.
const (
	migrationsDir = "internal/ledger/sqlite/migrations"
	inboxSource   = "internal/ledger/sqlite/inbox.go"
)

// releases builds programs of other releases. Each brings a migration, and the
// first a statement that needs it: it marks every message that it accepts.
type releases struct {
	dir  string
	head int               // the schema of the present program
	next map[string]string // what the release after it changed
}

func newReleases(t *testing.T) *releases {
	t.Helper()
	r := &releases{dir: t.TempDir()}
	ctx := t.Context()
	for {
		names, err := filepath.Glob(filepath.Join("../..", migrationsDir, fmt.Sprintf("%04d_*.sql", r.head+1)))
		if err != nil {
			t.Fatal(err)
		}
		if len(names) == 0 {
			break
		}
		r.head++
	}
	inbox, err := rig.Source(ctx, inboxSource)
	if err != nil {
		t.Fatal(err)
	}
	const list = "received_at, ended_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
	marked := strings.Replace(inbox, list, strings.NewReplacer("ended_at)", "ended_at, next_mark)", "?)", "?, 'marked')").Replace(list), 1)
	if marked == inbox {
		t.Fatal("the statement that accepts a message has changed; change this test with it")
	}
	r.next = map[string]string{
		inboxSource: marked,
		r.migration(1): `ALTER TABLE inbound ADD COLUMN next_mark TEXT; CREATE TABLE next_thing (id INTEGER PRIMARY KEY, what TEXT NOT NULL);
			CREATE INDEX next_marked ON inbound (next_mark) WHERE next_mark IS NOT NULL; INSERT INTO next_thing (what) SELECT state FROM inbound;`,
	}
	return r
}

// migration is the path of the n-th migration after those of the present program.
func (r *releases) migration(n int) string {
	return fmt.Sprintf("%s/%04d_later.sql", migrationsDir, r.head+n)
}

// build makes the program of a release that changes what the next one changed,
// and what is given here.
func (r *releases) build(t *testing.T, version, tags string, changed map[string]string) string {
	t.Helper()
	all := maps.Clone(r.next)
	maps.Copy(all, changed)
	b, err := rig.BuildOther(context.Background(), r.dir, version, tags, all)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// become puts another program where the home's program is, as an update does.
func (w *world) become(program string) {
	w.t.Helper()
	tmp := w.home.Binary + ".new"
	in, err := os.Open(program)
	if err != nil {
		w.t.Fatal(err)
	}
	defer in.Close()
	out, err := os.OpenFile(tmp, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o755)
	if err != nil {
		w.t.Fatal(err)
	}
	if _, err = io.Copy(out, in); err == nil {
		err = out.Close()
	}
	if err == nil {
		err = os.Rename(tmp, w.home.Binary)
	}
	if err != nil {
		w.t.Fatal(err)
	}
}

// ask asks the ledger's file a question that has one answer.
func (w *world) ask(q string) (answer string) {
	w.t.Helper()
	db, err := sql.Open("sqlite", "file:"+filepath.Join(w.home.Dir, "ledger.db")+"?_pragma=busy_timeout(10000)&mode=ro")
	if err != nil {
		w.t.Fatal(err)
	}
	defer db.Close()
	if err := db.QueryRow(q).Scan(&answer); err != nil {
		w.t.Fatalf("%s: %v", q, err)
	}
	return answer
}

// refused asks for a restart that must not happen, and gives what was said.
func (w *world) refused(reason string) {
	w.t.Helper()
	before := w.serving()
	ctx, cancel := rig.Deadline(stepLimit)
	defer cancel()
	out, err := w.home.Run(ctx, "gateway", "restart")
	if err == nil || !strings.Contains(out, reason) {
		w.t.Errorf("restart: %v, want %q\n%s", err, reason, out)
	}
	if after := w.serving(); after.PID != before.PID || !after.StartedAt.Equal(before.StartedAt) {
		w.t.Errorf("PID %d served, now %d does", before.PID, after.PID)
	}
}

// TestReleasesUnderLoad replaces the program by that of the next release and
// back, and by some that cannot take over, while people write and programs ask:
// whoever serves can use the ledger, nothing is lost and nothing doubled.
func TestReleasesUnderLoad(t *testing.T) {
	r := newReleases(t)
	present := binary(t, "")
	later := r.build(t, "later", "", nil)
	broken := r.build(t, "broken", "", map[string]string{r.migration(2): "CREATE TABLE half (a); INSERT INTO nowhere VALUES (1);"})
	narrow := r.build(t, "narrow", "", map[string]string{r.migration(2): fmt.Sprintf("UPDATE meta SET value = '%d' WHERE key = 'oldest_reader';", r.head+2)})
	for _, mode := range []string{"overlap", "exec"} {
		t.Run(mode, func(t *testing.T) {
			w := newWorldOf(t, mode, ownCopy(t, present))
			schema := func(want int) {
				t.Helper()
				if got := w.ask("PRAGMA user_version"); got != fmt.Sprint(want) {
					t.Errorf("the ledger has schema %s, want %d", got, want)
				}
			}
			l := startLoad(w)
			l.goOn()
			moves := func(program, version string) {
				t.Helper()
				w.become(program)
				w.restart()
				if got := w.serving().Version; got != version {
					t.Fatalf("version %s serves, want %s", got, version)
				}
				l.goOn()
			}
			if mode == "overlap" {
				w.become(broken) // its first migration is the next release's, its second fails
				w.refused("could not be brought to schema")
				l.goOn()
				schema(r.head)
			}
			moves(later, "later")
			schema(r.head + 1)
			if n := w.ask("SELECT count(*) > 0 FROM inbound WHERE next_mark = 'marked'"); n != "1" {
				t.Error("the next release marked nothing")
			}
			moves(present, "test") // back
			schema(r.head + 1)
			if mode == "overlap" {
				w.become(narrow)
				w.refused("cannot be used by the gateway")
				l.goOn()
				schema(r.head + 1)
			}
			moves(later, "later")
			l.finish()
			if _, err := os.Stat(filepath.Join(w.home.Dir, fmt.Sprintf("ledger.db.schema-%d", r.head))); err != nil {
				t.Errorf("the copy from before the upgrade: %v", err)
			}
			w.until("the others have left", func() bool { return len(w.alive()) == 1 })
		})
	}
}

// A successor that dies after it has upgraded the ledger leaves it to a
// predecessor that never saw that schema.
func TestSuccessorDiesAfterTheUpgrade(t *testing.T) {
	r := newReleases(t)
	w := newWorldOf(t, "overlap", ownCopy(t, binary(t, "")), "HERMES_FAILPOINT="+failpoint.SuccessorServes)
	ann := w.tg.AddUser("Ann")
	w.become(r.build(t, "later", "failpoint", nil))
	w.refused("ended before it could serve")
	if got := w.ask("PRAGMA user_version"); got != fmt.Sprint(r.head+1) {
		t.Errorf("the ledger has schema %s, want %d", got, r.head+1)
	}
	if err := w.converse(ann, "d1"); err != nil {
		t.Fatal(err)
	}
	w.become(r.build(t, "later", "", nil))
	w.restart()
	if err := w.converse(ann, "d2"); err != nil {
		t.Fatal(err)
	}
}

// A program that is too old for the ledger says so and changes nothing.
func TestProgramTooOldForTheLedger(t *testing.T) {
	r := newReleases(t)
	w := newWorldOf(t, "overlap", ownCopy(t, r.build(t, "narrow", "", map[string]string{
		r.migration(2): fmt.Sprintf("UPDATE meta SET value = '%d' WHERE key = 'oldest_reader';", r.head+2),
	})))
	ann := w.tg.AddUser("Ann")
	if err := w.converse(ann, "n1"); err != nil {
		t.Fatal(err)
	}
	w.become(binary(t, ""))
	w.refused("too old for the ledger")
	if err := w.converse(ann, "n2"); err != nil {
		t.Fatal(err)
	}
}

// ownCopy is a program at a place of its own, so that it can be replaced.
func ownCopy(t *testing.T, program string) string {
	t.Helper()
	w := &world{t: t, home: &rig.Home{Binary: filepath.Join(t.TempDir(), "hermes")}}
	w.become(program)
	return w.home.Binary
}
