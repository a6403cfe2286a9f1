package cron

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"sync"
	"time"

	"hermes/internal/cron/schedule"
	"hermes/internal/domain"
	"hermes/internal/failpoint"
	"hermes/internal/ledger"
)

// elsewhereLook is how soon the scheduler looks again while a due run waits for
// one of its job in another process, whose end wakes nobody here.
const elsewhereLook = time.Second

// scan fires what is due, deals with what a crash cut off, starts what is
// waiting, and tells when to look again. What becomes due while it works is for
// the next scan: jobs that come faster than they can be fired must not keep
// those that were fired from being started.
func (s *Scheduler) scan(ctx context.Context) (next time.Time, err error) {
	now := s.wall.Now()
	var lost missedJobs
	defer func() { lost.tell(ctx, s) }()
	var settled error
	if s.mayHoldCutOff(now) {
		settled = s.settleInterrupted(ctx)
	}
	var failed error
	elsewhere := false
	for more := true; more && failed == nil; {
		look := &look{jobs: map[domain.JobID]*domain.Job{}}
		more, failed = s.fireDue(ctx, now, look, &lost)
		// A job that cannot be fired does not hold up the runs of others.
		if err := s.dispatch(ctx, look); err != nil {
			return time.Time{}, err
		}
		elsewhere = look.elsewhere
	}
	if failed != nil || settled != nil {
		s.mu.Lock()
		s.settledAt = time.Time{}
		s.mu.Unlock()
		return time.Time{}, cmp.Or(failed, settled)
	}
	asking, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	next, err = s.opt.Store.NextDue(asking)
	if soon := s.wall.Now().Add(elsewhereLook); err == nil && elsewhere && (next.IsZero() || soon.Before(next)) {
		next = soon
	}
	return next, err
}

// look is what one round of a scan knows already, so that a hundred jobs that are due at
// once are not read a hundred times.
type look struct {
	mu   sync.Mutex
	jobs map[domain.JobID]*domain.Job // nil: there is none
	// running are the jobs with a run that is going in any process; nil when it
	// was not asked for yet.
	running map[domain.JobID]bool
	ends    int // Scheduler.ends before that was asked
	// elsewhere tells that a due run waits for one of another process.
	elsewhere bool
}

// keep remembers a job that was just fired, as far as there is room.
func (l *look) keep(j domain.Job) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.jobs) < fireBatch {
		l.jobs[j.ID] = &j
	}
}

// fireDue records the firings of the jobs that were due at now, a batch of them,
// and tells whether there may be more. A job whose firing cannot be recorded does
// not hold up the others.
func (s *Scheduler) fireDue(ctx context.Context, now time.Time, look *look, lost *missedJobs) (more bool, err error) {
	jobs, err := s.due(ctx, now)
	if err != nil || len(jobs) == 0 {
		return false, err
	}
	var wg sync.WaitGroup
	slots := make(chan struct{}, fireWorkers)
	errs := make([]error, len(jobs))
	for i, job := range jobs {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			errs[i] = s.fireGuarded(ctx, job, now, look, lost)
		})
	}
	wg.Wait()
	for _, failed := range errs {
		if failed != nil {
			err = failed
		}
	}
	return len(jobs) == fireBatch, err
}

func (s *Scheduler) due(ctx context.Context, now time.Time) ([]domain.Job, error) {
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	return s.opt.Store.DueJobs(ctx, now, fireBatch)
}

