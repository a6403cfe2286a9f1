//go:build systemd

package systemd

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"hermes/testkit/rig"
	"hermes/testkit/telegram"
)

// serveLimit is ten times the budget of a new process.
const serveLimit = time.Second

const resumed = "♻️ I was restarted and go on where I was."

// A killed gateway is back before a client is refused, and goes on with what
// it was at.
func testKilled(t *testing.T, w *world) {
	p := w.profile(t, "drj", 8643)
	p.install()
	p.awaitServing()
	ann := p.tg.AddUser("Ann")
	p.killed(ann, "k1")
	// The successor of a hand-over is no child that systemd forked.
	want(t, p.cli("gateway restart"), "✓ Restarted")
	p.killed(ann, "k2")
}

// killed kills the main process in the middle of a turn and under a load of
// new connections.
func (p *profile) killed(u telegram.User, id string) {
	t := p.t
	t.Helper()
	p.user.Run(t, "systemctl --user reset-failed "+p.unit)
	l := p.startLoad(true)
	l.goOn()
	p.begin(u, id)
	old := p.mainPID()
	p.user.Run(t, fmt.Sprintf("kill -KILL %d", old))
	served := p.firstServed(old)
	now := p.awaitAnother(old)
	began := p.started(now)
	if took := served - began; took > serveLimit {
		t.Errorf("%s: serving %s after the new process's start", id, took)
	} else {
		t.Logf("%s: serving %s after the new process's start", id, took)
	}
	close(p.gate(id))
	if err := p.sees(u, "answer "+id); err != nil {
		t.Error(err)
	}
	t.Logf("%s: answered %s after the new process's start", id, uptime(t)-began)
	l.goOn()
	failed := l.end()
	p.once(u, "answer "+id)
	p.noticed(u)
	if n := l.refused.Load(); n > 0 {
		t.Errorf("%s: %d connections refused", id, n)
	}
	// What the dead process had accepted is cut; nothing else may fail.
	for _, f := range failed {
		if !strings.Contains(f, "EOF") && !strings.Contains(f, "reset by peer") {
			t.Error(f)
		}
	}
	if len(failed) > workers {
		t.Errorf("%s: %d requests failed", id, len(failed))
	}
}

// noticed holds that the last answer came after the notice, told once.
func (p *profile) noticed(u telegram.User) {
	p.t.Helper()
	said := p.tg.Replies(u.ID)
	if n := len(said); n < 2 || said[n-2].Text != resumed {
		p.t.Errorf("the notice does not stand before the answer:\n%s", p.tg.Transcript(u.ID))
	}
}

// firstServed is the uptime at which a connection made after the death of the
// old process is answered.
func (p *profile) firstServed(old int) time.Duration {
	p.t.Helper()
	ctx, cancel := rig.Deadline(stepLimit)
	defer cancel()
	p.until("the old process's end", func() bool {
		_, err := p.Try(ctx, fmt.Sprintf("test -e /proc/%d", old))
		return err != nil
	})
	if err := p.health(ctx, p.client(false)); err != nil {
		p.t.Errorf("a client that connected between two lives: %v", err)
	}
	return uptime(p.t)
}

// A plain restart by systemd refuses nobody, and whoever connects meanwhile is
// served by the next process.
func testSystemdRestart(t *testing.T, w *world) {
	p := w.profile(t, "code", 8644)
	p.install()
	p.awaitServing()
	l := p.startLoad(true)
	for i := range 6 {
		l.goOn()
		if i%2 == 1 { // the stop of one that systemd did not fork
			want(t, p.cli("gateway restart"), "✓ Restarted")
		}
		old := p.mainPID()
		p.user.Run(t, fmt.Sprintf("systemctl --user reset-failed %s && systemctl --user restart %s", p.unit, p.unit))
		if p.mainPID() == old {
			t.Error("the same process")
		}
	}
	l.goOn()
	l.finish()
	if n := p.show("NRestarts"); n != "0" {
		t.Errorf("systemd restarted it %s times by itself", n)
	}
}

// How a life ends decides whether there is another.
func testEnds(t *testing.T, w *world) {
	p := w.profile(t, "jeff", 8645)
	p.install()
	p.awaitServing()
	stray := func(what string) {
		t.Helper()
		p.user.Run(t, "systemctl --user reset-failed "+p.unit)
		old := p.mainPID()
		p.user.Run(t, fmt.Sprintf("kill -TERM %d", old))
		p.awaitAnother(old)
		p.awaitServing()
		if got := p.show("Result"); got != "success" {
			t.Errorf("%s: Result is %s", what, got)
		}
	}
	stray("Restart=always")
	want(t, p.cli("gateway restart"), "✓ Restarted")
	stray("Restart=always after a hand-over")
	p.user.Write(t, p.user.Home+"/.config/systemd/user/"+p.unit+".d/10-restart-guardrails.conf",
		"[Unit]\nStartLimitIntervalSec=10min\nStartLimitBurst=5\n[Service]\nRestart=on-failure\nRestartSec=1s\n")
	p.user.Run(t, "systemctl --user daemon-reload")
	stray("Restart=on-failure")
	want(t, p.cli("gateway restart"), "✓ Restarted")
	stray("Restart=on-failure after a hand-over")
	p.stopped()

	// A stop after a hand-over, with a turn in the predecessor, ends both.
	p.user.Run(t, "systemctl --user start "+p.unit)
	p.awaitServing()
	p.begin(p.tg.AddUser("Ben"), "e1")
	want(t, p.cli("gateway restart"), "✓ Restarted")
	p.stopped()

	// No usable configuration: it ends for good and says why.
	good := p.Read(p.file("config.yaml"))
	p.user.Write(t, p.file("config.yaml"), "model: [\n")
	want(t, p.cliFails("gateway start"), "78")
	if got := p.show("ActiveState") + " " + p.show("ExecMainStatus") + " " + p.show("NRestarts"); got != "failed 78 0" {
		t.Errorf("with a broken configuration the unit is %s", got)
	}
	p.user.Write(t, p.file("config.yaml"), good)
	want(t, p.cli("gateway start"), "✓ Started")
	p.awaitServing()
}

