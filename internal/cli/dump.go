package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"hermes/internal/domain"
	"hermes/internal/home"
	"hermes/internal/logging"
	"hermes/internal/model/login"
	"hermes/internal/plain"
	"hermes/internal/secret"
)

// dumpFlags are what `hermes dump` was told.
type dumpFlags struct {
	asJSON, showKeys, local bool
	lines                   int
	output                  string
}

func newDumpCommand(app *App) *cobra.Command {
	var f dumpFlags
	cmd := &cobra.Command{
		Use: "dump", Short: "Print what somebody who helps you needs to know, without a secret", Args: cobra.NoArgs,
		Long: "Prints one text to be pasted into a question for help: versions, machine, settings and where\n" +
			"they come from, what is wrong with them, service, status, doctor's findings, logins, files and\n" +
			"the end of the logs. Every secret is replaced; what people wrote to the agent is not part of\n" +
			"it. It works on a broken installation: a part that cannot be told says why.",
		Example: "  hermes dump\n  hermes -p liam dump --local -o liam.txt",
		RunE:    func(cmd *cobra.Command, _ []string) error { return app.dump(cmd.Context(), f) },
	}
	jsonFlag(cmd, &f.asJSON)
	fl := cmd.Flags()
	fl.BoolVar(&f.showKeys, "show-keys", false, "tell keys apart by their length and their last two characters")
	fl.BoolVar(&f.local, "local", false, "ask nobody outside of this machine")
	fl.IntVarP(&f.lines, "lines", "n", 60, "how much of the end of each log")
	fl.StringVarP(&f.output, "output", "o", "", "write it to a new `file`, which only you can read")
	return cmd
}

// dumpSection is one part of a dump.
type dumpSection struct {
	Title string `json:"title"`
	Text  string `json:"text"`
}

// sectionLimit bounds the parts that ask somebody, each.
const sectionLimit = 20 * time.Second

// dump gathers every part and prints them through a redactor.
func (a *App) dump(ctx context.Context, f dumpFlags) error {
	p, err := a.Profile()
	if err != nil {
		return err
	}
	redactor := secret.NewRedactor(a.knownSecrets(p)...)
	parts := []struct {
		title string
		tell  func(context.Context, *App) error
	}{
		{"hermes", func(_ context.Context, to *App) error { return to.dumpProgram(p) }},
		{"settings", func(_ context.Context, to *App) error { return to.dumpSettings(p, f.showKeys) }},
		{"status", func(ctx context.Context, to *App) error { return to.gatewayStatus(ctx, false, false) }},
		{"doctor", func(ctx context.Context, to *App) error { return to.doctor(ctx, doctorFlags{local: f.local}) }},
		{"logins", func(_ context.Context, to *App) error { return to.listLogins("", false, false) }},
		{"configurations before", func(_ context.Context, to *App) error { return to.configHistory(false) }},
		{"files", func(_ context.Context, to *App) error { return to.dumpFiles(p) }},
		{"end of gateway.error.log", func(_ context.Context, to *App) error { return to.dumpLog(p, "errors", f.lines) }},
		{"end of gateway.log", func(_ context.Context, to *App) error { return to.dumpLog(p, "gateway", f.lines) }},
		{"end of update.log", func(_ context.Context, to *App) error { return to.dumpLog(p, "update", f.lines) }},
	}
	var sections []dumpSection
	for _, part := range parts {
		if ctx.Err() != nil {
			return domain.E(domain.Cancelled, nil, "stopped; nothing was written")
		}
		sections = append(sections, dumpSection{part.title, redactor.Redact(a.told(ctx, part.tell))})
	}
	return a.putDump(f, sections)
}

// told gives what a part prints, and why it could not be told.
func (a *App) told(ctx context.Context, tell func(context.Context, *App) error) string {
	ctx, cancel := context.WithTimeout(ctx, sectionLimit)
	defer cancel()
	var out bytes.Buffer
	to := *a
	to.In, to.Out, to.Err = strings.NewReader(""), &out, &out
	var exit *ExitError
	if err := tell(ctx, &to); err != nil && (!errors.As(err, &exit) || exit.Err != nil) {
		fmt.Fprintf(&out, "(not told: %s)\n", err)
	}
	return out.String()
}

