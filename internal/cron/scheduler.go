package cron

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"runtime/debug"
	"sync"
	"time"

	"hermes/internal/clock"
	"hermes/internal/domain"
	"hermes/internal/health"
	"hermes/internal/home"
	"hermes/internal/ledger"
)

// Store is the part of the ledger that cron uses.
type Store interface {
	ledger.Jobs
	Enqueue(ctx context.Context, d []domain.NewDelivery, now time.Time) ([]int64, error)
	Deliveries(ctx context.Context, f ledger.DeliveryFilter) ([]domain.Delivery, error)
	AcquireLease(ctx context.Context, name string) (ledger.Lease, error)
	ReleaseLease(ctx context.Context, l ledger.Lease) error
}

// Lease is the ledger's lease that the process holds whose scheduler runs. It
// is evidence for people and for housekeeping; that nothing fires twice is
// ensured by the ledger's unique firings, not by it.
const Lease = "cron.scheduler"

// Options are what a Scheduler needs. Store, Home, Planner and Log must be set.
type Options struct {
	Store   Store
	Home    string                 // the profile's home folder
	RootDir string                 // the root profile's home, for advice
	Zone    func() *time.Location  // the profile's zone; nil means the host's
	Config  func() home.CronConfig // nil means the defaults
	Wall    clock.Wall             // nil means the system's
	Agent   Agent                  // nil: runs that need the agent stay due, for a process that has one
	Planner Planner
	Targets *Targets
	// Environ is the environment of scripts, already without secrets; see
	// CleanEnviron. nil means an empty one but for a standard PATH.
	Environ func() []string
	Redact  func(string) string // nil leaves texts as they are
	Health  *health.Reporter
	Log     *slog.Logger
	// Committed is called after deliveries were committed, to wake the
	// dispatcher. It must not block. May be nil.
	Committed func()
}

const (
	safetyScan      = 60 * time.Second // the longest sleep, for changes that nobody told us of
	storeTimeout    = 30 * time.Second // of one transaction
	defaultParallel = 64               // runs at once when none is configured
	fireWorkers     = 128              // firings committed at once, so that they share commits
	fireBatch       = 256
	maxGoing        = 1 << 14 // runs of all processes that are taken in
	heartbeatEvery  = 20 * time.Second
	stopGrace       = 15 * time.Second // for cancelled runs to end
	maxRetryPause   = 60 * time.Second
)

// Scheduler fires due jobs and runs them. Its life is New, Start, Stop. Wake
// and the other methods are safe for concurrent use.
type Scheduler struct {
	opt     Options
	wall    clock.Wall
	log     *slog.Logger
	outputs outputs
	scripts Scripts

	runCtx    context.Context // of runs: outlives the loop while draining
	cancelRun context.CancelCauseFunc
	stopLoop  context.CancelFunc
	loopDone  chan struct{}

	mu        sync.Mutex
	woken     bool
	wake      context.CancelFunc // ends the present sleep
	active    map[int64]domain.JobID
	busy      map[domain.JobID]int
	settled   map[int64]bool // interrupted runs that were dealt with
	lease     ledger.Lease
	leading   bool
	lastBeat  time.Time
	lastFail  string          // the last error that was logged, so that it is logged once
	started   int             // runs begun so far
	behind    time.Time       // instant of the oldest run that waits for a free place; zero when none does
	drained   []chan struct{} // closed when no run is left
	waiting   bool            // a due run was left behind, for the end of another
	ends      int             // runs that ended so far
	asked     bool            // somebody called Wake since the last scan
	settledAt time.Time       // when cut-off runs were last looked for
	turned    chan struct{}   // closed when the loop has scanned once more
}

var errStopping = errors.New("the gateway was stopped")

// New makes a scheduler that does nothing yet.
func New(o Options) *Scheduler {
	if o.Wall == nil {
		o.Wall = clock.System()
	}
	if o.Zone == nil {
		o.Zone = func() *time.Location { return time.Local }
	}
	if o.Config == nil {
		o.Config = func() home.CronConfig { return home.CronConfig{WrapResponse: true, IdleTimeout: 10 * time.Minute} }
	}
	if o.Environ == nil {
		o.Environ = func() []string { return []string{"PATH=/usr/local/bin:/usr/bin:/bin"} }
	}
	if o.Committed == nil {
		o.Committed = func() {}
	}
	s := &Scheduler{
		opt: o, wall: o.Wall, log: o.Log,
		outputs: outputs{filepath.Join(o.Home, "cron")},
		scripts: Scripts{Dir: filepath.Join(o.Home, "scripts")},
		active:  map[int64]domain.JobID{}, busy: map[domain.JobID]int{}, settled: map[int64]bool{},
	}
	if o.RootDir != "" {
		s.scripts.RootDir = filepath.Join(o.RootDir, "scripts")
	}
	s.runCtx, s.cancelRun = context.WithCancelCause(context.Background())
	return s
}

