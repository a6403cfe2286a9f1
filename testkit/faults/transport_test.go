package faults

import (
	"context"
	"fmt"
	"net/http"
	"path/filepath"
	"strings"

	"hermes/internal/doctor"
	"hermes/testkit/discord"
	"hermes/testkit/email"
	upset "hermes/testkit/fault"
	"hermes/testkit/rig"
	"hermes/testkit/slack"
)

// transportFaults keep chat platforms from hearing and sending.
func transportFaults() []fault {
	return []fault{
		{what: "the bot's token was revoked, and the gateway down", id: "transport.token_refused", class: doctor.Transport, shape: shape{unstarted: true},
			inject: func(w *world) { w.badToken() }},
		{what: "the bot's token was revoked", id: "transport.token_refused", class: doctor.Transport, shape: shape{unstarted: true}, shows: []string{"/.hermes/.env line 1 (TELEGRAM_BOT_TOKEN)"},
			inject: func(w *world) { w.badToken(); w.start(); w.part("platform.telegram", "down") }},
		{what: "the token in config.yaml is wrong", id: "transport.token_refused", class: doctor.Transport, shape: shape{unstarted: true},
			inject: func(w *world) {
				w.edit(".env", "TELEGRAM_BOT_TOKEN="+w.tg.Token()+"\n", "")
				w.add("config.yaml", "platforms:\n  telegram:\n    token: 7000000009:AAF-an_old_token_of_another_bot_\n")
				w.fill["token"] = w.tg.Token()
				w.start()
				w.part("platform.telegram", "down")
			}},
		{what: "the token is no token at all", id: "transport.setting", class: doctor.Transport, shape: shape{unstarted: true},
			inject: func(w *world) {
				w.edit(".env", w.tg.Token(), "my-bot")
				w.fill["token"] = w.tg.Token()
				w.start()
			}},
		{what: "a webhook was set for the bot", id: "transport.webhook", class: doctor.Transport,
			inject: func(w *world) { w.stop(); w.tg.SetWebhook("https://example.org/hook"); w.start() }},
		{what: "a second program polls the bot", id: "transport.second_poller", class: doctor.Transport,
			inject: func(w *world) { w.poll(); w.fill["token"] = w.newBot() }},
		{what: "another installation on this machine uses the bot", id: "transport.bot_in_use", class: doctor.Transport, shape: shape{unstarted: true},
			inject: func(w *world) {
				w.neighbour()
				w.start()
				w.part("platform.telegram", "down")
				w.fill["token"] = w.newBot()
			}},
		{what: "Telegram's address is wrong", id: "transport.unreachable", class: doctor.Transport, shape: shape{unstarted: true},
			inject: func(w *world) {
				w.edit(".env", w.tg.URL(), fmt.Sprintf("http://127.0.0.1:%d", freePort(w.t)))
				w.fill["address"] = w.tg.URL()
				w.start()
				w.part("platform.telegram", "degraded")
			}},
		{what: "Telegram answers with the page of a front end whose server is away", id: "transport.degraded", class: doctor.Transport,
			inject: func(w *world) {
				f := upset.BadGateway()
				f.Times = -1
				w.release = w.tg.Fail("", f)
				w.part("platform.telegram", "degraded")
			}, hand: func(w *world) { w.release() }},
		{what: "Telegram asks the bot to slow down", id: "transport.limited", class: doctor.Transport,
			inject: func(w *world) {
				f := upset.TooMany(3)
				f.Times = -1
				w.release = w.tg.Fail("getUpdates", f)
				w.part("platform.telegram", "degraded")
			}, hand: func(w *world) { w.release() }},
		{what: "the connection to Telegram crashed", id: "transport.panic", class: doctor.Transport, shape: shape{unstarted: true},
			hand: func(w *world) { w.procs[0].Kill(); w.start() }, // a version without that defect
			inject: func(w *world) {
				var marks []string
				for n := range 20 { // again and again, as a message that it cannot bear comes again and again
					marks = append(marks, fmt.Sprintf("inbound.before_commit:%d:panic", n+1))
				}
				w.doomed(strings.Join(marks, ","))
				w.tg.Say(w.tg.AddUser("Ada"), "hello")
				w.part("platform.telegram", "degraded")
			}},
		{what: "Telegram refuses the bot for a reason of its own, and the gateway is down", id: "transport.refused", class: doctor.Transport, shape: shape{unstarted: true},
			inject: func(w *world) {
				w.release = w.tg.Fail("getMe", upset.Fault{Times: -1, Status: http.StatusTeapot, Message: "Gone fishing"})
			}, hand: func(w *world) { w.release(); w.start() }},
		{what: "Discord's token was reset", id: "transport.token_refused", class: doctor.Transport, shape: shape{noBot: true, discord: true}, shows: []string{"LoginFailure: Improper token", "/.hermes/.env line 1 (DISCORD_BOT_TOKEN)"},
			inject: func(w *world) {
				w.stop()
				w.edit(".env", w.dc.Token(), "MTIzNDU2Nzg5MDEyMzQ1Njc4.GaBcDe.an-old-token-of-the-bot-which-was-reset")
				w.fill["token"] = w.dc.Token()
				w.start()
				w.part("platform.discord", "down")
			}},
		{what: "Discord's Message Content intent is off", id: "transport.intents", class: doctor.Transport, shape: shape{noBot: true, discord: true},
			inject: func(w *world) {
				w.stop()
				w.dc.RefuseIntents(discord.IntentMessageContent)
				w.start()
				w.part("platform.discord", "degraded")
			},
			hand: func(w *world) { w.dc.RefuseIntents(0) }},
		{what: "Slack's bot token was revoked", id: "transport.token_refused", class: doctor.Transport, shape: shape{noBot: true},
			inject: func(w *world) {
				sl := w.slack()
				w.add(".env", "SLACK_BOT_TOKEN=xoxb-1-2-an-old-token-of-the-app\nSLACK_APP_TOKEN="+sl.AppToken()+"\nSLACK_BASE_URL="+sl.URL()+"\nSLACK_ALLOW_ALL_USERS=true\n")
				w.restart()
				w.part("platform.slack", "down")
				w.fill["token"] = sl.Token()
			}},
		{what: "Slack's app token was revoked", id: "transport.token_refused", class: doctor.Transport, shape: shape{noBot: true},
			inject: func(w *world) {
				sl := w.slack()
				w.add(".env", "SLACK_BOT_TOKEN="+sl.Token()+"\nSLACK_APP_TOKEN="+sl.AppToken()+"0\nSLACK_BASE_URL="+sl.URL()+"\nSLACK_ALLOW_ALL_USERS=true\n")
				w.restart()
				w.part("platform.slack", "down")
				w.fill["token"] = sl.AppToken()
			}},
		{what: "Slack's two tokens belong to two apps", id: "transport.two_apps", class: doctor.Transport, shape: shape{noBot: true},
			inject: func(w *world) {
				sl := w.slack()
				w.add(".env", "SLACK_BOT_TOKEN="+sl.Token()+"\nSLACK_APP_TOKEN=xapp-1-A0OTHER-2-a-token-of-another-app\nSLACK_BASE_URL="+sl.URL()+"\nSLACK_ALLOW_ALL_USERS=true\n")
				w.restart()
				w.part("platform.slack", "down")
				w.fill["bot token"], w.fill["app token"] = sl.Token(), sl.AppToken()
			}},
		{what: "the mailbox's password was changed", id: "transport.token_refused", class: doctor.Transport, shape: shape{noBot: true},
			inject: func(w *world) {
				w.fill["token"] = w.mail("an-old-password-of-the-mailbox")
				w.restart()
				w.part("platform.email", "down")
			}},
		{what: "Mattermost has a token and no address", id: "transport.incomplete", class: doctor.Transport,
			inject: func(w *world) {
				w.stop()
				w.add(".env", "MATTERMOST_TOKEN=abcdefghijklmnopqrstuvwxyz\n")
				w.start()
				w.mattermost()
			}},
		{what: "a platform that this version does not know is switched on", id: "transport.unknown_platform", class: doctor.Transport,
			inject: func(w *world) {
				w.stop()
				w.add("config.yaml", "platforms:\n  carrierpigeon:\n    enabled: true\n    token: coo-coo-coo-coo\n")
				w.start()
			}},
		{what: "the allowlist names a person by @name", id: "transport.allowlist", class: doctor.Transport,
			inject: func(w *world) { w.add(".env", "TELEGRAM_ALLOWED_USERS=@ada\n"); w.restart() },
			fill:   map[string]string{"numeric ids, separated by commas": "123456"}},
	}
}

