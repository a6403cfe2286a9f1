package sqlite

import (
	"os"
	"os/exec"
	"strconv"
	"testing"
	"time"

	"hermes/internal/domain"
	"hermes/internal/ledger"
)

func TestStartTime(t *testing.T) {
	self := startTime("self")
	if self == 0 || self != startTime(strconv.Itoa(os.Getpid())) {
		t.Errorf("start time of this process is %d", self)
	}
	if got := startTime("0"); got != 0 {
		t.Errorf("start time of no process is %d", got)
	}
	if bootID() == "" {
		t.Error("no boot id")
	}
}

// TestAliveWithoutLockFile decides by PID and start time when somebody removed
// the lock files.
func TestAliveWithoutLockFile(t *testing.T) {
	s := testStore(t)
	cmd := exec.Command("cat")
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Skipf("no other process can be started: %v", err)
	}
	other := ledger.Process{ID: 900, BootID: bootID(), PID: cmd.Process.Pid, StartTime: startTime(strconv.Itoa(cmd.Process.Pid))}
	reused, rebooted, predecessor := other, other, s.self
	reused.StartTime--
	rebooted.BootID = "another boot"
	predecessor.ID = 901 // this process before it replaced itself in place
	for name, c := range map[string]struct {
		p    ledger.Process
		want bool
	}{"running": {other, true}, "its PID was given away": {reused, false}, "before a reboot": {rebooted, false}, "predecessor with our PID": {predecessor, false}, "self": {s.self, true}} {
		if got := s.alive(c.p); got != c.want {
			t.Errorf("%s: alive is %v", name, got)
		}
	}
	stdin.Close()
	cmd.Wait()
	if s.alive(other) {
		t.Error("an ended process is alive")
	}
}

// TestNumberInUse registers beside a live process of another ledger in the same
// folder, one that was set aside.
func TestNumberInUse(t *testing.T) {
	s := testStore(t)
	if err := os.WriteFile(s.path+".tmp", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(s.path+".tmp", s.path); err != nil { // a new, empty ledger under the old name
		t.Fatal(err)
	}
	for _, suffix := range []string{"-wal", "-shm"} {
		if err := os.Remove(s.path + suffix); err != nil {
			t.Fatal(err)
		}
	}
	next := mustOpen(t, Options{Path: s.path, NoBallast: true})
	if next.Self().ID == s.Self().ID {
		t.Errorf("both processes are number %d", s.Self().ID)
	}
	if rec, err := next.Recover(t.Context(), time.Now()); err != nil || rec.Processes != 0 {
		t.Errorf("recovered %+v: %v", rec, err)
	}
	if _, err := next.AcquireLease(t.Context(), "l"); err != nil {
		t.Error(domain.MessageOf(err))
	}
}
