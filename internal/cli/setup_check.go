package cli

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"

	"hermes/internal/domain"
	"hermes/internal/gateway"
	"hermes/internal/home"
	"hermes/internal/model"
	"hermes/internal/platform"
)

// How often a question is put again, and how long a platform may take to answer.
const (
	attempts      = 3
	platformLimit = 15 * time.Second
)

// askTheModel asks for the model and calls it.
func (w *wizard) askTheModel(ctx context.Context) error {
	cfg, err := w.config()
	if err != nil {
		return err
	}
	given := w.f.provider != "" || w.f.model != "" || w.f.baseURL != "" || w.key.IsSet()
	switch {
	case given:
		return w.useModel(ctx, w.modelOfFlags(cfg))
	case w.q == nil && !cfg.Model.IsSet():
		w.missing = append(w.missing, "--provider NAME and --model NAME")
		return nil
	case w.q == nil:
		return nil
	}
	w.heading("Which model answers?")
	if cfg.Model.IsSet() {
		keep, err := w.q.sure(ctx, "Keep "+modelTitle(cfg.Model)+"?", true)
		if err != nil || keep {
			return err
		}
	}
	for range attempts {
		c, err := w.askChoice(ctx, w.q, cfg.Model)
		if err != nil {
			return err
		}
		again, err := w.tryAgain(ctx, w.useModel(ctx, c))
		if err != nil || !again {
			return err
		}
	}
	return domain.E(domain.Unavailable, nil, "no model answered, so nothing was written")
}

// modelOfFlags is the model that flags name; what they leave out stays.
func (w *wizard) modelOfFlags(cfg *home.Config) home.Choice {
	c := home.Choice{Provider: w.f.provider, Model: w.f.model, BaseURL: w.f.baseURL, Key: w.key}
	if c.Provider == "" {
		c.Provider = cfg.Model.Provider
		if c.BaseURL != "" && !cfg.Model.IsSet() {
			c.Provider = home.CustomProvider
		}
	}
	if c.Model == "" && c.Provider == cfg.Model.Provider {
		c.Model = cfg.Model.Model
	}
	return c
}

// unproved is an answer that may be right: what was to prove it could not be
// reached from here. keep takes it all the same.
type unproved struct {
	why  error
	keep func()
}

func (u *unproved) Error() string { return u.why.Error() }
func (u *unproved) Unwrap() error { return u.why }

// tryAgain says what is wrong with an answer, and whether to ask for another.
// Where it could only not be proved, the person decides.
func (w *wizard) tryAgain(ctx context.Context, err error) (bool, error) {
	if err == nil || ctx.Err() != nil || domain.IsCode(err, domain.Cancelled) || w.q.ended {
		return false, err
	}
	u, unsure := errors.AsType[*unproved](err)
	if !unsure {
		wrap(w.Err, "✗ ", domain.MessageOf(err))
		return true, nil
	}
	wrap(w.Err, "? ", domain.MessageOf(err)+". That says nothing of the answer itself.")
	keep, err := w.q.sure(ctx, "Keep it all the same?", false)
	if keep {
		u.keep()
	}
	return !keep, err
}

// orNoCheck is how a failed proof ends where nobody is asked.
func (w *wizard) orNoCheck(err error) error {
	if _, unsure := errors.AsType[*unproved](err); w.q == nil && unsure {
		return domain.E(domain.Unavailable, nil, "nothing was written: %s. That says nothing of what was given; --no-check writes it all the same", domain.MessageOf(err))
	}
	if w.q == nil && err != nil {
		return domain.E(domain.CodeOf(err), nil, "nothing was written: %s", domain.MessageOf(err))
	}
	return err
}

// useModel puts a model into the plan, once it has answered.
func (w *wizard) useModel(ctx context.Context, c home.Choice) error {
	plan, err := w.plan.Choose(c)
	if err != nil {
		return err
	}
	_, cfg, problems, err := plan.Load()
	if err != nil {
		return err
	}
	for _, p := range problems {
		if p.Severity == home.Fault && (p.Key == "model" || strings.HasPrefix(p.Key, "model.")) && !w.f.noCheck {
			return w.orNoCheck(domain.E(domain.Invalid, nil, "%s", p.Message))
		}
	}
	if err := w.proveModel(ctx, cfg.Model, func() { w.plan = plan }); err != nil {
		return w.orNoCheck(err)
	}
	w.plan = plan
	return nil
}

