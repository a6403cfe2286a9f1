package discord

import (
	"cmp"
	"context"
	"errors"
	"net/http"
	"net/url"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"hermes/internal/domain"
	"hermes/internal/platform"
	"hermes/internal/platform/clean"
	"hermes/internal/platform/intake"
	"hermes/internal/platform/reconnect"
)

// loop is one run of the gateway loop. It belongs to one goroutine.
type loop struct {
	a       *Adapter
	sink    platform.Sink
	intake  intake.Intake
	at      *position
	dirty   bool // at holds more than what is committed
	answers *answers

	stuck    atomic.Bool     // events cannot be stored, which a living connection does not change
	servers  map[string]bool // of the session, that have not been looked at
	failures int             // in a row
}

// Run connects and receives. Passing failures are retried inside it, with a
// back-off and shown as degraded, and the session is resumed where Discord lets
// it; it returns when the token is refused, when the day's sessions are used
// up, after ten failures in a row, or when the sink says that another process
// owns the account (domain.Fenced).
func (a *Adapter) Run(ctx context.Context, sink platform.Sink) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	l := &loop{a: a, sink: sink, at: &position{}, answers: newAnswers(a)}
	l.intake = intake.Intake{Sink: sink, Service: "Discord", Health: a.health, Log: a.log,
		Now: a.now, Scrub: a.scrub, First: a.pause.first, Most: a.pause.most,
		Stored: func([]domain.Inbound) { l.stuck.Store(false) }, Stuck: func() { l.stuck.Store(true) }}
	var wg sync.WaitGroup
	wg.Go(func() { l.answers.run(ctx) })
	defer a.http.CloseIdleConnections()
	defer a.files.CloseIdleConnections()
	defer wg.Wait()
	defer cancel()

	err := l.run(ctx)
	if ctx.Err() != nil {
		return nil
	}
	var pe *platform.Error
	if errors.As(err, &pe) && pe.Kind == platform.BadCredentials {
		a.health.Down(pe.Code, pe.Reason)
	}
	return err
}

func (l *loop) run(ctx context.Context) error {
	for ctx.Err() == nil {
		began := time.Now()
		ready, err := l.connect(ctx)
		if ctx.Err() != nil {
			return nil //nolint:nilerr // it was asked to end
		}
		if ready && time.Since(began) >= l.a.pause.steady {
			l.failures = 0
		}
		if err := l.failed(ctx, ready, err); err != nil {
			return err
		}
	}
	return nil
}

// failed decides after a connection has ended whether to connect again, and
// waits before that. It returns an error when Run is to end.
func (l *loop) failed(ctx context.Context, ready bool, err error) error {
	code := domain.CodeOf(err)
	if code == domain.Fenced {
		return err
	}
	e := platform.AsError(err)
	if e.Kind == platform.BadCredentials || e.Code == codeUsedUp {
		return e
	}
	wait := e.RetryAfter
	if e.Code != codeReconnect || !ready { // an orderly end is no failure
		l.failures++
		wait = max(reconnect.Backoff(l.a.pause.first, l.a.pause.most, l.failures), wait)
	}
	if l.failures >= maxReconnect {
		return e
	}
	l.a.http.CloseIdleConnections() // a connection that went deaf is not asked again
	if e.Code != codeReconnect {
		l.a.health.Degraded(e.Code, e.Reason)
	}
	l.a.log.Warn("the connection to Discord has ended", "code", e.Code, "reason", e.Reason, "cause", e.Cause, "attempt", l.failures, "wait", wait)
	platform.Sleep(ctx, wait)
	return nil
}

// address finds where to connect. For a new session Discord is asked, which
// also proves the token and tells how many sessions are left,
// https://discord.com/developers/docs/events/gateway#get-gateway-bot.
func (l *loop) address(ctx context.Context) (string, error) {
	if s := l.a.session; s.id != "" && s.url != "" {
		return s.url, nil
	}
	var bot struct {
		URL   string `json:"url"`
		Limit *struct {
			Remaining  int   `json:"remaining"`
			ResetAfter int64 `json:"reset_after"` // milliseconds
		} `json:"session_start_limit"`
	}
	if perr := l.a.get(ctx, "asking for the gateway", "/gateway/bot", "/gateway/bot", &bot); perr != nil {
		return "", perr
	}
	if u, err := url.Parse(bot.URL); err != nil || u.Host == "" {
		return "", &platform.Error{Kind: platform.Retry, Code: "discord_garbled", Reason: "Discord named no gateway to connect to: it is asked again"}
	}
	if bot.Limit != nil && bot.Limit.Remaining <= 0 {
		return "", usedUp(max(time.Duration(bot.Limit.ResetAfter)*time.Millisecond, time.Minute), "Discord lets this bot begin no more sessions now")
	}
	return bot.URL, nil
}

