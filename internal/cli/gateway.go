package cli

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"hermes/internal/control"
	"hermes/internal/cron"
	"hermes/internal/domain"
	"hermes/internal/failpoint"
	"hermes/internal/gateway"
	"hermes/internal/home"
	"hermes/internal/logging"
	"hermes/internal/plain"
	"hermes/internal/secret"
	"hermes/internal/service"
	"hermes/internal/starts"
	"hermes/internal/succession"
)

func newGatewayCommand(app *App) *cobra.Command {
	run := newGatewayRunCommand(app)
	cmd := group("gateway", "Run the gateway of a profile, and look at it", run, newGatewayStatusCommand(app),
		newGatewayOperation(app, "start", "Start the service of this profile, and wait until it serves"),
		newGatewayOperation(app, "stop", "Drain and stop the running gateway"),
		newGatewayOperation(app, "restart", "Put a new process in the place of the running one, and wait until it serves"),
		newGatewayListCommand(app), newGatewayPreflightCommand(app), newGatewaySetupCommand(app), newGatewayInstallCommand(app), newGatewayUninstallCommand(app), newGatewayVerifyCommand(app), newGatewayDrillCommand(app), newGatewayRescueCommand(app))
	cmd.RunE = run.RunE // a bare `hermes gateway` runs it
	cmd.Flags().AddFlagSet(run.Flags())
	return cmd
}

func newGatewayRunCommand(app *App) *cobra.Command {
	var verbose int
	var quiet, demo, replace bool
	cmd := &cobra.Command{
		Use: "run", Short: "Run in the foreground: chat platforms, scheduler and API in one process", Args: cobra.NoArgs,
		Long: "Run in the foreground: every configured chat platform, the cron scheduler and, when it\nis switched on, the API server. Ctrl-C or SIGTERM drains and ends it.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			return app.serve(cmd.Context(), serveOptions{verbose: verbose, quiet: quiet, noBallast: demo, replace: replace})
		},
	}
	cmd.Flags().CountVarP(&verbose, "verbose", "v", "log more")
	cmd.Flags().BoolVarP(&quiet, "quiet", "q", false, "log warnings and errors only")
	cmd.Flags().BoolVar(&replace, "replace", false, "take over from the gateway of this profile that runs already")
	cmd.Flags().BoolVar(&demo, "no-reserve", false, "keep no 16 MiB reserve for a full disk")
	return cmd
}

type serveOptions struct {
	verbose          int
	quiet, noBallast bool
	cronOnly         bool
	replace          bool // take over from a running gateway
}

// serve runs the profile's gateway until ctx ends.
func (a *App) serve(ctx context.Context, o serveOptions) (err error) {
	defer surviveLostReaders()()
	failpoint.Hit(failpoint.StartBegun)
	instead, err := a.runChosen(o)
	if err != nil {
		return err
	}
	legacy, refuse, err := a.inherit(ctx, o.replace)
	if errors.Is(err, succession.ErrLaunched) {
		return nil
	}
	defer func() { refuse(err) }()
	if err != nil {
		return err
	}
	p, err := a.Profile()
	if err != nil {
		return err
	}
	start, err := gateway.Prepare(gateway.Preparation{
		Profile: p, Process: a.Environ, Version: Version(), Now: a.Now, CronOnly: o.cronOnly, Instead: instead,
		Planned: legacy.Waiting != nil || legacy.Became, Waits: legacy.Waiting != nil,
		Limit: func() starts.Limit { return service.OwnLimit(ctx, a.getenv) },
	})
	// Records and dumps tell of the gateway's lives; a scheduler alone is none.
	record := func(r gateway.ExitRecord) {
		if !o.cronOnly {
			gateway.WriteExit(p.LogDir(), r)
		}
	}
	if err != nil {
		record(gateway.ExitRecord{Tag: "gateway.exit_nonzero", Code: exitCode(err), Reason: err.Error(), Version: Version()})
		start.Ended(a.Now(), exitCode(err), err)
		return a.parkOr(ctx, err, start, gateway.Options{Profile: p})
	}
	cfg, problems := start.Config, start.Problems
	a.env = start.Env
	redactor := secret.NewRedactor(append(a.env.Secrets(), cfg.Secrets()...)...)
	logs := a.openLogs(p, cfg, redactor, o)
	defer logs.Close()
	log := logs.Logger()
	last := ""
	if !o.cronOnly {
		last, _ = gateway.CatchCrash(p.LogDir()) // without the file only the next dump is lost
	}
	if last != "" {
		log.Error("the last life ended in a crash of the runtime; the dump is in gateway-crash.log.1", "component", "gateway")
	}
	var warnings []string
	for _, one := range problems {
		warnings = append(warnings, redactor.Redact(one.String()))
	}
	began := a.Now()
	g, err := gateway.New(ctx, gateway.Options{
		Profile: p, Config: cfg, Env: a.env, Process: a.Environ, Version: Version(), Log: log, Redactor: redactor, Now: a.Now,
		Warnings: warnings, CronOnly: o.cronOnly, NoBallast: o.noBallast, CrashTold: last != "",
		Legacy: legacy, Args: a.args, Safe: start.Safe,
	})
	if domain.IsCode(err, domain.Cancelled) {
		record(gateway.ExitRecord{Tag: "gateway.exit", Reason: redactor.Redact(err.Error()), Version: Version()})
		start.Ended(a.Now(), exitOK, nil)
		return nil
	}
	if err != nil {
		record(gateway.FailedStart(err, exitCode(err), redactor.Redact(err.Error()), Version()))
		start.Ended(a.Now(), exitCode(err), domain.E(domain.CodeOf(err), nil, "%s", redactor.Redact(err.Error())))
		return a.parkOr(ctx, err, start, gateway.Options{Profile: p, Config: cfg, Env: a.env, Log: log})
	}
	return a.live(ctx, g, life{start: start, began: began, log: log, redactor: redactor, record: record})
}

