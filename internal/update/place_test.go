package update_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"hermes/internal/domain"
	"hermes/internal/update"
	"hermes/internal/versions"
)

// copied installs a plain file, as people do who unpack an archive.
func (w *world) copied() string {
	dir := filepath.Join(w.user, "bin")
	w.must(os.MkdirAll(dir, 0o755))
	file := filepath.Join(dir, "hermes")
	w.must(os.WriteFile(file, program(w.t, "1.0.0"), 0o750))
	w.place = update.Locate(update.Surroundings{UserHome: w.user, Executable: file, Called: file, InPath: file})
	for i := range w.fleet.members {
		w.fleet.members[i].Program, w.fleet.members[i].Starts = file, file
	}
	return file
}

func TestAPlainFileIsReplacedLast(t *testing.T) {
	w := newWorld(t, "1.1.0")
	file := w.copied()
	if w.place.Kind != update.Copied {
		t.Fatalf("%+v", w.place)
	}
	before, err := os.ReadFile(file)
	w.must(err)
	w.fleet.during = func(update.Member) {
		if now, err := os.ReadFile(file); err != nil || string(now) != string(before) {
			t.Error("the file was replaced before all were handed over")
		}
	}
	u := w.updater()
	u.Program = file
	if _, err := u.Update(context.Background(), update.Request{Source: w.source(w.folder.Dir), Channel: "stable"}); err != nil {
		t.Fatal(err)
	}
	info, err := os.Lstat(file)
	w.must(err)
	if now, _ := os.ReadFile(file); string(now) != string(program(t, "1.1.0")) || info.Mode().Perm() != 0o750 || !info.Mode().IsRegular() {
		t.Errorf("the file was not replaced, or has mode %s", info.Mode())
	}
	if _, ok, _ := versions.Pinned(w.fleet.members[0].Profile); ok {
		t.Error("a pin was left")
	}
}

// What is not this user's to change is told of before anything is fetched, with
// the command that can; a copy of one's own needs nobody, and pins what starts
// the other.
func TestProgramsOfOthers(t *testing.T) {
	w := newWorld(t, "1.1.0")
	file := w.copied()
	link := filepath.Join(w.user, "bin", "link")
	w.must(os.Symlink(file, link))
	wrapper := filepath.Join(w.user, "wrapper")
	w.must(os.WriteFile(wrapper, []byte("#!/bin/sh\nexec "+file+` "$@"`+"\n"), 0o755))
	for name, c := range map[string]struct {
		s    update.Surroundings
		want []string
	}{
		"a link that somebody made": {update.Surroundings{Executable: file, Called: link}, []string{"is a symbolic link to " + file, "hermes update --own-copy"}},
		"a wrapper":                 {update.Surroundings{Executable: file, Called: file, InPath: wrapper}, []string{"is a wrapper around " + file, "`" + file + " update`"}},
	} {
		c.s.UserHome = w.user
		w.place = update.Locate(c.s)
		asked := 0
		s := w.source("http://127.0.0.1:1")
		s.Progress = func(int64, int64) { asked++ }
		_, err := w.updater().Update(context.Background(), update.Request{Source: s, Channel: "stable"})
		if !domain.IsCode(err, domain.Forbidden) {
			t.Errorf("%s: %v", name, err)
			continue
		}
		for _, part := range c.want {
			if !strings.Contains(err.Error(), part) {
				t.Errorf("%s: %q is missing in %q", name, part, err)
			}
		}
	}
	w.must(os.RemoveAll(versions.Current(w.user)))
	w.must(os.RemoveAll(w.link()))
	w.place = w.place.Owned()
	u := w.updater()
	u.Program = file
	if _, err := u.Update(context.Background(), update.Request{Source: w.source(w.folder.Dir), Channel: "stable"}); err != nil {
		t.Fatal(err)
	}
	if w.linked() != "1.1.0" {
		t.Errorf("the own copy is %s", w.linked())
	}
	if pin, ok, _ := versions.Pinned(w.fleet.members[0].Profile); !ok || pin.Version != "1.1.0" {
		t.Errorf("what its unit starts is the old program, and it is not pinned: %+v", pin)
	}
}

func TestFolderThatCannotBeWritten(t *testing.T) {
	if os.Getuid() == 0 {
		// root may write everywhere, but not where the file system is read-only
		const dir = "/proc/sys"
		if p := update.Locate(update.Surroundings{UserHome: t.TempDir(), Executable: dir + "/hermes"}); p.Kind != update.Foreign || p.Ready() == nil {
			t.Errorf("%+v", p)
		}
		return
	}
	dir := t.TempDir()
	if err := syscall.Chmod(dir, 0o555); err != nil {
		t.Fatal(err)
	}
	if p := update.Locate(update.Surroundings{UserHome: t.TempDir(), Executable: filepath.Join(dir, "hermes")}); p.Kind != update.Foreign || !strings.Contains(p.Ready().Error(), "sudo hermes update") {
		t.Errorf("%+v", p)
	}
}
