//go:build systemd

package systemd

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"hermes/testkit/rig"
)

// What an agent runs cannot end its gateway: it is refused with the reason, or
// harmless, however it is wrapped.
func testSelfHarm(t *testing.T, w *world) {
	p := w.profile(t, "self", 8660)
	p.install()
	p.awaitServing()
	pid, before := p.mainPID(), p.state()
	u := p.tg.AddUser("Eve")
	verbs := map[string]string{
		"command":   "hermes -p self gateway restart",
		"stop":      "hermes -p self gateway stop",
		"replace":   "hermes -p self gateway run --replace",
		"shell":     `bash -c "hermes -p self gateway restart"`,
		"base64":    "echo aGVybWVzIC1wIHNlbGYgZ2F0ZXdheSByZXN0YXJ0Cg== | base64 -d | bash",
		"script":    "printf 'hermes -p self gateway restart\\n' >s.sh; sh s.sh",
		"away":      "setsid -w hermes -p self gateway stop",
		"socket":    "curl -sS -m 5 -X POST --unix-socket " + p.file("gateway.sock") + " http://x/v1/restart; curl -sS -m 5 -X POST --unix-socket " + p.file("gateway.sock") + " http://x/v1/stop",
		"parent":    "kill $PPID",
		"systemctl": "systemctl --user stop " + p.unit,
	}
	for name, command := range verbs {
		p.tg.Say(u, "run "+command)
		if err := p.sees(u, "it said…"); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		said := p.tg.Replies(u.ID)
		t.Logf("%s: %s", name, said[len(said)-1].Text)
		if now := p.mainPID(); now != pid || p.state() != before {
			t.Errorf("%s: the unit was %+v with PID %d and is %+v with %d", name, before, pid, p.state(), now)
			p.user.Run(t, "systemctl --user reset-failed "+p.unit+"; systemctl --user start "+p.unit)
			p.awaitServing()
			pid, before = p.mainPID(), p.state()
		}
		u = p.tg.AddUser("Eve")
	}
	// A kill that no analysis sees through is a restart, and no more: the turn is
	// answered, here or after it.
	p.tg.Say(u, "run pkill -f 'profile self gateway'")
	p.awaitAnother(pid)
	p.awaitServing()
	if err := p.sees(u, "it said…"); err != nil {
		t.Error(err)
	}
}

// A stop ends what tools left behind, whatever they ignore and wherever they
// went, in time.
func testStubbornTools(t *testing.T, w *world) {
	p := w.profile(t, "stub", 8661)
	p.install()
	p.awaitServing()
	u := p.tg.AddUser("Ann")
	p.tg.Say(u, `run trap "" TERM INT HUP; setsid sh -c 'trap "" TERM; touch /tmp/stub.away; while :; do sleep 1; done' & touch /tmp/stub.here; while :; do sleep 1; done`)
	p.until("the tool to run", func() bool { return p.has("/tmp/stub.here") && p.has("/tmp/stub.away") })
	cgroup := p.show("ControlGroup")
	if n := p.inGroup(cgroup); n < 3 {
		t.Fatalf("only %d processes in %s", n, cgroup)
	}
	began := time.Now()
	p.user.Run(t, "systemctl --user stop "+p.unit)
	if took := time.Since(began); took > 20*time.Second {
		t.Errorf("the stop took %s", took)
	}
	if got := p.show("Result") + " " + p.show("ActiveState"); got != "success inactive" {
		t.Errorf("after a stop the unit is %s", got)
	}
	if n := p.inGroup(cgroup); n != 0 {
		t.Errorf("%d processes are left in %s", n, cgroup)
	}
}

// has tells whether a file is there.
func (p *profile) has(path string) bool {
	ctx, cancel := rig.Deadline(stepLimit)
	defer cancel()
	_, err := p.Try(ctx, "test -e "+path)
	return err == nil
}

// inGroup counts the processes of a control group and of those beneath it.
func (p *profile) inGroup(group string) int {
	ctx, cancel := rig.Deadline(stepLimit)
	defer cancel()
	out, _ := p.Try(ctx, "grep -ls '"+group+"' /proc/[0-9]*/cgroup") // some end meanwhile
	return len(strings.Fields(out))
}

