package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"hermes/internal/domain"
	"hermes/internal/ledger"
	"hermes/internal/ledger/sqlite"
)

// insights is what the agent did and used over some days. Days are those of the
// profile's time zone.
type insights struct {
	Zone     string           `json:"timezone"`
	From     time.Time        `json:"from"`
	To       time.Time        `json:"to"`
	Total    insight          `json:"total"`
	Days     []insight        `json:"days"`     // those with at least one turn, oldest first
	Sources  []insight        `json:"sources"`  // most tokens first
	Hours    [24]int64        `json:"by_hour"`  // turns by the hour of the day in which they ended
	Sessions []sessionInsight `json:"sessions"` // those used since From with most tokens, over their whole life
	Started  int              `json:"sessions_started"`
	Source   domain.Platform  `json:"source,omitempty"` // the filter
	Outcomes map[string]int64 `json:"outcomes"`
}

// insight is one row of it.
type insight struct {
	Name   string       `json:"name,omitempty"` // a day as 2006-01-02, or a platform
	Turns  int64        `json:"turns"`
	Failed int64        `json:"failed"` // ended otherwise than done
	Usage  domain.Usage `json:"usage"`
}

type sessionInsight struct {
	ID       domain.SessionID `json:"id"`
	Title    string           `json:"title,omitempty"`
	Source   domain.Platform  `json:"source"`
	Messages int              `json:"messages"`
	Usage    domain.Usage     `json:"usage"`
}

const (
	maxInsightDays  = 90 // as long as the ledger keeps turns
	insightSessions = 5
)

func newInsightsCommand(app *App) *cobra.Command {
	var asJSON bool
	var days int
	var source string
	cmd := &cobra.Command{
		Use: "insights", Short: "What the agent did and used: turns, model calls and tokens by day and source", Args: cobra.NoArgs,
		Example: "  hermes insights --days 7\n  hermes insights --source telegram --json",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if days < 1 || days > maxInsightDays {
				return domain.E(domain.Invalid, nil, "--days takes a number from 1 to %d: turns are kept for %[1]d days", maxInsightDays)
			}
			cfg, _, err := app.Config()
			if err != nil {
				return err
			}
			return app.withLedger(cmd.Context(), func(s *sqlite.Store) (bool, error) {
				in, err := gatherInsights(cmd.Context(), s, app.Now().In(cfg.Timezone), days, domain.Platform(source))
				if err != nil {
					return false, err
				}
				if asJSON {
					return false, app.JSON(in)
				}
				return false, app.printInsights(in)
			})
		},
	}
	jsonFlag(cmd, &asJSON)
	cmd.Flags().IntVar(&days, "days", 30, "how many days, today included")
	cmd.Flags().StringVar(&source, "source", "", "only what came from this platform (telegram, webchat, api_server, cron …)")
	return cmd
}

// gatherInsights sums the last days up to now, in now's zone.
func gatherInsights(ctx context.Context, s *sqlite.Store, now time.Time, days int, source domain.Platform) (insights, error) {
	year, month, day := now.Date()
	from := time.Date(year, month, day-days+1, 0, 0, 0, 0, now.Location())
	in := insights{Zone: now.Location().String(), From: from, To: now, Source: source, Outcomes: map[string]int64{}}
	slots, err := s.Usage(ctx, from)
	if err != nil {
		return in, err
	}
	byDay, bySource := map[string]*insight{}, map[string]*insight{}
	for _, u := range slots {
		if source != "" && u.Platform != source {
			continue
		}
		at := u.At.In(now.Location())
		for _, row := range []*insight{&in.Total, rowOf(byDay, at.Format(time.DateOnly)), rowOf(bySource, string(u.Platform))} {
			row.add(u)
		}
		in.Hours[at.Hour()] += u.Turns
		in.Outcomes[string(u.State)] += u.Turns
	}
	in.Days = sorted(byDay, func(a, b insight) int { return cmp.Compare(a.Name, b.Name) })
	in.Sources = sorted(bySource, func(a, b insight) int {
		return cmp.Or(cmp.Compare(b.Usage.InputTokens+b.Usage.OutputTokens, a.Usage.InputTokens+a.Usage.OutputTokens), cmp.Compare(a.Name, b.Name))
	})
	return in, in.addSessions(ctx, s)
}

// errOlder ends the walk over sessions.
var errOlder = errors.New("older than asked for")

