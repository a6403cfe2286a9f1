package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"hermes/internal/cron"
	"hermes/internal/delivery"
	"hermes/internal/delivery/markup"
	"hermes/internal/domain"
	"hermes/internal/gateway"
	"hermes/internal/home"
	"hermes/internal/ledger"
	"hermes/internal/ledger/sqlite"
)

// maxSend is how much text one command sends, in bytes.
const maxSend = 1 << 20

// sendFlags are the flags of `hermes send`.
type sendFlags struct {
	to, file, subject   string
	list, quiet, asJSON bool
	timeout             time.Duration
}

func newSendCommand(app *App) *cobra.Command {
	var f sendFlags
	cmd := &cobra.Command{
		Use: "send -t TARGET [TEXT]", Short: "Send a message to a chat, and wait for its receipt", Args: cobra.MaximumNArgs(1),
		Long: "Sends a message and waits for its receipt: by the running gateway, or by itself when none\nruns. With no TEXT it is read from standard input. A line MEDIA:/absolute/path attaches a file.\n\n" +
			"Targets: telegram (its home channel), telegram:CHAT, telegram:CHAT:TOPIC, discord:#channel,\ndiscord:Server/#channel, #channel, all, or several with commas between. Exit code: 0 sent, 1 not delivered, 2 wrong usage.",
		Example: "  hermes send -t telegram 'The backup is done.'\n  df -h | hermes send -t telegram:-1001234 -s 'Disks'\n  hermes send --list",
		RunE: func(cmd *cobra.Command, args []string) error {
			if f.list {
				return app.listTargets(cmd.Context(), args, f.asJSON)
			}
			return app.send(cmd.Context(), f, args)
		},
	}
	fs := cmd.Flags()
	fs.StringVarP(&f.to, "to", "t", "", "where to: PLATFORM, PLATFORM:CHAT[:THREAD], PLATFORM:#CHANNEL or #CHANNEL")
	fs.StringVarP(&f.file, "file", "f", "", "read the text from `FILE`; - is standard input")
	fs.StringVarP(&f.subject, "subject", "s", "", "first line of the message")
	fs.BoolVarP(&f.list, "list", "l", false, "list where can be sent to, of one PLATFORM if it is named")
	fs.BoolVarP(&f.quiet, "quiet", "q", false, "print nothing when it was sent")
	fs.DurationVar(&f.timeout, "timeout", 30*time.Second, "how long to wait for the receipt")
	jsonFlag(cmd, &f.asJSON)
	return cmd
}

// sendText gives the text of the message, with its subject.
func (a *App) sendText(f sendFlags, args []string) (string, error) {
	var from io.Reader
	switch {
	case len(args) == 1 && f.file != "":
		return "", domain.E(domain.Invalid, nil, "there is a text and a file to read it from; give one of the two")
	case len(args) == 1:
		from = strings.NewReader(args[0])
	case f.file == "" || f.file == "-":
		if in, ok := a.In.(*os.File); ok && f.file == "" && isTerminal(in) {
			return "", domain.E(domain.Invalid, nil, "there is no text; write it behind the target, or pipe it in")
		}
		from = a.In
	default:
		file, err := os.Open(f.file)
		if err != nil {
			return "", domain.E(domain.Invalid, err, "the text cannot be read")
		}
		defer file.Close()
		from = file
	}
	data, err := io.ReadAll(io.LimitReader(from, maxSend+1))
	switch {
	case err != nil:
		return "", domain.E(domain.Invalid, err, "the text cannot be read")
	case len(data) > maxSend:
		return "", domain.E(domain.Invalid, nil, "the text has more than %d KiB; send it as a file, by a line MEDIA:/absolute/path", maxSend>>10)
	case strings.TrimSpace(string(data)) == "":
		return "", domain.E(domain.Invalid, nil, "the text is empty, so there is nothing to send")
	}
	text := string(data)
	if f.subject != "" {
		text = "**" + markup.Escape(f.subject) + "**\n\n" + text
	}
	return text, nil
}

