package matrix

import (
	"net/url"
	"strconv"
	"strings"
	"time"

	"hermes/internal/home"
	"hermes/internal/platform/settings"
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

	settings.Rooms      // rooms by id, alias or name, threads by the id of their first event
	AllowBots      bool // notices, which is what bots write, are heard too
	OwnThreads     bool // what is asked in a room is answered in a thread of its own
	DirectThreads  bool // and what is asked directly as well
	Encryption     bool // end-to-end encryption was asked for, which is not to be had

	CatchUp     time.Duration // how far back gaps are filled; 0 means a week
	SendTimeout time.Duration // of one request without a file; 0 means 30 s
	PollTimeout time.Duration // of one long poll; 0 means 30 s
}

// FromProfile reads the configuration of a profile. It answers domain.Config
// with every problem in one message.
func FromProfile(p home.PlatformConfig) (Config, error) {
	r := settings.Of("matrix", p)
	c := Config{
		Homeserver: p.Extra["base_url"], Token: p.Token, TokenOrigin: p.TokenOrigin,
		UserID: r.Text("user_id"), Password: secret.Value(p.Extra["password"]), DeviceID: r.Text("device_id"), Proxy: p.Extra["proxy"],
		Rooms:      r.Rooms("free_response_rooms"),
		AllowBots:  r.AnyBots(),
		OwnThreads: r.Flag("auto_thread", true),
		Encryption: r.Flag("encryption", false),
		CatchUp:    r.Time("catch_up"),
	}
	switch settings.Word(r, "session_scope", "auto, room or thread", map[string]string{"": "auto", "auto": "auto", "room": "room", "thread": "thread"}) {
	case "room":
		c.OwnThreads = false
	case "thread":
		c.OwnThreads, c.DirectThreads = true, true
	}
	r.Problem(c.problems()...)
	if err := r.Err(notSetUp); err != nil {
		return Config{}, err
	}
	return c, nil
}

const notSetUp = "Matrix is"

// Identity is what the machine-wide lock of an account is about: the token, or
// the account where a password stands for one.
func Identity(p home.PlatformConfig) string {
	if p.Token.IsSet() {
		return p.Token.Reveal()
	}
	return trimServer(p.Extra["base_url"]) + " " + strings.TrimSpace(p.Extra["user_id"])
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
	out = append(out, settings.NoURLs("matrix", map[string]string{"proxy": c.Proxy})...)
	switch {
	case c.Token.IsSet():
		if settings.BadToken(c.Token.Reveal()) {
			out = append(out, "MATRIX_ACCESS_TOKEN"+settings.Origin(c.TokenOrigin)+" was copied with something else: copy it again ("+whereToken+")")
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
	c.CatchUp = settings.Or(c.CatchUp, 7*24*time.Hour)
	c.SendTimeout = settings.Or(c.SendTimeout, 30*time.Second)
	c.PollTimeout = settings.Or(c.PollTimeout, 30*time.Second)
}

// trimServer leaves of an address what stands before the API's own paths.
func trimServer(s string) string {
	return strings.TrimRight(strings.TrimSuffix(strings.TrimRight(strings.TrimSpace(s), "/"), "/_matrix/client"), "/")
}
