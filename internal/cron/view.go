package cron

import (
	"bytes"
	"context"
	"encoding/json"
	"maps"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"hermes/internal/cron/schedule"
	"hermes/internal/domain"
	"hermes/internal/ledger"
	"hermes/internal/plain"
)

// ScheduleView is a schedule in the shape of jobs.json.
type ScheduleView struct {
	Kind    string `json:"kind"`
	Minutes int    `json:"minutes,omitempty"`
	Expr    string `json:"expr,omitempty"`
	RunAt   string `json:"run_at,omitempty"`
	Display string `json:"display"`
}

// RepeatView is a repeat in the shape of jobs.json; Times null means for ever.
type RepeatView struct {
	Times     *int `json:"times"`
	Completed int  `json:"completed"`
}

// View is a job as people and other programs see it: the keys of jobs.json,
// and ours behind them.
type View struct {
	ID                domain.JobID   `json:"id"`
	Name              string         `json:"name"`
	Prompt            string         `json:"prompt"`
	Skills            []string       `json:"skills"`
	Skill             *string        `json:"skill"`
	Model             *string        `json:"model"`
	Provider          *string        `json:"provider"`
	BaseURL           *string        `json:"base_url"`
	Script            *string        `json:"script"`
	NoAgent           bool           `json:"no_agent"`
	ContextFrom       []domain.JobID `json:"context_from"`
	Schedule          ScheduleView   `json:"schedule"`
	ScheduleDisplay   string         `json:"schedule_display"`
	Repeat            RepeatView     `json:"repeat"`
	Enabled           bool           `json:"enabled"`
	State             string         `json:"state"` // scheduled, paused, completed, error, running
	PausedAt          *string        `json:"paused_at"`
	PausedReason      *string        `json:"paused_reason"`
	CreatedAt         string         `json:"created_at"`
	NextRunAt         *string        `json:"next_run_at"` // in the job's zone
	LastRunAt         *string        `json:"last_run_at"`
	LastStatus        *string        `json:"last_status"` // ok or error: of the run alone
	LastError         *string        `json:"last_error"`
	LastDeliveryError *string        `json:"last_delivery_error"`
	Deliver           string         `json:"deliver"`
	Origin            *Origin        `json:"origin"`
	Toolsets          []string       `json:"enabled_toolsets"`
	Workdir           *string        `json:"workdir"`

	Timezone       string   `json:"timezone,omitempty"`
	Zone           string   `json:"zone"` // in force
	ScheduleText   string   `json:"schedule_text"`
	ScheduleWords  string   `json:"schedule_words"`
	NextRunUTC     *string  `json:"next_run_utc"`
	LastRunState   string   `json:"last_run_state,omitempty"`     // ok, silent, failed, timed_out, interrupted
	LastDelivery   string   `json:"last_delivery,omitempty"`      // "", pending, sent, retrying, dead: of the messages alone
	LastDelivered  *string  `json:"last_delivered_at"`            // when the last of them arrived
	DeliveryLate   string   `json:"last_delivery_late,omitempty"` // by how much, where it was late
	FailureDeliver string   `json:"failure_deliver,omitempty"`
	CatchUp        string   `json:"catch_up"`
	Overlap        string   `json:"overlap"`
	OnInterrupt    string   `json:"on_interrupt"`
	TimeoutSeconds int      `json:"timeout_seconds,omitempty"`
	GraceMinutes   int      `json:"grace_minutes,omitempty"`
	Archive        string   `json:"archive,omitempty"`
	Duplicates     []string `json:"probable_duplicates,omitempty"`
}

