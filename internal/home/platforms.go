package home

import (
	"fmt"
	"slices"
	"strings"

	"hermes/internal/domain"
	"hermes/internal/secret"
)

// platformSpec says how a platform's credentials and variables are called.
type platformSpec struct {
	name     domain.Platform
	prefix   string   // of its variables, with "_"
	token    string   // the variable with its main credential
	required []string // the other variables without which it cannot run
	switchOn string   // a variable that switches it on, for one that needs no credential
	home     string   // variable of the home channel, where it is not <prefix>HOME_CHANNEL
	mention  bool     // require_mention's default
	react    bool     // reactions' default
	replyTo  string   // reply_to_mode's default
	noPair   bool     // strangers are ignored by default
	extras   []string // further variables that its adapter reads, for the list of known names
	numeric  bool     // user ids are numbers
	fold     bool     // user ids are the same in small and capital letters
}

// platformSpecs lists the platforms whose variables are known.
func platformSpecs() []platformSpec {
	return []platformSpec{
		{name: "telegram", prefix: "TELEGRAM_", token: "TELEGRAM_BOT_TOKEN", replyTo: "first", numeric: true,
			extras: []string{"WEBHOOK_URL", "WEBHOOK_PORT", "WEBHOOK_SECRET", "PROXY", "FREE_RESPONSE_CHATS"}},
		{name: "discord", prefix: "DISCORD_", token: "DISCORD_BOT_TOKEN", mention: true, react: true, replyTo: "first",
			extras: []string{"ALLOWED_ROLES", "ALLOWED_CHANNELS", "FREE_RESPONSE_CHANNELS", "AUTO_THREAD", "IGNORED_CHANNELS", "NO_THREAD_CHANNELS", "MAX_ATTACHMENT_BYTES", "COMMAND_SYNC_POLICY", "ALLOW_BOTS", "PROXY"}},
		{name: "slack", prefix: "SLACK_", token: "SLACK_BOT_TOKEN", required: []string{"SLACK_APP_TOKEN"}, mention: true, react: true, replyTo: "first",
			extras: []string{"ALLOW_BOTS", "ALLOWED_CHANNELS", "FREE_RESPONSE_CHANNELS", "REPLY_IN_THREAD", "CATCH_UP", "PROXY"}},
		{name: "mattermost", prefix: "MATTERMOST_", token: "MATTERMOST_TOKEN", required: []string{"MATTERMOST_URL"}, mention: true, replyTo: "off",
			extras: []string{"ALLOWED_CHANNELS", "FREE_RESPONSE_CHANNELS", "REPLY_MODE", "ALLOW_BOTS", "CATCH_UP", "PROXY"}},
		{name: "matrix", prefix: "MATRIX_", token: "MATRIX_ACCESS_TOKEN", required: []string{"MATRIX_HOMESERVER"}, home: "MATRIX_HOME_ROOM", mention: true, replyTo: "first",
			extras: []string{"USER_ID", "PASSWORD", "ALLOWED_ROOMS", "ENCRYPTION", "DEVICE_ID", "AUTO_THREAD", "SESSION_SCOPE", "FREE_RESPONSE_ROOMS", "ALLOW_BOTS", "CATCH_UP", "PROXY"}},
		{name: "email", prefix: "EMAIL_", token: "EMAIL_PASSWORD", required: []string{"EMAIL_ADDRESS", "EMAIL_IMAP_HOST", "EMAIL_SMTP_HOST"}, home: "EMAIL_HOME_ADDRESS", replyTo: "first", noPair: true,
			fold: true, extras: []string{"IMAP_PORT", "SMTP_PORT", "POLL_INTERVAL", "IMAP_SECURITY", "SMTP_SECURITY", "USERNAME", "NAME", "MAILBOX", "SENT_MAILBOX", "ALIASES", "MARK_SEEN", "SMTP_AUTH", "REQUIRE_DMARC", "AUTHSERV_ID"}},
		{name: "webhook", prefix: "WEBHOOK_", token: "WEBHOOK_SECRET", switchOn: "WEBHOOK_ENABLED", replyTo: "off", noPair: true,
			extras: []string{"PORT", "HOST", "PREVIOUS_SECRET", "RATE_LIMIT", "MAX_BODY_BYTES", "TOLERANCE_SECONDS"}},
	}
}

