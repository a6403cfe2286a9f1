package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"hermes/internal/control"
	"hermes/internal/domain"
	"hermes/internal/drill"
	"hermes/internal/home"
	"hermes/internal/service"
	"hermes/internal/succession"
)

func newGatewayDrillCommand(app *App) *cobra.Command {
	var asJSON, yes bool
	cmd := &cobra.Command{
		Use: "drill", Short: "Restart and kill this profile's gateway on purpose, and count what it costs", Args: cobra.NoArgs,
		Long: "Restart this profile's gateway, kill its process (kill -9), and offer it a successor that\ndies, under a light load that the drill makes itself: health checks, lists of models and a\nchat command. No model is called and no chat platform hears of it. Each line says what was\nrefused, failed, cut, lost and doubled, and the longest time without an answer. Exits 0 when\nwhat docs/service.md promises was kept. Nothing is done before you say yes; Ctrl-C ends the\ndrill and leaves the gateway serving.",
		RunE: func(cmd *cobra.Command, _ []string) error { return app.drill(cmd.Context(), asJSON, yes) },
	}
	jsonFlag(cmd, &asJSON)
	cmd.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	return cmd
}

// drillRoom is what a drill acts on.
type drillRoom struct {
	a       *App
	op      service.Operation
	client  *control.Client
	profile home.Profile
	status  control.Status
}

// drill lets the gateway die on purpose. A promise that was not kept makes the
// exit code 1.
func (a *App) drill(ctx context.Context, asJSON, yes bool) error {
	cfg, _, err := a.Config()
	if err != nil {
		return err
	}
	d, err := a.drillRoom(ctx)
	if err != nil {
		return err
	}
	if !yes {
		ok, err := a.asker().yes(ctx, fmt.Sprintf("This restarts and kills %s, which serves profile %s now. Go on?", d.op.Name, d.profile.Name))
		if err != nil {
			return err
		}
		if !ok {
			return domain.E(domain.Cancelled, nil, "nothing was done; `--yes` answers the question beforehand")
		}
	}
	o := drill.Options{Key: cfg.API.Key, Now: a.Now, Steps: d.steps(), Ask: func(ctx context.Context) error {
		if _, err := d.client.Status(ctx); err != nil { // whatever it was: nobody was there
			return fmt.Errorf("%w: %w", syscall.ECONNREFUSED, err)
		}
		return nil
	}}
	if d.status.API.Address != "" {
		if o.Address, err = d.status.API.Reachable(); err != nil {
			return err
		}
	}
	results := []drill.Result{}
	kept, err := drill.Run(ctx, o, func(r drill.Result) {
		results = append(results, r)
		if !asJSON {
			a.printDrill(r, o.Address != "")
		}
	})
	err = errors.Join(err, d.serving(ctx))
	if asJSON {
		err = errors.Join(a.JSON(struct {
			Profile string         `json:"profile"`
			Mode    string         `json:"mode"`
			OK      bool           `json:"ok"`
			Steps   []drill.Result `json:"steps"`
		}{d.profile.Name, d.status.Mode.Handover, kept && err == nil, results}), err)
	} else if err == nil {
		a.sayDrilled(kept, d.status.Mode)
	}
	if err == nil && !kept {
		return &ExitError{Code: exitFailed}
	}
	return err
}

// startsNeeded is how many starts the drill and one mishap may use up.
const startsNeeded = 2

// drillRoom finds the unit, and refuses where nothing would bring the gateway
// back. Errors: Conflict, Forbidden, Unavailable, NotFound.
func (a *App) drillRoom(ctx context.Context) (d drillRoom, err error) {
	if d.client, d.profile, err = a.controlClient(); err != nil {
		return d, err
	}
	if d.status, err = d.client.Status(ctx); err != nil {
		return d, err
	}
	flag := profileFlag(d.profile)
	u, err := service.NewHost(service.Me(a.UserHome()), a.getenv).Find(ctx, d.profile, false)
	switch {
	case err != nil || u.MainPID != d.status.PID:
		return d, domain.E(domain.Conflict, nil, "no unit runs the gateway that serves now (PID %d), so nothing would bring it back after a kill; `hermes%s gateway install` makes a service of it", d.status.PID, flag)
	case u.Restart != "always" && u.Restart != "on-failure":
		return d, domain.E(domain.Conflict, nil, "%s has Restart=%s, so nothing would bring it back after a kill; `hermes%s gateway install --adopt` adds what is missing", u.Name, u.Restart, flag)
	case u.System && os.Getuid() != 0:
		return d, domain.E(domain.Forbidden, nil, "%s is a unit of the system; only root may kill what it runs: sudo hermes%s gateway drill", u.Name, flag)
	case service.Inside(u.Unit):
		return d, domain.E(domain.Forbidden, nil, "this command runs inside %s, which it would kill, and itself with it", u.Name)
	case !d.status.Healthy:
		return d, domain.E(domain.Conflict, nil, "the gateway is not healthy, so a drill would prove nothing: %s", strings.Join(d.status.Problems, "; "))
	}
	if left := service.StartsLeft(u.Unit, a.Now()); left >= 0 && left < startsNeeded {
		return d, domain.E(domain.Conflict, nil, "systemd would start %s only %d more times within %s, too few for a drill; wait, or `systemctl --user reset-failed %s`", u.Name, left, u.LimitSpan, u.Name)
	}
	d.a = a
	d.op = service.Operation{Found: u, Profile: d.profile, Getenv: a.getenv, Say: func(string, ...any) {}}
	d.op.HandOver = func(ctx context.Context, program string) (bool, error) {
		_, err := a.restartByControl(ctx, d.profile, program)
		return err == nil, err
	}
	return d, nil
}

