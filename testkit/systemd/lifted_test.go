package systemd

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"hermes/testkit/rig"
)

// exe is the file of the program that serves.
func (p *profile) exe() string {
	ctx, cancel := rig.Deadline(stepLimit)
	defer cancel()
	pid, err := p.lookPID()
	if err != nil {
		return err.Error()
	}
	out, _ := p.Try(ctx, fmt.Sprintf("readlink /proc/%d/exe", pid))
	return strings.TrimSpace(out)
}

// A program that died is not run again while it is the same; a restart by hand
// tries it, and once another is installed a restart lifts the fallback for good.
func rowFallbackLifted(p *profile) {
	t := p.t
	p.installDying(t)
	t.Cleanup(func() { p.restoreProgram(t) })
	dir := "/opt/" + p.word("versions")
	put := func(version, from string) (file string) {
		t.Helper()
		file = fmt.Sprintf("%s/%s/hermes", dir, version)
		p.Root(t, fmt.Sprintf("mkdir -p %s/%s && cp %s %s && ln -sfn %s %s", dir, version, from, file, file, p.program))
		return file
	}
	good := put("1.0", spare)
	p.dropIn("30-dying.conf", "[Service]\nEnvironment=HERMES_FAILPOINT=part.cron:1:exit\n")
	p.user.Run(t, "systemctl --user daemon-reload && systemctl --user reset-failed && systemctl --user restart "+p.unit)
	p.until("the program to have proved itself", func() bool { return strings.Contains(p.Read(p.file("binaries.json")), good) })

	bad := put("1.1", dying)
	p.user.Run(t, "systemctl --user reset-failed "+p.unit+"; systemctl --user --no-block restart "+p.unit)
	p.until("the fallback to serve", func() bool { return p.exe() == good && p.careful() != nil })
	p.awaitServing()
	want(t, p.cliFails("gateway status"), "the program that was to serve died too often")
	if p.mode.overlap { // in place there is nobody who could see it die
		p.cliFails("gateway restart")
		p.awaitServing()
		if now := p.exe(); now != good {
			t.Errorf("%s serves, after a restart into %s", now, bad)
		}
	}
	p.forgive()
	p.awaitAnother(p.kill("KILL"))
	p.until("the fallback to serve after a crash", func() bool { return p.exe() == good && p.careful() != nil })

	mended := put("1.2", spare)
	p.forgive()
	p.restart()
	p.awaitServing()
	if now := p.exe(); now != mended || p.careful() != nil {
		t.Errorf("after the restart %s serves, careful %+v", now, p.careful())
	}
	// Once that is proved, nothing is held against it that another did.
	p.until("the mended program to have proved itself", func() bool { return strings.Contains(p.Read(p.file("binaries.json")), mended) })
	p.forgive()
	p.awaitAnother(p.kill("KILL"))
	p.awaitServing()
	if now := p.exe(); now != mended || p.careful() != nil {
		t.Errorf("after a crash %s serves, careful %+v", now, p.careful())
	}
	p.well()
}

// well waits until status says that all is well.
func (p *profile) well() {
	p.t.Helper()
	p.until("all to be well", func() bool {
		return strings.Contains(p.user.Run(p.t, spare+" -p "+p.name+" gateway status || true"), "✓ Gateway ("+p.name+")")
	})
}

// The disk is full when a restart is asked for: whatever becomes of that, somebody
// serves, says why, and with space all is done that was accepted.
func rowFullInRestart(p *profile) {
	t := p.t
	dir := strings.TrimSuffix(p.file(""), "/")
	p.user.Run(t, "systemctl --user stop "+p.unit)
	p.Root(t, fmt.Sprintf("mv %[1]s %[1]s.kept && install -d -o %[2]s -g %[2]s -m 700 %[1]s && mount -t tmpfs -o size=64m,mode=700,uid=%[3]d,gid=%[3]d tmpfs %[1]s && cp -a %[1]s.kept/. %[1]s/ && rm -r %[1]s.kept", dir, p.user.Name, p.user.UID))
	t.Cleanup(func() {
		ctx, cancel := rig.Deadline(stepLimit)
		defer cancel()
		_, _ = p.user.Try(ctx, "systemctl --user stop "+p.unit)
		if out, err := p.Try(ctx, "umount "+dir); err != nil {
			t.Errorf("%v %s", err, out)
		}
	})
	p.startAgain()
	ann := p.tg.AddUser("Ann")
	if err := p.converse(ann, p.word("full0")); err != nil {
		t.Fatal(err)
	}
	word := p.word("full")
	p.begin(ann, word)
	p.user.Run(t, "cat /dev/zero >"+dir+"/filler 2>/dev/null || true")
	p.tg.Say(p.tg.AddUser("Bob"), "say "+p.word("bob"))
	ctx, cancel := rig.Deadline(stepLimit)
	defer cancel()
	said, err := p.user.Try(ctx, spare+" -p "+p.name+" gateway restart")
	if ctx.Err() != nil {
		t.Error("the restart does not return")
	}
	if err != nil && !strings.Contains(said, "space") {
		t.Errorf("it does not say why: %s", said)
	}
	if err := p.health(ctx, p.client(false)); err != nil {
		t.Errorf("nobody serves: %v", err)
	}
	p.user.Run(t, "rm "+dir+"/filler")
	close(p.gate(word))
	if err := p.sees(ann, "answer "+word); err != nil {
		t.Error(err)
	}
	p.once(ann, "answer "+word)
	p.well()
	if err := p.converse(ann, p.word("full2")); err != nil {
		t.Error(err)
	}
	p.restart()
}

