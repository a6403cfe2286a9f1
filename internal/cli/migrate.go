package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"hermes/internal/cron"
	"hermes/internal/domain"
	"hermes/internal/home"
	"hermes/internal/ledger/sqlite"
	"hermes/internal/migrate"
	"hermes/internal/plain"
	"hermes/internal/service"
)

// moveEvery is how often a long move tells how far it is.
const moveEvery = 2 * time.Second

// migrateFlags are what a move is asked for.
type migrateFlags struct {
	from                   string
	dry, all, asJSON, undo bool
}

func newMigrateCommand(app *App) *cobra.Command {
	var f migrateFlags
	cmd := &cobra.Command{
		Use: "migrate", Short: "Take over what the Python system kept: people, jobs, sessions, files", Args: cobra.NoArgs,
		Long: "Take over what the Python system kept in a home: who may talk, jobs, sessions and their\n" +
			"messages; and, from another folder, its files. The old files are only read. It can be\n" +
			"run again at any time, after a crash too: nothing comes twice.",
		Example: "  hermes migrate --dry-run            what would be taken from this home\n" +
			"  hermes migrate --from /srv/old --all\n" +
			"  hermes migrate --undo",
		RunE: func(cmd *cobra.Command, _ []string) error { return app.migrate(cmd.Context(), f) },
	}
	cmd.Flags().BoolVar(&f.dry, "dry-run", false, "only say what would be taken; change nothing")
	cmd.Flags().StringVar(&f.from, "from", "", "the old home `FOLDER`, when it is not this one")
	cmd.Flags().BoolVar(&f.all, "all", false, "every profile of it")
	cmd.Flags().BoolVar(&f.undo, "undo", false, "take away what was brought and not used since")
	jsonFlag(cmd, &f.asJSON)
	cmd.MarkFlagsMutuallyExclusive("undo", "dry-run")
	cmd.MarkFlagsMutuallyExclusive("undo", "from")
	return cmd
}

// migration is what the move of one profile came to.
type migration struct {
	migrate.Report
	Units []unitAdvice `json:"units"`
	Error string       `json:"error,omitempty"`
}

// unitAdvice tells of a unit that install did not write.
type unitAdvice struct {
	Path   string `json:"path"`
	Runs   string `json:"runs"`
	Origin string `json:"origin"`
	Advice string `json:"advice"`
	Diff   string `json:"diff,omitempty"`
}

// movePair is a pair of an old profile and the one that it becomes.
type movePair struct{ from, to home.Profile }

func (a *App) migrate(ctx context.Context, f migrateFlags) error {
	pairs, err := a.movePairs(f)
	if err != nil {
		return err
	}
	out := []migration{}
	var failed []error
	for _, p := range pairs {
		one, err := a.migrateOne(ctx, p, f)
		if err != nil {
			if len(pairs) == 1 && !f.asJSON {
				return err
			}
			one.Error = domain.MessageOf(err)
			failed = append(failed, err)
		}
		out = append(out, one)
		if ctx.Err() != nil {
			break
		}
	}
	if f.asJSON {
		if err := a.JSON(out); err != nil {
			return err
		}
	} else {
		for _, one := range out {
			a.printMigration(one, f)
		}
	}
	lost := 0
	for _, one := range out {
		lost += one.Failures()
	}
	switch {
	case len(failed) > 0:
		return &ExitError{Code: exitFailed, Err: errors.Join(failed...)}
	case lost > 0:
		return &ExitError{Code: exitFailed, Err: domain.E(domain.Invalid, nil, "%d thing(s) could not be taken; they are listed above as failed, and the rest is complete", lost)}
	}
	return nil
}

