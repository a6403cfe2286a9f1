package faults

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"hermes/internal/doctor"
	"hermes/internal/failpoint"
	"hermes/testkit/releases"
	"hermes/testkit/rig"
)

// The versions of an installation that is brought up to date: the one that it
// has, and the one that is offered.
const (
	older, newer = "1.0.0", "1.1.0"
)

// release builds the program of a version, once, with marks at which it can be
// told to die.
func release(version string) func() (string, error) {
	return sync.OnceValues(func() (string, error) {
		file, err := build()
		if err != nil {
			return "", err
		}
		return rig.BuildOther(context.Background(), filepath.Dir(file), version, "failpoint", map[string]string{"cmd/hermes/release.go": "package main\n"})
	})
}

var releaseOf = map[string]func() (string, error){older: release(older), newer: release(newer)}

// program is the program of a version.
func (w *world) program(version string) string {
	w.t.Helper()
	path, err := releaseOf[version]()
	w.must(err)
	return path
}

// share is where the versions of the world's user lie.
func (w *world) share(elem ...string) string {
	return filepath.Join(append([]string{w.dir, ".local/share/hermes"}, elem...)...)
}

// install puts the older version where install.sh does, and offers the newer one.
func (w *world) install() {
	w.t.Helper()
	link := filepath.Join(w.dir, ".local/bin/hermes")
	w.must(os.MkdirAll(w.share("versions", older), 0o755))
	w.must(os.MkdirAll(filepath.Dir(link), 0o755))
	w.must(os.Link(w.program(older), w.share("versions", older, "hermes")))
	w.must(os.Symlink("versions/"+older, w.share("current")))
	w.must(os.Symlink("../share/hermes/current/hermes", link))
	w.must(os.Remove(filepath.Join(w.dir, "bin", "hermes")))
	w.must(os.Symlink(link, filepath.Join(w.dir, "bin", "hermes")))
	w.home.Binary = link
	folder, err := releases.New(filepath.Join(w.dir, "releases"))
	w.must(err)
	text, err := os.ReadFile(w.program(newer))
	w.must(err)
	w.archive, err = folder.Add("stable", newer, text)
	w.must(err)
	w.offer = fmt.Sprintf("update:\n  url: %s\n  public_key: %s\n", folder.Dir, folder.PublicKey)
}

// killedUpdate runs an update that dies at a mark.
func (w *world) killedUpdate(mark string, args ...string) {
	w.t.Helper()
	cmd := w.home.Command(w.deadline(), append([]string{"update", "--yes"}, args...)...)
	cmd.Env = append(cmd.Env, "HERMES_FAILPOINT="+mark)
	if out, err := cmd.CombinedOutput(); err == nil || !strings.Contains(err.Error(), "killed") {
		w.t.Fatalf("it was not killed: %v\n%s", err, out)
	}
}

// withoutSource takes the place of releases out of config.yaml; the key stays.
func (w *world) withoutSource() {
	w.edit("config.yaml", "  url: "+filepath.Join(w.dir, "releases")+"\n", "")
}

// copied starts the gateway from a copy of a version that lies by itself.
func (w *world) copied(version string, args ...string) string {
	w.t.Helper()
	path := filepath.Join(w.dir, "opt", version, "hermes")
	w.must(os.MkdirAll(filepath.Dir(path), 0o755))
	w.must(exec.Command("cp", w.program(version), path).Run())
	h := *w.home
	h.Binary = path
	p, err := h.StartArgs(nil, append(args, "gateway", "run")...)
	w.must(err)
	w.keep(p)
	w.must(p.Ready(w.deadline()))
	return path
}

