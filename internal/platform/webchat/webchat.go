// Package webchat is the built-in chat page as a platform: a browser is the
// client, a room is a chat. What is said is committed through the sink before
// the page is told so; what is answered is a row of the ledger, and the page
// is merely notified of it. A page that missed something reads the log.
//
// The handlers check no credentials: they are mounted behind the guard of the
// API server, which lets in only the owner.
package webchat

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"hermes/internal/domain"
	"hermes/internal/health"
	"hermes/internal/ledger"
	"hermes/internal/platform"
)

// Account is the account name of events: there is only one.
const Account = "webchat"

// Log reads what was said at an address. *ledger.Store has it.
type Log interface {
	ChatLog(ctx context.Context, at domain.Address, limit int) ([]ledger.ChatEntry, error)
}

// Options configure an Adapter. Log and Logger are required.
type Options struct {
	Log    Log
	Logger *slog.Logger
	Health *health.Reporter
	Now    func() time.Time // time.Now when nil
	// Commands are offered when the user types a slash.
	Commands []platform.Command
	// Keepalive is the longest silence of an event stream; 20 s when 0.
	Keepalive time.Duration
}

// Adapter is the web chat. It implements platform.Adapter and platform.Live.
// All methods are safe for concurrent use.
type Adapter struct {
	o   Options
	hub hub

	mu   sync.Mutex
	sink platform.Sink // nil while Run does not run
}

var (
	_ platform.Adapter = (*Adapter)(nil)
	_ platform.Live    = (*Adapter)(nil)
)

// New makes an adapter. It does no I/O.
func New(o Options) *Adapter {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Keepalive <= 0 {
		o.Keepalive = 20 * time.Second
	}
	return &Adapter{o: o, hub: hub{now: o.Now, rooms: map[string]*room{}}}
}

// Name is "webchat".
func (a *Adapter) Name() domain.Platform { return domain.PlatformWebchat }

// maxText bounds a message in characters, either way.
const maxText = 65536

// Capabilities of a page that we wrote ourselves: it renders Markdown, and
// being told twice of the same message is harmless, since the row in the
// ledger is the message.
func (a *Adapter) Capabilities() platform.Capabilities {
	return platform.Capabilities{
		MaxText: maxText, Unit: platform.Runes, Dialect: platform.DialectMarkdown, Buttons: true,
		Idempotency: platform.IdempotencyAlways, Burst: 100,
		Away: platform.Away{
			Kept: "what the page sends again when it is connected again",
			Lost: "nothing: a message that was not taken stays in the page",
		},
	}
}

// Run takes messages into the sink until ctx ends. Pages are answered 503
// while it does not run.
func (a *Adapter) Run(ctx context.Context, sink platform.Sink) error {
	a.setSink(sink)
	defer a.setSink(nil)
	a.o.Health.OK()
	<-ctx.Done()
	return nil
}

func (a *Adapter) setSink(s platform.Sink) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.sink = s
}

func (a *Adapter) currentSink() platform.Sink {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.sink
}

// Send tells the pages of a room about a message. It always succeeds: the
// ledger holds the message, and a page that is not open reads it there later.
func (a *Adapter) Send(_ context.Context, to domain.Address, p domain.Part, nonce string) (string, error) {
	receipt := "web-" + nonce
	a.hub.deliver(to.ChatID, delivered{ID: receipt, Part: p, At: a.o.Now().UTC()})
	a.o.Health.OK()
	return receipt, nil
}

// Live shows the progress of a turn. It never blocks.
func (a *Adapter) Live(to domain.Address, e domain.TurnEvent) { a.hub.turn(to.ChatID, e) }
