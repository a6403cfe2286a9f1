package cli

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"hermes/internal/domain"
	"hermes/internal/home"
	"hermes/internal/service"
	"hermes/internal/succession"
	"hermes/internal/update"
)

// installFlags are what `gateway install` was told.
type installFlags struct {
	template, system, force, print, adopt bool
	cronOnly, all                         bool
	noLinger, start, noStart              bool
	runAs, ready                          string
}

func newGatewayInstallCommand(app *App) *cobra.Command {
	var f installFlags
	cmd := &cobra.Command{
		Use: "install", Short: "Make a systemd service of this profile's gateway", Args: cobra.NoArgs,
		Long: "Make a systemd service of this profile's gateway: write the unit, enable it, switch\n" +
			"lingering on so that it survives logout and boot, and start it. A unit that was\n" +
			"edited by hand is never replaced without showing the difference and keeping a copy;\n" +
			"drop-ins are never touched.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if f.all {
				return app.installAll(cmd.Context(), f)
			}
			return app.install(cmd.Context(), f)
		},
	}
	fl := cmd.Flags()
	fl.BoolVar(&f.template, "template", false, "write hermes-gateway@.service and hermes-cron@.service, one instance a profile")
	fl.BoolVar(&f.system, "system", false, "a unit of the system, which runs as --run-as-user (as root)")
	fl.StringVar(&f.runAs, "run-as-user", "", "with --system: whom the gateway runs as")
	fl.BoolVar(&f.cronOnly, "cron-only", false, cronOnlyHelp)
	fl.BoolVar(&f.all, "all", false, "every profile that is set up, one after the other")
	fl.BoolVar(&f.force, "force", false, "replace a hand-edited unit; a copy is kept")
	fl.BoolVar(&f.print, "print", false, "print what would be written, and do nothing")
	fl.BoolVar(&f.adopt, "adopt", false, "leave a hand-written unit alone and add what it lacks as a drop-in")
	fl.BoolVar(&f.noLinger, "no-linger", false, "leave lingering as it is")
	fl.BoolVar(&f.start, "start-now", true, "start it at once")
	fl.BoolVar(&f.noStart, "no-start-now", false, "only write and enable it")
	fl.StringVar(&f.ready, "ready", string(service.Notify), "how systemd learns that it serves: notify or simple")
	_ = fl.MarkHidden("ready")
	return cmd
}

// install does what `gateway install` was told.
func (a *App) install(ctx context.Context, f installFlags) error {
	spec, host, err := a.unitSpec(f)
	if err != nil {
		return err
	}
	files, err := host.Files(spec)
	if err != nil {
		return err
	}
	if f.print {
		for _, one := range files {
			fmt.Fprintf(a.Out, "# %s\n%s", one.Path, one.Text)
		}
		return nil
	}
	if f.system && os.Getuid() != 0 {
		return domain.E(domain.Forbidden, nil, "a unit of the system is root's to write: sudo hermes%s gateway install --system --run-as-user %s", profileFlag(spec.Profile), spec.Account.Name)
	}
	manager, err := service.Open(f.system, a.getenv)
	if err != nil {
		return err
	}
	if f.cronOnly && f.adopt {
		return domain.E(domain.Invalid, nil, "--adopt is for a gateway's unit; a scheduler's runs as it stands")
	}
	o := service.InstallOptions{Spec: spec, Force: f.force, Say: a.say, Now: a.Now}
	if f.adopt {
		return a.adopt(ctx, host, spec, o)
	}
	if err := host.Install(ctx, manager, o); err != nil {
		return err
	}
	if !f.system && !f.noLinger {
		a.lingerOn(ctx, host.Account.Name)
	}
	if !f.start || f.noStart {
		return nil
	}
	if f.cronOnly {
		return a.operateScheduler(ctx, host, spec.Profile, f.system, "start")
	}
	if r, held := succession.Holder(spec.Profile); held {
		a.sayServed(ctx, host, spec, r.PID)
		return nil
	}
	return a.operate(ctx, host, spec.Profile, f.system, "start")
}

// sayServed says that a process serves the profile already, and what to do for
// the unit as it now stands.
func (a *App) sayServed(ctx context.Context, host service.Host, spec service.Spec, pid int) {
	flag := profileFlag(spec.Profile)
	if u, err := host.Find(ctx, spec.Profile, spec.System); err == nil && u.MainPID == pid {
		fmt.Fprintf(a.Out, "✓ %s already runs (PID %d); what changed comes in force with `hermes%s gateway restart`\n", strings.TrimSuffix(u.Name, ".service"), pid, flag)
		return
	}
	fmt.Fprintf(a.Out, "! PID %d serves this profile, started by hand; the unit takes over with `hermes%s gateway stop && hermes%s gateway start`\n", pid, flag, flag)
}

