package api

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strconv"
	"strings"
	"unicode/utf8"

	"hermes/internal/cron"
	"hermes/internal/domain"
)

// Jobs is what the API needs of the scheduled jobs; cron.Service is one. A
// reference is a job's id. Its methods are called concurrently; the codes of
// their errors decide the HTTP status as those of Gateway.Chat do.
type Jobs interface {
	// List gives the jobs of a page, and how many there are in all.
	List(ctx context.Context, p cron.Page) ([]cron.View, int, error)
	// Show is one job. domain.NotFound.
	Show(ctx context.Context, ref string) (cron.View, error)
	// Create makes a job. domain.Invalid, domain.Forbidden.
	Create(ctx context.Context, c cron.Change) (cron.Explained, error)
	// Edit changes a job. As Create, and domain.NotFound.
	Edit(ctx context.Context, ref string, c cron.Change) (cron.Explained, error)
	// Pause stops a job from firing. domain.NotFound.
	Pause(ctx context.Context, ref, reason string) (cron.View, error)
	// Resume lets it fire again. domain.NotFound, domain.Conflict when it is over.
	Resume(ctx context.Context, ref, at string) (cron.Explained, error)
	// Run asks for a run now; it is committed when Run returns. domain.NotFound.
	Run(ctx context.Context, ref string) (domain.Job, domain.Run, error)
	// Remove deletes a job. domain.NotFound.
	Remove(ctx context.Context, ref string) (domain.Job, error)
	// Board is what the schedule page shows.
	Board(ctx context.Context, limit, offset int) (cron.Board, error)
}

// Limits of what a client may give a job.
const (
	maxJobName   = 200  // characters
	maxJobPrompt = 5000 // characters
	maxJobBody   = 1 << 20
)

// jobFields is the body of a creation or a change; what the client left out is
// nil. Other keys are ignored.
type jobFields struct {
	Name     *string         `json:"name"`
	Schedule *string         `json:"schedule"`
	Prompt   *string         `json:"prompt"`
	Deliver  json.RawMessage `json:"deliver"` // a text or a list
	Skills   *[]string       `json:"skills"`
	Skill    *string         `json:"skill"`
	Repeat   json.RawMessage `json:"repeat"` // a whole number, or null for ever
	Enabled  *bool           `json:"enabled"`
}

// failJob answers in the shape of the jobs API: {"error": "text"}.
func failJob(w http.ResponseWriter, status int, text string) {
	writeJSON(w, status, map[string]string{"error": text})
}

// failJobError answers for an error of Jobs.
func failJobError(w http.ResponseWriter, err error) {
	if domain.IsCode(err, domain.NotFound) {
		failJob(w, http.StatusNotFound, "Job not found")
		return
	}
	status, text := http.StatusInternalServerError, domain.MessageOf(err)
	if m, ok := turnStatus[domain.CodeOf(err)]; ok {
		status = m.status
	}
	var known *domain.Error
	if !errors.As(err, &known) {
		text = "The gateway failed on this request; the log has the cause."
	}
	failJob(w, status, text)
}

// jobHandler is a handler that needs the jobs and, where the path has one, the
// id of a job.
func (s *Server) jobHandler(h func(w http.ResponseWriter, r *http.Request, jobs Jobs, id string)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if s.o.Jobs == nil {
			failJob(w, http.StatusNotImplemented, "Cron module not available")
			return
		}
		id := r.PathValue("id")
		if strings.Contains(r.Pattern, "{id}") && (len(id) != 12 || strings.Trim(id, "0123456789abcdef") != "") {
			failJob(w, http.StatusBadRequest, "Invalid job ID format")
			return
		}
		h(w, r, s.o.Jobs, id)
	}
}

// jobView serves a handler that answers with one job.
func (s *Server) jobView(act func(ctx context.Context, jobs Jobs, id string) (cron.View, error)) http.HandlerFunc {
	return s.jobHandler(func(w http.ResponseWriter, r *http.Request, jobs Jobs, id string) {
		v, err := act(r.Context(), jobs, id)
		if err != nil {
			failJobError(w, err)
			return
		}
		writeJSON(w, http.StatusOK, map[string]any{"job": v})
	})
}

