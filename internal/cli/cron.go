package cli

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"hermes/internal/cron"
	"hermes/internal/domain"
	"hermes/internal/home"
	"hermes/internal/ledger/sqlite"
)

func newCronCommand(app *App) *cobra.Command {
	return group("cron", "Create, watch and run scheduled jobs",
		newCronCreateCommand(app), newCronEditCommand(app), newCronListCommand(app), newCronShowCommand(app),
		newCronPauseCommand(app), newCronResumeCommand(app), newCronRunCommand(app), newCronRemoveCommand(app),
		newCronStatusCommand(app), newCronTickCommand(app), newCronRunsCommand(app), newCronNextCommand(app),
		newCronLintCommand(app), newCronExamplesCommand(app), newCronExportCommand(app), newCronImportCommand(app))
}

// cronRoom is what a cron command works with.
type cronRoom struct {
	*cron.Service
	app     *App
	profile home.Profile
	config  *home.Config
	store   *sqlite.Store
	zone    func() *time.Location
	targets *cron.Targets
	changed bool
}

// withCron opens the profile's ledger for a command. A configuration with
// problems is used as far as it goes: jobs must stay reachable.
func (a *App) withCron(ctx context.Context, f func(*cronRoom) error) error {
	profile, err := a.Profile()
	if err != nil {
		return err
	}
	config, _, err := a.Config()
	if err != nil {
		return err
	}
	return a.withLedger(ctx, func(store *sqlite.Store) (bool, error) {
		r := &cronRoom{app: a, profile: profile, config: config, store: store,
			zone:    func() *time.Location { return config.Timezone },
			targets: &cron.Targets{Homes: a.newPlaces(ctx, profile, config, store)}}
		r.Service = cron.NewService(cron.ServiceOptions{Store: store, Home: profile.Home, RootDir: profile.Root, Zone: r.zone, Targets: r.targets,
			Changed: func() { r.changed = true }})
		err := f(r)
		if r.changed {
			if told := cron.Poke(profile.Home); told != nil {
				fmt.Fprintln(a.Err, "hermes: done, but "+domain.MessageOf(told))
			}
		}
		return r.changed, err
	})
}

// warn says on Err when nothing would fire the jobs.
func (r *cronRoom) warn(ctx context.Context) {
	if w := r.NotRunning(ctx); w != "" {
		fmt.Fprintln(r.app.Err, w)
	}
}

// explained prints a job that was created or changed.
func (r *cronRoom) explained(ctx context.Context, asJSON bool, e cron.Explained) error {
	if asJSON {
		if err := r.app.JSON(e); err != nil {
			return err
		}
	} else {
		fmt.Fprint(r.app.Out, e.Text())
	}
	r.warn(ctx)
	return nil
}

func newCronCreateCommand(app *App) *cobra.Command {
	var f *cron.Flags
	var asJSON bool
	cmd := &cobra.Command{
		Use: "create SCHEDULE [PROMPT…]", Aliases: []string{"add"}, Short: "Create a job", Args: cobra.MinimumNArgs(1),
		Example: `  hermes cron create "every 10m" --no-agent --script disk-watchdog.sh --deliver telegram --name disk-watchdog
  hermes cron create "weekdays at 9am" "Summarise the night's mail" --timezone Asia/Seoul --deliver telegram`,
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := f.Change()
			if err != nil {
				return err
			}
			c.Schedule = &args[0]
			if len(args) > 1 {
				prompt := strings.Join(args[1:], " ")
				c.Prompt = &prompt
			}
			return app.withCron(cmd.Context(), func(r *cronRoom) error {
				e, err := r.Create(cmd.Context(), c)
				if err != nil {
					return err
				}
				return r.explained(cmd.Context(), asJSON, e)
			})
		},
	}
	f = cron.NewFlags(cmd.Flags(), false)
	jsonFlag(cmd, &asJSON)
	return cmd
}

func newCronEditCommand(app *App) *cobra.Command {
	var f *cron.Flags
	var asJSON bool
	cmd := &cobra.Command{
		Use: "edit JOB", Short: "Change a job; what is not named stays as it is", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := f.Change()
			if err != nil {
				return err
			}
			return app.withCron(cmd.Context(), func(r *cronRoom) error {
				e, err := r.Edit(cmd.Context(), args[0], c)
				if err != nil {
					return err
				}
				return r.explained(cmd.Context(), asJSON, e)
			})
		},
	}
	f = cron.NewFlags(cmd.Flags(), true)
	jsonFlag(cmd, &asJSON)
	return cmd
}

func newCronListCommand(app *App) *cobra.Command {
	var all, asJSON bool
	var limit, offset int
	cmd := &cobra.Command{
		Use: "list", Aliases: []string{"ls"}, Short: "List the jobs that fire", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return app.withCron(cmd.Context(), func(r *cronRoom) error {
				page := cron.Page{All: all, Limit: limit, Offset: offset}
				if asJSON && !cmd.Flags().Changed("limit") {
					page.Limit = 0 // a program takes all
				}
				views, total, err := r.List(cmd.Context(), page)
				if err != nil {
					return err
				}
				if asJSON {
					return app.JSON(map[string]any{"jobs": views, "total": total})
				}
				for _, v := range views {
					fmt.Fprintln(app.Out, v.Text())
				}
				if shown := offset + len(views); shown < total && len(views) > 0 {
					fmt.Fprintf(app.Out, "%d to %d of %d jobs; the next ones: --offset %d\n", offset+1, shown, total, shown)
				}
				if total == 0 {
					fmt.Fprintln(app.Out, "No jobs that fire. `hermes cron list --all` shows paused and completed ones, `hermes cron examples` how to make one.")
				}
				r.warn(cmd.Context())
				return nil
			})
		},
	}
	cmd.Flags().BoolVar(&all, "all", false, "paused and completed ones too")
	cmd.Flags().IntVar(&limit, "limit", 100, "how many at most; 0 means all (--json: all, unless it is given)")
	cmd.Flags().IntVar(&offset, "offset", 0, "how many to leave out at the beginning")
	jsonFlag(cmd, &asJSON)
	return cmd
}

