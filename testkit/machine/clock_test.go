package machine

import (
	"context"
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	"hermes/internal/domain"
	"hermes/internal/ledger"
	"hermes/testkit/machine/agent"
	"hermes/testkit/people"
	"hermes/testkit/torture"
)

// late is how late a firing may be on a machine that is emulated on a busy host:
// ten times the second that is promised.
const late = 10 * time.Second

// renewed is how long connections may take to be made anew on such a machine: ten
// times what they do.
const renewed = 30 * time.Second

// ten is the hour at which the clocks of these tests begin: no zone changes its
// time on that day.
var ten = time.Date(2026, 3, 10, 10, 0, 0, 0, time.UTC)

// at is an hour and a minute of that day.
func at(hour, minute int) time.Time {
	return ten.Add(time.Duration(hour-10)*time.Hour + time.Duration(minute)*time.Minute)
}

// clocks is a machine with a gateway whose jobs come every hour on the hour, one
// with each policy about missed firings, and one that comes once, at half past ten.
type clocks struct {
	t    *testing.T
	ctx  context.Context
	w    *World
	life *Life
	who  people.Person
	said int
	want map[string]int // words that must have been left
}

func newClocks(ctx context.Context, t *testing.T, k *Kit) *clocks {
	t.Helper()
	c := &clocks{t: t, ctx: ctx, want: map[string]int{}}
	witness := torture.NewWitness(func(id string) string { return c.w.Words.Leave(id) })
	var err error
	if c.w, err = k.NewWorld(ctx, witness.Think, 1, map[string]string{"hermes/scripts/README": "jobs of the test\n"}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.w.Close)
	c.who = c.w.Telegram.Join()
	c.boot(at(10, 0).Add(20 * time.Second))
	for name, flags := range map[string][]string{
		"one":  {"0 * * * *"},
		"all":  {"0 * * * *", "--catch-up", "all", "--grace", "72h", "--overlap", "queue"},
		"none": {"0 * * * *", "--catch-up", "none"},
		"once": {"2026-03-10T10:30:00Z"},
	} {
		c.job(name, flags...)
	}
	return c
}

// job makes a job whose script leaves its name.
func (c *clocks) job(name string, flags ...string) {
	c.t.Helper()
	script := "#!/bin/sh\n" + c.w.Words.Leave(name) + "\n"
	c.must(c.life.Write(c.ctx, home+"/scripts/"+name+".sh", []byte(script), true))
	c.hermes(append(append([]string{"cron", "create"}, flags...), "--no-agent", "--script", name+".sh", "--deliver", "local", "--name", name)...)
}

// boot switches the machine on, with a clock that shows rtc, and starts the gateway.
func (c *clocks) boot(rtc time.Time) {
	c.t.Helper()
	life, err := c.w.Boot(c.ctx, rtc)
	c.must(err)
	c.life = life
	c.t.Cleanup(func() {
		if c.t.Failed() && !life.over {
			c.t.Log(life.Console())
		}
		life.Cut()
	})
	c.must(life.Serve(c.ctx))
	c.talk()
}

func (c *clocks) must(err error) {
	c.t.Helper()
	if err != nil {
		c.t.Fatal(err)
	}
}

func (c *clocks) hermes(args ...string) string {
	c.t.Helper()
	out, err := c.life.Hermes(c.ctx, args...)
	c.must(err)
	return out
}

// set sets the clock, without any job being due within the next seconds.
func (c *clocks) set(to time.Time) {
	c.t.Helper()
	_, err := c.life.Clock(c.ctx, agent.Clock{Set: to})
	c.must(err)
}

// fired waits until each of the jobs that are named has run once more, and until
// no run is left: a clock that moves while one goes on makes the next overlap it.
func (c *clocks) fired(jobs ...string) {
	c.t.Helper()
	for _, j := range jobs {
		c.want[j]++
	}
	for j, n := range c.want {
		c.must(c.w.Words.Await(c.ctx, j, n))
	}
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		var list struct{ Runs []domain.Run }
		c.must(json.Unmarshal([]byte(c.hermes("cron", "runs", "--json", "--limit", "40")), &list))
		if !slices.ContainsFunc(list.Runs, func(r domain.Run) bool { return r.State == domain.RunDue || r.State == domain.RunRunning }) {
			return
		}
		<-tick.C
	}
}

