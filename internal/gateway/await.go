package gateway

import (
	"context"
	"net"
	"os"
	"sync"
	"time"

	"hermes/internal/control"
	"hermes/internal/domain"
	"hermes/internal/succession"
)

// The pace at which a start tries again what can pass by itself.
const (
	firstWait = time.Second
	mostWait  = 30 * time.Second
)

// passes tells whether a failure to open the ledger may be over by itself: a
// full disk, a busy or briefly read-only file. Ending over it would only use up
// the starts that the service manager allows.
func passes(err error) bool {
	return domain.IsCode(err, domain.StorageFull) || domain.IsCode(err, domain.Unavailable)
}

// awaitLedger opens the ledger, and waits while that fails for a cause that can
// pass; meanwhile the control socket says what is waited for. domain.Cancelled
// when the process was asked to stop first.
func (g *Gateway) awaitLedger(ctx context.Context) error {
	err := g.openLedger(ctx)
	if !passes(err) || g.predecessor() != nil { // a successor that must wait is not fit; the one before it serves on
		return err
	}
	w := &waiting{g: g}
	if !g.CronOnly && (g.Legacy == nil || !g.Legacy.Became) {
		if s, lerr := control.Listen(control.SocketPath(g.Profile, g.Env.Get), w); lerr == nil {
			s.Start()
			defer func() {
				end, cancel := context.WithTimeout(context.Background(), time.Second)
				defer cancel()
				_ = s.Stop(end) // whoever still asks is cut
			}()
		} else {
			g.Log.Warn("commands cannot reach this gateway while it waits", "component", "gateway", "err", lerr)
		}
	}
	for pause := firstWait; passes(err); pause = min(2*pause, mostWait) {
		if w.because(err) {
			g.Log.Error("the start waits for the ledger; it is tried again", "component", "gateway", "err", err)
		}
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
			err = g.openLedger(ctx)
			continue
		case <-ctx.Done():
			g.note(causeText(ctx))
		case <-g.shutdown:
		}
		timer.Stop()
		return domain.E(domain.Cancelled, err, "stopped while the start waited for the ledger")
	}
	return err
}

// waiting is a gateway that does not run yet, for the control socket.
type waiting struct {
	g  *Gateway
	mu sync.Mutex
	on string
}

// because notes what is waited for, and tells whether that is news.
func (w *waiting) because(err error) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	before := w.on
	w.on = domain.MessageOf(err)
	return w.on != before
}

// Status says what is waited for.
func (w *waiting) Status(context.Context) control.Status {
	w.mu.Lock()
	defer w.mu.Unlock()
	g := w.g
	return control.Status{
		Profile: g.Profile.Name, Home: g.Profile.Home, Version: g.Version, PID: os.Getpid(), State: phaseStarting,
		StartedAt: g.started, Uptime: g.Now().Sub(g.started).Seconds(), API: control.API{Enabled: g.Config.API.Enabled},
		Model:    control.Model{Name: g.Config.Model.Model, Provider: g.Config.Model.Provider, Set: g.Config.Model.IsSet()},
		Problems: []string{"ledger: " + w.on + ". It is tried again by itself; nothing is taken in until it works, so nothing is lost."},
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
	w.mu.Lock()
	defer w.mu.Unlock()
	return domain.E(domain.Conflict, nil, "this gateway is still starting and waits for the ledger: %s", w.on)
}

// Shutdown ends the wait.
func (w *waiting) Shutdown(reason string) { w.g.Shutdown(reason) }
