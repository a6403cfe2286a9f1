package systemd

import (
	"context"
	"fmt"
	"strings"
	"testing"
)

const handWrittenCron = `[Unit]
Description=Hermes Cron Scheduler (profile: %i)
After=network-online.target
[Service]
Type=simple
ExecStart=/usr/local/bin/hermes --profile %i cron run
Restart=always
RestartSec=30
Environment="HERMES_HOME=/home/%u/.hermes"
EnvironmentFile=-/home/%u/.hermes/profiles/%i/.env
StandardOutput=journal
StandardError=journal
SyslogIdentifier=hermes-cron-%i
[Install]
WantedBy=default.target
`

// Four profiles on four ports by the templates of the runbook as they stand, each
// with its scheduler beside it, and each left alone by what is done to another.
func testFourProfiles(t *testing.T, w *world) {
	units := w.user.Home + "/.config/systemd/user/"
	w.user.Write(t, units+"hermes-gateway@.service", handWritten)
	w.user.Write(t, units+"hermes-cron@.service", handWrittenCron)
	w.user.Run(t, "systemctl --user daemon-reload")
	var all []*profile
	for i, name := range []string{"liam", "drj", "jeff", "harry"} {
		p := w.profile(t, name, 8642+i)
		p.mode, p.unit = template, "hermes-gateway@"+name+".service"
		p.onFailure()
		t.Cleanup(p.remove)
		w.user.Run(t, "systemctl --user enable --now "+p.unit)
		all = append(all, p)
	}
	liam, drj := all[0], all[1]
	w.user.Run(t, "systemctl --user enable --now hermes-cron@liam")
	for _, p := range all {
		p.awaitServing()
	}
	pids := map[string]int{}
	for _, p := range all {
		pids[p.name] = p.mainPID()
	}
	w.user.Run(t, "hermes gateway restart --all")
	for _, p := range all {
		if now := p.mainPID(); now != pids[p.name] {
			t.Errorf("%s: a restart in place changed the PID from %d to %d", p.name, pids[p.name], now)
		}
		if err := p.converse(p.tg.AddUser("Ann"), p.word("all")); err != nil {
			t.Error(err)
		}
	}
	list := w.user.Run(t, "hermes gateway list")
	for _, p := range all {
		want(t, list, p.name+" running "+fmt.Sprint(pids[p.name]))
	}
	if got := w.user.Property(t, "hermes-cron@liam", "SubState"); got != "running" {
		t.Errorf("the scheduler beside the gateway is %s", got)
	}
	// The alias script of a profile acts on that profile alone.
	w.user.Run(t, "hermes profile alias drj")
	want(t, w.user.Run(t, "PATH=$HOME/.local/bin:$PATH drj gateway status"), "✓ Gateway (drj)", "hermes-gateway@drj.service (user unit), active (running), enabled", "hand-written")
	want(t, w.user.Run(t, "PATH=$HOME/.local/bin:$PATH drj gateway stop"), "✓ Stopped hermes-gateway@drj")
	drj.staysStopped()
	for _, p := range all {
		if now := p.mainPID(); p != drj && now != pids[p.name] {
			t.Errorf("%s: a stop of drj changed the PID from %d to %d", p.name, pids[p.name], now)
		}
	}
	want(t, w.user.Run(t, "hermes -p drj gateway start"), "✓ Started hermes-gateway@drj")
	// One that is lifted comes in force by its own next start.
	want(t, liam.cli("gateway install --adopt"), "✓ Adopted hermes-gateway@liam")
	want(t, liam.cli("gateway restart"), "✓ Restarted hermes-gateway@liam")
	if got := liam.show("Type") + " " + liam.show("NFileDescriptorStore"); got != "notify 1" {
		t.Errorf("after --adopt: %s", got)
	}
	if w.Read(units+"hermes-gateway@.service") != handWritten {
		t.Error("the hand-written file was changed")
	}
	w.user.Run(t, "systemctl --user disable --now hermes-cron@liam")
	if got := w.user.Property(t, "hermes-cron@liam", "Result"); got != "success" {
		t.Errorf("after a stop the scheduler's Result is %s", got)
	}
}

// With lingering, neither a logout nor a reboot needs a hand, whatever kind of
// unit runs the gateway.
func testReboot(t *testing.T, m *machine) {
	one, two := m.world(t, "reboot1"), m.world(t, "reboot2")
	all := []*profile{one.as(t, generated, "gen"), one.as(t, guarded, "grd"), one.as(t, template, "tpl"), two.as(t, adopted, "ado")}
	for _, w := range []*world{one, two} {
		w.user.Login(t)
	}
	pids := map[string]int{}
	for _, p := range all {
		p.restart() // from within the session
		pids[p.name] = p.mainPID()
	}
	for _, w := range []*world{one, two} {
		w.user.Logout(t)
	}
	m.Until(t, stepLimit, "the last session to end", func(ctx context.Context) error {
		if out, err := m.Try(ctx, "loginctl list-sessions --no-legend"); err != nil || strings.TrimSpace(out) != "" {
			return fmt.Errorf("%s %w", out, err)
		}
		return nil
	})
	for _, p := range all {
		p.awaitServing()
		if now := p.mainPID(); now != pids[p.name] {
			t.Errorf("%s: the logout replaced the process: %d, then %d", p.mode.name, pids[p.name], now)
		}
	}
	m.Reboot(t)
	for _, p := range all {
		p.user.AwaitManager(t)
		p.awaitServing()
		want(t, p.cli("gateway status || true"), p.unit+" (user unit), active (running), enabled", "lingering on")
	}
}

