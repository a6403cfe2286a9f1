// Package migrate moves a profile in from the Python system that hermes
// succeeds: its files, the people whom it knows, its jobs, sessions and
// messages.
//
// The old home is only read. Often it is the new one as well: then its files
// serve where they are, and only what that system kept in its own stores is
// taken into the ledger. What was brought is written to migration.json before it
// is brought, so that a run that was cut off at any point is completed by the
// next, and Undo takes away exactly what came.
package migrate

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"hermes/internal/cron"
	"hermes/internal/domain"
	"hermes/internal/home"
	"hermes/internal/ledger"
	"hermes/internal/plain"
)

// Ledger is the part of the durable store that things are moved into.
type Ledger interface {
	ledger.MoveIn
	ledger.Pairings
	ledger.Notes
	cron.Store
}

// Options say what is moved, and where to.
type Options struct {
	From, To home.Profile // the same home, or two
	Ledger   Ledger       // To's
	// Jobs makes what imports jobs, with the configuration that To has by then.
	Jobs   func(store cron.Store) (*cron.Service, error)
	Getenv func(string) string
	Now    func() time.Time // nil means time.Now
	// Progress is told from time to time how many messages were taken; nil
	// tells nobody.
	Progress func(messages int64)
	// DryRun changes nothing.
	DryRun bool
}

// State says what became of a thing.
type State string

// The states.
const (
	Taken  State = "taken"  // brought over, now or by an earlier run
	Used   State = "used"   // serves where it is
	Left   State = "left"   // not brought over, on purpose
	Failed State = "failed" // could not be brought over
)

// Item is one thing of the old home.
type Item struct {
	What  string `json:"what"`
	State State  `json:"state"`
	Count int64  `json:"count,omitempty"`
	Why   string `json:"why,omitempty"`
}

// Report is what became of an old home.
type Report struct {
	At      time.Time `json:"at"`
	Profile string    `json:"profile"`
	From    string    `json:"from"`
	To      string    `json:"to"`
	DryRun  bool      `json:"dry_run"`
	Done    bool      `json:"done"` // false while it goes on, and after it was cut off
	Items   []Item    `json:"items"`
}

// Failures counts what could not be brought over.
func (r Report) Failures() (n int) {
	for _, i := range r.Items {
		if i.State == Failed {
			n++
		}
	}
	return n
}

func (r *Report) add(what string, s State, count int64, why string, args ...any) {
	r.Items = append(r.Items, Item{what, s, count, fmt.Sprintf(why, args...)})
}

// move is one run.
type move struct {
	Options
	record record
	report Report
}

// Run moves a profile in and reports on it. What cannot be brought over stands
// in the report and does not hinder the rest. Errors: NotFound, when there is no
// old home; Conflict, when the old system still serves it or another run goes
// on; Cancelled; what the ledger answers.
func Run(ctx context.Context, o Options) (Report, error) {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Progress == nil {
		o.Progress = func(int64) {}
	}
	m := &move{Options: o, report: Report{At: o.Now().UTC(), Profile: o.To.Name, From: o.From.Home, To: o.To.Home, DryRun: o.DryRun}}
	if st, err := os.Stat(o.From.Home); err != nil || !st.IsDir() {
		return m.report, domain.E(domain.NotFound, err, "there is no folder %s to move in from; name one with --from", o.From.Home)
	}
	if p, found := Serving(o.From, o.Getenv); found {
		if !o.DryRun {
			return m.report, domain.E(domain.Conflict, nil, "the old system still runs: %s. Stop it first, since what it writes from now on would be missed and two would answer on one token. Nothing was changed", p)
		}
		m.report.add("running process", Left, 0, "%s. Stop it before the move; nothing is started beside it", p)
	}
	if !o.DryRun {
		unlock, err := lock(o.To)
		if err != nil {
			return m.report, err
		}
		defer unlock()
		dropRemains(o.To)
		if m.record, err = readRecord(o.To); err != nil {
			return m.report, err
		}
	}
	for _, step := range []func(context.Context) error{m.files, m.people, m.jobs, m.sessions, m.leftovers} {
		if err := step(ctx); err != nil {
			return m.report, err
		}
	}
	m.report.Done = true
	if o.DryRun {
		return m.report, nil
	}
	return m.report, m.save()
}

// scratchDir is where a second name of an old store lies while it is read.
var scratchDir = []string{"run", "migrate"}

// dropRemains removes what a run left that was cut off. It costs space only, so
// that it does not matter where it cannot be removed.
func dropRemains(p home.Profile) {
	_ = os.RemoveAll(p.Path(scratchDir...))
	halves, _ := filepath.Glob(p.Path("." + RecordFile + ".*.tmp"))
	for _, path := range halves {
		_ = os.Remove(path)
	}
}

// lock keeps two runs for one profile apart.
func lock(p home.Profile) (unlock func(), err error) {
	if err := os.MkdirAll(p.Path("run"), 0o700); err != nil {
		return nil, domain.E(domain.Unavailable, err, "the folder %s cannot be made", p.Path("run"))
	}
	path := p.Path("run", "migrate.lock")
	f, err := plain.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, domain.E(domain.Unavailable, err, "%s cannot be opened", path)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		f.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, domain.E(domain.Conflict, nil, "another `hermes migrate` works on this profile; wait until it has ended")
		}
		return nil, domain.E(domain.Unavailable, err, "%s cannot be locked", path)
	}
	return func() { f.Close() }, nil
}

// sameHome tells whether the profile stays where it is.
func (m *move) sameHome() bool {
	a, errA := os.Stat(m.From.Home)
	b, errB := os.Stat(m.To.Home)
	return errA == nil && errB == nil && os.SameFile(a, b)
}

// unreadable explains why a file cannot be read.
func unreadable(path string, err error) string {
	if errors.Is(err, fs.ErrPermission) {
		if st, serr := os.Lstat(path); serr == nil {
			if sys, ok := st.Sys().(*syscall.Stat_t); ok {
				return fmt.Sprintf("it belongs to user %d with mode %04o, and cannot be read by user %d; mend its owner and run this again", sys.Uid, st.Mode().Perm(), os.Geteuid())
			}
		}
	}
	return "it cannot be read: " + err.Error()
}

// leftBehind are the stores and folders that are not brought over, and why.
var leftBehind = [][2]string{
	{"kanban.db", "the board is no part of this gateway"},
	{"response_store.db", "answers stored for /v1/responses live for hours only; clients ask anew"},
	{"hooks", "event hooks are Python; webhooks and jobs with scripts do the same"},
	{"plugins", "plugins are Python"},
	{"checkpoints", "file checkpoints belong to the old system's tools"},
	{"state-snapshots", "snapshots of the old system can only be read by it"},
	{"processes.json", "its background processes ended with it"},
	{"cron/executions.db", "the history of earlier runs stays readable there; new runs are kept in the ledger"},
	{"cron/runtime.db", "the scheduler's own state; each job's next time is worked out anew"},
}

func (m *move) leftovers(context.Context) error {
	for _, l := range leftBehind {
		if _, err := os.Lstat(filepath.Join(m.From.Home, l[0])); err == nil {
			m.report.add(l[0], Left, 0, "%s", l[1])
		}
	}
	return nil
}
