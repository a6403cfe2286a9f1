package gateway

import (
	"context"
	"database/sql"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"hermes/internal/control"
	"hermes/internal/domain"
	"hermes/testkit/llm"
)

// manager is a service manager's end of the notifications.
type manager struct{ *net.UnixConn }

func newManager(t *testing.T, s *setup) manager {
	t.Helper()
	path := filepath.Join(s.dir, "notify")
	c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	s.env = append(s.env, "NOTIFY_SOCKET="+path)
	return manager{c}
}

// await reads until a message has the text, and gives it.
func (m manager) await(t *testing.T, want string) string {
	t.Helper()
	_ = m.SetReadDeadline(time.Now().Add(limit))
	for buf := make([]byte, 4096); ; {
		n, err := m.Read(buf)
		if err != nil {
			t.Fatalf("%q was not said: %v", want, err)
		}
		if text := string(buf[:n]); strings.Contains(text, want) {
			return text
		}
	}
}

// occupy takes the ledger's write lock, as another process would.
func occupy(t *testing.T, s *setup) (free func()) {
	t.Helper()
	db, err := sql.Open("sqlite", filepath.Join(s.dir, "ledger.db"))
	if err != nil {
		t.Fatal(err)
	}
	db.SetMaxOpenConns(1)
	if _, err := db.Exec("BEGIN EXCLUSIVE"); err != nil {
		t.Fatal(err)
	}
	return func() {
		if _, err := db.Exec("ROLLBACK"); err != nil {
			t.Error(err)
		}
		db.Close()
	}
}

// answer asks the control socket until somebody is there.
func answer(t *testing.T, s *setup) control.Status {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	for {
		st, err := control.Dial(filepath.Join(s.dir, "gateway.sock")).Status(ctx)
		if err == nil {
			return st
		}
		select {
		case <-ctx.Done():
			t.Fatal("nobody answers")
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// A start that another process holds up is no start that hangs: the manager is
// asked for more time, commands get an answer, and it goes on by itself.
func TestTheStartWaitsForABusyLedger(t *testing.T) {
	s := newSetup(t, llm.Echo, "")
	m := newManager(t, s)
	free := occupy(t, s)
	made := make(chan error, 1)
	var g *Gateway
	go func() {
		var err error
		g, err = s.make()
		made <- err
	}()
	if said := m.await(t, "EXTEND_TIMEOUT_USEC=60000000"); !strings.Contains(said, "STATUS=waiting for the ledger: ") {
		t.Errorf("the manager was told %q", said)
	}
	if st := answer(t, s); st.Healthy || st.State != phaseStarting || len(st.Problems) == 0 || !strings.Contains(st.Problems[0], "ledger") {
		t.Errorf("%+v", st)
	}
	if _, err := control.Dial(filepath.Join(s.dir, "gateway.sock")).Restart(t.Context(), control.RestartRequest{}); !domain.IsCode(err, domain.Conflict) {
		t.Errorf("a restart meanwhile: %v", err)
	}
	free()
	select {
	case err := <-made:
		if err != nil {
			t.Fatal(err)
		}
	case <-time.After(limit):
		t.Fatal("it still waits")
	}
	g.close()
}

// Whoever waits can be stopped, by the control socket too.
func TestAStartThatWaitsCanBeStopped(t *testing.T) {
	s := newSetup(t, llm.Echo, "")
	free := occupy(t, s)
	made := make(chan error, 1)
	go func() {
		_, err := s.make()
		made <- err
	}()
	answer(t, s)
	if err := control.Dial(filepath.Join(s.dir, "gateway.sock")).Stop(t.Context(), "enough"); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-made:
		if !domain.IsCode(err, domain.Cancelled) {
			t.Errorf("%v", err)
		}
	case <-time.After(limit):
		t.Error("it still waits")
	}
	free() // so that the attempt that was left behind ends
	if _, err := os.Stat(filepath.Join(s.dir, "gateway.pid")); err == nil {
		t.Error("it left its PID file")
	}
}

// What passes by itself is waited for; what somebody must mend is not.
func TestWhatPasses(t *testing.T) {
	for code, want := range map[domain.Code]bool{domain.StorageFull: true, domain.Unavailable: true, domain.Config: false, domain.Conflict: false, domain.Internal: false} {
		if got := passes(domain.E(code, nil, "x")); got != want {
			t.Errorf("%s: %v", code, got)
		}
	}
	if passes(nil) {
		t.Error("nothing to wait for")
	}
	w := &waiting{}
	if !w.because("no space") || w.because("no space") {
		t.Error("the same cause is no news")
	}
}
