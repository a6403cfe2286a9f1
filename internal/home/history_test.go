package home

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"hermes/internal/domain"
)

// testing profile with both files.
func written(t *testing.T, env, config string) Profile {
	t.Helper()
	dir := t.TempDir()
	p := Profile{Name: "default", Root: dir, Home: dir}
	write(t, p.EnvFile(), env)
	write(t, p.ConfigFile(), config)
	return p
}

func whys(t *testing.T, p Profile) string {
	t.Helper()
	all, err := OpenHistory(p).List()
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, e := range all {
		out = append(out, e.Why)
	}
	return strings.Join(out, " | ")
}

func TestEveryChangeIsKept(t *testing.T) {
	p := written(t, "A_KEY=one\n", "model:\n  default: a\n")
	by := By{"config set", "1.0"}
	if _, err := Set(p, mustEnv(t, p), "model.default", "b", by); err != nil {
		t.Fatal(err)
	}
	if _, err := Set(p, mustEnv(t, p), "A_KEY", "two", by); err != nil {
		t.Fatal(err)
	}
	if _, err := Set(p, mustEnv(t, p), "A_KEY", "two", by); err != nil { // nothing new
		t.Fatal(err)
	}
	write(t, p.ConfigFile(), "model:\n  default: by hand\n")
	if _, err := Unset(p, mustEnv(t, p), "A_KEY", By{"config unset", "1.0"}); err != nil {
		t.Fatal(err)
	}
	want := "found before config set model.default | config set model.default | config set A_KEY | found before config unset A_KEY | config unset A_KEY"
	if got := whys(t, p); got != want {
		t.Errorf("history: %s\nwant: %s", got, want)
	}
	// What .env.bak holds can be copied back by hand.
	if got := readFile(t, p.EnvFile()+".bak"); got != "A_KEY=two\n" {
		t.Errorf(".env.bak holds %q", got)
	}
	for _, name := range []string{".env", "entry.json"} {
		if st, err := os.Stat(filepath.Join(OpenHistory(p).Dir(2), name)); err != nil || st.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v %v", name, st, err)
		}
	}
}

func TestAHealthyStartIsMarkedAndNeverForgotten(t *testing.T) {
	p := written(t, "A=1\n", "")
	h := OpenHistory(p)
	if _, _, ok := h.LastHealthy(); ok {
		t.Fatal("healthy before any start")
	}
	at := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	good, err := ReadFiles(p)
	if err != nil {
		t.Fatal(err)
	}
	first, err := h.Healthy(good, "1.0", at)
	if err != nil {
		t.Fatal(err)
	}
	if got := readFile(t, p.EnvFile()+".bak"); got != "A=1\n" {
		t.Errorf(".env.bak holds %q after a healthy start", got)
	}
	for i := range 60 {
		v := strings.Repeat("x", i+1)
		if err := EditEnv(p, map[string]*string{"A": &v}, By{"change", ""}); err != nil {
			t.Fatal(err)
		}
	}
	all, err := h.List()
	if err != nil || len(all) > historyKept+1 {
		t.Fatalf("%d entries are kept, %v", len(all), err)
	}
	e, f, ok := h.LastHealthy()
	if !ok || e.N != first.N || string(f.Env) != "A=1\n" || !e.HealthyAt.Equal(at) || e.HealthyBy != "1.0" {
		t.Fatalf("%+v %+v %v", e, f, ok)
	}
	// What is served was read before the files were changed.
	if again, err := h.Healthy(good, "1.1", at.Add(time.Hour)); err != nil || again.N != first.N || again.HealthyBy != "1.1" {
		t.Errorf("marked again: %+v %v", again, err)
	}
	if after, err := h.List(); err != nil || len(after) != len(all) {
		t.Errorf("%d entries, were %d (%v)", len(after), len(all), err)
	}
}

