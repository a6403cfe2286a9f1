package safemode

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"hermes/internal/starts"
	"hermes/internal/versions"
	"hermes/testkit/rig"
)

// A configuration that cannot be read is not served: the one that served
// healthily last is, and everybody who should know is told.
func TestBrokenConfiguration(t *testing.T) {
	w := setUp(t)
	w.home.Binary = w.good
	w.healthy()
	w.write("config.yaml", w.config+"display: [unclosed\n")
	p := w.serves()
	s := w.status(1)
	if s.Safe == nil || s.Healthy || !strings.Contains(strings.Join(s.Problems, "\n"), "config.yaml") {
		t.Fatalf("status %+v", s)
	}
	if served, err := os.ReadFile(filepath.Join(s.Safe.Config, "config.yaml")); err != nil || string(served) != w.config {
		t.Errorf("%q is served (%v)", served, err)
	}
	if disk, err := os.ReadFile(filepath.Join(w.home.Dir, "config.yaml")); err != nil || !strings.Contains(string(disk), "unclosed") {
		t.Errorf("what the operator wrote is gone: %q %v", disk, err)
	}
	w.wait("the notice in the home channel", func() bool { return w.shown(w.ann, "safe mode") == 1 })
	w.tg.Say(w.user, "are you there?")
	w.wait("the answer", func() bool { return w.shown(w.ann, "are you there?") == 1 })

	// A restart into it is refused while this one serves.
	ctx, cancel := rig.Deadline(patience)
	defer cancel()
	if out, err := w.home.Run(ctx, "gateway", "restart"); err == nil || !strings.Contains(out, "config.yaml") {
		t.Errorf("restarted into a broken configuration: %v\n%s", err, out)
	}
	// Killed and started again it serves on, and tells nobody twice.
	p.Kill()
	w.serves()
	w.wait("a poll of the new life", func() bool { return w.status(1).Safe != nil })
	if n := w.shown(w.ann, "safe mode"); n != 1 {
		t.Errorf("told %d times", n)
	}
	// Mended, a restart serves what is on disk, and all is well.
	w.write("config.yaml", w.config+"display:\n  busy_ack_enabled: false\n")
	if out, err := w.home.Run(ctx, "gateway", "restart"); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if s := w.status(0); s.Safe != nil || !s.Healthy {
		t.Errorf("status %+v", s)
	}
	if out, err := w.home.Run(ctx, "gateway", "stop"); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

// Without one that ever served there is nothing to go back to.
func TestBrokenFromTheBeginning(t *testing.T) {
	w := setUp(t)
	w.write("config.yaml", "model: [\n")
	if out := w.dies(); !strings.Contains(out, "is not valid YAML") {
		t.Errorf("it said %q", out)
	}
	if last, _ := starts.Read(w.profile).Last(); last.End == nil || last.End.Code != 78 {
		t.Errorf("the record says %+v", last.End)
	}
}

// Going back never opens what was closed since.
func TestGoingBackOpensNothing(t *testing.T) {
	w := setUp(t)
	w.home.Binary = w.good
	w.write(".env", strings.Replace(w.env, "TELEGRAM_ALLOWED_USERS", "TELEGRAM_ALLOW_ALL_USERS=true\nTELEGRAM_ALLOWED_USERS", 1))
	w.healthy() // everybody was heard
	bob := w.tg.AddUser("Bob")
	w.write(".env", w.env) // now Ann alone
	w.write("config.yaml", w.config+"timezone: [broken\n")
	w.serves()
	w.tg.Say(bob, "let me in")
	w.tg.Say(w.user, "it is me")
	w.wait("the answer to Ann", func() bool { return w.shown(w.ann, "it is me") == 1 })
	if n := w.shown(bob.ID, "let me in"); n != 0 {
		t.Error("Bob was answered by his words")
	}
}

// A part that takes the whole process down is found, held back, and the rest
// serves.
func TestABadPart(t *testing.T) {
	w := setUp(t)
	bad := "HERMES_FAILPOINT=part.platform.telegram:1:fatal"
	for range 2 {
		w.dies(bad)
	}
	w.serves(bad)
	s := w.status(1)
	if s.Safe == nil || len(s.Safe.Held) != 1 || s.Safe.Held[0].Part != "platform.telegram" || s.Safe.Deaths != 2 {
		t.Fatalf("safe mode %+v", s.Safe)
	}
	if !strings.Contains(strings.Join(s.Problems, "\n"), "platform.telegram") {
		t.Errorf("problems %q", s.Problems)
	}
}

// Who kills the gateway from outside gets an ordinary start.
func TestKillsDoNotCount(t *testing.T) {
	w := setUp(t)
	for range 4 {
		w.serves().Kill()
	}
	w.serves()
	if s := w.status(0); s.Safe != nil {
		t.Errorf("careful after kills: %+v", s.Safe)
	}
}

// A program that dies yields to the one that served before.
func TestABadProgram(t *testing.T) {
	w := setUp(t)
	good, err := versions.Look(w.good, "test", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	if err := versions.NoteGood(w.profile, good); err != nil {
		t.Fatal(err)
	}
	bad := "HERMES_FAILPOINT=part.cron:1:exit"
	w.dies(bad)
	w.dies(bad)
	p := w.serves(bad)
	if exe, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", p.Cmd.Process.Pid)); err != nil || exe != w.good {
		t.Errorf("%s serves, want %s (%v)", exe, w.good, err)
	}
	if s := w.status(1); s.Safe == nil || !strings.Contains(strings.Join(s.Problems, "\n"), "died too often") {
		t.Errorf("safe mode %+v", s.Safe)
	}
}

// A profile is served by the program that it is pinned to, and a pin that leads
// nowhere costs nothing but a warning.
func TestPin(t *testing.T) {
	w := setUp(t)
	if err := versions.SetPin(w.profile, versions.Pin{Path: w.good, Version: "test"}); err != nil {
		t.Fatal(err)
	}
	p := w.serves()
	if exe, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", p.Cmd.Process.Pid)); err != nil || exe != w.good {
		t.Errorf("%s serves, want %s (%v)", exe, w.good, err)
	}
	ctx, cancel := rig.Deadline(patience)
	defer cancel()
	if _, err := p.Stop(ctx); err != nil {
		t.Fatal(err)
	}
	w.write("binary.pin", "/nowhere/hermes\n")
	p = w.serves()
	if exe, _ := os.Readlink(fmt.Sprintf("/proc/%d/exe", p.Cmd.Process.Pid)); exe != w.dying {
		t.Errorf("%s serves", exe)
	}
	if !strings.Contains(p.Output(), "/nowhere/hermes, which is missing") {
		t.Errorf("nothing is said of the pin:\n%s", p.Output())
	}
}

