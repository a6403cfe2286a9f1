package cli

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"hermes/internal/cron"
	"hermes/internal/domain"
	"hermes/internal/gateway"
	"hermes/internal/home"
	"hermes/internal/lazyregexp"
	"hermes/internal/ledger/sqlite"
	"hermes/internal/rescue"
	"hermes/internal/secret"
	"hermes/internal/service"
)

// newGatewayRescueCommand is what hermes-rescue@.service runs: OnFailure= of the
// gateways' units starts it.
func newGatewayRescueCommand(app *App) *cobra.Command {
	return &cobra.Command{
		Use: "rescue UNIT", Short: "Tell the home channels that a unit is down, and start it on what was last good", Args: cobra.ExactArgs(1), Hidden: true,
		RunE: func(cmd *cobra.Command, args []string) error { return app.rescue(cmd.Context(), args[0]) },
	}
}

// rescueFile keeps a profile's incidents.
func rescueFile(p home.Profile) string { return p.Path("rescue.json") }

// rescue handles the end of a unit. Exit code 0: it serves again, or, for a unit
// of the system, is to be started again.
func (a *App) rescue(ctx context.Context, name string) error {
	unit, system, op, err := a.failedUnit(ctx, name)
	if err != nil {
		return err
	}
	if unit.Active != "failed" {
		fmt.Fprintf(a.Out, "%s is %s; there is nothing to rescue.\n", name, unit.Active)
		return alive(unit)
	}
	p, err := a.profileOfUnit(unit)
	if err != nil {
		return err
	}
	op.Profile = p
	cfg, words := a.configForRescue(p)
	run, _ := a.Lookup("MONITOR_INVOCATION_ID") // systemd.exec(5), since 251
	if run == "" {
		run = unit.Invocation
	}
	host, err := os.Hostname()
	if err != nil {
		host = ""
	}
	o := rescue.Options{
		Unit: unit.Name, Run: run, File: rescueFile(p), Now: a.Now, Host: host, Flag: profileFlag(p),
		Down: func(ctx context.Context) bool {
			now, err := op.Manager.Show(ctx, unit.Name)
			return err != nil || now.Active == "failed"
		},
		Tell: func(ctx context.Context, text string) ([]rescue.Told, error) {
			return a.tellHomes(ctx, cfg, text)
		},
	}
	why := a.why(ctx, unit, op.Manager, words)
	if o.Good, o.Start = a.lastGood(op, run, system), a.startAgain(op, system); o.Good != nil && o.Good.On == asItIs {
		why += ". It served, and was ended from outside"
	}
	o.Why = secret.NewRedactor(a.secrets(cfg)...).Redact(why)
	inc, handled, err := rescue.Run(ctx, o)
	if !handled && err == nil {
		fmt.Fprintf(a.Out, "This end of %s was handled already, or somebody has started it since.\n", name)
	} else {
		fmt.Fprintln(a.Out, inc.Text(host, profileFlag(p)))
	}
	if err != nil {
		return err
	}
	if !inc.Up() && !(inc.Tried != nil && inc.Tried.Asked && inc.Again.IsZero()) {
		return &ExitError{Code: exitFailed}
	}
	return nil
}

// alive is nil for a unit that lives or is coming up.
func alive(u service.Unit) error {
	if u.Active == "active" || u.Active == "reloading" || u.Active == "activating" {
		return nil
	}
	return &ExitError{Code: exitFailed}
}

// failedUnit asks the manager that this process belongs to.
func (a *App) failedUnit(ctx context.Context, name string) (u service.Unit, system bool, op service.Operation, err error) {
	_, system, ok := service.OwnUnit()
	m, err := service.Open(ok && system, a.getenv)
	if err != nil {
		return u, system, op, err
	}
	if u, err = m.Show(ctx, name); err != nil {
		return u, system, op, err
	}
	op = service.Operation{Found: service.Found{Unit: u, Manager: m}, Getenv: a.getenv, Say: a.say}
	return u, m.System, op, nil
}

// profileOfUnit makes the profile that a unit runs this command's own.
func (a *App) profileOfUnit(u service.Unit) (home.Profile, error) {
	if h := service.HomeOf(u); h != "" {
		a.Environ = append(a.Environ, "HERMES_HOME="+h)
	}
	a.profileName, a.profileSet, a.profile, a.env = service.ProfileNamed(u), true, nil, nil
	return a.Profile()
}

// configForRescue loads the configuration, and says what is wrong with it where
// it cannot be used. Then what served healthily last says whom to tell, or else
// what .env says alone.
func (a *App) configForRescue(p home.Profile) (cfg *home.Config, wrong string) {
	cfg, _, err := a.Config()
	if err == nil {
		return cfg, ""
	}
	wrong = domain.MessageOf(err)
	var tries []home.Files
	if _, files, ok := home.OpenHistory(p).LastHealthy(); ok {
		tries = append(tries, files)
	}
	if disk, err := home.ReadFiles(p); err == nil {
		tries = append(tries, home.Files{Env: disk.Env})
	}
	for _, files := range tries {
		if a.standIn(files) == nil {
			return a.served, wrong
		}
	}
	return nil, wrong
}

// secrets are what no message may hold.
func (a *App) secrets(cfg *home.Config) []string {
	var out []string
	if a.env != nil {
		out = a.env.Secrets()
	}
	if cfg != nil {
		out = append(out, cfg.Secrets()...)
	}
	return out
}

