package api

import (
	"encoding/json"
	"sort"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"hermes/internal/domain"
	"hermes/internal/health"
)

func TestDocumentMatchesRoutes(t *testing.T) {
	r := newRig(t, &fakeGateway{}, nil)
	_, body := r.call(t, "GET", "/openapi.json", "")
	var doc struct {
		OpenAPI string
		Paths   map[string]map[string]struct {
			Security  *[]any
			Responses map[string]any
			Tags      []string
		}
	}
	if err := json.Unmarshal([]byte(body), &doc); err != nil {
		t.Fatal(err)
	}
	var described, served []string
	for path, methods := range doc.Paths {
		for method, op := range methods {
			if op.Tags[0] == "chat" {
				continue // mounted by the web chat, and tested there
			}
			line := strings.ToUpper(method) + " " + path
			if op.Security != nil && len(*op.Security) == 0 {
				line += " open"
			}
			if op.Responses["default"] == nil {
				t.Errorf("%s describes no failure", line)
			}
			described = append(described, line)
		}
	}
	for _, rt := range r.routes {
		line := rt.method + " " + rt.path
		if rt.access == open {
			line += " open"
		}
		served = append(served, line)
	}
	sort.Strings(described)
	sort.Strings(served)
	if diff := cmp.Diff(served, described); diff != "" {
		t.Error(diff)
	}
}

func TestDocuments(t *testing.T) {
	g := &fakeGateway{status: func() (Status, error) {
		return Status{Profile: "liam", State: "running", PID: 12, Active: 3, Healthy: false,
			Parts:  []health.Part{{Name: "platform.telegram", State: health.Down, Code: "bad_token", Message: "The token is refused."}, {Name: "cron", State: health.OK}},
			Queues: QueueStatus{Dead: 2}, LastExit: &ExitStatus{Reason: "update"}}, nil
	}}
	r := newRig(t, g, func(o *Options) { o.Profile = "liam" })
	for path, want := range map[string][]string{
		"/health":          {`{"status":"ok","platform":"hermes-agent"}`},
		"/v1/health":       {`{"status":"ok","platform":"hermes-agent"}`},
		"/health/detailed": {`"status":"degraded"`, `"gateway_state":"running"`, `"active_agents":3`, `"exit_reason":"update"`, `"pid":12`, `"telegram":{"state":"fatal","error_code":"bad_token","error_message":"The token is refused."`},
		"/v1/models":       {`"object":"list"`, `"id":"liam","object":"model"`, `"owned_by":"hermes","permission":[],"root":"liam","parent":null`},
		"/v1/capabilities": {`"object":"hermes.api_server.capabilities"`, `"POST /v1/chat/completions"`, `"required":false`},
		"/api/status":      {`"profile":"liam"`, `"dead":2`, `"api_address":"http://127.0.0.1:`},
		"/metrics":         {"hermes_up 1\n", `hermes_part_up{part="platform.telegram",state="down"} 0`, `hermes_part_up{part="cron",state="ok"} 1`, `hermes_queue_depth{queue="dead"} 2`, "# TYPE hermes_api_turns_total counter"},
	} {
		res, body := r.call(t, "GET", path, "")
		if res.StatusCode != 200 {
			t.Errorf("%s: %d", path, res.StatusCode)
		}
		for _, w := range want {
			if !strings.Contains(body, w) {
				t.Errorf("%s lacks %s:\n%s", path, w, body)
			}
		}
	}
	g.status = func() (Status, error) { return Status{}, domain.E(domain.Unavailable, nil, "The ledger is busy.") }
	res, body := r.call(t, "GET", "/api/status", "")
	wantError(t, res, body, 503, "unavailable")
	if res, _ := r.call(t, "GET", "/metrics", ""); res.StatusCode != 200 {
		t.Errorf("metrics need the status: %d", res.StatusCode)
	}
}
