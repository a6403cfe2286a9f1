package mattermost

import (
	"cmp"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"time"

	"hermes/internal/domain"
	"hermes/internal/home"
	"hermes/internal/platform"
	"hermes/internal/secret"
)

// Config is one bot account on one server. Token and URL are required.
type Config struct {
	Token       secret.Value // of a bot account, or a personal access token
	TokenOrigin string       // where the token stands, for messages to people
	URL         string       // of the server, with its subpath if it has one
	Proxy       string       // URL of an HTTP or SOCKS5 proxy; "" means the environment's
	CallbackURL string       // at which the server reaches Callback; "" means that buttons are reactions

	AllowedChannels []string         // ids or names of the only channels and groups that are heard; empty: any. Direct messages are not bound by it
	FreeResponse    []string         // ids or names of channels where no mention is needed
	IgnoredThreads  []string         // ids of the first posts of threads that are not heard
	RequireMention  bool             // channels and groups: only what is addressed to the bot is heard
	MentionPatterns []*regexp.Regexp // text that counts as a mention
	AllowBots       bool             // hear other bots and webhooks
	Threads         bool             // answer what is asked in a channel in a thread of its own (MATTERMOST_REPLY_MODE=thread)
	Reactions       bool             // acknowledge a committed message with a reaction
	NoTyping        bool

	CatchUp     time.Duration // how far back history is read after a time without a connection; 0 means a week
	SendTimeout time.Duration // of one request without a file; 0 means 30 s
	PingEvery   time.Duration // between proofs that the socket lives; 0 means 30 s
	PingTimeout time.Duration // how long a proof may take; 0 means 15 s
	CheckEvery  time.Duration // between comparisons of the socket with the history; 0 means 10 min
}

// FromProfile reads the configuration of a profile. It answers domain.Config
// with every problem in one message.
func FromProfile(p home.PlatformConfig) (Config, error) {
	c := Config{
		Token: p.Token, TokenOrigin: p.TokenOrigin,
		URL: cmp.Or(p.Extra["base_url"], p.Extra["url"]), Proxy: p.Extra["proxy"],
		CallbackURL:     callbackURL(p.Extra["callback_url"]),
		AllowedChannels: p.AllowedChats, IgnoredThreads: p.IgnoredThreads,
		FreeResponse:   list(p.Extra["free_response_channels"]),
		RequireMention: p.RequireMention, Reactions: p.Reactions, NoTyping: !p.Typing,
	}
	var problems []string
	switch v := strings.ToLower(strings.TrimSpace(p.Extra["reply_mode"])); v {
	case "", "off", "false":
	case "thread":
		c.Threads = true
	default:
		problems = append(problems, "MATTERMOST_REPLY_MODE is "+strconv.Quote(v)+": write off or thread")
	}
	switch v := strings.ToLower(strings.TrimSpace(p.Extra["allow_bots"])); v {
	case "", "none", "false", "no", "off":
	case "all", "true", "yes", "on":
		c.AllowBots = true
	default:
		problems = append(problems, "MATTERMOST_ALLOW_BOTS is "+strconv.Quote(v)+": write none or all")
	}
	if v := p.Extra["catch_up"]; v != "" {
		d, err := time.ParseDuration(v)
		if err != nil || d <= 0 {
			problems = append(problems, "platforms.mattermost.extra.catch_up is "+strconv.Quote(v)+": write a time such as 24h")
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

func setUpWrong(problems []string) error {
	return domain.E(domain.Config, nil, "Mattermost is not set up right: %s", strings.Join(problems, "; "))
}

// problems lists what New could not work with.
func (c Config) problems() []string {
	var out []string
	if !c.Token.IsSet() {
		out = append(out, "there is no token: make a bot account (Integrations → Bot Accounts) and put MATTERMOST_TOKEN=… into .env")
	} else if strings.ContainsFunc(c.Token.Reveal(), func(r rune) bool { return r <= ' ' || r > '~' }) {
		out = append(out, "the token"+c.origin()+" has characters that no token has: copy it again")
	}
	switch u, err := url.Parse(c.URL); {
	case c.URL == "":
		out = append(out, "there is no server: put MATTERMOST_URL=https://… into .env")
	case err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https":
		out = append(out, "MATTERMOST_URL is no URL: write it with its scheme, e.g. https://chat.example.com")
	case u.User != nil:
		out = append(out, "MATTERMOST_URL must not hold a password: the token is enough")
	}
	if u, err := url.Parse(c.CallbackURL); c.CallbackURL != "" && (err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https") {
		out = append(out, "MATTERMOST_CALLBACK_URL is no URL: write the address at which the Mattermost server reaches this gateway's API, e.g. http://hermes.example.com:8642")
	}
	if u, err := url.Parse(c.Proxy); c.Proxy != "" && (err != nil || u.Host == "") {
		out = append(out, "platforms.mattermost.extra.proxy is no URL: write it with its scheme, e.g. http://127.0.0.1:3128")
	}
	return out
}

// callbackURL is the address of the gateway's API, with the path of Callback
// where it has none.
func callbackURL(s string) string {
	u, err := url.Parse(strings.TrimSpace(s))
	if err != nil || u.Host == "" || strings.Trim(u.Path, "/") != "" {
		return strings.TrimSpace(s)
	}
	return u.JoinPath(platform.CallbackPath + string(Name)).String()
}

func (c *Config) setDefaults() {
	c.URL = strings.TrimSuffix(strings.TrimRight(c.URL, "/"), "/api/v4")
	c.CatchUp = orDefault(c.CatchUp, 7*24*time.Hour)
	c.SendTimeout = orDefault(c.SendTimeout, 30*time.Second)
	c.PingEvery = orDefault(c.PingEvery, 30*time.Second)
	c.PingTimeout = orDefault(c.PingTimeout, 15*time.Second)
	c.CheckEvery = orDefault(c.CheckEvery, 10*time.Minute)
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
