package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"hermes/internal/domain"
	"hermes/internal/ledger"
	"hermes/internal/ledger/sqlite"
	"hermes/testkit/llm"
)

const (
	cronJobs   = 100_000
	cronRate   = 200 // firings a second
	cronFor    = 20 * time.Second
	cronSettle = 5 * time.Second // after the start, before anything is measured
	cronIdle   = 5 * time.Second
)

// measureCron is how late jobs begin among 100,000 of them: at an even rate,
// and when many are due in the same second. The jobs run a script that does
// nothing, so that the figures include a process for each.
func measureCron(ctx context.Context, b *bench) ([]row, error) {
	w, err := b.newWorld(llm.Instant, "")
	if err != nil {
		return nil, err
	}
	defer w.close()
	scripts := filepath.Join(w.home.Dir, "scripts")
	if err := os.MkdirAll(scripts, 0o700); err != nil {
		return nil, err
	}
	if err := os.WriteFile(filepath.Join(scripts, "nothing"), []byte("#!/bin/true\n"), 0o700); err != nil {
		return nil, err
	}
	path := filepath.Join(w.home.Dir, "ledger.db")
	if err := fillJobs(ctx, path, "far", cronJobs, func(i int) time.Time { return time.Now().Add(time.Duration(i+24*3600) * time.Second) }); err != nil {
		return nil, err
	}
	began := time.Now()
	if out, err := w.home.Run(ctx, "cron", "list"); err != nil {
		return nil, fmt.Errorf("cron list: %w: %s", err, out)
	}
	list := time.Since(began)

	even := time.Now().Add(cronSettle + cronIdle + 5*time.Second).Truncate(time.Second)
	few := even.Add(cronFor + 3*time.Second)
	many := few.Add(3 * time.Second)
	if err := fillJobs(ctx, path, "even", int(cronRate*cronFor.Seconds()), func(i int) time.Time { return even.Add(time.Duration(i) * time.Second / cronRate) }); err != nil {
		return nil, err
	}
	if err := fillJobs(ctx, path, "few", 20, func(int) time.Time { return few }); err != nil {
		return nil, err
	}
	if err := fillJobs(ctx, path, "many", cronRate, func(int) time.Time { return many }); err != nil {
		return nil, err
	}
	p, _, err := w.start(ctx)
	if err != nil {
		return nil, err
	}
	defer p.Kill()
	pause(ctx, cronSettle)
	cpu := cpuTime(p.Cmd.Process.Pid)
	pause(ctx, cronIdle)
	cpu = cpuTime(p.Cmd.Process.Pid) - cpu
	if !time.Now().Before(even) {
		return nil, fmt.Errorf("the start took so long that the first job was due before it could be measured")
	}
	pause(ctx, time.Until(many.Add(5*time.Second)))
	if _, err := p.Stop(ctx); err != nil {
		return nil, err
	}
	late, err := lateness(ctx, path, even)
	if err != nil {
		return nil, fmt.Errorf("%w\n%s", err, p.Output())
	}
	share := 100 * cpu.Seconds() / cronIdle.Seconds()
	e99 := quantile(late["even"], 0.99)
	return []row{
		{"firing lateness among 100,000 jobs, 200 a second for 20 s, p99", "≤ 20 ms", lateWords(late["even"]), within(e99 <= 20*time.Millisecond)},
		{"the same, 20 due in the same second", "", lateWords(late["few"]), ""},
		{"the same, 200 due in the same second, 64 at once", "", lateWords(late["many"]), ""},
		{"CPU with 100,000 jobs, none due", "≈ 0", fmt.Sprintf("%.1f %%", share), within(share < 1)},
		{"`hermes cron list`, the first 100 of 100,000, whole process", "", ms(list), ""},
	}, nil
}

func lateWords(d []time.Duration) string {
	return fmt.Sprintf("p50 %s, p99 %s, most %s", ms(quantile(d, 0.5)), ms(quantile(d, 0.99)), ms(quantile(d, 1)))
}

// fillJobs writes n script jobs that fire once.
func fillJobs(ctx context.Context, path, kind string, n int, at func(int) time.Time) error {
	s, err := sqlite.Open(ctx, sqlite.Options{Path: path, Kind: "cli"})
	if err != nil {
		return err
	}
	defer s.Close()
	const workers = 64
	errs := make([]error, workers)
	var wg sync.WaitGroup
	for k := range workers {
		wg.Go(func() {
			for i := k; i < n && errs[k] == nil; i += workers {
				next := at(i)
				def, err := json.Marshal(map[string]any{"schedule": next.UTC().Format(time.RFC3339), "script": "nothing", "no_agent": true, "deliver": []string{"local"}})
				if err == nil {
					_, err = s.PutJob(ctx, domain.Job{ID: domain.JobID(fmt.Sprintf("%s-%06d", kind, i)), Name: fmt.Sprintf("%s %06d", kind, i),
						Enabled: true, Definition: def, NextAt: next})
				}
				errs[k] = err
			}
		})
	}
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// lateness reads from the ledger how late each run began, by the kind of its job.
func lateness(ctx context.Context, path string, since time.Time) (map[string][]time.Duration, error) {
	s, err := sqlite.Open(ctx, sqlite.Options{Path: path, Kind: "cli"})
	if err != nil {
		return nil, err
	}
	defer s.Close()
	runs, err := s.Runs(ctx, ledger.RunFilter{Since: since, Limit: 2 * cronJobs})
	if err != nil {
		return nil, err
	}
	late := map[string][]time.Duration{}
	for _, r := range runs {
		kind, _, _ := strings.Cut(string(r.Job), "-")
		if r.State != domain.RunSilent {
			return nil, fmt.Errorf("run %d of %s is %s: %s", r.ID, r.Job, r.State, r.Error)
		}
		late[kind] = append(late[kind], r.StartedAt.Sub(r.Instant))
	}
	for kind, want := range map[string]int{"even": int(cronRate * cronFor.Seconds()), "few": 20, "many": cronRate} {
		if len(late[kind]) != want {
			return nil, fmt.Errorf("%d of %d jobs (%s) ran", len(late[kind]), want, kind)
		}
	}
	return late, nil
}

// cpuTime is the processor time of a process; see proc_pid_stat(5).
func cpuTime(pid int) time.Duration {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0
	}
	_, rest, _ := strings.Cut(string(text), ") ") // the name before it may hold anything
	fields := strings.Fields(rest)
	var user, system int64
	if len(fields) > 12 {
		_, _ = fmt.Sscan(fields[11], &user)
		_, _ = fmt.Sscan(fields[12], &system)
	}
	return time.Duration(user+system) * 10 * time.Millisecond // clock ticks are 1/100 s on Linux
}