// A scheduler that stands alone fires and delivers, comes back when it is
// killed, and stops in order; with a gateway beside it each run happens once.
func testCronAlone(t *testing.T, w *world) {
	p := w.profile(t, "clock", w.nextPort())
	p.mode, p.unit = template, "hermes-cron@clock.service"
	p.onFailure()
	ann := p.tg.AddUser("Ann")
	p.env(fmt.Sprintf("TELEGRAM_HOME_CHANNEL=%d\n", ann.ID))
	units := w.user.Home + "/.config/systemd/user/"
	w.user.Write(t, units+"hermes-cron@.service", strings.Replace(handWrittenCron, "RestartSec=30", "RestartSec=1", 1))
	w.user.Write(t, p.file("scripts/tell.sh"), "#!/bin/sh\necho told $(date +%s%N)\n")
	w.user.Run(t, "systemctl --user daemon-reload && systemctl --user enable --now "+p.unit)
	t.Cleanup(p.remove)
	p.cli(`cron create "every 5h" --no-agent --script tell.sh --deliver telegram --name tell`)
	told := 0
	tell := func() {
		t.Helper()
		p.Until(t, stepLimit, "a scheduler", func(ctx context.Context) error {
			if out, err := p.user.Try(ctx, spare+" -p clock cron status"); err != nil || strings.Contains(out, "No scheduler") {
				return fmt.Errorf("%s %w", out, err)
			}
			return nil
		})
		want(t, p.cli("cron run tell"), "'tell' ran", "ok told", "Delivered.")
		told++
		if got := strings.Count(p.tg.Transcript(ann.ID), "told "); got != told {
			t.Errorf("it was told %d times, not %d:\n%s", got, told, p.tg.Transcript(ann.ID))
		}
	}
	tell()
	p.awaitAnother(p.kill("KILL"))
	tell()
	p.awaitAnother(p.kill("TERM"))
	tell()
	gateway := *p
	gateway.mode, gateway.unit = generated, "hermes-gateway-clock.service"
	gateway.install()
	gateway.awaitServing()
	tell()
	w.user.Run(t, "systemctl --user stop "+p.unit)
	if got := p.show("Result") + " " + p.show("ActiveState"); got != "success inactive" {
		t.Errorf("after a stop the scheduler is %s", got)
	}
	tell()
}

// The generated unit of a scheduler is one of its own: it is installed, looked
// at, restarted and removed beside the gateway's, and neither minds the other.
func testCronUnit(t *testing.T, w *world) {
	p := w.profile(t, "ticks", w.nextPort())
	p.mode, p.unit = template, "hermes-cron-ticks.service"
	p.onFailure()
	file := w.user.Home + "/.config/systemd/user/" + p.unit
	want(t, p.cli("gateway install --cron-only"), "✓ Wrote "+file, "✓ Enabled "+p.unit, "✓ Started hermes-cron-ticks")
	if out := w.user.Run(t, "systemd-analyze --user verify "+file+" 2>&1"); strings.TrimSpace(out) != "" {
		t.Errorf("systemd-analyze verify complains: %s", out)
	}
	want(t, p.cliFails("gateway status"), "jobs fire and are delivered", "scheduler "+p.unit+", active (running), enabled")
	old := p.kill("KILL")
	p.awaitAnother(old)
	old = p.mainPID()
	want(t, p.cli("gateway restart --cron-only"), "✓ Restarted hermes-cron-ticks")
	if now := p.mainPID(); now == old {
		t.Errorf("a restart kept the process %d", now)
	}
	gateway := *p
	gateway.mode, gateway.unit = generated, "hermes-gateway-ticks.service"
	gateway.install()
	gateway.awaitServing()
	serving, alone := gateway.mainPID(), p.mainPID()
	want(t, p.cli("gateway status"), gateway.unit+" (user unit), active", "scheduler "+p.unit+", active")
	p.restart() // the gateway
	if now := p.mainPID(); now != alone {
		t.Errorf("a restart of the gateway replaced the scheduler: %d, then %d", alone, now)
	}
	serving = gateway.awaitAnother(serving)
	want(t, p.cli("gateway stop --cron-only"), "✓ Stopped hermes-cron-ticks")
	want(t, p.cli("gateway start --cron-only"), "✓ Started hermes-cron-ticks")
	want(t, p.cli("gateway uninstall --cron-only"), "✓ Removed "+file)
	if now := gateway.mainPID(); now != serving {
		t.Errorf("the end of the scheduler's unit replaced the gateway: %d, then %d", serving, now)
	}
	if p.has(file) || !p.has(w.user.Home+"/.config/systemd/user/hermes-rescue@.service") {
		t.Error("the scheduler's unit is left, or the gateway's rescue unit is gone")
	}
	want(t, p.cliFails("gateway start --cron-only"), "gateway install --cron-only")
}