// movePairs says which profiles are moved, and where to.
func (a *App) movePairs(f migrateFlags) ([]movePair, error) {
	to := a.Root()
	if f.from == "" {
		if !f.all {
			p, err := a.Profile()
			return []movePair{{p, p}}, err
		}
		return pairAll(to, to)
	}
	abs, err := filepath.Abs(f.from)
	if err != nil {
		return nil, domain.E(domain.Invalid, err, "--from %s is no folder", f.from)
	}
	request := home.Request{UserHome: a.UserHome(), Env: func(name string) (string, bool) {
		if name == "HERMES_HOME" {
			return abs, true
		}
		return "", false
	}}
	from, name, _ := home.Locate(request)
	if f.all {
		return pairAll(from, to)
	}
	target := name
	if a.profileSet {
		// -p names the new profile; the old one is called so too, or is the one
		// that --from names.
		target = a.profileName
		if same, err := home.Named(from, target); err == nil && from == abs {
			if st, err := os.Stat(same.Home); err == nil && st.IsDir() {
				name = target
			}
		}
	}
	old, err := home.Named(from, name)
	if err != nil {
		return nil, err
	}
	own, err := home.Named(to, target)
	return []movePair{{old, own}}, err
}

func pairAll(from, to string) (out []movePair, err error) {
	list, err := home.List(from)
	for _, p := range list {
		own, nerr := home.Named(to, p.Name)
		out, err = append(out, movePair{p, own}), errors.Join(err, nerr)
	}
	return out, err
}

// migrateOne moves one profile in, or takes it out again.
func (a *App) migrateOne(ctx context.Context, p movePair, f migrateFlags) (out migration, err error) {
	out.Units = []unitAdvice{}
	out.Profile, out.From, out.To = p.to.Name, p.from.Home, p.to.Home
	if st, err := os.Stat(p.from.Home); err != nil || !st.IsDir() {
		return out, domain.E(domain.NotFound, nil, "there is no folder %s to move in from; name one with --from", p.from.Home)
	}
	if f.undo {
		if _, err := migrate.ReadReport(p.to); err != nil {
			return out, err // before a ledger is made
		}
	}
	path, settings := p.to.LedgerFile(), p.to
	if f.dry {
		if _, err := os.Stat(p.to.ConfigFile()); err != nil {
			settings = p.from
		}
		if _, err := os.Stat(path); err != nil { // nothing is made in the home
			dir, err := os.MkdirTemp("", "hermes-migrate-")
			if err != nil {
				return out, domain.E(domain.Unavailable, err, "no folder for a moment can be made")
			}
			defer os.RemoveAll(dir)
			path = filepath.Join(dir, "ledger.db")
		}
	} else if err := os.MkdirAll(p.to.Home, 0o700); err != nil {
		return out, domain.E(domain.Unavailable, err, "the folder %s cannot be made", p.to.Home)
	}
	s, err := sqlite.Open(ctx, sqlite.Options{Path: path, Kind: "cli", Now: a.Now})
	if err != nil {
		return out, err
	}
	defer func() {
		if cerr := s.Close(); err == nil {
			err = cerr
		}
	}()
	o := migrate.Options{From: p.from, To: p.to, Ledger: s, DryRun: f.dry, Getenv: a.getenv, Now: a.Now, Jobs: a.importer(ctx, p.to, settings, s), Progress: a.moveProgress(f)}
	if f.undo {
		out.Report, err = migrate.Undo(ctx, o)
	} else {
		out.Report, err = migrate.Run(ctx, o)
		out.Units = a.oldUnits(p.to)
	}
	if !f.dry {
		if told := cron.Poke(p.to.Home); told != nil {
			fmt.Fprintln(a.Err, "hermes: "+domain.MessageOf(told))
		}
	}
	return out, err
}

// importer makes what imports jobs, with the settings that the profile has then.
func (a *App) importer(ctx context.Context, p, settings home.Profile, s *sqlite.Store) func(cron.Store) (*cron.Service, error) {
	return func(store cron.Store) (*cron.Service, error) {
		env, _, err := home.LoadEnv(settings, a.Environ)
		if err != nil {
			return nil, err
		}
		cfg, _, err := home.Load(settings, env)
		if err != nil {
			return nil, err
		}
		return cron.NewService(cron.ServiceOptions{Store: store, Home: p.Home, RootDir: p.Root, Zone: func() *time.Location { return cfg.Timezone },
			Targets: &cron.Targets{Homes: a.newPlaces(ctx, settings, cfg, s)}}), nil
	}
}

