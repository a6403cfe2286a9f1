package succession

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestNotifierSendsStatesAndSockets(t *testing.T) {
	path := filepath.Join(t.TempDir(), "notify")
	manager, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer manager.Close()
	env := map[string]string{"NOTIFY_SOCKET": path, "WATCHDOG_USEC": "30000000"}
	n := NewNotifier(func(k string) string { return env[k] })
	if n.WatchdogInterval() != 30*time.Second {
		t.Errorf("interval %s", n.WatchdogInterval())
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for _, c := range []struct {
		want string
		send func() error
	}{
		{"READY=1\nSTATUS=a; b", func() error { return n.Ready("a\nb") }},
		{"STOPPING=1\nSTATUS=x", func() error { return n.Stopping("x") }},
		{"EXTEND_TIMEOUT_USEC=2000000\nSTATUS=y", func() error { return n.Extend(2*time.Second, "y") }},
		{"WATCHDOG=1", n.Ping},
		{"MAINPID=77", func() error { return n.MainPID(77) }},
		{"FDSTORE=1\nFDPOLL=0\nFDNAME=api", func() error { return n.Store("api", l.(*net.TCPListener)) }},
		{"FDSTOREREMOVE=1\nFDNAME=api", func() error { return n.Unstore("api") }},
	} {
		if err := c.send(); err != nil {
			t.Fatalf("%q: %v", c.want, err)
		}
		text, rights := make([]byte, 4096), make([]byte, 64)
		_ = manager.SetReadDeadline(time.Now().Add(10 * time.Second))
		k, r, _, _, err := manager.ReadMsgUnix(text, rights)
		if err != nil || string(text[:k]) != c.want {
			t.Fatalf("got %q (%v), want %q", text[:k], err, c.want)
		}
		if strings.HasPrefix(c.want, "FDSTORE=") {
			checkPassed(t, rights[:r], l.Addr().String())
		}
	}
}

// checkPassed holds that the socket itself was passed.
func checkPassed(t *testing.T, rights []byte, address string) {
	t.Helper()
	msgs, err := syscall.ParseSocketControlMessage(rights)
	if err != nil || len(msgs) != 1 {
		t.Fatalf("control messages: %v %v", msgs, err)
	}
	fds, err := syscall.ParseUnixRights(&msgs[0])
	if err != nil || len(fds) != 1 {
		t.Fatalf("descriptors: %v %v", fds, err)
	}
	l, err := listenerOf(fds[0])
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if l.Addr().String() != address {
		t.Errorf("passed %s, want %s", l.Addr(), address)
	}
}

func TestNoManagerIsNoError(t *testing.T) {
	n := NewNotifier(func(string) string { return "" })
	if n != nil || n.Ready("") != nil || n.Ping() != nil || n.WatchdogInterval() != 0 || n.Store("api", nil) != nil {
		t.Error("a notifier without a manager is not silent")
	}
	env := map[string]string{"NOTIFY_SOCKET": "/nowhere/at/all", "WATCHDOG_USEC": "1000", "WATCHDOG_PID": "1"}
	n = NewNotifier(func(k string) string { return env[k] })
	if n.WatchdogInterval() != 0 {
		t.Error("the watchdog of another process was taken for ours")
	}
	if n.Ping() == nil {
		t.Error("a manager that is gone was not told of")
	}
}

// The protocol fixes descriptor 3 and our own PID, so a process of its own is
// needed: the test binary calls itself by way of a shell that sets LISTEN_PID.
func TestListenFDs(t *testing.T) {
	if os.Getenv("TEST_LISTEN_FDS") != "" {
		got := ListenFDs(os.Getenv)
		if len(got) != 1 || got[0].Name != "api" || !got[0].Stored || got[0].Listener.Addr().String() != os.Getenv("TEST_LISTEN_FDS") {
			t.Fatalf("%+v", got)
		}
		return
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	f, err := l.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	cmd := exec.Command("/bin/sh", "-c", `LISTEN_PID=$$ exec "$0" -test.run '^TestListenFDs$'`, os.Args[0])
	cmd.Env = append(os.Environ(), "TEST_LISTEN_FDS="+l.Addr().String(), "LISTEN_FDS=2", "LISTEN_FDNAMES=api:other")
	cmd.ExtraFiles = []*os.File{f, null}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	env := map[string]string{"LISTEN_PID": strconv.Itoa(os.Getpid() + 1), "LISTEN_FDS": "1"}
	if got := ListenFDs(func(k string) string { return env[k] }); got != nil {
		t.Errorf("took what was meant for another process: %v", got)
	}
}

func TestSameAddress(t *testing.T) {
	for _, c := range []struct {
		bound string
		host  string
		port  int
		want  bool
	}{
		{"127.0.0.1:80", "127.0.0.1", 80, true}, {"127.0.0.1:80", "127.0.0.1", 81, false}, {"127.0.0.1:80", "0.0.0.0", 80, false},
		{"[::]:80", "0.0.0.0", 80, true}, {"[::]:80", "", 80, true}, {"[::]:80", "::", 80, true}, {"127.0.0.1:80", "localhost", 80, true},
		{"127.0.0.1:80", "", 80, false}, {"127.0.0.2:80", "127.0.0.1", 80, false},
	} {
		a, err := net.ResolveTCPAddr("tcp", c.bound)
		if err != nil {
			t.Fatal(err)
		}
		if got := SameAddress(a, c.host, c.port); got != c.want {
			t.Errorf("%s against %s port %d: %v", c.bound, c.host, c.port, got)
		}
	}
}
