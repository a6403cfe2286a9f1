package cli

import (
	"fmt"
	"strconv"

	"github.com/spf13/cobra"

	"hermes/internal/domain"
	"hermes/internal/model/login"
)

// newAuthLogoutCommand is `auth logout`, and `logout` for who is used to it.
func newAuthLogoutCommand(app *App, use string) *cobra.Command {
	return &cobra.Command{
		Use: use + " PROVIDER", Short: "Forget the logins of a provider; its API keys stay", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			stores, err := app.stores()
			if err != nil {
				return err
			}
			all, err := stores[0].List(args[0])
			if err != nil {
				return err
			}
			n := 0
			for _, c := range all {
				if c.Type != login.OAuth {
					continue
				}
				if err := stores[0].Remove(cmd.Context(), c); err != nil && !domain.IsCode(err, domain.NotFound) {
					return err
				}
				n++
			}
			if n == 0 {
				fmt.Fprintf(app.Out, "There is no login of %s in %s.\n", args[0], stores[0].Path())
			} else {
				fmt.Fprintf(app.Out, "✓ Forgot %d login(s) of %s. The provider itself still knows them: revoke them there.\n", n, args[0])
			}
			if len(stores) > 1 {
				if shared, err := stores[1].List(args[0]); err == nil && len(shared) > 0 {
					wrap(app.Out, "! ", "The default profile has one of "+args[0]+" still, which every profile uses; `hermes -p default auth logout "+args[0]+"` forgets that")
				}
			}
			return nil
		},
	}
}

func newAuthPriorityCommand(app *App) *cobra.Command {
	return &cobra.Command{
		Use: "priority PROVIDER NUMBER|ID|LABEL PRIORITY", Short: "Say how early a key or a login is used; the smallest goes first", Args: cobra.ExactArgs(3),
		RunE: func(cmd *cobra.Command, args []string) error {
			priority, err := strconv.Atoi(args[2])
			if err != nil || priority < 0 || priority > 1000 {
				return domain.E(domain.Invalid, nil, "%q is no priority; write a number from 0 to 1000, of which the smallest goes first", args[2])
			}
			stores, err := app.stores()
			if err != nil {
				return err
			}
			c, err := stores[0].Match(args[0], args[1])
			if err != nil {
				return err
			}
			if err := stores[0].Prioritize(cmd.Context(), c, priority); err != nil {
				return err
			}
			fmt.Fprintf(app.Out, "✓ %s (%s) of %s has priority %d now.\n", c.ID, c.Label, c.Provider, priority)
			return nil
		},
	}
}

// newLoginCommand and newLogoutCommand are older names of `auth add --type
// oauth` and `auth logout`; the help names only those.
func newLoginCommand(app *App) *cobra.Command {
	cmd := newAuthAddCommand(app)
	cmd.Use, cmd.Hidden = "login PROVIDER", true
	cmd.Short = "Log in to a provider of models; the same as `auth add --type oauth`"
	return defaultFlag(cmd, "type", "oauth")
}

func newLogoutCommand(app *App) *cobra.Command {
	cmd := newAuthLogoutCommand(app, "logout")
	cmd.Hidden = true
	return cmd
}

// defaultFlag gives a flag another default.
func defaultFlag(cmd *cobra.Command, name, value string) *cobra.Command {
	f := cmd.Flags().Lookup(name)
	_ = f.Value.Set(value) // a string takes every text
	f.DefValue = value
	return cmd
}