// updateFaults are interrupted updates, and programs that differ from each other.
func updateFaults() []fault {
	stages := map[string]string{
		failpoint.UpdateBegun: "service.update_interrupted", failpoint.UpdateFetched: "service.update_interrupted", failpoint.UpdateStaged: "service.update_interrupted",
		failpoint.UpdateKept: "service.update_partial", failpoint.UpdateHanded: "service.update_partial", failpoint.UpdatePinned: "service.update_partial",
		failpoint.UpdatePointed: "service.update_partial", failpoint.UpdateSettled: "service.update_interrupted",
	}
	var out []fault
	for _, mark := range failpoint.Update() {
		id, ok := stages[mark]
		if !ok {
			id = "a finding for this mark"
		}
		out = append(out, fault{what: "an update was killed at its step " + strings.TrimPrefix(mark, "update."), id: id, class: doctor.Service, shape: shape{versions: true, noBot: true},
			inject: func(w *world) { w.killedUpdate(mark) }})
	}
	return append(out, []fault{
		{what: "an update from a file was killed, and nothing says where releases are", id: "service.update_partial", class: doctor.Service, shape: shape{versions: true, noBot: true},
			inject: func(w *world) {
				w.withoutSource()
				w.killedUpdate(failpoint.UpdateHanded, "--from", w.archive)
			}},
		{what: "an update from a file was killed before it had done anything", id: "service.update_interrupted", class: doctor.Service, shape: shape{versions: true, noBot: true},
			inject: func(w *world) {
				w.withoutSource()
				w.killedUpdate(failpoint.UpdateBegun, "--from", w.archive)
				w.fill["archive"] = w.archive
			}},
		{what: "the link to the version in use leads nowhere", id: "service.current_link", class: doctor.Service, shape: shape{versions: true, noBot: true},
			inject: func(w *world) {
				w.must(os.Remove(w.share("current")))
				w.must(os.Symlink("versions/0.9.0", w.share("current")))
				w.home.Binary = w.share("versions", older, "hermes")
			}},
		{what: "the folder of the version in use was deleted, and the gateway ended", id: "service.current_link", class: doctor.Service, shape: shape{versions: true, noBot: true},
			inject: func(w *world) {
				w.stop()
				w.must(os.RemoveAll(w.share("versions", older)))
				w.home.Binary = w.program(older)
			}},
		{what: "the link was moved to another version by hand", id: "service.version_differs", class: doctor.Service, shape: shape{versions: true, noBot: true},
			inject: func(w *world) {
				w.must(os.MkdirAll(w.share("versions", newer), 0o755))
				w.must(os.Link(w.program(newer), w.share("versions", newer, "hermes")))
				w.must(exec.Command("ln", "-sfn", "versions/"+newer, w.share("current")).Run())
			}},
		{what: "a pin of an update that is over keeps the old version", id: "service.pin_old", class: doctor.Service, shape: shape{versions: true, noBot: true},
			inject: func(w *world) {
				w.hermes("update", "--yes")
				w.write("binary.pin", fmt.Sprintf(`{"path":%q,"version":%q,"why":"update to %s"}`, w.share("versions", older, "hermes"), older, older))
				w.hermes("gateway", "restart")
			}},
		{what: "the program that serves was deleted", id: "service.program_deleted", class: doctor.Service, shape: shape{versions: true, noBot: true, unstarted: true}, shows: []string{"(deleted)"},
			inject: func(w *world) { w.must(os.Remove(w.copied(older))) }},
		{what: "the program was replaced by another while it ran", id: "service.program_replaced", class: doctor.Service, shape: shape{versions: true, noBot: true, unstarted: true}, shows: []string{"is version 1.0.0"},
			inject: func(w *world) {
				path := w.copied(older)
				w.must(exec.Command("cp", w.program(older), path+".new").Run())
				w.must(os.Rename(path+".new", path))
			}},
		{what: "updates left archives and folders that they had begun", id: "service.update_leftovers", class: doctor.Service, shape: shape{versions: true, noBot: true},
			inject: func(w *world) {
				w.must(os.MkdirAll(w.share("versions", ".stage-123456"), 0o755))
				w.must(os.WriteFile(w.share("versions", ".stage-123456", "hermes"), make([]byte, 3<<20), 0o755))
				w.must(os.WriteFile(w.share("versions", ".fetch-0123456789abcdef01234567"), make([]byte, 2<<20), 0o600))
			}},
		{what: "a version was put among the others by hand", id: "service.version_unverified", class: doctor.Service, shape: shape{versions: true, noBot: true},
			inject: func(w *world) {
				w.hermes("update", "--yes")
				w.must(os.MkdirAll(w.share("versions", "1.0.5"), 0o755))
				w.must(os.Link(w.program(older), w.share("versions", "1.0.5", "hermes")))
			}},
		{what: "the program of the version in use is not the one that was verified", id: "service.version_changed", class: doctor.Service, shape: shape{versions: true, noBot: true},
			inject: func(w *world) {
				w.hermes("update", "--yes")
				path := w.share("versions", newer, "hermes")
				w.must(exec.Command("cp", path, path+".new").Run())
				f, err := os.OpenFile(path+".new", os.O_WRONLY|os.O_APPEND, 0)
				w.must(err)
				_, err = f.WriteString("and more")
				w.must(err)
				w.must(f.Close())
				w.must(os.Rename(path+".new", path))
				w.hermes("gateway", "restart")
			}},
		{what: "everybody may put another program in the place of a version", id: "service.version_open", class: doctor.Service, shape: shape{versions: true, noBot: true},
			inject: func(w *world) { w.must(os.Chmod(w.share("versions", older), 0o777)) }},
		{what: "two profiles are served by different versions", id: "service.versions_differ", class: doctor.Service, shape: shape{versions: true, noBot: true, noAPI: true, profile: "liam", unstarted: true}, fixes: 2,
			inject: func(w *world) {
				w.must(writeFile(filepath.Join(w.home.Dir, "config.yaml"), w.read("config.yaml")))
				w.copied(newer, "-p", "default")
				w.start()
				w.t.Cleanup(func() { _, _ = w.home.Run(w.deadline(), "-p", "default", "gateway", "stop") })
			}},
		{what: "a shell runs another version than the one that serves", id: "service.two_programs", class: doctor.Service, shape: shape{versions: true, noBot: true, unstarted: true},
			inject: func(w *world) {
				w.hermes("update", "--yes")
				w.copied(older)
			}},
	}...)
}

// While an update is under way, nothing is wrong with what it has done so far.
func TestUpdateUnderWay(t *testing.T) {
	w := setUp(t, shape{versions: true, noBot: true})
	cmd := w.home.Command(w.deadline(), "update", "--yes")
	cmd.Env = append(cmd.Env, "HERMES_FAILPOINT="+failpoint.UpdateKept+":1:hang")
	w.must(cmd.Start())
	gone := make(chan struct{})
	go func() { _ = cmd.Wait(); close(gone) }()
	t.Cleanup(func() { _ = cmd.Process.Kill(); <-gone })
	w.until("the update to have begun the switch", func() bool {
		text, err := os.ReadFile(w.share("update.json"))
		return err == nil && strings.Contains(string(text), "partial")
	})
	w.well(nil)
	_ = cmd.Process.Kill()
	<-gone
	w.first("service.update_partial", nil)
}
