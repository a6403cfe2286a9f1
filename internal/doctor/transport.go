package doctor

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"hermes/internal/domain"
	"hermes/internal/gateway"
	"hermes/internal/health"
	"hermes/internal/home"
	"hermes/internal/lazyregexp"
	"hermes/internal/platform"
)

// transportChecks are about the chat platforms.
func transportChecks() []check { return []check{checkPlatforms, checkUnknownPlatforms} }

// notCredentials end the codes of a platform that is down for other reasons
// than that its credentials are refused.
var notCredentials = []string{"_lock", "config", "quarantine", "_webhook", "_409", "_taken", "_two_apps", "panic"}

// checkPlatforms judges each platform by what the running gateway found, or by
// its answer to a probe.
func checkPlatforms(c *Case) []Finding {
	if c.Config == nil {
		return nil
	}
	var out []Finding
	for _, name := range slices.Sorted(maps.Keys(c.Config.Platforms)) {
		cfg := c.Config.Platforms[name]
		if !cfg.Enabled || name == domain.PlatformWebchat {
			continue
		}
		part := c.part("platform." + string(name))
		f := Finding{Class: Transport, Severity: Error, depth: ofPart, about: string(name), explains: []string{"delivery.waiting:" + string(name), "delivery.dead:" + string(name), "delivery.held_up"}}
		switch p := c.Probes[name]; {
		case part.bad():
			f.Evidence = []string{"status since " + part.Since.Local().Format("15:04:05") + ": " + part.Message}
			code := part.Code
			if part.State == health.Down && !slices.ContainsFunc(notCredentials, func(s string) bool { return strings.HasSuffix(code, s) }) {
				code = "token" // an adapter is down for good only when its credentials are refused
			}
			c.judgePlatform(&f, name, cfg, code, part.Message, part.State == health.Degraded)
		case p.Err != nil:
			var e *platform.Error
			code, reason := "config", domain.MessageOf(p.Err)
			if errors.As(p.Err, &e) {
				code, reason = e.Code, e.Reason
				if e.Kind == platform.BadCredentials {
					code = "token"
				}
			}
			f.Evidence = []string{string(name) + " was asked: " + reason}
			c.judgePlatform(&f, name, cfg, code, reason, platform.Unreachable(p.Err))
		default:
			continue
		}
		out = append(out, f)
	}
	return out
}

// secretVariable finds the name of a credential in what an adapter says.
var secretVariable = lazyregexp.New(`\b[A-Z]+_[A-Z_]*(?:TOKEN|PASSWORD|SECRET|KEY)\b`)

