package secret

import (
	"log/slog"
	"net/url"
	"regexp"
	"sort"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
)

const (
	// minKnown is the shortest known secret that is looked for; a shorter one
	// would blot out ordinary words.
	minKnown = 6
	// maxKnown bounds the known secrets; a profile has a few dozen.
	maxKnown = 4096
	// maxHeld bounds the bytes that a Writer holds back while it waits for the
	// end of a line.
	maxHeld = 64 << 10
)

// Redactor takes secrets out of text: those that it knows, exactly, and what
// looks like one. It is safe for concurrent use; a nil *Redactor knows the
// patterns only.
type Redactor struct {
	mu       sync.Mutex
	known    map[string]struct{}
	replacer atomic.Pointer[strings.Replacer]
}

// NewRedactor makes a redactor that knows the given secrets.
func NewRedactor(known ...string) *Redactor {
	r := &Redactor{known: map[string]struct{}{}}
	r.Add(known...)
	return r
}

// Add makes secrets known, also as they look inside a URL, a JSON string and
// a quoted log value. One shorter than six bytes is ignored.
func (r *Redactor) Add(known ...string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	before := len(r.known)
	for _, k := range known {
		k = strings.TrimSpace(k)
		if len(k) < minKnown || k == Mask {
			continue
		}
		quoted := strconv.Quote(k)
		for _, form := range []string{k, url.QueryEscape(k), url.PathEscape(k), quoted[1 : len(quoted)-1]} {
			if len(r.known) < maxKnown {
				r.known[form] = struct{}{}
			}
		}
	}
	if len(r.known) == before {
		return
	}
	forms := make([]string, 0, len(r.known))
	for k := range r.known {
		forms = append(forms, k)
	}
	// Of two that begin alike the longer must win, or its tail would show.
	sort.Slice(forms, func(i, j int) bool {
		if len(forms[i]) != len(forms[j]) {
			return len(forms[i]) > len(forms[j])
		}
		return forms[i] < forms[j]
	})
	pairs := make([]string, 0, 2*len(forms))
	for _, k := range forms {
		pairs = append(pairs, k, Mask)
	}
	r.replacer.Store(strings.NewReplacer(pairs...))
}

// Redact gives s with every secret masked. Its cost is linear in len(s).
func (r *Redactor) Redact(s string) string {
	if r != nil {
		if known := r.replacer.Load(); known != nil {
			s = known.Replace(s)
		}
	}
	for _, p := range patterns() {
		if p.mayMatch(s) {
			s = p.re.ReplaceAllString(s, p.with)
		}
	}
	return s
}

// RedactURL gives a URL fit to be shown: no password, no token in the path, no
// key in the query. What does not parse is redacted as text.
func (r *Redactor) RedactURL(raw string) string {
	u, err := url.Parse(raw)
	if err != nil {
		return r.Redact(raw)
	}
	if u.User != nil {
		if _, has := u.User.Password(); has {
			u.User = url.UserPassword(u.User.Username(), "x")
		}
	}
	return r.Redact(u.String())
}

// Attr is a slog.HandlerOptions.ReplaceAttr that redacts strings and errors.
func (r *Redactor) Attr(_ []string, a slog.Attr) slog.Attr {
	switch v := a.Value.Resolve(); v.Kind() {
	case slog.KindString:
		a.Value = slog.StringValue(r.Redact(v.String()))
	case slog.KindAny:
		a.Value = slog.StringValue(r.Redact(v.String()))
	}
	return a
}

// pattern is something that looks like a secret. The regular expression, which
// is slow, runs only on text that holds one of the cheap signs.
type pattern struct {
	signs []string // nil: see hasBotToken
	re    *regexp.Regexp
	with  string
}

func (p pattern) mayMatch(s string) bool {
	if p.signs == nil {
		return hasBotToken(s)
	}
	for _, sign := range p.signs {
		if strings.Contains(s, sign) {
			return true
		}
	}
	return false
}

