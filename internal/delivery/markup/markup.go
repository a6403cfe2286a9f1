// Package markup turns the Markdown that models write into messages that a
// platform takes: it renders into the platform's dialect and splits into parts
// within the platform's limit.
//
// Markdown is flattened once into a flow: visible text, and marks (bold, link,
// code block, …) over stretches of it. The splitter cuts the flow at the best
// visible place, and a dialect writes each piece with its marks opened and
// closed, so that every part is whole by construction. A dialect is one file
// with one value of type dialect; see telegram.go.
//
// The Markdown is CommonMark (https://spec.commonmark.org/0.31.2/) with the
// tables, strikethrough, task lists and bare links of GitHub's
// (https://github.github.com/gfm/). Link reference definitions and HTML are
// shown as they were written, since dropping them would lose text.
//
// All functions are safe for concurrent use, and take time and memory in
// proportion to their input.
package markup

import (
	"strings"
	"unicode"
	"unicode/utf8"

	"hermes/internal/domain"
	"hermes/internal/platform"
)

const (
	// DefaultMaxText is the limit of a part, in the platform's unit, where the
	// capabilities name none.
	DefaultMaxText = 4000

	// minText is the least limit that is obeyed: a smaller one would not hold
	// a reopened code fence and something in it.
	minText = 128

	// tailBytes bounds what a streamed preview renders: only the end of the
	// text is shown, so only the end is read.
	tailBytes = 64 << 10
)

// Render turns Markdown into parts, in order, each within the length limit of
// the capabilities. Only Text, Plain and Markup of a part are filled in. Text
// that shows nothing gives no part.
func Render(md string, caps platform.Capabilities) []domain.Part {
	return render(clean(md), "", caps)
}

// Tail renders the end of a text that is still being written: the last part of
// it, with cursor behind its last letter. It reads a bounded end of the text
// only. The zero Part means that there is nothing to show.
func Tail(md, cursor string, caps platform.Capabilities) domain.Part {
	parts := render(clean(lastBytes(md, tailBytes)), cursor, caps)
	if len(parts) == 0 {
		return domain.Part{}
	}
	return parts[len(parts)-1]
}

// Escape makes text safe to be put into Markdown as it is, on one line and
// behind other text.
func Escape(s string) string {
	var b strings.Builder
	for _, r := range s {
		switch {
		case r == '\n' || r == '\r' || r == '\t':
			r = ' '
		case r < utf8.RuneSelf && (unicode.IsPunct(r) || unicode.IsSymbol(r)) && r != '.' && r != ',' && r != '/' && r != ':' && r != '-':
			b.WriteByte('\\')
		}
		b.WriteRune(r)
	}
	return b.String()
}

// Len is the length of visible text in the unit.
func Len(s string, unit platform.LengthUnit) int {
	n := 0
	switch unit {
	case platform.Bytes:
		return len(s)
	case platform.UTF16:
		for _, r := range s {
			n += runeLen(r, unit)
		}
		return n
	default:
		return utf8.RuneCountInString(s)
	}
}

func runeLen(r rune, unit platform.LengthUnit) int {
	switch {
	case unit == platform.Bytes:
		return utf8.RuneLen(r)
	case unit == platform.UTF16 && r > 0xffff:
		return 2
	}
	return 1
}

func render(md, cursor string, caps platform.Capabilities) (parts []domain.Part) {
	limit := caps.MaxText
	if limit <= 0 {
		limit = DefaultMaxText
	}
	limit = max(limit, minText)
	defer func() {
		// What a model writes is foreign input to a parser made by others. A
		// defect in there must cost the markup, not the answer: the same text
		// would bring the process down again after each start.
		if recover() != nil {
			parts = unrendered(md+cursor, limit, caps.Unit)
		}
	}()
	if caps.Dialect == platform.DialectMarkdown {
		return renderMarkdown(md+cursor, limit, caps.Unit)
	}
	d := dialects[caps.Dialect]
	if d == nil {
		d = &plain
	}
	f := flatten(md, d)
	if cursor != "" {
		f.append(cursor)
	}
	for _, s := range f.split(caps.Unit, func(int) int { return limit }) {
		p := domain.Part{Plain: f.plain(s, limit, caps.Unit)}
		p.Text = p.Plain
		if d != &plain {
			p.Text, p.Markup = f.write(d, s), true
		}
		parts = append(parts, p)
	}
	return parts
}

// unrendered cuts text into parts as it stands.
func unrendered(text string, limit int, unit platform.LengthUnit) []domain.Part {
	var parts []domain.Part
	for text = strings.TrimSpace(text); text != ""; {
		n := max(runesWithin(text, limit, unit), 1)
		parts = append(parts, domain.Part{Text: text[:n], Plain: text[:n]})
		text = text[n:]
	}
	return parts
}

// clean makes text valid UTF-8 with \n line ends and without control
// characters, which platforms refuse or show as boxes.
func clean(s string) string {
	s = strings.ToValidUTF8(s, "\uFFFD")
	s = strings.ReplaceAll(s, "\r\n", "\n")
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\r':
			return '\n'
		case r == '\n' || r == '\t':
			return r
		case r < ' ' || r == 0x7f:
			return -1
		}
		return r
	}, s)
}

// lastBytes gives about the last n bytes, from the start of a line if one
// begins there.
func lastBytes(s string, n int) string {
	if len(s) <= n {
		return s
	}
	s = s[len(s)-n:]
	if i := strings.IndexByte(s, '\n'); i >= 0 && i < len(s)/2 {
		return s[i+1:]
	}
	return s
}
