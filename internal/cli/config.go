package cli

import (
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"hermes/internal/domain"
	"hermes/internal/home"
	"hermes/internal/secret"
)

func newConfigCommand(app *App) *cobra.Command {
	return group("config", "Read, check and change a profile's configuration",
		newConfigShowCommand(app), newConfigGetCommand(app), newConfigSetCommand(app), newConfigUnsetCommand(app),
		newConfigPathCommand(app, "path", "config.yaml", home.Profile.ConfigFile),
		newConfigPathCommand(app, "env-path", ".env", home.Profile.EnvFile),
		newConfigCheckCommand(app), newConfigEditCommand(app),
		newConfigHistoryCommand(app), newConfigDiffCommand(app), newConfigRollbackCommand(app))
}

func newConfigShowCommand(app *App) *cobra.Command {
	var asJSON, origin, all bool
	cmd := &cobra.Command{
		Use: "show", Short: "Show the settings in force", Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			env, err := app.Env()
			if err != nil {
				return err
			}
			p, err := app.Profile()
			if err != nil {
				return err
			}
			items, problems, err := home.Explain(p, env)
			if err != nil {
				return err
			}
			if !all && !origin {
				items = slices.DeleteFunc(items, func(i home.Item) bool { return !i.Set })
			}
			if asJSON {
				return app.JSON(map[string]any{"profile": p.Name, "path": p.Home, "settings": items, "problems": append(home.Problems{}, problems...)})
			}
			fmt.Fprintf(app.Out, "Profile %s in %s\n", p.Name, p.Home)
			w := tabwriter.NewWriter(app.Out, 0, 4, 2, ' ', 0)
			for _, i := range items {
				if origin {
					fmt.Fprintf(w, "%s\t%s\t%s\n", i.Key, dash(i.Value), i.Origin)
				} else {
					fmt.Fprintf(w, "%s\t%s\n", i.Key, dash(i.Value))
				}
			}
			if err := w.Flush(); err != nil {
				return err
			}
			if n := len(problems); n > 0 {
				fmt.Fprintf(app.Err, "hermes: %d things are worth a look; run `hermes config check`\n", n)
			}
			return nil
		},
	}
	jsonFlag(cmd, &asJSON)
	cmd.Flags().BoolVar(&origin, "origin", false, "show every setting and where it comes from")
	cmd.Flags().BoolVar(&all, "all", false, "show defaults too")
	return cmd
}

func newConfigGetCommand(app *App) *cobra.Command {
	var asJSON, reveal bool
	cmd := &cobra.Command{
		Use: "get KEY", Short: "Print one setting", Args: cobra.ExactArgs(1),
		Example: "  hermes config get model.default\n  export API_SERVER_KEY=$(hermes config get API_SERVER_KEY --reveal)",
		RunE: func(_ *cobra.Command, args []string) error {
			env, err := app.Env()
			if err != nil {
				return err
			}
			p, err := app.Profile()
			if err != nil {
				return err
			}
			v, err := home.Get(p, env, args[0])
			if err != nil {
				return err
			}
			if !reveal {
				v.Value = masked(v.Value, v.Secret)
			}
			if asJSON {
				return app.JSON(v.Value)
			}
			if text, ok := v.Value.(string); ok {
				fmt.Fprintln(app.Out, text)
				return nil
			}
			switch v.Value.(type) {
			case map[string]any, []any, nil:
				return app.JSON(v.Value)
			}
			fmt.Fprintln(app.Out, v.Value)
			return nil
		},
	}
	jsonFlag(cmd, &asJSON)
	cmd.Flags().BoolVar(&reveal, "reveal", false, "print a secret as it is")
	return cmd
}

// masked hides a secret, and the secrets within a mapping.
func masked(v any, isSecret bool) any {
	switch v := v.(type) {
	case map[string]any:
		out := make(map[string]any, len(v))
		for key, one := range v {
			out[key] = masked(one, home.IsSecretName(key))
		}
		return out
	case []any:
		out := make([]any, 0, len(v))
		for _, one := range v {
			out = append(out, masked(one, isSecret))
		}
		return out
	case nil:
		return nil
	}
	if isSecret {
		return secret.Mask
	}
	return v
}

