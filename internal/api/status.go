package api

import (
	"net/http"
	"os"
	"time"

	"hermes/internal/health"
)

// Status is what the pages and /api/status show of the running gateway. The
// gateway fills it from evidence; no field ever holds a secret.
type Status struct {
	Profile   string        `json:"profile"`
	Version   string        `json:"version"`
	State     string        `json:"gateway_state"` // starting, running, draining, stopped, startup_failed
	Healthy   bool          `json:"healthy"`
	Summary   string        `json:"summary,omitempty"` // one sentence: what is wrong, or nothing
	Mode      string        `json:"mode,omitempty"`    // how restarts are handed over
	PID       int           `json:"pid"`
	StartedAt time.Time     `json:"started_at"`
	UpdatedAt time.Time     `json:"updated_at"`
	Model     string        `json:"model"` // "" when none is set
	Address   string        `json:"api_address,omitempty"`
	Active    int           `json:"active_agents"` // running turns
	Parts     []health.Part `json:"parts"`         // platforms are named platform.<name>
	Cron      *CronStatus   `json:"cron,omitempty"`
	Queues    QueueStatus   `json:"queues"`
	Ledger    LedgerStatus  `json:"ledger"`
	LastExit  *ExitStatus   `json:"last_exit,omitempty"`
}

// CronStatus is the scheduler.
type CronStatus struct {
	Jobs    int       `json:"jobs"`
	Enabled int       `json:"enabled"`
	NextAt  time.Time `json:"next_at,omitzero"`
	NextJob string    `json:"next_job,omitempty"`
	Failing []string  `json:"failing,omitempty"` // names of jobs whose last run or delivery failed
}

// QueueStatus counts what waits.
type QueueStatus struct {
	Inbound    int64 `json:"inbound"`    // received, not answered
	Turns      int64 `json:"turns"`      // queued
	Waiting    int64 `json:"waiting"`    // turns that wait for a person
	Deliveries int64 `json:"deliveries"` // to be sent
	Retrying   int64 `json:"retrying"`
	Dead       int64 `json:"dead"`
}

// LedgerStatus is the durable store.
type LedgerStatus struct {
	Kind     string `json:"kind"`
	Location string `json:"location,omitempty"`
	Bytes    int64  `json:"bytes"`
	Sessions int64  `json:"sessions"`
	Messages int64  `json:"messages"`
}

// ExitStatus is how the life before this one ended.
type ExitStatus struct {
	At     time.Time `json:"at"`
	Code   int       `json:"code"`
	Reason string    `json:"reason"`
	Clean  bool      `json:"clean"`
}

// getHealth serves GET /health.
func (s *Server) getHealth(w http.ResponseWriter, _ *http.Request) {
	writeBody(w, http.StatusOK, "application/json", []byte(`{"status":"ok","platform":"hermes-agent"}`))
}

// platformStates are the words of gateway_state.json.
var platformStates = map[health.State]string{
	health.Starting: "connecting", health.OK: "connected", health.Degraded: "retrying", health.Down: "fatal", health.Disabled: "paused",
}

type platformHealth struct {
	State        string    `json:"state"`
	ErrorCode    *string   `json:"error_code"`
	ErrorMessage *string   `json:"error_message"`
	UpdatedAt    time.Time `json:"updated_at"`
}

// getHealthDetailed serves GET /health/detailed.
func (s *Server) getHealthDetailed(w http.ResponseWriter, r *http.Request) {
	st, ok := s.status(w, r)
	if !ok {
		return
	}
	platforms := map[string]platformHealth{}
	for _, p := range st.Parts {
		name, ok := cutPlatform(p.Name)
		if !ok {
			continue
		}
		h := platformHealth{State: platformStates[p.State], UpdatedAt: p.Since}
		if p.Code != "" {
			h.ErrorCode = &p.Code
		}
		if p.Message != "" {
			h.ErrorMessage = &p.Message
		}
		platforms[name] = h
	}
	status := "ok"
	if !st.Healthy {
		status = "degraded"
	}
	var exit *string
	if st.LastExit != nil {
		exit = &st.LastExit.Reason
	}
	writeJSON(w, http.StatusOK, map[string]any{
		"status": status, "platform": "hermes-agent", "gateway_state": st.State, "platforms": platforms,
		"active_agents": st.Active, "exit_reason": exit, "updated_at": st.UpdatedAt.UTC().Format(time.RFC3339), "pid": st.PID,
	})
}

