package home

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"hermes/internal/domain"
)

func TestParseEnv(t *testing.T) {
	tests := []struct{ name, in, want string }{
		{"plain", "A=b", "b"},
		{"blanks around", "  A = b  \n", "b"},
		{"blanks within", "A=b c\n", "b c"},
		{"export", "export A=b\n", "b"},
		{"double quotes", `A="b c"`, "b c"},
		{"single quotes", `A='b "$c" \n'`, `b "$c" \n`},
		{"dollar is literal", "A=$HOME/${x}", "$HOME/${x}"},
		{"dollar in double quotes", `A="$HOME"`, "$HOME"},
		{"escapes in double quotes", `A="\"\\\$\` + "`" + `\n"`, "\"\\$`\\n"},
		{"escapes without quotes", `A=a\ b\"c`, `a b"c`},
		{"joined lines", "A=a\\\nb\n", "ab"},
		{"many lines", "A=\"a\nb\"\n", "a\nb"},
		{"quotes inside a word are literal", `A=a"b"`, `a"b"`},
		{"quoted parts follow each other", `A="a"'b'`, "ab"},
		{"hash in a word", "A=a#b", "a#b"},
		{"comment behind", "A=a # b", "a"},
		{"comment behind quotes", `A="a # b" # c`, "a # b"},
		{"empty", "A=", ""},
		{"CR LF", "A=b\r\n", "b"},
		{"byte order mark", "\ufeffA=b", "b"},
		{"comment lines", "# x\n; y\nA=b", "b"},
		{"the last counts", "A=a\nA=b", "b"},
		{"equals in the value", "A=a=b==", "a=b=="},
		{"not ASCII", "A=größe", "größe"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f, _ := ParseEnv(".env", []byte(tt.in))
			got, _, ok := f.Lookup("A")
			if !ok || got != tt.want {
				t.Errorf("%q gives %q, %v; want %q", tt.in, got, ok, tt.want)
			}
			if !bytes.Equal(f.Bytes(), []byte(tt.in)) {
				t.Errorf("it is written back as %q", f.Bytes())
			}
		})
	}
}

func TestBadLinesAreReportedAndKept(t *testing.T) {
	const in = "A=1\nnonsense\n2X=3\nB=\"open\nC=4\nD='x\nE=5'\n"
	f, problems := ParseEnv("/h/.env", []byte(in))
	var lines []int
	for _, p := range problems {
		lines = append(lines, p.Line)
	}
	if diff := cmp.Diff([]int{2, 3, 4, 6}, lines); diff != "" {
		t.Errorf("problems at lines %v: %v", lines, problems)
	}
	if v, line, ok := f.Lookup("C"); v != "4" || line != 5 || !ok {
		t.Errorf("C behind an open quote = %q line %d", v, line)
	}
	if err := f.Set("C", "new"); err != nil {
		t.Fatal(err)
	}
	if got, want := string(f.Bytes()), strings.Replace(in, "C=4", "C=new", 1); got != want {
		t.Errorf("got %q", got)
	}
}

func TestEnvFileEdits(t *testing.T) {
	const in = "# tokens\nA=1 # one\n\nexport B='2'\nA=3"
	f, _ := ParseEnv(".env", []byte(in))
	for name, v := range map[string]string{"A": "it's $5", "C": "x y"} {
		if err := f.Set(name, v); err != nil {
			t.Fatal(err)
		}
	}
	want := "# tokens\nA=1 # one\n\nexport B='2'\nA=\"it's \\$5\"\nC='x y'\n"
	if got := string(f.Bytes()); got != want {
		t.Errorf("got %q\nwant %q", got, want)
	}
	if !f.Unset("A") || f.Unset("A") {
		t.Error("Unset tells wrongly whether it was there")
	}
	if got := string(f.Bytes()); got != "# tokens\n\nexport B='2'\nC='x y'\n" {
		t.Errorf("after Unset %q", got)
	}
	for _, bad := range []string{"", "1A", "A-B", "A B"} {
		if err := f.Set(bad, "x"); !domain.IsCode(err, domain.Invalid) {
			t.Errorf("Set(%q): %v", bad, err)
		}
	}
}

