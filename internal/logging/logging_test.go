package logging

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"hermes/internal/secret"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func read(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// line formats one record at a fixed time.
func line(t *testing.T, level slog.Level, msg string, attrs ...any) string {
	t.Helper()
	dir := t.TempDir()
	l := New(Options{Dir: dir, Level: slog.LevelDebug, Redactor: secret.NewRedactor("hunter22")})
	defer l.Close()
	r := slog.NewRecord(time.Date(2026, 11, 22, 6, 0, 0, 123e6, time.UTC), level, msg, 0)
	r.Add(attrs...)
	if err := l.Logger().Handler().Handle(context.Background(), r); err != nil {
		t.Fatal(err)
	}
	return read(t, filepath.Join(dir, "gateway.log"))
}

type panicky struct{ p *int }

func (p panicky) String() string { return fmt.Sprint(*p.p) }

func TestLineFormat(t *testing.T) {
	const at = "2026-11-22 06:00:00,123 "
	tests := []struct {
		name  string
		level slog.Level
		msg   string
		attrs []any
		want  string
	}{
		{"plain", slog.LevelInfo, "started", nil, "INFO gateway: started"},
		{"component and session", slog.LevelWarn, "slow", []any{"component", "cron", "session", "20261122_060000_ab", "n", 3}, "WARNING [20261122_060000_ab] cron: slow n=3"},
		{"a value with a space", slog.LevelError, "failed", []any{"err", errors.New(`no "luck" here`)}, `ERROR gateway: failed err="no \"luck\" here"`},
		{"a duration", slog.LevelDebug, "took", []any{"for", 1500 * time.Millisecond}, "DEBUG gateway: took for=1.5s"},
		{"a group", slog.LevelInfo, "m", []any{slog.Group("http", "status", 200)}, "INFO gateway: m http.status=200"},
		{"line breaks cannot forge a line", slog.LevelInfo, "a\n2026-11-22 06:00:00,123 ERROR b: c\x1b[2J", []any{"v", "x\ny"}, `INFO gateway: a\n2026-11-22 06:00:00,123 ERROR b: c\x1b[2J v="x\ny"`},
		{"a secret", slog.LevelInfo, "login hunter22", []any{"pw", "hunter22"}, "INFO gateway: login <secret> pw=<secret>"},
		{"a secret value", slog.LevelInfo, "m", []any{"key", secret.Value("zzzzzzzzz")}, "INFO gateway: m key=<secret>"},
		{"a value that panics", slog.LevelInfo, "m", []any{"v", panicky{}}, `INFO gateway: m v="%!v(PANIC=String method: runtime error: invalid memory address or nil pointer dereference)"`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := line(t, tt.level, tt.msg, tt.attrs...); got != at+tt.want+"\n" {
				t.Errorf("\n got %q\nwant %q", got, at+tt.want+"\n")
			}
		})
	}
}

func TestLongLineIsBounded(t *testing.T) {
	if n := len(line(t, slog.LevelInfo, strings.Repeat("x", 3*maxLine), "v", strings.Repeat("y", 3*maxLine))); n > maxLine+8 {
		t.Errorf("the line has %d bytes", n)
	}
}

func TestFilesTakeTheirLevels(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "logs")
	l := New(Options{Dir: dir})
	log := l.Logger()
	log.Debug("one")
	log.Info("two")
	log.Warn("three")
	log.With(ComponentKey, "agent").Info("four")
	l.Close()
	for name, want := range map[string][]string{
		"gateway.log":       {"two", "three", "four"},
		"gateway.error.log": {"three"},
		"agent.log":         {"four"},
	} {
		got := read(t, filepath.Join(dir, name))
		if n := strings.Count(got, "\n"); n != len(want) {
			t.Errorf("%s has %d lines: %q", name, n, got)
		}
		for _, w := range want {
			if !strings.Contains(got, w) {
				t.Errorf("%s lacks %q", name, w)
			}
		}
		if info, err := os.Stat(filepath.Join(dir, name)); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: mode %v, %v", name, info.Mode(), err)
		}
	}
}

