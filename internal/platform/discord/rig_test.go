package discord_test

import (
	"bytes"
	"context"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"hermes/internal/domain"
	"hermes/internal/health"
	"hermes/internal/platform"
	"hermes/internal/platform/discord"
	"hermes/internal/secret"
	fake "hermes/testkit/discord"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience bounds what must happen; nothing waits for it to pass.
const patience = 20 * time.Second

// rig is an adapter against a fake Discord, with an inbox in memory.
type rig struct {
	*discord.Adapter
	srv    *fake.Server
	sink   *inbox
	health *health.Registry
	logs   *buffer
	ctx    context.Context
}

func newRig(t testing.TB, o fake.Options, change func(*discord.Config)) *rig {
	t.Helper()
	srv, err := fake.New(o)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	r := &rig{srv: srv, sink: newInbox(), health: health.New(time.Now), logs: &buffer{}, ctx: ctx}
	c := discord.Config{Token: secret.Value(srv.Token()), TokenOrigin: ".env line 2 (DISCORD_BOT_TOKEN)", BaseURL: srv.URL(), Reactions: true}
	if change != nil {
		change(&c)
	}
	r.Adapter, err = discord.New(c, discord.Deps{
		Log:    slog.New(slog.NewTextHandler(r.logs, &slog.HandlerOptions{Level: slog.LevelDebug})),
		Health: r.health.Part("platform.discord"),
	})
	if err != nil {
		t.Fatal(err)
	}
	r.Hasten()
	t.Cleanup(func() {
		cancel()
		srv.Close()
		r.CloseIdle()
		if t.Failed() {
			t.Logf("the adapter's log:\n%s", tail(r.logs.String(), 4000))
		}
		if strings.Contains(r.logs.String(), srv.Token()) {
			t.Error("the token stands in the log")
		}
	})
	return r
}

// adapterFor makes another adapter for the rig's server.
func adapterFor(t testing.TB, r *rig, c discord.Config) *discord.Adapter {
	t.Helper()
	c.Token, c.BaseURL = secret.Value(r.srv.Token()), r.srv.URL()
	a, err := discord.New(c, discord.Deps{})
	must(t, err)
	a.Hasten()
	t.Cleanup(a.CloseIdle)
	return a
}

// connected starts the adapter and waits for its session.
func (r *rig) connected(t testing.TB) (stop func() error) {
	t.Helper()
	stop = r.run(t)
	must(t, r.srv.WaitConnected(r.ctx))
	return stop
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
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

func (r *rig) part() health.Part { return r.health.Parts()[0] }

// inbox is a sink that keeps everything in memory, and drops events that it
// knows, as the ledger does.
type inbox struct {
	mu      sync.Mutex
	events  []domain.Inbound
	cursor  string
	commits int
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
		if !slices.ContainsFunc(s.events, func(k domain.Inbound) bool { return k.EventID == e.EventID }) {
			s.events = append(s.events, e)
		}
	}
	if cursor != "" {
		s.cursor = cursor
	}
	s.commits++
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
			t.Fatalf("%d events were stored, want %d", len(events), n)
		}
	}
}

// waitCursor waits until the committed cursor contains a text.
func (s *inbox) waitCursor(t testing.TB, ctx context.Context, text string) {
	t.Helper()
	for {
		s.mu.Lock()
		cursor, changed := s.cursor, s.changed
		s.mu.Unlock()
		if strings.Contains(cursor, text) {
			return
		}
		select {
		case <-changed:
		case <-ctx.Done():
			t.Fatalf("%q never came into the cursor %s", text, cursor)
		}
	}
}

// waitFor waits for an event with a text and gives all that there are.
func (s *inbox) waitFor(t testing.TB, ctx context.Context, text string) []domain.Inbound {
	t.Helper()
	for n := 1; ; n++ {
		if events := s.wait(t, ctx, n); slices.Contains(texts(events), text) {
			return events
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

// wait waits until a text was written.
func (b *buffer) wait(t testing.TB, ctx context.Context, text string) {
	t.Helper()
	for {
		b.mu.Lock()
		if b.changed == nil {
			b.changed = make(chan struct{})
		}
		found, changed := strings.Contains(b.b.String(), text), b.changed
		b.mu.Unlock()
		if found {
			return
		}
		select {
		case <-changed:
		case <-ctx.Done():
			t.Fatalf("the log never said %q", text)
		}
	}
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

func address(chat string) domain.Address {
	return domain.Address{Platform: discord.Name, ChatID: chat}
}