// putDump prints the sections, or writes them to a new file.
func (a *App) putDump(f dumpFlags, sections []dumpSection) (err error) {
	to := *a
	if f.output != "" {
		file, err := os.OpenFile(f.output, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
		if err != nil {
			return domain.E(domain.Conflict, err, "%s cannot be made, so nothing was written; choose another by -o", f.output)
		}
		defer func() {
			if cerr := file.Close(); err == nil && cerr != nil {
				err = cerr
			}
			if err == nil {
				fmt.Fprintf(a.Out, "✓ Written to %s. Look through it before you give it away.\n", f.output)
			}
		}()
		to.Out = file
	}
	if f.asJSON {
		return to.JSON(map[string]any{"profile": a.profile.Name, "at": a.Now().UTC().Format(time.RFC3339), "sections": sections})
	}
	for i, s := range sections {
		if i > 0 {
			fmt.Fprintln(to.Out)
		}
		if _, err := fmt.Fprintf(to.Out, "== %s\n%s", s.Title, s.Text); err != nil {
			return err
		}
	}
	return nil
}

// knownSecrets gives every secret of a profile that can be read.
func (a *App) knownSecrets(p home.Profile) []string {
	var out []string
	if env, err := a.Env(); err == nil {
		out = append(out, env.Secrets()...)
	}
	if cfg, _, err := a.Config(); err == nil {
		out = append(out, cfg.Secrets()...)
	}
	for _, path := range home.AuthFiles(p) {
		all, err := login.Open(path, a.Now).List("")
		if err != nil {
			continue // nothing of it is printed either
		}
		for _, c := range all {
			out = append(out, c.Access.Reveal(), c.Refresh.Reveal())
		}
	}
	return out
}

func (a *App) dumpProgram(p home.Profile) error {
	path, err := os.Executable()
	if err != nil {
		path = "unknown"
	}
	for _, row := range [][2]string{
		{"version", Version() + " " + commit()}, {"go", runtime.Version() + " " + runtime.GOOS + "/" + runtime.GOARCH}, {"program", path},
		{"profile", p.Name + " in " + p.Home}, {"system", osName()}, {"kernel", firstLine("/proc/sys/kernel/osrelease")},
		{"time", a.Now().Format(time.RFC3339) + " " + a.Now().Location().String()},
	} {
		fmt.Fprintf(a.Out, "%-9s %s\n", row[0], row[1])
	}
	return nil
}

// osName is what os-release(5) calls the system.
func osName() string {
	data, err := os.ReadFile("/etc/os-release")
	if err != nil {
		return "unknown"
	}
	for line := range strings.Lines(string(data)) {
		if name, ok := strings.CutPrefix(line, "PRETTY_NAME="); ok {
			return strings.Trim(strings.TrimSpace(name), `"`)
		}
	}
	return "unknown"
}

func firstLine(path string) string {
	data, err := plain.Read(path)
	if err != nil {
		return "unknown"
	}
	line, _, _ := strings.Cut(string(data), "\n")
	return line
}

// dumpSettings prints what is set and where it stands, and what is wrong.
func (a *App) dumpSettings(p home.Profile, showKeys bool) error {
	env, err := a.Env()
	if err != nil {
		return err
	}
	items, problems, err := home.Explain(p, env)
	if err != nil {
		return err
	}
	w := tabwriter.NewWriter(a.Out, 0, 4, 2, ' ', 0)
	for _, i := range items {
		if i.Set {
			fmt.Fprintf(w, "%s\t%s\t%s\n", i.Key, dash(i.Value), i.Origin)
		}
	}
	if err := w.Flush(); err != nil {
		return err
	}
	for _, name := range env.FileNames() {
		if v := env.Get(name); showKeys && home.IsSecretName(name) && v != "" {
			fmt.Fprintf(a.Out, "%s: %d characters, ends in …%s\n", name, len(v), v[max(0, len(v)-2):])
		}
	}
	for _, problem := range append(problems, a.envProblems...) {
		wrap(a.Out, "! ", problem.String())
	}
	return nil
}

// maxListed bounds the files that a dump names.
const maxListed = 300

// dumpFiles lists the profile's own files, without what stands in them.
func (a *App) dumpFiles(p home.Profile) error {
	n := 0
	return filepath.WalkDir(p.Home, func(path string, d fs.DirEntry, err error) error {
		rel, _ := filepath.Rel(p.Home, path)
		if err != nil {
			fmt.Fprintf(a.Out, "(not read: %s)\n", rel)
			return nil //nolint:nilerr // it is named, and the others are listed
		}
		deep := strings.Count(rel, string(filepath.Separator)) > 1
		if d.IsDir() && (deep || rel == "profiles" || rel == "config-history" || rel == "cache") {
			return filepath.SkipDir
		}
		info, ierr := d.Info()
		if d.IsDir() || ierr != nil {
			return nil //nolint:nilerr // one that is gone meanwhile
		}
		if n++; n > maxListed {
			fmt.Fprintln(a.Out, "…")
			return filepath.SkipAll
		}
		fmt.Fprintf(a.Out, "%s %9d %s %s\n", info.Mode(), info.Size(), info.ModTime().Format("2006-01-02 15:04:05"), rel)
		return nil
	})
}

// dumpLog prints the end of a log.
func (a *App) dumpLog(p home.Profile, name string, lines int) error {
	path, err := logFile(p.LogDir(), name)
	if err != nil {
		return err
	}
	end, err := logging.Tail(path, max(lines, 0), logging.Filter{})
	if domain.IsCode(err, domain.NotFound) {
		fmt.Fprintln(a.Out, "(there is none)")
		return nil
	}
	for _, line := range end {
		fmt.Fprintln(a.Out, line)
	}
	return err
}
