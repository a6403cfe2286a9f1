package faults

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"hermes/internal/doctor"
)

// read are the files and folders that doctor looks into, by their place beside the
// profile's home.
var read = []string{
	".env", "config.yaml", "auth.json", "ledger.db", "binary.pin", "binaries.json", "gateway.pid", "gateway.lock", "gateway.sock", "gateway-starts.json", "doctor-acks.json",
	"active_profile", "scripts", "logs", "logs/gateway.error.log", "logs/gateway-exit-diag.log", "logs/update.log", "cron/ticker_heartbeat", "cron", "config-history", "run", "run/damaged",
	"../.local/share/hermes/update.json", "../.local/share/hermes/update-under-way.json", "../.local/share/hermes/update.lock", "../.local/share/hermes/versions", "../.local/share/hermes/current",
	"../.config/systemd/user/hermes-gateway.service", "../.config/systemd/user/hermes-gateway.service.d/10.conf", "profiles", "profiles/liam/.env", "profiles/liam/config.yaml",
}

// hostile puts things in the place of files.
var hostile = map[string]func(path string) error{
	"a pipe":        func(path string) error { return syscall.Mkfifo(path, 0o600) },
	"a folder":      func(path string) error { return os.Mkdir(path, 0o700) },
	"a loop":        func(path string) error { return os.Symlink(path, path) },
	"a device":      func(path string) error { return os.Symlink("/dev/zero", path) },
	"two gigabytes": func(path string) error { return sparse(path, 2<<30) },
	"nothing":       func(path string) error { return os.WriteFile(path, nil, 0o600) },
	"rubbish": func(path string) error {
		return os.WriteFile(path, []byte("\x00\xff{[\"\n\t- &a *a\n: %s\x1b[31m\u202e\n=\n[Service]\nExecStart=\n"), 0o600)
	},
}

func sparse(path string, size int64) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	return errors.Join(f.Truncate(size), f.Close())
}

// replace puts something in the place of a file, whatever stands there.
func (w *world) replace(path, kind string) {
	w.t.Helper()
	w.must(os.RemoveAll(path))
	w.must(os.MkdirAll(filepath.Dir(path), 0o700))
	w.must(hostile[kind](path))
}

// examineLimit is what doctor promises, ten times over.
const examineLimit = 10 * doctor.Limit

// examined asks, and holds what must hold of every answer, however broken the
// installation is: it comes in time, is whole, and shows no secret.
func (w *world) examined(what string, env []string, args ...string) (r doctor.Report) {
	w.t.Helper()
	cmd := w.home.Command(w.deadline(), w.args(append([]string{"doctor", "--json", "--local"}, args...)...)...)
	cmd.Env = append(cmd.Env, env...)
	cmd.WaitDelay = time.Second
	var errs strings.Builder
	cmd.Stderr = &errs
	began := time.Now()
	out, err := cmd.Output()
	if took := time.Since(began); took > examineLimit {
		w.t.Errorf("%s: it took %s", what, took)
	}
	if exit, ok := errors.AsType[*exec.ExitError](err); err != nil && (!ok || exit.ExitCode() != 1) {
		w.t.Fatalf("%s: %v\n%s%s", what, err, out, errs.String())
	}
	if err := json.Unmarshal(out, &r); err != nil {
		w.t.Fatalf("%s: %v\n%s%s", what, err, out, errs.String())
	}
	for _, f := range r.Findings {
		if f.What == "" || f.Fix == "" || f.Means == "" {
			w.t.Errorf("%s: a finding is not whole: %+v", what, f)
		}
	}
	for _, u := range r.Unknown {
		if strings.Contains(u, "defect") {
			w.t.Errorf("%s: %s", what, u)
		}
	}
	w.search(what, string(out)+errs.String())
	return r
}

