package web

import (
	"fmt"
	"net/url"
	"strings"

	"golang.org/x/net/html"
	"golang.org/x/net/html/atom"

	"hermes/internal/lazyregexp"
)

// maxTree bounds the depth to which a page is followed.
const maxTree = 400

// Markdown gives the readable text of an HTML page: its title, then its main
// part, without scripts, navigation and forms. Links become absolute by base,
// which may be nil. It never fails: what is not understood is left out.
func Markdown(page string, base *url.URL) string {
	doc, err := html.Parse(strings.NewReader(page))
	if err != nil {
		return ""
	}
	title := strings.TrimSpace(text(find(doc, atom.Title, 0)))
	root := find(doc, atom.Main, 0)
	if root == nil {
		root = find(doc, atom.Article, 0)
	}
	if body := find(doc, atom.Body, 0); root == nil || body != nil && len(text(root))*5 < len(text(body)) {
		// A main part that holds next to nothing is not the main part.
		root = body
	}
	if root == nil {
		root = doc
	}
	w := &writer{base: base}
	w.node(root, 0)
	out := strings.TrimSpace(tidy(w.b.String()))
	if title != "" && !strings.HasPrefix(out, "# "+title) {
		out = strings.TrimSpace("# " + title + "\n\n" + out)
	}
	return out
}

var (
	manyLines = lazyregexp.New(`\n[ \t]*(\n[ \t]*)+\n`)
	spaceEnds = lazyregexp.New(`[ \t]+\n`)
)

func tidy(s string) string {
	return manyLines.ReplaceAllString(spaceEnds.ReplaceAllString(s, "\n"), "\n\n")
}

// find gives the first element of a kind.
func find(n *html.Node, kind atom.Atom, depth int) *html.Node {
	if n.Type == html.ElementNode && n.DataAtom == kind {
		return n
	}
	if depth > maxTree {
		return nil
	}
	for c := n.FirstChild; c != nil; c = c.NextSibling {
		if found := find(c, kind, depth+1); found != nil {
			return found
		}
	}
	return nil
}

// text is the bare text of a node.
func text(n *html.Node) string {
	var b strings.Builder
	var walk func(*html.Node, int)
	walk = func(n *html.Node, depth int) {
		if n == nil || depth > maxTree || skip(n) {
			return
		}
		if n.Type == html.TextNode {
			b.WriteString(n.Data)
		}
		for c := n.FirstChild; c != nil; c = c.NextSibling {
			walk(c, depth+1)
		}
	}
	walk(n, 0)
	return b.String()
}

// skip tells what no reader reads.
func skip(n *html.Node) bool {
	if n.Type == html.CommentNode {
		return true
	}
	if n.Type != html.ElementNode {
		return false
	}
	switch n.DataAtom {
	case atom.Script, atom.Style, atom.Noscript, atom.Template, atom.Svg, atom.Nav, atom.Form, atom.Iframe, atom.Object, atom.Canvas,
		atom.Button, atom.Select, atom.Input, atom.Textarea, atom.Dialog, atom.Footer, atom.Aside, atom.Video, atom.Audio:
		return true
	}
	// Hidden text is not what the page says to people.
	for _, a := range n.Attr {
		style := strings.ReplaceAll(strings.ToLower(a.Val), " ", "")
		if a.Key == "hidden" || a.Key == "aria-hidden" && a.Val == "true" ||
			a.Key == "style" && (strings.Contains(style, "display:none") || strings.Contains(style, "visibility:hidden") || strings.Contains(style, "font-size:0")) {
			return true
		}
	}
	return false
}

// writer turns a tree into Markdown.
type writer struct {
	b     strings.Builder
	base  *url.URL
	lists []int // the number of the last item of each open list; -1 for a list without numbers
	pre   bool
}

func (w *writer) children(n *html.Node, depth int) {
	for c := n.FirstChild; c != nil; c = c.NextSibling {
		w.node(c, depth+1)
	}
}

func (w *writer) around(before string, n *html.Node, depth int, after string) {
	w.b.WriteString(before)
	w.children(n, depth)
	w.b.WriteString(after)
}

