package markup

import "strings"

// matrixHTML is the HTML that Matrix' messages may have,
// https://spec.matrix.org/v1.15/client-server-api/#mroommessage-msgtypes. It is
// Telegram's with line ends of its own: a browser shows those of the text as
// spaces, shows several spaces as one, and begins a line before and after a code
// block or a quotation by itself.
var matrixHTML = dialect{
	escape: telegramHTML.escape,
	tags:   telegramTags,
	admits: telegramHTML.admits,
	hides:  matrixLink,
	quotes: true,
	adapt: func(text string, m *mark) string {
		if m.find(pre) != nil {
			return text
		}
		return strings.ReplaceAll(text, "  ", "\u00a0 ")
	},
	breaks: "<br>",
	finish: strings.NewReplacer("</pre><br>", "</pre>", "<br><pre>", "<pre>", "</blockquote><br>", "</blockquote>", "<br><blockquote>", "<blockquote>"),
}

// matrixLink tells whether clients keep a link to dest.
func matrixLink(dest string) bool {
	scheme, rest, ok := strings.Cut(dest, ":")
	if !ok || strings.TrimLeft(rest, "/") == "" {
		return false
	}
	switch strings.ToLower(scheme) {
	case "https", "http", "ftp":
		return strings.HasPrefix(rest, "//")
	case "mailto", "magnet":
		return true
	}
	return false
}
