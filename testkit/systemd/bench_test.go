//go:build bench

package systemd

import (
	"encoding/json"
	"fmt"
	"os"
	"regexp"
	"runtime"
	"strings"
	"testing"
	"time"

	"hermes/testkit/box"
)

// rounds is how often each way of restarting is measured under one load. More
// would meet the unit's own start limit.
const rounds = 3

// way is one way of putting a new process in the place of the running one.
type way struct {
	name                                string
	act                                 func(p *profile, pid int) // nil: nothing happens
	failures, refused, lost, wait, chat string                    // budgets, "" for none
	maxFailed, maxRefused               int                       // -1: no limit
	longest, gap                        time.Duration             // 0: no limit
	starts                              bool                      // the start itself is of interest
}

var ways = []way{
	{name: "no restart", maxFailed: 0, failures: "0", refused: "0", lost: "0"},
	{name: "hand-over (`hermes gateway restart`)", failures: "0", refused: "0", lost: "0", chat: "≤ 1 s", gap: time.Second,
		act: func(p *profile, _ int) { p.cli("gateway restart") }},
	{name: "`systemctl --user restart`", maxFailed: -1, refused: "0", lost: "0",
		act: func(p *profile, _ int) { p.user.Run(p.t, "systemctl --user restart "+p.unit) }},
	{name: "`kill -9` of the main process", maxFailed: -1, refused: "0", lost: "0", starts: true,
		act: func(p *profile, pid int) { p.Root(p.t, fmt.Sprintf("kill -9 %d", pid)) }},
}

// TestBenchHandOver puts the same load on one generated unit for each way, and
// prints what became of it side by side with the budgets.
func TestBenchHandOver(t *testing.T) {
	if why := box.Missing(); why != "" {
		t.Skip("not measured: " + why)
	}
	m := newMachine(t)
	w := m.world(t, "bench")
	var table strings.Builder
	for i, way := range ways {
		t.Run(way.name, func(t *testing.T) { table.WriteString(way.measure(w.as(t, generated, fmt.Sprintf("b%d", i)))) })
	}
	text := page(table.String())
	fmt.Print(text)
	if out := os.Getenv("HERMES_BENCH_OUT"); out != "" && !t.Failed() {
		if err := os.WriteFile(out, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// measure gives the rows of one way.
func (y way) measure(p *profile) string {
	l := p.startLoad(fullPace, false)
	l.goOn()
	for range rounds {
		if y.act != nil {
			pid := p.mainPID()
			y.act(p, pid)
			p.awaitAnother(pid)
		}
		l.goOn()
		from := l.served.Load()
		p.until("the load to go on", func() bool { return l.served.Load() > from+400 })
	}
	failed := l.end()
	cut := 0
	for i, f := range failed {
		if i < 10 {
			p.t.Log(f)
		}
		if strings.Contains(f, "request") && !strings.Contains(f, "was refused") {
			cut++
		}
	}
	refused := int(l.refused.Load())
	longest, chat := time.Duration(l.longest.Load()), time.Duration(l.slowest.Load())
	var b strings.Builder
	line := func(what, budget, got string, ok bool) {
		mark := map[bool]string{true: "✓", false: "✗"}[ok]
		if budget == "" {
			mark = ""
		}
		fmt.Fprintf(&b, "| %s | %s | %s | %s | %s |\n", y.name, what, budget, got, mark)
		y.name = ""
	}
	line("requests served, messages answered", "", fmt.Sprintf("%d, %d", l.served.Load(), l.chatted.Load()), true)
	line("requests failed", y.failures, fmt.Sprint(cut), cut == 0)
	line("connections refused", y.refused, fmt.Sprint(refused), refused == 0)
	line("longest wait of a request", y.wait, round(longest), true)
	line("longest wait of a message for its answer (chat gap)", y.chat, round(chat), y.gap == 0 || chat <= y.gap)
	line("messages lost or doubled", y.lost, "0", !p.t.Failed())
	if y.starts {
		ready := p.readyTimes()
		most := 0
		for _, ms := range ready {
			most = max(most, ms)
		}
		line("new process: start to serving, most", "≤ 100 ms", fmt.Sprintf("%d ms", most), most <= 100)
	}
	return b.String()
}

// readyTimes reads from the log how long each start but the first took, in
// milliseconds.
func (p *profile) readyTimes() (out []int) {
	for _, found := range regexp.MustCompile(`ready_ms=(\d+)`).FindAllStringSubmatch(p.Read(p.file("logs/gateway.log")), -1) {
		var ms int
		_ = json.Unmarshal([]byte(found[1]), &ms) // digits
		out = append(out, ms)
	}
	return out[min(1, len(out)):]
}

func round(d time.Duration) string { return d.Round(time.Millisecond).String() }

func page(rows string) string {
	return fmt.Sprintf(`# Benchmarks of restarts

`+"`make bench-handover`"+` writes this page. In a container with a real systemd a generated
unit serves 200 requests a second, half of them on kept-alive connections, and a
chat message every 50 ms, while it is restarted %d times in each way. The load, the
fakes and systemd run on the same cores. After a `+"`kill -9`"+` systemd waits for
RestartSec=1 before it starts the unit again, which the longest waits include; a
request that the killed process had accepted dies with it and counts as failed.

| | |
|---|---|
| date | %s |
| machine | %d cores |
| Go | %s |

| way | what | budget | measured | |
|---|---|---|---|---|
%s`, rounds, time.Now().UTC().Format("2006-01-02"), runtime.NumCPU(), runtime.Version(), rows)
}
