package cron

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"time"

	"hermes/internal/domain"
	"hermes/internal/failpoint"
	"hermes/internal/ledger"
	"hermes/internal/model"
)

// dispatch starts the runs that are due, oldest first, as far as the bound on
// parallel runs and the jobs' overlap rules allow.
func (s *Scheduler) dispatch(ctx context.Context, look *look) error {
	limit := s.opt.Config().MaxParallel
	if limit <= 0 {
		limit = defaultParallel
	}
	s.setBehind(time.Time{})
	s.mu.Lock()
	s.waiting = false
	s.mu.Unlock()
	// Every end of a run comes here: no more is read than can be started, and
	// what stands in front because it waits for its own job.
	batch := 2*max(limit-s.Running(), 0) + 16
	for {
		runs, err := s.dueRuns(ctx, batch)
		if err != nil {
			return err
		}
		for _, r := range runs {
			if s.full(limit) {
				s.setBehind(r.Instant)
				return nil // the end of a run wakes us
			}
			if err := s.consider(ctx, r, look); err != nil {
				return err
			}
		}
		if len(runs) < batch {
			return nil
		}
		if batch > 1<<16 {
			s.wait()
			return nil
		}
		batch *= 8 // there is room, and more waits behind these
	}
}

// full tells whether no more runs may begin; the next end of one wakes the loop
// then.
func (s *Scheduler) full(limit int) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	full := len(s.active) >= limit
	s.waiting = s.waiting || full
	return full
}

// wait says that a due run was left behind, so that the next end of one wakes
// the loop.
func (s *Scheduler) wait() {
	s.mu.Lock()
	s.waiting = true
	s.mu.Unlock()
}

func (s *Scheduler) dueRuns(ctx context.Context, limit int) ([]domain.Run, error) {
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	return s.opt.Store.DueRuns(ctx, limit)
}

// consider starts a run unless it is going already or must wait for another
// run of its job.
func (s *Scheduler) consider(ctx context.Context, r domain.Run, look *look) error {
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	s.mu.Lock()
	_, going := s.active[r.ID]
	others := s.busy[r.Job]
	s.waiting = s.waiting || others > 0
	s.mu.Unlock()
	if going {
		return nil
	}
	job, err := s.jobOf(ctx, r.Job, look)
	if err != nil {
		return err
	}
	var d Definition
	if job != nil {
		d, err = DefinitionOf(*job)
		if err == nil && !d.NoAgent && s.opt.Agent == nil {
			return nil // it waits for a process that has an agent
		}
		if err == nil && orDefault(d.Overlap, OverlapSkip) != OverlapParallel {
			if others > 0 {
				return nil
			}
			if elsewhere, err := s.runs(ctx, r.Job, look); err != nil || elsewhere {
				look.elsewhere = look.elsewhere || elsewhere
				s.lookAgain(look)
				return err
			}
		}
	}
	s.mu.Lock()
	s.active[r.ID] = r.Job
	s.busy[r.Job]++
	s.started++
	s.mu.Unlock()
	go s.runOne(r, job, d)
	return nil
}

// lookAgain wakes the loop when a run of this process has ended since the round
// asked which are going: what seems to run elsewhere may be that one.
func (s *Scheduler) lookAgain(look *look) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ends != look.ends {
		s.wakeLocked()
	}
}

// jobOf gives a job, or nil when it was removed.
func (s *Scheduler) jobOf(ctx context.Context, id domain.JobID, look *look) (*domain.Job, error) {
	if job, known := look.jobs[id]; known {
		return job, nil
	}
	j, err := s.opt.Store.Job(ctx, id)
	switch {
	case err == nil:
		look.jobs[id] = &j
	case domain.IsCode(err, domain.NotFound):
		look.jobs[id] = nil
	default:
		return nil, err
	}
	return look.jobs[id], nil
}

