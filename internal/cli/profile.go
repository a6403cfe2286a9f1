package cli

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"hermes/internal/domain"
	"hermes/internal/home"
)

func newProfileCommand(app *App) *cobra.Command {
	return group("profile", "Keep several agents apart: each profile has its own home",
		newProfileListCommand(app), newProfileCreateCommand(app), newProfileUseCommand(app), newProfileShowCommand(app),
		newProfileDeleteCommand(app), newProfileAliasCommand(app), newProfileRenameCommand(app),
		newProfileExportCommand(app), newProfileImportCommand(app))
}

// profileInfo is what list and show tell of a profile.
type profileInfo struct {
	Name      string   `json:"name"`
	Path      string   `json:"path"`
	Active    bool     `json:"active"`
	Model     string   `json:"model,omitempty"`
	Provider  string   `json:"provider,omitempty"`
	Gateway   string   `json:"gateway"` // running or stopped
	PID       int      `json:"pid,omitempty"`
	Port      int      `json:"port,omitempty"` // of the API server, when it is on
	Platforms []string `json:"platforms,omitempty"`
	Skills    int      `json:"skills"`
	HasEnv    bool     `json:"has_env"`
	HasSoul   bool     `json:"has_soul"`
	Alias     string   `json:"alias,omitempty"`
	Problem   string   `json:"problem,omitempty"` // why its configuration cannot be read
}

func (a *App) binDir() string { return filepath.Join(a.UserHome(), ".local", "bin") }

func (a *App) describe(p home.Profile) profileInfo {
	info := profileInfo{Name: p.Name, Path: p.Home, Active: p.Name == home.Active(p.Root), Gateway: "stopped", Alias: home.AliasOf(p, a.binDir())}
	if pid, runs := home.Running(p); runs {
		info.Gateway, info.PID = "running", pid
	}
	info.HasEnv, info.HasSoul = exists(p.EnvFile()), exists(p.Path("SOUL.md"))
	_ = filepath.WalkDir(p.Path("skills"), func(_ string, d fs.DirEntry, err error) error {
		if err == nil && d.Name() == "SKILL.md" {
			info.Skills++
		}
		return nil
	})
	// Another profile is read without this process's variables: they are the
	// settings of the one that it was started for.
	env, _, err := home.LoadEnv(p, []string{"HOME=" + a.UserHome()})
	if err != nil {
		info.Problem = domain.MessageOf(err)
		return info
	}
	cfg, _, err := home.Load(p, env)
	if err != nil {
		info.Problem = domain.MessageOf(err)
		return info
	}
	info.Model, info.Provider = cfg.Model.Model, cfg.Model.Provider
	if cfg.API.Enabled {
		info.Port = cfg.API.Port
	}
	for name, platform := range cfg.Platforms {
		if platform.Enabled {
			info.Platforms = append(info.Platforms, string(name))
		}
	}
	slices.Sort(info.Platforms)
	return info
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

func newProfileListCommand(app *App) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use: "list", Aliases: []string{"ls"}, Short: "List every profile", Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			profiles, err := home.List(app.Root())
			if err != nil {
				return err
			}
			infos := make([]profileInfo, 0, len(profiles))
			for _, p := range profiles {
				infos = append(infos, app.describe(p))
			}
			if asJSON {
				return app.JSON(infos)
			}
			w := tabwriter.NewWriter(app.Out, 0, 4, 2, ' ', 0)
			fmt.Fprintln(w, "  PROFILE\tMODEL\tGATEWAY\tPORT\tPLATFORMS\tALIAS")
			for _, i := range infos {
				mark, port := " ", "-"
				if i.Active {
					mark = "◆"
				}
				if i.Port != 0 {
					port = fmt.Sprint(i.Port)
				}
				model := dash(i.Model)
				if i.Problem != "" {
					model = "config.yaml unreadable"
				}
				fmt.Fprintf(w, "%s %s\t%s\t%s\t%s\t%s\t%s\n", mark, i.Name, model, i.Gateway, port, dash(strings.Join(i.Platforms, ",")), dash(i.Alias))
			}
			return w.Flush()
		},
	}
	jsonFlag(cmd, &asJSON)
	return cmd
}

func dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

