package catalog_test

import (
	"bytes"
	"context"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"hermes/internal/domain"
	"hermes/internal/health"
	"hermes/internal/home"
	"hermes/internal/model"
	"hermes/internal/model/catalog"
	"hermes/internal/model/login"
	"hermes/internal/model/openai"
	"hermes/internal/secret"
	"hermes/testkit/llm"
	"hermes/testkit/oauth"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const key = "sk-test-9d8e7f6a5b4c3d2e"

// service is a fake that the configuration can name.
func service(t *testing.T, brain llm.Brain) (*llm.Server, home.ModelConfig) {
	t.Helper()
	s, err := llm.Start(brain)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s, home.ModelConfig{Provider: "custom:fake", Model: "fake-1", BaseURL: s.URL(), Key: key, KeyOrigin: ".env line 1 (FAKE_KEY)", APIMode: "chat_completions"}
}

// world is what a provider is built with, and what it wrote.
type world struct {
	deps     catalog.Deps
	registry *health.Registry
	log      bytes.Buffer
	slept    []time.Duration
}

func newWorld(t *testing.T) *world {
	w := &world{registry: health.New(time.Now)}
	transport := openai.NewTransport()
	w.deps = catalog.Deps{
		Transport: transport, Health: w.registry.Part("model"), Log: slog.New(slog.NewTextHandler(&w.log, nil)),
		Sleep: func(_ context.Context, d time.Duration) error { w.slept = append(w.slept, d); return nil },
	}
	t.Cleanup(func() {
		transport.CloseIdleConnections()
		if strings.Contains(w.log.String(), key) {
			t.Errorf("the key stands in the log:\n%s", &w.log)
		}
	})
	return w
}

func hello() *model.Request {
	return &model.Request{Messages: []domain.Message{{Role: domain.RoleUser, Content: "hello"}}}
}

// TestChainAtTheWire: retries, Retry-After and the fallback against real
// servers.
func TestChainAtTheWire(t *testing.T) {
	first, m1 := service(t, llm.Script(llm.Fail(503).Reply(), llm.RateLimited(5).Reply(), llm.Reply{Text: "one two three four", Fault: llm.CutMidChunk}, llm.Reply{Text: "at last"}))
	w := newWorld(t)
	p := catalog.FromConfig(&home.Config{Model: m1, Agent: home.AgentConfig{APIMaxRetries: 3}}, w.deps)
	var seen strings.Builder
	answer, err := p.Complete(t.Context(), hello(), func(d model.Delta) {
		if d.Reset {
			seen.Reset()
		}
		seen.WriteString(d.Text)
	})
	if err != nil || answer.Text != "at last" || seen.String() != "at last" || first.Count() != 4 || answer.Usage.Calls != 2 {
		t.Fatalf("%+v, %v, seen %q, %d requests", answer, err, seen.String(), first.Count())
	}
	if len(w.slept) != 3 || w.slept[1] < 5*time.Second || w.slept[1] > 6*time.Second {
		t.Errorf("waits %v", w.slept)
	}
	if part := w.registry.Parts()[0]; part.State != health.OK {
		t.Errorf("health %+v", part)
	}
}

func TestFallbackAtTheWire(t *testing.T) {
	first, m1 := service(t, llm.Always(llm.Fail(401).Reply()))
	second, m2 := service(t, llm.Echo)
	m2.Model = "fake-2"
	w := newWorld(t)
	p := catalog.FromConfig(&home.Config{Model: m1, Fallbacks: []home.ModelConfig{{Provider: "nous", Model: "x"}, m2}, Agent: home.AgentConfig{APIMaxRetries: 3}}, w.deps)
	answer, err := p.Complete(t.Context(), hello(), nil)
	if err != nil || answer.Text != "hello" || answer.Model != "fake-2" || first.Count() != 1 || second.Count() != 1 || len(w.slept) != 0 {
		t.Errorf("%+v, %v, %d and %d requests", answer, err, first.Count(), second.Count())
	}
	part := w.registry.Parts()[0]
	if part.State != health.Degraded || !strings.Contains(part.Message, "FAKE_KEY") || strings.Contains(part.Message, key) {
		t.Errorf("health %+v", part)
	}
	if !strings.Contains(w.log.String(), "left out") {
		t.Errorf("the unusable fallback is not logged:\n%s", &w.log)
	}
}

func TestUnusable(t *testing.T) {
	for name, test := range map[string]struct {
		model home.ModelConfig
		says  string
	}{
		"nothing set":     {home.ModelConfig{Provider: "openrouter"}, "hermes model"},
		"needs a sign-in": {home.ModelConfig{Provider: "openai-codex", Model: "gpt-5"}, "sign-in"},
		"other protocol":  {home.ModelConfig{Provider: "anthropic", Model: "c", APIMode: "anthropic_messages", BaseURL: "https://x"}, "api_mode"},
		"no address":      {home.ModelConfig{Provider: "arcee", Model: "a"}, "base_url"},
		"no URL":          {home.ModelConfig{Provider: "custom", Model: "a", BaseURL: "localhost"}, "base_url"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			p := catalog.FromConfig(&home.Config{Model: test.model}, w.deps)
			part := w.registry.Parts()[0]
			if part.State != health.Down || part.Code != "not_set" || !strings.Contains(part.Message, test.says) {
				t.Errorf("health %+v", part)
			}
			_, err := p.Complete(t.Context(), hello(), nil)
			if e := model.AsError(err); e.Kind != model.NotSet || !strings.Contains(e.Message, test.says) {
				t.Errorf("got %v", err)
			}
		})
	}
}

