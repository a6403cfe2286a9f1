package home

import (
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"hermes/internal/domain"
	"hermes/internal/secret"
)

// draft is a Config while it is being read.
type draft struct {
	Config
	platforms map[domain.Platform]*PlatformConfig
	zone      string
	compress  bool
	threshold float64
	userHome  string
	apiOff    bool // a setting of the API cannot be read
}

func (d *draft) platform(p domain.Platform) *PlatformConfig {
	if d.platforms[p] == nil {
		d.platforms[p] = defaultPlatform(p)
	}
	return d.platforms[p]
}

// setting is one thing that can be set: where it may stand, how it is read
// into a draft, what is expected, and how its value is shown. Decoding,
// checking, the environment's override, the list of known keys and `config
// show --origin` all come from this one description.
type setting struct {
	paths  []string // in config.yaml, the canonical one first
	envs   []string // variables that override the file, the first that is set counts
	want   string   // what is expected, for people
	secret bool
	read   func(d *draft, n *node) bool // false: n is not what is expected
	show   func(d *draft) string
	// safest is applied in place of the default when what is written cannot be
	// read, so that a mistake never opens anything.
	safest func(d *draft)
}

func (s *setting) also(paths ...string) *setting  { s.paths = append(s.paths, paths...); return s }
func (s *setting) env(names ...string) *setting   { s.envs = append(s.envs, names...); return s }
func (s *setting) safe(f func(d *draft)) *setting { s.safest = f; return s }

func intSetting(path string, low, high int, at func(*draft) *int) *setting {
	return &setting{
		paths: []string{path},
		want:  fmt.Sprintf("a whole number from %d to %d", low, high),
		read: func(d *draft, n *node) bool {
			v, ok := intOf(n)
			if !ok || v < low || v > high {
				return false
			}
			*at(d) = v
			return true
		},
		show: func(d *draft) string { return strconv.Itoa(*at(d)) },
	}
}

func boolSetting(path string, at func(*draft) *bool) *setting {
	return &setting{
		paths: []string{path},
		want:  "true or false",
		read: func(d *draft, n *node) bool {
			v, ok := boolOf(n)
			if ok {
				*at(d) = v
			}
			return ok
		},
		show: func(d *draft) string { return strconv.FormatBool(*at(d)) },
	}
}

func textSetting(path string, at func(*draft) *string) *setting {
	return &setting{
		paths: []string{path},
		want:  "a text",
		read: func(d *draft, n *node) bool {
			if n.kind != scalarNode {
				return false
			}
			*at(d) = n.text
			return true
		},
		show: func(d *draft) string { return *at(d) },
	}
}

func secretSetting(path string, at func(*draft) *secret.Value) *setting {
	s := textSetting(path, func(d *draft) *string { return (*string)(at(d)) })
	s.secret = true
	s.show = func(d *draft) string { return at(d).String() }
	return s
}

// choiceSetting is one of some words. A bare off or on, which other readers of
// YAML take for false and true, is understood as the word.
func choiceSetting(path string, at func(*draft) *string, choices ...string) *setting {
	return &setting{
		paths: []string{path},
		want:  "one of " + strings.Join(choices, ", "),
		read: func(d *draft, n *node) bool {
			if n.kind != scalarNode {
				return false
			}
			word := strings.ToLower(n.text)
			if b, isBool := n.value.(bool); isBool {
				word = map[bool]string{false: "off", true: "all"}[b]
			}
			if !slices.Contains(choices, word) {
				return false
			}
			*at(d) = word
			return true
		},
		show: func(d *draft) string { return *at(d) },
	}
}

// durationSetting is a number of units, or a text such as "90s" or "2h".
func durationSetting(path string, unit time.Duration, at func(*draft) *time.Duration) *setting {
	return &setting{
		paths: []string{path},
		want:  fmt.Sprintf("a number of %s that is not negative, or a text like 90s", unitName(unit)),
		read: func(d *draft, n *node) bool {
			v, ok := durationOf(n, unit)
			if ok {
				*at(d) = v
			}
			return ok
		},
		show: func(d *draft) string { return at(d).String() },
	}
}