// talk has a conversation: sessions and connections work.
func (c *clocks) talk() {
	c.t.Helper()
	c.said++
	m := torture.Message{ID: "m" + strings.Repeat("1", c.said), Tool: c.said%2 == 0, From: c.who}
	c.must(m.From.Say(c.ctx, m.Text()))
	if err := m.From.WaitFor(c.ctx, m.Answered); err != nil {
		c.t.Fatalf("nobody answers: %v; heard %q", err, c.who.Heard())
	}
}

// end stops the gateway and holds the ledger and the words to what was expected:
// no run was made up for twice, and those that fired in time were not late.
// punctual are the instants at which the jobs of every hour fired by themselves.
func (c *clocks) end(punctual ...time.Time) map[string][]domain.Run {
	c.t.Helper()
	c.must(c.life.Leave(c.ctx))
	store, err := c.life.Ledger(c.ctx, c.t.TempDir())
	c.must(err)
	defer store.Close()
	jobs, err := store.ListJobs(c.ctx, ledger.JobFilter{Limit: 100})
	c.must(err)
	all := map[string][]domain.Run{}
	for _, j := range jobs {
		runs, err := store.Runs(c.ctx, ledger.RunFilter{Job: j.ID, Limit: 1000})
		c.must(err)
		all[j.Name] = runs
		ran := 0
		seen := map[time.Time]bool{}
		for _, r := range runs {
			if seen[r.Instant] {
				c.t.Errorf("%s has two runs of %s", j.Name, r.Instant)
			}
			seen[r.Instant] = true
			if r.State == domain.RunSilent {
				ran++
			} else if r.State != domain.RunMissed {
				c.t.Errorf("the run of %s at %s is %s: %s", j.Name, r.Instant, r.State, r.Error)
			}
			for _, p := range punctual {
				if r.Instant.Equal(p) {
					by := r.StartedAt.Sub(r.Instant)
					c.t.Logf("%s of %s was %s late", j.Name, p.Format(time.TimeOnly), by)
					if by < 0 || by > late || r.State != domain.RunSilent {
						c.t.Errorf("%s of %s is %s, started %s after it was due", j.Name, p, r.State, by)
					}
				}
			}
		}
		if got := c.w.Words.Count(j.Name); got != ran || got != c.want[j.Name] {
			c.t.Errorf("%s did its work %d times, has %d runs, and %d were due", j.Name, got, ran, c.want[j.Name])
		}
		for _, p := range punctual {
			if j.Name != "once" && !seen[p] {
				c.t.Errorf("%s did not fire at %s", j.Name, p)
			}
		}
	}
	return all
}

