// Package clean makes what a chat service says fit to be stored and shown:
// valid UTF-8, bounded, and file names that lead nowhere. All functions are
// safe for concurrent use.
package clean

import (
	"path"
	"strings"
	"unicode"
	"unicode/utf8"
)

// maxName bounds names, in bytes.
const maxName = 200

// Text makes text valid UTF-8 without NUL, as the store needs it.
func Text(s string) string {
	return strings.ReplaceAll(strings.ToValidUTF8(s, "\uFFFD"), "\x00", "")
}

// Clip bounds a text to n bytes without cutting a character.
func Clip(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}

// Short cuts a text to n characters, and says so by an ellipsis.
func Short(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for i := range s {
		if n == 0 {
			return s[:i] + "…"
		}
		n--
	}
	return s
}

// Name is the first candidate that is not blank, cleaned and bounded to 200
// bytes; "" when there is none.
func Name(candidates ...string) string {
	for _, c := range candidates {
		if c = Clip(strings.TrimSpace(Text(c)), maxName); c != "" {
			return c
		}
	}
	return ""
}

// FileName is a name as shown, without folders, of at most 200 bytes; a name
// that would be a folder, or nothing, becomes "file". Characters that are not seen
// are left out: controls, and those that turn the direction of writing and so show
// a name's end in its middle ("photo\u202egpj.exe").
func FileName(s string) string {
	s = strings.Map(func(r rune) rune {
		if unicode.IsControl(r) || unicode.Is(unicode.Cf, r) {
			return -1
		}
		return r
	}, Text(s))
	switch s = strings.TrimSpace(path.Base(strings.ReplaceAll(s, `\`, "/"))); s {
	case "", ".", "..", "/":
		return "file"
	}
	if len(s) > maxName { // keep the extension
		ext := path.Ext(s)
		if len(ext) > 16 {
			ext = ""
		}
		s = Clip(s, maxName-len(ext)) + ext
	}
	return s
}