// TestHostileFiles holds that doctor gives its answer whatever lies where it
// looks: pipes, folders, loops, devices, endless files. What may never end stands
// in the place of one file after the other, the rest in that of all at once.
func TestHostileFiles(t *testing.T) {
	for kind := range hostile {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			w := setUp(t, shape{unstarted: true})
			names := slices.Sorted(slices.Values(read))
			for _, name := range slices.Backward(names) { // what lies in a folder before the folder
				path := w.path(name)
				if slices.Contains([]string{"a pipe", "a device"}, kind) {
					saved := path + ".saved"
					had := os.Rename(path, saved) == nil
					w.replace(path, kind)
					w.examined(kind+" in the place of "+name, nil, "-p", "default")
					w.must(os.RemoveAll(path))
					if had {
						w.must(os.Rename(saved, path))
					}
				}
			}
			for _, name := range names {
				if !slices.Contains([]string{"scripts", "logs", "cron", "config-history", "run", "profiles"}, name) { // others lie in them
					w.replace(w.path(name), kind)
				}
			}
			w.examined(kind+" in the place of everything", nil)
			w.examined(kind+" in the place of everything, and no HERMES_HOME", []string{"HERMES_HOME="})
		})
	}
}

// TestStrangeCallers holds that doctor answers without a home, without
// variables, and with a home that is not the caller's.
func TestStrangeCallers(t *testing.T) {
	w := setUp(t, shape{unstarted: true})
	for _, c := range []struct {
		what string
		env  []string
		id   string
	}{
		{"no such home", []string{"HERMES_HOME=" + w.dir + "/none/at/all"}, "profile.home_missing"},
		{"HOME is empty", []string{"HOME=", "HERMES_HOME="}, ""},
		{"HOME is relative", []string{"HOME=../..", "HERMES_HOME="}, ""},
		{"HOME is a file", []string{"HOME=/etc/passwd", "HERMES_HOME="}, ""},
		{"HOME is endless", []string{"HOME=/" + strings.Repeat("a", 5000), "HERMES_HOME="}, ""},
		{"the home is /dev/null", []string{"HERMES_HOME=/dev/null"}, "profile.home_is_file"},
		{"the home is /proc", []string{"HERMES_HOME=/proc"}, ""},
		{"no PATH", []string{"PATH="}, ""},
		{"a bus that is none", []string{"DBUS_SESSION_BUS_ADDRESS=unix:path=/dev/null", "XDG_RUNTIME_DIR=/nonexistent"}, ""},
		{"a home in another script", []string{"HERMES_HOME=" + w.dir + "/дом \u202e\n x"}, "profile.home_missing"},
	} {
		r := w.examined(c.what, c.env)
		if c.id != "" && (len(r.Findings) == 0 || r.Findings[0].ID != c.id) {
			t.Errorf("%s: %+v", c.what, r.Findings)
		}
	}
	cmd := exec.Command("env", "-i", w.home.Binary, "doctor", "--json", "--local")
	if out, _ := cmd.Output(); !json.Valid(out) {
		t.Errorf("without any variable:\n%s", out)
	}
}

// TestRootLooksOn holds that root, who looks at the home of another user, leaves
// nothing of its own there, and that the user's gateway works on.
func TestRootLooksOn(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("only root can look at the homes of others")
	}
	for _, running := range []bool{true, false} {
		t.Run(fmt.Sprint("running ", running), func(t *testing.T) {
			w := setUp(t, shape{as: stranger, noBot: true})
			if !running {
				w.stop()
			}
			program := w.home.Binary
			w.home.Binary = w.binary
			w.examined("root looks at the home of another user", nil)
			for _, args := range [][]string{{"--fix"}, {"--origin", "https://chat.example.org"}} {
				w.examined("root looks on", nil, args...)
			}
			_, _ = w.home.Run(w.deadline(), "doctor", "--ack", "service.not_running") // it is meant to fail
			w.home.Binary = program
			w.must(filepath.WalkDir(w.home.Dir, func(path string, d fs.DirEntry, err error) error {
				if err != nil {
					return err
				}
				info, err := d.Info()
				if err != nil {
					return err
				}
				if uid := info.Sys().(*syscall.Stat_t).Uid; uid != stranger {
					t.Errorf("%s belongs to UID %d", path, uid)
				}
				return nil
			}))
			if !running {
				w.start()
			}
			w.well(nil)
		})
	}
}
