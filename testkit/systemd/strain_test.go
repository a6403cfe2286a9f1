package systemd

import (
	"context"
	"fmt"
	"strings"

	"hermes/testkit/rig"
)

// The user's manager is started anew in the middle of a restart: it takes both
// processes with it, and brings up one that goes on.
func rowManagerRestarted(p *profile) {
	t := p.t
	t.Cleanup(func() { p.restoreProgram(t) })
	ann := p.tg.AddUser("Ann")
	word, begun := p.word("m1"), "/tmp/"+p.word("begun")
	p.begin(ann, word)
	if p.mode.overlap { // the first that is started proves nothing, the next serves
		p.spoilProgram(t, fmt.Sprintf("#!/bin/sh\nif [ ! -e %[1]s ]; then touch %[1]s; exec sleep 300; fi\nexec %[2]s \"$@\"\n", begun, spare))
	}
	restarted := make(chan string, 1)
	go func() {
		ctx, cancel := rig.Deadline(stepLimit)
		defer cancel()
		out, err := p.user.Try(ctx, spare+" -p "+p.name+" gateway restart")
		restarted <- fmt.Sprintf("%s%v", out, err)
	}()
	p.until("the restart to begin", func() bool {
		return p.has(begun) || !p.mode.overlap && strings.Contains(p.Read(p.file("logs/gateway.log")), "a restart was asked for")
	})
	old := p.mainPID()
	p.Root(t, fmt.Sprintf("systemctl restart user@%d.service", p.user.UID))
	p.user.AwaitManager(t)
	p.awaitAnother(old)
	p.awaitServing()
	if out := <-restarted; strings.Contains(out, "✓") && strings.Contains(out, fmt.Sprintf("PID %d)", old)) {
		t.Errorf("the restart claims success: %s", out)
	}
	close(p.gate(word))
	if err := p.sees(ann, "answer "+word); err != nil {
		t.Error(err)
	}
	p.once(ann, "answer "+word)
	if left := p.gateways(); len(left) != 1 {
		t.Errorf("these live: %s", left)
	}
	p.restoreProgram(t)
	p.restart()
}

// gateways are the processes of the profile's gateway, by whatever program.
func (p *profile) gateways() []string {
	ctx, cancel := rig.Deadline(stepLimit)
	defer cancel()
	out, _ := p.Try(ctx, fmt.Sprintf("pgrep -u %s -f '^[^ ]*hermes (-p|--profile) %s gateway run'", p.user.Name, p.name))
	return strings.Fields(out)
}

// A unit that allows one start is still handed over and restarted by hand; a
// crash ends it, which is known before it hurts. Where a rescue is installed it is
// brought back, else the reason and the way back are told.
func rowOneStart(p *profile) {
	t := p.t
	p.dropIn("40-one.conf", "[Unit]\nStartLimitIntervalSec=60\nStartLimitBurst=1\n")
	p.user.Run(t, "systemctl --user daemon-reload")
	ann := p.tg.AddUser("Ann")
	p.restart()
	p.restart()
	want(t, p.user.Run(t, spare+" -p "+p.name+" doctor --local || true"), "StartLimitBurst=1")
	word := p.word("o1")
	p.begin(ann, word)
	p.forgive()
	p.user.Run(t, "systemctl --user restart "+p.unit)
	p.awaitServing()
	old := p.kill("KILL")
	if p.mode.kept { // by its rescue
		p.awaitAnother(old)
	} else {
		p.until("systemd to give up", func() bool { return p.show("ActiveState") == "failed" })
		want(t, p.cliFails("gateway status"), "was started 1 times within 1m0s", "systemd gave up", "hermes gateway start")
		want(t, p.cli("gateway start"), "✓ Started")
	}
	p.awaitServing()
	close(p.gate(word))
	if err := p.sees(ann, "answer "+word); err != nil {
		t.Error(err)
	}
	p.once(ann, "answer "+word)
	if out, _ := p.user.Try(context.Background(), spare+" -p "+p.name+" gateway status"); strings.Contains(out, "safe mode") {
		t.Errorf("a kill from outside made it careful:\n%s", out)
	}
}

