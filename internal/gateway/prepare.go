package gateway

import (
	"bytes"
	"cmp"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"hermes/internal/domain"
	"hermes/internal/home"
	"hermes/internal/plain"
	"hermes/internal/secret"
	"hermes/internal/starts"
	"hermes/internal/versions"
)

// Preparation is what a start is judged by, before anything is taken.
type Preparation struct {
	Profile home.Profile
	Process []string // the environment that the process was started with
	Version string
	Now     func() time.Time
	// Planned says that somebody asked for this start while the gateway served:
	// what was held back is tried again. Waits says that the one before still
	// serves, so that an error costs nothing.
	Planned, Waits bool
	CronOnly       bool
	// Instead says that this program runs because another one died; see Program.
	Instead bool
	// Limit asks the service manager; it is called only after a death.
	Limit func() starts.Limit
}

// Prepared is how to start.
type Prepared struct {
	Env      *home.Env
	Config   *home.Config
	Problems home.Problems
	Safe     *Safe
	Waits    bool // as in Preparation
}

// Safe is the safe mode of one life, and its place on the record of starts. Nil
// records nothing and is never careful.
type Safe struct {
	Plan starts.Plan
	Life *starts.Life
	// Served is what the configuration was read from.
	Served home.Files
	// Instead is the folder of the configuration that is served in place of the
	// one on disk, "" where that one is served; Broken is why it is not.
	Instead, Broken string
	// NotTold are sentences on what is off because it could not be told whether
	// it would be wider than what is on disk.
	NotTold []string

	binary versions.Binary
	disk   string // fingerprint
}

// self describes the program of this process.
func (o Preparation) self() versions.Binary {
	path, err := os.Executable()
	if err != nil {
		return versions.Binary{Version: o.Version}
	}
	b, err := versions.Look(path, o.Version, o.Now())
	if err != nil { // removed or replaced since
		return versions.Binary{Path: path, Version: o.Version}
	}
	return b
}

// maxDump is how much of a crash's dump is looked at, in bytes: its beginning names
// what crashed.
const maxDump = 1 << 20

// facts gathers what Judge wants to know.
func (o Preparation) facts(disk home.Files, unreadable bool) starts.Facts {
	f := starts.Now(o.Now())
	f.Limit, f.Planned = o.Limit, o.Planned
	f.Binary = o.self()
	f.Disk = disk.Fingerprint()
	if unreadable {
		f.Disk = "unreadable"
	}
	if text, err := plain.Head(crashFile(o.Profile.LogDir()), maxDump); err == nil {
		f.Dump = o.redact(string(bytes.TrimSpace(text)))
	}
	if e, _, ok := home.OpenHistory(o.Profile).LastHealthy(); ok {
		f.Good = e.Fingerprint
	}
	book := versions.Read(o.Profile)
	if good, ok := book.Fallback(f.Binary); ok {
		f.Fallback = good
	}
	if book.Brought != nil && book.Brought.Same(f.Binary) {
		f.BroughtAt = book.Brought.At
	}
	return f
}

// redact takes secrets out of what a program said when it died, before it comes
// into the record, status and messages.
func (o Preparation) redact(text string) string {
	if text == "" {
		return ""
	}
	var known []string
	if env, _, err := home.LoadEnv(o.Profile, o.Process); err == nil {
		known = env.Secrets()
		if cfg, _, err := home.Load(o.Profile, env); err == nil {
			known = append(known, cfg.Secrets()...)
		}
	}
	return secret.NewRedactor(known...).Redact(text)
}

// judge judges the lives before, and keeps the judgement on the record.
func (o Preparation) judge(f starts.Facts) (p starts.Plan) {
	if starts.Update(o.Profile, func(r *starts.Record) { p = starts.Judge(r, f) }) != nil {
		r := starts.Read(o.Profile) // a disk that takes nothing: judged all the same
		p = starts.Judge(&r, f)
	}
	return p
}

// Foresee tells what a start now would be like, and changes nothing: how it would
// be done, the last life on the record as it will be judged, and the fingerprint
// of the configuration on disk.
func (o Preparation) Foresee() (p starts.Plan, last starts.Start, disk string) {
	files, err := home.ReadFiles(o.Profile)
	f := o.facts(files, err != nil)
	r := starts.Read(o.Profile)
	p = starts.Judge(&r, f)
	last, _ = r.Last()
	return p, last, f.Disk
}

// Pinned is why a program was chosen that the profile is pinned to.
const Pinned = "the profile is pinned to it"

