// Package doctor says what is wrong with an installation. Facts are gathered
// once, at the same time and each with a deadline (case.go); checks are small
// functions over these facts, one file a class; what they find is ranked, cause
// before consequence, so that the first finding is the answer (rank.go).
//
// It works with the gateway up, down, crash-looping or half up, without systemd
// and with files that cannot be read, and it changes nothing but by Repair.
package doctor

import (
	"context"
	"slices"
	"strings"
	"time"

	"hermes/internal/home"
)

// Class says which kind of fault a finding is.
type Class string

// The classes.
const (
	Transport Class = "transport"     // token, polling, chat id, the platform's answer
	Provider  Class = "provider/auth" // the model's provider, keys, logins
	Scope     Class = "profile scope" // files of profiles mixed up, missing or unreadable
	Scheduler Class = "scheduler"     // jobs that do not fire, or not as meant
	Delivery  Class = "delivery"      // the work was done and the message did not arrive
	Service   Class = "service"       // units, processes, ports, disk, ledger
)

// Severity says what a finding costs.
type Severity string

// The severities.
const (
	Error   Severity = "error"   // something that is wanted does not work
	Warning Severity = "warning" // it works, and will not always, or not as meant
	Advice  Severity = "advice"  // it works; it could be better
)

// Finding is one thing that is wrong.
type Finding struct {
	ID       string   `json:"id"` // e.g. service.port_taken; stable
	Class    Class    `json:"class"`
	Severity Severity `json:"severity"`
	Profile  string   `json:"profile"`
	What     string   `json:"what"`
	Evidence []string `json:"evidence"` // a line of a log, a file and line, the answer of a probe
	Means    string   `json:"means"`    // the consequence
	Fix      string   `json:"fix"`      // one command; <…> in it is for the operator to fill in
	Safe     bool     `json:"safe"`     // --fix carries it out
	// About is what it is about, where there may be several: a platform, a job.
	About string `json:"about,omitempty"`
	// Acknowledged says that the operator knows of it, nil for not.
	Acknowledged *Acknowledged `json:"acknowledged,omitempty"`
	// Symptoms are further findings that go away with this one.
	Symptoms []Symptom `json:"symptoms,omitempty"`

	about    string // what it is about: a platform, a job
	depth    depth
	explains []string // patterns of path.Match for IDs of other findings, with :about where only one is meant
	repair   func(context.Context) error
}

// Symptom is a finding that another one explains.
type Symptom struct {
	ID   string `json:"id"`
	What string `json:"what"`
}

// Report is the answer for one profile.
type Report struct {
	Profile  string    `json:"profile"`
	Home     string    `json:"home"`
	Healthy  bool      `json:"healthy"` // no error and no warning that is not acknowledged
	Gateway  string    `json:"gateway"` // running, stopped, silent
	Findings []Finding `json:"findings"`
	// Unknown are the facts that could not be had, and why; nothing was
	// concluded from them.
	Unknown []string `json:"unknown"`
	Took    float64  `json:"seconds"`

	redact func(string) string
}

// Options say what to examine, and with what.
type Options struct {
	Request home.Request // which profile
	Environ []string     // the process's environment
	Binary  string       // absolute path of this program, as it was called
	Version string
	Origin  string // of a web page whose requests fail; "" for none
	Local   bool   // nothing beyond this machine's files and processes is asked
	Now     func() time.Time
}

// Limit bounds an examination; what is not known by then stays unknown.
const Limit = 9 * time.Second

// Examine gathers the facts about one profile and judges them.
func Examine(ctx context.Context, o Options) Report {
	if o.Now == nil {
		o.Now = time.Now
	}
	began := time.Now()
	ctx, cancel := context.WithTimeout(ctx, Limit)
	defer cancel()
	c := gather(ctx, o)
	var found []Finding
	all := checks()
	if c.ProfileErr != nil {
		all = []check{checkProfile} // there is nothing else to look at
	}
	for _, check := range all {
		found = append(found, check(c)...)
	}
	r := Report{Profile: c.Profile.Name, Home: c.Profile.Home, Gateway: c.Gateway.word(), Findings: rank(found), Unknown: c.Unknown, redact: c.redact}
	if r.Unknown == nil {
		r.Unknown = []string{}
	}
	for i := range r.Findings {
		r.Findings[i].finish(c)
	}
	r.acknowledged(o.Now())
	r.Healthy = !slices.ContainsFunc(r.Findings, func(f Finding) bool { return f.Severity != Advice && f.Acknowledged == nil })
	r.Took = time.Since(began).Seconds()
	return r
}

// finish fills in what every finding has, and takes secrets out.
func (f *Finding) finish(c *Case) {
	f.Profile, f.Safe, f.About = c.Profile.Name, f.repair != nil, c.redact(f.about)
	f.What, f.Means = c.redact(f.What), c.redact(f.Means)
	if f.Evidence == nil {
		f.Evidence = []string{}
	}
	for i, e := range f.Evidence {
		f.Evidence[i] = c.redact(e)
	}
	for i, s := range f.Symptoms {
		f.Symptoms[i].What = c.redact(s.What)
	}
}

// Repaired is what Repair did about a finding.
type Repaired struct {
	ID      string `json:"id"`
	What    string `json:"what"` // what was done: the fix's command
	Problem string `json:"problem,omitempty"`
}

// Repair carries out the safe fixes of a report, in its order, and asks
// nothing. Each is harmless when it is carried out again.
func Repair(ctx context.Context, r Report) []Repaired {
	out := []Repaired{}
	for _, f := range r.Findings {
		if f.repair == nil || f.Acknowledged != nil {
			continue
		}
		one := Repaired{ID: f.ID, What: f.Fix}
		if err := f.repair(ctx); err != nil {
			one.Problem = r.redact(err.Error())
		}
		out = append(out, one)
	}
	return out
}

// check looks for some kinds of faults. It must not change the case.
type check func(*Case) []Finding

// checks lists all checks; each class has its own file.
func checks() []check {
	return slices.Concat(hostChecks(), scopeChecks(), unitChecks(), programChecks(), processChecks(), apiChecks(), providerChecks(), transportChecks(), schedulerChecks(), deliveryChecks())
}

// someOf joins the first few of a list, so that no finding grows without end.
func someOf(list []string, n int) string {
	if len(list) > n {
		return strings.Join(list[:n], ", ") + ", …"
	}
	return strings.Join(list, ", ")
}
