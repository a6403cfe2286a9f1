package versions_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"hermes/internal/domain"
	"hermes/internal/home"
	"hermes/internal/versions"
)

func profile(t *testing.T) home.Profile {
	dir := t.TempDir()
	return home.Profile{Name: "default", Root: dir, Home: dir}
}

func program(t *testing.T, path, text string) string {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestLayout(t *testing.T) {
	user := t.TempDir()
	for _, v := range []string{"1.2.0", "1.10.0"} {
		file, err := versions.File(user, v)
		if err != nil {
			t.Fatal(err)
		}
		program(t, file, v)
	}
	if err := os.MkdirAll(filepath.Join(versions.Dir(user), "empty"), 0o755); err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(versions.List(user), " "); got != "1.10.0 1.2.0" {
		t.Errorf("listed %q", got)
	}
	for _, bad := range []string{"", "..", "../x", "a/b", ".hidden", "a..b", "a b"} {
		if _, err := versions.File(user, bad); !domain.IsCode(err, domain.Invalid) {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

func TestSwitchReplacesOnlyLinks(t *testing.T) {
	user := t.TempDir()
	link := versions.Current(user)
	for _, target := range []string{"versions/1", "versions/2"} {
		if err := versions.Switch(link, target); err != nil {
			t.Fatal(err)
		}
		if got, _ := os.Readlink(link); got != target {
			t.Errorf("names %q, want %q", got, target)
		}
	}
	file := program(t, filepath.Join(user, "file"), "x")
	if err := versions.Switch(file, "elsewhere"); !domain.IsCode(err, domain.Conflict) {
		t.Errorf("a file was replaced by a link: %v", err)
	}
	if left, _ := filepath.Glob(filepath.Join(filepath.Dir(link), ".link-*")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestPin(t *testing.T) {
	p := profile(t)
	if _, ok, err := versions.Pinned(p); ok || err != nil {
		t.Fatalf("pinned without a pin: %v %v", ok, err)
	}
	file := program(t, p.Path("v1"), "one")
	if err := versions.SetPin(p, versions.Pin{Path: file, Version: "1", Why: "a test"}); err != nil {
		t.Fatal(err)
	}
	if pin, ok, err := versions.Pinned(p); !ok || err != nil || pin.Path != file || pin.Version != "1" {
		t.Fatalf("pin %+v %v %v", pin, ok, err)
	}
	for what, text := range map[string]string{"junk": "{", "relative": "bin/hermes", "missing": p.Path("nowhere"), "not runnable": p.Path("binary.pin")} {
		if err := os.WriteFile(versions.PinFile(p), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, ok, err := versions.Pinned(p); ok || !domain.IsCode(err, domain.Config) {
			t.Errorf("%s: %v %v", what, ok, err)
		}
	}
	if err := os.WriteFile(versions.PinFile(p), []byte(file+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if pin, ok, err := versions.Pinned(p); !ok || err != nil || pin.Path != file {
		t.Errorf("a bare path is no pin: %+v %v %v", pin, ok, err)
	}
	if err := versions.SetPin(p, versions.Pin{Path: p.Path("nowhere")}); !domain.IsCode(err, domain.Invalid) {
		t.Errorf("pinned to a missing program: %v", err)
	}
	for range 2 {
		if err := versions.Unpin(p); err != nil {
			t.Fatal(err)
		}
	}
	if _, ok, _ := versions.Pinned(p); ok {
		t.Error("still pinned")
	}
}

func TestFallbackIsTheGoodOneWhileItIsThere(t *testing.T) {
	p := profile(t)
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	look := func(path, version string) versions.Binary {
		b, err := versions.Look(path, version, now)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	old, fresh := look(program(t, p.Path("old"), "old"), "1"), look(program(t, p.Path("fresh"), "fresh one"), "2")
	if _, ok := versions.Read(p).Fallback(fresh); ok {
		t.Error("something to fall back to, with nothing noted")
	}
	if err := versions.NoteGood(p, old); err != nil {
		t.Fatal(err)
	}
	if err := versions.NoteBrought(p, versions.Brought{Binary: fresh, From: "1"}); err != nil {
		t.Fatal(err)
	}
	book := versions.Read(p)
	if got, ok := book.Fallback(fresh); !ok || got.Path != old.Path || got.Version != "1" || !got.At.Equal(now) {
		t.Errorf("fallback %+v %v", got, ok)
	}
	if _, ok := book.Fallback(old); ok {
		t.Error("fell back to itself")
	}
	if book.Brought == nil || book.Brought.Version != "2" || book.Brought.From != "1" {
		t.Errorf("brought %+v", book.Brought)
	}
	program(t, old.Path, "another program in its place")
	if _, ok := book.Fallback(fresh); ok {
		t.Error("fell back to a file that is another one now")
	}
	if err := os.WriteFile(p.Path("binaries.json"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if b := versions.Read(p); b.Good.Path != "" {
		t.Errorf("read %+v from a damaged file", b)
	}
}
