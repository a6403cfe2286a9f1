package control

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"hermes/internal/domain"
	"hermes/internal/home"
)

type gateway struct {
	poked  chan struct{}
	reason chan string
}

func (g *gateway) Status(context.Context) Status {
	return Status{Profile: "liam", Healthy: true, PID: 7}
}
func (g *gateway) Poke()                  { g.poked <- struct{}{} }
func (g *gateway) Shutdown(reason string) { g.reason <- reason }

func (g *gateway) PokeLane(string) bool       { return false }
func (g *gateway) Refuses(int) error          { return nil }
func (g *gateway) Replace(*net.UnixConn, int) {}

func (g *gateway) Restart(context.Context, RestartRequest) (Restarted, error) {
	return Restarted{Mode: "overlap", PID: 8, OldPID: 7}, nil
}

func serve(t *testing.T, path string) *gateway {
	t.Helper()
	g := &gateway{make(chan struct{}, 1), make(chan string, 1)}
	s, err := Listen(path, g)
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		if err := s.Stop(ctx); err != nil {
			t.Error(err)
		}
		if _, err := os.Stat(path); !os.IsNotExist(err) {
			t.Errorf("the socket is still there: %v", err)
		}
	})
	return g
}

func TestCommandsReachTheGateway(t *testing.T) {
	t.Cleanup(func() { goleak.VerifyNone(t) })
	path := filepath.Join(t.TempDir(), "gateway.sock")
	g := serve(t, path)
	if st, err := os.Stat(path); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("the socket must be its owner's only: %v %v", st.Mode(), err)
	}
	c := Dial(path)
	if s, err := c.Status(t.Context()); err != nil || s.Profile != "liam" || !s.Healthy {
		t.Errorf("%+v %v", s, err)
	}
	if err := c.Poke(t.Context()); err != nil {
		t.Error(err)
	}
	<-g.poked
	if err := c.Stop(t.Context(), "a reason with spaces & signs"); err != nil {
		t.Error(err)
	}
	if r := <-g.reason; r != "a reason with spaces & signs" {
		t.Errorf("reason %q", r)
	}
}

func TestNobodyListens(t *testing.T) {
	dir := t.TempDir()
	if _, err := Dial(filepath.Join(dir, "none.sock")).Status(t.Context()); !domain.IsCode(err, domain.NotFound) {
		t.Errorf("no socket: %v", err)
	}
	if err := Dial(filepath.Join(dir, "none.sock")).Poke(t.Context()); err != nil {
		t.Errorf("a poke needs nobody: %v", err)
	}
	// A socket file whose process died.
	path := filepath.Join(dir, "dead.sock")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	l.Close()
	if _, err := Dial(path).Status(t.Context()); !domain.IsCode(err, domain.NotFound) {
		t.Errorf("dead socket: %v", err)
	}
	serve(t, path) // and it stands in nobody's way
}

func TestASocketThatDoesNotAnswer(t *testing.T) {
	path := filepath.Join(t.TempDir(), "mute.sock")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := Dial(path).Status(ctx); !domain.IsCode(err, domain.Unavailable) {
		t.Errorf("%v", err)
	}
}

func TestALongHomeGetsAShortSocket(t *testing.T) {
	p := home.Profile{Home: "/" + strings.Repeat("long/", 40)}
	runtime := t.TempDir()
	env := func(k string) string {
		if k == "XDG_RUNTIME_DIR" {
			return runtime
		}
		return ""
	}
	path := SocketPath(p, env)
	if len(path) > maxSocketPath || !strings.HasPrefix(path, runtime+"/hermes/") {
		t.Errorf("%q", path)
	}
	if other := SocketPath(home.Profile{Home: p.Home + "x"}, env); other == path {
		t.Error("two homes share a socket")
	}
	if got := SocketPath(home.Profile{Home: "/h"}, env); got != "/h/gateway.sock" {
		t.Errorf("%q", got)
	}
}
