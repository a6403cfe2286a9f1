package cron

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"path/filepath"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"hermes/internal/clock"
	"hermes/internal/cron/schedule"
	"hermes/internal/domain"
	"hermes/internal/ledger"
)

// ServiceOptions are what a Service needs. Store and Home must be set.
type ServiceOptions struct {
	Store   Store
	Home    string                // the profile's home folder
	RootDir string                // the root profile's home, for advice
	Zone    func() *time.Location // the profile's zone; nil means the host's
	Wall    clock.Wall            // nil means the system's
	Targets *Targets              // nil: targets are not checked, and nothing but local is accepted
	// Changed is called after a job was changed or a run asked for, to wake the
	// scheduler of this process or poke that of another. It must not block.
	Changed func()
	// Running tells whether a scheduler runs. nil asks the ledger's lease; a
	// process that holds that lease itself must set it.
	Running func(ctx context.Context) (running bool, who string)
}

// Service is everything that people and programs do with jobs. It is a thin
// layer over the ledger, safe for concurrent use by several processes.
type Service struct {
	opt     ServiceOptions
	wall    clock.Wall
	scripts Scripts
	outputs outputs
}

// NewService makes a Service.
func NewService(o ServiceOptions) *Service {
	if o.Wall == nil {
		o.Wall = clock.System()
	}
	if o.Zone == nil {
		o.Zone = func() *time.Location { return time.Local }
	}
	if o.Changed == nil {
		o.Changed = func() {}
	}
	s := &Service{opt: o, wall: o.Wall, scripts: Scripts{Dir: filepath.Join(o.Home, "scripts")}, outputs: outputs{filepath.Join(o.Home, "cron")}}
	if o.RootDir != "" {
		s.scripts.RootDir = filepath.Join(o.RootDir, "scripts")
	}
	return s
}

// Change says what a job shall be: nil fields are left as they are. It creates
// a job as well as it edits one.
type Change struct {
	Name           *string   `json:"name"`
	Schedule       *string   `json:"schedule"`
	Prompt         *string   `json:"prompt"`
	Script         *string   `json:"script"` // "" clears it
	NoAgent        *bool     `json:"no_agent"`
	Skills         *[]string `json:"skills"`
	AddSkills      []string  `json:"-"`
	RemoveSkills   []string  `json:"-"`
	Model          *string   `json:"model"`
	Provider       *string   `json:"provider"`
	BaseURL        *string   `json:"base_url"`
	ContextFrom    *[]string `json:"context_from"` // ids or names
	Timezone       *string   `json:"timezone"`
	Repeat         *int      `json:"repeat"` // 0 means for ever
	Deliver        *[]string `json:"deliver"`
	FailureDeliver *[]string `json:"failure_deliver"`
	Origin         *Origin   `json:"origin"`
	Workdir        *string   `json:"workdir"`
	Toolsets       *[]string `json:"enabled_toolsets"`
	CatchUp        *string   `json:"catch_up"`
	Overlap        *string   `json:"overlap"`
	OnInterrupt    *string   `json:"on_interrupt"`
	TimeoutSeconds *int      `json:"timeout_seconds"`
	GraceMinutes   *int      `json:"grace_minutes"`
	Archive        *string   `json:"archive"`
	Paused         *bool     `json:"paused"` // at creation only
	PausedReason   *string   `json:"paused_reason"`
}

// Explained is a job that was created or changed, with what it means.
type Explained struct {
	Job    View        `json:"job"`
	Words  string      `json:"words"`
	Next   []time.Time `json:"next"` // three, in the job's zone
	Advice []string    `json:"advice,omitempty"`
}

// Create makes a job. It fails with domain.Invalid (also for a target or a
// script that cannot be resolved), domain.NotFound (context), domain.Forbidden
// (prompt), each with what to do.
func (s *Service) Create(ctx context.Context, c Change) (Explained, error) {
	now := s.wall.Now()
	job := domain.Job{ID: newID(), Enabled: true, CreatedAt: now}
	d := Definition{Anchor: now.Truncate(time.Second)}
	if c.Schedule == nil {
		return Explained{}, domain.E(domain.Invalid, nil, "a job needs a schedule: %s", schedule.Forms)
	}
	if c.Origin != nil {
		d.Origin = c.Origin
		d.Deliver = []string{DeliverOrigin}
	} else {
		d.Deliver = []string{DeliverLocal}
	}
	if c.Paused != nil && *c.Paused {
		job.Enabled, d.Paused, d.PausedAt = false, true, now
		if c.PausedReason != nil {
			d.PausedReason = *c.PausedReason
		}
	}
	if err := s.apply(ctx, &job, &d, c); err != nil {
		return Explained{}, err
	}
	if job.Enabled && job.NextAt.IsZero() {
		return Explained{}, domain.E(domain.Invalid, nil, "%q lies in the past, so the job would never fire; write a later time", d.Schedule)
	}
	return s.put(ctx, job, d, &c)
}

