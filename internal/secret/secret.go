// Package secret keeps secrets out of what people and logs see: a type that
// prints as <secret>, and a Redactor that takes known secrets and everything
// that looks like one out of text.
package secret

import (
	"errors"
	"log/slog"
	"strings"
)

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

// Hide takes known secrets out of a text.
func Hide(s string, secrets ...Value) string {
	for _, v := range secrets {
		if v.IsSet() {
			s = strings.ReplaceAll(s, v.Reveal(), v.String())
		}
	}
	return s
}

// HideIn takes known secrets out of an error's text. An error that holds none
// stays as it is; of another, only the text is left.
func HideIn(err error, secrets ...Value) error {
	if err == nil {
		return nil
	}
	text := err.Error()
	if s := Hide(text, secrets...); s != text {
		return errors.New(s)
	}
	return err
}
