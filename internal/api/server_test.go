package api

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"hermes/internal/domain"
	"hermes/internal/health"
	"hermes/internal/home"
	"hermes/internal/secret"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const testKey = "0f6c1f7c9b1e4a54a3d2a1b0c9d8e7f6"

// fakeGateway answers with a script.
type fakeGateway struct {
	chat   func(ctx context.Context, req ChatRequest, on func(domain.TurnEvent)) (ChatResult, error)
	status func() (Status, error)

	mu    sync.Mutex
	asked []ChatRequest
}

func (g *fakeGateway) Chat(ctx context.Context, req *ChatRequest, on func(domain.TurnEvent)) (*ChatResult, error) {
	g.mu.Lock()
	g.asked = append(g.asked, *req)
	g.mu.Unlock()
	if g.chat == nil {
		return &ChatResult{Text: "pong", Usage: domain.Usage{Calls: 1, InputTokens: 7, OutputTokens: 2}}, nil
	}
	res, err := g.chat(ctx, *req, on)
	return &res, err
}

func (g *fakeGateway) Status(context.Context) (Status, error) {
	if g.status == nil {
		return Status{Profile: "default", State: "running", Healthy: true, PID: 4711}, nil
	}
	return g.status()
}

func (g *fakeGateway) ModelName() string { return "test-model" }

func (g *fakeGateway) requests() []ChatRequest {
	g.mu.Lock()
	defer g.mu.Unlock()
	return append([]ChatRequest(nil), g.asked...)
}

// lockedBuffer is a log that tests may read while it is written.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// rig is a server on a real socket.
type rig struct {
	*Server
	gateway *fakeGateway
	health  *health.Registry
	log     *lockedBuffer
	url     string
	client  *http.Client
}

// newRig starts a server on a port of the kernel's choosing.
func newRig(t testing.TB, g *fakeGateway, change func(*Options)) *rig {
	t.Helper()
	r := unstarted(g, change)
	if err := r.Start(); err != nil {
		t.Fatal(err)
	}
	r.url = "http://" + r.Addr().String()
	stopAtEnd(t, r)
	return r
}

func unstarted(g *fakeGateway, change func(*Options)) *rig {
	r := &rig{gateway: g, health: health.New(time.Now), log: &lockedBuffer{}}
	o := Options{
		Config:  home.APIConfig{Enabled: true, Host: "127.0.0.1"},
		Profile: "default", Gateway: g, Health: r.health.Part("api"),
		Log: slog.New(slog.NewTextHandler(r.log, nil)),
	}
	if change != nil {
		change(&o)
	}
	r.Server = New(o)
	r.client = &http.Client{Transport: &http.Transport{}}
	return r
}

func stopAtEnd(t testing.TB, r *rig) {
	t.Cleanup(func() {
		r.client.CloseIdleConnections()
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		if err := r.Stop(ctx); err != nil {
			t.Errorf("the server did not stop: %v", err)
		}
		if strings.Contains(r.log.String(), testKey) {
			t.Error("the key stands in the log")
		}
	})
}

func withKey(o *Options) { o.Config.Key = secret.Value(testKey) }

// call sends a request and reads the whole answer.
func (r *rig) call(t testing.TB, method, path, body string, header ...string) (*http.Response, string) {
	t.Helper()
	req, err := http.NewRequest(method, r.url+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if body == "" {
		req.Body = nil
		req.ContentLength = 0
	}
	for i := 0; i < len(header); i += 2 {
		if header[i] == "Host" {
			req.Host = header[i+1]
			continue
		}
		req.Header.Set(header[i], header[i+1])
	}
	res, err := r.client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	raw, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatalf("%s %s: %v", method, path, err)
	}
	return res, string(raw)
}

const ping = `{"model":"test","messages":[{"role":"user","content":"ping"}]}`

const pingStream = `{"model":"test","stream":true,"messages":[{"role":"user","content":"ping"}]}`

// wantError checks the envelope of a failure.
func wantError(t testing.TB, res *http.Response, body string, status int, code string) {
	t.Helper()
	var e errorBody
	if err := json.Unmarshal([]byte(body), &e); err != nil {
		t.Fatalf("answer %d is no JSON: %q", res.StatusCode, body)
	}
	if res.StatusCode != status || e.Error.Code != code {
		t.Fatalf("got %d %q (%s), want %d %q", res.StatusCode, e.Error.Code, e.Error.Message, status, code)
	}
	if e.Error.Message == "" || e.Error.Type == "" {
		t.Fatalf("the envelope is not whole: %s", body)
	}
}

// dial opens a raw connection.
func (r *rig) dial(t testing.TB) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", r.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if err := c.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
		t.Fatal(err)
	}
	return c
}