// judgePlatform names what is wrong with a platform by the code that its
// adapter gave.
func (c *Case) judgePlatform(f *Finding, name domain.Platform, cfg home.PlatformConfig, code, reason string, passing bool) {
	token, where := tokenName(name), cfg.TokenOrigin
	if other := secretVariable.FindString(reason); strings.HasPrefix(other, strings.ToUpper(string(name))+"_") && other != token && c.Env != nil {
		token, where = other, c.Env.Origin(other).String() // a platform may have two
	}
	if where == "" {
		where = "where it stands is not known"
	}
	newToken := c.then(c.hermes("config set " + token + " <token>"))
	if strings.HasPrefix(where, "config.yaml") {
		newToken = c.then(c.hermes("config set platforms." + string(name) + ".token <token>"))
	}
	switch {
	case strings.HasSuffix(code, "_lock"):
		f.ID, f.What = "transport.bot_in_use", fmt.Sprintf("another gateway uses this profile's %s bot", name)
		f.Means, f.Fix = "Two would take each other's messages, so this one leaves the platform off.", newToken
	case code == "token" || code == "bad_credentials" || strings.HasSuffix(code, "_token") || strings.HasSuffix(code, "_401") || code == "telegram_404":
		f.ID, f.What = "transport.token_refused", fmt.Sprintf("%s refuses the token", name)
		f.Evidence = append(f.Evidence, "the token: "+c.fullOrigin(where))
		f.Means, f.Fix = "Nobody is heard and nothing is sent there.", newToken
	case strings.HasSuffix(code, "_two_apps"):
		f.ID, f.What = "transport.two_apps", "the two tokens of Slack belong to two apps"
		f.Means = "Nobody is heard and nothing is sent there."
		f.Fix = c.then(c.hermes("config set SLACK_BOT_TOKEN <bot token>") + " && " + c.hermes("config set SLACK_APP_TOKEN <app token>"))
	case strings.HasSuffix(code, "_webhook"):
		f.ID, f.What = "transport.webhook", "a webhook is set for the bot, so it cannot be polled"
		f.Means, f.Fix = "Messages go to the webhook's address, not here.", c.then(c.hermes("config set platforms."+string(name)+".extra.delete_webhook true"))
	case strings.HasSuffix(code, "_409") || strings.HasSuffix(code, "_taken"):
		f.ID, f.What = "transport.second_poller", "another program polls the same bot"
		f.Means, f.Fix = "The two take each other's messages.", newToken
	case code == "discord_4014":
		f.ID, f.Severity, f.What = "transport.intents", Warning, "Discord does not let the bot read what people write"
		f.Means = "In servers only messages that mention the bot are understood."
		f.Fix = c.serve() + "   # after Message Content Intent is on (Bot) at https://discord.com/developers/applications"
	case code == "config":
		f.ID, f.What = "transport.setting", fmt.Sprintf("%s is not set up right", name)
		f.Means, f.Fix = "The platform stays off; the others run.", c.settingFix(name, reason)
	case code == "panic":
		f.ID, f.What, f.Means, f.Fix = "transport.panic", fmt.Sprintf("the connection to %s crashed", name), "It is made again; that is a defect.", c.hermes("logs errors -n 50")
	case strings.HasSuffix(code, "_429"):
		f.ID, f.Severity, f.What, f.Means = "transport.limited", Warning, fmt.Sprintf("%s asks this bot to slow down", name), "Messages wait, and go out by themselves."
		f.Fix = c.hermes("deliveries --open")
	case passing && !strings.HasSuffix(code, "_unreachable") && code != "":
		f.ID, f.Severity, f.What = "transport.degraded", Warning, fmt.Sprintf("%s is held up", name)
		f.Means, f.Fix = "It is tried again by itself; what is said there comes late.", c.hermes("gateway restart")
	case passing || strings.HasSuffix(code, "_unreachable"):
		f.ID, f.Severity, f.What = "transport.unreachable", Warning, fmt.Sprintf("%s could not be reached from here", name)
		f.Means = "That says nothing of the token: the address may be wrong, the service off, or this machine without network."
		f.Fix = c.then(c.hermes("config set " + c.addressKey(name) + " <address>"))
		if cfg.Extra["base_url"] == "" {
			f.Fix = "curl -sS -m 5 -o /dev/null -w '%{http_code}\\n' " + addressOf(name)
		}
	default:
		f.ID, f.What = "transport.refused", fmt.Sprintf("%s does not work", name)
		f.Means, f.Fix = "Nobody is heard and nothing is sent there.", c.hermes("gateway restart")
	}
}

// addressKey is where a platform's address is set.
func (c *Case) addressKey(name domain.Platform) string {
	prefix := strings.ToUpper(string(name))
	for _, n := range []string{prefix + "_BASE_URL", prefix + "_URL"} {
		if c.Env != nil && c.Env.Get(n) != "" {
			return n
		}
	}
	return "platforms." + string(name) + ".extra.base_url"
}

// addressOf is where a platform is reached when nothing else is set.
func addressOf(name domain.Platform) string {
	switch name {
	case "telegram":
		return "https://api.telegram.org"
	case "discord":
		return "https://discord.com/api/v10/gateway"
	}
	return "https://" + string(name) + ".com"
}

// settingFix is the command for a platform's setting that an adapter refuses.
func (c *Case) settingFix(name domain.Platform, reason string) string {
	if strings.Contains(strings.ToLower(reason), "token") {
		return c.then(c.hermes("config set " + tokenName(name) + " <token>"))
	}
	return c.then(c.hermes("config set " + c.addressKey(name) + " <address>"))
}

// fullOrigin gives an origin with the path of its file.
func (c *Case) fullOrigin(o string) string {
	switch {
	case strings.HasPrefix(o, ".env"):
		return c.Profile.EnvFile() + strings.TrimPrefix(o, ".env")
	case strings.HasPrefix(o, "config.yaml"):
		return c.Profile.ConfigFile() + strings.TrimPrefix(o, "config.yaml")
	}
	return o
}

// checkUnknownPlatforms finds platforms that are switched on and that this
// build cannot connect to.
func checkUnknownPlatforms(c *Case) []Finding {
	if c.Config == nil {
		return nil
	}
	var out []Finding
	for _, name := range slices.Sorted(maps.Keys(c.Config.Platforms)) {
		if c.Config.Platforms[name].Enabled && !gateway.Connectable(name) {
			out = append(out, Finding{ID: "transport.unknown_platform", Class: Transport, Severity: Warning, depth: ofSetting, about: string(name),
				What:     "this version cannot connect to " + string(name),
				Evidence: []string{"platforms." + string(name) + " has credentials and is switched on"},
				Means:    "Nobody is heard there; the other platforms run.", Fix: c.then(c.hermes("config set platforms." + string(name) + ".enabled false"))})
		}
	}
	return out
}
