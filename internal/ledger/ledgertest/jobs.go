package ledgertest

import (
	"encoding/json"
	"time"

	"hermes/internal/domain"
	"hermes/internal/ledger"
)

func (e *env) job(id domain.JobID, next time.Time) domain.Job {
	e.Helper()
	j, err := e.s.PutJob(e.ctx, domain.Job{ID: id, Name: "job " + string(id), Enabled: true, Definition: json.RawMessage(`{"schedule":"every 10m"}`), NextAt: next})
	e.ok(err)
	return j
}

// running fires and claims a run of a new job.
func (e *env) running(id domain.JobID) domain.Run {
	e.Helper()
	e.job(id, e.now)
	runs, err := e.s.Fire(e.ctx, id, e.now, e.after(600), []domain.Run{{Instant: e.now}})
	e.ok(err)
	r, ok, err := e.s.ClaimRun(e.ctx, runs[0].ID, e.now)
	e.ok(err)
	e.equal("claimed", ok, true)
	return r
}

func (e *env) run(id int64) domain.Run {
	e.Helper()
	rs, err := e.s.Runs(e.ctx, ledger.RunFilter{})
	e.ok(err)
	for _, r := range rs {
		if r.ID == id {
			return r
		}
	}
	e.Fatalf("run %d is not there", id)
	return domain.Run{}
}