// hasBotToken tells whether a colon has a digit before it and 30 characters of
// a token behind it.
func hasBotToken(s string) bool {
	const least = 30
	for {
		i := strings.IndexByte(s, ':')
		if i < 0 || len(s) < i+1+least {
			return false
		}
		if i > 0 && s[i-1] >= '0' && s[i-1] <= '9' {
			n := 0
			for n < least && isTokenByte(s[i+1+n]) {
				n++
			}
			if n == least {
				return true
			}
		}
		s = s[i+1:]
	}
}

func isTokenByte(c byte) bool {
	return c|0x20 >= 'a' && c|0x20 <= 'z' || c >= '0' && c <= '9' || c == '_' || c == '-'
}

// namedSigns gives the words for a secret, in the ways that they are written,
// each with a tail behind it.
func namedSigns(tails ...string) []string {
	var out []string
	for _, word := range []string{"key", "token", "secret", "password", "passwd", "signature"} {
		for _, form := range []string{word, strings.ToUpper(word), strings.ToUpper(word[:1]) + word[1:]} {
			for _, tail := range tails {
				out = append(out, form+tail)
			}
		}
	}
	return out
}

// patterns are compiled at first use: most commands never redact anything.
//
// Mask must not look like a secret to any later pattern, or a second pass
// would change the text again; "<" is in none of the classes below.
var patterns = sync.OnceValue(func() []pattern {
	return []pattern{
		{[]string{"earer ", "EARER ", "asic ", "BASIC "},
			regexp.MustCompile(`(?i)\b(bearer|basic) +[A-Za-z0-9._~+/=-]{8,}`), "${1} " + Mask},
		{[]string{"sk-", "sk_", "rk_"},
			regexp.MustCompile(`\b(?:sk-|[sr]k_(?:live|test)_)[A-Za-z0-9_-]{12,}`), Mask},
		{[]string{"xox", "xapp-"},
			regexp.MustCompile(`\b(?:xox[a-z]|xapp)-[A-Za-z0-9-]{8,}`), Mask},
		// A Telegram token, also as the path of its API: /bot<token>/getMe.
		{nil,
			regexp.MustCompile(`(\bbot|\b)[0-9]{6,}:[A-Za-z0-9_-]{30,}`), "${1}" + Mask},
		{[]string{"gh", "glpat-", "AIza", "AKIA", "hf_"},
			regexp.MustCompile(`\b(?:gh[pousr]_[A-Za-z0-9]{30,}|github_pat_[A-Za-z0-9_]{30,}|glpat-[A-Za-z0-9_-]{16,}|AIza[A-Za-z0-9_-]{30,}|AKIA[A-Z0-9]{16}|hf_[A-Za-z0-9]{30,})`), Mask},
		{[]string{"eyJ"},
			regexp.MustCompile(`\beyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]*`), Mask},
		{[]string{"://"},
			regexp.MustCompile(`(://[^/\s:@"'?#<>]*):[^/\s@"'<>]+@`), "${1}:" + Mask + "@"},
		{[]string{"hooks.slack.com/", "/webhooks/"},
			regexp.MustCompile(`(hooks\.slack\.com/[a-z]+/|/api/webhooks/)[A-Za-z0-9_/-]{16,}`), "${1}" + Mask},
		{namedSigns("="),
			regexp.MustCompile(`(?i)\b((?:[a-z0-9]+[_-])*(?:api_?key|apikey|token|secret|passw(?:or)?d|signature)=)[^\s&"'<>;,]{6,}`), "${1}" + Mask},
		{namedSigns(`"`, `\"`),
			regexp.MustCompile(`(?i)("(?:[a-z0-9]+[_-])*(?:api_?key|token|secret|passw(?:or)?d)\\?"\s*:\s*\\?")[^"\\<]{6,}`), "${1}" + Mask},
	}
})
