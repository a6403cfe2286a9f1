// Package telegram connects one Telegram bot, over the Bot API
// (https://core.telegram.org/bots/api).
//
// Updates are polled by a loop of its own (poll.go): a batch is committed by
// the sink first, and only the poll that follows confirms it to Telegram.
// Everything else goes through go-telegram/bot. Both use one HTTP client
// (wire.go) that notes whether a request was written, which is what decides if
// a failed send may have been carried out (errors.go).
package telegram

import (
	"context"
	"errors"
	"log/slog"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-telegram/bot"

	"hermes/internal/domain"
	"hermes/internal/health"
	"hermes/internal/platform"
	"hermes/internal/platform/intake"
	"hermes/internal/platform/recall"
	"hermes/internal/platform/reconnect"
	"hermes/internal/platform/settings"
)

// Name is the platform's name.
const Name domain.Platform = "telegram"

// Limits of the Bot API. Bytes unless said.
const (
	maxText     = 4096     // UTF-16 code units after the markup is parsed, https://core.telegram.org/bots/api#sendmessage
	maxCaption  = 1024     // the same, https://core.telegram.org/bots/api#sendphoto
	maxPhoto    = 10 << 20 // https://core.telegram.org/bots/api#sending-files
	maxUpload   = 50 << 20 // the same
	maxDownload = 20 << 20 // https://core.telegram.org/bots/api#getfile
	maxButton   = 64       // of callback_data, https://core.telegram.org/bots/api#inlinekeyboardbutton
	maxProgress = 256      // sends whose progress over several requests is remembered
)

// Adapter is one bot account. Its methods are safe for concurrent use; Run may
// be called again once it has returned.
type Adapter struct {
	cfg     Config
	account string
	log     *slog.Logger
	health  *health.Reporter
	now     func() time.Time
	wire    *wire
	bot     *bot.Bot
	pause   pauses

	self     atomic.Pointer[identity]
	menu     atomic.Pointer[menu]
	flood    floodWatch
	progress progress
	waiting  recall.Latest // what is being worked on, for the reactions
}

// identity is who the bot is, as getMe says.
type identity struct {
	id   int64
	name string // without the @
}

// pauses are the waits between attempts; tests shorten them.
type pauses struct {
	first, most time.Duration // of the back-off after a failure
	album       time.Duration // for the rest of an album to come in
	takeover    time.Duration // how long a second poller is waited for before Run gives the connection up
	failures    int           // in a row before Run gives the connection up
}

// The adapter fulfils these contracts.
var (
	_ platform.Adapter = (*Adapter)(nil)
	_ platform.Editor  = (*Adapter)(nil)
	_ platform.Typer   = (*Adapter)(nil)
	_ platform.Fetcher = (*Adapter)(nil)
	_ platform.Menu    = (*Adapter)(nil)
)

// New makes an adapter; it does not connect. domain.Config.
func New(c Config, d platform.Deps) (*Adapter, error) {
	if err := settings.Wrong(notSetUp, c.problems()); err != nil {
		return nil, err
	}
	c.setDefaults()
	d = d.Filled(Name, c.Proxy)
	a := &Adapter{
		cfg: c, account: c.account(), log: d.Log, health: d.Health, now: d.Now,
		wire:  newWire(d.HTTP),
		pause: pauses{first: 500 * time.Millisecond, most: 30 * time.Second, album: 300 * time.Millisecond, takeover: 30 * time.Second, failures: 10},
	}
	b, err := bot.New(c.Token.Reveal(),
		bot.WithServerURL(c.BaseURL),
		bot.WithSkipGetMe(),
		bot.WithHTTPClient(c.PollTimeout, a.wire),
		bot.WithUpdatesChannelCap(0), // polled by our own loop
		bot.WithErrorsHandler(func(err error) { a.log.Debug("telegram client", "error", a.scrub(err)) }),
	)
	if err != nil {
		return nil, domain.E(domain.Internal, a.scrub(err), "the Telegram client could not be made")
	}
	a.bot = b
	return a, nil
}

// Name is "telegram".
func (a *Adapter) Name() domain.Platform { return Name }

// Account is the bot's id. It stands in the token, so that it is known before
// Run connected.
func (a *Adapter) Account() string { return a.account }

