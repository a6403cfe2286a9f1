package cron

import (
	"slices"
	"strings"

	"hermes/internal/domain"
)

// Homes tells where a profile can send to.
type Homes interface {
	// Platforms lists the platforms that are switched on, in their fixed order.
	Platforms() []domain.Platform
	// Home is the home channel of a platform, with the topic that is set for
	// cron. ok is false when none is set.
	Home(p domain.Platform) (domain.Address, bool)
	// Channel finds a chat by its name ("#general", "Acme/#general", "Team",
	// each with ":<thread>" behind it) on a platform, "" for any. found is false
	// and err nil when the text is an id. domain.NotFound when no chat is called
	// so, domain.Conflict when several are; both say which there are.
	Channel(p domain.Platform, name string) (a domain.Address, found bool, err error)
}

// Targets resolves the deliver list of a job.
type Targets struct{ Homes Homes }

// knownPlatforms tells a misspelt platform from one that is only not set up.
func knownPlatforms() []string {
	return []string{"telegram", "discord", "slack", "mattermost", "matrix", "email", "whatsapp", "signal", "sms",
		"webhook", "webchat", "homeassistant", "dingtalk", "feishu", "wecom", "weixin", "bluebubbles", "qqbot",
		"teams", "line", "ntfy", "irc", "simplex", "googlechat"}
}

// SplitTargets splits a comma list and drops what is empty.
func SplitTargets(list ...string) []string {
	var out []string
	for _, item := range list {
		for t := range strings.SplitSeq(item, ",") {
			if t = strings.TrimSpace(t); t != "" {
				out = append(out, t)
			}
		}
	}
	return out
}

// Resolve gives the addresses of a deliver list, each once. Every entry that
// cannot be resolved adds a sentence to problems; the others still resolve.
func (r *Targets) Resolve(deliver []string, origin *Origin) (to []domain.Address, problems []string) {
	add := func(a domain.Address) {
		if !slices.Contains(to, a) {
			to = append(to, a)
		}
	}
	if r == nil || r.Homes == nil {
		if len(deliver) > 0 && !slices.Equal(deliver, []string{DeliverLocal}) {
			return nil, []string{"no platform can be reached from here, so nothing can be delivered"}
		}
		return nil, nil
	}
	for _, target := range deliver {
		switch strings.ToLower(target) {
		case DeliverLocal:
		case DeliverAll:
			n := len(to)
			for _, p := range r.Homes.Platforms() {
				if a, ok := r.Homes.Home(p); ok {
					add(a)
				}
			}
			if len(to) == n {
				problems = append(problems, "deliver=all: no platform has a home channel; send /sethome in the chat that should get it")
			}
		case DeliverOrigin:
			switch a, ok := r.anyHome(); {
			case origin != nil && origin.ChatID != "":
				add(origin.Address())
			case ok:
				add(a)
			default:
				problems = append(problems, "no delivery target resolved for deliver=origin: the job was not created in a chat, and no platform has a home channel; send /sethome in the chat that should get it, or name one, e.g. --deliver telegram:123456")
			}
		default:
			a, problem := r.one(target)
			if problem != "" {
				problems = append(problems, problem)
				continue
			}
			add(a)
		}
	}
	return to, problems
}

// anyHome is the first home channel in the order of the platforms.
func (r *Targets) anyHome() (domain.Address, bool) {
	if r == nil || r.Homes == nil {
		return domain.Address{}, false
	}
	for _, p := range r.Homes.Platforms() {
		if a, ok := r.Homes.Home(p); ok {
			return a, true
		}
	}
	return domain.Address{}, false
}

// one resolves <platform>, <platform>:<chat>[:<thread>] or <platform>:<name>.
func (r *Targets) one(target string) (domain.Address, string) {
	if strings.HasPrefix(target, "#") {
		return r.named("", target, target)
	}
	name, rest, hasChat := strings.Cut(target, ":")
	p := domain.Platform(strings.ToLower(strings.TrimSpace(name)))
	if !slices.Contains(r.Homes.Platforms(), p) {
		if !slices.Contains(knownPlatforms(), string(p)) {
			return domain.Address{}, "unknown platform '" + name + "' in deliver=" + target + "; write local, origin, all, telegram, telegram:<chat id> or discord:#channel"
		}
		return domain.Address{}, "platform '" + string(p) + "' not configured/enabled, so deliver=" + target + " has nowhere to go; set its token in .env (see `hermes doctor`)"
	}
	if !hasChat || rest == "" {
		if a, ok := r.Homes.Home(p); ok {
			return a, ""
		}
		return domain.Address{}, "no delivery target resolved for deliver=" + target + ": " + string(p) + " has no home channel; send /sethome in the chat that should get it, or name one, e.g. " + string(p) + ":<chat id>"
	}
	return r.named(p, rest, target)
}

// named resolves the name or the id of a chat.
func (r *Targets) named(p domain.Platform, chat, target string) (domain.Address, string) {
	a, found, err := r.Homes.Channel(p, chat)
	switch {
	case err != nil:
		return domain.Address{}, "deliver=" + target + ": " + domain.MessageOf(err)
	case !found:
		return parseAddress(p, chat), ""
	case !slices.Contains(r.Homes.Platforms(), a.Platform):
		return domain.Address{}, "platform '" + string(a.Platform) + "' not configured/enabled, so deliver=" + target + " has nowhere to go"
	}
	return a, ""
}

// parseAddress splits chat[:thread]. Ids that hold colons themselves (Matrix
// rooms, "!abc:example.org") are whole.
func parseAddress(p domain.Platform, rest string) domain.Address {
	if strings.HasPrefix(rest, "!") || strings.Contains(rest, "@") {
		return domain.Address{Platform: p, ChatID: rest}
	}
	chat, thread, _ := strings.Cut(rest, ":")
	return domain.Address{Platform: p, ChatID: chat, ThreadID: thread}
}
