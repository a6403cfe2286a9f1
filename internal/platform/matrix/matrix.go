// Package matrix connects one account of a Matrix homeserver, over the
// client-server API (https://spec.matrix.org/v1.15/client-server-api/), without
// end-to-end encryption. What is encrypted cannot be read here, and that is said:
// once in each such room, in the log and in the status (encrypted.go).
//
// News come by a long poll of /sync, whose token is committed with what it
// brought (receive.go): what is not stored comes again, and the homeserver keeps
// what is said while nobody polls. A timeline that leaves a gap is filled from
// the room's history before anything behind the gap is taken (history.go).
//
// A message is put under a transaction id that is made of its nonce, so that the
// homeserver drops a repetition; since it does not remember for ever, and knows
// the id for one device only, the event carries the nonce too and is looked for
// before it is repeated (send.go).
//
// Buttons are reactions with numbers (choice.go). Clients keep what begins with
// a slash to themselves, so that !stop means /stop here.
package matrix

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
	"hermes/internal/platform/clean"
	"hermes/internal/platform/intake"
	"hermes/internal/platform/recall"
	"hermes/internal/platform/reconnect"
	"hermes/internal/platform/settings"
)

// Name is the platform's name.
const Name domain.Platform = "matrix"

// Limits of what is sent. An event has at most 65,536 bytes with its signatures,
// https://spec.matrix.org/v1.15/client-server-api/#size-limits.
const (
	maxText    = 4000     // characters of a message
	maxContent = 48 << 10 // bytes of an event's content
	maxUpload  = 50 << 20 // bytes of a file, as Synapse has it by default
)

// Deps is what an adapter is given. Every field may be zero. Changed is also
// called when a room was joined or left.
type Deps struct {
	platform.Deps
	// Admits tells whether a user may invite the account into rooms; nil admits nobody.
	Admits func(ctx context.Context, user string) (bool, error)
	// Secrets is told what no log may show: a token that a password was exchanged for.
	Secrets func(...string)
	// SessionFile is where such a token is kept (0600). With "" the account is
	// logged in for a moment only, as another device.
	SessionFile string
}

// Adapter is one account. Its methods are safe for concurrent use; Run may be
// called again once it has returned.
type Adapter struct {
	cfg     Config
	log     *slog.Logger
	health  *health.Reporter
	now     func() time.Time
	changed func()
	admits  func(ctx context.Context, user string) (bool, error)
	secrets func(...string)
	http    *http.Client
	pause   pauses

	session  session
	self     atomic.Pointer[identity]
	commands bang.Commands // that may be typed with "!"
	maxFile  atomic.Int64  // bytes that the homeserver takes; 0: not known
	edits    atomic.Int64  // makes transaction ids of edits differ
	rooms    rooms
	sends    recall.Sends
	waiting  recall.Latest // what is being worked on, for the reactions
	errands  chan errand   // courtesies that nothing waits for
}

// identity is who the account is.
type identity struct {
	user, device string // ids
	local        string // of the user's id, without "@" and server
	name         string // as shown; the local part where it has none
}

