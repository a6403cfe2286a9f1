package cli

import (
	"context"
	"fmt"

	"hermes/internal/domain"
	"hermes/internal/home"
	"hermes/internal/service"
	"hermes/internal/succession"
)

const cronOnlyHelp = "the unit of a scheduler alone, hermes-cron: jobs fire and are delivered, nobody is answered"

// unitProfile is the profile whose unit a command acts on. With system it may be
// another account's, of which this account's home has nothing.
func (a *App) unitProfile(system bool) (home.Profile, error) {
	p, err := a.Profile()
	if err == nil || !system || !domain.IsCode(err, domain.Config) || a.profileName == "" {
		return p, err
	}
	if p, err = home.Named(a.Root(), a.profileName); err != nil {
		return p, err
	}
	a.profile = &p
	return p, nil
}

// operateScheduler starts, stops or restarts the unit of a scheduler alone. That
// it works is shown by the ledger: jobs that are due are looked at.
func (a *App) operateScheduler(ctx context.Context, host service.Host, p home.Profile, system bool, verb string) error {
	u, err := host.FindKind(ctx, service.Cron, p, system)
	if err != nil {
		return err
	}
	if verb == "stop" && (u.Active == "inactive" || u.Active == "failed") {
		fmt.Fprintf(a.Out, "The scheduler of %s is not running (%s is %s).\n", p.Name, u.Name, u.Active)
		return nil
	}
	op := a.operationOn(u, p)
	op.Serves = func(ctx context.Context, u service.Unit) bool {
		// Beside a gateway, or another scheduler, that one shows itself.
		return u.Active == "active" && a.loneScheduler(ctx, op.Profile).Running
	}
	return a.perform(ctx, op, verb)
}

// schedulerStatus prints the unit of a scheduler alone. The exit code is 0 when
// it is active and jobs that are due are looked at.
func (a *App) schedulerStatus(ctx context.Context, asJSON, system bool) error {
	p, err := a.unitProfile(system)
	if err != nil {
		return err
	}
	u, err := service.NewHost(service.Me(a.UserHome()), a.getenv).FindKind(ctx, service.Cron, p, system)
	if err != nil {
		return err
	}
	at := service.ProfileOf(u.Unit, p)
	st := a.loneScheduler(ctx, at)
	if _, held := succession.Holder(at); held {
		st.Running = true // by the gateway beside it
	}
	fires := u.Active == "active" && st.Running
	if asJSON {
		err = a.JSON(struct {
			Profile string       `json:"profile"`
			Fires   bool         `json:"fires"`
			Unit    service.Unit `json:"scheduler_unit"`
		}{p.Name, fires, u.Unit})
	} else {
		mark, word := "✓", "jobs fire and are delivered"
		if !fires {
			mark, word = "✗", "not running"
		}
		fmt.Fprintf(a.Out, "%s Scheduler (%s): %s\n", mark, p.Name, word)
		wrap(a.Out, "  scheduler   ", fmt.Sprintf("%s, %s (%s), %s, PID %d", u.Name, u.Active, u.Sub, u.Enabled, u.MainPID))
		if u.Active == "failed" || u.Load == "masked" {
			wrap(a.Out, "  ! ", service.Explain(u.Unit))
		}
	}
	if err == nil && !fires {
		return &ExitError{Code: exitFailed}
	}
	return err
}
