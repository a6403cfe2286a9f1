package gateway

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"time"

	"hermes/internal/domain"
	"hermes/internal/health"
	"hermes/internal/home"
	"hermes/internal/platform"
	"hermes/internal/platform/discord"
	"hermes/internal/platform/email"
	"hermes/internal/platform/matrix"
	"hermes/internal/platform/mattermost"
	"hermes/internal/platform/slack"
	"hermes/internal/platform/telegram"
	"hermes/internal/platform/webchat"
	"hermes/internal/platform/webhook"
	"hermes/internal/succession"
)

// kind is a platform that this build can connect.
type kind struct {
	// scope names the credential's machine-wide lock; "" means that there is none.
	scope string
	// owned is what that lock is about; nil means the token.
	owned func(c home.PlatformConfig) string
	// capabilities are known before an adapter is there, so that answers can be
	// rendered for a platform that is down.
	capabilities platform.Capabilities
	// address is where a platform listens that others connect to; its socket is
	// passed on from process to process. nil for all others.
	address func(c home.PlatformConfig) (host string, port int)
	build   func(c home.PlatformConfig, d adapterDeps) (platform.Adapter, error)
}

// adapterDeps is what an adapter is given beside its configuration.
type adapterDeps struct {
	log    *slog.Logger
	health *health.Reporter // may be nil
	now    func() time.Time
	// profile is the home that the platform belongs to.
	profile home.Profile
	// home finds home channels; secrets is told what no log may show; socket
	// is one that another process left for this platform. Each may be nil.
	home    func(domain.Platform) (domain.Address, bool)
	secrets func(...string)
	socket  net.Listener
	// changed is called when the platform's channels are not what they were; may
	// be nil.
	changed func()
	// admits tells whether a user of the platform may talk to the agent; may be nil.
	admits func(ctx context.Context, user string) (bool, error)
}

// common is what every adapter is given.
func (d adapterDeps) common() platform.Deps {
	return platform.Deps{Log: d.log, Health: d.health, Now: d.now, Changed: d.changed}
}

// kinds is the table of platforms: a new one is one more row.
var kinds = map[domain.Platform]kind{
	discord.Name: {
		scope: "discord-bot-token", capabilities: new(discord.Adapter).Capabilities(),
		build: func(c home.PlatformConfig, d adapterDeps) (platform.Adapter, error) {
			cfg, err := discord.FromProfile(c)
			if err != nil {
				return nil, err
			}
			return discord.New(cfg, discord.Deps{Deps: d.common()})
		},
	},
	email.Name: {
		scope: "email-account", owned: email.Identity, capabilities: new(email.Adapter).Capabilities(),
		build: func(c home.PlatformConfig, d adapterDeps) (platform.Adapter, error) {
			cfg, err := email.FromProfile(c)
			if err != nil {
				return nil, err
			}
			return email.New(cfg, email.Deps{Log: d.log, Health: d.health, Now: d.now})
		},
	},
	matrix.Name: {
		scope: "matrix-account", owned: matrix.Identity, capabilities: new(matrix.Adapter).Capabilities(),
		build: func(c home.PlatformConfig, d adapterDeps) (platform.Adapter, error) {
			cfg, err := matrix.FromProfile(c)
			if err != nil {
				return nil, err
			}
			file := ""
			if d.profile.Home != "" { // a check knows of no profile
				file = d.profile.Path("matrix_session.json")
			}
			return matrix.New(cfg, matrix.Deps{Deps: d.common(), Admits: d.admits, Secrets: d.secrets, SessionFile: file})
		},
	},
	mattermost.Name: {
		scope: "mattermost-token", capabilities: new(mattermost.Adapter).Capabilities(),
		build: func(c home.PlatformConfig, d adapterDeps) (platform.Adapter, error) {
			cfg, err := mattermost.FromProfile(c)
			if err != nil {
				return nil, err
			}
			return mattermost.New(cfg, d.common())
		},
	},
	slack.Name: {
		scope: "slack-app-token", owned: func(c home.PlatformConfig) string { return slack.AppToken(c).Reveal() }, capabilities: new(slack.Adapter).Capabilities(),
		build: func(c home.PlatformConfig, d adapterDeps) (platform.Adapter, error) {
			cfg, err := slack.FromProfile(c)
			if err != nil {
				return nil, err
			}
			return slack.New(cfg, d.common())
		},
	},
	telegram.Name: {
		scope: "telegram-bot-token", capabilities: new(telegram.Adapter).Capabilities(),
		build: func(c home.PlatformConfig, d adapterDeps) (platform.Adapter, error) {
			cfg, err := telegram.FromProfile(c)
			if err != nil {
				return nil, err
			}
			return telegram.New(cfg, d.common())
		},
	},
	webhook.Name: { // which two processes may receive at once, on one socket
		capabilities: new(webhook.Adapter).Capabilities(), address: webhook.Address,
		build: func(c home.PlatformConfig, d adapterDeps) (platform.Adapter, error) {
			cfg, err := webhook.FromProfile(c, d.profile)
			if err != nil {
				return nil, err
			}
			return webhook.New(cfg, webhook.Deps{Log: d.log, Health: d.health, Now: d.now, Home: d.home, Secrets: d.secrets, Listener: d.socket})
		},
	},
}