// recent is how old an exit record may be that belongs to this end.
const recent = 15 * time.Minute

// why says why the unit is down: what systemd knows, what the process left on
// record, and what it printed last.
func (a *App) why(ctx context.Context, u service.Unit, m *service.Manager, config string) string {
	text := service.Cause(u)
	if u.ExitStatus == service.ExitConfig && config != "" {
		return text + ": " + config
	}
	if _, err := os.Stat(u.Program); err != nil && u.Program != "" {
		return text + ": " + u.Program + " is missing"
	}
	if said := telling(m.Tail(ctx, u, 60)); said != "" {
		return text + ". It said: " + said
	}
	if r, ok := gateway.LastExit(a.profile.LogDir()); ok && r.Code > 0 {
		if at, err := time.Parse(time.RFC3339Nano, r.Time); err == nil && a.Now().Sub(at) < recent {
			return text + ". It said: " + cut(r.Reason, maxSaid)
		}
	}
	return text
}

// maxSaid bounds what is quoted of a process's last words, in runes.
const maxSaid = 300

// tellingLine is a line that names a reason by itself.
var tellingLine = lazyregexp.New(`^(panic:|fatal error:|hermes:)|Failed at step |level=ERROR`)

// telling picks from last lines the last that says why, "" where none does.
func telling(lines []string) string {
	for _, l := range slices.Backward(lines) {
		if l = strings.TrimSpace(l); tellingLine.MatchString(l) {
			return cut(l, maxSaid)
		}
	}
	return ""
}

// tellLimit is for one attempt to send; the outbox goes on trying within it.
const tellLimit = 8 * time.Minute

// tellHomes sends a text to every home channel and gives the receipts: by the
// outbox, or past it where the ledger cannot be opened. Errors: NotFound, when
// there is no home channel; Unavailable, when nobody took it.
func (a *App) tellHomes(ctx context.Context, cfg *home.Config, text string) ([]rescue.Told, error) {
	if cfg == nil {
		return nil, domain.E(domain.NotFound, nil, "the configuration cannot be read, so no home channel is known")
	}
	to := homeChannels(cfg)
	if len(to) == 0 {
		return nil, domain.E(domain.NotFound, nil, "no home channel is set, so nobody was told; write /sethome to the bot")
	}
	to = a.buildable(cfg, to)
	ctx, cancel := context.WithTimeout(ctx, tellLimit)
	defer cancel()
	var sent []domain.Delivery
	err := a.withLedger(ctx, func(s *sqlite.Store) (bool, error) {
		var err error
		sent, err = a.sendBy(ctx, s, cfg, to, text)
		return false, err
	})
	if err != nil && len(sent) == 0 { // no ledger to be had, or none that takes anything
		return a.tellDirectly(ctx, cfg, to, text)
	}
	var told []rescue.Told
	reached := false
	for _, d := range sent {
		one := rescue.Told{At: a.Now(), To: d.To.String(), Receipt: d.Receipt}
		if d.State != domain.DeliverySent {
			one.Error = string(d.State) + ": " + d.Reason
		}
		reached = reached || d.State == domain.DeliverySent
		told = append(told, one)
	}
	if err == nil && !reached {
		// The message waits in the outbox: trying again would say it twice.
		err = domain.E(domain.Conflict, nil, "no platform has taken the message yet; it waits in the outbox")
	}
	return told, err
}

// buildable leaves out the addresses whose platform is not set up well enough to
// send by, so that one of them does not silence the others; all, where none is.
func (a *App) buildable(cfg *home.Config, to []domain.Address) []domain.Address {
	var out []domain.Address
	for _, addr := range to {
		if a.directSender(cfg).Connect(addr) == nil {
			out = append(out, addr)
		}
	}
	if len(out) == 0 {
		return to
	}
	return out
}

// directSender sends without a ledger.
func (a *App) directSender(cfg *home.Config) *gateway.Sender {
	return gateway.NewSender(gateway.SenderOptions{Profile: *a.profile, Config: cfg, Env: a.env, Log: slog.New(slog.DiscardHandler), Now: a.Now})
}

// tellDirectly sends by the adapters alone.
func (a *App) tellDirectly(ctx context.Context, cfg *home.Config, to []domain.Address, text string) ([]rescue.Told, error) {
	s := a.directSender(cfg)
	if err := s.Connect(to...); err != nil {
		return nil, err
	}
	var told []rescue.Told
	var failed []error
	for _, addr := range to {
		receipt, err := s.Direct(ctx, addr, text)
		if err != nil {
			failed = append(failed, err)
			continue
		}
		told = append(told, rescue.Told{At: a.Now(), To: addr.String(), Receipt: receipt})
	}
	if len(told) == 0 {
		return nil, domain.E(domain.Unavailable, errors.Join(failed...), "no platform took the message: %s", domain.MessageOf(failed[0]))
	}
	return told, nil
}

// homeChannels are the home channels that a command can send to by itself.
func homeChannels(cfg *home.Config) []domain.Address {
	homes := cron.ConfigHomes{Config: func() *home.Config { return cfg }}
	var out []domain.Address
	for _, p := range homes.Platforms() {
		if addr, ok := homes.Home(p); ok && p != domain.PlatformWebchat {
			out = append(out, addr)
		}
	}
	return out
}
