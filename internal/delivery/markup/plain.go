package markup

import (
	"strings"

	"hermes/internal/platform"
)

// plain is the dialect of platforms that show text as it is: destinations are
// spelled out and quotations get a "> " at each line.
var plain = dialect{
	escape: strings.NewReplacer(),
	tags:   func(*mark) (string, string) { return "", "" },
	admits: func(_ *mark, k markKind) bool { return k == pre || k == code },
	hides:  func(string) bool { return false },
}

// plain renders a span without markup. Destinations of links are spelled out
// as far as the limit leaves room for them.
func (f *flow) plain(s span, limit int, unit platform.LengthUnit) string {
	left := limit - Len(f.text[s.start:s.end], unit)
	var b strings.Builder
	var last *mark
	label := 0
	spellOut := func() {
		if last == nil || b.String()[label:] == last.arg {
			return
		}
		dest := " (" + last.arg + ")"
		if n := Len(dest, unit); n <= left {
			b.WriteString(dest)
			left -= n
		}
	}
	f.each(s, func(text string, m *mark) {
		if l := m.find(link); l != last {
			spellOut()
			last, label = l, b.Len()
		}
		b.WriteString(text)
	})
	spellOut()
	return b.String()
}