// life is what is noted of a gateway's run, and by whom.
type life struct {
	start    *gateway.Prepared
	began    time.Time
	log      *slog.Logger
	redactor *secret.Redactor
	record   func(gateway.ExitRecord)
}

// live runs a gateway until its end and puts that on record.
func (a *App) live(ctx context.Context, g *gateway.Gateway, l life) error {
	if err := a.env.Remember(); err != nil {
		l.log.Debug("which variables stand in .env was not noted", "component", "gateway", "err", err)
	}
	adviseOnLogout(l.log, a)
	run, stopCode := a.judgeStop(ctx)
	stopSignals := restartOnSignal(ctx, g)
	err := g.Run(run)
	stopSignals()
	code, signalled := stopCode()
	exit := gateway.ExitRecord{Tag: "gateway.exit", Reason: g.Reason(), Version: Version(), Uptime: a.Now().Sub(l.began).Seconds()}
	if err != nil {
		exit.Tag, exit.Code, exit.Reason = "gateway.exit_nonzero", exitCode(err), l.redactor.Redact(err.Error())
	}
	if err == nil && code != service.ExitOK {
		exit.Tag, exit.Code = "gateway.exit_nonzero", code
		exit.Reason = "stopped by a signal while its unit is active; the unit starts it again"
		err = &ExitError{Code: code}
	}
	l.record(exit)
	if err == nil || code != service.ExitOK {
		l.start.Ended(a.Now(), exit.Code, nil)
	} else {
		l.start.Ended(a.Now(), exit.Code, domain.E(domain.CodeOf(err), nil, "%s", exit.Reason))
	}
	if err == nil && !signalled { // a stop that came during a restart in place ends that too
		err = g.Become() // comes back only when there is nothing to become
	}
	return err
}

// surviveLostReaders makes a write to an output whose reader has gone an error in
// place of a death; see SIGPIPE in the documentation of os/signal. Asking for the
// signal, and not ignoring it, leaves the commands that tools start as they were.
func surviveLostReaders() (undo func()) {
	lost := make(chan os.Signal, 1)
	signal.Notify(lost, syscall.SIGPIPE)
	return func() { signal.Stop(lost) }
}

// judgeStop gives a context that ends a moment after ctx: when a signal came,
// the manager is first asked whether it is stopping the unit, since once the
// gateway has told it of its end the answer is lost. code gives the exit code and
// whether a signal came, and is called when the gateway has ended.
func (a *App) judgeStop(ctx context.Context) (run context.Context, code func() (int, bool)) {
	run, end := context.WithCancelCause(context.WithoutCancel(ctx))
	answer := make(chan int, 1)
	idle := context.AfterFunc(ctx, func() {
		answer <- service.StopExitCode(context.WithoutCancel(ctx), a.getenv)
		end(context.Cause(ctx))
	})
	return run, func() (int, bool) {
		defer end(nil)
		if idle() {
			return service.ExitOK, false
		}
		return <-answer, true
	}
}

