package systemd

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	"hermes/testkit/rig"
	"hermes/testkit/telegram"
)

// Ten times the budgets of a new process: until it serves, and until a turn that
// its predecessor had begun is answered, once the model is ready to.
const (
	serveLimit  = time.Second
	answerLimit = 20 * time.Second
)

const resumed = "♻️ I was restarted and go on where I was."

// Whoever asks for a restart, nothing fails, and systemd sees no start and no
// stop.
func rowPlannedRestarts(p *profile) {
	t := p.t
	before := p.state()
	l := p.startLoad(lightPace, false)
	l.goOn()
	replaced := func(how string, restart func()) {
		t.Helper()
		old := p.mainPID()
		restart()
		if p.mode.overlap {
			p.awaitAnother(old)
		} else if now := p.mainPID(); now != old {
			t.Errorf("%s: a restart in place changed the PID from %d to %d", how, old, now)
		}
		l.goOn()
	}
	for range 3 {
		replaced("the command", p.restart)
	}
	ann := p.tg.AddUser("Ann")
	replaced("/restart", func() {
		p.tg.Say(ann, "/restart")
		if err := p.sees(ann, "♻️ I am back (version…"); err != nil {
			t.Error(err)
		}
	})
	if p.mode.kept {
		replaced("reload", func() { p.user.Run(t, "systemctl --user reload "+p.unit) })
	}
	l.finish()
	if after := p.state(); after != before {
		t.Errorf("the unit was %+v and is %+v", before, after)
	}
	want(t, p.cli("gateway status"), "✓ Gateway ("+p.name+")")
}

// A killed gateway comes back and goes on with what it was at, told in one
// line; where the socket is kept, nobody is refused meanwhile.
func rowKilled(p *profile) {
	if p.mode.name == template.name { // as it stands in the runbook, with its ten seconds
		p.writeTemplateText(strings.Replace(handWritten, spare, p.program, 1))
	}
	ann := p.tg.AddUser("Ann")
	p.killed(ann, p.word("k1"), 1)
	if p.mode.kept { // the successor of a restart is no child that systemd forked
		p.restart()
		p.killed(ann, p.word("k2"), 2)
	}
}

// killed kills the main process, the nth time, in the middle of a turn and under
// a load of new connections.
func (p *profile) killed(u telegram.User, id string, nth int) {
	t := p.t
	t.Helper()
	p.forgive()
	l := p.startLoad(lightPace, true)
	l.goOn()
	p.begin(u, id)
	old := p.kill("KILL")
	if !p.mode.managed() {
		p.until("the end", func() bool { return p.has(p.file("bare.end")) })
		want(t, p.cliFails("gateway status"), "not running", "gateway run")
		p.startAgain()
	}
	served := time.Duration(0)
	if p.mode.kept {
		served = p.firstServed(old)
	}
	now := p.awaitAnother(old)
	began := p.started(now)
	if took := served - began; took > serveLimit {
		t.Errorf("%s: serving %s after the new process's start", id, took)
	} else if p.mode.kept {
		t.Logf("%s: serving %s after the new process's start", id, took)
	}
	close(p.gate(id))
	if err := p.sees(u, "answer "+id); err != nil {
		t.Error(err)
	}
	took := uptime(t) - began
	t.Logf("%s: answered %s after the new process's start", id, took)
	if took > answerLimit {
		t.Errorf("%s: that is more than %s", id, answerLimit)
	}
	l.goOn()
	l.finishTorn(1)
	p.once(u, "answer "+id)
	p.noticed(u, nth)
}

// noticed holds that the last answer came after the notice of one line, which was
// told once for each of the deaths.
func (p *profile) noticed(u telegram.User, deaths int) {
	p.t.Helper()
	said := p.tg.Replies(u.ID)
	if n := len(said); n < 2 || said[n-2].Text != resumed {
		p.t.Errorf("the notice does not stand before the answer:\n%s", p.tg.Transcript(u.ID))
	}
	told := 0
	for _, m := range said {
		if m.Text == resumed {
			told++
		}
	}
	if told != deaths {
		p.t.Errorf("%d deaths were told of %d times:\n%s", deaths, told, p.tg.Transcript(u.ID))
	}
}