func newProfileCreateCommand(app *App) *cobra.Command {
	var o home.CreateOptions
	var clone, noAlias, noSkills bool
	var from string
	cmd := &cobra.Command{
		Use: "create NAME", Short: "Make a profile", Args: cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			o.Name = args[0]
			if clone || o.All || from != "" {
				if from == "" {
					from = home.Active(app.Root())
				}
				source, err := home.Existing(app.Root(), from)
				if err != nil {
					return err
				}
				o.From = &source
			}
			made, err := home.Create(app.Root(), o)
			if err != nil {
				return err
			}
			p := made.Profile
			fmt.Fprintf(app.Out, "Created profile %s in %s\n", p.Name, p.Home)
			if len(made.Left) > 0 {
				fmt.Fprintf(app.Out, "Not copied, because two profiles cannot share a bot: %s (--clone-channels copies them)\n", strings.Join(made.Left, ", "))
			}
			if len(made.Logins) > 0 {
				fmt.Fprintf(app.Out, "Not copied, because a login renews itself and two profiles would log each other out: %s (`hermes -p %s auth add PROVIDER --type oauth` logs in)\n", strings.Join(made.Logins, ", "), p.Name)
			}
			if !noAlias {
				// A taken name costs the alias, not the profile.
				if file, err := app.alias(p, p.Name); err != nil {
					fmt.Fprintf(app.Err, "hermes: no alias: %s\n", domain.MessageOf(err))
				} else {
					fmt.Fprintf(app.Out, "Alias %s\n", file)
				}
			}
			fmt.Fprintf(app.Out, "Next: hermes -p %s setup\n", p.Name)
			return nil
		},
	}
	f := cmd.Flags()
	f.BoolVar(&clone, "clone", false, "copy config.yaml, .env, SOUL.md, skills and memories of the active profile")
	f.BoolVar(&o.All, "clone-all", false, "copy everything but runtime state and the ledger")
	f.StringVar(&from, "clone-from", "", "copy from `PROFILE` in place of the active one")
	f.BoolVar(&o.Channels, "clone-channels", false, "copy the credentials of chat platforms too")
	f.StringVar(&o.Description, "description", "", "what the profile is for")
	f.BoolVar(&noAlias, "no-alias", false, "write no alias script")
	f.BoolVar(&noSkills, "no-skills", false, "accepted and without effect: no skills are bundled")
	return cmd
}

// alias writes an alias script, unless another program has that name already.
func (a *App) alias(p home.Profile, name string) (string, error) {
	if found, err := exec.LookPath(name); err == nil && filepath.Dir(found) != a.binDir() {
		return "", domain.E(domain.Conflict, nil, "%s is a command already (%s); choose another by `hermes profile alias %s --name NAME`", name, found, p.Name)
	}
	program := "hermes"
	if _, err := exec.LookPath(program); err != nil {
		if self, err := os.Executable(); err == nil {
			program = self
		}
	}
	return home.Alias(p, a.binDir(), name, program)
}

func newProfileUseCommand(app *App) *cobra.Command {
	return &cobra.Command{
		Use: "use NAME", Short: "Choose the profile that is meant when none is named", Args: cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			p, err := home.Use(app.Root(), args[0])
			if err != nil {
				return err
			}
			fmt.Fprintf(app.Out, "Active profile: %s\n", p.Name)
			if v, set := app.Lookup("HERMES_HOME"); set && v != "" {
				fmt.Fprintf(app.Err, "hermes: HERMES_HOME is set to %s here and goes before the active profile\n", v)
			}
			return nil
		},
	}
}

// named gives the profile of the first argument, or the one in force.
func (a *App) named(args []string) (home.Profile, error) {
	if len(args) == 0 {
		return a.Profile()
	}
	return home.Existing(a.Root(), args[0])
}

func newProfileShowCommand(app *App) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use: "show [NAME]", Aliases: []string{"info"}, Short: "Show a profile", Args: cobra.MaximumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			p, err := app.named(args)
			if err != nil {
				return err
			}
			i := app.describe(p)
			if asJSON {
				return app.JSON(i)
			}
			model, gateway := "not set", i.Gateway
			if i.Model != "" {
				model = fmt.Sprintf("%s (%s)", i.Model, i.Provider)
			}
			if i.PID != 0 {
				gateway += fmt.Sprintf(" (PID %d)", i.PID)
			}
			for _, row := range [][2]string{
				{"Profile", i.Name}, {"Path", i.Path}, {"Model", model}, {"Gateway", gateway}, {"Platforms", dash(strings.Join(i.Platforms, ", "))},
				{"Skills", fmt.Sprint(i.Skills)}, {".env", present(i.HasEnv)}, {"SOUL.md", present(i.HasSoul)}, {"Alias", dash(i.Alias)},
			} {
				fmt.Fprintf(app.Out, "%-10s %s\n", row[0]+":", row[1])
			}
			if i.Problem != "" {
				fmt.Fprintf(app.Out, "%-10s %s\n", "Problem:", i.Problem)
			}
			return nil
		},
	}
	jsonFlag(cmd, &asJSON)
	return cmd
}

func present(yes bool) string {
	if yes {
		return "exists"
	}
	return "missing"
}

