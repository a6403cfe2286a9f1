package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"hermes/internal/control"
	"hermes/internal/gateway"
	"hermes/testkit/llm"
)

// lastExit is the last line of gateway-exit-diag.log.
func (w *world) lastExit() (r gateway.ExitRecord) {
	w.t.Helper()
	text, err := os.ReadFile(filepath.Join(w.home.Dir, "logs", "gateway-exit-diag.log"))
	if err != nil {
		w.t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	if err := json.Unmarshal([]byte(lines[len(lines)-1]), &r); err != nil {
		w.t.Fatalf("%v in %q", err, lines[len(lines)-1])
	}
	return r
}

// Every way in which a terminal or an operator ends a gateway drains it: the
// answer under way is given, and the exit is clean and recorded.
func TestSignalsDrain(t *testing.T) {
	for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP} {
		t.Run(sig.String(), func(t *testing.T) {
			t.Parallel()
			gate := llm.NewGate()
			w := setUp(t, options{brain: func(r llm.Request) llm.Reply { return llm.Reply{Text: "answer to " + r.LastUser(), Before: gate.Pass} }})
			p := w.start()
			ann := w.tg.AddUser("Ann")
			w.tg.Say(ann, "before the end")
			<-gate.Arrived()
			if err := p.Cmd.Process.Signal(sig); err != nil {
				t.Fatal(err)
			}
			w.waitOutput(p, "gateway stopping")
			gate.Open()
			w.ended(p, 0)
			if n := w.count(ann.ID, "answer to before the end"); n != 1 {
				t.Errorf("the answer under way was shown %d times\n%s", n, p.Output())
			}
			if r := w.lastExit(); r.Code != 0 || r.Tag != "gateway.exit" || r.Reason == "" {
				t.Errorf("exit record %+v", r)
			}
		})
	}
}

// A signal during the start, and a second one during the drain, change nothing:
// the exit is clean.
func TestSignalsAtBadMoments(t *testing.T) {
	t.Parallel()
	w := setUp(t, options{})
	for range 3 {
		p := w.launch(nil, "gateway", "run")
		w.eventually("the process takes the profile", func() bool {
			_, err := os.Stat(filepath.Join(w.home.Dir, "gateway.pid"))
			return err == nil
		})
		_ = p.Cmd.Process.Signal(syscall.SIGTERM)
		_ = p.Cmd.Process.Signal(syscall.SIGTERM)
		w.ended(p, 0)
	}
	gate := llm.NewGate()
	w.brain.SetBrain(func(r llm.Request) llm.Reply { return llm.Reply{Text: "slowly " + r.LastUser(), Before: gate.Pass} })
	p := w.start()
	ann := w.tg.AddUser("Ann")
	w.tg.Say(ann, "one")
	<-gate.Arrived()
	for range 3 {
		_ = p.Cmd.Process.Signal(syscall.SIGTERM)
	}
	w.waitOutput(p, "gateway stopping")
	_ = p.Cmd.Process.Signal(syscall.SIGHUP)
	gate.Open()
	w.ended(p, 0)
	if n := w.count(ann.ID, "slowly one"); n != 1 {
		t.Errorf("shown %d times", n)
	}
}

// nohup ignores SIGHUP for what it starts, and that must stay so.
func TestNohupSurvivesTheTerminal(t *testing.T) {
	t.Parallel()
	w := setUp(t, options{})
	binary := w.home.Binary
	w.home.Binary = "/usr/bin/nohup"
	p := w.launch(nil, binary, "gateway", "run")
	w.home.Binary = binary
	if err := p.Ready(w.deadline()); err != nil {
		t.Fatal(err)
	}
	_ = p.Cmd.Process.Signal(syscall.SIGHUP)
	ann := w.tg.AddUser("Ann")
	w.tg.Say(ann, "still there?")
	w.sees(ann.ID, "still there?")
	w.stop(p)
}

// A reader of the output that goes away (a pipe to a pager, a log collector that
// restarts) never ends the gateway; see SIGPIPE in the documentation of os/signal.
func TestALostReaderOfTheOutputIsSurvived(t *testing.T) {
	t.Parallel()
	w := setUp(t, options{})
	r, out, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	cmd := w.home.Command(w.deadline(), "gateway", "run", "-v")
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	w.waitStatus("it runs", func(s control.Status) bool { return s.State == "running" })
	r.Close()
	ann := w.tg.AddUser("Ann")
	for i := range 3 {
		w.tg.Say(ann, fmt.Sprintf("message %d", i))
		w.sees(ann.ID, fmt.Sprintf("message %d", i))
	}
	if text, code := w.run("gateway", "stop"); code != 0 {
		t.Errorf("stop: %d %s", code, text)
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("the gateway ended by %v", err)
	}
}

// What ended the last life is told, also when it could not tell itself, and an
// attempt that was refused does not hide it.
func TestTheLastExitIsTold(t *testing.T) {
	t.Parallel()
	w := setUp(t, options{})
	p := w.start()
	w.stop(p)
	p = w.start()
	pid := p.Cmd.Process.Pid
	p.Kill()
	unclean := fmt.Sprintf("PID %d ended without a clean stop", pid)
	if out, code := w.run("gateway", "status"); code == 0 || !strings.Contains(strings.Join(strings.Fields(out), " "), unclean) {
		t.Errorf("after kill -9: exit %d\n%s", code, out)
	}
	p = w.start()
	if out, code := w.run("gateway", "run"); code != 1 {
		t.Errorf("a second instance: exit %d\n%s", code, out)
	}
	if s, code := w.status(); code != 0 || !strings.Contains(s.LastExit, unclean) {
		t.Errorf("exit %d, last exit %q", code, s.LastExit)
	}
	_ = p.Cmd.Process.Signal(syscall.SIGABRT) // the runtime dies with a dump of its goroutines
	<-p.Done()
	p = w.start()
	w.waitOutput(p, "ended in a crash")
	if s, _ := w.status(); !strings.Contains(s.LastExit, "crash") {
		t.Errorf("last exit %q", s.LastExit)
	}
	w.stop(p)
	if out, _ := w.run("gateway", "status"); !strings.Contains(out, "asked to stop") && !strings.Contains(out, "SIGTERM") && !strings.Contains(out, "terminated") {
		t.Errorf("after a clean stop:\n%s", out)
	}
}