func cutPlatform(part string) (string, bool) {
	const prefix = "platform."
	if len(part) <= len(prefix) || part[:len(prefix)] != prefix {
		return "", false
	}
	return part[len(prefix):], true
}

// status asks the gateway, and answers itself when it cannot tell.
func (s *Server) status(w http.ResponseWriter, r *http.Request) (Status, bool) {
	st, err := s.o.Gateway.Status(r.Context())
	if err != nil {
		e := turnError(err, false)
		e.turn, e.final = nil, false
		s.fail(w, e)
		return Status{}, false
	}
	if st.PID == 0 {
		st.PID = os.Getpid()
	}
	if st.UpdatedAt.IsZero() {
		st.UpdatedAt = s.now()
	}
	if st.Address == "" {
		if a := s.Addr(); a != nil {
			st.Address = "http://" + a.String()
		}
	}
	return st, true
}

// getStatus serves GET /api/status.
func (s *Server) getStatus(w http.ResponseWriter, r *http.Request) {
	if st, ok := s.status(w, r); ok {
		writeJSON(w, http.StatusOK, st)
	}
}

// modelObject is an entry of /v1/models.
type modelObject struct {
	ID         string  `json:"id"`
	Object     string  `json:"object"`
	Created    int64   `json:"created"`
	OwnedBy    string  `json:"owned_by"`
	Permission []any   `json:"permission"`
	Root       string  `json:"root"`
	Parent     *string `json:"parent"`
}

func (s *Server) model() modelObject {
	name := s.modelName()
	return modelObject{ID: name, Object: "model", Created: s.since.Unix(), OwnedBy: "hermes", Permission: []any{}, Root: name}
}

// getModels serves GET /v1/models: the agent is the one model.
func (s *Server) getModels(w http.ResponseWriter, _ *http.Request) {
	writeJSON(w, http.StatusOK, map[string]any{"object": "list", "data": []modelObject{s.model()}})
}

// getModel serves GET /v1/models/{id}.
func (s *Server) getModel(w http.ResponseWriter, r *http.Request) {
	if r.PathValue("id") != s.modelName() {
		s.fail(w, &apiError{status: http.StatusNotFound, kind: "invalid_request_error", code: "model_not_found", param: "model",
			message: "The only model here is " + s.modelName() + "."})
		return
	}
	writeJSON(w, http.StatusOK, s.model())
}

// getCapabilities serves GET /v1/capabilities.
func (s *Server) getCapabilities(w http.ResponseWriter, _ *http.Request) {
	endpoints := map[string]any{}
	for _, rt := range s.routes {
		endpoints[rt.method+" "+rt.path] = map[string]any{"method": rt.method, "path": rt.path, "auth": rt.access == keyed && s.keyed}
	}
	writeJSON(w, http.StatusOK, map[string]any{
		"object":   "hermes.api_server.capabilities",
		"platform": "hermes-agent",
		"model":    s.modelName(),
		"auth":     map[string]any{"type": "bearer", "required": s.keyed},
		"runtime":  map[string]any{"mode": "server_agent", "tool_execution": "server"},
		"features": map[string]any{
			"chat_completions": true, "chat_completions_streaming": true, "tool_progress_events": true,
			"session_continuity_header": "X-Hermes-Session-Id", "session_key_header": "X-Hermes-Session-Key",
			"idempotency_keys": true, "image_input": true, "cors": len(s.origins) > 0,
			"jobs_api": s.o.Jobs != nil, "responses_api": false, "run_submission": false,
		},
		"endpoints": endpoints,
	})
}
