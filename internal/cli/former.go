package cli

import (
	"errors"
	"strings"

	"github.com/spf13/cobra"

	"hermes/internal/domain"
)

// The Python system had commands and flags that this one has not, or has under
// another name. None of them ends in "unknown command": each is answered with
// what stands in its place, or why nothing does. Where a flag asks for what
// happens anyway, it is taken and does nothing.

// former is a command line of the Python system.
type former struct{ words, say string }

// noEffect begins what is said of a flag that is taken.
const noEffect = "without effect: "

// formerList holds a line for each: the words behind "hermes", and what to say.
const formerList = `
chat | there is no chat in the terminal. The gateway serves one as a page: "hermes gateway status" shows its address; scripts ask POST /v1/chat/completions there
moa | mixtures of models are not offered; "hermes model" sets one, and fallback_providers in config.yaml what answers when it fails
fallback | "hermes model show" lists the fallbacks; they are set as fallback_providers in config.yaml: "hermes config edit"
proxy | no proxy is offered; a model service at any address works: "hermes model set custom MODEL --base-url URL"
egress | what tools may reach is set in config.yaml (docs/security.md); web tools refuse private addresses by themselves
lsp | there are no language servers
whatsapp | WhatsApp is not among the platforms: "hermes gateway setup" lists those that are
whatsapp-cloud | WhatsApp is not among the platforms: "hermes gateway setup" lists those that are
slack | Slack is set up by "hermes gateway setup --platform slack"
peer | gateways do not call each other; a webhook does: "hermes webhook subscribe NAME --prompt TEXT"
secrets | secrets stand in .env: "hermes config set NAME_TOKEN VALUE", or "hermes auth add PROVIDER" for keys of models
kanban | there is no board
project | there are no projects; a profile keeps an agent apart: "hermes profile create NAME"
hooks | Python hooks are not run; jobs with a script ("hermes cron create --no-agent --script FILE") and webhooks ("hermes webhook subscribe") are
security | "hermes doctor" looks at permissions, keys and addresses
approvals | approvals are answered in the chat by /approve and /deny; how they are asked for is approvals.mode in config.yaml: "hermes config set approvals.mode manual"
prompt-size | "hermes insights" shows the tokens that were used
debug | "hermes dump" prints what a helper needs, without a secret, and sends it nowhere
checkpoints | files are not kept in checkpoints; "hermes backup" writes the profile into an archive
skin | the terminal has no skins
console | there is no console in the terminal; the gateway serves a chat page: "hermes gateway status" shows its address
skills | skills are folders with a SKILL.md under skills/ of the profile; a job names those that it uses: "hermes cron create --skill NAME", and so does a webhook
bundles | skills are folders with a SKILL.md under skills/ of the profile; there are no bundles
curator | nothing changes skills or memories by itself
journey | there is no such record; "hermes sessions list" shows the conversations
memory | what the agent remembers stands in memories/MEMORY.md and memories/USER.md of the profile; edit them with any editor
acp | no editor is served
mcp | MCP servers are not connected
plugins | plugins are not loaded
portal | "hermes auth add nous --type oauth" logs in to the portal
tools | tools are chosen by "toolsets" in config.yaml: "hermes config edit"
computer-use | there is no tool that moves a pointer
pets | there are none
claw | what another system kept is not taken over but for the Python system's: "hermes migrate"
import-agent | what another system kept is not taken over but for the Python system's: "hermes migrate"
dashboard | the gateway serves it; "hermes gateway status" shows the address (API_SERVER_ENABLED=true switches it on)
serve | the gateway serves it: "hermes gateway run", with API_SERVER_ENABLED=true in .env
desktop | there is no window; the gateway serves pages: "hermes gateway status" shows the address
gui | there is no window; the gateway serves pages: "hermes gateway status" shows the address
pm | there is no package manager; "hermes update" brings new versions
pause | "hermes gateway stop --all" stops every profile's gateway, "hermes cron pause JOB" one job; in a chat /stop ends what runs
uninstall | "hermes gateway uninstall" for each profile ("hermes gateway list") removes its service; then delete the program ("hermes version" shows where it stands), and ~/.hermes if nothing of it is to be kept
gateway migrate | there is one process a profile; "hermes gateway list" shows them
gateway migrate-legacy | "hermes doctor" names units of the Python system that are left, and the command that removes each
gateway enroll | no connector is used; the API is reached at the address that "hermes gateway status" shows
cron incidents | failed runs are in "hermes cron runs JOB" and undelivered messages in "hermes deliveries --dead"; "hermes deliveries ack" says that they were seen
cron doctor | "hermes cron lint" looks at the jobs, "hermes doctor" at the scheduler too
cron resnap | a job without a model of its own always uses the profile's, so that nothing was kept that could be old
profile install | "hermes profile import ARCHIVE" makes a profile out of an archive of "hermes profile export"
profile update | a profile has nothing to update; "hermes update" brings a new program for all of them
profile describe | a description is given at the start: "hermes profile create NAME --description TEXT"; it stands in profile.yaml
profile migrate-identity | profiles have no identities beside their names
profile purge-identity | profiles have no identities beside their names
auth spotify | there is no tool for it
config migrate | every form of config.yaml that there was is read as it is; "hermes config check" lists what has no effect
sessions browse | "hermes sessions list" lists them, "hermes sessions show ID" shows one
sessions stats | "hermes insights" counts turns, calls and tokens by day and source
sessions optimize | the ledger tidies itself; "hermes gateway status" shows its size
sessions optimize-storage | the ledger tidies itself; "hermes gateway status" shows its size
sessions archive | sessions are kept until "hermes sessions delete ID" or "hermes sessions prune --older-than 30"
sessions repair | a damaged ledger is mended by the next start of the gateway; "hermes doctor" says whether one is
sessions repair-routing | a chat always finds its session; "hermes sessions list" shows them
sessions recover | a damaged ledger is mended by the next start of the gateway; "hermes doctor" says whether one is
sessions retitle-skills | "hermes sessions rename ID TITLE" changes a title
--resume | conversations go on in the chats where they began; there is no chat in the terminal
--continue | conversations go on in the chats where they began; there is no chat in the terminal
--worktree | there is no chat in the terminal
--in | there is no chat in the terminal
--yolo | nothing switches all approvals off at once; approvals.mode in config.yaml says what is asked for
--pass-session-id | there is no chat in the terminal
--ignore-user-config | there is no chat in the terminal
--ignore-rules | there is no chat in the terminal
--tui | there is no chat in the terminal; the gateway serves one as a page: "hermes gateway status" shows its address
--cli | there is no chat in the terminal; the gateway serves one as a page: "hermes gateway status" shows its address
--dev | there is no such mode
--oneshot | ask the running gateway: POST /v1/chat/completions at the address that "hermes gateway status" shows
-z | ask the running gateway: POST /v1/chat/completions at the address that "hermes gateway status" shows
-r | conversations go on in the chats where they began; there is no chat in the terminal
-c | conversations go on in the chats where they began; there is no chat in the terminal
-w | there is no chat in the terminal
-m | the model is set for the profile: "hermes model set PROVIDER MODEL"; a job names its own by "hermes cron create --model NAME"
--model | the model is set for the profile: "hermes model set PROVIDER MODEL"; a job names its own by "hermes cron create --model NAME"
--provider | the model is set for the profile: "hermes model set PROVIDER MODEL"; a job names its own by "hermes cron create --provider NAME"
-t | tools are chosen by "toolsets" in config.yaml; a job names its own by "hermes cron create --toolset NAME"
-s | skills are folders with a SKILL.md under skills/ of the profile; a job names its own by "hermes cron create --skill NAME"
gateway run --force | without effect: a gateway that a service runs is taken over only by --replace
gateway run --no-supervise | without effect: the gateway never starts a supervisor of its own
gateway run --external-supervisor | without effect: what supervises it is found out
gateway run --accept-hooks | without effect: there are no shell hooks to accept
gateway install --start-on-login | without effect: an installed service starts at boot or at login by itself
gateway install --no-start-on-login | a service that is not to start by itself is disabled: "systemctl --user disable hermes-gateway"
gateway start --platform | a gateway connects every platform that is switched on; "enabled: false" under platforms in config.yaml switches one off
cron create --reasoning-effort | how long a model thinks is set at its provider, or in the name of the model: "--model"
cron edit --reasoning-effort | how long a model thinks is set at its provider, or in the name of the model: "--model"
cron create --continuity | every run is a session of its own; "--context-from JOB" puts the last result of a job before the prompt, its own too
cron edit --continuity | every run is a session of its own; "--context-from JOB" puts the last result of a job before the prompt, its own too
cron edit --no-continuity | without effect: every run is a session of its own
status --deep | without effect: it looks at everything anyway
profile create --runtime | profiles run where the program runs; terminal.backend in config.yaml says where commands do
update --backup | without effect: the ledger is copied before its form changes, and the configuration is in its history
update --no-backup | without effect: no copy of the whole profile is made; "hermes backup" writes one
update --gateway | without effect: /update in a chat reports by itself
update --plan | "hermes update --check" says what there is and does nothing
update --branch | versions come from releases: "--channel NAME" or "--to VERSION"
update --set-channel | "hermes update --channel NAME" takes versions from a channel
update --install-id | every install of this machine is found by itself
update --keep-stash | without effect: nothing is stashed, since no sources are changed
update --switch-branch | versions come from releases: "--channel NAME" or "--to VERSION"
auth add --api-key | a key on a command line is seen by every user of the machine: pipe it in with --key-stdin, or --key-file FILE
webhook subscribe --script | what comes in is answered by the agent; a script is a job: "hermes cron create --no-agent --script FILE"
webhook subscribe --route-profile | each profile has routes of its own: "hermes -p NAME webhook subscribe"
`