// runs tells whether a run of the job was going anywhere when this round first
// asked: another process may have one (a hand-over).
func (s *Scheduler) runs(ctx context.Context, id domain.JobID, look *look) (bool, error) {
	if look.running == nil {
		s.mu.Lock()
		look.ends = s.ends
		s.mu.Unlock()
		going, err := s.opt.Store.Runs(ctx, ledger.RunFilter{States: []domain.RunState{domain.RunRunning}, Limit: maxGoing})
		if err != nil {
			return false, err
		}
		look.running = make(map[domain.JobID]bool, len(going))
		for _, r := range going {
			look.running[r.Job] = true
		}
	}
	return look.running[id], nil
}

// runOne claims a run, performs it and commits its end.
func (s *Scheduler) runOne(due domain.Run, job *domain.Job, d Definition) {
	defer s.ended(due)
	defer func() {
		if p := recover(); p != nil {
			s.log.Error("ending a cron run panicked; the next start reports the run as cut off", "job", due.Job, "run", due.ID, "panic", p, "stack", string(debug.Stack()))
		}
	}()
	ctx, cancel := context.WithTimeout(s.runCtx, storeTimeout)
	r, ok, err := s.opt.Store.ClaimRun(ctx, due.ID, s.wall.Now())
	cancel()
	if err != nil {
		s.log.Error("a due run could not be claimed; it stays due", "job", due.Job, "run", due.ID, "error", err)
		s.pause(time.Second) // its end wakes the loop, which would meet it again at once
		s.wait()
		return
	}
	if !ok {
		return // another process has it
	}
	failpoint.Hit(failpoint.RunClaimed)
	if job == nil {
		s.finish(r, outcome{state: domain.RunFailed, errText: "the job was removed before this run began"}, nil)
		return
	}
	log := s.log.With("job", job.ID, "name", job.Name, "run", r.ID)
	log.Info("cron run begins", "instant", r.Instant)
	began, first := s.wall.Now(), time.Now() // the clock may be set while it runs
	o := s.performGuarded(*job, d, r)
	o.text, o.errText = cleanText(o.text), s.redact(cleanText(o.errText))
	s.keep(*job, d, r, began, o)
	failpoint.Hit(failpoint.RunBeforeFinish)
	if !o.ended {
		s.finish(r, o, func(ctx context.Context, o *outcome) []domain.NewDelivery { return s.deliveries(ctx, *job, d, r, o) })
	}
	failpoint.Hit(failpoint.RunFinished)
	s.opt.Committed()
	log.Info("cron run ended", "state", o.state, "error", o.errText, "took", time.Since(first).Round(time.Millisecond))
}

// ended forgets a run and lets the next begin, where one waits. Where none does,
// the loop sleeps on: what is due later wakes it by itself.
func (s *Scheduler) ended(r domain.Run) {
	s.mu.Lock()
	delete(s.active, r.ID)
	if s.busy[r.Job]--; s.busy[r.Job] <= 0 {
		delete(s.busy, r.Job)
	}
	if len(s.active) == 0 {
		for _, c := range s.drained {
			close(c)
		}
		s.drained = nil
	}
	s.ends++
	if s.waiting {
		s.wakeLocked()
	}
	going := len(s.active)
	s.mu.Unlock()
	s.opt.Health.Note("running", strconv.Itoa(going))
}

// finish commits a run's end with its deliveries. The work is done, so a store
// that is busy or full is tried again until it answers or the process stops;
// the run is then found cut off by the next start, and reported.
func (s *Scheduler) finish(r domain.Run, o outcome, deliveries func(context.Context, *outcome) []domain.NewDelivery) {
	pause := 100 * time.Millisecond
	for {
		err := s.tryFinish(r, &o, deliveries)
		switch domain.CodeOf(err) {
		case "":
			return
		case domain.Fenced:
			s.log.Warn("a run had passed to another process before it ended; its result is dropped", "job", r.Job, "run", r.ID)
			return
		}
		s.log.Error("the end of a cron run could not be committed; trying again", "job", r.Job, "run", r.ID, "error", err)
		if s.runCtx.Err() != nil {
			return
		}
		s.pause(pause)
		pause = min(2*pause, 30*time.Second)
	}
}

