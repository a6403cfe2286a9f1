package rescue

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
)

const kept = "/home/ada/.local/share/hermes/rescue/hermes"

// A unit that has ended for good is told of, once, and brought back by the
// program that served last, whatever became of the installed one.
func testRescue(t *testing.T, w *world) {
	if out := w.user.Run(t, "systemd-analyze --user verify ~/.config/systemd/user/hermes-rescue@.service ~/.config/systemd/user/"+unit+" 2>&1"); strings.TrimSpace(out) != "" {
		t.Errorf("systemd-analyze verify complains: %s", out)
	}
	w.Until(t, limit, "the program to have proved itself", func(context.Context) error {
		_, err := w.Try(context.Background(), "cmp "+program+" "+kept)
		return err
	})

	t.Run("PanicsBeforeMain", func(t *testing.T) {
		w := w.in(t)
		w.place(bad)
		w.kill()
		w.serves(kept)
		w.told("hermes-gateway-liam", "went down and was brought back", "5 times", "panic: spoiled by the test", "PID "+w.property("MainPID"))
		w.rescued()
		w.quiet()
		want(t, w.user.Run(t, good+" -p liam gateway status"), "90-hermes-rescue.conf", "! a rescue lets "+unit+" run "+kept, "brought back on the program that served last", "told telegram:")
	})
	t.Run("BackToTheInstalled", func(t *testing.T) {
		w := w.in(t)
		// While that is spoiled, the one that serves goes on.
		want(t, w.user.Fails(t, good+" -p liam gateway restart"), "ended before it could serve")
		w.serves(kept)
		w.place(good)
		want(t, w.user.Run(t, "hermes -p liam gateway restart"), "✓ Restarted")
		w.serves(program)
		if got := w.property("DropInPaths"); strings.Contains(got, "rescue") {
			t.Errorf("the override is left: %s", got)
		}
		w.quiet()
	})
	t.Run("NoProgram", func(t *testing.T) {
		w := w.in(t)
		w.another()
		w.Root(t, "rm "+program)
		w.kill()
		w.serves(kept)
		w.told("cannot be run (status 203/EXEC)", program+" is missing", "went down and was brought back")
		w.rescued()
		w.quiet()
		w.place(good)
		want(t, w.user.Run(t, "hermes -p liam gateway restart"), "✓ Restarted")
		w.serves(program)
	})
}

// A profile that is pinned to a program which dies before its main function is
// served by the installed one before the unit's limit is reached, and says so.
func testPinned(t *testing.T, w *world) {
	w.another()
	w.user.Run(t, "rm "+w.file("gateway-starts.json")) // what came before is no part of this
	want(t, w.user.Run(t, "hermes -p liam gateway restart"), "✓ Restarted")
	w.Until(t, limit, "the installed program to be the good one", func(ctx context.Context) error {
		out, err := w.user.Try(ctx, "cat "+w.file("binaries.json"))
		if err == nil && !strings.Contains(out, `"path": "`+program+`"`) {
			err = fmt.Errorf("%s", out)
		}
		return err
	})
	w.user.Write(t, w.file("binary.pin"), bad+"\n")
	w.kill()
	w.serves(program)
	w.told("I serve in safe mode", "died 2 times in a row", "the program that was to serve died too often")
	if _, err := w.Try(context.Background(), "test -e "+w.file("rescue.json")); err == nil {
		t.Error("the unit ended for good")
	}
	w.user.Run(t, "rm "+w.file("binary.pin")+" "+w.file("gateway-starts.json"))
	want(t, w.user.Run(t, "hermes -p liam gateway restart"), "✓ Restarted")
	w.serves(program)
	w.quiet()
}

