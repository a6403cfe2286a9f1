package gateway

import (
	"context"
	"fmt"
	"net"
	"slices"
	"syscall"
	"time"

	"hermes/internal/domain"
	"hermes/internal/succession"
)

// apiSocket is the name of the API's socket in the service manager's store.
const apiSocket = "api"

// takeSockets gives the API the socket that another process left for it, and
// drops those that the configuration no longer wants.
func (g *Gateway) takeSockets() (api, control *succession.Socket) {
	if g.Legacy == nil {
		return nil, nil
	}
	if g.Config.API.Enabled && !g.CronOnly {
		api = g.Legacy.Take(func(s succession.Socket) bool {
			return s.Name != "control" && kinds[domain.Platform(s.Name)].address == nil && succession.SameAddress(s.Listener.Addr(), g.Config.API.Host, g.Config.API.Port)
		})
	}
	if !g.CronOnly {
		control = g.Legacy.Take(func(s succession.Socket) bool { return s.Name == "control" })
	}
	g.left = map[domain.Platform]net.Listener{}
	for name, k := range kinds {
		if c := g.Config.Platforms[name]; k.address != nil && c.Enabled && !g.CronOnly {
			host, port := k.address(c)
			if s := g.Legacy.Take(func(s succession.Socket) bool {
				return s.Name == string(name) && succession.SameAddress(s.Listener.Addr(), host, port)
			}); s != nil {
				g.left[name] = s.Listener
			}
		}
	}
	g.unwanted = g.Legacy.Rest()
	return api, control
}

// sockets are those of platforms that others connect to, by name, as far as
// they are bound.
func (g *Gateway) sockets() map[string]net.Listener {
	out := map[string]net.Listener{}
	for _, l := range g.links {
		if a, ok := l.adapter.(listens); ok {
			if s := a.Listener(); s != nil {
				out[string(l.name)] = s
			}
		}
	}
	return out
}

// storeSockets keeps the service manager's store as the configuration wants
// it: it holds the API's socket and those of platforms while they are bound, and
// nothing else of ours.
func (g *Gateway) storeSockets() {
	select {
	case <-g.intake:
	default:
		return // the predecessor is still the unit's main process
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, name := range g.unwanted {
		g.told(g.notifier.Unstore(name))
	}
	g.unwanted = nil
	for name, l := range g.sockets() {
		if c, ok := l.(syscall.Conn); ok && !slices.Contains(g.kept, name) {
			err := g.notifier.Store(name, c)
			g.told(err)
			if err == nil {
				g.kept = append(g.kept, name)
			}
		}
	}
	if g.api == nil || g.stored {
		return
	}
	l, ok := g.api.Listener().(syscall.Conn)
	if !ok {
		return
	}
	if err := g.notifier.Store(apiSocket, l); err != nil {
		g.told(err)
		return
	}
	g.stored = true
}

// leaveCallers ends the API's work before a stop, where the service manager
// keeps its socket: what was accepted is still answered, and who connects from
// now on waits for the next life in place of being sent away by this one. A
// process that handed over and is hurried answers what it had accepted, too.
func (g *Gateway) leaveCallers(ctx context.Context) error {
	g.mu.Lock()
	stored := g.stored
	g.mu.Unlock()
	switch o := g.handing.outcome(); {
	case o == gaveAway && g.api != nil:
		return g.api.Settle(ctx)
	case !stored || o != serves:
		return nil
	}
	g.lanes.Leave() // what chats said meanwhile is for the next life too
	g.api.CloseConnections()
	return g.api.Settle(ctx)
}

// told logs what the service manager could not be told. It changes nothing else.
func (g *Gateway) told(err error) {
	if err != nil {
		g.Log.Warn("the service manager was not told", "component", "gateway", "err", err)
	}
}

// announce says to the service manager that this process serves, and feeds its
// watchdog from now on.
func (g *Gateway) announce(ctx context.Context) {
	g.told(g.notifier.Ready(fmt.Sprintf("serving profile %s, version %s", g.Profile.Name, g.Version)))
	g.storeSockets()
	if every := g.notifier.WatchdogInterval(); every > 0 {
		ctx, stop := context.WithCancel(ctx)
		g.mu.Lock()
		g.stopPings = stop
		g.mu.Unlock()
		g.work.Go(func() { g.feedWatchdog(ctx, every/3) })
	}
}

// quietWatchdog ends the pings: another process is the main one now.
func (g *Gateway) quietWatchdog() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.stopPings != nil {
		g.stopPings()
	}
}

// feedWatchdog pings while the ledger answers, the scheduler's loop turns and
// the dispatcher answers. A lane or a platform that is stuck withholds nothing:
// killing the whole process would not mend it.
func (g *Gateway) feedWatchdog(ctx context.Context, every time.Duration) {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		if err := g.answers(ctx, every); err == nil {
			g.told(g.notifier.Ping())
		} else if ctx.Err() == nil {
			g.Log.Error("the watchdog is not fed: a part that everything needs does not answer", "component", "gateway", "err", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// answers proves within a time that the parts answer without which nothing
// works. A ledger that says what is wrong with it (a full disk) answers.
func (g *Gateway) answers(ctx context.Context, within time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	if err := g.store.Check(ctx); err != nil && ctx.Err() != nil {
		return domain.E(domain.Timeout, err, "the ledger does not answer")
	}
	if !g.caution.has("cron") { // it is held back; see caution
		return g.outbox.Check(ctx)
	}
	if err := g.cron.Check(ctx); err != nil {
		return err
	}
	return g.outbox.Check(ctx)
}