func unitName(unit time.Duration) string {
	switch unit {
	case time.Minute:
		return "minutes"
	case time.Hour:
		return "hours"
	}
	return "seconds"
}

func listSetting(path string, at func(*draft) *[]string) *setting {
	return &setting{
		paths: []string{path},
		want:  "a list, or a text with commas",
		read: func(d *draft, n *node) bool {
			v, ok := listOf(n)
			if ok {
				*at(d) = v
			}
			return ok
		},
		show: func(d *draft) string { return strings.Join(*at(d), ",") },
	}
}

func intOf(n *node) (int, bool) {
	if n.kind != scalarNode {
		return 0, false
	}
	switch v := n.value.(type) {
	case int64:
		return int(v), true
	case uint64:
		return int(v), v <= math.MaxInt32
	case float64:
		return int(v), v == math.Trunc(v) && math.Abs(v) < math.MaxInt32
	}
	v, err := strconv.Atoi(strings.TrimSpace(n.text))
	return v, err == nil
}

// boolOf accepts the words of YAML 1.1 too, as files that come from elsewhere
// use them.
func boolOf(n *node) (value, ok bool) {
	if n.kind != scalarNode {
		return false, false
	}
	switch strings.ToLower(strings.TrimSpace(n.text)) {
	case "true", "yes", "on", "1", "y":
		return true, true
	case "false", "no", "off", "0", "n":
		return false, true
	}
	return false, false
}

func floatOf(n *node) (float64, bool) {
	if n.kind != scalarNode {
		return 0, false
	}
	v, err := strconv.ParseFloat(strings.TrimSpace(n.text), 64)
	return v, err == nil && !math.IsNaN(v) && !math.IsInf(v, 0)
}

func durationOf(n *node, unit time.Duration) (time.Duration, bool) {
	if v, ok := floatOf(n); ok {
		total := v * float64(unit)
		return time.Duration(total), v >= 0 && total < math.MaxInt64
	}
	v, err := time.ParseDuration(strings.TrimSpace(n.text))
	return v, n.kind == scalarNode && err == nil && v >= 0
}

// listOf reads a list of scalars, a JSON list in a text, or words with commas.
func listOf(n *node) ([]string, bool) {
	var out []string
	switch n.kind {
	case listNode:
		for _, item := range n.items {
			if item.kind != scalarNode {
				return nil, false
			}
			out = append(out, strings.TrimSpace(item.text))
		}
	case scalarNode:
		text := strings.TrimSpace(n.text)
		if strings.HasPrefix(text, "[") {
			var items []any
			if json.Unmarshal([]byte(text), &items) != nil {
				return nil, false
			}
			for _, item := range items {
				out = append(out, strings.TrimSpace(jsonText(item)))
			}
			break
		}
		for _, word := range strings.Split(text, ",") {
			if word = strings.TrimSpace(word); word != "" {
				out = append(out, word)
			}
		}
	case mapNode:
		return nil, false
	}
	return out, true
}

// jsonText gives a text as it is and everything else as JSON; a whole number
// of any size keeps its digits.
func jsonText(v any) string {
	switch v := v.(type) {
	case string:
		return v
	case float64:
		return strconv.FormatFloat(v, 'f', -1, 64)
	}
	data, err := json.Marshal(v)
	if err != nil {
		return ""
	}
	return string(data)
}

// extraText gives a value under extra: as the flat text that platforms read.
func extraText(n *node) string {
	switch n.kind {
	case scalarNode:
		return n.text
	case listNode:
		if words, ok := listOf(n); ok {
			return strings.Join(words, ",")
		}
	case nullNode:
		return ""
	}
	return jsonText(n.plain())
}
