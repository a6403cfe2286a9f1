package gateway

import (
	"context"
	"os"
	"slices"
	"sync"
	"time"

	"hermes/internal/control"
	"hermes/internal/domain"
	"hermes/internal/failpoint"
	"hermes/internal/health"
	"hermes/internal/platform"
	"hermes/internal/succession"
)

// predecessor is the process that serves until this one does; nil for none.
func (g *Gateway) predecessor() *succession.Predecessor {
	if g.Legacy == nil {
		return nil
	}
	return g.Legacy.Waiting
}

// orderLimit is how long a successor waits to be told to serve.
const orderLimit = time.Minute

// succeed proves to a waiting predecessor that this process could serve, and
// returns when it is told to. Without a predecessor it does nothing.
func (g *Gateway) succeed(ctx context.Context) error {
	p := g.predecessor()
	if p == nil {
		return nil
	}
	if err := g.fit(ctx, p.Working); err != nil {
		g.Log.Error("this process cannot take over", "component", "gateway", "predecessor", p.PID, "err", err)
		p.Refuse(ctx, err)
		return err
	}
	if err := p.Ready(ctx, g.Version); err != nil {
		return err
	}
	failpoint.Hit(failpoint.SuccessorReady)
	order, cancel := context.WithTimeout(ctx, orderLimit)
	defer cancel()
	if err := p.AwaitOwn(order); err != nil {
		return err
	}
	failpoint.Hit(failpoint.SuccessorOwns)
	if err := g.ownLedger(ctx, p); err != nil {
		g.Log.Error("this process cannot take over", "component", "gateway", "predecessor", p.PID, "err", err)
		p.Refuse(ctx, err)
		return err
	}
	if err := g.instance.Enter(); err != nil { // a full disk must not hold up a hand-over
		g.Log.Warn("this process stands in no file that other tools read; commands find it all the same", "component", "gateway", "err", err)
	}
	return nil
}

// ownLedger brings the ledger up to date, now that this process is the one that
// is to serve, and takes over what dead processes held. The predecessor serves
// meanwhile, by the schema that it knows or by the next one, and is told that
// this process is at work, as a copy of a large ledger takes its time.
func (g *Gateway) ownLedger(ctx context.Context, p *succession.Predecessor) error {
	done := make(chan struct{})
	var beats sync.WaitGroup
	beats.Go(func() {
		tick := time.NewTicker(ownLimit / 4)
		defer tick.Stop()
		for {
			select {
			case <-done:
				return
			case <-tick.C:
				_ = p.Busy(ctx) // one that is gone is noticed right after
			}
		}
	})
	err := g.store.Upgrade(ctx)
	close(done)
	beats.Wait()
	if err != nil {
		return err
	}
	return g.recoverLedger(ctx, g.store)
}

// fit says why this process would be worse than its predecessor: the ledger
// must answer, and no part may be down that works there. A part that the
// configuration no longer wants is no loss.
func (g *Gateway) fit(ctx context.Context, working []string) error {
	if err := g.store.Check(ctx); err != nil {
		return err
	}
	if g.api != nil {
		_ = g.api.Listen() // what is wrong is in its health
	}
	for _, l := range g.links {
		if slices.Contains(working, "platform."+string(l.name)) {
			l.checkCredentials(ctx)
		}
	}
	for _, p := range g.health.Parts() {
		if p.State == health.Down && slices.Contains(working, p.Name) {
			return domain.E(domain.Config, nil, "%s works in the running process and would not in the new one: %s", p.Name, p.Message)
		}
	}
	return nil
}

// checkLimit bounds the question to a platform whether it takes the credentials.
const checkLimit = 5 * time.Second

// checkCredentials marks a platform down that refuses the credentials. One that
// cannot be reached is no worse here than in the predecessor.
func (l *link) checkCredentials(ctx context.Context) {
	c, ok := l.adapter.(platform.Checker)
	if !ok {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, checkLimit)
	defer cancel()
	err := c.Check(ctx)
	if err == nil {
		return
	}
	if e := platform.AsError(err); e.Kind == platform.BadCredentials {
		l.part.Down(orElse(e.Code, "bad_credentials"), e.Reason)
	}
}

