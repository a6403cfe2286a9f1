package cli

import (
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"hermes/internal/control"
	"hermes/internal/health"
)

func newStatusCommand(app *App) *cobra.Command {
	var asJSON, all bool
	cmd := &cobra.Command{
		Use: "status", Short: "The state of this profile's gateway; --all for every profile", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if all {
				return app.listGateways(cmd.Context(), asJSON, false)
			}
			return app.gatewayStatus(cmd.Context(), asJSON, false)
		},
	}
	jsonFlag(cmd, &asJSON)
	cmd.Flags().BoolVar(&all, "all", false, "every profile")
	return cmd
}

// width is what a line of a human answer keeps within, in columns.
const width = 80

// printStatus prints a status for people: first whether all is well, then what
// is not, then the evidence.
func (a *App) printStatus(s control.Status) {
	mark, word := "✓", "running and healthy"
	if !s.Healthy {
		mark, word = "✗", s.State+", not healthy"
	}
	fmt.Fprintf(a.Out, "%s Gateway (%s): %s\n", mark, s.Profile, word)
	for _, p := range s.Problems {
		wrap(a.Out, "  ✗ ", p)
	}
	field := func(name, format string, args ...any) {
		wrap(a.Out, fmt.Sprintf("  %-11s ", name), fmt.Sprintf(format, args...))
	}
	field("process", "PID %d, up %s, %s of memory, version %s", s.PID, span(time.Duration(s.Uptime)*time.Second), bytesWord(s.Memory), s.Version)
	field("restarts", "%s", s.Mode.Explain)
	parts := map[string]health.Part{}
	for _, p := range s.Parts {
		parts[p.Name] = p
	}
	field("model", "%s%s", modelWord(s.Model), evidence(parts["model"], a.Now()))
	switch {
	case s.API.Address != "":
		field("API", "%s%s", s.API.Address, evidence(parts["api"], a.Now()))
	case s.API.Enabled:
		field("API", "down")
	default:
		field("API", "off (API_SERVER_ENABLED=true switches it on)")
	}
	for _, p := range s.Parts {
		switch name := strings.TrimPrefix(p.Name, "platform."); name {
		case "model", "api", "ledger", "control": // told elsewhere, or the fact that we read this
		default:
			field(name, "%s", partWord(p, a.Now()))
		}
	}
	field("turns", "%d running, %d done since the start; %d messages wait", s.Work.Running, s.Work.Finished, s.Ledger.Inbound["received"])
	d := s.Ledger.Delivery
	field("outbox", "%d to send, %d retrying, %d dead", d["pending"]+d["sending"], d["retrying"], d["dead"])
	field("ledger", "%s, %d sessions, %d messages, %s%s", s.Ledger.Kind, s.Ledger.Sessions, s.Ledger.Messages, bytesWord(s.Ledger.Bytes), evidence(parts["ledger"], a.Now()))
	if s.LastExit != "" {
		field("last exit", "%s", s.LastExit)
	}
	for _, w := range s.Warnings {
		wrap(a.Out, "  ! ", w)
	}
}

func modelWord(m control.Model) string {
	switch {
	case !m.Set:
		return "none is set"
	case m.Provider == "offline":
		return "offline stand-in (no real model is set)"
	}
	return m.Name + " by " + m.Provider
}

// partWord is a part's state with its evidence.
func partWord(p health.Part, now time.Time) string {
	text := string(p.State)
	if p.State != health.OK {
		text += " since " + p.Since.Local().Format("15:04:05")
	}
	keys := make([]string, 0, len(p.Evidence))
	for k := range p.Evidence {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	for _, k := range keys {
		value := p.Evidence[k]
		if at, err := time.Parse(time.RFC3339, value); err == nil {
			value = clockWord(at, now)
		}
		text += fmt.Sprintf(", %s %s", strings.ReplaceAll(k, "_", " "), value)
	}
	return text + evidence(p, now)
}

// clockWord is a time as a person of this place would say it.
func clockWord(at, now time.Time) string {
	at = at.Local()
	if d := at.Sub(now); d > -12*time.Hour && d < 12*time.Hour {
		return at.Format("15:04:05")
	}
	return at.Format("2006-01-02 15:04")
}

// evidence is when a part last proved that it works, where that is known.
func evidence(p health.Part, now time.Time) string {
	if p.LastOK.IsZero() {
		return ""
	}
	return fmt.Sprintf(", proof of life %s ago", span(now.Sub(p.LastOK)))
}

// span words a duration in its two greatest units.
func span(d time.Duration) string {
	switch {
	case d < time.Second:
		return "less than 1 s"
	case d < time.Minute:
		return fmt.Sprintf("%d s", int(d.Seconds()))
	case d < time.Hour:
		return fmt.Sprintf("%d min %d s", int(d.Minutes()), int(d.Seconds())%60)
	case d < 24*time.Hour:
		return fmt.Sprintf("%d h %d min", int(d.Hours()), int(d.Minutes())%60)
	}
	return fmt.Sprintf("%d d %d h", int(d.Hours())/24, int(d.Hours())%24)
}

func bytesWord(n int64) string {
	if n < 1<<20 {
		return fmt.Sprintf("%d KiB", n>>10)
	}
	return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20))
}

// columns is how wide a line may be where it is written: the terminal's width,
// such as a phone's, and at most width.
func columns(w io.Writer) int {
	if f, ok := w.(*os.File); ok {
		if n := terminalWidth(f); n > 0 {
			return min(n, width)
		}
	}
	return width
}

// wrap prints text behind a heading, folded at the width and indented under it;
// little indented where the terminal is narrow.
func wrap(w io.Writer, head, text string) {
	width, indent := columns(w), strings.Repeat(" ", len([]rune(head)))
	if len(indent) > width/3 {
		indent = "  "
	}
	line, used := head, len([]rune(head))
	for i, word := range strings.Fields(text) {
		n := len([]rune(word))
		if i > 0 && used+1+n > width {
			fmt.Fprintln(w, strings.TrimRight(line, " "))
			line, used = indent, len([]rune(indent))
		} else if i > 0 {
			line, used = line+" ", used+1
		}
		line, used = line+word, used+n
	}
	fmt.Fprintln(w, line)
}

func cut(s string, n int) string {
	if r := []rune(s); len(r) > n {
		return string(r[:n-1]) + "…"
	}
	return s
}