// put stores a job and explains it.
func (s *Service) put(ctx context.Context, job domain.Job, d Definition, c *Change) (Explained, error) {
	var err error
	if job.Definition, err = json.Marshal(d); err != nil {
		return Explained{}, domain.E(domain.Internal, err, "the job cannot be written")
	}
	if job, err = s.opt.Store.PutJob(ctx, job); err != nil {
		return Explained{}, err
	}
	s.opt.Changed()
	return s.explain(ctx, job, d, c != nil)
}

func (s *Service) explain(ctx context.Context, job domain.Job, d Definition, advise bool) (Explained, error) {
	e := Explained{}
	var err error
	if e.Job, err = s.view(ctx, job); err != nil {
		return e, err
	}
	if sch, err := d.ParseSchedule(s.opt.Zone()); err == nil {
		e.Words = sch.Words()
		e.Next = firings(sch, job, s.wall.Now(), 3)
	}
	if !advise {
		return e, nil
	}
	twins, err := s.twins(ctx)
	e.Advice = s.advice(d, twins[job.ID])
	return e, err
}

// firings are the next n instants of a job, beginning with the one that the
// ledger holds.
func firings(sch schedule.Schedule, job domain.Job, now time.Time, n int) []time.Time {
	var out []time.Time
	t := sch.Next(now)
	if !job.NextAt.IsZero() && (t.IsZero() || job.NextAt.Before(t)) {
		t = job.NextAt.In(sch.Zone())
	}
	for ; len(out) < n && !t.IsZero(); t = sch.Next(t) {
		out = append(out, t)
	}
	return out
}

// apply puts a change into a job and checks the whole.
func (s *Service) apply(ctx context.Context, job *domain.Job, d *Definition, c Change) error {
	assign(&d.Prompt, c.Prompt)
	assign(&d.Script, c.Script)
	assign(&d.NoAgent, c.NoAgent)
	assign(&d.Skills, c.Skills)
	for _, skill := range c.AddSkills {
		if !slices.Contains(d.Skills, skill) {
			d.Skills = append(d.Skills, skill)
		}
	}
	d.Skills = slices.DeleteFunc(d.Skills, func(v string) bool { return slices.Contains(c.RemoveSkills, v) })
	assign(&d.Model, c.Model)
	assign(&d.Provider, c.Provider)
	assign(&d.BaseURL, c.BaseURL)
	assign(&d.Workdir, c.Workdir)
	assign(&d.Toolsets, c.Toolsets)
	assign(&d.CatchUp, c.CatchUp)
	assign(&d.Overlap, c.Overlap)
	assign(&d.OnInterrupt, c.OnInterrupt)
	assign(&d.TimeoutSeconds, c.TimeoutSeconds)
	assign(&d.GraceMinutes, c.GraceMinutes)
	assign(&d.Archive, c.Archive)
	if c.Deliver != nil {
		d.Deliver = SplitTargets(*c.Deliver...)
	}
	if c.FailureDeliver != nil {
		d.FailureDeliver = SplitTargets(*c.FailureDeliver...)
	}
	if c.Repeat != nil {
		d.Repeat = Repeat{Times: max(0, *c.Repeat), Through: s.wall.Now()}
	}
	if c.ContextFrom != nil {
		d.ContextFrom = nil
		for _, ref := range *c.ContextFrom {
			other, err := s.Find(ctx, ref)
			if err != nil {
				return err
			}
			d.ContextFrom = append(d.ContextFrom, other.ID)
		}
	}
	assign(&job.Name, c.Name)
	if job.Name = strings.TrimSpace(cleanText(job.Name)); job.Name == "" {
		job.Name = defaultName(*d)
	}
	if err := s.check(job.Name, *d); err != nil {
		return err
	}
	return s.reschedule(job, d, c)
}

func assign[T any](to *T, from *T) {
	if from != nil {
		*to = *from
	}
}

