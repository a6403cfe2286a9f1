package cli

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"hermes/internal/backup"
	"hermes/internal/domain"
	"hermes/internal/home"
	"hermes/internal/lazyregexp"
)

var labelForm = lazyregexp.New(`^[A-Za-z0-9._-]{0,40}$`)

func newBackupCommand(app *App) *cobra.Command {
	var out, label string
	var keep int
	var all, noSecrets, quiet bool
	cmd := &cobra.Command{
		Use: "backup", Short: "Write the profile into one archive, also while it is served", Args: cobra.NoArgs,
		Long: "Write the profile into one zip archive: its files, and its ledger as it stands at one\n" +
			"instant, also while the gateway runs. The archive holds what people wrote and, unless\n" +
			"--no-secrets is given, all tokens; only its owner can read it. `hermes import` puts it back.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if !labelForm.MatchString(label) || keep < 1 {
				return domain.E(domain.Invalid, nil, "a --label has up to 40 letters, digits and . _ -, and --keep is over 0")
			}
			p, err := app.Profile()
			if err != nil {
				return err
			}
			profiles := []home.Profile{p}
			if all {
				if profiles, err = home.List(p.Root); err != nil {
					return err
				}
			}
			name := out
			if name == "" {
				name = filepath.Join(p.Root, backup.Folder, backupName(p, all, label, app))
			}
			m, err := backup.Create(cmd.Context(), name, backup.Options{Profiles: profiles, Program: Version(), NoSecrets: noSecrets, Now: app.Now()})
			if err != nil {
				return err
			}
			if out == "" {
				dropOldBackups(filepath.Dir(name), keep)
			}
			if !quiet {
				fmt.Fprintf(app.Out, "✓ %d file(s) of %d profile(s) are in %s\n", len(m.Files), len(m.Profiles), name)
				if m.Secrets {
					fmt.Fprintln(app.Out, "  It holds secrets: keep it where nobody else can read it, or use --no-secrets.")
				}
			}
			return nil
		},
	}
	cmd.Flags().StringVarP(&out, "out", "o", "", "write to `FILE`, in place of the folder backups of the root")
	cmd.Flags().StringVarP(&label, "label", "l", "", "add a word to the name")
	cmd.Flags().IntVarP(&keep, "keep", "k", 3, "how many archives stay in the folder backups")
	cmd.Flags().BoolVar(&all, "all", false, "every profile")
	cmd.Flags().BoolVar(&noSecrets, "no-secrets", false, "leave .env, auth.json and their history out")
	cmd.Flags().BoolVarP(&quiet, "quiet", "q", false, "print nothing")
	cmd.AddCommand(newBackupVerifyCommand(app))
	return cmd
}

func backupName(p home.Profile, all bool, label string, app *App) string {
	who := p.Name
	if all {
		who = "all"
	}
	if label != "" {
		label = "-" + label
	}
	return "hermes-" + who + "-" + app.Now().UTC().Format("20060102T150405Z") + label + ".zip"
}

var ownBackup = lazyregexp.New(`^hermes-.+-([0-9]{8}T[0-9]{6}Z)(-.*)?\.zip$`)

// dropOldBackups keeps the newest archives of a folder that we named.
func dropOldBackups(dir string, keep int) {
	entries, _ := os.ReadDir(dir)
	var found [][2]string // when it was made, its name
	for _, e := range entries {
		if m := ownBackup.FindStringSubmatch(e.Name()); m != nil {
			found = append(found, [2]string{m[1], e.Name()})
		}
	}
	slices.SortFunc(found, func(a, b [2]string) int { return strings.Compare(a[0], b[0]) })
	for i := range max(0, len(found)-keep) {
		_ = os.Remove(filepath.Join(dir, found[i][1])) // one that stays costs space only
	}
}

func newBackupVerifyCommand(app *App) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use: "verify FILE", Short: "Read an archive through and say what it holds", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			m, err := backup.Verify(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			if asJSON {
				return app.JSON(m)
			}
			fmt.Fprintf(app.Out, "✓ %s is whole: %d file(s) of %d profile(s), written %s by hermes %s, secrets: %v\n", args[0], len(m.Files), len(m.Profiles),
				m.At.Local().Format("2006-01-02 15:04"), m.Program, m.Secrets)
			return nil
		},
	}
	jsonFlag(cmd, &asJSON)
	return cmd
}

func newImportCommand(app *App) *cobra.Command {
	var dry, force, asJSON bool
	cmd := &cobra.Command{
		Use: "import FILE", Short: "Put an archive of `hermes backup` back", Args: cobra.ExactArgs(1),
		Long: "Put an archive of `hermes backup` back. It is read through first. What is there with\n" +
			"other content is only replaced with --force, and kept in the folder backups. Messages\n" +
			"that waited when the archive was made are not sent again by themselves.",
		RunE: func(cmd *cobra.Command, args []string) error {
			r, err := backup.Restore(cmd.Context(), args[0], backup.RestoreOptions{Root: app.Root(), Now: app.Now(), DryRun: dry, Force: force})
			if err != nil {
				return err
			}
			if asJSON {
				return app.JSON(r)
			}
			verb := "✓ Put"
			if dry {
				verb = "Would put"
			}
			fmt.Fprintf(app.Out, "%s %d file(s) into %s, replacing %d; %d are there already\n", verb, len(r.New)+len(r.Replaced), app.Root(), len(r.Replaced), r.Same)
			if r.Kept != "" {
				fmt.Fprintf(app.Out, "  What was there is kept in %s\n", r.Kept)
			}
			for _, name := range r.Manifest.Profiles {
				if w := r.Settled[name]; w.Deliveries+w.Turns+w.Events+w.Runs > 0 {
					fmt.Fprintf(app.Out, "  %s: %d message(s) out, %d turn(s), %d event(s) and %d run(s) waited when the archive was made and are not repeated; `hermes -p %s deliveries --dead` lists the messages\n",
						name, w.Deliveries, w.Turns, w.Events, w.Runs, name)
				}
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&dry, "dry-run", false, "only say what would happen")
	cmd.Flags().BoolVarP(&force, "force", "f", false, "replace what is there, and keep it beside")
	jsonFlag(cmd, &asJSON)
	return cmd
}