// A profile whose configuration cannot be read, and never could, ends for good:
// whom to tell stands in .env.
func testNoConfiguration(t *testing.T, w *world) {
	u, eve := w.user, "hermes-gateway-eve.service"
	u.Run(t, "hermes -p liam gateway stop && hermes profile create eve && cp "+w.file(".env")+" ~/.hermes/profiles/eve/.env")
	u.Write(t, u.Home+"/.hermes/profiles/eve/config.yaml", "model: [\n")
	u.Run(t, "rm -f ~/.hermes/profiles/eve/ledger.db && mkdir ~/.hermes/profiles/eve/ledger.db") // nor a ledger
	u.Fails(t, "hermes -p eve gateway install")
	w.told("hermes-gateway-eve", "is down", "status 78", "config.yaml", "was not started again")
	w.Until(t, limit, "the rescue to end", func(ctx context.Context) error {
		out, err := u.Try(ctx, "systemctl --user show -p ActiveState --value hermes-rescue@"+eve+".service")
		if s := strings.TrimSpace(out); err != nil || s != "inactive" {
			return fmt.Errorf("it is %s %w", s, err)
		}
		return nil
	})
	w.quiet()
	want(t, u.Fails(t, "hermes -p eve gateway status"), "rescue", "not brought back; told telegram:")
	want(t, u.Run(t, "hermes -p eve gateway uninstall"), "✓ Removed "+u.Home+"/.config/systemd/user/"+eve)
	if w.Read(u.Home+"/.config/systemd/user/hermes-rescue@.service") == "" {
		t.Error("the rescue unit is gone, and liam's unit names it")
	}
	// The same as a unit of the system, whose rescue runs as ada.
	u.Run(t, "rm ~/.hermes/profiles/eve/rescue.json")
	if out, err := w.Try(context.Background(), "hermes -p eve gateway install --system --run-as-user ada"); err == nil {
		t.Errorf("it serves:\n%s", out)
	}
	want(t, w.Root(t, "systemd-analyze verify /etc/systemd/system/hermes-rescue-ada@.service /etc/systemd/system/"+eve+" 2>&1 && echo clean"), "clean")
	w.told("hermes-gateway-eve", "is down", "status 78")
	if owner := strings.TrimSpace(w.Root(t, "stat -c %U "+u.Home+"/.hermes/profiles/eve/rescue.json")); owner != "ada" {
		t.Errorf("the record belongs to %s", owner)
	}
	w.startedByRoot(eve)
	want(t, w.Root(t, "hermes -p eve gateway uninstall --system"), "✓ Removed /etc/systemd/system/hermes-rescue-ada@.service")
	w.quiet()
	u.Run(t, "hermes -p liam gateway start")
}

// startedByRoot lets a unit of the system run into its limit with another
// configuration than the one that served healthily. Its rescue runs as the user
// and may start nothing; root's systemd does, once it has ended well.
func (w *world) startedByRoot(name string) {
	t, u := w.t, w.user
	t.Helper()
	at := "~/.hermes/profiles/eve/"
	u.Run(t, "rmdir "+at+"ledger.db; rm -f "+at+"rescue.json "+at+"gateway-starts.json; cp "+w.file("config.yaml")+" "+at+"config.yaml")
	w.Root(t, "systemctl reset-failed "+name+"; systemctl start "+name)
	w.Until(t, limit, "the configuration to have served healthily", func(ctx context.Context) error {
		out, err := u.Try(ctx, "hermes -p eve config history --json")
		if err == nil && !strings.Contains(out, `"healthy_at"`) {
			err = fmt.Errorf("%s", out)
		}
		return err
	})
	u.Run(t, "echo '# another' >>"+at+"config.yaml")
	dir := "/etc/systemd/system/" + name + ".d"
	w.Root(t, "mkdir "+dir+" && printf '[Unit]\\nStartLimitBurst=1\\n' >"+dir+"/limit.conf && systemctl daemon-reload && systemctl reset-failed "+name+"; systemctl restart "+name)
	old := strings.TrimSpace(w.Root(t, "systemctl show -p MainPID --value "+name))
	w.Root(t, "kill -KILL "+old)
	w.told("hermes-gateway-eve", "was started 1 times", "ended from outside", "is asked to start it again, on what is installed")
	w.Until(t, limit, "root's systemd to start it", func(ctx context.Context) error {
		out, err := w.Try(ctx, "systemctl is-active "+name+" && systemctl show -p MainPID --value "+name)
		if pid := strings.TrimSpace(out); err != nil || pid == "active\n"+old {
			return fmt.Errorf("%s %w", out, err)
		}
		return nil
	})
	w.Root(t, "rm -r "+dir+" && systemctl daemon-reload")
}