// reschedule reads a changed schedule or zone and sets the next instant.
func (s *Service) reschedule(job *domain.Job, d *Definition, c Change) error {
	now := s.wall.Now()
	if c.Schedule == nil && c.Timezone == nil && job.Version > 0 {
		return nil
	}
	assign(&d.Timezone, c.Timezone)
	if c.Schedule != nil {
		d.Schedule, d.Anchor = *c.Schedule, now.Truncate(time.Second)
	}
	sch, err := d.ParseSchedule(s.opt.Zone())
	if err != nil {
		return err
	}
	d.Schedule = sch.Text()
	if !job.Enabled {
		return nil
	}
	// A time that has just passed is fired at once, not refused.
	if at := sch.At(); sch.Kind() == schedule.Once && !at.Before(now.Add(-minGrace)) {
		job.NextAt = at
		return nil
	}
	job.NextAt = sch.Next(now)
	return nil
}

// defaultName is the beginning of what the job does.
func defaultName(d Definition) string {
	text := d.Prompt
	if strings.TrimSpace(text) == "" && len(d.Skills) > 0 {
		text = d.Skills[0]
	}
	if strings.TrimSpace(text) == "" {
		text = d.Script
	}
	runes := []rune(strings.Join(strings.Fields(cleanText(text)), " "))
	return strings.TrimSpace(string(runes[:min(50, len(runes))]))
}

func newID() domain.JobID {
	var b [6]byte
	_, _ = rand.Read(b[:]) // crypto/rand never fails
	return domain.JobID(hex.EncodeToString(b[:]))
}

// Find resolves a reference: an exact id, else a name in any case. It fails
// with domain.NotFound, or domain.Conflict when several jobs have the name.
func (s *Service) Find(ctx context.Context, ref string) (domain.Job, error) {
	if validID(domain.JobID(ref)) {
		j, err := s.opt.Store.Job(ctx, domain.JobID(ref))
		if err == nil || !domain.IsCode(err, domain.NotFound) {
			return j, err
		}
	}
	ref = strings.TrimSpace(ref)
	f := ledger.JobFilter{Name: ref}
	if strings.IndexFunc(ref, func(r rune) bool { return r >= utf8.RuneSelf }) >= 0 {
		f.Name = "" // the ledger knows the cases of ASCII only
	}
	jobs, err := s.opt.Store.ListJobs(ctx, f)
	if err != nil {
		return domain.Job{}, err
	}
	var found []domain.Job
	for _, j := range jobs {
		if strings.EqualFold(j.Name, ref) {
			found = append(found, j)
		}
	}
	switch len(found) {
	case 1:
		return found[0], nil
	case 0:
		return domain.Job{}, domain.E(domain.NotFound, nil, "there is no job %q; `hermes cron list --all` shows what there is", ref)
	}
	var ids []string
	for _, j := range found {
		ids = append(ids, string(j.ID))
	}
	return domain.Job{}, domain.E(domain.Conflict, nil, "%d jobs are named %q; use an id: %s", len(found), ref, strings.Join(ids, ", "))
}

// change reads a job, lets f change it and writes it, again if it was changed
// in between.
func (s *Service) change(ctx context.Context, ref string, f func(*domain.Job, *Definition) error) (domain.Job, Definition, error) {
	var last error
	for range 8 {
		job, err := s.Find(ctx, ref)
		if err != nil {
			return job, Definition{}, err
		}
		d, err := DefinitionOf(job)
		if err != nil {
			return job, d, err
		}
		if err := f(&job, &d); err != nil {
			return job, d, err
		}
		if job.Definition, err = json.Marshal(d); err != nil {
			return job, d, domain.E(domain.Internal, err, "the job cannot be written")
		}
		job, last = s.opt.Store.PutJob(ctx, job)
		if last == nil {
			s.opt.Changed()
			return job, d, nil
		}
		if !domain.IsCode(last, domain.Conflict) {
			return job, d, last
		}
	}
	return domain.Job{}, Definition{}, last
}

// Edit changes a job. The errors are those of Create and Find.
func (s *Service) Edit(ctx context.Context, ref string, c Change) (Explained, error) {
	job, d, err := s.change(ctx, ref, func(j *domain.Job, d *Definition) error { return s.apply(ctx, j, d, c) })
	if err != nil {
		return Explained{}, err
	}
	return s.explain(ctx, job, d, true)
}

// Pause stops a job from firing until it is resumed.
func (s *Service) Pause(ctx context.Context, ref, reason string) (View, error) {
	job, _, err := s.change(ctx, ref, func(j *domain.Job, d *Definition) error {
		if !d.Paused {
			d.PausedAt = s.wall.Now()
		}
		j.Enabled, j.NextAt, d.Paused, d.PausedReason = false, time.Time{}, true, reason
		return nil
	})
	if err != nil {
		return View{}, err
	}
	return s.view(ctx, job)
}

