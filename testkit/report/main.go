// Command report reads the output of `go test -json`, prints failures whole and
// a line for each package, and ends with the counts. With CI set it fails when
// any test was skipped: what can be installed must not be skipped.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"sort"
	"strings"
)

type event struct {
	Action, Package, Test, Output string
	Elapsed                       float64
}

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: report FILE")
		os.Exit(2)
	}
	f, err := os.Open(os.Args[1])
	if err != nil {
		fmt.Fprintln(os.Stderr, "report:", err)
		os.Exit(2)
	}
	defer f.Close()
	os.Exit(report(bufio.NewScanner(f)))
}

func report(in *bufio.Scanner) int {
	in.Buffer(make([]byte, 1<<20), 64<<20)
	output := map[string][]string{}
	var passed, failed, skipped int
	var skips, fails []string
	for in.Scan() {
		var e event
		if json.Unmarshal(in.Bytes(), &e) != nil {
			fmt.Println(in.Text()) // build errors
			continue
		}
		key := e.Package + " " + e.Test
		switch e.Action {
		case "output", "build-output":
			if lines := output[key]; len(lines) < 4000 {
				output[key] = append(lines, e.Output)
			}
		case "pass", "fail", "skip":
			if e.Test == "" {
				fmt.Printf("%-4s %s %.1fs\n", e.Action, e.Package, e.Elapsed)
				if e.Action == "fail" {
					fails = append(fails, key)
				}
				continue
			}
			switch e.Action {
			case "pass":
				passed++
				delete(output, key)
			case "fail":
				failed++
				fails = append(fails, key)
			case "skip":
				skipped++
				skips = append(skips, key+": "+reason(output[key]))
			}
		}
	}
	sort.Strings(skips)
	for _, s := range skips {
		fmt.Println("skipped", s)
	}
	for _, k := range fails {
		fmt.Printf("\n--- %s\n%s", k, strings.Join(output[k], ""))
	}
	fmt.Printf("\n%d passed, %d failed, %d skipped\n", passed, failed, skipped)
	if failed > 0 || len(fails) > 0 || passed == 0 {
		return 1
	}
	if os.Getenv("CI") != "" && skipped > 0 {
		fmt.Println("In CI nothing may be skipped; see above.")
		return 1
	}
	return 0
}

// reason is the text of t.Skip in a test's output.
func reason(lines []string) string {
	for _, l := range lines {
		if _, text, ok := strings.Cut(strings.TrimSpace(l), ".go:"); ok {
			if _, text, ok = strings.Cut(text, ": "); ok {
				return text
			}
		}
	}
	return "no reason given"
}
