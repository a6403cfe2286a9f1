package sqlite_test

import (
	"bufio"
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"hermes/internal/domain"
	"hermes/internal/ledger"
	"hermes/internal/ledger/sqlite"
)

func child(t *testing.T, mode, path string, wrapper ...string) *exec.Cmd {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	args := append(wrapper, exe)
	cmd := exec.CommandContext(t.Context(), args[0], args[1:]...)
	cmd.Env = append(os.Environ(), childMode+"="+mode, childPath+"="+path)
	return cmd
}

// TestKilled kills a writing process again and again, at random points, and
// holds the ledger to every word that it said.
func TestKilled(t *testing.T) {
	rounds := 50
	if testing.Short() {
		rounds = 5
	}
	path := ledgerPath(t)
	var said []string
	for range rounds {
		said = append(said, killAfter(t, path, 1+rand.IntN(120))...)
	}
	if len(said) < rounds {
		t.Fatalf("only %d acknowledgements in %d rounds", len(said), rounds)
	}
	s := open(t, path)
	if _, err := s.Recover(t.Context(), time.Now()); err != nil {
		t.Fatal(err)
	}
	for _, line := range said {
		checkAcknowledged(t, s, line)
	}
	checkWhole(t, path)
	t.Logf("%d acknowledgements held", len(said))
}

// killAfter runs a writer, kills it after some acknowledgements, and gives all
// that it said.
func killAfter(t *testing.T, path string, lines int) (said []string) {
	t.Helper()
	cmd := child(t, "write", path)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	sc := bufio.NewScanner(out)
	for sc.Scan() {
		said = append(said, sc.Text())
		if len(said) == lines {
			cmd.Process.Kill()
		}
	}
	cmd.Wait() // it was killed
	if stderr.Len() > 0 {
		t.Fatalf("the writer failed: %s", stderr.String())
	}
	return said
}

func checkAcknowledged(t *testing.T, s ledger.Store, line string) {
	t.Helper()
	var id, delivery int64
	kind, _, _ := strings.Cut(line, " ")
	switch kind {
	case "event":
		fmt.Sscanf(line, "event %d", &id)
		if _, err := s.Inbound(t.Context(), id); err != nil {
			t.Errorf("%s: %v", line, err)
		}
	case "turn":
		fmt.Sscanf(line, "turn %d %d", &id, &delivery)
		turn, err := s.Turn(t.Context(), id)
		if err != nil || turn.State != domain.TurnDone {
			t.Errorf("%s: the turn is %q: %v", line, turn.State, err)
		}
		ds, err := s.Deliveries(t.Context(), ledger.DeliveryFilter{TurnID: id})
		if err != nil || len(ds) != 1 || ds[0].ID != delivery {
			t.Errorf("%s: its deliveries are %v: %v", line, ds, err)
		}
	case "sent":
		fmt.Sscanf(line, "sent %d", &id)
		ds, err := s.Deliveries(t.Context(), ledger.DeliveryFilter{Before: id + 1, Limit: 1})
		if err != nil || len(ds) != 1 || ds[0].State != domain.DeliverySent || ds[0].Receipt != "r" {
			t.Errorf("%s: the delivery is %v: %v", line, ds, err)
		}
	default:
		t.Errorf("the writer said %q", line)
	}
}

// checkWhole asks the file itself that nothing is half done.
func checkWhole(t *testing.T, path string) {
	t.Helper()
	for what, q := range map[string]string{
		"done turns without an answer":    `SELECT (SELECT count(*) FROM turn WHERE state = 'done') - (SELECT count(DISTINCT content) FROM message WHERE role = 'assistant')`,
		"answers given twice":             `SELECT count(*) - count(DISTINCT content) FROM message WHERE role = 'assistant'`,
		"done turns without one delivery": `SELECT count(*) FROM turn WHERE state = 'done' AND (SELECT count(*) FROM delivery WHERE turn_id = turn.id) <> 1`,
		"done turns with an open event":   `SELECT count(*) FROM turn JOIN inbound ON inbound.turn_id = turn.id WHERE turn.state = 'done' AND inbound.state <> 'done'`,
		"deliveries of open turns":        `SELECT count(*) FROM delivery JOIN turn ON turn.id = delivery.turn_id WHERE turn.state <> 'done'`,
		"sent without a receipt":          `SELECT count(*) FROM delivery WHERE state = 'sent' AND (receipt = '' OR sent_at IS NULL)`,
		"wrong counts of messages":        `SELECT count(*) FROM session WHERE message_count <> (SELECT count(*) FROM message WHERE session = session.n)`,
	} {
		if n := sqlite.QueryInt(t, path, q); n != 0 {
			t.Errorf("%s: %d", what, n)
		}
	}
	if got := sqlite.QueryText(t, path, "PRAGMA integrity_check"); got != "ok" {
		t.Errorf("integrity check: %s", got)
	}
}

// TestSyncedBeforeAcknowledged watches the system calls of a process: what it
// acknowledges was synchronised to the disk before.
func TestSyncedBeforeAcknowledged(t *testing.T) {
	strace, err := exec.LookPath("strace")
	if err != nil {
		t.Skip("strace is not installed")
	}
	trace := filepath.Join(t.TempDir(), "trace")
	cmd := child(t, "acknowledge", ledgerPath(t), strace, "-f", "-qq", "-e", "trace=write,pwrite64,fsync,fdatasync", "-o", trace)
	if out, err := cmd.CombinedOutput(); err != nil {
		if bytes.Contains(out, []byte("ptrace")) {
			t.Skipf("this system allows no tracing: %s", out)
		}
		t.Fatalf("%v: %s", err, out)
	}
	b, err := os.ReadFile(trace)
	if err != nil {
		t.Fatal(err)
	}
	var (
		wrote     = regexp.MustCompile(`pwrite64\(`)
		synced    = regexp.MustCompile(`(fsync|fdatasync).*= 0$`)
		said      = regexp.MustCompile(`write\(1, "acknowledged \d+`)
		dirty     bool
		clean     bool
		confirmed int
	)
	for line := range strings.Lines(string(b)) {
		line = strings.TrimSpace(line)
		switch {
		case wrote.MatchString(line):
			dirty, clean = true, false
		case synced.MatchString(line):
			clean = dirty
		case said.MatchString(line):
			if !clean {
				t.Errorf("acknowledged before the log was synchronised: %s", line)
			}
			dirty, clean = false, false
			confirmed++
		}
	}
	if confirmed != acknowledgements {
		t.Fatalf("%d acknowledgements in the trace, want %d:\n%s", confirmed, acknowledgements, b)
	}
}

// TestTwoProcesses writes from two processes at once: both get on.
func TestTwoProcesses(t *testing.T) {
	path := ledgerPath(t)
	s := open(t, path)
	cmd := child(t, "write", path)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	sc := bufio.NewScanner(out)
	for n := range 200 {
		if !sc.Scan() {
			t.Fatal("the other process stopped")
		}
		if err := s.SetNote(t.Context(), "n", fmt.Sprint(n)); err != nil {
			t.Fatalf("after %d lines of the other process: %v", n, err)
		}
	}
	dead := cmd.Process.Pid
	if rec, err := s.Recover(t.Context(), time.Now()); err != nil || rec.Processes != 0 {
		t.Fatalf("process %d lives, but Recover found %+v: %v", dead, rec, err)
	}
	cmd.Process.Kill()
	cmd.Wait()
	if rec, err := s.Recover(t.Context(), time.Now()); err != nil || rec.Processes != 1 {
		t.Fatalf("process %d was killed, but Recover found %+v: %v", dead, rec, err)
	}
}
