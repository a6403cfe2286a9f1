// Package gateway builds the parts of one profile from its configuration,
// starts them in order, supervises them, and drains them. It is the only place
// that knows all parts; each part knows only what it needs.
package gateway

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"os"
	"strings"
	"sync"
	"time"

	"hermes/internal/access"
	"hermes/internal/agent"
	"hermes/internal/api"
	"hermes/internal/control"
	"hermes/internal/conversation"
	"hermes/internal/cron"
	"hermes/internal/delivery"
	"hermes/internal/delivery/directory"
	"hermes/internal/domain"
	"hermes/internal/failpoint"
	"hermes/internal/health"
	"hermes/internal/home"
	"hermes/internal/ledger"
	"hermes/internal/ledger/sqlite"
	"hermes/internal/model/catalog"
	"hermes/internal/secret"
	"hermes/internal/service"
	"hermes/internal/starts"
	"hermes/internal/succession"
)

// Options is what a gateway is made of.
type Options struct {
	Profile  home.Profile
	Config   *home.Config
	Env      *home.Env // the profile's environment, .env over the process's
	Process  []string  // the environment that the process was started with
	Version  string
	Log      *slog.Logger
	Redactor *secret.Redactor
	Now      func() time.Time
	Warnings []string // of the configuration
	// CronOnly runs the scheduler alone: no platform listens, no API is served,
	// but jobs can be delivered.
	CronOnly bool
	// OnlyJob, where not "", is the one job whose asked-for runs are performed;
	// nothing else is fired.
	OnlyJob domain.JobID
	// CrashTold says that the end of the last life is on record already.
	CrashTold bool
	// NoBallast leaves out the reserve for a full disk (demo, tests).
	NoBallast bool
	// Legacy is what other processes left for this one; nil is nothing.
	Legacy *succession.Legacy
	// Safe is the care that this start takes, and its place on the record of
	// starts; nil for none.
	Safe *Safe
	// Args are the arguments, without the program's name, with which a successor
	// is started; see Restart.
	Args []string
}

// Gateway is one running profile.
type Gateway struct {
	Options
	started   time.Time
	health    *health.Registry
	instance  *succession.Instance
	store     *sqlite.Store
	gate      *access.Gate
	toolbox   *toolbox
	agent     *agent.Agent
	models    catalog.Deps // shared by every provider of the process
	outbox    *delivery.Dispatcher
	lanes     *conversation.Lanes
	cron      *cron.Scheduler
	jobs      *cron.Service
	api       *api.Server
	control   *control.Server
	links     []*link
	homes     *homes
	directory *directory.Directory
	state     *stateFile

	notifier *succession.Notifier
	socket   *succession.Socket               // the control socket that an execve left; nil for none
	unwanted []string                         // of the service manager's store
	stored   bool                             // the API's socket is in that store
	kept     []string                         // further sockets in it
	left     map[domain.Platform]net.Listener // sockets that another process left for platforms
	intake   chan struct{}                    // closed when what only one process may have is ours
	caution  *caution
	handing  handing

	mu        sync.Mutex
	phase     string // starting, running, draining
	reason    string // of the shutdown
	shutdown  chan struct{}
	once      sync.Once
	work      sync.WaitGroup
	stopWork  context.CancelFunc
	stopPings context.CancelFunc
}

// The phases, as gateway_state.json names them.
const (
	phaseStarting = "starting"
	phaseRunning  = "running"
	phaseDraining = "draining"
	phaseStopped  = "stopped"
)

