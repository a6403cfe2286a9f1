package markup

import (
	"bytes"
	"strings"
	"unicode/utf8"

	"github.com/yuin/goldmark/ast"
	"github.com/yuin/goldmark/extension"
	"github.com/yuin/goldmark/parser"
	"github.com/yuin/goldmark/text"
	"github.com/yuin/goldmark/util"
)

const (
	// maxParse bounds what is parsed at once, in bytes: some Markdown takes
	// time that grows faster than its length, and pieces keep that small.
	maxParse = 16 << 10

	// maxCells bounds a table; what claims to be larger is shown as it is.
	// A short text can else ask for millions of empty cells.
	maxCells = 4096
)

// markdown is the parser. HTML blocks and link reference definitions are left
// out on purpose: see the package comment.
var markdown = parser.NewParser(
	parser.WithBlockParsers(
		util.Prioritized(parser.NewSetextHeadingParser(), 100),
		util.Prioritized(parser.NewThematicBreakParser(), 200),
		util.Prioritized(parser.NewListParser(), 300),
		util.Prioritized(parser.NewListItemParser(), 400),
		util.Prioritized(parser.NewCodeBlockParser(), 500),
		util.Prioritized(parser.NewATXHeadingParser(), 600),
		util.Prioritized(parser.NewFencedCodeBlockParser(), 700),
		util.Prioritized(parser.NewBlockquoteParser(), 800),
		util.Prioritized(parser.NewParagraphParser(), 1000),
	),
	parser.WithInlineParsers(append(parser.DefaultInlineParsers(),
		util.Prioritized(extension.NewTaskCheckBoxParser(), 0),
		util.Prioritized(extension.NewStrikethroughParser(), 500),
		util.Prioritized(extension.NewLinkifyParser(), 999),
	)...),
	parser.WithParagraphTransformers(
		util.Prioritized(boundedTables{extension.NewTableParagraphTransformer()}, 200),
	),
	parser.WithASTTransformers(
		util.Prioritized(extension.NewTableASTTransformer(), 0),
	),
)

func parse(src []byte) ast.Node { return markdown.Parse(text.NewReader(src)) }

// boundedTables makes tables of paragraphs that would not become too large.
type boundedTables struct{ parser.ParagraphTransformer }

// Transform implements parser.ParagraphTransformer.
func (t boundedTables) Transform(p *ast.Paragraph, r text.Reader, pc parser.Context) {
	columns := 0
	for i := range p.Lines().Len() {
		line := p.Lines().At(i)
		columns = max(columns, bytes.Count(line.Value(r.Source()), []byte("|"))+1)
	}
	if columns > 1 && columns*p.Lines().Len() <= maxCells {
		t.ParagraphTransformer.Transform(p, r, pc)
	}
}

// fence is a fenced code block of the source, by its bytes.
type fence struct {
	start, body, end int    // of the opening line, of the code, behind the closing line
	indent           string // what stands before the fence, list markers as spaces
	ticks, info      string
}

// open is the line that begins the block anew.
func (c fence) open() string { return c.ticks + c.info + "\n" }

// fences finds the fenced code blocks, line by line. A block that is never
// closed ends with the text.
func fences(src string) []fence {
	var out []fence
	var in *fence
	for pos := 0; pos < len(src); {
		end := pos + lineLen(src[pos:])
		line := src[pos:end]
		switch indent, ticks, info := fenceLine(line); {
		case ticks == "":
		case in == nil && !strings.Contains(info, "`"):
			if len(info) > 32 {
				info = ""
			}
			out = append(out, fence{start: pos, body: end, end: len(src), indent: indent, ticks: ticks, info: info})
			in = &out[len(out)-1]
		case in != nil && info == "" && ticks[0] == in.ticks[0] && len(ticks) >= len(in.ticks):
			in.end, in = end, nil
		}
		pos = end
	}
	return out
}

// fenceLine reads a line that may open or close a code block: containers, at
// least three backticks or tildes, and an info string.
func fenceLine(line string) (indent, ticks, info string) {
	i := 0
	for i < len(line) && strings.IndexByte(" \t>-*+.)0123456789", line[i]) >= 0 {
		i++
	}
	rest := line[i:]
	if len(rest) < 3 || (rest[0] != '`' && rest[0] != '~') {
		return "", "", ""
	}
	ticks = rest[:len(rest)-len(strings.TrimLeft(rest, rest[:1]))]
	if len(ticks) < 3 || len(ticks) > 16 || i > 24 {
		return "", "", ""
	}
	indent = strings.Map(func(r rune) rune {
		if r == '>' || r == '\t' {
			return r
		}
		return ' '
	}, line[:i])
	return indent, ticks, strings.TrimSpace(rest[len(ticks):])
}

// lineLen is the length of the first line with its line end.
func lineLen(s string) int {
	if i := strings.IndexByte(s, '\n'); i >= 0 {
		return i + 1
	}
	return len(s)
}

// section is a piece of the source that is parsed on its own. head is put
// before it to reopen a code block that was cut; gap is how many line ends
// were between it and the section before, -1 where its own blocks tell.
type section struct {
	span
	head string
	gap  int
}

// sections cuts a long source at blank lines outside code, else at line ends,
// else between runes.
func sections(src string, code []fence) []section {
	var out []section
	next := section{gap: -1}
	for pos := 0; pos < len(src); {
		end, gap, inside := len(src), 0, -1
		if end-pos > maxParse {
			end, gap, inside = sectionEnd(src, pos, code)
		}
		next.span = span{pos, end}
		out = append(out, next)
		next = section{gap: gap}
		if inside >= 0 {
			next.head = code[inside].open()
		}
		for len(code) > 0 && code[0].end <= end {
			code = code[1:]
		}
		pos = end
	}
	return out
}

// sectionEnd finds where the section that begins at pos should end, how many
// line ends are there, and which of the code blocks is cut (-1: none).
func sectionEnd(src string, pos int, code []fence) (end, gap, inside int) {
	limit := pos + maxParse
	block := func(at int) int {
		for i, c := range code {
			if c.start >= at {
				break
			}
			if at < c.end {
				return i
			}
		}
		return -1
	}
	for i := limit; i > pos+maxParse/2; {
		nl := strings.LastIndex(src[pos+maxParse/2:i], "\n\n")
		if nl < 0 {
			break
		}
		i = pos + maxParse/2 + nl
		if block(i+2) < 0 {
			return i + 2, 2, -1
		}
	}
	if nl := strings.LastIndexByte(src[pos:limit], '\n'); nl > 0 {
		at := pos + nl + 1
		if in := block(at); in < 0 || at >= code[in].body {
			return at, 1, in
		}
	}
	for !utf8.RuneStart(src[limit]) {
		limit--
	}
	return limit, 0, block(limit)
}
