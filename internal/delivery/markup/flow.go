package markup

import (
	"sort"
	"strings"
	"unicode"
	"unicode/utf8"

	"hermes/internal/platform"
)

// markKind is what a mark does to the text under it.
type markKind int

const (
	bold markKind = iota
	italic
	underline
	strike
	code  // arg is "`" when there is one in it
	pre   // arg is the language
	link  // arg is the destination
	quote // a block quotation
)

// mark is one layer over a stretch of text; up is the layer that holds it. A
// kind occurs once in a chain, which bounds its length.
type mark struct {
	up   *mark
	kind markKind
	arg  string
}

// find gives the mark of a kind in the chain, or nil.
func (m *mark) find(k markKind) *mark {
	for ; m != nil; m = m.up {
		if m.kind == k {
			return m
		}
	}
	return nil
}

// run is a stretch of text under one mark, from the end of the run before it.
type run struct {
	end  int
	mark *mark
	atom *mark // the link or code that should not be cut
	pre  bool
}

// flow is visible text and the marks over it.
type flow struct {
	text string
	runs []run
}

// span is a stretch of a flow's text, in bytes.
type span struct{ start, end int }

// dialect is how one platform writes marks.
type dialect struct {
	escape *strings.Replacer
	// tags are what opens and closes a mark.
	tags func(m *mark) (open, end string)
	// admits tells whether a mark of kind k may stand within m; the text is
	// written without it otherwise.
	admits func(m *mark, k markKind) bool
	// hides tells whether a link to dest can stand behind its text; dest is
	// shown in brackets otherwise.
	hides func(dest string) bool
	// quotes says that quotations are marks; lines get a "> " otherwise.
	quotes bool
	// adapt changes text under a mark that would else be taken for markup; nil
	// leaves it. What is escaped is escaped afterwards.
	adapt func(text string, m *mark) string
	// glue stands between a letter and a mark, where marks are only taken at the
	// edges of words.
	glue string
	// breaks stands for a line end outside code blocks; "" keeps it.
	breaks string
	// finish is applied to what was written; nil leaves it.
	finish *strings.Replacer
}

// dialects are those that are written from a flow.
var dialects = map[platform.Dialect]*dialect{
	platform.DialectPlain:        &plain,
	platform.DialectTelegramHTML: &telegramHTML,
	platform.DialectMrkdwn:       &mrkdwn,
	platform.DialectMatrixHTML:   &matrixHTML,
}

func newRun(end int, m *mark) run {
	r := run{end: end, mark: m, pre: m.find(pre) != nil}
	if r.atom = m.find(link); r.atom == nil {
		r.atom = m.find(code)
	}
	return r
}

// append adds text under the last mark that is no link.
func (f *flow) append(s string) {
	var m *mark
	if n := len(f.runs); n > 0 {
		m = f.runs[n-1].mark
	}
	if l := m.find(link); l != nil {
		m = l.up
	}
	f.text += s
	f.runs = append(f.runs, newRun(len(f.text), m))
}

// at gives the index of the run that holds the byte at pos.
func (f *flow) at(pos int) int {
	return sort.Search(len(f.runs), func(i int) bool { return f.runs[i].end > pos })
}

// each calls fn for the runs of a span.
func (f *flow) each(s span, fn func(text string, m *mark)) {
	pos := s.start
	for i := f.at(pos); i < len(f.runs) && pos < s.end; i++ {
		end := min(f.runs[i].end, s.end)
		fn(f.text[pos:end], f.runs[i].mark)
		pos = end
	}
}

// write renders a span in a dialect, with every mark closed at its end.
func (f *flow) write(d *dialect, s span) string {
	var b strings.Builder
	var open []*mark
	closeTo := func(n int) {
		for len(open) > n {
			_, end := d.tags(open[len(open)-1])
			b.WriteString(end)
			open = open[:len(open)-1]
		}
	}
	f.each(s, func(text string, m *mark) {
		want := chain(m)
		same := 0
		for same < len(open) && same < len(want) && open[same] == want[same] {
			same++
		}
		if d.adapt != nil {
			text = d.adapt(text, m)
		}
		if len(open) > same {
			closeTo(same)
			if first, _ := utf8.DecodeRuneInString(text); len(want) == same && isWord(first) {
				b.WriteString(d.glue)
			}
		}
		if last, _ := utf8.DecodeLastRuneInString(b.String()); len(want) > same && isWord(last) {
			b.WriteString(d.glue)
		}
		for _, w := range want[same:] {
			begin, _ := d.tags(w)
			b.WriteString(begin)
			open = append(open, w)
		}
		text = d.escape.Replace(text)
		if d.breaks != "" && m.find(pre) == nil {
			text = strings.ReplaceAll(text, "\n", d.breaks)
		}
		b.WriteString(text)
	})
	closeTo(0)
	if d.finish != nil {
		return d.finish.Replace(b.String())
	}
	return b.String()
}

func isWord(r rune) bool { return unicode.IsLetter(r) || unicode.IsDigit(r) }

// chain lists the marks from the outermost in.
func chain(m *mark) []*mark {
	var out []*mark
	for ; m != nil; m = m.up {
		out = append(out, m)
	}
	for i, j := 0, len(out)-1; i < j; i, j = i+1, j-1 {
		out[i], out[j] = out[j], out[i]
	}
	return out
}
