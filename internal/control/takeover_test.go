package control

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"hermes/internal/domain"
)

// fake is a gateway that tells which one it is.
type fake struct {
	pid     int
	refuses error
	seen    int // of Refuses
	met     chan *net.UnixConn
}

func (f *fake) Status(context.Context) Status { return Status{PID: f.pid} }
func (f *fake) Poke()                         {}
func (f *fake) Shutdown(string)               {}
func (f *fake) Refuses(pid int) error         { f.seen = pid; return f.refuses }
func (f *fake) PokeLane(key string) bool      { return key == "a:b c" }
func (f *fake) Replace(c *net.UnixConn, _ int) {
	f.met <- c
}
func (f *fake) Restart(_ context.Context, r RestartRequest) (Restarted, error) {
	return Restarted{Mode: r.Reason, PID: f.pid}, nil
}

func stop(t *testing.T, s *Server) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := s.Stop(ctx); err != nil {
		t.Error(err)
	}
}

func answers(t *testing.T, path string, pid int) {
	t.Helper()
	s, err := Dial(path).Status(t.Context())
	if err != nil || s.PID != pid {
		t.Fatalf("at %s: %d %v, want %d", path, s.PID, err, pid)
	}
}

// The profile's name passes in one step; the one before stays reachable under
// its own, and takes the name back when the successor fails.
func TestTheNamePasses(t *testing.T) {
	path := filepath.Join(t.TempDir(), "gateway.sock")
	old, err := Listen(path, &fake{pid: 1})
	if err != nil {
		t.Fatal(err)
	}
	old.Start()
	aside, err := old.StepAside()
	if err != nil {
		t.Fatal(err)
	}
	// TakePlace names its socket by the PID too, which is the same in one
	// process: move the old one's name away.
	moved := aside + "0"
	if err := os.Rename(aside, moved); err != nil {
		t.Fatal(err)
	}
	old.own = moved
	next, err := TakePlace(path, &fake{pid: 2})
	if err != nil {
		t.Fatal(err)
	}
	next.Start()
	answers(t, path, 2)
	answers(t, moved, 1)
	if got := Asides(path); len(got) != 1 {
		t.Errorf("second names: %v", got)
	}
	if err := old.StepBack(); err != nil {
		t.Fatal(err)
	}
	answers(t, path, 1)
	if err := old.StepBack(); err != nil { // it has it already
		t.Fatal(err)
	}
	next.Passed()
	stop(t, next)
	answers(t, path, 1)
	stop(t, old)
	if left, _ := filepath.Glob(path + "*"); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestRestartAndPokeOverTheSocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "gateway.sock")
	g := &fake{pid: 7}
	s, err := Listen(path, g)
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	defer stop(t, s)
	c := Dial(path)
	done, err := c.Restart(t.Context(), RestartRequest{Reason: "why"})
	if err != nil || done.Mode != "why" || done.PID != 7 {
		t.Fatalf("%+v %v", done, err)
	}
	if g.seen != os.Getpid() {
		t.Errorf("the peer was taken for %d, it is %d", g.seen, os.Getpid())
	}
	if !c.PokeLane(t.Context(), "a:b c") || c.PokeLane(t.Context(), "x") {
		t.Error("a lane was not told apart")
	}
	g.refuses = domain.E(domain.Forbidden, nil, "not you")
	if _, err := c.Restart(t.Context(), RestartRequest{}); !domain.IsCode(err, domain.Forbidden) || domain.MessageOf(err) != "not you" {
		t.Errorf("restart: %v", err)
	}
	if err := c.Stop(t.Context(), ""); !domain.IsCode(err, domain.Forbidden) {
		t.Errorf("stop: %v", err)
	}
	if _, err := Ask(t.Context(), path); !domain.IsCode(err, domain.Forbidden) || domain.MessageOf(err) != "not you" {
		t.Errorf("replace: %v", err)
	}
}

func TestAskGivesTheConnection(t *testing.T) {
	path := filepath.Join(t.TempDir(), "gateway.sock")
	if _, err := Ask(t.Context(), path); !domain.IsCode(err, domain.NotFound) {
		t.Fatalf("nobody there: %v", err)
	}
	g := &fake{met: make(chan *net.UnixConn, 1)}
	s, err := Listen(path, g)
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	defer stop(t, s)
	mine, err := Ask(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	defer mine.Close()
	theirs := <-g.met
	defer theirs.Close()
	if _, err := theirs.Write([]byte("hello")); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, 5)
	if _, err := mine.Read(got); err != nil || string(got) != "hello" {
		t.Fatalf("%q %v", got, err)
	}
}

// A socket that was swept away is found again; one whose name has passed is not
// taken back.
func TestASweptSocketIsRestored(t *testing.T) {
	path := filepath.Join(t.TempDir(), "deep", "gateway.sock")
	s, err := Listen(path, &fake{pid: 1})
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	defer stop(t, s)
	if restored, err := s.Restore(path); restored || err != nil {
		t.Errorf("restored %v %v, and nothing was amiss", restored, err)
	}
	for _, sweep := range []string{path, filepath.Dir(path)} {
		if err := os.RemoveAll(sweep); err != nil {
			t.Fatal(err)
		}
		if restored, err := s.Restore(path); !restored || err != nil {
			t.Fatalf("restored %v %v", restored, err)
		}
		answers(t, path, 1)
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%v %v", info.Mode(), err)
		}
	}
	// It is looked for somewhere else from now on.
	before := path
	path = filepath.Join(t.TempDir(), "new", "gateway.sock")
	if restored, err := s.Restore(path); !restored || err != nil {
		t.Fatalf("restored %v %v", restored, err)
	}
	answers(t, path, 1)
	if !missing(before) {
		t.Error("the old name is left")
	}
	// Swept away between two hand-overs, of which the first came to nothing.
	aside, err := s.StepAside()
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{path, aside} {
		if err := os.Remove(name); err != nil {
			t.Fatal(err)
		}
	}
	if aside, err = s.StepAside(); err != nil {
		t.Fatal(err)
	}
	answers(t, path, 1)
	answers(t, aside, 1)
	if err := os.Remove(aside); err != nil {
		t.Fatal(err)
	}
	if aside, err = s.StepAside(); err != nil {
		t.Fatal(err)
	}
	answers(t, aside, 1)
	s.Passed()
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if restored, err := s.Restore(path); restored || err != nil {
		t.Errorf("restored %v %v what is the successor's", restored, err)
	}
}
