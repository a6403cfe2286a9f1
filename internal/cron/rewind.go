package cron

import (
	"context"
	"time"

	"hermes/internal/clock"
	"hermes/internal/cron/schedule"
	"hermes/internal/domain"
	"hermes/internal/ledger"
)

// clockSetBack is by how much the clock must have gone back to count as set.
const clockSetBack = 2 * time.Second

// tellJump says in the log that the machine slept or that its clock was set
// forward since a mark, because jobs then come all at once; it gives the next mark.
// That the clock was set back is rewind's to say.
func (s *Scheduler) tellJump(since clock.Mark) clock.Mark {
	here := clock.Here()
	slept, set := since.Until(here)
	if slept > clockSetBack {
		s.log.Info("the machine slept; each job says whether what was due meanwhile is made up for", "for", slept.Round(time.Second).String())
	}
	if set > clockSetBack {
		s.log.Warn("the clock was set forward; each job says whether what was due in between is made up for", "by", set.Round(time.Second).String())
	}
	return here
}

// rewind undoes what a clock did that was ahead and is right again: the jobs
// come when the present clock says, not when the wrong one would have had them,
// and what counted as missed meanwhile may still be fired. What was fired stays
// fired: the ledger lets no instant have two runs.
func (s *Scheduler) rewind(ctx context.Context, was, now time.Time) {
	defer func() {
		if p := recover(); p != nil {
			s.log.Error("setting jobs back to the clock panicked", "panic", p)
		}
	}()
	s.log.Warn("the clock was set back; the jobs follow it", "was", was, "is", now)
	wctx, cancel := context.WithTimeout(ctx, storeTimeout)
	forgotten, err := s.opt.Store.ForgetMissed(wctx, now)
	cancel()
	if err != nil {
		s.log.Error("what the wrong clock counted as missed could not be forgotten; it is not fired", "error", err)
	}
	const page = 500
	moved := 0
	for offset := 0; ctx.Err() == nil; offset += page {
		jobs, err := s.opt.Store.ListJobs(ctx, ledger.JobFilter{EnabledOnly: true, Limit: page, Offset: offset})
		if err != nil {
			s.log.Error("the jobs could not be set back to the clock; they fire when the wrong clock would have had them", "error", err)
			return
		}
		for _, job := range jobs {
			if s.rewindOne(ctx, job, now) {
				moved++
			}
		}
		if len(jobs) < page {
			break
		}
	}
	s.log.Info("the jobs follow the clock", "moved", moved, "no_longer_missed", forgotten)
}

// rewindOne moves a job whose next instant lies later than its schedule has it.
func (s *Scheduler) rewindOne(ctx context.Context, job domain.Job, now time.Time) bool {
	d, err := DefinitionOf(job)
	if err != nil {
		return false // it is set aside when it is due
	}
	sch, err := d.ParseSchedule(s.opt.Zone())
	if err != nil || sch.Kind() == schedule.Once {
		return false
	}
	next := sch.Next(now)
	if job.NextAt.IsZero() || next.IsZero() || !next.Before(job.NextAt) {
		return false
	}
	if _, err := s.opt.Store.Fire(ctx, job.ID, job.NextAt, next, nil); err != nil {
		if !domain.IsCode(err, domain.Conflict) {
			s.log.Warn("a job could not be set back to the clock", "job", job.ID, "error", err)
		}
		return false
	}
	return true
}
