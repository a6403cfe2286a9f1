package rescue

import (
	"context"
	"fmt"
	"strings"
	"testing"
)

const kept = "/home/ada/.local/share/hermes/rescue/hermes"

// A unit that has ended for good is told of, once, and brought back by the
// program that served last, whatever became of the installed one.
func testRescue(t *testing.T, w *world) {
	if out := w.user.Run(t, "systemd-analyze --user verify ~/.config/systemd/user/hermes-rescue@.service ~/.config/systemd/user/"+unit+" 2>&1"); strings.TrimSpace(out) != "" {
		t.Errorf("systemd-analyze verify complains: %s", out)
	}
	w.user.Run(t, "mkdir -p "+strings.TrimSuffix(kept, "/hermes")+" && cp "+good+" "+kept)

	t.Run("PanicsBeforeMain", func(t *testing.T) {
		w := w.in(t)
		w.place(bad)
		w.kill()
		w.serves(kept)
		w.told("hermes-gateway-liam", "went down and was brought back", "5 times", "panic: spoiled by the test", "PID "+w.property("MainPID"))
		w.rescued()
		w.quiet()
		want(t, w.user.Run(t, good+" -p liam gateway status"), "90-hermes-rescue.conf", "rescue")
	})
	t.Run("BackToTheInstalled", func(t *testing.T) {
		w := w.in(t)
		// While that is spoiled, the one that serves goes on.
		want(t, w.user.Fails(t, good+" -p liam gateway restart"), "ended before it could serve")
		w.serves(kept)
		w.place(good)
		want(t, w.user.Run(t, "hermes -p liam gateway restart"), "✓ Restarted")
		w.serves(program)
		if got := w.property("DropInPaths"); strings.Contains(got, "rescue") {
			t.Errorf("the override is left: %s", got)
		}
		w.quiet()
	})
	t.Run("NoProgram", func(t *testing.T) {
		w := w.in(t)
		w.another()
		w.Root(t, "rm "+program)
		w.kill()
		w.serves(kept)
		w.told("cannot be run (status 203/EXEC)", program+" is missing", "went down and was brought back")
		w.rescued()
		w.quiet()
		w.place(good)
		want(t, w.user.Run(t, "hermes -p liam gateway restart"), "✓ Restarted")
		w.serves(program)
	})
	t.Run("Uninstall", func(t *testing.T) {
		w := w.in(t)
		want(t, w.user.Run(t, "hermes -p liam gateway uninstall"), "✓ Removed /home/ada/.config/systemd/user/hermes-rescue@.service")
		w.quiet()
	})
}

// another makes what comes next an incident of its own: the last one is as good
// as old.
func (w *world) another() {
	w.user.Run(w.t, "rm -f "+w.file("rescue.json"))
	w.user.Run(w.t, "systemctl --user reset-failed "+unit)
	w.Until(w.t, limit, "the override to be gone", func(context.Context) error {
		if got := w.property("DropInPaths"); strings.Contains(got, "rescue") {
			return fmt.Errorf("%s", got)
		}
		return nil
	})
}