// addSessions adds those that were used since From.
func (in *insights) addSessions(ctx context.Context, s *sqlite.Store) error {
	in.Sessions = []sessionInsight{}
	err := eachSession(ctx, s, in.Source, func(one domain.Session) error {
		if one.UpdatedAt.Before(in.From) {
			return errOlder
		}
		if !one.CreatedAt.Before(in.From) {
			in.Started++
		}
		in.Sessions = append(in.Sessions, sessionInsight{one.ID, one.Title, one.Source.Platform, one.MessageCount, one.Usage})
		slices.SortStableFunc(in.Sessions, func(a, b sessionInsight) int {
			return cmp.Compare(b.Usage.InputTokens+b.Usage.OutputTokens, a.Usage.InputTokens+a.Usage.OutputTokens)
		})
		in.Sessions = in.Sessions[:min(len(in.Sessions), insightSessions)]
		return nil
	})
	if errors.Is(err, errOlder) {
		return nil
	}
	return err
}

func rowOf(rows map[string]*insight, name string) *insight {
	if rows[name] == nil {
		rows[name] = &insight{Name: name}
	}
	return rows[name]
}

func sorted(rows map[string]*insight, by func(a, b insight) int) []insight {
	out := make([]insight, 0, len(rows))
	for _, row := range rows {
		out = append(out, *row)
	}
	slices.SortFunc(out, by)
	return out
}

func (i *insight) add(u ledger.UsageSlot) {
	i.Turns += u.Turns
	if u.State != domain.TurnDone {
		i.Failed += u.Turns
	}
	i.Usage = i.Usage.Add(u.Usage)
}

func (a *App) printInsights(in insights) error {
	what := "What the agent did"
	if in.Source != "" {
		what += " on " + string(in.Source)
	}
	fmt.Fprintf(a.Out, "%s from %s to %s (%s)\n\n", what, in.From.Format(time.DateOnly), in.To.Format("2006-01-02 15:04"), in.Zone)
	if in.Total.Turns == 0 {
		fmt.Fprintln(a.Out, "Nothing: no turn ended in that time.")
		return nil
	}
	u := in.Total.Usage
	fmt.Fprintf(a.Out, "  turns        %s", thousands(in.Total.Turns))
	for _, state := range []domain.TurnState{domain.TurnFailed, domain.TurnInterrupted} {
		if n := in.Outcomes[string(state)]; n > 0 {
			fmt.Fprintf(a.Out, ", %s of them %s", thousands(n), state)
		}
	}
	fmt.Fprintf(a.Out, "\n  model calls  %s\n  tokens in    %s", thousands(u.Calls), thousands(u.InputTokens))
	if u.CachedTokens > 0 && u.InputTokens > 0 {
		fmt.Fprintf(a.Out, " (%d %% from the provider's cache)", 100*u.CachedTokens/u.InputTokens)
	}
	fmt.Fprintf(a.Out, "\n  tokens out   %s\n  sessions     %d started\n", thousands(u.OutputTokens), in.Started)
	if hour, most := busiest(in.Hours); most > 0 {
		fmt.Fprintf(a.Out, "  busiest      %02d:00 to %02d:00\n", hour, (hour+1)%24)
	}
	for _, table := range []struct {
		head string
		rows []insight
	}{{"DAY", in.Days}, {"SOURCE", in.Sources}} {
		fmt.Fprintln(a.Out)
		if err := a.printUsage(table.head, table.rows); err != nil {
			return err
		}
	}
	if len(in.Sessions) == 0 {
		return nil
	}
	fmt.Fprintln(a.Out)
	w := tabwriter.NewWriter(a.Out, 0, 4, 2, ' ', 0)
	fmt.Fprintln(w, "SESSION\tSOURCE\tMESSAGES\tTOKENS\tTITLE")
	for _, s := range in.Sessions {
		fmt.Fprintf(w, "%s\t%s\t%d\t%s\t%s\n", s.ID, s.Source, s.Messages, thousands(s.Usage.InputTokens+s.Usage.OutputTokens), dash(cut(s.Title, 22)))
	}
	return w.Flush()
}

// printUsage prints rows with their numbers aligned to the right.
func (a *App) printUsage(head string, rows []insight) error {
	w := tabwriter.NewWriter(a.Out, 0, 4, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintf(w, "%-11s\tTURNS\tNOT DONE\tCALLS\tTOKENS IN\tTOKENS OUT\t\n", head)
	for _, r := range rows {
		fmt.Fprintf(w, "%-11s\t%s\t%s\t%s\t%s\t%s\t\n", dash(r.Name), thousands(r.Turns), thousands(r.Failed), thousands(r.Usage.Calls),
			thousands(r.Usage.InputTokens), thousands(r.Usage.OutputTokens))
	}
	return w.Flush()
}

func busiest(hours [24]int64) (hour int, most int64) {
	for h, n := range hours {
		if n > most {
			hour, most = h, n
		}
	}
	return hour, most
}

// thousands writes 1234567 as 1,234,567.
func thousands(n int64) string {
	s := strconv.FormatInt(n, 10)
	for i := len(s) - 3; i > 0 && s[i-1] != '-'; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}
