package e2e

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"hermes/testkit/rig"
)

// vital are the files without which the gateway cannot serve, or a command not
// answer; what becomes of each is in expected.
var vital = []string{".env", "config.yaml", "active_profile", "ledger.db", "ledger.db-wal", "ledger.db-shm", "run/upgrade.lock", "gateway.lock", "gateway.pid", "auth.json"}

// idle are all other names under a home that the program opens by itself.
var idle = []string{
	"profile.yaml", "SOUL.md", "memories/MEMORY.md", "memories/USER.md", "skills/x/SKILL.md", "auth.lock",
	"cron/jobs.json", "cron/scheduler_zone", "cron/ticker_heartbeat", "cron/ticker_last_success", "cron/ticker_last_error", "cron/usage_audit.jsonl", "cron/poke",
	"binary.pin", "binaries.json", "rescue.json", "gateway-starts.json", "gateway-starts.journal", ".gateway-starts.lock", ".config.lock", ".config-change.json", "gateway_state.json", "gateway.sock",
	"channel_directory.json", "webhook_subscriptions.json", "webhook_subscriptions.json.lock", "matrix_session.json",
	"ledger.ballast", "run/aside.lock", "run/migrate.lock", "cache/env-seen.json",
	"config-history/0001/entry.json", "config-history/0001/config.yaml", "config-history/0001/.env", ".env.bak", "config.yaml.bak",
	"logs/gateway.log", "logs/gateway.error.log", "logs/gateway-exit-diag.log", "logs/gateway-crash.log", "logs/update.log",
	"pairing/telegram-approved.json", "sessions/sessions.json", "processes", ".clean_shutdown", ".gateway-takeover.json", ".gateway-planned-stop.json",
}

// folders are names that are folders, and are not exchanged here.
var folders = []string{"logs", "cron", "cache", "config-history", "memories", "skills", "sessions", "pairing", "run", "scripts", "profiles", "migrate"}

// The kinds of what can stand in place of a file.
const (
	pipe       = "a pipe"
	folder     = "a folder"
	loop       = "a link to itself"
	unreadable = "a file that may not be read"
	huge       = "a file of 100 MB"
	garbage    = "a file of garbage"
	empty      = "an empty file"
)

var kinds = []string{pipe, folder, loop, unreadable, huge, garbage, empty}

// put places a kind at a path.
func put(t *testing.T, kind, path string) {
	t.Helper()
	err := errors.Join(os.RemoveAll(path), os.MkdirAll(filepath.Dir(path), 0o700))
	switch kind {
	case pipe:
		err = errors.Join(err, syscall.Mkfifo(path, 0o600))
	case folder:
		err = errors.Join(err, os.MkdirAll(filepath.Join(path, "inner"), 0o700))
	case loop:
		err = errors.Join(err, os.Symlink(filepath.Base(path), path))
	case unreadable:
		err = errors.Join(err, os.WriteFile(path, nil, 0o000))
	case huge:
		err = errors.Join(err, os.WriteFile(path, nil, 0o600), os.Truncate(path, 100<<20))
	case garbage:
		text := make([]byte, 5000)
		r := rand.New(rand.NewPCG(1, 2)) // the same in every run
		for i := range text {
			text[i] = byte(r.Uint32())
		}
		err = errors.Join(err, os.WriteFile(path, text, 0o600))
	case empty:
		err = errors.Join(err, os.WriteFile(path, nil, 0o600))
	}
	if err != nil {
		t.Fatal(err)
	}
}

// Exit codes of docs/exit-codes.md, and of a gateway that serves and is asked to
// stop.
const (
	done     = 0
	failed   = 1
	unusable = 78
	serves   = -1
)

// walked are the commands that are tried, and what each exits with where the
// odd file is none of its business.
var walked = []struct {
	words string
	code  int
}{
	{"gateway status", failed}, // it does not run
	{"doctor --local", failed},
	{"cron list", done},
	{"config show", done},
	{"auth list", done},
	{"gateway run", serves},
}

// expected is what a command exits with when a kind stands in place of a file.
func expected(words string, usual int, file, kind string) int {
	noFile := slices.Contains([]string{pipe, folder, loop, unreadable}, kind)
	looks := words == "gateway status" || words == "doctor --local" // which judge, whatever they find
	switch {
	case file == ".env" && (noFile || kind == huge), file == "config.yaml" && kind != empty:
		if !looks && words != "auth list" {
			return unusable
		}
	case file == "active_profile" && kind == garbage:
		if words != "doctor --local" { // which looks at every profile
			return unusable
		}
	case file == "ledger.db" && (kind == huge || kind == garbage):
		if words == "cron list" {
			return failed // a gateway moves it aside and tells of it; a command does not
		}
	case file == "ledger.db" && noFile, (file == "ledger.db-wal" || file == "ledger.db-shm") && noFile, file == "run/upgrade.lock" && noFile && kind != pipe:
		if words == "cron list" || words == "gateway run" {
			return unusable
		}
	case file == "gateway.lock" && noFile, file == "gateway.pid" && kind == folder:
		if words == "gateway run" {
			return failed
		}
	case file == "auth.json":
		if words == "auth list" {
			return unusable
		}
	}
	return usual
}

