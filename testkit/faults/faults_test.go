package faults

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"hermes/internal/doctor"
)

var update = flag.Bool("update", false, "write docs/faults.md from what was seen")

// fault is one way to break an installation.
type fault struct {
	what  string // what was done, for people
	id    string // of the finding that must come first
	class doctor.Class
	shape shape
	ask   []string // further arguments of doctor
	needs string   // a program that must be there
	shows []string // what the finding must tell beside its ID
	// break does it for real. What is only seen once a running gateway has
	// noticed, it waits for.
	inject func(w *world)
	fill   map[string]string // what an operator fills into the fix
	hand   func(w *world)    // what the fix says is to be done elsewhere
	later  func(w *world)    // what comes to pass elsewhere after the fix
	// fixes is how many fixes it takes, 0 for one: a mistake may have hidden
	// another one.
	fixes int
	// after holds more of what must be well then than doctor looks at.
	after func(w *world)
}

// outcome is what was seen of a fault.
type outcome struct {
	fault  fault
	place  int    // of the right finding in the answer, from 1
	fix    string // with this machine's paths taken out
	healed bool
}

// TestFaults injects each fault, asks, follows the answer, and asks again.
func TestFaults(t *testing.T) {
	var mu sync.Mutex
	seen := map[string]outcome{}
	all := slices.Concat(scopeFaults(), providerFaults(), transportFaults(), serviceFaults(), unitFaults(), schedulerFaults(), deliveryFaults(), updateFaults(), rootFaults(false))
	t.Run("each", func(t *testing.T) {
		for _, f := range all {
			t.Run(f.id+"/"+strings.ReplaceAll(f.what, "/", "∕"), func(t *testing.T) {
				t.Parallel()
				o := f.run(t)
				mu.Lock()
				defer mu.Unlock()
				seen[f.what] = o
			})
		}
	})
	if t.Failed() {
		return
	}
	if len(seen) < len(all) && !*update {
		return // only some were looked at
	}
	if os.Getuid() != 0 {
		return // the document tells of those too that need root
	}
	document(t, "temporary homes", all, seen)
}

// run goes through one fault.
func (f fault) run(t *testing.T) outcome {
	if _, err := exec.LookPath(f.needs); f.needs != "" && err != nil {
		t.Skipf("%s is needed for that", f.needs)
	}
	w := setUp(t, f.shape)
	for k, v := range f.fill {
		w.fill[k] = v
	}
	f.inject(w)
	r := w.first(f.id, f.ask)
	o := outcome{fault: f, place: 1 + slices.IndexFunc(r.Findings, func(x doctor.Finding) bool { return x.ID == f.id })}
	first := r.Findings[0]
	if first.Class != f.class {
		t.Errorf("its class is %s", first.Class)
	}
	if first.What == "" || first.Means == "" || first.Fix == "" || len(first.Evidence) == 0 {
		t.Errorf("the finding is not whole: %+v", first)
	}
	told := first.What + "\n" + strings.Join(first.Evidence, "\n")
	for _, part := range f.shows {
		if !strings.Contains(told, part) {
			t.Errorf("the finding does not tell %q:\n%s", part, told)
		}
	}
	if shown := w.shown(f.ask); strings.Contains(shown, "\t") || tooWide(shown) != "" {
		t.Errorf("the answer is wider than 80 columns: %s\n%s", tooWide(shown), shown)
	}
	if f.hand != nil {
		f.hand(w)
	}
	o.fix = w.anonymous(first.Fix)
	w.follow(first.Fix)
	for range max(f.fixes, 1) - 1 {
		next := w.doctor(f.ask...)
		if len(next.Findings) == 0 {
			t.Error("one fix was enough")
			break
		}
		w.follow(next.Findings[0].Fix)
	}
	if f.later != nil {
		f.later(w)
	}
	o.healed = w.well(f.ask)
	if f.after != nil {
		f.after(w)
	}
	return o
}

// first asks until the answer begins with a finding, since a running gateway
// may need a moment to notice.
func (w *world) first(id string, ask []string) doctor.Report {
	w.t.Helper()
	w.said = "-"
	var r doctor.Report
	w.until("doctor to say first "+id, func() bool {
		r = w.doctor(ask...)
		return len(r.Findings) > 0 && r.Findings[0].ID == id || w.settled(r)
	})
	if len(r.Findings) == 0 || r.Findings[0].ID != id {
		w.t.Fatalf("doctor does not say %s first:\n%s\n%s", id, w.shown(ask), w.logs())
	}
	return r
}

// settledAfter is how long the same must be said until waiting is given up.
const settledAfter = 15 * time.Second