// New takes the profile, opens its ledger, recovers what the last life left,
// and builds every part. Only what the profile cannot live without fails it: the
// instance lock (domain.Conflict) and the ledger. Everything else that is wrong
// degrades its own part and is shown.
func New(ctx context.Context, o Options) (_ *Gateway, err error) {
	if o.Now == nil {
		o.Now = time.Now
	}
	g := &Gateway{Options: o, started: o.Now(), phase: phaseStarting, shutdown: make(chan struct{}), intake: make(chan struct{})}
	g.health = health.New(o.Now)
	g.caution = newCaution(g)
	g.notifier = succession.NewNotifier(g.processEnv)
	defer func() {
		if err != nil {
			g.close()
		}
	}()
	if !o.CronOnly {
		if g.instance, err = g.awaitProfile(ctx); err != nil {
			return nil, err
		}
	}
	if g.instance != nil && g.instance.Before.PID > 0 && !o.CrashTold {
		WriteExit(o.Profile.LogDir(), Unclean(g.instance.Before.PID))
	}
	if g.instance != nil && g.instance.Unrecorded != nil {
		o.Log.Warn("this process stands in no file that other tools read; commands find it all the same", "component", "gateway", "err", g.instance.Unrecorded)
	}
	failpoint.Hit(failpoint.StartClaimed)
	if err := g.awaitLedger(ctx); err != nil {
		return nil, err
	}
	g.caution.life().Reach(starts.Built, o.Now())
	failpoint.Hit(failpoint.StartOpened)
	g.homes = newHomes(o.Profile, o.Config, o.Process, o.Version)
	g.buildDirectory()
	g.gate = access.New(g.store, o.Profile, o.Config, o.Log, o.Now)
	g.health.OnRecovery(func(part string) {
		if name, ok := strings.CutPrefix(part, "platform."); ok && g.outbox != nil {
			g.outbox.Hurry(domain.Platform(name))
		}
	})
	g.outbox = delivery.New(delivery.Options{
		Store: g.store, Now: o.Now, Log: o.Log, Health: g.health, OnUnknown: o.Config.Delivery.OnUnknown,
		MaxAge: o.Config.Delivery.MaxAge, MaxAttempts: o.Config.Delivery.MaxAttempts, Unlimited: o.Config.Delivery.Unlimited,
		Capabilities: capabilities, ToolProgress: o.Config.Display.ToolProgress, AllowFile: g.allowFile,
	})
	g.buildCron()
	g.buildAgent()
	g.buildLanes()
	api, ctl := g.takeSockets()
	g.socket = ctl
	g.buildLinks()
	if !o.CronOnly {
		g.buildAPI(api)
		g.state = newStateFile(o.Profile.StateFile(), g.record(), o.Log)
	}
	failpoint.Hit(failpoint.StartBuilt)
	return g, nil
}

// openLedger opens the store and takes over what dead processes held. A process
// that does not serve yet leaves both the schema and the dead to ownLedger.
func (g *Gateway) openLedger(ctx context.Context) (*sqlite.Store, error) {
	kind := "gateway"
	if g.CronOnly {
		kind = "cron"
	}
	later := g.predecessor() != nil
	s, err := sqlite.Open(ctx, sqlite.Options{
		Path: g.Profile.LedgerFile(), Kind: kind, Now: g.Now, Log: g.Log, NoBallast: g.NoBallast, Program: g.Version, KeepSchema: later,
	})
	if err != nil {
		return nil, err
	}
	if !later {
		if err := g.recoverLedger(ctx, s); err != nil {
			return nil, errors.Join(err, s.Close())
		}
	}
	g.health.Part("ledger").OK()
	return s, nil
}

// recoverLedger takes over what dead processes held.
func (g *Gateway) recoverLedger(ctx context.Context, s *sqlite.Store) error {
	rec, err := s.Recover(ctx, g.Now())
	if err != nil {
		return err
	}
	if rec.Processes > 0 {
		g.Log.Warn("the last life ended without a clean stop; its work was taken over", "component", "gateway",
			"turns_resumed", rec.Requeued, "turns_ended", rec.Ended, "deliveries_uncertain", rec.Uncertain, "runs_interrupted", len(rec.Runs))
	}
	return nil
}

// Run starts every part, serves until ctx ends or Shutdown is called, and
// drains. It returns nil after a clean stop. Where a predecessor waits, it
// first proves itself to that one and serves when it is told to.
func (g *Gateway) Run(ctx context.Context) error {
	work, stop := context.WithCancel(context.Background())
	g.stopWork = stop
	defer stop()
	if err := g.succeed(ctx); err != nil {
		g.close()
		if ctx.Err() != nil { // it was asked to stop, and served nobody
			g.note(causeText(ctx))
			return nil
		}
		return err
	}
	err := g.start(work)
	if err == nil {
		failpoint.Hit(failpoint.StartStarted)
		err = g.takeOver(work)
	}
	if err != nil {
		g.note("it could not start")
		g.drain()
		return err
	}
	g.enter(phaseRunning) // watch writes it down
	g.caution.life().Reach(starts.Serving, g.Now())
	g.tellSafeMode(work)
	g.Log.Info("gateway running", "component", "gateway", "profile", g.Profile.Name, "pid", os.Getpid(), "version", g.Version,
		"ready_ms", g.Now().Sub(g.started).Milliseconds())
	g.work.Go(func() { g.watch(work) })
	g.work.Go(func() { tuneCollector(work) })
	failpoint.Hit(failpoint.StartServing)
	select {
	case <-ctx.Done():
		g.note(causeText(ctx))
	case <-g.shutdown:
	}
	g.handing.stop()
	g.caution.close()
	switch g.handing.outcome() {
	case gaveAway:
		g.linger(ctx)
	case goesOn:
		if !g.CronOnly { // that one has neither callers nor turns, and drain waits for its runs
			g.rest(ctx)
		}
	}
	g.drain()
	return nil
}

