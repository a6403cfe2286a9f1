package update

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"hermes/internal/failpoint"
	"hermes/testkit/rig"
)

// From one version to the next, to one that is never well, and back; with a
// gateway that is handed over beside itself, one in place, and a scheduler alone.
func TestUpdateThereAndBack(t *testing.T) {
	w := newWorld(t, next)
	w.home.Env = []string{"HERMES_GATEWAY_HANDOVER=overlap"}
	w.start("default", "gateway", "run")
	w.home.Env = nil
	w.start("liam", "gateway", "run")
	w.start("liam", "cron", "run")

	out, err := w.update(nil, "--check")
	if err != nil || !strings.Contains(out, "1.1.0 can be had; this is 1.0.0") {
		t.Fatalf("%v\n%s", err, out)
	}
	before := w.serves("liam").PID
	out, err = w.update(nil)
	if err != nil {
		t.Fatalf("%v\n%s\n%s", err, out, w.log())
	}
	for _, part := range []string{"✓ Restarted the gateway of default", "✓ Restarted the gateway of liam", "✓ Restarted the scheduler of liam", "✓ Updated to 1.1.0 (was 1.0.0)"} {
		if !strings.Contains(out, part) {
			t.Errorf("%q is missing in:\n%s", part, out)
		}
	}
	w.want(next, next, next)
	w.last("✓ ")
	if w.serves("liam").PID != before {
		t.Error("the gateway that goes on in place has another PID")
	}
	if w.pinned("default") || w.pinned("liam") {
		t.Error("pins were left, though the link leads to the version")
	}
	if out, err = w.update(nil); err != nil || !strings.Contains(out, "✓ 1.1.0 is the newest version") {
		t.Errorf("%v\n%s", err, out)
	}

	text, err := os.ReadFile(program(t, sick))
	w.must(err)
	_, err = w.folder.Add("stable", sick, text)
	w.must(err)
	out, err = w.update(nil)
	if err == nil || !strings.Contains(out, "the gateway of default is not well on 1.2.0") || !strings.Contains(out, "This release is sick") || !strings.Contains(out, "went back to 1.1.0") {
		t.Errorf("%v\n%s", err, out)
	}
	w.want(next, next, next)
	w.last("✗ ")

	out, err = w.update(nil, "--rollback")
	if err != nil || !strings.Contains(out, "✓ Went back to 1.0.0 (was 1.1.0)") {
		t.Errorf("%v\n%s", err, out)
	}
	w.want(first, first, first)
	w.last("✓ ")
}

// Killed at each step, an update leaves what works, tells so in the log, and goes
// on when it is run again.
func TestUpdateKilledAtEveryStep(t *testing.T) {
	for _, mark := range failpoint.Update() {
		t.Run(mark, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, next)
			w.start("default", "gateway", "run")
			if out, err := w.update([]string{"HERMES_FAILPOINT=" + mark}); err == nil || !strings.Contains(err.Error(), "killed") {
				t.Fatalf("it was not killed: %v\n%s", err, out)
			}
			if s := w.serves("default"); s.State != "running" || s.Version != first && s.Version != next {
				t.Errorf("after the kill the profile is %s on %q", s.State, s.Version)
			}
			w.last("✗ ") // the command above completed it
			ctx, cancel := rig.Deadline(patience)
			defer cancel()
			// A crash in between is served as well.
			if out, err := w.home.Run(ctx, "-p", "default", "gateway", "restart"); err != nil {
				t.Errorf("%v\n%s", err, out)
			}
			if out, err := w.update(nil); err != nil {
				t.Errorf("%v\n%s\n%s", err, out, w.log())
			}
			w.want(next, next)
			w.last("✓ ")
			if w.pinned("default") {
				t.Error("a pin was left")
			}
			left, err := filepath.Glob(filepath.Join(w.user, ".local/share/hermes/versions/.*"))
			if err != nil || len(left) != 0 {
				t.Errorf("left behind: %v %v", left, err)
			}
			if out, err := w.update(nil, "--rollback"); err != nil {
				t.Errorf("%v\n%s\n%s", err, out, w.log())
			}
			w.want(first, first)
		})
	}
}

// A restart during an update is refused, and two updates exclude each other.
func TestUpdateAlone(t *testing.T) {
	w := newWorld(t, next)
	ctx, cancel := rig.Deadline(patience)
	defer cancel()
	hung := w.home.Command(ctx, "update", "--yes")
	hung.Env = append(hung.Env, fmt.Sprintf("HERMES_FAILPOINT=%s:1:hang", failpoint.UpdateBegun))
	w.must(hung.Start())
	t.Cleanup(func() { _ = hung.Process.Kill(); _ = hung.Wait() })
	for !strings.Contains(w.log(), "update from 1.0.0") {
		if ctx.Err() != nil {
			t.Fatal("the update does not begin")
		}
	}
	for _, args := range [][]string{{"update", "--yes"}, {"gateway", "restart"}} {
		out, err := w.home.Run(ctx, args...)
		if err == nil || !strings.Contains(out, "the update from 1.0.0 is under way") {
			t.Errorf("%v: %v\n%s", args, err, out)
		}
	}
}