// stopped stops the unit by systemd and holds that it stays so, with nothing
// left and nobody listening.
func (p *profile) stopped() {
	t := p.t
	t.Helper()
	began := time.Now()
	p.user.Run(t, "systemctl --user stop "+p.unit)
	if took := time.Since(began); took > 20*time.Second {
		t.Errorf("the stop took %s", took)
	}
	if got := p.show("Result") + " " + p.show("ActiveState") + " " + p.show("ExecMainStatus"); got != "success inactive 0" {
		t.Errorf("after systemctl stop the unit is %s", got)
	}
	if left := p.Root(t, "pgrep -f -- '[p]rofile "+p.name+" gateway run' || true"); strings.TrimSpace(left) != "" {
		t.Errorf("processes are left: %s", left)
	}
	ctx, cancel := rig.Deadline(stepLimit)
	defer cancel()
	if err := p.health(ctx, p.client(false)); err == nil || !strings.Contains(err.Error(), "refused") {
		t.Errorf("after a stop the port says %v", err)
	}
}

// A gateway that hangs is killed and started again by systemd.
func testWatchdog(t *testing.T, w *world) {
	p := w.profile(t, "dog", 8646)
	p.user.Write(t, p.user.Home+"/.config/systemd/user/"+p.unit+".d/20-watchdog.conf", "[Service]\nWatchdogSec=3s\n")
	p.install()
	p.awaitServing()
	for _, after := range []string{"a start", "a hand-over"} {
		if after == "a hand-over" {
			want(t, p.cli("gateway restart"), "✓ Restarted")
		}
		fed := p.show("WatchdogTimestampMonotonic")
		p.until("the watchdog to be fed", func() bool { return p.show("WatchdogTimestampMonotonic") != fed })
		restarts, _ := strconv.Atoi(p.show("NRestarts"))
		old := p.mainPID()
		p.user.Run(t, fmt.Sprintf("kill -STOP %d", old))
		p.awaitAnother(old)
		p.awaitServing()
		if got := p.show("NRestarts"); got != strconv.Itoa(restarts+1) {
			t.Errorf("after %s: NRestarts is %s, was %d", after, got, restarts)
		}
	}
}

// The file on disk wins over what systemd read from it, and a socket that is no
// longer wanted is nobody's.
func testEnvironment(t *testing.T, w *world) {
	p := w.profile(t, "env", 8647)
	p.user.Write(t, p.user.Home+"/.config/systemd/user/"+p.unit+".d/20-environment.conf", "[Service]\nEnvironmentFile=-"+p.file(".env")+"\n")
	p.env("HERMES_TIMEZONE=Asia/Seoul\n")
	p.install()
	p.awaitServing()
	restarts := map[string]func(){
		"hand-over":         func() { want(t, p.cli("gateway restart"), "✓ Restarted") },
		"systemctl restart": func() { p.user.Run(t, "systemctl --user restart "+p.unit) },
		"kill": func() {
			old := p.mainPID()
			p.user.Run(t, fmt.Sprintf("systemctl --user reset-failed %s; kill -KILL %d", p.unit, old))
			p.awaitAnother(old)
		},
	}
	refused := func(port int) {
		t.Helper()
		at := *p
		at.port = port
		ctx, cancel := rig.Deadline(5 * time.Second)
		defer cancel()
		c := w.client(false)
		p.until(fmt.Sprintf("port %d to refuse", port), func() bool {
			err := at.health(ctx, c)
			return err != nil && strings.Contains(err.Error(), "refused")
		})
	}
	for _, how := range []string{"hand-over", "systemctl restart", "kill"} {
		old := p.port
		p.port += 10
		p.env("")
		restarts[how]()
		p.awaitServing()
		refused(old)
		// The key goes from the file, and what systemd read of it is no key.
		p.user.Run(t, "sed -i /API_SERVER_KEY/d "+p.file(".env"))
		restarts[how]()
		p.awaitServing()
		if code := p.unauthorised(); code == http.StatusOK {
			t.Errorf("%s: another user of the machine is served", how)
		}
		p.user.Run(t, "sed -i s/API_SERVER_ENABLED=true/API_SERVER_ENABLED=false/ "+p.file(".env"))
		restarts[how]()
		p.until("the gateway without its API", func() bool {
			return strings.Contains(p.user.Run(t, spare+" -p env gateway status || true"), "✓ Gateway (env)")
		})
		refused(p.port)
		if got := p.show("NFileDescriptorStore"); got != "0" {
			t.Errorf("%s: with the API off systemd keeps %s sockets", how, got)
		}
	}
}

// unauthorised is the status of a request with the key that stands nowhere any
// more.
func (p *profile) unauthorised() int {
	p.t.Helper()
	req, err := p.chatRequest("say no", false)
	if err != nil {
		p.t.Fatal(err)
	}
	res, err := p.client(false).Do(req)
	if err != nil {
		p.t.Fatal(err)
	}
	res.Body.Close()
	return res.StatusCode
}
