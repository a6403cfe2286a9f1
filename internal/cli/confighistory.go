package cli

import (
	"context"
	"fmt"
	"strconv"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"hermes/internal/domain"
	"hermes/internal/home"
	"hermes/internal/service"
	"hermes/internal/succession"
)

func newConfigHistoryCommand(app *App) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use: "history", Short: "List the configurations that this profile had, and which of them served", Args: cobra.NoArgs,
		Long: "List the configurations that this profile had, .env and config.yaml together: what each change\nby hermes found and made, and what served healthily. `diff` compares them, `rollback` goes back.",
		RunE: func(*cobra.Command, []string) error { return app.configHistory(asJSON) },
	}
	jsonFlag(cmd, &asJSON)
	return cmd
}

// past is an entry of the history as it is shown.
type past struct {
	home.Entry
	OnDisk bool   `json:"on_disk"`
	Path   string `json:"path"`
}

// pasts lists the history, and tells which entry the files hold now, 0 for none.
func (a *App) pasts() (h home.History, all []past, now home.Files, current int, err error) {
	p, err := a.Profile()
	if err != nil {
		return h, nil, now, 0, err
	}
	h = home.OpenHistory(p)
	entries, err := h.List()
	if err != nil {
		return h, nil, now, 0, err
	}
	if now, err = home.ReadFiles(p); err != nil {
		return h, nil, now, 0, err
	}
	for _, e := range entries {
		if e.Fingerprint == now.Fingerprint() {
			current = e.N // the last of those that hold the same
		}
	}
	for _, e := range entries {
		all = append(all, past{Entry: e, OnDisk: e.N == current, Path: h.Dir(e.N)})
	}
	return h, all, now, current, nil
}

func (a *App) configHistory(asJSON bool) error {
	_, all, _, current, err := a.pasts()
	if err != nil {
		return err
	}
	if asJSON {
		return a.JSON(map[string]any{"profile": a.profile.Name, "on_disk": current, "entries": append([]past{}, all...)})
	}
	if len(all) == 0 {
		fmt.Fprintln(a.Out, "There is no history yet: it begins with the first change by hermes, or the first healthy start.")
		return nil
	}
	w := tabwriter.NewWriter(a.Out, 0, 4, 2, ' ', 0)
	fmt.Fprintln(w, " \tN\tSINCE\tHEALTHY\tWHY")
	for _, e := range all {
		mark, healthy := "", "-"
		if e.OnDisk {
			mark = "*"
		}
		if e.Healthy() {
			healthy = e.HealthyAt.Local().Format("2006-01-02 15:04")
		}
		fmt.Fprintf(w, "%s\t%d\t%s\t%s\t%s\n", mark, e.N, e.At.Local().Format("2006-01-02 15:04"), healthy, e.Why)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	if current == 0 {
		fmt.Fprintln(a.Out, "What is on disk was changed by hand since; `hermes"+profileFlag(*a.profile)+" config diff` shows how.")
	}
	return nil
}

func newConfigDiffCommand(app *App) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use: "diff [N] [M]", Short: "Show how configurations of the history differ, without secrets", Args: cobra.MaximumNArgs(2),
		Long: "Show how configuration N differs from what is on disk, or from configuration M; without N, the\none that a rollback would go back to. Secrets are masked: of a changed one only the change is seen.",
		RunE: func(_ *cobra.Command, args []string) error { return app.configDiff(args, asJSON) },
	}
	jsonFlag(cmd, &asJSON)
	return cmd
}

func (a *App) configDiff(args []string, asJSON bool) error {
	h, all, now, _, err := a.pasts()
	if err != nil {
		return err
	}
	from, err := goal(h, all, now, args)
	if err != nil {
		return err
	}
	_, old, err := h.Get(from)
	if err != nil {
		return err
	}
	to, name := now, "on disk"
	if len(args) == 2 {
		m, err := number(args[1])
		if err != nil {
			return err
		}
		if _, to, err = h.Get(m); err != nil {
			return err
		}
		name = strconv.Itoa(m)
	}
	text := home.Diff(strconv.Itoa(from), name, old, to)
	if asJSON {
		return a.JSON(map[string]any{"from": strconv.Itoa(from), "to": name, "equal": text == "", "diff": text})
	}
	if text == "" {
		text = fmt.Sprintf("Configuration %d and what is %s are the same.\n", from, name)
	}
	fmt.Fprint(a.Out, text)
	return nil
}

