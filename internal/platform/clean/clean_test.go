package clean_test

import (
	"strings"
	"testing"
	"unicode/utf8"

	"hermes/internal/platform/clean"
)

func TestFileNamesLeadNowhere(t *testing.T) {
	for in, want := range map[string]string{
		"report.pdf": "report.pdf", "../../etc/passwd": "passwd", `C:\temp\a.txt`: "a.txt", "..": "file", "/": "file", "": "file",
		"a\x00b\n.txt": "ab.txt", "ä.txt": "ä.txt",
		"photo\u202egpj.exe": "photogpj.exe", "a\u0085\u200b\u2066.txt": "a.txt", "\u200f": "file", " \t": "file", "../..": "file", "CON": "CON",
	} {
		if got := clean.FileName(in); got != want {
			t.Errorf("FileName(%q) = %q, want %q", in, got, want)
		}
	}
	long := clean.FileName(strings.Repeat("ü", 300) + ".tar")
	if len(long) > 200 || !strings.HasSuffix(long, ".tar") || !utf8.ValidString(long) {
		t.Errorf("a long name became %q", long)
	}
}

func TestNamesAndTextAreBounded(t *testing.T) {
	if got := clean.Name(" \n", "a\xffb", "c"); got != "a\uFFFDb" {
		t.Errorf("Name gave %q", got)
	}
	if got := clean.Clip("aüü", 4); got != "aü" {
		t.Errorf("Clip gave %q", got)
	}
}