// pause waits, or until runs are cancelled.
func (s *Scheduler) pause(d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-s.runCtx.Done():
	}
}

func (s *Scheduler) tryFinish(r domain.Run, o *outcome, deliveries func(context.Context, *outcome) []domain.NewDelivery) error {
	// Not of runCtx: a cancelled run's end is committed too.
	ctx, cancel := context.WithTimeout(context.Background(), storeTimeout)
	defer cancel()
	var d []domain.NewDelivery
	if deliveries != nil {
		d = deliveries(ctx, o)
	}
	_, err := s.opt.Store.FinishRun(ctx, runEnd(r, *o), d, s.wall.Now())
	return err
}

func runEnd(r domain.Run, o outcome) ledger.RunEnd {
	return ledger.RunEnd{Ref: ledger.RunRef{ID: r.ID, Fence: r.Fence}, State: o.state, Error: o.errText, Output: headOf(o.text, maxRunOutput), Usage: o.usage}
}

// keep writes the run's file, its archive and its line in the usage log. None
// of them decides about the run: what cannot be written is logged.
func (s *Scheduler) keep(job domain.Job, d Definition, r domain.Run, began time.Time, o outcome) {
	at, display := began, d.Schedule
	if sch, err := d.ParseSchedule(s.opt.Zone()); err == nil {
		at, display = began.In(sch.Zone()), sch.Display()
	}
	if _, err := s.outputs.write(job.ID, at, s.redact(outputFile(job.Name, job.ID, d, display, at, o)), s.opt.Config().OutputKept); err != nil {
		s.log.Warn("the output of a cron run could not be written to its file", "job", job.ID, "error", err)
	}
	if d.Archive != "" && o.state == domain.RunOK {
		if err := archive(d.Archive, at, s.redact(o.text)); err != nil {
			s.log.Error("the result of a cron run could not be archived", "job", job.ID, "path", archivePath(d.Archive, at), "error", err)
		}
	}
	err := s.outputs.usage(usageLine{TS: began.Format(time.RFC3339), Job: job.ID, Fire: r.ID, Prompt: o.usage.InputTokens, Complete: o.usage.OutputTokens,
		Total: o.usage.InputTokens + o.usage.OutputTokens, Silent: o.state == domain.RunSilent, Target: strings.Join(d.Deliver, ","),
		Model: orDefault(o.model, d.Model), Duration: s.wall.Now().Sub(began).Milliseconds(), Error: o.errText})
	if err != nil {
		s.log.Warn("the usage of a cron run could not be logged", "job", job.ID, "error", err)
	}
}

// performGuarded is perform with its panic turned into a failed run.
func (s *Scheduler) performGuarded(job domain.Job, d Definition, r domain.Run) (o outcome) {
	defer func() {
		if p := recover(); p != nil {
			s.log.Error("a cron run panicked", "job", job.ID, "panic", p, "stack", string(debug.Stack()))
			o = outcome{state: domain.RunFailed, errText: "the run hit a defect of hermes itself; the log has the details"}
		}
	}()
	return s.perform(job, d, r)
}

// perform does a run's work: the script, the agent, or one after the other.
func (s *Scheduler) perform(job domain.Job, d Definition, r domain.Run) outcome {
	if _, err := DefinitionOf(job); err != nil {
		return outcome{state: domain.RunFailed, errText: domain.MessageOf(err)}
	}
	var script *scriptResult
	if d.Script != "" {
		res := s.runScript(d)
		script = &res
	}
	if d.NoAgent {
		if script == nil {
			return outcome{state: domain.RunFailed, errText: "the job has neither a script nor an agent to run"}
		}
		return scriptOutcome(*script)
	}
	if script != nil && domain.IsCode(script.err, domain.Cancelled) {
		return scriptOutcome(*script)
	}
	if script != nil && script.err == nil && !script.wake {
		return outcome{state: domain.RunSilent, prompt: "(not asked: the script said wakeAgent false)", text: script.stdout}
	}
	return s.runAgent(job, d, r, script)
}

