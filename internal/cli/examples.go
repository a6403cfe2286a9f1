package cli

import (
	"strings"

	"github.com/spf13/cobra"
)

// exampleList holds a line or two, as they are typed, for every command that
// has no example beside its definition; several are kept apart by "; ".
const exampleList = `
auth list            hermes auth list; hermes auth list openrouter --json
auth logout          hermes auth logout nous
auth priority        hermes auth priority openrouter 2 0
auth refresh         hermes auth refresh; hermes -p liam auth refresh nous
auth remove          hermes auth remove openrouter 2
auth reset           hermes auth reset openrouter
auth status          hermes auth status
backup verify        hermes backup verify hermes-backup.zip
config check         hermes config check; hermes -p liam config check --json
config diff          hermes config diff; hermes config diff 3 5
config edit          EDITOR=nano hermes config edit
config env-path      ls -l "$(hermes config env-path)"
config history       hermes config history
config path          less "$(hermes -p liam config path)"
config rollback      hermes config rollback; hermes config rollback 3
config show          hermes config show; hermes config show --origin
config unset         hermes config unset model.base_url
cron edit            hermes cron edit disk --schedule 'every 30m'
cron examples        hermes cron examples; hermes cron examples disk
cron export          hermes cron export > jobs.json
cron import          hermes cron import ~/old/cron/jobs.json
cron lint            hermes cron lint
cron list            hermes cron list --all
cron next            hermes cron next disk -n 10; hermes cron next '0 9 * * 1-5'
cron pause           hermes cron pause disk
cron remove          hermes cron remove disk
cron resume          hermes cron resume disk
cron run             hermes cron run disk; hermes --profile liam cron run
cron runs            hermes cron runs disk
cron show            hermes cron show disk
cron status          hermes cron status
cron tick            hermes cron tick
deliveries           hermes deliveries --dead
deliveries ack       hermes deliveries ack
deliveries drop      hermes deliveries drop 17
deliveries retry     hermes deliveries retry 17
gateway drill        hermes -p liam gateway drill
gateway install      hermes gateway install; sudo hermes -p liam gateway install --system --run-as-user liam
gateway list         hermes gateway list
gateway preflight    hermes gateway preflight
gateway rescue       hermes gateway rescue hermes-gateway.service
gateway restart      hermes gateway restart; hermes gateway restart --all
gateway run          hermes gateway run; hermes --profile liam gateway run --replace
gateway start        hermes gateway start
gateway status       hermes gateway status; hermes -p liam gateway status --json
gateway stop         hermes gateway stop
gateway uninstall    hermes gateway uninstall
gateway verify       hermes gateway verify; hermes -p liam gateway verify --no-send
import               hermes import hermes-backup.zip
model check          hermes model check
model list           hermes model list
model show           hermes model show --json
pairing clear-pending  hermes pairing clear-pending
pairing list         hermes pairing list telegram
pairing revoke       hermes pairing revoke telegram 1001
platforms            hermes platforms; hermes platforms telegram --json
profile alias        hermes profile alias liam
profile create       hermes profile create liam; hermes profile create drj --clone
profile delete       hermes profile delete liam
profile export       hermes profile export liam -o liam.tar.gz
profile import       hermes profile import liam.tar.gz --name liam2
profile list         hermes profile list
profile rename       hermes profile rename liam william
profile show         hermes profile show liam
profile use          hermes profile use liam
sessions delete      hermes sessions delete 20260501_101500_ab12
sessions export      hermes sessions export latest > session.jsonl
sessions list        hermes sessions list --source telegram
sessions prune       hermes sessions prune --older-than 90
sessions rename      hermes sessions rename latest 'The move to Lisbon'
sessions show        hermes sessions show latest
status               hermes status; hermes status --all
version              hermes version --json
webhook list         hermes webhook list
webhook remove       hermes webhook remove alerts
webhook test         hermes webhook test alerts
`

// addExamples gives every command without an example the one of the list.
func addExamples(root *cobra.Command) {
	byPath := map[string]string{}
	for line := range strings.Lines(exampleList) {
		if name, example, ok := strings.Cut(strings.TrimSpace(line), "  "); ok {
			byPath["hermes "+name] = "  " + strings.ReplaceAll(strings.TrimSpace(example), "; ", "\n  ")
		}
	}
	var visit func(*cobra.Command)
	visit = func(c *cobra.Command) {
		if c.Example == "" {
			c.Example = byPath[c.CommandPath()]
		}
		for _, sub := range c.Commands() {
			visit(sub)
		}
	}
	visit(root)
}
