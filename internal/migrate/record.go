package migrate

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"hermes/internal/cron"
	"hermes/internal/domain"
	"hermes/internal/home"
	"hermes/internal/ledger"
	"hermes/internal/plain"
)

// RecordFile is where a profile keeps what was moved into it.
const RecordFile = "migration.json"

// maxRecord bounds that file, in bytes.
const maxRecord = 64 << 20

// record is what a run brings, written before it does, so that Undo knows it
// after a run that was cut off too. Sessions are remembered by the ledger.
type record struct {
	Report  Report                    `json:"report"`
	Files   map[string]string         `json:"files,omitempty"` // path in the new home → hex SHA-256
	People  map[string]time.Time      `json:"people,omitempty"`
	Jobs    map[domain.JobID]struct{} `json:"jobs,omitempty"`
	JobNote bool                      `json:"job_note,omitempty"` // the import was marked as done by us
	Origins []string                  `json:"origins,omitempty"`
}

func readRecord(p home.Profile) (r record, err error) {
	path := p.Path(RecordFile)
	f, err := plain.Open(path)
	if err == nil {
		defer f.Close()
		var text []byte
		if text, err = io.ReadAll(io.LimitReader(f, maxRecord)); err == nil {
			err = json.Unmarshal(text, &r)
		}
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return r, domain.E(domain.Unavailable, err, "%s, which tells what was moved in before, cannot be read; move it away if you do not want to undo that, and run this again", path)
	}
	r.Files, r.People, r.Jobs = orEmpty(r.Files), orEmpty(r.People), orEmpty(r.Jobs)
	return r, nil
}

func orEmpty[K comparable, V any](m map[K]V) map[K]V {
	if m == nil {
		m = map[K]V{}
	}
	return m
}

// save writes the record as it is now.
func (m *move) save() error {
	m.record.Report = m.report
	text, err := json.MarshalIndent(m.record, "", "  ")
	if err != nil {
		return domain.E(domain.Internal, err, "the record of the move cannot be written")
	}
	return home.WriteAtomic(m.To.Path(RecordFile), append(text, '\n'), 0o600)
}

// ReadReport gives the report of the last run for a profile. domain.NotFound
// when nothing was moved in.
func ReadReport(p home.Profile) (Report, error) {
	r, err := readRecord(p)
	if err == nil && r.Report.At.IsZero() {
		err = domain.E(domain.NotFound, nil, "nothing was moved into profile %s, so there is nothing to undo", p.Name)
	}
	return r.Report, err
}

// Undo takes away what runs brought into a profile: sessions that were not
// continued since, jobs that did not run or change since, people, and files that
// are still as they came. What stays is told. It can be repeated. Errors:
// NotFound, when nothing was moved in; Conflict, when a run goes on; what the
// ledger answers.
func Undo(ctx context.Context, o Options) (Report, error) {
	if o.Now == nil {
		o.Now = time.Now
	}
	before, err := ReadReport(o.To)
	if err != nil {
		return before, err
	}
	unlock, err := lock(o.To)
	if err != nil {
		return before, err
	}
	defer unlock()
	m := &move{Options: o, report: Report{At: o.Now().UTC(), Profile: o.To.Name, From: before.From, To: o.To.Home}}
	if m.record, err = readRecord(o.To); err != nil {
		return m.report, err
	}
	for _, step := range []func(context.Context) error{m.undoSessions, m.undoJobs, m.undoPeople, m.undoFiles} {
		if err := step(ctx); err != nil {
			return m.report, err
		}
	}
	m.report.Done = true
	if err := os.Remove(o.To.Path(RecordFile)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return m.report, domain.E(domain.Unavailable, err, "all was undone, but %s cannot be removed", RecordFile)
	}
	return m.report, nil
}

// Removed is what Undo took away.
const Removed State = "removed"

func (m *move) undone(what string, removed int64, stayed []string) {
	if removed > 0 {
		m.report.add(what, Removed, removed, "")
	}
	if n := len(stayed); n > 0 {
		const shown = 5
		more := ""
		if n > shown {
			more = fmt.Sprintf(" and %d more", n-shown)
		}
		m.report.add(what, Left, int64(n), "used or changed since they came: %s%s", strings.Join(stayed[:min(n, shown)], ", "), more)
	}
}

