package cron

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"hermes/internal/domain"
	"hermes/internal/ledger"
)

func TestScriptJobDeliversWhatItPrints(t *testing.T) {
	r := newRig(t)
	id := r.watchdog("disk", "echo '  disk is *full*  '")
	quiet := r.watchdog("quiet", "exit 0")
	gate := r.watchdog("gate", `echo thinking; echo '{"wakeAgent": false}'`)
	r.tick(10 * time.Minute)
	r.wantSent("disk is *full*")
	for id, want := range map[domain.JobID]string{id: "10:10 ok", quiet: "10:10 silent", gate: "10:10 silent"} {
		if got := r.states(id); got != want {
			t.Errorf("runs of %s are %q, want %q", id, got, want)
		}
	}
	if got := r.sent()[0]; got != "disk is *full*" {
		t.Errorf("it was sent as %q, want it verbatim without a frame", got)
	}
	v, err := r.service.Show(t.Context(), "DISK")
	if err != nil {
		t.Fatal(err)
	}
	if *v.LastStatus != "ok" || v.LastDelivery != "pending" || *v.NextRunAt != "2026-01-15T10:20:00Z" {
		t.Errorf("shown as status %s, delivery %q, next %s", *v.LastStatus, v.LastDelivery, *v.NextRunAt)
	}
	files, err := os.ReadDir(OutputDir(r.home, id))
	if err != nil || len(files) != 1 || files[0].Name() != "2026-01-15_10-10-00.md" {
		t.Errorf("output files are %v (%v)", files, err)
	}
}

func TestFailuresAreReportedThenSummedUpThenRecover(t *testing.T) {
	r := newRig(t)
	flag := filepath.Join(r.home, "works")
	id := r.watchdog("probe", "test -e "+flag+" || { echo no-such-thing >&2; exit 3; }")
	for range 10 {
		r.tick(10 * time.Minute)
	}
	r.wantSent("Script exited with code 3", "no-such-thing", "failure 3 in a row")
	r.tick(6 * time.Hour)
	if got := r.sent(); len(got) != 4 || !strings.Contains(got[3], "11 failures in a row since") || !strings.Contains(got[3], "7 of them") {
		t.Fatalf("the summary is %q", got[3:])
	}
	if err := os.WriteFile(flag, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	r.tick(10 * time.Minute)
	if got := r.sent(); len(got) != 5 || !strings.Contains(got[4], "works again after 11 failed runs") {
		t.Fatalf("the notice of recovery is %q", got[4:])
	}
	r.tick(10 * time.Minute)
	if got := r.sent(); len(got) != 5 {
		t.Errorf("a second run that works says %q", got[5:])
	}
	if runs := r.runs(id); runs[0].State != domain.RunFailed || !strings.Contains(runs[0].Error, "code 3") {
		t.Errorf("the first run is %+v", runs[0])
	}
}

func TestTargetThatVanishedIsReportedElsewhere(t *testing.T) {
	r := newRig(t)
	r.homes.homes["discord"] = domain.Address{Platform: "discord", ChatID: "7"}
	r.script("hi.sh", "echo private")
	r.job(Change{Name: ptr("x"), Schedule: ptr("*/10 * * * *"), Script: ptr("hi.sh"), NoAgent: ptr(true), Deliver: ptr([]string{"discord"})})
	delete(r.homes.homes, "discord")
	r.tick(10 * time.Minute)
	r.wantSent("could not be delivered")
	if strings.Contains(r.sent()[0], "private") {
		t.Error("the result went to a chat that it was not meant for")
	}
	v, err := r.service.Show(t.Context(), "x")
	if err != nil || v.LastDeliveryError == nil || *v.LastStatus != "ok" {
		t.Errorf("run and delivery are not two facts: %+v, %v", v, err)
	}
}

func TestCatchUp(t *testing.T) {
	for _, c := range []struct {
		name, schedule, policy string
		away                   time.Duration
		want                   string
		alert                  bool
	}{
		{"in time", "*/10 * * * *", "", 10 * time.Minute, "10:10 ok", false},
		{"one, within the grace", "*/10 * * * *", CatchUpOne, 34 * time.Minute, "10:10 missed, 10:20 missed, 10:30 ok", false},
		{"one, beyond the grace", "0 11 * * *", CatchUpOne, 4 * time.Hour, "11:00 missed", true},
		{"all, within the grace", "*/2 * * * *", CatchUpAll, 5 * time.Minute, "10:02 missed, 10:04 ok", false},
		{"none", "*/10 * * * *", CatchUpNone, 34 * time.Minute, "10:10 missed, 10:20 missed, 10:30 missed", false},
		{"none, in time", "*/10 * * * *", CatchUpNone, 30*time.Minute + 5*time.Second, "10:10 missed, 10:20 missed, 10:30 ok", false},
		{"a one-shot that is late", "in 1h", "", 2 * time.Hour, "11:00 ok", false},
		{"a one-shot that is too late", "in 1h", "", 9 * time.Hour, "11:00 missed", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t)
			id := r.watchdog("job", "exit 0", func(ch *Change) { ch.Schedule, ch.CatchUp = &c.schedule, &c.policy })
			r.tick(c.away)
			if got := r.states(id); strings.ReplaceAll(got, "silent", "ok") != c.want {
				t.Errorf("got %s, want %s", got, c.want)
			}
			if sent := r.sent(); (len(sent) == 1 && strings.Contains(sent[0], "could not fire in time")) != c.alert {
				t.Errorf("sent %q, want an alert: %v", sent, c.alert)
			}
			r.tick(0)
			if got := r.states(id); strings.ReplaceAll(got, "silent", "ok") != c.want {
				t.Errorf("looked at again: %s", got)
			}
		})
	}
}

