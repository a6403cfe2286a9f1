// Package email is a mailbox as a platform: mail is read over IMAP (RFC 9051,
// RFC 3501, with IDLE, RFC 2177) and answered over SMTP (RFC 5321). A thread of
// mails is a conversation. What a machine wrote is never answered (RFC 3834),
// and every mail of ours says that a machine wrote it.
package email

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"log/slog"
	"net"
	"strings"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"hermes/internal/domain"
	"hermes/internal/health"
	"hermes/internal/platform"
	"hermes/internal/platform/intake"
	"hermes/internal/platform/reconnect"
	"hermes/internal/platform/settings"
)

// Name is the platform's name.
const Name domain.Platform = "email"

const (
	maxText   = 50_000   // characters of one mail of ours
	maxUpload = 20 << 20 // bytes of files that common servers take in one mail
)

// Deps is what an adapter is given. Every field may be zero.
type Deps struct {
	TLS *tls.Config // for both servers; its ServerName is set
	// Dial makes connections to both servers; nil means those of the machine.
	Dial   func(ctx context.Context, network, address string) (net.Conn, error)
	Log    *slog.Logger
	Health *health.Reporter
	Now    func() time.Time
}

// Adapter is one mailbox. Its methods are safe for concurrent use; Run may be
// called again once it has returned.
type Adapter struct {
	cfg     Config
	tls     *tls.Config
	connect func(ctx context.Context, network, address string) (net.Conn, error)
	log     *slog.Logger
	health  *health.Reporter
	now     func() time.Time
	pause   pauses
	threads threads
	sends   sends
	senders senders
}

// pauses are the waits between attempts; tests shorten them.
type pauses struct {
	first, most time.Duration // of the back-off after a failure
	failures    int           // in a row before Run gives the connection up
	copies      time.Duration // between looks for the copy of a mail that was sent
}

// The adapter fulfils these contracts.
var (
	_ platform.Adapter = (*Adapter)(nil)
	_ platform.Fetcher = (*Adapter)(nil)
	_ platform.Checker = (*Adapter)(nil)
	_ platform.Tracer  = (*Adapter)(nil)
)

// New makes an adapter; it does not connect. domain.Config.
func New(c Config, d Deps) (*Adapter, error) {
	c.setDefaults()
	if err := settings.Wrong(notSetUp, c.problems()); err != nil {
		return nil, err
	}
	if d.Log == nil {
		d.Log = slog.New(slog.DiscardHandler)
	}
	if d.Now == nil {
		d.Now = time.Now
	}
	if d.TLS == nil {
		d.TLS = &tls.Config{MinVersion: tls.VersionTLS12}
	}
	if d.Dial == nil {
		d.Dial = (&net.Dialer{KeepAlive: 30 * time.Second}).DialContext
	}
	return &Adapter{
		cfg: c, tls: d.TLS, connect: d.Dial, log: d.Log.With("platform", string(Name)), health: d.Health, now: d.Now,
		pause: pauses{first: time.Second, most: time.Minute, failures: 10, copies: time.Second},
	}, nil
}

// Name is "email".
func (a *Adapter) Name() domain.Platform { return Name }

// Capabilities are what common servers allow. The same Message-ID at every
// attempt lets many mailboxes drop a repetition, but nobody promises it.
func (a *Adapter) Capabilities() platform.Capabilities {
	return platform.Capabilities{
		MaxText: maxText, MaxCaption: maxText, Unit: platform.Runes, Dialect: platform.DialectMarkdown,
		Threads: true, MaxUpload: maxUpload, PerSecond: 2, Burst: 5, PerChatEvery: 2 * time.Second,
		Idempotency: platform.IdempotencyNone,
		Away: platform.Away{
			Kept:  "up to 10,000 mails, also after the mailbox was numbered anew",
			Lost:  "mail that somebody deletes or moves before it is read",
			Twice: "when its fate is unknown and the provider keeps no copy of sent mail; the repetition has the same Message-ID",
		},
	}
}

