package cli

import (
	"context"
	"fmt"
	"log/slog"
	"strconv"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"hermes/internal/access"
	"hermes/internal/delivery"
	"hermes/internal/domain"
	"hermes/internal/ledger"
	"hermes/internal/ledger/sqlite"
)

// withLedger opens the profile's ledger for a command, beside a running
// gateway or without one. What a command wrote, the gateway is told of.
func (a *App) withLedger(ctx context.Context, use func(*sqlite.Store) (changed bool, err error)) error {
	c, p, err := a.controlClient()
	if err != nil {
		return err
	}
	s, err := sqlite.Open(ctx, sqlite.Options{Path: p.LedgerFile(), Kind: "cli", Now: a.Now})
	if err != nil {
		return err
	}
	changed, err := use(s)
	if cerr := s.Close(); err == nil {
		err = cerr
	}
	if changed && err == nil {
		if err := c.Poke(ctx); err != nil {
			fmt.Fprintf(a.Err, "hermes: done, but the running gateway was not told; it notices within a minute: %s\n", domain.MessageOf(err))
		}
	}
	return err
}

func newPairingCommand(app *App) *cobra.Command {
	var asJSON bool
	list := &cobra.Command{
		Use: "list [PLATFORM]", Short: "Who may talk to the agent, and who asks to", Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			var platform domain.Platform
			if len(args) == 1 {
				platform = domain.Platform(args[0])
			}
			return app.withGate(cmd.Context(), func(g *access.Gate) (bool, error) {
				all, err := g.List(cmd.Context(), platform)
				if err != nil {
					return false, err
				}
				return false, app.printPairings(all, asJSON)
			})
		},
	}
	jsonFlag(list, &asJSON)
	approve := &cobra.Command{
		Use: "approve PLATFORM CODE", Short: "Let the stranger with this code in", Args: cobra.ExactArgs(2),
		Example: "  hermes pairing approve telegram K7M2QX9P",
		RunE: func(cmd *cobra.Command, args []string) error {
			return app.withGate(cmd.Context(), func(g *access.Gate) (bool, error) {
				p, err := g.Approve(cmd.Context(), domain.Platform(args[0]), args[1])
				if err != nil {
					return false, err
				}
				fmt.Fprintf(app.Out, "✓ %s (%s) may talk to the agent on %s now.\n", dash(p.UserName), p.UserID, p.Platform)
				return true, nil
			})
		},
	}
	revoke := &cobra.Command{
		Use: "revoke PLATFORM USER_ID", Short: "Take a user's right away", Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			return app.withGate(cmd.Context(), func(g *access.Gate) (bool, error) {
				if err := g.Revoke(cmd.Context(), domain.Platform(args[0]), args[1]); err != nil {
					return false, err
				}
				fmt.Fprintf(app.Out, "✓ %s may not talk to the agent on %s any more, unless an allowlist names them.\n", args[1], args[0])
				return true, nil
			})
		},
	}
	clearAll := &cobra.Command{
		Use: "clear-pending", Short: "Forget every code that waits", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return app.withGate(cmd.Context(), func(g *access.Gate) (bool, error) {
				n, err := g.ClearPending(cmd.Context())
				fmt.Fprintf(app.Out, "%d codes forgotten.\n", n)
				return n > 0, err
			})
		},
	}
	return group("pairing", "Let strangers in by a code, or out", list, approve, revoke, clearAll)
}

func (a *App) withGate(ctx context.Context, use func(*access.Gate) (bool, error)) error {
	p, err := a.Profile()
	if err != nil {
		return err
	}
	cfg, _, err := a.Config()
	if err != nil {
		return err
	}
	return a.withLedger(ctx, func(s *sqlite.Store) (bool, error) {
		return use(access.New(s, p, cfg, slog.New(slog.DiscardHandler), a.Now))
	})
}

