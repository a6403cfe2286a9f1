package mattermost

import (
	"cmp"
	"net/url"
	"strings"
	"time"

	"hermes/internal/home"
	"hermes/internal/platform"
	"hermes/internal/platform/settings"
	"hermes/internal/secret"
)

// Config is one bot account on one server. Token and URL are required.
type Config struct {
	Token       secret.Value // of a bot account, or a personal access token
	TokenOrigin string       // where the token stands, for messages to people
	URL         string       // of the server, with its subpath if it has one
	Proxy       string       // URL of an HTTP or SOCKS5 proxy; "" means the environment's
	CallbackURL string       // at which the server reaches Callback; "" means that buttons are reactions

	settings.Rooms      // channels and groups by id or name, threads by the id of their first post
	AllowBots      bool // hear other bots and webhooks
	Threads        bool // answer what is asked in a channel in a thread of its own (MATTERMOST_REPLY_MODE=thread)

	CatchUp     time.Duration // how far back history is read after a time without a connection; 0 means a week
	SendTimeout time.Duration // of one request without a file; 0 means 30 s
	PingEvery   time.Duration // between proofs that the socket lives; 0 means 30 s
	PingTimeout time.Duration // how long a proof may take; 0 means 15 s
	CheckEvery  time.Duration // between comparisons of the socket with the history; 0 means 10 min
}

// FromProfile reads the configuration of a profile. It answers domain.Config
// with every problem in one message.
func FromProfile(p home.PlatformConfig) (Config, error) {
	r := settings.Of("mattermost", p)
	c := Config{
		Token: p.Token, TokenOrigin: p.TokenOrigin,
		URL: cmp.Or(p.Extra["base_url"], p.Extra["url"]), Proxy: p.Extra["proxy"],
		CallbackURL: callbackURL(r.Text("callback_url")),
		Rooms:       r.Rooms("free_response_channels"),
		AllowBots:   r.AnyBots(),
		Threads:     settings.Word(r, "reply_mode", "off or thread", map[string]bool{"": false, "off": false, "false": false, "thread": true}),
		CatchUp:     r.Time("catch_up"),
	}
	r.Problem(c.problems()...)
	if err := r.Err(notSetUp); err != nil {
		return Config{}, err
	}
	return c, nil
}

const notSetUp = "Mattermost is"

// problems lists what New could not work with.
func (c Config) problems() []string {
	var out []string
	if !c.Token.IsSet() {
		out = append(out, "there is no token: make a bot account (Integrations → Bot Accounts) and put MATTERMOST_TOKEN=… into .env")
	} else if settings.BadToken(c.Token.Reveal()) {
		out = append(out, "the token"+settings.Origin(c.TokenOrigin)+" has characters that no token has: copy it again")
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
	return append(out, settings.NoURLs("mattermost", map[string]string{"proxy": c.Proxy})...)
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
	c.CatchUp = settings.Or(c.CatchUp, 7*24*time.Hour)
	c.SendTimeout = settings.Or(c.SendTimeout, 30*time.Second)
	c.PingEvery = settings.Or(c.PingEvery, 30*time.Second)
	c.PingTimeout = settings.Or(c.PingTimeout, 15*time.Second)
	c.CheckEvery = settings.Or(c.CheckEvery, 10*time.Minute)
}
