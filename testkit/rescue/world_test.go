package rescue

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"hermes/testkit/box"
	"hermes/testkit/llm"
	"hermes/testkit/rig"
	"hermes/testkit/telegram"
)

const (
	program = "/usr/local/bin/hermes"
	good    = "/opt/hermes" // the same program, for commands while the other is spoiled
	bad     = "/opt/bad"    // one that panics before main
	unit    = "hermes-gateway-liam.service"
	apiKey  = "a-key-of-the-tests-api"
	limit   = 90 * time.Second // of each thing that is waited for
)

// world is a box with one user, whose profile liam has a bot and a home channel.
type world struct {
	*box.Box
	t    *testing.T
	user *box.User
	tg   *telegram.Server
	ann  telegram.User // her chat is the home channel
	said int           // messages in it that were looked at
}

// The tests of this package share one box, one after another.
func TestOnSystemd(t *testing.T) {
	if why := box.Missing(); why != "" {
		t.Skip(why)
	}
	ctx, cancel := rig.Deadline(5 * time.Minute)
	defer cancel()
	dir := t.TempDir()
	binary, err := rig.Build(ctx, dir, "")
	if err != nil {
		t.Fatal(err)
	}
	w := &world{Box: box.Start(t), t: t}
	for _, to := range []string{program, good} {
		w.Install(t, binary, to)
	}
	w.Install(t, panics(t, ctx, dir), bad)
	if binary, err = rig.Build(ctx, filepath.Join(dir, "dying"), "failpoint"); err != nil {
		t.Fatal(err)
	}
	w.Install(t, binary, dying)
	w.user = w.User(t, "ada")
	w.Root(t, "loginctl enable-linger ada")
	w.user.AwaitManager(t)
	w.profile()
	for _, c := range []struct {
		name string
		test func(*testing.T, *world)
	}{
		{"Verify", testVerify},
		{"Drill", testDrill},
		{"Rescue", testRescue},
		{"Pinned", testPinned},
		{"NoConfiguration", testNoConfiguration},
		{"Templates", testTemplates},
		{"Healthy", testHealthy},
		{"Past", testPast},
	} {
		if !t.Run(c.name, func(t *testing.T) { c.test(t, w.in(t)) }) {
			w.show()
			return
		}
	}
}

// in is the world for one case.
func (w *world) in(t *testing.T) *world {
	w.t = t
	return w
}

// show tells what the units of the box said.
func (w *world) show() {
	ctx, cancel := rig.Deadline(limit)
	defer cancel()
	out, _ := w.Try(ctx, "journalctl --no-pager -o short-monotonic -n 120 _UID=1000; cat /home/ada/.hermes/profiles/liam/rescue.json")
	w.t.Logf("%s\n%s", out, w.tg.Transcript(w.ann.ID))
}

