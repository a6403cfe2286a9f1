package backup_test

import (
	"archive/zip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"hermes/internal/backup"
	"hermes/internal/domain"
	"hermes/internal/home"
	"hermes/internal/ledger"
	"hermes/internal/ledger/sqlite"
)

func TestMain(m *testing.M) {
	if file := os.Getenv("RESTORE_UNTIL_KILLED"); file != "" {
		fmt.Println("ready")
		_, _ = backup.Restore(context.Background(), file, backup.RestoreOptions{Root: os.Getenv("RESTORE_ROOT"), Now: time.Now(), Force: true})
		return
	}
	goleak.VerifyTestMain(m)
}

func profile(dir string) home.Profile {
	return home.Profile{Name: home.DefaultProfile, Root: dir, Home: dir}
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func openLedger(t *testing.T, p home.Profile) *sqlite.Store {
	t.Helper()
	s, err := sqlite.Open(t.Context(), sqlite.Options{Path: p.LedgerFile(), Kind: "cli"})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// archived makes a home with a delivery that waits, and an archive of it.
func archived(t *testing.T) string {
	t.Helper()
	p := profile(t.TempDir())
	for i := range 50 {
		write(t, p.Path("skills", fmt.Sprint(i), "SKILL.md"), strings.Repeat("words ", 1000))
	}
	write(t, p.EnvFile(), "A_TOKEN=secret\n")
	s := openLedger(t, p)
	defer s.Close()
	to := domain.Address{Platform: "telegram", ChatID: "1"}
	if _, err := s.Enqueue(t.Context(), []domain.NewDelivery{{To: to, Part: domain.Part{Text: "hello"}}}, time.Now()); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "b.zip")
	m, err := backup.Create(t.Context(), file, backup.Options{Profiles: []home.Profile{p}, Program: "test", Now: time.Now()})
	if err != nil {
		t.Fatal(err)
	}
	if !m.Files[".env"].Secret || m.Files["ledger.db"].Size == 0 {
		t.Errorf("%+v", m.Files)
	}
	if st, err := os.Stat(file); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", st, err)
	}
	return file
}

// What waited is not sent again by itself after a restore.
func TestWhatWaitedIsNotRepeated(t *testing.T) {
	file := archived(t)
	to := profile(t.TempDir())
	r, err := backup.Restore(t.Context(), file, backup.RestoreOptions{Root: to.Root, Now: time.Now()})
	if err != nil || r.Settled["default"].Deliveries != 1 {
		t.Fatalf("%+v, %v", r, err)
	}
	s := openLedger(t, to)
	defer s.Close()
	list, err := s.Deliveries(t.Context(), ledger.DeliveryFilter{})
	if err != nil || len(list) != 1 || list[0].State != domain.DeliveryDead || list[0].Reason != backup.Reason {
		t.Errorf("%+v, %v", list, err)
	}
	if due, err := s.DueAddresses(t.Context()); err != nil || len(due) != 0 {
		t.Errorf("due: %+v, %v", due, err)
	}
}

// rewrite copies an archive, with each entry as change gives it.
func rewrite(t *testing.T, from string, change func(name string, body []byte) (string, []byte), add map[string]string) string {
	t.Helper()
	in, err := zip.OpenReader(from)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	to := filepath.Join(t.TempDir(), "changed.zip")
	out, err := os.Create(to)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	w := zip.NewWriter(out)
	put := func(name string, body []byte) {
		f, err := w.Create(name)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.Write(body); err != nil {
			t.Fatal(err)
		}
	}
	for _, f := range in.File {
		r, err := f.Open()
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		put(change(f.Name, body))
	}
	for name, body := range add {
		put(name, []byte(body))
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return to
}

func TestBadArchivesChangeNothing(t *testing.T) {
	good := archived(t)
	same := func(name string, body []byte) (string, []byte) { return name, body }
	outside := func(name string) func(string, []byte) (string, []byte) {
		return func(n string, body []byte) (string, []byte) {
			switch n {
			case ".env":
				return name, body
			case "manifest.json":
				var m backup.Manifest
				if err := json.Unmarshal(body, &m); err != nil {
					t.Fatal(err)
				}
				m.Files[name] = m.Files[".env"]
				delete(m.Files, ".env")
				body, _ = json.Marshal(m)
			}
			return n, body
		}
	}
	for name, file := range map[string]string{
		"an absolute path": rewrite(t, good, outside("/tmp/evil"), nil),
		"a path outside":   rewrite(t, good, outside("skills/../../evil"), nil),
		"a backslash":      rewrite(t, good, outside(`..\evil`), nil),
		"one more file":    rewrite(t, good, same, map[string]string{"extra": "x"}),
		"a name twice":     rewrite(t, good, same, map[string]string{".env": "x"}),
		"another content": rewrite(t, good, func(n string, b []byte) (string, []byte) {
			if n == ".env" {
				b = []byte("A_TOKEN=sEcret\n")
			}
			return n, b
		}, nil),
		"no manifest": rewrite(t, good, func(n string, b []byte) (string, []byte) { return strings.Replace(n, "manifest", "m", 1), b }, nil),
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := backup.Verify(t.Context(), file); !domain.IsCode(err, domain.Invalid) {
				t.Errorf("verify: %v", err)
			}
			root := filepath.Join(t.TempDir(), "root")
			if _, err := backup.Restore(t.Context(), file, backup.RestoreOptions{Root: root, Now: time.Now()}); !domain.IsCode(err, domain.Invalid) {
				t.Errorf("restore: %v", err)
			}
			if left, err := os.ReadDir(root); err == nil && len(left) > 0 {
				t.Errorf("it left %v", left)
			}
		})
	}
}

