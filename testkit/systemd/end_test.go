package systemd

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"hermes/testkit/rig"
)

// stopLimit is TimeoutStopSec= of the hand-written unit.
const stopLimit = 20 * time.Second

// A kill that nobody planned brings the gateway back; without a manager it is a
// clean end.
func rowStrayTerm(p *profile) {
	t := p.t
	if !p.mode.managed() {
		p.kill("TERM")
		p.ended("0")
		return
	}
	for _, after := range []string{"a start", "a restart"} {
		if after == "a restart" {
			p.restart()
		}
		p.forgive()
		p.awaitAnother(p.kill("TERM"))
		p.awaitServing()
		if got := p.show("Result"); got != "success" {
			t.Errorf("after %s: Result is %s", after, got)
		}
	}
}

// ended waits until a process that was started by hand has ended with a status,
// and holds that a command says so.
func (p *profile) ended(status string) {
	p.t.Helper()
	p.until("the end", func() bool { return strings.TrimSpace(p.Read(p.file("bare.end"))) != "" })
	if got := strings.TrimSpace(p.Read(p.file("bare.end"))); got != status {
		p.t.Errorf("it ended with %s, not %s:\n%s", got, status, p.Read(p.file("bare.log")))
	}
	want(p.t, p.cliFails("gateway status"), "not running")
}

// A stop ends everything, also a predecessor with a turn, and nothing comes back.
func rowStop(p *profile) {
	p.stopped()
	if p.mode.managed() {
		if log := p.user.Run(p.t, "journalctl --user --no-pager -u "+p.unit); !strings.Contains(log, "gateway stopped") || strings.Contains(log, "not our child") {
			p.t.Errorf("it was not stopped in order:\n%s", log)
		}
	}
	p.startAgain()
	if p.mode.overlap {
		p.begin(p.tg.AddUser("Ben"), p.word("e1"))
		p.restart()
		p.stopped()
		return
	}
	p.restart()
	p.stopped()
}

// stopped stops the gateway and holds that it stays so, with nothing left and
// nobody listening.
func (p *profile) stopped() {
	t := p.t
	t.Helper()
	began := time.Now()
	if p.mode.managed() {
		p.user.Run(t, "systemctl --user stop "+p.unit)
	} else {
		p.cli("gateway stop")
	}
	if took := time.Since(began); took > stopLimit {
		t.Errorf("the stop took %s", took)
	}
	p.staysStopped()
}

func (p *profile) staysStopped() {
	t := p.t
	t.Helper()
	ctx, cancel := rig.Deadline(stepLimit)
	defer cancel()
	if p.mode.managed() {
		if got := p.show("Result") + " " + p.show("ActiveState") + " " + p.show("ExecMainStatus"); got != "success inactive 0" {
			t.Errorf("after a stop the unit is %s", got)
		}
	} else {
		p.until("the last process to end", func() bool { return len(p.processes(ctx)) == 0 })
	}
	p.nothingLeft()
}

// nothingLeft holds that no process of the profile lives and nobody listens.
func (p *profile) nothingLeft() {
	t := p.t
	t.Helper()
	ctx, cancel := rig.Deadline(stepLimit)
	defer cancel()
	if left := p.processes(ctx); len(left) > 0 {
		t.Errorf("processes are left: %s", left)
	}
	if err := p.health(ctx, p.client(false)); err == nil || !strings.Contains(err.Error(), "refused") {
		t.Errorf("after a stop the port says %v", err)
	}
}

// Signals that come twice, or by a dying terminal, while a turn runs, are a
// clean end; a unit brings it back. What was started to outlive its terminal
// does.
func rowSignals(p *profile) {
	t := p.t
	for _, signals := range []string{"TERM TERM", "HUP"} {
		p.forgive()
		word := p.word("never" + signals[:1])
		p.begin(p.tg.AddUser("Ann"), word)
		old := p.mainPID()
		began := time.Now()
		for s := range strings.FieldsSeq(signals) {
			p.user.Run(t, fmt.Sprintf("kill -%s %d || true", s, old))
		}
		switch {
		case p.mode.managed():
			p.awaitAnother(old)
			if got := p.show("Result"); got != "success" {
				t.Errorf("%s: %s", signals, got)
			}
		case signals == "HUP": // ignored from its start, as under nohup
			p.awaitServing()
			if now := p.mainPID(); now != old {
				t.Errorf("HUP ended a process that was started to ignore it: %d, then %d", old, now)
			}
		default:
			p.ended("0")
			p.startAgain()
		}
		if took := time.Since(began); took > stopLimit {
			t.Errorf("%s: it took %s", signals, took)
		}
		p.awaitServing()
		close(p.gate(word))
	}
}

// A stop at any moment of a start is a clean end.
func rowStopDuringStart(p *profile) {
	t := p.t
	p.stopped()
	for i, signal := range []string{"", "", "TERM", "", "TERM TERM"} {
		p.forgive()
		p.user.Run(t, "systemctl --user start --no-block "+p.unit)
		if i > 1 {
			p.until("a process", func() bool { return p.mainPID() != 0 })
		}
		for s := range strings.FieldsSeq(signal) {
			p.user.Run(t, fmt.Sprintf("systemctl --user kill --kill-whom=main --signal=%s %s || true", s, p.unit))
		}
		began := time.Now()
		p.user.Run(t, "systemctl --user stop "+p.unit)
		if took := time.Since(began); took > stopLimit {
			t.Errorf("the stop took %s", took)
		}
		// The signal that comes before the program listens for it is an end as clean,
		// and after a stray one the stop keeps the unit from its next start.
		if got := p.show("ActiveState"); got != "inactive" && (signal == "" || got != "failed") {
			t.Errorf("%d: after a stop the unit is %s", i, got)
		}
		if got := p.show("Result"); signal == "" && got != "success" {
			t.Errorf("%d: after a stop Result is %s", i, got)
		}
		p.nothingLeft()
	}
}

