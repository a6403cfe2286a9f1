package systemd

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync"

	"hermes/testkit/rig"
)

// The file on disk wins over what systemd read from it, and a socket that is no
// longer wanted is nobody's.
func rowEnvironment(p *profile) {
	t := p.t
	if p.mode.name != template.name && p.mode.name != adopted.name { // those have it in the file
		p.dropIn("20-environment.conf", "[Service]\nEnvironmentFile=-"+p.file(".env")+"\n")
		p.user.Run(t, "systemctl --user daemon-reload")
	}
	p.env("HERMES_TIMEZONE=Asia/Seoul\n")
	p.user.Run(t, "systemctl --user restart "+p.unit)
	p.awaitServing()
	ways := map[string]func(){
		"restart":           p.restart,
		"systemctl restart": func() { p.user.Run(t, "systemctl --user restart "+p.unit) },
		"kill":              func() { p.awaitAnother(p.kill("KILL")) },
	}
	for how, again := range ways {
		next := func() {
			p.forgive()
			again()
			p.awaitServing()
		}
		old := p.port
		p.port = p.nextPort()
		p.env("")
		next()
		p.refuses(old)
		// The key goes from the file, and what systemd read of it is no key.
		p.user.Run(t, "sed -i /API_SERVER_KEY/d "+p.file(".env"))
		next()
		if code := p.unauthorised(); code == http.StatusOK {
			t.Errorf("%s: another user of the machine is served", how)
		}
		p.user.Run(t, "sed -i s/API_SERVER_ENABLED=true/API_SERVER_ENABLED=false/ "+p.file(".env"))
		p.forgive()
		again()
		p.until("the gateway without its API", func() bool {
			return strings.Contains(p.user.Run(t, spare+" -p "+p.name+" gateway status || true"), "✓ Gateway ("+p.name+")")
		})
		p.refuses(p.port)
		if got := p.show("NFileDescriptorStore"); got != "0" {
			t.Errorf("%s: with the API off systemd keeps %s sockets", how, got)
		}
	}
}