func specOf(p domain.Platform) platformSpec {
	for _, s := range platformSpecs() {
		if s.name == p {
			return s
		}
	}
	prefix := strings.ToUpper(string(p)) + "_"
	return platformSpec{name: p, prefix: prefix, token: prefix + "TOKEN", replyTo: "first"}
}

func defaultPlatform(p domain.Platform) *PlatformConfig {
	s := specOf(p)
	return &PlatformConfig{RequireMention: s.mention, Reactions: s.react, Typing: true, ReplyTo: s.replyTo, PairDMs: !s.noPair, Extra: map[string]string{}}
}

// platformSettings lists what can be set for one platform. Each may stand
// under platforms.<p>, gateway.platforms.<p> or <p>, there also under extra.
func platformSettings(s platformSpec) []*setting {
	at := func(d *draft) *PlatformConfig { return d.platform(s.name) }
	homeVar := s.prefix + "HOME_CHANNEL"
	if s.home != "" {
		homeVar = s.home
	}
	all := []*setting{
		secretSetting("token", func(d *draft) *secret.Value { return &at(d).Token }).also("api_key").env(s.token),
		listSetting("allowed_users", func(d *draft) *[]string { return &at(d).AllowedUsers }).also("allow_from").env(s.prefix + "ALLOWED_USERS"),
		boolSetting("allow_all_users", func(d *draft) *bool { return &at(d).AllowAll }).env(s.prefix + "ALLOW_ALL_USERS"),
		listSetting("group_allowed_users", func(d *draft) *[]string { return &at(d).GroupUsers }).env(s.prefix + "GROUP_ALLOWED_USERS"),
		listSetting("group_allowed_chats", func(d *draft) *[]string { return &at(d).GroupChats }).env(s.prefix + "GROUP_ALLOWED_CHATS"),
		listSetting("allowed_chats", func(d *draft) *[]string { return &at(d).AllowedChats }).
			also("allowed_channels", "allowed_rooms").
			env(s.prefix+"ALLOWED_CHATS", s.prefix+"ALLOWED_CHANNELS", s.prefix+"ALLOWED_ROOMS").
			safe(func(d *draft) { at(d).AllowedChats = nobody }),
		boolSetting("require_mention", func(d *draft) *bool { return &at(d).RequireMention }).env(s.prefix + "REQUIRE_MENTION").
			safe(func(d *draft) { at(d).RequireMention = true }),
		listSetting("mention_patterns", func(d *draft) *[]string { return &at(d).MentionPatterns }).env(s.prefix + "MENTION_PATTERNS"),
		listSetting("ignored_threads", func(d *draft) *[]string { return &at(d).IgnoredThreads }).env(s.prefix + "IGNORED_THREADS"),
		boolSetting("reactions", func(d *draft) *bool { return &at(d).Reactions }).env(s.prefix + "REACTIONS"),
		boolSetting("typing_indicator", func(d *draft) *bool { return &at(d).Typing }),
		choiceSetting("reply_to_mode", func(d *draft) *string { return &at(d).ReplyTo }, "off", "first", "all").env(s.prefix + "REPLY_TO_MODE"),
		textSetting("cron_thread_id", func(d *draft) *string { return &at(d).CronThread }).env(s.prefix + "CRON_THREAD_ID"),
		{
			paths: []string{"unauthorized_dm_behavior"}, want: "pair or ignore",
			read: func(d *draft, n *node) bool {
				at(d).PairDMs = n.kind == scalarNode && n.text == "pair"
				return n.kind == scalarNode && (n.text == "pair" || n.text == "ignore")
			},
			show: func(d *draft) string { return map[bool]string{true: "pair", false: "ignore"}[at(d).PairDMs] },
		},
		{
			paths: []string{"home_channel"}, envs: []string{homeVar}, want: "a chat id, or {chat_id, thread_id, name}",
			read: func(d *draft, n *node) bool { return readHome(at(d), s.name, n) },
			show: func(d *draft) string {
				if at(d).Home.IsZero() {
					return ""
				}
				return at(d).Home.String()
			},
		},
		textSetting("home_channel_name", func(d *draft) *string { return &at(d).HomeName }).env(homeVar + "_NAME"),
		textSetting("home_channel_thread_id", func(d *draft) *string { return &at(d).Home.ThreadID }).env(homeVar + "_THREAD_ID"),
	}
	for _, one := range all {
		short := one.paths
		one.paths = nil
		for _, base := range platformPlaces(s.name) {
			for _, name := range short {
				one.also(base+name, base+"extra."+name)
			}
		}
	}
	return all
}

