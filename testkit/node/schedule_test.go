package node

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"hermes/internal/api"
	"hermes/internal/cron"
	"hermes/internal/dashboard"
	"hermes/internal/domain"
	"hermes/internal/home"
	"hermes/internal/ledger"
	"hermes/internal/ledger/sqlite"
	"hermes/internal/secret"
)

// calendar is a gateway behind the schedule page: real jobs with a past.
type calendar struct {
	scripted
	t     *testing.T
	store *sqlite.Store
	jobs  *cron.Service
	now   time.Time
}

// Status fills the bar.
func (c *calendar) Status(context.Context) (api.Status, error) {
	return api.Status{Profile: "liam", State: "running", Healthy: true, Model: "sonnet-4.5"}, nil
}

// chat is where results went.
var chat = domain.Address{Platform: "telegram", ChatID: "42"}

// job creates a job with a past: the given ends, one every step back from
// yesterday's next whole hour, newest first.
func (c *calendar) job(change cron.Change, step time.Duration, past ...end) cron.View {
	c.t.Helper()
	made, err := c.jobs.Create(c.t.Context(), change)
	if err != nil {
		c.t.Fatal(err)
	}
	job, err := c.store.Job(c.t.Context(), made.Job.ID)
	if err != nil {
		c.t.Fatal(err)
	}
	at := c.now.Truncate(time.Hour)
	for i := len(past) - 1; i >= 0; i-- {
		c.run(job, at.Add(-time.Duration(i)*step), past[i])
	}
	return made.Job
}

// end is how a run ended.
type end struct {
	state   domain.RunState
	why     string
	receipt string // of its message; "" for none
	dead    string // why its message was given up
}

// run records one run as it would have been.
func (c *calendar) run(job domain.Job, at time.Time, e end) {
	c.t.Helper()
	ctx := c.t.Context()
	fail := func(err error) {
		if err != nil {
			c.t.Fatal(err)
		}
	}
	if e.state == domain.RunMissed || e.state == domain.RunSkipped {
		_, err := c.store.Fire(ctx, job.ID, job.NextAt, job.NextAt, []domain.Run{{Instant: at, State: e.state, Error: e.why}})
		fail(err)
		return
	}
	made, err := c.store.Fire(ctx, job.ID, job.NextAt, job.NextAt, []domain.Run{{Instant: at, State: domain.RunDue}})
	fail(err)
	r, _, err := c.store.ClaimRun(ctx, made[0].ID, at)
	fail(err)
	var out []domain.NewDelivery
	if e.receipt != "" || e.dead != "" {
		out = append(out, domain.NewDelivery{To: chat, RunID: r.ID, Part: domain.Part{Text: "x"}})
	}
	done := at.Add(2 * time.Second)
	_, err = c.store.FinishRun(ctx, ledger.RunEnd{Ref: ledger.RunRef{ID: r.ID, Fence: r.Fence}, State: e.state, Error: e.why}, out, done)
	fail(err)
	if len(out) == 0 {
		return
	}
	d, ok, _, err := c.store.ClaimDelivery(ctx, chat, done)
	fail(err)
	if !ok {
		c.t.Fatal("the message cannot be claimed")
	}
	ref := ledger.DeliveryRef{ID: d.ID, Attempt: d.Attempt}
	if e.dead != "" {
		fail(c.store.MarkDead(ctx, ref, e.dead, done))
	} else {
		fail(c.store.MarkSent(ctx, ref, e.receipt, done.Add(time.Second)))
	}
}

func ptr[T any](v T) *T { return &v }

// homes knows one chat.
type homes struct{}

func (homes) Platforms() []domain.Platform                { return []domain.Platform{"telegram"} }
func (homes) Home(domain.Platform) (domain.Address, bool) { return chat, true }
func (homes) Channel(domain.Platform, string) (a domain.Address, found bool, err error) {
	return a, false, nil
}

