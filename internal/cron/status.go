package cron

import (
	"context"
	"fmt"
	"time"

	"hermes/internal/domain"
	"hermes/internal/ledger"
)

// Status is what is known of the scheduler, from evidence.
type Status struct {
	Running   bool      `json:"running"`
	Who       string    `json:"who,omitempty"` // that runs it, or why nothing does
	Heartbeat time.Time `json:"heartbeat,omitzero"`
	Success   time.Time `json:"last_success,omitzero"`
	Failure   string    `json:"last_error,omitempty"` // when newer than the success
	Stalled   bool      `json:"stalled,omitempty"`
	Active    int       `json:"active_jobs"`
	Next      time.Time `json:"next_run,omitzero"`
	NextName  string    `json:"next_job,omitempty"`
}

// stalledAfter is three safety scans and a third.
const stalledAfter = 200 * time.Second

// Status collects the evidence.
func (s *Service) Status(ctx context.Context) (Status, error) {
	var st Status
	st.Running, st.Who = s.running(ctx)
	var failed time.Time
	st.Heartbeat, _ = s.outputs.beat("ticker_heartbeat")
	st.Success, _ = s.outputs.beat("ticker_last_success")
	failed, st.Failure = s.outputs.beat("ticker_last_error")
	if !failed.After(st.Success) {
		st.Failure = ""
	}
	st.Stalled = st.Running && !st.Heartbeat.IsZero() && s.wall.Now().Sub(st.Heartbeat) > stalledAfter
	jobs, err := s.opt.Store.ListJobs(ctx, ledger.JobFilter{EnabledOnly: true})
	if err != nil {
		return st, err
	}
	for _, j := range jobs {
		if j.NextAt.IsZero() {
			continue
		}
		st.Active++
		if st.Next.IsZero() || j.NextAt.Before(st.Next) {
			st.Next, st.NextName = j.NextAt, j.Name
		}
	}
	return st, nil
}

// running asks who shows itself as the scheduler.
func (s *Service) running(ctx context.Context) (bool, string) {
	if s.opt.Running != nil {
		return s.opt.Running(ctx)
	}
	l, err := s.opt.Store.AcquireLease(ctx, Lease)
	if domain.IsCode(err, domain.Conflict) {
		return true, domain.MessageOf(err)
	}
	if err != nil {
		return false, "it could not be told whether a scheduler runs: " + domain.MessageOf(err)
	}
	if err := s.opt.Store.ReleaseLease(ctx, l); err != nil {
		return false, fmt.Sprintf("no scheduler runs (and the lease could not be given back: %s)", domain.MessageOf(err))
	}
	return false, "no scheduler runs, so no job fires by itself; start the gateway (`hermes gateway install`, or `hermes gateway` in a terminal)"
}

// NotRunning is "" while a scheduler runs, else the warning that belongs under
// every answer about jobs.
func (s *Service) NotRunning(ctx context.Context) string {
	running, who := s.running(ctx)
	if running {
		return ""
	}
	return "⚠ " + who
}
