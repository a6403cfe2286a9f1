package cli

import (
	"context"
	"encoding/json"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"hermes/internal/control"
	"hermes/internal/domain"
	"hermes/internal/gateway"
	"hermes/internal/home"
	"hermes/internal/ledger/sqlite"
	"hermes/internal/succession"
)

// meetLimit bounds the first words of a hand-over.
const meetLimit = 15 * time.Second

// inherit takes what other processes left for this one, and, with replace, asks
// the gateway that runs to hand over. A predecessor that waits hears of every
// error of the start by refuse.
func (a *App) inherit(ctx context.Context, replace bool) (l *succession.Legacy, refuse func(error), err error) {
	ctx, cancel := context.WithTimeout(ctx, meetLimit)
	defer cancel()
	l, err = succession.Inherit(ctx, a.Environ)
	refuse = func(err error) {
		if err != nil && l.Waiting != nil {
			l.Waiting.Refuse(context.Background(), err)
		}
	}
	if err != nil {
		return l, refuse, err
	}
	a.Environ = succession.WithoutLegacy(a.Environ)
	if !replace || l.Waiting != nil || l.Became {
		return l, refuse, nil
	}
	_, p, err := a.controlClient()
	if err != nil {
		return l, refuse, err
	}
	conn, err := control.Ask(ctx, control.SocketPath(p, a.getenv))
	if domain.IsCode(err, domain.NotFound) {
		return l, refuse, nil // nobody to replace
	}
	if err != nil {
		return l, refuse, err
	}
	return l, refuse, l.Meet(ctx, conn)
}

// restartOnSignal hands over on SIGUSR1, as ExecReload= of the unit and older
// tools ask for it.
func restartOnSignal(ctx context.Context, g *gateway.Gateway) (stop func()) {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGUSR1)
	ctx, cancel := context.WithCancel(ctx)
	go func() {
		for {
			select {
			case <-ctx.Done():
				return
			case <-signals:
				_, _ = g.Restart(ctx, control.RestartRequest{Reason: "SIGUSR1"}) // the log tells how it went
			}
		}
	}()
	return func() { signal.Stop(signals); cancel() }
}

// newGatewayPreflightCommand is asked by a running gateway whether this program
// could take its place. It takes nothing over.
func newGatewayPreflightCommand(app *App) *cobra.Command {
	cmd := &cobra.Command{
		Use: "preflight", Short: "Say whether this program could serve the profile", Args: cobra.NoArgs, Hidden: true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			p := gateway.Preflight{OK: true, Version: Version()}
			if err := app.checkStart(cmd.Context()); err != nil {
				p.OK, p.Problems = false, []string{err.Error()}
			}
			if err := json.NewEncoder(app.Out).Encode(p); err != nil {
				return err
			}
			if !p.OK {
				return &ExitError{Code: exitFailed}
			}
			return nil
		},
	}
	jsonFlag(cmd, new(bool)) // it is told in JSON in any case, to programs
	return cmd
}

// checkStart does of a start what takes nothing over.
func (a *App) checkStart(ctx context.Context) error {
	p, err := a.Profile()
	if err != nil {
		return err
	}
	return a.checkStartOf(ctx, p)
}

func (a *App) checkStartOf(ctx context.Context, p home.Profile) error {
	files, err := home.ReadFiles(p)
	if err == nil {
		_, _, _, err = home.LoadFiles(p, files, a.Environ)
	}
	if err != nil {
		return err
	}
	return sqlite.Probe(ctx, p.LedgerFile())
}

// restartByControl asks the running gateway to be replaced by a program, "" for
// its own, and waits until the new process serves. An error says why the old one serves on.
func (a *App) restartByControl(ctx context.Context, p home.Profile, program string) (control.Restarted, error) {
	c := a.dial(p)
	before, err := c.Status(ctx)
	if domain.IsCode(err, domain.NotFound) {
		return control.Restarted{}, domain.E(domain.NotFound, nil, "the gateway of %s is not running; start it with `hermes%s gateway run`", p.Name, profileFlag(p))
	}
	if err != nil {
		return control.Restarted{}, err
	}
	done, err := c.Restart(ctx, control.RestartRequest{Reason: "hermes gateway restart", Program: program})
	if err == nil && done.Mode == string(succession.InPlace) {
		err = waitBack(ctx, c, p, before.StartedAt)
	}
	return done, err
}

// The limits of a restart in place: its drain and a start, and how long nobody
// may hold the profile, which the process does all the while.
const (
	backLimit = 3 * time.Minute
	goneLimit = 2 * time.Second
)

// waitBack returns when the gateway serves that began after the given time.
// Errors: Unavailable, when the process ended meanwhile; Timeout.
func waitBack(ctx context.Context, c *control.Client, p home.Profile, before time.Time) error {
	ctx, cancel := context.WithTimeout(ctx, backLimit)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	held := time.Now()
	for {
		if s, err := c.Status(ctx); err == nil && s.StartedAt.After(before) && s.State == "running" {
			return nil
		}
		if _, holds := succession.Holder(p); holds {
			held = time.Now()
		} else if time.Since(held) > goneLimit {
			return domain.E(domain.Unavailable, nil, "the gateway of %s ended while it restarted: it was stopped, or crashed; `hermes%s gateway status` shows which", p.Name, profileFlag(p))
		}
		select {
		case <-ctx.Done():
			return domain.E(domain.Timeout, nil, "the gateway of %s began to restart and does not answer yet; `hermes%s logs` shows what it does", p.Name, profileFlag(p))
		case <-tick.C:
		}
	}
}
