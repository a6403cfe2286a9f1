package webhook

import (
	"encoding/json"
	"fmt"
	"maps"
	"net"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"hermes/internal/home"
	"hermes/internal/platform/clean"
	"hermes/internal/platform/settings"
	"hermes/internal/secret"
)

// NoAuth in place of a route's secret lets everybody call it who can reach it.
// It is honoured on a loopback address only.
const NoAuth = "INSECURE_NO_AUTH"

// DefaultPort is where calls are taken where nothing else is configured.
const DefaultPort = 8644

// subscriptionsFile is the list of routes in a profile's home that `hermes
// webhook subscribe` keeps.
const subscriptionsFile = "webhook_subscriptions.json"

// The bounds of a listener and of its lists.
const (
	maxRoutes       = 1000
	maxAtOnce       = 64 // requests
	minSecret       = 8  // characters; a shorter one is guessed
	maxSecretsOfOne = 4
)

// Config is one listener with its routes. The zero Config listens on every
// address, port 8644, and has no route.
type Config struct {
	Host    string         // "" means 0.0.0.0
	Port    int            // 0 means 8644; negative means any that is free
	Secrets []secret.Value // for routes without one of their own: the present one and, while callers change, the one before
	Routes  map[string]Route
	Targets map[string]Target // addresses that messages can be sent to, by name
	// Subscriptions is the file of further routes, read again when it changes;
	// "" means none. Config.Routes win over it.
	Subscriptions string
	MaxBody       int64         // bytes of one call; 0 means 1 MiB
	PerMinute     int           // calls of one route; 0 means 30, negative no limit
	Tolerance     time.Duration // between a call's timestamp and our clock; 0 means 5 min
	SendTimeout   time.Duration // of one post; 0 means 20 s
}

// Target is an address that messages are posted to.
type Target struct {
	URL     string
	Secrets []secret.Value // each signs; none: not signed
}

// FromProfile reads the configuration of a profile; dir is its home. It answers
// domain.Config with every problem in one message.
func FromProfile(p home.PlatformConfig, dir home.Profile) (Config, error) {
	c := Config{Host: p.Extra["host"], Subscriptions: SubscriptionsFile(dir)}
	r := settings.Of("webhook", p)
	c.Port = int(r.Number("port", 1, 65535))
	c.PerMinute = int(r.Number("rate_limit", -1, 1_000_000))
	c.MaxBody = r.Number("max_body_bytes", 1, 64<<20)
	c.Tolerance = time.Duration(r.Number("tolerance_seconds", 1, 24*60*60)) * time.Second
	for _, s := range []string{p.Token.Reveal(), p.Extra["previous_secret"]} {
		if s != "" {
			c.Secrets = append(c.Secrets, secret.Value(s))
		}
	}
	if text := p.Extra["routes"]; text != "" {
		if err := json.Unmarshal([]byte(text), &c.Routes); err != nil {
			r.Problem("platforms.webhook.extra.routes cannot be read: " + plainJSON(err))
		}
	}
	if text := p.Extra["targets"]; text != "" {
		var raw map[string]struct {
			URL    string `json:"url"`
			Secret keys   `json:"secret"`
		}
		if err := json.Unmarshal([]byte(text), &raw); err != nil {
			r.Problem("platforms.webhook.extra.targets cannot be read: " + plainJSON(err))
		}
		c.Targets = map[string]Target{}
		for name, t := range raw {
			c.Targets[name] = Target{URL: t.URL, Secrets: t.Secret.values()}
		}
	}
	checked := c
	checked.setDefaults()
	r.Problem(checked.problems()...)
	if err := r.Err(notSetUp); err != nil {
		return Config{}, err
	}
	return c, nil
}

const notSetUp = "the webhooks are"

// Address is where a profile's webhooks are taken.
func Address(p home.PlatformConfig) (host string, port int) {
	c := Config{Host: p.Extra["host"]}
	c.Port, _ = strconv.Atoi(strings.TrimSpace(p.Extra["port"]))
	c.setDefaults()
	return c.Host, c.Port
}

// SubscriptionsFile is the path of a profile's list of routes.
func SubscriptionsFile(p home.Profile) string { return p.Path(subscriptionsFile) }

