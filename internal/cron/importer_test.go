package cron

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestImportReadsEveryForm(t *testing.T) {
	job := `{"id":"aaaaaaaaaaaa","name":"n","prompt":"p","schedule":{"kind":"interval","minutes":30,"display":"every 30m"},"next_run_at":"2026-01-15T10:20:00+00:00"}`
	for name, text := range map[string]string{
		"object":             `{"jobs":[` + job + `],"updated_at":"2026-01-01T00:00:00+00:00"}`,
		"list":               `[` + job + `]`,
		"map":                `{"aaaaaaaaaaaa":` + strings.Replace(job, `"id":"aaaaaaaaaaaa",`, "", 1) + `,"updated_at":"x"}`,
		"jobs as map":        `{"jobs":{"aaaaaaaaaaaa":` + job + `}}`,
		"byte order mark":    "\ufeff[" + job + `]`,
		"control characters": `[` + strings.Replace(job, `"p"`, "\"p\x01\n\t\"", 1) + `]`,
		"job_id":             `[` + strings.Replace(job, `"id"`, `"job_id"`, 1) + `]`,
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			report, err := r.service.Import(t.Context(), []byte(text))
			if err != nil || len(report) != 1 || report[0].Outcome != "imported" {
				t.Fatalf("report %+v, error %v", report, err)
			}
			v, err := r.service.Show(t.Context(), "aaaaaaaaaaaa")
			if err != nil || *v.NextRunAt != "2026-01-15T10:20:00Z" || v.ScheduleDisplay != "every 30m" {
				t.Errorf("it became %+v (%v)", v, err)
			}
			report, err = r.service.Import(t.Context(), []byte(text))
			if err != nil || report[0].Outcome != "exists" {
				t.Errorf("the second time: %+v, %v", report, err)
			}
		})
	}
}

func TestImportKeepsWhatItDoesNotKnow(t *testing.T) {
	r := newRig(t)
	text := `[{"id":"aaaaaaaaaaaa","name":"n","prompt":"p","schedule":{"kind":"cron","expr":"0 9 * * *"},"deliver":["telegram","local"],
		"origin":{"platform":"telegram","chat_id":123,"chat_name":"me","thread_id":null},"repeat":{"times":5,"completed":2},"reasoning_effort":"high","failure_streak":3},
		{"id":"bbbbbbbbbbbb","prompt":"old","schedule":{"kind":"once","run_at":"2025-01-01T00:00:00+00:00"},"last_run_at":"2025-01-01T00:00:05+00:00"},
		{"id":"cccccccccccc","prompt":"q","schedule":"every 10m","enabled":false,"state":"paused","paused_reason":"holiday"},
		{"id":"nonsense","prompt":"q","schedule":{"kind":"cron","expr":"* * * *"}},
		"what", {"id":"dddddddddddd","prompt":"soon","schedule":{"kind":"once","run_at":"2026-01-15T09:59:30"},"next_run_at":"2026-01-15T09:59:30+00:00"}]`
	report, err := r.service.Import(t.Context(), []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, e := range report {
		got = append(got, e.Outcome)
	}
	if s := strings.Join(got, " "); s != "imported imported imported refused refused imported" {
		t.Fatalf("outcomes are %s: %+v", s, report)
	}
	out, err := r.service.Export(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var file struct {
		Jobs []struct {
			ID, State, Deliver string
			Next               *string `json:"next_run_at"`
			Repeat             struct{ Times, Completed int }
			Origin             *Origin
			Reason             string `json:"paused_reason"`
		}
	}
	if err := json.Unmarshal(out, &file); err != nil {
		t.Fatal(err)
	}
	for _, j := range file.Jobs {
		switch j.ID {
		case "aaaaaaaaaaaa":
			if j.Deliver != "telegram,local" || j.Repeat.Completed != 2 || j.Origin.ChatID != "123" || *j.Next != "2026-01-16T09:00:00Z" {
				t.Errorf("a became %+v", j)
			}
		case "bbbbbbbbbbbb":
			if j.State != "completed" || j.Next != nil {
				t.Errorf("b became %+v", j)
			}
		case "cccccccccccc":
			if j.State != "paused" || j.Reason != "holiday" {
				t.Errorf("c became %+v", j)
			}
		case "dddddddddddd":
			if j.Next == nil || *j.Next != "2026-01-15T09:59:30Z" {
				t.Errorf("d became %+v", j)
			}
		}
	}
	job, err := r.service.Find(t.Context(), "aaaaaaaaaaaa")
	if err != nil || !strings.Contains(string(job.Definition), `"reasoning_effort":"high"`) {
		t.Errorf("an unknown key was lost: %s (%v)", job.Definition, err)
	}
	if _, err := r.service.Edit(t.Context(), "aaaaaaaaaaaa", Change{Prompt: ptr("other")}); err != nil {
		t.Fatal(err)
	}
	if job, err = r.service.Find(t.Context(), "n"); err != nil || !strings.Contains(string(job.Definition), `"failure_streak":3`) {
		t.Errorf("an edit lost an unknown key: %s (%v)", job.Definition, err)
	}
	if v, err := r.service.Export(t.Context()); err != nil || !strings.Contains(string(v), `"reasoning_effort": "high"`) {
		t.Errorf("the export lost an unknown key (%v)", err)
	}
}

func TestImportOnce(t *testing.T) {
	r := newRig(t)
	path := filepath.Join(r.home, "cron", "jobs.json")
	if report, err := r.service.ImportOnce(t.Context(), r.store, path); report != nil || err != nil {
		t.Fatalf("with no file: %v, %v", report, err)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	text := []byte(`[{"id":"aaaaaaaaaaaa","prompt":"p","schedule":"every 10m"}]`)
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	if report, err := r.service.ImportOnce(t.Context(), r.store, path); len(report) != 1 || err != nil {
		t.Fatalf("the first time: %v, %v", report, err)
	}
	if _, err := r.service.Remove(t.Context(), "aaaaaaaaaaaa"); err != nil {
		t.Fatal(err)
	}
	if report, err := r.service.ImportOnce(t.Context(), r.store, path); report != nil || err != nil {
		t.Errorf("the second time it brought a removed job back: %v, %v", report, err)
	}
	if after, err := os.ReadFile(path); err != nil || string(after) != string(text) {
		t.Error("the original was changed")
	}
}

func FuzzImport(f *testing.F) {
	f.Add([]byte(`{"jobs":[{"id":"aaaaaaaaaaaa","schedule":{"kind":"interval","minutes":1e9}}]}`))
	f.Add([]byte("[{\"prompt\":\"a\x00\"}]"))
	f.Fuzz(func(t *testing.T, data []byte) {
		entries, err := readJobs(data)
		if err != nil {
			return
		}
		s := &Service{opt: ServiceOptions{Zone: func() *time.Location { return time.UTC }}, wall: fixedWall{}}
		for _, e := range entries {
			if e != nil {
				_, _, _ = s.fromLegacy(e, &Imported{})
			}
		}
	})
}

// An entry without a usable id is known again, so that it is imported once.
func TestImportTwice(t *testing.T) {
	const text = `{"jobs": [{"id": "odd one", "name": "a", "prompt": "p", "schedule": "every 10m"}, {"name": "b", "prompt": "p", "schedule": "every 10m"}]}`
	s := newRig(t).service
	for _, want := range []string{"imported", "exists"} {
		report, err := s.Import(t.Context(), []byte(text))
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range report {
			if r.Outcome != want {
				t.Errorf("%s: %s, want %s: %v", r.Name, r.Outcome, want, r.Notes)
			}
		}
	}
}