// The disk under the home begins to fail, or turns read-only, under load: nothing
// is confirmed that is not stored, people and operators are told, the process
// lives on, and when the disk works again everything is answered, once.
func rowDiskFails(p *profile) {
	t := p.t
	ann := p.tg.AddUser("Ann")
	if err := p.converse(ann, p.word("d0")); err != nil {
		t.Fatal(err)
	}
	for _, errno := range []string{"EIO", "EROFS", "ENOSPC"} {
		pid := p.mainPID()
		word := p.word("owed" + errno)
		p.begin(ann, word)
		mend := p.failDisk(pid, errno)
		bob := p.tg.AddUser("Bob")
		p.tg.Say(bob, "say "+p.word(errno))
		p.until("the API to refuse", func() bool {
			_, err := p.post(p.client(false), "say no")
			return err != nil && strings.Contains(err.Error(), "status 503")
		})
		p.until("status to tell", func() bool {
			out := p.user.Run(t, spare+" -p "+p.name+" gateway status || true")
			return strings.Contains(out, "✗ Gateway") && strings.Contains(out, "ledger")
		})
		close(p.gate(word))
		mend()
		if err := p.sees(bob, "answer "+p.word(errno)); err != nil {
			t.Error(err)
		}
		if err := p.sees(ann, "answer "+word); err != nil {
			t.Error(err)
		}
		p.once(ann, "answer "+word)
		p.once(bob, "answer "+p.word(errno))
		p.well()
		if now := p.mainPID(); now != pid {
			t.Errorf("%s: the process was replaced: %d, then %d", errno, pid, now)
		}
		if out, _ := p.Try(context.Background(), "ls "+p.file("")+" | grep damaged"); strings.TrimSpace(out) != "" {
			t.Errorf("%s: the ledger was held for damaged: %s", errno, out)
		}
		p.restart()
	}
}

// failDisk makes every write of a process into its ledger fail; see strace(1),
// "Tampering". mend ends that.
func (p *profile) failDisk(pid int, errno string) (mend func()) {
	p.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		const calls = "pwrite64,fdatasync,fsync,ftruncate,fallocate"
		_, _ = p.Try(ctx, fmt.Sprintf("exec strace -f -qq -o /dev/null -p %[1]d -P %[2]s -P %[2]s-wal -P %[2]s-shm -P %[3]s -e trace=%[4]s -e inject=%[4]s:error=%[5]s",
			pid, p.file("ledger.db"), p.file("ledger.ballast"), calls, errno))
	}()
	p.until("the tracer", func() bool {
		ctx, cancel := rig.Deadline(stepLimit)
		defer cancel()
		_, err := p.Try(ctx, fmt.Sprintf("grep -q '^TracerPid:[[:space:]]*[1-9]' /proc/%d/status", pid))
		return err == nil
	})
	return func() {
		p.t.Helper()
		ctx, stop := rig.Deadline(stepLimit)
		defer stop()
		_, _ = p.Try(ctx, fmt.Sprintf("kill -INT $(sed -n 's/^TracerPid:[[:space:]]*//p' /proc/%d/status)", pid))
		<-ended
		cancel()
	}
}

