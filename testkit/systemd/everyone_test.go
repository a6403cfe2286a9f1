package systemd

import (
	"encoding/json"
	"regexp"
	"strings"
	"testing"
)

// What is said to all profiles reaches those too of which a scheduler alone is
// installed, and leaves them what they are.
func testEveryProfile(t *testing.T, w *world) {
	gate, clock := w.profile(t, "gate", w.nextPort()), w.profile(t, "clock", w.nextPort())
	clock.unit = "hermes-cron-clock.service"
	for _, p := range []*profile{gate, clock} {
		p.onFailure()
	}
	all := func(command string) string {
		t.Helper()
		return w.user.Run(t, w.program+" gateway "+command)
	}
	states := func(want string) {
		t.Helper()
		if got := gate.show("ActiveState") + " " + clock.show("ActiveState"); got != want {
			t.Errorf("the gateway and the scheduler are %s, not %s", got, want)
		}
	}
	want(t, w.user.Run(t, w.program+" -p clock gateway install --cron-only"), "✓ Started hermes-cron-clock")
	want(t, all("install --all"), "gate:", "✓ Started hermes-gateway-gate", "clock: It has the unit of a scheduler alone and keeps to that")
	gate.awaitServing()
	if n := strings.TrimSpace(w.user.Run(t, "ls .config/systemd/user/hermes-*.service")); strings.Count(n, "\n") != 2 { // with the rescue's
		t.Errorf("installed are %s", n)
	}
	want(t, all("list"), "PROFILE STATE PID API UNIT SCHEDULER PROBLEM", "hermes-gateway-gate -", "clock stopped – - - hermes-cron-clock")
	var rows []struct {
		Profile   string
		Unit      string
		Scheduler string `json:"scheduler_unit"`
		State     string `json:"scheduler_state"`
	}
	if err := json.Unmarshal([]byte(all("status --all --cron-only --json")), &rows); err != nil || len(rows) != 1 ||
		rows[0].Profile != "clock" || rows[0].Scheduler != "hermes-cron-clock" || rows[0].State != "active" || rows[0].Unit != "" {
		t.Errorf("%+v %v", rows, err)
	}
	want(t, clock.cli("gateway status --cron-only"), "✓ Scheduler (clock): jobs fire and are delivered", "hermes-cron-clock.service, active (running), enabled")

	// The files of templates make no profile theirs.
	units := w.user.Home + "/.config/systemd/user/"
	w.user.Write(t, units+"hermes-gateway@.service", handWritten)
	w.user.Write(t, units+"hermes-cron@.service", handWrittenCron)
	w.user.Run(t, "systemctl --user daemon-reload")
	w.profile(t, "idle", w.nextPort())
	want(t, all("list"), "idle stopped – - - -")
	t.Cleanup(func() {
		w.user.Run(t, "rm "+units+"hermes-*@.service; systemctl --user daemon-reload")
	})

	serving, alone := gate.mainPID(), clock.mainPID()
	want(t, all("restart --all"), "hermes-gateway@idle is neither enabled nor running and was left", "hermes -p idle gateway start")
	if left := w.user.Run(t, "systemctl --user list-units --plain --no-legend 'hermes-*@*'"); strings.TrimSpace(left) != "" {
		t.Errorf("started were %s", left)
	}
	gate.awaitAnother(serving)
	clock.awaitAnother(alone)
	serving, alone = gate.mainPID(), clock.mainPID()
	want(t, all("restart --all"), "✓ Restarted hermes-gateway-gate", "✓ Restarted hermes-cron-clock")
	if g, c := gate.awaitAnother(serving), clock.awaitAnother(alone); g == serving || c == alone {
		t.Errorf("the same processes serve: %d and %d", g, c)
	}
	serving = gate.mainPID()
	want(t, all("stop --all --cron-only"), "✓ Stopped hermes-cron-clock")
	states("active inactive")
	want(t, clock.cliFails("gateway status --cron-only"), "✗ Scheduler (clock): not running")
	want(t, all("list"), "hermes-cron-clock (inactive)")
	want(t, all("start --all"), "already runs", "✓ Started hermes-cron-clock")
	states("active active")
	if now := gate.mainPID(); now != serving {
		t.Errorf("the gateway was replaced: %d, then %d", serving, now)
	}
	want(t, all("stop --all"), "✓ Stopped hermes-gateway-gate", "✓ Stopped hermes-cron-clock")
	states("inactive inactive")
	want(t, all("start --all --cron-only"), "✓ Started hermes-cron-clock")
	states("inactive active")
	want(t, all("uninstall --all"), "✓ Removed")
	if left, _ := w.user.Try(t.Context(), "ls .config/systemd/user/ | grep -v @.service"); strings.Contains(left, "hermes-gateway-") || strings.Contains(left, "hermes-cron-") {
		t.Errorf("left are %s", left)
	}
	want(t, all("uninstall --all"), "")
}

