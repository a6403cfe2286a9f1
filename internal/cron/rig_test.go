package cron

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
	_ "time/tzdata"

	"go.uber.org/goleak"

	"hermes/internal/clock/clocktest"
	"hermes/internal/domain"
	"hermes/internal/health"
	"hermes/internal/home"
	"hermes/internal/ledger"
	"hermes/internal/ledger/sqlite"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// begin is a Thursday at 10:00 UTC.
var begin = time.Date(2026, 1, 15, 10, 0, 0, 0, time.UTC)

// rig is a profile with a real ledger and a clock that stands still.
type rig struct {
	t       *testing.T
	home    string
	store   *sqlite.Store
	clock   *clocktest.Clock
	service *Service
	conf    home.CronConfig
	homes   *fakeHomes
	agent   Agent
}

type fakeHomes struct {
	mu    sync.Mutex
	homes map[domain.Platform]domain.Address
}

func (h *fakeHomes) Platforms() []domain.Platform {
	return []domain.Platform{"telegram", "discord"}
}

func (h *fakeHomes) Home(p domain.Platform) (domain.Address, bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	a, ok := h.homes[p]
	return a, ok
}

func (h *fakeHomes) Channel(p domain.Platform, name string) (domain.Address, bool, error) {
	switch {
	case name == "#ops":
		return domain.Address{Platform: domain.Platform(orDefault(string(p), "discord")), ChatID: "C1"}, true, nil
	case strings.HasPrefix(name, "#"):
		return domain.Address{}, false, domain.E(domain.NotFound, nil, "%s knows no chat named %q", p, name)
	}
	return domain.Address{}, false, nil
}

// plainPlanner makes one message of a text.
type plainPlanner struct{}

func (plainPlanner) Plan(to domain.Address, kind, text string) []domain.NewDelivery {
	return []domain.NewDelivery{{To: to, Part: domain.Part{Text: text}}}
}

var telegramHome = domain.Address{Platform: "telegram", ChatID: "42"}

func newRig(t *testing.T) *rig {
	t.Helper()
	r := &rig{t: t, home: t.TempDir(), clock: clocktest.New(begin),
		conf:  home.CronConfig{WrapResponse: true, ScriptTimeout: time.Minute},
		homes: &fakeHomes{homes: map[domain.Platform]domain.Address{"telegram": telegramHome}}}
	if err := os.Mkdir(filepath.Join(r.home, "scripts"), 0o700); err != nil {
		t.Fatal(err)
	}
	r.store = r.open()
	r.service = NewService(ServiceOptions{Store: r.store, Home: r.home, Wall: r.clock, Zone: func() *time.Location { return time.UTC }, Targets: &Targets{r.homes}})
	return r
}

// open opens the rig's ledger once more, as another process would.
func (r *rig) open() *sqlite.Store {
	r.t.Helper()
	s, err := sqlite.Open(r.t.Context(), sqlite.Options{Path: filepath.Join(r.home, "ledger.db"), Kind: "cron", Now: r.clock.Now, NoBallast: true})
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { _ = s.Close() })
	return s
}

func (r *rig) scheduler() *Scheduler { return r.schedulerOn(r.store) }

func (r *rig) schedulerOn(store Store) *Scheduler {
	return New(Options{Store: store, Home: r.home, Zone: func() *time.Location { return time.UTC }, Wall: r.clock,
		Config: func() home.CronConfig { return r.conf }, Agent: r.agent, Planner: plainPlanner{}, Targets: &Targets{r.homes},
		Environ: func() []string { return []string{"PATH=" + os.Getenv("PATH"), "HOME=" + r.home} },
		Health:  health.New(r.clock.Now).Part("cron"), Log: slog.New(slog.DiscardHandler)})
}

// script writes a script of the profile.
func (r *rig) script(name, text string) {
	r.t.Helper()
	if err := os.WriteFile(filepath.Join(r.home, "scripts", name), []byte(text), 0o600); err != nil {
		r.t.Fatal(err)
	}
}

// job creates a job.
func (r *rig) job(c Change) domain.JobID {
	r.t.Helper()
	made, err := r.service.Create(r.t.Context(), c)
	if err != nil {
		r.t.Fatal(err)
	}
	return made.Job.ID
}

// watchdog creates a job that runs a script every ten minutes.
func (r *rig) watchdog(name, script string, more ...func(*Change)) domain.JobID {
	r.t.Helper()
	r.script(name+".sh", script)
	c := Change{Name: ptr(name), Schedule: ptr("*/10 * * * *"), Script: ptr(name + ".sh"), NoAgent: ptr(true), Deliver: ptr([]string{"telegram"})}
	for _, f := range more {
		f(&c)
	}
	return r.job(c)
}

// tick advances the clock and runs what is due.
func (r *rig) tick(d time.Duration) {
	r.t.Helper()
	r.clock.Advance(d)
	if _, err := r.scheduler().Tick(r.t.Context()); err != nil {
		r.t.Fatal(err)
	}
}

// runs lists a job's runs, oldest first.
func (r *rig) runs(id domain.JobID) []domain.Run {
	r.t.Helper()
	runs, err := r.store.Runs(r.t.Context(), ledger.RunFilter{Job: id, Limit: 10000})
	if err != nil {
		r.t.Fatal(err)
	}
	slices.Reverse(runs)
	return runs
}

func (r *rig) states(id domain.JobID) string {
	var out []string
	for _, run := range r.runs(id) {
		out = append(out, run.Instant.Format("15:04")+" "+string(run.State))
	}
	return strings.Join(out, ", ")
}

// sent lists the texts of the outbox, oldest first.
func (r *rig) sent() []string {
	r.t.Helper()
	ds, err := r.store.Deliveries(r.t.Context(), ledger.DeliveryFilter{Limit: 10000})
	if err != nil {
		r.t.Fatal(err)
	}
	var out []string
	for _, d := range slices.Backward(ds) {
		out = append(out, d.Part.Text)
	}
	return out
}

// wantSent compares the outbox by substrings, one message each.
func (r *rig) wantSent(want ...string) {
	r.t.Helper()
	got := r.sent()
	if len(got) != len(want) {
		r.t.Fatalf("%d messages were sent, want %d:\n%s", len(got), len(want), strings.Join(got, "\n---\n"))
	}
	for i := range want {
		if !strings.Contains(got[i], want[i]) {
			r.t.Errorf("message %d is\n%s\nwant %q in it", i, got[i], want[i])
		}
	}
}

func ptr[T any](v T) *T { return &v }

// fixedWall is a clock that nobody waits for.
type fixedWall struct{}

func (fixedWall) Now() time.Time { return begin }

func (fixedWall) WaitUntil(ctx context.Context, _ time.Time) error {
	<-ctx.Done()
	return ctx.Err()
}