// fireGuarded keeps one job's panic from the others. Such a job is set aside,
// or it would be met again at every scan.
func (s *Scheduler) fireGuarded(ctx context.Context, job domain.Job, now time.Time, look *look, lost *missedJobs) (err error) {
	defer func() {
		if p := recover(); p != nil {
			s.log.Error("firing a job panicked", "job", job.ID, "panic", p)
			err = s.setAside(ctx, job, fmt.Errorf("a defect of the scheduler: %v", p))
		}
	}()
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	d, err := DefinitionOf(job)
	if err != nil {
		return s.setAside(ctx, job, err)
	}
	sch, err := d.ParseSchedule(s.opt.Zone())
	if err != nil {
		return s.setAside(ctx, job, err)
	}
	in := situation{def: d, schedule: sch, from: job.NextAt, now: now, left: -1,
		grace: d.grace(sch, job.NextAt, s.opt.Config().Grace)}
	if d.Repeat.Times > 0 {
		if in.left, d, err = s.allowed(ctx, &job, d); err != nil {
			return err
		}
	}
	if orDefault(d.Overlap, OverlapSkip) != OverlapParallel {
		open, err := s.opt.Store.Runs(ctx, ledger.RunFilter{Job: job.ID, States: []domain.RunState{domain.RunDue, domain.RunRunning}, Limit: maxQueued + 1})
		if err != nil {
			return err
		}
		in.open = len(open)
	}
	f := in.decide()
	for i := range f.runs {
		f.runs[i].Job = job.ID
	}
	failpoint.Hit(failpoint.FiringBeforeCommit)
	_, err = s.opt.Store.Fire(ctx, job.ID, job.NextAt, f.next, f.runs)
	failpoint.Hit(failpoint.FiringCommitted)
	switch domain.CodeOf(err) {
	case "":
		look.keep(job)
		if f.missed > 0 && f.due == 0 {
			lost.add(job, d, f.missed, job.NextAt, f.next)
		}
		return nil
	case domain.Conflict, domain.NotFound:
		return nil // another scheduler fired it, or it was changed or removed
	}
	return err
}

// setAside ends the schedule of a job that cannot be fired, with a failed run
// that says why.
func (s *Scheduler) setAside(ctx context.Context, job domain.Job, cause error) error {
	s.log.Error("a job cannot be fired and is set aside", "job", job.ID, "name", job.Name, "error", cause)
	_, err := s.opt.Store.Fire(ctx, job.ID, job.NextAt, time.Time{}, []domain.Run{{Job: job.ID, Instant: job.NextAt, State: domain.RunFailed, Error: domain.MessageOf(cause)}})
	if code := domain.CodeOf(err); code == domain.Conflict || code == domain.NotFound {
		return nil
	}
	if err != nil {
		return err
	}
	home, ok := s.opt.Targets.anyHome()
	if !ok {
		return nil
	}
	text := fmt.Sprintf("⚠️ Cron job '%s' cannot be fired any more: %s. It is set aside; mend it with `hermes cron edit %s` or remove it.", job.Name, domain.MessageOf(cause), job.ID)
	return s.enqueue(ctx, s.planAll([]domain.Address{home}, "alert", text, 0))
}

func (s *Scheduler) enqueue(ctx context.Context, d []domain.NewDelivery) error {
	if len(d) == 0 {
		return nil
	}
	if _, err := s.opt.Store.Enqueue(ctx, d, s.wall.Now()); err != nil {
		return err
	}
	s.opt.Committed()
	return nil
}

// allowed counts how many firings a finite repeat still has. The count rests
// on the ledger's runs; now and then it is written down, because old runs are
// removed.
func (s *Scheduler) allowed(ctx context.Context, job *domain.Job, d Definition) (int, Definition, error) {
	const writtenDown = 50
	since, last, err := firedSince(ctx, s.opt.Store, job.ID, d.Repeat)
	if err != nil {
		return 0, d, err
	}
	if since >= writtenDown {
		d.Repeat.Completed += since
		d.Repeat.Through = last
		if job.Definition, err = json.Marshal(d); err != nil {
			return 0, d, domain.E(domain.Internal, err, "the definition of job %s cannot be written", job.ID)
		}
		changed, err := s.opt.Store.PutJob(ctx, *job)
		if err != nil {
			return 0, d, err
		}
		*job, since = changed, 0
	}
	return max(0, d.Repeat.Times-d.Repeat.Completed-since), d, nil
}