// pauses are the waits between attempts; tests shorten them.
type pauses struct {
	first, most time.Duration // of the back-off after a failure
	failures    int           // in a row before Run gives the connection up
	invite      time.Duration // between attempts to join a room
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
func New(c Config, d Deps) (*Adapter, error) {
	if err := settings.Wrong(notSetUp, c.problems()); err != nil {
		return nil, err
	}
	c.setDefaults()
	d.Deps = d.Filled(Name, c.Proxy)
	if d.Secrets == nil {
		d.Secrets = func(...string) {}
	}
	if d.Admits == nil {
		d.Admits = func(context.Context, string) (bool, error) { return false, nil }
	}
	a := &Adapter{
		cfg: c, log: d.Log, health: d.Health, now: d.Now, changed: d.Changed, admits: d.Admits, secrets: d.Secrets, http: d.HTTP,
		pause:   pauses{first: 500 * time.Millisecond, most: 30 * time.Second, failures: 10, invite: 5 * time.Minute},
		errands: make(chan errand, maxErrands),
	}
	a.session.file = d.SessionFile
	a.session.set(c.Token)
	return a, nil
}

// Name is "matrix".
func (a *Adapter) Name() domain.Platform { return Name }

// Capabilities keep to the limit that Synapse has by default: ten events at once,
// then one in five seconds, edits included
// (https://element-hq.github.io/synapse/latest/usage/configuration/config_documentation.html#rc_message).
func (a *Adapter) Capabilities() platform.Capabilities {
	c := platform.Capabilities{
		MaxText:      maxText - legendRoom,
		Unit:         platform.Runes,
		Dialect:      platform.DialectMatrixHTML,
		Buttons:      true,
		Threads:      true,
		MaxUpload:    maxUpload,
		EditEvery:    5 * time.Second,
		TypingEvery:  8 * time.Second,
		PerChatEvery: 5 * time.Second,
		PerSecond:    10,
		Burst:        10,
		Idempotency:  platform.IdempotencyAlways,
		CommandSign:  "!",
		Reacts:       true,
		Away: platform.Away{
			Kept: "all that was said, of one room at most the latest 2000 messages; numbers that were pressed and invitations too",
			Lost: "what was deleted meanwhile; what is encrypted",
		},
	}
	if self := a.self.Load(); self != nil {
		c.MentionName = self.user
	}
	return c
}

// SetCommands learns the names of the commands, which Matrix has none of its own
// for: what is typed as "!name" is heard as "/name".
func (a *Adapter) SetCommands(_ context.Context, cmds []platform.Command) error {
	a.commands.Set(cmds)
	return nil
}

// Run connects and receives. Passing failures are retried inside it, with a
// back-off and shown as degraded; it returns when the credentials are refused,
// after ten failures in a row, or when the sink says that another process owns
// the account (domain.Fenced).
func (a *Adapter) Run(ctx context.Context, sink platform.Sink) error {
	ctx, cancel := context.WithCancel(ctx)
	defer a.http.CloseIdleConnections()
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	wg.Go(func() { a.runErrands(ctx) })

	r := &receiver{a: a, sink: sink}
	r.intake = intake.Intake{Sink: sink, Service: "Matrix", Health: a.health, Log: a.log,
		Now: a.now, Scrub: a.scrubError, First: a.pause.first, Most: a.pause.most, Stored: r.accepted}
	r.line = reconnect.Line{Service: "the homeserver", Health: a.health, Log: a.log,
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

// Check asks the homeserver whether it takes the credentials. It does not log in
// with a password while a token is known, and where no token can be kept it logs
// out again, so that it disturbs nobody.
func (a *Adapter) Check(ctx context.Context) error {
	defer a.http.CloseIdleConnections()
	defer a.logOut(ctx)
	if _, e := a.whoAmI(ctx); e != nil {
		return harmless(e, "the homeserver did not say who the account is")
	}
	return nil
}

// identify learns who the account is; later calls know it already.
func (a *Adapter) identify(ctx context.Context) (*identity, *platform.Error) {
	if self := a.self.Load(); self != nil {
		return self, nil
	}
	self, e := a.whoAmI(ctx)
	return self, harmless(e, "the homeserver did not say who the account is")
}

// whoAmI asks for the account's identity,
// https://spec.matrix.org/v1.15/client-server-api/#get_matrixclientv3accountwhoami.
func (a *Adapter) whoAmI(ctx context.Context) (*identity, *platform.Error) {
	var me struct {
		User   string `json:"user_id"`
		Device string `json:"device_id"`
	}
	if _, e := a.get(ctx, "/v3/account/whoami", nil, &me); e != nil {
		return nil, e
	}
	if !isUser(me.User) {
		return nil, notMatrix(http.StatusOK)
	}
	if want := a.cfg.UserID; isUser(want) && want != me.User {
		return nil, &platform.Error{Kind: platform.BadCredentials, Code: "matrix_other_user",
			Reason: "MATRIX_USER_ID says " + want + ", but MATRIX_ACCESS_TOKEN" + settings.Origin(a.cfg.TokenOrigin) + " belongs to " + clean.Name(me.User) + ": correct one of them"}
	}
	local, _, _ := strings.Cut(me.User[1:], ":")
	self := &identity{user: me.User, device: clean.Name(me.Device), local: local, name: local}
	if was := a.self.Load(); was != nil && was.user == me.User {
		self.name = was.name
	}
	var profile struct {
		Name string `json:"displayname"`
	}
	// What it is called is worth no failure.
	if _, e := a.get(ctx, "/v3/profile/"+url.PathEscape(me.User)+"/displayname", nil, &profile); e == nil {
		self.name = clean.Name(profile.Name, local)
	}
	a.self.Store(self)
	a.health.Note("bot", me.User)
	return self, nil
}

// errand is a courtesy: a receipt, a reaction, the end of typing.
type errand func(ctx context.Context) *platform.Error

// maxErrands bounds those that wait.
const maxErrands = 128

// later queues a courtesy; what does not fit is dropped.
func (a *Adapter) later(e errand) {
	select {
	case a.errands <- e:
	default:
	}
}

// runErrands carries courtesies out; what fails is dropped.
func (a *Adapter) runErrands(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case do := <-a.errands:
			if e := do(ctx); e != nil && ctx.Err() == nil {
				a.log.Debug("a courtesy was not taken", "code", e.Code, "reason", e.Reason)
			}
		}
	}
}
