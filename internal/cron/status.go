package cron

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"hermes/internal/domain"
	"hermes/internal/ledger"
)

// Status is what is known of the scheduler, from evidence.
type Status struct {
	Running   bool      `json:"running"`
	Who       string    `json:"who,omitempty"` // that runs it, or why nothing does
	PID       int       `json:"pid,omitempty"` // of another process that runs it
	Heartbeat time.Time `json:"heartbeat,omitzero"`
	Success   time.Time `json:"last_success,omitzero"`
	Failure   string    `json:"last_error,omitempty"` // when newer than the success
	Stalled   bool      `json:"stalled,omitempty"`
	Active    int       `json:"active_jobs"`
	Next      time.Time `json:"next_run,omitzero"`
	NextName  string    `json:"next_job,omitempty"`
	// Behind is how many seconds ago Next should have been fired; 0 while the
	// scheduler keeps up.
	Behind int `json:"behind_seconds,omitempty"`
	// Undelivered are the results of the last day that were given up or still
	// wait for their platform, newest first, with the reason.
	Undelivered []string `json:"undelivered,omitempty"`
	Failing     []string `json:"failing,omitempty"` // names of the jobs whose last run failed
}

const (
	// behindAfter is how late a firing may be before the scheduler counts as
	// behind.
	behindAfter    = 10 * time.Second
	maxUndelivered = 10
)

// stalledAfter is three safety scans and a third.
const stalledAfter = 200 * time.Second

// Status collects the evidence.
func (s *Service) Status(ctx context.Context) (Status, error) {
	var st Status
	st.Running, st.Who, st.PID = s.holder(ctx)
	var failed time.Time
	st.Heartbeat, _ = s.outputs.beat("ticker_heartbeat")
	st.Success, _ = s.outputs.beat("ticker_last_success")
	failed, st.Failure = s.outputs.beat("ticker_last_error")
	if !failed.After(st.Success) {
		st.Failure = ""
	}
	st.Stalled = st.Running && !st.Heartbeat.IsZero() && s.wall.Now().Sub(st.Heartbeat) > stalledAfter
	var err error
	if st.Active, err = s.opt.Store.CountJobs(ctx, ledger.JobFilter{Scheduled: true}); err != nil {
		return st, err
	}
	if st.Next, err = s.opt.Store.NextDue(ctx); err != nil {
		return st, err
	}
	if !st.Next.IsZero() {
		first, err := s.opt.Store.DueJobs(ctx, st.Next, 1)
		if err != nil {
			return st, err
		}
		if len(first) > 0 {
			st.NextName = first[0].Name
		}
		if late := s.wall.Now().Sub(st.Next); late > behindAfter {
			st.Behind = int(late.Seconds())
		}
	}
	if st.Undelivered, err = s.undelivered(ctx); err != nil {
		return st, err
	}
	st.Failing, err = s.Failing(ctx)
	return st, err
}

// How far failing looks.
const (
	failingSince = 7 * 24 * time.Hour
	maxFailing   = 20
)

// Failing names the jobs that fire and whose last run failed in the last seven
// days, 20 at most, by name. It is safe for concurrent use.
func (s *Service) Failing(ctx context.Context) ([]string, error) {
	failures := []domain.RunState{domain.RunFailed, domain.RunTimedOut, domain.RunInterrupted}
	runs, err := s.opt.Store.Runs(ctx, ledger.RunFilter{States: failures, Since: s.wall.Now().Add(-failingSince), Limit: 200})
	if err != nil {
		return nil, err
	}
	seen := map[domain.JobID]bool{}
	var names []string
	for _, r := range runs {
		if seen[r.Job] || len(names) == maxFailing {
			continue
		}
		seen[r.Job] = true
		job, err := s.opt.Store.Job(ctx, r.Job)
		if domain.IsCode(err, domain.NotFound) {
			continue
		} else if err != nil {
			return nil, err
		}
		last, err := s.opt.Store.Runs(ctx, ledger.RunFilter{Job: r.Job, Limit: 1, States: append([]domain.RunState{domain.RunOK, domain.RunSilent}, failures...)})
		if err != nil {
			return nil, err
		}
		if job.Enabled && len(last) == 1 && last[0].State != domain.RunOK && last[0].State != domain.RunSilent {
			names = append(names, job.Name)
		}
	}
	slices.Sort(names)
	return names, nil
}

// undelivered says which results of the last day did not arrive, and why.
func (s *Service) undelivered(ctx context.Context) ([]string, error) {
	ds, err := s.opt.Store.Deliveries(ctx, ledger.DeliveryFilter{Limit: 200, States: []domain.DeliveryState{domain.DeliveryDead, domain.DeliveryRetrying}})
	if err != nil {
		return nil, err
	}
	var out []string
	for _, d := range ds {
		if d.RunID == 0 || s.wall.Now().Sub(d.CreatedAt) > 24*time.Hour || len(out) == maxUndelivered {
			continue
		}
		what := "is tried again"
		if d.State == domain.DeliveryDead {
			what = fmt.Sprintf("was given up; `hermes deliveries retry %d` sends it again", d.ID)
		}
		out = append(out, fmt.Sprintf("run %d to %s %s: %s", d.RunID, d.To, what, d.Reason))
	}
	return out, nil
}

// holder asks who shows itself as the scheduler.
func (s *Service) holder(ctx context.Context) (running bool, who string, pid int) {
	if s.opt.Running != nil {
		running, who = s.opt.Running(ctx)
		return running, who, 0
	}
	l, err := s.opt.Store.AcquireLease(ctx, Lease)
	if domain.IsCode(err, domain.Conflict) {
		who = domain.MessageOf(err)
		var held *ledger.Held
		if errors.As(err, &held) {
			who, pid = holderWords(held.By), held.By.PID
		}
		return true, who, pid
	}
	if err != nil {
		return false, "it could not be told whether a scheduler runs: " + domain.MessageOf(err), 0
	}
	if err := s.opt.Store.ReleaseLease(ctx, l); err != nil {
		return false, fmt.Sprintf("no scheduler runs (and the lease could not be given back: %s)", domain.MessageOf(err)), 0
	}
	return false, "no scheduler runs, so no job fires by itself; start the gateway (`hermes gateway install`, or `hermes gateway` in a terminal)", 0
}

// holderWords says which process the scheduler is in.
func holderWords(p ledger.Process) string {
	switch p.Kind {
	case "gateway":
		return fmt.Sprintf("the gateway, PID %d", p.PID)
	case "cron":
		return fmt.Sprintf("`hermes cron run` alone, PID %d", p.PID)
	}
	return fmt.Sprintf("a %s process, PID %d", p.Kind, p.PID)
}

// NotRunning is "" while a scheduler runs, else the warning that belongs under
// every answer about jobs.
func (s *Service) NotRunning(ctx context.Context) string {
	running, who, _ := s.holder(ctx)
	if running {
		return ""
	}
	return "⚠ " + who
}