func TestFallbackForAnUnsetModel(t *testing.T) {
	_, m := service(t, llm.Echo)
	w := newWorld(t)
	p := catalog.FromConfig(&home.Config{Fallbacks: []home.ModelConfig{m}}, w.deps)
	if answer, err := p.Complete(t.Context(), hello(), nil); err != nil || answer.Text != "hello" {
		t.Errorf("%+v, %v", answer, err)
	}
}

func TestOffline(t *testing.T) {
	for _, p := range []model.Provider{
		catalog.FromConfig(&home.Config{Model: home.ModelConfig{Provider: "offline", Model: "offline"}}, catalog.Deps{}),
		catalog.Build(home.ModelConfig{Provider: "offline"}, catalog.Deps{}),
	} {
		answer, err := p.Complete(t.Context(), hello(), nil)
		if err != nil || answer.Provider != "offline" || !strings.Contains(answer.Text, "offline stand-in") {
			t.Errorf("%+v, %v", answer, err)
		}
	}
}

// A login is renewed when its token is refused, and a key that is refused gives
// way to the next, within one call.
func TestLoginsAtRunTime(t *testing.T) {
	service := oauth.Start(3600)
	defer service.Close()
	access, refresh := service.Login()
	s, err := llm.Start(llm.Say("ok"))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	s.RequireKey("access-token-0002") // the one that the first renewal gives
	file := filepath.Join(t.TempDir(), "auth.json")
	store := login.Open(file, nil)
	for _, c := range []login.Credential{
		{Provider: "custom", Type: login.APIKey, Access: "no-good"},
		{Provider: "custom", Type: login.OAuth, Access: secret.Value(access), Refresh: secret.Value(refresh), TokenURL: service.TokenURL(), ClientID: "hermes"},
	} {
		if _, err := store.Add(t.Context(), c); err != nil {
			t.Fatal(err)
		}
	}
	var told []string
	p := catalog.Build(home.ModelConfig{Provider: "custom", Model: "m", BaseURL: s.URL(), APIMode: "chat_completions", LoginFile: file, OwnAddress: true},
		catalog.Deps{Secrets: func(secrets ...string) { told = append(told, secrets...) }})
	ask := &model.Request{Messages: []domain.Message{{Role: domain.RoleUser, Content: "hello"}}}
	for range 2 {
		answer, err := p.Complete(t.Context(), ask, nil)
		if err != nil || answer.Text != "ok" {
			t.Fatalf("%+v, %v", answer, err)
		}
	}
	if renewals, reuses := service.Counts(); renewals != 1 || reuses != 0 {
		t.Fatalf("%d renewals, %d reuses", renewals, reuses)
	}
	if !slices.Contains(told, "access-token-0002") {
		t.Fatal("the new token was not told to the redactor")
	}
	s.RequireKey("something else")
	service.Revoke()
	_, err = p.Complete(t.Context(), ask, nil)
	if e := model.AsError(err); e.Kind != model.Auth {
		t.Fatalf("with everything refused: %v", err)
	}
}