// Start begins to fire. The ledger's Recover must have been called.
func (s *Scheduler) Start() {
	ctx, cancel := context.WithCancel(context.Background())
	s.stopLoop, s.loopDone = cancel, make(chan struct{})
	go func() {
		defer close(s.loopDone)
		var aside sync.WaitGroup
		aside.Go(func() { s.Realign(ctx) })
		s.loop(ctx)
		aside.Wait()
	}()
}

// Stop ends firing at once and waits for the runs that are going until ctx
// ends; those still going then are cancelled, end as interrupted and are
// reported. It returns when no run is left, or stopGrace after the
// cancellation with the error that says how many would not end.
func (s *Scheduler) Stop(ctx context.Context) error {
	if s.stopLoop != nil {
		s.stopLoop()
		<-s.loopDone
	}
	defer s.release()
	select {
	case <-s.idle():
		s.cancelRun(errStopping)
		return nil
	case <-ctx.Done():
	}
	s.cancelRun(errStopping)
	timer := time.NewTimer(stopGrace)
	defer timer.Stop()
	select {
	case <-s.idle():
		return nil
	case <-timer.C:
		return domain.E(domain.Timeout, nil, "%d cron runs did not end when told to; the next start reports them", s.Running())
	}
}

// Wake makes the scheduler look at once: a job was changed, a run was asked
// for, another process poked.
func (s *Scheduler) Wake() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked = true
	s.wakeLocked()
}

// wakeLocked ends the loop's sleep; the caller holds mu.
func (s *Scheduler) wakeLocked() {
	s.woken = true
	if s.wake != nil {
		s.wake()
	}
}

// Running is the number of runs that this process has going.
func (s *Scheduler) Running() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.active)
}

// Tick fires and runs all that is due, waits for it and returns the number of
// runs that it began. It is for a process without Start (`hermes cron tick`).
func (s *Scheduler) Tick(ctx context.Context) (int, error) {
	defer s.release()
	begin := s.begun()
	for {
		before := s.begun()
		_, err := s.scan(ctx)
		select {
		case <-s.idle():
		case <-ctx.Done():
			s.cancelRun(context.Cause(ctx))
			<-s.idle()
			return s.begun() - begin, ctx.Err()
		}
		if err != nil || s.begun() == before {
			return s.begun() - begin, err
		}
	}
}

func (s *Scheduler) begun() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.started
}

// idle is closed as soon as no run is going.
func (s *Scheduler) idle() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := make(chan struct{})
	if len(s.active) == 0 {
		close(c)
		return c
	}
	s.drained = append(s.drained, c)
	return c
}

// loop scans, sleeps until the next instant, and scans again. It survives its
// own panics: a scheduler that died quietly is what nobody notices.
func (s *Scheduler) loop(ctx context.Context) {
	pause := time.Second
	last, mark := s.wall.Now(), clock.Here()
	for ctx.Err() == nil {
		mark = s.tellJump(mark)
		if now := s.wall.Now(); now.Before(last.Add(-clockSetBack)) {
			s.rewind(ctx, last, now)
		}
		last = s.wall.Now()
		next, err := s.guardedScan(ctx)
		s.turn()
		if ctx.Err() != nil {
			return
		}
		now := s.wall.Now()
		if now.Before(last.Add(-clockSetBack)) {
			continue // it was set back during the scan
		}
		until := now.Add(safetyScan)
		switch {
		case err != nil:
			until = now.Add(pause)
			pause = min(2*pause, maxRetryPause)
		default:
			pause = time.Second
			if !next.IsZero() && next.Before(until) {
				until = next
			}
		}
		s.report(now, next, err)
		s.sleep(ctx, until)
	}
}

// turn tells those who wait in Check.
func (s *Scheduler) turn() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.turned != nil {
		close(s.turned)
		s.turned = nil
	}
}