func TestRestore(t *testing.T) {
	p := written(t, "A=1\n", "model:\n  default: a # mine\n")
	h := OpenHistory(p)
	if _, err := h.Healthy(Files{Env: []byte("A=1\n"), Config: []byte(readFile(t, p.ConfigFile()))}, "1", time.Now()); err != nil {
		t.Fatal(err)
	}
	write(t, p.EnvFile(), "A=2\n")
	if err := os.Remove(p.ConfigFile()); err != nil {
		t.Fatal(err)
	}
	r, err := h.Restore(1, By{"config rollback", "1"})
	if err != nil || !r.Changed {
		t.Fatal(r, err)
	}
	if readFile(t, p.EnvFile()) != "A=1\n" || !strings.Contains(readFile(t, p.ConfigFile()), "# mine") {
		t.Error("the files do not hold what they held")
	}
	if again, err := h.Restore(1, By{"config rollback", "1"}); err != nil || again.Changed {
		t.Errorf("twice: %+v %v", again, err)
	}
	if back, err := h.Restore(r.Before, By{"config rollback", "1"}); err != nil || !back.Changed {
		t.Fatal(back, err)
	}
	if _, err := os.Stat(p.ConfigFile()); !os.IsNotExist(err) || readFile(t, p.EnvFile()) != "A=2\n" {
		t.Error("what was there before the rollback did not come back")
	}
	if _, err := h.Restore(99, By{"x", ""}); !domain.IsCode(err, domain.NotFound) {
		t.Errorf("99: %v", err)
	}
}

func TestADamagedEntryIsNotUsed(t *testing.T) {
	p := written(t, "A=1\n", "")
	h := OpenHistory(p)
	if _, err := h.Healthy(Files{Env: []byte("A=1\n")}, "1", time.Now()); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(h.Dir(1), ".env"), "A=tampered\n")
	if _, _, ok := h.LastHealthy(); ok {
		t.Error("a changed copy was used")
	}
	if _, err := h.Restore(1, By{"x", ""}); err == nil {
		t.Error("a changed copy was restored")
	}
	write(t, filepath.Join(h.Dir(1), "entry.json"), "{")
	if all, err := h.List(); err != nil || len(all) != 0 {
		t.Errorf("%v %v", all, err)
	}
	v := "2"
	if err := EditEnv(p, map[string]*string{"A": &v}, By{"change", ""}); err != nil {
		t.Fatal(err)
	}
	if got := whys(t, p); got != "found before change A | change A" {
		t.Errorf("history: %s", got)
	}
}

func TestLoadFilesReadsWhatItIsGiven(t *testing.T) {
	p := written(t, "TELEGRAM_ALLOWED_USERS=1\n", "{ broken")
	env, cfg, _, err := LoadFiles(p, Files{Env: []byte("TELEGRAM_BOT_TOKEN=1:a\nTELEGRAM_ALLOWED_USERS=2\n"), Config: []byte("model:\n  provider: offline\n")}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if got := cfg.Platforms["telegram"].AllowedUsers; len(got) != 1 || got[0] != "2" || cfg.Model.Provider != "offline" {
		t.Errorf("%v %v", got, cfg.Model)
	}
	if _, err := OwnModel(p, env, "offline", "", ""); err != nil {
		t.Errorf("a job's model is read from the broken file: %v", err)
	}
}

// What a wrong clock dated into the future is not the latest for ever.
func TestAHealthyStartOfTheFutureIsNotTheLatest(t *testing.T) {
	p := written(t, "A=1\n", "model:\n  default: a\n")
	h, now := OpenHistory(p), time.Date(2026, 5, 3, 12, 0, 0, 0, time.UTC)
	old, _ := ReadFiles(p)
	if _, err := h.Healthy(old, "1", now.AddDate(10, 0, 0)); err != nil {
		t.Fatal(err)
	}
	write(t, p.EnvFile(), "A=2\n")
	f, _ := ReadFiles(p)
	if _, err := h.Healthy(f, "1", now); err != nil {
		t.Fatal(err)
	}
	if e, got, ok := h.LastHealthy(); !ok || string(got.Env) != "A=2\n" {
		t.Errorf("the last healthy one is %+v with %q", e, got.Env)
	}
}

// What is no file is refused, not waited for; /dev/null is an empty one.
func TestAPipeIsRefused(t *testing.T) {
	p := written(t, "A=1\n", "model:\n  default: a\n")
	if err := errors.Join(os.Remove(p.EnvFile()), syscall.Mkfifo(p.EnvFile(), 0o600)); err != nil {
		t.Fatal(err)
	}
	if _, _, err := LoadEnv(p, nil); !domain.IsCode(err, domain.Config) || !strings.Contains(err.Error(), "no plain file") {
		t.Errorf("a pipe: %v", err)
	}
	if err := errors.Join(os.Remove(p.EnvFile()), os.Symlink(os.DevNull, p.EnvFile())); err != nil {
		t.Fatal(err)
	}
	if env, _, err := LoadEnv(p, nil); err != nil || len(env.FileNames()) != 0 {
		t.Errorf("/dev/null: %v", err)
	}
}
