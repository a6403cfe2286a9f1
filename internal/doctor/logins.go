package doctor

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"hermes/internal/home"
	"hermes/internal/model/login"
)

// models are the model and its fallbacks.
func (c *Case) models() []home.ModelConfig {
	if c.Config == nil {
		return nil
	}
	return append([]home.ModelConfig{c.Config.Model}, c.Config.Fallbacks...)
}

// pool gives the credentials that a model is called with, where they stand in an
// auth.json; nil where its key stands elsewhere, which goes before.
func (c *Case) pool(m home.ModelConfig) []login.Credential {
	if m.LoginFile == "" {
		return nil
	}
	i := slices.IndexFunc(c.Auth, func(a authFile) bool { return a.Path == m.LoginFile })
	if i < 0 {
		return nil
	}
	return slices.DeleteFunc(slices.Clone(c.Auth[i].Entries), func(e login.Credential) bool { return e.Provider != m.Provider })
}

// checkLogins looks at the logins of the providers in use.
func checkLogins(c *Case) []Finding {
	var out []Finding
	seen := map[string]bool{}
	for _, m := range c.models() {
		for _, e := range c.pool(m) {
			key := m.LoginFile + "\x00" + e.Provider + "\x00" + e.ID
			if seen[key] || e.Type != login.OAuth {
				continue
			}
			seen[key] = true
			if f, bad := c.judgeLogin(m, e); bad {
				out = append(out, f)
			}
		}
	}
	return out
}

// judgeLogin says what is wrong with a login by what is written of it.
func (c *Case) judgeLogin(m home.ModelConfig, e login.Credential) (f Finding, bad bool) {
	f = Finding{Class: Provider, Severity: Error, depth: ofSetting, about: e.Provider + " " + e.ID, explains: []string{"provider.key_refused", "service.part_model", "provider.key_missing", "provider.auth"},
		Evidence: []string{fmt.Sprintf("%s: %s %q", m.LoginFile, e.Provider, e.Label)}, Fix: c.then(c.loginAnew(m, e))}
	renews := e.Refresh.IsSet() && e.TokenURL != ""
	failure := strings.ToLower(e.Failure)
	switch {
	case strings.Contains(failure, "reused") || strings.Contains(failure, "consumed") || strings.Contains(failure, "invalid_grant"):
		f.ID, f.What = "provider.login_consumed", "the login at "+e.Provider+" was used up by another program, or revoked"
		f.Evidence = append(f.Evidence, "its last error: "+e.Failure)
		f.Means = "A refresh token is good for one use; whoever used it has the next one, and this copy is worthless."
	case !e.CutShort.IsZero():
		f.ID, f.Severity, f.What = "provider.login_uncertain", Warning, "a renewal of the login at "+e.Provider+" did not end"
		f.Evidence = append(f.Evidence, "it began "+e.CutShort.Local().Format("2006-01-02 15:04:05"))
		f.Means, f.Fix = "Its refresh token may be used up; the next renewal tells.", c.auth(m, "refresh "+e.Provider)
	case e.Expired(c.Now()) && !renews:
		f.ID, f.What = "provider.login_expired", "the login at "+e.Provider+" has expired, and cannot be renewed"
		f.Evidence = append(f.Evidence, "it was good until "+e.Expires.Local().Format("2006-01-02 15:04")+noRenewal(e))
		f.Means = "Every call is refused until somebody logs in again."
	case !e.Expires.IsZero() && !renews:
		f.ID, f.Severity, f.What = "provider.login_ends", Warning, "the login at "+e.Provider+" cannot be renewed when it ends"
		f.Evidence = append(f.Evidence, "it is good until "+e.Expires.Local().Format("2006-01-02 15:04")+noRenewal(e))
		f.Means = "From then on every call is refused until somebody logs in again."
	default:
		return f, false
	}
	return f, true
}

// noRenewal says why a login cannot be renewed.
func noRenewal(e login.Credential) string {
	if !e.Refresh.IsSet() {
		return ", and has no refresh token"
	}
	return ", and nothing says where it is renewed"
}

// auth is a command of `hermes auth` for the profile whose file holds a model's
// logins.
func (c *Case) auth(m home.ModelConfig, args string) string {
	if c.Profile.Home != c.Root && filepath.Dir(m.LoginFile) == c.Root {
		return "hermes -p " + home.DefaultProfile + " auth " + args
	}
	return c.hermes("auth " + args)
}

// loginAnew is the command that logs in again, and only then takes the old login
// away. Where nobody knows how to sign in to the provider, a key takes its place.
func (c *Case) loginAnew(m home.ModelConfig, e login.Credential) string {
	add := "add " + e.Provider + " --key-file <file with a key>"
	known, ok := login.ServiceOf(e.Provider)
	switch {
	case ok && (e.TokenURL == "" || e.TokenURL == known.TokenURL):
		add = "add " + e.Provider + " --type oauth"
	case e.TokenURL != "" && e.ClientID != "":
		add = fmt.Sprintf("add %s --type oauth --device-url <address that gives codes> --token-url %s --client-id %s", e.Provider, e.TokenURL, e.ClientID)
	}
	return c.auth(m, add) + " && " + c.auth(m, fmt.Sprintf("remove %s %s", e.Provider, e.ID))
}

// newKey is the command that puts another key in the place of the one that a
// model is called with.
func (c *Case) newKey(m home.ModelConfig) string {
	pool := c.pool(m)
	if i := slices.IndexFunc(pool, func(e login.Credential) bool { return e.Access.Reveal() == m.Key.Reveal() }); m.Key.IsSet() && i >= 0 {
		return c.then(c.auth(m, "add "+m.Provider+" --key-file <file with a key>") + " && " + c.auth(m, fmt.Sprintf("remove %s %s", m.Provider, pool[i].ID)))
	}
	if len(pool) > 0 && !m.Key.IsSet() { // logins alone
		return c.then(c.loginAnew(m, pool[0]))
	}
	return c.then(c.hermes("config set " + c.keyPlace(m) + " <key>"))
}