// fill makes the jobs that the page is looked at with.
func (c *calendar) fill(scripts string) {
	c.t.Helper()
	for _, name := range []string{"disk-watchdog.sh", "backup-check.sh"} {
		if err := os.WriteFile(filepath.Join(scripts, name), []byte("echo\n"), 0o600); err != nil {
			c.t.Fatal(err)
		}
	}
	ok, quiet := end{state: domain.RunOK, receipt: "9"}, end{state: domain.RunSilent}
	day := 24 * time.Hour
	telegram := ptr([]string{"telegram"})
	c.job(cron.Change{Name: ptr("Night mail"), Schedule: ptr("weekdays at 9am"), Prompt: ptr("Summarise the night's mail"), Timezone: ptr("Asia/Seoul"), Deliver: telegram},
		day, ok, ok, end{state: domain.RunOK, dead: "Forbidden: bot was blocked by the user"}, ok, quiet, ok, end{state: domain.RunMissed, why: "nothing could fire it at 09:00; it was noticed 3h0m0s later"}, ok, ok)
	var often []end
	for i := range 200 {
		e := quiet
		switch {
		case i == 30:
			e = end{state: domain.RunTimedOut, why: "Script timed out after 120s: disk-watchdog.sh"}
		case i == 90:
			e = end{state: domain.RunSkipped, why: "the run before was still going (overlap: skip)"}
		case i%41 == 0:
			e = ok
		}
		often = append(often, e)
	}
	c.job(cron.Change{Name: ptr("disk-watchdog"), Schedule: ptr("every 10m"), Script: ptr("disk-watchdog.sh"), NoAgent: ptr(true), Deliver: telegram}, 10*time.Minute, often...)
	c.job(cron.Change{Name: ptr("backup-check"), Schedule: ptr("30 4 * * *"), Script: ptr("backup-check.sh"), NoAgent: ptr(true), Deliver: telegram}, day,
		end{state: domain.RunFailed, why: "Script exited with code 12\n\nstderr:\nrsync: connection refused", receipt: "4"}, end{state: domain.RunFailed, why: "Script exited with code 12", receipt: "3"}, ok, quiet, quiet)
	paused := c.job(cron.Change{Name: ptr("A rather long name of a job that was made for the summer and its many quiet weeks"), Schedule: ptr("every monday at 7am"), Prompt: ptr("Look at the garden")}, 7*day, end{state: domain.RunOK}, end{state: domain.RunOK})
	if _, err := c.jobs.Pause(c.t.Context(), string(paused.ID), "until September"); err != nil {
		c.t.Fatal(err)
	}
}

func TestSchedulePage(t *testing.T) {
	node := needNode(t, "playwright-core")
	chromium := findChromium(t)
	shots := os.Getenv("HERMES_TEST_SHOTS") // a folder to keep the screenshots in
	if shots == "" {
		shots = t.TempDir()
	}
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "scripts"), 0o700); err != nil {
		t.Fatal(err)
	}
	store, err := sqlite.Open(t.Context(), sqlite.Options{Path: filepath.Join(dir, "ledger.db"), NoBallast: true})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	c := &calendar{t: t, store: store, now: time.Now()}
	running := func(context.Context) (bool, string) { return true, "" }
	c.jobs = cron.NewService(cron.ServiceOptions{Store: store, Home: dir, Zone: func() *time.Location { return time.UTC }, Running: running, Targets: &cron.Targets{Homes: homes{}}})
	var mounts []api.Mount
	for _, p := range dashboard.Patterns() {
		mounts = append(mounts, api.Mount{Pattern: p, Handler: dashboard.Handler(), Open: true})
	}
	server := api.New(api.Options{Config: home.APIConfig{Host: "127.0.0.1", Key: secret.Value(key)}, Profile: "liam", Gateway: c, Jobs: c.jobs, Log: slog.New(slog.DiscardHandler), Mounts: mounts})
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	defer stop(t, server)
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	url := fmt.Sprintf("http://127.0.0.1:%d", server.Addr().(*net.TCPAddr).Port)
	cmd := exec.CommandContext(ctx, node, "schedule.mjs", chromium, url, key, shots, filepath.Join(dir, "profile"))
	cmd.Stderr = os.Stderr
	drive(t, cmd, func(step string) {
		switch step {
		case "fill":
			c.fill(filepath.Join(dir, "scripts"))
		default:
			t.Errorf("the browser asks for an unknown step %q", step)
		}
	})
	runs, err := c.jobs.Runs(t.Context(), "backup-check", 1)
	if err != nil || len(runs) != 1 || runs[0].State != domain.RunDue || !runs[0].Manual {
		t.Errorf("the button asked for no run: %+v, %v", runs, err)
	}
}