// listens tells of an adapter that others connect to. Its socket is passed on.
type listens interface{ Listener() net.Listener }

// capabilities finds what a platform can do, connected or not.
func capabilities(p domain.Platform) (platform.Capabilities, bool) {
	if p == domain.PlatformWebchat {
		return new(webchat.Adapter).Capabilities(), true
	}
	k, ok := kinds[p]
	return k.capabilities, ok
}

// link is one platform of the profile: an adapter, kept connected.
type link struct {
	name    domain.Platform
	kind    kind
	cfg     home.PlatformConfig
	adapter platform.Adapter
	part    *health.Reporter
	log     *slog.Logger
	g       *Gateway

	mu   sync.Mutex
	stop context.CancelFunc // of receiving
	off  bool
	done chan struct{} // closed when run has ended and the credential is free
	// again ends the present connection or pause, see renew; nil while there is none.
	again   context.CancelFunc
	renewed bool
}

// exclusive tells whether only one process may receive at a time.
func (l *link) exclusive() bool { return l.kind.scope != "" }

// buildLinks makes a link for each platform that is configured. One that cannot
// be built is shown, and the others live.
func (g *Gateway) buildLinks() {
	names := make([]domain.Platform, 0, len(g.Config.Platforms))
	for n := range g.Config.Platforms {
		names = append(names, n)
	}
	slices.Sort(names)
	for _, n := range names {
		cfg := g.Config.Platforms[n]
		k, known := kinds[n]
		if !cfg.Enabled || n == domain.PlatformWebchat { // which comes with the API server
			continue
		}
		part := g.health.Part("platform." + string(n))
		if !known {
			part.Disabled("this version cannot connect to " + string(n))
			continue
		}
		a, err := k.build(cfg, adapterDeps{log: g.Log, health: part, now: g.Now, profile: g.Profile, home: g.homes.Home, secrets: g.Redactor.Add, socket: g.left[n], changed: func() { g.directory.Changed(n) },
			admits: func(ctx context.Context, user string) (bool, error) { return g.gate.Knows(ctx, n, user) }})
		if err != nil {
			part.Down("config", domain.MessageOf(err))
			g.Log.Error("a platform is not set up right; the others run", "component", string(n), "err", err)
			continue
		}
		if c, ok := a.(platform.Caller); ok && c.CallbackURL() != "" && !g.Config.API.Enabled {
			g.Warnings = append(g.Warnings, string(n)+": buttons lead to "+c.CallbackURL()+", but the API is off, so that a press goes nowhere; set API_SERVER_ENABLED=true")
		}
		g.attach(&link{name: n, kind: k, cfg: cfg, adapter: a, part: part, log: g.Log.With("component", string(n)), g: g})
	}
}

func (g *Gateway) attach(l *link) {
	l.done = make(chan struct{})
	g.links = append(g.links, l)
	g.outbox.Attach(l.adapter)
	g.lanes.Attach(l.adapter)
}

// stopListening ends receiving; sending goes on until the outbox stops.
func (l *link) stopListening() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.off = true
	if l.stop != nil {
		l.stop()
	}
}