// plainJSON says what is wrong with a text, without a word of it: it may hold
// secrets.
func plainJSON(err error) string {
	if t, ok := err.(*json.UnmarshalTypeError); ok { //nolint:errorlint // it comes unwrapped
		return "a " + t.Value + " stands where " + t.Type.String() + " is expected (" + t.Field + ")"
	}
	return "it is not of the form that the documentation shows"
}

func (c *Config) setDefaults() {
	if c.Host == "" {
		c.Host = "0.0.0.0"
	}
	switch {
	case c.Port == 0:
		c.Port = DefaultPort
	case c.Port < 0:
		c.Port = 0
	}
	if c.MaxBody <= 0 {
		c.MaxBody = 1 << 20
	}
	if c.PerMinute == 0 {
		c.PerMinute = 30
	}
	if c.Tolerance <= 0 {
		c.Tolerance = 5 * time.Minute
	}
	if c.SendTimeout <= 0 {
		c.SendTimeout = 20 * time.Second
	}
}

// problems lists what New could not work with. A route that is wrong stops the
// platform: one that is silently off would be missed too late.
func (c Config) problems() []string {
	var out []string
	for i, s := range c.Secrets {
		if len(s) < minSecret && s.Reveal() != NoAuth {
			out = append(out, fmt.Sprintf("WEBHOOK_SECRET (number %d) has fewer than %d characters: set it to the output of `openssl rand -hex 32`", i+1, minSecret))
		}
	}
	if len(c.Routes) > maxRoutes {
		out = append(out, fmt.Sprintf("there are %d routes; at most %d are served", len(c.Routes), maxRoutes))
	}
	for _, name := range slices.Sorted(maps.Keys(c.Routes)) {
		r := c.Routes[name]
		for _, p := range c.routeProblems(name, &r) {
			out = append(out, "platforms.webhook.extra.routes."+clean.Short(name, 64)+": "+p)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(c.Targets)) {
		if !ValidName(name) {
			out = append(out, fmt.Sprintf("platforms.webhook.extra.targets: %q is no name; %s", clean.Short(name, 64), nameRule))
		}
		if p := urlProblem(c.Targets[name].URL); p != "" {
			out = append(out, "platforms.webhook.extra.targets."+clean.Short(name, 64)+": url "+p)
		}
	}
	return out
}

// routeProblems says why a route cannot be served.
func (c Config) routeProblems(name string, r *Route) []string {
	var out []string
	if !ValidName(name) {
		out = append(out, "that is no name; "+nameRule)
	}
	keys := c.keysOf(r)
	switch {
	case len(keys) == 0:
		out = append(out, "it has no secret: set secret, or WEBHOOK_SECRET in .env for all routes")
	case len(keys) > maxSecretsOfOne:
		out = append(out, fmt.Sprintf("it has %d secrets; at most %d are tried", len(keys), maxSecretsOfOne))
	}
	for _, k := range keys {
		switch {
		case k.Reveal() == NoAuth && !loopback(c.Host):
			out = append(out, NoAuth+" is honoured on a loopback address only: set WEBHOOK_HOST=127.0.0.1, or a secret")
		case len(k) < minSecret:
			out = append(out, fmt.Sprintf("its secret has fewer than %d characters: set it to the output of `openssl rand -hex 32`", minSecret))
		}
	}
	return append(out, r.problems()...)
}

// keysOf gives the secrets that may sign a route's calls.
func (c Config) keysOf(r *Route) []secret.Value {
	if own := r.Secret.values(); len(own) > 0 {
		return own
	}
	return c.Secrets
}

// loopback tells whether only this machine reaches an address to listen on.
func loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// urlProblem says what is wrong with an address to post to; "" for nothing.
func urlProblem(text string) string {
	switch u, err := url.Parse(text); {
	case text == "":
		return "is missing"
	case err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https":
		return "is no URL: write it with its scheme, e.g. https://example.com/hook"
	case u.User != nil:
		return "must not hold a password: calls are signed"
	}
	return ""
}

// URL is where a route is called from this machine.
func (c Config) URL(route string) string {
	c.setDefaults()
	host := c.Host
	if ip := net.ParseIP(host); ip != nil && ip.IsUnspecified() {
		host = "127.0.0.1"
	}
	return "http://" + net.JoinHostPort(host, strconv.Itoa(c.Port)) + "/webhooks/" + route
}
