package files

import (
	"context"
	"encoding/json"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"hermes/internal/domain"
	"hermes/internal/tool"
)

// desk is a profile home and a working folder with some files.
type desk struct {
	t     *testing.T
	tools map[string]tool.Tool
	env   tool.Env
}

func newDesk(t *testing.T) *desk {
	t.Helper()
	user := t.TempDir()
	d := &desk{t: t, tools: map[string]tool.Tool{}, env: tool.Env{Home: filepath.Join(user, ".hermes"), Workdir: filepath.Join(user, "work")}}
	list := New(Options{UserHome: user, Root: d.env.Home})
	if _, err := tool.NewRegistry(list...); err != nil {
		t.Fatal(err)
	}
	for _, x := range list {
		d.tools[x.Name] = x
	}
	d.file(filepath.Join(d.env.Home, ".env"), "OPENROUTER_API_KEY=sk-hidden\n")
	d.file(filepath.Join(d.env.Home, "auth.json"), "{}")
	d.file(filepath.Join(d.env.Home, "ledger.db"), "x")
	d.file(filepath.Join(d.env.Home, "SOUL.md"), "be kind\n")
	d.file(filepath.Join(d.env.Home, "profiles", "coach", ".env"), "TOKEN=sk-hidden\n")
	d.file(filepath.Join(d.env.Home, "config-history", "1.yaml"), "key: sk-hidden\n")
	d.file("a.txt", "one\ntwo\nthree\n")
	return d
}

func (d *desk) path(p string) string {
	if filepath.IsAbs(p) {
		return p
	}
	return filepath.Join(d.env.Workdir, p)
}

func (d *desk) file(p, content string) {
	d.t.Helper()
	if err := os.MkdirAll(filepath.Dir(d.path(p)), 0o700); err != nil {
		d.t.Fatal(err)
	}
	if err := os.WriteFile(d.path(p), []byte(content), 0o600); err != nil {
		d.t.Fatal(err)
	}
}

func (d *desk) read(p string) string {
	d.t.Helper()
	b, err := os.ReadFile(d.path(p))
	if err != nil {
		d.t.Fatal(err)
	}
	return string(b)
}

func (d *desk) call(name string, args map[string]any) (string, error) {
	raw, err := json.Marshal(args)
	if err != nil {
		d.t.Fatal(err)
	}
	res, err := d.tools[name].Run(context.Background(), d.env, raw)
	return res.Content, err
}

func TestRead(t *testing.T) {
	d := newDesk(t)
	d.file("long.txt", strings.Repeat("line\n", 3000))
	d.file("wide.txt", strings.Repeat("w", 5000))
	d.file("empty", "")
	d.file("pic.png", "\x89PNG\r\n\x1a\n\x00\x00")
	d.file("blob", "a\x00b")
	for _, tt := range []struct {
		args map[string]any
		want string
		code domain.Code
	}{
		{map[string]any{"path": "a.txt"}, "     1|one\n     2|two\n     3|three\n", ""},
		{map[string]any{"path": "./x/../a.txt", "offset": 2, "limit": 1}, "     2|two\n[lines 2 to 2 of 3; go on with offset 3]", ""},
		{map[string]any{"path": "a.txt", "offset": -1}, "     3|three\n", ""},
		{map[string]any{"path": "~/work/a.txt", "offset": "3"}, "     3|three\n", ""},
		{map[string]any{"path": "long.txt"}, "go on with offset 501", ""},
		{map[string]any{"path": "wide.txt"}, "w […]", ""},
		{map[string]any{"path": "empty"}, "is empty", ""},
		{map[string]any{"path": "."}, "a.txt\n", ""},
		{map[string]any{"path": "~/.hermes/SOUL.md"}, "be kind", ""},
		{map[string]any{"path": "a.txt", "offset": 9}, "has 3 lines", domain.Invalid},
		{map[string]any{"path": "none"}, "does not exist", domain.NotFound},
		{map[string]any{"path": "pic.png"}, "is an image", domain.Invalid},
		{map[string]any{"path": "blob"}, "is not text", domain.Invalid},
		{map[string]any{"path": "a\x00b"}, "not a path", domain.Invalid},
		{map[string]any{}, "\"path\" is missing", domain.Invalid},
	} {
		out, err := d.call("read_file", tt.args)
		if err != nil {
			out = domain.MessageOf(err)
		}
		if domain.CodeOf(err) != tt.code || !strings.Contains(out, tt.want) {
			t.Errorf("%v: got %.200q, %v", tt.args, out, err)
		}
	}
}

