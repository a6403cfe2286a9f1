package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"hermes/internal/control"
	"hermes/testkit/llm"
)

// volume mounts a file system of a size in MiB, for the test's time.
func volume(t *testing.T, mib int) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("only root can mount a small file system to fill")
	}
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, fmt.Sprintf("mode=0700,size=%dm", mib)); err != nil {
		t.Skipf("this system lets nobody mount: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// fill takes all the space that is left, to the last block.
func fill(t *testing.T, dir string) (path string) {
	t.Helper()
	path = filepath.Join(dir, "filler")
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	zeros := make([]byte, 1<<20)
	for size := len(zeros); size >= 4096; {
		if _, err := f.Write(zeros[:size]); err != nil {
			size /= 2
		}
	}
	return path
}

// The disk is full: what was accepted is answered with the space of the
// reserve, nothing new is confirmed to Telegram, the status says why, and once
// there is space everything is answered, each message once.
func TestAFullDisk(t *testing.T) {
	dir := volume(t, 400)
	gate := llm.NewGate()
	w := setUp(t, options{dir: dir, brain: obedient(gate), api: true})
	p := w.start()
	ann, bob := w.tg.AddUser("Ann"), w.tg.AddUser("Bob")
	ballast := filepath.Join(w.home.Dir, "ledger.ballast")
	w.eventually("the reserve is in place", func() bool {
		st, err := os.Stat(ballast)
		return err == nil && st.Size() == 16<<20
	})
	w.tg.Say(ann, "gate before")
	<-gate.Arrived()
	filler := fill(t, dir)

	// An API call is the first that needs space: it is refused with a sentence.
	status, body := w.api("POST", "/v1/chat/completions", `{"messages":[{"role":"user","content":"now?"}]}`)
	if status != 503 || !strings.Contains(body, "space") {
		t.Errorf("the API said %d %s", status, body)
	}
	confirmed := w.tg.Confirmed()
	polls := w.tg.Calls("getUpdates")
	w.tg.Say(bob, "while full")
	w.waitStatus("the status says that the disk is full", func(s control.Status) bool { return !s.Healthy && shows(s, "space") })
	gate.Open()
	w.sees(ann.ID, "answer to gate before")
	if got := w.tg.Confirmed(); got != confirmed {
		t.Errorf("update %d was confirmed though it could not be stored", got)
	}
	if n := w.tg.Calls("getUpdates"); n > polls+5 {
		t.Errorf("it polled %d times for what it cannot store", n-polls)
	}
	w.tg.Say(bob, "still full")
	if w.count(bob.ID, "full") != 0 {
		t.Errorf("answered before it was stored\n%s", w.tg.Transcript(bob.ID))
	}
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	w.sees(bob.ID, "still full")
	w.waitStatus("healthy again", func(s control.Status) bool { return s.Healthy })
	w.settled()
	var said strings.Builder
	for _, m := range w.tg.Replies(bob.ID) {
		said.WriteString(m.Text + "\n")
	}
	for _, text := range []string{"while full", "still full"} {
		n := 0
		for _, r := range w.brain.Requests() {
			if strings.Contains(string(r.Raw), text) { // the first may be history of the second
				n++
			}
		}
		if n == 0 {
			t.Errorf("the model never saw %q", text)
		}
		if strings.Count(said.String(), text) > 1 {
			t.Errorf("%q was answered more than once:\n%s", text, w.tg.Transcript(bob.ID))
		}
	}
	if n := w.count(ann.ID, "answer to gate before"); n != 1 {
		t.Errorf("the answer owed was shown %d times", n)
	}
	w.stop(p)
}

// A home that cannot be written, and then can.
func TestAReadOnlyHome(t *testing.T) {
	dir := volume(t, 64)
	remount := func(flags uintptr) error {
		return syscall.Mount("tmpfs", dir, "tmpfs", syscall.MS_REMOUNT|flags, "mode=0700,size=64m")
	}
	w := setUp(t, options{dir: dir})
	p := w.start()
	ann := w.tg.AddUser("Ann")
	w.tg.Say(ann, "before")
	w.sees(ann.ID, "before")
	w.stop(p)
	// A start on it waits, and says why: this heals by itself.
	if err := remount(syscall.MS_RDONLY); err != nil {
		t.Skipf("this system cannot remount read-only: %v", err)
	}
	p = w.launch(nil, "gateway", "run")
	w.waitOutput(p, "read-only file system")
	if out, code := w.run("gateway", "status"); code == 0 {
		t.Errorf("status: %d %s", code, out)
	}
	if err := remount(0); err != nil {
		t.Fatal(err)
	}
	w.tg.Say(ann, "after")
	if err := p.Ready(w.deadline()); err != nil {
		t.Fatal(err)
	}
	w.sees(ann.ID, "after")
	w.stop(p)
}

// A disk that is full when the gateway starts does not end it, which would use
// up the starts that a unit allows: it says what it waits for, can be stopped,
// and serves once there is space.
func TestAStartOnAFullDisk(t *testing.T) {
	dir := volume(t, 64)
	w := setUp(t, options{dir: dir})
	p := w.start()
	ann := w.tg.AddUser("Ann")
	w.tg.Say(ann, "before")
	w.sees(ann.ID, "before")
	w.settled()
	w.stop(p)
	filler := fill(t, dir)

	p = w.launch(nil, "gateway", "run")
	full := func(s control.Status) bool { return s.PID == p.Cmd.Process.Pid && !s.Healthy && shows(s, "space") }
	w.waitStatus("it says that the disk is full", full)
	if out, code := w.run("gateway", "run"); code != 1 || !strings.Contains(out, fmt.Sprintf("PID %d", p.Cmd.Process.Pid)) {
		t.Errorf("a second instance: exit %d %s", code, out)
	}
	if code, err := p.Stop(w.deadline()); code != 0 || err != nil {
		t.Errorf("a stop while it waits: exit %d, %v\n%s", code, err, p.Output())
	}
	p = w.launch(nil, "gateway", "run")
	w.waitStatus("it says so again", full)
	if out, code := w.run("gateway", "stop"); code != 0 {
		t.Errorf("gateway stop while it waits: exit %d %s", code, out)
	}
	w.ended(p, 0)

	p = w.launch(nil, "gateway", "run")
	w.tg.Say(ann, "on a full disk")
	w.waitStatus("and again", full)
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	w.sees(ann.ID, "on a full disk")
	w.waitStatus("healthy again", func(s control.Status) bool { return s.Healthy })
	w.settled()
	if n := w.count(ann.ID, "on a full disk"); n != 1 {
		t.Errorf("answered %d times", n)
	}
	w.stop(p)
}
