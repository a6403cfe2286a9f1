package sqlite

import (
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"
)

const (
	maxTerms      = 32  // of one query; the rest is ignored
	snippetBefore = 40  // runes before the first hit
	snippetRunes  = 160 // of a snippet
)

// term is one word or "quoted phrase" of a query.
type term struct {
	text   string
	prefix bool // a trailing *
}

// parseQuery reads a query as people type it: words and "phrases" that must all
// occur, a trailing * for any ending. There is no syntax that could be wrong: an
// open quote reaches to the end, and what has no letter or digit says nothing.
func parseQuery(q string) (out []term) {
	q = strings.ReplaceAll(strings.ToValidUTF8(q, " "), "\x00", " ")
	add := func(text string) {
		word := strings.TrimRight(text, "*")
		searchable := strings.IndexFunc(word, func(r rune) bool { return unicode.IsLetter(r) || unicode.IsDigit(r) }) >= 0
		if searchable && len(out) < maxTerms {
			out = append(out, term{strings.TrimSpace(word), len(word) < len(text)})
		}
	}
	for i, piece := range strings.Split(q, `"`) {
		if i%2 == 1 {
			add(piece)
			continue
		}
		for word := range strings.FieldsSeq(piece) {
			add(word)
		}
	}
	return out
}

// matchExpression is the query of an FTS5 index. Every term is a quoted string,
// in which no character but the quote has a meaning, and there is none left.
// https://www.sqlite.org/fts5.html#full_text_query_syntax
func matchExpression(terms []term) string {
	var b strings.Builder
	for i, t := range terms {
		if i > 0 {
			b.WriteString(" AND ")
		}
		b.WriteString(`"` + t.text + `"`)
		if t.prefix {
			b.WriteString("*")
		}
	}
	return b.String()
}

func anyUnspaced(terms []term) bool {
	for _, t := range terms {
		if hasUnspaced(t.text) {
			return true
		}
	}
	return false
}

// longTerms are those that an index of trigrams can find.
func longTerms(terms []term) (out []term) {
	for _, t := range terms {
		if utf8.RuneCountInString(t.text) >= 3 {
			out = append(out, term{text: t.text})
		}
	}
	return out
}

// snippet cuts the surroundings of the first hit out of a message.
func snippet(content string, terms []term) string {
	content = strings.ToValidUTF8(content[:min(len(content), indexedPrefix)], "\uFFFD")
	runes := []rune(strings.Join(strings.Fields(content), " "))
	folded := string(fold(runes))
	from := len(runes)
	for _, t := range terms {
		if i := strings.Index(folded, string(fold([]rune(t.text)))); i >= 0 {
			from = min(from, utf8.RuneCountInString(folded[:i]))
		}
	}
	if from == len(runes) {
		from = 0
	}
	from = max(0, from-snippetBefore)
	to := min(len(runes), from+snippetRunes)
	s := string(runes[from:to])
	if from > 0 {
		s = "…" + s
	}
	if to < len(runes) {
		s += "…"
	}
	return s
}

// fold makes letters comparable: lower case, and the base letter without its
// marks. It keeps the number of runes.
func fold(in []rune) []rune {
	out := make([]rune, len(in))
	for i, r := range in {
		if r >= utf8.RuneSelf {
			if d := norm.NFD.PropertiesString(string(r)).Decomposition(); d != nil {
				r, _ = utf8.DecodeRune(d)
			}
		}
		out[i] = unicode.ToLower(r)
	}
	return out
}

func formatID(id int64) string { return strconv.FormatInt(id, 10) }