// Check proves that the loop turns: it wakes it and returns when it has looked,
// whatever it found, or with ctx's error as domain.Timeout.
func (s *Scheduler) Check(ctx context.Context) error {
	s.mu.Lock()
	if s.turned == nil {
		s.turned = make(chan struct{})
	}
	turned := s.turned
	s.mu.Unlock()
	s.Wake()
	select {
	case <-turned:
		return nil
	case <-ctx.Done():
		return domain.E(domain.Timeout, ctx.Err(), "the scheduler does not turn; jobs are not fired")
	}
}

// sleep waits for an instant or for Wake.
func (s *Scheduler) sleep(ctx context.Context, until time.Time) {
	wait, cancel := context.WithCancel(ctx)
	defer cancel()
	s.mu.Lock()
	if s.woken {
		cancel()
	}
	s.wake = cancel
	s.mu.Unlock()
	if until.Sub(s.wall.Now()) > safetyScan+clockSetBack {
		cancel() // the clock was set back since until was chosen
	}
	_ = s.wall.WaitUntil(wait, until) // ends early when woken; the scan looks at the clock itself
	s.mu.Lock()
	s.woken, s.wake = false, nil
	s.mu.Unlock()
}

// guardedScan is scan with its panics turned into errors.
func (s *Scheduler) guardedScan(ctx context.Context) (next time.Time, err error) {
	defer func() {
		if p := recover(); p != nil {
			s.log.Error("the scheduler panicked and goes on", "panic", p, "stack", string(debug.Stack()))
			err = domain.E(domain.Internal, fmt.Errorf("%v", p), "the scheduler hit a defect of its own and goes on")
		}
	}()
	return s.scan(ctx)
}

// report shows the state of the loop to people.
func (s *Scheduler) report(now, next time.Time, err error) {
	h := s.opt.Health
	h.Note("last_looked", now.Format(time.RFC3339))
	if next.IsZero() {
		h.Note("next_due", "none")
	} else {
		h.Note("next_due", next.Format(time.RFC3339))
	}
	h.Note("running", fmt.Sprint(s.Running()))
	s.mu.Lock()
	behind := s.behind
	s.mu.Unlock()
	failure := ""
	switch {
	case err == nil && !behind.IsZero() && now.Sub(behind) > safetyScan:
		h.Degraded("behind", fmt.Sprintf("as many runs are going as may at once, and one has waited since %s; raise cron.max_parallel_jobs, or give slow jobs a --timeout", behind.Format(time.RFC3339)))
	case err != nil:
		failure = err.Error()
		h.Degraded(string(domain.CodeOf(err)), domain.MessageOf(err)+"; jobs may fire late until it works again")
	default:
		h.OK()
	}
	s.mu.Lock()
	beat := now.Sub(s.lastBeat) >= heartbeatEvery || now.Before(s.lastBeat) || failure != s.lastFail
	changed := failure != s.lastFail
	if beat {
		s.lastBeat = now
	}
	s.lastFail = failure
	s.mu.Unlock()
	if changed && err != nil {
		s.log.Error("the scheduler cannot look for due jobs; it tries again", "error", err)
	}
	if beat {
		if err := s.outputs.heartbeat(now, err); err != nil {
			s.log.Warn("the scheduler's heartbeat files could not be written", "error", err)
		}
	}
}

// lead holds the lease while it can be had, as evidence that a scheduler runs,
// and tells whether this process has it.
func (s *Scheduler) lead() bool {
	s.mu.Lock()
	leading := s.leading
	s.mu.Unlock()
	if leading {
		return true
	}
	ctx, cancel := context.WithTimeout(context.Background(), storeTimeout)
	defer cancel()
	l, err := s.opt.Store.AcquireLease(ctx, Lease)
	if err != nil {
		return false // another process shows it; both may fire, the ledger keeps them apart
	}
	s.mu.Lock()
	s.lease, s.leading = l, true
	s.mu.Unlock()
	return true
}

func (s *Scheduler) release() {
	s.mu.Lock()
	l, leading := s.lease, s.leading
	s.leading = false
	s.mu.Unlock()
	if !leading {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), storeTimeout)
	defer cancel()
	if err := s.opt.Store.ReleaseLease(ctx, l); err != nil {
		s.log.Warn("the scheduler's lease could not be given back; it ends with the process", "error", err)
	}
	// Another scheduler of the profile shows itself from now on.
	if err := Poke(s.opt.Home); err != nil {
		s.log.Debug("no other scheduler was told", "error", err)
	}
}

func (s *Scheduler) setBehind(oldest time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.behind = oldest
}

func (s *Scheduler) redact(text string) string {
	if s.opt.Redact == nil {
		return text
	}
	return s.opt.Redact(text)
}
