package ledgertest

import (
	"context"
	"os"
	"sync"
	"time"

	"hermes/internal/domain"
	"hermes/internal/ledger"
)

var processCases = []testCase{
	{"a lease has one living owner", func(e *env) {
		l, err := e.s.AcquireLease(e.ctx, "poll telegram:1")
		e.ok(err)
		other := e.open()
		_, err = other.AcquireLease(e.ctx, "poll telegram:1")
		e.code(err, domain.Conflict)
		_, err = e.s.AcquireLease(e.ctx, "poll telegram:1")
		e.code(err, domain.Conflict)
		e.ok(e.s.CheckLease(e.ctx, l))
		e.ok(e.s.ReleaseLease(e.ctx, l))
		e.code(e.s.CheckLease(e.ctx, l), domain.Fenced)
		l2, err := other.AcquireLease(e.ctx, "poll telegram:1")
		e.ok(err)
		if l2.Fence <= l.Fence {
			e.Errorf("the fence went from %d to %d", l.Fence, l2.Fence)
		}
		e.ok(e.s.ReleaseLease(e.ctx, l)) // lost long ago: no error, no effect
		e.ok(other.CheckLease(e.ctx, l2))
		e.h.Kill(e.T, other)
		l3, err := e.s.AcquireLease(e.ctx, "poll telegram:1") // at once, without Recover
		e.ok(err)
		e.equal("fence rises", l3.Fence > l2.Fence, true)
	}},
	{"a closed store leaves its leases", func(e *env) {
		other := e.open()
		_, err := other.AcquireLease(e.ctx, "x")
		e.ok(err)
		e.ok(other.Close())
		_, err = e.s.AcquireLease(e.ctx, "x")
		e.ok(err)
	}},
	{"this process is known", func(e *env) {
		p := e.s.Self()
		if p.ID == 0 || p.PID != os.Getpid() || p.Kind == "" {
			e.Errorf("self is %+v", p)
		}
		if q := e.open().Self(); q.ID == p.ID {
			e.Errorf("two processes are both number %d", p.ID)
		}
	}},
	{"what a dead process held is taken over", func(e *env) {
		e.accept("q")
		turn := e.claim()
		_, err := e.s.AppendStep(e.ctx, turn.Ref(), domain.Step{Kind: domain.StepToolStarted, CallID: "c1"})
		e.ok(err)
		api, err := e.s.StartTurn(e.ctx, ledger.NewTurn{Kind: domain.TurnAPI, SessionKey: "api", SessionID: "api-1"}, e.now)
		e.ok(err)
		ids := e.enqueue(to(chat, "1"), to(chat, "2"))
		sending := e.send(chat)
		script := e.running("script")
		agent := e.running("agent")
		cron, err := e.s.StartTurn(e.ctx, ledger.NewTurn{Kind: domain.TurnCron, SessionKey: "cron", SessionID: "cron-1", RunID: agent.ID}, e.now)
		e.ok(err)
		_, err = e.s.AcquireLease(e.ctx, "l")
		e.ok(err)

		successor := e.open()
		rec, err := successor.Recover(e.ctx, e.now)
		e.ok(err)
		e.equal("the living lose nothing", rec, ledger.Recovered{})
		e.h.Kill(e.T, e.s)
		e.s = successor
		due, err := e.s.DueAddresses(e.ctx)
		e.ok(err)
		e.equal("a dead process sends nothing", due, []ledger.DueAddress{{To: chat}})
		rec, err = e.s.Recover(e.ctx, e.after(5))
		e.ok(err)
		e.equal("recovered", []int{rec.Processes, rec.Requeued, rec.Ended, rec.Uncertain, rec.Leases, len(rec.Runs)}, []int{1, 1, 2, 1, 1, 2})
		e.equal("runs", []domain.JobID{rec.Runs[0].Job, rec.Runs[1].Job}, []domain.JobID{"script", "agent"})
		e.equal("run", []any{e.run(script.ID).State, e.run(agent.ID).State, rec.Runs[0].State}, []any{domain.RunInterrupted, domain.RunInterrupted, domain.RunInterrupted})
		for _, id := range []int64{api.Turn.ID, cron.Turn.ID} {
			got, err := e.s.Turn(e.ctx, id)
			e.ok(err)
			e.equal("turn", got.State, domain.TurnInterrupted)
		}
		again := e.claim()
		e.equal("turn", []any{again.Turn.ID, again.Turn.Resumed, len(again.Steps), len(again.Inbound)}, []any{turn.Turn.ID, true, 1, 1})
		d := e.send(chat)
		e.equal("delivery", []any{d.ID, d.Uncertain, d.Nonce, d.Attempt}, []any{ids[0], true, sending.Nonce, 2})
		rec, err = e.s.Recover(e.ctx, e.now)
		e.ok(err)
		e.equal("once", rec, ledger.Recovered{})
	}},
	{"a fence holds between processes", func(e *env) {
		e.accept("q")
		c := e.claim()
		r := e.running("job")
		e.enqueue(to(chat, "1"))
		d := e.send(chat)
		other := e.open()
		_, err := other.FinishTurn(e.ctx, c.Ref(), done(e.now))
		e.code(err, domain.Fenced)
		_, err = other.FinishRun(e.ctx, ledger.RunEnd{Ref: ledger.RunRef{ID: r.ID, Fence: r.Fence}, State: domain.RunOK}, nil, e.now)
		e.code(err, domain.Fenced)
		e.code(other.MarkSent(e.ctx, ref(d), "r", e.now), domain.Fenced)
		_, ok, next, err := other.ClaimDelivery(e.ctx, chat, e.now)
		e.ok(err)
		e.equal("sent by another", []any{ok, next}, []any{false, time.Time{}})
		due, err := other.DueAddresses(e.ctx)
		e.ok(err)
		e.equal("due elsewhere", len(due), 0)
	}},
	{"each thing is claimed by one of many", func(e *env) {
		const claimers, things = 8, 20
		stores := []ledger.Store{e.s, e.open()}
		e.job("j", e.now)
		var runs []domain.Run
		for i := range things {
			runs = append(runs, domain.Run{Instant: e.after(i)})
		}
		runs, err := e.s.Fire(e.ctx, "j", e.now, time.Time{}, runs)
		e.ok(err)
		var mu sync.Mutex
		claimed := map[int64]int{}
		var wg sync.WaitGroup
		for i := range claimers {
			wg.Go(func() {
				for _, r := range runs {
					_, ok, err := stores[i%2].ClaimRun(e.ctx, r.ID, e.now)
					if err != nil {
						e.Error(err)
					}
					if ok {
						mu.Lock()
						claimed[r.ID]++
						mu.Unlock()
					}
				}
			})
		}
		wg.Wait()
		for _, r := range runs {
			e.equal("claims", claimed[r.ID], 1)
		}
	}},
}

