package cli

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
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
		Long: "Prove the installation of this profile, by doing each thing once for real: call the model\n(a few tokens), send a message to every home channel and wait for its receipt, ask the API\non its own address with its own key, and look at the scheduler and the service. A line\nbegins with ✓ where it holds, with ✗ and the reason where it does not, with – where nothing\nof the kind is set up. Where the gateway serves the last healthy configuration in place of\nthe one on disk, that is proved, and the first line says so. Exits 0 when there is no ✗, and\n78 only where no configuration can be served.",
		RunE: func(cmd *cobra.Command, _ []string) error { return app.verify(cmd.Context(), asJSON, noSend) },
	}
	jsonFlag(cmd, &asJSON)
	cmd.Flags().BoolVar(&noSend, "no-send", false, "send no message")
	return cmd
}

// verify makes every check. What failed makes the exit code 1.
func (a *App) verify(ctx context.Context, asJSON, noSend bool) error {
	client, p, err := a.controlClient()
	if err != nil {
		return err
	}
	cfg, wrong, err := a.configForVerify(ctx, client)
	if err != nil {
		return err
	}
	to := homeChannels(cfg)
	o := verify.Options{
		Profile: profileFlag(p), Config: wrong, Chats: hasChats(cfg), Key: cfg.API.Key, Unit: a.serviceReport(ctx, p, false), Now: a.Now,
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

// configForVerify gives the configuration that is to be proved: the one on disk,
// or the one that is served in its place, and then what is wrong in a sentence.
// Errors: Config, when there is none that could be served.
func (a *App) configForVerify(ctx context.Context, client *control.Client) (cfg *home.Config, wrong string, err error) {
	cfg, _, err = a.Config()
	h := home.OpenHistory(*a.profile)
	ask, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	status, down := client.Status(ask)
	n, why := 0, ""
	if down == nil && status.Safe != nil && status.Safe.Config != "" {
		n, _ = strconv.Atoi(filepath.Base(status.Safe.Config))
		why = status.Safe.Broken
	} else if err == nil {
		return cfg, "", nil
	}
	if err != nil {
		why = domain.MessageOf(err)
	}
	if e, _, ok := h.LastHealthy(); ok && n == 0 {
		n = e.N
	}
	entry, files, gone := h.Get(n)
	if gone == nil {
		gone = a.standIn(files)
	}
	if gone != nil {
		return cfg, "", err
	}
	serves := "the gateway serves on the last healthy configuration since " + status.StartedAt.Local().Format("2006-01-02 15:04")
	if down != nil {
		serves = "the gateway does not run, and would start with the last healthy configuration"
	}
	return a.served, fmt.Sprintf("the one on disk is not served: %s; %s, number %d, which the lines below are about; mend it, or `hermes%s config rollback`", why, serves, entry.N, a.profileFlag()), nil
}

// standIn makes other files the configuration of this command. Errors: Config.
func (a *App) standIn(files home.Files) error {
	env, cfg, _, err := home.LoadFiles(*a.profile, files, a.Environ)
	if err == nil {
		a.env, a.served = env, cfg
	}
	return err
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
		if c.Enabled && p != domain.PlatformWebchat && p != domain.PlatformAPI && p != domain.PlatformWebhook {
			return true
		}
	}
	return false
}
