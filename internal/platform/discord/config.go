package discord

import (
	"encoding/base64"
	"math"
	"strings"
	"time"

	"hermes/internal/home"
	"hermes/internal/platform/settings"
	"hermes/internal/secret"
)

// DefaultBaseURL is Discord's own server. Another one, such as a caching proxy,
// is named by platforms.discord.extra.base_url or DISCORD_BASE_URL.
const DefaultBaseURL = "https://discord.com"

// defaultMaxFile is the largest inbound attachment that is fetched, bytes.
const defaultMaxFile = 32 << 20

// How the native commands are kept (DISCORD_COMMAND_SYNC_POLICY).
const (
	syncSafe = "safe" // written where they differ
	syncOff  = "off"
)

// Config is one bot account. The zero value of every field but Token is usable.
type Config struct {
	Token       secret.Value
	TokenOrigin string // where the token stands, for messages to people
	BaseURL     string // without a trailing slash; "" means DefaultBaseURL
	Proxy       string // URL of an HTTP or SOCKS5 proxy; "" means the environment's

	settings.Rooms                 // channels and threads by id; a channel's threads count as it
	IgnoredChannels  []string      // ids of channels that are not heard
	NoThreadChannels []string      // ids of channels where answers go into the channel itself
	AllowBots        settings.Bots // "" means none
	AutoThread       bool          // a mention in a channel is answered in a thread of its own
	SyncCommands     string        // safe or off; "" means safe
	Roles            []string      // ids of roles whose holders may talk to the bot
	MaxFile          int64         // largest inbound attachment, bytes; 0 means 32 MiB

	SendTimeout time.Duration // of one request without a file; 0 means 30 s
}

// FromProfile reads the configuration of a profile. It answers domain.Config
// with every problem in one message.
func FromProfile(p home.PlatformConfig) (Config, error) {
	r := settings.Of("discord", p)
	c := Config{
		Token: p.Token, TokenOrigin: p.TokenOrigin,
		BaseURL: p.Extra["base_url"], Proxy: p.Extra["proxy"],
		Rooms:            r.Rooms("free_response_channels"),
		IgnoredChannels:  r.List("ignored_channels"),
		NoThreadChannels: r.List("no_thread_channels"),
		Roles:            r.List("allowed_roles"),
		AutoThread:       r.Flag("auto_thread", true),
		AllowBots:        r.Bots(),
		MaxFile:          r.Number("max_attachment_bytes", 1, math.MaxInt64),
		SyncCommands: settings.Word(r, "command_sync_policy", "safe or off", map[string]string{
			"": syncSafe, syncSafe: syncSafe, "bulk": syncSafe, syncOff: syncOff, "false": syncOff, "no": syncOff,
		}),
	}
	r.Problem(c.problems()...)
	if err := r.Err(notSetUp); err != nil {
		return Config{}, err
	}
	return c, nil
}

const notSetUp = "Discord is"

// problems lists what New could not work with.
func (c Config) problems() (out []string) {
	switch {
	case !c.Token.IsSet():
		out = append(out, "there is no bot token: make one at https://discord.com/developers/applications (Bot → Reset Token) and put DISCORD_BOT_TOKEN=… into .env")
	case c.account() == "":
		out = append(out, "the bot token"+settings.Origin(c.TokenOrigin)+" does not look like one (three parts with dots between): copy it again from https://discord.com/developers/applications (Bot → Reset Token); the client secret and the public key are something else")
	}
	return append(out, settings.NoURLs("discord", map[string]string{"base_url": c.BaseURL, "proxy": c.Proxy})...)
}

func (c *Config) setDefaults() {
	if c.BaseURL == "" {
		c.BaseURL = DefaultBaseURL
	}
	c.BaseURL = strings.TrimRight(c.BaseURL, "/")
	if c.MaxFile <= 0 {
		c.MaxFile = defaultMaxFile
	}
	if c.SendTimeout <= 0 {
		c.SendTimeout = 30 * time.Second
	}
}

// token is the token without the scheme that people copy with it.
func (c Config) token() string {
	return strings.TrimSpace(strings.TrimPrefix(strings.TrimSpace(c.Token.Reveal()), "Bot "))
}

// account is the bot's user id, which the first part of a token is in base64;
// "" when it is not. A token with a byte that no header may hold is refused.
func (c Config) account() string {
	parts := strings.Split(c.token(), ".")
	if len(parts) != 3 || parts[1] == "" || parts[2] == "" || settings.BadToken(c.token()) {
		return ""
	}
	id, err := base64.RawStdEncoding.DecodeString(strings.TrimRight(parts[0], "="))
	if err != nil || snowflake(string(id)) == 0 {
		return ""
	}
	return string(id)
}
