package doctor

import (
	"context"
	"fmt"
	"io/fs"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"hermes/internal/api"
	"hermes/internal/domain"
	"hermes/internal/gateway"
	"hermes/internal/home"
	"hermes/internal/lazyregexp"
)

// scopeChecks are about the files of profiles: missing, unreadable, mixed up.
func scopeChecks() []check {
	return []check{checkProfile, checkOwners, checkModes, checkReadable, checkConfigFile, checkProblems, checkSharedBots, checkSharedPorts, checkTwoPlaces, checkAuthFile, checkUnused}
}

// checkProfile says that the profile which is meant does not exist.
func checkProfile(c *Case) []Finding {
	if c.ProfileErr == nil {
		return nil
	}
	f := Finding{ID: "profile.missing", Class: Scope, Severity: Error, depth: ofHost, What: fmt.Sprintf("the profile %q does not exist", c.Profile.Name),
		Evidence: []string{domain.MessageOf(c.ProfileErr)}, Means: "Every command for it ends with status 78, and a unit for it never starts.",
		Fix: "hermes profile create " + c.Profile.Name}
	switch {
	case !c.Request.FlagSet && c.env("HERMES_HOME") == "" || !c.Request.FlagSet && home.Active(c.Root) == c.Profile.Name && c.Profile.Name != home.DefaultProfile:
		f.ID, f.What = "profile.active_missing", fmt.Sprintf("the active profile %q does not exist", c.Profile.Name)
		f.Fix = "hermes profile use default"
	case !home.ValidName(c.Profile.Name):
		f.ID, f.What, f.Fix = "profile.bad_name", fmt.Sprintf("no profile can be called %q", c.Profile.Name), "hermes profile list"
	}
	return []Finding{f}
}

// checkOwners finds files of another user in the home, as `sudo hermes` leaves
// them.
func checkOwners(c *Case) []Finding {
	if os.Getuid() == 0 || len(c.Home.Strange) == 0 {
		return nil // root reads everything, and runs what others own
	}
	var names []string
	for _, f := range c.Home.Strange {
		names = append(names, filepath.Base(f.Path)+" ("+f.Owner+")")
	}
	return []Finding{{ID: "profile.owner", Class: Scope, Severity: Error, depth: ofFiles,
		explains: []string{"profile.unreadable", "profile.config_yaml", "service.not_running", "service.crashed", "service.ledger_unreadable", "service.part_*", "profile.not_loaded"},
		What:     fmt.Sprintf("%d files of the home belong to another user", len(names)),
		Evidence: []string{"not " + c.host().Account.Name + "'s: " + someOf(names, 5), "that is what a command run by sudo leaves behind"},
		Means:    "The gateway cannot read or write them.",
		Fix:      c.thenIfDown(c.own(c.Profile.Home))}}
}

// thenIfDown brings the gateway up behind a command where it is down because of
// what the command mends.
func (c *Case) thenIfDown(command string) string {
	if c.Gateway.Status != nil {
		return command
	}
	return c.then(command)
}

// checkModes finds secrets that others can read, and a home that they can write.
func checkModes(c *Case) []Finding {
	var open, paths []string
	for _, f := range c.Home.Files {
		if f.Path == c.Profile.ConfigFile() && !c.secretsInConfig() {
			continue
		}
		if f.Secret && f.Mode.IsRegular() && f.Mode.Perm()&0o077 != 0 {
			open = append(open, fmt.Sprintf("%s is %04o", f.Path, f.Mode.Perm()))
			paths = append(paths, f.Path)
		}
	}
	f := Finding{ID: "profile.file_modes", Class: Scope, Severity: Warning, depth: ofFiles, What: "other users of this machine can read secrets of this profile",
		Evidence: open, Means: "Whoever reads the bot's token is the bot."}
	var fixes []string
	home := ""
	if !c.Home.Missing && c.Home.Mode&0o022 != 0 {
		home = c.Profile.Home
		f.ID, f.What = "profile.home_mode", "other users of this machine can change the files of this profile"
		f.Evidence = append([]string{fmt.Sprintf("%s is %04o", home, c.Home.Mode)}, open...)
		f.Means = "Whoever can change them decides what the agent runs."
		fixes = append(fixes, "chmod 700 "+home)
	}
	if len(paths) > 0 {
		fixes = append(fixes, "chmod 600 "+strings.Join(paths, " "))
	}
	if len(fixes) == 0 {
		return nil
	}
	f.Fix = strings.Join(fixes, " && ")
	f.repair = func(context.Context) error {
		if home != "" {
			if err := os.Chmod(home, 0o700); err != nil {
				return err
			}
		}
		for _, p := range paths {
			if err := os.Chmod(p, 0o600); err != nil {
				return err
			}
		}
		return nil
	}
	return []Finding{f}
}

