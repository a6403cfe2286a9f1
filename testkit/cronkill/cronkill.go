// Package cronkill kills the real gateway (SIGKILL) at every instant around the
// firing of a job, again and again, and then holds the ledger and what the
// scripts did to the promise: each due instant has exactly one record, and no
// script's work is done twice unless its job asks for that.
package cronkill

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"time"

	"hermes/internal/cron"
	"hermes/internal/domain"
	"hermes/internal/failpoint"
	"hermes/internal/ledger"
	"hermes/internal/ledger/sqlite"
	"hermes/testkit/rig"
)

// Counts is what a run found.
type Counts struct {
	Kills, Jobs, Instants, Interrupted, Retried int
	ByPoint                                     map[string]int
	Broken                                      []string // promises, one sentence each
}

// String is the table of counts.
func (c Counts) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "kills %d, jobs %d, due instants %d, cut off and recorded %d, run again on request %d, broken promises %d\n",
		c.Kills, c.Jobs, c.Instants, c.Interrupted, c.Retried, len(c.Broken))
	for _, p := range failpoint.Firing() {
		fmt.Fprintf(&b, "  %-24s %d\n", p, c.ByPoint[p])
	}
	return b.String()
}

// bench is one run's surroundings.
type bench struct {
	home    *rig.Home
	store   *sqlite.Store
	effects string
	rng     *rand.Rand
	next    int
	counts  Counts
	jobs    []domain.Job // as they were made
	before  int          // jobs of the rounds before this one
}

// Run kills the gateway until it died n times at the marks, and counts.
func Run(ctx context.Context, dir, binary string, n int, seed uint64) (Counts, error) {
	b, err := setUp(ctx, dir, binary, seed)
	if err != nil {
		return Counts{}, err
	}
	defer b.store.Close()
	marks := failpoint.Firing()
	for round := 0; b.counts.Kills < n; round++ {
		if err := b.round(ctx, marks[round%len(marks)]); err != nil {
			return b.counts, fmt.Errorf("round %d (%s): %w", round, marks[round%len(marks)], err)
		}
	}
	return b.counts, b.check(ctx)
}

func setUp(ctx context.Context, dir, binary string, seed uint64) (*bench, error) {
	b := &bench{effects: filepath.Join(dir, "effects.log"), rng: rand.New(rand.NewPCG(seed, 1)), counts: Counts{ByPoint: map[string]int{}}}
	var err error
	if b.home, err = rig.NewHome(filepath.Join(dir, "home"), binary, "", ""); err != nil {
		return nil, err
	}
	if err := os.Mkdir(filepath.Join(b.home.Dir, "scripts"), 0o700); err != nil {
		return nil, err
	}
	b.store, err = sqlite.Open(ctx, sqlite.Options{Path: filepath.Join(b.home.Dir, "ledger.db"), Kind: "test", NoBallast: true})
	return b, err
}

// add makes a job that is due at an instant, whose script leaves a word with
// every run.
func (b *bench) add(ctx context.Context, at time.Time, change func(*cron.Definition)) error {
	b.next++
	name := fmt.Sprintf("j%d", b.next)
	script := fmt.Sprintf("echo %s >> %s\n", name, b.effects)
	if err := os.WriteFile(filepath.Join(b.home.Dir, "scripts", name+".sh"), []byte(script), 0o600); err != nil {
		return err
	}
	d := cron.Definition{Script: name + ".sh", NoAgent: true, Schedule: at.Format(time.RFC3339), Anchor: at, Timezone: "UTC", Deliver: []string{cron.DeliverLocal}}
	change(&d)
	definition, err := json.Marshal(d)
	if err != nil {
		return err
	}
	job, err := b.store.PutJob(ctx, domain.Job{ID: domain.JobID(fmt.Sprintf("%012x", b.next)), Name: name, Enabled: true, NextAt: at, Definition: definition})
	b.jobs = append(b.jobs, job)
	return err
}

// fill makes the jobs of a round: some that come once, and one of every minute
// that nothing fired for a while, with each policy about that.
func (b *bench) fill(ctx context.Context) error {
	now := time.Now().UTC().Truncate(time.Second)
	for range 2 + b.rng.IntN(3) {
		policy := []string{cron.InterruptFail, cron.InterruptRetry}[b.rng.IntN(2)]
		if err := b.add(ctx, now, func(d *cron.Definition) { d.OnInterrupt = policy }); err != nil {
			return err
		}
	}
	policy := []string{cron.CatchUpAll, cron.CatchUpOne, cron.CatchUpNone}[b.rng.IntN(3)]
	return b.add(ctx, now.Add(-3*time.Minute), func(d *cron.Definition) {
		d.Schedule, d.Anchor, d.CatchUp, d.Overlap = "every 1m", now.Add(-4*time.Minute), policy, cron.OverlapQueue
		d.GraceMinutes = 30
	})
}