func platformPlaces(p domain.Platform) []string {
	return []string{"platforms." + string(p) + ".", "gateway.platforms." + string(p) + ".", string(p) + "."}
}

func readHome(p *PlatformConfig, name domain.Platform, n *node) bool {
	field := func(key string) string {
		if v := n.get(key); v != nil && v.kind == scalarNode {
			return v.text
		}
		return ""
	}
	switch n.kind {
	case scalarNode:
		id := strings.TrimPrefix(strings.TrimSpace(n.text), string(name)+":")
		if id == "" {
			return true
		}
		p.Home = domain.Address{Platform: name, ChatID: id}
		return true
	case mapNode:
		if field("chat_id") == "" {
			return false
		}
		p.Home = domain.Address{Platform: name, ChatID: field("chat_id"), ThreadID: field("thread_id")}
		p.HomeName = field("name")
		return true
	}
	return n.kind == nullNode
}

// readPlatforms fills in every platform that the file or the environment names.
func (l *loader) readPlatforms() {
	for _, s := range l.namedPlatforms() {
		for _, one := range platformSettings(s) {
			l.apply(one)
		}
		p := l.draft.platform(s.name)
		l.readExtra(s, p)
		l.enable(s, p)
		if o, ok := l.origins["platforms."+string(s.name)+".token"]; ok && p.Token.IsSet() {
			p.TokenOrigin = o.String()
		}
		if p.Home.ChatID == "" {
			p.Home = domain.Address{}
		}
		if s.fold {
			for i, id := range p.AllowedUsers {
				p.AllowedUsers[i] = strings.ToLower(id)
			}
		}
		l.checkUsers(s, p)
	}
}

// namedPlatforms gives the known platforms that have any setting, and every
// other that config.yaml names. The API server is no chat platform.
func (l *loader) namedPlatforms() []platformSpec {
	var out []platformSpec
	for _, s := range platformSpecs() {
		named := false
		for _, base := range platformPlaces(s.name) {
			named = named || l.root.at(strings.Split(strings.TrimSuffix(base, "."), ".")...) != nil
		}
		for _, name := range append([]string{s.token, s.switchOn}, s.required...) {
			if name != "" {
				_, set := l.env.Lookup(name)
				named = named || set
			}
		}
		if named {
			out = append(out, s)
		}
	}
	for _, under := range []*node{l.root.at("platforms"), l.root.at("gateway", "platforms")} {
		if under == nil {
			continue
		}
		for _, e := range under.entries {
			p := domain.Platform(e.key)
			if p != domain.PlatformAPI && !slices.ContainsFunc(out, func(s platformSpec) bool { return s.name == p }) {
				out = append(out, specOf(p))
			}
		}
	}
	return out
}

// readExtra collects extra.*, then lays the environment's <PREFIX>NAME over it.
func (l *loader) readExtra(s platformSpec, p *PlatformConfig) {
	places := platformPlaces(s.name)
	slices.Reverse(places) // the first of them wins
	for _, base := range places {
		section := l.root.at(strings.Split(strings.TrimSuffix(base, "."), ".")...)
		for _, key := range []string{"base_url", "url", "proxy"} {
			if v := section.get(key); v != nil && v.kind == scalarNode {
				p.Extra[key] = l.expand(v).text
			}
		}
		if extra := section.get("extra"); extra != nil {
			for _, e := range extra.entries {
				p.Extra[e.key] = extraText(l.expandAll(e.value))
			}
		}
	}
	for _, name := range l.env.Names() {
		if rest, ok := strings.CutPrefix(name, s.prefix); ok && rest != "" && name != s.token && name != s.switchOn {
			if v, set := l.env.Lookup(name); set {
				p.Extra[strings.ToLower(rest)] = v
			}
		}
	}
	// What a server's address is called differs; adapters read base_url.
	for _, alias := range []string{"url", "homeserver"} {
		if p.Extra["base_url"] == "" && p.Extra[alias] != "" {
			p.Extra["base_url"] = p.Extra[alias]
		}
	}
}

