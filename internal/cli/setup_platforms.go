package cli

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"hermes/internal/domain"
	"hermes/internal/gateway"
	"hermes/internal/home"
)

// platformGuide says where a person finds what a platform asks for.
type platformGuide struct {
	name  domain.Platform
	text  string            // in the menu
	where map[string]string // by variable: what it is, and where to get it
	// sameChat: the id of a person's direct chat is the person's own, so that
	// it can be the home channel.
	sameChat bool
	// more are variables that are asked for besides, each with what it is when
	// nobody answers.
	more map[string]string
	// made is a secret that is made here where none is given, and switchOn what
	// switches the platform on where no credential does.
	made, switchOn string
}

// platformGuides are the platforms that set-up asks about.
func platformGuides() []platformGuide {
	return []platformGuide{
		{name: "telegram", text: "a bot, made by @BotFather", sameChat: true, where: map[string]string{
			"TELEGRAM_BOT_TOKEN": "the token that @BotFather gave: https://t.me/BotFather, /newbot"}},
		{name: "discord", text: "a bot of discord.com/developers", where: map[string]string{
			"DISCORD_BOT_TOKEN": "discord.com/developers/applications, Bot, Reset Token; switch Message Content Intent on there"}},
		{name: "slack", text: "an app with Socket Mode", where: map[string]string{
			"SLACK_BOT_TOKEN": "xoxb-…: api.slack.com/apps, OAuth & Permissions",
			"SLACK_APP_TOKEN": "xapp-…: api.slack.com/apps, Basic Information, App-Level Tokens, connections:write"}},
		{name: "mattermost", text: "a bot account", where: map[string]string{
			"MATTERMOST_TOKEN": "the bot's access token: Integrations, Bot Accounts",
			"MATTERMOST_URL":   "the server's address, such as https://chat.example.org"}},
		{name: "matrix", text: "an account of a homeserver, in rooms without encryption", where: map[string]string{
			"MATRIX_ACCESS_TOKEN": "the account's access token: in Element, All settings, Help & About",
			"MATRIX_HOMESERVER":   "the homeserver's address, such as https://matrix.example.org"}},
		{name: "email", text: "a mailbox by IMAP and SMTP", where: map[string]string{
			"EMAIL_PASSWORD":  "the mailbox's password, or an app password",
			"EMAIL_ADDRESS":   "the mailbox's address",
			"EMAIL_IMAP_HOST": "the server of incoming mail, such as imap.example.org",
			"EMAIL_SMTP_HOST": "the server of outgoing mail, such as smtp.example.org"}},
		{name: domain.PlatformWebhook, text: "other programs start the agent by an HTTP call", made: "WEBHOOK_SECRET", switchOn: "WEBHOOK_ENABLED",
			more: map[string]string{"WEBHOOK_PORT": "8644"}, where: map[string]string{
				"WEBHOOK_SECRET": "what those programs sign their calls with; empty makes one",
				"WEBHOOK_PORT":   "the port on 127.0.0.1 that they call; each profile has its own"}},
	}
}

// describePlatform gives the guide to a platform that this build can connect.
func describePlatform(name domain.Platform) (platformGuide, bool) {
	for _, d := range platformGuides() {
		if d.name == name && gateway.Connectable(name) {
			return d, true
		}
	}
	return platformGuide{}, false
}

// askPlatforms asks which platforms, and for the credentials of each.
func (w *wizard) askPlatforms(ctx context.Context) error {
	if w.use == forTasks && len(w.f.platforms) == 0 {
		return nil
	}
	cfg, err := w.config()
	if err != nil {
		return err
	}
	for _, name := range w.f.platforms {
		if err := w.orNoCheck(w.fromFlags(ctx, domain.Platform(name))); err != nil {
			return err
		}
	}
	switch {
	case len(w.f.platforms) > 0:
		return nil
	case w.q == nil && (!hasChats(cfg) || w.f.onlyPlatforms):
		w.missing = append(w.missing, "--platform "+strings.Join(platformWords(), ", or --platform "))
		return nil
	case w.q == nil:
		return nil
	}
	w.heading("On which chat platforms?")
	options := []option{}
	for _, name := range platformWords() {
		d, _ := describePlatform(domain.Platform(name))
		if cfg.Platforms[d.name].Enabled {
			d.text += "  (set up)"
		}
		options = append(options, option{name, d.text})
	}
	options = append(options, option{"done", "no more"})
	done := 0
	for {
		fallback := ""
		if done > 0 || hasChats(cfg) {
			fallback = "done"
		}
		word, err := w.q.menu(ctx, "Number", options, fallback)
		if err != nil || word == "done" {
			return err
		}
		d, _ := describePlatform(domain.Platform(word))
		if err := w.askPlatform(ctx, d); err != nil {
			return err
		}
		done++
	}
}