// The back-off of a connection that fails.
const (
	firstPause = time.Second
	mostPause  = 5 * time.Minute
	lockPause  = 5 * time.Second // between attempts at a credential that another profile holds
	longEnough = time.Minute     // a connection that lived this long begins the back-off anew
)

// run keeps the adapter connected until ctx ends or its credentials are refused.
func (l *link) run(ctx context.Context) {
	defer close(l.done)
	ctx, cancel := context.WithCancel(ctx)
	l.mu.Lock()
	l.stop = cancel
	if l.off {
		cancel()
	}
	l.mu.Unlock()
	if l.exclusive() {
		select {
		case <-l.g.intake:
		case <-ctx.Done():
		}
	}
	if l.name != domain.PlatformWebchat && !l.g.caution.enter(ctx, "platform."+string(l.name)) { // the web chat comes with the API
		return
	}
	lock := l.takeCredential(ctx)
	if lock != nil {
		defer lock.Release()
	}
	pause := firstPause
	for ctx.Err() == nil {
		began := l.g.Now()
		connection, done := l.renewable(ctx)
		err := l.receive(connection)
		if renewed := done(); renewed && ctx.Err() == nil {
			pause = firstPause
			continue
		}
		if ctx.Err() != nil || err == nil {
			return
		}
		e := platform.AsError(err)
		if e.Kind == platform.BadCredentials {
			l.part.Down(orElse(e.Code, "bad_credentials"), e.Reason)
			l.log.Error("the platform refuses the credentials; it stays off until they are changed and the gateway is restarted", "err", err)
			return
		}
		if l.g.Now().Sub(began) > longEnough {
			pause = firstPause
		}
		wait := max(pause, e.RetryAfter)
		l.part.Degraded(orElse(e.Code, "connection"), fmt.Sprintf("%s. It is tried again in %s.", strings.TrimSuffix(e.Reason, "."), wait.Round(time.Second)))
		l.log.Warn("the connection was lost", "err", err, "again_in", wait.String())
		pause = min(2*pause, mostPause)
		rest, done := l.renewable(ctx)
		sleep(rest, wait)
		if done() {
			pause = firstPause
		}
	}
}

// takeCredential waits for the machine-wide right to use the account.
func (l *link) takeCredential(ctx context.Context) *succession.CredentialLock {
	if l.kind.scope == "" {
		return nil
	}
	owned := l.cfg.Token.Reveal()
	if l.kind.owned != nil {
		owned = l.kind.owned(l.cfg)
	}
	told := false
	for ctx.Err() == nil {
		lock, err := succession.LockCredential(succession.LockDir(l.g.Env.Get), l.kind.scope, owned, l.g.record(), l.g.Now())
		if err == nil {
			return lock
		}
		l.part.Down(l.kind.scope+"_lock", domain.MessageOf(err))
		if !told {
			l.log.Error("the platform is off, the others run", "err", err)
			told = true
		}
		sleep(ctx, lockPause)
	}
	return nil
}

// receive runs the adapter once; a panic in it is a lost connection.
func (l *link) receive(ctx context.Context) (err error) {
	defer func() {
		if p := recover(); p != nil {
			l.log.Error("the platform's adapter panicked", "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
			err = &platform.Error{Kind: platform.Retry, Code: "panic", Reason: "the connection's code crashed; that is a defect, and it is in the log"}
		}
	}()
	if m, ok := l.adapter.(platform.Menu); ok {
		l.g.work.Go(func() {
			defer l.survive("setting the command menu")
			if err := m.SetCommands(ctx, l.g.lanes.Menu()); err != nil && ctx.Err() == nil {
				l.log.Info("the native command menu was not set", "err", err)
			}
		})
	}
	l.g.directory.Changed(l.name) // while nobody listened
	return l.adapter.Run(ctx, l.g.lanes.Sink(l.name))
}

// survive is deferred around a call of the adapter that nothing depends on.
func (l *link) survive(what string) {
	if p := recover(); p != nil {
		l.log.Error(what+" panicked", "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
	}
}

func orElse(s, other string) string {
	if s == "" {
		return other
	}
	return s
}

// sleep waits, or returns early when ctx ends.
func sleep(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}
