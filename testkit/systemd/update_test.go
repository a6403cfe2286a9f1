package systemd

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"hermes/testkit/releases"
	"hermes/testkit/rig"
)

// The versions of the update's cases. What stands behind them is broken, each in
// another way.
const (
	vFirst  = "1.0.0"
	vNext   = "1.1.0"
	vExits  = "1.2.0" // whatever is to serve ends at once
	vPanics = "1.2.1" // nothing runs at all
	vSick   = "1.2.2" // it serves and is never well
	vPlaced = "1.2.3" // the profile of the template ends at once
)

// updateLimit bounds one update, which waits half a minute for what is never well.
const updateLimit = 4 * time.Minute

// breakage is what a broken version has of its own.
func breakage(ctx context.Context, version string) (map[string]string, error) {
	const when = "package main\n\nimport (\n\t\"os\"\n\t\"strings\"\n)\n\nfunc init() {\n\tif line := strings.Join(os.Args[1:], \" \"); %s {\n\t\tos.Exit(3)\n\t}\n}\n"
	main := "package main\n"
	switch version {
	case vExits:
		main = fmt.Sprintf(when, `strings.HasSuffix(line, "gateway run") || strings.HasSuffix(line, "cron run")`)
	case vPlaced:
		main = fmt.Sprintf(when, `strings.Contains(line, "ctmpl") && strings.HasSuffix(line, "gateway run")`)
	case vPanics:
		main = "package main\n\nfunc init() { panic(\"this release is broken\") }\n"
	case vSick:
		text, err := rig.Source(ctx, "internal/gateway/status.go")
		if err != nil {
			return nil, err
		}
		const was = "func (g *Gateway) Status(ctx context.Context) control.Status {\n"
		if !strings.Contains(text, was) {
			return nil, fmt.Errorf("the function that says how the gateway is has changed; change this test with it")
		}
		return map[string]string{"internal/gateway/status.go": strings.Replace(text, was, was+"\tg.health.Part(\"sick\").Down(\"sick\", \"This release is sick.\")\n", 1)}, nil
	}
	return map[string]string{"cmd/hermes/release.go": main}, nil
}