// send sends a message and waits for its receipt.
func (a *App) send(ctx context.Context, f sendFlags, args []string) error {
	if f.timeout <= 0 {
		return domain.E(domain.Invalid, nil, "--timeout takes a time over 0, such as 30s")
	}
	if f.to == "" {
		return domain.E(domain.Invalid, nil, "no target is named; add -t TARGET (`hermes send --list` shows them)")
	}
	text, err := a.sendText(f, args)
	if err != nil {
		return err
	}
	cfg, _, err := a.Config()
	if err != nil {
		return err
	}
	var sent []domain.Delivery
	err = a.withLedger(ctx, func(s *sqlite.Store) (bool, error) {
		ctx, cancel := context.WithTimeout(ctx, f.timeout)
		defer cancel()
		targets := &cron.Targets{Homes: a.newPlaces(ctx, *a.profile, cfg, s)}
		to, problems := targets.Resolve(cron.SplitTargets(f.to), nil)
		if len(problems) > 0 {
			return false, domain.E(domain.Invalid, nil, "%s", strings.Join(problems, "; "))
		}
		if len(to) == 0 {
			return false, domain.E(domain.Invalid, nil, "the target %q names no chat; `hermes send --list` shows those that are known", f.to)
		}
		var err error
		sent, err = a.sendBy(ctx, s, cfg, to, text)
		return false, err
	})
	if err != nil {
		return err
	}
	return a.reportSent(sent, f)
}

// sendBy commits the message to the outbox and gives what became of it when
// ctx ends, or before: it is sent by the running gateway, else by this process.
func (a *App) sendBy(ctx context.Context, s *sqlite.Store, cfg *home.Config, to []domain.Address, text string) ([]domain.Delivery, error) {
	client, p, err := a.controlClient()
	if err != nil {
		return nil, err
	}
	sender := gateway.NewSender(gateway.SenderOptions{Profile: p, Config: cfg, Env: a.env, Store: s, Log: slog.New(slog.DiscardHandler), Now: a.Now})
	status, err := client.Status(ctx)
	alone := domain.IsCode(err, domain.NotFound) || err == nil && status.Parked // a parked one sends nothing
	if err != nil && !alone {
		return nil, err
	}
	if alone {
		if err := sender.Connect(to...); err != nil {
			return nil, err
		}
	}
	var plan []domain.NewDelivery
	for _, addr := range to {
		plan = append(plan, sender.Plan(addr, "message", text, delivery.PlanOptions{})...)
	}
	if len(plan) == 0 {
		return nil, domain.E(domain.Invalid, nil, "there is nothing to send: the message has no visible text and names no file")
	}
	ids, err := s.Enqueue(ctx, plan, a.Now())
	if err != nil {
		return nil, err
	}
	if !alone {
		if err := client.Poke(ctx); err != nil {
			fmt.Fprintf(a.Err, "hermes: the running gateway was not told; it notices within a minute: %s\n", domain.MessageOf(err))
		}
		return awaitReceipts(ctx, s, ids, func() bool { return false })
	}
	if err := sender.Start(ctx); err != nil {
		return nil, err
	}
	sent, err := awaitReceipts(ctx, s, ids, sender.Refused)
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	return sent, errors.Join(err, sender.Stop(last))
}

// awaitReceipts returns the deliveries once each is sent, given up or put off
// beyond the time that is left, or when ctx ends. refused tells that nothing
// will be tried again before somebody acts.
func awaitReceipts(ctx context.Context, s *sqlite.Store, ids []int64, refused func() bool) ([]domain.Delivery, error) {
	deadline, _ := ctx.Deadline()
	tick := time.NewTicker(25 * time.Millisecond)
	defer tick.Stop()
	for {
		hopeless := refused()
		// One transaction gave the ids, so that they follow one another.
		list, err := s.Deliveries(context.WithoutCancel(ctx), ledger.DeliveryFilter{Before: ids[len(ids)-1] + 1, Limit: len(ids)})
		if err != nil {
			return nil, err
		}
		slices.Reverse(list)
		open := slices.ContainsFunc(list, func(d domain.Delivery) bool {
			putOff := d.State == domain.DeliveryRetrying && (hopeless || d.NextAt.After(deadline))
			return d.State != domain.DeliverySent && d.State != domain.DeliveryDead && !putOff
		})
		if !open || ctx.Err() != nil {
			return list, nil
		}
		select {
		case <-ctx.Done():
		case <-tick.C:
		}
	}
}

// sentView is one message of the report.
type sentView struct {
	ID      int64                `json:"id"`
	To      string               `json:"to"`
	State   domain.DeliveryState `json:"state"`
	Receipt string               `json:"receipt,omitempty"`
	Reason  string               `json:"reason,omitempty"`
}

