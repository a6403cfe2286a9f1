package starts

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"hermes/internal/succession"
	"hermes/internal/versions"
)

// Facts is what the start that is to be judged can see.
type Facts struct {
	Now     time.Time
	Boot    string            // of the machine
	Up      time.Duration     // since the machine booted, asleep or not; 0 where that cannot be told
	Self    succession.Record // this process
	Kills   int64             // as Start.Kills, now
	Dump    string            // that the last crash left, "" for none
	Limit   func() Limit      // of the manager; asked for only after a death
	Planned bool              // somebody asked for this start while the gateway served

	Binary    versions.Binary // of this process
	Fallback  versions.Binary // served healthily last, is another one, and is there; zero for none
	BroughtAt time.Time       // when an update brought Binary; zero where none is known
	Disk      string          // fingerprint of the configuration on disk
	Good      string          // of the one that served healthily last; "" for none
}

// Limit is how often a service manager starts a unit before it gives it up.
type Limit struct {
	Known   bool
	Managed bool          // a manager starts the process again
	Burst   int           // starts allowed
	Span    time.Duration // within; 0 means without end
	Delay   time.Duration // between a death and the next start
	// Stops tells whether an exit code of 78 ends the unit without another start.
	Stops bool
}

// unknownLimit is what is assumed of a manager that does not answer: the
// strictest that operators write.
var unknownLimit = struct {
	burst int
	span  time.Duration
}{3, 10 * time.Minute}

// Effective tells whether the manager ever gives up: a unit that waits longer
// between starts than its limit looks back is started for ever.
func (l Limit) Effective() bool {
	return !l.Known || l.Burst > 0 && l.Span > 0 && time.Duration(l.Burst-1)*l.Delay < l.Span
}

// Plan is how to start.
type Plan struct {
	// Deaths in a row, before this start.
	Deaths int
	// LastChance says that the manager may give the unit up when this start
	// dies too.
	LastChance bool
	// Careful is why the start is a careful one, in sentences for people; empty
	// for an ordinary start.
	Careful []string
	// Slow starts the parts one by one, to learn which it is.
	Slow bool
	// Jobs puts the jobs that run on the record, to learn whether one of them ends
	// the process.
	Jobs bool
	// Quarantine are the parts that are not started before their time.
	Quarantine []Quarantined
	// LastHealthy serves the configuration that served healthily last, in place
	// of the one on disk.
	LastHealthy bool
	// Fallback runs the program that served healthily last, in place of this.
	Fallback bool
	// Distrusted is what the two above rest on, to be put on the record.
	Distrusted []Distrust
	// Incident names the first death of the row; "" without one.
	Incident string
}

// The measures of judging.
const (
	careAfter  = 2         // deaths in a row
	forgetGap  = time.Hour // between two starts, after which nothing counts
	freshTime  = time.Hour // in which a program that an update brought is suspect
	firstRetry = 5 * time.Minute
	mostRetry  = 4 * time.Hour
)

// Now gives the facts that every start can see for itself.
func Now(now time.Time) Facts {
	return Facts{Now: now.UTC(), Boot: bootID(), Up: Uptime(), Self: succession.Self("", ""), Kills: oomKills()}
}

// WhyDistrusted says why a configuration is not served.
func (p Plan) WhyDistrusted(config string) string {
	for _, d := range p.Distrusted {
		if d.Config == config {
			return d.Why
		}
	}
	return "unknown"
}

// Judge settles how the lives before ended and says how this start must be
// done. It changes r: ends that nobody wrote down, and what is quarantined and
// distrusted from now on. It is a pure function of the record and the facts.
func Judge(r *Record, f Facts) Plan {
	// A program that was chosen for this start put it on the record, and became
	// this one: it is one start.
	r.Starts = slices.DeleteFunc(r.Starts, func(s Start) bool { return s.End == nil && s.Stage == Begun && f.is(s) })
	settle(r, f)
	blameJobs(r)
	r.keepTime(f)
	row := f.deaths(r.Starts)
	p := Plan{Deaths: len(row)}
	if len(row) > 0 {
		p.Incident = row[len(row)-1].ID
		p.LastChance = f.lastChance(r.Starts)
	}
	if !f.Planned {
		p.distrust(r, f, row)
	}
	p.quarantine(r, f, row)
	p.Jobs = len(row) > 0 || len(p.Quarantine) > 0 || r.killedLast()
	if f.Planned {
		// The operator asked, and the one before serves on until this one does.
		p.Quarantine, p.Slow = nil, false
		return p
	}
	p.explain(row)
	return p
}