// How long nothing may be answered. In place a restart waits for turns and kept
// connections; after a kill systemd waits for its own delay.
const (
	overlapGap = 2 * time.Second
	inPlaceGap = 15 * time.Second
	startGap   = 5 * time.Second
)

// steps are what docs/service.md promises about, for the unit's mode.
func (d drillRoom) steps() []drill.Step {
	overlap := d.status.Mode.Handover == string(succession.Overlap)
	restart := drill.Promise{Gap: overlapGap}
	kill := drill.Promise{Cut: true, Gap: d.op.RestartDelay + startGap}
	if !overlap {
		restart.Gap, kill.Refused = inPlaceGap, true
	}
	if d.status.API.Address == "" { // the control socket is not kept over a kill
		kill.Refused, restart.Refused = true, true
	}
	return []drill.Step{
		{Name: "restart", Promise: restart, Do: d.restart},
		{Name: "kill -9", Promise: kill, Do: d.kill},
		{Name: "bad successor", Promise: drill.Promise{Gap: overlapGap}, Do: d.badSuccessor},
	}
}

func (d drillRoom) restart(ctx context.Context) (string, error) {
	before, err := d.client.Status(ctx)
	if err != nil {
		return "", err
	}
	after, err := d.op.Restart(ctx)
	return fmt.Sprintf("PID %d, was %d", after.MainPID, before.PID), err
}

func (d drillRoom) kill(ctx context.Context) (string, error) {
	before, err := d.client.Status(ctx)
	if err != nil {
		return "", err
	}
	after, err := d.op.Kill(ctx)
	return fmt.Sprintf("PID %d, was %d", after.MainPID, before.PID), err
}

// dies is a program that ends at once, whatever it is asked.
const dies = "/bin/false"

// badSuccessor offers the gateway a successor that dies. The right answer is an
// error, and the process that served goes on.
func (d drillRoom) badSuccessor(ctx context.Context) (string, error) {
	before, err := d.client.Status(ctx)
	if err != nil {
		return "", err
	}
	if _, err := d.client.Restart(ctx, control.RestartRequest{Reason: "hermes gateway drill", Program: dies}); err == nil {
		return "", domain.E(domain.Internal, nil, "%s was taken for a successor", dies)
	}
	after, err := d.client.Status(ctx)
	if err == nil && after.PID != before.PID {
		return "", domain.E(domain.Internal, nil, "the process changed from PID %d to %d", before.PID, after.PID)
	}
	return fmt.Sprintf("it was refused, and PID %d served on", before.PID), err
}

// servingLimit is how long an interrupted drill waits for the gateway.
const servingLimit = 2 * time.Minute

// serving holds that the gateway serves when the drill is over, also when ctx
// has ended, and starts it where it does not.
func (d drillRoom) serving(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), servingLimit)
	defer cancel()
	_, err := d.op.Start(ctx)
	return err
}

// printDrill prints what a step cost.
func (a *App) printDrill(r drill.Result, counted bool) {
	mark := "✓"
	if !r.Kept {
		mark = "✗"
	}
	text := fmt.Sprintf("%d requests: %d refused, %d failed, %d cut", r.Requests, r.Refused, r.Failed, r.Cut)
	if counted {
		text += fmt.Sprintf("; %d messages: %d lost, %d doubled", r.Messages, r.Lost, r.Doubled)
	}
	wrap(a.Out, fmt.Sprintf("%s %-14s ", mark, r.Name), text+fmt.Sprintf("; gap %.2f s; %s", r.Gap, r.Remark))
	for _, b := range r.Broken {
		wrap(a.Out, "  ✗ ", b)
	}
}

func (a *App) sayDrilled(kept bool, m control.Mode) {
	if kept {
		wrap(a.Out, "✓ ", "What this unit promises was kept: "+m.Explain+".")
		return
	}
	wrap(a.Out, "✗ ", "What this unit promises was not kept: "+m.Explain+".")
}