func causeText(ctx context.Context) string {
	if err := context.Cause(ctx); err != nil && !errors.Is(err, context.Canceled) {
		return err.Error()
	}
	return "asked to stop"
}

// start brings the parts up: first what takes work in the process, then what
// lets work in from outside.
func (g *Gateway) start(ctx context.Context) error {
	for _, w := range append(g.Warnings, g.gate.Warnings()...) {
		g.Log.Warn(w, "component", "gateway")
	}
	if err := g.outbox.Start(ctx); err != nil {
		return err
	}
	if !g.CronOnly {
		if err := g.startControl(); err != nil && g.predecessor() != nil {
			return err // not worse than the one before
		} else if err != nil {
			g.health.Part("control").Down("bind", domain.MessageOf(err))
			g.Log.Error("commands cannot reach this gateway", "component", "gateway", "err", err)
		}
		if err := g.lanes.Start(ctx); err != nil {
			return err
		}
	}
	g.importJobs(ctx)
	g.caution.start(ctx, "cron", g.cron.Start)
	if !g.CronOnly { // a scheduler sends by the platforms, but does not listen
		for _, l := range g.links {
			g.work.Go(func() { l.run(ctx) })
		}
	} else {
		for _, l := range g.links {
			g.directory.Changed(l.name)
		}
	}
	if g.api != nil {
		g.caution.start(ctx, "api", func() {
			if err := g.api.Start(); err != nil {
				g.Log.Error("the API is down; everything else runs", "component", "api", "err", err)
			}
		})
	}
	g.work.Go(func() { g.vouch(ctx) })
	g.work.Go(func() { g.watchOthers(ctx) })
	g.work.Go(func() { g.watchHost(ctx) })
	g.work.Go(func() { g.beat(ctx) })
	g.work.Go(func() { g.watchSleep(ctx) })
	g.work.Go(func() { g.directory.Run(ctx) })
	if g.CronOnly {
		g.work.Go(func() { g.watchPokes(ctx) })
	}
	return nil
}

// Shutdown begins a clean stop. Calls after the first only shorten the time
// that a process which has handed over takes for its last turns.
func (g *Gateway) Shutdown(reason string) {
	first := false
	g.once.Do(func() {
		first = true
		g.note(reason)
		close(g.shutdown)
	})
	if !first { // whoever asks again wants it to end
		g.handing.hurry()
		g.handing.abandon()
	}
}

// note keeps why the process stops.
func (g *Gateway) note(reason string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.reason == "" {
		g.reason = reason
	}
}

// Reason is why the gateway stopped.
func (g *Gateway) Reason() string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.reason
}

// Poke looks at the ledger again: another process wrote to it.
func (g *Gateway) Poke() {
	g.outbox.WakeAll()
	g.cron.Wake()
	if g.CronOnly { // conversations are the gateway's
		return
	}
	keys, err := g.store.ActiveKeys(context.Background())
	if err != nil {
		g.Log.Warn("after a poke the ledger could not be read", "component", "gateway", "err", err)
		return
	}
	for _, k := range keys {
		g.lanes.Wake(k)
	}
}

// How long the end of a stop may take, after turns, jobs and streams had their
// time. Together it stays inside the unit's TimeoutStopSec.
const (
	stubborn      = 2 * time.Second  // kept of their time for commands that ignore SIGTERM
	sendDrain     = 2 * time.Second  // what is being sent
	closeDeadline = 2 * time.Second  // then commands that run still
	settleLimit   = 13 * time.Second // for turns of a process that is no unit's main one, or goes on in place
)

// stopLimit is how long turns, jobs and streams may take before a stop. Asking
// the manager for it is part of that time.
func (g *Gateway) stopLimit() time.Duration {
	limit := settleLimit
	if g.handing.outcome() == serves {
		limit = max(service.StopDrain(context.Background(), g.processEnv)-stubborn, time.Second)
	}
	if d := g.Config.Agent.DrainTimeout; d > 0 {
		limit = min(limit, d)
	}
	return limit
}

