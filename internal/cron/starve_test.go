package cron

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"hermes/internal/domain"
)

// counting counts how often the scheduler looks.
type counting struct {
	Store
	looks atomic.Int64
}

func (c *counting) DueJobs(ctx context.Context, now time.Time, limit int) ([]domain.Job, error) {
	c.looks.Add(1)
	return c.Store.DueJobs(ctx, now, limit)
}

// The end of a run is no reason to look for due jobs while nothing waits: a
// scheduler that looks once more for each of its runs starves when they are
// many and the processor is busy.
func TestEndsOfRunsCostNoLook(t *testing.T) {
	r := newRig(t)
	r.script("nothing.sh", "true")
	const jobs = 40 // fewer than may run at once
	for i := range jobs {
		r.job(Change{Schedule: ptr(begin.Add(time.Minute).Format(time.RFC3339)), Script: ptr("nothing.sh"), NoAgent: ptr(true), Name: ptr(fmt.Sprint("job ", i))})
	}
	store := &counting{Store: r.store}
	s := r.schedulerOn(store)
	s.Start()
	defer func() { _ = s.Stop(t.Context()) }()
	r.clock.Advance(90 * time.Second)
	waitFor(t, func() bool {
		runs, err := r.service.Runs(t.Context(), "", 2*jobs)
		if err != nil {
			t.Fatal(err)
		}
		ended := 0
		for _, run := range runs {
			if run.State.Ended() {
				ended++
			}
		}
		return ended == jobs && s.Running() == 0
	})
	if n := store.looks.Load(); n > jobs/4 {
		t.Errorf("%d runs cost %d looks", jobs, n)
	}
}

// What waits for the end of a run begins with it: a job that queues, and jobs
// beyond the bound on parallel runs.
func TestTheEndOfARunLetsTheNextBegin(t *testing.T) {
	r := newRig(t)
	r.conf.MaxParallel = 2
	r.script("nothing.sh", "true")
	const jobs = 12
	for i := range jobs {
		r.job(Change{Schedule: ptr(begin.Add(time.Minute).Format(time.RFC3339)), Script: ptr("nothing.sh"), NoAgent: ptr(true), Name: ptr(fmt.Sprint("job ", i))})
	}
	queue := r.job(Change{Schedule: ptr("every 1m"), Script: ptr("nothing.sh"), NoAgent: ptr(true), Name: ptr("queue"), Overlap: ptr(OverlapQueue), CatchUp: ptr(CatchUpAll), GraceMinutes: ptr(60)})
	s := r.scheduler()
	s.Start()
	defer func() { _ = s.Stop(t.Context()) }()
	// The clock stands still from here on, so that no safety scan helps.
	r.clock.Advance(10 * time.Minute)
	waitFor(t, func() bool {
		runs, err := r.service.Runs(t.Context(), "", 100)
		if err != nil {
			t.Fatal(err)
		}
		ended := 0
		for _, run := range runs {
			if run.State.Ended() {
				ended++
			}
		}
		return ended >= jobs+10
	})
	if states := r.states(queue); strings.Count(states, "silent") < 10 {
		t.Errorf("the queue: %s", states)
	}
}
