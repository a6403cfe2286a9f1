package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"hermes/internal/control"
	"hermes/internal/delivery"
	"hermes/internal/domain"
	"hermes/internal/health"
	"hermes/internal/home"
	"hermes/internal/ledger"
	"hermes/internal/ledger/sqlite"
	"hermes/internal/plain"
)

// platformView is one platform of the profile, from evidence.
type platformView struct {
	Name        string            `json:"name"`
	State       string            `json:"state"` // ok, degraded, down, starting, disabled, stopped
	Code        string            `json:"code,omitempty"`
	Message     string            `json:"message,omitempty"` // what is wrong, and what to do
	Account     string            `json:"account,omitempty"`
	Since       time.Time         `json:"since,omitzero"`      // of the state
	LastOK      time.Time         `json:"last_ok,omitzero"`    // last proof that the connection lives
	LastEvent   time.Time         `json:"last_event,omitzero"` // last message that came in
	LastSent    time.Time         `json:"last_sent,omitzero"`  // last message that has a receipt
	SendLatency string            `json:"send_latency,omitempty"`
	Latency     string            `json:"latency,omitempty"` // of the connection's heartbeat
	Reconnects  string            `json:"reconnects,omitempty"`
	LastError   string            `json:"last_error,omitempty"`
	Home        string            `json:"home,omitempty"`
	Pending     int               `json:"pending"`
	Retrying    int               `json:"retrying"`
	Dead        int               `json:"dead"`
	Unseen      int               `json:"dead_unseen"` // of Dead, since `hermes deliveries ack`
	Evidence    map[string]string `json:"evidence,omitempty"`
}

func newPlatformsCommand(app *App) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use: "platforms [NAME]", Short: "The state of each chat platform's connection, from evidence", Args: cobra.MaximumNArgs(1),
		Long: "Shows for each platform of the profile whether its connection lives, when the last message\ncame in and the last one went out, and what is wrong and what to do. With no gateway running\nit shows what the last one left behind.\n\nExit code: 0 when every platform works, 1 when one does not.",
		RunE: func(cmd *cobra.Command, args []string) error {
			return app.platforms(cmd.Context(), firstArg(args), asJSON)
		},
	}
	jsonFlag(cmd, &asJSON)
	return cmd
}

// platforms prints the platforms, or the one that is named.
func (a *App) platforms(ctx context.Context, only string, asJSON bool) error {
	cfg, _, err := a.Config()
	if err != nil {
		return err
	}
	c, p, err := a.controlClient()
	if err != nil {
		return err
	}
	views := map[domain.Platform]*platformView{}
	for name, pc := range cfg.Platforms {
		if pc.Enabled && name != domain.PlatformAPI {
			views[name] = &platformView{Name: string(name), Home: pc.Home.ChatID}
		}
	}
	status, err := c.Status(ctx)
	down := domain.IsCode(err, domain.NotFound)
	switch {
	case err == nil:
		fromGateway(views, status)
	case down:
		a.fromLastLife(views, p)
	default:
		return err
	}
	if only != "" {
		one, ok := views[domain.Platform(strings.ToLower(only))]
		if !ok {
			return domain.E(domain.Invalid, nil, "the platform %s is not set up in this profile; set up are %s", only, listOr(slices.Sorted(maps.Keys(views)), "none"))
		}
		views = map[domain.Platform]*platformView{domain.Platform(one.Name): one}
	}
	if err := a.fromLedger(ctx, views, p); err != nil {
		return err
	}
	rows := make([]*platformView, 0, len(views))
	bad := false
	for _, name := range slices.Sorted(maps.Keys(views)) {
		rows = append(rows, views[name])
		bad = bad || views[name].State != string(health.OK) && views[name].State != string(health.Disabled)
	}
	if asJSON {
		err = a.JSON(map[string]any{"profile": p.Name, "running": !down, "platforms": rows})
	} else {
		err = a.printPlatforms(rows, p, down)
	}
	if err == nil && bad {
		return &ExitError{Code: exitFailed}
	}
	return err
}

func listOr[T ~string](list []T, none string) string {
	if len(list) == 0 {
		return none
	}
	out := make([]string, len(list))
	for i, v := range list {
		out[i] = string(v)
	}
	return strings.Join(out, ", ")
}

// fromGateway puts in what the running gateway knows.
func fromGateway(views map[domain.Platform]*platformView, s control.Status) {
	for _, part := range s.Parts {
		name, ok := strings.CutPrefix(part.Name, "platform.")
		if !ok {
			continue
		}
		v := views[domain.Platform(name)]
		if v == nil { // the web chat comes with the API
			v = &platformView{Name: name}
			views[domain.Platform(name)] = v
		}
		v.State, v.Code, v.Message, v.Since, v.LastOK = string(part.State), part.Code, part.Message, part.Since, part.LastOK
		e := part.Evidence
		v.Account, v.Latency, v.SendLatency, v.Reconnects, v.LastError = e["bot"], e["latency"], e["send_latency"], e["reconnects"], e["last_error"]
		v.LastEvent, _ = time.Parse(time.RFC3339, e["last_event"]) // zero: none since the start
		v.LastSent, _ = time.Parse(time.RFC3339, e["last_sent"])
		for _, told := range []string{"bot", "latency", "send_latency", "reconnects", "last_error", "last_event", "last_sent"} {
			delete(e, told)
		}
		v.Evidence = e
	}
	for _, v := range views {
		if v.State == "" {
			v.State, v.Message = string(health.Down), "it was switched on after the gateway began; `hermes gateway restart` connects it"
		}
	}
}