// The gateway's own files are out of reach by any name, for reading, writing,
// patching and searching.
func TestSecretsAreOutOfReach(t *testing.T) {
	d := newDesk(t)
	link := func(to, from string) string {
		if err := os.Symlink(to, d.path(from)); err != nil {
			t.Fatal(err)
		}
		return from
	}
	if err := os.Link(filepath.Join(d.env.Home, ".env"), d.path("hard")); err != nil {
		t.Fatal(err)
	}
	names := []string{
		"~/.hermes/.env", d.env.Home + "/.env", "../.hermes/.env", "../.hermes/./x/../.env", "~/.hermes/auth.json", "~/.hermes/ledger.db",
		"~/.hermes/ledger.db-wal", "~/.hermes/gateway.sock", "~/.hermes/profiles/coach/.env", "~/.hermes/config-history/1.yaml", "~/.hermes/.env.local",
		link(filepath.Join(d.env.Home, ".env"), "soft"), link("soft", "softer"), "hard", link(d.env.Home, "folder") + "/.env",
		link(filepath.Join(d.env.Home, ".env.new"), "dangling"), link("../.hermes", "rel") + "/auth.json", "/proc/self/environ", "/proc/1/environ", "/proc/self/root" + d.env.Home + "/.env", "/dev/zero", "/sys/kernel/notes",
	}
	for _, name := range names {
		for tool, args := range map[string]map[string]any{
			"read_file": {"path": name}, "write_file": {"path": name, "content": "x"},
			"patch": {"path": name, "old_string": "sk", "new_string": "x"}, "search_files": {"path": name, "pattern": "."},
		} {
			out, err := d.call(tool, args)
			if code := domain.CodeOf(err); code != domain.Forbidden || strings.Contains(out, "sk-hidden") {
				t.Errorf("%s %s: got %q, %v", tool, name, out, err)
			}
		}
	}
	if d.read(filepath.Join(d.env.Home, ".env")) != "OPENROUTER_API_KEY=sk-hidden\n" {
		t.Error(".env was changed")
	}
	out, err := d.call("search_files", map[string]any{"path": "~", "pattern": "sk-hidden"})
	if err != nil || !strings.Contains(out, "Nothing was found") {
		t.Errorf("search found secrets: %q, %v", out, err)
	}
}

// What is no file is refused at once, and does not hang.
func TestSpecialFilesDoNotHang(t *testing.T) {
	d := newDesk(t)
	if err := syscall.Mkfifo(d.path("pipe"), 0o600); err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	for _, p := range []string{d.path("pipe"), ln.Addr().String(), "/dev/tty", "/dev/stdin"} {
		for tool, args := range map[string]map[string]any{
			"read_file": {"path": p}, "write_file": {"path": p, "content": "x"}, "patch": {"path": p, "old_string": "a", "new_string": "b"},
		} {
			if _, err := d.call(tool, args); err == nil {
				t.Errorf("%s %s: no error", tool, p)
			}
		}
	}
	if out, err := d.call("search_files", map[string]any{"pattern": "two"}); err != nil || !strings.Contains(out, "a.txt:2:two") {
		t.Errorf("search: %q, %v", out, err)
	}
}

func TestWrite(t *testing.T) {
	d := newDesk(t)
	if out, err := d.call("write_file", map[string]any{"path": "new/deep/b.txt", "content": "x\ny\n"}); err != nil || !strings.Contains(out, "Made ") || !strings.Contains(out, "2 lines") {
		t.Errorf("got %q, %v", out, err)
	}
	if d.read("new/deep/b.txt") != "x\ny\n" {
		t.Error("wrong content")
	}
	if err := os.Chmod(d.path("a.txt"), 0o750); err != nil {
		t.Fatal(err)
	}
	if out, err := d.call("write_file", map[string]any{"path": "a.txt", "content": ""}); err != nil || !strings.Contains(out, "Replaced") {
		t.Errorf("got %q, %v", out, err)
	}
	if info, err := os.Stat(d.path("a.txt")); err != nil || info.Mode().Perm() != 0o750 || info.Size() != 0 {
		t.Errorf("mode or size is lost: %v, %v", info, err)
	}
	for _, args := range []map[string]any{{"path": "c.txt"}, {"path": ".", "content": "x"}, {"path": "a.txt/b", "content": "x"}, {"path": "big", "content": strings.Repeat("x", maxWrite+1)}} {
		if _, err := d.call("write_file", args); err == nil {
			t.Errorf("%.60v: no error", args)
		}
	}
}

