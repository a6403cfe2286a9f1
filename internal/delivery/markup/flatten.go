package markup

import (
	"html"
	"strconv"
	"strings"

	"github.com/yuin/goldmark/ast"
	east "github.com/yuin/goldmark/extension/ast"
	"github.com/yuin/goldmark/util"
)

// maxIndent bounds how deep lists and quotations are shown nested, in bytes.
const maxIndent = 24

// rule is a thematic break.
const rule = "──────────"

// bullets are those of a list, of a list in a list, and so on.
var bullets = [...]string{"• ", "◦ ", "▪ "}

// builder flattens a syntax tree.
type builder struct {
	d    *dialect
	src  []byte
	text strings.Builder
	runs []run

	inline *mark // over the text that is written
	box    *mark // of the container: a quotation, or nil
	left   *mark // box of what was written last

	indent  string // before each line
	lead    string // before the next line in place of indent: a list marker
	hasLead bool
	gap     int  // line ends due before the next text
	fresh   bool // indent or lead is due before the next text
	joint   int  // gap before the first block of a section; -1 as usual
	depth   int  // of lists
}

// flatten makes the flow of a text for a dialect.
func flatten(md string, d *dialect) *flow {
	b := &builder{d: d}
	for _, s := range sections(md, fences(md)) {
		b.src = []byte(s.head + md[s.start:s.end])
		b.joint = s.gap
		b.blocks(parse(b.src))
	}
	b.settle()
	return &flow{text: b.text.String(), runs: b.runs}
}

// emit adds text under a mark as it is.
func (b *builder) emit(s string, m *mark) {
	if s == "" {
		return
	}
	b.text.WriteString(s)
	if n := len(b.runs); n > 0 && b.runs[n-1].mark == m {
		b.runs[n-1].end = b.text.Len()
		return
	}
	b.runs = append(b.runs, newRun(b.text.Len(), m))
}

// settle writes the line ends and the indentation that are due.
func (b *builder) settle() {
	if b.gap > 0 && b.text.Len() > 0 {
		between := b.box
		if b.left != b.box {
			between = nil
		}
		b.emit(strings.Repeat("\n", b.gap), between)
	}
	b.gap = 0
	if b.fresh {
		if b.hasLead {
			b.emit(b.lead, b.box)
		} else {
			b.emit(b.indent, b.box)
		}
		b.fresh, b.hasLead = false, false
	}
	b.left = b.box
}

// write adds text under the current mark; line ends in it get the indentation.
func (b *builder) write(s string) {
	for i, line := range strings.Split(s, "\n") {
		if i > 0 {
			b.newline()
		}
		if line != "" {
			b.settle()
			b.emit(line, b.inline)
		}
	}
}

// newline ends a line within a block.
func (b *builder) newline() {
	b.settle()
	b.emit("\n"+strings.TrimRight(b.indent, " "), b.inline)
	b.emit(b.indent[len(strings.TrimRight(b.indent, " ")):], b.inline)
}

// sep begins a block, n line ends behind the one before.
func (b *builder) sep(n int) {
	if b.joint >= 0 {
		n, b.joint = b.joint, -1
	}
	b.gap = max(b.gap, n)
	b.fresh = true
}

// within calls fn with a mark over the text, where the dialect admits it.
func (b *builder) within(k markKind, arg string, fn func()) {
	if b.inline.find(k) != nil || !b.d.admits(b.inline, k) {
		fn()
		return
	}
	b.settle()
	b.inline = &mark{up: b.inline, kind: k, arg: arg}
	fn()
	b.inline = b.inline.up
}

func (b *builder) blocks(parent ast.Node) {
	for n := parent.FirstChild(); n != nil; n = n.NextSibling() {
		b.block(n)
	}
}

func (b *builder) block(n ast.Node) {
	gap := 1
	if n.HasBlankPreviousLines() {
		gap = 2
	}
	switch n := n.(type) {
	case *ast.Paragraph, *ast.TextBlock:
		b.sep(gap)
		b.inlines(n)
	case *ast.Heading:
		b.sep(2)
		b.within(bold, "", func() { b.inlines(n) })
	case *ast.ThematicBreak:
		b.sep(gap)
		b.write(rule)
	case *ast.FencedCodeBlock:
		b.sep(gap)
		b.code(n, language(n.Language(b.src)))
	case *ast.CodeBlock:
		b.sep(gap)
		b.code(n, "")
	case *ast.Blockquote:
		b.sep(gap)
		b.quote(n)
	case *ast.List:
		b.sep(gap)
		b.list(n)
	case *east.Table:
		b.sep(2)
		b.table(n)
	default:
		b.sep(gap)
		b.blocks(n)
	}
}

