package markup

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// zeroWidth is a space that is not seen; it makes the edge of a word.
const zeroWidth = "\u200b"

// mrkdwn is the markup of Slack's messages:
// https://docs.slack.dev/messaging/formatting-message-text. Its marks count at
// the edges of words only, and nothing takes their meaning from the signs that
// they are made of; so a space that is not seen stands where else the one would
// be missed, or the other happen. A quotation is a "> " before each line, which
// counts when it is escaped too. Nothing is underlined.
var mrkdwn = dialect{
	escape: strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;"),
	tags:   mrkdwnTags,
	admits: func(m *mark, k markKind) bool {
		return k != underline && m.find(code) == nil && m.find(pre) == nil && !(k == code && m.find(link) != nil)
	},
	hides: func(dest string) bool {
		scheme, rest, ok := strings.Cut(dest, ":")
		return ok && len(rest) > 2 && (strings.EqualFold(scheme, "https") || strings.EqualFold(scheme, "http") || strings.EqualFold(scheme, "mailto"))
	},
	adapt: mrkdwnText,
	glue:  zeroWidth,
}

// mrkdwnURL writes an address so that it does not end the link that holds it.
var mrkdwnURL = strings.NewReplacer("&", "&amp;", "<", "%3C", ">", "%3E", "|", "%7C", " ", "%20", "\n", "%0A")

func mrkdwnTags(m *mark) (open, end string) {
	switch m.kind {
	case bold:
		return "*", "*"
	case italic:
		return "_", "_"
	case strike:
		return "~", "~"
	case code:
		if m.arg != "" {
			return "```", "```" // a block, since a sign of code in code would end it
		}
		return "`", "`"
	case pre:
		return "```\n", "\n```"
	case link:
		return "<" + mrkdwnURL.Replace(m.arg) + "|", ">"
	}
	return "", ""
}

// mrkdwnText keeps text from being taken for markup. Signs are left alone that
// could not begin anything, so that what people copy is what was written.
func mrkdwnText(text string, m *mark) string {
	if m.find(pre) != nil || m.find(code) != nil {
		return strings.ReplaceAll(text, "```", "``"+zeroWidth+"`")
	}
	if m.find(link) != nil {
		text = strings.ReplaceAll(text, "\n", " ")
	}
	if !strings.ContainsAny(text, "*_~`") {
		return text
	}
	var b strings.Builder
	before := ' '
	for i, r := range text {
		b.WriteRune(r)
		if strings.ContainsRune("*_~`", r) && !isWord(before) && opens(text[i:], r) {
			b.WriteString(zeroWidth)
		}
		before = r
	}
	return b.String()
}

// maxOpen is how far the end of a mark is looked for, in bytes.
const maxOpen = 512

// opens tells whether the sign at the front of s is closed again on its line.
func opens(s string, sign rune) bool {
	rest := s[1:min(len(s), maxOpen)]
	if line := strings.IndexByte(rest, '\n'); line >= 0 {
		rest = rest[:line]
	}
	if first, _ := utf8.DecodeRuneInString(rest); rest == "" || unicode.IsSpace(first) {
		return false
	}
	for i := 0; i < len(rest); {
		k := strings.IndexRune(rest[i:], sign)
		if k < 0 {
			return false
		}
		at := i + k
		after, _ := utf8.DecodeRuneInString(rest[at+1:])
		last, _ := utf8.DecodeLastRuneInString(rest[:at])
		if at > 0 && !unicode.IsSpace(last) && !isWord(after) {
			return true
		}
		i = at + 1
	}
	return false
}