// moveProgress tells of long work where somebody may be watching.
func (a *App) moveProgress(f migrateFlags) func(int64) {
	told := a.Now()
	return func(n int64) {
		if now := a.Now(); !f.asJSON && now.Sub(told) >= moveEvery {
			told = now
			fmt.Fprintf(a.Err, "%d messages …\n", n)
		}
	}
}

// oldUnits finds the units of a profile that install did not write.
func (a *App) oldUnits(p home.Profile) []unitAdvice {
	out := []unitAdvice{}
	account := service.Me(a.UserHome())
	host := service.NewHost(account, a.getenv)
	binary, err := ownPath()
	if err != nil {
		return out
	}
	for _, system := range []bool{false, true} {
		spec := service.Spec{Kind: service.Gateway, Profile: p, System: system, Account: account, Binary: binary,
			Path: a.servicePath(account, binary, system), Ready: service.Notify}
		for _, name := range []string{spec.Name(), "hermes-gateway@.service"} {
			path := filepath.Join(host.Dir(system), name)
			text, err := plain.Read(path)
			if err != nil || service.OriginOf(string(text)) == service.Generated {
				continue
			}
			u := unitAdvice{Path: path, Runs: service.Value(service.Parse(string(text)), "Service", "ExecStart"), Origin: string(service.OriginOf(string(text)))}
			flag := profileFlag(p)
			if system {
				flag += " --system"
			}
			u.Advice = fmt.Sprintf("`hermes gateway install%s --force` replaces it and keeps a copy; --adopt keeps it and adds what it lacks", flag)
			if want, err := spec.Render(); err == nil && name == spec.Name() {
				u.Diff = strings.TrimRight(service.Diff(string(text), want), "\n")
			}
			out = append(out, u)
		}
	}
	return out
}

func (a *App) printMigration(m migration, f migrateFlags) {
	verb := map[bool]string{false: "Moved", true: "Would move"}[f.dry]
	switch {
	case f.undo:
		fmt.Fprintf(a.Out, "Took out of profile %s what was moved in from %s\n", m.Profile, m.From)
	case m.From == m.To:
		fmt.Fprintf(a.Out, "%s profile %s in, where it is: %s\n", verb, m.Profile, m.To)
	default:
		fmt.Fprintf(a.Out, "%s profile %s in from %s to %s\n", verb, m.Profile, m.From, m.To)
	}
	w := tabwriter.NewWriter(a.Out, 0, 4, 2, ' ', 0)
	for _, i := range m.Items {
		count := ""
		if i.Count > 0 {
			count = fmt.Sprint(i.Count)
		}
		fmt.Fprintf(w, "  %s\t%s\t%s\t%s\n", i.State, count, i.What, i.Why)
	}
	_ = w.Flush() // Out answers for itself
	if len(m.Items) == 0 && m.Error == "" {
		fmt.Fprintln(a.Out, "  nothing of the old system is there")
	}
	for _, u := range m.Units {
		fmt.Fprintf(a.Out, "\n! %s is %s and runs %s\n  %s\n", u.Path, u.Origin, u.Runs, u.Advice)
		for l := range strings.Lines(u.Diff) {
			fmt.Fprintf(a.Out, "    %s\n", strings.TrimRight(l, "\n"))
		}
	}
	switch {
	case m.Error != "":
		fmt.Fprintf(a.Out, "  ✗ %s\n", m.Error)
	case f.dry:
		fmt.Fprintf(a.Out, "Nothing was changed. Without --dry-run it is done.\n")
	case !f.undo:
		fmt.Fprintf(a.Out, "The old files are as they were. This report is kept in %s.\n", filepath.Join(m.To, migrate.RecordFile))
	}
}
