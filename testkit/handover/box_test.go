package handover

import (
	"context"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"hermes/testkit/box"
)

// The generated unit under a real systemd: hand-overs, a kill, a process that
// hangs and a restart by hand, and nobody is ever refused.
func TestHandOverUnderSystemd(t *testing.T) {
	if why := box.Missing(); why != "" {
		t.Skip(why)
	}
	b := box.Start(t)
	b.Install(t, binary(t, ""), "/usr/local/bin/hermes")
	u := b.User(t, "ada")
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := l.Addr().(*net.TCPAddr).Port
	l.Close()
	u.Run(t, fmt.Sprintf("hermes config set model.provider offline && hermes config set API_SERVER_ENABLED true && hermes config set API_SERVER_PORT %d", port))
	b.Root(t, "loginctl enable-linger ada")
	u.AwaitManager(t)
	const unit = "hermes-gateway"
	u.Run(t, "hermes gateway install --ready notify")
	// A short silence is enough to see the watchdog at work.
	u.Run(t, "mkdir -p ~/.config/systemd/user/hermes-gateway.service.d && printf '[Service]\\nWatchdogSec=4\\n' >~/.config/systemd/user/hermes-gateway.service.d/watchdog.conf && systemctl --user daemon-reload && systemctl --user restart hermes-gateway")
	health := fmt.Sprintf("http://127.0.0.1:%d/health", port)
	b.Until(t, time.Minute, "the first answer", func(ctx context.Context) error {
		out, err := b.Try(ctx, "curl -fsS -m 2 "+health)
		if err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		return nil
	})
	b.Write(t, "/var/knock.sh", knocker)
	b.Root(t, "systemd-run --quiet --unit=knock sh /var/knock.sh "+health)
	answers := func() int { return strings.Count(b.Read("/var/knock.log"), "ok\n") }
	await := func(what, old string) string {
		t.Helper()
		pid := ""
		b.Until(t, time.Minute, what, func(context.Context) error {
			if pid = u.Property(t, unit, "MainPID"); pid == "0" || pid == old || u.Property(t, unit, "ActiveState") != "active" {
				return fmt.Errorf("main PID %s, was %s", pid, old)
			}
			return nil
		})
		before := answers()
		b.Until(t, time.Minute, what+", serving", func(context.Context) error {
			if n := answers() - before; n < 5 {
				return fmt.Errorf("%d requests served since", n)
			}
			return nil
		})
		return pid
	}
	pid := await("start", "")
	for range 3 {
		u.Run(t, "systemctl --user reload "+unit)
		pid = await("hand-over by ExecReload", pid)
	}
	if n := u.Property(t, unit, "NRestarts"); n != "0" {
		t.Errorf("systemd restarted it %s times", n)
	}
	if n := u.Property(t, unit, "NFileDescriptorStore"); n != "1" {
		t.Errorf("%s sockets are kept, want the API's", n)
	}
	u.Run(t, "kill -9 "+pid)
	pid = await("a start after a kill", pid)
	u.Run(t, "kill -STOP "+pid)
	pid = await("a start by the watchdog", pid)
	u.Run(t, "systemctl --user restart "+unit)
	pid = await("a restart by hand", pid)
	u.Run(t, "systemctl --user reload "+unit)
	pid = await("the last hand-over", pid)
	b.Root(t, "touch /var/knock.stop")
	b.Until(t, time.Minute, "the last request", func(ctx context.Context) error {
		if out, _ := b.Try(ctx, "systemctl is-active knock"); strings.TrimSpace(out) == "active" {
			return fmt.Errorf("knock is %s", out)
		}
		return nil
	})
	log := b.Read("/var/knock.log")
	if n := strings.Count(log, "curl exit"); n > 0 {
		t.Errorf("%d of %d requests failed", n, strings.Count(log, "\n"))
	}
	t.Logf("%d requests", strings.Count(log, "\n"))
	u.Run(t, "systemctl --user stop "+unit)
	if got := u.Property(t, unit, "Result") + " " + u.Property(t, unit, "ActiveState"); got != "success inactive" {
		t.Errorf("after a stop of process %s: %s", pid, got)
	}
	if log := u.Run(t, "journalctl --user --no-pager -u "+unit+" | tail -50"); !strings.Contains(log, "gateway stopped") || strings.Contains(log, "not our child") {
		t.Errorf("it was not stopped in order:\n%s", log)
	}
}

// knocker asks without rest, each time on a connection of its own, and notes
// how it went; curl's 7 is a refusal.
const knocker = `#!/bin/sh
while [ ! -e /var/knock.stop ]; do
  curl -s -m 30 -o /dev/null "$1" && echo ok >>/var/knock.log || echo "curl exit $?" >>/var/knock.log
  sleep 0.02
done
`