func TestCatchUpAllRunsInOrder(t *testing.T) {
	r := newRig(t)
	id := r.watchdog("job", "exit 0", func(c *Change) { c.CatchUp, c.GraceMinutes = ptr(CatchUpAll), ptr(60) })
	r.tick(35 * time.Minute)
	if got, want := r.states(id), "10:10 silent, 10:20 silent, 10:30 silent"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestLongOutageLeavesFewRows(t *testing.T) {
	r := newRig(t)
	id := r.watchdog("job", "exit 0", func(c *Change) { c.Schedule = ptr("* * * * *") })
	r.tick(400 * 24 * time.Hour)
	runs := r.runs(id)
	if len(runs) > maxMissedRecorded+1 || runs[len(runs)-1].State != domain.RunSilent {
		t.Errorf("%d rows after a year, the last %s", len(runs), runs[len(runs)-1].State)
	}
}

func TestFiniteRepeat(t *testing.T) {
	r := newRig(t)
	id := r.watchdog("job", "exit 0", func(c *Change) { c.Repeat = ptr(3) })
	if _, _, err := r.service.Run(t.Context(), string(id)); err != nil { // does not count
		t.Fatal(err)
	}
	r.tick(0)
	for range 6 {
		r.tick(10 * time.Minute)
	}
	if got, want := r.states(id), "10:00 silent, 10:10 silent, 10:20 silent, 10:30 silent"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	v, err := r.service.Show(t.Context(), string(id))
	if err != nil || v.State != "completed" || v.Repeat.Completed != 3 {
		t.Errorf("state %s, completed %d (%v)", v.State, v.Repeat.Completed, err)
	}
	if _, err := r.service.Resume(t.Context(), string(id), ""); err != nil {
		t.Fatal(err)
	}
	r.tick(10 * time.Minute)
	if got := len(r.runs(id)); got != 5 {
		t.Errorf("%d runs after it was resumed, want 5", got)
	}
}

func TestRepeatSurvivesTheRemovalOfRuns(t *testing.T) {
	r := newRig(t)
	id := r.watchdog("job", "exit 0", func(c *Change) { c.Repeat, c.Schedule = ptr(60), ptr("* * * * *") })
	for range 70 {
		r.tick(time.Minute)
		if err := r.store.Tidy(t.Context(), r.clock.Now(), ledger.Retention{RunsPerJob: 55}); err != nil {
			t.Fatal(err)
		}
	}
	v, err := r.service.Show(t.Context(), string(id))
	if err != nil || v.State != "completed" || v.Repeat.Completed != 60 {
		t.Errorf("state %s, completed %d (%v)", v.State, v.Repeat.Completed, err)
	}
}

// slowAgent runs until it is let go.
type slowAgent struct {
	began chan string
	let   chan struct{}
}

func newSlowAgent() *slowAgent {
	return &slowAgent{began: make(chan string, 100), let: make(chan struct{})}
}

func (a *slowAgent) RunJob(ctx context.Context, t JobTurn) (JobResult, error) {
	a.began <- t.Name
	select {
	case <-a.let:
		return JobResult{Text: "done " + t.Name}, nil
	case <-ctx.Done():
		return JobResult{Text: "half"}, ctx.Err()
	}
}

func (r *rig) agentJob(name string, more ...func(*Change)) domain.JobID {
	r.t.Helper()
	c := Change{Name: &name, Schedule: ptr("*/10 * * * *"), Prompt: ptr("say " + name), Deliver: ptr([]string{"telegram"})}
	for _, f := range more {
		f(&c)
	}
	return r.job(c)
}

// started runs a scheduler until the test ends.
func (r *rig) started() *Scheduler {
	r.t.Helper()
	s := r.scheduler()
	s.Start()
	r.t.Cleanup(func() {
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		if err := s.Stop(ctx); err != nil {
			r.t.Error(err)
		}
	})
	return s
}

// asleep waits until the scheduler sleeps until an instant.
func (r *rig) asleep(until time.Time) {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.t.Context(), time.Minute)
	defer cancel()
	if _, err := r.clock.Waiting(ctx, until.Equal); err != nil {
		r.t.Fatalf("the scheduler does not sleep until %v: %v", until, err)
	}
}

