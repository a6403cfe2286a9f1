package slack

import (
	"strings"

	"hermes/internal/lazyregexp"
)

// selfMark stands for a mention of the bot itself while a text is read.
const selfMark = "\x01"

// angled is what Slack puts between angle brackets; a text's own are escaped
// (https://docs.slack.dev/messaging/formatting-message-text#retrieving-messages).
var angled = lazyregexp.New(`<([^<>\n]+)>`)

var unescape = strings.NewReplacer("&lt;", "<", "&gt;", ">", "&amp;", "&")

// plainText turns what Slack sends into what people wrote. name gives what is
// shown for a mention of a user ('@') or a channel ('#') with the label that
// Slack gave it, if any.
func plainText(s string, name func(kind byte, id, label string) string) string {
	s = strings.ReplaceAll(s, selfMark, "")
	var b strings.Builder
	end := 0
	for _, at := range angled.FindAllStringSubmatchIndex(s, -1) {
		b.WriteString(unescape.Replace(s[end:at[0]]))
		b.WriteString(angledText(s[at[2]:at[3]], name))
		end = at[1]
	}
	b.WriteString(unescape.Replace(s[end:]))
	return b.String()
}

// angledText is what is shown for one <…>.
func angledText(s string, name func(kind byte, id, label string) string) string {
	dest, label, _ := strings.Cut(s, "|")
	label = unescape.Replace(label)
	switch {
	case len(dest) > 1 && (dest[0] == '@' || dest[0] == '#'):
		return name(dest[0], unescape.Replace(dest[1:]), strings.TrimLeft(label, "@#"))
	case strings.HasPrefix(dest, "!subteam^"):
		return "@" + strings.TrimPrefix(orElse(label, strings.TrimPrefix(dest, "!subteam^")), "@")
	case strings.HasPrefix(dest, "!date^"):
		return label
	case strings.HasPrefix(dest, "!"):
		return "@" + strings.TrimPrefix(orElse(label, dest[1:]), "@")
	}
	dest = unescape.Replace(dest)
	shown := strings.TrimPrefix(dest, "mailto:")
	if label == "" || label == shown || "http://"+label == dest || "https://"+label == dest {
		if strings.HasPrefix(dest, "mailto:") {
			return shown
		}
		return dest
	}
	return label + " (" + dest + ")"
}

func orElse(s, other string) string {
	if s == "" {
		return other
	}
	return s
}

// withoutSelf takes the mentions of the bot out that only address it, at the
// front and at the end; elsewhere its name is written.
func withoutSelf(s, name string) (text string, mentioned bool) {
	s = strings.TrimSpace(s)
	mentioned = strings.Contains(s, selfMark)
	if !mentioned {
		return s, false
	}
	text = s
	for strings.HasPrefix(text, selfMark) {
		text = strings.TrimSpace(strings.TrimLeft(text[len(selfMark):], ",:"))
	}
	for strings.HasSuffix(text, selfMark) {
		text = strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(strings.TrimSuffix(text, selfMark)), ","))
	}
	text = strings.ReplaceAll(text, selfMark, "@"+name)
	if text == "" {
		text = "@" + name // nothing but the name: that is what was said
	}
	return text, true
}