// enable decides whether a platform runs. `enabled: false` in the file, and an
// `enabled` that cannot be read, beat every credential.
func (l *loader) enable(s platformSpec, p *PlatformConfig) {
	wanted := false
	for _, base := range platformPlaces(s.name) {
		n := l.root.at(strings.Split(base+"enabled", ".")...)
		if n == nil {
			continue
		}
		on, ok := boolOf(n)
		l.origins[base+"enabled"] = l.originOf(n)
		if !ok {
			l.report(Fault, n, base+"enabled", "is not true or false, so the platform stays off", "write true or false")
		}
		p.Disabled = p.Disabled || !on
		wanted = wanted || on
	}
	if s.switchOn != "" {
		v, set := l.env.Lookup(s.switchOn)
		on, ok := boolOf(&node{kind: scalarNode, text: v})
		p.Enabled = (set && ok && on || wanted) && !p.Disabled
		return
	}
	var missing []string
	if !p.Token.IsSet() && !(s.name == "matrix" && p.Extra["user_id"] != "" && p.Extra["password"] != "") {
		missing = append(missing, s.token)
	}
	for _, name := range s.required {
		if p.Extra[strings.ToLower(strings.TrimPrefix(name, s.prefix))] == "" {
			missing = append(missing, name)
		}
	}
	p.Enabled = len(missing) == 0 && !p.Disabled
	if p.Disabled && len(missing) == 0 {
		l.problems = append(l.problems, Problem{Severity: Notice, File: l.file, Key: "platforms." + string(s.name),
			Message: "has credentials but is switched off by enabled: false"})
	}
	if len(missing) > 0 && !p.Disabled && (wanted || p.Token.IsSet()) {
		l.problems = append(l.problems, Problem{Severity: Fault, File: l.profile.EnvFile(), Key: "platforms." + string(s.name),
			Message: "cannot start: " + strings.Join(missing, " and ") + " is not set", Fix: "hermes config set " + missing[0] + " VALUE"})
	}
}

// checkUsers reports entries of an allowlist that can never match.
func (l *loader) checkUsers(s platformSpec, p *PlatformConfig) {
	if !s.numeric {
		return
	}
	for _, id := range p.AllowedUsers {
		if id != "*" && strings.Trim(id, "0123456789") != "" {
			l.problems = append(l.problems, Problem{Severity: Warning, File: l.profile.EnvFile(), Key: s.prefix + "ALLOWED_USERS",
				Message: fmt.Sprintf("%q can never match, since %s users are known by number", id, s.name), Fix: "write the numeric id; a user learns it by /whoami"})
		}
	}
}

// readAPISwitch decides whether the API server runs: API_SERVER_ENABLED or
// `enabled: true`, or a key with neither; `enabled: false` is final.
func (l *loader) readAPISwitch() {
	api := &l.draft.API
	const base = "platforms.api_server.enabled"
	if v, set := l.env.Lookup("API_SERVER_ENABLED"); set {
		on, ok := boolOf(&node{kind: scalarNode, text: v})
		if !ok {
			l.reportEnv(Fault, "API_SERVER_ENABLED", "is not true or false, so the API stays off", "write true or false")
		}
		api.Enabled = on
		l.origins[base] = l.env.Origin("API_SERVER_ENABLED")
	} else if _, set := l.env.Lookup("API_SERVER_KEY"); set {
		api.Enabled = true
		l.origins[base] = l.env.Origin("API_SERVER_KEY")
	}
	for _, path := range []string{base, "gateway." + base, "gateway.api_server.enabled", "api_server.enabled"} {
		n := l.root.at(strings.Split(path, ".")...)
		if n == nil {
			continue
		}
		on, ok := boolOf(n)
		if !ok {
			l.report(Fault, n, path, "is not true or false, so the API stays off", "write true or false")
		}
		if _, set := l.env.Lookup("API_SERVER_ENABLED"); !on || !set {
			api.Enabled = on
			l.origins[base] = l.originOf(n)
		}
		break
	}
}

// TokenVariable names the variable of a platform's main credential.
func TokenVariable(p domain.Platform) string { return specOf(p).token }