var storeCases = []testCase{
	{"it answers and describes itself", func(e *env) {
		e.ok(e.s.Check(e.ctx))
		e.ok(e.s.Check(e.ctx))
		e.say("q", "a")
		e.accept("waiting")
		e.enqueue(to(chat, "1"), to(chat, "2"))
		e.ok(e.s.MarkDead(e.ctx, ref(e.send(chat)), "x", e.now))
		info, err := e.s.Info(e.ctx)
		e.ok(err)
		e.equal("counts", []any{info.Inbound, info.Turns, info.Delivery, info.Sessions, info.Messages}, []any{
			map[string]int64{"received": 1, "done": 1}, map[string]int64{"done": 1}, map[string]int64{"pending": 1, "dead": 1}, int64(1), int64(2)})
		if info.Kind == "" || info.Location == "" || info.Schema == 0 || info.Bytes == 0 {
			e.Errorf("info is %+v", info)
		}
	}},
	{"notes", func(e *env) {
		e.ok(e.s.SetNote(e.ctx, "a.b", "1"))
		e.ok(e.s.SetNote(e.ctx, "a.b", "2"))
		got, err := e.s.Note(e.ctx, "a.b")
		e.ok(err)
		e.equal("note", got, "2")
		e.ok(e.s.SetNote(e.ctx, "a.b", ""))
		got, err = e.s.Note(e.ctx, "a.b")
		e.ok(err)
		e.equal("removed", got, "")
	}},
	{"pairings", func(e *env) {
		p := ledger.Pairing{Platform: "telegram", UserID: "1", UserName: "Ann", CodeHash: "aa", Salt: "bb", RequestedAt: e.now}
		e.ok(e.s.PutPairing(e.ctx, p))
		p.CodeHash, p.Salt, p.ApprovedAt = "", "", e.after(1)
		e.ok(e.s.PutPairing(e.ctx, p))
		q := ledger.Pairing{Platform: "discord", UserID: "1"}
		e.ok(e.s.PutPairing(e.ctx, q))
		all, err := e.s.ListPairings(e.ctx, "")
		e.ok(err)
		e.equal("all", all, []ledger.Pairing{q, p})
		e.ok(e.s.DeletePairing(e.ctx, "discord", "1"))
		e.code(e.s.DeletePairing(e.ctx, "discord", "1"), domain.NotFound)
		some, err := e.s.ListPairings(e.ctx, "telegram")
		e.ok(err)
		e.equal("telegram", some, []ledger.Pairing{p})
	}},
	{"what is old goes, what is open stays", func(e *env) {
		c := e.say("q", "a")
		e.accept("waiting")
		e.enqueue(to(chat, "sent"), to(chat, "unsent"))
		e.ok(e.s.MarkSent(e.ctx, ref(e.send(chat)), "r", e.now))
		e.job("j", e.now)
		var runs []domain.Run
		for i := range 5 {
			runs = append(runs, domain.Run{Instant: e.after(i), State: domain.RunMissed})
		}
		_, err := e.s.Fire(e.ctx, "j", e.now, time.Time{}, append(runs, domain.Run{Instant: e.after(-9)}))
		e.ok(err)
		keep := ledger.Retention{Inbound: time.Hour, Steps: time.Hour, Deliveries: time.Hour, RunsPerJob: 2}
		state := func() []int64 {
			i, err := e.s.Info(e.ctx)
			e.ok(err)
			rs, err := e.s.Runs(e.ctx, ledger.RunFilter{Job: "j"})
			e.ok(err)
			return []int64{i.Inbound["done"], i.Inbound["received"], i.Delivery["sent"], i.Delivery["pending"], int64(len(rs)), i.Messages}
		}
		e.ok(e.s.Tidy(e.ctx, e.after(9e6), ledger.Retention{}))
		e.equal("nothing asked", state(), []int64{1, 1, 1, 1, 6, 2})
		e.ok(e.s.Tidy(e.ctx, e.after(3600), keep))
		e.equal("not old enough", state(), []int64{1, 1, 1, 1, 3, 2})
		e.ok(e.s.Tidy(e.ctx, e.after(3601), keep))
		e.equal("old", state(), []int64{0, 1, 0, 1, 3, 2})
		_, err = e.s.Turn(e.ctx, c.Turn.ID)
		e.code(err, domain.NotFound)
		rs, err := e.s.Runs(e.ctx, ledger.RunFilter{Job: "j"})
		e.ok(err)
		e.equal("the newest runs stay", []time.Time{rs[0].Instant, rs[1].Instant}, []time.Time{e.after(4), e.after(3)})
		e.equal("and the one that is due", rs[2].State, domain.RunDue)
		acc, err := e.s.AcceptInbound(e.ctx, batch(event("q/0", "q")))
		e.ok(err)
		if acc[0].Duplicate || acc[0].ID <= c.Inbound[0].ID {
			e.Errorf("after its key was forgotten an event is %+v", acc[0])
		}
	}},
	{"an ended context", func(e *env) {
		ctx, cancel := context.WithCancel(e.ctx)
		cancel()
		_, err := e.s.AcceptInbound(ctx, batch(event("e1", "x")))
		e.code(err, domain.Cancelled)
		_, err = e.s.Inbound(ctx, 1)
		e.code(err, domain.Cancelled)
	}},
	{"all survives a restart", func(e *env) {
		c := e.say("q", "a")
		e.ok(e.s.Close())
		e.s = e.open()
		e.equal("history", e.history(c.Session.ID), []string{"q", "a"})
	}},
}