// nest calls fn with lines indented by what follows a container's first mark.
func (b *builder) nest(first, others string, fn func()) {
	was := b.indent
	if b.hasLead {
		b.lead += first
	} else {
		b.lead, b.hasLead = b.indent+first, true
	}
	if len(b.indent)+len(others) <= maxIndent {
		b.indent += others
	} else if len(b.lead) > 4*maxIndent {
		b.lead = b.indent + first
	}
	b.fresh = true
	fn()
	b.indent = was
}

func (b *builder) quote(n ast.Node) {
	if !b.d.quotes || b.box != nil {
		b.nest("> ", "> ", func() { b.blocks(n) })
		return
	}
	if b.hasLead {
		b.settle()
		b.sep(1)
	}
	indent := b.indent
	b.box = &mark{kind: quote}
	b.inline, b.indent = b.box, ""
	b.blocks(n)
	b.box, b.inline, b.indent = nil, nil, indent
}

func (b *builder) list(n *ast.List) {
	number := n.Start
	b.depth++
	for item := n.FirstChild(); item != nil; item = item.NextSibling() {
		marker := bullets[min(b.depth, len(bullets))-1]
		others := "  "
		if n.IsOrdered() {
			marker = strconv.Itoa(number) + string(n.Marker) + " "
			others = strings.Repeat(" ", len(marker))
			number++
		}
		gap := 1
		if item.HasBlankPreviousLines() && item.PreviousSibling() != nil {
			gap = 2
		}
		b.sep(gap)
		b.nest(marker, others, func() { b.item(item) })
	}
	b.depth--
}

// item writes what an item holds; one that holds nothing still shows its marker.
func (b *builder) item(n ast.Node) {
	if n.FirstChild() == nil {
		b.settle()
		return
	}
	b.blocks(n)
	if b.hasLead {
		b.settle()
	}
}

// code writes a code block.
func (b *builder) code(n ast.Node, lang string) {
	var s strings.Builder
	for i := range n.Lines().Len() {
		line := n.Lines().At(i)
		s.Write(line.Value(b.src))
	}
	b.pre(strings.TrimSuffix(s.String(), "\n"), lang)
}

// pre writes text that keeps its columns. Where the dialect has a block for
// it, the block stands at the margin.
func (b *builder) pre(s, lang string) {
	if s == "" {
		return
	}
	if b.d == &plain {
		b.within(pre, lang, func() { b.write(s) })
		return
	}
	if b.hasLead {
		b.settle()
		b.sep(1)
	}
	b.fresh = false
	b.within(pre, lang, func() {
		b.emit(s, b.inline)
	})
}

// language is the name of a code block's language, as far as it is a name.
func language(info []byte) string {
	for i, c := range info {
		if !(c == '+' || c == '-' || c == '#' || c == '.' || c == '_' || util.IsAlphaNumeric(c)) {
			info = info[:i]
			break
		}
	}
	if len(info) > 32 {
		return ""
	}
	return string(info)
}

func (b *builder) inlines(parent ast.Node) {
	b.siblings(parent.FirstChild(), nil)
}

// siblings writes the nodes from one up to another.
func (b *builder) siblings(from, to ast.Node) {
	for n := from; n != nil && n != to; n = n.NextSibling() {
		end := b.underlineEnd(n)
		if end == nil || b.inline.find(underline) != nil {
			b.inlineNode(n)
			continue
		}
		b.within(underline, "", func() { b.siblings(n.NextSibling(), end) })
		n = end
	}
}

// underlineEnd finds the </u> of a <u>, which is how Markdown underlines, among
// the next few siblings.
func (b *builder) underlineEnd(n ast.Node) ast.Node {
	if b.tag(n) != "<u>" {
		return nil
	}
	n = n.NextSibling()
	for i := 0; i < 16 && n != nil; i++ {
		if b.tag(n) == "</u>" {
			return n
		}
		n = n.NextSibling()
	}
	return nil
}