// panics builds a program that dies before its main function.
func panics(t *testing.T, ctx context.Context, dir string) string {
	t.Helper()
	src, out := filepath.Join(dir, "bad.go"), filepath.Join(dir, "bad")
	if err := os.WriteFile(src, []byte("package main\n\nfunc init() { panic(\"spoiled by the test\") }\n\nfunc main() {}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if text, err := exec.CommandContext(ctx, "go", "build", "-o", out, src).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, text)
	}
	return out
}

// profile makes liam, with a model, a bot, a home channel and the API.
func (w *world) profile() {
	t := w.t
	var brain *llm.Server
	err := w.Inside(func() (err error) {
		if w.tg, err = telegram.New(telegram.Options{}); err == nil {
			brain, err = llm.Start(llm.Echo)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.tg.Close)
	t.Cleanup(brain.Close)
	w.ann = w.tg.AddUser("Ann")
	w.user.Run(t, "hermes profile create liam")
	w.user.Write(t, w.file("config.yaml"), fmt.Sprintf("model:\n  default: fake\n  provider: custom\n  base_url: %s\n  api_key: a-key-of-the-tests-model\nstreaming:\n  enabled: false\n", brain.URL()))
	w.user.Write(t, w.file(".env"), fmt.Sprintf("TELEGRAM_BOT_TOKEN=%s\nTELEGRAM_BASE_URL=%s\nTELEGRAM_ALLOW_ALL_USERS=true\nTELEGRAM_HOME_CHANNEL=%d\nAPI_SERVER_ENABLED=true\nAPI_SERVER_PORT=8642\nAPI_SERVER_KEY=%s\n",
		w.tg.Token(), w.tg.URL(), w.ann.ID, apiKey))
	w.user.Run(t, "chmod 600 "+w.file(".env"))
	w.tg.Say(w.ann, "hello") // a bot may not begin; it is answered by the first gateway
}

func (w *world) file(name string) string { return w.user.Home + "/.hermes/profiles/liam/" + name }

// place puts another program where the installed one lies.
func (w *world) place(from string) {
	w.Root(w.t, fmt.Sprintf("cp %s %s.new && mv %s.new %s", from, program, program, program))
}

// kill ends the main process as a crash does.
func (w *world) kill() {
	w.user.Run(w.t, "kill -KILL "+w.property("MainPID"))
}

func (w *world) property(name string) string { return w.user.Property(w.t, unit, name) }

// serves waits until the unit serves by a program.
func (w *world) serves(by string) {
	w.t.Helper()
	w.servedBy(unit, by)
}

// servedBy is serves for a unit of any name.
func (w *world) servedBy(unit, by string) {
	w.t.Helper()
	scope := "--user -M ada@"
	if w.Read("/etc/systemd/system/"+unit) != "" {
		scope = ""
	}
	w.Until(w.t, limit, unit+" to serve by "+by, func(ctx context.Context) error {
		if out, err := w.Try(ctx, "curl -fsS -m 2 http://127.0.0.1:8642/health"); err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		out, err := w.Try(ctx, "readlink /proc/$(systemctl "+scope+" show -p MainPID --value "+unit+")/exe")
		if err != nil || strings.TrimSpace(out) != by {
			return fmt.Errorf("it is served by %s %w", strings.TrimSpace(out), err)
		}
		return nil
	})
}

// told waits for the next message in the home channel.
func (w *world) told(parts ...string) string {
	w.t.Helper()
	var text string
	w.Until(w.t, limit, "a message in the home channel", func(context.Context) error {
		if all := w.tg.Replies(w.ann.ID); len(all) > w.said {
			text = all[w.said].Text
			return nil
		}
		return fmt.Errorf("nothing was said: %s", w.tg.Transcript(w.ann.ID))
	})
	w.said++
	want(w.t, text, parts...)
	return text
}

// rescued waits until the rescue unit has nothing more to do.
func (w *world) rescued() {
	w.t.Helper()
	name := "hermes-rescue@" + unit + ".service"
	w.Until(w.t, limit, name+" to end", func(ctx context.Context) error {
		out, err := w.user.Try(ctx, "systemctl --user show -p ActiveState --value "+name)
		if s := strings.TrimSpace(out); err != nil || s != "inactive" && s != "failed" {
			return fmt.Errorf("it is %s %w", s, err)
		}
		return nil
	})
}

// quiet holds that nothing was said in the home channel that was not looked at.
func (w *world) quiet() {
	w.t.Helper()
	for _, m := range w.tg.Replies(w.ann.ID)[w.said:] {
		w.t.Errorf("said too: %s", m.Text)
	}
}

// want holds that an output has parts, however its lines are folded.
func want(t *testing.T, out string, parts ...string) {
	t.Helper()
	flat := strings.Join(strings.Fields(out), " ")
	for _, part := range parts {
		if !strings.Contains(flat, part) {
			t.Errorf("%q is missing in:\n%s", part, out)
		}
	}
}
