package discord

import (
	"encoding/base64"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"time"

	"hermes/internal/domain"
	"hermes/internal/home"
	"hermes/internal/secret"
)

// DefaultBaseURL is Discord's own server. Another one, such as a caching proxy,
// is named by platforms.discord.extra.base_url or DISCORD_BASE_URL.
const DefaultBaseURL = "https://discord.com"

// defaultMaxFile is the largest inbound attachment that is fetched, bytes.
const defaultMaxFile = 32 << 20

// Whose bots are heard (DISCORD_ALLOW_BOTS).
const (
	botsNone     = "none"
	botsMentions = "mentions" // those that mention this bot
	botsAll      = "all"
)

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

	AllowedChannels  []string         // ids of the only server channels that are heard, their threads included; empty: any. Direct messages are not bound by it
	FreeChannels     []string         // ids of channels where no mention is needed
	IgnoredChannels  []string         // ids of channels that are not heard
	IgnoredThreads   []string         // ids of threads that are not heard
	NoThreadChannels []string         // ids of channels where answers go into the channel itself
	RequireMention   bool             // server channels: only what is addressed to the bot is heard
	MentionPatterns  []*regexp.Regexp // text that counts as a mention
	AutoThread       bool             // a mention in a channel is answered in a thread of its own
	AllowBots        string           // none, mentions or all; "" means none
	SyncCommands     string           // safe or off; "" means safe
	Reactions        bool             // 👀 on a message that is being worked on
	NoTyping         bool
	Roles            []string // ids of roles whose holders may talk to the bot
	MaxFile          int64    // largest inbound attachment, bytes; 0 means 32 MiB

	SendTimeout time.Duration // of one request without a file; 0 means 30 s
}

// FromProfile reads the configuration of a profile. It answers domain.Config
// with every problem in one message.
func FromProfile(p home.PlatformConfig) (Config, error) {
	c := Config{
		Token: p.Token, TokenOrigin: p.TokenOrigin,
		BaseURL: p.Extra["base_url"], Proxy: p.Extra["proxy"],
		AllowedChannels: p.AllowedChats, IgnoredThreads: p.IgnoredThreads,
		FreeChannels: list(p.Extra["free_response_channels"]), IgnoredChannels: list(p.Extra["ignored_channels"]),
		NoThreadChannels: list(p.Extra["no_thread_channels"]),
		Roles:            list(p.Extra["allowed_roles"]),
		RequireMention:   p.RequireMention, AutoThread: true, Reactions: p.Reactions, NoTyping: !p.Typing,
	}
	var problems []string
	bad := func(name, value, want string) {
		problems = append(problems, "platforms.discord.extra."+name+" is "+strconv.Quote(value)+": write "+want)
	}
	if v := p.Extra["auto_thread"]; v != "" {
		b, err := parseBool(v)
		if err != nil {
			bad("auto_thread", v, "true or false")
		}
		c.AutoThread = b
	}
	if v := p.Extra["max_attachment_bytes"]; v != "" {
		n, err := strconv.ParseInt(strings.ReplaceAll(v, "_", ""), 10, 64)
		if err != nil || n <= 0 {
			bad("max_attachment_bytes", v, "a number of bytes above 0")
		}
		c.MaxFile = n
	}
	switch v := strings.ToLower(strings.TrimSpace(p.Extra["allow_bots"])); v {
	case "", "false", "no", "off", botsNone:
		c.AllowBots = botsNone
	case "true", "yes", "on", botsAll:
		c.AllowBots = botsAll
	case botsMentions:
		c.AllowBots = botsMentions
	default:
		bad("allow_bots", v, "none, mentions or all")
	}
	switch v := strings.ToLower(strings.TrimSpace(p.Extra["command_sync_policy"])); v {
	case "", syncSafe, "bulk":
		c.SyncCommands = syncSafe
	case syncOff, "false", "no":
		c.SyncCommands = syncOff
	default:
		bad("command_sync_policy", v, "safe or off")
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
		return Config{}, domain.E(domain.Config, nil, "Discord is not set up right: %s", strings.Join(problems, "; "))
	}
	return c, nil
}

func (c Config) check() error {
	switch {
	case !c.Token.IsSet():
		return domain.E(domain.Config, nil, "there is no bot token: make one at https://discord.com/developers/applications (Bot → Reset Token) and put DISCORD_BOT_TOKEN=… into .env")
	case c.account() == "":
		return domain.E(domain.Config, nil, "the bot token%s does not look like one (three parts with dots between): copy it again from https://discord.com/developers/applications (Bot → Reset Token); the client secret and the public key are something else", c.origin())
	}
	for _, o := range []struct{ name, url string }{{"base_url", c.BaseURL}, {"proxy", c.Proxy}} {
		if o.url == "" {
			continue
		}
		if u, err := url.Parse(o.url); err != nil || u.Host == "" {
			return domain.E(domain.Config, nil, "platforms.discord.extra.%s is no URL: write it with its scheme, e.g. http://127.0.0.1:8081", o.name)
		}
	}
	return nil
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
	if len(parts) != 3 || parts[1] == "" || parts[2] == "" {
		return ""
	}
	for _, r := range c.token() {
		if r <= ' ' || r > '~' {
			return ""
		}
	}
	id, err := base64.RawStdEncoding.DecodeString(strings.TrimRight(parts[0], "="))
	if err != nil || snowflake(string(id)) == 0 {
		return ""
	}
	return string(id)
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