// Commands return in time, and say what they could not learn, when the user's
// bus does not answer.
func testSilentBus(t *testing.T, w *world) {
	p := w.profile(t, "bus", 8663)
	p.install()
	p.awaitServing()
	pid := p.mainPID()
	freeze := func(signal string) {
		w.Root(t, fmt.Sprintf("pkill -%s -u ada -x 'dbus-daemon|dbus-broker' || true; kill -%s $(pgrep -u ada -f 'systemd --user' | head -1)", signal, signal))
	}
	freeze("STOP")
	defer freeze("CONT")
	var asked sync.WaitGroup
	for _, verb := range []string{"status", "restart", "list"} {
		asked.Go(func() {
			ctx, cancel := rig.Deadline(stepLimit)
			defer cancel()
			out, err := w.user.Try(ctx, spare+" -p bus gateway "+verb)
			if ctx.Err() != nil {
				t.Errorf("%s does not return", verb)
			} else if err != nil || !strings.Contains(strings.Join(strings.Fields(out), " "), "systemd did not answer") {
				t.Errorf("%s: %v, and it does not say what it could not learn:\n%s", verb, err, out)
			}
		})
	}
	asked.Wait()
	freeze("CONT")
	p.user.AwaitManager(t)
	p.awaitServing()
	if now := p.mainPID(); now == pid {
		t.Error("the restart without a bus did not happen")
	}
	if got := p.show("ActiveState"); got != "active" {
		t.Errorf("the unit is %s", got)
	}
}

// A stop in the middle of a hand-over ends both; signals that come twice or by
// a dying terminal end it cleanly.
func testStopsInBetween(t *testing.T, w *world) {
	p := w.profile(t, "stops", 8664)
	p.install()
	p.awaitServing()
	w.Write(t, program, "#!/bin/sh\ntouch /tmp/stops.begun\nexec sleep 300\n")
	w.Root(t, "chmod 755 "+program)
	restarted := make(chan string, 1)
	go func() {
		ctx, cancel := rig.Deadline(stepLimit)
		defer cancel()
		out, err := w.user.Try(ctx, spare+" -p stops gateway restart")
		restarted <- fmt.Sprintf("%s%v", out, err)
	}()
	p.until("the hand-over to begin", func() bool { return p.has("/tmp/stops.begun") })
	p.stopped()
	out := <-restarted
	w.Install(t, w.good(t), program)
	if strings.HasSuffix(out, "<nil>") {
		t.Errorf("the restart succeeded: %s", out)
	}
	for _, signals := range []string{"TERM TERM", "HUP"} {
		p.user.Run(t, "systemctl --user reset-failed "+p.unit+"; systemctl --user start "+p.unit)
		p.awaitServing()
		p.begin(p.tg.AddUser("Ann"), "never"+signals[:1])
		old := p.mainPID()
		for _, s := range strings.Fields(signals) {
			p.user.Run(t, fmt.Sprintf("kill -%s %d || true", s, old))
		}
		began := time.Now()
		p.awaitAnother(old)
		if took := time.Since(began); took > 20*time.Second {
			t.Errorf("%s: another process after %s", signals, took)
		}
		if got := p.show("Result"); got != "success" {
			t.Errorf("%s: %s", signals, got)
		}
	}
	close(p.gate("neverT"))
	close(p.gate("neverH"))
}

// Of two strangers that want to take over at once, one wins and the other is
// told; never none and never two.
func testTwoReplace(t *testing.T, w *world) {
	p := w.profile(t, "two", 8665)
	run := func(name, args string) {
		w.user.Run(t, fmt.Sprintf("(trap '' HUP; setsid %s -p two gateway run %s >%s.log 2>&1; echo $? >%s.end) >/dev/null 2>&1 </dev/null &", program, args, name, name))
	}
	alive := func() []string {
		ctx, cancel := rig.Deadline(stepLimit)
		defer cancel()
		out, _ := w.Try(ctx, "pgrep -x -f '"+program+" -p two gateway run.*'")
		return strings.Fields(out)
	}
	t.Cleanup(func() { w.Root(t, "pkill -x -f '"+program+" -p two gateway run.*' || true") })
	run("first", "")
	p.awaitServing()
	l := p.startLoad(false)
	l.goOn()
	run("a", "--replace")
	run("b", "--replace")
	w.Until(t, stepLimit, "one of three to be left", func(context.Context) error {
		if left := alive(); len(left) != 1 || !p.has(w.user.Home+"/first.end") {
			return fmt.Errorf("%d live", len(left))
		}
		return nil
	})
	l.goOn()
	l.finish()
	if left := alive(); len(left) != 1 {
		t.Errorf("%d processes are left", len(left))
	}
	t.Logf("a ended %q: …%s\nb ended %q: …%s", w.Read(w.user.Home+"/a.end"), tail(w.Read(w.user.Home+"/a.log")), w.Read(w.user.Home+"/b.end"), tail(w.Read(w.user.Home+"/b.log")))
}

func tail(s string) string { return s[max(0, len(s)-300):] }
