package gateway

import (
	"cmp"
	"context"
	"errors"
	"net"
	"os"
	"slices"
	"sync"
	"syscall"
	"time"

	"hermes/internal/control"
	"hermes/internal/domain"
	"hermes/internal/ledger/sqlite"
	"hermes/internal/succession"
)

// The pace of a start that waits.
const (
	firstWait   = time.Second // until the next attempt, doubled each time up to mostWait
	mostWait    = 30 * time.Second
	homeWait    = 2 * time.Second  // between looks at a home that cannot be written
	extendEvery = 10 * time.Second // how often the service manager is asked for more time
	extendBy    = time.Minute      // how much it is asked for
)

// homePasses tells whether an error of the home folder may be over by itself: the
// file system is mounted read-only, full, or the machine has no descriptors left.
func homePasses(err error) bool {
	return slices.ContainsFunc([]error{syscall.EROFS, syscall.ENOSPC, syscall.EDQUOT, syscall.EIO, syscall.ESTALE, syscall.EMFILE, syscall.ENFILE},
		func(e error) bool { return errors.Is(err, e) })
}

// awaitProfile takes the right to serve the profile, and waits while its home
// cannot be written for a cause that can pass. domain.Conflict when another
// process has it, domain.Cancelled when this one was asked to stop first.
func (g *Gateway) awaitProfile(ctx context.Context) (*succession.Instance, error) {
	for told := ""; ; {
		i, err := g.Legacy.Claim(g.Profile)
		if err == nil || g.predecessor() != nil || !homePasses(err) {
			return i, err
		}
		if now := domain.MessageOf(err); now != told {
			told = now
			g.Log.Error("the start waits for the home folder; it is tried again", "component", "gateway", "err", err)
		}
		g.told(g.notifier.Extend(extendBy, "waiting for the home folder: "+told))
		if sleep(ctx, homeWait); ctx.Err() != nil {
			g.note(causeText(ctx))
			return nil, domain.E(domain.Cancelled, nil, "stopped while the start waited for the home folder")
		}
	}
}

// passes tells whether a failure to open the ledger may be over by itself: a
// full disk, a busy or briefly read-only file. Ending over it would only use up
// the starts that the service manager allows.
func passes(err error) bool {
	return domain.IsCode(err, domain.StorageFull) || domain.IsCode(err, domain.Unavailable)
}

// opened is what became of an attempt to open the ledger.
type opened struct {
	store *sqlite.Store
	err   error
}

// tryLedger opens the ledger beside the caller, who may lose patience: another
// process can hold it, and an upgrade can copy it for minutes.
func (g *Gateway) tryLedger(ctx context.Context) chan opened {
	c := make(chan opened, 1)
	go func() {
		s, err := g.openLedger(ctx)
		c <- opened{s, err}
	}()
	return c
}

// awaitLedger opens the ledger, and waits while that takes long or fails for a
// cause that can pass; meanwhile the control socket answers and says what is
// waited for, and the service manager is asked for more time. domain.Cancelled
// when the process was asked to stop first.
func (g *Gateway) awaitLedger(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	w := &waiting{g: g}
	defer w.end()
	attempt, retry, pause := g.tryLedger(ctx), (<-chan time.Time)(nil), firstWait
	beat := time.NewTimer(firstWait)
	defer beat.Stop()
	for {
		select {
		case a := <-attempt:
			if g.store = a.store; !passes(a.err) || g.predecessor() != nil { // a successor that must wait is not fit; the one before it serves on
				return a.err
			}
			attempt, retry, pause = nil, time.After(pause), min(2*pause, mostWait)
			if w.because(domain.MessageOf(a.err)) {
				g.Log.Error("the start waits for the ledger; it is tried again", "component", "gateway", "err", a.err)
			}
			beat.Reset(0)
		case <-retry:
			attempt, retry = g.tryLedger(ctx), nil
		case <-beat.C:
			w.beat()
			beat.Reset(extendEvery)
		case <-ctx.Done():
			g.note(causeText(ctx))
			return g.abandon(attempt)
		case <-g.shutdown:
			return g.abandon(attempt)
		}
	}
}