// fromLastLife puts in what gateway_state.json of the last gateway says.
func (a *App) fromLastLife(views map[domain.Platform]*platformView, p home.Profile) {
	var last struct {
		Platforms map[domain.Platform]struct {
			State   string `json:"state"`
			Code    string `json:"error_code"`
			Message string `json:"error_message"`
		} `json:"platforms"`
	}
	if text, err := plain.Read(p.StateFile()); err == nil {
		_ = json.Unmarshal(text, &last) // a file that says nothing is as good as none
	}
	for name, v := range views {
		v.State, v.Message = "stopped", "the gateway does not run, so nothing is received; start it: `hermes"+profileFlag(p)+" gateway run`"
		if was := last.Platforms[name]; was.Message != "" {
			v.Code, v.LastError = was.Code, was.Message
		}
	}
}

// maxCounted bounds how many deliveries are looked at.
const maxCounted = 5000

// fromLedger puts in what waits for each platform, and what was last said there.
func (a *App) fromLedger(ctx context.Context, views map[domain.Platform]*platformView, p home.Profile) error {
	if _, err := os.Stat(p.LedgerFile()); err != nil {
		return nil //nolint:nilerr // a profile that never ran has none
	}
	return a.withLedger(ctx, func(s *sqlite.Store) (bool, error) {
		waiting, err := s.Deliveries(ctx, ledger.DeliveryFilter{Limit: maxCounted,
			States: []domain.DeliveryState{domain.DeliveryPending, domain.DeliverySending, domain.DeliveryRetrying, domain.DeliveryDead}})
		if err != nil {
			return false, err
		}
		for _, d := range waiting {
			v := views[d.To.Platform]
			switch {
			case v == nil:
			case d.State == domain.DeliveryDead:
				v.Dead++
			case d.State == domain.DeliveryRetrying:
				v.Retrying++
			default:
				v.Pending++
			}
		}
		unseen, err := delivery.UnseenDead(ctx, s)
		if err != nil {
			return false, err
		}
		for _, d := range unseen {
			if v := views[d.To.Platform]; v != nil {
				v.Unseen++
			}
		}
		sent, err := s.Deliveries(ctx, ledger.DeliveryFilter{Limit: maxCounted, States: []domain.DeliveryState{domain.DeliverySent}})
		if err != nil {
			return false, err
		}
		for _, d := range sent {
			if v := views[d.To.Platform]; v != nil && d.SentAt.After(v.LastSent) {
				v.LastSent = d.SentAt
			}
		}
		for name, v := range views {
			list, err := s.ListSessions(ctx, ledger.SessionFilter{Source: name, Limit: 1})
			if err != nil {
				return false, err
			}
			if len(list) == 1 && v.LastEvent.IsZero() {
				v.LastEvent = list[0].UpdatedAt
			}
		}
		return false, nil
	})
}

// printPlatforms prints a table, and under it what is wrong.
func (a *App) printPlatforms(rows []*platformView, p home.Profile, down bool) error {
	if len(rows) == 0 {
		fmt.Fprintf(a.Out, "No chat platform is set up. A bot's token does it, e.g. `hermes%s config set TELEGRAM_BOT_TOKEN …`.\n", profileFlag(p))
		return nil
	}
	now := a.Now()
	ago := func(t time.Time) string {
		if t.IsZero() {
			return "–"
		}
		return span(now.Sub(t)) + " ago"
	}
	w := tabwriter.NewWriter(a.Out, 0, 4, 2, ' ', 0)
	fmt.Fprintln(w, "PLATFORM\tSTATE\tACCOUNT\tLAST IN\tLAST OUT\tSEND\tRECONNECTS\tWAITING\tDEAD")
	for _, r := range rows {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%d\t%d\n", r.Name, r.State, dash(r.Account), ago(r.LastEvent), ago(r.LastSent), dash(r.SendLatency), dash(r.Reconnects), r.Pending+r.Retrying, r.Dead)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	for _, r := range rows {
		if r.Message != "" && !down {
			mark := "✗ "
			if r.State == string(health.Disabled) {
				mark = "! "
			}
			wrap(a.Out, mark+r.Name+": ", r.Message)
		}
		if r.State == string(health.OK) && !r.LastOK.IsZero() && now.Sub(r.LastOK) > 5*time.Minute {
			wrap(a.Out, "! "+r.Name+": ", "the last proof that the connection lives is "+ago(r.LastOK))
		}
		if r.LastError != "" && (r.Retrying > 0 || down) {
			wrap(a.Out, "! "+r.Name+": ", "the last error was: "+r.LastError)
		}
		if r.Unseen > 0 {
			wrap(a.Out, "! "+r.Name+": ", fmt.Sprintf("%d message(s) were given up; `hermes%s deliveries --dead` lists them", r.Unseen, profileFlag(p)))
		}
	}
	if down {
		wrap(a.Out, "✗ ", "The gateway does not run, so nothing is received; this is what was known last. Start it: `hermes"+profileFlag(p)+" gateway run`")
	}
	return nil
}
