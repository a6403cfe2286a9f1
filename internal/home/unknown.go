package home

import (
	"slices"
	"strings"
)

// reportUnknown reports keys of config.yaml and names of .env that nothing
// reads but that are nearly the name of something; keys that resemble nothing
// get a notice. All of them are kept.
func (l *loader) reportUnknown() {
	known := knownPaths()
	l.walkUnknown(known, l.root, "")
	names := KnownEnvNames()
	for _, name := range l.env.Names() {
		if slices.Contains(names, name) || !suspicious(l.env.Origin(name), name) {
			continue
		}
		if near := Nearest(name, names); near != "" {
			l.reportEnv(Warning, name, "is not known and has no effect", "did you mean "+near+"?")
		}
	}
}

// suspicious limits the search among the process's own variables, most of
// which are none of our business.
func suspicious(o Origin, name string) bool {
	return o.File != "" || strings.HasPrefix(name, "HERMES_") || strings.HasPrefix(name, "API_") || strings.HasPrefix(name, "GATEWAY_") || strings.HasSuffix(name, "_BOT_TOKEN")
}

func knownPaths() []string {
	var out []string
	for _, s := range settings() {
		out = append(out, s.paths...)
	}
	return append(out, otherKeys...)
}

func (l *loader) walkUnknown(known []string, n *node, under string) {
	for _, e := range n.entries {
		if e.merged {
			continue
		}
		path := under + e.key
		var siblings []string
		exact, deeper := false, false
		for _, k := range known {
			switch {
			case k == path, strings.HasSuffix(k, ".") && (k == path+"." || strings.HasPrefix(path, k)):
				exact = true
			case strings.HasPrefix(k, path+"."):
				deeper = true
			}
			if rest, ok := strings.CutPrefix(k, under); ok {
				name, _, _ := strings.Cut(rest, ".")
				siblings = append(siblings, name)
			}
		}
		near := Nearest(e.key, siblings)
		switch {
		case exact:
		case deeper:
			if e.value.kind == mapNode {
				l.walkUnknown(known, e.value, path+".")
			}
		case near != "":
			l.report(Warning, &node{line: e.line, column: e.column}, path, "is not known and has no effect; it is kept", "did you mean "+under+near+"?")
		default:
			l.report(Notice, &node{line: e.line, column: e.column}, path, "is not known and has no effect; it is kept", "")
		}
	}
}

// KnownEnvNames gives the names of all variables that have a meaning, sorted.
func KnownEnvNames() []string {
	out := []string{
		"HERMES_HOME", "HERMES_DATA_DIR_SUFFIX", "HERMES_HOME_MODE", "HERMES_INFERENCE_PROVIDER", "HERMES_INFERENCE_MODEL", "HERMES_MODEL", "LLM_MODEL",
		"HERMES_MAX_TOKENS", "HERMES_LEDGER_URL", "HERMES_HEARTBEAT_URL", "HERMES_GATEWAY_LOCK_DIR",
		"HERMES_GATEWAY_EXTERNAL_SUPERVISOR", "HERMES_SUPERVISED_CHILD", "API_SERVER_ENABLED", "GATEWAY_PROXY_URL", "GATEWAY_PROXY_KEY", "GATEWAY_MULTIPLEX_PROFILES",
		"OPENAI_BASE_URL",
	}
	for _, s := range settings() {
		out = append(out, s.envs...)
	}
	for _, spec := range platformSpecs() {
		for _, s := range platformSettings(spec) {
			out = append(out, s.envs...)
		}
		out = append(out, spec.required...)
		if spec.switchOn != "" {
			out = append(out, spec.switchOn)
		}
		for _, x := range append(spec.extras, "BASE_URL") {
			out = append(out, spec.prefix+x)
		}
	}
	for _, p := range providers() {
		out = append(append(out, p.keys...), p.baseEnv())
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// Nearest gives the candidate that differs from word by a slip of the fingers,
// or "" when none does.
func Nearest(word string, candidates []string) string {
	best, least := "", 3
	if len(word) < 8 {
		least = 2
	}
	if len(word) < 4 {
		return ""
	}
	for _, c := range candidates {
		if d := editDistance(word, c, least); d > 0 && d < least {
			best, least = c, d
		}
	}
	return best
}

// editDistance counts insertions, deletions, replacements and swaps of
// neighbours between a and b; at limit or above it may stop counting.
func editDistance(a, b string, limit int) int {
	if len(a)-len(b) >= limit || len(b)-len(a) >= limit || len(a) > 128 {
		return limit
	}
	var before, last []int
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := 1; i <= len(a); i++ {
		before, last, row = last, row, make([]int, len(b)+1)
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			row[j] = min(last[j]+1, row[j-1]+1, last[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
	}
	return row[len(b)]
}