// exitCode is the code that fail will give an error.
func exitCode(err error) int {
	if domain.IsCode(err, domain.Config) {
		return exitConfig
	}
	return exitFailed
}

// openLogs opens the profile's logs at the configured level.
func (a *App) openLogs(p home.Profile, cfg *home.Config, r *secret.Redactor, o serveOptions) *logging.Logs {
	level, err := logging.ParseLevel(cfg.Logging.Level)
	if err != nil {
		level = slog.LevelInfo
	}
	switch {
	case o.verbose > 0:
		level = slog.LevelDebug
	case o.quiet:
		level = slog.LevelWarn
	}
	return logging.New(logging.Options{
		Dir: p.LogDir(), Level: level, MaxMB: cfg.Logging.MaxMB, Backups: cfg.Logging.Backups, Redactor: r, Stderr: a.Err, Journal: logging.UnderJournal(a.Lookup),
	})
}

// adviseOnLogout says what the end of a login session does to a gateway that
// was started by hand; see logind.conf(5) on KillUserProcesses.
func adviseOnLogout(log *slog.Logger, a *App) {
	if unit, _ := a.Lookup("INVOCATION_ID"); unit != "" || os.Getpid() == 1 {
		return
	}
	what := "otherwise it may live on after logout"
	if killsUserProcesses("/etc/systemd/logind.conf") {
		what = "KillUserProcesses=yes is set, so it ends when you log out"
	}
	log.Info("started by hand: "+what+", and nothing starts it again after a crash or a reboot; `hermes gateway install` makes a service of it", "component", "gateway")
}

func killsUserProcesses(file string) bool {
	text, err := plain.Read(file)
	if err != nil {
		return false
	}
	kills := false
	for _, l := range strings.Split(string(text), "\n") {
		if v, ok := strings.CutPrefix(strings.TrimSpace(l), "KillUserProcesses="); ok {
			kills = v == "yes" || v == "true" || v == "1" || v == "on"
		}
	}
	return kills
}

// controlClient talks to the profile's gateway.
func (a *App) controlClient() (*control.Client, home.Profile, error) {
	p, err := a.Profile()
	if err != nil {
		return nil, p, err
	}
	return a.dial(p), p, nil
}

// dial talks to a given profile's gateway.
func (a *App) dial(p home.Profile) *control.Client {
	return control.Dial(control.SocketPath(p, a.getenv))
}

func newGatewayStatusCommand(app *App) *cobra.Command {
	var asJSON, deep, full, system, all, cronOnly bool
	cmd := &cobra.Command{
		Use: "status", Short: "Say what the gateway does, from evidence", Args: cobra.NoArgs,
		Long: "Say what the gateway of this profile does, from evidence. The exit code is 0 only when it\nruns and is healthy.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			switch {
			case all:
				return app.listGateways(cmd.Context(), asJSON, cronOnly)
			case cronOnly:
				return app.schedulerStatus(cmd.Context(), asJSON, system)
			}
			return app.gatewayStatus(cmd.Context(), asJSON, system)
		},
	}
	jsonFlag(cmd, &asJSON)
	cmd.Flags().BoolVar(&all, "all", false, "a row for each profile, as `hermes gateway list`")
	cmd.Flags().BoolVar(&cronOnly, "cron-only", false, "show the unit of the scheduler alone; exit code 0 when it is active")
	cmd.Flags().BoolVar(&system, "system", false, "show the unit of the system")
	cmd.Flags().BoolVar(&deep, "deep", false, "accepted for compatibility: everything is always shown")
	cmd.Flags().BoolVarP(&full, "full", "l", false, "accepted for compatibility: lines are never cut")
	return cmd
}