// releaseFolder makes all versions on this machine: the good one is stable, the
// broken ones are betas.
func releaseFolder(t *testing.T) (folder *releases.Folder, first string) {
	t.Helper()
	ctx, cancel := rig.Deadline(10 * time.Minute)
	defer cancel()
	dir := t.TempDir()
	folder, err := releases.New(filepath.Join(dir, "releases"))
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range []string{vFirst, vNext, vExits, vPanics, vSick, vPlaced} {
		changed, err := breakage(ctx, v)
		if err != nil {
			t.Fatal(err)
		}
		binary, err := rig.BuildOther(ctx, dir, v, "", changed)
		if err != nil {
			t.Fatal(err)
		}
		channel := "beta"
		switch v {
		case vFirst:
			first = binary
			continue
		case vNext:
			channel = "stable"
		}
		text, err := os.ReadFile(binary)
		if err == nil {
			_, err = folder.Add(channel, v, text)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return folder, first
}

// updated is a user with an installation of their own and three profiles: a
// scheduler alone, a generated unit and the hand-written template.
type updated struct {
	*world
	t           *testing.T
	cron        string // unit
	unit, tmpl  *profile
	cronProfile string
}

func newUpdated(t *testing.T, w *world) *updated {
	t.Helper()
	folder, first := releaseFolder(t)
	files, err := os.ReadDir(folder.Dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		w.Install(t, filepath.Join(folder.Dir, f.Name()), "/opt/releases/"+f.Name())
	}
	share := w.user.Home + "/.local/share/hermes"
	w.Install(t, first, "/opt/first/hermes")
	w.user.Run(t, fmt.Sprintf("mkdir -p %[1]s/versions/%[2]s ~/.local/bin && cp /opt/first/hermes %[1]s/versions/%[2]s/ && ln -s versions/%[2]s %[1]s/current && ln -s ../share/hermes/current/hermes ~/.local/bin/hermes", share, vFirst))
	w.program = w.user.Home + "/.local/bin/hermes"
	w.user.Write(t, w.user.Home+"/.hermes/config.yaml", fmt.Sprintf("update:\n  url: /opt/releases\n  public_key: %s\n", folder.PublicKey))
	u := &updated{world: w, t: t, cron: "hermes-cron@acron.service", cronProfile: "acron"}
	w.user.Run(t, w.program+" profile create "+u.cronProfile)
	w.user.Write(t, w.user.Home+"/.config/systemd/user/hermes-cron@.service", strings.Replace(strings.Replace(handWrittenCron, spare, w.program, 1), "RestartSec=30", "RestartSec=1", 1))
	w.user.Run(t, "systemctl --user daemon-reload && systemctl --user enable --now "+u.cron)
	t.Cleanup(func() { w.user.Run(t, "systemctl --user disable --now "+u.cron) })
	u.unit, u.tmpl = w.as(t, generated, "bunit"), w.as(t, template, "ctmpl")
	return u
}

// run updates, and gives what was printed.
func (u *updated) run(args string) (string, error) {
	ctx, cancel := rig.Deadline(updateLimit)
	defer cancel()
	return u.user.Try(ctx, u.program+" update --yes "+args)
}

// brings holds that an update comes to a version.
func (u *updated) brings(version, args string) string {
	u.t.Helper()
	out, err := u.run(args)
	if err != nil {
		u.t.Fatalf("update %s: %v\n%s", args, err, out)
	}
	u.serves(version, version, version, version)
	return out
}

// serves holds which versions run: of the scheduler, the generated unit, the
// template, and what is started by the next who types hermes.
func (u *updated) serves(cron, unit, tmpl, linked string) {
	u.t.Helper()
	versions := u.user.Home + "/.local/share/hermes/versions/"
	for name, want := range map[string]string{u.cron: cron, u.unit.unit: unit, u.tmpl.unit: tmpl} {
		u.Until(u.t, stepLimit, name+" to be "+want, func(ctx context.Context) error {
			out, err := u.user.Try(ctx, "readlink /proc/$(systemctl --user show -p MainPID --value "+name+")/exe")
			if got := strings.TrimSpace(out); got != versions+want+"/hermes" {
				return fmt.Errorf("it is %s %w", got, err)
			}
			return nil
		})
	}
	want(u.t, u.user.Run(u.t, u.program+" --version"), "hermes "+linked)
}

// testUpdate goes from one version to the next under load, to broken ones, and
// back, by the shell and by the chat.
func testUpdate(t *testing.T, w *world) {
	u := newUpdated(t, w)
	u.serves(vFirst, vFirst, vFirst, vFirst)
	loads := []*load{u.unit.startLoad(lightPace, false), u.tmpl.startLoad(lightPace, false)}
	for _, l := range loads {
		l.goOn()
	}
	out := u.brings(vNext, "")
	want(t, out, "✓ Restarted hermes-cron@acron (PID", "✓ Restarted hermes-gateway-bunit (PID", "✓ Restarted hermes-gateway@ctmpl (PID", "✓ Updated to 1.1.0 (was 1.0.0)")
	for _, l := range loads {
		l.goOn()
	}
	u.fails(vExits, "hermes-cron@acron is not well on 1.2.0")
	u.serves(vNext, vNext, vNext, vNext)
	u.fails(vPanics, "1.2.1 does not run on this machine")
	u.serves(vNext, vNext, vNext, vNext)
	for _, l := range loads {
		l.goOn()
	}
	u.fails(vSick, "hermes-gateway-bunit is not well on 1.2.2", "This release is sick", "It went back to 1.1.0")
	u.serves(vSick, vNext, vNext, vNext)
	var ends sync.WaitGroup
	for _, l := range loads {
		ends.Go(func() { l.finish() })
	}
	ends.Wait()
	want(t, u.Read(u.user.Home+"/.hermes/logs/update.log"), "✗ hermes-gateway-bunit is not well on 1.2.2")
	u.brings(vNext, "--rollback")
	u.fails(vPlaced, "hermes-gateway@ctmpl is not well on 1.2.3", "1.1.0")
	u.serves(vPlaced, vPlaced, vNext, vNext)
	u.brings(vNext, "--rollback")
	u.brings(vFirst, "--rollback")
	u.byChat()
}

// fails holds that an update to a version does not come to its end, and says why.
func (u *updated) fails(version string, why ...string) {
	u.t.Helper()
	out, err := u.run("--to " + version)
	if err == nil {
		u.t.Errorf("the update to %s is said to be well:\n%s", version, out)
	}
	want(u.t, out, why...)
}

// byChat updates by /update: not for who may talk because all may, but for who is
// on a list, from a unit that hands over and from one that goes on in place.
func (u *updated) byChat() {
	u.t.Helper()
	for i, p := range []*profile{u.unit, u.tmpl} {
		stranger, ann := p.tg.AddUser("Stranger"), p.tg.AddUser("Ann")
		p.env(fmt.Sprintf("TELEGRAM_ALLOWED_USERS=%d\n", ann.ID))
		p.user.Run(u.t, u.program+" -p "+p.name+" gateway restart")
		p.tg.Say(stranger, "/update")
		if err := p.sees(stranger, "⚠️ only people whom the operator let in by name…"); err != nil {
			u.t.Error(err)
		}
		p.tg.Say(ann, []string{"/update", "/update rollback"}[i])
		for _, text := range []string{"⏬ …", "✓ I was updated from …"} {
			if err := p.sees(ann, text); err != nil {
				u.t.Errorf("%v\n%s", err, u.Read(u.user.Home+"/.hermes/logs/update.log"))
			}
		}
		v := []string{vNext, vFirst}[i]
		u.serves(v, v, v, v)
	}
}