func (a *App) printPairings(all []ledger.Pairing, asJSON bool) error {
	if asJSON {
		if all == nil {
			all = []ledger.Pairing{}
		}
		return a.JSON(all)
	}
	if len(all) == 0 {
		fmt.Fprintln(a.Out, "Nobody is paired, and nobody asks to be.")
		return nil
	}
	w := tabwriter.NewWriter(a.Out, 0, 4, 2, ' ', 0)
	fmt.Fprintln(w, "PLATFORM\tUSER\tNAME\tSTATE\tSINCE")
	for _, p := range all {
		state, at := "approved", p.ApprovedAt
		if at.IsZero() {
			state, at = "asks", p.RequestedAt
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", p.Platform, p.UserID, dash(cut(p.UserName, 20)), state, at.Local().Format("2006-01-02 15:04"))
	}
	return w.Flush()
}

func newDeliveriesCommand(app *App) *cobra.Command {
	var asJSON, dead, open bool
	var limit int
	cmd := &cobra.Command{
		Use: "deliveries", Short: "What was sent, what waits, and what could not be delivered", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			f := ledger.DeliveryFilter{Limit: limit}
			if dead {
				f.States = append(f.States, domain.DeliveryDead)
			}
			if open {
				f.States = append(f.States, domain.DeliveryPending, domain.DeliverySending, domain.DeliveryRetrying)
			}
			return app.withLedger(cmd.Context(), func(s *sqlite.Store) (bool, error) {
				list, err := s.Deliveries(cmd.Context(), f)
				if err != nil {
					return false, err
				}
				return false, app.printDeliveries(list, asJSON)
			})
		},
	}
	jsonFlag(cmd, &asJSON)
	cmd.Flags().BoolVar(&dead, "dead", false, "only those that were given up")
	cmd.Flags().BoolVar(&open, "open", false, "only those that are not sent yet")
	cmd.Flags().IntVarP(&limit, "limit", "n", 20, "how many, newest first")
	one := func(use, short string, act func(ctx context.Context, s *sqlite.Store, id int64) error) *cobra.Command {
		return &cobra.Command{Use: use + " ID", Short: short, Args: cobra.ExactArgs(1), RunE: func(cmd *cobra.Command, args []string) error {
			id, err := strconv.ParseInt(args[0], 10, 64)
			if err != nil {
				return domain.E(domain.Invalid, nil, "%q is no number of a delivery; `hermes deliveries` lists them", args[0])
			}
			return app.withLedger(cmd.Context(), func(s *sqlite.Store) (bool, error) {
				if err := act(cmd.Context(), s, id); err != nil {
					return false, err
				}
				fmt.Fprintf(app.Out, "✓ %s: %d\n", short, id)
				return true, nil
			})
		}}
	}
	cmd.AddCommand(
		one("retry", "Send it again now", func(ctx context.Context, s *sqlite.Store, id int64) error {
			if _, err := s.RetryDelivery(ctx, id, app.Now()); err != nil {
				return err
			}
			return delivery.ForgetSeen(ctx, s, id)
		}),
		one("drop", "Give it up", func(ctx context.Context, s *sqlite.Store, id int64) error {
			return s.DropDelivery(ctx, id, delivery.Dropped, app.Now())
		}),
		newDeliveriesAckCommand(app))
	return cmd
}

func newDeliveriesAckCommand(app *App) *cobra.Command {
	return &cobra.Command{
		Use: "ack", Short: "Say that you have seen what could not be delivered, so that status is healthy again", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return app.withLedger(cmd.Context(), func(s *sqlite.Store) (bool, error) {
				n, err := delivery.AcknowledgeDead(cmd.Context(), s)
				if err != nil {
					return false, err
				}
				fmt.Fprintf(app.Out, "%d message(s) acknowledged. They stay listed by `hermes deliveries --dead`.\n", n)
				return false, nil
			})
		},
	}
}

func (a *App) printDeliveries(list []domain.Delivery, asJSON bool) error {
	if asJSON {
		if list == nil {
			list = []domain.Delivery{}
		}
		return a.JSON(list)
	}
	if len(list) == 0 {
		fmt.Fprintln(a.Out, "There are none.")
		return nil
	}
	w := tabwriter.NewWriter(a.Out, 0, 4, 2, ' ', 0)
	fmt.Fprintln(w, "ID\tSTATE\tTRIES\tTO\tWHEN\tRECEIPT OR REASON")
	for _, d := range list {
		what := d.Receipt
		if d.State != domain.DeliverySent {
			what = d.Reason
		}
		at := d.CreatedAt
		if !d.SentAt.IsZero() {
			at = d.SentAt
		}
		fmt.Fprintf(w, "%d\t%s\t%d\t%s\t%s\t%s\n", d.ID, d.State, d.Attempt, cut(d.To.String(), 22), at.Local().Format(time.Stamp), cut(dash(what), 28))
	}
	return w.Flush()
}