// badToken puts a token into .env that Telegram does not know.
func (w *world) badToken() {
	w.edit(".env", w.tg.Token(), "7000000009:AAF-an_old_token_of_another_bot_")
	w.fill["token"] = w.tg.Token()
}

// poll polls the bot from elsewhere until the test ends.
func (w *world) poll() {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	w.t.Cleanup(func() { cancel(); <-done })
	go func() {
		defer close(done)
		for ctx.Err() == nil {
			body := strings.NewReader(`{"timeout":5}`)
			req, err := http.NewRequestWithContext(ctx, http.MethodPost, w.tg.URL()+"/bot"+w.tg.Token()+"/getUpdates", body)
			if err != nil {
				return
			}
			req.Header.Set("Content-Type", "application/json")
			if res, err := http.DefaultClient.Do(req); err == nil {
				res.Body.Close()
			}
		}
	}()
}

// neighbour runs a gateway of another home with the same bot, and the same
// folder of locks.
func (w *world) neighbour() {
	dir := filepath.Join(w.dir, "other", ".hermes")
	env := w.read(".env")
	env = env[:strings.Index(env, "API_SERVER")]
	other, err := rig.NewHome(dir, w.home.Binary, w.read("config.yaml"), env)
	w.must(err)
	other.Env = []string{"HERMES_GATEWAY_LOCK_DIR=" + filepath.Join(w.home.Dir, "locks"), "SYSTEMD_OFFLINE=1"}
	p, err := other.Start()
	w.must(err)
	w.t.Cleanup(func() { _, _ = p.Stop(w.deadline()) })
	w.must(p.Ready(w.deadline()))
	w.until("the other one to be connected", func() bool { return strings.Contains(p.Output(), "connected to Telegram") })
}

// slack makes a workspace.
func (w *world) slack() *slack.Server {
	s, err := slack.New(slack.Options{})
	w.must(err)
	w.t.Cleanup(s.Close)
	w.secrets = append(w.secrets, s.Token(), s.AppToken())
	return s
}

// mail makes a mailbox, puts a password for it into .env, and gives the right
// one.
func (w *world) mail(password string) string {
	const right = "faults-password-of-the-mailbox"
	s, err := email.New(email.Options{Password: right})
	w.must(err)
	w.t.Cleanup(s.Close)
	w.secrets = append(w.secrets, right)
	w.add(".env", fmt.Sprintf("EMAIL_ADDRESS=%s\nEMAIL_PASSWORD=%s\nEMAIL_IMAP_HOST=127.0.0.1\nEMAIL_IMAP_PORT=%d\nEMAIL_IMAP_SECURITY=none\nEMAIL_SMTP_HOST=127.0.0.1\nEMAIL_SMTP_PORT=%d\nEMAIL_SMTP_SECURITY=none\nEMAIL_ALLOWED_USERS=ann@people.test\nEMAIL_HOME_ADDRESS=ann@people.test\n",
		s.Address(), password, s.IMAPPort(), s.SMTPPort()))
	return right
}
