package tool

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"

	"hermes/internal/domain"
)

// Decode reads a call's arguments into the struct that into points at. Models
// write JSON with small faults; those with one meaning are understood: no
// arguments at all for {}, an object inside a string, a number or truth value
// inside a string, a single value where a list is wanted, null for "not given".
// required names the parameters that must be there and not be empty. The error
// is a domain.Invalid that names the parameter and what was expected.
func Decode(raw json.RawMessage, into any, required ...string) error {
	raw = bytes.TrimSpace(raw)
	if len(raw) == 0 || string(raw) == "null" {
		raw = json.RawMessage("{}")
	}
	var inner string
	if raw[0] == '"' && json.Unmarshal(raw, &inner) == nil && strings.HasPrefix(strings.TrimSpace(inner), "{") {
		raw = json.RawMessage(inner)
	}
	var given map[string]json.RawMessage
	if err := json.Unmarshal(raw, &given); err != nil {
		return malformed(raw, err)
	}
	for _, name := range required {
		if v, ok := given[name]; !ok || string(v) == "null" {
			return domain.E(domain.Invalid, nil, "the parameter %q is missing; the tool needs it%s", name, others(given, into))
		} else if string(v) == `""` {
			return domain.E(domain.Invalid, nil, "the parameter %q is empty; the tool needs it", name)
		}
	}
	// Each turn mends one parameter, so there are at most as many as parameters.
	for range len(given) + 1 {
		body, err := json.Marshal(given)
		if err != nil {
			return malformed(raw, err)
		}
		err = json.Unmarshal(body, into)
		var wrong *json.UnmarshalTypeError
		switch {
		case err == nil:
			return nil
		case !errors.As(err, &wrong):
			return malformed(raw, err)
		}
		name, _, _ := strings.Cut(wrong.Field, ".")
		fixed, ok := mend(given[name], wrong.Type)
		if !ok {
			return domain.E(domain.Invalid, nil, "the parameter %q must be %s, but is %s", wrong.Field, kindOf(wrong.Type), article(wrong.Value))
		}
		given[name] = fixed
	}
	return domain.E(domain.Invalid, nil, "the arguments do not fit the tool's parameters")
}

// mend turns a value of the wrong type into the one that was plainly meant.
func mend(v json.RawMessage, want reflect.Type) (json.RawMessage, bool) {
	v = bytes.TrimSpace(v)
	if want == nil || len(v) == 0 {
		return nil, false
	}
	var s string
	isText := json.Unmarshal(v, &s) == nil
	switch want.Kind() {
	case reflect.Int, reflect.Int64, reflect.Int32, reflect.Float64:
		if f := strings.TrimSuffix(strings.TrimSpace(string(v)), ".0"); !isText && f != string(v) {
			return json.RawMessage(f), true
		}
		if s = strings.TrimSpace(s); isText && json.Valid([]byte(s)) && strings.Trim(s, "0123456789.-") == "" {
			return json.RawMessage(s), true
		}
	case reflect.Bool:
		if s = strings.ToLower(strings.TrimSpace(s)); isText && (s == "true" || s == "false") {
			return json.RawMessage(s), true
		}
	case reflect.Slice:
		if isText && strings.HasPrefix(strings.TrimSpace(s), "[") && json.Valid([]byte(s)) {
			return json.RawMessage(s), true
		}
		if v[0] != '[' {
			return json.RawMessage("[" + string(v) + "]"), true
		}
	case reflect.String:
		if v[0] != '"' && v[0] != '[' && v[0] != '{' {
			b, err := json.Marshal(string(v))
			return b, err == nil
		}
	}
	return nil, false
}

func malformed(raw json.RawMessage, err error) error {
	var syntax *json.SyntaxError
	if errors.As(err, &syntax) {
		at := int(syntax.Offset)
		near := raw[min(max(0, at-20), len(raw)):min(len(raw), at+20)]
		return domain.E(domain.Invalid, err, "the arguments are not valid JSON: %s at byte %d, near %q; send one JSON object", syntax.Error(), at, near)
	}
	return domain.E(domain.Invalid, err, "the arguments must be one JSON object with the parameters by name")
}

// others says what was given and not known, since a missing parameter is often
// a misspelt one.
func others(given map[string]json.RawMessage, into any) string {
	known := map[string]bool{}
	if t := reflect.TypeOf(into); t.Kind() == reflect.Pointer && t.Elem().Kind() == reflect.Struct {
		for i := range t.Elem().NumField() {
			name, _, _ := strings.Cut(t.Elem().Field(i).Tag.Get("json"), ",")
			known[name] = true
		}
	}
	var strange []string
	for name := range given {
		if !known[name] {
			strange = append(strange, fmt.Sprintf("%q", name))
		}
	}
	if len(strange) == 0 {
		return ""
	}
	slices.Sort(strange)
	return "; it does not know " + strings.Join(strange[:min(len(strange), 5)], ", ")
}

func kindOf(t reflect.Type) string {
	switch t.Kind() {
	case reflect.Int, reflect.Int32, reflect.Int64:
		return "a whole number"
	case reflect.Float64:
		return "a number"
	case reflect.Bool:
		return "true or false"
	case reflect.Slice:
		return "a list"
	case reflect.Struct, reflect.Map:
		return "an object"
	}
	return "a text"
}

func article(value string) string {
	switch {
	case value == "array":
		return "a list"
	case value == "object":
		return "an object"
	case value == "string":
		return "a text"
	case value == "bool":
		return "true or false"
	case strings.HasPrefix(value, "number"):
		return "a number"
	}
	return value
}