// gatewayStatus prints the status of the running gateway, or why there is none.
func (a *App) gatewayStatus(ctx context.Context, asJSON, system bool) error {
	if _, err := a.unitProfile(system); err != nil {
		return err
	}
	c, p, err := a.controlClient()
	if err != nil {
		return err
	}
	unit := a.serviceReport(ctx, p, system)
	if system && unit.Unit != nil { // root looks at what runs as another
		c = a.dial(service.ProfileOf(*unit.Unit, p))
	}
	past := a.past(ctx, p, unit)
	s, err := c.Status(ctx)
	switch {
	case err == nil:
		if r, ok := gateway.LastExit(p.LogDir()); ok {
			s.LastExit = r.String()
		}
		if asJSON {
			err = a.JSON(struct {
				control.Status
				Service service.Report `json:"service"`
				Past    pastView       `json:"past"`
			}{s, unit, past})
		} else {
			a.printStatus(s)
			a.printService(unit)
			a.printPast(past)
		}
		if err == nil && !s.Healthy {
			return &ExitError{Code: exitFailed}
		}
		return err
	case !domain.IsCode(err, domain.NotFound):
		return err
	}
	return a.notRunning(ctx, p, unit, past, asJSON)
}

// notRunning explains that no gateway answers.
func (a *App) notRunning(ctx context.Context, p home.Profile, unit service.Report, past pastView, asJSON bool) error {
	holder, held := succession.Holder(p)
	last, known := gateway.LastExit(p.LogDir())
	alone := a.loneScheduler(ctx, p)
	if dead, unclean := succession.Unclean(p); unclean && !held {
		last, known = gateway.Unclean(dead.PID), true
	}
	if asJSON {
		out := map[string]any{"profile": p.Name, "home": p.Home, "gateway_state": "stopped", "healthy": false, "service": unit, "past": past}
		if held {
			out["pid"] = holder.PID
		}
		if alone.Running {
			out["scheduler_pid"] = alone.PID
		}
		if known {
			out["last_exit"] = last.String()
		}
		return errors.Join(a.JSON(out), &ExitError{Code: exitFailed})
	}
	if held {
		fmt.Fprintf(a.Out, "✗ Gateway (%s): PID %d holds the profile but does not answer\n", p.Name, holder.PID)
	} else {
		fmt.Fprintf(a.Out, "✗ Gateway (%s): not running\n", p.Name)
	}
	if known {
		fmt.Fprintf(a.Out, "  last exit   %s\n", last)
	}
	if alone.Running {
		wrap(a.Out, "  cron        ", alone.Who+": jobs fire and are delivered, but nobody is answered")
	}
	if !held {
		verb := "run"
		if unit.Unit != nil {
			verb = "start"
		}
		fmt.Fprintf(a.Out, "  start it    hermes%s gateway %s\n", profileFlag(p), verb)
	}
	a.printService(unit)
	a.printRescue(past)
	return &ExitError{Code: exitFailed}
}

// loneScheduler tells of a scheduler that runs without a gateway; a ledger that
// is not there, or does not answer at once, tells of none.
func (a *App) loneScheduler(ctx context.Context, p home.Profile) (st cron.Status) {
	if _, err := os.Stat(p.LedgerFile()); err != nil {
		return st
	}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	_ = a.forProfile(p).withCron(ctx, func(r *cronRoom) (err error) { // which says nothing then
		st, err = r.Status(ctx)
		return err
	})
	return st
}

// profileFlag is what names the profile on a command line.
func profileFlag(p home.Profile) string {
	if p.Name == "default" {
		return ""
	}
	return " -p " + p.Name
}

// waitStopped returns when the profile is free.
func (a *App) waitStopped(ctx context.Context, p home.Profile) error {
	ctx, cancel := context.WithTimeout(ctx, 25*time.Second)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		if _, held := succession.Holder(p); !held {
			fmt.Fprintf(a.Out, "✓ Stopped the gateway of %s.\n", p.Name)
			return nil
		}
		select {
		case <-ctx.Done():
			return domain.E(domain.Timeout, nil, "the gateway of %s was told to stop and still drains; `hermes%s gateway status` shows what it waits for", p.Name, profileFlag(p))
		case <-tick.C:
		}
	}
}

func newGatewayListCommand(app *App) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use: "list", Short: "One row a profile: does its gateway run, and is it healthy", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return app.listGateways(cmd.Context(), asJSON, false)
		},
	}
	jsonFlag(cmd, &asJSON)
	return cmd
}