// A restore that is killed is completed by the next, and loses nothing that was
// there.
func TestKilledRestoreIsCompleted(t *testing.T) {
	file := archived(t)
	root := t.TempDir()
	write(t, filepath.Join(root, "SOUL.md"), "mine")
	write(t, filepath.Join(root, "skills/0/SKILL.md"), "my own words")
	for i := range 4 {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), "RESTORE_UNTIL_KILLED="+file, "RESTORE_ROOT="+root)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		if _, err := out.Read(make([]byte, 8)); err != nil {
			t.Fatal(err)
		}
		for range i { // each life gets as far as some files more
			if _, err := backup.Verify(t.Context(), file); err != nil {
				t.Fatal(err)
			}
		}
		_ = cmd.Process.Kill() // it may have ended
		_ = cmd.Wait()
	}
	if _, err := backup.Restore(t.Context(), file, backup.RestoreOptions{Root: root, Now: time.Now(), Force: true}); err != nil {
		t.Fatal(err)
	}
	r, err := backup.Restore(t.Context(), file, backup.RestoreOptions{Root: root, Now: time.Now(), DryRun: true})
	if err != nil || len(r.New) > 0 || len(r.Replaced) > 1 { // the ledger was settled
		t.Errorf("%+v, %v", r, err)
	}
	if text, err := os.ReadFile(filepath.Join(root, "SOUL.md")); err != nil || string(text) != "mine" {
		t.Errorf("%q, %v", text, err)
	}
	kept, err := filepath.Glob(filepath.Join(root, backup.Folder, "before-import-*", "skills/0/SKILL.md"))
	if err != nil || len(kept) != 1 {
		t.Fatalf("kept %v, %v", kept, err)
	}
	if text, err := os.ReadFile(kept[0]); err != nil || string(text) != "my own words" {
		t.Errorf("%q, %v", text, err)
	}
	if left, _ := filepath.Glob(filepath.Join(root, ".import-*")); len(left) > 0 {
		t.Errorf("left %v", left)
	}
	openLedger(t, profile(root)).Close()
}

// A backup of the Python system is told from a broken one of ours, with the way to
// go.
func TestBackupOfTheOtherSystem(t *testing.T) {
	for _, names := range [][]string{{"config.yaml", ".env", "state.db", "profiles/liam/config.yaml"}, {".hermes/state.db", ".hermes/SOUL.md"}, {".env"}} {
		file := filepath.Join(t.TempDir(), "old.zip")
		f, err := os.Create(file)
		if err != nil {
			t.Fatal(err)
		}
		w := zip.NewWriter(f)
		for _, name := range names {
			if _, err := w.Create(name); err != nil {
				t.Fatal(err)
			}
		}
		if err := errors.Join(w.Close(), f.Close()); err != nil {
			t.Fatal(err)
		}
		root := t.TempDir()
		_, err = backup.Restore(t.Context(), file, backup.RestoreOptions{Root: root, Now: time.Now()})
		if !domain.IsCode(err, domain.Invalid) || !strings.Contains(err.Error(), "hermes migrate --from") {
			t.Errorf("%v: %v", names, err)
		}
		if left, _ := os.ReadDir(root); len(left) > 0 {
			t.Errorf("%v: something was written: %v", names, left)
		}
	}
}