// is tells whether a start is this process's own.
func (f Facts) is(s Start) bool {
	return f.Self.PID != 0 && s.Process.PID == f.Self.PID && s.Process.StartTime == f.Self.StartTime && s.Boot == f.Boot
}

// ago tells how long ago a start was. Within one boot the clock on the wall, which
// may be set meanwhile, is not asked.
func (f Facts) ago(s Start) time.Duration {
	if f.Up > 0 && s.Up > 0 && s.Boot == f.Boot {
		return f.Up - s.Up
	}
	return f.Now.Sub(s.At)
}

// keepTime shortens what a clock that was set back would hold back for longer
// than anything is.
func (r *Record) keepTime(f Facts) {
	for i := range r.Quarantine {
		q := &r.Quarantine[i]
		if most := retryAfter(q.Times); q.Until.Sub(f.Now) > most {
			q.Since, q.Until = f.Now, f.Now.Add(most)
		}
	}
}

// settle writes down how lives ended that could not do it themselves.
func settle(r *Record, f Facts) {
	dump := f.Dump
	for i := len(r.Starts) - 1; i >= 0; i-- {
		s := &r.Starts[i]
		if s.End != nil || s.Process.Alive() && s.Boot == f.Boot {
			continue
		}
		s.End = endOf(*s, f, dump)
		dump = "" // it tells of the last life
	}
}

// endOf judges the end of one life.
func endOf(s Start, f Facts, dump string) *End {
	switch trace := ReadTrace(dump); {
	case s.Boot != f.Boot:
		return &End{Code: -1, Cause: Outside, Reason: "the machine went down"}
	case trace.Asked:
		return &End{Code: 2, Cause: Outside, Reason: "asked for a dump: " + trace.Reason}
	case dump != "":
		return &End{Code: 2, Cause: Panicked, Part: s.suspect(trace.Part), Reason: trace.Reason}
	case s.Kills >= 0 && f.Kills > s.Kills:
		return &End{Code: -1, Cause: Outside, Reason: "killed by the kernel, for lack of memory"}
	case s.Reached(Serving) && !(s.Slow && s.suspect("") != ""):
		// Nothing of ours ends a process that serves without a word; and if it
		// does, the part is found by the careful lives that follow other deaths.
		return &End{Code: -1, Cause: Outside, Reason: killed}
	}
	return &End{Code: -1, Cause: Vanished, Part: s.suspect(""), Reason: "it was gone before all was started, without a trace"}
}

// suspect is the part that a death names: the dump's, or the one that was being
// started. The only job that ran is named in place of all jobs.
func (s Start) suspect(dumped string) string {
	var jobs []string
	for _, p := range s.Parts {
		if strings.HasPrefix(p, "job.") {
			jobs = append(jobs, p)
		}
	}
	switch {
	case len(jobs) == 1 && (dumped == "" || dumped == "cron"):
		return jobs[0]
	case dumped == "" && len(s.Parts) == 1:
		return s.Parts[0]
	}
	return dumped
}

// deaths gives the deaths in a row before now, the latest first. A settled life, a
// long pause and a later life that served healthily on something else than what
// died end the row; what was stopped or killed from outside is passed over, and
// so is a successor that died while its predecessor served.
func (f Facts) deaths(all []Start) []Start {
	var row, well []Start    // well: later than the one that is looked at
	next := time.Duration(0) // ago
	for i := len(all) - 1; i >= 0; i-- {
		s := all[i]
		if f.ago(s)-next > forgetGap && !s.Reached(Serving) || s.Reached(Settled) && !s.End.Death() {
			break
		}
		next = f.ago(s)
		if s.End.Death() && slices.ContainsFunc(well, func(w Start) bool { return w.mended(s) }) {
			break
		}
		if s.End.Death() && (!s.Planned || s.Reached(Serving)) {
			row = append(row, s)
		}
		if !s.Healthy.IsZero() {
			well = append(well, s)
		}
		if s.Reached(Settled) {
			break // its own death is the first of the row
		}
	}
	return row
}

