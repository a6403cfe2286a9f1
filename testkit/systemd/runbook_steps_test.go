package systemd

import (
	"context"
	"fmt"
	"regexp"
	"strings"

	"hermes/testkit/rig"
	"hermes/testkit/telegram"
)

// runbook is what must come of each thing that docs/runbook.md has typed.
var runbook = []step{
	// 0. The first hour
	{words: "hermes version", says: []string{"hermes ", "path " + spare}},
	{words: "which hermes", says: []string{spare}},
	{words: "hermes gateway status -p liam", do: fails(78), says: []string{"hermes profile create liam"}},
	{words: "hermes profile create liam"},
	{words: "hermes -p liam model", do: answering("custom", "fake", "ADDRESS", "a-key-of-the-model")},
	{words: "hermes -p liam config set TELEGRAM_BOT_TOKEN TOKEN", after: func(o *operator) {
		o.user.Run(o.t, fmt.Sprintf("hermes -p liam config set TELEGRAM_BASE_URL %s && test $(stat -c %%a %s) = 600", o.liam.tg.URL(), o.liam.file(".env")))
	}},
	{words: "hermes -p liam gateway install", says: []string{"hermes-gateway-liam.service", "Lingering is on", "✓ Started hermes-gateway-liam"}},
	{words: "hermes -p liam pairing approve telegram CODE", before: knock, says: []string{"Ann", "may talk to the agent on telegram now"}, after: func(o *operator) {
		if err := o.liam.converse(o.ann, "paired"); err != nil {
			o.t.Error(err)
		}
	}},
	{words: "/sethome", do: say, after: func(o *operator) {
		o.liam.until("the home channel to be kept", func() bool { return strings.Contains(o.Read(o.liam.file(".env")), "TELEGRAM_HOME_CHANNEL") })
		o.healthy("liam")
	}},
	{words: "hermes -p liam gateway verify", says: []string{"model", "message", "API", "logout", "reboot"}},
	{words: "hermes -p liam cron examples", says: []string{"every 10m", "hermes cron examples disk"}},
	{words: "hermes -p liam cron examples memory", after: func(o *operator) {
		o.user.Run(o.t, "ls "+o.liam.file("scripts")+" | grep -i memory")
	}},

	// 1. Running it
	{words: "hermes gateway run", before: func(o *operator) { o.user.Run(o.t, "hermes model set offline") }, do: foreground("gateway running"), says: []string{"gateway stopped"}},
	{words: "hermes gateway", do: foreground("gateway running"), says: []string{"gateway stopped"}},
	{words: "hermes gateway run --profile default", do: foreground("gateway running"), says: []string{"gateway stopped"}},
	{words: "hermes --profile default gateway run", do: foreground("gateway running"), says: []string{"gateway stopped"}},
	{words: "hermes -p default gateway run", do: foreground("gateway running"), says: []string{"gateway stopped"}},
	{words: "nohup hermes gateway run &", do: func(o *operator, c typed) string {
		o.user.Run(o.t, "{ "+c.words+" } >nohup.out 2>&1 </dev/null")
		o.healthy("default")
		return o.Read(o.user.Home + "/nohup.out")
	}, says: []string{"hermes gateway install"}},
	{words: "hermes gateway run --replace", do: foreground("gateway running"), after: func(o *operator) {
		if left, _ := o.Try(context.Background(), "pgrep -u "+o.user.Name+" -x -f 'hermes gateway run'"); strings.TrimSpace(left) != "" {
			o.t.Errorf("the one that was replaced lives on: %s", left)
		}
	}},
	{words: "hermes --profile liam cron run", do: foreground("gateway running"), after: func(o *operator) { o.healthy("liam") }},

	// 2. The environment file
	{words: ".env", do: func(o *operator, c typed) string {
		file := o.liam.file(".env")
		o.user.Write(o.t, file, o.Read(file)+c.file)
		return ""
	}},
	{words: "hermes -p liam config set API_SERVER_KEY $(openssl rand -hex 32)"},
	{words: "hermes -p liam config check"},
	{words: "hermes -p liam gateway restart", says: []string{"✓ Restarted hermes-gateway-liam"}, after: openBind},
	{words: "hermes -p liam config show --origin", says: []string{"API_SERVER_PORT", "8642", "base_url"}},

	// 3. Health and chat over HTTP
	{words: "ss -tlnp | grep 8642", says: []string{"127.0.0.1:8642", "hermes"}},
	{words: "curl -s http://127.0.0.1:8642/health", says: []string{`"ok"`}},
	{words: "curl -s -m 5 http://127.0.0.1:8642/health", says: []string{`"ok"`}},
	{words: "export API_SERVER_KEY=$(hermes -p liam config get API_SERVER_KEY --reveal)"},
	{words: curl + `"Authorization: Bearer $API_SERVER_KEY"` + ping, says: []string{`"content":"answer `}},
	{words: curl + `"Authorization: Bearer wrong"` + ping, says: []string{`"error"`, "invalid_api_key"}},

	// 4. Units
	{words: "~/.config/systemd/user/hermes-gateway@.service", do: writeFile},
	{words: "~/.config/systemd/user/hermes-cron@.service", do: writeFile},
	{words: "systemctl --user daemon-reload", before: func(o *operator) {
		o.drj = o.profile(o.t, "drj", 8643)
		o.drj.mode, o.drj.unit = template, "hermes-gateway@drj.service"
		o.drj.onFailure()
	}},
	{words: "systemctl --user enable --now hermes-gateway@drj", after: func(o *operator) { o.drj.awaitServing() }},
	{words: "systemctl --user status hermes-gateway@drj", says: []string{"active (running)"}},
	{words: "systemctl --user restart hermes-gateway@drj", after: func(o *operator) { o.drj.awaitServing() }},
	{words: "systemctl --user stop hermes-gateway@drj", after: func(o *operator) { o.drj.staysStopped() }},
	{words: "systemctl --user reset-failed hermes-gateway@drj"},
	{words: "systemctl --user start hermes-gateway@drj", after: func(o *operator) { o.drj.awaitServing() }},
	{words: "systemctl --user disable hermes-gateway@drj", after: func(o *operator) {
		if got := o.drj.show("UnitFileState") + " " + o.drj.show("ActiveState"); got != "disabled active" {
			o.t.Errorf("it is %s", got)
		}
	}},
	{words: "systemctl --user enable hermes-gateway@drj"},
	{words: "systemctl --user enable --now hermes-cron@drj"},
	{words: "systemctl --user disable --now hermes-cron@drj", before: func(o *operator) {
		if got := o.user.Property(o.t, "hermes-cron@drj", "ActiveState"); got != "active" {
			o.t.Errorf("the scheduler is %s", got)
		}
	}},
	{words: "systemctl --user list-units 'hermes-gateway*'", says: []string{"hermes-gateway-liam.service", "hermes-gateway@drj.service"}},
	{words: "journalctl --user -u hermes-gateway@drj -f", do: follow, says: []string{"gateway running"}},
	{words: "hermes -p drj gateway install", do: fails(1), says: []string{"two units would fight"}},
	{words: "hermes -p drj gateway restart", says: []string{"✓ Restarted hermes-gateway@drj"}},
	{words: "hermes -p drj gateway install --adopt", says: []string{"✓ Adopted hermes-gateway@drj"}},
	{words: "hermes -p drj gateway restart", says: []string{"✓ Restarted hermes-gateway@drj"}, after: func(o *operator) {
		if got := o.drj.show("Type"); got != "notify" {
			o.t.Errorf("after --adopt Type is %s", got)
		}
	}},
	{words: "hermes -p drj gateway stop", says: []string{"✓ Stopped hermes-gateway@drj"}, after: func(o *operator) { o.healthy("liam") }},
	{words: "hermes -p drj gateway start", says: []string{"✓ Started hermes-gateway@drj"}},
	{words: "drj gateway status", before: func(o *operator) { o.healthy("drj") }, says: []string{"✓ Gateway (drj)", "hermes-gateway@drj.service (user unit), active (running), enabled"}},
	{words: "hermes -p liam gateway status", says: []string{"✓ Gateway (liam)", "hermes-gateway-liam.service (user unit), active (running), enabled", "lingering on"}},
	{words: "hermes gateway list", says: []string{"liam running", "drj running"}},
	{words: "loginctl enable-linger $USER"},
	{words: "~/.config/systemd/user/hermes-gateway-liam.service.d/10-restart-guardrails.conf", do: writeFile, after: func(o *operator) {
		o.user.Run(o.t, "systemctl --user daemon-reload")
		want(o.t, o.liam.cli("gateway status"), "10-restart-guardrails.conf: Restart=on-failure")
		o.liam.awaitAnother(o.liam.kill("TERM"))
		o.liam.awaitServing()
	}},

	// 5. Several profiles
	{words: "hermes profile create jeff"},
	{words: "hermes profile create harry"},
	{words: "systemctl --user enable --now hermes-gateway@jeff hermes-gateway@harry", before: func(o *operator) {
		o.newProfile(o.t, "jeff", 8644).configure()
		o.newProfile(o.t, "harry", 8645).configure()
	}, after: func(o *operator) {
		o.healthy("jeff")
		o.healthy("harry")
	}},
	{words: "hermes profile list", says: []string{"liam", "drj", "jeff", "harry", "8642", "8643", "8644", "8645"}, after: samePort},
	{words: "hermes -p harry gateway status", says: []string{"✓ Gateway (harry)", "8645"}},

	// 6. Logs
	{words: "hermes -p liam logs --tail", says: []string{"INFO"}},
	{words: "hermes -p liam logs errors --tail"},
	{words: "hermes -p liam logs -f", do: follow, says: []string{"INFO"}},

	// 7. Jobs
	{words: `hermes -p liam cron create "every 10m" --no-agent --script disk-watchdog.sh --deliver telegram --name "disk-watchdog"`, before: func(o *operator) {
		file := o.liam.file("scripts/disk-watchdog.sh")
		o.user.Write(o.t, file, "#!/bin/sh\necho the disk is full\n")
		o.user.Run(o.t, "chmod 700 "+file)
	}},
	{words: "hermes -p liam cron list", says: []string{"disk-watchdog", "every 10 minutes", "UTC"}},
	{words: "hermes -p liam cron run disk-watchdog", says: []string{"ran: ok", "the disk is full", "Delivered."}, after: func(o *operator) { o.heard("the disk is full…") }},
	{words: "hermes -p liam cron runs disk-watchdog", says: []string{"ok", "sent"}},
	{words: "hermes -p liam cron lint"},

	// 8. Where to look
	{words: "hermes -p liam doctor --local", do: either, says: []string{"liam"}},
	{words: "hermes -p liam gateway status", says: []string{"✓ Gateway (liam)"}},
	{words: "hermes -p liam config check"},
	{words: "hermes -p liam model check", says: []string{"✓"}},
	{words: "hermes -p liam deliveries"},
	{words: "hermes -p liam cron status"},
	{words: "journalctl --user -u hermes-gateway-liam -n 30", says: []string{"gateway running"}},

	// 9. Restarting
	{words: "hermes -p liam gateway restart", says: []string{"✓ Restarted hermes-gateway-liam"}},
	{words: "systemctl --user reload hermes-gateway-liam", do: func(o *operator, c typed) string {
		old := o.liam.mainPID()
		out := o.run(c)
		o.liam.awaitAnother(old)
		o.healthy("liam")
		return out
	}},
	{words: "/restart", do: say, after: func(o *operator) { o.heard("♻️ I am back (version…") }},
	{words: "hermes -p liam gateway drill --yes", before: func(o *operator) { o.liam.forgive() }, says: []string{"restart", "kill -9", "refused"}, after: func(o *operator) {
		o.healthy("liam")
		o.liam.forgive()
	}},
	{words: "hermes gateway restart --all", before: func(o *operator) { o.healthy("liam") }, says: []string{"✓ Restarted hermes-gateway@drj", "✓ Restarted hermes-gateway@harry", "✓ Restarted hermes-gateway@jeff", "✓ Restarted hermes-gateway-liam"}},

	// 10. A configuration that was a mistake
	{words: "hermes -p drj config history", before: func(o *operator) {
		o.drj.cli("config set API_SERVER_PORT 1")
	}, says: []string{"API_SERVER_PORT"}},
	{words: "hermes -p drj config diff", says: []string{"API_SERVER_PORT"}},
	{words: "hermes -p drj config rollback", after: func(o *operator) {
		o.drj.awaitServing()
		o.drj.forgive()
	}},
	{words: "systemctl --user stop hermes-gateway@drj", before: func(o *operator) {
		o.drj.cli("config set API_SERVER_PORT 1")
		if now := o.Read(o.drj.file(".env")); !strings.Contains(now, "API_SERVER_PORT=1\n") {
			o.t.Errorf("the mistake was not made: %s", now)
		}
	}},
	{words: "cp ~/.hermes/profiles/drj/.env.bak ~/.hermes/profiles/drj/.env"},
	{words: "systemctl --user daemon-reload"},
	{words: "systemctl --user reset-failed hermes-gateway@drj"},
	{words: "systemctl --user start hermes-gateway@drj", after: func(o *operator) { o.drj.awaitServing() }},
	{words: "journalctl --user -u hermes-gateway@drj -f", do: follow, says: []string{"gateway running"}},
}

