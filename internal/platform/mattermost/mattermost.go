// Package mattermost connects one bot account of a Mattermost server, over its
// REST API, version 4 (https://api.mattermost.com/), and its websocket
// (https://api.mattermost.com/#tag/WebSocket). Servers from 6.1 on are
// understood.
//
// The socket only says quickly what the history says surely. After every
// connect, after every gap in the socket's sequence numbers, and now and then
// in between, the history of each channel is read from where the account was
// last up to date (history.go); what is known already is dropped by the inbox.
//
// A post carries its nonce twice: as pending_post_id, by which a server drops
// a repetition for half a minute, and in its props, where the adapter itself
// looks for it before it repeats what may have arrived (send.go).
//
// Buttons are reactions with numbers (choice.go). Mattermost keeps what begins
// with a slash to itself, so that !stop means /stop here.
package mattermost

import (
	"context"
	"log/slog"
	"net/http"
	"regexp"
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
const Name domain.Platform = "mattermost"

// Limits of the server.
const (
	maxPost      = 4000      // characters of a post that every server takes; newer ones take 16383
	maxUpload    = 100 << 20 // bytes of a file by default, https://docs.mattermost.com/configure/file-storage-configuration-settings.html
	filesPerPost = 5         // newer servers take ten
)

// Adapter is one bot account. Its methods are safe for concurrent use; Run may
// be called again once it has returned.
type Adapter struct {
	cfg    Config
	log    *slog.Logger
	health *health.Reporter
	now    func() time.Time
	wire   *wire
	pause  pauses

	changed func() // the channels are not those that were listed

	running  running
	self     atomic.Pointer[identity]
	limits   atomic.Pointer[serverLimits]
	commands bang.Commands // that may be typed with "!"
	names    directory
	sends    recall.Sends

	reactions chan reaction // that are to be given
}

// identity is who the bot is.
type identity struct {
	id, name string
	mention  *regexp.Regexp
}

// serverLimits are what the server's own configuration says.
type serverLimits struct {
	postRunes int   // 0 when it does not say
	fileBytes int64 // the same
}

// pauses are the waits between attempts; tests shorten them.
type pauses struct {
	first, most time.Duration // of the back-off after a failure
	failures    int           // in a row before Run gives the connection up
}

// The adapter fulfils these contracts.
var (
	_ platform.Adapter = (*Adapter)(nil)
	_ platform.Editor  = (*Adapter)(nil)
	_ platform.Typer   = (*Adapter)(nil)
	_ platform.Fetcher = (*Adapter)(nil)
	_ platform.Menu    = (*Adapter)(nil)
	_ platform.Checker = (*Adapter)(nil)
	_ platform.Caller  = (*Adapter)(nil)

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
		cfg: c, log: d.Log, health: d.Health, now: d.Now, changed: d.Changed,
		wire:      newWire(d.HTTP, c.URL, c.Token),
		pause:     pauses{first: 500 * time.Millisecond, most: 30 * time.Second, failures: 10},
		reactions: make(chan reaction, maxReactions),
	}, nil
}

// Name is "mattermost".
func (a *Adapter) Name() domain.Platform { return Name }

// Capabilities are what every server since 6.1 allows in its default
// configuration. The rates stay under the server's own default of ten requests
// a second for each account
// (https://docs.mattermost.com/configure/rate-limiting-configuration-settings.html).
func (a *Adapter) Capabilities() platform.Capabilities {
	c := platform.Capabilities{
		MaxText:     maxPost - legendRoom,
		MaxCaption:  maxPost - legendRoom,
		Unit:        platform.Runes,
		Dialect:     platform.DialectMarkdown,
		Buttons:     true,
		Threads:     true,
		MaxUpload:   maxUpload,
		EditEvery:   time.Second,
		TypingEvery: 4 * time.Second, // clients show it for five
		PerSecond:   8,
		Burst:       8,
		Idempotency: platform.IdempotencyAlways,
		DigitIDs:    true,
		Reacts:      true,
		Away: platform.Away{
			Kept: "what was posted in the last seven days, of one channel at most the latest 5000 posts",
			Lost: "a number that was pressed; what was deleted meanwhile",
		},
		CommandSign: "!",
	}
	if self := a.self.Load(); self != nil {
		c.MentionName = "@" + self.name
	}
	return c
}

// SetCommands learns the names of the commands. A native command of Mattermost
// needs an address at which the server reaches this process, and everything
// that begins with a slash is taken for one by its clients; so what is typed
// as "!name" is heard as "/name".
func (a *Adapter) SetCommands(_ context.Context, cmds []platform.Command) error {
	a.commands.Set(cmds)
	return nil
}

// Run connects and receives. Passing failures are retried inside it, with a
// back-off and shown as degraded; it returns when the token is refused, after
// ten failures in a row, or when the sink says that another process owns the
// account (domain.Fenced).
func (a *Adapter) Run(ctx context.Context, sink platform.Sink) error {
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	wg.Go(func() { a.give(ctx) })
	defer a.wire.http.CloseIdleConnections()
	defer wg.Wait()
	defer cancel()

	a.running.set(sink)
	defer a.running.set(nil)
	r := &receiver{a: a, sink: sink}
	r.intake = intake.Intake{Sink: sink, Service: "Mattermost", Health: a.health, Log: a.log,
		Now: a.now, Scrub: a.scrubError, First: a.pause.first, Most: a.pause.most, Stored: r.accepted}
	r.line = reconnect.Line{Service: "Mattermost", Health: a.health, Log: a.log,
		First: a.pause.first, Most: a.pause.most, Failures: a.pause.failures, Cut: a.wire.http.CloseIdleConnections}
	err := r.line.Run(ctx, r.session)
	if ctx.Err() != nil {
		return nil
	}
	if e := platform.AsError(err); e.Kind == platform.BadCredentials {
		a.health.Down(e.Code, e.Reason)
	}
	return err
}

// Check asks the server whether it takes the token.
func (a *Adapter) Check(ctx context.Context) error {
	defer a.wire.http.CloseIdleConnections()
	var u user
	if _, e := a.call(ctx, http.MethodGet, "/users/me", nil, &u); e != nil {
		return harmless(e, "Mattermost did not say who the bot is")
	}
	if _, e := a.become(u); e != nil {
		return e
	}
	return nil
}

// identify learns who the account is; later calls know it already.
func (a *Adapter) identify(ctx context.Context) (*identity, *platform.Error) {
	if self := a.self.Load(); self != nil {
		return self, nil
	}
	var u user
	if _, err := a.call(ctx, http.MethodGet, "/users/me", nil, &u); err != nil {
		return nil, err
	}
	return a.become(u)
}

// become takes what /users/me says.
func (a *Adapter) become(u user) (*identity, *platform.Error) {
	if !isID(u.ID) || u.Username == "" {
		return nil, notMattermost(http.StatusOK)
	}
	// A name ends where no letter of one follows; a full stop may end the sentence.
	self := &identity{id: u.ID, name: u.Username, mention: regexp.MustCompile(`(?i)(^|[^a-z0-9._@-])@` + regexp.QuoteMeta(u.Username) + `($|[^a-z0-9._-]|[._-]+($|[^a-z0-9._-]))`)}
	a.self.Store(self)
	a.health.Note("bot", "@"+u.Username)
	return self, nil
}
