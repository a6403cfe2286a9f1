package home

import (
	"bytes"
	"slices"
	"strings"

	"hermes/internal/lazyregexp"
)

// loss is what of a configuration on disk could not be read.
type loss struct {
	all      bool
	sections map[string]bool // keys of config.yaml without indentation
	names    map[string]bool // variables of .env
}

// governs tells whether what was lost may say something about a part; see Narrow.
func (l loss) governs(part string) bool {
	if l.all {
		return true
	}
	name, isPlatform := strings.CutPrefix(part, "platform.")
	sections := map[string][]string{
		"api": {"platforms", "gateway", "api_server"}, "approvals": {"approvals", "command_allowlist"}, "tools": {"toolsets", "platform_toolsets"},
		"terminal": {"terminal"}, "security": {"security"}, "commands": {"quick_commands"},
	}[part]
	prefixes := map[string][]string{"api": {"API_SERVER_"}, "terminal": {"TERMINAL_"}, "security": {"HERMES_ALLOW_"}}[part]
	if isPlatform {
		sections = []string{"platforms", "gateway", "unauthorized_dm_behavior", name}
		prefixes = []string{"GATEWAY_", strings.ToUpper(name) + "_"}
	}
	for _, s := range sections {
		if l.sections[s] {
			return true
		}
	}
	for have := range l.names {
		if slices.ContainsFunc(prefixes, func(p string) bool { return strings.HasPrefix(have, p) }) {
			return true
		}
	}
	return false
}

var (
	sectionStart = lazyregexp.New(`^["']?([A-Za-z_][A-Za-z0-9_-]*)["']?\s*:`)
	envName      = lazyregexp.New(`^\s*(?:export\s+)?([A-Za-z_][A-Za-z0-9_]*)\s*=`)
)

// readable reads of a configuration whatever can be read: of config.yaml each
// section for itself, of .env each line. A line that belongs to nothing may have
// been anything, so that all counts as lost; one that stood in good too is no
// change and loses nothing.
func readable(p Profile, good, disk Files, process []string) (*Config, loss) {
	lost := loss{sections: map[string]bool{}, names: map[string]bool{}}
	env, _ := parseEnviron(p, process, disk.Env)
	known := map[string]bool{}
	for line := range bytes.SplitSeq(good.Env, []byte("\n")) {
		known[string(bytes.TrimSpace(line))] = true
	}
	file, _ := ParseEnv(p.EnvFile(), disk.Env)
	for _, s := range file.segments {
		text := strings.TrimSpace(string(s.raw))
		if s.key != "" || text == "" || text[0] == '#' || text[0] == ';' || known[text] {
			continue
		}
		if m := envName.FindStringSubmatch(text); m != nil {
			lost.names[m[1]] = true
		} else {
			lost.all = true
		}
	}
	root, err := parseYAML(p.ConfigFile(), disk.Config)
	if err != nil {
		root = salvage(disk.Config, &lost)
	}
	return &loadRoot(p, env, root).draft.Config, lost
}

// salvage reads each section of a text that is no YAML as a whole.
func salvage(data []byte, lost *loss) *node {
	root := &node{kind: mapNode}
	name, text := "", []byte(nil)
	end := func() {
		part, err := parseYAML("", text)
		switch {
		case err != nil && name == "":
			lost.all = true
		case err != nil || name != "" && root.get(name) != nil: // which of two counts cannot be told
			lost.sections[name] = true
		default:
			root.entries = append(root.entries, part.entries...)
		}
	}
	for line := range bytes.Lines(data) {
		if m := sectionStart.FindSubmatch(line); m != nil {
			end()
			name, text = string(m[1]), nil
		}
		text = append(text, line...)
	}
	end()
	return root
}