func newCronShowCommand(app *App) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use: "show JOB", Short: "Show one job", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return app.withCron(cmd.Context(), func(r *cronRoom) error {
				v, err := r.Show(cmd.Context(), args[0])
				if err != nil {
					return err
				}
				if asJSON {
					return app.JSON(v)
				}
				fmt.Fprint(app.Out, v.Text())
				if v.Prompt != "" {
					fmt.Fprintf(app.Out, "  Prompt:\n    %s\n", strings.ReplaceAll(v.Prompt, "\n", "\n    "))
				}
				return nil
			})
		},
	}
	jsonFlag(cmd, &asJSON)
	return cmd
}

func newCronPauseCommand(app *App) *cobra.Command {
	var reason string
	cmd := &cobra.Command{
		Use: "pause JOB", Short: "Stop a job from firing until it is resumed", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return app.withCron(cmd.Context(), func(r *cronRoom) error {
				v, err := r.Pause(cmd.Context(), args[0], reason)
				if err == nil {
					fmt.Fprintf(app.Out, "Job '%s' (%s) is paused. `hermes cron resume %s` lets it fire again.\n", v.Name, v.ID, v.ID)
				}
				return err
			})
		},
	}
	cmd.Flags().StringVar(&reason, "reason", "", "why")
	return cmd
}

func newCronResumeCommand(app *App) *cobra.Command {
	var at string
	var now, asJSON bool
	cmd := &cobra.Command{
		Use: "resume JOB", Short: "Let a paused or completed job fire again", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return app.withCron(cmd.Context(), func(r *cronRoom) error {
				if now {
					if _, _, err := r.Run(cmd.Context(), args[0]); err != nil {
						return err
					}
				}
				e, err := r.Resume(cmd.Context(), args[0], at)
				if now && domain.IsCode(err, domain.Conflict) {
					fmt.Fprintln(app.Out, "The job's time has passed; it runs once now.")
					return nil
				}
				if err != nil {
					return err
				}
				return r.explained(cmd.Context(), asJSON, e)
			})
		},
	}
	cmd.Flags().StringVar(&at, "at", "", "new time of a job that comes once, e.g. 2026-02-03T14:00")
	cmd.Flags().BoolVar(&now, "run-now", false, "and run it once now")
	jsonFlag(cmd, &asJSON)
	return cmd
}

func newCronRemoveCommand(app *App) *cobra.Command {
	return &cobra.Command{
		Use: "remove JOB", Aliases: []string{"rm", "delete"}, Short: "Remove a job; its outputs stay", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return app.withCron(cmd.Context(), func(r *cronRoom) error {
				job, err := r.Remove(cmd.Context(), args[0])
				if err == nil {
					fmt.Fprintf(app.Out, "Job '%s' (%s) is removed.\n", job.Name, job.ID)
				}
				return err
			})
		},
	}
}

func newCronExamplesCommand(app *App) *cobra.Command {
	return &cobra.Command{
		Use: "examples [NAME]", Short: "Show how jobs are written; with a name, write a ready watchdog into scripts/", Args: cobra.MaximumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			if len(args) == 1 {
				return app.writeWatchdog(args[0])
			}
			schedules, err := cron.ExampleSchedules(app.Now(), time.Local)
			if err != nil {
				return err
			}
			fmt.Fprint(app.Out, "Schedules, and what they mean now:\n"+schedules+`
Jobs:
  hermes cron create "every 10m" --no-agent --script disk-watchdog.sh --deliver telegram --name disk-watchdog
      runs scripts/disk-watchdog.sh; what it prints is sent, nothing printed is silence, a failure is an alert
  hermes cron create "weekdays at 9am" "Summarise the night's mail. If a source fails, say which." --deliver telegram --timezone Europe/Berlin
      asks the agent; an answer of [SILENT] is stored and not sent
  hermes cron create "0 18 * * 5" "Write the week's report" --archive '/home/me/reports/%Y-%m-%d.md' --deliver local
      keeps the answer in a file

Ready watchdogs, written into the profile's scripts folder by their names:
`)
			for _, w := range cron.Watchdogs() {
				fmt.Fprintf(app.Out, "  hermes cron examples %-10s %s\n", w.Name, w.About)
			}
			return nil
		},
	}
}

// writeWatchdog puts a ready script into the profile and says what to do next.
func (a *App) writeWatchdog(name string) error {
	w, err := cron.FindWatchdog(name)
	if err != nil {
		return err
	}
	p, err := a.Profile()
	if err != nil {
		return err
	}
	path, err := w.Write(p.ScriptsDir())
	if err != nil {
		return err
	}
	fmt.Fprintf(a.Out, "%s %s.\nSet in it: %s (near its top). Then make the job:\n  %s\n", path, w.About, strings.Join(w.Set, ", "), w.Job(profileFlag(p)))
	return nil
}