// adopt lifts the hand-written unit of a profile.
func (a *App) adopt(ctx context.Context, host service.Host, spec service.Spec, o service.InstallOptions) error {
	u, err := host.Find(ctx, spec.Profile, spec.System)
	if err != nil {
		return err
	}
	if err := host.Adopt(ctx, u, o); err != nil {
		return err
	}
	fmt.Fprintf(a.Out, "✓ Adopted %s; it comes in force with the next start: `hermes%s gateway restart`\n", u.Name, profileFlag(spec.Profile))
	return nil
}

// lingerOn switches lingering on, or says what root must type.
func (a *App) lingerOn(ctx context.Context, account string) {
	if service.Lingers(account) {
		fmt.Fprintf(a.Out, "✓ Lingering is on: it survives logout and starts at boot\n")
		return
	}
	if err := service.EnableLinger(ctx, account); err != nil {
		fmt.Fprintf(a.Out, "! %s\n", domain.MessageOf(err))
		return
	}
	fmt.Fprintf(a.Out, "✓ Switched lingering on: it survives logout and starts at boot\n")
}

// unitSpec is what install would write for this command line.
func (a *App) unitSpec(f installFlags) (service.Spec, service.Host, error) {
	if f.ready != string(service.Notify) && f.ready != string(service.Simple) {
		return service.Spec{}, service.Host{}, domain.E(domain.Invalid, nil, "--ready is notify or simple, not %q", f.ready)
	}
	if f.runAs != "" && !f.system {
		return service.Spec{}, service.Host{}, domain.E(domain.Invalid, nil, "--run-as-user belongs to --system; a user's own unit runs as that user")
	}
	account := service.Me(a.UserHome())
	request := a.request()
	if f.system {
		var err error
		if account, err = a.runAs(f.runAs); err != nil {
			return service.Spec{}, service.Host{}, err
		}
		request.UserHome = account.Home
	}
	p, err := home.Resolve(request)
	if err != nil {
		return service.Spec{}, service.Host{}, err
	}
	binary, err := ownPath()
	if err != nil {
		return service.Spec{}, service.Host{}, err
	}
	kind := service.Gateway
	if f.cronOnly {
		kind = service.Cron
	}
	return service.Spec{
		Kind: kind, Profile: p, Template: f.template, System: f.system, Account: account,
		Binary: binary, Path: a.servicePath(account, binary, f.system), Ready: service.Readiness(f.ready),
	}, service.NewHost(account, a.getenv), nil
}

// runAs gives the account of a system unit: the one that was named, else the
// one behind sudo. Root is taken only when it is named.
func (a *App) runAs(name string) (service.Account, error) {
	if name == "" {
		name, _ = a.Lookup("SUDO_USER")
		if name == "root" {
			name = ""
		}
	}
	if name == "" && os.Getuid() != 0 {
		return service.Me(a.UserHome()), nil
	}
	if name == "" {
		return service.Account{}, domain.E(domain.Invalid, nil, "say whom the gateway is to run as: --run-as-user USER (root, if it must be)")
	}
	return service.FindAccount(name)
}

// ownPath is the path of this program as it was called, so that a link which an
// update moves stays in force; else the file itself.
func ownPath() (string, error) {
	file, err := os.Executable()
	if err != nil {
		return "", domain.E(domain.Internal, err, "the path of this program is unknown")
	}
	if called := calledPath(); called != "" {
		one, err1 := os.Stat(file)
		two, err2 := os.Stat(called)
		if err1 == nil && err2 == nil && os.SameFile(one, two) {
			return called, nil
		}
	}
	return file, nil
}

// calledPath is where the shell found this program, "" when it cannot be told.
func calledPath() string {
	found, err := exec.LookPath(os.Args[0])
	if err != nil {
		return ""
	}
	abs, err := filepath.Abs(found)
	if err != nil {
		return ""
	}
	return abs
}