// The program's file is replaced while it runs, in every way in which people do
// it. What runs is not harmed; a restart and a crash bring the new one.
func rowProgramReplaced(p *profile) {
	t := p.t
	p.restoreProgram(t)
	// A file of its own, which can be replaced.
	p.Root(t, fmt.Sprintf("cp %[1]s %[2]s.own && mv -f %[2]s.own %[2]s", spare, p.program))
	p.restart()
	ctx, cancel := rig.Deadline(stepLimit)
	defer cancel()
	if out, err := p.Try(ctx, fmt.Sprintf("cp %s %s", spare, p.program)); err == nil || !strings.Contains(out, "busy") {
		t.Errorf("a running program was written over: %v %s", err, out)
	}
	p.awaitServing()
	inode := func() string {
		return strings.TrimSpace(p.Root(t, fmt.Sprintf("stat -L -c %%i /proc/%d/exe", p.mainPID())))
	}
	for _, how := range []string{"cp --remove-destination %[1]s %[2]s", "cp %[1]s %[2]s.new && mv -f %[2]s.new %[2]s"} {
		before := inode()
		p.Root(t, fmt.Sprintf(how, spare, p.program))
		p.awaitServing()
		if now := inode(); now != before {
			t.Errorf("%s: what runs was replaced without a restart", how)
		}
		p.restart()
		if now := inode(); now == before {
			t.Errorf("%s: the restart brought the old program", how)
		}
		want(t, p.cli("gateway status"), "✓ Gateway ("+p.name+")")
	}
	before := inode()
	p.Root(t, fmt.Sprintf("cp %[1]s %[2]s.new && mv -f %[2]s.new %[2]s", spare, p.program))
	if p.mode.managed() {
		p.forgive()
		p.awaitAnother(p.kill("KILL"))
		p.awaitServing()
		if now := inode(); now == before {
			t.Error("after a crash the old program serves")
		}
	}
}

// The program, and with it the folder of versions, is deleted under the gateway.
// It serves on and says so before it hurts; a restart is refused; after a crash
// the kept program serves, where there is one.
func rowProgramDeleted(p *profile) {
	t := p.t
	versions := p.user.Home + "/.local/share/hermes/versions"
	p.user.Run(t, fmt.Sprintf("mkdir -p %[1]s/1.0 && cp %[2]s %[1]s/1.0/hermes", versions, spare))
	p.Root(t, fmt.Sprintf("ln -sfn %s/1.0/hermes %s", versions, p.program))
	t.Cleanup(func() { p.restoreProgram(t) })
	p.restart()
	kept := p.user.Home + "/.local/share/hermes/rescue/hermes"
	if p.mode.managed() {
		p.until("the program to be kept", func() bool {
			ctx, cancel := rig.Deadline(stepLimit)
			defer cancel()
			_, err := p.Try(ctx, "cmp "+spare+" "+kept)
			return err == nil
		})
	}
	p.user.Run(t, "rm -r "+versions)
	p.awaitServing()
	pid := p.mainPID()
	said := p.cliFails("gateway restart")
	want(t, said, "is gone, so nothing was restarted and this process serves on")
	if now := p.mainPID(); now != pid {
		t.Errorf("the process was %d and is %d", pid, now)
	}
	want(t, p.user.Run(t, spare+" -p "+p.name+" gateway status || true"), "is gone")
	if err := p.converse(p.tg.AddUser("Ann"), p.word("gone")); err != nil {
		t.Error(err)
	}
	if !p.mode.kept {
		return
	}
	p.forgive()
	p.kill("KILL")
	p.awaitAnother(pid)
	p.awaitServing()
	if exe := strings.TrimSpace(p.Root(t, fmt.Sprintf("readlink /proc/%d/exe", p.mainPID()))); exe != kept {
		t.Errorf("%s serves", exe)
	}
	p.restoreProgram(t)
	p.restart()
}

// Passing files and sockets are swept away, as cleaners do.
func rowSwept(p *profile) {
	t := p.t
	ann := p.tg.AddUser("Ann")
	p.user.Run(t, "rm -rf $XDG_RUNTIME_DIR/hermes; find /tmp -mindepth 1 -user $(id -u) -delete 2>/dev/null || true")
	if err := p.converse(ann, p.word("h1")); err != nil {
		t.Error(err)
	}
	p.tg.Say(ann, "run echo tool works")
	if err := p.sees(ann, "it said: …"); err != nil {
		t.Error(err)
	}
	p.restart()
	p.forgive()
	if p.mode.managed() {
		p.awaitAnother(p.kill("KILL"))
		p.awaitServing()
	}
	if err := p.converse(ann, p.word("h2")); err != nil {
		t.Error(err)
	}
	// The control socket is swept away: it is there again by itself.
	p.user.Run(t, "rm "+p.file("gateway.sock"))
	p.until("the control socket", func() bool {
		return strings.Contains(p.user.Run(t, spare+" -p "+p.name+" gateway status || true"), "✓ Gateway ("+p.name+")")
	})
	p.restart()
}

