package matrix

import (
	"net/url"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"hermes/internal/platform/clean"
)

// reading is what a message says and to whom.
type reading struct {
	text      string // without what only addresses the account
	mentioned bool
}

// read takes a message's text and finds out whether it is addressed to the
// account: by m.mentions, by a link to it (a pill) where the client writes none,
// by its id or name at a place where it can be nothing else, or by a configured
// pattern. @room means everybody, not the account.
func (a *Adapter) read(self *identity, c *content, body string) reading {
	text := strings.TrimSpace(withoutFallback(clean.Text(body), c.Relates.Reply.EventID != ""))
	pill := c.Mentions == nil && hasPill(c.Formatted, self.user) || c.Mentions != nil && slices.Contains(c.Mentions.Users, self.user)
	var r reading
	r.text, r.mentioned = withoutSelf(text, self, pill)
	r.mentioned = r.mentioned || a.cfg.Addressed(r.text)
	if c.MsgType == "m.emote" && r.text != "" {
		r.text = "* " + r.text
	}
	r.text = a.commands.Read(r.text)
	return r
}

// withoutFallback takes the quotation from the front of a reply that clients
// before version 1.13 put there for those that know no replies,
// https://spec.matrix.org/v1.12/client-server-api/#fallbacks-for-rich-replies.
func withoutFallback(s string, reply bool) string {
	if !reply || !strings.HasPrefix(s, "> <@") && !strings.HasPrefix(s, "> * <@") {
		return s
	}
	rest := s
	for strings.HasPrefix(rest, ">") {
		_, rest, _ = strings.Cut(rest, "\n")
	}
	return strings.TrimPrefix(rest, "\n")
}

// hasPill tells whether HTML links to a user,
// https://spec.matrix.org/v1.15/client-server-api/#user-and-room-mentions.
func hasPill(html, user string) bool {
	const to = "https://matrix.to/#/"
	for rest := html; ; {
		i := strings.Index(rest, to)
		if i < 0 {
			return strings.Contains(html, "matrix:u/"+strings.TrimPrefix(user, "@"))
		}
		rest = rest[i+len(to):]
		id := rest
		if end := strings.IndexAny(id, `"'?<> `); end >= 0 {
			id = id[:end]
		}
		if s, err := url.PathUnescape(id); err == nil && s == user {
			return true
		}
	}
}

// withoutSelf takes the names of the account out that only address it, at the
// front and at the end, and tells whether it is named. A bare name counts as one
// behind a pill, or before a colon.
func withoutSelf(s string, self *identity, pill bool) (text string, named bool) {
	signed := []string{self.user, "@" + self.name, "@" + self.local}
	bare := []string{self.name, self.local}
	named = pill || containsName(s, signed)
	text = s
	for {
		rest, ok := cutFront(text, signed, false)
		if !ok {
			rest, ok = cutFront(text, bare, !pill)
		}
		if !ok {
			break
		}
		text, named = rest, true
	}
	ends := signed
	if pill {
		ends = append(ends[:3:3], bare...)
	}
	for named {
		rest, ok := cutEnd(text, ends)
		if !ok {
			break
		}
		text = rest
	}
	if text == "" && named {
		text = s // nothing but the name: that is what was said
	}
	return text, named
}

// cutFront takes a name from the front of a text. With colon it must be
// followed by one.
func cutFront(s string, names []string, colon bool) (rest string, ok bool) {
	for _, n := range names {
		if n == "" || len(s) < len(n) || !strings.EqualFold(s[:len(n)], n) {
			continue
		}
		rest = s[len(n):]
		if after := strings.TrimLeft(rest, ":,"); after != rest {
			if r, _ := utf8.DecodeRuneInString(after); after == "" || unicode.IsSpace(r) {
				return strings.TrimSpace(after), true
			}
			continue
		}
		if r, _ := utf8.DecodeRuneInString(rest); !colon && (rest == "" || unicode.IsSpace(r)) {
			return strings.TrimSpace(rest), true
		}
	}
	return s, false
}

// cutEnd takes a name from the end of a text.
func cutEnd(s string, names []string) (rest string, ok bool) {
	for _, n := range names {
		if n == "" || len(s) <= len(n) || !strings.EqualFold(s[len(s)-len(n):], n) {
			continue
		}
		rest = s[:len(s)-len(n)]
		if r, _ := utf8.DecodeLastRuneInString(rest); unicode.IsSpace(r) {
			return strings.TrimRight(strings.TrimSpace(rest), ","), true
		}
	}
	return s, false
}

// containsName tells whether a text has one of the names as a word of its own.
func containsName(s string, names []string) bool {
	for _, n := range names {
		if len(n) < 2 {
			continue
		}
		lower, n := strings.ToLower(s), strings.ToLower(n)
		for from := 0; ; {
			i := strings.Index(lower[from:], n)
			if i < 0 {
				break
			}
			at := from + i
			before, _ := utf8.DecodeLastRuneInString(lower[:at])
			if (at == 0 || !partOfName(before)) && endsName(lower[at+len(n):]) {
				return true
			}
			from = at + len(n)
		}
	}
	return false
}

// endsName tells whether a name is over where s begins: a full stop or a colon
// may end a sentence, or go on with a server.
func endsName(s string) bool {
	s = strings.TrimLeft(s, ".:-")
	r, _ := utf8.DecodeRuneInString(s)
	return s == "" || !partOfName(r)
}

func partOfName(r rune) bool {
	return unicode.IsLetter(r) || unicode.IsDigit(r) || strings.ContainsRune("_=/+@", r)
}

func quoted(s string) string { return strconv.Quote(clean.Clip(clean.Text(s), 60)) }
