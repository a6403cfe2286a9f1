package matrix_test

import (
	"bytes"
	"context"
	"log/slog"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"hermes/internal/domain"
	"hermes/internal/health"
	"hermes/internal/home"
	"hermes/internal/platform"
	"hermes/internal/platform/matrix"
	"hermes/internal/secret"
	fake "hermes/testkit/matrix"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience bounds what must happen; nothing waits for it to pass.
const patience = 20 * time.Second

// rig is an adapter against a fake server, with an inbox in memory.
type rig struct {
	*matrix.Adapter
	srv    *fake.Server
	config matrix.Config
	sink   *inbox
	health *health.Registry
	logs   *buffer
	ctx    context.Context
	file   string // of the session

	renamed atomic.Int64 // times that the rooms were said not to be what they were
}

func newRig(t testing.TB, change func(*matrix.Config)) *rig {
	t.Helper()
	return newRigWith(t, fake.Options{}, change)
}

func newRigWith(t testing.TB, o fake.Options, change func(*matrix.Config)) *rig {
	t.Helper()
	srv, err := fake.New(o)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	r := &rig{srv: srv, sink: newInbox(), health: health.New(time.Now), logs: &buffer{}, ctx: ctx, file: filepath.Join(t.TempDir(), "session.json")}
	r.config = matrix.Config{Homeserver: srv.URL(), Token: secret.Value(srv.Token()), TokenOrigin: ".env line 2 (MATRIX_ACCESS_TOKEN)", RequireMention: true}
	if change != nil {
		change(&r.config)
	}
	r.Adapter = r.another(t)
	t.Cleanup(func() {
		cancel()
		srv.Close()
		if t.Failed() {
			t.Logf("the adapter's log:\n%s", tail(r.logs.String(), 4000))
		}
		for _, secret := range []string{srv.Token(), srv.Password(), "syt_login_"} {
			if strings.Contains(r.logs.String(), secret) {
				t.Error("a secret stands in the log")
			}
		}
	})
	return r
}

// another makes one more adapter of the same account, as the next life of the
// process does.
func (r *rig) another(t testing.TB) *matrix.Adapter {
	t.Helper()
	a, err := matrix.New(r.config, matrix.Deps{
		Log:         r.logger(),
		Health:      r.health.Part("platform.matrix"),
		SessionFile: r.file,
		Changed:     func() { r.renamed.Add(1) },
		Admits: func(_ context.Context, user string) (bool, error) {
			return !strings.HasPrefix(user, "@eve:"), nil
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	a.Hasten()
	t.Cleanup(a.CloseIdle)
	return a
}

func (r *rig) logger() *slog.Logger {
	return slog.New(slog.NewTextHandler(r.logs, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

// run starts the adapter; the returned function ends it and gives Run's error.
func (r *rig) run(t testing.TB) (stop func() error) {
	t.Helper()
	ctx, cancel := context.WithCancel(r.ctx)
	done := make(chan error, 1)
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
	t.Cleanup(func() { stop() })
	return stop
}

// connect starts the adapter and waits until it listens.
func (r *rig) connect(t testing.TB) (stop func() error) {
	t.Helper()
	before := strings.Count(r.logs.String(), "connected to Matrix")
	stop = r.run(t)
	r.logs.wait(t, r.ctx, "connected to Matrix", before+1)
	return stop
}

// direct makes a direct room with a person, which the account is in.
func (r *rig) direct(t testing.TB, with fake.User) string {
	t.Helper()
	room := r.srv.Invite(with, true)
	if err := r.srv.WaitJoined(r.ctx, room); err != nil {
		t.Fatal("the invitation was not accepted")
	}
	return room
}

// room makes a room with a name, which the account is in.
func (r *rig) room(t testing.TB, by fake.User, name string) string {
	t.Helper()
	room := r.srv.Open(fake.Room{By: by, Name: name})
	if err := r.srv.WaitJoined(r.ctx, room); err != nil {
		t.Fatal("the invitation was not accepted")
	}
	return room
}

func (r *rig) part() health.Part { return r.health.Parts()[0] }

// inbox is a sink that keeps everything in memory, and drops events that it
// knows, as the ledger does.
type inbox struct {
	mu      sync.Mutex
	events  []domain.Inbound
	cursor  string
	accept  func(events []domain.Inbound) error // before a commit; nil accepts
	changed chan struct{}
}

func newInbox() *inbox { return &inbox{changed: make(chan struct{})} }

func (s *inbox) Accept(_ context.Context, account string, events []domain.Inbound, cursor string) error {
	s.mu.Lock()
	accept := s.accept
	s.mu.Unlock()
	if accept != nil {
		if err := accept(events); err != nil {
			return err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, e := range events {
		if slices.ContainsFunc(s.events, func(k domain.Inbound) bool { return k.EventID == e.EventID }) {
			continue
		}
		s.events = append(s.events, e)
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

func (s *inbox) setAccept(f func([]domain.Inbound) error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.accept = f
}

// wait waits for n events and gives all that there are.
func (s *inbox) wait(t testing.TB, ctx context.Context, n int) []domain.Inbound {
	t.Helper()
	for {
		s.mu.Lock()
		events, changed := slices.Clone(s.events), s.changed
		s.mu.Unlock()
		if len(events) >= n {
			return events
		}
		select {
		case <-changed:
		case <-ctx.Done():
			t.Fatalf("%d events were stored, want %d: %q", len(events), n, texts(events))
		}
	}
}

func texts(events []domain.Inbound) []string {
	out := make([]string, len(events))
	for i, e := range events {
		out[i] = e.Text
	}
	return out
}

// buffer is a bytes.Buffer that can be read, and waited for, while it is written.
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

// wait waits until a text was written n times.
func (b *buffer) wait(t testing.TB, ctx context.Context, text string, n int) {
	t.Helper()
	for {
		b.mu.Lock()
		if b.changed == nil {
			b.changed = make(chan struct{})
		}
		found, changed := strings.Count(b.b.String(), text), b.changed
		b.mu.Unlock()
		if found >= n {
			return
		}
		select {
		case <-changed:
		case <-ctx.Done():
			t.Fatalf("the log said %q %d times, want %d", text, found, n)
		}
	}
}

func address(channel string) domain.Address {
	return domain.Address{Platform: matrix.Name, ChatID: channel}
}

// fails wants an error of a kind and gives it.
func fails(t testing.TB, err error, kind platform.Kind) *platform.Error {
	t.Helper()
	if err == nil {
		t.Fatal("it succeeded")
	}
	e := platform.AsError(err)
	if e.Kind != kind {
		t.Fatalf("the error is of kind %d, want %d: %v", e.Kind, kind, err)
	}
	return e
}

func tail(s string, n int) string { return s[max(0, len(s)-n):] }

// with makes one more adapter, configured otherwise.
func (r *rig) with(t testing.TB, change func(*matrix.Config)) *matrix.Adapter {
	t.Helper()
	was := r.config
	defer func() { r.config = was }()
	change(&r.config)
	return r.another(t)
}

func profile(extra map[string]string) home.PlatformConfig {
	return home.PlatformConfig{Token: "syt_abc", Extra: extra, RequireMention: true, Typing: true}
}

// waitCursor waits until the stored position speaks of something.
func (s *inbox) waitCursor(t testing.TB, ctx context.Context, of string) {
	t.Helper()
	for {
		s.mu.Lock()
		cursor, changed := s.cursor, s.changed
		s.mu.Unlock()
		if strings.Contains(cursor, of) {
			return
		}
		select {
		case <-changed:
		case <-ctx.Done():
			t.Fatalf("the position never spoke of %s: %s", of, cursor)
		}
	}
}

// cursorless has no cursor to give.
type cursorless struct {
	*inbox
	err error
}

func (s cursorless) Cursor(context.Context, string) (string, error) { return "", s.err }

func patterns(s ...string) (out []*regexp.Regexp) {
	for _, p := range s {
		out = append(out, regexp.MustCompile("(?i)"+p))
	}
	return out
}
