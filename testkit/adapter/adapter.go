// Package adapter is what the wire tests of all platforms' adapters share: an
// inbox in memory in place of the ledger, a log that can be waited for, and how
// an adapter is run and its errors are held to their kind.
package adapter

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"hermes/internal/domain"
	"hermes/internal/health"
	"hermes/internal/platform"
)

// Inbox is a platform.Sink that keeps everything in memory, and drops events
// that it knows, as the ledger does. It is safe for concurrent use.
type Inbox struct {
	mu      sync.Mutex
	events  []domain.Inbound
	cursor  string
	commits int
	again   int
	back    []string
	accept  func(events []domain.Inbound) error
	changed chan struct{}
}

// Returned keeps what came back, as a line each.
func (s *Inbox) Returned(_ context.Context, chatID, receipt, reason string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.back = append(s.back, chatID+" "+receipt+" "+reason)
	return nil
}

// Back lists what came back.
func (s *Inbox) Back() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.back)
}

// NewInbox gives an empty inbox.
func NewInbox() *Inbox { return &Inbox{changed: make(chan struct{})} }

// Accept commits events, unless what SetAccept gave refuses them.
func (s *Inbox) Accept(_ context.Context, _ string, events []domain.Inbound, cursor string) error {
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
			s.again++
			continue
		}
		s.events = append(s.events, e)
	}
	if cursor != "" {
		s.cursor = cursor
	}
	s.commits++
	close(s.changed)
	s.changed = make(chan struct{})
	return nil
}

// Cursor gives the committed position.
func (s *Inbox) Cursor(context.Context, string) (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.cursor, nil
}

// SetCursor sets the committed position.
func (s *Inbox) SetCursor(cursor string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cursor = cursor
}

// SetAccept sets what is asked before each commit; nil accepts all.
func (s *Inbox) SetAccept(f func([]domain.Inbound) error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.accept = f
}

// Events gives all that was committed.
func (s *Inbox) Events() []domain.Inbound {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.events)
}

// Commits counts the batches that were committed.
func (s *Inbox) Commits() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.commits
}

// Again counts the events that came though they were known.
func (s *Inbox) Again() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.again
}

// Wait waits for n events and gives all that there are.
func (s *Inbox) Wait(t testing.TB, ctx context.Context, n int) []domain.Inbound {
	t.Helper()
	s.await(t, ctx, func() bool { return len(s.events) >= n }, func() {
		t.Fatalf("%d events were stored, want %d: %q", len(s.events), n, Texts(s.events))
	})
	return s.Events()
}

// WaitFor waits for an event with a text and gives all that there are.
func (s *Inbox) WaitFor(t testing.TB, ctx context.Context, text string) []domain.Inbound {
	t.Helper()
	s.await(t, ctx, func() bool { return slices.Contains(Texts(s.events), text) }, func() {
		t.Fatalf("%q was never stored, but %q", text, Texts(s.events))
	})
	return s.Events()
}

// WaitCursor waits until the committed position contains a text.
func (s *Inbox) WaitCursor(t testing.TB, ctx context.Context, text string) {
	t.Helper()
	s.await(t, ctx, func() bool { return strings.Contains(s.cursor, text) }, func() {
		t.Fatalf("%q never came into the cursor %s", text, s.cursor)
	})
}

// await waits until a condition holds after a commit. Both functions are called
// with the lock held.
func (s *Inbox) await(t testing.TB, ctx context.Context, holds func() bool, fail func()) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	for !holds() {
		changed := s.changed
		s.mu.Unlock()
		select {
		case <-changed:
			s.mu.Lock()
		case <-ctx.Done():
			s.mu.Lock()
			fail()
		}
	}
}

// Texts gives the texts of events.
func Texts(events []domain.Inbound) []string {
	out := make([]string, len(events))
	for i, e := range events {
		out[i] = e.Text
	}
	return out
}

// NoCursor is an inbox whose position cannot be read.
type NoCursor struct {
	*Inbox
	Err error
}

// Cursor fails.
func (s NoCursor) Cursor(context.Context, string) (string, error) { return "", s.Err }

// Log is a log that can be read, and waited for, while it is written. The zero
// Log is empty. It is safe for concurrent use.
type Log struct {
	mu      sync.Mutex
	b       bytes.Buffer
	changed chan struct{}
}

// Logger writes everything into the log.
func (b *Log) Logger() *slog.Logger {
	return slog.New(slog.NewTextHandler(b, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

// Write appends.
func (b *Log) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.changed != nil {
		close(b.changed)
		b.changed = nil
	}
	return b.b.Write(p)
}

// String gives all that was written.
func (b *Log) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// Tail gives the end of what was written, of n bytes at most.
func (b *Log) Tail(n int) string {
	s := b.String()
	return s[max(0, len(s)-n):]
}

// Wait waits until a text was written n times.
func (b *Log) Wait(t testing.TB, ctx context.Context, text string, n int) {
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

// Patience bounds what must happen in a wire test; nothing waits for it to pass.
const Patience = 20 * time.Second

// Kit is what an adapter's wire test needs beside the adapter and its fake.
type Kit struct {
	Sink   *Inbox
	Health *health.Registry
	Log    *Log
	Ctx    context.Context // of the test, with Patience
}

// NewKit makes a kit. At the end of the test end is called once Ctx has ended, the
// log is shown where the test failed, and none of the secrets may stand in it.
func NewKit(t testing.TB, end func(), secrets ...string) Kit {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), Patience)
	k := Kit{Sink: NewInbox(), Health: health.New(time.Now), Log: &Log{}, Ctx: ctx}
	t.Cleanup(func() {
		cancel()
		end()
		if t.Failed() {
			t.Logf("the adapter's log:\n%s", k.Log.Tail(4000))
		}
		for _, secret := range secrets {
			if strings.Contains(k.Log.String(), secret) {
				t.Error("a secret stands in the log")
			}
		}
	})
	return k
}

// Connect runs an adapter, as Run does, and waits until its log says so.
func (k Kit) Connect(t testing.TB, a platform.Adapter, says string) (stop func() error) {
	t.Helper()
	before := strings.Count(k.Log.String(), says)
	stop = Run(t, k.Ctx, a, k.Sink)
	k.Log.Wait(t, k.Ctx, says, before+1)
	return stop
}

// Run runs an adapter until the returned function, or the end of the test, ends
// it; the function gives Run's error.
func Run(t testing.TB, ctx context.Context, a platform.Adapter, sink platform.Sink) (stop func() error) {
	t.Helper()
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() { done <- a.Run(ctx, sink) }()
	stop = sync.OnceValue(func() error {
		cancel()
		return <-done
	})
	t.Cleanup(func() { stop() })
	return stop
}

// ErrorOf gives an error as the centre sees it; there must be one.
func ErrorOf(t testing.TB, err error) *platform.Error {
	t.Helper()
	var e *platform.Error
	if !errors.As(err, &e) {
		t.Fatalf("no *platform.Error: %v", err)
	}
	return e
}

// Fails wants an error of a kind and gives it.
func Fails(t testing.TB, err error, kind platform.Kind) *platform.Error {
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
