package cli

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"hermes/internal/doctor"
	"hermes/internal/home"
)

// doctorFlags are what `hermes doctor` was told.
type doctorFlags struct {
	asJSON, fix, all, local bool
	origin                  string
}

func newDoctorCommand(app *App) *cobra.Command {
	var f doctorFlags
	cmd := &cobra.Command{
		Use: "doctor", Short: "Say what is wrong, what it means, and the one command that mends it", Args: cobra.NoArgs,
		Long: "Say what is wrong with this profile: each finding with its class, the evidence, what it\n" +
			"means and the one command that mends it. The first finding is the answer: what stands\n" +
			"under it as explained goes away with it. It works whether or not a gateway runs.\n\n" +
			"Exit code 0: nothing is wrong (advice may be given); 1: something is.",
		Example: "  hermes doctor\n  hermes -p liam doctor --fix\n  hermes doctor --origin https://chat.example.org   (a page says \"Failed to fetch\")",
		RunE:    func(cmd *cobra.Command, _ []string) error { return app.doctor(cmd.Context(), f) },
	}
	jsonFlag(cmd, &f.asJSON)
	cmd.Flags().BoolVar(&f.fix, "fix", false, "carry out the fixes that cannot do harm, and say each")
	cmd.Flags().BoolVar(&f.all, "all", false, "every profile")
	cmd.Flags().BoolVar(&f.local, "local", false, "ask nobody outside of this machine")
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
		answer := a.examine(ctx, r, f)
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

// examine looks at one profile, and with --fix mends and looks again.
func (a *App) examine(ctx context.Context, r home.Request, f doctorFlags) doctorAnswer {
	binary, err := ownPath()
	if err != nil {
		binary = "hermes"
	}
	o := doctor.Options{Request: r, Environ: a.Environ, Binary: binary, Version: Version(), Origin: f.origin, Local: f.local, Now: a.Now}
	answer := doctorAnswer{Report: doctor.Examine(ctx, o)}
	if !f.fix {
		return answer
	}
	if answer.Repaired = doctor.Repair(ctx, answer.Report); len(answer.Repaired) > 0 {
		answer.Report = doctor.Examine(ctx, o)
	}
	return answer
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
	errors, advice := 0, 0
	for _, f := range d.Findings {
		if f.Severity == doctor.Advice {
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
	for i, f := range d.Findings {
		mark := "✗"
		switch f.Severity {
		case doctor.Warning:
			mark = "!"
		case doctor.Advice:
			mark = "·"
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
