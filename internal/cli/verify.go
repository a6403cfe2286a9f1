package cli

import (
	"context"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"hermes/internal/control"
	"hermes/internal/cron"
	"hermes/internal/domain"
	"hermes/internal/home"
	"hermes/internal/ledger/sqlite"
	"hermes/internal/verify"
)

func newGatewayVerifyCommand(app *App) *cobra.Command {
	var asJSON, noSend bool
	cmd := &cobra.Command{
		Use: "verify", Short: "Prove the whole way: model, message, API, schedule, logout, reboot", Args: cobra.NoArgs,
		Long: "Prove the installation of this profile, by doing each thing once for real: call the model\n(a few tokens), send a message to every home channel and wait for its receipt, ask the API\non its own address with its own key, and look at the scheduler and the service. A line\nbegins with ✓ where it holds, with ✗ and the reason where it does not, with – where nothing\nof the kind is set up. Exits 0 when there is no ✗.",
		RunE: func(cmd *cobra.Command, _ []string) error { return app.verify(cmd.Context(), asJSON, noSend) },
	}
	jsonFlag(cmd, &asJSON)
	cmd.Flags().BoolVar(&noSend, "no-send", false, "send no message")
	return cmd
}

// verify makes every check. What failed makes the exit code 1.
func (a *App) verify(ctx context.Context, asJSON, noSend bool) error {
	cfg, _, err := a.Config()
	if err != nil {
		return err
	}
	client, p, err := a.controlClient()
	if err != nil {
		return err
	}
	to := homeChannels(cfg)
	o := verify.Options{
		Profile: profileFlag(p), Chats: hasChats(cfg), Key: cfg.API.Key, Unit: a.serviceReport(ctx, p, false), Now: a.Now,
		Status: func(ctx context.Context) (control.Status, error) {
			s, err := client.Status(ctx)
			if domain.IsCode(err, domain.NotFound) {
				err = domain.E(domain.NotFound, nil, "it does not run, so nothing else can be proved; `hermes%[1]s gateway start`, or `hermes%[1]s gateway run`", profileFlag(p))
			}
			return s, err
		},
		Model: func(ctx context.Context) (string, error) {
			if err := a.realModel(cfg); err != nil {
				return "", err
			}
			if !cfg.Model.IsSet() {
				return "", domain.E(domain.Unavailable, nil, "none is set; `hermes%s model` sets one", profileFlag(p))
			}
			return a.callModel(ctx, cfg.Model)
		},
		Cron: func(ctx context.Context) (st cron.Status, err error) {
			err = a.withCron(ctx, func(r *cronRoom) error {
				st, err = r.Status(ctx)
				return err
			})
			return st, err
		},
	}
	if !noSend {
		o.Deliver = func(ctx context.Context) (out []verify.Receipt, err error) {
			if len(to) == 0 {
				return nil, nil
			}
			return a.proveDelivery(ctx, cfg, to)
		}
	}
	checks := []verify.Check{}
	good := verify.Run(ctx, o, func(c verify.Check) {
		checks = append(checks, c)
		if !asJSON {
			a.printCheck(c)
		}
	})
	if asJSON {
		if err := a.JSON(struct {
			Profile string         `json:"profile"`
			OK      bool           `json:"ok"`
			Checks  []verify.Check `json:"checks"`
		}{p.Name, good, checks}); err != nil {
			return err
		}
	}
	if !good {
		return &ExitError{Code: exitFailed}
	}
	return nil
}

// printCheck prints one line, folded at the width.
func (a *App) printCheck(c verify.Check) {
	mark := map[verify.State]string{verify.Proved: "✓", verify.Failed: "✗", verify.Unwanted: "–"}[c.State]
	wrap(a.Out, fmt.Sprintf("%s %-10s ", mark, c.Name), c.Evidence)
}

// receiptLimit leaves the check the time to tell what became of the message.
const receiptLimit = 30 * time.Second

// proveDelivery sends a message to home channels by the running gateway.
func (a *App) proveDelivery(ctx context.Context, cfg *home.Config, to []domain.Address) ([]verify.Receipt, error) {
	host, err := os.Hostname()
	if err != nil {
		host = "this machine"
	}
	text := fmt.Sprintf("✅ `hermes gateway verify` on %s: messages of profile %s arrive here. Nothing needs to be done.", host, a.profile.Name)
	ctx, cancel := context.WithTimeout(ctx, receiptLimit)
	defer cancel()
	var sent []domain.Delivery
	err = a.withLedger(ctx, func(s *sqlite.Store) (bool, error) {
		sent, err = a.sendBy(ctx, s, cfg, to, text)
		return false, err
	})
	if err != nil {
		return nil, err
	}
	var out []verify.Receipt
	for _, d := range sent {
		r := verify.Receipt{To: d.To.String(), Sent: d.State == domain.DeliverySent, ID: d.Receipt, Error: strings.TrimSuffix(d.Reason, ".")}
		if !r.Sent && r.Error == "" {
			r.Error = "no receipt came within " + receiptLimit.String()
		}
		out = append(out, r)
	}
	return out, nil
}

// hasChats tells whether a chat platform is set up that a command can send to.
func hasChats(cfg *home.Config) bool {
	for p, c := range cfg.Platforms {
		if c.Enabled && p != domain.PlatformWebchat && p != domain.PlatformAPI {
			return true
		}
	}
	return false
}