func FuzzEnvFile(f *testing.F) {
	for _, s := range []string{"A=1\n", "A='x\ny'\nB=\"\\\"\"", "export A=a\\\nb", "\ufeff#\r\nA=\"", "A=b # c\n=\n"} {
		f.Add([]byte(s), "va'l\"ue$")
	}
	f.Fuzz(func(t *testing.T, in []byte, value string) {
		file, _ := ParseEnv(".env", in)
		if !bytes.Equal(file.Bytes(), in) {
			t.Fatalf("%q is written back as %q", in, file.Bytes())
		}
		before := file.values()
		if file.Set("NEW_NAME", value) != nil {
			return
		}
		before["NEW_NAME"] = value
		again, _ := ParseEnv(".env", file.Bytes())
		after := again.values()
		if diff := cmp.Diff(before, after); diff != "" {
			t.Errorf("setting a name in %q changed more than that: %s", in, diff)
		}
	})
}

func profileIn(t *testing.T) Profile {
	dir := t.TempDir()
	return Profile{DefaultProfile, dir, dir}
}

func mustEnv(t *testing.T, p Profile, process ...string) *Env {
	t.Helper()
	e, _, err := LoadEnv(p, process)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func TestFileWinsOverProcess(t *testing.T) {
	p := profileIn(t)
	write(t, p.EnvFile(), "A=file\nEMPTY=\n")
	e := mustEnv(t, p, "A=process", "B=process", "EMPTY=process")
	if e.Get("A") != "file" || e.Get("B") != "process" {
		t.Errorf("A=%q B=%q", e.Get("A"), e.Get("B"))
	}
	if v, ok := e.Lookup("EMPTY"); ok {
		t.Errorf("EMPTY is set to %q", v)
	}
	if got := e.Origin("A").String() + ", " + e.Origin("B").String(); got != ".env line 1 (A), environment (B)" {
		t.Error(got)
	}
}

// A unit's EnvironmentFile= puts every key into the environment, where they
// outlive their deletion from .env over hand-overs.
func TestKeysDeletedFromTheFileAreDropped(t *testing.T) {
	p := profileIn(t)
	write(t, p.EnvFile(), "GONE=old\nSTAYS=x\nOWN=file\n")
	first := mustEnv(t, p, "GONE=old", "STAYS=x", "OWN=mine")
	if err := first.Remember(); err != nil {
		t.Fatal(err)
	}
	write(t, p.EnvFile(), "STAYS=x\n")
	// Over two successors, that each inherit the first environment.
	for range 2 {
		e := mustEnv(t, p, "GONE=old", "STAYS=x", "OWN=mine")
		if v, ok := e.Lookup("GONE"); ok {
			t.Errorf("GONE is back as %q", v)
		}
		if e.Get("OWN") != "mine" {
			t.Errorf("OWN, which differs from what the file had, is %q", e.Get("OWN"))
		}
		if strings.Contains(strings.Join(e.Environ(), " "), "GONE") {
			t.Error("a successor would inherit GONE")
		}
		if err := e.Remember(); err != nil {
			t.Fatal(err)
		}
	}
	if note := readFile(t, envNote(p)); strings.Contains(note, "old") {
		t.Error("the note holds a value")
	}
}

func TestEditEnvKeepsACopy(t *testing.T) {
	p := profileIn(t)
	write(t, p.EnvFile(), "A=1\n")
	if err := os.Chmod(p.EnvFile(), 0o644); err != nil {
		t.Fatal(err)
	}
	_, problems, err := LoadEnv(p, nil)
	if err != nil || len(problems) != 1 || !strings.Contains(problems[0].Fix, "chmod 600") {
		t.Errorf("mode 0644: %v, %v", problems, err)
	}
	if err := EditEnv(p, map[string]*string{"A": ptr("2"), "B": ptr("3")}, By{}); err != nil {
		t.Fatal(err)
	}
	if got := readFile(t, p.EnvFile()) + readFile(t, p.EnvFile()+".bak"); got != "A=2\nB=3\nA=1\n" {
		t.Errorf("got %q", got)
	}
	for _, f := range []string{p.EnvFile(), p.EnvFile() + ".bak"} {
		if info, err := os.Stat(f); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v %v", f, info.Mode(), err)
		}
	}
	if left, _ := filepath.Glob(filepath.Join(p.Home, ".*.tmp")); len(left) != 0 {
		t.Errorf("files left: %v", left)
	}
}

func TestAnOpenQuoteCannotSwallowANewValue(t *testing.T) {
	const in = "A=\"open\nB=2\n"
	f, _ := ParseEnv(".env", []byte(in))
	if err := f.Set("C", `say "hi" it's`); !domain.IsCode(err, domain.Conflict) {
		t.Errorf("Set: %v", err)
	}
	if string(f.Bytes()) != in {
		t.Errorf("a refused edit left %q", f.Bytes())
	}
	if err := f.Set("C", "harmless"); err != nil {
		t.Errorf("a value without quotes: %v", err)
	}
}