// mended tells whether a life is of another program or configuration than one that
// died. What died before it read a configuration has none.
func (s Start) mended(died Start) bool {
	return !s.Binary.Same(died.Binary) || died.Config != "" && s.Config != died.Config
}

// Mended lets go of all that is held back, where the life with an id, which serves
// healthily, is of another program or configuration than the last one that died.
func (r *Record) Mended(id string) {
	own := slices.IndexFunc(r.Starts, func(s Start) bool { return s.ID == id })
	for i := own - 1; i >= 0; i-- {
		if s := r.Starts[i]; s.End.Death() {
			if r.Starts[own].mended(s) {
				r.Quarantine = nil
			}
			return
		}
	}
}

// lastChance counts the starts that the manager counts too. It may count fewer,
// never more.
func (f Facts) lastChance(all []Start) bool {
	limit := Limit{}
	if f.Limit != nil {
		limit = f.Limit()
	}
	burst, span := limit.Burst, limit.Span
	if !limit.Known {
		burst, span = unknownLimit.burst, unknownLimit.span
	}
	if !limit.Effective() {
		return false
	}
	n := 1 // this one
	for _, s := range all {
		if !s.Planned && f.ago(s) < span {
			n++
		}
	}
	return n >= burst
}

// careful tells whether the deaths so far demand care.
func (p Plan) careful() bool {
	return p.Deaths >= careAfter || p.Deaths > 0 && p.LastChance
}

// quarantine holds back the parts that deaths name, and slows the start where
// the last death names none.
func (p *Plan) quarantine(r *Record, f Facts, row []Start) {
	named := len(row) > 0 && p.proves(row[0])
	if named {
		last := row[0]
		i := slices.IndexFunc(r.Quarantine, func(q Quarantined) bool { return q.Part == last.End.Part })
		switch {
		case i < 0 && p.careful():
			r.Quarantine = append(r.Quarantine, Quarantined{Part: last.End.Part, Since: f.Now, Until: f.Now.Add(firstRetry), Times: 1, Why: why(last)})
		case i >= 0 && !last.At.Before(r.Quarantine[i].Since): // it was tried again
			q := &r.Quarantine[i]
			q.Times++
			q.Since, q.Until, q.Why = f.Now, f.Now.Add(retryAfter(q.Times)), why(last)
		}
	}
	p.Slow = p.careful() && !named
	wentBack := p.LastHealthy && len(row) > 0 && row[0].Config == f.Disk
	if suspects := suspectsOf(row); p.Slow && p.LastChance && len(suspects) > 0 && !wentBack {
		// Finding out which it is could cost the last start that is allowed. With the
		// configuration before the one that died, they are likely sound, and one of
		// them tells people what happened.
		p.Slow = false
		for _, part := range suspects {
			if !slices.ContainsFunc(r.Quarantine, func(q Quarantined) bool { return q.Part == part }) {
				r.Quarantine = append(r.Quarantine, Quarantined{Part: part, Since: f.Now, Until: f.Now.Add(firstRetry), Times: 1, Why: why(row[0])})
			}
		}
	}
	p.Quarantine = slices.Clone(r.Quarantine)
}

// proves tells whether a death names a part surely enough to hold it back. A
// trace does. Without one it may as well have been a kill from outside at that
// moment, which must not cost a platform: then the parts must have been started
// one by one, or a job have been at work both times, or no start be left to
// find out.
func (p *Plan) proves(s Start) bool {
	switch {
	case s.End.Part == "":
		return false
	case s.End.Cause != Vanished:
		return true
	}
	return s.Slow || p.LastChance || strings.HasPrefix(s.End.Part, "job.")
}

