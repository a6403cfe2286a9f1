package systemd

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"hermes/internal/control"
	"hermes/testkit/rig"
)

// dying is a build of the program that dies where HERMES_FAILPOINT says.
const dying = "/usr/local/bin/hermes-dying"

// installDying builds and installs it, once for the machine.
func (m *machine) installDying(t *testing.T) {
	t.Helper()
	m.dies.Do(func() {
		ctx, cancel := rig.Deadline(5 * time.Minute)
		defer cancel()
		binary, err := rig.Build(ctx, t.TempDir(), "failpoint")
		if err != nil {
			t.Fatal(err)
		}
		m.Install(t, binary, dying)
	})
}

// careful is the safe mode that status tells of, nil for none or no answer.
func (p *profile) careful() *control.SafeMode {
	ctx, cancel := rig.Deadline(stepLimit)
	defer cancel()
	out, _ := p.user.Try(ctx, spare+" -p "+p.name+" gateway status --json 2>/dev/null") // not healthy is exit 1
	var s control.Status
	if json.Unmarshal([]byte(out), &s) != nil || s.State != "running" {
		return nil
	}
	return s.Safe
}

// rowBadPart lets one part end the process at every start, faster than any
// limit looks back. The part is found and held back in time, so that systemd
// never gives up, and a planned start needs no reset-failed.
func rowBadPart(p *profile) {
	t := p.t
	p.installDying(t)
	p.forgive()
	p.dropIn("30-dying.conf", fmt.Sprintf("[Service]\nEnvironment=HERMES_FAILPOINT=part.platform.telegram:1:fatal\nExecStart=\nExecStart=%s --profile %s gateway run\n", dying, p.name))
	p.user.Run(t, "systemctl --user daemon-reload; systemctl --user --no-block restart "+p.unit)
	p.until("the bad part to be held back", func() bool {
		s := p.careful()
		return s != nil && len(s.Held) == 1 && s.Held[0].Part == "platform.telegram"
	})
	p.awaitServing()
	// Where the limit is near, one death is enough.
	if got := p.show("ActiveState") + " " + p.show("NRestarts"); got != "active 1" && got != "active 2" {
		t.Errorf("the unit is %s", got)
	}
	p.user.Run(t, "rm ~/.config/systemd/user/"+p.unit+".d/30-dying.conf && systemctl --user daemon-reload && systemctl --user restart "+p.unit)
	p.awaitServing()
}

// rowBadJob lets a job kill the gateway whenever it runs. It is found and held
// back before systemd gives the unit up, and all else serves.
func rowBadJob(p *profile) {
	t := p.t
	p.user.Write(t, p.file("scripts/kill.sh"), "#!/bin/sh\nkill -KILL $PPID\n")
	p.cli(`cron create "every 5h" --no-agent --script kill.sh --name bad`)
	p.forgive()
	p.until("the job to be held back", func() bool {
		if s := p.careful(); s != nil && len(s.Held) == 1 && strings.HasPrefix(s.Held[0].Part, "job.") {
			return true
		}
		ctx, cancel := rig.Deadline(stepLimit)
		defer cancel()
		_, _ = p.user.Try(ctx, spare+" -p "+p.name+" cron run bad --no-wait") // it may be down just then
		return false
	})
	p.awaitServing()
	// The unit's own limit is three or five starts.
	if got := p.show("ActiveState") + " " + p.show("NRestarts"); got != "active 2" && got != "active 3" {
		t.Errorf("the unit is %s", got)
	}
	want(t, p.cliFails("gateway status"), "safe mode", "this job was at work")
	if err := p.converse(p.tg.AddUser("Ann"), p.word("job")); err != nil {
		t.Error(err)
	}
	p.user.Run(t, "systemctl --user restart "+p.unit)
	p.awaitServing()
	if s := p.careful(); s == nil || len(s.Held) != 1 {
		t.Errorf("a restart by systemd, which is no planned one, let the job go: %+v", s)
	}
}

// rowBrokenConfiguration breaks what served healthily, and kills the process: the
// last healthy configuration is served, and nobody is admitted by that who is
// not on disk.
func rowBrokenConfiguration(p *profile) {
	t := p.t
	p.until("the configuration to have served healthily", func() bool {
		ctx, cancel := rig.Deadline(stepLimit)
		defer cancel()
		out, err := p.user.Try(ctx, spare+" -p "+p.name+" config history --json")
		return err == nil && strings.Contains(out, `"healthy_at"`)
	})
	good := p.Read(p.file("config.yaml"))
	p.user.Write(t, p.file("config.yaml"), good+"display: [\n")
	p.forgive()
	old := p.kill("KILL")
	p.awaitAnother(old)
	p.awaitServing()
	p.until("safe mode", func() bool {
		s := p.careful()
		return s != nil && strings.Contains(s.Broken, "config.yaml")
	})
	want(t, p.cliFails("gateway status"), "safe mode")
	if err := p.converse(p.tg.AddUser("Ann"), p.word("safe")); err != nil {
		t.Error(err)
	}
	want(t, p.cli("config rollback"), "✓ .env and config.yaml are as in configuration")
	p.awaitServing()
	if p.careful() != nil {
		t.Error("still in safe mode after a rollback")
	}
}
