package markup

import "strings"

// telegramHTML is the HTML style of Telegram's Bot API:
// https://core.telegram.org/bots/api#html-style. Block quotations do not nest,
// and code holds nothing else; a link whose text is code stays a link.
var telegramHTML = dialect{
	escape: strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;"),
	tags:   telegramTags,
	admits: func(m *mark, k markKind) bool {
		switch {
		case m.find(code) != nil || m.find(pre) != nil:
			return false
		case k == code:
			return m.find(link) == nil
		}
		return true
	},
	hides:  telegramLink,
	quotes: true,
}

var attribute = strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;", `"`, "&quot;")

func telegramTags(m *mark) (open, end string) {
	switch m.kind {
	case bold:
		return "<b>", "</b>"
	case italic:
		return "<i>", "</i>"
	case underline:
		return "<u>", "</u>"
	case strike:
		return "<s>", "</s>"
	case code:
		return "<code>", "</code>"
	case pre:
		if m.arg == "" {
			return "<pre>", "</pre>"
		}
		return `<pre><code class="language-` + attribute.Replace(m.arg) + `">`, "</code></pre>"
	case link:
		return `<a href="` + attribute.Replace(m.arg) + `">`, "</a>"
	case quote:
		return "<blockquote>", "</blockquote>"
	}
	return "", ""
}

// telegramLink tells whether Telegram keeps a link to dest. It drops the
// others without an error, and the reader would never see where they led.
func telegramLink(dest string) bool {
	for _, scheme := range []string{"http://", "https://", "tg://", "ton://"} {
		if len(dest) > len(scheme) && strings.EqualFold(dest[:len(scheme)], scheme) {
			return true
		}
	}
	return false
}
