package cli

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"

	"hermes/testkit/oldhome"
)

// interrupted is a context that ends, as by Ctrl-C, when it is asked for the n-th
// time whether it has.
type interrupted struct {
	context.Context
	stop context.CancelFunc
	left atomic.Int64
}

func interruptedAt(ctx context.Context, n int64) *interrupted {
	inner, stop := context.WithCancel(ctx)
	c := &interrupted{Context: inner, stop: stop}
	c.left.Store(n)
	return c
}

func (c *interrupted) asked() {
	if c.left.Add(-1) < 0 {
		c.stop()
	}
}

func (c *interrupted) Err() error            { c.asked(); return c.Context.Err() }
func (c *interrupted) Done() <-chan struct{} { c.asked(); return c.Context.Done() }

// typed runs a command line in a home.
func typed(ctx context.Context, userHome, line string) (int, string) {
	return typedWith(ctx, userHome, "", line)
}

// typedWith is typed with something on standard input.
func typedWith(ctx context.Context, userHome, in, line string) (int, string) {
	var out bytes.Buffer
	args := strings.Fields(strings.ReplaceAll(line, "$HOME", userHome))
	code := Execute(ctx, args, Streams{strings.NewReader(in), &out, &out}, []string{"HOME=" + userHome, "PATH=/usr/bin:/bin", "EDITOR=true"})
	return code, out.String()
}

// changing are files whose bytes tell nothing: the ledger, which is asked by its
// own commands, and what is named or stamped by the clock.
var changing = regexp.MustCompile(`(^|/)(ledger\.db.*|ledger\.ballast|run(/.*)?|.*\.lock|cron/poke|migration\.json|backups(/.*)?|config-history(/.*)?|(b|new)\.zip)$`)

// files gives the content of every file under a home that tells something, and
// the bare names of the others.
func files(t *testing.T, dir string) map[string]string {
	t.Helper()
	out := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		rel, err := filepath.Rel(dir, path)
		if err != nil || changing.MatchString(rel) {
			return err
		}
		text, err := os.ReadFile(path)
		out[rel] = fmt.Sprintf("%x", sha256.Sum256(text))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// leavings are what only work that is under way may leave beside what it makes.
func leavings(t *testing.T, dir string) (out []string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		base := filepath.Base(path)
		if strings.HasSuffix(base, ".tmp") || strings.HasPrefix(base, ".import-") || strings.HasPrefix(base, ".new-") || strings.HasPrefix(base, "old-") || strings.Contains(base, ".partial") {
			out = append(out, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// Ctrl-C in long work, whenever it is noticed: the command says that it was
// stopped, leaves nothing half made, and typed again it comes to the same end as
// one that nobody stopped.
func TestLongWorkInterrupted(t *testing.T) {
	made := t.TempDir() // a home of the Python system, its archive, and what was moved in
	if err := oldhome.Build(filepath.Join(made, "old"), oldhome.Options{Era: oldhome.Late, Sessions: 12, PerSession: 40, OpenLog: true}); err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{"migrate --from $HOME/old", "backup -o $HOME/b.zip"} {
		if code, out := typed(t.Context(), made, line); code != exitOK {
			t.Fatalf("hermes %s: exit %d: %s", line, code, out)
		}
	}
	for _, c := range []struct {
		line  string
		from  []string // of what was made, what the home begins with
		state string   // the command that tells how far it came
	}{
		{"migrate --from $HOME/old", []string{"old"}, "sessions list --json --limit 100"},
		{"migrate --undo", []string{".hermes"}, "sessions list --json --limit 100"},
		{"backup -o $HOME/new.zip", []string{".hermes"}, "config path"},
		{"import $HOME/b.zip", []string{"b.zip"}, "sessions list --json --limit 100"},
		{"import $HOME/b.zip --dry-run", []string{"b.zip"}, "config path"},
		{"sessions prune --older-than 1 -y", []string{".hermes"}, "sessions list --json --limit 100"},
		{"insights --days 90", []string{".hermes"}, "config path"},
	} {
		t.Run(c.line, func(t *testing.T) {
			t.Parallel()
			begin := func() string {
				home := t.TempDir()
				for _, name := range c.from {
					from := filepath.Join(made, name)
					if info, err := os.Stat(from); err != nil {
						t.Fatal(err)
					} else if info.IsDir() {
						err = os.CopyFS(filepath.Join(home, name), os.DirFS(from))
						if err != nil {
							t.Fatal(err)
						}
					} else if text, err := os.ReadFile(from); err != nil || os.WriteFile(filepath.Join(home, name), text, 0o600) != nil {
						t.Fatal(name, err)
					}
				}
				return home
			}
			uncut := begin()
			if code, out := typed(t.Context(), uncut, c.line); code != exitOK {
				t.Fatalf("exit %d: %s", code, out)
			}
			_, wantState := typed(t.Context(), uncut, c.state)
			want := files(t, uncut)
			stopped := 0
			for a, n := int64(0), int64(1); ; a, n = n, a+n { // 0, 1, 1, 2, 3, 5 …
				home := begin()
				code, out := typed(interruptedAt(t.Context(), a), home, c.line)
				if code != exitOK {
					stopped++
					if code != exitFailed || strings.TrimSpace(out) == "" {
						t.Errorf("stopped at question %d: exit %d: %q", a, code, out)
					}
					if left := leavings(t, home); len(left) > 0 {
						t.Errorf("stopped at question %d: left behind: %v", a, left)
					}
					if _, err := os.Stat(filepath.Join(home, "new.zip")); err == nil {
						t.Errorf("stopped at question %d: there is an archive", a)
					}
					again, said := typed(t.Context(), home, c.line)
					// What was undone to its end is gone, and there is nothing to undo.
					if again != exitOK && !strings.Contains(said, "nothing was moved into") {
						t.Errorf("stopped at question %d and typed again: exit %d: %s", a, again, said)
					}
				}
				_, state := typed(t.Context(), home, c.state)
				if diff := cmp.Diff(strings.ReplaceAll(wantState, uncut, ""), strings.ReplaceAll(state, home, "")); diff != "" {
					t.Errorf("stopped at question %d, it came to another end: %s", a, diff)
				}
				if diff := cmp.Diff(want, files(t, home)); diff != "" {
					t.Errorf("stopped at question %d, other files are there: %s", a, diff)
				}
				if code == exitOK && a > 0 {
					break
				}
				if a > 100_000 {
					t.Fatal("it never came to its end")
				}
			}
			if stopped == 0 {
				t.Error("it never asked whether it was to stop")
			}
		})
	}
}
