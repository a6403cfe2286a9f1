package gateway

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"hermes/internal/control"
	"hermes/internal/domain"
	"hermes/internal/failpoint"
	"hermes/internal/health"
	"hermes/internal/succession"
	"hermes/internal/versions"
)

// The limits of a hand-over.
const (
	readyLimit    = 30 * time.Second // for a successor to prove itself
	ownLimit      = 20 * time.Second // for it to begin to serve, or to say that it is busy with that
	upgradeLimit  = 10 * time.Minute // for it to begin to serve where it has a large ledger to bring up to date
	yieldLimit    = 10 * time.Second // for our polls to end
	lingerLimit   = 30 * time.Minute // for our last turns and streams
	inPlaceLimit  = time.Minute      // for turns to end before a restart in place
	keptGrace     = time.Second      // for clients to let go of kept connections
	maxElders     = 8                // processes that linger at once; the oldest is hurried
	elderDeadline = 2 * time.Second  // to ask one something
)

// processEnv reads the environment that the process was started with.
func (g *Gateway) processEnv(name string) string {
	for i := len(g.Process) - 1; i >= 0; i-- {
		if v, ok := strings.CutPrefix(g.Process[i], name+"="); ok {
			return v
		}
	}
	return ""
}

// Restart puts a new process, or a new program, in this one's place. With an
// error nothing has happened and this process serves on. In place, the restart
// begins when it returns.
func (g *Gateway) Restart(ctx context.Context, r control.RestartRequest) (control.Restarted, error) {
	mode := succession.ModeOf(g.processEnv)
	done := control.Restarted{Mode: string(mode), OldPID: os.Getpid(), PID: os.Getpid()}
	if r.Program == "" {
		r.Program = g.program()
	}
	switch {
	case !filepath.IsAbs(r.Program):
		return done, domain.E(domain.Invalid, nil, "the program %s is no absolute path", r.Program)
	case missing(r.Program):
		return done, domain.E(domain.Unavailable, nil, "the program %s is gone, so nothing was restarted and this process serves on; put a program there, then `hermes%s gateway restart`", r.Program, g.flag())
	case g.currentPhase() != phaseRunning:
		return done, domain.E(domain.Conflict, nil, "this gateway is %s; ask for a restart once it serves", g.currentPhase())
	}
	if err := g.settled(ctx); err != nil {
		return done, err
	}
	if g.CronOnly { // nobody waits for it, so it need not be beside another
		mode = succession.InPlace
	}
	ctx, err := g.handing.begin(ctx)
	if err != nil {
		return done, err
	}
	g.Log.Info("a restart was asked for", "component", "gateway", "reason", r.Reason, "program", r.Program, "mode", string(mode))
	result := serves
	defer func() {
		g.handing.end(result)
		if result != serves {
			g.Shutdown(r.Reason)
		}
	}()
	if mode == succession.InPlace {
		if done.Version, err = g.preflight(ctx, r.Program); err == nil && !g.CronOnly {
			err = g.hold(r.Program)
		} else if err == nil {
			g.handing.becomes(r.Program)
		}
	} else {
		var s *succession.Successor
		begin, cancel := context.WithTimeout(ctx, readyLimit)
		s, err = succession.Spawn(begin, r.Program, g.Args, g.Process)
		cancel()
		if err == nil {
			err = g.handOver(ctx, s)
			done.PID, done.Version = s.PID, s.Release
		}
	}
	if err != nil {
		g.Log.Error("the restart did not happen; this process serves on", "component", "gateway", "err", err)
		return done, err
	}
	result = map[succession.Mode]outcome{succession.InPlace: goesOn, succession.Overlap: gaveAway}[mode]
	return done, nil
}

// Replace hands over to a process that was started by somebody else and asks
// for it over the control socket.
func (g *Gateway) Replace(conn *net.UnixConn, pid int) {
	s := succession.Stranger(conn, pid)
	if succession.UnitMain(g.processEnv) {
		s.Refuse(context.Background(), domain.E(domain.Conflict, nil, "the gateway of profile %s (PID %d) is run by a systemd unit, which would start it again; use `hermes%s gateway restart`, or stop the unit first", g.Profile.Name, os.Getpid(), g.flag()))
		return
	}
	begin, cancel := context.WithTimeout(context.Background(), readyLimit)
	defer cancel()
	err := g.settled(begin)
	ctx := context.Context(nil)
	if err == nil {
		ctx, err = g.handing.begin(context.Background())
	}
	if err != nil {
		s.Refuse(context.Background(), err)
		return
	}
	if err := g.handOver(ctx, s); err != nil {
		g.handing.end(serves)
		g.Log.Error("another process wanted to take over and could not; this one serves on", "component", "gateway", "pid", pid, "err", err)
		return
	}
	g.handing.end(gaveAway)
	g.Shutdown("replaced by the process with PID " + itoa(pid))
}

// program is what a restart runs: what the profile is pinned to, else what the
// command line named.
func (g *Gateway) program() string {
	if pin, ok, _ := versions.Pinned(g.Profile); ok { // a pin that cannot be followed is told of at every start
		return pin.Path
	}
	return succession.Program(g.processEnv)
}

// programGone says that nothing could be started in this process's place, "" when
// all is well.
func (g *Gateway) programGone() string {
	program := g.program()
	if !missing(program) {
		return ""
	}
	return fmt.Sprintf("the program %s is gone: this process serves on, but neither a restart nor a start after a crash or a reboot can run it; put a program there, then `hermes%s gateway restart`", program, g.flag())
}

