package cron

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strconv"
	"strings"
	"time"

	"hermes/internal/cron/schedule"
	"hermes/internal/domain"
	"hermes/internal/plain"
)

// Imported is what became of one entry of jobs.json.
type Imported struct {
	ID      domain.JobID `json:"id"`
	Name    string       `json:"name"`
	Outcome string       `json:"outcome"` // imported, exists, refused
	Notes   []string     `json:"notes,omitempty"`
}

// MaxJobsFile bounds a jobs.json, in bytes.
const MaxJobsFile = 64 << 20

// ImportFile imports the jobs.json of the older system; the file is only read.
// It fails with domain.NotFound, or domain.Invalid when the file is no
// jobs.json. An entry that cannot be imported is refused in the report and
// does not hinder the others.
func (s *Service) ImportFile(ctx context.Context, path string) ([]Imported, error) {
	b, err := plain.ReadMost(path, MaxJobsFile)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, domain.E(domain.NotFound, nil, "there is no file %s", path)
	case errors.Is(err, plain.ErrTooLarge):
		return nil, domain.E(domain.TooLarge, err, "%s is far larger than any jobs.json", path)
	case err != nil:
		return nil, domain.E(domain.Invalid, err, "%s cannot be read", path)
	}
	return s.Import(ctx, b)
}

// Import imports jobs.json. Jobs whose id exists are left alone, so that it
// can be repeated.
func (s *Service) Import(ctx context.Context, data []byte) ([]Imported, error) {
	entries, err := readJobs(data)
	if err != nil {
		return nil, err
	}
	report := []Imported{}
	for _, e := range entries {
		r := s.importOne(ctx, e)
		report = append(report, r)
		if err := ctx.Err(); err != nil {
			return report, err
		}
	}
	s.opt.Changed()
	return report, nil
}

// legacy is an entry of jobs.json; its values are of any kind, as hands and
// programs of many versions wrote them.
type legacy map[string]any

// readJobs reads {"jobs": [...]}, a bare list, or either with a map by id in
// its place; with a byte order mark; with control characters inside strings.
func readJobs(data []byte) ([]legacy, error) {
	data = bytes.TrimPrefix(data, []byte("\xef\xbb\xbf"))
	var top any
	if err := decode(data, &top); err != nil {
		if decode(escapeControls(data), &top) != nil {
			return nil, domain.E(domain.Invalid, err, "this is no jobs.json: it is not JSON")
		}
	}
	if m, ok := top.(map[string]any); ok {
		if jobs, ok := m["jobs"]; ok {
			top = jobs
		}
	}
	var out []legacy
	switch list := top.(type) {
	case []any:
		for _, v := range list {
			m, _ := v.(map[string]any)
			out = append(out, m) // nil for what is no object: reported as such
		}
	case map[string]any:
		for id, v := range list {
			m, ok := v.(map[string]any)
			if !ok {
				continue // a key beside the jobs, e.g. updated_at
			}
			if _, ok := m["id"]; !ok {
				m["id"] = id
			}
			out = append(out, m)
		}
		slices.SortFunc(out, func(a, b legacy) int { return strings.Compare(a.text("id"), b.text("id")) })
	default:
		return nil, domain.E(domain.Invalid, nil, "this is no jobs.json: it holds neither a list nor a map of jobs")
	}
	return out, nil
}

func decode(data []byte, v any) error {
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.UseNumber()
	return dec.Decode(v)
}

// escapeControls escapes raw control characters inside JSON strings.
func escapeControls(data []byte) []byte {
	var out bytes.Buffer
	inside, escaped := false, false
	for _, c := range data {
		switch {
		case inside && c < 0x20:
			fmt.Fprintf(&out, `\u%04x`, c)
			escaped = false
			continue
		case escaped:
			escaped = false
		case inside && c == '\\':
			escaped = true
		case c == '"':
			inside = !inside
		}
		out.WriteByte(c)
	}
	return out.Bytes()
}

func (l legacy) text(key string) string {
	switch v := l[key].(type) {
	case string:
		return v
	case json.Number:
		return v.String()
	}
	return ""
}

func (l legacy) list(key string) []string {
	var out []string
	switch v := l[key].(type) {
	case string:
		out = SplitTargets(v)
	case []any:
		for _, item := range v {
			if s, ok := item.(string); ok && strings.TrimSpace(s) != "" {
				out = append(out, strings.TrimSpace(s))
			}
		}
	}
	return out
}

func (l legacy) flag(key string, missing bool) bool {
	if v, ok := l[key].(bool); ok {
		return v
	}
	return missing
}