// runScript resolves and runs the job's script.
func (s *Scheduler) runScript(d Definition) scriptResult {
	path, err := s.scripts.Resolve(d.Script)
	if err != nil {
		return scriptResult{err: err}
	}
	timeout := s.opt.Config().ScriptTimeout
	if timeout <= 0 {
		timeout = 120 * time.Second
	}
	if d.TimeoutSeconds > 0 {
		timeout = time.Duration(d.TimeoutSeconds) * time.Second
	}
	return scriptRun{path: path, dir: d.Workdir, env: s.opt.Environ(), timeout: timeout}.run(s.runCtx)
}

// scriptOutcome is the outcome of a job without an agent.
func scriptOutcome(r scriptResult) outcome {
	out := strings.TrimSpace(r.stdout)
	if r.err == nil {
		if out == "" || !r.wake {
			return outcome{state: domain.RunSilent, text: out}
		}
		return outcome{state: domain.RunOK, text: out}
	}
	o := outcome{state: domain.RunFailed, text: "", errText: domain.MessageOf(r.err)}
	switch {
	case r.timedOut:
		o.state = domain.RunTimedOut
	case domain.IsCode(r.err, domain.Cancelled):
		o.state = domain.RunInterrupted
	}
	if tail := tailOf(r.stderr, 1500); tail != "" {
		o.errText += "\n\nstderr:\n" + tail
	}
	if tail := tailOf(out, 1500); tail != "" {
		o.errText += "\n\nstdout:\n" + tail
	}
	return o
}

// errRunTime is the cause of a run's context that ended with its time.
var errRunTime = errors.New("the run's time is up")

// runAgent runs the job's turn, with limits on its whole time and on silence.
func (s *Scheduler) runAgent(job domain.Job, d Definition, r domain.Run, script *scriptResult) outcome {
	asked := s.prompt(d, script)
	if refused := asked.err(); refused != "" {
		return outcome{state: domain.RunFailed, prompt: asked.text, errText: refused}
	}
	ctx, cancel := context.WithCancelCause(s.runCtx)
	defer cancel(nil)
	if d.TimeoutSeconds > 0 {
		limit := time.Duration(d.TimeoutSeconds) * time.Second
		timer := time.AfterFunc(limit, func() {
			cancel(fmt.Errorf("%w: it had not finished after %s", errRunTime, limit))
		})
		defer timer.Stop()
	}
	idle := newIdleGuard(s.opt.Config().IdleTimeout, cancel)
	defer idle.stop()
	to, _ := s.opt.Targets.Resolve(d.Deliver, d.Origin)
	turn := JobTurn{Run: r, Job: job.ID, Name: job.Name, SessionID: sessionID(job.ID, r.StartedAt.In(s.opt.Zone())),
		Hint: jobHint, Prompt: asked.text, Model: d.Model, Provider: d.Provider, BaseURL: d.BaseURL, Toolsets: d.Toolsets,
		Workdir: d.Workdir, Targets: to, Touch: idle.touch}
	if r.Manual || r.StartedAt.IsZero() {
		turn.SessionID = sessionID(job.ID, s.wall.Now().In(s.opt.Zone()))
	}
	turn.Env = cronEnv(turn.SessionID, to)
	judge := func(res JobResult, err error) outcome {
		o := agentOutcome(ctx, res, err)
		o.prompt = turn.Prompt
		for _, notice := range asked.missing {
			o.text = strings.TrimSpace(o.text) + "\n\n⚠️ " + notice
		}
		return o
	}
	turn.End = func(res JobResult, err error) (ledger.RunEnd, []domain.NewDelivery) {
		o := judge(res, err)
		o.text, o.errText = cleanText(o.text), s.redact(cleanText(o.errText))
		sctx, done := context.WithTimeout(context.Background(), storeTimeout)
		defer done()
		nd := s.deliveries(sctx, job, d, r, &o)
		return runEnd(r, o), nd
	}
	res, err := s.callAgent(ctx, turn)
	o := judge(res, err)
	o.ended = res.Ended
	return o
}

