package gateway

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"hermes/internal/control"
	"hermes/internal/domain"
	"hermes/internal/home"
	"hermes/internal/secret"
	"hermes/testkit/llm"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// limit bounds every wait; a passing test comes nowhere near it.
const limit = 30 * time.Second

// setup is a profile in a temporary home with a model at the wire.
type setup struct {
	t     *testing.T
	dir   string
	port  int
	brain *llm.Server
	env   []string // beside the usual environment of the process
}

func newSetup(t *testing.T, brain llm.Brain, config string) *setup {
	t.Helper()
	// Short enough for a socket; see unix(7).
	dir, err := os.MkdirTemp("", "hermes-gw-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	s := &setup{t: t, dir: dir}
	if s.brain, err = llm.Start(brain); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.brain.Close)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s.port = l.Addr().(*net.TCPAddr).Port
	l.Close()
	config += fmt.Sprintf("\nmodel:\n  default: m\n  provider: custom\n  base_url: %s\nagent:\n  api_max_retries: 0\nsession_reset:\n  mode: none\n", s.brain.URL())
	s.write("config.yaml", config)
	s.write(".env", fmt.Sprintf("API_SERVER_ENABLED=true\nAPI_SERVER_PORT=%d\nTELEGRAM_ALLOW_ALL_USERS=true\n", s.port))
	return s
}

func (s *setup) write(name, text string) {
	s.t.Helper()
	if err := os.WriteFile(filepath.Join(s.dir, name), []byte(text), 0o600); err != nil {
		s.t.Fatal(err)
	}
}

// make builds a gateway of the profile.
func (s *setup) make() (*Gateway, error) {
	s.t.Helper()
	p := home.Profile{Name: "default", Root: s.dir, Home: s.dir}
	process := []string{"HOME=" + s.dir, "PATH=" + os.Getenv("PATH"), "HERMES_GATEWAY_LOCK_DIR=" + filepath.Join(s.dir, "locks")}
	process = append(process, s.env...)
	env, _, err := home.LoadEnv(p, process)
	if err != nil {
		s.t.Fatal(err)
	}
	cfg, _, err := home.Load(p, env)
	if err != nil {
		s.t.Fatal(err)
	}
	return New(context.Background(), Options{Profile: p, Config: cfg, Env: env, Process: process, Version: "test",
		Log: slog.New(slog.NewTextHandler(s.t.Output(), nil)), Redactor: secret.NewRedactor(), NoBallast: true})
}

// serve runs a gateway until the test ends; edit, where not nil, sees it before.
func (s *setup) serve(edit func(*Gateway)) *Gateway {
	s.t.Helper()
	g, err := s.make()
	if err != nil {
		s.t.Fatal(err)
	}
	if edit != nil {
		edit(g)
	}
	done := make(chan error, 1)
	go func() { done <- g.Run(context.Background()) }()
	s.t.Cleanup(func() {
		g.Shutdown("the test ends")
		select {
		case err := <-done:
			if err != nil {
				s.t.Error(err)
			}
		case <-time.After(limit):
			s.t.Error("the gateway does not stop")
		}
	})
	s.until("the gateway runs", func() bool { return g.currentPhase() == phaseRunning })
	return g
}

func (s *setup) until(what string, ok func() bool) {
	s.t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.After(limit); !ok(); {
		select {
		case <-tick.C:
		case <-deadline:
			s.t.Fatalf("not within %s: %s", limit, what)
		}
	}
}

// ask asks the API one question.
func (s *setup) ask(text string) (int, string) {
	s.t.Helper()
	body, _ := json.Marshal(map[string]any{"messages": []any{map[string]any{"role": "user", "content": text}}})
	c := &http.Client{Timeout: limit, Transport: &http.Transport{DisableKeepAlives: true}}
	res, err := c.Post(fmt.Sprintf("http://127.0.0.1:%d/v1/chat/completions", s.port), "application/json", strings.NewReader(string(body)))
	if err != nil {
		s.t.Fatal(err)
	}
	defer res.Body.Close()
	answer, err := io.ReadAll(res.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	return res.StatusCode, string(answer)
}

func TestAGatewayFromStartToStop(t *testing.T) {
	s := newSetup(t, llm.Echo, "")
	g := s.serve(nil)
	if status, body := s.ask("hello there"); status != 200 || !strings.Contains(body, "hello there") {
		t.Fatalf("%d %s", status, body)
	}
	if _, err := s.make(); !domain.IsCode(err, domain.Conflict) {
		t.Errorf("a second one in the same home: %v", err)
	}
	c := control.Dial(control.SocketPath(g.Profile, g.Env.Get))
	st, err := c.Status(t.Context())
	if err != nil || !st.Healthy || st.State != phaseRunning || st.Work.Finished != 1 {
		t.Errorf("%+v %v", st, err)
	}
	state, err := os.ReadFile(g.Profile.StateFile())
	if err != nil || !strings.Contains(string(state), `"running"`) {
		t.Errorf("%s %v", state, err)
	}
	if err := c.Stop(t.Context(), "an order"); err != nil {
		t.Fatal(err)
	}
	s.until("it has stopped", func() bool { return g.currentPhase() == phaseStopped })
	if g.Reason() != "an order" {
		t.Errorf("the reason is %q", g.Reason())
	}
	s.until("the profile is free again", func() bool { _, err := c.Status(t.Context()); return domain.IsCode(err, domain.NotFound) })
}

// A gateway that was told to stop before it ran stops all the same.
func TestAStopBeforeTheStart(t *testing.T) {
	s := newSetup(t, llm.Echo, "")
	g, err := s.make()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := g.Run(ctx); err != nil {
		t.Error(err)
	}
	g, err = s.make()
	if err != nil {
		t.Fatal(err)
	}
	g.Shutdown("at once")
	g.Shutdown("twice")
	if err := g.Run(context.Background()); err != nil || g.Reason() != "at once" {
		t.Error(err, g.Reason())
	}
}

// lines collects what a chat was shown.
type lines struct {
	mu   sync.Mutex
	text []string
}

func (l *lines) add(s string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.text = append(l.text, s)
}

func (l *lines) has(s string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Contains(strings.Join(l.text, "\n"), s)
}

// wait waits until a text was shown, or ctx ends.
func (l *lines) wait(ctx context.Context, s string) {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !l.has(s) {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}