func TestJournalPriorities(t *testing.T) {
	var out bytes.Buffer
	l := New(Options{Level: slog.LevelDebug, Stderr: &out, Journal: true})
	log := l.Logger().With(ComponentKey, "cron")
	log.Debug("a")
	log.Info("b")
	log.Warn("c")
	log.Error("d", SessionKey, "s1")
	l.Close()
	if got, want := out.String(), "<7>cron: a\n<6>cron: b\n<4>cron: c\n<3>[s1] cron: d\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestJournalIsToldFromATerminalUnderAUnit(t *testing.T) {
	f, err := os.Create(filepath.Join(t.TempDir(), "stderr"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	id := fileID(f)
	if id == "" {
		t.Skip("files have no device and inode here")
	}
	for stream, want := range map[string]bool{id: true, "1:2": false, "": false} {
		lookup := func(name string) (string, bool) {
			if name == "JOURNAL_STREAM" {
				return stream, stream != ""
			}
			return "1", name == "INVOCATION_ID"
		}
		if got := isJournal(f, lookup); got != want {
			t.Errorf("JOURNAL_STREAM=%q: %v", stream, got)
		}
	}
}

func TestRotationKeepsEveryLineOnce(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "gateway.log")
	// Two writers, as in a hand-over.
	a := &file{path: path, max: 4 << 10, backups: 1000}
	b := &file{path: path, max: 4 << 10, backups: 1000}
	var wg sync.WaitGroup
	for name, w := range map[string]*file{"a": a, "b": b} {
		wg.Go(func() {
			for i := range 2000 {
				w.write(fmt.Appendf(nil, "%s %06d\n", name, i))
			}
		})
	}
	wg.Wait()
	a.close()
	b.close()
	files, err := filepath.Glob(path + "*")
	if err != nil || len(files) < 3 {
		t.Fatalf("only %d files: %v", len(files), err)
	}
	seen := map[string]int{}
	for _, f := range files {
		for _, l := range strings.Split(strings.TrimSpace(read(t, f)), "\n") {
			seen[l]++
		}
	}
	for _, name := range []string{"a", "b"} {
		for i := range 2000 {
			if l := fmt.Sprintf("%s %06d", name, i); seen[l] != 1 {
				t.Fatalf("%q stands %d times", l, seen[l])
			}
		}
	}
}

func TestBackupsAreBounded(t *testing.T) {
	path := filepath.Join(t.TempDir(), "gateway.log")
	w := &file{path: path, max: 100, backups: 2}
	for range 100 {
		w.write([]byte(strings.Repeat("x", 60) + "\n"))
	}
	w.close()
	if files, _ := filepath.Glob(path + "*"); len(files) != 3 {
		t.Errorf("files: %v", files)
	}
}

func TestAFullDiskCostsLinesOnly(t *testing.T) {
	if _, err := os.Stat("/dev/full"); err != nil {
		t.Skip("no /dev/full here to stand for a full disk")
	}
	w := &file{path: "/dev/full"}
	for range 3 {
		w.write([]byte("2026-11-22 06:00:00,123 INFO gateway: x\n"))
	}
	if w.dropped != 3 {
		t.Fatalf("dropped = %d", w.dropped)
	}
	w.close()
	w.path = filepath.Join(t.TempDir(), "gateway.log")
	w.write([]byte("2026-11-22 06:00:01,123 INFO gateway: y\n"))
	w.close()
	want := "2026-11-22 06:00:01,123 WARNING logging: lines could not be written here count=3\n2026-11-22 06:00:01,123 INFO gateway: y\n"
	if got := read(t, w.path); got != want {
		t.Errorf("got %q", got)
	}
}

func TestAStuckStderrHoldsNobodyUp(t *testing.T) {
	r, w := io.Pipe() // nobody reads
	l := New(Options{Stderr: w})
	for range 2 * consoleLines {
		l.Logger().Info("x")
	}
	if l.stderr.dropped == 0 {
		t.Error("nothing was dropped, so the test tests nothing")
	}
	l.Close()
	r.Close()
	<-l.stderr.done
}

func TestParseLevel(t *testing.T) {
	for in, want := range map[string]slog.Level{"info": slog.LevelInfo, "INFO": slog.LevelInfo, "Warning": slog.LevelWarn, "warn": slog.LevelWarn, "CRITICAL": slog.LevelError, "": slog.LevelInfo} {
		if got, err := ParseLevel(in); got != want || err != nil {
			t.Errorf("ParseLevel(%q) = %v, %v", in, got, err)
		}
	}
	if _, err := ParseLevel("loud"); err == nil {
		t.Error("loud is a level")
	}
}

const sample = `2026-11-22 06:00:00,000 INFO gateway: one
2026-11-22 06:01:00,000 INFO [20261122_060000_aa] agent: two
2026-11-22 06:02:00,000 ERROR cron: three
Traceback: a line that belongs to three
2026-11-22 06:03:00,000 WARNING platform.telegram: four
`

func TestTail(t *testing.T) {
	path := filepath.Join(t.TempDir(), "gateway.log")
	older := strings.Repeat("2026-11-22 05:00:00,000 INFO gateway: old\n", 5000) // several blocks
	if err := errors.Join(os.WriteFile(path, []byte(sample), 0o600), os.WriteFile(path+".1", []byte(older), 0o600)); err != nil {
		t.Fatal(err)
	}
	at := func(s string) time.Time {
		v, err := time.ParseInLocation("15:04:05 2006-01-02", s+" 2026-11-22", time.UTC)
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	lastWord := regexp.MustCompile(`\S+$`)
	tests := []struct {
		name string
		n    int
		f    Filter
		want string
	}{
		{"the end", 2, Filter{}, "three four"},
		{"into the rotated file", 7, Filter{}, "old old one two three three four"},
		{"level, with what belongs to the line", 9, Filter{Level: slog.LevelError}, "three three"},
		{"since", 9, Filter{Since: at("06:01:30")}, "three three four"},
		{"session", 9, Filter{Session: "060000_aa"}, "two"},
		{"component", 9, Filter{Component: "cron"}, "three three"},
		{"component group", 3, Filter{Component: "gateway"}, "old one four"},
		{"none", 0, Filter{}, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			tt.f.Zone = time.UTC
			got, err := Tail(path, tt.n, tt.f)
			if err != nil {
				t.Fatal(err)
			}
			var words []string
			for _, l := range got {
				words = append(words, lastWord.FindString(l))
			}
			if s := strings.Join(words, " "); s != tt.want {
				t.Errorf("got %q, want %q", s, tt.want)
			}
		})
	}
	if _, err := Tail(path+".none", 3, Filter{}); err == nil {
		t.Error("a log that does not exist has a tail")
	}
}

func TestTailReadsAllOfALargeFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "gateway.log")
	var b strings.Builder
	for i := range 30_000 {
		fmt.Fprintf(&b, "line %d %s\n", i, strings.Repeat("x", i%40))
	}
	if err := os.WriteFile(path, []byte(b.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	got, err := Tail(path, maxTail, Filter{})
	if err != nil || strings.Join(got, "\n")+"\n" != b.String() {
		t.Errorf("%d lines, %v; not what was written", len(got), err)
	}
}

func TestFollowAcrossRotation(t *testing.T) {
	path := filepath.Join(t.TempDir(), "gateway.log")
	w := &file{path: path, max: 120, backups: 3}
	defer w.close()
	w.write([]byte("before\n"))
	ctx, cancel := context.WithCancel(t.Context())
	lines := make(chan string, 100)
	done := make(chan error, 1)
	go func() {
		done <- Follow(ctx, path, 5, Filter{}, func(l string) error { lines <- l; return nil })
	}()
	if got := <-lines; got != "before" {
		t.Fatalf("first %q", got)
	}
	for i := range 20 {
		want := fmt.Sprintf("line %02d %s", i, strings.Repeat("x", 30))
		w.write([]byte(want + "\n"))
		if got := <-lines; got != want {
			t.Fatalf("got %q, want %q", got, want)
		}
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func FuzzParseLine(f *testing.F) {
	for _, l := range strings.Split(sample, "\n") {
		f.Add(l)
	}
	f.Fuzz(func(t *testing.T, line string) {
		if e, ok := ParseLine(line, time.UTC); ok && !strings.HasSuffix(line, e.Message) {
			t.Errorf("%q has the message %q", line, e.Message)
		}
	})
}
