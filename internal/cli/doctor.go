package cli

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"hermes/internal/doctor"
	"hermes/internal/domain"
	"hermes/internal/home"
	"hermes/internal/service"
)

// doctorFlags are what `hermes doctor` was told.
type doctorFlags struct {
	asJSON, fix, all, local bool
	origin                  string
	ack, until, unack       string
}

func newDoctorCommand(app *App) *cobra.Command {
	var f doctorFlags
	cmd := &cobra.Command{
		Use: "doctor", Short: "Say what is wrong, what it means, and the one command that mends it", Args: cobra.NoArgs,
		Long: "Say what is wrong with this profile: each finding with its class, the evidence, what it\n" +
			"means and the one command that mends it. The first finding is the answer: what stands\n" +
			"under it as explained goes away with it. It works whether or not a gateway runs.\n\n" +
			"A finding that is known can be acknowledged: it is shown as such and does not count, until its\n" +
			"time is over or its evidence is another.\n\n" +
			"Exit code 0: nothing is wrong (advice may be given); 1: something is.",
		Example: "  hermes doctor\n  hermes -p liam doctor --fix\n  hermes doctor --origin https://chat.example.org   (a page says \"Failed to fetch\")\n" +
			"  hermes doctor --ack transport.limited:telegram --until 7d",
		RunE: func(cmd *cobra.Command, _ []string) error { return app.doctor(cmd.Context(), f) },
	}
	jsonFlag(cmd, &f.asJSON)
	cmd.Flags().BoolVar(&f.fix, "fix", false, "carry out the fixes that cannot do harm, and say each")
	cmd.Flags().BoolVar(&f.all, "all", false, "every profile")
	cmd.Flags().BoolVar(&f.local, "local", false, "ask nobody outside of this machine")
	cmd.Flags().StringVar(&f.ack, "ack", "", "acknowledge a finding: `ID[:ABOUT]` as --json gives them")
	cmd.Flags().StringVar(&f.until, "until", "30d", "how long the acknowledgement holds at most, e.g. 12h, 7d")
	cmd.Flags().StringVar(&f.unack, "unack", "", "take an acknowledgement back: `ID[:ABOUT]`")
	cmd.MarkFlagsMutuallyExclusive("ack", "unack", "all")
	cmd.MarkFlagsMutuallyExclusive("ack", "fix")
	cmd.Flags().StringVar(&f.origin, "origin", "", "address of a web page whose requests to the API fail")
	return cmd
}

// doctorAnswer is a report with what --fix did.
type doctorAnswer struct {
	doctor.Report
	Repaired []doctor.Repaired `json:"repaired,omitempty"`
}

// doctor examines one profile, or all.
func (a *App) doctor(ctx context.Context, f doctorFlags) error {
	requests := []home.Request{a.request()}
	if f.all {
		requests = nil
		profiles, err := home.List(a.Root())
		if err != nil {
			return err
		}
		for _, p := range profiles {
			r := a.request()
			r.Flag, r.FlagSet = p.Name, true
			requests = append(requests, r)
		}
	}
	healthy := true
	answers := []doctorAnswer{}
	for i, r := range requests {
		answer, err := a.examine(ctx, r, f)
		if err != nil {
			return err
		}
		healthy = healthy && answer.Healthy
		answers = append(answers, answer)
		if !f.asJSON {
			if i > 0 {
				fmt.Fprintln(a.Out)
			}
			a.printDoctor(answer)
		}
	}
	if f.asJSON {
		var v any = answers
		if !f.all {
			v = answers[0]
		}
		if err := a.JSON(v); err != nil {
			return err
		}
	}
	if !healthy {
		return &ExitError{Code: exitFailed}
	}
	return nil
}

// examine looks at one profile, and with --fix mends and looks again. Errors:
// those of an acknowledgement.
func (a *App) examine(ctx context.Context, r home.Request, f doctorFlags) (doctorAnswer, error) {
	binary, err := ownPath()
	if err != nil {
		binary = "hermes"
	}
	o := doctor.Options{Request: r, Environ: a.Environ, Binary: binary, Version: Version(), Origin: f.origin, Local: f.local, Now: a.Now}
	if f.unack != "" {
		p, err := home.Resolve(r)
		if err != nil {
			return doctorAnswer{}, err
		}
		n, err := doctor.Withdraw(p.Home, f.unack)
		if err != nil {
			return doctorAnswer{}, err
		}
		if n == 0 {
			return doctorAnswer{}, domain.E(domain.NotFound, nil, "%s is not acknowledged in the profile %s", f.unack, p.Name)
		}
	}
	answer := doctorAnswer{Report: doctor.Examine(ctx, o)}
	switch {
	case f.ack != "":
		return answer, doctor.Acknowledge(&answer.Report, f.ack, a.Now().Add(service.Span(f.until)), a.Now())
	case f.fix:
		if answer.Repaired = doctor.Repair(ctx, answer.Report); len(answer.Repaired) > 0 {
			answer.Report = doctor.Examine(ctx, o)
		}
	}
	return answer, nil
}

// printDoctor prints a report for people.
func (a *App) printDoctor(d doctorAnswer) {
	for _, r := range d.Repaired {
		mark := "✓ mended: "
		if r.Problem != "" {
			mark = "✗ could not mend: "
		}
		wrap(a.Out, mark, r.What)
		if r.Problem != "" {
			wrap(a.Out, "  ", r.Problem)
		}
	}
	errors, advice, known := 0, 0, 0
	for _, f := range d.Findings {
		if f.Acknowledged != nil {
			known++
		} else if f.Severity == doctor.Advice {
			advice++
		} else {
			errors++
		}
	}
	switch {
	case errors > 0:
		fmt.Fprintf(a.Out, "✗ %s: %s. Gateway: %s.\n", d.Profile, count(errors, "thing is wrong", "things are wrong"), d.Gateway)
	case advice > 0:
		fmt.Fprintf(a.Out, "✓ %s: nothing is wrong; %s. Gateway: %s.\n", d.Profile, count(advice, "thing could be better", "things could be better"), d.Gateway)
	default:
		fmt.Fprintf(a.Out, "✓ %s: nothing is wrong. Gateway: %s.\n", d.Profile, d.Gateway)
	}
	if known > 0 {
		fmt.Fprintf(a.Out, "  %s acknowledged.\n", count(known, "more is", "more are"))
	}
	for i, f := range d.Findings {
		mark := "✗"
		switch f.Severity {
		case doctor.Warning:
			mark = "!"
		case doctor.Advice:
			mark = "·"
		}
		if f.Acknowledged != nil {
			fmt.Fprintln(a.Out)
			wrap(a.Out, "- acknowledged until "+f.Acknowledged.Until.Local().Format("2006-01-02 15:04")+": ", f.What+" ("+f.ID+")")
			continue
		}
		fmt.Fprintln(a.Out)
		wrap(a.Out, fmt.Sprintf("%s %d. %s: ", mark, i+1, f.Class), f.What)
		for _, e := range f.Evidence {
			wrap(a.Out, "     evidence  ", strings.ReplaceAll(e, "\n", " "))
		}
		wrap(a.Out, "     means     ", f.Means)
		for _, s := range f.Symptoms {
			wrap(a.Out, "     explains  ", s.What)
		}
		fix := "     fix       "
		if f.Safe {
			fix = "     fix       (--fix does it) "
		}
		// A command is never folded: it is there to be copied.
		fmt.Fprintf(a.Out, "%s%s\n", fix, f.Fix)
	}
	for _, u := range d.Unknown {
		wrap(a.Out, "? not known: ", u)
	}
}

// count words a number of things.
func count(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}