func TestGuard(t *testing.T) {
	d := newDesk(t)
	if err := os.Symlink("../.bashrc", d.path("innocent")); err != nil {
		t.Fatal(err)
	}
	for p, want := range map[string]tool.Action{
		"b.txt": tool.Run, "/tmp/x": tool.Run, "~/.bashrc": tool.Ask, "innocent": tool.Ask, "/etc/hosts": tool.Ask, "~/.hermes/config.yaml": tool.Ask,
		"~/.hermes/.env": tool.Refuse, "~/.config/systemd/user/hermes-gateway.service": tool.Refuse, "/dev/sda": tool.Refuse,
	} {
		raw, _ := json.Marshal(map[string]string{"path": p, "content": ""})
		for _, name := range []string{"write_file", "patch"} {
			if got, err := d.tools[name].Guard(t.Context(), d.env, raw); err != nil || got.Action != want {
				t.Errorf("%s %s: got %+v, %v", name, p, got, err)
			}
		}
	}
}

func TestPatch(t *testing.T) {
	for _, tt := range []struct {
		name, file string
		args       map[string]any
		want       string // content afterwards, or a part of the error behind "!"
	}{
		{"exact", "a\nb\nc\n", map[string]any{"old_string": "b", "new_string": "B"}, "a\nB\nc\n"},
		{"delete", "a\nb\nc\n", map[string]any{"old_string": "b\n", "new_string": ""}, "a\nc\n"},
		{"twice", "x\nx\n", map[string]any{"old_string": "x", "new_string": "y"}, "!occurs 2 times (lines 1, 2)"},
		{"all", "x\nx\n", map[string]any{"old_string": "x", "new_string": "y", "replace_all": true}, "y\ny\n"},
		{"absent", "x\n", map[string]any{"old_string": "z", "new_string": "y"}, "!does not occur"},
		{"space at line ends", "a  \nb\t\nc\n", map[string]any{"old_string": "a\nb", "new_string": "A\nB"}, "A\nB\nc\n"},
		{"indentation", "f {\n\t\tone()\n\t\ttwo()\n}\n", map[string]any{"old_string": "    one()\n    two()", "new_string": "    three()\n      four()"}, "f {\n\t\tthree()\n\t\t  four()\n}\n"},
		{"indentation, two places", "  a\n    a\n", map[string]any{"old_string": "\ta", "new_string": "b"}, "!occurs 2 times when white space"},
		{"edits", "a\nb\n", map[string]any{"edits": []map[string]any{{"old_string": "a", "new_string": "b2"}, {"old_string": "b2\nb", "new_string": "z"}}}, "z\n"},
		{"all edits or none", "a\nb\n", map[string]any{"edits": []map[string]any{{"old_string": "a", "new_string": "c"}, {"old_string": "q", "new_string": "z"}}}, "!edit 2 of 2: old_string does not occur"},
		{"no edits", "a\n", map[string]any{}, "!\"old_string\" is missing"},
		{"CRLF", "a\r\nb\r\n", map[string]any{"old_string": "a\nb", "new_string": "c"}, "c\n"},
	} {
		d := newDesk(t)
		d.file("f", tt.file)
		tt.args["path"] = "f"
		out, err := d.call("patch", tt.args)
		if msg, fails := strings.CutPrefix(tt.want, "!"); fails {
			if err == nil || !strings.Contains(domain.MessageOf(err), msg) || d.read("f") != tt.file {
				t.Errorf("%s: got %q, %v; the file is %q", tt.name, out, err, d.read("f"))
			}
			continue
		}
		if err != nil || d.read("f") != tt.want || !strings.Contains(out, "@@") {
			t.Errorf("%s: got %q, %v; the file is %q, want %q", tt.name, out, err, d.read("f"), tt.want)
		}
	}
}

