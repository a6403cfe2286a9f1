package migrate

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"maps"
	"math"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"hermes/internal/cron"
	"hermes/internal/domain"
	"hermes/internal/ledger"
	"hermes/internal/plain"
)

// maxStore bounds the old system's small stores, in bytes.
const maxStore = 64 << 20

func readStore(path string) ([]byte, error) {
	f, err := plain.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxStore+1))
	if err == nil && len(text) > maxStore {
		err = errors.New("it has more than 64 MiB")
	}
	return bytes.TrimPrefix(text, []byte("\xef\xbb\xbf")), err
}

func personKey(p domain.Platform, user string) string { return string(p) + "/" + user }

// people brings over who may talk. Codes that wait for approval are left: they
// are worth nothing after an hour.
func (m *move) people(ctx context.Context) error {
	known := map[string]bool{}
	if m.Ledger != nil {
		all, err := m.Ledger.ListPairings(ctx, "")
		if err != nil {
			return err
		}
		for _, p := range all {
			known[personKey(p.Platform, p.UserID)] = !p.ApprovedAt.IsZero()
		}
	}
	var add []ledger.Pairing
	var there int64
	for _, dir := range []string{"platforms/pairing", "pairing"} {
		names, _ := filepath.Glob(filepath.Join(m.From.Home, dir, "*-approved.json"))
		slices.Sort(names)
		for _, path := range names {
			list, err := readPeople(path, m.Now())
			if err != nil {
				m.report.add(filepath.Join(dir, filepath.Base(path)), Failed, 0, "%s", unreadable(path, err))
				continue
			}
			for _, p := range list {
				key := personKey(p.Platform, p.UserID)
				if known[key] {
					if _, ours := m.record.People[key]; !ours {
						there++
					}
					continue
				}
				known[key] = true
				add = append(add, p)
				if !m.DryRun {
					m.record.People[key] = p.ApprovedAt
				}
			}
		}
	}
	if !m.DryRun && len(add) > 0 {
		if err := m.save(); err != nil {
			return err
		}
		for _, p := range add {
			if err := m.Ledger.PutPairing(ctx, p); err != nil {
				return err
			}
		}
	}
	if n := int64(max(len(add), len(m.record.People))); n > 0 {
		m.report.add("people who may talk", Taken, n, "")
	}
	if there > 0 {
		m.report.add("people who may talk", Left, there, "they may already")
	}
	return nil
}

// readPeople reads <platform>-approved.json: a map of user ids.
func readPeople(path string, now time.Time) (out []ledger.Pairing, err error) {
	text, err := readStore(path)
	if err != nil {
		return nil, err
	}
	var users map[string]struct {
		Name     string  `json:"user_name"`
		Approved float64 `json:"approved_at"` // seconds since 1970
	}
	if err := json.Unmarshal(text, &users); err != nil {
		return nil, err
	}
	platform := domain.Platform(strings.TrimSuffix(filepath.Base(path), "-approved.json"))
	for _, id := range slices.Sorted(maps.Keys(users)) {
		at := epoch(users[id].Approved)
		if at.IsZero() {
			at = now.Truncate(time.Millisecond)
		}
		out = append(out, ledger.Pairing{Platform: platform, UserID: id, UserName: users[id].Name, RequestedAt: at.UTC(), ApprovedAt: at.UTC()})
	}
	return out, nil
}

// epoch is an instant that is written as seconds since 1970; zero for one that
// is none.
func epoch(seconds float64) time.Time {
	if !(seconds > 0 && seconds < 1e11) {
		return time.Time{}
	}
	whole, part := math.Modf(seconds)
	return time.Unix(int64(whole), int64(part*1e9)).Truncate(time.Millisecond).UTC()
}

// jobs brings over jobs.json.
func (m *move) jobs(ctx context.Context) error {
	path := filepath.Join(m.From.Home, "cron", "jobs.json")
	text, err := readStore(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		m.report.add("cron/jobs.json", Failed, 0, "%s", unreadable(path, err))
		return nil
	}
	// What would come is noted first: jobs whose ids are free.
	dry, err := m.importJobs(ctx, text, &tryJobs{Store: m.Ledger})
	if err != nil {
		m.report.add("cron/jobs.json", Failed, 0, "%s", domain.MessageOf(err))
		return nil
	}
	if m.DryRun {
		m.tellJobs(dry)
		return nil
	}
	for _, j := range dry {
		if j.Outcome == "imported" {
			m.record.Jobs[j.ID] = struct{}{}
		}
	}
	before, err := m.Ledger.Note(ctx, cron.ImportedNote)
	if err != nil {
		return err
	}
	m.record.JobNote = m.record.JobNote || before == ""
	if err := m.save(); err != nil {
		return err
	}
	report, err := m.importJobs(ctx, text, m.Ledger)
	if err != nil {
		return err
	}
	m.tellJobs(report)
	return m.Ledger.SetNote(ctx, cron.ImportedNote, m.Now().UTC().Format(time.RFC3339))
}

func (m *move) importJobs(ctx context.Context, text []byte, store cron.Store) ([]cron.Imported, error) {
	s, err := m.Jobs(store)
	if err != nil {
		return nil, err
	}
	return s.Import(ctx, text)
}

func (m *move) tellJobs(list []cron.Imported) {
	var taken, there int64
	for _, j := range list {
		_, ours := m.record.Jobs[j.ID]
		switch {
		case j.Outcome == "imported", j.Outcome == "exists" && ours:
			taken++
			if len(j.Notes) > 0 {
				m.report.add("job "+string(j.ID)+" "+j.Name, Taken, 1, "%s", strings.Join(j.Notes, "; "))
			}
		case j.Outcome == "exists":
			there++
		default:
			m.report.add("job "+string(j.ID)+" "+j.Name, Failed, 1, "%s", strings.Join(j.Notes, "; "))
		}
	}
	if taken > 0 {
		m.report.add("jobs", Taken, taken, "")
	}
	if there > 0 {
		m.report.add("jobs", Left, there, "the new home has jobs with these ids")
	}
}

// tryJobs tells what an import would do, without doing it.
type tryJobs struct {
	cron.Store // nil where there is no ledger yet
	seen       map[domain.JobID]bool
}

// PutJob refuses an id that is taken.
func (t *tryJobs) PutJob(ctx context.Context, j domain.Job) (domain.Job, error) {
	taken := domain.E(domain.Conflict, nil, "job %s exists", j.ID)
	if t.seen[j.ID] {
		return j, taken
	}
	if t.Store != nil {
		if _, err := t.Job(ctx, j.ID); err == nil {
			return j, taken
		} else if !domain.IsCode(err, domain.NotFound) {
			return j, err
		}
	}
	if t.seen == nil {
		t.seen = map[domain.JobID]bool{}
	}
	t.seen[j.ID] = true
	return j, nil
}
