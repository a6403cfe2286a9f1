package systemd

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"hermes/testkit/rig"
)

// handWritten is the template of the runbook, as operators write it by hand.
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

// guardrails is the drop-in of careful operators at its strictest, with a short
// delay.
const guardrails = "[Unit]\nStartLimitIntervalSec=60\nStartLimitBurst=3\n[Service]\nRestart=on-failure\nRestartSec=1s\n"

// mode is one way in which operators run a gateway, and what it can give.
type mode struct {
	name  string
	unit  string // of the profile that %s names; "" where no service manager runs it
	begin func(*profile)
	// overlap: a planned restart brings a process beside the old one; else the
	// old process executes the new program.
	overlap bool
	// kept: systemd keeps the API's socket between two lives, and watches.
	kept bool
}

// The ways to run a gateway.
var (
	generated = mode{name: "generated", unit: "hermes-gateway-%s.service", begin: (*profile).install, overlap: true, kept: true}
	guarded   = mode{name: "guardrails", unit: "hermes-gateway-%s.service", begin: (*profile).installGuarded, overlap: true, kept: true}
	adopted   = mode{name: "adopted", unit: "hermes-gateway@%s.service", begin: (*profile).adopt, overlap: true, kept: true}
	template  = mode{name: "template", unit: "hermes-gateway@%s.service", begin: (*profile).writeTemplate}
	bare      = mode{name: "bare", begin: (*profile).runBare, overlap: true}
)

var modes = []mode{generated, guarded, adopted, template, bare}

// managed tells whether a service manager runs it.
func (m mode) managed() bool { return m.unit != "" }

// as makes a profile that runs, and serves, in a mode; it ends with the test.
func (w *world) as(t *testing.T, m mode, name string) *profile {
	t.Helper()
	p := w.profile(t, name, w.nextPort())
	p.mode = m
	if p.unit = ""; m.managed() {
		p.unit = fmt.Sprintf(m.unit, name)
	}
	m.begin(p)
	p.awaitServing()
	return p
}

func (p *profile) installGuarded() {
	p.t.Helper()
	p.dropIn("10-restart-guardrails.conf", guardrails)
	p.install()
}

// dropIn writes a drop-in of the profile's unit.
func (p *profile) dropIn(name, text string) {
	p.t.Helper()
	p.user.Write(p.t, p.user.Home+"/.config/systemd/user/"+p.unit+".d/"+name, text)
}

// writeTemplate puts the hand-written template there and starts its instance. Its
// delay of ten seconds is proved by one case; the others do not wait for it.
func (p *profile) writeTemplate() {
	p.t.Helper()
	text := strings.Replace(strings.Replace(handWritten, spare, p.program, 1), "RestartSec=10", "RestartSec=1", 1)
	p.writeTemplateText(text)
}

func (p *profile) writeTemplateText(text string) {
	p.t.Helper()
	p.user.Write(p.t, p.user.Home+"/.config/systemd/user/hermes-gateway@.service", text)
	p.onFailure()
	p.t.Cleanup(p.remove)
	p.user.Run(p.t, "systemctl --user daemon-reload && systemctl --user enable --now "+p.unit)
}

// adopt lifts the template; the next start brings that in force.
func (p *profile) adopt() {
	p.t.Helper()
	p.writeTemplate()
	p.awaitServing()
	want(p.t, p.cli("gateway install --adopt"), "✓ Adopted hermes-gateway@"+p.name)
	want(p.t, p.cli("gateway restart"), "✓ Restarted hermes-gateway@"+p.name)
}

// runBare starts it as a person with a shell does who wants it to live on.
func (p *profile) runBare() {
	p.t.Helper()
	p.t.Cleanup(p.remove)
	p.runByHand("bare", "")
}

// runByHand starts `gateway run` behind a shell; what it says and how it ends go
// into NAME.log and NAME.end of the profile.
func (p *profile) runByHand(name, args string) {
	p.t.Helper()
	at := p.file(name)
	p.user.Run(p.t, fmt.Sprintf("rm -f %[4]s.end; (trap '' HUP; setsid %[1]s -p %[2]s gateway run %[3]s >%[4]s.log 2>&1; echo $? >%[4]s.end) >/dev/null 2>&1 </dev/null &", p.program, p.name, args, at))
}

// restart is the operator's command, which must succeed.
func (p *profile) restart() {
	p.t.Helper()
	want(p.t, p.cli("gateway restart"), "✓ Restarted")
}

// startAgain starts a gateway that does not run.
func (p *profile) startAgain() {
	p.t.Helper()
	if p.mode.managed() {
		p.user.Run(p.t, "systemctl --user reset-failed "+p.unit+"; systemctl --user start "+p.unit)
	} else {
		p.runByHand("bare", "")
	}
	p.awaitServing()
}

// mainPID is the process that serves: of a unit as systemd has it, else as the
// PID file has it.
func (p *profile) mainPID() int {
	p.t.Helper()
	pid, err := p.lookPID()
	if err != nil {
		p.t.Fatal(err)
	}
	return pid
}

func (p *profile) lookPID() (int, error) {
	if !p.mode.managed() {
		var record struct{ PID int }
		err := json.Unmarshal([]byte(p.Read(p.file("gateway.pid"))), &record)
		return record.PID, err
	}
	ctx, cancel := rig.Deadline(stepLimit)
	defer cancel()
	out, err := p.user.Try(ctx, "systemctl --user show -p MainPID --value "+p.unit)
	if err != nil {
		return 0, fmt.Errorf("%w: %s", err, out)
	}
	var pid int
	_, err = fmt.Sscan(out, &pid)
	return pid, err
}

// kill sends a signal to the process that serves, and gives its PID.
func (p *profile) kill(signal string) int {
	p.t.Helper()
	pid := p.mainPID()
	p.user.Run(p.t, fmt.Sprintf("kill -%s %d", signal, pid))
	return pid
}

// forgive clears the count of starts, so that a case stands alone.
func (p *profile) forgive() {
	p.t.Helper()
	if p.mode.managed() {
		p.user.Run(p.t, "systemctl --user reset-failed "+p.unit)
	}
}
