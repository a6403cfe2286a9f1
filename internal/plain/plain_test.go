package plain

import (
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// within fails the test when something takes longer than a file ever does.
func within(t *testing.T, what string, f func()) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		f()
	}()
	select {
	case <-done:
	case <-time.After(20 * time.Second):
		t.Fatalf("%s: it waits", what)
	}
}

// Whatever stands in a path, opening it returns at once, and only files open.
func TestOpenTakesFilesOnly(t *testing.T) {
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(os.WriteFile(at("file"), []byte("text"), 0o600))
	must(os.WriteFile(at("empty"), nil, 0o600))
	must(os.Symlink("file", at("link")))
	must(os.Symlink("loop", at("loop")))
	must(os.Symlink(os.DevNull, at("nothing")))
	must(os.Symlink("/dev/zero", at("endless")))
	must(os.Mkdir(at("folder"), 0o700))
	must(syscall.Mkfifo(at("pipe"), 0o600))
	must(os.Symlink("pipe", at("link-to-pipe")))
	l, err := net.Listen("unix", at("socket"))
	must(err)
	defer l.Close()

	for name, want := range map[string]error{
		"file": nil, "empty": nil, "link": nil, "nothing": nil, "missing": fs.ErrNotExist, "loop": syscall.ELOOP,
		"folder": ErrNotPlain, "pipe": ErrNotPlain, "link-to-pipe": ErrNotPlain, "socket": ErrNotPlain, "endless": ErrNotPlain,
	} {
		for _, flag := range []int{os.O_RDONLY, os.O_WRONLY | os.O_APPEND, os.O_RDWR} {
			if name == "folder" && flag != os.O_RDONLY {
				want = syscall.EISDIR
			}
			within(t, name, func() {
				f, err := OpenFile(at(name), flag, 0)
				if !errors.Is(err, want) || (err == nil) != (want == nil) {
					t.Errorf("%s, flags %#x: %v, want %v", name, flag, err, want)
				}
				if err == nil {
					f.Close()
				} else if !strings.Contains(err.Error(), at(name)) {
					t.Errorf("%s: the error does not name the path: %v", name, err)
				}
			})
		}
	}
	// A pipe that somebody reads opens for writing, and is none the less refused.
	r, err := os.OpenFile(at("pipe"), os.O_RDWR, 0)
	must(err)
	defer r.Close()
	within(t, "a pipe with a reader", func() {
		if _, err := OpenFile(at("pipe"), os.O_WRONLY|os.O_APPEND, 0); !errors.Is(err, ErrNotPlain) {
			t.Errorf("a pipe with a reader: %v", err)
		}
	})
}

func TestReadIsBounded(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, []byte("12345"), 0o600); err != nil {
		t.Fatal(err)
	}
	if text, err := ReadMost(file, 5); err != nil || string(text) != "12345" {
		t.Errorf("%q %v", text, err)
	}
	if text, err := ReadMost(file, 4); !errors.Is(err, ErrTooLarge) || text != nil {
		t.Errorf("%q %v", text, err)
	}
	for n, want := range map[int64][2]string{2: {"12", "45"}, 5: {"12345", "12345"}, 9: {"12345", "12345"}, 0: {"", ""}} {
		head, err := Head(file, n)
		tail, terr := Tail(file, n)
		if err != nil || terr != nil || string(head) != want[0] || string(tail) != want[1] {
			t.Errorf("%d bytes: %q and %q, %v %v", n, head, tail, err, terr)
		}
	}
	// A file of many gigabytes costs nothing.
	if err := os.Truncate(file, 1<<40); err != nil {
		t.Fatal(err)
	}
	within(t, "a terabyte", func() {
		if _, err := Read(file); !errors.Is(err, ErrTooLarge) {
			t.Errorf("a terabyte: %v", err)
		}
	})
	// What tells no size is read all the same.
	if text, err := Read("/proc/self/stat"); err != nil || len(text) == 0 {
		t.Errorf("/proc: %q %v", text, err)
	}
}

// A file is emptied only once it is known to be one.
func TestTruncation(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	for _, text := range []string{"longer", "abc"} {
		if err := Write(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if text, err := Read(file); err != nil || string(text) != "abc" {
		t.Errorf("%q %v", text, err)
	}
}

func TestSum(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	if err := os.WriteFile(path, []byte("abc"), 0o600); err != nil {
		t.Fatal(err)
	}
	// https://csrc.nist.gov/CSRC/media/Projects/Cryptographic-Standards-and-Guidelines/documents/examples/SHA256.pdf
	const want = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
	if sum, err := Sum(path); err != nil || sum != want {
		t.Errorf("%s, %v", sum, err)
	}
	if _, err := Sum(filepath.Dir(path)); !errors.Is(err, ErrNotPlain) {
		t.Errorf("of a folder: %v", err)
	}
}
