package service_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"hermes/testkit/box"
	"hermes/testkit/rig"
)

const program = "/usr/local/bin/hermes"

// bench is a box with the real binary and one user.
type bench struct {
	*box.Box
	user  *box.User
	ready string // the readiness that the binary speaks
}

// The tests of units share the binary; each has a machine of its own.
func TestUnitsInABox(t *testing.T) {
	if why := box.Missing(); why != "" {
		t.Skip(why)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	binary, err := rig.Build(ctx, t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(binary)
	if err != nil {
		t.Fatal(err)
	}
	ready := "simple"
	if bytes.Contains(text, []byte("READY=1")) {
		ready = "notify"
	}
	for name, test := range map[string]func(*testing.T, bench){
		"GeneratedUnit": testGeneratedUnit, "StrayKill": testStrayKill, "HandWrittenTemplate": testHandWrittenTemplate,
		"CrashLoop": testCrashLoop, "SystemUnit": testSystemUnit, "Template": testTemplate,
	} {
		t.Run(name, func(t *testing.T) {
			b := bench{Box: box.Start(t), ready: ready}
			b.Install(t, binary, program)
			b.user = b.User(t, "ada")
			test(t, b)
		})
	}
}

// profile makes a profile with the built-in model and an API on a port.
func (b bench) profile(t *testing.T, name string, port int) {
	t.Helper()
	if name != "default" {
		b.user.Run(t, "hermes profile create "+name)
	}
	b.user.Run(t, fmt.Sprintf("hermes -p %s config set model.provider offline && hermes -p %s config set API_SERVER_ENABLED true && hermes -p %s config set API_SERVER_PORT %d", name, name, name, port))
}

// install runs `gateway install` without the variables of a session, so that
// the way to the user's bus must be derived.
func (b bench) install(t *testing.T, args string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	out, err := b.user.TryBare(ctx, "hermes gateway install --ready "+b.ready+" "+args)
	if err != nil {
		t.Fatalf("install %s: %v\n%s", args, err, out)
	}
	return out
}

// awaitServing waits until the API of a port answers, and gives the unit's main
// process.
func (b bench) awaitServing(t *testing.T, unit string, port int) string {
	t.Helper()
	b.Until(t, time.Minute, unit+" to serve", func(ctx context.Context) error {
		if out, err := b.Try(ctx, fmt.Sprintf("curl -fsS -m 2 http://127.0.0.1:%d/health", port)); err != nil {
			state, _ := b.user.Try(ctx, "systemctl --user status "+unit)
			return fmt.Errorf("%w: %s\n%s", err, out, state)
		}
		return nil
	})
	return b.user.Property(t, unit, "MainPID")
}

// awaitAnother waits until the unit has another main process than old.
func (b bench) awaitAnother(t *testing.T, unit, old string, port int) string {
	t.Helper()
	b.Until(t, time.Minute, unit+" to be started again", func(ctx context.Context) error {
		out, err := b.user.Try(ctx, "systemctl --user show -p MainPID --value "+unit)
		if pid := strings.TrimSpace(out); err != nil || pid == old || pid == "0" {
			return fmt.Errorf("main PID %s: %w", pid, err)
		}
		return nil
	})
	return b.awaitServing(t, unit, port)
}

func want(t *testing.T, out string, parts ...string) {
	t.Helper()
	flat := strings.Join(strings.Fields(out), " ") // lines are folded
	for _, p := range parts {
		if !strings.Contains(flat, p) {
			t.Errorf("%q is missing in:\n%s", p, out)
		}
	}
}

func testGeneratedUnit(t *testing.T, b bench) {
	u, unit := b.user, "hermes-gateway-liam.service"
	u.Login(t)
	b.profile(t, "liam", 8642)
	file := u.Home + "/.config/systemd/user/" + unit

	want(t, b.install(t, "-p liam --print"), "# "+file, "ExecStart="+program+" --profile liam gateway run")
	if b.Read(file) != "" {
		t.Fatal("--print wrote the unit")
	}
	// Where a policy denies it to users, the command for root is named.
	b.Write(t, "/opt/deny/loginctl", "#!/bin/sh\necho 'Could not enable linger: Access denied' >&2\nexit 1\n")
	b.Root(t, "chmod 755 /opt/deny/loginctl")
	want(t, u.Run(t, "PATH=/opt/deny:$PATH hermes -p liam gateway install --ready "+b.ready),
		"✓ Wrote "+file, "✓ Enabled "+unit, "Access denied", "sudo loginctl enable-linger ada", "✓ Started hermes-gateway-liam")
	first := b.awaitServing(t, unit, 8642)
	want(t, u.Run(t, "systemd-analyze --user verify "+file+" 2>&1 && echo clean"), "clean")
	if out := u.Run(t, "systemd-analyze --user verify "+file+" 2>&1"); strings.TrimSpace(out) != "" {
		t.Errorf("systemd-analyze verify complains: %s", out)
	}
	status := u.Run(t, "hermes -p liam gateway status")
	want(t, status, "✓ Gateway (liam)", unit+" (user unit), active (running), enabled", "generated", "lingering off", "loginctl enable-linger ada", "of 5 starts left within 10m0s")
	if strings.Contains(status, "outdated") {
		t.Errorf("a fresh unit is called outdated:\n%s", status)
	}

	want(t, b.install(t, "-p liam"), "Switched lingering on", "already runs (PID "+first+")")
	u.Logout(t)
	b.Until(t, time.Minute, "the last session to end", func(ctx context.Context) error {
		if out, _ := b.Try(ctx, "loginctl list-sessions --no-legend"); strings.TrimSpace(out) != "" {
			return errors.New(out)
		}
		return nil
	})
	if now := b.awaitServing(t, unit, 8642); now != first {
		t.Errorf("the logout replaced the process: %s, then %s", first, now)
	}
	want(t, u.Run(t, "hermes -p liam gateway status"), "lingering on")
	b.Reboot(t)
	u.AwaitManager(t)
	b.awaitServing(t, unit, 8642)
	b.PowerCut(t)
	u.AwaitManager(t)
	old := b.awaitServing(t, unit, 8642)

	want(t, u.Run(t, "hermes -p liam gateway restart"), "✓ Restarted hermes-gateway-liam")
	if now := u.Property(t, unit, "MainPID"); now == old {
		t.Error("restart returned, and the old process is still the main one")
	}
	u.Run(t, "systemctl --user stop "+unit)
	for property, value := range map[string]string{"Result": "success", "ActiveState": "inactive", "ExecMainStatus": "0"} {
		if got := u.Property(t, unit, property); got != value {
			t.Errorf("after systemctl stop %s is %s", property, got)
		}
	}
	want(t, u.Fails(t, "hermes -p liam gateway status"), "not running", "hermes -p liam gateway start")
	want(t, u.Run(t, "hermes -p liam gateway start"), "✓ Started hermes-gateway-liam")
	want(t, u.Run(t, "hermes -p liam gateway stop"), "✓ Stopped hermes-gateway-liam")
	want(t, u.Run(t, "hermes -p liam gateway stop"), "is not running")

	testEdited(t, b, unit, file)
	want(t, u.Fails(t, "hermes -p liam gateway install --template --ready "+b.ready), "already served by "+unit)
	want(t, u.Run(t, "hermes -p liam gateway uninstall"), "✓ Stopped and disabled "+unit, "✓ Removed "+file)
	if got := u.Property(t, unit, "LoadState"); got != "not-found" {
		t.Errorf("after uninstall the unit is %s", got)
	}
	want(t, u.Fails(t, "hermes -p liam gateway status"), "no unit is installed")
}

// testEdited holds that what an operator changed is never lost.
func testEdited(t *testing.T, b bench, unit, file string) {
	u := b.user
	u.Run(t, "sed -i s/RestartSec=1s/RestartSec=7s/ "+file)
	want(t, u.Fails(t, "hermes -p liam gateway install --ready "+b.ready), "is hand-edited", "-RestartSec=7s", "+RestartSec=1s", "--force")
	if !strings.Contains(b.Read(file), "RestartSec=7s") {
		t.Fatal("a refused install changed the file")
	}
	want(t, u.Run(t, "hermes -p liam gateway install --force --no-start-now --ready "+b.ready), "is kept as "+file+".bak-")
	if got := u.Run(t, "cat "+file+".bak-*"); !strings.Contains(got, "RestartSec=7s") {
		t.Errorf("the copy is not what it was:\n%s", got)
	}
	if got := u.Property(t, unit, "RestartUSec"); got != "1s" {
		t.Errorf("after --force RestartSec is %s", got)
	}
}

// A kill that nobody planned brings the gateway back, also where an operator's
// drop-in says on-failure.
func testStrayKill(t *testing.T, b bench) {
	u, unit := b.user, "hermes-gateway.service"
	b.Root(t, "loginctl enable-linger ada")
	u.AwaitManager(t)
	b.profile(t, "default", 8642)
	// A path that systemd would read otherwise unless it is quoted.
	odd := "/opt/my tools/100% of $HOME/hermes"
	b.Root(t, "mkdir -p '/opt/my tools/100% of $HOME' && cp "+program+" '"+odd+"'")
	want(t, u.Run(t, "'"+odd+"' gateway install --ready "+b.ready), "✓ Lingering is on", "✓ Started hermes-gateway")
	if out := u.Run(t, "systemd-analyze --user verify ~/.config/systemd/user/"+unit+" 2>&1"); strings.TrimSpace(out) != "" {
		t.Errorf("systemd-analyze verify complains: %s", out)
	}
	pid := b.awaitServing(t, unit, 8642)
	u.Run(t, "kill -TERM "+pid)
	pid = b.awaitAnother(t, unit, pid, 8642)
	u.Run(t, "kill -KILL "+pid)
	b.awaitAnother(t, unit, pid, 8642)

	// A process that took over is watched as the first one was.
	want(t, u.Run(t, "hermes gateway restart"), "✓ Restarted hermes-gateway")
	pid = u.Property(t, unit, "MainPID")
	testInside(t, b, unit)
	// One that hangs, and so cannot hand over, is replaced by systemd.
	u.Run(t, "kill -STOP "+pid)
	want(t, u.Run(t, "hermes gateway restart"), "does not answer", "✓ Restarted hermes-gateway")
	pid = u.Property(t, unit, "MainPID")
	u.Run(t, "kill -KILL "+pid)
	pid = b.awaitAnother(t, unit, pid, 8642)

	u.Write(t, u.Home+"/.config/systemd/user/"+unit+".d/10-restart-guardrails.conf",
		"[Unit]\nStartLimitIntervalSec=10min\nStartLimitBurst=5\n[Service]\nRestart=on-failure\nRestartSec=1s\n")
	u.Run(t, "systemctl --user daemon-reload && systemctl --user reset-failed "+unit)
	u.Run(t, "kill -TERM "+pid)
	b.awaitAnother(t, unit, pid, 8642)
	status := u.Run(t, "hermes gateway status")
	if strings.Contains(status, "outdated") {
		t.Errorf("another path of the program makes the unit outdated:\n%s", status)
	}
	want(t, status, "10-restart-guardrails.conf: Restart=on-failure")
	if record := b.Read(u.Home + "/.hermes/logs/gateway-exit-diag.log"); !strings.Contains(record, `"code":75`) {
		t.Errorf("no exit with 75 is on record:\n%s", record)
	}
	// The manager's own stop is no failure: nothing comes back.
	u.Run(t, "systemctl --user stop "+unit)
	if got := u.Property(t, unit, "Result") + " " + u.Property(t, unit, "SubState"); got != "success dead" {
		t.Errorf("after systemctl stop the unit is %s", got)
	}
}

// testInside holds that a command which the gateway runs cannot stop it.
func testInside(t *testing.T, b bench, unit string) {
	t.Helper()
	group := b.user.Property(t, unit, "ControlGroup")
	for _, verb := range []string{"stop", "restart", "uninstall"} {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		out, err := b.Try(ctx, fmt.Sprintf("for f in /sys/fs/cgroup%[1]s /sys/fs/cgroup/*%[1]s; do [ ! -e $f ] || echo $$ >$f/cgroup.procs || exit 0; done; exec runuser -u ada -- env HOME=%[2]s hermes gateway %[3]s", group, b.user.Home, verb))
		cancel()
		if err == nil {
			t.Errorf("%s from inside the unit succeeded:\n%s", verb, out)
		}
		want(t, out, "runs inside "+unit, "/restart")
	}
}

// The units of the runbook, as operators write them by hand.
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

func testHandWrittenTemplate(t *testing.T, b bench) {
	u := b.user
	b.Root(t, "loginctl enable-linger ada")
	u.AwaitManager(t)
	b.profile(t, "liam", 8642)
	b.profile(t, "drj", 8643)
	file := u.Home + "/.config/systemd/user/hermes-gateway@.service"
	u.Write(t, file, handWritten)
	u.Write(t, u.Home+"/.config/systemd/user/hermes-cron@.service", handWrittenCron)
	u.Run(t, "systemctl --user daemon-reload && systemctl --user enable --now hermes-gateway@liam hermes-gateway@drj hermes-cron@liam")
	liam, drj := b.awaitServing(t, "hermes-gateway@liam", 8642), b.awaitServing(t, "hermes-gateway@drj", 8643)
	if liam == drj {
		t.Fatalf("one process for two profiles: %s", liam)
	}
	want(t, u.Run(t, "hermes -p drj gateway status"), "✓ Gateway (drj)", "hermes-gateway@drj.service (user unit), active (running), enabled", "hand-written",
		"StartLimitInterval= belongs in [Unit]", "network-online.target does nothing")
	if got := u.Property(t, "hermes-cron@liam", "SubState"); got != "running" {
		t.Errorf("the scheduler beside the gateway is %s", got)
	}

	began := time.Now()
	u.Run(t, "systemctl --user stop hermes-gateway@drj")
	if took := time.Since(began); took > 20*time.Second {
		t.Errorf("the stop took %s", took)
	}
	if got := u.Property(t, "hermes-gateway@drj", "Result"); got != "success" {
		t.Errorf("after a stop Result is %s", got)
	}
	want(t, u.Run(t, "hermes -p liam gateway status"), "✓ Gateway (liam)")
	want(t, u.Run(t, "hermes -p drj gateway start"), "✓ Started hermes-gateway@drj")
	want(t, u.Fails(t, "hermes -p liam gateway install"), "hermes-gateway@liam.service", "two units would fight")

	want(t, u.Run(t, "hermes -p liam gateway install --adopt --ready "+b.ready), "✓ Adopted hermes-gateway@liam")
	if b.Read(file) != handWritten {
		t.Error("--adopt changed the hand-written file")
	}
	want(t, u.Run(t, "hermes -p liam gateway restart"), "✓ Restarted hermes-gateway@liam")
	for property, value := range map[string]string{"RestartUSec": "1s", "Type": b.ready, "StartLimitIntervalUSec": "10min", "OOMPolicy": "continue"} {
		if got := u.Property(t, "hermes-gateway@liam", property); got != value {
			t.Errorf("after --adopt %s is %s, not %s", property, got, value)
		}
	}
	u.Run(t, "kill -TERM "+u.Property(t, "hermes-gateway@liam", "MainPID"))
	b.awaitAnother(t, "hermes-gateway@liam", "0", 8642)
	want(t, u.Run(t, "hermes gateway stop --all"), "✓ Stopped hermes-gateway@liam", "✓ Stopped hermes-gateway@drj")
	want(t, u.Run(t, "hermes -p liam gateway uninstall"), "is hand-written and was left")
	if b.Read(file) != handWritten {
		t.Error("uninstall took a hand-written file away")
	}
}

// A binary that ends at once must not be started for ever, and what is wrong is
// said.
func testCrashLoop(t *testing.T, b bench) {
	u, unit := b.user, "hermes-gateway.service"
	b.Root(t, "loginctl enable-linger ada && mkdir -p /opt && cp "+program+" /opt/good")
	u.AwaitManager(t)
	b.profile(t, "default", 8642)
	b.install(t, "")
	u.Run(t, "systemctl --user mask hermes-rescue@"+unit+".service") // which might bring it back; see testkit/rescue
	pid := b.awaitServing(t, unit, 8642)
	b.Write(t, "/opt/bad", "#!/bin/sh\nexit 3\n")
	b.Root(t, "chmod 755 /opt/bad && cp /opt/bad "+program+".new && mv "+program+".new "+program)
	u.Run(t, "kill -KILL "+pid)
	b.Until(t, time.Minute, "systemd to give up", func(ctx context.Context) error {
		out, err := u.Try(ctx, "systemctl --user show -p Result --value "+unit)
		if r := strings.TrimSpace(out); r != "start-limit-hit" && u.Property(t, unit, "ActiveState") != "failed" {
			return fmt.Errorf("%s %w", r, err)
		}
		return nil
	})
	want(t, u.Fails(t, "/opt/good gateway status"), "not running", "was started 5 times within 10m0s", "systemctl --user reset-failed "+unit, "at least 0 of 5 starts left")
	want(t, u.Fails(t, "/opt/good gateway start"), "last status 3", "reset-failed")
	b.Root(t, "cp /opt/good "+program+".new && mv "+program+".new "+program)
	want(t, u.Run(t, "/opt/good gateway start"), "✓ Started hermes-gateway")
	b.awaitServing(t, unit, 8642)
	b.Root(t, "rm "+program)
	u.Run(t, "kill -KILL "+u.Property(t, unit, "MainPID"))
	want(t, u.Fails(t, "/opt/good gateway restart"), "program that cannot be run", "203/EXEC")
}

func testSystemUnit(t *testing.T, b bench) {
	b.profile(t, "default", 8642)
	want(t, b.user.Fails(t, "hermes gateway install --system"), "sudo hermes gateway install --system --run-as-user ada")
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if out, err := b.Try(ctx, "hermes gateway install --system"); err == nil {
		t.Errorf("a gateway of root was installed without being asked for:\n%s", out)
	}
	want(t, b.Root(t, "hermes gateway install --system --run-as-user ada --ready "+b.ready), "✓ Wrote /etc/systemd/system/hermes-gateway.service", "✓ Started hermes-gateway")
	serving := func() {
		t.Helper()
		b.Until(t, time.Minute, "the system's gateway to serve", func(ctx context.Context) error {
			out, err := b.Try(ctx, "curl -fsS -m 2 http://127.0.0.1:8642/health")
			if err != nil {
				return fmt.Errorf("%w: %s", err, out)
			}
			return nil
		})
	}
	serving()
	if out := b.Root(t, "systemd-analyze verify /etc/systemd/system/hermes-gateway.service 2>&1"); strings.TrimSpace(out) != "" {
		t.Errorf("systemd-analyze verify complains: %s", out)
	}
	if out := b.Root(t, "ps -o user= -p $(systemctl show -p MainPID --value hermes-gateway)"); strings.TrimSpace(out) != "ada" {
		t.Errorf("it runs as %s", out)
	}
	want(t, b.Root(t, "hermes gateway status --system"), "hermes-gateway.service (system unit), active (running), enabled")
	b.Reboot(t)
	serving()
	old := strings.TrimSpace(b.Root(t, "systemctl show -p MainPID --value hermes-gateway"))
	b.Root(t, "kill -TERM "+old)
	b.Until(t, time.Minute, "another process", func(ctx context.Context) error {
		out, err := b.Try(ctx, "systemctl show -p MainPID --value hermes-gateway")
		if pid := strings.TrimSpace(out); err != nil || pid == old || pid == "0" {
			return fmt.Errorf("%s %w", out, err)
		}
		return nil
	})
	serving()
	want(t, b.Root(t, "hermes gateway restart --system"), "✓ Restarted hermes-gateway")
	want(t, b.Root(t, "hermes gateway stop --system"), "✓ Stopped hermes-gateway")
	want(t, b.Root(t, "hermes gateway uninstall --system"), "✓ Removed /etc/systemd/system/hermes-gateway.service")
}

func testTemplate(t *testing.T, b bench) {
	u := b.user
	// No session and no lingering: there is no manager, and that is explained.
	b.profile(t, "liam", 8642)
	b.profile(t, "drj", 8643)
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	out, err := u.TryBare(ctx, "hermes -p liam gateway install")
	if err == nil {
		t.Errorf("installed without a manager:\n%s", out)
	}
	want(t, out, "no systemd user manager runs", "sudo loginctl enable-linger ada")
	b.Root(t, "loginctl enable-linger ada")
	u.AwaitManager(t)
	dir := u.Home + "/.config/systemd/user/"
	want(t, b.install(t, "-p liam --template"), "✓ Wrote "+dir+"hermes-gateway@.service", "✓ Wrote "+dir+"hermes-cron@.service", "✓ Enabled hermes-gateway@liam.service")
	want(t, b.install(t, "-p drj --template"), "is up to date", "✓ Enabled hermes-gateway@drj.service")
	b.awaitServing(t, "hermes-gateway@liam", 8642)
	b.awaitServing(t, "hermes-gateway@drj", 8643)
	if out := u.Run(t, "systemd-analyze --user verify "+dir+"hermes-gateway@liam.service "+dir+"hermes-cron@liam.service 2>&1"); strings.TrimSpace(out) != "" {
		t.Errorf("systemd-analyze verify complains: %s", out)
	}
	want(t, u.Run(t, "hermes gateway restart --all"), "✓ Restarted hermes-gateway@drj", "✓ Restarted hermes-gateway@liam")
	want(t, u.Run(t, "hermes -p liam gateway uninstall"), "is left for hermes-gateway@drj.service")
	b.awaitServing(t, "hermes-gateway@drj", 8643)
	want(t, u.Run(t, "hermes -p drj gateway uninstall"), "✓ Removed "+dir+"hermes-gateway@.service", "✓ Removed "+dir+"hermes-cron@.service")
}