// formers reads the list.
func formers() []former {
	var out []former
	for line := range strings.Lines(strings.TrimSpace(formerList)) {
		words, say, _ := strings.Cut(strings.TrimSpace(line), " | ")
		out = append(out, former{words, strings.ReplaceAll(say, `"`, "`")})
	}
	return out
}

// goneError answers a former command line, and is its own hint.
type goneError struct{ error }

// addFormer puts the former commands beside those that there are, and the flags
// that are taken without effect; neither is shown by --help.
func addFormer(root *cobra.Command) {
	for _, f := range formers() {
		words := strings.Fields(f.words)
		last := words[len(words)-1]
		parent, rest, err := root.Find(words[:len(words)-1])
		if err != nil || len(rest) > 0 {
			continue // a test holds that there is none
		}
		switch {
		case !strings.HasPrefix(last, "-"):
			parent.AddCommand(&cobra.Command{
				Use: last, Hidden: true, DisableFlagParsing: true, Args: cobra.ArbitraryArgs,
				RunE: func(*cobra.Command, []string) error { return f.gone() },
			})
		case strings.HasPrefix(f.say, noEffect) && parent.Flags().Lookup(last[2:]) == nil:
			parent.Flags().Bool(last[2:], false, "taken "+f.say)
			_ = parent.Flags().MarkHidden(last[2:]) // fails only for a flag that does not exist
		}
	}
}

func (f former) gone() error {
	return &ExitError{Code: exitUsage, Err: goneError{domain.E(domain.Invalid, nil, "`hermes %s`: %s", f.words, f.say)}}
}

// formerFlag answers a flag that a command does not have, where the Python
// system's had it.
func formerFlag(cmd *cobra.Command, wrong error) error {
	flag := strings.TrimPrefix(wrong.Error(), "unknown flag: ")
	if _, short, ok := strings.Cut(wrong.Error(), "unknown shorthand flag: '"); ok {
		flag = "-" + short[:1]
	}
	words := strings.TrimSpace(strings.TrimPrefix(cmd.CommandPath(), "hermes") + " " + flag)
	for _, f := range formers() {
		if f.words == words {
			return f.gone()
		}
	}
	return domain.E(domain.Invalid, nil, "%s", wrong)
}

// hints tells whether an error of usage needs a word on where to read more.
func hints(err error) bool { return !errors.As(err, new(goneError)) }
