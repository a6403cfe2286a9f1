package home

import (
	"fmt"
	"net"
	"slices"
	"strings"

	"hermes/internal/domain"
	"hermes/internal/lazyregexp"
)

// Load reads a profile's configuration: defaults, config.yaml over them, the
// environment over that. Every problem is listed at once. A setting that
// cannot be read keeps its default, or is put at its safest where the default
// would open something. Errors: Config, when config.yaml is no YAML at all;
// none of it is used then, since half a configuration may be a wider one.
func Load(p Profile, env *Env) (*Config, Problems, error) {
	l, err := load(p, env)
	if err != nil {
		return nil, nil, err
	}
	return &l.draft.Config, l.problems, nil
}

// Check reads a configuration like Load from the given content of config.yaml.
func Check(p Profile, env *Env, data []byte) (Problems, error) {
	l, err := loadBytes(p, env, data)
	if err != nil {
		return nil, err
	}
	return l.problems, nil
}

func load(p Profile, env *Env) (*loader, error) {
	if env.files != nil {
		return loadBytes(p, env, env.files.Config)
	}
	data, err := readBounded(p.ConfigFile())
	if err != nil {
		return nil, err
	}
	return loadBytes(p, env, data)
}

func loadBytes(p Profile, env *Env, data []byte) (*loader, error) {
	root, err := parseYAML(p.ConfigFile(), data)
	if err != nil {
		return nil, err
	}
	return loadRoot(p, env, root), nil
}

func loadRoot(p Profile, env *Env, root *node) *loader {
	userHome := env.Get("HOME")
	if userHome == "" {
		userHome = p.Home
	}
	l := &loader{profile: p, env: env, file: p.ConfigFile(), root: root, draft: defaults(p, userHome), origins: map[string]Origin{}}
	for _, s := range settings() {
		l.apply(s)
	}
	l.readAPISwitch()
	l.readStrangers()
	l.readPlatforms()
	l.readModels()
	l.finish()
	l.reportUnknown()
	l.problems.sort()
	return l
}

// loader is one run of Load.
type loader struct {
	profile  Profile
	env      *Env
	file     string
	root     *node
	draft    *draft
	origins  map[string]Origin // by canonical path
	problems Problems
}

func (l *loader) originOf(n *node) Origin { return Origin{File: l.file, Line: n.line} }

func (l *loader) report(sev Severity, n *node, key, message, fix string) {
	l.problems = append(l.problems, Problem{Severity: sev, File: l.file, Line: n.line, Column: n.column, Key: key, Message: message, Fix: fix})
}

func (l *loader) reportEnv(sev Severity, name, message, fix string) {
	o := l.env.Origin(name)
	l.problems = append(l.problems, Problem{Severity: sev, File: o.File, Line: o.Line, Key: name, Message: message, Fix: fix})
}

// apply reads a setting: the environment's where it is set and readable, else
// the file's, else the default stays.
func (l *loader) apply(s *setting) {
	canonical := s.paths[0]
	fromFile := false
	for _, path := range s.paths {
		n := l.root.at(strings.Split(path, ".")...)
		if n == nil || n.kind == nullNode {
			continue
		}
		if s.read(l.draft, l.expand(n)) {
			l.origins[canonical], fromFile = l.originOf(n), true
		} else {
			l.unreadable(s, func(msg, fix string) { l.report(Fault, n, path, msg, fix) }, shown(s, n))
		}
		break
	}
	for _, name := range s.envs {
		v, set := l.env.Lookup(name)
		if !set {
			continue
		}
		before := ""
		if fromFile {
			before = s.show(l.draft)
		}
		if !s.read(l.draft, &node{kind: scalarNode, value: v, text: v}) {
			l.unreadable(s, func(msg, fix string) { l.reportEnv(Fault, name, msg, fix) }, shown(s, &node{kind: scalarNode, text: v}))
			break
		}
		if fromFile && (s.secret || s.show(l.draft) != before) {
			l.reportEnv(Notice, name, fmt.Sprintf("overrides %s of %s line %d", canonical, "config.yaml", l.origins[canonical].Line), "delete one of the two")
		}
		l.origins[canonical] = l.env.Origin(name)
		break
	}
}

func (l *loader) unreadable(s *setting, report func(msg, fix string), got string) {
	what := "its default is used"
	if s.safest != nil {
		s.safest(l.draft)
		what = "what it governs stays off or at its strictest"
	}
	report(fmt.Sprintf("%s is not %s, so %s", got, s.want, what), "write "+s.want)
}