// firedSince counts the firings after Repeat.Through that ran or will.
func firedSince(ctx context.Context, store ledger.Jobs, id domain.JobID, r Repeat) (n int, last time.Time, err error) {
	runs, err := store.Runs(ctx, ledger.RunFilter{Job: id, Since: r.Through, Limit: 1000})
	if err != nil {
		return 0, time.Time{}, err
	}
	for _, run := range runs {
		if run.Manual || !run.Instant.After(r.Through) || run.State == domain.RunMissed || run.State == domain.RunSkipped || retries(run) > 0 {
			continue
		}
		n++
		if run.Instant.After(last) {
			last = run.Instant
		}
	}
	return n, last, nil
}

// missedJobs collects the jobs that an outage made miss everything, for one
// message in place of a flood.
type missedJobs struct {
	mu   sync.Mutex
	list []missedJob
	more int
}

type missedJob struct {
	name  string
	def   Definition
	count int
	since time.Time
	next  time.Time
}

const maxMissedListed = 20

func (m *missedJobs) add(j domain.Job, d Definition, count int, since, next time.Time) {
	if d.CatchUp == CatchUpNone {
		return // it was asked for
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.list) >= maxMissedListed {
		m.more++
		return
	}
	m.list = append(m.list, missedJob{j.Name, d, count, since, next})
}

// tell sends one message to each address about all the jobs that concern it.
func (m *missedJobs) tell(ctx context.Context, s *Scheduler) {
	lines := map[domain.Address]string{}
	var order []domain.Address
	for _, j := range m.list {
		list := j.def.FailureDeliver
		if len(list) == 0 {
			list = j.def.Deliver
		}
		to, _ := s.opt.Targets.Resolve(list, j.def.Origin)
		next := "it does not come again"
		if !j.next.IsZero() {
			next = "next at " + s.clockOf(j.def, j.next)
		}
		for _, a := range to {
			if lines[a] == "" {
				order = append(order, a)
			}
			lines[a] += fmt.Sprintf("- '%s': %s since %s; %s\n", j.name, plural(j.count, "firing"), s.clockOf(j.def, j.since), next)
		}
	}
	for _, a := range order {
		text := "⚠️ These cron jobs could not fire in time, because nothing was running that fires them, and it is too late to make up for it:\n\n" + lines[a]
		if m.more > 0 {
			text += fmt.Sprintf("- and %d jobs more\n", m.more)
		}
		if err := s.enqueue(ctx, s.planAll([]domain.Address{a}, "alert", text, 0)); err != nil {
			s.log.Error("the message about missed jobs could not be stored", "error", err)
		}
	}
}

const (
	maxRetries      = 3
	interruptedDays = 24 * time.Hour // how far back cut-off runs are looked for
)

// retries tells how often a run was tried before: a retry's instant is that of
// its run plus a millisecond, so that the ledger's unique firings make each
// retry happen once. Scheduled instants are whole seconds.
func retries(r domain.Run) int { return r.Instant.Nanosecond() / int(time.Millisecond) }

// Realign moves the next instants that another zone gave (the profile's zone, or
// the host's, was changed) to where the schedule has them now. It goes over every
// job, so it is done only when the zone is another than the one that was written
// down last. It may run beside the loop, and returns when all jobs were looked at
// or ctx ends.
func (s *Scheduler) Realign(ctx context.Context) {
	defer func() {
		if p := recover(); p != nil {
			s.log.Error("looking for jobs of another zone panicked", "panic", p)
		}
	}()
	zone := zoneSign(s.opt.Zone(), s.wall.Now())
	if s.outputs.zone() == zone {
		return
	}
	const page = 5000 // a page costs the walk to where it begins
	for offset := 0; ctx.Err() == nil; offset += page {
		jobs, err := s.opt.Store.ListJobs(ctx, ledger.JobFilter{EnabledOnly: true, Limit: page, Offset: offset})
		if err != nil {
			s.log.Warn("jobs of another zone could not be looked for; such a job finds its time when it is next due", "error", err)
			return
		}
		for _, job := range jobs {
			s.realignOne(ctx, job)
		}
		if len(jobs) < page {
			if err := s.outputs.setZone(zone); err != nil {
				s.log.Warn("the zone could not be written down; the next start compares all jobs again", "error", err)
			}
			return
		}
	}
}