// A stop in the middle of a restart ends both, and the restart does not claim to
// have succeeded.
func rowStopDuringRestart(p *profile) {
	t := p.t
	t.Cleanup(func() { p.restoreProgram(t) })
	begun := "/tmp/" + p.word("begun")
	if p.mode.overlap {
		p.spoilProgram(t, "#!/bin/sh\ntouch "+begun+"\nexec sleep 300\n")
	} else { // the drain waits for the turn
		p.begin(p.tg.AddUser("Ann"), p.word("drain"))
	}
	restarted := make(chan string, 1)
	go func() {
		ctx, cancel := rig.Deadline(stepLimit)
		defer cancel()
		out, err := p.user.Try(ctx, spare+" -p "+p.name+" gateway restart")
		restarted <- fmt.Sprintf("%s%v", out, err)
	}()
	if p.mode.overlap {
		p.until("the restart to begin", func() bool { return p.has(begun) })
	} else {
		p.until("the restart to begin", func() bool {
			return strings.Contains(p.Read(p.file("logs/gateway.log")), "a restart was asked for")
		})
	}
	p.stopped()
	if out := <-restarted; strings.HasSuffix(out, "<nil>") {
		t.Errorf("the restart succeeded: %s", out)
	}
	p.staysStopped()
}

// Without any configuration that can be used it ends for good and says why. Where
// the unit would start it again and again, it waits in place of ending.
func rowUnusable(p *profile) {
	t := p.t
	good := p.Read(p.file("config.yaml"))
	ann := p.tg.AddUser("Ann")
	if err := p.converse(ann, p.word("u1")); err != nil { // a bot may not begin
		t.Error(err)
	}
	p.env(fmt.Sprintf("TELEGRAM_HOME_CHANNEL=%d\n", ann.ID))
	p.stopped()
	// Nothing of an earlier life is left that could be served instead.
	p.user.Run(t, fmt.Sprintf("find %s -mindepth 1 ! -name .env ! -name config.yaml -delete", p.file("")))
	p.user.Write(t, p.file("config.yaml"), "model: [\n")
	said := p.cliFails("gateway start")
	if !p.mode.kept { // the unit would start it for ever: it waits in place
		want(t, said, "config.yaml")
		if got := p.show("ActiveState") + " " + p.show("NRestarts"); got != "active 0" {
			t.Errorf("with a broken configuration the unit is %s", got)
		}
		waits := "🛑 " + p.unit + " on …"
		if err := p.sees(ann, waits); err != nil {
			t.Error(err)
		}
		p.user.Write(t, p.file("config.yaml"), "model: {\n") // tried at once, and told no second time
		p.until("the second start to wait", func() bool {
			ctx, cancel := rig.Deadline(stepLimit)
			defer cancel()
			out, _ := p.user.Try(ctx, spare+" -p "+p.name+" gateway restart 2>&1")
			return strings.Contains(out, "config.yaml")
		})
		p.user.Write(t, p.file("config.yaml"), good)
		p.awaitServing()
		if err := p.converse(ann, p.word("u2")); err != nil {
			t.Error(err)
		}
		if n := strings.Count(p.tg.Transcript(ann.ID), "does not start"); n != 1 {
			t.Errorf("it was told %d times:\n%s", n, p.tg.Transcript(ann.ID))
		}
		return
	}
	want(t, said, "78")
	p.until("systemd to give up", func() bool { return p.show("ActiveState") == "failed" })
	if got := p.show("ExecMainStatus") + " " + p.show("NRestarts"); got != "78 0" {
		t.Errorf("with a broken configuration the unit is %s", got)
	}
	p.user.Write(t, p.file("config.yaml"), good)
	want(t, p.cli("gateway start"), "✓ Started")
	p.awaitServing()
}

// A gateway that hangs is killed and started again by systemd.
func rowWatchdog(p *profile) {
	t := p.t
	p.dropIn("20-watchdog.conf", "[Service]\nWatchdogSec=4s\n")
	p.user.Run(t, "systemctl --user daemon-reload && systemctl --user restart "+p.unit)
	p.awaitServing()
	for _, after := range []string{"a start", "a restart"} {
		if after == "a restart" {
			p.restart()
		}
		p.forgive()
		fed := p.show("WatchdogTimestampMonotonic")
		p.until("the watchdog to be fed", func() bool { return p.show("WatchdogTimestampMonotonic") != fed })
		restarts, err := strconv.Atoi(p.show("NRestarts"))
		if err != nil {
			t.Fatal(err)
		}
		old := p.kill("STOP")
		p.awaitAnother(old)
		p.awaitServing()
		if got, err := strconv.Atoi(p.show("NRestarts")); err != nil || got <= restarts {
			t.Errorf("after %s: NRestarts is %d, was %d", after, got, restarts)
		}
	}
}