// shown gives what was written, short and without secrets.
func shown(s *setting, n *node) string {
	switch {
	case s.secret:
		return "the value"
	case n.kind == mapNode:
		return "a mapping"
	case n.kind == listNode:
		return "this list"
	case len(n.text) > 40:
		return fmt.Sprintf("%q…", n.text[:40])
	}
	return fmt.Sprintf("%q", n.text)
}

var variable = lazyregexp.New(`\$\{([A-Za-z_][A-Za-z0-9_]*)\}`)

// expand replaces ${NAME} in a text by the variable. One that is not set stays
// as it is, and is reported.
func (l *loader) expand(n *node) *node {
	text, isText := n.value.(string)
	if n.kind != scalarNode || !isText || !strings.Contains(text, "${") {
		return n
	}
	out := *n
	out.text = variable.ReplaceAllStringFunc(text, func(m string) string {
		name := m[2 : len(m)-1]
		if v, set := l.env.Lookup(name); set {
			return v
		}
		l.report(Warning, n, "", "${"+name+"} is not set, so it stands as it is", "set it in .env")
		return m
	})
	out.value = out.text
	return &out
}

// expandAll expands every value of a tree.
func (l *loader) expandAll(n *node) *node {
	out := *l.expand(n)
	out.items, out.entries = slices.Clone(n.items), slices.Clone(n.entries)
	for i, item := range out.items {
		out.items[i] = l.expandAll(item)
	}
	for i, e := range out.entries {
		out.entries[i].value = l.expandAll(e.value)
	}
	return &out
}

// readStrangers applies the top-level unauthorized_dm_behavior to the
// platforms; each may say otherwise. "ignore" holds where it cannot be read.
func (l *loader) readStrangers() {
	n := l.root.at("unauthorized_dm_behavior")
	if n == nil || n.kind == nullNode {
		return
	}
	if n.kind != scalarNode || (n.text != "pair" && n.text != "ignore") {
		l.report(Fault, n, "unauthorized_dm_behavior", "is neither pair nor ignore, so strangers are ignored", "write pair or ignore")
	}
	if n.text == "pair" {
		return
	}
	for _, s := range l.namedPlatforms() {
		l.draft.platform(s.name).PairDMs = false
	}
}

// finish derives what follows from several settings, and checks them together.
func (l *loader) finish() {
	d := l.draft
	if d.Timezone == nil {
		d.Host = newHostZone(localtime)
		d.Timezone = d.Host.Zone()
	}
	if d.compress {
		d.CompressionThreshold = d.threshold
	}
	switch d.Logging.Level {
	case "warn":
		d.Logging.Level = "warning"
	case "critical":
		d.Logging.Level = "error"
	}
	d.Config.Platforms = map[domain.Platform]PlatformConfig{}
	for name, p := range d.platforms {
		d.Config.Platforms[name] = *p
	}
	d.API.Enabled = d.API.Enabled && !d.apiOff
	if d.API.Enabled {
		l.checkBind()
		// The chat page comes with the API server; its main room is its home.
		d.Config.Platforms[domain.PlatformWebchat] = PlatformConfig{Enabled: true, Typing: true,
			Home: domain.Address{Platform: domain.PlatformWebchat, ChatID: "main"}}
	}
}

// checkBind says beforehand what the API server will refuse: a bind that other
// machines can reach needs a key that cannot be guessed.
func (l *loader) checkBind() {
	api := l.draft.API
	if ip := net.ParseIP(api.Host); api.Host == "localhost" || ip != nil && ip.IsLoopback() {
		return
	}
	place := Problem{Severity: Fault, Key: "API_SERVER_KEY"}
	if o, ok := l.origins["platforms.api_server.extra.host"]; ok {
		place.File, place.Line = o.File, o.Line
	}
	key := strings.ToLower(api.Key.Reveal())
	switch {
	case key == "":
		place.Message = fmt.Sprintf("Refusing to start: binding to %s requires API_SERVER_KEY. Set API_SERVER_KEY or use the default 127.0.0.1", api.Host)
	case len(key) < 16 || strings.Contains(key, "change-me") || strings.Contains(key, "changeme") || strings.Contains(key, "your-"):
		place.Message = fmt.Sprintf("Refusing to start: binding to %s requires API_SERVER_KEY to be 16 characters or more and no placeholder", api.Host)
	default:
		return
	}
	place.Fix = "hermes config set API_SERVER_KEY \"$(openssl rand -hex 32)\""
	l.problems = append(l.problems, place)
}
