package cron

import (
	"bufio"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"hermes/internal/clock/clocktest"
	"hermes/internal/domain"
	"hermes/internal/health"
	"hermes/internal/home"
	"hermes/internal/ledger/sqlite"
)

// TestKilledInTheMiddle kills a scheduler's process while a script runs, and
// while a run is due, and looks at what the next life makes of it.
func TestKilledInTheMiddle(t *testing.T) {
	if dir := os.Getenv("CRON_TEST_HOME"); dir != "" {
		dieInTheMiddle(t, dir)
		return
	}
	for _, policy := range []string{InterruptFail, InterruptRetry} {
		t.Run(policy, func(t *testing.T) {
			r := newRig(t)
			count := filepath.Join(r.home, "count")
			began := filepath.Join(r.home, "began")
			// The first run hangs until it is killed; the second ends.
			id := r.watchdog("slow", "echo x >> "+count+"\n[ -e "+began+" ] && exit 0\ntouch "+began+"\necho $$ > "+filepath.Join(r.home, "pipe")+"\nexec sleep 300", func(c *Change) {
				c.OnInterrupt, c.Schedule = &policy, ptr("in 10m")
			})
			other := r.watchdog("other", "echo y >> "+count, func(c *Change) { c.Schedule = ptr("in 11m") })
			if err := r.store.Close(); err != nil {
				t.Fatal(err)
			}
			killWhenBegan(t, r)

			r.store = r.open()
			r.clock.Set(begin.Add(11 * time.Minute))
			if _, err := r.store.Recover(t.Context(), r.clock.Now()); err != nil {
				t.Fatal(err)
			}
			for range 2 { // a second start must not report or repeat it again
				if _, err := r.scheduler().Tick(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
			b, err := os.ReadFile(count)
			if err != nil {
				t.Fatal(err)
			}
			if n := strings.Count(string(b), "y"); n != 1 || r.states(other) != "10:11 silent" {
				t.Errorf("the other job ran %d times: %s", n, r.states(other))
			}
			if policy == InterruptRetry {
				if got := r.states(id); got != "10:10 interrupted, 10:10 silent" || strings.Count(string(b), "x") != 2 {
					t.Errorf("got %s, ran %q", got, b)
				}
				r.wantSent()
				return
			}
			if got := r.states(id); got != "10:10 interrupted" || strings.Count(string(b), "x") != 1 {
				t.Errorf("got %s, ran %q", got, b)
			}
			r.wantSent("was cut off")
		})
	}
}

// killWhenBegan runs this test's binary as a scheduler, and kills it as soon
// as the script has begun.
func killWhenBegan(t *testing.T, r *rig) {
	t.Helper()
	pipe := filepath.Join(r.home, "pipe")
	if out, err := exec.CommandContext(t.Context(), "mkfifo", pipe).CombinedOutput(); err != nil {
		t.Skipf("mkfifo is needed to wait for the script: %v %s", err, out)
	}
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestKilledInTheMiddle$")
	cmd.Env = append(os.Environ(), "CRON_TEST_HOME="+r.home)
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(pipe, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(f).ReadString('\n')
	if err != nil {
		t.Errorf("the script did not begin: %v", err)
	}
	if pid, err := strconv.Atoi(strings.TrimSpace(line)); err == nil {
		t.Cleanup(func() { _ = syscall.Kill(pid, syscall.SIGKILL) }) // the script outlives its scheduler
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Error(err)
	}
	_ = cmd.Wait() // it was killed, so this is an error
}

// dieInTheMiddle is the process that is killed: one run at a time, so that the
// other job is still due.
func dieInTheMiddle(t *testing.T, dir string) {
	r := &rig{t: t, home: dir, clock: clocktest.New(begin.Add(11 * time.Minute)), homes: &fakeHomes{homes: map[domain.Platform]domain.Address{"telegram": telegramHome}}}
	store, err := sqlite.Open(t.Context(), sqlite.Options{Path: filepath.Join(dir, "ledger.db"), Kind: "cron", Now: r.clock.Now, NoBallast: true})
	if err != nil {
		t.Fatal(err)
	}
	r.store, r.conf = store, home.CronConfig{MaxParallel: 1}
	s := r.scheduler()
	s.opt.Health = health.New(r.clock.Now).Part("cron")
	if _, err := s.Tick(t.Context()); err != nil {
		t.Fatal(err)
	}
}