// tag is the HTML tag that a node is, in lower case, or "".
func (b *builder) tag(n ast.Node) string {
	h, ok := n.(*ast.RawHTML)
	if !ok || h.Segments.Len() != 1 {
		return ""
	}
	seg := h.Segments.At(0)
	return strings.ToLower(strings.ReplaceAll(string(seg.Value(b.src)), " ", ""))
}

func (b *builder) inlineNode(n ast.Node) {
	switch n := n.(type) {
	case *ast.Text:
		b.write(unescape(n.Segment.Value(b.src), n.IsRaw()))
		if n.SoftLineBreak() || n.HardLineBreak() {
			b.newline()
		}
	case *ast.String:
		b.write(string(n.Value))
	case *ast.CodeSpan:
		text, arg := b.rawText(n), ""
		if strings.Contains(text, "`") {
			arg = "`"
		}
		b.within(code, arg, func() { b.write(text) })
	case *ast.Emphasis:
		k := italic
		if n.Level > 1 {
			k = bold
		}
		b.within(k, "", func() { b.inlines(n) })
	case *east.Strikethrough:
		b.within(strike, "", func() { b.inlines(n) })
	case *ast.Link:
		b.link(string(n.Destination), "", n)
	case *ast.Image:
		b.link(string(n.Destination), "image", n)
	case *ast.AutoLink:
		b.autoLink(n)
	case *east.TaskCheckBox:
		if n.IsChecked {
			b.write("☑ ")
		} else {
			b.write("☐ ")
		}
	case *ast.RawHTML:
		b.rawHTML(n)
	default:
		b.inlines(n)
	}
}

// link writes a link: its text, and its destination behind or beside it.
func (b *builder) link(dest, label string, n ast.Node) {
	dest = strings.TrimSpace(unescape([]byte(dest), false))
	text := func() {
		at := b.text.Len()
		b.inlines(n)
		if b.text.Len() == at && label != "" {
			b.write(label)
		}
		if b.text.Len() == at {
			b.write(dest)
		}
	}
	if b.inline.find(link) == nil && b.d.hides(dest) && b.d.admits(b.inline, link) {
		b.within(link, dest, text)
		return
	}
	b.settle()
	at := b.text.Len()
	text()
	if shown := b.text.String()[at:]; dest != "" && shown != dest && "mailto:"+shown != dest {
		b.write(" (" + dest + ")")
	}
}

func (b *builder) autoLink(n *ast.AutoLink) {
	label, dest := string(n.Label(b.src)), string(n.URL(b.src))
	if n.AutoLinkType == ast.AutoLinkEmail || !b.d.hides(dest) {
		b.write(label)
		return
	}
	b.within(link, dest, func() { b.write(label) })
}

// rawHTML shows a tag as it was written; <br> is a line end.
func (b *builder) rawHTML(n *ast.RawHTML) {
	if t := b.tag(n); t == "<br>" || t == "<br/>" {
		b.newline()
		return
	}
	for i := range n.Segments.Len() {
		seg := n.Segments.At(i)
		b.write(string(seg.Value(b.src)))
	}
}

// rawText is the text of a code span, on one line.
func (b *builder) rawText(n ast.Node) string {
	var s strings.Builder
	for c := n.FirstChild(); c != nil; c = c.NextSibling() {
		if t, ok := c.(*ast.Text); ok {
			s.Write(t.Segment.Value(b.src))
		}
	}
	return strings.ReplaceAll(s.String(), "\n", " ")
}

// unescape resolves backslashes and character references.
func unescape(s []byte, raw bool) string {
	if raw {
		return string(s)
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		c := s[i]
		switch {
		case c == '\\' && i+1 < len(s) && util.IsPunct(s[i+1]):
			i++
			c = s[i]
		case c == '&':
			if text, n := reference(s[i:]); n > 0 {
				b.WriteString(text)
				i += n - 1
				continue
			}
		}
		b.WriteByte(c)
	}
	return b.String()
}

// reference reads one character reference, like &lt; or &#60;.
func reference(s []byte) (text string, n int) {
	for n = 1; n < len(s) && n < 34 && (s[n] == '#' || util.IsAlphaNumeric(s[n])); n++ {
	}
	if n == len(s) || s[n] != ';' || n == 1 {
		return "", 0
	}
	written := string(s[:n+1])
	if text = html.UnescapeString(written); text == written {
		return "", 0
	}
	return clean(text), n + 1
}