// A program that a profile is pinned to, and that dies before it can do
// anything, is not run for ever: the one that was started serves, and says why.
// The configuration was changed as well, and is served: nobody had read it.
func TestAPinnedProgramThatDies(t *testing.T) {
	w := setUp(t)
	w.write(".env", strings.Replace(w.env, "TELEGRAM_BOT_TOKEN=", "# TELEGRAM_BOT_TOKEN=", 1))
	w.healthy()
	before := len(starts.Read(w.profile).Starts)
	w.write(".env", w.env)
	real := filepath.Join(t.TempDir(), "dead")
	if err := os.WriteFile(real, []byte("#!/bin/sh\nexit 3\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	link := real + "-link" // as `current` is one
	if err := os.Symlink(real, link); err != nil {
		t.Fatal(err)
	}
	if err := versions.SetPin(w.profile, versions.Pin{Path: link, Version: "test"}); err != nil {
		t.Fatal(err)
	}
	w.dies()
	w.dies()
	p := w.serves()
	if exe, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", p.Cmd.Process.Pid)); err != nil || exe != w.dying {
		t.Errorf("%s serves, want %s (%v)", exe, w.dying, err)
	}
	if s := w.status(1); s.Safe == nil || s.Safe.Config != "" || !strings.Contains(strings.Join(s.Problems, "\n"), "died too often") {
		t.Errorf("safe mode %+v", s.Safe)
	}
	if r := starts.Read(w.profile); len(r.Starts) != before+3 {
		t.Errorf("three starts are on record as %d", len(r.Starts))
	}
}

// What was written since the last healthy life, and died, yields to what served
// then; what the operator wrote stays, and a planned restart tries it again.
func TestAChangedConfigurationThatDies(t *testing.T) {
	w := setUp(t)
	w.home.Binary = w.dying
	without := strings.Replace(w.env, "TELEGRAM_BOT_TOKEN=", "# TELEGRAM_BOT_TOKEN=", 1)
	w.write(".env", without)
	w.healthy()
	w.write(".env", w.env)
	bad := "HERMES_FAILPOINT=part.platform.telegram:1:fatal"
	w.dies(bad)
	w.dies(bad)
	w.serves(bad)
	s := w.status(1)
	if s.Safe == nil || s.Safe.Config == "" || !strings.Contains(s.Safe.Broken, "died") {
		t.Fatalf("safe mode %+v", s.Safe)
	}
	for _, p := range s.Parts {
		if p.Name == "platform.telegram" {
			t.Errorf("Telegram is there: %+v", p)
		}
	}
	if text, err := os.ReadFile(filepath.Join(w.home.Dir, ".env")); err != nil || string(text) != w.env {
		t.Errorf("what the operator wrote is %q (%v)", text, err)
	}
	ctx, cancel := rig.Deadline(patience)
	defer cancel()
	out, err := w.home.Run(ctx, "config", "diff")
	if err != nil || !strings.Contains(out, "+TELEGRAM_BOT_TOKEN=<secret>") {
		t.Errorf("diff: %v\n%s", err, out)
	}
	if out, err := w.home.Run(ctx, "config", "rollback"); err != nil || !strings.Contains(out, "Restarted") {
		t.Errorf("rollback: %v\n%s", err, out)
	}
	if s := w.status(0); s.Safe != nil || !s.Healthy {
		t.Errorf("after the rollback: %+v", s)
	}
}
