package slack

import (
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"time"

	"hermes/internal/domain"
	"hermes/internal/home"
	"hermes/internal/secret"
)

// DefaultBaseURL is Slack's own server. Another one, such as a proxy, is named
// by platforms.slack.extra.base_url or SLACK_BASE_URL.
const DefaultBaseURL = "https://slack.com"

// Whose bots are heard (SLACK_ALLOW_BOTS).
const (
	botsNone     = "none"
	botsMentions = "mentions" // those that mention this bot
	botsAll      = "all"
)

// Config is one app in one workspace. Both tokens are required.
type Config struct {
	Token       secret.Value // of the bot, xoxb-…
	TokenOrigin string       // where it stands, for messages to people
	AppToken    secret.Value // of the app, xapp-…, for Socket Mode
	BaseURL     string       // without a trailing slash; "" means DefaultBaseURL
	Proxy       string       // URL of an HTTP or SOCKS5 proxy; "" means the environment's

	AllowedChannels []string         // ids or names of the only channels and groups that are heard; empty: any. Direct messages are not bound by it
	FreeResponse    []string         // ids or names of channels where no mention is needed
	IgnoredThreads  []string         // ts of the first messages of threads that are not heard
	RequireMention  bool             // channels and groups: only what is addressed to the bot is heard
	MentionPatterns []*regexp.Regexp // text that counts as a mention
	AllowBots       string           // none, mentions or all; "" means none
	NoThreads       bool             // what is asked in a channel is answered in the channel, not in a thread of its own
	Reactions       bool             // 👀 on a message that is being worked on
	NoTyping        bool

	CatchUp     time.Duration // how far back history is read after a time without a connection; 0 means a week
	SendTimeout time.Duration // of one request without a file; 0 means 30 s
	PingEvery   time.Duration // between proofs that the socket lives; 0 means 30 s
	PingTimeout time.Duration // how long a proof may take; 0 means 15 s
	CheckEvery  time.Duration // between comparisons of the socket with the history; 0 means 30 min
}

// FromProfile reads the configuration of a profile. It answers domain.Config
// with every problem in one message.
func FromProfile(p home.PlatformConfig) (Config, error) {
	c := Config{
		Token: p.Token, TokenOrigin: p.TokenOrigin, AppToken: AppToken(p),
		BaseURL: p.Extra["base_url"], Proxy: p.Extra["proxy"],
		AllowedChannels: p.AllowedChats, FreeResponse: list(p.Extra["free_response_channels"]), IgnoredThreads: p.IgnoredThreads,
		RequireMention: p.RequireMention, Reactions: p.Reactions, NoTyping: !p.Typing,
	}
	var problems []string
	switch v := strings.ToLower(strings.TrimSpace(p.Extra["allow_bots"])); v {
	case "", "false", "no", "off", botsNone:
		c.AllowBots = botsNone
	case "true", "yes", "on", botsAll:
		c.AllowBots = botsAll
	case botsMentions:
		c.AllowBots = botsMentions
	default:
		problems = append(problems, "SLACK_ALLOW_BOTS is "+strconv.Quote(v)+": write none, mentions or all")
	}
	switch v := strings.ToLower(strings.TrimSpace(p.Extra["reply_in_thread"])); v {
	case "", "true", "yes", "on", "1":
	case "false", "no", "off", "0":
		c.NoThreads = true
	default:
		problems = append(problems, "SLACK_REPLY_IN_THREAD is "+strconv.Quote(v)+": write true or false")
	}
	if v := p.Extra["catch_up"]; v != "" {
		d, err := time.ParseDuration(v)
		if err != nil || d <= 0 {
			problems = append(problems, "platforms.slack.extra.catch_up is "+strconv.Quote(v)+": write a time such as 24h")
		}
		c.CatchUp = d
	}
	for _, s := range p.MentionPatterns {
		re, err := regexp.Compile("(?i)" + s)
		if err != nil {
			problems = append(problems, "the mention pattern "+strconv.Quote(s)+" is no regular expression (https://pkg.go.dev/regexp/syntax)")
			continue
		}
		c.MentionPatterns = append(c.MentionPatterns, re)
	}
	problems = append(problems, c.problems()...)
	if len(problems) > 0 {
		return Config{}, setUpWrong(problems)
	}
	return c, nil
}

