package telegram

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

// DefaultBaseURL is Telegram's own Bot API server. A self-hosted one
// (https://core.telegram.org/bots/api#using-a-local-bot-api-server) is named by
// platforms.telegram.extra.base_url or TELEGRAM_BASE_URL.
const DefaultBaseURL = "https://api.telegram.org"

// Config is one bot account. The zero value of every field but Token is usable.
type Config struct {
	Token       secret.Value
	TokenOrigin string // where the token stands, for messages to people
	BaseURL     string // without a trailing slash; "" means DefaultBaseURL
	Proxy       string // URL of an HTTP or SOCKS5 proxy; "" means the environment's

	AllowedChats      []string         // ids or @names of the only groups and channels that are heard; empty: any. Private chats are not bound by it
	FreeResponseChats []string         // ids of groups where no mention is needed
	IgnoredThreads    []string         // topic ids, or chat:topic, that are not heard
	RequireMention    bool             // groups: only what is addressed to the bot is heard
	MentionPatterns   []*regexp.Regexp // text that counts as a mention
	ChannelPosts      bool             // hear the posts of channels

	DisableLinkPreviews bool
	DeleteWebhook       bool   // delete a webhook that stands in the way of polling
	WebhookURL          string // a webhook of this account's own, from a time when it did not poll; deleted where it stands in the way
	NoTyping            bool
	Reactions           bool // 👀 on a message that is being worked on

	PollTimeout time.Duration // how long one getUpdates may wait, whole seconds; 0 means 30 s
	SendTimeout time.Duration // of one request without a file; 0 means 30 s
}

// FromProfile reads the configuration of a profile. It answers domain.Config
// with every problem in one message.
func FromProfile(p home.PlatformConfig) (Config, error) {
	c := Config{
		Token: p.Token, TokenOrigin: p.TokenOrigin,
		BaseURL: p.Extra["base_url"], Proxy: p.Extra["proxy"], WebhookURL: p.Extra["webhook_url"],
		AllowedChats: p.AllowedChats, IgnoredThreads: p.IgnoredThreads,
		FreeResponseChats: list(p.Extra["free_response_chats"]),
		RequireMention:    p.RequireMention,
		NoTyping:          !p.Typing,
		Reactions:         p.Reactions,
	}
	var problems []string
	for _, o := range []struct {
		name string
		at   *bool
	}{
		{"channel_posts", &c.ChannelPosts},
		{"delete_webhook", &c.DeleteWebhook},
		{"disable_link_previews", &c.DisableLinkPreviews},
	} {
		v := p.Extra[o.name]
		if v == "" {
			continue
		}
		b, err := parseBool(v)
		if err != nil {
			problems = append(problems, "platforms.telegram.extra."+o.name+" is "+strconv.Quote(v)+": write true or false")
			continue
		}
		*o.at = b
	}
	for _, s := range p.MentionPatterns {
		re, err := regexp.Compile("(?i)" + s)
		if err != nil {
			problems = append(problems, "the mention pattern "+strconv.Quote(s)+" is no regular expression (https://pkg.go.dev/regexp/syntax)")
			continue
		}
		c.MentionPatterns = append(c.MentionPatterns, re)
	}
	if err := c.check(); err != nil {
		problems = append(problems, domain.MessageOf(err))
	}
	if len(problems) > 0 {
		return Config{}, domain.E(domain.Config, nil, "Telegram is not set up right: %s", strings.Join(problems, "; "))
	}
	return c, nil
}

func (c Config) check() error {
	switch {
	case !c.Token.IsSet():
		return domain.E(domain.Config, nil, "there is no bot token: get one from @BotFather and put TELEGRAM_BOT_TOKEN=… into .env")
	case c.account() == "":
		return domain.E(domain.Config, nil, "the bot token%s does not look like one (digits, a colon, about 35 letters): copy it again from @BotFather", c.origin())
	}
	for _, o := range []struct{ name, url string }{{"base_url", c.BaseURL}, {"proxy", c.Proxy}} {
		if o.url == "" {
			continue
		}
		if u, err := url.Parse(o.url); err != nil || u.Host == "" {
			return domain.E(domain.Config, nil, "platforms.telegram.extra.%s is no URL: write it with its scheme, e.g. http://127.0.0.1:8081", o.name)
		}
	}
	return nil
}

func (c *Config) setDefaults() {
	if c.BaseURL == "" {
		c.BaseURL = DefaultBaseURL
	}
	c.BaseURL = strings.TrimRight(c.BaseURL, "/")
	if c.PollTimeout <= 0 {
		c.PollTimeout = 30 * time.Second
	}
	c.PollTimeout = max(c.PollTimeout.Truncate(time.Second), time.Second)
	if c.SendTimeout <= 0 {
		c.SendTimeout = 30 * time.Second
	}
}

// account is the bot's id, which a token begins with; "" when it does not.
// Everything that may not be part of a path is refused, since the token is one.
func (c Config) account() string {
	id, rest, ok := strings.Cut(c.Token.Reveal(), ":")
	if _, err := strconv.ParseUint(id, 10, 63); err != nil || !ok || rest == "" {
		return ""
	}
	for _, r := range rest {
		if !(r >= '0' && r <= '9' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r == '_' || r == '-') {
			return ""
		}
	}
	return id
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

func parseBool(s string) (bool, error) {
	switch strings.ToLower(strings.TrimSpace(s)) {
	case "yes", "on":
		return true, nil
	case "no", "off":
		return false, nil
	}
	return strconv.ParseBool(strings.ToLower(strings.TrimSpace(s)))
}