// secretsInConfig tells whether config.yaml holds a key or a token. One that
// cannot be read may.
func (c *Case) secretsInConfig() bool {
	if c.Config == nil {
		return true
	}
	in := func(origin string) bool {
		return strings.HasPrefix(origin, "config.yaml") || strings.HasPrefix(origin, "custom_providers")
	}
	for _, p := range c.Config.Platforms {
		if in(p.TokenOrigin) {
			return true
		}
	}
	return slices.ContainsFunc(append([]home.ModelConfig{c.Config.Model}, c.Config.Fallbacks...), func(m home.ModelConfig) bool { return in(m.KeyOrigin) })
}

// checkReadable finds files that this very user cannot read.
func checkReadable(c *Case) []Finding {
	var out []Finding
	for _, f := range c.Home.Files {
		if f.Trouble == nil {
			continue
		}
		fix := "chmod u+rw " + f.Path
		if f.Mode.IsDir() {
			fix = "chmod u+rwx " + f.Path
		}
		if f.Mode&fs.ModeSymlink != 0 {
			fix = "rm " + f.Path
		}
		out = append(out, Finding{ID: "profile.unreadable", Class: Scope, Severity: Error, depth: ofFiles, about: filepath.Base(f.Path),
			explains: []string{"profile.config_yaml", "service.not_running", "service.crashed", "service.ledger_unreadable", "profile.not_loaded", "provider.*", "profile.auth_json"},
			What:     f.Path + " cannot be used by this user", Evidence: []string{f.Trouble.Error()},
			Means: "What stands in it is not in force.", Fix: c.thenIfDown(fix)})
	}
	return out
}

// checkConfigFile says that config.yaml or .env cannot be understood at all.
func checkConfigFile(c *Case) []Finding {
	if c.ConfigErr == nil || c.Home.Trouble != nil || c.Home.NotDir {
		return nil
	}
	f := Finding{ID: "profile.config_yaml", Class: Scope, Severity: Error, depth: ofFiles,
		explains: []string{"service.not_running", "service.crashed", "service.start_waits", "profile.not_loaded", "service.unit_*", "service.start_limit", "service.crash_loop", "scheduler.*"},
		What:     "the configuration cannot be read", Evidence: []string{domain.MessageOf(c.ConfigErr)},
		Means: "None of it is in force, and the gateway does not start with it (status 78).",
		Fix:   c.thenIfDown(c.hermes("config edit"))}
	if e, _, ok := home.OpenHistory(c.Profile).LastHealthy(); ok {
		f.Evidence = append(f.Evidence, fmt.Sprintf("configuration %d of the history served healthily on %s", e.N, e.HealthyAt.Local().Format("2006-01-02 15:04")),
			"to mend the file in place of going back: "+c.hermes("config edit"))
		f.Means = "None of it is in force: the one that served healthily last is used in its place."
		f.Fix = c.thenIfDown(c.hermes("config rollback"))
	}
	return []Finding{f}
}

