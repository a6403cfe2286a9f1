package starts

import (
	"slices"
	"testing"
	"time"
)

// A kill does not count; one that comes again with one job at work is the job's,
// and that is found before any manager gives the unit up.
func TestAJobThatKillsIsFound(t *testing.T) {
	const bad = "job.bad"
	by := func(unit string, jobs bool, parts ...string) func(*Start) {
		return func(s *Start) { s.Stage, s.Unit, s.Jobs, s.Parts = Serving, unit, jobs, parts }
	}
	for _, c := range []struct {
		name   string
		limit  Limit
		lives  []func(*Start) // ten seconds apart, the latest last
		jobs   bool
		deaths int
		held   bool
	}{
		{name: "the first kill is nobody's", limit: generated, lives: []func(*Start){by("u", false)}, jobs: true},
		{name: "nor without a unit", limit: generated, lives: []func(*Start){by("", false), by("", true, bad)}},
		{name: "a strict limit: the last start it allows", limit: template, lives: []func(*Start){by("u", false), by("u", true, bad)}, jobs: true, deaths: 1, held: true},
		{name: "a wide limit: one more proof", limit: generated, lives: []func(*Start){by("u", false), by("u", true, bad)}, jobs: true, deaths: 1},
		{name: "which comes", limit: generated, lives: []func(*Start){by("u", false), by("u", true, bad), by("u", true, bad)}, jobs: true, deaths: 2, held: true},
		{name: "another job was at work before", limit: template, lives: []func(*Start){by("u", true, "job.other"), by("u", true, bad)}, jobs: true},
		{name: "two jobs were at work", limit: template, lives: []func(*Start){by("u", false), by("u", true, bad, "job.other")}, jobs: true},
		{name: "none was", limit: template, lives: []func(*Start){by("u", false), by("u", true)}, jobs: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			var r Record
			var p Plan
			for i := range c.lives { // each start judges the lives before it
				r.Starts = append(r.Starts, life(time.Duration(len(c.lives)-i)*10*time.Second, c.lives[i]))
				p = Judge(&r, facts(c.limit))
			}
			held := slices.ContainsFunc(p.Quarantine, func(q Quarantined) bool { return q.Part == bad })
			if p.Jobs != c.jobs || p.Deaths != c.deaths || held != c.held {
				t.Errorf("jobs on record %v, deaths %d, held %v; want %v, %d, %v\n%+v", p.Jobs, p.Deaths, held, c.jobs, c.deaths, c.held, r.Starts)
			}
		})
	}
}
