package doctor

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"hermes/internal/domain"
	"hermes/internal/home"
	"hermes/internal/secret"
	"hermes/internal/succession"
)

// olderGateway is a running gateway of the system that this one replaces.
type olderGateway struct {
	PID     int
	Command string
	Home    string // of its profile; "" where that cannot be told
	Tokens  map[domain.Platform]secret.Value
}

// maxOlder bounds the gateways of the older system that are looked into.
const maxOlder = 20

// findOlder looks through the processes of this machine for gateways of the
// older system. Of those of other users only the command line is known.
func findOlder(userHome string) []olderGateway {
	dirs, err := os.ReadDir("/proc")
	if err != nil {
		return nil
	}
	var out []olderGateway
	for _, d := range dirs {
		pid, err := strconv.Atoi(d.Name())
		if err != nil || pid == os.Getpid() || len(out) == maxOlder {
			continue
		}
		if args := succession.Words(pid, "cmdline"); olderCommand(args) {
			g := olderGateway{PID: pid, Command: strings.Join(args, " ")}
			g.look(args, userHome)
			out = append(out, g)
		}
	}
	return out
}

// olderCommand tells whether a command line is that of a gateway of the older
// system: its module, or a script called hermes that Python runs.
func olderCommand(args []string) bool {
	if !slices.Contains(args, "gateway") && !strings.HasSuffix(strings.Join(args, " "), " gateway run") {
		return false
	}
	line := strings.Join(args, " ")
	if strings.Contains(line, "hermes_cli") {
		return true
	}
	return len(args) > 1 && strings.HasPrefix(filepath.Base(args[0]), "python") && slices.Contains([]string{"hermes", "hermes-agent"}, filepath.Base(args[1]))
}

// look finds out which home it serves, by which bots.
func (g *olderGateway) look(args []string, userHome string) {
	environ := succession.Words(g.PID, "environ")
	if environ == nil {
		return
	}
	lookup := func(name string) (string, bool) {
		for _, kv := range environ {
			if v, ok := strings.CutPrefix(kv, name+"="); ok {
				return v, true
			}
		}
		return "", false
	}
	if at, ok := lookup("HOME"); ok {
		userHome = at
	}
	r := home.Request{UserHome: userHome, Env: lookup}
	if _, name, set, err := home.SplitProfileFlag(args[1:]); err == nil {
		r.Flag, r.FlagSet = name, set
	}
	p, err := home.Resolve(r)
	if err != nil {
		return
	}
	g.Home = p.Home
	env, _, err := home.LoadEnv(p, environ)
	if err != nil {
		return
	}
	cfg, _, err := home.Load(p, env)
	if err != nil {
		return
	}
	g.Tokens = map[domain.Platform]secret.Value{}
	for name, pc := range cfg.Platforms {
		if pc.Enabled && pc.Token.IsSet() {
			g.Tokens[name] = pc.Token
		}
	}
}

// checkOlderSystem finds gateways of the older system that run beside this one,
// on the same home or with one of its bots.
func checkOlderSystem(c *Case) []Finding {
	var out []Finding
	for _, g := range c.Older {
		holds := c.Gateway.Held && c.Gateway.Status == nil && c.Gateway.Holder.PID == g.PID
		fix := fmt.Sprintf("kill %d", g.PID)
		if c.Gateway.Status == nil {
			fix = c.then(fix)
		}
		f := Finding{ID: "profile.other_system", Class: Scope, Severity: Error, depth: ofSetting, about: strconv.Itoa(g.PID), Fix: fix,
			explains: []string{"service.silent", "service.not_running", "scheduler.not_running", "transport.second_poller", "transport.bot_in_use"},
			Evidence: []string{"its command line: " + cutTo(g.Command, 120)}}
		switch shared := c.sharedBot(g); {
		case holds:
			f.What = fmt.Sprintf("a gateway of the older system runs on this home (PID %d)", g.PID)
			f.Evidence = append(f.Evidence, c.Profile.PIDFile()+" names it")
			f.explains = append(f.explains, "transport.*")
			f.Means = "Two programs cannot serve one home: this one refuses to start as long as the other lives."
		case g.Home == c.Profile.Home:
			f.What = fmt.Sprintf("a gateway of the older system runs on this home (PID %d)", g.PID)
			f.Evidence = append(f.Evidence, "its environment and command line mean "+g.Home)
			f.Means = "Both answer the same people, and write into the same files."
		case shared != "":
			f.ID, f.What = "profile.other_system_bot", fmt.Sprintf("a gateway of the older system uses this profile's %s bot (PID %d)", shared, g.PID)
			f.Evidence = append(f.Evidence, "its home "+g.Home+" has the same token")
			f.Means = "The two take each other's messages."
		default:
			continue
		}
		out = append(out, f)
	}
	return out
}

// sharedBot is a platform on which a gateway of the older system has the token
// of this profile, "" for none.
func (c *Case) sharedBot(g olderGateway) domain.Platform {
	if c.Config == nil {
		return ""
	}
	for name, p := range c.Config.Platforms {
		if token, ok := g.Tokens[name]; ok && p.Enabled && p.Token.IsSet() && token.Reveal() == p.Token.Reveal() {
			return name
		}
	}
	return ""
}
