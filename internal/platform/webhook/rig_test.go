package webhook_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"hermes/internal/domain"
	"hermes/internal/health"
	"hermes/internal/platform"
	"hermes/internal/platform/webhook"
	"hermes/internal/secret"
	fake "hermes/testkit/webhook"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	patience  = 20 * time.Second
	routeKey  = "the-route's-own-secret-1"
	commonKey = "whsec_dGhlIHNlY3JldCBvZiBhbGwgcm91dGVz"
)

// rig is an adapter that listens, with an inbox in memory.
type rig struct {
	*webhook.Adapter
	t      *testing.T
	sink   *inbox
	health *health.Registry
	logs   *buffer
	ctx    context.Context
	now    time.Time
}

func config() webhook.Config {
	return webhook.Config{
		Host: "127.0.0.1", Port: -1, Secrets: []secret.Value{commonKey},
		Routes: map[string]webhook.Route{"own": {Secret: []string{routeKey}}, "common": {}},
	}
}

func newRig(t *testing.T, c webhook.Config) *rig {
	t.Helper()
	r := &rig{t: t, sink: &inbox{known: map[string]bool{}}, health: health.New(time.Now), logs: &buffer{}, now: time.Now()}
	var cancel context.CancelFunc
	r.ctx, cancel = context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	a, err := webhook.New(c, webhook.Deps{
		Log: slog.New(slog.NewTextHandler(r.logs, nil)), Health: r.health.Part("platform.webhook"), Now: func() time.Time { return r.now },
		Home: func(p domain.Platform) (domain.Address, bool) {
			return domain.Address{Platform: p, ChatID: "home"}, p == "telegram"
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	r.Adapter = a
	t.Cleanup(func() {
		for _, s := range []string{routeKey, commonKey} {
			if strings.Contains(r.logs.String(), s) {
				t.Error("a secret stands in the log")
			}
		}
	})
	return r
}

// serve starts the adapter; the returned function ends it.
func (r *rig) serve() (stop func() error) {
	r.t.Helper()
	if err := r.Check(r.ctx); err != nil {
		r.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(r.ctx)
	done := make(chan error, 1)
	r.sink.ready = make(chan struct{})
	go func() { done <- r.Run(ctx, r.sink) }()
	var once sync.Once
	var err error
	stop = func() error {
		once.Do(func() {
			cancel()
			err = <-done
		})
		return err
	}
	r.t.Cleanup(func() { _ = stop() })
	return stop
}

func (r *rig) url(route string) string {
	return "http://" + r.Listener().Addr().String() + "/webhooks/" + route
}

// call makes a call that must be answered with a status.
func (r *rig) call(c fake.Call, status int) fake.Answer {
	r.t.Helper()
	a, err := c.Send(r.ctx)
	if err != nil {
		r.t.Fatal(err)
	}
	if a.Status != status {
		r.t.Fatalf("answered %d %v, want %d\n%s", a.Status, a.Body, status, r.logs)
	}
	return a
}

// inbox is a sink in memory that drops events that it knows, as the ledger does.
type inbox struct {
	mu     sync.Mutex
	known  map[string]bool
	events []domain.Inbound
	fail   error
	during func()
	ready  chan struct{}
}

func (s *inbox) Accept(_ context.Context, _ string, events []domain.Inbound, _ string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.during != nil {
		s.during()
	}
	if s.fail != nil {
		return s.fail
	}
	for _, in := range events {
		if !s.known[in.EventID] {
			s.known[in.EventID] = true
			s.events = append(s.events, in)
		}
	}
	return nil
}

func (s *inbox) Cursor(context.Context, string) (string, error) { return "", nil }

func (s *inbox) all() []domain.Inbound {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]domain.Inbound(nil), s.events...)
}

func (s *inbox) set(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f()
}

type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// kindOf gives an error's class.
func kindOf(t *testing.T, err error) *platform.Error {
	t.Helper()
	var e *platform.Error
	if !errors.As(err, &e) {
		t.Fatalf("no *platform.Error: %v", err)
	}
	return e
}