// testClockSet sets the clock of a machine forward, back, and lets it run fast
// and slow, while jobs are due.
func testClockSet(t *testing.T, k *Kit) {
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
	defer cancel()
	c := newClocks(ctx, t, k)
	hourly := []string{"one", "all", "none"}

	c.set(at(10, 59).Add(57 * time.Second)) // nearly an hour forward: what came once is made up for
	c.fired("once")
	c.fired(hourly...) // 11:00
	c.talk()

	c.set(at(9, 0)) // two hours back, as they were before 11:00 was fired
	c.talk()
	c.set(at(9, 59).Add(57 * time.Second))
	c.fired(hourly...)                      // 10:00, which had not come yet
	c.set(at(10, 59).Add(58 * time.Second)) // 11:00 comes again, and has been
	c.set(at(11, 0).Add(5 * time.Second))
	c.set(at(11, 59).Add(57 * time.Second))
	c.fired(hourly...) // 12:00

	c.set(at(15, 10)) // three hours forward
	c.fired("one")    // 15:00 only
	c.fired("all")    // 13:00
	c.fired("all")
	c.fired("all")
	c.talk()

	c.set(at(24+15, 10)) // a day forward
	c.fired("one")
	for range 24 {
		c.want["all"]++
	}
	c.fired()
	c.talk()

	// A clock that is corrected without a jump runs a tenth too fast, then too slow.
	_, err := c.life.Clock(ctx, agent.Clock{Set: at(24+15, 59).Add(54 * time.Second), Tick: 11_000})
	c.must(err)
	c.fired(hourly...) // 16:00
	_, err = c.life.Clock(ctx, agent.Clock{Set: at(24+16, 59).Add(57 * time.Second), Tick: 9_000})
	c.must(err)
	c.fired(hourly...) // 17:00
	_, err = c.life.Clock(ctx, agent.Clock{Tick: 10_000})
	c.must(err)
	c.talk()
	c.healthy()
	c.end(at(10, 0), at(11, 0), at(12, 0), at(24+16, 0), at(24+17, 0))
	console := c.life.Console()
	if !strings.Contains(console, "the clock was set back") {
		t.Error("nothing was said of the clock that was set back")
	}
	if !strings.Contains(console, "the clock was set forward") {
		t.Error("nothing was said of the clock that was set forward")
	}
}

// healthy checks that nothing was made to look ill by a clock.
func (c *clocks) healthy() {
	c.t.Helper()
	if out := c.hermes("gateway", "status"); strings.Contains(out, "degraded") || strings.Contains(out, "down") {
		c.t.Errorf("the gateway is not well:\n%s", out)
	}
}

// testSuspend lets a machine sleep for more than two hours, while jobs are due
// and its connections are forgotten by the other side.
func testSuspend(t *testing.T, k *Kit) {
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
	defer cancel()
	c := newClocks(ctx, t, k)
	c.set(at(10, 50))
	c.fired("once")
	c.must(c.life.Suspend(ctx, "mem", 2*time.Hour+20*time.Minute))
	c.fired("one", "all")
	c.fired("all", "all")
	if !strings.Contains(c.life.Console(), "the machine slept") {
		t.Error("nothing was said of the sleep")
	}
	times, err := c.life.Clock(ctx, agent.Clock{})
	c.must(err)
	if times.Boot-times.Mono < 2*time.Hour || times.Wall.Before(at(13, 10)) {
		t.Errorf("the machine did not sleep for long: %+v", times)
	}
	began := time.Now()
	c.talk()
	// By itself a poll would notice after two of its times, which is a minute.
	took := time.Since(began)
	t.Logf("answered %s after waking", took)
	if took > renewed {
		t.Errorf("it took %s after waking until somebody was answered", took)
	}
	c.set(at(13, 59).Add(57 * time.Second))
	c.fired("one", "all", "none") // 14:00
	c.healthy()
	c.end(at(14, 0))
}

// testNoClock boots a machine whose clock has forgotten the time, as one without
// a battery has, which is then set by the network.
func testNoClock(t *testing.T, k *Kit) {
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
	defer cancel()
	c := newClocks(ctx, t, k)
	c.must(c.life.Leave(ctx))
	c.life.Cut()
	c.boot(time.Date(1970, 1, 1, 0, 0, 10, 0, time.UTC))
	c.job("born", "*/10 * * * *")
	c.hermes("cron", "status")
	c.set(at(10, 50)) // the network says what time it is
	// What was made in 1970 has missed millions of instants. It comes once for
	// them, and leaves few records of them.
	c.fired("once", "born")
	c.talk()
	c.set(at(10, 59).Add(57 * time.Second))
	c.fired("one", "all", "none", "born")
	c.healthy()
	if n := len(c.end(at(11, 0))["born"]); n > 30 {
		t.Errorf("the job that was made in 1970 has %d records", n)
	}
	if !strings.Contains(c.life.Console(), "the clock was set forward") {
		t.Error("nothing was said of the clock that was set")
	}
}
