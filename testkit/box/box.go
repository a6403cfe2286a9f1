// Package box boots a real systemd (system and user managers, logind, journald)
// over a throw-away overlay of this machine's own root, so that units,
// lingering, logout, crash loops and reboots are tested for real. Nothing that
// happens inside touches the machine: the overlay lies in memory, the network
// is the box's own, and all of it is gone with the process that made it.
package box

import (
	"bufio"
	"bytes"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

//go:embed hold.sh
var holdScript string

// needs maps each program that a box, or a test in it, uses to the Debian package that brings it.
var needs = map[string]string{
	"systemd-nspawn": "systemd-container", "dbus-daemon": "dbus-user-session", "loginctl": "libpam-systemd",
	"nsenter": "util-linux", "unshare": "util-linux", "setpriv": "util-linux", "useradd": "passwd",
	"pgrep": "procps", "curl": "curl", "python3": "python3", "ss": "iproute2", "openssl": "openssl",
}

// Missing says why no box can be made here, "" when one can.
func Missing() string {
	if os.Getuid() != 0 {
		return "a systemd box needs root"
	}
	for program, pkg := range needs {
		if _, err := exec.LookPath(program); err != nil {
			return fmt.Sprintf("a systemd box needs %s (apt-get install %s)", program, pkg)
		}
	}
	if found, _ := filepath.Glob("/lib/*/security/pam_systemd.so"); len(found) == 0 {
		return "a systemd box needs pam_systemd.so (apt-get install libpam-systemd)"
	}
	if _, err := os.Stat("/usr/lib/systemd/user/dbus.socket"); err != nil {
		return "a systemd box needs a user bus (apt-get install dbus-user-session)"
	}
	return ""
}

// Box is one machine. Its methods may be used by several goroutines at once,
// except those that switch the machine off or on.
type Box struct {
	dir    string
	holder *exec.Cmd
	words  io.WriteCloser
	said   *bufio.Reader
	pid    atomic.Int64 // of systemd-nspawn
}

// limits of a step, far over what one takes.
const (
	bootLimit = time.Minute
	stepLimit = 2 * time.Minute
)

// Start boots a box, and throws it away when the test ends. It skips the test,
// naming the reason, where no box can be made.
func Start(t testing.TB) *Box {
	t.Helper()
	if why := Missing(); why != "" {
		t.Skip(why)
	}
	b := &Box{dir: t.TempDir(), holder: exec.CommandContext(context.Background(), "unshare", "--mount", "--propagation", "private", "bash", "-c", holdScript, "hold")}
	b.holder.Args = append(b.holder.Args, b.dir)
	var complaint bytes.Buffer
	b.holder.Stderr = &complaint
	var err error
	if b.words, err = b.holder.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, err := b.holder.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	b.said = bufio.NewReader(out)
	if err := b.holder.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		b.words.Close()
		_ = b.holder.Wait()
	})
	if word, err := b.hear(); err != nil || word != "held" {
		t.Skipf("a systemd box needs overlay mounts and a mount namespace, which cannot be had here: %v %s", err, complaint.String())
	}
	// A user manager ends soon after its last session, as in life, only sooner.
	b.Write(t, "/etc/systemd/logind.conf.d/box.conf", "[Login]\nUserStopDelaySec=200ms\n")
	b.Boot(t)
	return b
}

func (b *Box) hear() (string, error) {
	line, err := b.said.ReadString('\n')
	return strings.TrimSpace(line), err
}

// Boot starts the machine and waits until systemd is up.
func (b *Box) Boot(t testing.TB) {
	t.Helper()
	b.tell(t, "boot")
	word, err := b.hear()
	pid := 0
	if err == nil {
		pid, err = strconv.Atoi(word)
	}
	b.pid.Store(int64(pid))
	if err != nil {
		t.Fatalf("the box did not start: %v", err)
	}
	b.Until(t, bootLimit, "the box to boot", func(ctx context.Context) error {
		state, err := b.Try(ctx, "systemctl is-system-running")
		if state = strings.TrimSpace(state); state == "running" || state == "degraded" {
			return nil
		}
		console, _ := os.ReadFile(b.host("../console.log"))
		return fmt.Errorf("%s: %w\n%s", state, err, console)
	})
}

