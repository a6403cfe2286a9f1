// Package secret keeps secrets out of what people and logs see: a type that
// prints as <secret>, and a Redactor that takes known secrets and everything
// that looks like one out of text.
package secret

import "log/slog"

// Mask is what stands in place of a secret.
const Mask = "<secret>"

// Value is a secret. It prints, marshals and logs as <secret>; Reveal gives it.
type Value string

// Reveal gives the secret itself.
func (v Value) Reveal() string { return string(v) }

// IsSet tells whether there is one.
func (v Value) IsSet() bool { return v != "" }

// String gives <secret>, or "" for none.
func (v Value) String() string {
	if v == "" {
		return ""
	}
	return Mask
}

// GoString gives the same for %#v.
func (v Value) GoString() string { return `"` + v.String() + `"` }

// MarshalText gives the same for JSON and YAML.
func (v Value) MarshalText() ([]byte, error) { return []byte(v.String()), nil }

// LogValue gives the same for slog.
func (v Value) LogValue() slog.Value { return slog.StringValue(v.String()) }