// Check proves that Discord takes the token, and that the application may read
// what people write: without one of the flags for the Message Content intent the
// connection is refused with 4014,
// https://discord.com/developers/docs/resources/application#application-object-application-flags.
func (a *Adapter) Check(ctx context.Context) error {
	defer a.http.CloseIdleConnections()
	var app struct {
		Name  string `json:"name"`
		Flags *int64 `json:"flags"` // absent: not said
		Bot   struct {
			Username string `json:"username"`
		} `json:"bot"`
	}
	if perr := a.get(ctx, "asking for the application", "/applications/@me", "/applications/@me", &app); perr != nil {
		return perr
	}
	if name := cmp.Or(app.Bot.Username, app.Name); name != "" {
		a.health.Note("bot", "@"+name)
	}
	const messageContent, messageContentLimited = 1 << 18, 1 << 19
	if app.Flags != nil && *app.Flags&(messageContent|messageContentLimited) == 0 {
		return &platform.Error{Kind: platform.Retry, Code: codeIntents, Reason: noContentReason}
	}
	return nil
}

// Codes that the loop itself acts on.
const (
	codeReconnect = "discord_reconnect"
	codeUsedUp    = "discord_identifies"
)

func usedUp(wait time.Duration, why string) *platform.Error {
	return &platform.Error{Kind: platform.Retry, Code: codeUsedUp, RetryAfter: wait,
		Reason: why + " (Discord resets the token of a bot that begins more than 1,000 a day). Something makes the connection end again and again: look into the log, and for a second program that uses the same token"}
}

// begin counts and commits a new session before it is begun.
func (l *loop) begin(ctx context.Context) error {
	if wait := l.at.begin(l.a.now()); wait > 0 {
		return usedUp(wait, "this bot has begun "+strconv.Itoa(maxIdentifies)+" sessions today")
	}
	if err := l.sink.Accept(ctx, l.a.account, nil, l.at.String()); err != nil {
		return err
	}
	l.dirty = false
	l.a.health.Note("sessions_today", strconv.Itoa(l.at.Identifies))
	if !platform.Sleep(ctx, l.a.pause.identify-l.a.now().Sub(l.a.identify)) {
		return ctx.Err()
	}
	l.a.identify = l.a.now()
	return nil
}

// save commits the position where it has moved without an event.
func (l *loop) save(ctx context.Context) {
	if !l.dirty {
		return
	}
	if err := l.sink.Accept(ctx, l.a.account, nil, l.at.String()); err != nil {
		l.a.log.Debug("the position was not stored; messages that were not for us are read again", "error", l.a.scrub(err))
		return
	}
	l.dirty = false
}

// answers tells Discord that presses and commands were taken, once they are
// committed, so that the user's client does not show them as failed. What does
// not fit is dropped: it is a courtesy.
type answers struct {
	a *Adapter
	c chan *interaction
}

const maxAnswers = 256

func newAnswers(a *Adapter) *answers { return &answers{a, make(chan *interaction, maxAnswers)} }

func (s *answers) add(list []*interaction) {
	for _, i := range list {
		select {
		case s.c <- i:
		default:
			return
		}
	}
}

func (s *answers) run(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case i := <-s.c:
			s.answer(ctx, i)
		}
	}
}

// answer makes the interaction callback, which is due within three seconds,
// https://discord.com/developers/docs/interactions/receiving-and-responding#create-interaction-response.
func (s *answers) answer(ctx context.Context, i *interaction) {
	body := map[string]any{"type": answerDeferUpdate}
	if i.Type == applicationCommand {
		body = map[string]any{"type": answerMessage, "data": map[string]any{"content": "✓ /" + clean.Clip(clean.Text(i.Data.Name), 100), "flags": flagPrivate}}
	}
	path := "/interactions/" + url.PathEscape(i.ID) + "/" + url.PathEscape(i.Token) + "/callback"
	if _, _, perr := s.a.do(ctx, request{what: "confirming a button", method: http.MethodPost, route: "/interactions", path: path, body: body}); perr != nil {
		s.a.log.Debug("a press or command could not be confirmed to its user", "code", perr.Code, "reason", perr.Reason)
	}
}
