//go:build systemd

package systemd

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"hermes/testkit/rig"
)

// The template of the runbook, as operators write it by hand.
const handWritten = `[Unit]
Description=Hermes Agent Gateway (profile: %i)
After=network-online.target
Wants=network-online.target
[Service]
Type=simple
ExecStart=/usr/local/bin/hermes --profile %i gateway run
Restart=always
RestartSec=10
StartLimitInterval=60
StartLimitBurst=3
Environment="HERMES_HOME=/home/%u/.hermes"
EnvironmentFile=-/home/%u/.hermes/profiles/%i/.env
WorkingDirectory=/home/%u
StandardOutput=journal
StandardError=journal
SyslogIdentifier=hermes-gateway-%i
TimeoutStopSec=20
[Install]
WantedBy=default.target
`

// A hand-written Type=simple unit is restarted in place: nothing fails, and
// systemd sees nothing of it.
func testHandWritten(t *testing.T, w *world) {
	p := w.profile(t, "simple", 8648)
	p.unit = "hermes-gateway@simple.service"
	w.user.Write(t, w.user.Home+"/.config/systemd/user/hermes-gateway@.service", handWritten)
	w.user.Run(t, "systemctl --user daemon-reload && systemctl --user enable --now "+p.unit)
	p.onFailure()
	t.Cleanup(p.remove)
	p.awaitServing()
	before, pid := p.state(), p.mainPID()
	l := p.startLoad(false)
	l.goOn()
	for range 5 {
		want(t, p.cli("gateway restart"), "✓ Restarted hermes-gateway@simple")
		l.goOn()
	}
	ann := p.tg.AddUser("Ann")
	p.tg.Say(ann, "/restart")
	if err := p.sees(ann, "♻️ I am back (version…"); err != nil {
		t.Error(err)
	}
	l.goOn()
	l.finish()
	if after := p.state(); after != before || p.mainPID() != pid {
		t.Errorf("the unit was %+v with PID %d and is %+v with %d", before, pid, after, p.mainPID())
	}
}

// A new program that cannot serve is not handed over to: the old one serves
// on, and the command fails with the reason.
func testBadSuccessor(t *testing.T, w *world) {
	generated := w.profile(t, "bad", 8652)
	generated.install()
	byHand := w.profile(t, "simplebad", 8653)
	byHand.unit = "hermes-gateway@simplebad.service"
	w.user.Write(t, w.user.Home+"/.config/systemd/user/hermes-gateway@.service", handWritten)
	w.user.Run(t, "systemctl --user daemon-reload && systemctl --user enable --now "+byHand.unit)
	t.Cleanup(byHand.remove)
	t.Cleanup(func() { w.Install(t, w.good(t), program) })
	for _, p := range []*profile{generated, byHand} {
		p.awaitServing()
		ann := p.tg.AddUser("Ann")
		l := p.startLoad(false)
		l.goOn()
		before, pid := p.state(), p.mainPID()
		programs := map[string]string{"exits": "#!/bin/sh\nexit 3\n", "is no program": "not a program\n"}
		if p == generated { // it takes the whole limit
			programs["hangs"] = "#!/bin/sh\nexec sleep 300\n"
		}
		for name, text := range programs {
			w.Write(t, program, text)
			w.Root(t, "chmod 755 "+program)
			ctx, cancel := rig.Deadline(stepLimit)
			out, err := w.user.Try(ctx, spare+" -p "+p.name+" gateway restart")
			cancel()
			if err == nil {
				t.Errorf("%s: a restart to a program that %s succeeded:\n%s", p.name, name, out)
			}
			if reason := map[string]string{"exits": "exit status 3", "hangs": "in time", "is no program": "exec format error"}[name]; p == generated {
				want(t, out, reason)
			}
			if p.mainPID() != pid || p.state() != before {
				t.Errorf("%s, %s: the unit was %+v with PID %d and is %+v with %d", p.name, name, before, pid, p.state(), p.mainPID())
			}
			l.goOn()
		}
		if err := p.converse(ann, "b1"); err != nil {
			t.Error(err)
		}
		l.finish()
		w.Install(t, w.good(t), program)
	}
}

// good is the program as it was built, on this machine.
func (w *world) good(t *testing.T) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "hermes")
	if err := os.WriteFile(file, []byte(w.Read(spare)), 0o700); err != nil {
		t.Fatal(err)
	}
	return file
}

// With lingering, neither a logout nor a reboot needs a hand.
func testReboot(t *testing.T, w *world) {
	p := w.profile(t, "boot", 8654)
	p.install()
	p.awaitServing()
	w.user.Login(t)
	want(t, p.cli("gateway restart"), "✓ Restarted") // from within the session
	pid := p.mainPID()
	w.user.Logout(t)
	w.Until(t, stepLimit, "the last session to end", func(ctx context.Context) error {
		if out, err := w.Try(ctx, "loginctl list-sessions --no-legend"); err != nil || strings.TrimSpace(out) != "" {
			return fmt.Errorf("%s %w", out, err)
		}
		return nil
	})
	if now := p.mainPID(); now != pid {
		t.Errorf("the logout replaced the process: %d, then %d", pid, now)
	}
	p.awaitServing()
	w.Reboot(t)
	w.user.AwaitManager(t)
	p.awaitServing()
	want(t, p.cli("gateway status || true"), p.unit+" (user unit), active (running), enabled", "lingering on")
}
