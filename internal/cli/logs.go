package cli

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"hermes/internal/domain"
	"hermes/internal/logging"
)

func newLogsCommand(app *App) *cobra.Command {
	var (
		o struct {
			follow, asJSON                   bool
			lines                            int
			level, since, session, component string
		}
		tail bool
	)
	cmd := &cobra.Command{
		Use: "logs [gateway|errors|agent|NAME|list]", Short: "Print the end of a log, or follow it", Args: cobra.MaximumNArgs(1),
		Long:    "Print the end of a log (gateway.log if none is named) and return; -f goes on with what is written.",
		Example: "  hermes logs --tail\n  hermes logs errors --since 2h\n  hermes logs -f --component cron",
		RunE: func(cmd *cobra.Command, args []string) error {
			p, err := app.Profile()
			if err != nil {
				return err
			}
			name := "gateway"
			if len(args) == 1 {
				name = args[0]
			}
			if name == "list" {
				return app.listLogs(p.LogDir(), o.asJSON)
			}
			path, err := logFile(p.LogDir(), name)
			if err != nil {
				return err
			}
			filter := logging.Filter{Session: o.session, Component: o.component}
			if o.level != "" {
				level, err := logging.ParseLevel(o.level)
				if err != nil {
					return err
				}
				filter.Level = level
			}
			if o.since != "" {
				age, err := parseAge(o.since)
				if err != nil {
					return err
				}
				filter.Since = app.Now().Add(-age)
			}
			emit := app.emitLine(o.asJSON)
			if o.follow {
				if err := os.MkdirAll(p.LogDir(), 0o700); err != nil {
					return domain.E(domain.Unavailable, err, "the folder %s cannot be made", p.LogDir())
				}
				return logging.Follow(cmd.Context(), path, o.lines, filter, emit)
			}
			lines, err := logging.Tail(path, o.lines, filter)
			if err != nil {
				return err
			}
			for _, line := range lines {
				if err := emit(line); err != nil {
					return err
				}
			}
			return nil
		},
	}
	f := cmd.Flags()
	f.BoolVarP(&o.follow, "follow", "f", false, "go on with what is written")
	f.BoolVar(&tail, "tail", false, "print the end and return, which is what happens anyway")
	f.IntVarP(&o.lines, "lines", "n", 50, "lines to print")
	f.StringVar(&o.level, "level", "", "least `LEVEL`: debug, info, warning, error")
	f.StringVar(&o.since, "since", "", "not older than `AGE`: 45s, 30m, 1h, 2d")
	f.StringVar(&o.session, "session", "", "only lines whose session id holds `TEXT`")
	f.StringVar(&o.component, "component", "", "only `NAME`: gateway, agent, tools, cli, cron, or a part such as telegram")
	jsonFlag(cmd, &o.asJSON)
	return cmd
}

// emitLine prints lines, as JSON objects if asked.
func (a *App) emitLine(asJSON bool) func(string) error {
	return func(line string) error {
		if asJSON {
			if e, ok := logging.ParseLine(line, time.Local); ok {
				return a.compactJSON(e)
			}
			return a.compactJSON(map[string]string{"message": line})
		}
		_, err := fmt.Fprintln(a.Out, line)
		return err
	}
}

// logFile gives the file of a log's name. errors.log is what other versions
// call gateway.error.log.
func logFile(dir, name string) (string, error) {
	name = strings.TrimSuffix(name, ".log")
	if name == "" || strings.ContainsAny(name, `/\`) || strings.HasPrefix(name, ".") {
		return "", domain.E(domain.Invalid, nil, "%q is no log; `hermes logs list` names them", name)
	}
	path := filepath.Join(dir, name+".log")
	if name == "errors" && !exists(path) {
		path = filepath.Join(dir, "gateway.error.log")
	}
	return path, nil
}

// parseAge reads 45s, 30m, 1h, 2d.
func parseAge(s string) (time.Duration, error) {
	if days, ok := strings.CutSuffix(s, "d"); ok {
		if n, err := strconv.Atoi(days); err == nil && n >= 0 && n < 100_000 {
			return time.Duration(n) * 24 * time.Hour, nil
		}
	} else if d, err := time.ParseDuration(s); err == nil && d >= 0 {
		return d, nil
	}
	return 0, domain.E(domain.Invalid, nil, "%q is no age; write it as 45s, 30m, 1h or 2d", s)
}

func (a *App) listLogs(dir string, asJSON bool) error {
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return domain.E(domain.Unavailable, err, "the folder %s cannot be read", dir)
	}
	type row struct {
		Name     string    `json:"name"`
		Path     string    `json:"path"`
		Bytes    int64     `json:"bytes"`
		Modified time.Time `json:"modified"`
	}
	rows := []row{}
	for _, e := range entries {
		info, err := e.Info()
		if err == nil && info.Mode().IsRegular() && strings.HasSuffix(e.Name(), ".log") {
			rows = append(rows, row{strings.TrimSuffix(e.Name(), ".log"), filepath.Join(dir, e.Name()), info.Size(), info.ModTime()})
		}
	}
	if asJSON {
		return a.JSON(rows)
	}
	if len(rows) == 0 {
		fmt.Fprintf(a.Out, "No logs in %s yet.\n", dir)
		return nil
	}
	w := tabwriter.NewWriter(a.Out, 0, 4, 2, ' ', 0)
	for _, r := range rows {
		fmt.Fprintf(w, "%s\t%d KiB\t%s\t%s\n", r.Name, (r.Bytes+1023)/1024, r.Modified.Format("2006-01-02 15:04"), r.Path)
	}
	return w.Flush()
}