// Whatever stands in place of a file that the program opens by itself: it
// returns in time, with the code that fits and a sentence, or serves.
func TestWhateverStandsInPlaceOfAFile(t *testing.T) {
	binary, err := build()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(filepath.Dir(binary), 0o711); err != nil { //nolint:gosec // for the user who may not read everything
		t.Fatal(err)
	}
	try := func(kind string, files ...string) {
		what := files[0]
		if len(files) > 1 {
			what = strconv.Itoa(len(files)) + " files"
		}
		t.Run(what+" is "+kind, func(t *testing.T) {
			t.Parallel()
			h := oddHome(t, binary, kind, files)
			for _, c := range walked {
				code, out := walk(t, h, c.words)
				if want := expected(c.words, c.code, files[0], kind); code != want {
					t.Errorf("hermes %s exits %d, want %d:\n%.600s", c.words, code, want, out)
				}
				if strings.Contains(out, "panic:") || strings.Contains(out, "goroutine ") || code > 0 && strings.TrimSpace(out) == "" {
					t.Errorf("hermes %s exits %d and says:\n%.2000s", c.words, code, out)
				}
			}
		})
	}
	for _, kind := range kinds {
		for _, file := range vital {
			try(kind, file)
		}
		try(kind, idle...)
	}
	for _, file := range idle {
		try(pipe, file) // each alone, since one may keep another from being opened
	}
}

// oddHome is a home with something odd in it, of a user whom permissions hold.
func oddHome(t *testing.T, binary, kind string, files []string) *rig.Home {
	t.Helper()
	dir := t.TempDir()
	h, err := rig.NewHome(filepath.Join(dir, ".hermes"), binary, "model:\n  provider: offline\n  default: offline\n", "")
	if err != nil {
		t.Fatal(err)
	}
	h.Env = []string{"HERMES_HOME="} // so that active_profile counts
	for _, file := range files {
		put(t, kind, filepath.Join(h.Dir, file))
	}
	if os.Getuid() != 0 {
		return h
	}
	err = filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		return errors.Join(err, os.Lchown(path, nobody, nobody))
	})
	if err == nil {
		err = os.Chmod(filepath.Dir(dir), 0o711) //nolint:gosec // as above
	}
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// nobody is the user with no rights of its own; Debian's, and everybody's.
const nobody = 65534

// walk runs a command, and a gateway until it serves, and gives the exit code.
func walk(t *testing.T, h *rig.Home, words string) (int, string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	cmd := h.Command(ctx, strings.Fields(words)...)
	cmd.Dir = "/"
	if os.Getuid() == 0 {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	}
	out := &watched{serving: func() { _ = cmd.Process.Signal(syscall.SIGTERM) }}
	cmd.Stdout, cmd.Stderr = out, out
	cmd.WaitDelay = time.Second
	err := cmd.Run()
	if ctx.Err() != nil {
		t.Fatalf("hermes %s does not return within %s:\n%.2000s", words, patience, out.text.String())
	}
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	code := cmd.ProcessState.ExitCode()
	if out.served && code == done {
		code = serves
	}
	return code, out.text.String()
}

// watched keeps what a process prints, and acts once it says that it serves. One
// goroutine of os/exec writes.
type watched struct {
	text    bytes.Buffer
	served  bool
	serving func()
}

func (w *watched) Write(p []byte) (int, error) {
	w.text.Write(p)
	if !w.served && strings.Contains(w.text.String(), "gateway running") {
		w.served = true
		w.serving()
	}
	return len(p), nil
}

// Every name in a profile that the code spells out is among those that are tried.
func TestEveryFileOfAHomeIsTried(t *testing.T) {
	name := regexp.MustCompile(`\.Path\(((?:"[^"]+"(?:, )?)+)\)`)
	known := slices.Concat(vital, idle, folders)
	seen := 0
	err := filepath.WalkDir("../../internal", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || filepath.Ext(path) != ".go" || strings.HasSuffix(path, "_test.go") {
			return err
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		for _, m := range name.FindAllStringSubmatch(string(text), -1) {
			file := strings.ReplaceAll(strings.Trim(m[1], `"`), `", "`, "/")
			if seen++; !slices.Contains(known, file) {
				t.Errorf("%s opens %s, in whose place nothing odd is tried here", path, file)
			}
		}
		return nil
	})
	if err != nil || seen < 20 {
		t.Fatalf("%d names: %v", seen, err)
	}
}