// takeOver tells the predecessor that this process serves, and takes what only
// one may have as soon as that one has let go of it.
func (g *Gateway) takeOver(ctx context.Context) error {
	if g.Legacy != nil {
		g.handing.mu.Lock()
		g.handing.elders = append(g.handing.elders, g.Legacy.Elders...)
		g.handing.mu.Unlock()
		if g.Legacy.Became {
			failpoint.Hit(failpoint.InPlaceBecame)
		}
	}
	p := g.predecessor()
	if p == nil {
		close(g.intake)
		g.announce(ctx)
		g.tellRequester(ctx)
		g.tellSalvage(ctx)
		if len(g.handing.living()) > 0 {
			g.work.Go(func() { g.mindElders(ctx) })
		}
		return nil
	}
	failpoint.Hit(failpoint.SuccessorServes)
	if err := p.Owning(ctx); err != nil {
		return err
	}
	g.work.Go(func() {
		wait, cancel := context.WithTimeout(ctx, yieldLimit+ownLimit)
		p.AwaitYours(wait)
		cancel()
		close(g.intake)
		g.announce(ctx)
		g.tellRequester(ctx)
		g.tellSalvage(ctx)
		g.mindElders(ctx)
	})
	return nil
}

// mindPace is how often the ledger is looked at while an elder lives: it
// writes to the ledger too, and one that dies leaves work behind.
const mindPace = 500 * time.Millisecond

// mindElders looks after what the processes that handed over still do, until
// the last of them has gone.
func (g *Gateway) mindElders(ctx context.Context) {
	tick := time.NewTicker(mindPace)
	defer tick.Stop()
	for {
		living := g.handing.living()
		if len(living) > maxElders {
			g.askToStop(ctx, living[0], "too many processes linger after hand-overs")
		}
		if rec, err := g.store.Recover(ctx, g.Now()); err == nil && rec.Requeued+rec.Uncertain+len(rec.Runs) > 0 {
			g.Log.Warn("a process that had handed over died; its work was taken over", "component", "gateway", "turns_resumed", rec.Requeued)
		}
		g.Poke()
		if len(living) == 0 {
			if g.toolbox.terminal != nil {
				g.toolbox.terminal.Adopt()
			}
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// elsewhere tells whether an elder runs a turn of the session, and makes it
// look at what came in. Without elders it costs nothing.
func (g *Gateway) elsewhere(ctx context.Context, key domain.SessionKey) bool {
	living := g.handing.living()
	if len(living) == 0 {
		return false
	}
	open, err := g.store.OpenTurns(ctx, key)
	if err != nil || !slices.ContainsFunc(open, func(t domain.Turn) bool { return t.State == domain.TurnRunning }) {
		return false
	}
	for _, e := range living {
		ask, cancel := context.WithTimeout(ctx, elderDeadline)
		held := control.Dial(e.Socket).PokeLane(ask, string(key))
		cancel()
		if held {
			return true
		}
	}
	return false
}

// PokeLane makes the lane of a turn that runs here look at what came in.
func (g *Gateway) PokeLane(key string) bool { return g.lanes.PokeRunning(domain.SessionKey(key)) }

// stopElders lets the processes that linger end with this one: whoever stops
// the gateway means all of it.
func (g *Gateway) stopElders() {
	for _, e := range g.handing.living() {
		g.askToStop(context.Background(), e, "the gateway stops")
	}
}

func (g *Gateway) askToStop(ctx context.Context, e succession.Elder, reason string) {
	ctx, cancel := context.WithTimeout(ctx, elderDeadline)
	defer cancel()
	if err := control.Dial(e.Socket).Stop(ctx, reason); err != nil && e.Alive() {
		g.Log.Warn("a process that lingers after a hand-over was not told to end", "component", "gateway", "pid", e.PID, "err", err)
	}
}

// findElders takes up processes that handed over to one that has ended since,
// and removes what dead ones left.
func (g *Gateway) findElders(path string) {
	for pid, socket := range control.Asides(path) {
		r := succession.RecordOf(pid)
		ctx, cancel := context.WithTimeout(context.Background(), elderDeadline)
		s, err := control.Dial(socket).Status(ctx)
		cancel()
		if err != nil || s.PID != pid || pid == os.Getpid() || s.Home != g.Profile.Home {
			_ = os.Remove(socket)
			continue
		}
		g.handing.mu.Lock()
		g.handing.elders = append(g.handing.elders, succession.Elder{Record: r, Socket: socket})
		g.handing.mu.Unlock()
	}
}