// fromFlags takes a platform's credentials from --secret and --set, from .env,
// and from the environment.
func (w *wizard) fromFlags(ctx context.Context, name domain.Platform) error {
	env, _, _, err := w.plan.Load()
	if err != nil {
		return err
	}
	changes, missing := map[string]*string{}, []string{}
	for _, need := range home.Needs(name) {
		_, set := env.Lookup(need)
		if v := onlyInProcess(env, need); v != "" {
			changes[need] = &v
		} else if d, _ := describePlatform(name); !set && need == d.made {
			v := newWebhookSecret()
			changes[need] = &v
		} else if !set {
			how := "--set " + need + "=VALUE"
			if home.IsSecretName(need) {
				how = "--secret " + need + "=file:PATH"
			}
			missing = append(missing, how)
		}
	}
	if len(missing) > 0 && w.q != nil {
		d, _ := describePlatform(name)
		return w.askPlatform(ctx, d)
	}
	if w.missing = append(w.missing, missing...); len(missing) > 0 {
		return nil
	}
	if d, _ := describePlatform(name); d.switchOn != "" {
		on := "true"
		changes[d.switchOn] = &on
	}
	plan, err := w.plan.SetEnv(changes)
	if err != nil {
		return err
	}
	if err := w.provePlatform(ctx, name, plan); err != nil {
		return err
	}
	w.plan = plan
	return nil
}

// askPlatform asks for a platform's credentials until it takes them.
func (w *wizard) askPlatform(ctx context.Context, d platformGuide) error {
	for range attempts {
		plan, err := w.askCredentials(ctx, d)
		if err != nil {
			return err
		}
		err = w.provePlatform(ctx, d.name, plan)
		if err == nil {
			w.plan = plan
		}
		again, err := w.tryAgain(ctx, err)
		if err != nil {
			return err
		}
		if !again {
			return w.askPeople(ctx, d)
		}
	}
	wrap(w.Err, "", fmt.Sprintf("%s is left as it was.", d.name))
	return nil
}

// askCredentials asks for what a platform needs; an empty answer keeps what is
// set.
func (w *wizard) askCredentials(ctx context.Context, d platformGuide) (home.Plan, error) {
	env, _, _, err := w.plan.Load()
	if err != nil {
		return w.plan, err
	}
	changes := map[string]*string{}
	for _, need := range slices.Concat(home.Needs(d.name), slices.Sorted(maps.Keys(d.more))) {
		now, set := env.Lookup(need)
		if !set {
			now = d.more[need]
		}
		wrap(w.Err, "  ", d.where[need])
		var text string
		switch {
		case home.IsSecretName(need) && set:
			text, err = w.q.secret(ctx, need+"; empty keeps the one that is set")
		case home.IsSecretName(need):
			text, err = w.q.secret(ctx, need)
		default:
			text, err = w.q.line(ctx, need, now)
		}
		if err != nil {
			return w.plan, err
		}
		if text == "" { // what only this process has would not be there for a service
			text = onlyInProcess(env, need)
		}
		if text == "" && need == d.made && !set {
			text = newWebhookSecret()
			wrap(w.Err, "  ", "One is made, and will stand in "+w.p.EnvFile()+".")
		}
		if text != "" {
			changes[need] = &text
		}
	}
	if d.switchOn != "" {
		on := "true"
		changes[d.switchOn] = &on
	}
	return w.plan.SetEnv(changes)
}

// askPeople asks who may talk to the bot.
func (w *wizard) askPeople(ctx context.Context, d platformGuide) error {
	cfg, err := w.config()
	if err != nil {
		return err
	}
	if pc := cfg.Platforms[d.name]; len(pc.AllowedUsers) > 0 || pc.AllowAll || !pc.Enabled {
		return nil
	}
	if d.name == domain.PlatformWebhook { // whoever knows the secret
		wrap(w.Err, "  ", "A call needs a route: `hermes"+w.profileFlag()+" webhook subscribe NAME --prompt TEXT`.")
		return nil
	}
	wrap(w.Err, "  ", "Who may talk to it? Without a name here, whoever writes gets a code that you approve on this machine.")
	ids, err := w.q.line(ctx, "Your user id there; empty: by a code", "")
	if err != nil || ids == "" {
		return err
	}
	set := map[string]*string{home.AllowedVariable(d.name): &ids}
	if first, _, _ := strings.Cut(ids, ","); d.sameChat && cfg.Platforms[d.name].Home.IsZero() {
		set[home.ChannelVariable(d.name)] = &first
	}
	w.plan, err = w.plan.SetEnv(set)
	return err
}

// named lists what the plan switches on, for the summary.
func (w *wizard) named(cfg *home.Config) []string {
	var out []string
	for name, p := range cfg.Platforms {
		if p.Enabled && name != domain.PlatformWebchat && name != domain.PlatformAPI {
			out = append(out, string(name))
		}
	}
	slices.Sort(out)
	return out
}
