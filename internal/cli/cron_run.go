package cli

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"hermes/internal/cron"
	"hermes/internal/domain"
	"hermes/internal/gateway"
	"hermes/internal/secret"
)

func newCronRunCommand(app *App) *cobra.Command {
	var noWait bool
	cmd := &cobra.Command{
		Use: "run [JOB]", Short: "Run a job now; with no job, be the scheduler in the foreground", Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				// It may run beside a gateway: the ledger lets each instant fire once.
				return app.serve(cmd.Context(), serveOptions{cronOnly: true})
			}
			return app.withCron(cmd.Context(), func(r *cronRoom) error { return r.runNow(cmd.Context(), args[0], noWait) })
		},
	}
	cmd.Flags().BoolVar(&noWait, "no-wait", false, "with a job: return at once when the running scheduler performs it")
	acceptHooks(cmd)
	return cmd
}

// acceptHooks takes a flag of the older system that has nothing to say here.
func acceptHooks(cmd *cobra.Command) {
	cmd.Flags().Bool("accept-hooks", false, "taken for the sake of old scripts")
	_ = cmd.Flags().MarkHidden("accept-hooks") // fails only for a flag that does not exist
}

// runNow asks for a run and tells how it went. When no scheduler runs, this
// process performs it.
func (r *cronRoom) runNow(ctx context.Context, ref string, noWait bool) error {
	job, run, err := r.Run(ctx, ref)
	if err != nil {
		return err
	}
	if warning := r.NotRunning(ctx); warning == "" {
		if noWait {
			fmt.Fprintf(r.app.Out, "Job '%s' (%s) is started by the running scheduler. `hermes cron runs %s` shows how it went.\n", job.Name, job.ID, job.ID)
			return nil
		}
		return r.watchRun(ctx, job, run.ID)
	}
	if _, err := r.tick(ctx, job.ID); err != nil {
		return err
	}
	done, err := r.findRun(ctx, job, run.ID)
	if err != nil {
		return err
	}
	return r.tellRun(job, done, " here, since no scheduler runs")
}

// findRun reads a run of a job anew.
func (r *cronRoom) findRun(ctx context.Context, job domain.Job, id int64) (cron.RunView, error) {
	runs, err := r.Runs(ctx, string(job.ID), 20)
	if err != nil {
		return cron.RunView{}, err
	}
	for _, run := range runs {
		if run.ID == id {
			return run, nil
		}
	}
	return cron.RunView{}, domain.E(domain.Internal, nil, "the run of job '%s' cannot be found any more", job.Name)
}

// The pace of watching a run that another process performs, and how long its
// message may take after it.
const (
	watchEvery = 100 * time.Millisecond
	sentLimit  = 20 * time.Second
)