// abandon stops waiting for the ledger. What an attempt under way still opens is
// closed again.
func (g *Gateway) abandon(attempt chan opened) error {
	if attempt != nil {
		go func() {
			if a := <-attempt; a.store != nil {
				_ = a.store.Close() // the process ends
			}
		}()
	}
	return domain.E(domain.Cancelled, nil, "stopped while the start waited for the ledger")
}

// waiting is a gateway that does not run yet, for the control socket.
type waiting struct {
	g      *Gateway
	socket *control.Server // nil until the wait has lasted a moment
	deaf   bool            // the socket cannot be had
	parked bool            // not the ledger is waited for; see Park

	mu sync.Mutex
	on string
}

// because notes what is waited for, and tells whether that is news.
func (w *waiting) because(what string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	before := w.on
	w.on = what
	return w.on != before
}

// what is waited for.
func (w *waiting) what() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return cmp.Or(w.on, "opening it takes long: it is brought up to date, or another process holds it")
}

// sentence says what does not work.
func (w *waiting) sentence() string {
	if w.parked {
		return "start: it came to nothing: " + w.what()
	}
	return "ledger: " + w.what()
}

// beat is called while the wait lasts: commands get an answer from now on, and
// the service manager does not take the start for one that hangs.
func (w *waiting) beat() {
	g := w.g
	if g.predecessor() != nil {
		return // that one serves, and answers
	}
	status := w.sentence()
	if !w.parked {
		status = "waiting for the " + status
	}
	g.told(g.notifier.Extend(extendBy, status))
	if w.socket != nil || w.deaf || g.CronOnly || g.Legacy != nil && g.Legacy.Became {
		return
	}
	s, err := control.Listen(control.SocketPath(g.Profile, g.Env.Get), w)
	if err != nil {
		w.deaf = true
		g.Log.Warn("commands cannot reach this gateway while it waits", "component", "gateway", "err", err)
		return
	}
	s.Start()
	w.socket = s
}

// end gives the control socket back; whoever still asks is cut.
func (w *waiting) end() {
	if w.socket == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_ = w.socket.Stop(ctx)
}

// Status says what is waited for.
func (w *waiting) Status(context.Context) control.Status {
	g := w.g
	return control.Status{
		Profile: g.Profile.Name, Home: g.Profile.Home, Version: g.Version, PID: os.Getpid(), State: phaseStarting,
		StartedAt: g.started, Uptime: g.Now().Sub(g.started).Seconds(), API: control.API{Enabled: g.Config.API.Enabled},
		Model:    control.Model{Name: g.Config.Model.Model, Provider: g.Config.Model.Provider, Set: g.Config.Model.IsSet()},
		Problems: []string{w.sentence() + ". It is tried again by itself; nothing is taken in until it works, so nothing is lost."},
		Parked:   w.parked,
		Warnings: g.Warnings, Memory: residentBytes(), Mode: supervision(g.processEnv),
	}
}

// Poke has nothing to look at yet.
func (w *waiting) Poke() {}

// PokeLane has no lanes yet.
func (w *waiting) PokeLane(string) bool { return false }

// Refuses is the gateway's own answer.
func (w *waiting) Refuses(pid int) error { return w.g.Refuses(pid) }

// Restart is refused: there is nothing to hand over.
func (w *waiting) Restart(context.Context, control.RestartRequest) (control.Restarted, error) {
	return control.Restarted{}, w.busy()
}

// Replace is refused likewise.
func (w *waiting) Replace(conn *net.UnixConn, pid int) {
	succession.Stranger(conn, pid).Refuse(context.Background(), w.busy())
}

func (w *waiting) busy() error {
	return domain.E(domain.Conflict, nil, "this gateway does not serve yet: %s", w.sentence())
}

// Shutdown ends the wait.
func (w *waiting) Shutdown(reason string) { w.g.Shutdown(reason) }