// zoneSign tells zones apart, also two that are both called Local.
func zoneSign(zone *time.Location, now time.Time) string {
	sign := zone.String()
	for _, month := range []time.Month{time.January, time.July} {
		sign += time.Date(now.Year(), month, 1, 0, 0, 0, 0, zone).Format(" -07:00")
	}
	return sign
}

func (s *Scheduler) realignOne(ctx context.Context, job domain.Job) {
	now := s.wall.Now()
	d, err := DefinitionOf(job)
	if err != nil || d.Timezone != "" || !job.NextAt.After(now) {
		return
	}
	sch, err := d.ParseSchedule(s.opt.Zone())
	if err != nil || sch.Kind() != schedule.Cron || sch.Next(job.NextAt.Add(-1)).Equal(job.NextAt) {
		return
	}
	if _, err := s.opt.Store.Fire(ctx, job.ID, job.NextAt, sch.Next(now), nil); err != nil && !domain.IsCode(err, domain.Conflict) {
		s.log.Warn("a job could not be moved to the profile's new zone", "job", job.ID, "error", err)
		return
	}
	s.log.Info("a job was moved to the profile's new zone", "job", job.ID, "was", job.NextAt, "is", sch.Next(now))
	s.Wake()
}

// mayHoldCutOff tells whether a scan looks for runs that a crash cut off: the
// first does, those that somebody asked for, and the safety scans. The end of a
// run of this process, which wakes the loop many times a second, cuts off none.
func (s *Scheduler) mayHoldCutOff(now time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	asked := s.asked
	s.asked = false
	if since := now.Sub(s.settledAt); !asked && s.leading && since >= 0 && since < safetyScan/2 {
		return false
	}
	s.settledAt = now
	return true
}

// settleInterrupted reports the runs that a crash cut off, or fires them again
// where the job says so. Only the process that shows itself as the scheduler
// does so, or two would report the same.
func (s *Scheduler) settleInterrupted(ctx context.Context) error {
	if !s.lead() {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	runs, err := s.opt.Store.Runs(ctx, ledger.RunFilter{States: []domain.RunState{domain.RunInterrupted}, Since: s.wall.Now().Add(-interruptedDays), Limit: 200})
	if err != nil {
		return err
	}
	fresh := map[int64]bool{}
	for _, r := range runs {
		fresh[r.ID] = true
		if r.Delivery != "" || s.settled[r.ID] {
			continue
		}
		if err := s.settle(ctx, r); err != nil {
			return err
		}
		s.settled[r.ID] = true
	}
	for id := range s.settled {
		if !fresh[id] {
			delete(s.settled, id)
		}
	}
	return nil
}

func (s *Scheduler) settle(ctx context.Context, r domain.Run) error {
	job, err := s.opt.Store.Job(ctx, r.Job)
	if domain.IsCode(err, domain.NotFound) {
		return nil
	} else if err != nil {
		return err
	}
	d, err := DefinitionOf(job)
	if err != nil {
		return nil //nolint:nilerr // reported when it is due
	}
	if d.OnInterrupt == InterruptRetry && retries(r) < maxRetries {
		again := domain.Run{Job: job.ID, Instant: r.Instant.Add(time.Millisecond), State: domain.RunDue, Manual: r.Manual}
		_, err := s.opt.Store.Fire(ctx, job.ID, job.NextAt, job.NextAt, []domain.Run{again})
		if domain.IsCode(err, domain.Conflict) {
			return domain.E(domain.Unavailable, err, "job %s changed while its cut-off run was put back", job.ID)
		}
		return err
	}
	text := fmt.Sprintf("⚠️ Cron job '%s' was cut off: the process that ran it died (due at %s). What it had begun is unknown, so it was not run again; to run it now: `hermes cron run %s`.", job.Name, s.clockOf(d, r.Instant), job.ID)
	return s.enqueue(ctx, s.alert(d, text, r.ID))
}