// Program chooses the program that is to serve: the one that the profile is
// pinned to, or the one that served healthily last where that one died too
// often. path is "" when it is this one; then why is "" too, unless another one
// was to serve and died. warn is a pin that cannot be followed.
func (o Preparation) Program() (path, why string, warn error) {
	pin, pinned, warn := versions.Pinned(o.Profile)
	self := o.self()
	first := self // what serves unless it died too often
	if pinned {
		if target, err := filepath.EvalSymlinks(pin.Path); err == nil && target != self.Path {
			if b, err := versions.Look(target, pin.Version, o.Now()); err == nil {
				first, path, why = b, pin.Path, Pinned
			}
		}
	}
	if o.CronOnly {
		return path, why, warn
	}
	if !starts.Read(o.Profile).Troubled() && path == "" {
		return "", "", warn
	}
	disk, err := home.ReadFiles(o.Profile)
	f := o.facts(disk, err != nil)
	if path != "" { // what would die is the pinned one
		f.Binary, f.Fallback = first, self
		if good, ok := versions.Read(o.Profile).Fallback(first); ok {
			f.Fallback = good
		}
	}
	plan := o.judge(f)
	if plan.Fallback {
		first, path, why = f.Fallback, f.Fallback.Path, "the program that was to serve died again and again"
		if path == self.Path {
			return "", why, warn
		}
	}
	if path != "" {
		o.announce(first, f, plan)
	}
	return path, why, warn
}

// announce puts the start on the record before another program goes on with it,
// so that one that dies before it can do so itself is known to have died. Such a
// death says nothing against the configuration, which nobody has read yet.
func (o Preparation) announce(program versions.Binary, f starts.Facts, plan starts.Plan) {
	s := starts.New(o.Profile, program, getter(o.Process), o.Now())
	s.Disk, s.Careful = f.Disk, plan.Careful
	starts.Begin(o.Profile, s)
}

// Prepare judges the lives before this one, chooses the configuration, and puts
// this start on the record. Errors: Config, when there is no configuration that
// can be used, neither on disk nor one that served healthily.
func Prepare(o Preparation) (*Prepared, error) {
	disk, err := home.ReadFiles(o.Profile)
	if o.CronOnly { // its lives are not the gateway's
		out := &Prepared{Safe: &Safe{Served: disk}}
		return out, out.choose(o, disk, err)
	}
	f := o.facts(disk, err != nil)
	out := &Prepared{Waits: o.Waits, Safe: &Safe{Plan: o.judge(f), Served: disk, binary: f.Binary, disk: f.Disk}}
	own := starts.New(o.Profile, f.Binary, getter(o.Process), o.Now())
	own.Disk, own.Config, own.Planned = f.Disk, f.Disk, o.Waits
	if o.Instead {
		out.Safe.Plan.Careful = append(out.Safe.Plan.Careful, fmt.Sprintf("version %s serves; the program that was to serve died too often", o.Version))
	}
	err = out.choose(o, disk, err)
	if err == nil && out.Safe.Instead != "" {
		own.Config = out.Safe.Served.Fingerprint()
	}
	own.Careful, own.Slow, own.Jobs = out.Safe.Plan.Careful, out.Safe.Plan.Slow, out.Safe.Plan.Jobs
	out.Safe.Life = starts.Begin(o.Profile, own)
	return out, err
}

// choose reads the configuration on disk, or the one that served healthily last
// where that one is unusable or lives ended by it.
func (p *Prepared) choose(o Preparation, disk home.Files, unreadable error) (err error) {
	err = unreadable
	if err == nil {
		p.Env, p.Config, p.Problems, err = home.LoadFiles(o.Profile, disk, o.Process)
	}
	if err == nil && !p.Safe.Plan.LastHealthy || err != nil && o.Waits {
		return err
	}
	entry, good, ok := home.OpenHistory(o.Profile).LastHealthy()
	if !ok {
		return err
	}
	env, cfg, problems, gerr := home.LoadFiles(o.Profile, good, o.Process)
	if gerr != nil {
		return err
	}
	broken := fmt.Sprintf("lives that served it died (%s)", p.Safe.Plan.WhyDistrusted(p.Safe.disk))
	if err != nil {
		broken = domain.MessageOf(err)
	}
	strict, untold := home.Stricter(o.Profile, cfg, good, disk, unreadable != nil, o.Process)
	p.Env, p.Config, p.Problems = env, strict, problems
	p.Safe.Served, p.Safe.Broken, p.Safe.NotTold = good, broken, untold
	p.Safe.Instead = home.OpenHistory(o.Profile).Dir(entry.N)
	if len(p.Safe.Plan.Careful) == 0 || err != nil {
		p.Safe.Plan.Careful = append(p.Safe.Plan.Careful, "the configuration on disk cannot be served: "+broken)
	}
	p.Safe.Plan.Incident = cmp.Or(p.Safe.Plan.Incident, "config "+p.Safe.disk)
	return nil
}

// getter reads from an environment as os.Environ gives it.
func getter(environ []string) func(string) string {
	g := Gateway{Options: Options{Process: environ}}
	return g.processEnv
}

// Ended puts the end of the life on record: a stop, or an error. One that says
// that another process serves is no fault of this one.
func (p *Prepared) Ended(now time.Time, code int, err error) {
	e := starts.End{At: now.UTC(), Code: code, Cause: starts.Clean}
	switch {
	case domain.IsCode(err, domain.Conflict):
		e.Cause, e.Reason = starts.Outside, domain.MessageOf(err)
	case err != nil:
		e.Cause, e.Reason = starts.Failed, domain.MessageOf(err)
	}
	p.Safe.Life.Ended(e)
}
