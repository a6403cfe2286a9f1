package systemd

import (
	"fmt"
	"strings"
	"time"

	"hermes/testkit/rig"
)

// What an agent runs cannot end its gateway: it is refused with the reason, or
// harmless, however it is wrapped.
func rowSelfHarm(p *profile) {
	t := p.t
	pid, before := p.mainPID(), p.state()
	socket := p.file("gateway.sock")
	verbs := map[string]string{
		"command":    "hermes -p %[1]s gateway restart",
		"stop":       "hermes -p %[1]s gateway stop",
		"uninstall":  "hermes -p %[1]s gateway uninstall",
		"replace":    "hermes -p %[1]s gateway run --replace",
		"shell":      `bash -c "hermes -p %[1]s gateway restart"`,
		"base64":     "echo 'hermes -p %[1]s gateway restart' | base64 | base64 -d | bash",
		"variable":   "x=gate; y=way; hermes -p %[1]s $x$y stop",
		"script":     "printf 'hermes -p %[1]s gateway restart\\n' >s.sh; sh s.sh",
		"away":       "setsid -w hermes -p %[1]s gateway stop",
		"background": "(nohup hermes -p %[1]s gateway stop >away.log 2>&1 &); for i in 1 2 3 4 5 6 7 8 9 10; do sleep 0.1; done; cat away.log",
		"socket":     "curl -sS -m 5 -X POST --unix-socket " + socket + " http://x/v1/restart; curl -sS -m 5 -X POST --unix-socket " + socket + " http://x/v1/stop",
		"parent":     "kill $PPID",
	}
	if p.mode.managed() {
		verbs["systemctl stop"] = "systemctl --user stop " + p.unit
		verbs["systemctl restart"] = "systemctl --user restart " + p.unit
		verbs["linger"] = "loginctl disable-linger"
	}
	for name, command := range verbs {
		eve := p.tg.AddUser("Eve")
		if strings.Contains(command, "%[1]s") {
			command = fmt.Sprintf(command, p.name)
		}
		p.tg.Say(eve, "run "+command)
		if err := p.sees(eve, "it said…"); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		said := p.tg.Replies(eve.ID)
		text := said[len(said)-1].Text
		if now := p.mainPID(); now != pid || p.state() != before {
			t.Errorf("%s: the unit was %+v with PID %d and is %+v with %d; it said %s", name, before, pid, p.state(), now, text)
			p.startAgain()
			pid, before = p.mainPID(), p.state()
		}
		if name != "parent" && !strings.Contains(strings.ToLower(text), "refused") && !strings.Contains(text, "runs inside") {
			t.Errorf("%s: the agent is not told that it was refused: %s", name, text)
		}
		if name == "command" && !strings.Contains(text, "/restart") {
			t.Errorf("%s: the right way is not named: %s", name, text)
		}
	}
	if !p.mode.managed() {
		return // nothing starts again what kill(2) ended
	}
	// A kill that no analysis sees through is a restart, and no more: the turn is
	// answered, here or after it.
	p.forgive()
	eve := p.tg.AddUser("Eve")
	p.tg.Say(eve, fmt.Sprintf("run pkill -f 'rofile %s gatewa'", p.name))
	p.awaitAnother(pid)
	p.awaitServing()
	if err := p.sees(eve, "it said…"); err != nil {
		t.Error(err)
	}
}

// A stop ends what tools left behind, whatever they ignore and wherever they
// went, in time.
func rowStubbornTools(p *profile) {
	t := p.t
	ann := p.tg.AddUser("Ann")
	here, away := "/tmp/"+p.word("here"), "/tmp/"+p.word("away")
	p.tg.Say(ann, fmt.Sprintf(`run trap "" TERM INT HUP; setsid sh -c 'trap "" TERM; touch %s; while :; do sleep 1; done' & touch %s; while :; do sleep 1; done`, away, here))
	p.until("the tool to run", func() bool { return p.has(here) && p.has(away) })
	cgroup := p.show("ControlGroup")
	if n := len(p.inGroup(cgroup)); n < 3 {
		t.Fatalf("only %d processes in %s", n, cgroup)
	}
	began := time.Now()
	p.user.Run(t, "systemctl --user stop "+p.unit)
	if took := time.Since(began); took > stopLimit {
		t.Errorf("the stop took %s", took)
	}
	if got := p.show("Result") + " " + p.show("ActiveState"); got != "success inactive" {
		t.Errorf("after a stop the unit is %s", got)
	}
	p.until("the group to be empty", func() bool { return len(p.inGroup(cgroup)) == 0 })
}

// has tells whether a file is there.
func (p *profile) has(path string) bool {
	ctx, cancel := rig.Deadline(stepLimit)
	defer cancel()
	_, err := p.Try(ctx, "test -e "+path)
	return err == nil
}

// inGroup lists the processes of a control group and of those beneath it.
func (p *profile) inGroup(group string) []string {
	ctx, cancel := rig.Deadline(stepLimit)
	defer cancel()
	out, _ := p.Try(ctx, "grep -Fls '"+group+"' /proc/[0-9]*/cgroup") // some end meanwhile
	return strings.Fields(out)
}

// The kernel takes a tool that eats all memory, and the gateway lives on and
// answers: tools are marked to die first, and the unit goes on without them.
func rowToolKilled(p *profile) {
	t := p.t
	pid, before := p.mainPID(), p.state()
	if got := p.show("OOMPolicy"); got != "continue" && p.mode.name != template.name {
		t.Errorf("OOMPolicy is %s", got)
	}
	ann := p.tg.AddUser("Ann")
	// tail keeps a line without an end in memory.
	command := "head -c 500m /dev/zero | tail >/dev/null; echo tail ended with $?"
	memory, err := p.LimitMemory(t, pid, 96<<20)
	if err != nil {
		t.Logf("the kernel's killer cannot be had here (%v), so the tool is killed by hand", err)
		command = "bash -c 'kill -KILL $$'; echo tail ended with $?"
	}
	p.tg.Say(ann, "run "+command)
	if err := p.sees(ann, "it said: …"); err != nil {
		t.Error(err)
	} else if said := p.tg.Transcript(ann.ID); !strings.Contains(said, "tail ended with 137") {
		t.Errorf("the tool was not killed:\n%s", said)
	}
	if n := memory.Killed(); err == nil && n == 0 {
		t.Error("the kernel killed nobody")
	}
	if err := p.converse(ann, p.word("after")); err != nil {
		t.Error(err)
	}
	if now := p.mainPID(); now != pid || p.state() != before {
		t.Errorf("the unit was %+v with PID %d and is %+v with %d", before, pid, p.state(), now)
	}
}