func TestOverlap(t *testing.T) {
	for _, c := range []struct {
		policy      string
		during, end string
		begins      int
	}{
		{OverlapSkip, "10:10 running, 10:20 skipped", "10:10 ok, 10:20 skipped", 1},
		{OverlapQueue, "10:10 running, 10:20 due", "10:10 ok, 10:20 ok", 1},
		{OverlapParallel, "10:10 running, 10:20 running", "10:10 ok, 10:20 ok", 2},
	} {
		t.Run(c.policy, func(t *testing.T) {
			r := newRig(t)
			agent := newSlowAgent()
			r.agent = agent
			id := r.agentJob("slow", func(ch *Change) { ch.Overlap = &c.policy })
			r.started()
			r.asleep(begin.Add(time.Minute))
			r.clock.Set(begin.Add(10 * time.Minute))
			<-agent.began
			r.asleep(begin.Add(11 * time.Minute))
			r.clock.Set(begin.Add(20 * time.Minute))
			if c.begins == 2 {
				<-agent.began
			}
			r.asleep(begin.Add(21 * time.Minute))
			if got := r.states(id); got != c.during {
				t.Errorf("while it runs: %s, want %s", got, c.during)
			}
			close(agent.let)
			waitFor(t, func() bool { return r.states(id) == c.end })
		})
	}
}

func TestHangingJobDelaysNoOther(t *testing.T) {
	r := newRig(t)
	agent := newSlowAgent()
	r.agent = agent
	r.agentJob("hangs")
	quick := r.watchdog("quick", "exit 0", func(c *Change) { c.Schedule = ptr("*/5 * * * *") })
	s := r.started()
	r.asleep(begin.Add(time.Minute))
	r.clock.Set(begin.Add(10 * time.Minute))
	<-agent.began
	for i := range 3 {
		at := begin.Add(time.Duration(10+5*i) * time.Minute)
		r.clock.Set(at)
		waitFor(t, func() bool { return strings.Contains(r.states(quick), at.Format("15:04")+" silent") })
	}
	waitFor(t, func() bool { return s.Running() == 1 }) // the hanging one: the others left their places
}