func newProfileDeleteCommand(app *App) *cobra.Command {
	var yes bool
	cmd := &cobra.Command{
		Use: "delete NAME", Short: "Delete a profile and everything in it", Args: cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			p, err := home.Existing(app.Root(), args[0])
			if err != nil {
				return err
			}
			if !yes && p.Name != home.DefaultProfile {
				fmt.Fprintf(app.Out, "This deletes %s for good. Type the profile's name to go on: ", p.Home)
				typed, err := bufio.NewReader(app.In).ReadString('\n')
				if strings.TrimSpace(typed) != p.Name {
					fmt.Fprintln(app.Out)
					return domain.E(domain.Cancelled, nil, "nothing was deleted, since the name was not typed; -y goes on without asking")
				}
				if err != nil {
					fmt.Fprintln(app.Out)
				}
			}
			alias := home.AliasOf(p, app.binDir())
			if err := home.Delete(p); err != nil {
				return err
			}
			if alias != "" {
				if err := home.RemoveAlias(app.binDir(), p.Name); err != nil {
					return err
				}
			}
			fmt.Fprintf(app.Out, "Deleted profile %s\n", p.Name)
			return nil
		},
	}
	cmd.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	return cmd
}

func newProfileAliasCommand(app *App) *cobra.Command {
	var remove bool
	var name string
	cmd := &cobra.Command{
		Use: "alias NAME", Short: "Write a script that stands for `hermes -p NAME`", Args: cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			if name == "" {
				name = args[0]
			}
			if remove {
				if err := home.RemoveAlias(app.binDir(), name); err != nil {
					return err
				}
				fmt.Fprintf(app.Out, "Removed %s\n", filepath.Join(app.binDir(), name))
				return nil
			}
			p, err := home.Existing(app.Root(), args[0])
			if err != nil {
				return err
			}
			file, err := app.alias(p, name)
			if err != nil {
				return err
			}
			fmt.Fprintf(app.Out, "Alias %s\n", file)
			return nil
		},
	}
	cmd.Flags().BoolVar(&remove, "remove", false, "remove it")
	cmd.Flags().StringVar(&name, "name", "", "name of the script, if not the profile's")
	return cmd
}

func newProfileRenameCommand(app *App) *cobra.Command {
	return &cobra.Command{
		Use: "rename OLD NEW", Short: "Give a profile another name", Args: cobra.ExactArgs(2),
		RunE: func(_ *cobra.Command, args []string) error {
			old, err := home.Existing(app.Root(), args[0])
			if err != nil {
				return err
			}
			alias := home.AliasOf(old, app.binDir())
			p, err := home.Rename(old, args[1])
			if err != nil {
				return err
			}
			if alias != "" {
				if err := home.RemoveAlias(app.binDir(), old.Name); err != nil {
					return err
				}
				if _, err := app.alias(p, p.Name); err != nil {
					fmt.Fprintf(app.Err, "hermes: no alias: %s\n", domain.MessageOf(err))
				}
			}
			fmt.Fprintf(app.Out, "Renamed profile %s to %s\n", old.Name, p.Name)
			return nil
		},
	}
}

func newProfileExportCommand(app *App) *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use: "export NAME", Short: "Write a profile to a tar.gz, without its secrets", Args: cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) (err error) {
			p, err := home.Existing(app.Root(), args[0])
			if err != nil {
				return err
			}
			if output == "-" {
				return home.Export(p, app.Out)
			}
			if output == "" {
				output = p.Name + ".tar.gz"
			}
			f, err := os.OpenFile(output, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
			if err != nil {
				return domain.E(domain.Conflict, err, "%s cannot be made, so nothing was exported; choose another by -o", output)
			}
			if err = errors.Join(home.Export(p, f), f.Close()); err != nil {
				os.Remove(output)
				return err
			}
			fmt.Fprintf(app.Out, "Exported %s to %s (without .env, auth.json and webhook_subscriptions.json)\n", p.Name, output)
			return nil
		},
	}
	cmd.Flags().StringVarP(&output, "output", "o", "", "file to write; - for stdout")
	return cmd
}

func newProfileImportCommand(app *App) *cobra.Command {
	var name string
	cmd := &cobra.Command{
		Use: "import ARCHIVE", Short: "Make a profile out of an exported one", Args: cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			f, err := os.Open(args[0])
			if err != nil {
				return domain.E(domain.NotFound, err, "%s cannot be read, so nothing was imported", args[0])
			}
			defer f.Close()
			p, err := home.Import(app.Root(), name, f)
			if err != nil {
				return err
			}
			fmt.Fprintf(app.Out, "Imported profile %s into %s\nIts secrets are not part of an archive: hermes -p %s setup\n", p.Name, p.Home, p.Name)
			return nil
		},
	}
	cmd.Flags().StringVar(&name, "name", "", "name of the new profile, if not the archive's")
	return cmd
}