// An instance of a template, of which the rescue unit's name is made, and one
// that was written by hand and adopted, are brought back too.
func testTemplates(t *testing.T, w *world) {
	u, instance := w.user, "hermes-gateway@liam.service"
	u.Run(t, "hermes -p liam gateway uninstall")
	units := u.Home + "/.config/systemd/user/"
	handWritten := "[Service]\nType=simple\nExecStart=" + program + " --profile %i gateway run\nRestart=on-failure\nRestartSec=100ms\n" +
		"StartLimitInterval=60\nStartLimitBurst=3\nEnvironment=HERMES_HOME=%h/.hermes\n[Install]\nWantedBy=default.target\n"
	for _, how := range []string{"generated", "adopted"} {
		if how == "generated" {
			u.Run(t, "hermes -p liam gateway install --template")
		} else {
			u.Write(t, units+"hermes-gateway@.service", handWritten)
			u.Run(t, "systemctl --user daemon-reload && systemctl --user enable --now "+instance+" && hermes -p liam gateway install --adopt && hermes -p liam gateway restart")
		}
		w.servedBy(instance, program)
		u.Run(t, "rm -f "+w.file("rescue.json"))
		w.place(bad)
		u.Run(t, "systemctl --user kill --signal=KILL "+instance)
		w.servedBy(instance, kept)
		w.told("hermes-gateway@liam", "went down and was brought back")
		w.place(good)
		want(t, u.Run(t, "hermes -p liam gateway restart"), "✓ Restarted hermes-gateway@liam")
		w.servedBy(instance, program)
		w.quiet()
		u.Run(t, "hermes -p liam gateway uninstall; rm -rf "+units+"hermes-gateway@.service*; systemctl --user daemon-reload; systemctl --user reset-failed")
	}
	u.Run(t, "hermes -p liam gateway install")
}

// What status tells of the past is what happened.
func testPast(t *testing.T, w *world) {
	u := w.user
	status := func(parts ...string) {
		t.Helper()
		out, _ := u.Try(context.Background(), "hermes -p liam gateway status") // no bot answers after the reboot
		want(t, out, parts...)
	}
	w.serves(program)
	u.Run(t, "hermes -p liam gateway restart")
	status("last gap none: a hand-over at ", "config served = on disk", "last boot ")
	u.Run(t, "systemctl --user reset-failed "+unit)
	w.kill()
	w.serves(program)
	w.Until(t, limit, "the gap to be known", func(ctx context.Context) error {
		if out, _ := u.Try(ctx, "hermes -p liam gateway status"); !strings.Contains(out, "connections waited") {
			return fmt.Errorf("%s", out)
		}
		return nil
	})
	u.Run(t, "echo '# changed' >>"+w.file("config.yaml"))
	status("config ! the one on disk was changed since; `hermes -p liam gateway restart`")
	w.Reboot(t)
	u.AwaitManager(t)
	w.serves(program)
	status("last boot up by itself, ", " s after boot", "last gap none since boot", "config served = on disk")
	u.Login(t)
	u.Logout(t)
	w.Until(t, limit, "the logout to be known", func(ctx context.Context) error {
		out, _ := u.Try(ctx, "hermes -p liam gateway status --json")
		var got struct {
			Past struct {
				Logout struct {
					Known, Good bool
					Text        string
				} `json:"last_logout"`
			}
		}
		if err := json.Unmarshal([]byte(out), &got); err != nil || !got.Past.Logout.Known || !got.Past.Logout.Good {
			return fmt.Errorf("%+v %w", got, err)
		}
		t.Log(got.Past.Logout.Text)
		return nil
	})
	want(t, u.Run(t, "hermes -p liam gateway uninstall"), "✓ Removed "+u.Home+"/.config/systemd/user/hermes-rescue@.service")
}

// another makes what comes next an incident of its own: the last one is as good
// as old.
func (w *world) another() {
	w.user.Run(w.t, "rm -f "+w.file("rescue.json"))
	w.user.Run(w.t, "systemctl --user reset-failed "+unit)
	w.Until(w.t, limit, "the override to be gone", func(context.Context) error {
		if got := w.property("DropInPaths"); strings.Contains(got, "rescue") {
			return fmt.Errorf("%s", got)
		}
		return nil
	})
}