// reportSent prints what became of each part. What was not sent makes the exit
// code 1.
func (a *App) reportSent(list []domain.Delivery, f sendFlags) error {
	report := struct {
		Success    bool       `json:"success"`
		Deliveries []sentView `json:"deliveries"`
	}{Success: true}
	for _, d := range list {
		report.Success = report.Success && d.State == domain.DeliverySent
		report.Deliveries = append(report.Deliveries, sentView{d.ID, d.To.String(), d.State, d.Receipt, d.Reason})
	}
	if f.asJSON {
		if err := a.JSON(report); err != nil {
			return err
		}
	}
	for _, d := range report.Deliveries {
		switch {
		case f.asJSON, d.State == domain.DeliverySent && f.quiet:
		case d.State == domain.DeliverySent:
			fmt.Fprintf(a.Out, "✓ Sent to %s (delivery %d, receipt %s).\n", d.To, d.ID, dash(d.Receipt))
		case d.State == domain.DeliveryDead:
			fmt.Fprintf(a.Err, "✗ Not sent to %s: %s. `hermes deliveries retry %d` tries it again.\n", d.To, strings.TrimSuffix(d.Reason, "."), d.ID)
		default:
			reason := strings.TrimSuffix(d.Reason, ".")
			if reason == "" {
				reason = "no receipt has come yet"
			}
			fmt.Fprintf(a.Err, "✗ Not sent to %s yet: %s. It stays in the outbox and the gateway goes on trying; `hermes deliveries drop %d` gives it up.\n", d.To, reason, d.ID)
		}
	}
	if !report.Success {
		return &ExitError{Code: exitFailed}
	}
	return nil
}

// targetView is a place that can be sent to.
type targetView struct {
	Target string `json:"target"`
	Name   string `json:"name,omitempty"`
	Type   string `json:"type,omitempty"` // channel, private, group, dm, thread
	Home   bool   `json:"home"`
}

// listTargets prints the home channels, the channels that the platforms list,
// and the chats that conversations were had in.
func (a *App) listTargets(ctx context.Context, args []string, asJSON bool) error {
	cfg, _, err := a.Config()
	if err != nil {
		return err
	}
	rows := []targetView{}
	err = a.withLedger(ctx, func(s *sqlite.Store) (bool, error) {
		pl := a.newPlaces(ctx, *a.profile, cfg, s)
		platforms := pl.Platforms()
		if len(args) == 1 {
			named := domain.Platform(args[0])
			if !slices.Contains(platforms, named) {
				return false, domain.E(domain.Invalid, nil, "the platform %s is not set up in this profile", named)
			}
			platforms = []domain.Platform{named}
		}
		for _, p := range platforms {
			if err := pl.ask(ctx, p); err != nil {
				fmt.Fprintf(a.Err, "hermes: %s could not be asked for its channels, so those of last time are shown: %s\n", p, domain.MessageOf(err))
			}
		}
		rows = targetRows(ctx, pl, platforms, cfg)
		return false, nil
	})
	if err != nil {
		return err
	}
	if asJSON {
		return a.JSON(rows)
	}
	if len(rows) == 0 {
		fmt.Fprintln(a.Out, "No chat is known yet: set a platform up, write to the bot, and send it /sethome.")
		return nil
	}
	w := tabwriter.NewWriter(a.Out, 0, 4, 2, ' ', 0)
	fmt.Fprintln(w, "TARGET\tNAME\tTYPE\tHOME")
	for _, r := range rows {
		mark := ""
		if r.Home {
			mark = "home"
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", r.Target, dash(cut(r.Name, 40)), dash(r.Type), dash(mark))
	}
	return w.Flush()
}

// targetRows lists the home channels, then the rest.
func targetRows(ctx context.Context, pl *places, platforms []domain.Platform, cfg *home.Config) []targetView {
	rows := []targetView{}
	at := map[domain.Address]int{}
	for _, p := range platforms {
		if addr, ok := pl.Home(p); ok {
			at[addr] = len(rows)
			rows = append(rows, targetView{Target: addr.String(), Name: cfg.Platforms[p].HomeName, Home: true})
		}
	}
	for _, p := range platforms {
		for _, e := range pl.dir.Places(ctx, p) {
			if i, ok := at[e.To]; ok {
				rows[i].Name, rows[i].Type = e.Label(), e.Type
				continue
			}
			rows = append(rows, targetView{Target: e.To.String(), Name: e.Label(), Type: e.Type})
		}
	}
	return rows
}