// waitFor asks again and again, giving way in between, until ok holds.
func waitFor(t *testing.T, ok func() bool) {
	t.Helper()
	limit := time.NewTimer(time.Minute)
	defer limit.Stop()
	ticker := time.NewTicker(5 * time.Millisecond)
	defer ticker.Stop()
	for !ok() {
		select {
		case <-ticker.C:
		case <-limit.C:
			t.Fatal("it did not happen within a minute")
		}
	}
}

func TestSchedulerSleepsUntilTheNextInstant(t *testing.T) {
	r := newRig(t)
	s := r.started()
	r.asleep(begin.Add(safetyScan)) // nothing to do: the safety scan
	id := r.watchdog("job", "exit 0", func(c *Change) { c.Schedule = ptr("in 1m") })
	s.Wake()
	r.asleep(begin.Add(time.Minute))
	r.clock.Set(begin.Add(30 * time.Second))
	r.clock.Set(begin.Add(-time.Hour)) // somebody sets the clock back
	r.asleep(begin.Add(-time.Hour + safetyScan))
	if got := r.states(id); got != "" {
		t.Fatalf("it fired early: %s", got)
	}
	r.clock.Set(begin.Add(90 * time.Minute)) // and forward, or the machine slept
	waitFor(t, func() bool { return r.states(id) == "10:01 silent" })
}

