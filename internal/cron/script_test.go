package cron

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"hermes/internal/domain"
)

// scriptsDir makes a profile's scripts folder, beside a root's.
func scriptsDir(t *testing.T, files map[string]string) Scripts {
	t.Helper()
	base := t.TempDir()
	s := Scripts{Dir: filepath.Join(base, "profiles", "p", "scripts"), RootDir: filepath.Join(base, "scripts")}
	for _, dir := range []string{s.Dir, s.RootDir, filepath.Join(s.Dir, "sub")} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(s.Dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

func TestScriptsStayInTheirFolder(t *testing.T) {
	s := scriptsDir(t, map[string]string{"a.sh": "", "sub/b.sh": ""})
	outside := filepath.Join(filepath.Dir(s.Dir), "secret.sh")
	for _, f := range []string{outside, filepath.Join(s.RootDir, "only root.sh")} {
		if err := os.WriteFile(f, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for link, target := range map[string]string{"out.sh": outside, "in.sh": filepath.Join(s.Dir, "a.sh"), "gone.sh": "/nowhere/at/all"} {
		if err := os.Symlink(target, filepath.Join(s.Dir, link)); err != nil {
			t.Fatal(err)
		}
	}
	for name, want := range map[string]domain.Code{
		"a.sh": "", "sub/b.sh": "", "./sub/../a.sh": "", "in.sh": "", filepath.Join(s.Dir, "a.sh"): "",
		"../secret.sh": domain.Forbidden, outside: domain.Forbidden, "sub/../../secret.sh": domain.Forbidden, "out.sh": domain.Forbidden,
		"/bin/sh": domain.Forbidden, "~/x.sh": domain.Forbidden, ".": domain.Forbidden, "": domain.Invalid, "sub": domain.Invalid,
		"a\x00.sh": domain.Invalid, "missing.sh": domain.NotFound, "gone.sh": domain.NotFound, "only root.sh": domain.NotFound,
	} {
		_, err := s.Resolve(name)
		if got := domain.CodeOf(err); got != want {
			t.Errorf("%q: %v, want code %q", name, err, want)
		}
	}
	if _, err := s.Resolve("only root.sh"); !strings.Contains(err.Error(), "cp -p '") {
		t.Errorf("the copy command is not named: %v", err)
	}
}

func TestRunScript(t *testing.T) {
	env := []string{"PATH=" + os.Getenv("PATH"), "MARK=here"}
	for _, c := range []struct {
		file, text  string
		stdout, err string
		needs       string
	}{
		{file: "a.sh", text: "[[ 1 == 1 ]] && echo \"bash $MARK\"", stdout: "bash here\n"},
		{file: "a.bash", text: "pwd", stdout: "scripts\n"},
		{file: "a.py", text: "print('python')", stdout: "python\n", needs: "python3"},
		{file: "shebang", text: "#!/bin/sh\necho sh; echo noise >&2", stdout: "sh\n"},
		{file: "env.x", text: "#!/usr/bin/env bash\necho $BASH_VERSION | wc -l", stdout: "1\n"},
		{file: "arg.x", text: "#!/bin/sh -e\nfalse\necho never", err: "exited with code 1"},
		{file: "no.x", text: "echo hi", err: "cannot be run"},
		{file: "lost.x", text: "#!/no/such/interpreter\n", err: "does not exist on this machine"},
		{file: "missing.sh", text: "no-such-command-anywhere", err: "A command was not found; PATH was " + os.Getenv("PATH")},
		{file: "fail.sh", text: "echo out; echo why >&2; exit 7", stdout: "out\n", err: "Script exited with code 7"},
		{file: "signal.sh", text: "kill -SEGV $$", err: "ended by signal"},
		{file: "binary.sh", text: `printf 'a\xff\x00b'`, stdout: "a\uFFFDb"},
		{file: "stdin.sh", text: "cat; echo done", stdout: "done\n"},
		{file: "daemon.sh", text: "sleep 5 & echo started", stdout: "started\n"},
	} {
		t.Run(c.file, func(t *testing.T) {
			if c.needs != "" {
				if _, err := exec.LookPath(c.needs); err != nil {
					t.Skipf("%s is not on this machine", c.needs)
				}
			}
			s := scriptsDir(t, map[string]string{c.file: c.text})
			path, err := s.Resolve(c.file)
			if err != nil {
				t.Fatal(err)
			}
			res := scriptRun{path: path, env: env, timeout: time.Minute}.run(t.Context())
			if c.err == "" && res.err != nil || c.err != "" && (res.err == nil || !strings.Contains(res.err.Error(), c.err)) {
				t.Errorf("error %v, want %q", res.err, c.err)
			}
			if !strings.HasSuffix(res.stdout, c.stdout) {
				t.Errorf("stdout %q, want %q", res.stdout, c.stdout)
			}
		})
	}
}

// A script that was put in order when the job was made, and is another when it
// runs: what it is then decides, and that it lies elsewhere is told.
func TestAScriptThatBecameALinkIsRefusedAtTheRun(t *testing.T) {
	r := newRig(t)
	id := r.watchdog("swapped", "echo mine")
	outside := filepath.Join(t.TempDir(), "theirs.sh")
	if err := os.WriteFile(outside, []byte("echo theirs\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(r.home, "scripts", "swapped.sh")
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(outside, path); err != nil {
		t.Fatal(err)
	}
	r.tick(10 * time.Minute)
	run := r.runs(id)[0]
	if run.State != domain.RunFailed || !strings.Contains(run.Error, "lies outside") || strings.Contains(run.Output, "theirs") {
		t.Errorf("the run is %s: %s %s", run.State, run.Error, run.Output)
	}
	r.wantSent("lies outside")
}

func TestScriptTimeoutEndsTheWholeGroup(t *testing.T) {
	s := scriptsDir(t, nil)
	pids := filepath.Join(s.Dir, "pids")
	text := "echo before; (trap '' TERM; echo $BASHPID > " + pids + "; while :; do sleep 1; done) & wait"
	if err := os.WriteFile(filepath.Join(s.Dir, "a.sh"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	res := scriptRun{path: filepath.Join(s.Dir, "a.sh"), env: []string{"PATH=" + os.Getenv("PATH")}, timeout: time.Second}.run(t.Context())
	if !res.timedOut || !strings.Contains(res.err.Error(), "Script timed out after 1s") || !strings.Contains(res.stdout, "before") {
		t.Fatalf("got %+v", res)
	}
	b, err := os.ReadFile(pids)
	if err != nil {
		t.Fatal(err)
	}
	pid := strings.TrimSpace(string(b))
	waitFor(t, func() bool {
		stat, err := os.ReadFile("/proc/" + pid + "/stat")
		return err != nil || strings.Contains(string(stat), ") Z ")
	})
}

func TestScriptEndsWithItsContext(t *testing.T) {
	s := scriptsDir(t, map[string]string{"a.sh": "exec sleep 300"})
	ctx, cancel := context.WithTimeoutCause(t.Context(), 50*time.Millisecond, errStopping)
	defer cancel()
	res := scriptRun{path: filepath.Join(s.Dir, "a.sh"), env: []string{"PATH=" + os.Getenv("PATH")}}.run(ctx)
	if !domain.IsCode(res.err, domain.Cancelled) || res.timedOut {
		t.Errorf("got %+v", res)
	}
}

func TestScriptOutputIsBounded(t *testing.T) {
	s := scriptsDir(t, map[string]string{"a.sh": "echo first; head -c 5000000 /dev/zero | tr '\\0' x; echo; echo last"})
	res := scriptRun{path: filepath.Join(s.Dir, "a.sh"), env: []string{"PATH=" + os.Getenv("PATH")}, timeout: time.Minute}.run(t.Context())
	if res.err != nil || len(res.stdout) > maxScriptOutput+100 || !strings.HasPrefix(res.stdout, "first\n") || !strings.HasSuffix(res.stdout, "last\n") || !strings.Contains(res.stdout, "bytes left out") {
		t.Errorf("%d bytes, error %v", len(res.stdout), res.err)
	}
}

func TestCleanEnviron(t *testing.T) {
	in := []string{"PATH=/bin", "HOME=/h", "LANG=C", "TELEGRAM_BOT_TOKEN=1", "OPENROUTER_API_KEY=2", "DB_PASSWORD=3", "API_SERVER_KEY=4",
		"NOTIFY_SOCKET=5", "LISTEN_FDS=6", "WATCHDOG_USEC=7", "INVOCATION_ID=8", "MY_URL=9", "KEYBOARD=de", "broken"}
	got := strings.Join(CleanEnviron(in, func(k string) bool { return k == "MY_URL" }), " ")
	if got != "PATH=/bin HOME=/h LANG=C KEYBOARD=de" {
		t.Errorf("got %s", got)
	}
}

func TestWakeGate(t *testing.T) {
	for text, want := range map[string]bool{
		"": true, "x": true, `{"wakeAgent": false}`: false, "data\n{\"wakeAgent\":false}\n\n": false,
		`{"wakeAgent": true}`: true, "{\"wakeAgent\": false}\nmore": true, `{"wakeAgent": "no"}`: true, `{"wakeAgent":null}`: true, "[1]": true,
	} {
		if got := wantsAgent(text); got != want {
			t.Errorf("%q: %v, want %v", text, got, want)
		}
	}
}

func FuzzScriptText(f *testing.F) {
	f.Add([]byte("a\xff\x00b"), 10)
	f.Fuzz(func(t *testing.T, b []byte, limit int) {
		limit = max(8, min(limit, 1<<10))
		var out headTail
		_, _ = out.Write(b)
		text := out.text()
		_ = wantsAgent(text)
		if tail := tailOf(text, limit); !utf8.ValidString(text) || !utf8.ValidString(tail) || len(tail) > limit+3 {
			t.Errorf("text %q, tail %q", text, tail)
		}
	})
}
