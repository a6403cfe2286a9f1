package safemode

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"hermes/testkit/rig"
)

// A job whose run ends the process each time is found and held back, whether the
// runtime says a word or not.
func TestABadJob(t *testing.T) {
	for _, c := range []struct {
		name, mark string
		lives      int // that it ends; a kill is nobody's the first time
	}{{"killed", "script.started", 3}, {"fatal error", "script.started:1:fatal", 2}} {
		t.Run(c.name, func(t *testing.T) {
			w := setUp(t)
			w.script("bad.sh", "exit 0")
			w.script("good.sh", "echo all is well")
			w.run("cron", "create", "every 5h", "--no-agent", "--script", "bad.sh", "--name", "bad")
			w.run("cron", "create", "every 5h", "--no-agent", "--script", "good.sh", "--name", "good")
			unit := []string{"INVOCATION_ID=0123456789abcdef0123456789abcdef", "HERMES_FAILPOINT=" + c.mark}
			for range c.lives {
				p := w.serves(unit...)
				w.run("cron", "run", "bad", "--no-wait")
				select {
				case <-p.Done():
				case <-time.After(patience):
					t.Fatal("the job does not end it")
				}
			}
			w.serves(unit...)
			s := w.status(1)
			if s.Safe == nil || len(s.Safe.Held) != 1 || !strings.HasPrefix(s.Safe.Held[0].Part, "job.") {
				t.Fatalf("safe mode %+v", s.Safe)
			}
			if all := strings.Join(s.Problems, "\n"); !strings.Contains(all, s.Safe.Held[0].Part+" is held back") {
				t.Errorf("problems %s", all)
			}
			w.tg.Say(w.user, "hello")
			w.wait("an answer", func() bool { return w.shown(w.ann, "hello") > 0 })
			w.wait("the alarm", func() bool { return w.shown(w.ann, "I serve in safe mode") == 1 })
		})
	}
}

// script writes a script of jobs.
func (w *world) script(name, text string) {
	w.t.Helper()
	dir := filepath.Join(w.home.Dir, "scripts")
	err := os.MkdirAll(dir, 0o700)
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, name), []byte("#!/bin/sh\n"+text+"\n"), 0o700)
	}
	if err != nil {
		w.t.Fatal(err)
	}
}

// run runs a command, which must succeed.
func (w *world) run(args ...string) {
	w.t.Helper()
	ctx, cancel := rig.Deadline(patience)
	defer cancel()
	if out, err := w.home.Run(ctx, args...); err != nil {
		w.t.Fatalf("%v: %v\n%s", args, err, out)
	}
}
