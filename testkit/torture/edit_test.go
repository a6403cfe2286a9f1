package torture

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"hermes/internal/failpoint"
	"hermes/testkit/rig"
)

// configuration is what a home's two files hold.
type configuration struct{ env, config string }

// TestChangeOfBothFilesKilled kills commands that change .env and config.yaml
// together at every instant between their writes: what is read next is the old
// pair or the new one, and the command typed again does its work.
func TestChangeOfBothFilesKilled(t *testing.T) {
	binary, err := rig.Build(t.Context(), t.TempDir(), "failpoint")
	if err != nil {
		t.Fatal(err)
	}
	model := func(name string) []string {
		return []string{"model", "set", "custom", name, "--base-url", "http://127.0.0.1:9/" + name, "--key-stdin", "--no-check"}
	}
	for what, c := range map[string]struct {
		args []string
		in   string
	}{
		"model set": {model("second"), "sk-of-second\n"},
		"setup":     {[]string{"setup", "--non-interactive", "--no-install", "--no-check", "--use", "tasks", "--provider", "custom", "--model", "second", "--base-url", "http://127.0.0.1:9/second", "--secret", "CUSTOM_API_KEY=env:SECOND"}, ""},
		"rollback":  {[]string{"config", "rollback", "1", "--files-only"}, ""},
	} {
		for _, mark := range failpoint.Edit() {
			t.Run(what+"/"+mark, func(t *testing.T) {
				t.Parallel()
				h, err := rig.NewHome(filepath.Join(t.TempDir(), ".hermes"), binary, "model:\n  provider: custom\n  default: zeroth\n  base_url: http://127.0.0.1:9/zeroth\n", "CUSTOM_API_KEY=sk-of-zeroth\n")
				if err != nil {
					t.Fatal(err)
				}
				h.Env = []string{"SECOND=sk-of-second"}
				if code, out := typed(t, h, "", "sk-of-first\n", model("first")...); code != 0 {
					t.Fatalf("exit %d: %s", code, out)
				}
				before := read(t, h)
				after := uncut(t, h, c.in, c.args)
				if before == after || before.env == after.env || before.config == after.config {
					t.Fatalf("it does not change both files:\n%+v\n%+v", before, after)
				}
				if code, out := typed(t, h, mark, c.in, c.args...); code != -int(syscall.SIGKILL) {
					t.Fatalf("it did not die at %s: exit %d: %s", mark, code, out)
				}
				if code, out := typed(t, h, "", "", "model", "show"); code != 0 || !strings.Contains(out, "custom") {
					t.Fatalf("exit %d: %s", code, out)
				}
				want := after
				if mark == failpoint.EditPlanned {
					want = before
				}
				if now := read(t, h); now != want {
					t.Errorf("what is read next is\n%+v, want\n%+v", now, want)
				}
				if left, err := filepath.Glob(filepath.Join(h.Dir, ".*-change*")); err != nil || len(left) > 0 {
					t.Errorf("left behind: %v %v", left, err)
				}
				if code, out := typed(t, h, "", c.in, c.args...); code != 0 || read(t, h) != after {
					t.Errorf("typed again: exit %d, %+v: %s", code, read(t, h), out)
				}
			})
		}
	}
}

// uncut tells what a command makes of a copy of the home when nothing kills it.
func uncut(t *testing.T, h *rig.Home, in string, args []string) configuration {
	t.Helper()
	copied := *h
	copied.Dir = filepath.Join(t.TempDir(), ".hermes")
	if err := os.CopyFS(copied.Dir, os.DirFS(h.Dir)); err != nil {
		t.Fatal(err)
	}
	if code, out := typed(t, &copied, "", in, args...); code != 0 {
		t.Fatalf("hermes %v exits %d: %s", args, code, out)
	}
	return read(t, &copied)
}

// typed runs a command that dies at a mark; the code of one that a signal ended
// is the signal's number below zero.
func typed(t *testing.T, h *rig.Home, mark, in string, args ...string) (int, string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := h.Command(ctx, args...)
	if mark != "" {
		cmd.Env = append(cmd.Env, "HERMES_FAILPOINT="+mark)
	}
	cmd.Stdin = strings.NewReader(in)
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	if status, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); ok && status.Signaled() {
		return -int(status.Signal()), string(out)
	}
	return cmd.ProcessState.ExitCode(), string(out)
}

func read(t *testing.T, h *rig.Home) (c configuration) {
	t.Helper()
	for name, to := range map[string]*string{".env": &c.env, "config.yaml": &c.config} {
		text, err := os.ReadFile(filepath.Join(h.Dir, name))
		if err != nil {
			t.Fatal(err)
		}
		*to = string(text)
	}
	return c
}