// refuses waits until nothing is bound to a port.
func (p *profile) refuses(port int) {
	p.t.Helper()
	at := *p
	at.port = port
	ctx, cancel := rig.Deadline(stepLimit)
	defer cancel()
	c := p.client(false)
	p.until(fmt.Sprintf("port %d to refuse", port), func() bool {
		err := at.health(ctx, c)
		return err != nil && strings.Contains(err.Error(), "refused")
	})
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

// A port that somebody else holds keeps nothing but the API from running; its
// holder is named, and the API comes up once the port is free.
func rowPortTaken(p *profile) {
	t := p.t
	p.stopped()
	holder := fmt.Sprintf("port-holder-%d", p.port)
	p.user.Run(t, fmt.Sprintf("systemd-run --user --quiet --unit=%s python3 -m http.server --bind 127.0.0.1 %d", holder, p.port))
	p.until("the port to be taken", func() bool {
		ctx, cancel := rig.Deadline(stepLimit)
		defer cancel()
		err := p.health(ctx, p.client(false))
		return err != nil && strings.Contains(err.Error(), "status")
	})
	if p.mode.managed() {
		p.user.Run(t, "systemctl --user start "+p.unit)
	} else {
		p.runByHand("bare", "")
	}
	if err := p.converse(p.tg.AddUser("Ann"), p.word("taken")); err != nil {
		t.Error(err)
	}
	want(t, p.cliFails("gateway status"), "API_SERVER_PORT already in use", "python3", "PID "+p.user.Property(t, holder, "MainPID"))
	p.user.Run(t, "systemctl --user stop "+holder)
	p.awaitServing()
	p.until("all to be well", func() bool {
		return strings.Contains(p.user.Run(t, spare+" -p "+p.name+" gateway status || true"), "✓ Gateway ("+p.name+")")
	})
}

// Commands find the user's manager and the gateway where no variable of a
// session leads to it.
func rowNoSession(p *profile) {
	t := p.t
	command := fmt.Sprintf("%s -p %s gateway", spare, p.name)
	for how, shell := range map[string]string{
		"su -":               "su - %[1]s -c '%[2]s %[3]s'",
		"su":                 "su %[1]s -c '%[2]s %[3]s'",
		"cron":               "env -i HOME=/home/%[1]s LOGNAME=%[1]s SHELL=/bin/sh PATH=/usr/bin:/bin setpriv --reuid=%[1]s --regid=%[1]s --init-groups sh -c '%[2]s %[3]s'",
		"root's environment": "env XDG_RUNTIME_DIR=/run/user/0 DBUS_SESSION_BUS_ADDRESS=unix:path=/run/user/0/bus HOME=/home/%[1]s setpriv --reuid=%[1]s --regid=%[1]s --init-groups sh -c '%[2]s %[3]s'",
	} {
		out := p.Root(t, fmt.Sprintf(shell, p.user.Name, command, "status"))
		want(t, out, "✓ Gateway ("+p.name+")")
		if p.mode.managed() {
			want(t, out, p.unit+" (user unit), active (running), enabled")
		}
		want(t, p.Root(t, fmt.Sprintf(shell, p.user.Name, command, "restart")), "✓ Restarted")
		if t.Failed() {
			t.Fatalf("by %s", how)
		}
	}
}

// That a logout would end it is said before the logout.
func rowLingerOff(p *profile) {
	t := p.t
	p.user.Login(t)
	p.Root(t, "loginctl disable-linger "+p.user.Name)
	defer func() {
		p.Root(t, "loginctl enable-linger "+p.user.Name)
		p.user.Logout(t)
	}()
	want(t, p.user.Run(t, spare+" -p "+p.name+" gateway status || true"), "lingering off", "loginctl enable-linger "+p.user.Name)
	if strings.HasPrefix(p.mode.unit, "hermes-gateway-") {
		want(t, p.user.Run(t, p.program+" -p "+p.name+" gateway install"), "Switched lingering on")
		want(t, p.cli("gateway status"), "lingering on")
	}
}

// Commands return in time, and say what they could not learn, when the user's
// bus does not answer.
func rowSilentBus(p *profile) {
	t := p.t
	pid := p.mainPID()
	freeze := func(signal string) {
		p.Root(t, fmt.Sprintf("pkill -%[1]s -u %[2]s -x 'dbus-daemon|dbus-broker' || true; kill -%[1]s $(pgrep -u %[2]s -f 'systemd --user' | head -1)", signal, p.user.Name))
	}
	freeze("STOP")
	thawed := false
	thaw := func() {
		if !thawed {
			thawed = true
			freeze("CONT")
		}
	}
	defer thaw()
	ask := func(verb string) {
		ctx, cancel := rig.Deadline(stepLimit)
		defer cancel()
		out, err := p.user.Try(ctx, spare+" -p "+p.name+" gateway "+verb)
		if ctx.Err() != nil {
			t.Errorf("%s does not return", verb)
		} else if err != nil || !strings.Contains(strings.Join(strings.Fields(out), " "), "systemd did not answer") {
			t.Errorf("%s: %v, and it does not say what it could not learn:\n%s", verb, err, out)
		}
	}
	var asked sync.WaitGroup
	for _, verb := range []string{"status", "list"} {
		asked.Go(func() { ask(verb) })
	}
	asked.Wait()
	ask("restart")
	thaw()
	p.user.AwaitManager(t)
	p.awaitServing()
	if now := p.mainPID(); p.mode.overlap && now == pid {
		t.Error("the restart without a bus did not happen")
	}
	p.Until(t, stepLimit, "the unit to be active", func(context.Context) error {
		if got := p.show("ActiveState"); got != "active" {
			return fmt.Errorf("the unit is %s", got)
		}
		return nil
	})
}