func (b *Box) tell(t testing.TB, word string) {
	t.Helper()
	if _, err := fmt.Fprintln(b.words, word); err != nil {
		t.Fatalf("the box is gone: %v", err)
	}
}

// Reboot powers the machine off as an operator would and boots it again; the
// files stay.
func (b *Box) Reboot(t testing.TB) {
	t.Helper()
	b.stop(t, "off")
	b.Boot(t)
}

// PowerCut ends the machine as a failing mains does, and boots it again.
func (b *Box) PowerCut(t testing.TB) {
	t.Helper()
	b.stop(t, "cut")
	b.Boot(t)
}

func (b *Box) stop(t testing.TB, word string) {
	t.Helper()
	b.tell(t, word)
	if answer, err := b.hear(); err != nil || answer != "off" {
		t.Fatalf("the box did not go off: %q %v", answer, err)
	}
}

// leader is the box's PID 1 as this machine counts it.
func (b *Box) leader() (string, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%[1]d/task/%[1]d/children", b.pid.Load()))
	if err != nil {
		return "", err
	}
	first, _, _ := strings.Cut(strings.TrimSpace(string(text)), " ")
	if first == "" {
		return "", errors.New("the box has no PID 1")
	}
	return first, nil
}

// Try runs a shell command as root inside and gives what it printed on both
// streams.
func (b *Box) Try(ctx context.Context, command string) (string, error) {
	return b.enter(ctx, "bash", "-c", command)
}

// enter runs a program inside.
func (b *Box) enter(ctx context.Context, argv ...string) (string, error) {
	pid, err := b.leader()
	if err != nil {
		return "", err
	}
	cmd := exec.CommandContext(ctx, "nsenter", append([]string{"-t", pid, "-m", "-u", "-i", "-p", "-n", "-C", "-r", "-w"}, argv...)...)
	cmd.Env = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "USER=root", "LANG=C.UTF-8", "SYSTEMD_PAGER=cat"}
	cmd.WaitDelay = 5 * time.Second // something may keep the pipe after the shell
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// Root runs a shell command as root inside, which must succeed.
func (b *Box) Root(t testing.TB, command string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), stepLimit)
	defer cancel()
	out, err := b.Try(ctx, command)
	if err != nil {
		t.Fatalf("%s: %v\n%s", command, err, out)
	}
	return out
}

// Until tries something until it succeeds, every 50 ms, and fails the test with
// the last error when the limit is reached.
func (b *Box) Until(t testing.TB, limit time.Duration, what string, try func(context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		err := try(ctx)
		if err == nil {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatalf("waited %s in vain for %s: %v", limit, what, err)
		case <-tick.C:
		}
	}
}

// host is where a file of the box lies for this process.
func (b *Box) host(path string) string {
	return filepath.Join(fmt.Sprintf("/proc/%d/root", b.holder.Process.Pid), b.dir, "root", path)
}

// Write makes a file inside, with its folders.
func (b *Box) Write(t testing.TB, path, text string) {
	t.Helper()
	b.put(t, path, []byte(text), 0o644)
}

// Install copies an executable of this machine to a path inside.
func (b *Box) Install(t testing.TB, from, to string) {
	t.Helper()
	data, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	b.put(t, to, data, 0o755)
}

func (b *Box) put(t testing.TB, path string, data []byte, mode os.FileMode) {
	t.Helper()
	at := b.host(path)
	if err := os.MkdirAll(filepath.Dir(at), 0o755); err != nil {
		t.Fatal(err)
	}
	// Another file in its place, since one that runs cannot be written.
	if err := os.WriteFile(at+".new", data, mode); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(at+".new", at); err != nil {
		t.Fatal(err)
	}
}

// Read gives a file's text, "" when there is none.
func (b *Box) Read(path string) string {
	text, _ := os.ReadFile(b.host(path))
	return string(text)
}