// watchRun returns when a run that the scheduler performs has ended and its
// message has arrived, or will not for now.
func (r *cronRoom) watchRun(ctx context.Context, job domain.Job, id int64) error {
	r.poke(ctx)
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	var ended time.Time
	for {
		run, err := r.findRun(ctx, job, id)
		if err != nil {
			return err
		}
		if run.State.Ended() {
			if ended.IsZero() {
				ended = time.Now()
			}
			settled := run.Delivery != string(domain.DeliveryPending) && run.Delivery != string(domain.DeliverySending)
			if settled || time.Since(ended) > sentLimit {
				return r.tellRun(job, run, "")
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return domain.E(domain.Cancelled, nil, "job '%s' goes on in the scheduler; `hermes cron runs %s` shows how it went", job.Name, job.ID)
		}
	}
}

// poke tells the scheduler at once, which else hears of a change when the
// command ends. One that is not reached notices within a minute.
func (r *cronRoom) poke(ctx context.Context) {
	_ = cron.Poke(r.profile.Home)
	if c, _, err := r.app.controlClient(); err == nil {
		_ = c.Poke(ctx)
	}
}

// tellRun tells how a run went, and whether its message arrived; where says by
// whom it was performed.
func (r *cronRoom) tellRun(job domain.Job, run cron.RunView, where string) error {
	switch run.State {
	case domain.RunDue:
		return domain.E(domain.Unavailable, nil, "job '%s' is still due: another run of it is going; `hermes cron runs %s` shows how it went", job.Name, job.ID)
	case domain.RunOK, domain.RunSilent:
		fmt.Fprintf(r.app.Out, "Job '%s' ran%s: %s\n", job.Name, where, run.State)
		if run.Output != "" {
			fmt.Fprintln(r.app.Out, run.Output)
		}
		switch {
		case run.Delivery == string(domain.DeliverySent):
			fmt.Fprintln(r.app.Out, "Delivered.")
		case run.Delivery != "":
			fmt.Fprintf(r.app.Out, "Not delivered yet: %s. The message is kept, and sent as soon as the gateway runs.\n", cmp.Or(run.Reason, run.Delivery))
		case run.Error != "":
			fmt.Fprintln(r.app.Out, "Not delivered: "+run.Error)
		}
		return nil
	}
	return domain.E(domain.Unavailable, nil, "job '%s' %s: %s", job.Name, run.State, run.Error)
}

// tick runs what is due in this process, scripts and agent jobs, and sends what
// they say; with only, nothing but the asked-for runs of that job.
func (r *cronRoom) tick(ctx context.Context, only domain.JobID) (int, error) {
	env, err := r.app.Env()
	if err != nil {
		return 0, err
	}
	redactor := secret.NewRedactor(env.Secrets()...)
	log := slog.New(slog.NewTextHandler(r.app.Err, &slog.HandlerOptions{Level: slog.LevelError, ReplaceAttr: redactor.Attr}))
	r.changed = true
	return gateway.RunDue(ctx, gateway.Options{
		Profile: r.profile, Config: r.config, Env: env, Process: r.app.Environ, Version: Version(), Log: log, Redactor: redactor, Now: r.app.Now, NoBallast: true, OnlyJob: only,
	})
}

func newCronTickCommand(app *App) *cobra.Command {
	cmd := &cobra.Command{
		Use: "tick", Short: "Run what is due once and exit", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return app.withCron(cmd.Context(), func(r *cronRoom) error {
				if r.NotRunning(cmd.Context()) == "" {
					r.changed = true // a poke, no more
					fmt.Fprintln(app.Out, "A scheduler runs already and fires what is due; nothing was done here.")
					return nil
				}
				n, err := r.tick(cmd.Context(), "")
				if err != nil {
					return err
				}
				fmt.Fprintf(app.Out, "%d run(s) performed.\n", n)
				return nil
			})
		},
	}
	acceptHooks(cmd)
	return cmd
}

func newCronStatusCommand(app *App) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use: "status", Short: "Tell whether jobs fire, from evidence", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return app.withCron(cmd.Context(), func(r *cronRoom) error {
				st, err := r.Status(cmd.Context())
				if err != nil {
					return err
				}
				if asJSON {
					return app.JSON(st)
				}
				fmt.Fprint(app.Out, st.Text(app.Now()))
				return nil
			})
		},
	}
	jsonFlag(cmd, &asJSON)
	return cmd
}

func newCronRunsCommand(app *App) *cobra.Command {
	var limit int
	var asJSON bool
	cmd := &cobra.Command{
		Use: "runs [JOB]", Aliases: []string{"history"}, Short: "List runs, newest first", Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return app.withCron(cmd.Context(), func(r *cronRoom) error {
				runs, err := r.Runs(cmd.Context(), firstArg(args), limit)
				if err != nil {
					return err
				}
				if asJSON {
					return app.JSON(map[string]any{"runs": runs})
				}
				for _, run := range runs {
					fmt.Fprintf(app.Out, "%s  %s\n", run.Job, run.Text(r.zone()))
				}
				if len(runs) == 0 {
					fmt.Fprintln(app.Out, "No runs yet.")
				}
				return nil
			})
		},
	}
	cmd.Flags().IntVar(&limit, "limit", 20, "how many")
	jsonFlag(cmd, &asJSON)
	return cmd
}

func firstArg(args []string) string {
	if len(args) == 0 {
		return ""
	}
	return args[0]
}

