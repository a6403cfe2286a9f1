package matrix

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

// Config is one account of a homeserver. Homeserver is required, and Token or
// UserID with Password.
type Config struct {
	Homeserver  string // base URL of the client-server API, without a trailing slash
	Token       secret.Value
	TokenOrigin string // where it stands, for messages to people
	UserID      string // @name:server; with a password its name alone will do
	Password    secret.Value
	DeviceID    string // of a login with a password; "" means one of our own
	Proxy       string // URL of an HTTP or SOCKS5 proxy; "" means the environment's

	AllowedRooms    []string         // ids, aliases or names of the only rooms that are heard; empty: any. Direct messages are not bound by it
	FreeResponse    []string         // ids, aliases or names of rooms where no mention is needed
	IgnoredThreads  []string         // ids of the first events of threads that are not heard
	RequireMention  bool             // rooms: only what is addressed to the account is heard
	MentionPatterns []*regexp.Regexp // text that counts as a mention
	AllowBots       bool             // notices, which is what bots write, are heard too
	OwnThreads      bool             // what is asked in a room is answered in a thread of its own
	DirectThreads   bool             // and what is asked directly as well
	Encryption      bool             // end-to-end encryption was asked for, which is not to be had
	Reactions       bool             // 👀 on a message that is being worked on
	NoTyping        bool

	CatchUp     time.Duration // how far back gaps are filled; 0 means a week
	SendTimeout time.Duration // of one request without a file; 0 means 30 s
	PollTimeout time.Duration // of one long poll; 0 means 30 s
}

// FromProfile reads the configuration of a profile. It answers domain.Config
// with every problem in one message.
func FromProfile(p home.PlatformConfig) (Config, error) {
	c := Config{
		Homeserver: p.Extra["base_url"], Token: p.Token, TokenOrigin: p.TokenOrigin,
		UserID: strings.TrimSpace(p.Extra["user_id"]), Password: secret.Value(p.Extra["password"]), DeviceID: strings.TrimSpace(p.Extra["device_id"]), Proxy: p.Extra["proxy"],
		AllowedRooms: p.AllowedChats, FreeResponse: list(p.Extra["free_response_rooms"]), IgnoredThreads: p.IgnoredThreads,
		RequireMention: p.RequireMention, Reactions: p.Reactions, NoTyping: !p.Typing,
	}
	var problems []string
	flag := func(key string, otherwise bool) bool {
		v := strings.ToLower(strings.TrimSpace(p.Extra[key]))
		switch v {
		case "":
			return otherwise
		case "true", "yes", "on", "1", "all":
			return true
		case "false", "no", "off", "0", "none":
			return false
		}
		problems = append(problems, "MATRIX_"+strings.ToUpper(key)+" is "+strconv.Quote(v)+": write true or false")
		return otherwise
	}
	c.AllowBots, c.Encryption = flag("allow_bots", false), flag("encryption", false)
	c.OwnThreads = flag("auto_thread", true)
	switch v := strings.ToLower(strings.TrimSpace(p.Extra["session_scope"])); v {
	case "", "auto":
	case "room":
		c.OwnThreads = false
	case "thread":
		c.OwnThreads, c.DirectThreads = true, true
	default:
		problems = append(problems, "MATRIX_SESSION_SCOPE is "+strconv.Quote(v)+": write auto, room or thread")
	}
	if v := p.Extra["catch_up"]; v != "" {
		d, err := time.ParseDuration(v)
		if err != nil || d <= 0 {
			problems = append(problems, "platforms.matrix.extra.catch_up is "+strconv.Quote(v)+": write a time such as 24h")
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

// Identity is what the machine-wide lock of an account is about: the token, or
// the account where a password stands for one.
func Identity(p home.PlatformConfig) string {
	if p.Token.IsSet() {
		return p.Token.Reveal()
	}
	return trimServer(p.Extra["base_url"]) + " " + strings.TrimSpace(p.Extra["user_id"])
}

func setUpWrong(problems []string) error {
	return domain.E(domain.Config, nil, "Matrix is not set up right: %s", strings.Join(problems, "; "))
}

// whereToken says where a token is found, for messages to people.
const whereToken = "in Element: All settings → Help & About → Access Token, logged in as the agent's own account"

// problems lists what New could not work with.
func (c Config) problems() []string {
	var out []string
	if u, err := url.Parse(c.Homeserver); c.Homeserver == "" {
		out = append(out, "MATRIX_HOMESERVER is not set: write the address of the homeserver, e.g. https://matrix.example.org")
	} else if err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" || u.User != nil || u.RawQuery != "" {
		out = append(out, "MATRIX_HOMESERVER is no address of a homeserver: write it with its scheme, e.g. https://matrix.example.org")
	}
	if u, err := url.Parse(c.Proxy); c.Proxy != "" && (err != nil || u.Host == "") {
		out = append(out, "platforms.matrix.extra.proxy is no URL: write it with its scheme, e.g. http://127.0.0.1:8081")
	}
	switch {
	case c.Token.IsSet():
		if strings.ContainsFunc(c.Token.Reveal(), func(r rune) bool { return r <= ' ' || r > '~' }) {
			out = append(out, "MATRIX_ACCESS_TOKEN"+c.origin()+" was copied with something else: copy it again ("+whereToken+")")
		}
		if c.UserID != "" && c.UserID[0] == '@' && !isUser(c.UserID) {
			out = append(out, "MATRIX_USER_ID is "+strconv.Quote(c.UserID)+": write it as @name:server")
		}
	case c.UserID == "" || !c.Password.IsSet():
		out = append(out, "there is neither MATRIX_ACCESS_TOKEN ("+whereToken+") nor MATRIX_USER_ID with MATRIX_PASSWORD")
	case c.UserID[0] == '@' && !isUser(c.UserID):
		out = append(out, "MATRIX_USER_ID is "+strconv.Quote(c.UserID)+": write it as @name:server")
	}
	return out
}

func (c *Config) setDefaults() {
	c.Homeserver = trimServer(c.Homeserver)
	if c.DeviceID == "" {
		c.DeviceID = "HERMES"
	}
	c.CatchUp = orDefault(c.CatchUp, 7*24*time.Hour)
	c.SendTimeout = orDefault(c.SendTimeout, 30*time.Second)
	c.PollTimeout = orDefault(c.PollTimeout, 30*time.Second)
}

// trimServer leaves of an address what stands before the API's own paths.
func trimServer(s string) string {
	return strings.TrimRight(strings.TrimSuffix(strings.TrimRight(strings.TrimSpace(s), "/"), "/_matrix/client"), "/")
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