// jobRoutes are the lines of the table about jobs.
func (s *Server) jobRoutes() []route {
	return []route{
		{"GET", "/api/jobs", keyed, s.jobHandler(s.getJobs)},
		{"POST", "/api/jobs", keyed, s.jobHandler(s.postJob)},
		{"GET", "/api/jobs/{id}", keyed, s.jobView(func(ctx context.Context, j Jobs, id string) (cron.View, error) { return j.Show(ctx, id) })},
		{"PATCH", "/api/jobs/{id}", keyed, s.jobHandler(s.patchJob)},
		{"DELETE", "/api/jobs/{id}", keyed, s.jobHandler(s.deleteJob)},
		{"POST", "/api/jobs/{id}/pause", keyed, s.jobView(func(ctx context.Context, j Jobs, id string) (cron.View, error) { return j.Pause(ctx, id, "") })},
		{"POST", "/api/jobs/{id}/resume", keyed, s.jobView(func(ctx context.Context, j Jobs, id string) (cron.View, error) {
			e, err := j.Resume(ctx, id, "")
			return e.Job, err
		})},
		{"POST", "/api/jobs/{id}/run", keyed, s.jobView(func(ctx context.Context, j Jobs, id string) (cron.View, error) {
			if _, _, err := j.Run(ctx, id); err != nil {
				return cron.View{}, err
			}
			return j.Show(ctx, id)
		})},
		{"GET", "/api/schedule", keyed, s.jobHandler(s.getSchedule)},
	}
}

// getJobs serves GET /api/jobs.
func (s *Server) getJobs(w http.ResponseWriter, r *http.Request, jobs Jobs, _ string) {
	q := r.URL.Query()
	all, _ := strconv.ParseBool(q.Get("include_disabled")) // anything else is no
	views, total, err := jobs.List(r.Context(), cron.Page{All: all, Limit: count(q.Get("limit")), Offset: count(q.Get("offset"))})
	if err != nil {
		failJobError(w, err)
		return
	}
	writeJSON(w, http.StatusOK, map[string]any{"jobs": views, "total": total})
}

// count reads a number of a query; 0 when there is none.
func count(s string) int {
	n, err := strconv.Atoi(s)
	if err != nil || n < 0 {
		return 0
	}
	return n
}

// getSchedule serves GET /api/schedule.
func (s *Server) getSchedule(w http.ResponseWriter, r *http.Request, jobs Jobs, _ string) {
	b, err := jobs.Board(r.Context(), count(r.URL.Query().Get("limit")), count(r.URL.Query().Get("offset")))
	if err != nil {
		failJobError(w, err)
		return
	}
	writeJSON(w, http.StatusOK, b)
}

// postJob serves POST /api/jobs.
func (s *Server) postJob(w http.ResponseWriter, r *http.Request, jobs Jobs, _ string) {
	f, ok := readJob(w, r)
	if !ok {
		return
	}
	switch {
	case f.Name == nil || strings.TrimSpace(*f.Name) == "":
		failJob(w, http.StatusBadRequest, "Name is required")
		return
	case f.Schedule == nil || strings.TrimSpace(*f.Schedule) == "":
		failJob(w, http.StatusBadRequest, "Schedule is required")
		return
	}
	c, problem := f.change()
	if problem != "" {
		failJob(w, http.StatusBadRequest, problem)
		return
	}
	if f.Enabled != nil && !*f.Enabled {
		paused := true
		c.Paused = &paused
	}
	made, err := jobs.Create(r.Context(), c)
	if err != nil {
		failJobError(w, err)
		return
	}
	writeJSON(w, http.StatusOK, map[string]any{"job": made.Job})
}