func (w *writer) node(n *html.Node, depth int) {
	if depth > maxTree || skip(n) {
		return
	}
	if n.Type == html.TextNode {
		w.words(n.Data)
		return
	}
	if n.Type != html.ElementNode {
		w.children(n, depth)
		return
	}
	switch n.DataAtom {
	case atom.H1, atom.H2, atom.H3, atom.H4, atom.H5, atom.H6:
		w.around("\n\n"+strings.Repeat("#", int(n.Data[1]-'0'))+" ", n, depth, "\n\n")
	case atom.P, atom.Div, atom.Section, atom.Article, atom.Main, atom.Header, atom.Figure, atom.Dl, atom.Details, atom.Figcaption, atom.Address:
		w.around("\n\n", n, depth, "\n\n")
	case atom.Br:
		w.b.WriteString("\n")
	case atom.Hr:
		w.b.WriteString("\n\n---\n\n")
	case atom.Strong, atom.B:
		w.span("**", n)
	case atom.Em, atom.I:
		w.span("*", n)
	case atom.Code, atom.Kbd, atom.Samp:
		if w.pre {
			w.children(n, depth)
		} else {
			w.span("`", n)
		}
	case atom.Pre:
		w.pre = true
		w.around("\n\n```\n", n, depth, "\n```\n\n")
		w.pre = false
	case atom.Blockquote:
		w.quote(n, depth)
	case atom.Ul, atom.Ol:
		w.list(n, depth)
	case atom.Li:
		w.item(n, depth)
	case atom.Dt:
		w.around("\n", n, depth, "\n")
	case atom.Dd:
		w.around("\n: ", n, depth, "\n")
	case atom.A:
		w.link(n, depth)
	case atom.Img:
		if alt := strings.TrimSpace(attr(n, "alt")); alt != "" {
			fmt.Fprintf(&w.b, "![%s](%s)", alt, w.absolute(attr(n, "src")))
		}
	case atom.Table:
		w.around("\n\n", n, depth, "\n\n")
	case atom.Tr:
		w.row(n)
	default:
		w.children(n, depth)
	}
}

// words writes text with its white space as a browser shows it.
func (w *writer) words(s string) {
	if w.pre {
		w.b.WriteString(s)
		return
	}
	joined := strings.Join(strings.Fields(s), " ")
	if joined == "" {
		if s != "" && !w.atSpace() {
			w.b.WriteByte(' ')
		}
		return
	}
	if strings.TrimLeft(s, " \t\r\n") != s && !w.atSpace() {
		w.b.WriteByte(' ')
	}
	w.b.WriteString(joined)
	if strings.TrimRight(s, " \t\r\n") != s {
		w.b.WriteByte(' ')
	}
}

func (w *writer) atSpace() bool {
	s := w.b.String()
	return s == "" || s[len(s)-1] == ' ' || s[len(s)-1] == '\n'
}

// span writes the bare text of a node between marks.
func (w *writer) span(mark string, n *html.Node) {
	if s := strings.Join(strings.Fields(text(n)), " "); s != "" {
		w.b.WriteString(mark + s + mark)
	}
}

func (w *writer) quote(n *html.Node, depth int) {
	inner := &writer{base: w.base}
	inner.children(n, depth)
	w.b.WriteString("\n\n")
	for line := range strings.SplitSeq(strings.TrimSpace(tidy(inner.b.String())), "\n") {
		w.b.WriteString("> " + line + "\n")
	}
	w.b.WriteString("\n")
}

func (w *writer) list(n *html.Node, depth int) {
	if len(w.lists) == 0 {
		w.b.WriteString("\n")
	}
	start := -1
	if n.DataAtom == atom.Ol {
		start = 0
	}
	w.lists = append(w.lists, start)
	w.children(n, depth)
	w.lists = w.lists[:len(w.lists)-1]
	w.b.WriteString("\n")
}

func (w *writer) item(n *html.Node, depth int) {
	mark := "- "
	if k := len(w.lists) - 1; k >= 0 && w.lists[k] >= 0 {
		w.lists[k]++
		mark = fmt.Sprintf("%d. ", w.lists[k])
	}
	inner := &writer{base: w.base}
	inner.children(n, depth)
	body := strings.TrimSpace(tidy(inner.b.String()))
	if body == "" {
		return
	}
	w.b.WriteString("\n" + mark + strings.ReplaceAll(body, "\n", "\n  "))
}

func (w *writer) link(n *html.Node, depth int) {
	s := strings.Join(strings.Fields(text(n)), " ")
	href := strings.TrimSpace(attr(n, "href"))
	switch {
	case s == "":
		w.children(n, depth)
	case href == "" || strings.HasPrefix(href, "#") || strings.HasPrefix(strings.ToLower(href), "javascript:"):
		w.words(s)
	default:
		fmt.Fprintf(&w.b, "[%s](%s)", s, w.absolute(href))
	}
}

func (w *writer) row(n *html.Node) {
	var cells []string
	head := false
	for c := n.FirstChild; c != nil; c = c.NextSibling {
		if c.DataAtom == atom.Td || c.DataAtom == atom.Th {
			head = head || c.DataAtom == atom.Th
			cells = append(cells, strings.ReplaceAll(strings.Join(strings.Fields(text(c)), " "), "|", `\|`))
		}
	}
	if len(cells) == 0 {
		return
	}
	w.b.WriteString("\n| " + strings.Join(cells, " | ") + " |")
	if head {
		w.b.WriteString("\n|" + strings.Repeat(" --- |", len(cells)))
	}
}

func (w *writer) absolute(ref string) string {
	u, err := url.Parse(strings.TrimSpace(ref))
	if err != nil || w.base == nil {
		return ref
	}
	return w.base.ResolveReference(u).String()
}

func attr(n *html.Node, key string) string {
	for _, a := range n.Attr {
		if a.Key == key {
			return a.Val
		}
	}
	return ""
}