func newCronNextCommand(app *App) *cobra.Command {
	var n int
	var asJSON bool
	cmd := &cobra.Command{
		Use: "next JOB|SCHEDULE", Short: "Show the next firings by both clocks", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return app.withCron(cmd.Context(), func(r *cronRoom) error {
				v, times, err := r.Next(cmd.Context(), args[0], n)
				words := v.ScheduleWords
				if domain.IsCode(err, domain.NotFound) {
					// No job of that name: perhaps a schedule to be tried out.
					switch w, ts, preview := r.Preview(args[0], "", n); {
					case preview == nil:
						words, times, err = w, ts, nil
					case strings.ContainsAny(args[0], " *@"): // no name, more likely
						err = preview
					}
				}
				if err != nil {
					return err
				}
				if asJSON {
					return app.JSON(map[string]any{"words": words, "next": times})
				}
				fmt.Fprintln(app.Out, words)
				for _, t := range times {
					fmt.Fprintf(app.Out, "  %s = %s UTC\n", t.Format("Mon 2006-01-02 15:04:05 MST"), t.UTC().Format(time.DateTime))
				}
				return nil
			})
		},
	}
	cmd.Flags().IntVarP(&n, "number", "n", 5, "how many")
	jsonFlag(cmd, &asJSON)
	return cmd
}

func newCronLintCommand(app *App) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use: "lint", Short: "Give advice about all jobs; changes nothing", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return app.withCron(cmd.Context(), func(r *cronRoom) error {
				found, err := r.Lint(cmd.Context())
				if err != nil {
					return err
				}
				if asJSON {
					return app.JSON(map[string]any{"findings": found})
				}
				for _, f := range found {
					fmt.Fprintf(app.Out, "%s %s\n", f.Job, f.Name)
					for _, a := range f.Advice {
						fmt.Fprintf(app.Out, "  - %s\n", a)
					}
				}
				if len(found) == 0 {
					fmt.Fprintln(app.Out, "Nothing to say about any job.")
				}
				return nil
			})
		},
	}
	jsonFlag(cmd, &asJSON)
	return cmd
}

func newCronExportCommand(app *App) *cobra.Command {
	return &cobra.Command{
		Use: "export", Short: "Print all jobs as jobs.json", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return app.withCron(cmd.Context(), func(r *cronRoom) error {
				b, err := r.Export(cmd.Context())
				if err == nil {
					_, err = app.Out.Write(b)
				}
				return err
			})
		},
	}
}

// importJobs imports a file, or with "-" what is piped in.
func importJobs(ctx context.Context, r *cronRoom, path string) ([]cron.Imported, error) {
	if path != "-" {
		return r.ImportFile(ctx, path)
	}
	text, err := io.ReadAll(io.LimitReader(r.app.In, cron.MaxJobsFile+1))
	switch {
	case err != nil:
		return nil, domain.E(domain.Unavailable, err, "standard input could not be read")
	case len(text) > cron.MaxJobsFile:
		return nil, domain.E(domain.TooLarge, nil, "standard input holds far more than any jobs.json")
	}
	return r.Import(ctx, text)
}

func newCronImportCommand(app *App) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use: "import [FILE|-]", Short: "Import a jobs.json; the file is left as it is", Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return app.withCron(cmd.Context(), func(r *cronRoom) error {
				path := firstArg(args)
				if path == "" {
					path = r.profile.Path("cron", "jobs.json")
				}
				report, err := importJobs(cmd.Context(), r, path)
				if err != nil {
					return err
				}
				if asJSON {
					return app.JSON(map[string]any{"file": path, "jobs": report})
				}
				for _, e := range report {
					fmt.Fprintf(app.Out, "%-8s %s %s\n", e.Outcome, e.ID, e.Name)
					for _, n := range e.Notes {
						fmt.Fprintf(app.Out, "         %s\n", n)
					}
				}
				fmt.Fprintf(app.Out, "%d job(s) read from %s, which is left as it is.\n", len(report), path)
				r.warn(cmd.Context())
				return nil
			})
		},
	}
	jsonFlag(cmd, &asJSON)
	return cmd
}