func newConfigSetCommand(app *App) *cobra.Command {
	return &cobra.Command{
		Use: "set KEY VALUE", Short: "Change one setting; secrets go to .env", Args: cobra.ExactArgs(2),
		Example: "  hermes config set model.default openai/gpt-5\n  hermes config set TELEGRAM_BOT_TOKEN 123456:ABC\n  hermes config set command_allowlist '[\"git push\"]'",
		RunE: func(_ *cobra.Command, args []string) error {
			env, err := app.Env()
			if err != nil {
				return err
			}
			p, err := app.Profile()
			if err != nil {
				return err
			}
			change, err := home.Set(p, env, args[0], args[1], home.By{Command: "config set", Version: Version()})
			if err != nil {
				return err
			}
			return app.changed(change, "Set")
		},
	}
}

func newConfigUnsetCommand(app *App) *cobra.Command {
	return &cobra.Command{
		Use: "unset KEY", Short: "Remove one setting", Args: cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			env, err := app.Env()
			if err != nil {
				return err
			}
			p, err := app.Profile()
			if err != nil {
				return err
			}
			change, err := home.Unset(p, env, args[0], home.By{Command: "config unset", Version: Version()})
			if err != nil {
				return err
			}
			return app.changed(change, "Removed")
		},
	}
}

func (a *App) changed(c home.Change, what string) error {
	if !c.Changed {
		fmt.Fprintf(a.Out, "Nothing to change: %s in %s\n", c.Key, c.File)
		return nil
	}
	fmt.Fprintf(a.Out, "%s %s in %s\n", what, c.Key, c.File)
	for _, p := range c.Problems {
		fmt.Fprintf(a.Err, "hermes: %s\n", p)
	}
	return nil
}

func newConfigPathCommand(app *App, use, file string, path func(home.Profile) string) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use: use, Short: "Print the path of " + file, Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			p, err := app.Profile()
			if err != nil {
				return err
			}
			if asJSON {
				return app.JSON(map[string]any{"path": path(p), "exists": exists(path(p))})
			}
			fmt.Fprintln(app.Out, path(p))
			return nil
		},
	}
	jsonFlag(cmd, &asJSON)
	return cmd
}

func newConfigCheckCommand(app *App) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use: "check", Short: "List everything that is wrong, with file, line and remedy; exit 1 if something is unusable", Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			_, problems, err := app.Config()
			if err != nil {
				return err
			}
			faults := len(problems.Faults())
			if asJSON {
				if err := app.JSON(map[string]any{"ok": faults == 0, "problems": append(home.Problems{}, problems...)}); err != nil {
					return err
				}
			} else {
				for _, p := range problems {
					fmt.Fprintf(app.Out, "%-7s %s\n", p.Severity, p)
				}
				if len(problems) == 0 {
					fmt.Fprintln(app.Out, "Nothing is wrong.")
				}
			}
			if faults > 0 {
				return &ExitError{Code: exitFailed}
			}
			return nil
		},
	}
	jsonFlag(cmd, &asJSON)
	return cmd
}

func newConfigEditCommand(app *App) *cobra.Command {
	return &cobra.Command{
		Use: "edit", Short: "Open config.yaml in $VISUAL or $EDITOR, and check it afterwards", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			p, err := app.Profile()
			if err != nil {
				return err
			}
			if err := os.MkdirAll(p.Home, 0o700); err != nil {
				return domain.E(domain.Unavailable, err, "the folder %s cannot be made", p.Home)
			}
			by := home.By{Command: "config edit", Version: Version()}
			if err := home.OpenHistory(p).Note(by); err != nil {
				return err
			}
			editor := "vi"
			for _, name := range []string{"EDITOR", "VISUAL"} {
				if v, _ := app.Lookup(name); v != "" {
					editor = v
				}
			}
			words := strings.Fields(editor) // "code --wait"
			run := exec.CommandContext(cmd.Context(), words[0], append(words[1:], p.ConfigFile())...)
			run.Stdin, run.Stdout, run.Stderr, run.Env = app.In, app.Out, app.Err, app.Environ
			if err := run.Run(); err != nil {
				return domain.E(domain.Unavailable, err, "the editor %q failed; set EDITOR, or open %s yourself", editor, p.ConfigFile())
			}
			if err := home.OpenHistory(p).Note(by); err != nil {
				return err
			}
			_, problems, err := app.Config()
			if err != nil {
				return err
			}
			for _, problem := range problems {
				fmt.Fprintf(app.Err, "hermes: %s\n", problem)
			}
			return nil
		},
	}
}
