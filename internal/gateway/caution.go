package gateway

import (
	"context"
	"fmt"
	"sync"
	"time"

	"hermes/internal/cron"
	"hermes/internal/domain"
	"hermes/internal/failpoint"
	"hermes/internal/health"
	"hermes/internal/ledger"
	"hermes/internal/starts"
)

// The pace at which parts are started.
const (
	proofEvery = 250 * time.Millisecond // how often a part is asked for a sign of life
	proofLimit = 10 * time.Second       // after which its start counts as survived
	slowStep   = 2 * time.Second        // with care: how long it must live before the next one starts
)

// caution starts parts so that a death names the one that caused it: what is
// being started stands on the record of starts meanwhile, what is held back
// waits for its time, and with care one part starts after the other.
type caution struct {
	g    *Gateway
	turn chan struct{} // with care: held by the part whose turn it is

	mu      sync.Mutex
	closed  bool            // nothing starts any more
	started map[string]bool // by start
}

func newCaution(g *Gateway) *caution {
	return &caution{g: g, turn: make(chan struct{}, 1), started: map[string]bool{}}
}

// has tells whether start has started a part.
func (c *caution) has(part string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.started[part]
}

func (c *caution) plan() starts.Plan {
	if c.g.Safe == nil {
		return starts.Plan{}
	}
	return c.g.Safe.Plan
}

func (c *caution) life() *starts.Life {
	if c.g.Safe == nil {
		return nil
	}
	return c.g.Safe.Life
}

// held tells until when a part is held back.
func (c *caution) held(part string) (q starts.Quarantined, ok bool) {
	for _, q := range c.plan().Quarantine {
		if q.Part == part {
			return q, true
		}
	}
	return q, false
}

// start starts a part whose start returns at once. An ordinary one is started
// before start returns.
func (c *caution) start(ctx context.Context, part string, start func()) {
	if _, held := c.held(part); !held && !c.plan().Slow {
		// What it leaves running is named by its own code when it dies.
		c.life().Starting(part)
		failpoint.Hit(failpoint.PartStarts + part)
		c.begin(part, start)
		c.life().Started(part)
		return
	}
	c.g.work.Go(func() {
		if c.enter(ctx, part) {
			c.begin(part, start)
		}
	})
}

// begin starts a part, unless whatever was started is being stopped by now.
func (c *caution) begin(part string, start func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.closed {
		start()
		c.started[part] = true
	}
}

// close lets nothing start any more; what is starting has started when it returns.
func (c *caution) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
}

// enter returns when a part may be started, false when ctx ended before. From
// then on, until it has shown a sign of life, a death names it.
func (c *caution) enter(ctx context.Context, part string) bool {
	reporter := c.g.health.Part(part)
	if q, held := c.held(part); held {
		wait := q.Until.Sub(c.g.Now())
		reporter.Down("quarantine", fmt.Sprintf("It is held back until %s, because the gateway died by it (%s). `hermes%s gateway restart` tries it at once",
			q.Until.Local().Format("15:04:05"), q.Why, c.g.flag()))
		if wait > 0 {
			sleep(ctx, wait)
		}
		if ctx.Err() != nil {
			return false
		}
		c.g.Log.Warn("a part that was held back is tried again", "component", part, "deaths", q.Times)
		reporter.Degraded("trying_again", "It was held back, because the gateway died by it, and is tried again now")
	}
	slow := c.plan().Slow
	if slow {
		select {
		case c.turn <- struct{}{}:
		case <-ctx.Done():
			return false
		}
	}
	began := c.g.Now()
	c.life().Starting(part)
	failpoint.Hit(failpoint.PartStarts + part)
	c.g.work.Go(func() {
		c.prove(ctx, part, began)
		if slow {
			sleep(ctx, slowStep)
			<-c.turn
		}
		if ctx.Err() == nil {
			c.life().Started(part)
		}
	})
	return true
}

// prove returns when a part has shown a sign of life, or of trouble of its own,
// since its start, or has lived for long enough.
func (c *caution) prove(ctx context.Context, part string, began time.Time) {
	ctx, cancel := context.WithTimeout(ctx, proofLimit)
	defer cancel()
	tick := time.NewTicker(proofEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		for _, p := range c.g.health.Parts() {
			if p.Name != part {
				continue
			}
			trouble := (p.State == health.Down || p.State == health.Degraded) && p.Code != "trying_again" && !p.Since.Before(began)
			if trouble || p.State == health.Disabled || !p.LastOK.Before(began) && p.State == health.OK {
				return
			}
		}
	}
}

// carefulJobs is the scheduler's ledger after a death: jobs that are held back
// stay due, and one that runs stands on the record.
type carefulJobs struct {
	cron.Store
	c *caution

	mu   sync.Mutex
	runs map[int64]domain.JobID
}

func jobPart(id domain.JobID) string { return "job." + string(id) }

// DueRuns leaves out the jobs that are held back.
func (j *carefulJobs) DueRuns(ctx context.Context, limit int) ([]domain.Run, error) {
	if len(j.c.plan().Quarantine) == 0 {
		return j.Store.DueRuns(ctx, limit)
	}
	all, err := j.Store.DueRuns(ctx, 0)
	var out []domain.Run
	for _, r := range all {
		if q, held := j.c.held(jobPart(r.Job)); held && j.c.g.Now().Before(q.Until) {
			continue
		}
		if out = append(out, r); limit > 0 && len(out) == limit {
			break
		}
	}
	return out, err
}

// ClaimRun puts the job on the record.
func (j *carefulJobs) ClaimRun(ctx context.Context, id int64, now time.Time) (domain.Run, bool, error) {
	r, ok, err := j.Store.ClaimRun(ctx, id, now)
	if ok {
		j.mu.Lock()
		j.runs[id] = r.Job
		j.mu.Unlock()
		j.c.life().Starting(jobPart(r.Job))
	}
	return r, ok, err
}

// FinishRun takes it off again.
func (j *carefulJobs) FinishRun(ctx context.Context, e ledger.RunEnd, d []domain.NewDelivery, now time.Time) ([]int64, error) {
	ids, err := j.Store.FinishRun(ctx, e, d, now)
	j.mu.Lock()
	job, ok := j.runs[e.Ref.ID]
	delete(j.runs, e.Ref.ID)
	j.mu.Unlock()
	if ok {
		j.c.life().Started(jobPart(job))
	}
	return ids, err
}
