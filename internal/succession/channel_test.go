package succession

import (
	"context"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"hermes/internal/domain"
)

// pair is both ends of a hand-over in one process.
func pair(t *testing.T) (*Successor, *net.UnixConn) {
	t.Helper()
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	a, err := unixConn(fds[0])
	if err != nil {
		t.Fatal(err)
	}
	b, err := unixConn(fds[1])
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.Close(); b.Close() })
	return Stranger(a, 4711), b
}

func limit(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// A whole hand-over: lock and socket pass, and the profile is held throughout.
func TestHandOverBetweenTwoEnds(t *testing.T) {
	p, ctx := profile(t), limit(t)
	old, err := Claim(p)
	if err != nil {
		t.Fatal(err)
	}
	api, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer api.Close()
	s, end := pair(t)
	result := make(chan error, 1)
	go func() {
		err := s.Offer(ctx, Offer{Instance: old, API: api, Working: []string{"api"}, Elders: []Elder{{Record: old.Record, Socket: "/s"}}})
		if err == nil {
			err = s.Own(ctx, 20*time.Second)
		}
		result <- err
	}()
	l := &Legacy{}
	if err := l.Meet(ctx, end); err != nil {
		t.Fatal(err)
	}
	i, err := l.Claim(p)
	if err != nil {
		t.Fatal(err)
	}
	sock := l.Take(func(s Socket) bool { return s.Name == "api" })
	if sock == nil || sock.Listener.Addr().String() != api.Addr().String() || len(l.Elders) != 1 || l.Waiting.Working[0] != "api" {
		t.Fatalf("%+v, socket %+v", l, sock)
	}
	defer sock.Listener.Close()
	if err := l.Waiting.Ready(ctx, "v2"); err != nil {
		t.Fatal(err)
	}
	if err := l.Waiting.AwaitOwn(ctx); err != nil {
		t.Fatal(err)
	}
	if err := i.Enter(); err != nil {
		t.Fatal(err)
	}
	if err := l.Waiting.Owning(ctx); err != nil {
		t.Fatal(err)
	}
	if err := <-result; err != nil || s.Release != "v2" {
		t.Fatalf("%v, release %q", err, s.Release)
	}
	s.Yours(ctx)
	l.Waiting.AwaitYours(ctx)
	old.Pass()
	if _, held := Holder(p); !held {
		t.Error("the profile is free although the successor serves it")
	}
	i.Release()
	if _, held := Holder(p); held {
		t.Error("the profile is held although both have gone")
	}
}

func TestRefusalsAndDeathsAreTold(t *testing.T) {
	p := profile(t)
	i, err := Claim(p)
	if err != nil {
		t.Fatal(err)
	}
	defer i.Release()
	for name, c := range map[string]struct {
		successor func(*channel)
		code      domain.Code
		says      string
	}{
		"refuses": {func(c *channel) {
			_ = c.send(t.Context(), message{Type: msgRefuse, Reason: "no model", Code: string(domain.Config)})
		}, domain.Config, "no model"},
		"dies":     {func(c *channel) { c.close() }, domain.Unavailable, "ended before it could serve"},
		"babbles":  {func(c *channel) { _, _ = c.conn.Write([]byte("what?\n")) }, domain.Invalid, "no message"},
		"newer":    {func(c *channel) { _, _ = c.conn.Write([]byte(`{"type":"ready","v":99}` + "\n")) }, domain.Conflict, "version 99"},
		"too much": {func(c *channel) { _, _ = c.conn.Write([]byte(strings.Repeat("x", 2*maxMessage))) }, domain.Invalid, "too much"},
	} {
		t.Run(name, func(t *testing.T) {
			s, end := pair(t)
			go c.successor(&channel{conn: end})
			err := s.Offer(limit(t), Offer{Instance: i})
			if domain.CodeOf(err) != c.code || !strings.Contains(domain.MessageOf(err), c.says) {
				t.Errorf("%s: %v", domain.CodeOf(err), err)
			}
		})
	}
}

func TestASilentSuccessorIsGivenUp(t *testing.T) {
	p := profile(t)
	i, err := Claim(p)
	if err != nil {
		t.Fatal(err)
	}
	defer i.Release()
	s, _ := pair(t)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := s.Offer(ctx, Offer{Instance: i}); domain.CodeOf(err) != domain.Timeout {
		t.Errorf("%v", err)
	}
}

func TestAnotherProfileIsNotTakenOver(t *testing.T) {
	p, q := profile(t), profile(t)
	i, err := Claim(p)
	if err != nil {
		t.Fatal(err)
	}
	defer i.Release()
	s, end := pair(t)
	offered := make(chan error, 1)
	ctx := limit(t)
	go func() { offered <- s.Offer(ctx, Offer{Instance: i}) }()
	l := &Legacy{}
	if err := l.Meet(ctx, end); err != nil {
		t.Fatal(err)
	}
	_, err = l.Claim(q)
	if !domain.IsCode(err, domain.Conflict) {
		t.Errorf("%v", err)
	}
	l.Waiting.Refuse(ctx, err)
	if err := <-offered; !domain.IsCode(err, domain.Conflict) {
		t.Errorf("the predecessor heard %v", err)
	}
}

func TestEnvironmentOfASuccessor(t *testing.T) {
	got := WithoutLegacy([]string{"A=1", "LISTEN_FDS=1", "LISTEN_PID=2", "LISTEN_FDNAMES=x", "WATCHDOG_PID=3", "WATCHDOG_USEC=4", "HERMES_HANDOVER={}", "NOTIFY_SOCKET=/n"})
	if strings.Join(got, " ") != "A=1 WATCHDOG_USEC=4 NOTIFY_SOCKET=/n" {
		t.Errorf("%q", got)
	}
}

func TestModes(t *testing.T) {
	for want, env := range map[Mode]map[string]string{
		Overlap: {"HERMES_GATEWAY_HANDOVER": "overlap"},
		InPlace: {"HERMES_GATEWAY_EXTERNAL_SUPERVISOR": "1"},
	} {
		if got := ModeOf(func(k string) string { return env[k] }); got != want {
			t.Errorf("%v gives %s, want %s", env, got, want)
		}
	}
	if !Ancestor(os.Getppid(), os.Getpid()) || Ancestor(os.Getpid(), os.Getppid()) || Ancestor(os.Getpid(), 1<<30) {
		t.Error("descent is told wrongly")
	}
}
