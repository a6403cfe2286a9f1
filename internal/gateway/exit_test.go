package gateway

import (
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
	"testing"
)

// However large the records of the past have grown, the last one is read and the
// file is brought back to its bound.
func TestExitLogOfAnySize(t *testing.T) {
	for name, size := range map[string]int64{"empty": 0, "ordinary": 10 << 10, "over its bound": exitLogKept + 1, "of another program": 3 << 30} {
		dir := t.TempDir()
		if err := os.WriteFile(exitLog(dir), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		f, err := os.OpenFile(exitLog(dir), os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.WriteAt([]byte("\n"), size); err != nil { // what is before it takes no space
			t.Fatal(err)
		}
		f.Close()
		for _, reason := range []string{"first", "second"} {
			WriteExit(dir, ExitRecord{Tag: "gateway.exit", Reason: reason})
			if r, ok := LastExit(dir); !ok || r.Reason != reason {
				t.Errorf("%s: %+v %v, want %q", name, r, ok, reason)
			}
		}
		if st, err := os.Stat(exitLog(dir)); err != nil || st.Size() > exitLogKept+4096 {
			t.Errorf("%s: %d bytes are left, %v", name, st.Size(), err)
		}
	}
}

// A dump of any size is told of by its beginning, and moved aside whole.
func TestCrashDumpOfAnySize(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(crashFile(dir), []byte("fatal error: all goroutines are asleep"+strings.Repeat(" ", 5000)), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(crashFile(dir), 2<<30); err != nil {
		t.Fatal(err)
	}
	last, err := CatchCrash(dir)
	t.Cleanup(func() { _ = debug.SetCrashOutput(nil, debug.CrashOptions{}) })
	if err != nil || !strings.HasPrefix(last, "fatal error") || len(last) != 4000 {
		t.Errorf("%d bytes: %.60q %v", len(last), last, err)
	}
	if st, err := os.Stat(filepath.Join(dir, "gateway-crash.log.1")); err != nil || st.Size() != 2<<30 {
		t.Errorf("the dump itself: %v", err)
	}
	if r, ok := LastExit(dir); !ok || !strings.HasPrefix(r.Traceback, "fatal error") {
		t.Errorf("%+v", r)
	}
}