func nullable(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

func stamp(t time.Time, zone *time.Location) *string {
	if t.IsZero() {
		return nil
	}
	return nullable(t.In(zone).Format(time.RFC3339))
}

// view shows a job with its last run and that run's delivery.
func (s *Service) view(ctx context.Context, job domain.Job) (View, error) {
	d, err := DefinitionOf(job)
	if err != nil {
		return View{ID: job.ID, Name: job.Name, State: "error", LastError: nullable(domain.MessageOf(err))}, nil
	}
	zone, err := d.zone(s.opt.Zone())
	if err != nil {
		zone = s.opt.Zone()
	}
	v := View{ID: job.ID, Name: job.Name, Prompt: d.Prompt, Skills: d.Skills, Model: nullable(d.Model), Provider: nullable(d.Provider),
		BaseURL: nullable(d.BaseURL), Script: nullable(d.Script), NoAgent: d.NoAgent, ContextFrom: d.ContextFrom,
		Enabled: job.Enabled, PausedAt: stamp(d.PausedAt, zone), PausedReason: nullable(d.PausedReason),
		CreatedAt: job.CreatedAt.In(zone).Format(time.RFC3339), NextRunAt: stamp(job.NextAt, zone), NextRunUTC: stamp(job.NextAt, time.UTC),
		Deliver: strings.Join(d.Deliver, ","), FailureDeliver: strings.Join(d.FailureDeliver, ","), Origin: d.Origin, Toolsets: d.Toolsets,
		Workdir: nullable(d.Workdir), Timezone: d.Timezone, Zone: zone.String(), ScheduleText: d.Schedule,
		CatchUp: orDefault(d.CatchUp, CatchUpOne), Overlap: orDefault(d.Overlap, OverlapSkip), OnInterrupt: orDefault(d.OnInterrupt, InterruptFail),
		TimeoutSeconds: d.TimeoutSeconds, GraceMinutes: d.GraceMinutes, Archive: d.Archive}
	if v.Skills == nil {
		v.Skills = []string{}
	} else if len(v.Skills) > 0 {
		v.Skill = &v.Skills[0]
	}
	if sch, err := d.ParseSchedule(s.opt.Zone()); err == nil {
		v.Schedule, v.ScheduleDisplay, v.ScheduleWords = scheduleView(sch), sch.Display(), sch.Words()
	} else {
		v.ScheduleDisplay, v.LastError = d.Schedule, nullable(domain.MessageOf(err))
	}
	if err := s.addRepeat(ctx, &v, job, d); err != nil {
		return v, err
	}
	return v, s.addLastRun(ctx, &v, job, d, zone)
}

func (s *Service) addRepeat(ctx context.Context, v *View, job domain.Job, d Definition) error {
	if v.Schedule.Kind == string(schedule.Once) {
		one := 1
		v.Repeat.Times = &one
		if job.NextAt.IsZero() && job.Enabled {
			v.Repeat.Completed = 1
		}
		return nil
	}
	if d.Repeat.Times == 0 {
		return nil
	}
	times := d.Repeat.Times
	left, err := s.left(ctx, job, d)
	v.Repeat = RepeatView{&times, times - max(left, 0)}
	return err
}

// addLastRun fills in the last run that did something, and the state.
func (s *Service) addLastRun(ctx context.Context, v *View, job domain.Job, d Definition, zone *time.Location) error {
	runs, err := s.opt.Store.Runs(ctx, ledger.RunFilter{Job: job.ID, Limit: 1, States: []domain.RunState{domain.RunRunning,
		domain.RunOK, domain.RunSilent, domain.RunFailed, domain.RunTimedOut, domain.RunInterrupted}})
	if err != nil {
		return err
	}
	switch {
	case d.Paused || !job.Enabled:
		v.State = "paused"
	case job.NextAt.IsZero():
		v.State = "completed"
	default:
		v.State = "scheduled"
	}
	if len(runs) == 0 {
		return nil
	}
	r := runs[0]
	v.LastRunState, v.LastDelivery = string(r.State), r.Delivery
	v.LastRunAt = stamp(r.StartedAt, zone)
	switch r.State {
	case domain.RunRunning:
		v.State = "running"
		return nil
	case domain.RunOK, domain.RunSilent:
		v.LastStatus, v.LastDeliveryError = nullable("ok"), nullable(r.Error)
	default:
		v.LastStatus, v.LastError = nullable("error"), nullable(r.Error)
		if job.NextAt.IsZero() && job.Enabled {
			v.State = "error"
		}
	}
	return s.addDelivery(ctx, v, r, zone)
}

// addDelivery says what became of the last run's messages.
func (s *Service) addDelivery(ctx context.Context, v *View, r domain.Run, zone *time.Location) error {
	seen, err := s.withDelivery(ctx, r)
	if err != nil {
		return err
	}
	v.LastDelivered = stamp(seen.DeliveredAt, zone)
	if seen.Late > 0 {
		v.DeliveryLate = seen.Late.Round(time.Second).String()
	}
	if seen.Reason != "" && v.LastDeliveryError == nil {
		v.LastDeliveryError = nullable(seen.Reason)
	}
	return nil
}

func scheduleView(s schedule.Schedule) ScheduleView {
	v := ScheduleView{Kind: string(s.Kind()), Display: s.Display(), Expr: s.Expr(), Minutes: int(s.Every() / time.Minute)}
	if at := s.At(); !at.IsZero() {
		v.RunAt = at.Format(time.RFC3339)
	}
	return v
}

// Show is one job.
func (s *Service) Show(ctx context.Context, ref string) (View, error) {
	job, err := s.Find(ctx, ref)
	if err != nil {
		return View{}, err
	}
	return s.view(ctx, job)
}

// Page selects a part of the list of jobs.
type Page struct {
	All    bool // paused and completed ones too
	Limit  int  // 0 means all
	Offset int
}

// maxCompared bounds the jobs among which a list marks duplicates; Lint has no
// bound.
const maxCompared = 2000

// List shows the jobs of a page by name, and says how many there are in all.
// Probable duplicates are marked, unless there are very many jobs.
func (s *Service) List(ctx context.Context, p Page) (views []View, total int, err error) {
	f := ledger.JobFilter{Scheduled: !p.All}
	if total, err = s.opt.Store.CountJobs(ctx, f); err != nil {
		return nil, 0, err
	}
	f.Limit, f.Offset = p.Limit, max(p.Offset, 0)
	jobs, err := s.opt.Store.ListJobs(ctx, f)
	if err != nil {
		return nil, 0, err
	}
	twins, err := s.twins(ctx)
	if err != nil {
		return nil, 0, err
	}
	views = []View{}
	for _, j := range jobs {
		v, err := s.view(ctx, j)
		if err != nil {
			return nil, 0, err
		}
		v.Duplicates = twins[j.ID]
		views = append(views, v)
	}
	return views, total, nil
}

// twins are the probable duplicates among all jobs.
func (s *Service) twins(ctx context.Context) (map[domain.JobID][]string, error) {
	n, err := s.opt.Store.CountJobs(ctx, ledger.JobFilter{})
	if err != nil || n > maxCompared {
		return nil, err
	}
	jobs, err := s.opt.Store.ListJobs(ctx, ledger.JobFilter{})
	return duplicates(jobs), err
}

// Export writes all jobs as jobs.json, with the keys of other programs that
// came with an import.
func (s *Service) Export(ctx context.Context) ([]byte, error) {
	jobs, err := s.opt.Store.ListJobs(ctx, ledger.JobFilter{})
	if err != nil {
		return nil, err
	}
	list := []json.RawMessage{}
	for _, j := range jobs {
		v, err := s.view(ctx, j)
		if err != nil {
			return nil, err
		}
		b, err := marshal(v)
		if err != nil {
			return nil, err
		}
		if d, err := DefinitionOf(j); err == nil {
			b = appendKeys(b, d.extra)
		}
		list = append(list, b)
	}
	all, err := marshal(struct {
		Jobs    []json.RawMessage `json:"jobs"`
		Updated string            `json:"updated_at"`
	}{list, s.wall.Now().In(s.opt.Zone()).Format(time.RFC3339)})
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	err = json.Indent(&out, all, "", "  ")
	out.WriteByte('\n')
	return out.Bytes(), err
}

// marshal is json.Marshal that leaves <, > and & as they are.
func marshal(v any) ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	err := enc.Encode(v)
	return bytes.TrimSpace(b.Bytes()), err
}

// appendKeys adds keys to the end of a JSON object that is not empty.
func appendKeys(object []byte, extra map[string]json.RawMessage) []byte {
	object = object[:len(object)-1]
	for _, k := range slices.Sorted(maps.Keys(extra)) {
		name, _ := json.Marshal(k) // a string always marshals
		object = append(append(append(object, ','), name...), ':')
		object = append(object, extra[k]...)
	}
	return append(object, '}')
}

// beat reads a heartbeat file: its instant, and the text behind it.
func (o outputs) beat(name string) (time.Time, string) {
	b, err := plain.Read(filepath.Join(o.dir, name))
	if err != nil {
		return time.Time{}, ""
	}
	first, rest, _ := strings.Cut(string(b), "\n")
	epoch, err := strconv.ParseFloat(strings.TrimSpace(first), 64)
	if err != nil {
		return time.Time{}, ""
	}
	return time.Unix(int64(epoch), 0), strings.TrimSpace(rest)
}