func TestSearch(t *testing.T) {
	d := newDesk(t)
	d.file("src/main.go", "package main\n\nfunc main() {\n\tprintln(\"two\")\n}\n")
	d.file("src/deep/x_test.go", "package deep\n")
	d.file("node_modules/m/two.js", "two\n")
	d.file(".git/HEAD", "two\n")
	d.file("bin", "two\x00\n")
	for _, tt := range []struct {
		args map[string]any
		want []string
		not  []string
	}{
		{map[string]any{"pattern": "two"}, []string{"2 hits", "a.txt:2:two", "src/main.go:4:"}, []string{"node_modules", ".git", "bin:"}},
		{map[string]any{"pattern": "TWO", "ignore_case": true, "file_glob": "*.txt"}, []string{"1 hits", "a.txt:2:two"}, []string{"main.go"}},
		{map[string]any{"pattern": "two", "path": "a.txt", "context": 1}, []string{"a.txt-1-one\na.txt:2:two\na.txt-3-three"}, nil},
		{map[string]any{"pattern": "*.go", "target": "files"}, []string{"src/main.go", "src/deep/x_test.go"}, nil},
		{map[string]any{"pattern": "src/**/*_test.go", "target": "files"}, []string{"1 hits", "src/deep/x_test.go"}, nil},
		{map[string]any{"pattern": "package", "limit": 1}, []string{"1 hits", "raise limit"}, nil},
		{map[string]any{"pattern": "nowhere to be found"}, []string{"Nothing was found"}, nil},
	} {
		out, err := d.call("search_files", tt.args)
		if err != nil {
			t.Errorf("%v: %v", tt.args, err)
		}
		for _, w := range tt.want {
			if !strings.Contains(out, w) {
				t.Errorf("%v: %q is missing in %q", tt.args, w, out)
			}
		}
		for _, w := range tt.not {
			if strings.Contains(out, w) {
				t.Errorf("%v: %q is in %q", tt.args, w, out)
			}
		}
	}
	if _, err := d.call("search_files", map[string]any{"pattern": "("}); domain.CodeOf(err) != domain.Invalid {
		t.Errorf("a wrong pattern: %v", err)
	}
	if _, err := d.call("search_files", map[string]any{"pattern": "x", "path": "none"}); domain.CodeOf(err) != domain.NotFound {
		t.Errorf("a missing folder: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := d.tools["search_files"].Run(ctx, d.env, json.RawMessage(`{"pattern":"x"}`)); domain.CodeOf(err) != domain.Cancelled {
		t.Errorf("a cancelled search: %v", err)
	}
}

// A change is shown by lines that, put in the place of the old ones, give the
// new text; an edit that applies makes exactly the change asked for.
func FuzzPatch(f *testing.F) {
	f.Add("a\nb\nc\n", "b", "B")
	f.Add("\tx\n  x\n", "x\n", "")
	f.Add("", "\n", "\n\n")
	f.Fuzz(func(t *testing.T, text, old, new string) {
		got, err := apply(text, []edit{{Old: old, New: new}})
		if err != nil {
			if c := domain.CodeOf(err); c != domain.Invalid && c != domain.TooLarge {
				t.Fatalf("code %s", c)
			}
			return
		}
		if strings.Count(text, old) == 1 && got != strings.Replace(text, old, new, 1) {
			t.Fatalf("%q with %q for %q gave %q", text, new, old, got)
		}
		diff(text, got)
	})
}

func TestAllow(t *testing.T) {
	d := newDesk(t)
	o := Options{UserHome: filepath.Dir(d.env.Home), Root: d.env.Home}
	if err := os.Symlink(filepath.Join(d.env.Home, "auth.json"), d.path("photo.jpg")); err != nil {
		t.Fatal(err)
	}
	for p, want := range map[string]domain.Code{
		d.path("a.txt"): "", "SOUL.md": "", "~/work/a.txt": "", ".env": domain.Forbidden, d.path("photo.jpg"): domain.Forbidden,
		"/proc/self/environ": domain.Forbidden, "": domain.Invalid,
	} {
		if err := Allow(o, d.env.Home, p); domain.CodeOf(err) != want {
			t.Errorf("%q: got %v, want %q", p, err, want)
		}
	}
}
