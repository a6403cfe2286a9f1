// Package webhook is the generic platform: any program that can make an HTTP
// request can start a turn, and any that can take one can be told of its
// answer. A route (POST /webhooks/<route>) says who may call, what is asked of
// the agent, and where its answer goes: nowhere, to a chat of another platform
// or, signed, to an address. What is accepted stands in the ledger before the
// caller is told so.
//
// Calls are signed as Standard Webhooks
// (https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md),
// as GitHub's (https://docs.github.com/en/webhooks/using-webhooks/validating-webhook-deliveries)
// or as GitLab's (https://docs.gitlab.com/user/project/integrations/webhooks/).
package webhook

import (
	"context"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"hermes/internal/domain"
	"hermes/internal/health"
	"hermes/internal/platform"
	"hermes/internal/platform/settings"
)

// Name is the platform's name.
const Name = domain.PlatformWebhook

// account is the account name of events: there is only one.
const account = "webhook"

// maxText bounds what is posted to an address, in characters.
const maxText = 65536

// Deps is what an adapter is given. Every field may be zero.
type Deps struct {
	Log    *slog.Logger
	Health *health.Reporter
	Now    func() time.Time
	HTTP   *http.Client // for posting; its redirects are not followed
	// Home gives the home channel of another platform, for routes that name
	// the platform only.
	Home func(domain.Platform) (domain.Address, bool)
	// Secrets is told every secret that routes bring, so that no log shows it.
	Secrets func(...string)
	// Listener is a socket that another process left; New takes it over.
	Listener net.Listener
}

// Adapter is the webhook platform of a profile. Its methods are safe for
// concurrent use; Run may be called again once it has returned.
type Adapter struct {
	cfg    Config
	d      Deps
	routes *routes
	limits limits
	recent recent
	slots  chan struct{} // requests at once

	mu       sync.Mutex
	sink     platform.Sink // nil while Run does not run
	listener net.Listener  // bound; nil while there is none
}

// The adapter fulfils these contracts.
var (
	_ platform.Adapter = (*Adapter)(nil)
	_ platform.Checker = (*Adapter)(nil)
	_ platform.Router  = (*Adapter)(nil)
)

// New makes an adapter; it binds nothing. domain.Config.
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
	if d.HTTP == nil {
		d.HTTP = &http.Client{Transport: &http.Transport{
			Proxy: http.ProxyFromEnvironment, DialContext: (&net.Dialer{Timeout: 10 * time.Second}).DialContext,
			// A kept connection that has died makes the fate of a post uncertain.
			TLSHandshakeTimeout: 10 * time.Second, DisableKeepAlives: true,
		}}
	}
	if d.Secrets == nil {
		d.Secrets = func(...string) {}
	}
	client := *d.HTTP
	// A redirect would turn the POST into a GET.
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	d.HTTP = &client
	d.Log = d.Log.With("platform", string(Name))
	a := &Adapter{cfg: c, d: d, listener: d.Listener, slots: make(chan struct{}, maxAtOnce)}
	a.routes = newRoutes(c, d)
	return a, nil
}

// Name is "webhook".
func (a *Adapter) Name() domain.Platform { return Name }

// Capabilities are those of a receiver that takes plain Markdown. It may drop
// what it has had before by the id of a message, but nobody can know whether it
// does.
func (a *Adapter) Capabilities() platform.Capabilities {
	return platform.Capabilities{
		MaxText: maxText, Unit: platform.Runes, Dialect: platform.DialectMarkdown, Threads: true,
		PerSecond: 20, Burst: 20, Idempotency: platform.IdempotencyNone,
		Away: platform.Away{
			Kept:  "what its sender sends again, since it got no answer",
			Lost:  "calls of senders that try once",
			Twice: "by a receiver that does not look at the id, which a repetition keeps",
		},
	}
}

// Check binds the address, unless it is bound: that is all that can be wrong.
func (a *Adapter) Check(context.Context) error {
	if _, e := a.listen(); e != nil {
		return e
	}
	return nil
}

// Listener is the socket that is bound, for handing it to a successor; nil
// while there is none. It must not be closed by the caller.
func (a *Adapter) Listener() net.Listener {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.listener
}

func (a *Adapter) currentSink() platform.Sink {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.sink
}

// Route tells where the answers to a route's events go: to another platform's
// chat where the route says so, else to the address itself.
func (a *Adapter) Route(to domain.Address) domain.Address {
	r, ok := a.routes.find(to.ChatID)
	if !ok || r.Deliver == "" || r.Deliver == deliverLog || r.Deliver == deliverPost {
		return to
	}
	return a.chatOf(r, to)
}

// chatOf is the chat of another platform that a route answers in.
func (a *Adapter) chatOf(r *Route, to domain.Address) domain.Address {
	extra := r.Extra
	if _, over := splitThread(to.ThreadID); over != nil {
		extra = over
	}
	dest := domain.Address{Platform: domain.Platform(r.Deliver), ChatID: extra["chat_id"], ThreadID: extra["thread_id"]}
	if dest.ChatID != "" {
		return dest
	}
	if a.d.Home != nil {
		if home, ok := a.d.Home(dest.Platform); ok {
			return home
		}
	}
	return to // Send says what is missing
}