// proveModel calls a model once. *unproved when it could not be reached.
func (w *wizard) proveModel(ctx context.Context, m home.ModelConfig, keep func()) error {
	if w.f.noCheck {
		return nil
	}
	if m.Provider == home.OfflineProvider {
		wrap(w.Out, "! ", "The offline stand-in answers by rules; it is no real model.")
		return nil
	}
	said, err := w.callModel(ctx, m)
	if ctx.Err() != nil {
		return domain.E(domain.Cancelled, nil, "stopped; nothing was changed")
	}
	if err == nil {
		wrap(w.Out, "✓ ", said+".")
		return nil
	}
	if silent, ok := errors.AsType[*silence](err); ok {
		return &unproved{silent.why, keep}
	}
	return err
}

// silence is the failure of a service that could not be reached, or did not
// answer in time.
type silence struct{ why error }

func (s *silence) Error() string { return s.why.Error() }
func (s *silence) Unwrap() error { return s.why }

// unheard tells whether a model's failure says nothing of key and name.
func unheard(err error) bool {
	e := model.AsError(err)
	return e.Status == 0 && (e.Kind == model.Unavailable || e.Kind == model.Timeout)
}

// provePlatform asks a platform whether it takes the credentials of the plan,
// and shows whose they are. *unproved when it could not be reached.
func (w *wizard) provePlatform(ctx context.Context, name domain.Platform, plan home.Plan) error {
	_, cfg, problems, err := plan.Load()
	if err != nil {
		return err
	}
	pc := cfg.Platforms[name]
	if !pc.Enabled {
		why := "it stays off"
		for _, p := range problems {
			if strings.HasPrefix(p.Key, "platforms."+string(name)) {
				why = p.Message
			}
		}
		return domain.E(domain.Invalid, nil, "%s: %s", name, why)
	}
	if err := w.ownBot(name, pc); err != nil || w.f.noCheck {
		return err
	}
	asked, cancel := context.WithTimeout(ctx, platformLimit)
	defer cancel()
	known, account, err := gateway.CheckPlatform(asked, name, pc)
	switch {
	case ctx.Err() != nil:
		return domain.E(domain.Cancelled, nil, "stopped; nothing was changed")
	case err == nil && known:
		wrap(w.Out, "✓ ", fmt.Sprintf("%s is %s.", name, orText(account, "there")))
		return nil
	case err == nil:
		return nil
	case domain.IsCode(err, domain.Invalid):
		return err
	case platform.Unreachable(err):
		return &unproved{domain.E(domain.Unavailable, nil, "%s could not be reached from here: %s", name, strings.TrimSuffix(platform.AsError(err).Reason, ".")), func() { w.plan = plan }}
	}
	return domain.E(domain.Unavailable, nil, "%s: %s", name, strings.TrimSuffix(platform.AsError(err).Reason, "."))
}

// orText gives text, or what stands in for it.
func orText(text, none string) string {
	if text == "" {
		return none
	}
	return text
}

// ownBot holds that no other profile has the bot already: two would take each
// other's messages. Errors: Conflict.
func (w *wizard) ownBot(name domain.Platform, mine home.PlatformConfig) error {
	all, err := home.List(w.p.Root)
	if err != nil {
		return err
	}
	for _, p := range all {
		cfg, ok := w.configOf(p)
		if p.Name == w.p.Name || !ok {
			continue
		}
		if other := cfg.Platforms[name]; other.Token.IsSet() && other.Token == mine.Token {
			return domain.E(domain.Conflict, nil, "the profile %s has this %s account already, and two profiles cannot share one: give this one an account of its own", p.Name, name)
		}
	}
	return nil
}

// configOf loads another profile, without this process's variables: they are
// the settings of the one that it was started for.
func (w *wizard) configOf(p home.Profile) (*home.Config, bool) {
	env, _, err := home.LoadEnv(p, []string{"HOME=" + w.UserHome()})
	if err != nil {
		return nil, false
	}
	cfg, _, err := home.Load(p, env)
	return cfg, err == nil
}