// The kernel kills the gateway itself for want of memory: it comes back, goes on,
// and no part is suspected.
func rowOutOfMemory(p *profile) {
	t := p.t
	ann := p.tg.AddUser("Ann")
	word := p.word("oom")
	p.begin(ann, word)
	p.forgive()
	old := p.mainPID()
	memory, err := p.LimitMemory(t, old, 8<<20)
	if err != nil {
		t.Logf("the kernel's killer cannot be had here (%v), so it is killed by hand", err)
		p.kill("KILL")
	}
	l := p.startLoad(lightPace, true)
	p.awaitAnother(old)
	p.awaitServing()
	if n := memory.Killed(); err == nil && n == 0 {
		t.Error("the kernel killed nobody")
	}
	close(p.gate(word))
	l.goOn()
	l.finishTorn(3)
	if err := p.sees(ann, "answer "+word); err != nil {
		t.Error(err)
	}
	p.once(ann, "answer "+word)
	if s := p.careful(); s != nil {
		t.Errorf("it is careful: %+v", s)
	}
}

// No further process or thread can be had: tools fail with a sentence, and what
// serves serves on, or is started again.
func rowOutOfTasks(p *profile) {
	t := p.t
	ann := p.tg.AddUser("Ann")
	p.forgive()
	p.user.Run(t, fmt.Sprintf("prlimit --nproc=1 --pid %d", p.mainPID()))
	p.tg.Say(ann, "run echo alive")
	if err := p.sees(ann, "it said: …"); err != nil {
		t.Error(err)
	}
	want(t, p.tg.Transcript(ann.ID), "could not be started; it did not run")
	l := p.startLoad(lightPace, true)
	l.goOn()
	l.finishTorn(2)
	want(t, p.user.Run(t, spare+" -p "+p.name+" gateway status"), "✓ Gateway ("+p.name+")")
}

// Files run out under load: what cannot be opened waits, nothing is lost.
func rowOutOfFiles(p *profile) {
	t := p.t
	p.dropIn("50-files.conf", "[Service]\nLimitNOFILE=64\n")
	p.user.Run(t, "systemctl --user daemon-reload && systemctl --user restart "+p.unit)
	p.awaitServing()
	pid := p.mainPID()
	ann := p.tg.AddUser("Ann")
	if err := p.converse(ann, p.word("f1")); err != nil {
		t.Error(err)
	}
	// Connections that say nothing use up the descriptors.
	hold := fmt.Sprintf("exec 2>/dev/null; for i in $(seq 100); do exec {fd}<>/dev/tcp/127.0.0.1/%d || break; done; sleep 4", p.port)
	held := make(chan struct{})
	go func() {
		defer close(held)
		ctx, cancel := rig.Deadline(stepLimit)
		defer cancel()
		_, _ = p.user.Try(ctx, "bash -c '"+hold+"'")
	}()
	p.until("the descriptors to be used up", func() bool {
		_, files := p.footprint()
		return files >= 60
	})
	p.tg.Say(ann, "say "+p.word("f2"))
	<-held
	if err := p.sees(ann, "answer "+p.word("f2")); err != nil {
		t.Error(err)
	}
	p.once(ann, "answer "+p.word("f2"))
	p.awaitServing()
	if now := p.mainPID(); now != pid {
		t.Errorf("the process was %d and is %d", pid, now)
	}
	p.well()
	p.restart()
}
