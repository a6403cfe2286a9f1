package systemd

import (
	"context"
	"fmt"
	"strconv"
	"testing"
)

// The hand-overs of one test, and the streams that are open over each.
const (
	handOvers = 20
	streams   = 50
)

// unitState is what a planned restart must not change.
type unitState struct{ restarts, wentDown, began, stored string }

func (p *profile) state() unitState {
	p.t.Helper()
	if !p.mode.managed() {
		return unitState{}
	}
	return unitState{p.show("NRestarts"), p.show("InactiveEnterTimestampMonotonic"), p.show("ActiveEnterTimestampMonotonic"), p.show("NFileDescriptorStore")}
}

// A generated unit under load: every planned restart, whoever asks for it,
// leaves no trace but a new process.
func testHandOverUnderLoad(t *testing.T, w *world) {
	p := w.as(t, generated, "liam")
	want(t, p.cli("gateway status"), "✓ Gateway (liam)", p.unit+" (user unit), active (running), enabled")
	for property, value := range map[string]string{"Type": "notify", "NotifyAccess": "main", "NFileDescriptorStore": "1", "StatusText": "serving profile liam, version test"} {
		if got := p.show(property); got != value {
			t.Errorf("%s is %q, not %q", property, got, value)
		}
	}
	if armed := p.show("WatchdogTimestampMonotonic"); armed == "0" || p.show("WatchdogUSec") == "0" {
		t.Errorf("the watchdog is not fed: %s", armed)
	}
	before := p.state()
	for range 2 {
		p.restart()
	}
	p.atRest(1<<20, 1<<20)
	memory, files := p.footprint()
	l := p.startLoad(fullPace, false)
	l.goOn()
	for i := range handOvers {
		p.replacedOverStreams(l, p.word(fmt.Sprintf("s%d", i)), func() {
			want(t, p.cli("gateway restart"), "✓ Restarted hermes-gateway-liam")
		})
	}
	for i := range 2 {
		p.replacedOverStreams(l, p.word(fmt.Sprintf("reload%d", i)), func() { p.user.Run(t, "systemctl --user reload "+p.unit) })
	}
	ann := p.tg.AddUser("Ann")
	p.replacedOverStreams(l, p.word("chat"), func() {
		p.tg.Say(ann, "/restart")
		if err := p.sees(ann, "♻️ I am back (version…"); err != nil {
			t.Error(err)
		}
	})
	pid := p.mainPID()
	p.user.Run(t, "systemctl --user daemon-reload")
	p.user.Run(t, "systemctl --user daemon-reexec")
	p.user.AwaitManager(t)
	l.goOn()
	if now := p.mainPID(); now != pid {
		t.Errorf("daemon-reload and daemon-reexec changed the main PID from %d to %d", pid, now)
	}
	l.finish()
	p.restart() // like is compared with like: a process that has had no load
	p.atRest(memory*3/2, files+3)
	lastMemory, lastFiles := p.footprint()
	t.Logf("at rest %d KiB and %d files before, %d KiB and %d files after %d hand-overs under load", memory, files, lastMemory, lastFiles, handOvers)
	if after := p.state(); after != before {
		t.Errorf("the unit was %+v and is %+v", before, after)
	}
	want(t, p.cli("gateway status"), "✓ Gateway (liam)")
}

// atRest waits until nothing lingers of the load: one process, that uses no more
// than this.
func (p *profile) atRest(memory, files int) {
	p.t.Helper()
	p.aloneSoon()
	p.Until(p.t, stepLimit, "the gateway to be at rest", func(context.Context) error {
		if m, f := p.footprint(); m > memory || f > files {
			return fmt.Errorf("it uses %d KiB and %d files, and used %d and %d", m, f, memory, files)
		}
		return nil
	})
}

// footprint is the resident memory in KiB and the number of open files of the
// main process.
func (p *profile) footprint() (memory, files int) {
	p.t.Helper()
	out := p.Root(p.t, fmt.Sprintf("sed -n 's/^VmRSS://p' /proc/%[1]d/status; ls /proc/%[1]d/fd | wc -l", p.mainPID()))
	if _, err := fmt.Sscanf(out, "%d kB\n%d", &memory, &files); err != nil {
		p.t.Fatalf("%q: %v", out, err)
	}
	return memory, files
}

// replacedOverStreams replaces the main process while streams are open, and
// holds that there is another and that the streams live on.
func (p *profile) replacedOverStreams(l *load, id string, replace func()) {
	p.t.Helper()
	open := p.openStreams(streams, id)
	before := p.mainPID()
	replace()
	p.until("another main process", func() bool {
		pid, err := strconv.Atoi(p.show("MainPID"))
		return err == nil && pid != before && pid != 0
	})
	l.goOn()
	close(p.gate(id))
	for _, s := range open {
		if err := s.rest(id); err != nil {
			p.t.Errorf("%s: %v", id, err)
		}
	}
}
