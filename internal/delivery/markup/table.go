package markup

import (
	"strings"

	"github.com/rivo/uniseg"
	"github.com/yuin/goldmark/ast"
	east "github.com/yuin/goldmark/extension/ast"
)

// maxColumn bounds how far a column is padded, in cells of a terminal; longer
// texts push what follows to the right.
const maxColumn = 40

// table writes a table as aligned columns of plain text.
func (b *builder) table(n *east.Table) {
	var rows [][]string
	width := make([]int, len(n.Alignments))
	for row := n.FirstChild(); row != nil; row = row.NextSibling() {
		cells := make([]string, len(width))
		for c, i := row.FirstChild(), 0; c != nil && i < len(cells); c, i = c.NextSibling(), i+1 {
			cells[i] = b.cell(c)
			width[i] = max(width[i], min(uniseg.StringWidth(cells[i]), maxColumn))
		}
		rows = append(rows, cells)
	}
	var s strings.Builder
	for i, row := range rows {
		if i > 0 {
			s.WriteByte('\n')
		}
		s.WriteString(line(row, width, n.Alignments))
		if i == 0 {
			s.WriteByte('\n')
			s.WriteString(underlining(width))
		}
	}
	b.pre(s.String(), "")
}

// cell is the text of a cell on one line, with destinations spelled out.
func (b *builder) cell(n ast.Node) string {
	c := &builder{d: &plain, src: b.src, joint: -1}
	c.inlines(n)
	return strings.TrimSpace(strings.ReplaceAll(c.text.String(), "\n", " "))
}

func line(cells []string, width []int, align []east.Alignment) string {
	var s strings.Builder
	for i, c := range cells {
		if i > 0 {
			s.WriteString(" │ ")
		}
		space := max(0, width[i]-uniseg.StringWidth(c))
		before := 0
		switch align[i] {
		case east.AlignRight:
			before = space
		case east.AlignCenter:
			before = space / 2
		}
		s.WriteString(strings.Repeat(" ", before) + c)
		s.WriteString(strings.Repeat(" ", space-before))
	}
	return strings.TrimRight(s.String(), " ")
}

func underlining(width []int) string {
	cells := make([]string, len(width))
	for i, w := range width {
		cells[i] = strings.Repeat("─", max(w, 1))
	}
	return strings.Join(cells, "─┼─")
}