// suspectsOf gives the parts that were being started at every death of a row.
func suspectsOf(row []Start) []string {
	var out []string
	for i, s := range row {
		if i == 0 {
			out = slices.Clone(s.Parts)
		}
		out = slices.DeleteFunc(out, func(part string) bool { return !slices.Contains(s.Parts, part) })
	}
	return out
}

// retryAfter is the pause after so many deaths: 5, 10, 20 … minutes.
func retryAfter(times int) time.Duration {
	d := firstRetry
	for range min(times-1, 10) {
		d *= 2
	}
	return min(d, mostRetry)
}

// distrust chooses the configuration and the program.
func (p *Plan) distrust(r *Record, f Facts, row []Start) {
	// What the files hold now, or the program is now, was mended since.
	r.Distrusted = slices.DeleteFunc(r.Distrusted, func(d Distrust) bool {
		return d.Config != "" && (d.Config != f.Disk || d.Config == f.Good)
	})
	known := func(match func(Distrust) bool) bool { return slices.ContainsFunc(r.Distrusted, match) }
	if f.Good != "" && f.Disk != f.Good {
		p.LastHealthy = known(func(d Distrust) bool { return d.Config == f.Disk })
		died := slices.ContainsFunc(row, func(s Start) bool { return s.Config == f.Disk })
		if !p.LastHealthy && p.careful() && died {
			p.LastHealthy = true
			r.Distrusted = append(r.Distrusted, Distrust{Config: f.Disk, Since: f.Now, Why: why(row[0])})
		}
	}
	if f.Fallback.Path != "" {
		p.Fallback = known(func(d Distrust) bool { return d.Binary.Path != "" && d.Binary.Same(f.Binary) })
		died := slices.ContainsFunc(row, func(s Start) bool { return s.Binary.Same(f.Binary) })
		diedToo := slices.ContainsFunc(row, func(s Start) bool { return s.Binary.Same(f.Fallback) })
		fresh := f.Now.Sub(f.since(r.Starts)) < freshTime
		if !p.Fallback && p.careful() && died && !diedToo && fresh {
			p.Fallback = true
			r.Distrusted = append(r.Distrusted, Distrust{Binary: f.Binary, Since: f.Now, Why: why(row[0])})
		}
	}
	if n := len(r.Distrusted) - kept; n > 0 {
		r.Distrusted = slices.Clone(r.Distrusted[n:])
	}
	p.Distrusted = slices.Clone(r.Distrusted)
}

// since is when the program came: by an update's word, else when it was first
// started.
func (f Facts) since(all []Start) time.Time {
	if !f.BroughtAt.IsZero() {
		return f.BroughtAt
	}
	for _, s := range all {
		if s.Binary.Same(f.Binary) {
			return s.At
		}
	}
	return f.Now
}

// explain says why the start is careful, and what is done about it.
func (p *Plan) explain(row []Start) {
	if p.careful() {
		text := fmt.Sprintf("the gateway died %d times in a row, the last time so: %s", p.Deaths, why(row[0]))
		if p.Deaths == 1 {
			text = "the gateway died, and its service manager may allow no other start: " + why(row[0])
		}
		p.Careful = append(p.Careful, text)
	}
	for _, q := range p.Quarantine {
		p.Careful = append(p.Careful, fmt.Sprintf("%s is held back until %s, since a death named it (%s)", q.Part, q.Until.UTC().Format("15:04 MST"), q.Why))
	}
	if p.LastHealthy {
		p.Careful = append(p.Careful, "the configuration that served healthily last is served, not the one on disk")
	}
	if p.Fallback {
		p.Careful = append(p.Careful, "the program that served healthily last runs, not the one that was started")
	}
	if p.Slow {
		p.Careful = append(p.Careful, "no death says what caused it, so the parts are started one by one")
	}
}

// why is the end of a life in a phrase.
func why(s Start) string {
	text := s.End.Reason
	if text == "" {
		text = string(s.End.Cause)
	}
	if i := strings.IndexByte(text, '\n'); i >= 0 {
		text = text[:i]
	}
	if len(text) > 200 {
		text = strings.ToValidUTF8(text[:200], "") + "…"
	}
	return text
}
