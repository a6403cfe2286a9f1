package migrate_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"hermes/internal/cron"
	"hermes/internal/domain"
	"hermes/internal/home"
	"hermes/internal/ledger"
	"hermes/internal/ledger/sqlite"
	"hermes/internal/migrate"
	"hermes/testkit/oldhome"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv("MIGRATE_UNTIL_KILLED"); dir != "" {
		runUntilKilled(dir)
		return
	}
	goleak.VerifyTestMain(m)
}

// ours is what the new system makes in a home.
var ours = []string{"ledger.db", "run/", migrate.RecordFile}

func build(t *testing.T, o oldhome.Options) home.Profile {
	t.Helper()
	dir := t.TempDir()
	if err := oldhome.Build(dir, o); err != nil {
		t.Fatal(err)
	}
	return home.Profile{Name: home.DefaultProfile, Root: dir, Home: dir}
}

func openLedger(t *testing.T, p home.Profile) *sqlite.Store {
	t.Helper()
	s, err := sqlite.Open(t.Context(), sqlite.Options{Path: p.LedgerFile(), Kind: "cli"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func options(from, to home.Profile, s *sqlite.Store) migrate.Options {
	return migrate.Options{From: from, To: to, Ledger: s, Getenv: func(string) string { return "" },
		Jobs: func(store cron.Store) (*cron.Service, error) {
			return cron.NewService(cron.ServiceOptions{Store: store, Home: to.Home}), nil
		}}
}

func run(t *testing.T, o migrate.Options) migrate.Report {
	t.Helper()
	r, err := migrate.Run(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// counts gives "state what" → count of a report.
func counts(r migrate.Report) map[string]int64 {
	out := map[string]int64{}
	for _, i := range r.Items {
		out[string(i.State)+" "+i.What] += i.Count
	}
	return out
}

func fingerprint(t *testing.T, dir string, except ...string) map[string]string {
	t.Helper()
	f, err := oldhome.Fingerprint(dir, except...)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func history(t *testing.T, s *sqlite.Store, id domain.SessionID) (out []string) {
	t.Helper()
	ms, err := s.History(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range ms {
		line := string(m.Role) + ": " + m.Content
		for _, c := range m.ToolCalls {
			line += c.Name + c.Arguments
		}
		out = append(out, line)
	}
	return out
}

func TestEveryEraMovesIn(t *testing.T) {
	for name, o := range map[string]oldhome.Options{
		"early": {Era: oldhome.Early}, "middle": {Era: oldhome.Middle}, "middle, killed": {Era: oldhome.Middle, OpenLog: true},
		"late": {Era: oldhome.Late}, "late, killed": {Era: oldhome.Late, OpenLog: true},
	} {
		for _, elsewhere := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, elsewhere %v", name, elsewhere), func(t *testing.T) {
				from := build(t, o)
				to := from
				if elsewhere {
					dir := t.TempDir()
					to = home.Profile{Name: home.DefaultProfile, Root: dir, Home: dir}
				}
				before := fingerprint(t, from.Home)
				s := openLedger(t, to)
				dry := options(from, to, s)
				dry.DryRun = true
				foretold := run(t, dry)
				if _, err := os.Stat(to.Path(migrate.RecordFile)); err == nil {
					t.Error("a dry run left a record")
				}
				r := run(t, options(from, to, s))
				if r.Failures() > 0 {
					t.Errorf("failed: %+v", r.Items)
				}
				if diff := cmp.Diff(before, fingerprint(t, from.Home, ours...)); diff != "" {
					t.Errorf("the old files changed: %s", diff)
				}
				got, told := counts(r), counts(foretold)
				for _, what := range []string{"taken sessions", "taken jobs", "taken people who may talk"} {
					if got[what] == 0 || got[what] != told[what] {
						t.Errorf("%s: %d, foretold %d", what, got[what], told[what])
					}
				}
				want := []string{"user: see this\n[image]", `assistant: terminal{"command":"ls"}`, "tool: a.txt", "assistant: one file, and tea"}
				if diff := cmp.Diff(want, history(t, s, oldhome.Chat)); diff != "" {
					t.Error(diff)
				}
				current, err := s.CurrentSession(t.Context(), oldhome.ChatKey)
				if err != nil || current.ID != oldhome.Chat || current.MessageCount != 4 || current.Parent != oldhome.Older {
					t.Errorf("current session %+v, %v", current, err)
				}
				if older, err := s.Session(t.Context(), oldhome.Older); err != nil || older.Key != oldhome.ChatKey {
					t.Errorf("the session that it continues: %+v, %v", older, err)
				}
				if hits, err := s.Search(t.Context(), "tea", 0); err != nil || len(hits) != 2 {
					t.Errorf("search: %d hits, %v", len(hits), err)
				}
				people, err := s.ListPairings(t.Context(), "")
				if err != nil || len(people) != 1 || people[0].UserID != "4711" || people[0].ApprovedAt.UnixMilli() != 1780000000500 {
					t.Errorf("people %+v, %v", people, err)
				}
				if elsewhere {
					for _, rel := range []string{".env", "memories/MEMORY.md", "skills/brew/SKILL.md"} {
						if st, err := os.Stat(to.Path(rel)); err != nil || st.Mode().Perm() != 0o600 {
							t.Errorf("%s: %v, %v", rel, st, err)
						}
					}
				}
				again := run(t, options(from, to, s))
				if diff := cmp.Diff(counts(r)["taken jobs"], counts(again)["taken jobs"]); diff != "" {
					t.Error(diff)
				}
				if n := len(history(t, s, oldhome.Chat)); n != 4 {
					t.Errorf("%d messages after a second run", n)
				}
				if jobs, err := s.ListJobs(t.Context(), ledger.JobFilter{}); err != nil || len(jobs) != 2 {
					t.Errorf("%d jobs after a second run, %v", len(jobs), err)
				}
			})
		}
	}
}

func TestTranscriptsAsFiles(t *testing.T) {
	p := build(t, oldhome.Options{Era: oldhome.Files})
	s := openLedger(t, p)
	r := run(t, options(p, p, s))
	if got := counts(r); got["taken sessions kept as files"] != 1 || got["left messages kept in files"] != 2 {
		t.Errorf("%+v", r.Items)
	}
	if diff := cmp.Diff([]string{"user: hello tea", "assistant: hello Ann"}, history(t, s, oldhome.Chat)); diff != "" {
		t.Error(diff)
	}
	run(t, options(p, p, s))
	if n := len(history(t, s, oldhome.Chat)); n != 2 {
		t.Errorf("%d messages after a second run", n)
	}
}

func TestUndoTakesAwayWhatCame(t *testing.T) {
	from := build(t, oldhome.Options{Era: oldhome.Late, Sessions: 3, PerSession: 2})
	dir := t.TempDir()
	to := home.Profile{Name: home.DefaultProfile, Root: dir, Home: dir}
	if err := os.WriteFile(to.Path("SOUL.md"), []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	s := openLedger(t, to)
	before := fingerprint(t, dir, ours...)
	if r := run(t, options(from, to, s)); counts(r)["left SOUL.md"] != 1 {
		t.Errorf("%+v", r.Items)
	}
	// One session goes on, and one file is edited.
	if err := os.WriteFile(to.Path("memories/USER.md"), []byte("Ann, again"), 0o600); err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	c, err := s.StartTurn(t.Context(), ledger.NewTurn{Kind: domain.TurnAPI, SessionKey: oldhome.ChatKey, SessionID: oldhome.Chat}, now)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.FinishTurn(t.Context(), c.Ref(), ledger.Finish{State: domain.TurnDone, Now: now, Messages: []domain.Message{{Role: domain.RoleUser, Content: "on"}}}); err != nil {
		t.Fatal(err)
	}
	again := run(t, options(from, to, s))
	if n := len(history(t, s, oldhome.Chat)); n != 5 {
		t.Errorf("%d messages in the session that went on: %+v", n, again.Items)
	}
	r, err := migrate.Undo(t.Context(), options(to, to, s))
	if err != nil {
		t.Fatal(err)
	}
	got := counts(r)
	if got["removed sessions"] != 4 || got["left sessions"] != 1 || got["removed people"] != 1 || got["removed jobs"] != 2 || got["left files"] != 1 {
		t.Errorf("undo: %+v", r.Items)
	}
	if diff := cmp.Diff(before, fingerprint(t, dir, append(ours, "memories/USER.md")...)); diff != "" {
		t.Error(diff)
	}
	if _, err := migrate.Undo(t.Context(), options(to, to, s)); !domain.IsCode(err, domain.NotFound) {
		t.Errorf("a second undo: %v", err)
	}
}

func TestBrokenHomes(t *testing.T) {
	item := func(r migrate.Report, what string) migrate.Item {
		for _, i := range r.Items {
			if i.What == what && i.State == migrate.Failed {
				return i
			}
		}
		return migrate.Item{}
	}
	for name, c := range map[string]struct {
		harm   func(dir string) error
		failed string // the item
		why    string // part of the reason
	}{
		"half a jobs.json":    {func(d string) error { return os.Truncate(filepath.Join(d, "cron/jobs.json"), 100) }, "cron/jobs.json", "no jobs.json"},
		"half a pairing file": {func(d string) error { return os.Truncate(filepath.Join(d, "pairing/telegram-approved.json"), 10) }, "pairing/telegram-approved.json", "cannot be read"},
		"half an index":       {func(d string) error { return os.Truncate(filepath.Join(d, "sessions/sessions.json"), 10) }, "sessions/sessions.json", "begin new ones"},
		"no database": {func(d string) error {
			return os.WriteFile(filepath.Join(d, "state.db"), []byte(strings.Repeat("no database ", 500)), 0o600)
		}, "state.db", "no SQLite database"},
		"an empty database": {func(d string) error { return os.Truncate(filepath.Join(d, "state.db"), 0) }, "state.db", "no SQLite database"},
		"a config that is a folder": {func(d string) error {
			return errors.Join(os.Remove(filepath.Join(d, "SOUL.md")), os.Symlink("SOUL.md", filepath.Join(d, "SOUL.md")))
		}, "SOUL.md", "cannot be read"},
	} {
		t.Run(name, func(t *testing.T) {
			p := build(t, oldhome.Options{Era: oldhome.Middle})
			if err := c.harm(p.Home); err != nil {
				t.Fatal(err)
			}
			r := run(t, options(p, p, openLedger(t, p)))
			if got := item(r, c.failed); !strings.Contains(got.Why, c.why) {
				t.Errorf("%+v", r.Items)
			}
			if r.Failures() != 1 || !r.Done {
				t.Errorf("%d failures, done %v: %+v", r.Failures(), r.Done, r.Items)
			}
		})
	}
}

func TestAStoreWithADoubledIndexIsRead(t *testing.T) {
	p := build(t, oldhome.Options{Era: oldhome.Middle})
	if err := oldhome.DoubleIndex(p.Home); err != nil {
		t.Fatal(err)
	}
	s := openLedger(t, p)
	if r := run(t, options(p, p, s)); r.Failures() > 0 || len(history(t, s, oldhome.Chat)) != 4 {
		t.Errorf("%+v", r.Items)
	}
}

func TestADamagedPageCostsItsMessagesOnly(t *testing.T) {
	p := build(t, oldhome.Options{Era: oldhome.Early, Sessions: 20, PerSession: 100})
	path := p.Path("state.db")
	st, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt(make([]byte, 4096), st.Size()/4096/2*4096); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	r := run(t, options(p, p, openLedger(t, p)))
	got := counts(r)
	if got["taken messages"] < 1000 || got["taken messages"] >= 2006 || r.Failures() == 0 {
		t.Errorf("%+v", r.Items)
	}
}

func TestNothingIsMovedBesideTheOldSystem(t *testing.T) {
	python, err := exec.LookPath("python3")
	if err != nil {
		t.Fatalf("the test needs python3: %v", err)
	}
	p := build(t, oldhome.Options{Era: oldhome.Early})
	cmd := exec.Command(python, "-c", "import sys; print('up', flush=True); sys.stdin.read()", "hermes_cli.main", "gateway", "run")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		in.Close()
		if err := cmd.Wait(); err != nil {
			t.Error(err)
		}
	}()
	if _, err := out.Read(make([]byte, 2)); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(p.PIDFile(), fmt.Appendf(nil, `{"pid":%d,"kind":"hermes-gateway"}`, cmd.Process.Pid), 0o600); err != nil {
		t.Fatal(err)
	}
	s := openLedger(t, p)
	_, err = migrate.Run(t.Context(), options(p, p, s))
	if !domain.IsCode(err, domain.Conflict) || !strings.Contains(err.Error(), fmt.Sprint(cmd.Process.Pid)) {
		t.Errorf("%v", err)
	}
	dry := options(p, p, s)
	dry.DryRun = true
	if r := run(t, dry); !strings.Contains(r.Items[0].Why, fmt.Sprint(cmd.Process.Pid)) {
		t.Errorf("%+v", r.Items)
	}
}

// runUntilKilled moves in, telling each batch, until it is killed.
func runUntilKilled(dir string) {
	p := home.Profile{Name: home.DefaultProfile, Root: dir, Home: dir}
	s, err := sqlite.Open(context.Background(), sqlite.Options{Path: p.LedgerFile(), Kind: "cli"})
	if err != nil {
		panic(err)
	}
	o := options(p, p, s)
	fmt.Println("ready")
	o.Progress = func(n int64) { fmt.Println(n) }
	if _, err := migrate.Run(context.Background(), o); err != nil {
		panic(err)
	}
	_ = s.Close()
}

func TestKilledAtAnyPointAndRunAgain(t *testing.T) {
	p := build(t, oldhome.Options{Era: oldhome.Late, Sessions: 30, PerSession: 100, OpenLog: true})
	before := fingerprint(t, p.Home)
	for lines := 1; lines <= 6; lines++ { // each life gets a little further than "ready"
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), "MIGRATE_UNTIL_KILLED="+p.Home)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		seen, buf := 0, make([]byte, 64)
		for seen < lines {
			n, err := out.Read(buf)
			seen += strings.Count(string(buf[:n]), "\n")
			if err != nil {
				break // it had come to its end
			}
		}
		_ = cmd.Process.Kill() // it may have ended
		_ = cmd.Wait()
	}
	s := openLedger(t, p)
	if r := run(t, options(p, p, s)); r.Failures() > 0 {
		t.Errorf("%+v", r.Items)
	}
	info, err := s.Info(t.Context())
	if err != nil || info.Sessions != 32 || info.Messages != 3000+7 {
		t.Errorf("%d sessions, %d messages, %v", info.Sessions, info.Messages, err)
	}
	if diff := cmp.Diff(before, fingerprint(t, p.Home, ours...)); diff != "" {
		t.Error(diff)
	}
	left, err := filepath.Glob(p.Path("run", "migrate", "*"))
	if err != nil || len(left) > 0 {
		t.Errorf("left in run/migrate: %v, %v", left, err)
	}
}

func TestManyMessagesInBoundedMemory(t *testing.T) {
	p := build(t, oldhome.Options{Era: oldhome.Middle, Sessions: 100, PerSession: many / 100})
	s := openLedger(t, p)
	runtime.GC()
	var peak, base runtime.MemStats
	runtime.ReadMemStats(&base)
	o := options(p, p, s)
	var most uint64
	o.Progress = func(n int64) {
		if n%5000 < 500 {
			runtime.ReadMemStats(&peak)
			most = max(most, peak.HeapInuse)
		}
	}
	begun := time.Now()
	r := run(t, o)
	if got := counts(r)["taken messages"]; got < many {
		t.Errorf("%d messages", got)
	}
	t.Logf("%d messages in %v, %d MiB of heap over the %d before", many, time.Since(begun), int64(most-base.HeapInuse)>>20, base.HeapInuse>>20)
	if grown := int64(most) - int64(base.HeapInuse); grown > 100<<20 {
		t.Errorf("the heap grew by %d MiB", grown>>20)
	}
}

// A move that failed in part, or was stopped in the middle, is taken back whole.
func TestUndoAfterHalfAMove(t *testing.T) {
	for name, spoil := range map[string]func(t *testing.T, from home.Profile, o *migrate.Options){
		"a list of jobs that is none": func(t *testing.T, from home.Profile, _ *migrate.Options) {
			if err := os.WriteFile(from.Path("cron/jobs.json"), []byte(`{"jobs": [{"id"`), 0o600); err != nil {
				t.Fatal(err)
			}
		},
		"a store that is none": func(t *testing.T, from home.Profile, _ *migrate.Options) {
			if err := os.WriteFile(from.Path("state.db"), []byte("no database"), 0o600); err != nil {
				t.Fatal(err)
			}
		},
		"stopped among the messages": func(*testing.T, home.Profile, *migrate.Options) {},
	} {
		t.Run(name, func(t *testing.T) {
			from := build(t, oldhome.Options{Era: oldhome.Late, Sessions: 40, PerSession: 100})
			dir := t.TempDir()
			to := home.Profile{Name: home.DefaultProfile, Root: dir, Home: dir}
			s := openLedger(t, to)
			before := fingerprint(t, dir, ours...)
			o := options(from, to, s)
			spoil(t, from, &o)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			stopped := false
			if strings.HasPrefix(name, "stopped") {
				o.Progress = func(n int64) { stopped = n > 0; cancel() }
			}
			r, err := migrate.Run(ctx, o)
			if stopped != (err != nil) || stopped != strings.HasPrefix(name, "stopped") || err == nil && r.Failures() == 0 {
				t.Fatalf("it was to fail in part: %v %+v", err, r.Items)
			}
			if _, err := migrate.Undo(t.Context(), options(to, to, s)); err != nil {
				t.Fatal(err)
			}
			info, err := s.Info(t.Context())
			if err != nil || info.Sessions != 0 || info.Messages != 0 {
				t.Errorf("%d sessions and %d messages stayed, %v", info.Sessions, info.Messages, err)
			}
			people, err := s.ListPairings(t.Context(), "")
			if err != nil || len(people) > 0 {
				t.Errorf("people stayed: %+v %v", people, err)
			}
			jobs, err := s.ListJobs(t.Context(), ledger.JobFilter{})
			if err != nil || len(jobs) > 0 {
				t.Errorf("jobs stayed: %+v %v", jobs, err)
			}
			if diff := cmp.Diff(before, fingerprint(t, dir, ours...)); diff != "" {
				t.Error(diff)
			}
			// And the whole way again.
			if r := run(t, options(from, to, s)); counts(r)["taken people who may talk"] != 1 {
				t.Errorf("%+v", r.Items)
			}
		})
	}
}
