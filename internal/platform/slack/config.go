package slack

import (
	"strings"
	"time"

	"hermes/internal/home"
	"hermes/internal/platform/settings"
	"hermes/internal/secret"
)

// DefaultBaseURL is Slack's own server. Another one, such as a proxy, is named
// by platforms.slack.extra.base_url or SLACK_BASE_URL.
const DefaultBaseURL = "https://slack.com"

// Config is one app in one workspace. Both tokens are required.
type Config struct {
	Token       secret.Value // of the bot, xoxb-…
	TokenOrigin string       // where it stands, for messages to people
	AppToken    secret.Value // of the app, xapp-…, for Socket Mode
	BaseURL     string       // without a trailing slash; "" means DefaultBaseURL
	Proxy       string       // URL of an HTTP or SOCKS5 proxy; "" means the environment's

	settings.Rooms               // channels and groups by id or name, threads by the ts of their first message
	AllowBots      settings.Bots // "" means none
	NoThreads      bool          // what is asked in a channel is answered in the channel, not in a thread of its own

	CatchUp     time.Duration // how far back history is read after a time without a connection; 0 means a week
	SendTimeout time.Duration // of one request without a file; 0 means 30 s
	PingEvery   time.Duration // between proofs that the socket lives; 0 means 30 s
	PingTimeout time.Duration // how long a proof may take; 0 means 15 s
	CheckEvery  time.Duration // between comparisons of the socket with the history; 0 means 30 min
}

// FromProfile reads the configuration of a profile. It answers domain.Config
// with every problem in one message.
func FromProfile(p home.PlatformConfig) (Config, error) {
	r := settings.Of("slack", p)
	c := Config{
		Token: p.Token, TokenOrigin: p.TokenOrigin, AppToken: AppToken(p),
		BaseURL: p.Extra["base_url"], Proxy: p.Extra["proxy"],
		Rooms:     r.Rooms("free_response_channels"),
		AllowBots: r.Bots(),
		NoThreads: !r.Flag("reply_in_thread", true),
		CatchUp:   r.Time("catch_up"),
	}
	r.Problem(c.problems()...)
	if err := r.Err(notSetUp); err != nil {
		return Config{}, err
	}
	return c, nil
}

const notSetUp = "Slack is"

// AppToken is the app-level token of a profile. Only one process may receive
// with it: Slack would share the events out among several.
func AppToken(p home.PlatformConfig) secret.Value { return secret.Value(p.Extra["app_token"]) }

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
		out = append(out, wrongToken("SLACK_BOT_TOKEN"+settings.Origin(c.TokenOrigin), bot, "xoxb", whereBot)...)
		out = append(out, wrongToken("SLACK_APP_TOKEN", app, "xapp", whereApp)...)
	}
	return append(out, settings.NoURLs("slack", map[string]string{"base_url": c.BaseURL, "proxy": c.Proxy})...)
}

// kindOfToken tells kinds of tokens by their prefix,
// https://docs.slack.dev/authentication/tokens; "?" is none that is known. A
// token that is exchanged now and then has xoxe. before it.
func kindOfToken(token string) string {
	if token == "" {
		return ""
	}
	if settings.BadToken(token) {
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
	c.CatchUp = settings.Or(c.CatchUp, 7*24*time.Hour)
	c.SendTimeout = settings.Or(c.SendTimeout, 30*time.Second)
	c.PingEvery = settings.Or(c.PingEvery, 30*time.Second)
	c.PingTimeout = settings.Or(c.PingTimeout, 15*time.Second)
	c.CheckEvery = settings.Or(c.CheckEvery, 30*time.Minute)
}