// The machine gets another name, which nobody minds, and another time zone: the jobs
// without one of their own follow it, and no process is replaced for that.
func testHost(t *testing.T, w *world) {
	was := strings.TrimSpace(w.Root(t, "readlink /etc/localtime || echo none"))
	t.Cleanup(func() {
		if was != "none" {
			w.Root(t, "ln -sfn "+was+" /etc/localtime")
		}
	})
	w.Root(t, "ln -sfn /usr/share/zoneinfo/Etc/UTC /etc/localtime")
	gate, alone := w.as(t, generated, "zone"), w.profile(t, "alone", w.nextPort())
	alone.unit = "hermes-cron-alone.service"
	alone.onFailure()
	t.Cleanup(alone.remove)
	want(t, alone.cli("gateway install --cron-only"), "✓ Started")
	name := strings.TrimSpace(w.Root(t, "hostname"))
	t.Cleanup(func() { w.Root(t, "hostname "+name) })
	w.Root(t, "hostname another")
	gate.restart()
	gate.forgive()
	gate.awaitAnother(gate.kill("KILL"))
	gate.awaitServing()
	if err := gate.converse(gate.tg.AddUser("Ann"), gate.word("renamed")); err != nil {
		t.Error(err)
	}
	pids := [2]int{gate.mainPID(), alone.mainPID()}
	hour := func(p *profile, job string) string {
		var all struct {
			Jobs []struct {
				Name string `json:"name"`
				Next string `json:"next_run_at"`
			} `json:"jobs"`
		}
		ctx, cancel := rig.Deadline(stepLimit)
		defer cancel()
		out, err := p.user.Try(ctx, "TZ=UTC "+spare+" -p "+p.name+" cron list --json")
		if err == nil {
			err = json.Unmarshal([]byte(out), &all)
		}
		for _, j := range all.Jobs {
			if j.Name == job {
				return j.Next
			}
		}
		return fmt.Sprintf("%s %v", out, err)
	}
	for _, p := range []*profile{gate, alone} {
		p.user.Write(t, p.file("scripts/tell.sh"), "true\n")
		p.cli(`cron create "0 9 * * *" --no-agent --script tell.sh --name host`)
		p.cli(`cron create "0 9 * * *" --timezone UTC --no-agent --script tell.sh --name own`)
	}
	w.Root(t, "ln -sfn /usr/share/zoneinfo/Asia/Seoul /etc/localtime")
	for _, p := range []*profile{gate, alone} {
		own := hour(p, "own")
		p.Until(t, stepLimit, "the job of "+p.name+" to follow", func(context.Context) error {
			if got := hour(p, "host"); !strings.Contains(got, "T00:00:00Z") && !strings.Contains(got, "T09:00:00+09:00") {
				return fmt.Errorf("it fires at %s", got)
			}
			return nil
		})
		if now := hour(p, "own"); now != own {
			t.Errorf("a job with its own zone was moved from %s to %s", own, now)
		}
	}
	if now := [2]int{gate.mainPID(), alone.mainPID()}; now != pids {
		t.Errorf("the processes were %v and are %v", pids, now)
	}
}

// Without lingering the last logout takes the user's runtime folder away. A gateway
// that was started by hand, and its socket, stay reachable, however long the path
// of its home is, and at the next login too.
func testRuntimeGone(t *testing.T, w *world) {
	p := w.as(t, bare, "left")
	long := w.user.Home + "/" + strings.Repeat("a-long-way-home/", 8) + ".hermes"
	w.user.Run(t, fmt.Sprintf("mkdir -p %[1]s; (HERMES_HOME=%[1]s setsid %[2]s gateway run >%[1]s/log 2>&1 </dev/null &) >/dev/null 2>&1", long, w.program))
	ask := func(how string) string {
		t.Helper()
		ctx, cancel := rig.Deadline(stepLimit)
		defer cancel()
		out, _ := w.Try(ctx, fmt.Sprintf(how, w.user.Name, "HERMES_HOME="+long+" "+spare+" gateway status"))
		return out
	}
	const su = "su - %s -c '%s'"
	answers := func(when string) {
		t.Helper()
		w.Until(t, stepLimit, "the gateway of the long path to answer "+when, func(context.Context) error {
			if out := ask(su); !strings.Contains(out, "process PID") && !strings.Contains(strings.Join(strings.Fields(out), " "), "process PID") {
				return fmt.Errorf("%s", out)
			}
			return nil
		})
	}
	t.Cleanup(func() {
		ctx, cancel := rig.Deadline(stepLimit)
		defer cancel()
		if out, err := w.Try(ctx, fmt.Sprintf(su, w.user.Name, "HERMES_HOME="+long+" "+spare+" gateway stop")); err != nil {
			t.Errorf("%v %s", err, out)
		}
		_, _ = w.Try(ctx, "loginctl enable-linger "+w.user.Name)
	})
	w.user.Login(t)
	answers("at the beginning")
	w.Root(t, "loginctl disable-linger "+w.user.Name)
	w.user.Logout(t)
	w.Until(t, stepLimit, "the runtime folder to go", func(ctx context.Context) error {
		if out, err := w.Try(ctx, fmt.Sprintf("test ! -e /run/user/%d", w.user.UID)); err != nil {
			return fmt.Errorf("it is there %s", out)
		}
		return nil
	})
	if err := p.converse(p.tg.AddUser("Ann"), p.word("left")); err != nil {
		t.Error(err)
	}
	pid := p.mainPID()
	for _, verb := range []string{"status", "restart"} {
		out := w.Root(t, fmt.Sprintf(su, w.user.Name, spare+" -p left gateway "+verb))
		t.Log(out)
	}
	if p.mainPID() == pid {
		t.Error("the restart brought no other process")
	}
	answers("after the logout")
	w.Root(t, "loginctl enable-linger "+w.user.Name)
	w.user.AwaitManager(t)
	answers("after the next login")
	p.restart()
}