// round lets the gateway die at a mark, perhaps once more while it recovers,
// and then live until nothing is left to do.
func (b *bench) round(ctx context.Context, mark string) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	b.before = len(b.jobs)
	if err := b.fill(ctx); err != nil {
		return err
	}
	if err := b.live(ctx, mark, 1+b.rng.IntN(3)); err != nil {
		return err
	}
	if b.rng.IntN(2) == 0 {
		marks := failpoint.Firing()
		if err := b.live(ctx, marks[b.rng.IntN(len(marks))], 1); err != nil {
			return err
		}
	}
	return b.live(ctx, "", 0)
}

// live runs the gateway until it dies at the nth meeting of a mark, or until
// nothing is left to do; then it is stopped.
func (b *bench) live(ctx context.Context, mark string, nth int) error {
	var env []string
	if mark != "" {
		env = append(env, fmt.Sprintf("HERMES_FAILPOINT=%s:%d", mark, nth))
	}
	p, err := b.home.StartArgs(env, "gateway", "run", "--no-reserve")
	if err != nil {
		return err
	}
	defer p.Kill()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-p.Done():
			if mark == "" {
				return fmt.Errorf("the gateway ended by itself\n%s", p.Output())
			}
			b.counts.Kills++
			b.counts.ByPoint[mark]++
			return nil
		case <-ctx.Done():
			return fmt.Errorf("the jobs are not done: %w\n%s", ctx.Err(), p.Output())
		case <-tick.C:
		}
		if done, err := b.settled(ctx); err != nil {
			return err
		} else if done {
			_, err := p.Stop(ctx)
			return err
		}
	}
}

// settled tells whether no job is due and no run is open or to be run again.
func (b *bench) settled(ctx context.Context) (bool, error) {
	due, err := b.store.DueJobs(ctx, time.Now(), 1)
	if err != nil || len(due) > 0 {
		return false, err
	}
	open, err := b.store.Runs(ctx, ledger.RunFilter{States: []domain.RunState{domain.RunDue, domain.RunRunning}, Limit: 1})
	if err != nil || len(open) > 0 {
		return false, err
	}
	for _, j := range b.jobs[b.before:] {
		d, err := cron.DefinitionOf(j)
		if err != nil {
			return false, err
		}
		if d.OnInterrupt != cron.InterruptRetry {
			continue
		}
		last, err := b.store.Runs(ctx, ledger.RunFilter{Job: j.ID, Limit: 1})
		if err != nil {
			return false, err
		}
		if len(last) == 1 && last[0].State == domain.RunInterrupted && last[0].Instant.Nanosecond() < int(3*time.Millisecond) {
			return false, nil
		}
	}
	return true, nil
}

// check holds every job of every round to the promise.
func (b *bench) check(ctx context.Context) error {
	text, err := os.ReadFile(b.effects)
	if err != nil {
		return err
	}
	did := map[string]int{}
	for _, word := range strings.Fields(string(text)) {
		did[word]++
	}
	for _, j := range b.jobs {
		b.counts.Jobs++
		runs, err := b.store.Runs(ctx, ledger.RunFilter{Job: j.ID, Limit: 1000})
		if err != nil {
			return err
		}
		now, err := b.store.Job(ctx, j.ID)
		if err != nil {
			return err
		}
		b.checkJob(j, now, runs, did[j.Name])
	}
	return nil
}

// checkJob compares the runs of a job with the instants that it had, and the
// work that was done with the runs.
func (b *bench) checkJob(made, now domain.Job, runs []domain.Run, did int) {
	broken := func(format string, args ...any) {
		b.counts.Broken = append(b.counts.Broken, fmt.Sprintf("%s (due %s): ", made.Name, made.NextAt.Format(time.TimeOnly))+fmt.Sprintf(format, args...))
	}
	due := map[time.Time]int{}
	for t := made.NextAt; ; t = t.Add(time.Minute) {
		if now.NextAt.IsZero() && t.After(made.NextAt) || !now.NextAt.IsZero() && !t.Before(now.NextAt) {
			break
		}
		due[t.UTC()] = 0
	}
	b.counts.Instants += len(due)
	ran, cut := 0, 0
	for _, r := range runs {
		whole := r.Instant.UTC().Truncate(time.Second)
		if again := !whole.Equal(r.Instant.UTC()); again {
			b.counts.Retried++
		} else if _, ok := due[whole]; !ok {
			broken("fired at %s, when it was not due", r.Instant)
		} else {
			due[whole]++
		}
		switch r.State {
		case domain.RunSilent:
			ran++
		case domain.RunInterrupted:
			cut++
			b.counts.Interrupted++
		case domain.RunMissed, domain.RunSkipped:
		default:
			broken("the run of %s is %s: %s", r.Instant, r.State, r.Error)
		}
	}
	for t, n := range due {
		if n != 1 {
			broken("%d records of the instant %s", n, t)
		}
	}
	if did < ran || did > ran+cut {
		broken("%d runs ended well and %d were cut off, but the work was done %d times", ran, cut, did)
	}
}
