package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"hermes/internal/cron"
)

// A scheduler in the foreground, with no gateway, is a live scheduler for every
// command; of two, one fires; and each of them is told by its PID.
func TestALoneSchedulerIsSeen(t *testing.T) {
	t.Parallel()
	w := withJobs(t, options{})
	w.script("tell.sh", "echo fired >> \"$HERMES_HOME/fired\"\necho the script speaks\n", 0o600)
	w.must("cron", "create", "0 4 * * *", "--no-agent", "--script", "tell.sh", "--name", "tell", "--deliver", "telegram")
	scheduler := func() (st cron.Status) {
		t.Helper()
		if err := json.Unmarshal([]byte(w.must("cron", "status", "--json")), &st); err != nil {
			t.Fatal(err)
		}
		return st
	}
	if st := scheduler(); st.Running || !strings.Contains(st.Who, "no scheduler runs") {
		t.Errorf("%+v", st)
	}
	first := w.launch(nil, "cron", "run")
	pid := first.Cmd.Process.Pid
	w.eventually("it is seen", func() bool { return scheduler().PID == pid })
	if out := w.must("cron", "status"); !strings.Contains(out, fmt.Sprintf("`hermes cron run` alone, PID %d", pid)) {
		t.Error(out)
	}
	if out, code := w.run("gateway", "status"); code != 1 || !strings.Contains(out, fmt.Sprintf("alone, PID %d", pid)) {
		t.Errorf("exit %d\n%s", code, out)
	}
	second := w.launch(nil, "cron", "run")
	if out := w.must("cron", "run", "--no-wait", "tell"); !strings.Contains(out, "started by the running scheduler") {
		t.Error(out)
	}
	w.sees(ada, "the script speaks")
	if out := w.must("cron", "pause", "tell"); !strings.Contains(out, "is paused") || strings.Contains(out, "no scheduler") {
		t.Error(out)
	}
	// An instant of the schedule, with two schedulers: once. It comes soon.
	w.must("cron", "resume", "tell")
	w.must("cron", "edit", "tell", "--schedule", time.Now().Add(2*time.Second).UTC().Format("2006-01-02T15:04:05Z"))
	w.eventually("it has fired by itself", func() bool {
		r := w.lastRun("tell")
		return !r.Manual && r.State.Ended() && r.Delivery == "sent"
	})
	fired, err := os.ReadFile(filepath.Join(w.home.Dir, "fired"))
	if n := strings.Count(string(fired), "fired"); err != nil || n != 2 || w.count(ada, "the script speaks") != 2 {
		t.Errorf("it ran %d times (%v) and was told %d times", n, err, w.count(ada, "the script speaks"))
	}
	// What one held the other takes over.
	w.stop(first)
	w.eventually("the other one is the scheduler", func() bool { return scheduler().PID == second.Cmd.Process.Pid })
	w.stop(second)
	if st := scheduler(); st.Running {
		t.Errorf("%+v", st)
	}
}