// firstServed is the uptime at which a connection made after the death of the
// old process is answered.
func (p *profile) firstServed(old int) time.Duration {
	p.t.Helper()
	ctx, cancel := rig.Deadline(stepLimit)
	defer cancel()
	p.until("the old process's end", func() bool {
		_, err := p.Try(ctx, fmt.Sprintf("test -e /proc/%d", old))
		return err != nil
	})
	if err := p.health(ctx, p.client(false)); err != nil {
		p.t.Errorf("a client that connected between two lives: %v", err)
	}
	return uptime(p.t)
}

// A plain restart by systemd loses nothing; where the socket is kept it refuses
// nobody, and whoever connects meanwhile is served by the next process.
func rowSystemdRestart(p *profile) {
	t := p.t
	l := p.startLoad(lightPace, true)
	for i := range 4 {
		l.goOn()
		if i%2 == 1 { // the stop of one that systemd did not fork
			p.restart()
		}
		old := p.mainPID()
		p.user.Run(t, fmt.Sprintf("systemctl --user reset-failed %[1]s && systemctl --user restart %[1]s", p.unit))
		if p.mainPID() == old {
			t.Error("the same process")
		}
	}
	l.goOn()
	if p.mode.kept {
		l.finish()
	} else {
		l.finishTorn(4)
	}
	if n := p.show("NRestarts"); n != "0" {
		t.Errorf("systemd restarted it %s times by itself", n)
	}
}

// What systemd knows of a process that took over outlives its own restart.
func rowReexec(p *profile) {
	t := p.t
	p.restart()
	pid, stored := p.mainPID(), p.show("NFileDescriptorStore")
	p.user.Run(t, "systemctl --user daemon-reload")
	p.user.Run(t, "systemctl --user daemon-reexec")
	p.user.AwaitManager(t)
	p.awaitServing()
	if now := p.mainPID(); now != pid {
		t.Errorf("daemon-reload and daemon-reexec changed the main PID from %d to %d", pid, now)
	}
	if now := p.show("NFileDescriptorStore"); now != stored || p.mode.kept && now != "1" {
		t.Errorf("%s sockets were kept, and now %s", stored, now)
	}
	p.forgive()
	p.kill("KILL")
	p.awaitAnother(pid)
	p.awaitServing()
}

// A new program that cannot serve is not handed over to: the old one serves on,
// and the command fails with the reason.
func rowBadSuccessor(p *profile) {
	t := p.t
	t.Cleanup(func() { p.restoreProgram(t) })
	ann := p.tg.AddUser("Ann")
	l := p.startLoad(lightPace, false)
	l.goOn()
	before, pid := p.state(), p.mainPID()
	refused := func(what, reason string) {
		t.Helper()
		ctx, cancel := rig.Deadline(stepLimit)
		defer cancel()
		out, err := p.user.Try(ctx, spare+" -p "+p.name+" gateway restart")
		if err == nil {
			t.Errorf("%s: a restart succeeded:\n%s", what, out)
		}
		want(t, out, reason)
		if p.mainPID() != pid || p.state() != before {
			t.Errorf("%s: the unit was %+v with PID %d and is %+v with %d", what, before, pid, p.state(), p.mainPID())
		}
		l.goOn()
	}
	programs := map[string][2]string{
		"exits":         {"#!/bin/sh\nexit 3\n", "exit status 3"},
		"panics":        {"#!/bin/sh\necho 'panic: nothing works' >&2\nexit 2\n", "exit status 2"},
		"is no program": {"not a program\n", "exec format error"},
	}
	if p.mode.name == generated.name { // it takes the whole limit
		programs["hangs"] = [2]string{"#!/bin/sh\nexec sleep 300\n", "in time"}
	}
	for name, bad := range programs {
		p.spoilProgram(t, bad[0])
		refused(name, bad[1])
	}
	p.restoreProgram(t)
	good := p.Read(p.file("config.yaml"))
	p.user.Write(t, p.file("config.yaml"), "model: [\n")
	refused("a configuration that is none", "config.yaml")
	p.user.Write(t, p.file("config.yaml"), good)
	p.user.Run(t, "chmod 000 "+p.file("ledger.db"))
	refused("a ledger that cannot be opened", "ledger")
	p.user.Run(t, "chmod 600 "+p.file("ledger.db"))
	word := p.word("b1")
	if err := p.converse(ann, word); err != nil {
		t.Error(err)
	}
	p.restart()
	l.goOn()
	l.finish()
}

