package telegram

import (
	"strconv"
	"strings"
	"time"

	"hermes/internal/home"
	"hermes/internal/platform/settings"
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

	settings.Rooms      // chats and topics by id, groups and channels also by @name
	ChannelPosts   bool // hear the posts of channels

	DisableLinkPreviews bool
	DeleteWebhook       bool   // delete a webhook that stands in the way of polling
	WebhookURL          string // a webhook of this account's own, from a time when it did not poll; deleted where it stands in the way

	PollTimeout time.Duration // how long one getUpdates may wait, whole seconds; 0 means 30 s
	SendTimeout time.Duration // of one request without a file; 0 means 30 s
}

// FromProfile reads the configuration of a profile. It answers domain.Config
// with every problem in one message.
func FromProfile(p home.PlatformConfig) (Config, error) {
	r := settings.Of("telegram", p)
	c := Config{
		Token: p.Token, TokenOrigin: p.TokenOrigin,
		BaseURL: p.Extra["base_url"], Proxy: p.Extra["proxy"], WebhookURL: p.Extra["webhook_url"],
		Rooms:               r.Rooms("free_response_chats"),
		ChannelPosts:        r.Flag("channel_posts", false),
		DeleteWebhook:       r.Flag("delete_webhook", false),
		DisableLinkPreviews: r.Flag("disable_link_previews", false),
	}
	r.Problem(c.problems()...)
	if err := r.Err(notSetUp); err != nil {
		return Config{}, err
	}
	return c, nil
}

const notSetUp = "Telegram is"

// problems lists what New could not work with.
func (c Config) problems() (out []string) {
	switch {
	case !c.Token.IsSet():
		out = append(out, "there is no bot token: get one from @BotFather and put TELEGRAM_BOT_TOKEN=… into .env")
	case c.account() == "":
		out = append(out, "the bot token"+settings.Origin(c.TokenOrigin)+" does not look like one (digits, a colon, about 35 letters): copy it again from @BotFather")
	}
	return append(out, settings.NoURLs("telegram", map[string]string{"base_url": c.BaseURL, "proxy": c.Proxy})...)
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
