package markup

import (
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/rivo/uniseg"

	"hermes/internal/platform"
)

// The kinds of place where text may be cut, best first.
const (
	atParagraph = iota
	atLine
	atSentence
	atWord
	atCluster // between two graphemes
	inAtom    // within a link or inline code
	places
)

// fill is how full a part must be, in percent of its limit, for a cut of that
// kind to be taken before the next worse one is looked at.
var fill = [places]int{atParagraph: 50, atLine: 50, atSentence: 50, atWord: 25, atCluster: 25, inAtom: 0}

// split cuts the flow into spans that show something. room gives the limit of
// the part that begins at a position.
func (f *flow) split(unit platform.LengthUnit, room func(start int) int) []span {
	var out []span
	for pos := f.skipBlank(0); pos < len(f.text); {
		end := f.cut(pos, room(pos), unit)
		if s := f.trim(span{pos, end}); visible(f.text[s.start:s.end]) {
			out = append(out, s)
		}
		pos = f.skipBlank(end)
	}
	return out
}

// cut gives the end of the part that begins at start. It is beyond start.
func (f *flow) cut(start, limit int, unit platform.LengthUnit) int {
	if fits(f.text[start:], limit, unit) {
		return len(f.text)
	}
	var best, used [places]int
	rest, state := f.text[start:], -1
	for pos, n, i := start, 0, f.at(start); rest != ""; {
		cluster, after, bounds, next := uniseg.StepString(rest, state)
		if n += Len(cluster, unit); n > limit {
			break
		}
		pos += len(cluster)
		p := f.place(pos, i, bounds)
		best[p], used[p] = pos, n
		for i < len(f.runs)-1 && f.runs[i].end <= pos {
			i++
		}
		rest, state = after, next
	}
	for p, pos := range best {
		if pos > 0 && used[p]*100 >= fill[p]*limit {
			return pos
		}
	}
	// Nothing fills the part well: the longest one then, and within a single
	// huge cluster whatever fits.
	longest := 0
	for p, pos := range best {
		if p != inAtom || longest == 0 {
			longest = max(longest, pos)
		}
	}
	if longest > start {
		return longest
	}
	return start + runesWithin(f.text[start:], limit, unit)
}

// place tells what kind of place pos is; i is the run before it.
func (f *flow) place(pos, i, bounds int) int {
	r := f.runs[i]
	atom := r.atom
	if r.end == pos && i+1 < len(f.runs) && f.runs[i+1].atom != atom {
		atom = nil
	}
	newline := f.text[pos-1] == '\n'
	switch {
	case atom != nil:
		return inAtom
	case newline && !r.pre && pos > 1 && f.text[pos-2] == '\n':
		return atParagraph
	case newline:
		return atLine
	case r.pre && bounds&uniseg.MaskLine != uniseg.LineDontBreak:
		return atWord
	case r.pre:
		return atCluster
	case bounds&uniseg.MaskSentence != 0:
		return atSentence
	case bounds&uniseg.MaskLine != uniseg.LineDontBreak:
		return atWord
	}
	return atCluster
}

// skipBlank passes over lines that are blank, and in code over nothing: its
// indentation and its blank lines mean something.
func (f *flow) skipBlank(pos int) int {
	for pos < len(f.text) {
		if i := f.at(pos); f.runs[i].pre && f.runs[i].mark != nil {
			return pos
		}
		nl := strings.IndexByte(f.text[pos:], '\n')
		if nl < 0 {
			if strings.TrimSpace(f.text[pos:]) == "" {
				return len(f.text)
			}
			return pos
		}
		if strings.TrimSpace(f.text[pos:pos+nl]) != "" {
			return pos
		}
		pos += nl + 1
	}
	return pos
}

// trim takes white space off the end.
func (f *flow) trim(s span) span {
	s.end = s.start + len(strings.TrimRightFunc(f.text[s.start:s.end], unicode.IsSpace))
	return s
}

// visible tells whether there is anything to be seen in s. Platforms refuse a
// message that has only spaces and format characters.
func visible(s string) bool {
	return strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsSpace(r) && !unicode.In(r, unicode.Cf) })
}

// fits tells whether s is within the limit; it reads no more of s than it must.
func fits(s string, limit int, unit platform.LengthUnit) bool {
	return runesWithin(s, limit, unit) == len(s)
}

// runesWithin is the length in bytes of the longest start of s, whole runes,
// that is within the limit.
func runesWithin(s string, limit int, unit platform.LengthUnit) int {
	pos := 0
	for pos < len(s) {
		r, size := utf8.DecodeRuneInString(s[pos:])
		if limit -= runeLen(r, unit); limit < 0 {
			break
		}
		pos += size
	}
	return pos
}
