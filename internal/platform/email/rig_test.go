package email_test

import (
	"bytes"
	"context"
	"crypto/tls"
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
	"hermes/internal/platform/email"
	"hermes/internal/secret"
	fake "hermes/testkit/email"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience bounds what must happen; nothing waits for it to pass.
const patience = 20 * time.Second

// rig is an adapter against a provider, with an inbox in memory.
type rig struct {
	*email.Adapter
	t      *testing.T
	srv    *fake.Server
	config email.Config
	sink   *inbox
	health *health.Registry
	logs   *buffer
	ctx    context.Context
}

func newRig(t *testing.T, o fake.Options, change func(*email.Config)) *rig {
	t.Helper()
	srv, err := fake.New(o)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	r := &rig{t: t, srv: srv, sink: newInbox(), health: health.New(time.Now), logs: &buffer{}, ctx: ctx}
	security := email.Security(o.Security)
	if security == "" {
		security = email.Plain
	}
	r.config = email.Config{
		Address: srv.Address(), Password: secret.Value(srv.Password()), PasswordOrigin: ".env line 3 (EMAIL_PASSWORD)",
		IMAP: email.Server{Host: "127.0.0.1", Port: srv.IMAPPort(), Security: security}, SMTP: email.Server{Host: "127.0.0.1", Port: srv.SMTPPort(), Security: security},
		PollEvery: 20 * time.Millisecond, IdleEvery: 500 * time.Millisecond, Timeout: 5 * time.Second,
	}
	if change != nil {
		change(&r.config)
	}
	r.Adapter = r.another()
	t.Cleanup(func() {
		cancel()
		srv.Close()
		if t.Failed() {
			t.Logf("the adapter's log:\n%s", r.logs)
		}
		if strings.Contains(r.logs.String(), srv.Password()) {
			t.Error("the password stands in the log")
		}
	})
	return r
}

// another makes one more adapter of the account, as the next life of the
// process does.
func (r *rig) another() *email.Adapter {
	r.t.Helper()
	a, err := email.New(r.config, email.Deps{
		TLS: &tls.Config{RootCAs: r.srv.Roots(), MinVersion: tls.VersionTLS12},
		Log: slog.New(slog.NewTextHandler(r.logs, &slog.HandlerOptions{Level: slog.LevelDebug})), Health: r.health.Part("platform.email"),
	})
	if err != nil {
		r.t.Fatal(err)
	}
	a.Hasten()
	return a
}

// run starts the adapter; the returned function ends it and gives Run's error.
func (r *rig) run() (stop func() error) {
	r.t.Helper()
	ctx, cancel := context.WithCancel(r.ctx)
	done := make(chan error, 1)
	a := r.Adapter
	go func() { done <- a.Run(ctx, r.sink) }()
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

// connect starts the adapter and waits until it is up to date.
func (r *rig) connect() (stop func() error) {
	r.t.Helper()
	before := strings.Count(r.logs.String(), "connected to the mailbox")
	stop = r.run()
	r.logs.wait(r.t, r.ctx, "connected to the mailbox", before+1)
	return stop
}

func (r *rig) part() health.Part { return r.health.Parts()[0] }

func ann(text string) fake.Letter {
	return fake.Letter{From: "Ann <ann@people.test>", Subject: "A question", Text: text}
}

// inbox is a sink in memory that drops events that it knows, as the ledger does.
type inbox struct {
	mu      sync.Mutex
	known   map[string]bool
	events  []domain.Inbound
	cursor  string
	repeats int
	fail    error
	changed chan struct{}
}

func newInbox() *inbox { return &inbox{known: map[string]bool{}, changed: make(chan struct{})} }

func (s *inbox) Accept(_ context.Context, _ string, events []domain.Inbound, cursor string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fail != nil {
		return s.fail
	}
	for _, in := range events {
		if s.known[in.EventID] {
			s.repeats++
			continue
		}
		s.known[in.EventID] = true
		s.events = append(s.events, in)
	}
	if cursor != "" {
		s.cursor = cursor
	}
	close(s.changed)
	s.changed = make(chan struct{})
	return nil
}

func (s *inbox) Cursor(context.Context, string) (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.cursor, nil
}

func (s *inbox) set(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fail = err
}

// wait waits until n events are there.
func (s *inbox) wait(t *testing.T, ctx context.Context, n int) []domain.Inbound {
	t.Helper()
	for {
		s.mu.Lock()
		got, changed := append([]domain.Inbound(nil), s.events...), s.changed
		s.mu.Unlock()
		if len(got) >= n {
			return got
		}
		select {
		case <-changed:
		case <-ctx.Done():
			t.Fatalf("%d events, want %d", len(got), n)
		}
	}
}

type buffer struct {
	mu      sync.Mutex
	b       bytes.Buffer
	changed chan struct{}
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.changed != nil {
		close(b.changed)
		b.changed = nil
	}
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// wait waits until a text stands n times in it.
func (b *buffer) wait(t *testing.T, ctx context.Context, text string, n int) {
	t.Helper()
	for {
		b.mu.Lock()
		if b.changed == nil {
			b.changed = make(chan struct{})
		}
		changed, have := b.changed, strings.Count(b.b.String(), text)
		b.mu.Unlock()
		if have >= n {
			return
		}
		select {
		case <-changed:
		case <-ctx.Done():
			t.Fatalf("%q stands %d times in the log, want %d", text, have, n)
		}
	}
}

// errorOf gives an error's class.
func errorOf(t *testing.T, err error) *platform.Error {
	t.Helper()
	var e *platform.Error
	if !errors.As(err, &e) {
		t.Fatalf("no *platform.Error: %v", err)
	}
	return e
}
