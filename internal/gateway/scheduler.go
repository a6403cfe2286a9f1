package gateway

import (
	"context"
	"fmt"
	"time"

	"hermes/internal/cron"
	"hermes/internal/delivery"
	"hermes/internal/domain"
)

// importJobs takes over the jobs.json of the older system, once in a profile's
// life. The file is left as it is; what became of each job stands in the log.
func (g *Gateway) importJobs(ctx context.Context) {
	path := g.Profile.Path("cron", "jobs.json")
	log := g.Log.With("component", "cron")
	report, err := g.jobs.ImportOnce(ctx, g.store, path)
	if err != nil {
		g.health.Part("cron.import").Degraded(string(domain.CodeOf(err)), "The jobs of "+path+" were not imported: "+domain.MessageOf(err)+". It is tried again at the next start; `hermes cron import` does it at once.")
		log.Error("the jobs of the older system were not imported", "file", path, "err", err)
		return
	}
	counts := map[string]int{}
	for _, e := range report {
		counts[e.Outcome]++
		if e.Outcome == "refused" {
			log.Error("a job of the older system could not be imported", "job", e.ID, "name", e.Name, "notes", e.Notes)
		} else {
			log.Info("a job of the older system", "job", e.ID, "name", e.Name, "outcome", e.Outcome, "notes", e.Notes)
		}
	}
	if report != nil {
		log.Info("the jobs of the older system were taken over; its file is left as it is", "file", path,
			"imported", counts["imported"], "existed", counts["exists"], "refused", counts["refused"])
	}
}

// The pace at which processes that died are looked for: soon after the start,
// since a predecessor may end a moment after its successor began, then with the
// safety scans.
const (
	othersFirst = 5 * time.Second
	othersEvery = time.Minute
)

// watchOthers takes over what other processes of the profile held when they
// died: a predecessor, a scheduler in the foreground, a command.
func (g *Gateway) watchOthers(ctx context.Context) {
	timer := time.NewTimer(othersFirst)
	defer timer.Stop()
	told := false
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		timer.Reset(othersEvery)
		told = g.checkScheduler(ctx, told)
		rec, err := g.store.Recover(ctx, g.Now())
		switch {
		case err != nil && ctx.Err() == nil:
			g.Log.Warn("it could not be looked whether another process died", "component", "ledger", "err", err)
		case rec.Processes > 0:
			g.Log.Warn("another process of this profile died; its work was taken over", "component", "gateway",
				"turns_resumed", rec.Requeued, "turns_ended", rec.Ended, "deliveries_uncertain", rec.Uncertain, "runs_interrupted", len(rec.Runs))
			g.Poke()
		}
	}
}

// stuckAfter is how long the scheduler may be silent: it looks once a minute
// at least.
const stuckAfter = 100 * time.Second

// watchPokes looks at the jobs when a command has changed them, in a process
// that has no control socket.
func (g *Gateway) watchPokes(ctx context.Context) {
	if err := cron.WatchPokes(ctx, g.Profile.Home, g.Poke); err != nil {
		g.Log.Warn("commands cannot wake this scheduler", "component", "cron", "err", err)
	}
}

// checkScheduler tells people when the scheduler has not looked for long, once
// (told) until it looks again. The service manager's watchdog, where there is
// one, ends the process then; what is due stays in the ledger.
func (g *Gateway) checkScheduler(ctx context.Context, told bool) bool {
	last := g.lastLooked()
	silence := g.Now().Sub(last)
	if last.IsZero() || silence <= stuckAfter {
		return false
	}
	g.cron.Wake() // a clock that was set forward looks like silence, until it is woken
	if told {
		return true
	}
	text := fmt.Sprintf("The scheduler has not looked for due jobs for %s, so no job fires. Restart the gateway: `hermes%s gateway restart`", silence.Round(time.Second), g.flag())
	g.health.Part("cron").Down("stuck", text)
	g.Log.Error("the scheduler is stuck", "component", "cron", "last_looked", last)
	for _, p := range g.homes.Platforms() {
		to, ok := g.homes.Home(p)
		if !ok {
			continue
		}
		if _, err := g.store.Enqueue(ctx, g.outbox.Plan(to, "alert", "⚠️ "+text, delivery.PlanOptions{}), g.Now()); err != nil {
			g.Log.Error("that the scheduler is stuck could not be told", "component", "cron", "err", err)
		}
		g.outbox.Wake(to)
		break
	}
	return true
}

// lastLooked is when the scheduler last looked for due jobs, by its evidence.
func (g *Gateway) lastLooked() (at time.Time) {
	for _, p := range g.health.Parts() {
		if p.Name == "cron" {
			at, _ = time.Parse(time.RFC3339, p.Evidence["last_looked"]) // zero before the first look
		}
	}
	return at
}

// RunDue runs the jobs that are due, those of the agent too, sends what they
// say, and ends. It is for a command while no scheduler runs; beside one, the
// ledger lets each firing happen once. It returns the number of runs that it
// began. Errors: those of New, Unavailable, and ctx's.
func RunDue(ctx context.Context, o Options) (int, error) {
	o.CronOnly = true
	g, err := New(ctx, o)
	if err != nil {
		return 0, err
	}
	defer g.drain()
	if err := g.outbox.Start(ctx); err != nil {
		return 0, err
	}
	n, err := g.cron.Tick(ctx)
	if err == nil {
		g.awaitSent(ctx)
	}
	return n, err
}

// sendLimit bounds how long a command waits for its messages to be sent; what
// is left then stays in the outbox.
const sendLimit = 10 * time.Second

// awaitSent waits until every message that can be sent now is.
func (g *Gateway) awaitSent(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, sendLimit)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		info, err := g.store.Info(ctx)
		if err != nil || info.Delivery["pending"]+info.Delivery["sending"] == 0 {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}