// servicePath is the PATH of the unit: the user's own, without what is passing
// or relative, and the usual folders.
func (a *App) servicePath(account service.Account, binary string, system bool) string {
	dirs := []string{filepath.Dir(binary)}
	if system {
		dirs = append(dirs, filepath.Join(account.Home, ".local/bin"))
	} else {
		dirs = append(dirs, filepath.SplitList(a.getenv("PATH"))...)
	}
	dirs = append(dirs, "/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin")
	var out []string
	for _, d := range dirs {
		passing := strings.HasPrefix(d, os.TempDir()+"/") || strings.HasPrefix(d, "/run/")
		if filepath.IsAbs(d) && !passing && !slices.Contains(out, d) {
			out = append(out, d)
		}
	}
	return strings.Join(out, ":")
}

func (a *App) getenv(name string) string {
	v, _ := a.Lookup(name)
	return v
}

func (a *App) say(format string, args ...any) { fmt.Fprintf(a.Out, format+"\n", args...) }

// newGatewayOperation makes start, stop or restart.
func newGatewayOperation(app *App, verb, short string) *cobra.Command {
	var system, all, cronOnly bool
	cmd := &cobra.Command{
		Use: verb, Short: short, Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if verb == "restart" { // whose process would be whichever the update is at
				if err := update.UnderWay(app.UserHome()); err != nil {
					return err
				}
			}
			if all {
				return app.operateAll(cmd.Context(), system, cronOnly, verb)
			}
			p, err := app.unitProfile(system)
			if err != nil {
				return err
			}
			host := service.NewHost(service.Me(app.UserHome()), app.getenv)
			if cronOnly {
				return app.operateScheduler(cmd.Context(), host, p, system, verb)
			}
			return app.operate(cmd.Context(), host, p, system, verb)
		},
	}
	cmd.Flags().BoolVar(&system, "system", false, "act on the unit of the system")
	cmd.Flags().BoolVar(&all, "all", false, "every profile, one after the other, with the schedulers that stand alone")
	cmd.Flags().BoolVar(&cronOnly, "cron-only", false, cronOnlyHelp)
	return cmd
}

// operate starts, stops or restarts one profile: by systemd where a unit serves
// it, else by the control socket.
func (a *App) operate(ctx context.Context, host service.Host, p home.Profile, system bool, verb string) error {
	u, err := host.Find(ctx, p, system)
	if domain.IsCode(err, domain.Timeout) {
		fmt.Fprintf(a.Out, "! %s, so whether a unit serves %s is not known\n", domain.MessageOf(err), p.Name)
	}
	holder, held := succession.Holder(p)
	byUnit := err == nil && (u.MainPID != 0 && u.MainPID == holder.PID || !held)
	switch {
	case byUnit, system && err == nil:
		return a.operateUnit(ctx, u, p, verb)
	case system:
		return err
	case verb == "stop":
		return a.stopByHand(ctx, p)
	case held && verb == "start":
		fmt.Fprintf(a.Out, "The gateway of %s already runs (PID %d).\n", p.Name, holder.PID)
		return nil
	case held:
		done, err := a.restartByControl(ctx, p, "")
		if err == nil {
			fmt.Fprintf(a.Out, "✓ Restarted the gateway of %s (PID %d, was %d).\n", p.Name, done.PID, done.OldPID)
		}
		return err
	default:
		return domain.E(domain.CodeOf(err), nil, "%s. In the foreground: `hermes%s gateway run`", domain.MessageOf(err), profileFlag(p))
	}
}

func (a *App) operateUnit(ctx context.Context, u service.Found, p home.Profile, verb string) error {
	op := a.operationOn(u, p)
	op.Preflight = func(ctx context.Context) error { return a.checkStartOf(ctx, op.Profile) }
	op.HandOver = func(ctx context.Context, program string) (bool, error) {
		if !a.answers(ctx, op.Profile) {
			a.say("  its control socket does not answer, so systemd stops and starts it")
			return false, nil
		}
		_, err := a.restartByControl(ctx, op.Profile, program)
		return err == nil, err
	}
	if verb == "stop" && (u.Active == "inactive" || u.Active == "failed") {
		fmt.Fprintf(a.Out, "The gateway of %s is not running (%s is %s).\n", p.Name, strings.TrimSuffix(u.Name, ".service"), u.Active)
		return nil
	}
	return a.perform(ctx, op, verb)
}

// operationOn is what acts on a unit of a profile.
func (a *App) operationOn(u service.Found, p home.Profile) service.Operation {
	return service.Operation{Found: u, Profile: service.ProfileOf(u.Unit, p), Getenv: a.getenv, Say: func(f string, args ...any) { a.say("  "+f, args...) }}
}

