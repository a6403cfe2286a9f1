// Package settings reads how a platform's adapter is configured, in the same way
// for every platform: what all have in common, and the values of a kind that each
// names for itself. It finds every problem, and says of each what to write.
package settings

import (
	"fmt"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"time"

	"hermes/internal/domain"
	"hermes/internal/home"
	"hermes/internal/platform/clean"
)

// Reader reads the settings of one platform that have a name of their own, such as
// platforms.discord.extra.auto_thread, which DISCORD_AUTO_THREAD lies over. A value
// that is not set, or wrong, is read as its default; what is wrong is kept.
type Reader struct {
	name     domain.Platform
	p        home.PlatformConfig
	problems []string
}

// Of reads the settings of a platform.
func Of(name domain.Platform, p home.PlatformConfig) *Reader { return &Reader{name: name, p: p} }

// Problem keeps one that the caller found.
func (r *Reader) Problem(text ...string) { r.problems = append(r.problems, text...) }

// Err gives every problem in one message (domain.Config); nil where there is none.
// what is the platform for people, with its verb: "Discord is".
func (r *Reader) Err(what string) error { return Wrong(what, r.problems) }

// Wrong is the error of a platform whose settings have problems; nil where there
// are none.
func Wrong(what string, problems []string) error {
	if len(problems) == 0 {
		return nil
	}
	return domain.E(domain.Config, nil, "%s not set up right: %s", what, strings.Join(problems, "; "))
}

// Text is a value without the space around it.
func (r *Reader) Text(key string) string { return strings.TrimSpace(r.p.Extra[key]) }

// word is a value whose case does not count.
func (r *Reader) word(key string) string { return strings.ToLower(r.Text(key)) }

func (r *Reader) wrong(key, want string) {
	r.Problem(strings.ToUpper(string(r.name)+"_"+key) + " (platforms." + string(r.name) + ".extra." + key + ") is " + strconv.Quote(clean.Short(r.Text(key), 80)) + ": write " + want)
}

// List is a value of several, with commas or white space between.
func (r *Reader) List(key string) []string { return List(r.p.Extra[key]) }

// List takes a value of several apart, which have commas or white space between.
func List(s string) []string {
	return strings.FieldsFunc(s, func(r rune) bool { return r == ',' || r == ' ' || r == '\t' || r == '\r' || r == '\n' })
}

// Flag is yes or no.
func (r *Reader) Flag(key string, otherwise bool) bool {
	switch r.word(key) {
	case "":
		return otherwise
	case "true", "yes", "on", "1", "t":
		return true
	case "false", "no", "off", "0", "f", "none":
		return false
	}
	r.wrong(key, "true or false")
	return otherwise
}

// Word is one of several words, each of which stands for a value; that of "" is
// the default. want names them to people: "off or thread".
func Word[T any](r *Reader, key, want string, words map[string]T) T {
	v, ok := words[r.word(key)]
	if !ok {
		r.wrong(key, want)
		return words[""]
	}
	return v
}

// Number is a whole number within bounds, in which "_" may stand; 0 where it is
// not set.
func (r *Reader) Number(key string, low, high int64) int64 {
	v := r.Text(key)
	if v == "" {
		return 0
	}
	n, err := strconv.ParseInt(strings.ReplaceAll(v, "_", ""), 10, 64)
	if err != nil || n < low || n > high {
		r.wrong(key, fmt.Sprintf("a number from %d to %d", low, high))
		return 0
	}
	return n
}

// Time is a length of time above 0; 0 where it is not set.
func (r *Reader) Time(key string) time.Duration {
	v := r.Text(key)
	if v == "" {
		return 0
	}
	d, err := time.ParseDuration(v)
	if err != nil || d <= 0 {
		r.wrong(key, "a time such as 24h")
		return 0
	}
	return d
}

// Bots says whose bots are heard.
type Bots string

// The kinds of bots that are heard. Two that answer each other never end.
const (
	NoBots         Bots = "none"
	MentioningBots Bots = "mentions" // those that mention this one
	AllBots        Bots = "all"
)

// Bots is allow_bots of a platform that can tell who is mentioned.
func (r *Reader) Bots() Bots {
	return Word(r, "allow_bots", "none, mentions or all", map[string]Bots{
		"": NoBots, "none": NoBots, "false": NoBots, "no": NoBots, "off": NoBots, "0": NoBots,
		"mentions": MentioningBots,
		"all":      AllBots, "true": AllBots, "yes": AllBots, "on": AllBots, "1": AllBots,
	})
}

// AnyBots is allow_bots of a platform that hears all bots or none.
func (r *Reader) AnyBots() bool {
	return Word(r, "allow_bots", "none or all", map[string]bool{
		"": false, "none": false, "false": false, "no": false, "off": false, "0": false,
		"all": true, "true": true, "yes": true, "on": true, "1": true,
	})
}

// Rooms reads what all platforms with rooms have in common. free is the name of
// the list of rooms in which no mention is needed.
func (r *Reader) Rooms(free string) Rooms {
	out := Rooms{
		Allowed: r.p.AllowedChats, Free: r.List(free), IgnoredThreads: r.p.IgnoredThreads,
		RequireMention: r.p.RequireMention, Reactions: r.p.Reactions, NoTyping: !r.p.Typing,
	}
	for _, s := range r.p.MentionPatterns {
		re, err := regexp.Compile("(?i)" + s)
		if err != nil {
			r.Problem("the mention pattern " + strconv.Quote(clean.Short(s, 80)) + " is no regular expression (https://pkg.go.dev/regexp/syntax)")
			continue
		}
		out.MentionPatterns = append(out.MentionPatterns, re)
	}
	return out
}

// NoURLs says which of a platform's settings by name are no URL. One that is empty
// is none that is wrong.
func NoURLs(name domain.Platform, urls map[string]string) (problems []string) {
	for _, key := range []string{"base_url", "proxy"} {
		if u, err := url.Parse(urls[key]); urls[key] != "" && (err != nil || u.Host == "") {
			problems = append(problems, "platforms."+string(name)+".extra."+key+" is no URL: write it with its scheme, e.g. http://127.0.0.1:8081")
		}
	}
	return problems
}

// BadToken tells whether a token holds what no HTTP header may, as one does that
// was copied with something else.
func BadToken(token string) bool {
	return strings.ContainsFunc(token, func(r rune) bool { return r <= ' ' || r > '~' })
}

// Origin is where a value stands, for a message behind its name; "" where that is
// not known.
func Origin(where string) string {
	if where == "" {
		return ""
	}
	return " (" + where + ")"
}

// Or is a length of time, or another one where it is not above 0.
func Or(d, other time.Duration) time.Duration {
	if d <= 0 {
		return other
	}
	return d
}