const (
	curl = "curl -s http://127.0.0.1:8642/v1/chat/completions -H "
	ping = ` -H "Content-Type: application/json" -d '{"model":"test","messages":[{"role":"user","content":"ping"}]}'`
)

var pairing = regexp.MustCompile(`hermes -p liam pairing approve telegram ([A-Z0-9]{8})`)

// knock lets a stranger write to the bot, who is told a code.
func knock(o *operator) {
	o.liam.tg.Say(o.ann, "hello")
	ctx, cancel := rig.Deadline(stepLimit)
	defer cancel()
	m, err := o.liam.tg.WaitFor(ctx, o.ann.ID, func(m telegram.Message) bool { return m.FromBot && pairing.MatchString(m.Text) })
	if err != nil {
		o.t.Fatalf("no code: %v\n%s", err, o.liam.tg.Transcript(o.ann.ID))
	}
	o.code = pairing.FindStringSubmatch(m.Text)[1]
}

// openBind holds what is said of a bind to the network without a key, and of a
// key that is misspelt.
func openBind(o *operator) {
	file := o.liam.file(".env")
	good := o.Read(file)
	bad := strings.Replace(good, "# API_SERVER_HOST=0.0.0.0", "API_SERVER_HOST=0.0.0.0", 1)
	bad = regexp.MustCompile(`(?m)^API_SERVER_(KEY=.*|HOST=127.*)\n`).ReplaceAllString(bad, "")
	o.user.Write(o.t, file, bad+"API_SEVER_PORT=1\n")
	out, err := o.shell("hermes -p liam config check")
	want(o.t, out, "API_SEVER_PORT", "API_SERVER_PORT")
	if err == nil && !strings.Contains(out, "API_SERVER_KEY") {
		o.t.Errorf("config check does not name the missing key:\n%s", out)
	}
	o.user.Run(o.t, "systemctl --user restart hermes-gateway-liam")
	if err := o.liam.converse(o.ann, "unbound"); err != nil {
		o.t.Error(err)
	}
	want(o.t, o.liam.cliFails("gateway status"), "Refusing to start: binding to 0.0.0.0 requires API_SERVER_KEY")
	o.user.Write(o.t, file, good)
	o.user.Run(o.t, "systemctl --user restart hermes-gateway-liam")
	o.liam.awaitServing()
}

// samePort lets one profile want the port of another: the holder is named.
func samePort(o *operator) {
	change := func(from, to string) {
		o.user.Run(o.t, fmt.Sprintf("sed -i s/API_SERVER_PORT=%s/API_SERVER_PORT=%s/ ~/.hermes/profiles/harry/.env && systemctl --user restart hermes-gateway@harry", from, to))
	}
	change("8645", "8643")
	o.Until(o.t, stepLimit, "the holder to be named", func(ctx context.Context) error {
		out, _ := o.user.Try(ctx, "hermes -p harry gateway status")
		flat := strings.Join(strings.Fields(out), " ")
		if !strings.Contains(flat, "API_SERVER_PORT already in use") || !strings.Contains(flat, "profile drj") {
			return fmt.Errorf("it says %s", out)
		}
		return nil
	})
	change("8643", "8645")
	o.healthy("harry")
}
