package hermes_test

import (
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// rows is the house, from the ground up: a package may import packages of lower
// rows, and of its own family (the same first name), never over or beside.
// ARCHITECTURE.md draws it.
var rows = [][]string{
	{"domain", "failpoint", "plain", "lazyregexp"},
	{"clock", "secret", "health", "network"},
	{"logging"},
	{"home", "ledger"},
	{"access", "approval", "succession", "control"},
	{"versions"},
	{"starts"},
	{"platform", "model", "tool"},
	{"agent"},
	{"delivery"},
	{"conversation"},
	{"cron"},
	{"update", "service", "migrate", "backup"},
	{"api", "dashboard", "rescue", "verify", "drill"},
	{"gateway"},
	{"doctor"},
	{"cli"},
}

func TestImportsGoDownOnly(t *testing.T) {
	floor := map[string]int{}
	for i, row := range rows {
		for _, name := range row {
			floor[name] = i
		}
	}
	out, err := exec.Command("go", "list", "-json=ImportPath,Imports", "./...").Output()
	if err != nil {
		t.Fatal(err)
	}
	dec := json.NewDecoder(strings.NewReader(string(out)))
	seen := 0
	for {
		var p struct {
			ImportPath string
			Imports    []string
		}
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		me, ours := family(p.ImportPath)
		if ours {
			seen++
			if _, ok := floor[me]; !ok {
				t.Errorf("%s stands in no row of the house", p.ImportPath)
			}
		}
		for _, i := range p.Imports {
			if strings.HasPrefix(i, "hermes/testkit") && !strings.HasPrefix(p.ImportPath, "hermes/testkit") {
				t.Errorf("%s imports %s: the test kit is for tests only", p.ImportPath, i)
			}
			other, internal := family(i)
			if ours && internal && other != me && floor[other] >= floor[me] {
				t.Errorf("%s imports %s, which does not stand under it", p.ImportPath, i)
			}
			if p.ImportPath == "hermes/cmd/hermes" && internal && other != "cli" {
				t.Errorf("main imports %s; it may only wire signals and call cli", i)
			}
		}
	}
	if seen < 20 {
		t.Fatalf("only %d packages were looked at", seen)
	}
}

// family is the first name of one of our packages.
func family(path string) (string, bool) {
	rest, ok := strings.CutPrefix(path, "hermes/internal/")
	name, _, _ := strings.Cut(rest, "/")
	return name, ok
}

// Words that tell of another place than the project itself, and of work left
// undone, have no place in it.
func TestTheProjectSpeaksOfItselfAlone(t *testing.T) {
	banned := []string{"// TO" + "DO", "FIX" + "ME", "/wo" + "rk/main", ".." + "/shared", "proxy.go" + "lang.org", "registry.npm" + "js.org"}
	out, err := exec.Command("git", "ls-files").Output()
	if err != nil {
		t.Skip("needs git and a checkout: ", err)
	}
	for _, file := range strings.Fields(string(out)) {
		if filepath.Ext(file) == ".sum" || filepath.Ext(file) == ".mod" {
			continue
		}
		text, err := os.ReadFile(file)
		if err != nil {
			continue // deleted in the work tree
		}
		for _, word := range banned {
			if i := strings.Index(string(text), word); i >= 0 {
				t.Errorf("%s holds %q", file, word)
			}
		}
	}
}

// opensItself are the places that may open a path without package plain: what
// they open cannot be something else than they expect, or is meant to be.
var opensItself = map[string]string{
	`os.Open(dir)`:                         "a folder, to synchronise it",
	`os.Open(os.DevNull)`:                  "the null device",
	`os.O_EXCL`:                            "makes the file, and follows nothing",
	`".in"), os.O_RDWR`:                    "a pipe of the program's own making",
	`plain.LockFlag`:                       "a lock, for which a pipe is as good",
	`"/proc/`:                              "the kernel's",
	`"/etc/`:                               "the machine's",
	`"/sys/`:                               "the machine's",
	`internal/tool/terminal/proc_linux.go`: "the kernel's",
	`internal/api/peer_linux.go`:           "the kernel's",
	`internal/cli/send.go`:                 "named on the command line, where a pipe is meant: --file <(command)",
	`internal/cli/setup.go`:                "named on the command line, where a pipe is meant: --key-file <(command)",
	`internal/cli/profile.go`:              "named on the command line",
	`internal/cli/sessions.go`:             "named on the command line, where a pipe is meant: -o >(command)",
	`internal/plain/plain.go`:              "is the one place",
}

// What a person, a model or another program can put something else in place of
// is opened by package plain, so that nothing hangs on a pipe or reads a disk full
// of one line.
func TestFilesAreOpenedInOnePlace(t *testing.T) {
	call := regexp.MustCompile(`\bos\.(ReadFile|WriteFile|Open|OpenFile|Create)\(`)
	err := filepath.WalkDir("internal", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && d.Name() == "testdata" {
			return fs.SkipDir
		}
		if filepath.Ext(path) != ".go" || strings.HasSuffix(path, "_test.go") {
			return nil
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		for i, line := range strings.Split(string(text), "\n") {
			allowed := false
			for place := range opensItself {
				allowed = allowed || strings.Contains(path+": "+line, place)
			}
			if call.MatchString(line) && !allowed {
				t.Errorf("%s:%d opens a file itself: %s", path, i+1, strings.TrimSpace(line))
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
