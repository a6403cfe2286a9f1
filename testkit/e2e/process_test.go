package e2e

import (
	"strings"

	"hermes/testkit/rig"
)

// waitOutput waits until a process printed a text.
func (w *world) waitOutput(p *rig.Process, text string) {
	w.t.Helper()
	w.eventually("the process prints "+text, func() bool { return strings.Contains(p.Output(), text) })
}

// ended waits for the end of a process and holds its exit code.
func (w *world) ended(p *rig.Process, code int) {
	w.t.Helper()
	select {
	case <-p.Done():
	case <-w.deadline().Done():
		w.t.Fatalf("the process does not end\n%s", p.Output())
	}
	if got := p.Cmd.ProcessState.ExitCode(); got != code {
		w.t.Fatalf("exit %d (%s), want %d\n%s", got, p.Cmd.ProcessState, code, p.Output())
	}
}