func TestTwoSchedulersFireOnce(t *testing.T) {
	r := newRig(t)
	const jobs = 40
	counter := filepath.Join(r.home, "count")
	var ids []domain.JobID
	for i := range jobs {
		ids = append(ids, r.watchdog(fmt.Sprintf("j%d", i), "echo x >> "+counter))
	}
	other := r.open()
	r.clock.Advance(10 * time.Minute)
	var wg sync.WaitGroup
	for _, s := range []*Scheduler{r.scheduler(), r.schedulerOn(other)} {
		wg.Go(func() {
			if _, err := s.Tick(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	// Whoever lost a race may have left a run to the other.
	r.tick(0)
	b, err := os.ReadFile(counter)
	if err != nil || strings.Count(string(b), "x") != jobs {
		t.Errorf("the scripts ran %d times, want %d (%v)", strings.Count(string(b), "x"), jobs, err)
	}
	for _, id := range ids {
		if got := r.states(id); got != "10:10 silent" {
			t.Errorf("job %s: %s", id, got)
		}
	}
}

func TestAThousandDueJobs(t *testing.T) {
	r := newRig(t)
	var ran atomic.Int64
	r.agent = agentFunc(func(context.Context, JobTurn) (JobResult, error) {
		ran.Add(1)
		return JobResult{Text: "[SILENT]"}, nil
	})
	r.conf.MaxParallel = 16
	// Stored side by side, past the service's checks, which look at every job.
	model, err := r.store.Job(t.Context(), r.agentJob("model"))
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for i := range 999 {
		wg.Go(func() {
			j := model
			j.ID, j.Name, j.Version = domain.JobID(fmt.Sprintf("%012x", i)), fmt.Sprintf("job %d", i), 0
			if _, err := r.store.PutJob(t.Context(), j); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	r.tick(10 * time.Minute)
	if ran.Load() != 1000 {
		t.Errorf("%d of 1000 ran", ran.Load())
	}
	due, err := r.store.DueRuns(t.Context(), 10)
	if err != nil || len(due) != 0 {
		t.Errorf("%d runs are left (%v)", len(due), err)
	}
}

type agentFunc func(context.Context, JobTurn) (JobResult, error)

func (f agentFunc) RunJob(ctx context.Context, t JobTurn) (JobResult, error) { return f(ctx, t) }

func TestAgentRun(t *testing.T) {
	r := newRig(t)
	var turn JobTurn
	answer, failure := JobResult{Text: "the news"}, error(nil)
	r.agent = agentFunc(func(_ context.Context, jt JobTurn) (JobResult, error) { turn = jt; return answer, failure })
	r.script("data.py", "print('42 apples')")
	first := r.agentJob("first", func(c *Change) { c.Schedule = ptr("in 10m") })
	id := r.agentJob("news", func(c *Change) {
		c.Schedule, c.Script, c.ContextFrom = ptr("15 * * * *"), ptr("data.py"), ptr([]string{"first"})
		c.Model, c.Timezone = ptr("m1"), ptr("Asia/Seoul")
	})
	r.tick(10 * time.Minute)
	r.tick(5 * time.Minute)
	for _, want := range []string{"42 apples", "## Script Output", "## Newest output of job " + string(first), "the news", "say news"} {
		if !strings.Contains(turn.Prompt, want) {
			t.Errorf("the prompt lacks %q:\n%s", want, turn.Prompt)
		}
	}
	if turn.SessionID != domain.SessionID("cron_"+string(id)+"_20260115_101500") || turn.Model != "m1" || !strings.Contains(turn.Hint, "[SILENT]") {
		t.Errorf("the turn is %+v", turn)
	}
	if len(turn.Targets) != 1 || turn.Targets[0] != telegramHome || turn.Env["HERMES_CRON_AUTO_DELIVER_CHAT_ID"] != "42" {
		t.Errorf("targets %v, env %v", turn.Targets, turn.Env)
	}
	r.wantSent("Cronjob Response: first", "Cronjob Response: news")

	answer.Text = "nothing today\n[silent]"
	r.tick(time.Hour)
	r.wantSent("first", "news")
	answer, failure = JobResult{Text: "half a report"}, errors.New("dial tcp: secret details")
	r.tick(time.Hour)
	if got := r.sent()[2]; !strings.Contains(got, "⚠️ Cron job 'news' failed:") || !strings.Contains(got, "half a report") || strings.Contains(got, "secret details") {
		t.Errorf("the alert is %q", got)
	}
	if got, want := r.states(id), "10:15 ok, 11:15 silent, 12:15 failed"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestAgentMayEndTheRunItself(t *testing.T) {
	r := newRig(t)
	r.agent = agentFunc(func(ctx context.Context, jt JobTurn) (JobResult, error) {
		c, err := r.store.StartTurn(ctx, ledger.NewTurn{Kind: domain.TurnCron, SessionKey: "agent:main:cron:dm", SessionID: jt.SessionID, RunID: jt.Run.ID}, r.clock.Now())
		if err != nil {
			return JobResult{}, err
		}
		res := JobResult{Text: "from the turn"}
		end, deliveries := jt.End(res, nil)
		_, err = r.store.FinishTurn(ctx, c.Ref(), ledger.Finish{State: domain.TurnDone, Run: &end, Deliveries: deliveries, Now: r.clock.Now()})
		res.Ended = err == nil
		return res, err
	})
	id := r.agentJob("a")
	r.tick(10 * time.Minute)
	r.wantSent("from the turn")
	runs := r.runs(id)
	if len(runs) != 1 || runs[0].State != domain.RunOK || runs[0].Delivery != "pending" {
		t.Errorf("runs are %+v", runs)
	}
}

func TestPanicsAreContained(t *testing.T) {
	r := newRig(t)
	r.agent = agentFunc(func(context.Context, JobTurn) (JobResult, error) { panic("boom") })
	bad := r.agentJob("bad")
	good := r.watchdog("good", "echo fine")
	r.tick(10 * time.Minute)
	if got := r.states(bad) + " / " + r.states(good); got != "10:10 failed / 10:10 ok" {
		t.Errorf("got %s", got)
	}
}

func TestJobThatCannotBeReadIsSetAside(t *testing.T) {
	r := newRig(t)
	j, err := r.store.PutJob(t.Context(), domain.Job{ID: "0123456789ab", Name: "odd", Enabled: true, NextAt: begin, Definition: []byte(`{"schedule":"every now and then"}`)})
	if err != nil {
		t.Fatal(err)
	}
	r.tick(time.Minute)
	r.wantSent("cannot be fired any more")
	if got := r.states(j.ID); got != "10:00 failed" {
		t.Errorf("got %s", got)
	}
	r.tick(time.Hour)
	r.wantSent("cannot be fired any more")
}

func TestInactivityAndTotalTime(t *testing.T) {
	r := newRig(t)
	r.conf.IdleTimeout = 20 * time.Millisecond
	agent := newSlowAgent()
	r.agent = agent
	id := r.agentJob("sleepy")
	s := r.scheduler()
	r.clock.Advance(10 * time.Minute)
	if _, err := s.Tick(t.Context()); err != nil {
		t.Fatal(err)
	}
	run := r.runs(id)[0]
	if run.State != domain.RunTimedOut || !strings.Contains(run.Error, "idle for") {
		t.Errorf("the run is %s: %s", run.State, run.Error)
	}
	r.wantSent("Partial result")
}

func TestStopReportsWhatItCutOff(t *testing.T) {
	r := newRig(t)
	agent := newSlowAgent()
	r.agent = agent
	id := r.agentJob("long")
	again := r.agentJob("again", func(c *Change) { c.OnInterrupt = ptr(InterruptRetry) })
	s := r.scheduler()
	s.Start()
	r.asleep(begin.Add(time.Minute))
	r.clock.Set(begin.Add(10 * time.Minute))
	<-agent.began
	<-agent.began
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Stop(ctx); err != nil {
		t.Fatal(err)
	}
	r.wantSent("the gateway was stopped before the run had finished")
	if got := r.states(id) + " / " + r.states(again); got != "10:10 interrupted / 10:10 interrupted" {
		t.Fatalf("got %s", got)
	}
	close(agent.let)
	r.tick(time.Minute)
	if got := r.states(id) + " / " + r.states(again); got != "10:10 interrupted / 10:10 interrupted, 10:10 ok" {
		t.Errorf("after the next start: %s", got)
	}
	r.wantSent("was stopped", "done again")
}

func TestZoneOfTheProfileChanges(t *testing.T) {
	seoul, err := time.LoadLocation("Asia/Seoul")
	if err != nil {
		t.Fatal(err)
	}
	at := func(c *Change) { c.Schedule = ptr("0 12 * * *") }
	t.Run("while it is not due", func(t *testing.T) {
		r := newRig(t)
		id := r.watchdog("noon", "exit 0", at)
		fixed := r.watchdog("fixed", "exit 0", at, func(c *Change) { c.Timezone = ptr("Europe/Berlin") })
		s := r.scheduler()
		s.opt.Zone = func() *time.Location { return seoul }
		s.Realign(t.Context())
		for id, want := range map[domain.JobID]string{id: "2026-01-16T03:00:00Z", fixed: "2026-01-15T11:00:00Z"} {
			if j, err := r.store.Job(t.Context(), id); err != nil || j.NextAt.UTC().Format(time.RFC3339) != want {
				t.Errorf("%s is next due at %v, want %s (%v)", j.Name, j.NextAt, want, err)
			}
		}
	})
	t.Run("while it is due", func(t *testing.T) {
		r := newRig(t)
		id := r.watchdog("noon", "exit 0", at)
		r.clock.Set(begin.Add(2 * time.Hour))
		s := r.scheduler()
		s.opt.Zone = func() *time.Location { return seoul }
		if _, err := s.Tick(t.Context()); err != nil {
			t.Fatal(err)
		}
		if j, err := r.store.Job(t.Context(), id); err != nil || r.states(id) != "" || j.NextAt.UTC().Format(time.RFC3339) != "2026-01-16T03:00:00Z" {
			t.Errorf("it fired: %q, next at %v (%v)", r.states(id), j.NextAt, err)
		}
	})
}

func TestTooFewPlacesAreSaid(t *testing.T) {
	r := newRig(t)
	agent := newSlowAgent()
	r.agent = agent
	r.conf.MaxParallel = 1
	r.agentJob("a")
	r.agentJob("b")
	s := r.started()
	r.asleep(begin.Add(time.Minute))
	r.clock.Set(begin.Add(10 * time.Minute))
	<-agent.began
	r.asleep(begin.Add(11 * time.Minute))
	r.clock.Set(begin.Add(12 * time.Minute))
	waitFor(t, func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.behind.Equal(begin.Add(10 * time.Minute))
	})
	close(agent.let)
	waitFor(t, func() bool {
		due, err := r.store.DueRuns(t.Context(), 10)
		return err == nil && len(due) == 0 && s.Running() == 0
	})
}
