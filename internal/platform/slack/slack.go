// Package slack connects one Slack app in one workspace: Socket Mode
// (https://docs.slack.dev/apis/events-api/using-socket-mode) to receive, the
// Web API (https://docs.slack.dev/apis/web-api/) to send.
//
// Socket Mode is a loop of its own (socket.go, receive.go) and not slack-go's
// client. That one reads ahead of what is committed, keeps acknowledgements
// over a lost connection, connects again by itself and without a word, and
// closes the old socket before the new one is open when Slack asks for a
// change, in which buttons and commands get lost. Its decoding of blocks fails
// a whole page of history for one block that it does not know, so that the Web
// API too is asked directly (wire.go); the fake is held to slack-go.
//
// The socket only says quickly what the history says surely. After every
// connect, and now and then in between, the history of each conversation is
// read from where the account was last up to date (history.go); what is known
// already is dropped by the inbox.
//
// A message carries its nonce in its metadata, where the adapter itself looks
// for it before it repeats what may have arrived (send.go).
package slack

import (
	"context"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"hermes/internal/domain"
	"hermes/internal/health"
	"hermes/internal/platform"
	"hermes/internal/platform/bang"
	"hermes/internal/platform/intake"
	"hermes/internal/platform/recall"
	"hermes/internal/platform/reconnect"
	"hermes/internal/platform/settings"
)

// Name is the platform's name.
const Name domain.Platform = "slack"

// Limits of the API.
const (
	maxText    = 3500    // characters to be seen: room for markup and entities in what chat.update takes
	maxUpdate  = 4000    // characters of chat.update, https://docs.slack.dev/reference/methods/chat.update
	maxPost    = 40_000  // characters of chat.postMessage, which cuts longer ones, https://docs.slack.dev/reference/methods/chat.postMessage
	maxUpload  = 1 << 30 // bytes of a file, https://slack.com/help/articles/201330736
	maxLabel   = 75      // characters, https://docs.slack.dev/reference/block-kit/block-elements/button-element
	maxValue   = 2000    // characters, as above
	maxButtons = 25      // elements, https://docs.slack.dev/reference/block-kit/blocks/actions-block
)

// Adapter is one app. Its methods are safe for concurrent use; Run may be
// called again once it has returned.
type Adapter struct {
	cfg     Config
	log     *slog.Logger
	health  *health.Reporter
	now     func() time.Time
	changed func() // the channels are not those that were listed
	http    *http.Client
	tiers   tiers
	pause   pauses

	self     atomic.Pointer[identity]
	commands bang.Commands // that may be typed with "!"
	noStatus atomic.Bool   // the app may not show that it writes
	names    directory
	sends    recall.Sends
	waiting  recall.Latest // what is being worked on, for the reactions
}

// identity is who the bot is.
type identity struct {
	user, bot, team string // ids
	name            string
}

// account names the bot in the ledger. Ids of users are unique within a team.
func (i *identity) account() string { return i.team + ":" + i.user }

// pauses are the waits between attempts; tests shorten them.
type pauses struct {
	first, most time.Duration // of the back-off after a failure
	failures    int           // in a row before Run gives the connection up
	hello       time.Duration // for the socket's first word
	retire      time.Duration // how long a socket is still heard that Slack is about to close
}

// The adapter fulfils these contracts.
var (
	_ platform.Adapter   = (*Adapter)(nil)
	_ platform.Editor    = (*Adapter)(nil)
	_ platform.Typer     = (*Adapter)(nil)
	_ platform.Fetcher   = (*Adapter)(nil)
	_ platform.Menu      = (*Adapter)(nil)
	_ platform.Checker   = (*Adapter)(nil)
	_ platform.Directory = (*Adapter)(nil)
)

// New makes an adapter; it does not connect. domain.Config.
func New(c Config, d platform.Deps) (*Adapter, error) {
	if err := settings.Wrong(notSetUp, c.problems()); err != nil {
		return nil, err
	}
	c.setDefaults()
	d = d.Filled(Name, c.Proxy)
	return &Adapter{
		cfg: c, log: d.Log, health: d.Health, now: d.Now, changed: d.Changed, http: d.HTTP,
		tiers: tiers{off: c.BaseURL != DefaultBaseURL},
		pause: pauses{first: 500 * time.Millisecond, most: 30 * time.Second, failures: 10, hello: 30 * time.Second, retire: 30 * time.Second},
	}, nil
}

// Name is "slack".
func (a *Adapter) Name() domain.Platform { return Name }

// Capabilities are the API's limits. Slack takes about one message a second in
// a channel, https://docs.slack.dev/apis/web-api/rate-limits, and fifty edits a
// minute of all messages.
func (a *Adapter) Capabilities() platform.Capabilities {
	c := platform.Capabilities{
		MaxText:      maxText,
		MaxCaption:   maxText,
		Unit:         platform.UTF16, // never less than the characters that Slack counts
		Dialect:      platform.DialectMrkdwn,
		Buttons:      true,
		Threads:      true,
		MaxUpload:    maxUpload,
		EditEvery:    2 * time.Second,
		TypingEvery:  30 * time.Second, // a status lasts two minutes, https://docs.slack.dev/reference/methods/assistant.threads.setStatus
		PerChatEvery: time.Second,
		PerSecond:    20,
		Burst:        3,
		Idempotency:  platform.IdempotencyAlways,
		DigitIDs:     true,
		Reacts:       true,
		Away: platform.Away{
			Kept: "what was said in the last seven days, of one channel at most the latest 2000 messages",
			Lost: "a button or command; what was deleted meanwhile",
		},
		CommandSign: "!",
	}
	if self := a.self.Load(); self != nil {
		c.MentionName = "@" + self.name
	}
	return c
}