// askAPI asks who may reach the API.
func (w *wizard) askAPI(ctx context.Context) error {
	cfg, err := w.config()
	if err != nil {
		return err
	}
	now := apiOff
	switch {
	case cfg.API.Enabled && isLoopback(cfg.API.Host):
		now = apiLocal
	case cfg.API.Enabled:
		now = apiRemote
	}
	want, port := w.f.api, w.f.apiPort
	if want == "" && (w.f.apiHost != "" || port != 0) {
		want = apiLocal
		if w.f.apiHost != "" && !isLoopback(w.f.apiHost) {
			want = apiRemote
		}
	}
	if want == "" && w.q == nil {
		return nil
	}
	if port == 0 {
		port = w.freePort(cfg)
	}
	if want == "" {
		w.heading("Who may reach its HTTP API, chat page and dashboard?")
		fallback := now
		if len(w.plan.Changed()) > 0 && now == apiOff {
			fallback = apiLocal // a first set-up
		}
		if want, err = w.q.menu(ctx, "Number", []option{
			{apiOff, "nobody"}, {apiLocal, "programs on this machine"}, {apiRemote, "other machines too, with a key that is made now"},
		}, fallback); err != nil {
			return err
		}
		if want != apiOff && w.f.apiPort == 0 {
			if port, err = w.askPort(ctx, cfg, port); err != nil {
				return err
			}
		}
	}
	return w.useAPI(cfg, want, port)
}

// askPort asks for a port that nothing else holds.
func (w *wizard) askPort(ctx context.Context, cfg *home.Config, port int) (int, error) {
	for range attempts {
		text, err := w.q.line(ctx, "Port", strconv.Itoa(port))
		if err != nil {
			return 0, err
		}
		n, err := strconv.Atoi(text)
		if err == nil && n > 0 && n < 1<<16 {
			if err = w.portFree(cfg, n); err == nil {
				return n, nil
			}
			wrap(w.Err, "✗ ", domain.MessageOf(err))
			continue
		}
		fmt.Fprintf(w.Err, "A port is a number from 1 to 65535, not %q.\n", text)
	}
	return 0, domain.E(domain.Invalid, nil, "no port was chosen; nothing was changed")
}

// portFree tells why a port cannot be had; nil when it can, and for the one
// that this profile has already. Errors: Conflict.
func (w *wizard) portFree(cfg *home.Config, port int) error {
	if cfg.API.Enabled && cfg.API.Port == port {
		return nil
	}
	all, err := home.List(w.p.Root)
	if err != nil {
		return err
	}
	for _, p := range all {
		if c, ok := w.configOf(p); ok && p.Name != w.p.Name && c.API.Enabled && c.API.Port == port {
			return domain.E(domain.Conflict, nil, "the port %d is that of the profile %s", port, p.Name)
		}
	}
	l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
	if err != nil {
		return domain.E(domain.Conflict, nil, "the port %d is in use by another program", port)
	}
	return l.Close()
}

// freePort proposes a port: the profile's own, else the next that is free.
func (w *wizard) freePort(cfg *home.Config) int {
	const tried = 100
	for port := cfg.API.Port; port < cfg.API.Port+tried; port++ {
		if w.portFree(cfg, port) == nil {
			return port
		}
	}
	return cfg.API.Port
}

// useAPI puts the switch, the address and, where one is needed, a key into the
// plan.
func (w *wizard) useAPI(cfg *home.Config, want string, port int) error {
	set := map[string]string{"API_SERVER_ENABLED": "false"}
	if want == apiOff && !cfg.API.Enabled {
		return nil
	}
	if want != apiOff {
		if w.f.apiPort != 0 {
			if err := w.portFree(cfg, port); err != nil {
				return err
			}
		}
		host := w.f.apiHost
		switch {
		case host == "" && want == apiLocal:
			host = "127.0.0.1"
		case host == "" && !isLoopback(cfg.API.Host):
			host = cfg.API.Host
		case host == "":
			host = "0.0.0.0"
		}
		set = map[string]string{"API_SERVER_ENABLED": "true", "API_SERVER_HOST": host, "API_SERVER_PORT": strconv.Itoa(port)}
		const strong = 16 // characters; what a network bind asks for
		weak := want == apiRemote && len(cfg.API.Key.Reveal()) < strong
		if w.vars["API_SERVER_KEY"] == "" && (weak || w.freshKey) {
			key := make([]byte, 32)
			_, _ = rand.Read(key) // it never fails: crypto/rand
			set["API_SERVER_KEY"] = hex.EncodeToString(key)
		}
	}
	changes := map[string]*string{}
	for name, value := range set {
		changes[name] = &value
	}
	plan, err := w.plan.SetEnv(changes)
	if err != nil {
		return err
	}
	_, now, _, err := plan.Load()
	if err != nil {
		return err
	}
	if now.API.Enabled != (want != apiOff) {
		return domain.E(domain.Conflict, nil, "config.yaml says otherwise about the API (platforms.api_server.enabled); `hermes%s config unset platforms.api_server.enabled` first; nothing was changed", profileFlag(w.p))
	}
	w.plan = plan
	return nil
}

// isLoopback tells whether only this machine reaches an address.
func isLoopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}