// patchJob serves PATCH /api/jobs/{id}.
func (s *Server) patchJob(w http.ResponseWriter, r *http.Request, jobs Jobs, id string) {
	f, ok := readJob(w, r)
	if !ok {
		return
	}
	if f.empty() {
		failJob(w, http.StatusBadRequest, "No valid fields to update")
		return
	}
	if f.Name != nil && strings.TrimSpace(*f.Name) == "" {
		failJob(w, http.StatusBadRequest, "Name is required")
		return
	}
	c, problem := f.change()
	if problem != "" {
		failJob(w, http.StatusBadRequest, problem)
		return
	}
	view, err := jobs.Show(r.Context(), id)
	if err == nil && !f.onlyEnabled() {
		var e cron.Explained
		e, err = jobs.Edit(r.Context(), id, c)
		view = e.Job
	}
	if err == nil && f.Enabled != nil && *f.Enabled != view.Enabled {
		if *f.Enabled {
			var e cron.Explained
			e, err = jobs.Resume(r.Context(), id, "")
			view = e.Job
		} else {
			view, err = jobs.Pause(r.Context(), id, "")
		}
	}
	if err != nil {
		failJobError(w, err)
		return
	}
	writeJSON(w, http.StatusOK, map[string]any{"job": view})
}

// deleteJob serves DELETE /api/jobs/{id}.
func (s *Server) deleteJob(w http.ResponseWriter, r *http.Request, jobs Jobs, id string) {
	if _, err := jobs.Remove(r.Context(), id); err != nil {
		failJobError(w, err)
		return
	}
	writeJSON(w, http.StatusOK, map[string]bool{"ok": true})
}

// readJob reads a body, and answers itself when it cannot be one.
func readJob(w http.ResponseWriter, r *http.Request) (f jobFields, ok bool) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxJobBody))
	bodyRead(w)
	var large *http.MaxBytesError
	if errors.As(err, &large) {
		failJob(w, http.StatusRequestEntityTooLarge, "The request body is larger than 1 MB")
		return f, false
	}
	if err != nil || json.Unmarshal(body, &f) != nil {
		failJob(w, http.StatusBadRequest, "Invalid JSON in request body")
		return f, false
	}
	return f, true
}

func (f jobFields) empty() bool { return f.onlyEnabled() && f.Enabled == nil }

func (f jobFields) onlyEnabled() bool {
	return f.Name == nil && f.Schedule == nil && f.Prompt == nil && f.Deliver == nil && f.Skills == nil && f.Skill == nil && f.Repeat == nil
}

// change words the fields for cron; problem says what is wrong with them.
func (f jobFields) change() (c cron.Change, problem string) {
	c = cron.Change{Name: f.Name, Schedule: f.Schedule, Prompt: f.Prompt, Skills: f.Skills}
	if f.Name != nil && utf8.RuneCountInString(*f.Name) > maxJobName {
		return c, "Name must be ≤ 200 characters"
	}
	if f.Prompt != nil && utf8.RuneCountInString(*f.Prompt) > maxJobPrompt {
		return c, "Prompt must be ≤ 5000 characters"
	}
	if f.Skill != nil && f.Skills == nil {
		skills := []string{}
		if *f.Skill != "" {
			skills = append(skills, *f.Skill)
		}
		c.Skills = &skills
	}
	if f.Repeat != nil {
		times := 0
		if string(f.Repeat) != "null" && (json.Unmarshal(f.Repeat, &times) != nil || times < 1) {
			return c, "Repeat must be a positive integer"
		}
		c.Repeat = &times
	}
	if f.Deliver != nil {
		var list []string
		var one string
		if json.Unmarshal(f.Deliver, &one) == nil {
			list = []string{one}
		} else if json.Unmarshal(f.Deliver, &list) != nil {
			return c, "Deliver must be a text such as telegram or origin, or a list of them"
		}
		if list = cron.SplitTargets(list...); len(list) == 0 {
			list = []string{cron.DeliverLocal}
		}
		c.Deliver = &list
	}
	return c, ""
}
