package sqlite

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"hermes/internal/domain"
	"hermes/internal/ledger"
)

func testStore(t *testing.T) *Store {
	t.Helper()
	return mustOpen(t, Options{Path: filepath.Join(t.TempDir(), "ledger.db"), NoBallast: true})
}

// hold keeps the writer busy until the returned function is called.
func hold(t *testing.T, s *Store) (release func()) {
	t.Helper()
	started, end, done := make(chan struct{}), make(chan struct{}), make(chan error, 1)
	go func() {
		first := true
		done <- writeOnly(context.Background(), s, ordinary, func(*conn) error {
			if first {
				first = false
				close(started)
			}
			<-end
			return nil
		})
	}()
	<-started
	return func() {
		close(end)
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

func noteOp(key string) func(*conn) error {
	return func(c *conn) error {
		_, err := c.exec(`INSERT INTO note (key, value) VALUES (?, 'x')`, key)
		return err
	}
}

// TestGroup commits a group in which members fail in every way there is: each
// failure is its member's own, and the others are committed, together.
func TestGroup(t *testing.T) {
	s := testStore(t)
	ctx := context.Background()
	cancelled, cancel := context.WithCancel(ctx)
	boom := errors.New("boom")
	members := []struct {
		key  string
		ctx  context.Context
		op   func(*conn) error
		want func(error) bool
	}{
		{"first", ctx, noteOp("first"), nil},
		{"fails after writing", ctx, func(c *conn) error { noteOp("fails after writing")(c); return boom }, func(err error) bool { return errors.Is(err, boom) }},
		{"panics after writing", ctx, func(c *conn) error { noteOp("panics after writing")(c); panic("oh") }, func(err error) bool { return domain.IsCode(err, domain.Internal) }},
		{"gone", cancelled, noteOp("gone"), func(err error) bool { return domain.IsCode(err, domain.Cancelled) }},
		{"refused", ctx, func(c *conn) error { noteOp("refused")(c); return domain.E(domain.Conflict, nil, "no") }, func(err error) bool { return domain.IsCode(err, domain.Conflict) }},
		{"last", ctx, noteOp("last"), nil},
	}
	release := hold(t, s)
	results := make([]chan error, len(members))
	for i, m := range members {
		results[i] = make(chan error, 1)
		before := len(s.requests)
		go func() { results[i] <- writeOnly(m.ctx, s, ordinary, m.op) }()
		for len(s.requests) == before { // the request waits
			runtime.Gosched()
		}
	}
	cancel()
	release()
	for i, m := range members {
		err := <-results[i]
		if m.want == nil && err != nil || m.want != nil && !m.want(err) {
			t.Errorf("%s: %v", m.key, err)
		}
		want := int64(0)
		if m.want == nil {
			want = 1
		}
		if n := QueryInt(t, s.path, fmt.Sprintf("SELECT count(*) FROM note WHERE key = '%s'", m.key)); n != want {
			t.Errorf("%s: %d rows, want %d", m.key, n, want)
		}
	}
}

// TestGroupWithBrokenStatement has SQLite itself refuse a member: the others
// are committed one by one.
func TestGroupWithBrokenStatement(t *testing.T) {
	s := testStore(t)
	release := hold(t, s)
	results := make(chan error, 3)
	for i, op := range []func(*conn) error{noteOp("a"), func(c *conn) error {
		_, err := c.exec(`INSERT INTO note (key, value) VALUES (?, NULL)`, "b")
		return err
	}, noteOp("c")} {
		go func() { results <- writeOnly(context.Background(), s, ordinary, op) }()
		for len(s.requests) <= i {
			runtime.Gosched()
		}
	}
	release()
	failed := 0
	for range 3 {
		if err := <-results; err != nil {
			failed++
		}
	}
	if n := QueryInt(t, s.path, `SELECT count(*) FROM note`); failed != 1 || n != 2 {
		t.Errorf("%d failed, %d committed", failed, n)
	}
}

// TestBusyStore waits for another process that holds the write lock, as long as
// the caller wants, and no longer.
func TestBusyStore(t *testing.T) {
	s := testStore(t)
	dsn, err := connector(s.path, false)
	if err != nil {
		t.Fatal(err)
	}
	other, err := openConn(dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer other.close()
	if _, err := other.exec("BEGIN IMMEDIATE"); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := s.SetNote(ctx, "k", "v"); !domain.IsCode(err, domain.Timeout) {
		t.Errorf("a store that is held: %v", err)
	}
	if _, err := s.Note(t.Context(), "k"); err != nil {
		t.Errorf("reading is held up as well: %v", err)
	}
	done := make(chan error, 1)
	go func() { done <- s.SetNote(t.Context(), "k", "w") }()
	if _, err := other.exec("ROLLBACK"); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Errorf("after the lock was free: %v", err)
	}
}

// TestClosed answers whoever comes late, or waits, in place of hanging.
func TestClosed(t *testing.T) {
	s := testStore(t)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := s.SetNote(t.Context(), "k", "v"); !domain.IsCode(err, domain.Unavailable) {
		t.Errorf("write after close: %v", err)
	}
	if _, err := s.Note(t.Context(), "k"); !domain.IsCode(err, domain.Unavailable) {
		t.Errorf("read after close: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Errorf("closed twice: %v", err)
	}
	if n := QueryInt(t, s.path, `SELECT count(*) FROM process`); n != 0 {
		t.Errorf("%d processes are still registered", n)
	}
}

// TestClosedWithWork leaves what is held to the next Recover.
func TestClosedWithWork(t *testing.T) {
	s := testStore(t)
	c, err := s.StartTurn(t.Context(), ledger.NewTurn{Kind: domain.TurnChat, SessionKey: "k"}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	next := mustOpen(t, Options{Path: s.path, NoBallast: true})
	rec, err := next.Recover(t.Context(), time.Now())
	if err != nil || rec.Requeued != 1 {
		t.Fatalf("recovered %+v: %v", rec, err)
	}
	if turn, err := next.Turn(t.Context(), c.Turn.ID); err != nil || turn.State != domain.TurnQueued {
		t.Errorf("the turn is %s: %v", turn.State, err)
	}
}

// TestLostRegistration stops a process that others took for dead.
func TestLostRegistration(t *testing.T) {
	s := testStore(t)
	execFile(t, s.path, fmt.Sprintf(`DELETE FROM process WHERE id = %d`, s.Self().ID))
	_, err := s.StartTurn(t.Context(), ledger.NewTurn{Kind: domain.TurnChat, SessionKey: "k"}, time.Now())
	if !domain.IsCode(err, domain.Fenced) {
		t.Errorf("a process without a registration claims: %v", err)
	}
}
