package cron

import (
	"context"
	"slices"
	"sync"
	"testing"
	"time"

	"hermes/internal/domain"
	"hermes/internal/ledger"
)

// busyStore is a ledger on which every firing takes a second, so that the next
// job is due before the firing is stored.
type busyStore struct {
	Store
	r      *rig
	mu     sync.Mutex
	events []string
	fails  domain.JobID // its firings are refused
}

func (b *busyStore) note(event string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.events = append(b.events, event)
}

func (b *busyStore) Fire(ctx context.Context, id domain.JobID, from, next time.Time, runs []domain.Run) ([]domain.Run, error) {
	b.note("fire")
	if id == b.fails {
		return nil, domain.E(domain.Unavailable, nil, "the disk is busy")
	}
	made, err := b.Store.Fire(ctx, id, from, next, runs)
	b.r.clock.Advance(time.Second)
	return made, err
}

func (b *busyStore) DueRuns(ctx context.Context, limit int) ([]domain.Run, error) {
	b.note("look")
	return b.Store.DueRuns(ctx, limit)
}

// Jobs that become due faster than they can be fired do not keep those that
// were fired from being started.
func TestFiringStarvesNoRun(t *testing.T) {
	r := newRig(t)
	store := &busyStore{Store: r.store, r: r}
	const jobs = 20
	var ids []domain.JobID
	for i := range jobs {
		ids = append(ids, r.watchdog("job"+string(rune('a'+i)), "exit 0", func(c *Change) {
			c.Schedule = ptr(begin.Add(time.Hour + time.Duration(i)*time.Second).Format(time.RFC3339))
		}))
	}
	s := r.schedulerOn(store)
	r.clock.Set(begin.Add(time.Hour))
	for range jobs {
		if _, err := s.Tick(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	for _, id := range ids {
		if runs := r.runs(id); len(runs) != 1 || runs[0].State != domain.RunSilent {
			t.Fatalf("job %s has the runs %+v, want one that ended", id, runs)
		}
	}
	for i, e := range store.events[1:] {
		if e == "fire" && store.events[i] == "fire" {
			t.Fatalf("two firings without a look at what is due between them: %v", store.events)
		}
	}
}

// A firing that cannot be stored holds up neither other jobs nor their runs.
func TestFailedFiringHoldsUpNoRun(t *testing.T) {
	r := newRig(t)
	store := &busyStore{Store: r.store, r: r}
	store.fails = r.watchdog("refused", "exit 0")
	good := r.watchdog("good", "exit 0")
	r.clock.Set(begin.Add(10 * time.Minute))
	if _, err := r.schedulerOn(store).Tick(t.Context()); !domain.IsCode(err, domain.Unavailable) {
		t.Errorf("the failure is not told: %v", err)
	}
	if got := r.states(good); got != "10:10 silent" {
		t.Errorf("the other job's runs are %q, want one that ended", got)
	}
}

// A run that waits for one of its job in another process begins soon after that
// one ended, though nobody tells of it.
func TestRunOfAnotherProcessIsWaitedForClosely(t *testing.T) {
	r := newRig(t)
	id := r.watchdog("moving", "exit 0", func(c *Change) { c.Overlap = ptr(OverlapQueue) })
	job, err := r.store.Job(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	first, second := domain.Run{Instant: begin, State: domain.RunDue}, domain.Run{Instant: begin.Add(time.Second), State: domain.RunDue}
	made, err := r.store.Fire(t.Context(), id, job.NextAt, job.NextAt, []domain.Run{first, second})
	if err != nil {
		t.Fatal(err)
	}
	other := r.open()
	run, ok, err := other.ClaimRun(t.Context(), made[0].ID, begin)
	if err != nil || !ok {
		t.Fatalf("the other process cannot claim: %v, %v", ok, err)
	}
	r.started()
	r.asleep(begin.Add(elsewhereLook))
	if got := r.states(id); got != "10:00 running, 10:00 due" {
		t.Fatalf("the runs are %s", got)
	}
	end := ledger.RunEnd{Ref: ledger.RunRef{ID: run.ID, Fence: run.Fence}, State: domain.RunOK}
	if _, err := other.FinishRun(t.Context(), end, nil, begin); err != nil {
		t.Fatal(err)
	}
	r.clock.Advance(elsewhereLook)
	waitFor(t, func() bool { return r.states(id) == "10:00 ok, 10:00 silent" })
	r.asleep(begin.Add(elsewhereLook + safetyScan)) // and then no closer look
}

// Whenever a run ends, whatever the scheduler does just then, the next begins:
// the clock stands still, so that no safety scan can make up for a lost wake-up.
func TestNoWakeUpIsLost(t *testing.T) {
	r := newRig(t)
	r.conf.MaxParallel = 3
	r.agent = agentFunc(func(context.Context, JobTurn) (JobResult, error) { return JobResult{Text: "[SILENT]"}, nil })
	var ids []domain.JobID
	for i := range 8 {
		ids = append(ids, r.agentJob("job"+string(rune('a'+i)), func(c *Change) { c.Overlap = ptr(OverlapQueue) }))
	}
	s := r.started()
	r.asleep(begin.Add(safetyScan))
	const each = 12
	var asking sync.WaitGroup
	for _, id := range ids {
		asking.Go(func() {
			job, err := r.store.Job(t.Context(), id)
			for i := 0; i < each && err == nil; i++ {
				run := domain.Run{Instant: begin.Add(time.Duration(i) * time.Second), Manual: true, State: domain.RunDue}
				_, err = r.store.Fire(t.Context(), id, job.NextAt, job.NextAt, []domain.Run{run})
				s.Wake()
			}
			if err != nil {
				t.Error(err)
			}
		})
	}
	asking.Wait()
	for _, id := range ids {
		waitFor(t, func() bool {
			runs := r.runs(id)
			return len(runs) == each && !slices.ContainsFunc(runs, func(run domain.Run) bool { return run.State != domain.RunSilent })
		})
	}
}
