package systemd

import (
	"fmt"
	"strings"
)

// unnamed is the last part of the runbook, which is about the default profile.
var unnamed = []step{
	// 11. Without a name
	{words: "hermes setup", before: atTheRoot, do: setUpAll, says: []string{"✓ telegram is @hermes_test_bot.", "hermes-gateway.service", "✓ Started hermes-gateway", "✓ model", "✓ message", "✓ API", "✓ logout", "✓ reboot"}},
	{words: "hermes model", do: answering("custom", "fake", "ADDRESS", "a-key-of-the-model")},
	{words: "hermes gateway install", says: []string{"hermes-gateway.service is up to date"}},
	{words: "hermes gateway restart", says: []string{"✓ Restarted hermes-gateway (PID"}},
	{words: "hermes gateway stop", says: []string{"✓ Stopped hermes-gateway"}, after: func(o *operator) { o.healthy("liam") }},
	{words: "hermes gateway start", says: []string{"✓ Started hermes-gateway (PID"}},
	{words: "hermes gateway status", before: func(o *operator) { o.healthy("default") }, says: []string{"✓ Gateway (default)", "hermes-gateway.service (user unit), active (running), enabled"}},
	{words: "hermes gateway verify", says: []string{"✓ model", "✓ message", "✓ API"}},
	{words: "hermes gateway drill", do: declining, says: []string{"This restarts and kills hermes-gateway.service", "nothing was done"}},
	{words: "hermes cron examples", says: []string{"every 10m"}},
	{words: "hermes doctor", do: either, says: []string{"default"}},
	{words: "export API_SERVER_KEY=$(hermes config get API_SERVER_KEY --reveal)", before: func(o *operator) {
		o.user.Run(o.t, "hermes config set API_SERVER_KEY $(openssl rand -hex 32)")
	}},
	{words: "hermes config show --origin", says: []string{"API_SERVER_PORT", "8646"}},
	{words: "hermes logs --tail", says: []string{"INFO"}},
	{words: "hermes logs -f", do: follow, says: []string{"INFO"}},
	{words: `hermes cron create "every 10m" --no-agent --script disk-watchdog.sh --deliver telegram --name "disk-watchdog"`, before: func(o *operator) {
		o.user.Run(o.t, "mkdir -p ~/.hermes/scripts && cp "+o.liam.file("scripts/disk-watchdog.sh")+" ~/.hermes/scripts/")
	}},
	{words: "hermes cron list", says: []string{"disk-watchdog", "every 10 minutes", "UTC"}},
	{words: "hermes cron run disk-watchdog", says: []string{"ran: ok", "the disk is full", "Delivered."}},
	{words: "hermes cron lint"},
	{words: "hermes config history", before: func(o *operator) { o.user.Run(o.t, "hermes config set API_SERVER_PORT 1") }, says: []string{"API_SERVER_PORT"}},
	{words: "hermes config diff", says: []string{"API_SERVER_PORT"}},
	{words: "hermes config rollback", after: func(o *operator) { o.healthy("default") }},
}

// atTheRoot gives the default profile a bot, and takes away what the foreground
// gateways of the first part were set up by.
func atTheRoot(o *operator) {
	o.root = o.newProfile(o.t, "default", 8646)
	o.root.unit = "hermes-gateway.service"
	o.root.onFailure()
	o.user.Run(o.t, "rm -f ~/.hermes/config.yaml ~/.hermes/.env")
}

// setUpAll answers what the set-up asks.
func setUpAll(o *operator, c typed) string {
	o.t.Helper()
	answers := []string{"messaging", "custom", "fake", o.brain.URL(), "a-key-of-the-model", "telegram", o.root.tg.Token(), fmt.Sprint(o.root.tg.AddUser("Ann").ID), "done", "local", "8646", "", "y", "y"}
	return o.run(typed{words: fmt.Sprintf("printf '%%s\\n' '%s' | %s --set TELEGRAM_BASE_URL=%s 2>&1", strings.Join(answers, "' '"), c.words, o.root.tg.URL())})
}

// declining answers a question with no, which is no success.
func declining(o *operator, c typed) string {
	o.t.Helper()
	return fails(1)(o, typed{words: "echo no | " + c.words})
}