func number(text string) (int, error) {
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 {
		return 0, domain.E(domain.Invalid, nil, "%q is no number of a configuration; `hermes config history` lists them", text)
	}
	return n, nil
}

// goal is the entry that args name, else the one to go back to: what served
// healthily last, where that is not on disk, else the latest that is not.
func goal(h home.History, all []past, now home.Files, args []string) (int, error) {
	if len(args) > 0 {
		return number(args[0])
	}
	if e, f, ok := h.LastHealthy(); ok && f.Fingerprint() != now.Fingerprint() {
		return e.N, nil
	}
	for i := len(all) - 1; i >= 0; i-- {
		if all[i].Fingerprint != now.Fingerprint() {
			return all[i].N, nil
		}
	}
	return 0, domain.E(domain.NotFound, nil, "the history holds no configuration other than the one on disk, so there is nothing to go back to")
}

func newConfigRollbackCommand(app *App) *cobra.Command {
	var only bool
	cmd := &cobra.Command{
		Use: "rollback [N]", Short: "Go back to a configuration of the history, and serve it", Args: cobra.MaximumNArgs(1),
		Long: "Put .env and config.yaml back as they were in configuration N of the history, then restart the\ngateway, clearing a failure of its unit first. Without N: what served healthily last, else what\nthe last change found. What is on disk now is kept in the history. Safe to run twice.",
		RunE: func(cmd *cobra.Command, args []string) error { return app.configRollback(cmd.Context(), args, only) },
	}
	cmd.Flags().BoolVar(&only, "files-only", false, "do not restart the gateway")
	return cmd
}

func (a *App) configRollback(ctx context.Context, args []string, only bool) error {
	h, all, now, current, err := a.pasts()
	if err != nil {
		return err
	}
	p := *a.profile
	n, err := goal(h, all, now, args)
	if domain.IsCode(err, domain.NotFound) && current > 0 {
		n, err = current, nil // done before
	}
	if err != nil {
		return err
	}
	entry, files, err := h.Get(n)
	if err != nil {
		return err
	}
	if _, _, _, err := home.LoadFiles(p, files, a.Environ); err != nil {
		return domain.E(domain.Config, err, "configuration %d cannot be served either, so nothing was changed (it is kept in %s)", n, h.Dir(n))
	}
	done, err := h.Restore(n, home.By{Command: "config rollback", Version: Version()})
	if err != nil {
		return err
	}
	if done.Changed {
		fmt.Fprintf(a.Out, "✓ .env and config.yaml are as in configuration %d (%s); what they held is configuration %d.\n", n, entry.Why, done.Before)
	} else {
		fmt.Fprintf(a.Out, "✓ .env and config.yaml are as in configuration %d (%s) already.\n", n, entry.Why)
	}
	if only {
		return nil
	}
	a.env = nil // it was read before
	return a.serveRestored(ctx, p, done.Changed)
}

// serveRestored restarts what serves the profile, where that is not served by
// what is on disk already.
func (a *App) serveRestored(ctx context.Context, p home.Profile, changed bool) error {
	host := service.NewHost(service.Me(a.UserHome()), a.getenv)
	u, findErr := host.Find(ctx, p, false)
	_, held := succession.Holder(p)
	if !changed && held {
		if s, err := a.dial(p).Status(ctx); err == nil && s.State == "running" && s.Safe == nil {
			fmt.Fprintf(a.Out, "✓ The gateway serves it (PID %d).\n", s.PID)
			return nil
		}
	}
	served := findErr == nil && (u.Active != "inactive" || u.Enabled != "disabled") // by a unit
	if !held && !served {
		fmt.Fprintf(a.Out, "The gateway does not run; `hermes%s gateway start` starts it.\n", profileFlag(p))
		return nil
	}
	return a.operate(ctx, host, p, false, "restart")
}
