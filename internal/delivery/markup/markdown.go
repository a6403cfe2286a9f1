package markup

import (
	"strings"

	"github.com/yuin/goldmark/ast"
	east "github.com/yuin/goldmark/extension/ast"

	"hermes/internal/domain"
	"hermes/internal/platform"
)

// renderMarkdown splits Markdown that the platform renders itself. The text
// stays as it was written; a code block that is cut is closed in its part and
// reopened in the next. The limit counts the markup, as these platforms do.
func renderMarkdown(md string, limit int, unit platform.LengthUnit) []domain.Part {
	code := fences(md)
	f := source(md, code)
	closing := 0
	for _, c := range code {
		closing = max(closing, Len("\n"+c.indent+c.ticks, unit))
	}
	whole := fits(md+unclosed(md), limit, unit)
	var parts []domain.Part
	for _, s := range f.split(unit, func(start int) int {
		room := limit
		if !whole {
			room -= closing
		}
		if c := cutAt(code, start); c != nil {
			room -= Len(c.open(), unit)
		}
		return max(room, minText/4)
	}) {
		text := piece(md, s, code)
		parts = append(parts, domain.Part{Text: text, Plain: text, Markup: true})
	}
	return parts
}

// cutAt gives the code block that a cut at pos would cut.
func cutAt(code []fence, pos int) *fence {
	for i, c := range code {
		if c.body <= pos && pos < c.end {
			return &code[i]
		}
	}
	return nil
}

// piece is a span of the source that stands on its own.
func piece(md string, s span, code []fence) string {
	text, head := md[s.start:s.end], ""
	if c := cutAt(code, s.start); c != nil {
		head = c.open()
		end := min(c.end, s.end)
		text = dedent(md[s.start:end], len(c.indent)) + md[end:s.end]
	}
	return head + text + unclosed(head+text)
}

// unclosed is what closes the code block that text leaves open.
func unclosed(text string) string {
	code := fences(text)
	if len(code) == 0 {
		return ""
	}
	last := code[len(code)-1]
	if last.end < len(text) {
		return ""
	}
	body := strings.TrimRight(text[min(last.body, len(text)):], "\n")
	if _, ticks, info := fenceLine(body[strings.LastIndexByte(body, '\n')+1:]); ticks != "" && info == "" &&
		ticks[0] == last.ticks[0] && len(ticks) >= len(last.ticks) {
		return ""
	}
	return "\n" + last.indent + last.ticks
}

// dedent takes up to n bytes of container marks off each line.
func dedent(s string, n int) string {
	if n == 0 {
		return s
	}
	lines := strings.Split(s, "\n")
	for i, l := range lines {
		cut := 0
		for cut < n && cut < len(l) && (l[cut] == ' ' || l[cut] == '>' || l[cut] == '\t') {
			cut++
		}
		lines[i] = l[cut:]
	}
	return strings.Join(lines, "\n")
}

// source is the flow of a text as it was written. Its marks only tell the
// splitter what belongs together.
func source(md string, code []fence) *flow {
	m := marker{f: &flow{text: md}, code: code}
	for _, s := range sections(md, code) {
		src := []byte(s.head + md[s.start:s.end])
		_ = ast.Walk(parse(src), func(n ast.Node, entering bool) (ast.WalkStatus, error) {
			if entering && n.Type() == ast.TypeBlock && n.FirstChild() != nil && n.FirstChild().Type() == ast.TypeInline {
				m.inlines(n, s.start-len(s.head))
				return ast.WalkSkipChildren, nil
			}
			return ast.WalkContinue, nil
		})
	}
	m.until(len(md), nil)
	return m.f
}

// marker lays marks over the source, from its start to its end.
type marker struct {
	f    *flow
	code []fence
	pos  int
}

// until puts a mark over the text from where the last one ended; code blocks
// on the way get theirs.
func (m *marker) until(pos int, over *mark) {
	for m.pos < pos && len(m.code) > 0 && m.code[0].start < pos {
		c := m.code[0]
		m.run(max(c.start, m.pos), over)
		m.run(max(c.body, m.pos), &mark{kind: link}) // the fence itself is not to be cut
		m.run(min(max(c.end, m.pos), pos), &mark{kind: pre})
		if c.end > pos {
			return
		}
		m.code = m.code[1:]
	}
	m.run(pos, over)
}

func (m *marker) run(end int, over *mark) {
	if end > m.pos {
		m.f.runs = append(m.f.runs, newRun(end, over))
		m.pos = end
	}
}

// inlines marks every inline construct of a block but plain text as one that
// is not to be cut. What lies between two stretches of plain text belongs to
// the construct between them, its punctuation too.
func (m *marker) inlines(block ast.Node, offset int) {
	end := m.pos
	for n := block.FirstChild(); n != nil; n = n.NextSibling() {
		t, ok := n.(*ast.Text)
		if !ok {
			continue
		}
		if prev := n.PreviousSibling(); prev != nil && !isText(prev) && t.Segment.Start+offset > end {
			m.until(end, nil)
			m.until(t.Segment.Start+offset, &mark{kind: link})
		}
		end = max(end, t.Segment.Stop+offset)
	}
	if last := block.LastChild(); last != nil && !isText(last) {
		if stop := lastByte(block); stop >= 0 && stop+offset > end {
			m.until(end, nil)
			m.until(stop+offset, &mark{kind: link})
		}
	}
}

func isText(n ast.Node) bool {
	switch n.(type) {
	case *ast.Text, *east.TaskCheckBox:
		return true
	}
	return false
}

// lastByte is where the lines of a block end, -1 when it has none.
func lastByte(block ast.Node) int {
	if block.Lines() == nil || block.Lines().Len() == 0 {
		return -1
	}
	last := block.Lines().At(block.Lines().Len() - 1)
	return last.Stop
}