// drain stops the parts in the order in which work flows: nothing new comes in,
// what runs may end, what was said goes out, and what is left stays in the
// ledger for the next life.
func (g *Gateway) drain() {
	g.setPhase(phaseDraining)
	g.caution.close()
	g.Log.Info("gateway stopping", "component", "gateway", "reason", g.Reason())
	g.quietWatchdog()
	began := time.Now() // monotonic: the manager's limit is
	var elders sync.WaitGroup
	defer elders.Wait()
	if g.handing.outcome() == serves {
		g.told(g.notifier.Stopping(g.Reason()))
		elders.Go(g.stopElders)
	}
	for _, l := range g.links {
		l.stopListening()
	}
	failpoint.Hit(failpoint.StopBegun)
	ctx, cancel := context.WithDeadline(context.Background(), began.Add(g.stopLimit()))
	defer cancel()
	report := func(part string, err error) {
		if err != nil {
			g.Log.Warn("while stopping", "component", part, "err", err)
		}
	}
	// Jobs, some of which are turns, and turns end together; then the API's
	// streams have ended by themselves.
	var jobs sync.WaitGroup
	jobs.Go(func() { report("cron", g.cron.Stop(ctx)) })
	report("api", g.leaveCallers(ctx))
	report("conversation", g.lanes.Stop(ctx))
	jobs.Wait()
	if g.api != nil {
		report("api", g.api.Stop(ctx))
	}
	failpoint.Hit(failpoint.StopDrained)
	last, cancelLast := context.WithTimeout(context.Background(), sendDrain)
	defer cancelLast()
	report("delivery", g.outbox.Stop(last))
	if g.stopWork != nil {
		g.stopWork()
	}
	g.work.Wait()
	failpoint.Hit(failpoint.StopDelivered)
	g.setPhase(phaseStopped)
	if g.control != nil {
		report("control", g.control.Stop(last))
	}
	g.close()
	failpoint.Hit(failpoint.StopClosed)
	g.Log.Info("gateway stopped", "component", "gateway", "reason", g.Reason(), "uptime_s", int(g.Now().Sub(g.started).Seconds()))
}

// close lets go of what New took.
func (g *Gateway) close() {
	if g.toolbox != nil {
		g.toolbox.close()
	}
	if g.store != nil {
		if err := g.store.Close(); err != nil {
			g.Log.Warn("the ledger did not close cleanly", "component", "gateway", "err", err)
		}
	}
	if g.instance != nil && g.handing.outcome() == serves {
		g.instance.Release()
	}
}

// enter begins a phase.
func (g *Gateway) enter(p string) {
	g.mu.Lock()
	g.phase = p
	g.mu.Unlock()
}

func (g *Gateway) setPhase(p string) {
	g.enter(p)
	g.writeState()
}

// writeState keeps gateway_state.json, while it is ours.
func (g *Gateway) writeState() {
	if g.state != nil && g.owns() {
		g.state.write(g.stateRecord)
	}
}

// The pace of watch.
const (
	checkEvery = time.Minute
	healEvery  = 5 * time.Second // while the ledger is in trouble
	tidyEvery  = 6 * time.Hour
)

// watch proves that the ledger answers, keeps its size within the retention,
// and writes the state file when something changed.
func (g *Gateway) watch(ctx context.Context) {
	part := g.health.Part("ledger")
	tidied := g.Now()
	for {
		g.writeState()
		wait := checkEvery
		if err := g.outbox.Check(ctx); err != nil && ctx.Err() == nil {
			g.health.Part("delivery").Down("stuck", domain.MessageOf(err))
		}
		if err := g.store.Check(ctx); err != nil && ctx.Err() == nil {
			part.Degraded(string(domain.CodeOf(err)), domain.MessageOf(err))
			g.Log.Error("the ledger does not answer", "component", "ledger", "err", err)
			wait = healEvery
		} else {
			part.OK()
		}
		if g.Now().Sub(tidied) > tidyEvery {
			tidied = g.Now()
			if err := g.store.Tidy(ctx, tidied, ledger.DefaultRetention); err != nil && ctx.Err() == nil {
				g.Log.Warn("old entries of the ledger could not be removed", "component", "ledger", "err", err)
			}
		}
		g.writeState()
		g.storeSockets()
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-timer.C:
		}
	}
}