func (m *move) undoSessions(ctx context.Context) error {
	var removed int64
	var stayed []string
	for after := domain.SessionID(""); ; {
		list, err := m.Ledger.MovedSessions(ctx, after, 500)
		if err != nil {
			return err
		}
		if len(list) == 0 {
			break
		}
		for _, one := range list {
			after = one.Session
			isFile := strings.HasSuffix(one.Origin, fileSuffix)
			if !slices.Contains(m.record.Origins, one.Origin) && !(isFile && slices.Contains(m.record.Origins, filepath.Dir(one.Origin))) {
				continue
			}
			if isFile {
				if err := m.Ledger.ForgetOrigin(ctx, one.Origin); err != nil {
					return err
				}
			}
			switch err := m.Ledger.UndoMove(ctx, one.Session); {
			case domain.IsCode(err, domain.Conflict):
				stayed = append(stayed, string(one.Session))
			case err != nil && !domain.IsCode(err, domain.NotFound):
				return err
			default:
				removed++
			}
		}
	}
	for _, origin := range m.record.Origins {
		if err := m.Ledger.ForgetOrigin(ctx, origin); err != nil {
			return err
		}
	}
	m.undone("sessions", removed, stayed)
	return nil
}

func (m *move) undoJobs(ctx context.Context) error {
	var removed int64
	var stayed []string
	for _, id := range slices.Sorted(maps.Keys(m.record.Jobs)) {
		job, err := m.Ledger.Job(ctx, id)
		if domain.IsCode(err, domain.NotFound) {
			continue
		}
		if err != nil {
			return err
		}
		runs, err := m.Ledger.Runs(ctx, ledger.RunFilter{Job: id, Limit: 1})
		if err != nil {
			return err
		}
		if len(runs) > 0 || job.Version > 1 {
			stayed = append(stayed, string(id))
			continue
		}
		if err := m.Ledger.DeleteJob(ctx, id); err != nil && !domain.IsCode(err, domain.NotFound) {
			return err
		}
		removed++
	}
	m.undone("jobs", removed, stayed)
	if !m.record.JobNote || len(stayed) > 0 {
		return nil
	}
	return m.Ledger.SetNote(ctx, cron.ImportedNote, "")
}

func (m *move) undoPeople(ctx context.Context) error {
	all, err := m.Ledger.ListPairings(ctx, "")
	if err != nil {
		return err
	}
	var removed int64
	for _, p := range all {
		if at, ours := m.record.People[personKey(p.Platform, p.UserID)]; !ours || !at.Equal(p.ApprovedAt) {
			continue
		}
		if err := m.Ledger.DeletePairing(ctx, p.Platform, p.UserID); err != nil && !domain.IsCode(err, domain.NotFound) {
			return err
		}
		removed++
	}
	m.undone("people", removed, nil)
	return nil
}

func (m *move) undoFiles(ctx context.Context) error {
	var removed int64
	var stayed []string
	dirs := map[string]bool{}
	for _, rel := range slices.Sorted(maps.Keys(m.record.Files)) {
		if err := ctx.Err(); err != nil {
			return domain.E(domain.Cancelled, err, "stopped while files were taken away; run it again to complete it")
		}
		path := m.To.Path(filepath.FromSlash(rel))
		if !filepath.IsLocal(filepath.FromSlash(rel)) {
			continue // not written by us
		}
		sum, err := plain.Sum(path)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			continue
		case err != nil || sum != m.record.Files[rel]:
			stayed = append(stayed, rel)
			continue
		}
		if err := os.Remove(path); err != nil {
			return domain.E(domain.Unavailable, err, "%s cannot be removed", path)
		}
		removed++
		for d := filepath.Dir(filepath.FromSlash(rel)); d != "."; d = filepath.Dir(d) {
			dirs[d] = true
		}
	}
	// Folders that are empty now, the deepest first.
	for _, d := range slices.Backward(slices.Sorted(maps.Keys(dirs))) {
		_ = os.Remove(m.To.Path(d)) // one that holds something else stays
	}
	m.undone("files", removed, stayed)
	return nil
}
