package cronkill

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"hermes/internal/cron"
	"hermes/internal/domain"
	"hermes/internal/failpoint"
	"hermes/internal/ledger"
	"hermes/testkit/rig"
)

// TestKilledAroundFirings kills the gateway 200 times in CI, and HERMES_TORTURE
// times where that is set.
func TestKilledAroundFirings(t *testing.T) {
	n := 200
	if s := os.Getenv("HERMES_TORTURE"); s != "" {
		var err error
		if n, err = strconv.Atoi(s); err != nil {
			t.Fatal(err)
		}
	}
	binary, err := rig.Build(t.Context(), t.TempDir(), "failpoint")
	if err != nil {
		t.Fatal(err)
	}
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	c, err := Run(t.Context(), t.TempDir(), binary, n, seed)
	t.Logf("counts:\n%s", c)
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range c.Broken {
		t.Error(b)
	}
	for _, p := range failpoint.Firing() {
		if c.ByPoint[p] == 0 {
			t.Errorf("the gateway never died at %s: the mark is not reached", p)
		}
	}
}

// TestTwoSchedulers runs a gateway and a scheduler in the foreground on one
// home: each instant is fired by one of them.
func TestTwoSchedulers(t *testing.T) {
	binary, err := rig.Build(t.Context(), t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	b, err := setUp(t.Context(), t.TempDir(), binary, 1)
	if err != nil {
		t.Fatal(err)
	}
	defer b.store.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	first := time.Now().UTC().Truncate(time.Second).Add(3 * time.Second)
	const jobs = 60
	for i := range jobs {
		if err := b.add(ctx, first.Add(time.Duration(i%3)*time.Second), func(*cron.Definition) {}); err != nil {
			t.Fatal(err)
		}
	}
	for _, args := range [][]string{{"gateway", "run", "--no-reserve"}, {"cron", "run"}} {
		p, err := b.home.StartArgs(nil, args...)
		if err != nil {
			t.Fatal(err)
		}
		defer p.Kill()
		if err := p.Ready(ctx); err != nil {
			t.Fatal(err)
		}
		defer func() {
			if t.Failed() {
				t.Log(p.Output())
			}
		}()
	}
	b.wait(ctx, t)
	if err := b.check(ctx); err != nil {
		t.Fatal(err)
	}
	for _, broken := range b.counts.Broken {
		t.Error(broken)
	}
	ended, err := b.store.Runs(ctx, ledger.RunFilter{States: []domain.RunState{domain.RunSilent}, Limit: 2 * jobs})
	if err != nil || len(ended) != jobs {
		t.Errorf("%d runs, %v", len(ended), err)
	}
	out, err := b.home.Run(ctx, "cron", "status")
	if err != nil || !strings.Contains(out, "A scheduler runs") {
		t.Errorf("%v %s", err, out)
	}
}

// TestAForegroundScheduler: without a gateway, what commands change counts at
// once, and not at the next look.
func TestAForegroundScheduler(t *testing.T) {
	binary, err := rig.Build(t.Context(), t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	b, err := setUp(t.Context(), t.TempDir(), binary, 1)
	if err != nil {
		t.Fatal(err)
	}
	defer b.store.Close()
	// Shorter than the minute after which it would look by itself.
	ctx, cancel := context.WithTimeout(t.Context(), 40*time.Second)
	defer cancel()
	p, err := b.home.StartArgs(nil, "cron", "run")
	if err != nil {
		t.Fatal(err)
	}
	defer p.Kill()
	if err := p.Ready(ctx); err != nil {
		t.Fatal(err)
	}
	if err := b.add(ctx, time.Now().UTC().Add(time.Hour).Truncate(time.Second), func(*cron.Definition) {}); err != nil {
		t.Fatal(err)
	}
	if out, err := b.home.Run(ctx, "cron", "run", "--no-wait", "j1"); err != nil || !strings.Contains(out, "is started by the running scheduler") {
		t.Fatalf("%v %s", err, out)
	}
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for ; ; <-tick.C {
		runs, err := b.store.Runs(ctx, ledger.RunFilter{States: []domain.RunState{domain.RunSilent}, Limit: 1})
		if err != nil {
			t.Fatalf("the run did not come at once: %v\n%s", err, p.Output())
		}
		if len(runs) == 1 {
			return
		}
	}
}

// wait waits until all jobs have run.
func (b *bench) wait(ctx context.Context, t *testing.T) {
	t.Helper()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		left, err := b.store.CountJobs(ctx, ledger.JobFilter{Scheduled: true})
		if err != nil {
			t.Fatal(err)
		}
		done, err := b.settled(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if left == 0 && done {
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatal(fmt.Errorf("%d jobs are left: %w", left, ctx.Err()))
		}
	}
}