// perform starts, stops or restarts a unit and says how that went.
func (a *App) perform(ctx context.Context, op service.Operation, verb string) error {
	name := strings.TrimSuffix(op.Name, ".service")
	switch verb {
	case "stop":
		if _, err := op.Stop(ctx); err != nil {
			return err
		}
		fmt.Fprintf(a.Out, "✓ Stopped %s\n", name)
		return nil
	case "start":
		now, err := op.Start(ctx)
		if err == nil {
			fmt.Fprintf(a.Out, "✓ Started %s (PID %d)\n", name, now.MainPID)
		}
		return err
	default:
		now, err := op.Restart(ctx)
		if err == nil {
			fmt.Fprintf(a.Out, "✓ Restarted %s (PID %d)\n", name, now.MainPID)
		}
		return err
	}
}

// answers tells whether a profile's gateway answers on its control socket.
func (a *App) answers(ctx context.Context, p home.Profile) bool {
	_, err := a.dial(p).Status(ctx)
	return err == nil
}

// stopByHand stops a gateway that no unit runs.
func (a *App) stopByHand(ctx context.Context, p home.Profile) error {
	if err := a.dial(p).Stop(ctx, "hermes gateway stop"); err != nil {
		if domain.IsCode(err, domain.NotFound) {
			fmt.Fprintf(a.Out, "The gateway of %s is not running.\n", p.Name)
			return nil
		}
		return err
	}
	return a.waitStopped(ctx, p)
}

func newGatewayUninstallCommand(app *App) *cobra.Command {
	var system, cronOnly, all bool
	cmd := &cobra.Command{
		Use: "uninstall", Short: "Stop and remove this profile's service; data and hand-written units stay", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if all {
				return app.uninstallAll(cmd.Context(), system, cronOnly)
			}
			p, err := app.unitProfile(system)
			if err != nil {
				return err
			}
			kind := service.Gateway
			if cronOnly {
				kind = service.Cron
			}
			return app.uninstall(cmd.Context(), service.NewHost(service.Me(app.UserHome()), app.getenv), kind, p, system)
		},
	}
	cmd.Flags().BoolVar(&system, "system", false, "the unit of the system")
	cmd.Flags().BoolVar(&cronOnly, "cron-only", false, cronOnlyHelp)
	cmd.Flags().BoolVar(&all, "all", false, "every profile, with the schedulers that stand alone")
	return cmd
}

// uninstall stops and removes a profile's unit of a kind.
func (a *App) uninstall(ctx context.Context, host service.Host, kind service.Kind, p home.Profile, system bool) error {
	u, err := host.FindKind(ctx, kind, p, system)
	if err != nil {
		return err
	}
	return host.Uninstall(ctx, service.Operation{Found: u, Profile: p, Getenv: a.getenv, Say: a.say}, a.Now())
}

// serviceReport looks at a profile's unit.
func (a *App) serviceReport(ctx context.Context, p home.Profile, system bool) service.Report {
	account := service.Me(a.UserHome())
	host := service.NewHost(account, a.getenv)
	binary, err := ownPath()
	if err != nil {
		binary = "/usr/local/bin/hermes"
	}
	return host.Report(ctx, p, service.Spec{Kind: service.Gateway, Profile: p, Account: account, Binary: binary, Ready: service.Notify}, system, a.Now())
}

// printService prints what systemd says of a profile's gateway.
func (a *App) printService(r service.Report) {
	field := func(name, format string, args ...any) {
		wrap(a.Out, fmt.Sprintf("  %-11s ", name), fmt.Sprintf(format, args...))
	}
	if r.Unit != nil {
		scope := "user"
		if r.System {
			scope = "system"
		}
		field("service", "%s (%s unit), %s (%s), %s", r.Name, scope, r.Active, r.Sub, r.Enabled)
		file := string(r.Origin)
		if r.Outdated {
			file += ", outdated"
		}
		field("unit file", "%s, %s", r.File, file)
		for _, s := range r.Settings {
			field("drop-in", "%s", s)
		}
		limit := "no start limit"
		if r.Left >= 0 {
			limit = fmt.Sprintf("at least %d of %d starts left within %s", r.Left, r.LimitBurst, r.LimitSpan)
		}
		field("restarts", "%d by systemd; %s", r.Restarts, limit)
		if !r.System {
			on := "off"
			if r.Lingers {
				on = "on: it survives logout and starts at boot"
			}
			field("lingering", "%s", on)
		}
	}
	if s := r.Scheduler; s != nil {
		field("scheduler", "%s, %s (%s), %s", s.Name, s.Active, s.Sub, s.Enabled)
	}
	for _, s := range r.Advice {
		wrap(a.Out, "  ! ", s)
	}
}
