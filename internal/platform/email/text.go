package email

import (
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/net/html"
	"golang.org/x/net/html/atom"
	"golang.org/x/text/encoding/charmap"

	"hermes/internal/lazyregexp"
)

// clean makes text valid UTF-8 with plain line ends and no control characters.
func clean(s string) string {
	s = strings.ReplaceAll(strings.ToValidUTF8(s, "\uFFFD"), "\r\n", "\n")
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\n' || r == '\t' || !unicode.IsControl(r):
			return r
		case r == '\r':
			return '\n'
		}
		return -1
	}, s)
}

// legible makes text of bytes that are said to be UTF-8, or of which nobody says
// what they are. What is no UTF-8 at all is taken for Windows-1252, which most of
// the programs write that do not say it.
func legible(b []byte) string {
	for rest := b; len(rest) > 0; {
		r, n := utf8.DecodeRune(rest)
		if r != utf8.RuneError && n > 1 {
			return string(b)
		}
		rest = rest[n:]
	}
	if utf8.Valid(b) {
		return string(b)
	}
	if s, err := charmap.Windows1252.NewDecoder().Bytes(b); err == nil {
		return string(s)
	}
	return string(b)
}

// visible takes out what shows the end of a text in its middle
// (https://www.unicode.org/reports/tr9/#Directional_Formatting_Characters), or
// nothing at all.
func visible(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r >= '\u202a' && r <= '\u202e', r >= '\u2066' && r <= '\u2069', r == '\u200e', r == '\u200f', r == '\u061c',
			r == '\u200b', r == '\u00ad', r == '\ufeff', r == '\u2060':
			return -1
		}
		return r
	}, s)
}

// unflow joins the lines of a paragraph that was broken for the way
// (https://www.rfc-editor.org/rfc/rfc3676#section-4). Quotations and the line
// over a signature stay as they are.
func unflow(s string, delSp bool) string {
	var b strings.Builder
	lines := strings.Split(s, "\n")
	for i, line := range lines {
		quoted := strings.HasPrefix(line, ">")
		if !quoted {
			line = strings.TrimPrefix(line, " ") // which was put before what looks like a quotation
		}
		soft := strings.HasSuffix(line, " ") && line != "-- " && !quoted && i+1 < len(lines) && lines[i+1] != "-- " && !strings.HasPrefix(lines[i+1], ">")
		if soft && delSp {
			line = line[:len(line)-1]
		}
		b.WriteString(line)
		if !soft && i+1 < len(lines) {
			b.WriteByte('\n')
		}
	}
	return b.String()
}