func (l legacy) time(key string, zone *time.Location) time.Time {
	text := l.text(key)
	for _, layout := range []string{time.RFC3339Nano, "2006-01-02T15:04:05Z0700"} {
		if t, err := time.Parse(layout, text); err == nil {
			return t
		}
	}
	for _, layout := range []string{"2006-01-02T15:04:05", "2006-01-02T15:04", "2006-01-02 15:04:05"} {
		if t, err := time.ParseInLocation(layout, text, zone); err == nil {
			return t
		}
	}
	return time.Time{}
}

func (l legacy) number(v any) (int, bool) {
	switch n := v.(type) {
	case json.Number:
		f, err := n.Float64()
		return int(f), err == nil && f > -1e9 && f < 1e9
	case string:
		i, err := strconv.Atoi(strings.TrimSpace(n))
		return i, err == nil
	}
	return 0, false
}

// importOne turns one entry into a job.
func (s *Service) importOne(ctx context.Context, l legacy) Imported {
	if l == nil {
		return Imported{Outcome: "refused", Notes: []string{"the entry is no object"}}
	}
	id := domain.JobID(strings.ToLower(orDefault(l.text("id"), l.text("job_id"))))
	r := Imported{ID: id, Name: l.text("name")}
	if !validID(id) {
		id = idOf(l)
		r.Notes = append(r.Notes, fmt.Sprintf("its id %q has not the form of one, so it got %s", r.ID, id))
		r.ID = id
	}
	job, d, err := s.fromLegacy(l, &r)
	if err == nil {
		job.ID = id
		if job.Definition, err = json.Marshal(d); err == nil {
			_, err = s.opt.Store.PutJob(ctx, job)
		}
	}
	switch {
	case err == nil:
		r.Outcome, r.Name = "imported", job.Name
		if err := s.check(job.Name, d); err != nil {
			r.Notes = append(r.Notes, "it will fail as it is: "+domain.MessageOf(err))
		}
	case domain.IsCode(err, domain.Conflict):
		r.Outcome = "exists"
	default:
		r.Outcome = "refused"
		r.Notes = append(r.Notes, domain.MessageOf(err))
	}
	return r
}

// idOf makes an id for an entry without one from what it says, so that the same
// entry gets the same id, and is imported once, however often it is read.
func idOf(l legacy) domain.JobID {
	text, err := json.Marshal(l) // its keys are sorted
	if err != nil {
		return newID()
	}
	sum := sha256.Sum256(text)
	return domain.JobID(hex.EncodeToString(sum[:6]))
}

// fromLegacy reads the fields of an entry; those that are not known are kept.
func (s *Service) fromLegacy(l legacy, r *Imported) (domain.Job, Definition, error) {
	now, zone := s.wall.Now(), s.opt.Zone()
	d := Definition{Prompt: cleanText(l.text("prompt")), Skills: l.list("skills"), Model: l.text("model"), Provider: l.text("provider"),
		BaseURL: l.text("base_url"), Script: l.text("script"), NoAgent: l.flag("no_agent", false), Workdir: l.text("workdir"),
		Toolsets: l.list("enabled_toolsets"), Deliver: SplitTargets(l.list("deliver")...), FailureDeliver: SplitTargets(l.list("failure_deliver")...),
		Timezone: l.text("timezone"), CatchUp: l.text("catch_up"), Overlap: l.text("overlap"), OnInterrupt: l.text("on_interrupt"), Archive: l.text("archive")}
	d.TimeoutSeconds, _ = l.number(l["timeout_seconds"])
	d.GraceMinutes, _ = l.number(l["grace_minutes"])
	if skill := l.text("skill"); skill != "" && !slices.Contains(d.Skills, skill) {
		d.Skills = append([]string{skill}, d.Skills...)
	}
	for _, other := range l.list("context_from") {
		d.ContextFrom = append(d.ContextFrom, domain.JobID(other))
	}
	if o, ok := l["origin"].(map[string]any); ok {
		from := legacy(o)
		d.Origin = &Origin{Platform: domain.Platform(from.text("platform")), ChatID: from.text("chat_id"), ChatName: from.text("chat_name"), ThreadID: from.text("thread_id")}
	}
	if len(d.Deliver) == 0 {
		d.Deliver = []string{DeliverLocal}
		if d.Origin != nil {
			d.Deliver = []string{DeliverOrigin}
		}
	}
	job := domain.Job{Name: strings.TrimSpace(cleanText(l.text("name"))), Enabled: l.flag("enabled", true), CreatedAt: l.time("created_at", zone)}
	if job.Name == "" {
		job.Name = defaultName(d)
	}
	if job.CreatedAt.IsZero() {
		job.CreatedAt = now
	}
	if d.Paused = l.text("state") == "paused" || !job.Enabled && l.text("state") != "completed"; d.Paused {
		job.Enabled, d.PausedAt, d.PausedReason = false, l.time("paused_at", zone), l.text("paused_reason")
	}
	if repeat, ok := l["repeat"].(map[string]any); ok {
		d.Repeat.Times, _ = l.number(repeat["times"])
		d.Repeat.Completed, _ = l.number(repeat["completed"])
		d.Repeat.Times, d.Repeat.Completed = max(0, d.Repeat.Times), max(0, d.Repeat.Completed)
	}
	d.Repeat.Through = now
	d.extra = l.unknown()
	return job, d, s.importSchedule(l, &job, &d, r)
}