// Run connects and receives. Passing failures are retried inside it, with a
// back-off and shown as degraded; it returns when the password is refused, after
// ten failures in a row, or when the sink says that another process owns the
// account (domain.Fenced).
func (a *Adapter) Run(ctx context.Context, sink platform.Sink) error {
	r := &receiver{a: a, sink: sink, spoiled: map[spoiledMail]bool{}}
	if !a.cfg.RequireDMARC {
		a.log.Warn("the sender of a mail can be forged, and is believed: set EMAIL_REQUIRE_DMARC=true and EMAIL_AUTHSERV_ID where the provider checks mail; see docs/security.md")
	}
	r.intake = intake.Intake{Sink: sink, Service: "the mailbox", Health: a.health, Log: a.log,
		Now: a.now, Scrub: a.scrubError, First: a.pause.first, Most: a.pause.most}
	r.line = reconnect.Line{Service: "the mailbox", Health: a.health, Log: a.log,
		First: a.pause.first, Most: a.pause.most, Failures: a.pause.failures}
	err := r.line.Run(ctx, r.session)
	if ctx.Err() != nil {
		return nil //nolint:nilerr // it was asked to end
	}
	if e := platform.AsError(err); e.Kind == platform.BadCredentials {
		a.health.Down(e.Code, e.Reason)
	}
	return err
}

// believed says, for people, how far a mail is taken to be from whom it says.
func (a *Adapter) believed() string {
	switch {
	case a.cfg.RequireDMARC:
		return "only as proven by " + a.cfg.AuthServer
	case a.cfg.AuthServer != "":
		return "as written, unless " + a.cfg.AuthServer + " says otherwise"
	}
	return "as written, which can be forged"
}

// Check proves that both servers take the password.
func (a *Adapter) Check(ctx context.Context) error {
	c, e := a.dialIMAP(ctx, nil)
	if e != nil {
		return e
	}
	c.end()
	s, e := a.dialSMTP(ctx)
	if e != nil {
		return e
	}
	s.end()
	a.health.Note("bot", a.cfg.Address)
	return nil
}

// ours tells whether an address is the account's own.
func (a *Adapter) ours(address string) bool {
	if strings.EqualFold(address, a.cfg.Address) {
		return true
	}
	for _, other := range a.cfg.Aliases {
		if strings.EqualFold(address, other) {
			return true
		}
	}
	return false
}

// domainOf is what stands behind an address's @.
func domainOf(address string) string {
	return strings.ToLower(address[strings.LastIndexByte(address, '@')+1:])
}

// idPrefix begins the Message-IDs of our mails.
const idPrefix = "hermes."

// messageID is the Message-ID of a message of ours, the same at every attempt.
func (a *Adapter) messageID(nonce string) string {
	sum := sha256.Sum256([]byte(nonce))
	return idPrefix + hex.EncodeToString(sum[:16]) + "@" + domainOf(a.cfg.Address)
}

// isOurID tells whether a mail of ours has an id.
func (a *Adapter) isOurID(id string) bool {
	return strings.HasPrefix(id, idPrefix) && strings.HasSuffix(strings.ToLower(id), "@"+domainOf(a.cfg.Address))
}

// table keeps the newest of its entries. The zero value is usable.
type table[V any] struct {
	m     map[string]V
	order []string
}

const maxTable = 2000

func (t *table[V]) get(key string) (V, bool) {
	v, ok := t.m[key]
	return v, ok
}

func (t *table[V]) set(key string, v V) {
	if t.m == nil {
		t.m = map[string]V{}
	}
	if _, known := t.m[key]; !known {
		if len(t.order) == maxTable {
			delete(t.m, t.order[0])
			t.order = t.order[1:]
		}
		t.order = append(t.order, key)
	}
	t.m[key] = v
}

// thread is what an answer needs to know of a conversation.
type thread struct {
	subject string // without "Re:"
	last    string // Message-ID of its newest mail
}

// threads remembers conversations by their first Message-ID. The mailbox itself
// is asked for what is not known.
type threads struct {
	mu sync.Mutex
	t  table[thread]
}

func (t *threads) get(root string) (thread, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.t.get(root)
}

func (t *threads) set(root string, th thread) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.t.set(root, th)
}

// senders bounds how much one address may write, so that two machines that hide
// what they are cannot keep each other busy.
type senders struct {
	mu sync.Mutex
	t  table[*rate.Limiter]
}

func (s *senders) allow(from string, burst int, every time.Duration, now time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	l, ok := s.t.get(from)
	if !ok {
		l = rate.NewLimiter(rate.Every(every), burst)
		s.t.set(from, l)
	}
	return l.AllowN(now, 1)
}

// sends remembers the receipts of this process's sends by their nonces.
type sends struct {
	mu sync.Mutex
	t  table[string]
}

func (s *sends) get(nonce string) (receipt string, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.t.get(nonce)
}

// forget takes back what was sent with a receipt.
func (s *sends) forget(receipt string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for nonce, id := range s.t.m {
		if id == receipt {
			delete(s.t.m, nonce)
		}
	}
}

func (s *sends) set(nonce, receipt string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.t.set(nonce, receipt)
}