// placeOf is file and line of a problem.
func placeOf(p home.Problem) string {
	if p.File == "" {
		return "the process's environment"
	}
	if p.Line == 0 {
		return p.File
	}
	return fmt.Sprintf("%s line %d", p.File, p.Line)
}

// misspelt finds the right name in what Load says of an unknown one.
var misspelt = lazyregexp.New(`did you mean (\S+?)\?`)

// checkProblems turns what the configuration's loader found into findings.
func checkProblems(c *Case) []Finding {
	var out []Finding
	for _, p := range c.Problems {
		if p.Severity == home.Notice || strings.Contains(p.Message, "(mode ") {
			continue // checkTwoPlaces and checkModes tell of these
		}
		f := Finding{ID: "profile.setting", Class: Scope, Severity: Warning, depth: ofSetting, about: p.Key, What: strings.TrimSpace(p.Key + " " + p.Message), Evidence: []string{placeOf(p)},
			Means: "What it governs stays at its default or off.", Fix: p.Fix}
		if p.Severity == home.Fault {
			f.Severity = Error
		}
		c.sortProblem(&f, p)
		out = append(out, f)
	}
	return out
}

// sortProblem gives a problem of the configuration its class, its ID and a
// command.
func (c *Case) sortProblem(f *Finding, p home.Problem) {
	key := strings.ToUpper(p.Key)
	name := filepath.Base(p.File)
	line := func(edit string) string { return c.then(fmt.Sprintf("sed -i '%d%s' %s", p.Line, edit, p.File)) }
	right := misspelt.FindStringSubmatch(p.Fix + " " + p.Message)
	switch {
	case strings.Contains(p.Message, "Refusing to start: binding"):
		f.ID, f.Class, f.Means = "service.bind_without_key", Service, "The API stays off; chat platforms and cron run."
		if strings.Contains(p.Message, "16 characters") {
			f.ID = "service.weak_key"
		}
		f.What, f.explains = p.Message, []string{"service.api_*", "profile.not_loaded", "service.part_api"}
		f.Fix = c.then(c.hermes(`config set API_SERVER_KEY "$(openssl rand -hex 32)"`))
	case name == ".env" && p.Key == "" && p.Line > 0:
		f.ID, f.Means = "profile.env_line", "The line is passed over, and what it was to set is not set."
		f.What = fmt.Sprintf("line %d of .env %s", p.Line, p.Message)
		f.Fix = line("d")
	case strings.HasPrefix(p.Key, "model") && !strings.Contains(p.Message, "is not known") || strings.HasPrefix(p.Key, "fallback_providers") || strings.HasPrefix(p.Key, "custom_providers") || name == "auth.json":
		c.sortModelProblem(f, p)
	case len(right) > 1:
		f.ID, f.Means = "profile.misspelt_key", "The setting is not in force under that name."
		last := p.Key[strings.LastIndexByte(p.Key, '.')+1:]
		f.Fix = line(fmt.Sprintf("s/%s/%s/", last, right[1][strings.LastIndexByte(right[1], '.')+1:]))
		f.explains = []string{"transport.incomplete", "provider.none"}
	case strings.HasPrefix(p.Key, "platforms.") && strings.Contains(p.Message, "cannot start:"):
		f.ID, f.Class, f.Means = "transport.incomplete", Transport, "The platform stays off; the others run."
		f.Fix = c.then(c.hermes(strings.TrimPrefix(strings.Replace(p.Fix, "VALUE", "<value>", 1), "hermes ")))
	case strings.HasSuffix(key, "ALLOWED_USERS"):
		f.ID, f.Class, f.Means = "transport.allowlist", Transport, "That person is a stranger to the bot."
		f.Fix = c.then(c.hermes("config set " + p.Key + " <numeric ids, separated by commas>"))
	case strings.Contains(key, "TIMEZONE"):
		f.ID, f.Class, f.Means = "scheduler.timezone", Scheduler, "Jobs fire by the host's clock."
		f.Fix = c.then(c.change(p, "<Area/City>"))
	case strings.Contains(key, "API_SERVER"):
		f.ID, f.Class, f.Means = "service.api_setting", Service, "The API stays off."
		f.explains = []string{"service.api_*", "profile.not_loaded"}
		f.Fix = c.then(c.change(p, "<value>"))
	case p.Line > 0 && p.Key != "":
		f.Fix = c.then(c.change(p, "<value>"))
	}
}