// importSchedule reads a schedule object or text, and decides what is next.
func (s *Service) importSchedule(l legacy, job *domain.Job, d *Definition, r *Imported) error {
	now, zone := s.wall.Now(), s.opt.Zone()
	d.Anchor = now.Truncate(time.Second)
	next := l.time("next_run_at", zone)
	obj, _ := l["schedule"].(map[string]any)
	from := legacy(obj)
	switch minutes, ok := l.number(from["minutes"]); {
	case obj == nil:
		d.Schedule = orDefault(l.text("schedule"), l.text("schedule_display"))
	case from.text("kind") == "interval" && ok && minutes > 0:
		d.Schedule = "every " + strconv.Itoa(minutes) + "m"
		if !next.IsZero() {
			d.Anchor = next.Add(-time.Duration(minutes) * time.Minute)
		} else if last := l.time("last_run_at", zone); !last.IsZero() {
			d.Anchor = last
		}
	case from.text("kind") == "cron":
		d.Schedule = from.text("expr")
	case from.text("kind") == "once":
		d.Schedule = from.text("run_at")
		d.Repeat = Repeat{}
	default:
		d.Schedule = from.text("display")
	}
	sch, err := d.ParseSchedule(zone)
	if err != nil {
		return err
	}
	if !job.Enabled {
		return nil
	}
	ran := sch.Kind() == schedule.Once && l.text("last_run_at") != ""
	switch grace := d.grace(sch, now, 0); {
	case ran || l.text("state") == "completed":
		r.Notes = append(r.Notes, "it is over, and kept as completed")
	case !next.IsZero() && next.After(now.Add(-grace)) && !next.After(sch.Next(now)):
		job.NextAt = next
	case sch.Kind() == schedule.Once && sch.At().After(now.Add(-grace)):
		job.NextAt = sch.At()
	default:
		job.NextAt = sch.Next(now)
		if !next.IsZero() && !next.After(now) {
			r.Notes = append(r.Notes, "it was due at "+next.Format(time.RFC3339)+", too long ago to make up for")
		}
	}
	return nil
}

// unknown collects the keys that neither system state nor a Definition holds.
func (l legacy) unknown() map[string]json.RawMessage {
	known := append(slices.Clone(definitionKeys()), "id", "job_id", "name", "skill", "no_agent", "schedule_display", "enabled", "state",
		"created_at", "next_run_at", "last_run_at", "last_status", "last_error", "last_delivery_error", "updated_at",
		"zone", "schedule_text", "schedule_words", "next_run_utc", "last_run_state", "last_delivery", "probable_duplicates")
	out := map[string]json.RawMessage{}
	for k, v := range l {
		if slices.Contains(known, k) {
			continue
		}
		if b, err := json.Marshal(v); err == nil {
			out[k] = b
		}
	}
	return out
}

// ImportedNote is the note that says when the older system's jobs were imported.
const ImportedNote = "cron.jobs_json_imported"

// ImportOnce imports the older system's jobs.json of a profile, the first time
// that it is called for the profile. The report is nil when there was nothing
// to import, or when it was done before.
func (s *Service) ImportOnce(ctx context.Context, notes Notes, path string) ([]Imported, error) {
	done, err := notes.Note(ctx, ImportedNote)
	if err != nil || done != "" {
		return nil, err
	}
	report, err := s.ImportFile(ctx, path)
	if domain.IsCode(err, domain.NotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return report, notes.SetNote(ctx, ImportedNote, s.wall.Now().UTC().Format(time.RFC3339))
}

// Notes is the part of the ledger that remembers that the import was done.
type Notes interface {
	Note(ctx context.Context, key string) (string, error)
	SetNote(ctx context.Context, key, value string) error
}
