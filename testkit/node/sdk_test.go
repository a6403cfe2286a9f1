package node

import (
	"context"
	"encoding/json"
	"log/slog"
	"os"
	"os/exec"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"hermes/internal/api"
	"hermes/internal/domain"
	"hermes/internal/home"
	"hermes/internal/secret"
)

const key = "0f6c1f7c9b1e4a54a3d2a1b0c9d8e7f6"

// needNode skips the test where node or the named module is missing.
func needNode(t *testing.T, module string) string {
	t.Helper()
	node, err := exec.LookPath("node")
	if err != nil {
		t.Skip("node is not installed")
	}
	if _, err := os.Stat("node_modules/" + module); err != nil {
		t.Skip("the npm package " + module + " is missing: run `npm ci` in testkit/node")
	}
	return node
}

// scripted answers by the text of the input.
type scripted struct{ failed atomic.Int64 }

func (g *scripted) Chat(_ context.Context, req *api.ChatRequest, on func(domain.TurnEvent)) (*api.ChatResult, error) {
	usage := domain.Usage{Calls: 1, InputTokens: 5, OutputTokens: 3}
	switch req.Input.Content {
	case "stream":
		on(domain.TurnEvent{Kind: domain.EventToolStarted, Tool: "terminal", CallID: "c1", Label: "df -h"})
		on(domain.TurnEvent{Kind: domain.EventToolFinished, Tool: "terminal", CallID: "c1", Label: "df -h"})
		for _, piece := range []string{"Grüße ", "aus ", "der Ferne"} {
			on(domain.TurnEvent{Kind: domain.EventDelta, Text: piece})
		}
		return &api.ChatResult{Text: "Grüße aus der Ferne", Usage: usage}, nil
	case "fail":
		g.failed.Add(1)
		return &api.ChatResult{}, domain.E(domain.Unauthenticated, nil, "The provider refuses the key in .env line 3.")
	case "late":
		on(domain.TurnEvent{Kind: domain.EventDelta, Text: "half"})
		return &api.ChatResult{Text: "half"}, domain.E(domain.Unavailable, nil, "The model went away.")
	}
	return &api.ChatResult{Text: "pong", Usage: usage}, nil
}

func (g *scripted) Status(context.Context) (api.Status, error) { return api.Status{}, nil }
func (g *scripted) ModelName() string                          { return "test-model" }

func stop(t *testing.T, s *api.Server) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	if err := s.Stop(ctx); err != nil {
		t.Errorf("the server did not stop: %v", err)
	}
}

func TestOpenAILibrary(t *testing.T) {
	node := needNode(t, "openai")
	g := &scripted{}
	s := api.New(api.Options{
		Config:  home.APIConfig{Host: "127.0.0.1", Key: secret.Value(key)},
		Profile: "default", Gateway: g, Log: slog.New(slog.DiscardHandler),
	})
	if err := s.Start(); err != nil {
		t.Fatal(err)
	}
	defer stop(t, s)
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, node, "sdk.mjs", "http://"+s.Addr().String()+"/v1", key)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	var seen map[string]any
	if err := json.Unmarshal(out, &seen); err != nil {
		t.Fatalf("%v in %s", err, out)
	}
	if id, _ := seen["plain"].(map[string]any)["id"].(string); !strings.HasPrefix(id, "chatcmpl-") {
		t.Errorf("id %q", id)
	}
	delete(seen["plain"].(map[string]any), "id")
	usage := map[string]any{"prompt_tokens": 5.0, "completion_tokens": 3.0, "total_tokens": 8.0}
	failure := func(name string, status any, code any, message string) map[string]any {
		return map[string]any{"failed": true, "isAPIError": true, "name": name, "status": status, "code": code, "message": message}
	}
	want := map[string]any{
		"plain":        map[string]any{"text": "pong", "finish": "stop", "usage": usage},
		"stream":       map[string]any{"text": "Grüße aus der Ferne", "finish": "stop", "usage": usage, "tools": 2.0},
		"helper":       map[string]any{"text": "Grüße aus der Ferne"},
		"models":       []any{"hermes-agent"},
		"model":        "hermes",
		"badKey":       failure("AuthenticationError", 401.0, "invalid_api_key", "401 Invalid API key"),
		"noUser":       failure("BadRequestError", 400.0, "invalid_request", "400 No user message found in messages"),
		"broken":       failure("InternalServerError", 502.0, "agent_incomplete", "502 The provider refuses the key in .env line 3."),
		"unknownModel": failure("NotFoundError", 404.0, "model_not_found", "404 The only model here is hermes-agent."),
		"lateFailure":  failure("APIError", nil, "unavailable", "The model went away."),
	}
	if diff := cmp.Diff(want, seen); diff != "" {
		t.Error(diff)
	}
	// The library repeats 5xx answers by itself unless it is told not to.
	if n := g.failed.Load(); n != 1 {
		t.Errorf("the failing turn ran %d times", n)
	}
}