// AppToken is the app-level token of a profile. Only one process may receive
// with it: Slack would share the events out among several.
func AppToken(p home.PlatformConfig) secret.Value { return secret.Value(p.Extra["app_token"]) }

func setUpWrong(problems []string) error {
	return domain.E(domain.Config, nil, "Slack is not set up right: %s", strings.Join(problems, "; "))
}

// Where the tokens are, for messages to people.
const (
	whereBot = "https://api.slack.com/apps → your app → OAuth & Permissions → Bot User OAuth Token, xoxb-…"
	whereApp = "https://api.slack.com/apps → your app → Basic Information → App-Level Tokens, xapp-…, with the scope connections:write"
)

// problems lists what New could not work with.
func (c Config) problems() []string {
	var out []string
	bot, app := kindOfToken(c.Token.Reveal()), kindOfToken(c.AppToken.Reveal())
	if bot == "xapp" && app == "xoxb" {
		out = append(out, "the two tokens are swapped: the one with xoxb- belongs into SLACK_BOT_TOKEN, the one with xapp- into SLACK_APP_TOKEN")
	} else {
		out = append(out, wrongToken("SLACK_BOT_TOKEN"+c.origin(), bot, "xoxb", whereBot)...)
		out = append(out, wrongToken("SLACK_APP_TOKEN", app, "xapp", whereApp)...)
	}
	for _, o := range []struct{ name, url string }{{"base_url", c.BaseURL}, {"proxy", c.Proxy}} {
		if u, err := url.Parse(o.url); o.url != "" && (err != nil || u.Host == "") {
			out = append(out, "platforms.slack.extra."+o.name+" is no URL: write it with its scheme, e.g. http://127.0.0.1:8081")
		}
	}
	return out
}

// kindOfToken tells kinds of tokens by their prefix,
// https://docs.slack.dev/authentication/tokens; "?" is none that is known. A
// token that is exchanged now and then has xoxe. before it.
func kindOfToken(token string) string {
	if token == "" {
		return ""
	}
	if strings.ContainsFunc(token, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return "?"
	}
	prefix, _, _ := strings.Cut(strings.TrimPrefix(token, "xoxe."), "-")
	switch prefix {
	case "xoxb", "xapp", "xoxp", "xoxe", "xoxc", "xoxd", "xoxs", "xoxr", "xoxa":
		return prefix
	}
	return "?"
}

// wrongToken says what is wrong with a token of a kind, if anything is.
func wrongToken(name, kind, want, where string) []string {
	what := map[string]string{
		"":     name + " is not set",
		"?":    name + " is no token of Slack's, or was copied with something else",
		"xoxb": name + " holds the bot's token",
		"xapp": name + " holds the app-level token",
		"xoxp": name + " holds a token of a user, which would speak in that person's name",
		"xoxe": name + " holds a refresh or configuration token",
	}
	if kind == want {
		return nil
	}
	text, known := what[kind]
	if !known {
		text = name + " holds a token of a browser or of an old kind"
	}
	return []string{text + ": copy it from " + where}
}

func (c *Config) setDefaults() {
	if c.BaseURL == "" {
		c.BaseURL = DefaultBaseURL
	}
	c.BaseURL = strings.TrimSuffix(strings.TrimRight(c.BaseURL, "/"), "/api")
	c.CatchUp = orDefault(c.CatchUp, 7*24*time.Hour)
	c.SendTimeout = orDefault(c.SendTimeout, 30*time.Second)
	c.PingEvery = orDefault(c.PingEvery, 30*time.Second)
	c.PingTimeout = orDefault(c.PingTimeout, 15*time.Second)
	c.CheckEvery = orDefault(c.CheckEvery, 30*time.Minute)
}

func orDefault(d, other time.Duration) time.Duration {
	if d <= 0 {
		return other
	}
	return d
}

func (c Config) origin() string {
	if c.TokenOrigin == "" {
		return ""
	}
	return " (" + c.TokenOrigin + ")"
}

func list(s string) []string {
	return strings.FieldsFunc(s, func(r rune) bool { return r == ',' || r == ' ' || r == '\n' })
}
