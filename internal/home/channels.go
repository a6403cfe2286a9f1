package home

import (
	"bytes"
	"slices"
	"strings"

	"hermes/internal/domain"
	"hermes/internal/lazyregexp"
)

// channelFiles are the files of a home, beside .env and config.yaml, that hold
// credentials of chat platforms: the session of a Matrix account, and the routes
// of webhooks with their secrets.
var channelFiles = []string{"matrix_session.json", "webhook_subscriptions.json"}

// olderCopy tells whether a top-level name is that of an older .env or
// config.yaml, which may hold what was taken out since.
func olderCopy(name string) bool {
	for _, of := range []string{".env", "config.yaml"} {
		if rest, ok := strings.CutPrefix(name, of); ok && rest != "" {
			return true
		}
	}
	return strings.HasSuffix(name, ".bak")
}

// dropChannels takes the credentials of chat platforms out of a copied profile:
// those of every platform that config.yaml or .env names, by whichever way they
// are written, in lines that are commented out too.
func dropChannels(p Profile) (left []string, err error) {
	env, err := readBounded(p.EnvFile())
	if err != nil {
		return nil, err
	}
	file, _ := ParseEnv(p.EnvFile(), env)
	config, err := readBounded(p.ConfigFile())
	if err != nil {
		return nil, err
	}
	root, err := parseYAML(p.ConfigFile(), config)
	if err != nil {
		return nil, err
	}
	before := string(config)
	var referred []string
	for _, s := range channelSpecs(root) {
		left = append(left, file.dropChannel(s)...)
		for _, base := range platformPlaces(s.name) {
			section := strings.Split(strings.TrimSuffix(base, "."), ".")
			for _, found := range secretsOf(root.at(section...), section) {
				if config, err = spliceUnset(config, found.path); err != nil {
					return nil, domain.E(domain.Conflict, err, "%s cannot be taken out of the copy of config.yaml; add --clone-channels, or move the token to .env", strings.Join(found.path, "."))
				}
				left = append(left, strings.Join(found.path, "."))
				referred = append(referred, found.variables...)
			}
		}
	}
	for _, name := range referred {
		if !bytes.Contains(config, []byte("${"+name+"}")) && file.Unset(name) { // which nothing else needs
			left = append(left, name)
		}
	}
	if data := file.Bytes(); string(data) != string(env) {
		if err := WriteAtomic(p.EnvFile(), data, 0o600); err != nil {
			return nil, err
		}
	}
	if string(config) != before {
		if err := WriteAtomic(p.ConfigFile(), config, 0o600); err != nil {
			return nil, err
		}
	}
	return left, nil
}

// channelSpecs lists the platforms that are known, those of other versions whose
// variables are, and every other that config.yaml names.
func channelSpecs(root *node) []platformSpec {
	out := platformSpecs()
	for _, name := range []domain.Platform{"whatsapp", "signal", "twilio", "sms", "hass", "dingtalk", "feishu", "wecom", "weixin", "bluebubbles", "qqbot", "teams", "line", "ntfy", "irc", "simplex", "msgraph", "google_chat"} {
		out = append(out, specOf(name))
	}
	for _, under := range []*node{root.at("platforms"), root.at("gateway", "platforms")} {
		if under == nil {
			continue
		}
		for _, e := range under.entries {
			name := domain.Platform(e.key)
			if name != domain.PlatformAPI && !slices.ContainsFunc(out, func(s platformSpec) bool { return s.name == name }) {
				out = append(out, specOf(name))
			}
		}
	}
	return out
}

// commentedOut is a line of a .env whose assignment counts no more.
var commentedOut = lazyregexp.New(`^\s*[#;][#;\s]*(?:export\s+)?([A-Za-z_][A-Za-z0-9_]*)\s*=`)

// dropChannel takes the credentials of a platform out of a .env, and tells which
// of them counted.
func (f *EnvFile) dropChannel(s platformSpec) (left []string) {
	isOne := func(name string) bool {
		return name == s.token || strings.HasPrefix(name, s.prefix) && IsSecretName(name)
	}
	f.segments = slices.DeleteFunc(f.segments, func(seg envSegment) bool {
		if seg.key == "" {
			m := commentedOut.FindSubmatch(seg.raw)
			return m != nil && isOne(string(m[1]))
		}
		if isOne(seg.key) && !slices.Contains(left, seg.key) {
			left = append(left, seg.key)
		}
		return isOne(seg.key)
	})
	return left
}

// keptSecret is a secret in config.yaml.
type keptSecret struct {
	path          []string
	variables     []string // of the environment, that it is taken from
	onlyVariables bool     // it holds nothing of its own
}

var reference = lazyregexp.New(`\$\{([A-Za-z_][A-Za-z0-9_]*)\}`)

// secretsOf finds the secrets of a section, at any depth: a value, or a list of
// them.
func secretsOf(section *node, at []string) (out []keptSecret) {
	if section == nil {
		return nil
	}
	for _, e := range section.entries {
		path := append(slices.Clone(at), e.key)
		switch {
		case !IsSecretName(e.key) || e.value.kind == mapNode:
			out = append(out, secretsOf(e.value, path)...)
		default:
			found := keptSecret{path: path, onlyVariables: true}
			for _, value := range append([]*node{e.value}, e.value.items...) {
				if strings.TrimSpace(value.text) != "" && strings.TrimSpace(reference.ReplaceAllString(value.text, "")) != "" {
					found.onlyVariables = false
				}
				for _, m := range reference.FindAllStringSubmatch(value.text, -1) {
					found.variables = append(found.variables, m[1])
				}
			}
			out = append(out, found)
		}
	}
	return out
}
