package handover

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"hermes/internal/failpoint"
	"hermes/internal/gateway"
	"hermes/testkit/llm"
	"hermes/testkit/rig"
	"hermes/testkit/telegram"
)

// stopLimit is the TimeoutStopSec of a hand-written unit.
const stopLimit = 20 * time.Second

// TestSignalsAtEveryStage stops a gateway at each stage of its start and of its
// stop, by each signal that asks for it, and again while it stops: it leaves in
// order, in time, with code 0, and what was said to it meanwhile is answered once
// by the next.
func TestSignalsAtEveryStage(t *testing.T) {
	w := prepare(t, "overlap", binary(t, "failpoint"))
	asked := map[string]telegram.User{} // by what was said
	for i, mark := range failpoint.Life() {
		for _, signal := range []string{"term", "hup"} {
			name := mark + "/" + signal
			id := fmt.Sprintf("e%d%s", i, signal)
			asked[id] = w.tg.AddUser("Person " + id)
			w.tg.Say(asked[id], "say "+id)
			marks := mark + ":1:" + signal
			if mark != failpoint.StopBegun {
				marks += "," + failpoint.StopBegun + ":1:" + signal // the second
			}
			if strings.HasPrefix(mark, "stop.") {
				marks += "," + failpoint.StartServing + ":1:" + signal // the first
			}
			p := w.launch("HERMES_FAILPOINT=" + marks)
			limit := time.NewTimer(stopLimit)
			select {
			case <-p.Done():
				limit.Stop()
			case <-limit.C:
				t.Fatalf("%s: it does not end\n%s", name, tail(p.Output()))
			}
			if code := p.Cmd.ProcessState.ExitCode(); code != 0 {
				t.Errorf("%s: %s\n%s", name, p.Cmd.ProcessState, tail(p.Output()))
			}
			if _, err := os.Stat(filepath.Join(w.home.Dir, "gateway.pid")); err == nil {
				t.Errorf("%s: it left its PID file", name)
			}
			if r, ok := gateway.LastExit(filepath.Join(w.home.Dir, "logs")); !ok || r.Code != 0 || r.PID != p.Cmd.Process.Pid {
				t.Errorf("%s: exit record %+v", name, r)
			}
			var state struct {
				State string `json:"gateway_state"`
			}
			if text, err := os.ReadFile(filepath.Join(w.home.Dir, "gateway_state.json")); err == nil && (json.Unmarshal(text, &state) != nil || state.State != "stopped") {
				t.Errorf("%s: gateway_state.json says %s", name, text)
			}
		}
	}
	w.start()
	for id, person := range asked {
		if err := w.answered(person, id); err != nil {
			t.Fatalf("%s: %v\n%s", id, err, w.tg.Transcript(person.ID))
		}
		if n := strings.Count(w.tg.Transcript(person.ID)+"\n", ": answer "+id+"\n"); n != 1 {
			t.Errorf("%s was answered %d times", id, n)
		}
	}
}

// A turn that would go on for ever, in a command that ignores SIGTERM, is left
// for the next life within the time that a hand-written unit gives.
func TestStopOfAnEndlessTurn(t *testing.T) {
	t.Parallel()
	w := prepare(t, "overlap", binary(t, ""))
	w.brain.SetBrain(llm.ToolThenAnswer("terminal", `{"command":"trap '' TERM INT; echo begun >begun; while :; do sleep 1; done"}`, "it said: "))
	w.start()
	ann := w.tg.AddUser("Ann")
	w.tg.Say(ann, "begin")
	w.until("the command runs", func() bool {
		found, _ := filepath.Glob(filepath.Join(w.home.Dir, "*", "begun"))
		_, err := os.Stat(filepath.Join(filepath.Dir(w.home.Dir), "begun"))
		return err == nil || len(found) > 0
	})
	ctx, cancel := rig.Deadline(stopLimit)
	defer cancel()
	began := time.Now()
	if code, err := w.first.Stop(ctx); err != nil || code != 0 {
		t.Errorf("exit %d: %v", code, err)
	}
	t.Logf("stopped after %s", time.Since(began))
	w.until("the command has ended too", func() bool { return len(w.alive()) == 0 })
}