// change is the command that sets the key of a problem anew, where it stands.
func (c *Case) change(p home.Problem, value string) string {
	return c.hermes("config set " + p.Key + " " + value)
}

// sortModelProblem is sortProblem for models.
func (c *Case) sortModelProblem(f *Finding, p home.Problem) {
	f.Class, f.Means, f.explains = Provider, "Nothing can be answered by that model.", []string{"provider.*"}
	f.What = p.Message
	set := c.then(c.hermes("model set <provider> <model>"))
	switch {
	case strings.HasSuffix(p.File, "auth.json"):
		f.ID, f.Fix, f.explains = "provider.auth_file", c.then("mv "+p.File+" "+p.File+".broken"), []string{"provider.*", "profile.auth_json"}
	case strings.Contains(p.Message, "has no key"):
		f.ID, f.Fix = "provider.key_missing", c.then(c.hermes(strings.TrimSuffix(strings.TrimPrefix(p.Fix, "hermes "), " KEY")+" <key>"))
	case strings.Contains(p.Message, "is not supported here"), strings.Contains(p.Message, "is called"):
		f.ID, f.Fix = "provider.unknown", set
	case strings.Contains(p.Message, "base_url is missing"), strings.Contains(p.Message, "needs an address"):
		f.ID, f.Fix = "provider.no_address", c.then(c.hermes("config set "+p.Key+".base_url <address>"))
	case strings.HasPrefix(p.Key, "fallback_providers"):
		f.ID, f.Severity, f.explains = "provider.fallback", Warning, nil
		f.Means, f.Fix = "That fallback is never asked.", c.then(c.hermes("config unset fallback_providers"))
	default:
		f.ID, f.Fix, f.explains = "provider.setting", c.then(c.change(p, "<value>")), nil
	}
}

// checkSharedBots finds bots that several profiles would poll.
func checkSharedBots(c *Case) []Finding {
	if c.Config == nil {
		return nil
	}
	var out []Finding
	for name, p := range c.Config.Platforms {
		if !p.Enabled || !p.Token.IsSet() || gateway.CredentialScope(name) == "" {
			continue
		}
		for _, n := range c.Neighbours {
			if n.Config == nil || !n.Config.Platforms[name].Enabled || n.Config.Platforms[name].Token.Reveal() != p.Token.Reveal() {
				continue
			}
			if c.older(n) {
				continue // it is the other one that must change
			}
			other := n.Config.Platforms[name]
			out = append(out, Finding{ID: "profile.shared_token", Class: Scope, Severity: Error, depth: ofSetting, about: string(name),
				explains: []string{"transport.*:" + string(name), "service.part_platform." + string(name)},
				What:     fmt.Sprintf("the profiles %s and %s have the same %s token", c.Profile.Name, n.Name, name),
				Evidence: []string{c.Profile.Name + ": " + p.TokenOrigin, n.Name + ": " + other.TokenOrigin},
				Means:    "Two gateways would take each other's messages, so the second one leaves the platform off.",
				Fix:      c.then(c.hermes("config set " + tokenName(name) + " <token of a bot of its own>"))})
		}
	}
	return out
}

// older tells whether this profile has the better right to a shared bot: the
// default one, and what uses it now.
func (c *Case) older(n neighbour) bool {
	if n.Name == home.DefaultProfile {
		return false
	}
	return c.Profile.Name == home.DefaultProfile || c.Profile.Name < n.Name
}

// tokenName is the variable of a platform's main credential.
func tokenName(p domain.Platform) string { return home.TokenVariable(p) }