// missing tells whether there is no file; one that cannot be looked at is there.
func missing(path string) bool {
	_, err := os.Stat(path)
	return errors.Is(err, fs.ErrNotExist)
}

// settled waits until the hand-over to this process is complete, so that what
// is handed on is ours.
func (g *Gateway) settled(ctx context.Context) error {
	select {
	case <-g.intake:
		return nil
	case <-ctx.Done():
		return domain.E(domain.Conflict, nil, "this process still takes over from the one before it; try again in a moment")
	}
}

// handOver makes a successor the one that serves. Until it says that it does,
// nothing is given up; an error means that this process serves on.
func (g *Gateway) handOver(ctx context.Context, s *succession.Successor) error {
	g.handing.setChild(s.PID)
	offer, err := g.offer()
	if err != nil {
		s.Kill()
		return err
	}
	failpoint.Hit(failpoint.PredecessorOffers)
	ready, cancel := context.WithTimeout(ctx, readyLimit)
	defer cancel()
	if err := s.Offer(ready, offer); err != nil {
		s.Kill()
		return err
	}
	failpoint.Hit(failpoint.PredecessorGives)
	own, cancelOwn := context.WithTimeout(ctx, upgradeLimit)
	defer cancelOwn()
	if err := s.Own(own, ownLimit); err != nil {
		s.Kill()
		return errors.Join(err, g.reclaim())
	}
	failpoint.Hit(failpoint.PredecessorGave)
	g.give(s)
	failpoint.Hit(failpoint.PredecessorLeaves)
	return nil
}

// offer is what a successor takes over.
func (g *Gateway) offer() (succession.Offer, error) {
	o := succession.Offer{Instance: g.instance, Elders: g.handing.living(), Others: g.sockets()}
	if g.api != nil {
		o.API = g.api.Listener()
	}
	g.mu.Lock()
	o.Stored = slices.Clone(g.kept)
	if g.stored {
		o.Stored = append(o.Stored, apiSocket)
	}
	g.mu.Unlock()
	for _, p := range g.health.Parts() {
		if p.State == health.OK || p.State == health.Degraded {
			o.Working = append(o.Working, p.Name)
		}
	}
	me := succession.Elder{Record: g.record()}
	if g.control != nil {
		own, err := g.control.StepAside()
		if err != nil {
			return o, err
		}
		me.Socket = own
	}
	o.Elders = append(o.Elders, me)
	return o, nil
}

// reclaim takes back the signs of the one that serves, after a successor that
// may have begun to set its own.
func (g *Gateway) reclaim() error {
	err := g.instance.Enter()
	if g.control != nil {
		err = errors.Join(err, g.control.StepBack())
	}
	return err
}

// give lets go of everything that only one process may have. The successor
// serves already.
func (g *Gateway) give(s *succession.Successor) {
	g.told(g.notifier.MainPID(s.PID))
	g.quietWatchdog()
	g.instance.Pass() // the profile is free when the successor ends, whatever still runs here
	if g.control != nil {
		g.control.Passed()
	}
	g.stopPolls()
	ctx, cancel := context.WithTimeout(context.Background(), elderDeadline)
	defer cancel()
	s.Yours(ctx)
	g.stopShared()
	left := g.lanes.Leave()
	g.handing.mu.Lock()
	g.handing.lanes = left
	g.handing.mu.Unlock()
	g.outbox.Detach(domain.PlatformWebchat) // its pages are with the successor
	g.Log.Info("handed over; what runs here ends here", "component", "gateway", "successor", s.PID)
}

// stopPolls ends the receiving that only one process may do, and waits until
// its credentials are free.
func (g *Gateway) stopPolls() {
	limit := time.NewTimer(yieldLimit)
	defer limit.Stop()
	for _, l := range g.links {
		if l.exclusive() {
			l.stopListening()
		}
	}
	for _, l := range g.links {
		if !l.exclusive() {
			continue
		}
		select {
		case <-l.done:
		case <-limit.C:
			g.Log.Warn("a platform's poll did not end in time", "component", string(l.name))
			return
		}
	}
}

// stopShared ends the receiving on sockets that a successor, or this process
// after a restart in place, has too. What waits in their queues is for that one.
func (g *Gateway) stopShared() {
	for _, l := range g.links {
		if _, ok := l.adapter.(listens); ok {
			l.stopListening()
		}
	}
}

// linger ends what was begun here, after a successor has taken over: turns,
// runs, streams, and connections that clients keep.
func (g *Gateway) linger(ctx context.Context) {
	g.setPhase(phaseDraining)
	ctx, cancel := context.WithTimeout(ctx, lingerLimit)
	defer cancel()
	rushed := g.handing.hurried()
	go func() {
		select {
		case <-rushed:
			cancel()
		case <-ctx.Done():
		}
	}()
	runs := make(chan struct{})
	go func() {
		defer close(runs)
		if err := g.cron.Stop(ctx); err != nil {
			g.Log.Warn("while leaving", "component", "cron", "err", err)
		}
	}()
	g.handing.mu.Lock()
	lanes := g.handing.lanes
	g.handing.mu.Unlock()
	if g.api != nil {
		if err := g.api.Drain(ctx); err != nil {
			g.Log.Warn("connections are still open at the limit; they are cut", "component", "api")
		}
	}
	select {
	case <-lanes:
	case <-ctx.Done():
	}
	<-runs
}

// pokeSuccessor makes the process that serves now look at the ledger.
func (g *Gateway) pokeSuccessor() {
	if g.handing.outcome() != gaveAway {
		return
	}
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), elderDeadline)
		defer cancel()
		_ = control.Dial(g.controlPath()).Poke(ctx) // it looks by itself twice a second
	}()
}