// A profile's restart and death leave another's process alone.
func rowNeighbour(p *profile) {
	t := p.t
	b := p.world.as(t, p.mode, p.name+"b")
	pid, state := b.mainPID(), b.state()
	p.restart()
	p.forgive()
	old := p.kill("KILL")
	if p.mode.managed() {
		p.awaitAnother(old)
	} else {
		p.until("the end", func() bool { return p.has(p.file("bare.end")) })
		p.startAgain()
	}
	p.awaitServing()
	b.awaitServing()
	if now := b.mainPID(); now != pid || b.state() != state {
		t.Errorf("the neighbour's process was %d %+v and is %d %+v", pid, state, now, b.state())
	}
}

// Of two restarts at once one happens, and the other is told or comes after it.
func rowTwoRestarts(p *profile) {
	t := p.t
	pid := p.mainPID()
	ctx, cancel := rig.Deadline(stepLimit)
	defer cancel()
	said := make([]string, 2)
	failed := make([]error, 2)
	var both sync.WaitGroup
	for i := range said {
		both.Go(func() { said[i], failed[i] = p.user.Try(ctx, spare+" -p "+p.name+" gateway restart") })
	}
	both.Wait()
	if failed[0] != nil && failed[1] != nil {
		t.Errorf("neither happened: %q, %q", said[0], said[1])
	}
	for i := range said {
		if s := said[i]; failed[i] != nil && !strings.Contains(s, "under way") && !strings.Contains(s, "this gateway is ") {
			t.Errorf("the one that did not happen is not told why: %s", s)
		}
	}
	p.awaitServing()
	if p.mode.overlap && p.mainPID() == pid {
		t.Error("neither restart replaced the process")
	}
	p.aloneSoon()
}

// processes are the gateways of the profile that live.
func (p *profile) processes(ctx context.Context) []string {
	out, _ := p.Try(ctx, fmt.Sprintf("pgrep -x -f '%s (-p|--profile) %s gateway run.*'", p.program, p.name))
	return strings.Fields(out)
}

// aloneSoon waits until one process of the profile is left.
func (p *profile) aloneSoon() {
	p.t.Helper()
	p.Until(p.t, stepLimit, "one process to be left", func(ctx context.Context) error {
		if left := p.processes(ctx); len(left) != 1 {
			return fmt.Errorf("%d live", len(left))
		}
		return nil
	})
}

// Of two strangers that want to take over at once, one wins and the other is
// told; never none and never two.
func rowTwoReplace(p *profile) {
	l := p.startLoad(lightPace, false)
	l.goOn()
	p.runByHand("a", "--replace")
	p.runByHand("b", "--replace")
	p.until("the first to end", func() bool { return p.has(p.file("bare.end")) })
	p.aloneSoon()
	l.goOn()
	l.finish()
	p.aloneSoon()
	tail := func(s string) string { return s[max(0, len(s)-300):] }
	for _, name := range []string{"a", "b"} {
		p.t.Logf("%s ended %q: …%s", name, p.Read(p.file(name+".end")), tail(p.Read(p.file(name+".log"))))
	}
}

// A stranger does not take over from a unit, which would start it again.
func rowReplaceUnit(p *profile) {
	pid := p.mainPID()
	want(p.t, p.cliFails("gateway run --replace"), "is run by a systemd unit")
	p.awaitServing()
	if now := p.mainPID(); now != pid {
		p.t.Errorf("the process was %d and is %d", pid, now)
	}
}