// SetCommands learns the names of the commands. Slack's own slash commands are
// made in the app's settings and not over the API; whichever exist there come
// over the socket. What is typed as "!name" is heard as "/name" everywhere, also
// in threads, where Slack takes no commands.
func (a *Adapter) SetCommands(_ context.Context, cmds []platform.Command) error {
	a.commands.Set(cmds)
	return nil
}

// Run connects and receives. Passing failures are retried inside it, with a
// back-off and shown as degraded; it returns when a token is refused, after ten
// failures in a row, or when the sink says that another process owns the
// account (domain.Fenced).
func (a *Adapter) Run(ctx context.Context, sink platform.Sink) error {
	ctx, cancel := context.WithCancel(ctx)
	defer a.http.CloseIdleConnections()
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()

	r := &receiver{a: a, sink: sink, frames: make(chan item, heldItems), sockets: &wg}
	r.intake = intake.Intake{Sink: sink, Service: "Slack", Health: a.health, Log: a.log,
		Now: a.now, Scrub: a.scrubError, First: a.pause.first, Most: a.pause.most, Stored: r.accepted}
	r.line = reconnect.Line{Service: "Slack", Health: a.health, Log: a.log,
		First: a.pause.first, Most: a.pause.most, Failures: a.pause.failures, Cut: a.http.CloseIdleConnections}
	err := r.line.Run(ctx, r.session)
	if ctx.Err() != nil {
		return nil
	}
	if e := platform.AsError(err); e.Kind == platform.BadCredentials {
		a.health.Down(e.Code, e.Reason)
	}
	return err
}

// Check asks Slack whether it takes both tokens, and whether they belong to the
// same app. It opens no connection, so that nobody else's is disturbed.
func (a *Adapter) Check(ctx context.Context) error {
	defer a.http.CloseIdleConnections()
	if _, e := a.whoAmI(ctx); e != nil {
		return harmless(e, "Slack did not say who the bot is")
	}
	if _, e := a.connectionURL(ctx); e != nil {
		return harmless(e, "Slack did not say where to connect")
	}
	return nil
}

// identify learns who the account is; later calls know it already.
func (a *Adapter) identify(ctx context.Context) (*identity, *platform.Error) {
	if self := a.self.Load(); self != nil {
		return self, nil
	}
	self, e := a.whoAmI(ctx)
	return self, harmless(e, "Slack did not say who the bot is")
}

// whoAmI asks for the bot's identity, https://docs.slack.dev/reference/methods/auth.test.
func (a *Adapter) whoAmI(ctx context.Context) (*identity, *platform.Error) {
	var me struct {
		Team   string `json:"team"`
		TeamID string `json:"team_id"`
		User   string `json:"user"`
		UserID string `json:"user_id"`
		BotID  string `json:"bot_id"`
	}
	if _, e := a.call(ctx, "auth.test", nil, &me); e != nil {
		return nil, e
	}
	if !isID(me.UserID) || !isID(me.TeamID) {
		return nil, &platform.Error{Kind: platform.Retry, Code: "slack_garbled", Reason: "what answers at Slack's address is not Slack: check SLACK_BASE_URL and any proxy"}
	}
	if me.BotID == "" {
		return nil, &platform.Error{Kind: platform.BadCredentials, Code: "slack_not_allowed_token_type", Reason: "SLACK_BOT_TOKEN" + settings.Origin(a.cfg.TokenOrigin) + " is not the token of a bot: copy it from " + whereBot}
	}
	self := &identity{user: me.UserID, bot: me.BotID, team: me.TeamID, name: me.User}
	a.self.Store(self)
	a.health.Note("bot", "@"+me.User)
	a.health.Note("workspace", me.Team)
	return self, a.sameApp(ctx, self)
}

// sameApp compares the app of the bot with that of the app-level token, in
// which its id stands. With tokens of two apps everything seems to work, and
// nobody is ever heard. Where that cannot be found out, it is let be.
func (a *Adapter) sameApp(ctx context.Context, self *identity) *platform.Error {
	parts := strings.Split(a.cfg.AppToken.Reveal(), "-")
	if len(parts) < 3 || !isID(parts[2]) || parts[2][0] != 'A' {
		return nil
	}
	var out struct {
		Bot struct {
			AppID string `json:"app_id"`
		} `json:"bot"`
	}
	_, e := a.call(ctx, "bots.info", url.Values{"bot": {self.bot}}, &out)
	if app := out.Bot.AppID; e == nil && isID(app) && app != parts[2] {
		return &platform.Error{Kind: platform.BadCredentials, Code: "slack_two_apps",
			Reason: "the two tokens belong to two apps: SLACK_BOT_TOKEN" + settings.Origin(a.cfg.TokenOrigin) + " to " + app + ", SLACK_APP_TOKEN to " + parts[2] + ". Take both from the same one"}
	}
	return nil
}

// connectionURL asks where to connect; the address is a secret and serves once,
// https://docs.slack.dev/reference/methods/apps.connections.open.
func (a *Adapter) connectionURL(ctx context.Context) (string, *platform.Error) {
	var out struct {
		URL string `json:"url"`
	}
	if _, e := a.callAs(ctx, a.cfg.AppToken, "apps.connections.open", nil, &out); e != nil {
		return "", e
	}
	u, err := url.Parse(out.URL)
	// The ticket in it is worth a session, so it goes nowhere unencrypted, unless
	// the API itself is asked that way.
	if err != nil || u.Host == "" || u.Scheme != "wss" && !(u.Scheme == "ws" && strings.HasPrefix(a.cfg.BaseURL, "http://")) {
		return "", &platform.Error{Kind: platform.Retry, Code: "slack_garbled", Reason: "Slack's answer does not say where to connect: check SLACK_BASE_URL and any proxy"}
	}
	return out.URL, nil
}