// settled tells whether waiting longer cannot change the answer.
func (w *world) settled(r doctor.Report) bool {
	key := ""
	for _, f := range r.Findings {
		key += f.ID + " "
	}
	if key != w.said {
		w.said, w.since = key, time.Now()
	}
	return time.Since(w.since) > settledAfter
}

// well asks until nothing is wrong.
func (w *world) well(ask []string) bool {
	w.t.Helper()
	w.said = "-"
	var r doctor.Report
	w.until("all to be well", func() bool { r = w.doctor(ask...); return open(r) == 0 || w.settled(r) })
	if open(r) > 0 {
		w.t.Errorf("something is still wrong:\n%s\n%s", w.shown(ask), w.logs())
	}
	return open(r) == 0
}

// open counts the findings that nobody has acknowledged.
func open(r doctor.Report) (n int) {
	for _, f := range r.Findings {
		if f.Acknowledged == nil {
			n++
		}
	}
	return n
}

// shown is what a person sees.
func (w *world) shown(ask []string) string {
	out, _ := w.home.Run(w.deadline(), w.args(append([]string{"doctor"}, ask...)...)...)
	w.search("doctor", out)
	return out
}

// tooWide gives a line over 80 columns; commands are not folded.
func tooWide(text string) string {
	for line := range strings.Lines(text) {
		if !strings.Contains(line, "     fix ") && !strings.Contains(line, "/") && len([]rune(strings.TrimRight(line, "\n"))) > 80 {
			return line
		}
	}
	return ""
}

// anonymous takes this machine's paths and numbers out of a command.
func (w *world) anonymous(fix string) string {
	fix = tokenURL.ReplaceAllString(fix, "--token-url https://auth.example.org/token")
	fix = strings.NewReplacer(w.home.Binary, "/usr/local/bin/hermes", w.dir, "~", fmt.Sprint(w.port), "8642").Replace(newPort.ReplaceAllString(fix, "API_SERVER_PORT 8643"))
	return numbers.ReplaceAllString(fix, "${1}…")
}

// document writes the table of a part of the corpus, or holds that it is up to
// date. The rows of what was not looked at this time stay as they are.
func document(t *testing.T, where string, all []fault, seen map[string]outcome) {
	t.Helper()
	path := filepath.Join("..", "..", "docs", "faults.md")
	old, err := os.ReadFile(path)
	if err != nil && !*update {
		t.Fatal(err)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "## On %s\n\n| what was done | class | first finding | place | fix that was followed | fixes | healthy after |\n|---|---|---|---|---|---|---|\n", where)
	for _, f := range all {
		o, looked := seen[f.what]
		if !looked {
			b.WriteString(rowOf(string(old), f.what))
			continue
		}
		healed := "yes"
		if !o.healed {
			healed = "**no**"
		}
		fmt.Fprintf(&b, "| %s | %s | `%s` | %d | `%s` | %d | %s |\n", f.what, f.class, f.id, o.place, strings.ReplaceAll(o.fix, "|", `\|`), max(f.fixes, 1), healed)
	}
	want := splice(string(old), where, b.String())
	if string(old) == want {
		return
	}
	if !*update {
		t.Errorf("%s is not what was seen; write it anew with `go test ./testkit/faults -update`\n%s", path, b.String())
		return
	}
	if err := os.WriteFile(path, []byte(want), 0o644); err != nil {
		t.Fatal(err)
	}
}

// rowOf is the row of a fault as it stands in the document, "" for none.
func rowOf(document, what string) string {
	for line := range strings.Lines(document) {
		if strings.HasPrefix(line, "| "+what+" |") {
			return line
		}
	}
	return ""
}

const heading = "# Faults\n\n" +
	"Written by `go test ./testkit/faults -update` from what was seen; do not edit. Each\n" +
	"row is an installation that was broken for real with the real binary: `hermes doctor`\n" +
	"was asked, the fix of its first finding was carried out as it was printed (what stands\n" +
	"in <…> filled in), and doctor was asked again. Sound installations of every shape give\n" +
	"no finding; `healthy_test.go` beside it lists them.\n"

// splice replaces one section of the document.
func splice(old, where, section string) string {
	mark := "## On " + where + "\n"
	var others []string
	for part := range strings.SplitSeq(old, "\n## On ") {
		if part = "## On " + strings.TrimSpace(part) + "\n"; !strings.HasPrefix(part, mark) && !strings.HasPrefix(part, "## On # ") && part != "## On \n" {
			others = append(others, part)
		}
	}
	others = append(others, section)
	slices.Sort(others)
	slices.Reverse(others)
	return heading + "\n" + strings.Join(others, "\n")
}