// callAgent calls the agent and gives it up when it does not end after its
// context did, so that one that hangs does not hold its place for ever.
func (s *Scheduler) callAgent(ctx context.Context, t JobTurn) (JobResult, error) {
	type answer struct {
		res JobResult
		err error
	}
	answers := make(chan answer, 1)
	go func() {
		defer func() {
			if p := recover(); p != nil {
				s.log.Error("the agent panicked in a cron run", "job", t.Job, "panic", p, "stack", string(debug.Stack()))
				answers <- answer{err: domain.E(domain.Internal, nil, "the run hit a defect of hermes itself; the log has the details")}
			}
		}()
		res, err := s.opt.Agent.RunJob(ctx, t)
		answers <- answer{res, err}
	}()
	select {
	case a := <-answers:
		return a.res, a.err
	case <-ctx.Done():
	}
	timer := time.NewTimer(2 * killGrace)
	defer timer.Stop()
	select {
	case a := <-answers:
		return a.res, a.err
	case <-timer.C:
		s.log.Error("a cron run did not end when told to and was given up", "job", t.Job, "run", t.Run.ID)
		return JobResult{}, context.Cause(ctx)
	}
}

// agentOutcome judges an agent's answer.
func agentOutcome(ctx context.Context, res JobResult, err error) outcome {
	o := outcome{text: res.Text, usage: res.Usage, model: res.Model}
	cause := context.Cause(ctx)
	switch {
	case err == nil && isSilent(res.Text):
		o.state = domain.RunSilent
	case err == nil && strings.TrimSpace(res.Text) == "":
		o.state, o.errText = domain.RunFailed, "the agent gave no answer"
	case err == nil:
		o.state = domain.RunOK
	case errors.Is(cause, errRunTime):
		o.state, o.errText = domain.RunTimedOut, cause.Error()
	case cause != nil:
		o.state, o.errText = domain.RunInterrupted, "the gateway was stopped before the run had finished"
	default:
		o.state, o.errText = domain.RunFailed, agentError(err)
		if domain.IsCode(err, domain.Timeout) {
			o.state = domain.RunTimedOut
		}
	}
	return o
}

// agentError is the sentence of an agent's failure, whichever package made it.
func agentError(err error) string {
	var m *model.Error
	if errors.As(err, &m) {
		return m.Message
	}
	return domain.MessageOf(err)
}

// idleGuard cancels a run that shows no life.
type idleGuard struct {
	limit time.Duration
	timer *time.Timer
	mu    sync.Mutex
	doing string
}

func newIdleGuard(limit time.Duration, cancel context.CancelCauseFunc) *idleGuard {
	g := &idleGuard{limit: limit, doing: "starting"}
	if limit > 0 {
		g.timer = time.AfterFunc(limit, func() {
			g.mu.Lock()
			defer g.mu.Unlock()
			cancel(fmt.Errorf("%w: idle for %ds (limit %ds), last activity: %s", errRunTime, int(limit.Seconds()), int(limit.Seconds()), g.doing))
		})
	}
	return g
}

func (g *idleGuard) touch(doing string) {
	g.mu.Lock()
	g.doing = doing
	g.mu.Unlock()
	if g.timer != nil && g.timer.Stop() {
		g.timer.Reset(g.limit)
	}
}

func (g *idleGuard) stop() {
	if g.timer != nil {
		g.timer.Stop()
	}
}

// OutputDir is where the Markdown records of a job's runs lie.
func OutputDir(home string, id domain.JobID) string {
	return filepath.Join(home, "cron", "output", string(id))
}