var jobCases = []testCase{
	{"a job is changed by who read it last", func(e *env) {
		j := e.job("a", e.after(60))
		e.equal("version", j.Version, int64(1))
		got, err := e.s.Job(e.ctx, "a")
		e.ok(err)
		e.equal("as read", got, j)
		_, err = e.s.PutJob(e.ctx, domain.Job{ID: "a", Definition: json.RawMessage(`{}`)})
		e.code(err, domain.Conflict)
		j.Name, j.Enabled = "renamed", false
		j2, err := e.s.PutJob(e.ctx, j)
		e.ok(err)
		_, err = e.s.PutJob(e.ctx, j) // an old version
		e.code(err, domain.Conflict)
		got, err = e.s.Job(e.ctx, "a")
		e.ok(err)
		e.equal("changed", got, j2)
		next, err := e.s.NextDue(e.ctx)
		e.ok(err)
		e.equal("a disabled job is not due", next, time.Time{})
		e.ok(e.s.DeleteJob(e.ctx, "a"))
		e.code(e.s.DeleteJob(e.ctx, "a"), domain.NotFound)
		_, err = e.s.Job(e.ctx, "a")
		e.code(err, domain.NotFound)
		_, err = e.s.PutJob(e.ctx, j2)
		e.code(err, domain.NotFound)
		_, err = e.s.PutJob(e.ctx, domain.Job{ID: "b", Definition: json.RawMessage(`{broken`)})
		e.code(err, domain.Invalid)
	}},
	{"due jobs come in order", func(e *env) {
		e.job("late", e.after(20))
		e.job("early", e.after(10))
		e.job("never", time.Time{})
		next, err := e.s.NextDue(e.ctx)
		e.ok(err)
		e.equal("next", next, e.after(10))
		ids := func(js []domain.Job, err error) (out []domain.JobID) {
			e.ok(err)
			for _, j := range js {
				out = append(out, j.ID)
			}
			return out
		}
		e.equal("none", ids(e.s.DueJobs(e.ctx, e.after(9), 10)), nil)
		e.equal("one", ids(e.s.DueJobs(e.ctx, e.after(10), 10)), []domain.JobID{"early"})
		e.equal("both", ids(e.s.DueJobs(e.ctx, e.after(30), 10)), []domain.JobID{"early", "late"})
		e.equal("limit", ids(e.s.DueJobs(e.ctx, e.after(30), 1)), []domain.JobID{"early"})
		e.equal("by name", ids(e.s.ListJobs(e.ctx, ledger.JobFilter{})), []domain.JobID{"early", "late", "never"})
		e.equal("page", ids(e.s.ListJobs(e.ctx, ledger.JobFilter{Limit: 1, Offset: 1})), []domain.JobID{"late"})
		e.equal("scheduled", ids(e.s.ListJobs(e.ctx, ledger.JobFilter{Scheduled: true})), []domain.JobID{"early", "late"})
		e.equal("named", ids(e.s.ListJobs(e.ctx, ledger.JobFilter{Name: "JOB late"})), []domain.JobID{"late"})
		for want, f := range map[int]ledger.JobFilter{3: {Limit: 1, Offset: 2}, 2: {Scheduled: true}, 1: {Name: "Job Never"}} {
			n, err := e.s.CountJobs(e.ctx, f)
			e.ok(err)
			e.equal("count", n, want)
		}
	}},
	{"missed firings of the future are forgotten", func(e *env) {
		e.job("a", e.now)
		_, err := e.s.Fire(e.ctx, "a", e.now, e.after(60), []domain.Run{{Instant: e.now, State: domain.RunMissed},
			{Instant: e.after(10), State: domain.RunMissed}, {Instant: e.after(20), State: domain.RunSkipped}, {Instant: e.after(30)}})
		e.ok(err)
		n, err := e.s.ForgetMissed(e.ctx, e.now)
		e.ok(err)
		e.equal("forgotten", n, 2)
		left, err := e.s.Runs(e.ctx, ledger.RunFilter{Job: "a"})
		e.ok(err)
		e.equal("left", []domain.RunState{left[0].State, left[1].State}, []domain.RunState{domain.RunDue, domain.RunMissed})
	}},
	{"an instant fires once", func(e *env) {
		e.job("a", e.now)
		runs, err := e.s.Fire(e.ctx, "a", e.now, e.after(60), []domain.Run{
			{Instant: e.after(-60), State: domain.RunMissed, Error: "asleep"}, {Instant: e.now, State: domain.RunDue}})
		e.ok(err)
		e.equal("runs", len(runs), 2)
		_, err = e.s.Fire(e.ctx, "a", e.now, e.after(60), []domain.Run{{Instant: e.now}})
		e.code(err, domain.Conflict)
		again, err := e.s.Fire(e.ctx, "a", e.after(60), time.Time{}, []domain.Run{{Instant: e.now}, {Instant: e.after(60)}})
		e.ok(err)
		e.equal("only the new instant", len(again), 1)
		next, err := e.s.NextDue(e.ctx)
		e.ok(err)
		e.equal("no more", next, time.Time{})
		due, err := e.s.DueRuns(e.ctx, 10)
		e.ok(err)
		e.equal("due", []int64{due[0].ID, due[1].ID}, []int64{runs[1].ID, again[0].ID})
		missed := e.run(runs[0].ID)
		e.equal("missed", []any{missed.State, missed.Error}, []any{domain.RunMissed, "asleep"})
		manual, err := e.s.Fire(e.ctx, "a", time.Time{}, time.Time{}, []domain.Run{{Instant: e.after(90), Manual: true}})
		e.ok(err)
		e.equal("manual", manual[0].Manual, true)
	}},
	{"a run is claimed once and ends once", func(e *env) {
		r := e.running("a")
		e.equal("run", []any{r.State, r.StartedAt, r.Fence}, []any{domain.RunRunning, e.now, int64(1)})
		_, ok, err := e.s.ClaimRun(e.ctx, r.ID, e.now)
		e.ok(err)
		e.equal("claimed twice", ok, false)
		end := ledger.RunEnd{Ref: ledger.RunRef{ID: r.ID, Fence: r.Fence}, State: domain.RunOK, Output: "out", Usage: domain.Usage{Calls: 1}}
		old := end
		old.Ref.Fence--
		_, err = e.s.FinishRun(e.ctx, old, []domain.NewDelivery{to(chat, "no")}, e.now)
		e.code(err, domain.Fenced)
		ids, err := e.s.FinishRun(e.ctx, end, []domain.NewDelivery{to(chat, "yes"), to(chat2, "yes")}, e.after(1))
		e.ok(err)
		_, err = e.s.FinishRun(e.ctx, end, nil, e.now)
		e.code(err, domain.Fenced)
		got := e.run(r.ID)
		e.equal("ended", []any{got.State, got.Output, got.EndedAt, got.Usage.Calls, got.Delivery}, []any{domain.RunOK, "out", e.after(1), int64(1), "pending"})
		e.equal("delivery's run", e.delivery(ids[0]).RunID, r.ID)
		// Its delivery is a fact of its own.
		d := e.send(chat)
		e.ok(e.s.MarkRetry(e.ctx, ref(d), e.now, "x", false, nil, nil))
		e.equal("delivery", e.run(r.ID).Delivery, "retrying")
		e.ok(e.s.MarkSent(e.ctx, ref(e.send(chat)), "r", e.now))
		e.equal("delivery", e.run(r.ID).Delivery, "pending")
		d = e.send(chat2)
		e.ok(e.s.MarkSent(e.ctx, ref(d), "r", e.now))
		e.equal("delivery", e.run(r.ID).Delivery, "sent")
		ds, err := e.s.Deliveries(e.ctx, ledger.DeliveryFilter{RunID: r.ID})
		e.ok(err)
		e.equal("deliveries of the run", len(ds), 2)
	}},
	{"an agent's run ends with its turn", func(e *env) {
		r := e.running("a")
		c, err := e.s.StartTurn(e.ctx, ledger.NewTurn{Kind: domain.TurnCron, SessionKey: "cron", SessionID: "cron_a_1", RunID: r.ID, Source: source(chat)}, e.now)
		e.ok(err)
		e.equal("run of the claim", c.RunID, r.ID)
		e.equal("turn of the run", e.run(r.ID).TurnID, c.Turn.ID)
		end := &ledger.RunEnd{Ref: ledger.RunRef{ID: r.ID, Fence: r.Fence + 1}, State: domain.RunOK}
		f := done(e.now, reply("report"))
		f.Run, f.Deliveries = end, []domain.NewDelivery{to(chat, "report")}
		_, err = e.s.FinishTurn(e.ctx, c.Ref(), f)
		e.code(err, domain.Fenced) // and the turn is not ended either
		end.Ref.Fence--
		_, err = e.s.FinishTurn(e.ctx, c.Ref(), f)
		e.ok(err)
		e.equal("run", []any{e.run(r.ID).State, e.run(r.ID).Delivery}, []any{domain.RunOK, "pending"})
		ds, err := e.s.Deliveries(e.ctx, ledger.DeliveryFilter{RunID: r.ID})
		e.ok(err)
		e.equal("deliveries", len(ds), 1)
	}},
	{"runs are listed newest first", func(e *env) {
		e.job("a", e.now)
		e.job("b", e.now)
		for i, id := range []domain.JobID{"a", "b"} {
			_, err := e.s.Fire(e.ctx, id, e.now, e.after(600), []domain.Run{{Instant: e.after(i)}, {Instant: e.after(i + 10), State: domain.RunSkipped}})
			e.ok(err)
		}
		count := func(f ledger.RunFilter) int {
			rs, err := e.s.Runs(e.ctx, f)
			e.ok(err)
			for i := 1; i < len(rs); i++ {
				if rs[i].Instant.After(rs[i-1].Instant) {
					e.Errorf("%v comes after %v", rs[i].Instant, rs[i-1].Instant)
				}
			}
			return len(rs)
		}
		e.equal("all", count(ledger.RunFilter{}), 4)
		e.equal("job", count(ledger.RunFilter{Job: "a"}), 2)
		e.equal("state", count(ledger.RunFilter{States: []domain.RunState{domain.RunSkipped, domain.RunFailed}}), 2)
		e.equal("since", count(ledger.RunFilter{Since: e.after(10)}), 2)
		e.equal("limit", count(ledger.RunFilter{Limit: 3}), 3)
	}},
}
