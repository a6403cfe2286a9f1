package webhook

import (
	"encoding/json"
	"net/url"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"hermes/internal/lazyregexp"
	"hermes/internal/platform/clean"
)

// The bounds of what a template makes.
const (
	maxPrompt = 64 << 10 // bytes of a template
	maxRaw    = 4000     // characters of {__raw__}
	maxValue  = 2000     // characters of one value that is a list or a map
	maxAsked  = 128 << 10
	maxDepth  = 16 // names of one path
)

// placeholder is a {path} in a template: names and indexes with dots between.
var placeholder = lazyregexp.New(`\{([A-Za-z0-9_][A-Za-z0-9_.-]*)\}`)

// render fills a template with an event's values. A path that the event does
// not have stays as it is written, so that people see what is wrong. What is
// filled in is never filled in again.
func render(template string, event any, raw []byte) string {
	room := maxAsked
	return placeholder.ReplaceAllStringFunc(template, func(found string) string {
		path := found[1 : len(found)-1]
		text := found
		if path == "__raw__" {
			text = clean.Short(string(raw), maxRaw)
		} else if v, ok := lookUp(event, path); ok {
			if text = textOf(v); !scalar(v) {
				text = clean.Short(text, maxValue)
			}
		}
		if text = clean.Short(text, room); len(text) > 0 {
			room -= min(room, len(text))
		}
		return text
	})
}

// lookUp finds a value by its path: a.b, or a.0.b in a list.
func lookUp(v any, path string) (any, bool) {
	names := strings.SplitN(path, ".", maxDepth+1)
	if len(names) > maxDepth {
		return nil, false
	}
	for _, name := range names {
		switch at := v.(type) {
		case map[string]any:
			next, ok := at[name]
			if !ok {
				return nil, false
			}
			v = next
		case []any:
			i, err := strconv.Atoi(name)
			if err != nil || i < 0 || i >= len(at) {
				return nil, false
			}
			v = at[i]
		default:
			return nil, false
		}
	}
	return v, true
}

func scalar(v any) bool {
	switch v.(type) {
	case map[string]any, []any:
		return false
	}
	return true
}

// textOf writes a value as it is shown: texts bare, the rest as JSON.
func textOf(v any) string {
	switch v := v.(type) {
	case string:
		return v
	case json.Number:
		return v.String()
	case nil:
		return ""
	}
	b, err := json.Marshal(v)
	if err != nil {
		return ""
	}
	return string(b)
}

// printable makes text valid UTF-8 without control characters.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r == '\n' || r == '\t' || !unicode.IsControl(r) {
			return r
		}
		return -1
	}, strings.ToValidUTF8(s, "\uFFFD"))
}

// decode reads the body of a call: JSON, or a form whose values become texts
// and whose field "payload" is JSON (GitHub's other form). What is neither is
// an event without values.
func decode(contentType string, body []byte) (event any, raw []byte) {
	raw = body
	if strings.HasPrefix(strings.ToLower(strings.TrimSpace(contentType)), "application/x-www-form-urlencoded") {
		form, err := url.ParseQuery(string(body))
		if err != nil {
			return map[string]any{}, raw
		}
		if p := form.Get("payload"); p != "" {
			raw = []byte(p)
		} else {
			m := map[string]any{}
			for k := range form {
				m[k] = form.Get(k)
			}
			return m, raw
		}
	}
	d := json.NewDecoder(strings.NewReader(string(raw)))
	d.UseNumber()
	if !utf8.Valid(raw) || d.Decode(&event) != nil || d.More() {
		return map[string]any{}, raw
	}
	return event, raw
}