// Resume lets a paused job fire again. at, where not "", is the new instant of
// a job that comes once. It fails with domain.Conflict when the job is over
// and no at is given.
func (s *Service) Resume(ctx context.Context, ref, at string) (Explained, error) {
	job, d, err := s.change(ctx, ref, func(j *domain.Job, d *Definition) error {
		now := s.wall.Now()
		if at != "" {
			d.Schedule, d.Anchor = at, now.Truncate(time.Second)
		}
		j.Enabled, d.Paused, d.PausedAt, d.PausedReason = true, false, time.Time{}, ""
		sch, err := d.ParseSchedule(s.opt.Zone())
		if err != nil {
			return err
		}
		if j.NextAt = sch.Next(now); j.NextAt.IsZero() {
			return domain.E(domain.Conflict, nil, "job '%s' is over: %s has passed. Give a new time with --at, or run it once with `hermes cron run %s`", j.Name, sch.Display(), j.ID)
		}
		if left, err := s.left(ctx, *j, *d); err != nil {
			return err
		} else if left == 0 {
			d.Repeat.Completed, d.Repeat.Through = 0, now
		}
		return nil
	})
	if err != nil {
		return Explained{}, err
	}
	return s.explain(ctx, job, d, false)
}

// left is how many firings a finite repeat still has; -1 for no bound.
func (s *Service) left(ctx context.Context, job domain.Job, d Definition) (int, error) {
	if d.Repeat.Times == 0 {
		return -1, nil
	}
	n, _, err := firedSince(ctx, s.opt.Store, job.ID, d.Repeat)
	return max(0, d.Repeat.Times-d.Repeat.Completed-n), err
}

// Remove deletes a job; its runs and outputs stay.
func (s *Service) Remove(ctx context.Context, ref string) (domain.Job, error) {
	job, err := s.Find(ctx, ref)
	if err != nil {
		return job, err
	}
	if err := s.opt.Store.DeleteJob(ctx, job.ID); err != nil {
		return job, err
	}
	s.opt.Changed()
	return job, nil
}

// Run asks for a run now, beside the schedule, also of a paused job. It is
// committed when Run returns; a scheduler performs it.
func (s *Service) Run(ctx context.Context, ref string) (domain.Job, domain.Run, error) {
	for range 8 {
		job, err := s.Find(ctx, ref)
		if err != nil {
			return job, domain.Run{}, err
		}
		at := s.wall.Now().Truncate(time.Millisecond) // finer than a schedule, so that runs in a row do not meet
		for range 10 {
			made, err := s.opt.Store.Fire(ctx, job.ID, job.NextAt, job.NextAt, []domain.Run{{Job: job.ID, Instant: at, Manual: true, State: domain.RunDue}})
			if domain.IsCode(err, domain.Conflict) {
				break // it fired meanwhile; read it again
			}
			if err != nil {
				return job, domain.Run{}, err
			}
			if len(made) == 1 {
				s.opt.Changed()
				return job, made[0], nil
			}
			at = at.Add(time.Millisecond) // that instant has a run
		}
	}
	return domain.Job{}, domain.Run{}, domain.E(domain.Conflict, nil, "the job kept changing while a run of it was asked for; try again")
}

// Next are the coming n firings of a job, in its zone.
func (s *Service) Next(ctx context.Context, ref string, n int) (View, []time.Time, error) {
	job, err := s.Find(ctx, ref)
	if err != nil {
		return View{}, nil, err
	}
	d, err := DefinitionOf(job)
	if err != nil {
		return View{}, nil, err
	}
	sch, err := d.ParseSchedule(s.opt.Zone())
	if err != nil {
		return View{}, nil, err
	}
	v, err := s.view(ctx, job)
	return v, firings(sch, job, s.wall.Now(), min(max(n, 1), 1000)), err
}

// Preview explains a schedule that no job has yet.
func (s *Service) Preview(text, zone string, n int) (string, []time.Time, error) {
	d := Definition{Schedule: text, Timezone: zone, Anchor: s.wall.Now().Truncate(time.Second)}
	sch, err := d.ParseSchedule(s.opt.Zone())
	if err != nil {
		return "", nil, err
	}
	return sch.Words(), firings(sch, domain.Job{}, s.wall.Now(), n), nil
}