// Capabilities are the Bot API's limits. Those of the flood control are in
// https://core.telegram.org/bots/faq#my-bot-is-hitting-limits-how-do-i-avoid-this.
func (a *Adapter) Capabilities() platform.Capabilities {
	c := platform.Capabilities{
		MaxText:       maxText,
		MaxCaption:    maxCaption,
		Unit:          platform.UTF16,
		Dialect:       platform.DialectTelegramHTML,
		Buttons:       true,
		Threads:       true,
		MaxUpload:     maxUpload,
		EditEvery:     time.Second,
		TypingEvery:   4 * time.Second, // a signal lasts five, https://core.telegram.org/bots/api#sendchataction
		PerChatEvery:  time.Second,
		PerGroupEvery: 3 * time.Second,
		PerSecond:     30,
		Burst:         3,
		Idempotency:   platform.IdempotencyNone,
		DigitIDs:      true,
		MaxDownload:   maxDownload,
		Reacts:        true,
		Away: platform.Away{
			Kept:  "all of the last 24 hours, buttons too",
			Lost:  "what is older, which Telegram drops",
			Twice: "when the connection broke between the send and Telegram's answer",
		},
	}
	if self := a.self.Load(); self != nil {
		c.MentionName = "@" + self.name
	}
	return c
}

// IsGroup tells whether a chat id is that of a group or channel, which have
// limits of their own.
func (a *Adapter) IsGroup(chatID string) bool {
	return strings.HasPrefix(chatID, "-") || strings.HasPrefix(chatID, "@")
}

// Run connects and receives. Passing failures are retried inside it, with a
// back-off and shown as degraded; it returns when the token is refused, when
// another poller keeps the bot, after ten failures in a row, or when the sink
// says that another process owns the account (domain.Fenced).
func (a *Adapter) Run(ctx context.Context, sink platform.Sink) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	answers := newAnswers(a)
	var wg sync.WaitGroup
	wg.Go(func() { answers.run(ctx) })
	defer a.wire.http.CloseIdleConnections()
	defer wg.Wait()
	defer cancel()

	l := &loop{a: a, sink: sink, answers: answers, intake: intake.Intake{Sink: sink, Service: "Telegram", Health: a.health, Log: a.log,
		Now: a.now, Scrub: a.scrub, First: a.pause.first, Most: a.pause.most}}
	l.line = reconnect.Line{Service: "Telegram", Health: a.health, Log: a.log,
		First: a.pause.first, Most: a.pause.most, Failures: a.pause.failures, Cut: a.wire.http.CloseIdleConnections}
	err := l.run(ctx)
	if ctx.Err() != nil {
		return nil
	}
	var pe *platform.Error
	if errors.As(err, &pe) && (pe.Kind == platform.BadCredentials || pe.Kind == platform.TakenOver) {
		a.health.Down(pe.Code, pe.Reason)
	}
	return err
}

// connect learns who the bot is and whether a webhook stands in the way.
func (a *Adapter) connect(ctx context.Context) *platform.Error {
	cctx, cancel := context.WithTimeout(ctx, a.cfg.SendTimeout)
	defer cancel()
	cctx, c := withCall(cctx, "getMe")
	me, err := a.bot.GetMe(cctx)
	if err != nil {
		return a.classify(c, err)
	}
	a.self.Store(&identity{id: me.ID, name: me.Username})
	a.health.Note("bot", "@"+me.Username)

	hctx, c := withCall(cctx, "getWebhookInfo")
	hook, err := a.bot.GetWebhookInfo(hctx)
	if err != nil {
		return a.classify(c, err)
	}
	if hook.URL == "" {
		return nil
	}
	if !a.cfg.DeleteWebhook && hook.URL != a.cfg.WebhookURL {
		return &platform.Error{Kind: platform.TakenOver, Code: codeWebhook, Reason: conflictReason("webhook")}
	}
	dctx, c := withCall(cctx, "deleteWebhook")
	if _, err := a.bot.DeleteWebhook(dctx, &bot.DeleteWebhookParams{}); err != nil {
		return a.classify(c, err)
	}
	a.log.Warn("a webhook stood in the way of polling and was deleted, as configured")
	return nil
}

// Check proves that Telegram takes the token and that no webhook keeps the bot
// from being polled.
func (a *Adapter) Check(ctx context.Context) error {
	mctx, c := withCall(ctx, "getMe")
	me, err := a.bot.GetMe(mctx)
	if err != nil {
		return a.classify(c, err)
	}
	a.health.Note("bot", "@"+me.Username)
	hctx, c := withCall(ctx, "getWebhookInfo")
	hook, err := a.bot.GetWebhookInfo(hctx)
	if err != nil {
		return a.classify(c, err)
	}
	if hook.URL != "" && !a.cfg.DeleteWebhook && hook.URL != a.cfg.WebhookURL {
		return &platform.Error{Kind: platform.TakenOver, Code: codeWebhook, Reason: conflictReason("webhook")}
	}
	return nil
}

func itoa(n int64) string { return strconv.FormatInt(n, 10) }