// checkSharedPorts finds two profiles whose API would bind one port.
func checkSharedPorts(c *Case) []Finding {
	if c.Config == nil || !c.Config.API.Enabled {
		return nil
	}
	for _, n := range c.Neighbours {
		if n.Config == nil || !n.Config.API.Enabled || n.Config.API.Port != c.Config.API.Port || c.older(n) {
			continue
		}
		return []Finding{{ID: "service.port_shared", Class: Service, Severity: Error, depth: ofSetting, explains: []string{"service.port_taken", "service.part_api", "service.api_*"},
			What:     fmt.Sprintf("the profiles %s and %s have the same API port, %d", c.Profile.Name, n.Name, c.Config.API.Port),
			Evidence: []string{c.Profile.EnvFile(), n.EnvFile()},
			Means:    "Only the one that starts first gets it; the other's API stays off.",
			Fix:      c.then(c.hermes(fmt.Sprintf("config set API_SERVER_PORT %d", c.freePort())))}}
	}
	return nil
}

// freePort is the next port that no profile has and that can be listened on: one
// on which nobody listens may still be the near end of a connection.
func (c *Case) freePort() int {
	used := []int{c.Config.API.Port}
	for _, n := range c.Neighbours {
		if n.Config != nil {
			used = append(used, n.Config.API.Port)
		}
	}
	for port := c.Config.API.Port + 1; port < 1<<16; port++ {
		if slices.Contains(used, port) || api.PortHolder(port) != "" {
			continue
		}
		if l, err := net.Listen("tcp", net.JoinHostPort(c.Config.API.Host, strconv.Itoa(port))); err == nil {
			l.Close()
			return port
		}
	}
	return c.Config.API.Port
}

// checkTwoPlaces finds secrets that stand in both files and differ.
func checkTwoPlaces(c *Case) []Finding {
	var out []Finding
	for _, p := range c.Problems {
		path, _, found := strings.Cut(strings.TrimPrefix(p.Message, "overrides "), " of config.yaml")
		if p.Severity != home.Notice || !found || !home.IsSecretName(p.Key) {
			continue
		}
		out = append(out, Finding{ID: "profile.two_places", Class: Scope, Severity: Warning, depth: ofSetting, about: path,
			What: p.Key + " " + p.Message, Evidence: []string{placeOf(p)},
			Means: "Whoever changes the one in config.yaml changes nothing.", Fix: c.hermes("config unset " + path)})
	}
	return out
}

// checkAuthFile says that a file with logins cannot be read.
func checkAuthFile(c *Case) []Finding {
	var out []Finding
	for _, a := range c.Auth {
		if a.Trouble != nil {
			out = append(out, Finding{ID: "profile.auth_json", Class: Provider, Severity: Error, depth: ofFiles, explains: []string{"provider.*"},
				What: a.Path + " cannot be read as logins", Evidence: []string{domain.MessageOf(a.Trouble)}, Means: "No login and no key is taken from it.",
				Fix: c.then("mv " + a.Path + " " + a.Path + ".broken")})
		}
	}
	return out
}

// checkUnused tells of settings of the older system that nothing here uses.
func checkUnused(c *Case) []Finding {
	if c.Config == nil || c.Env == nil {
		return nil
	}
	v, err := home.Get(c.Profile, c.Env, "mcp_servers")
	servers, ok := v.Value.(map[string]any)
	if err != nil || !ok || len(servers) == 0 {
		return nil
	}
	names := slices.Sorted(maps.Keys(servers))
	return []Finding{{ID: "profile.mcp_unused", Class: Scope, Severity: Advice, depth: ofSetting, What: "the MCP servers of config.yaml are not used by this version",
		Evidence: []string{c.Profile.ConfigFile() + ": mcp_servers: " + someOf(names, 5)}, Means: "The agent has no tools of theirs.", Fix: c.hermes("config unset mcp_servers")}}
}