// clip cuts a text to n characters.
func clip(s string, n int) string {
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

// htmlText is what a page says, as plain text: blocks on lines of their own,
// links with their addresses, quotations marked. It is as long as the page at
// most, but for the marks.
func htmlText(page string, most int) string {
	w := &pageWriter{most: most}
	z := html.NewTokenizer(strings.NewReader(page))
	z.SetMaxBuf(1 << 20)
	for w.b.Len() < most {
		switch z.Next() {
		case html.ErrorToken:
			return w.done()
		case html.TextToken:
			w.text(string(z.Text()))
		case html.StartTagToken, html.SelfClosingTagToken:
			t := z.Token()
			w.open(&t)
		case html.EndTagToken:
			t := z.Token()
			w.close(t.DataAtom)
		}
	}
	return w.done()
}

// pageWriter collects the text of a page.
type pageWriter struct {
	b      strings.Builder
	most   int
	hidden atom.Atom // the element whose content is not shown; 0 for none
	quotes int
	href   string // of the open link
	linked int    // where its text began
	blank  bool   // a blank is due
	lines  int    // line ends at the end
}

func (w *pageWriter) open(t *html.Token) {
	switch t.DataAtom {
	case atom.Script, atom.Style, atom.Head, atom.Title, atom.Template, atom.Noscript:
		if t.Type == html.StartTagToken && w.hidden == 0 {
			w.hidden = t.DataAtom
		}
	case atom.Br:
		w.newLine(min(w.lines+1, 2))
	case atom.P, atom.H1, atom.H2, atom.H3, atom.H4, atom.H5, atom.H6, atom.Table, atom.Ul, atom.Ol, atom.Pre:
		w.newLine(2)
	case atom.Div, atom.Tr, atom.Section, atom.Article:
		w.newLine(1)
	case atom.Td, atom.Th:
		w.blank = true
	case atom.Li:
		w.newLine(1)
		w.text("- ")
	case atom.Hr:
		w.newLine(1)
		w.text("---")
		w.newLine(1)
	case atom.Blockquote:
		w.newLine(1)
		w.quotes = min(w.quotes+1, 10)
	case atom.A:
		w.href, w.linked = "", w.b.Len()
		for _, at := range t.Attr {
			if at.Key == "href" && (strings.HasPrefix(at.Val, "http://") || strings.HasPrefix(at.Val, "https://")) && len(at.Val) <= 500 {
				w.href = at.Val
			}
		}
	}
}

func (w *pageWriter) close(a atom.Atom) {
	if w.hidden != 0 {
		if a == w.hidden {
			w.hidden = 0
		}
		return
	}
	switch a {
	case atom.P, atom.H1, atom.H2, atom.H3, atom.H4, atom.H5, atom.H6, atom.Table, atom.Ul, atom.Ol, atom.Pre:
		w.newLine(2)
	case atom.Div, atom.Tr, atom.Li, atom.Section, atom.Article:
		w.newLine(1)
	case atom.Blockquote:
		w.newLine(1)
		w.quotes = max(w.quotes-1, 0)
	case atom.A:
		said := strings.TrimSpace(w.b.String()[min(w.linked, w.b.Len()):])
		if w.href != "" && said != "" && !strings.Contains(w.href, said) {
			w.text(" (" + w.href + ")")
		}
		w.href = ""
	}
}

// newLine ends the line, with an empty one after it where n is 2.
func (w *pageWriter) newLine(n int) {
	if w.hidden != 0 || w.b.Len() == 0 {
		return
	}
	for ; w.lines < n; w.lines++ {
		w.b.WriteByte('\n')
	}
	w.blank = false
}

func (w *pageWriter) text(s string) {
	if w.hidden != 0 {
		return
	}
	for _, r := range s {
		if unicode.IsSpace(r) || r == '\u00a0' {
			w.blank = true
			continue
		}
		if r == '\u200b' || r == '\u200c' || r == '\ufeff' {
			continue // padding of newsletters
		}
		if (w.lines > 0 || w.b.Len() == 0) && w.quotes > 0 {
			w.b.WriteString(strings.Repeat(">", w.quotes) + " ")
		} else if w.blank && w.lines == 0 && w.b.Len() > 0 {
			w.b.WriteByte(' ')
		}
		w.blank, w.lines = false, 0
		w.b.WriteRune(r)
	}
}

func (w *pageWriter) done() string { return strings.TrimSpace(clean(w.b.String())) }

var (
	// quoteHead is the line that mail programs write over what they quote, in
	// whatever language: it ends with a colon and names a time or an address.
	quoteHead  = lazyregexp.New(`(\d{1,4}.*|@.*|wrote|schrieb|écrit|escribió|scrisse|schreef)\s?:\s*$`)
	quoteBegin = lazyregexp.New(`^\s*(On|Am|Le|El|Il|Op|Em|Den|W dniu)\s`)
	separator  = lazyregexp.New(`(?i)^\s*(-{2,}\s*(original message|original appointment|ursprüngliche nachricht|message d'origine|mensaje original|messaggio originale)\s*-{2,}|_{20,})\s*$`)
	forwarded  = lazyregexp.New(`(?i)^\s*(-{2,}\s*(forwarded message|weitergeleitete nachricht|message transféré)|begin forwarded message)`)
	fromLine   = lazyregexp.New(`(?i)^\s*\*?(from|von|de|da|van)\s*:\*?\s.*@`)
	sentLine   = lazyregexp.New(`(?i)^\s*\*?(sent|gesendet|date|datum|envoyé|enviado|inviato|to|an|à|para)\s*:\*?\s`)
)

// trimQuoted takes away what a mail only repeats: the mail that it answers, at
// its end, and the writer's signature. A forwarded mail stays, and so does
// everything where nothing else would be left.
func trimQuoted(s string) string {
	lines := strings.Split(s, "\n")
	end := len(lines)
	for i, line := range lines {
		if forwarded.MatchString(line) {
			return strings.TrimSpace(s)
		}
		if separator.MatchString(line) || i+1 < len(lines) && fromLine.MatchString(line) && (sentLine.MatchString(lines[i+1]) || i+2 < len(lines) && sentLine.MatchString(lines[i+2])) {
			end = i
			break
		}
		if line == "-- " || line == "--" { // https://www.rfc-editor.org/rfc/rfc3676#section-4.3
			end = i
			break
		}
	}
	rest := trimBlock(lines[:end])
	if out := strings.TrimSpace(strings.Join(rest, "\n")); out != "" {
		return out
	}
	return strings.TrimSpace(s)
}

// trimBlock drops quoted lines from the end, with the line over them.
func trimBlock(lines []string) []string {
	end := len(lines)
	quoted := false
	for end > 0 {
		line := strings.TrimSpace(lines[end-1])
		if strings.HasPrefix(line, ">") {
			quoted = true
		} else if line != "" {
			break
		}
		end--
	}
	if !quoted {
		return lines
	}
	last := end - 1
	if last < 0 || !strings.HasSuffix(strings.TrimSpace(lines[last]), ":") {
		return lines[:end]
	}
	if quoteHead.MatchString(lines[last]) {
		end = last
	}
	// It may have been folded into two or three.
	for first := last - 1; first >= max(0, last-2) && strings.TrimSpace(lines[first]) != ""; first-- {
		if quoteBegin.MatchString(lines[first]) {
			end = first
			break
		}
	}
	return lines[:end]
}
