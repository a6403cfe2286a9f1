// Command bench measures the real binary against the budgets and writes a
// table with the command, the machine and the medians. The fakes and the load
// run in this process, on the same cores as the gateway, which the figures
// therefore include.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"time"
)

func main() {
	binary := flag.String("binary", "build/hermes", "the binary to measure")
	out := flag.String("out", "", "Markdown file to write; standard output always gets the table")
	rounds := flag.Int("rounds", 5, "runs of each figure; the median is quoted")
	only := flag.String("only", "", "run only figures whose name contains this")
	flag.Parse()
	abs, err := filepath.Abs(*binary)
	if err == nil {
		_, err = os.Stat(abs)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(2)
	}
	dir, err := os.MkdirTemp("", "hermes-bench-")
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(2)
	}
	defer os.RemoveAll(dir)
	b := &bench{binary: abs, dir: dir, rounds: *rounds}
	var rows []row
	failed := false
	for _, f := range figures {
		if *only != "" && !strings.Contains(f.name, *only) {
			continue
		}
		fmt.Fprintf(os.Stderr, "bench: %s\n", f.name)
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
		r, err := f.measure(ctx, b)
		cancel()
		if err != nil {
			fmt.Fprintf(os.Stderr, "bench: %s: %v\n", f.name, err)
			r = []row{{what: f.name, got: "not measured: " + firstLine(err.Error()), state: "?"}}
			failed = true
		}
		rows = append(rows, r...)
		for _, x := range r {
			fmt.Fprintf(os.Stderr, "       %-60s %-40s %s\n", x.what, x.got, x.budget)
		}
	}
	text := report(rows, *rounds)
	fmt.Print(text)
	if *out != "" {
		if err := os.WriteFile(*out, []byte(text), 0o644); err != nil {
			fmt.Fprintln(os.Stderr, "bench:", err)
			os.Exit(1)
		}
	}
	if failed {
		os.Exit(1)
	}
}

func firstLine(s string) string {
	s, _, _ = strings.Cut(s, "\n")
	return s
}

// row is a line of the table.
type row struct{ what, budget, got, state string }

// figure measures one or more rows.
type figure struct {
	name    string
	measure func(ctx context.Context, b *bench) ([]row, error)
}

// figures are measured in this order.
var figures = []figure{
	{"binary", measureBinary},
	{"version", measureVersion},
	{"start", measureStart},
	{"idle", measureIdle},
	{"telegram", measureTelegram},
	{"crash", measureCrash},
	{"api", measureAPI},
	{"turns", measureTurns},
	{"streams", measureStreams},
	{"cron", measureCron},
}

func report(rows []row, rounds int) string {
	var b strings.Builder
	fmt.Fprintf(&b, `# Benchmarks

`+"`make bench`"+` writes this page. It runs the real binary in throw-away homes against
the fakes of `+"`testkit/`"+`, which run in the measuring process on the same cores:
the figures include what the fakes and the load cost. Medians of %d runs, with
the least and the greatest in brackets; on a shared machine compare medians and
ratios, not single figures.

| | |
|---|---|
| date | %s |
| machine | %s, %d cores, %s |
| Go | %s |

| what | budget | measured | |
|---|---|---|---|
`, rounds, time.Now().UTC().Format("2006-01-02"), cpu(), runtime.NumCPU(), kernel(), runtime.Version())
	for _, r := range rows {
		fmt.Fprintf(&b, "| %s | %s | %s | %s |\n", r.what, r.budget, r.got, r.state)
	}
	return b.String()
}

func cpu() string {
	text, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return runtime.GOARCH
	}
	for _, l := range strings.Split(string(text), "\n") {
		if name, value, ok := strings.Cut(l, ":"); ok && strings.TrimSpace(name) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return runtime.GOARCH
}

func kernel() string {
	out, err := exec.Command("uname", "-sr").Output()
	if err != nil {
		return runtime.GOOS
	}
	return strings.TrimSpace(string(out))
}