// A unit that is masked is started by nobody; whoever tries is told, with the
// command that takes it back, and what serves goes on.
func testMasked(t *testing.T, w *world) {
	p := w.as(t, template, "mask")
	command := "systemctl --user unmask " + p.unit
	pid := p.mainPID()
	w.user.Run(t, "systemctl --user mask "+p.unit)
	w.user.Run(t, "systemctl --user daemon-reload")
	p.awaitServing()
	want(t, p.user.Run(t, spare+" -p mask gateway status || true"), "is masked", command)
	p.restart() // in place: systemd is not asked
	if now := p.mainPID(); now != pid {
		t.Errorf("another process: %d, then %d", pid, now)
	}
	want(t, p.cli("gateway stop"), "✓ Stopped")
	for _, verb := range []string{"start", "restart", "install --template"} {
		want(t, p.cliFails("gateway "+verb), "is masked, so systemd starts it for nobody", command)
	}
	want(t, p.cliFails("doctor --local"), "masked")
	want(t, w.user.Run(t, spare+" gateway list --json"), "is masked")
	w.user.Run(t, command)
	want(t, p.cli("gateway start"), "✓ Started")
	p.awaitServing()
	// Wherever the mask lies, the command that is named takes it back.
	named := regexp.MustCompile("`((?:sudo )?systemctl [^`]*unmask[^`]*)`")
	for mask, take := range map[string]func(testing.TB, string) string{
		"systemctl --user mask --runtime " + p.unit: w.user.Run,
		"systemctl --global mask " + p.unit:         w.Root,
	} {
		want(t, p.cli("gateway stop"), "✓ Stopped")
		take(t, mask)
		w.user.Run(t, "systemctl --user daemon-reload")
		said := strings.Join(strings.Fields(p.cliFails("gateway start")), " ")
		m := named.FindStringSubmatch(said)
		if m == nil {
			t.Fatalf("after %s no command is named: %s", mask, said)
		}
		if undo, root := strings.CutPrefix(m[1], "sudo "); root {
			w.Root(t, undo)
			w.user.Run(t, "systemctl --user daemon-reload")
		} else {
			w.user.Run(t, undo)
		}
		want(t, p.cli("gateway start"), "✓ Started")
	}

	// A generated unit that was masked before it was ever written.
	q := w.profile(t, "never", w.nextPort())
	q.unit = "hermes-gateway-never.service"
	w.user.Run(t, "systemctl --user mask "+q.unit)
	want(t, q.cliFails("gateway install"), "is masked", "systemctl --user unmask "+q.unit)
	want(t, q.cliFails("gateway install --force"), "is masked")
	w.user.Run(t, "systemctl --user unmask "+q.unit)
	// Nor is a rescue wanted by whoever masks that.
	w.user.Run(t, "rm -f .config/systemd/user/hermes-rescue@.service && systemctl --user mask hermes-rescue@.service")
	q.t.Cleanup(q.remove)
	want(t, q.cli("gateway install"), "hermes-rescue@.service is masked and was left so", "✓ Started")
	q.awaitServing()
}
