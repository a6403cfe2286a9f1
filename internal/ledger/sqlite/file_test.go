package sqlite

import (
	"bytes"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"hermes/internal/domain"
)

func TestFileIsPrivate(t *testing.T) {
	path := filepath.Join(t.TempDir(), "new folder", "odd ?#% name", "ledger.db")
	s := mustOpen(t, Options{Path: path, NoBallast: true})
	if err := s.Check(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{path, path + "-wal", path + "-shm"} {
		if st, err := os.Stat(name); err != nil || st.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v %v", name, st, err)
		}
	}
	s.Close()
	if err := os.Chmod(path, 0o644); err != nil {
		t.Fatal(err)
	}
	mustOpen(t, Options{Path: path, NoBallast: true})
	if st, err := os.Stat(path); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("a ledger that others could read was left so: %v %v", st.Mode(), err)
	}
}

// TestNoDatabase moves aside what is no database, with its companions, and
// loses none of it.
func TestNoDatabase(t *testing.T) {
	header := append(bytes.Clone(sqliteHeader), bytes.Repeat([]byte{0xee}, 8000)...)
	for name, content := range map[string][]byte{
		"text": []byte("this is not a database, it is a note to myself"), "one byte": {1}, "only the header": header,
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "ledger.db")
			for suffix, b := range map[string][]byte{"": content, "-wal": []byte("log")} {
				if err := os.WriteFile(path+suffix, b, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			now := func() time.Time { return time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC) }
			if err := os.WriteFile(path+".broken-20260102T030405Z", []byte("of before"), 0o600); err != nil {
				t.Fatal(err)
			}
			s := mustOpen(t, Options{Path: path, NoBallast: true, Now: now})
			info, err := s.Info(t.Context())
			if err != nil || info.SetAside != path+".broken-20260102T030405Z.2" {
				t.Fatalf("set aside to %q: %v", info.SetAside, err)
			}
			for suffix, want := range map[string][]byte{"": content, "-wal": []byte("log")} {
				if got, err := os.ReadFile(info.SetAside + suffix); err != nil || !bytes.Equal(got, want) {
					t.Errorf("%s holds %d bytes: %v", info.SetAside+suffix, len(got), err)
				}
			}
			if err := s.Check(t.Context()); err != nil {
				t.Error(err)
			}
			s.Close()
			again := mustOpen(t, Options{Path: path, NoBallast: true, Now: now})
			if info, err := again.Info(t.Context()); err != nil || info.SetAside != "" {
				t.Errorf("the new ledger was set aside too: %q %v", info.SetAside, err)
			}
		})
	}
}

// A command says what is wrong and touches nothing: what a process moves aside, it
// alone can tell of, and a command is gone in a moment.
func TestCommandOnNoDatabase(t *testing.T) {
	for name, content := range map[string][]byte{
		"text":                  []byte(strings.Repeat("no database ", 1000)),
		"a header over rubbish": append(bytes.Clone(sqliteHeader), bytes.Repeat([]byte{0xee}, 8000)...),
	} {
		path := filepath.Join(t.TempDir(), "ledger.db")
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := openIn(t, Options{Path: path, Kind: kindCommand})
		if !domain.IsCode(err, domain.Unavailable) {
			t.Errorf("%s: %v", name, err)
		}
		if moved, _ := filepath.Glob(path + ".broken-*"); len(moved) > 0 {
			t.Errorf("%s: moved aside: %v", name, moved)
		}
		if now, err := os.ReadFile(path); err != nil || !bytes.Equal(now, content) {
			t.Errorf("%s: the file was changed: %v", name, err)
		}
	}
}

// TestNoDatabaseAtOnce starts several processes on a broken file: it is moved
// once, and all of them work on the same new ledger.
func TestNoDatabaseAtOnce(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ledger.db")
	if err := os.WriteFile(path, []byte("rubbish"), 0o600); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			s, err := openIn(t, Options{Path: path, NoBallast: true})
			if err != nil {
				t.Error(err)
				return
			}
			if err := s.Check(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	moved, err := filepath.Glob(path + ".broken-*")
	if err != nil || len(moved) != 1 {
		t.Errorf("moved aside: %v %v", moved, err)
	}
	if n := QueryInt(t, path, `SELECT count(*) FROM process`); n != 4 {
		t.Errorf("%d processes share the new ledger, want 4", n)
	}
}

func TestUnusablePlaces(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	nfs := func(string) (fileSystem, error) { return fileSystem{magic: 0x6969}, nil }
	for name, c := range map[string]struct {
		o    Options
		want domain.Code
	}{
		"no path":         {Options{}, domain.Config},
		"a folder":        {Options{Path: dir}, domain.Config},
		"network":         {Options{Path: filepath.Join(dir, "ledger.db"), fileSystem: nfs}, domain.Config},
		"below a file":    {Options{Path: filepath.Join(file, "ledger.db")}, domain.Config},
		"a dangling link": {Options{Path: danglingLink(t, dir)}, domain.Config},
	} {
		_, err := openIn(t, c.o)
		if !domain.IsCode(err, c.want) {
			t.Errorf("%s: code %q, want %q: %v", name, domain.CodeOf(err), c.want, err)
			continue
		}
		if m := domain.MessageOf(err); len(m) < 25 {
			t.Errorf("%s: says only %q", name, m)
		}
	}
}

func danglingLink(t *testing.T, dir string) string {
	t.Helper()
	link := filepath.Join(dir, "link.db")
	if err := os.Symlink(filepath.Join(dir, "nowhere", "ledger.db"), link); err != nil {
		t.Fatal(err)
	}
	return link
}

func TestReadOnlyFileSystem(t *testing.T) {
	dir := tmpfs(t, "4m")
	path := filepath.Join(dir, "ledger.db")
	mustOpen(t, Options{Path: path, NoBallast: true}).Close()
	if err := syscall.Mount("", dir, "", syscall.MS_REMOUNT|syscall.MS_RDONLY, ""); err != nil {
		t.Skipf("this system lets nobody remount: %v", err)
	}
	_, err := openIn(t, Options{Path: path, NoBallast: true})
	if !domain.IsCode(err, domain.Unavailable) || !strings.Contains(domain.MessageOf(err), "read-only") {
		t.Fatalf("opened on a read-only file system: %v", err)
	}
}

func TestNetworkFileSystems(t *testing.T) {
	for _, c := range []struct {
		fs   fileSystem
		want bool
	}{
		{fileSystem{magic: 0x6969}, true},
		{fileSystem{magic: 0xFF534D42}, true},
		{fileSystem{magic: -0xACB2BE}, true}, // CIFS where the field is signed and 32 bits wide
		{fileSystem{magic: fuseMagic, name: "fuse.sshfs"}, true},
		{fileSystem{magic: fuseMagic, name: "fuse.ntfs-3g"}, false},
		{fileSystem{magic: fuseMagic}, false},
		{fileSystem{magic: 0xEF53}, false},     // ext4
		{fileSystem{magic: 0x01021994}, false}, // tmpfs
		{fileSystem{magic: 0x794C7630}, false}, // overlay
	} {
		if got := c.fs.network() != ""; got != c.want {
			t.Errorf("%#x %s: network is %v", c.fs.magic, c.fs.name, got)
		}
	}
	if f, err := statFileSystem(t.TempDir()); err != nil || f.magic == 0 || f.freeBytes <= 0 {
		t.Errorf("this file system: %+v %v", f, err)
	}
	if kind := mountType("/proc/self"); kind != "proc" {
		t.Errorf("the mount type of /proc/self is %q", kind)
	}
}

func TestForbiddenFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ledger.db")
	if err := os.WriteFile(path, nil, 0o000); err != nil {
		t.Fatal(err)
	}
	asNobody(t, func() {
		if _, err := openIn(t, Options{Path: path, NoBallast: true}); !domain.IsCode(err, domain.Config) {
			t.Errorf("a file that may not be read: %v", err)
		}
	})
}

// asNobody calls f without root's right to read every file. The thread that
// gave it up, setfsuid(2), ends with f.
func asNobody(t *testing.T, f func()) {
	t.Helper()
	if os.Geteuid() != 0 {
		f()
		return
	}
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		err := syscall.Setfsuid(65534)
		if err == nil {
			f()
		}
		done <- err
	}()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

// TestErrorsOfTheFile gives what cannot be provoked here its code.
func TestErrorsOfTheFile(t *testing.T) {
	for want, errs := range map[domain.Code][]error{
		domain.Config:      {syscall.EACCES, syscall.EPERM, syscall.ENOTDIR, syscall.ENOENT, syscall.ELOOP},
		domain.Unavailable: {syscall.EROFS, syscall.EIO, syscall.EMFILE},
		domain.StorageFull: {syscall.ENOSPC, syscall.EDQUOT},
		domain.Internal:    {os.ErrInvalid},
		domain.Conflict:    {domain.E(domain.Conflict, nil, "said before")},
	} {
		for _, err := range errs {
			if _, known := err.(*domain.Error); !known {
				err = &os.PathError{Op: "open", Path: "/ledger.db", Err: err}
			}
			if got := domain.CodeOf(classifyFile(err, "/ledger.db")); got != want {
				t.Errorf("%v: code %q, want %q", err, got, want)
			}
		}
	}
}

// A disk with next to nothing left is told while the ledger still takes writes.
func TestNearlyFullIsTold(t *testing.T) {
	free := int64(scarce)
	s, err := Open(t.Context(), Options{Path: filepath.Join(t.TempDir(), "ledger.db"), NoBallast: true,
		fileSystem: func(string) (fileSystem, error) { return fileSystem{freeBytes: free}, nil }})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if err := s.Check(t.Context()); err != nil {
		t.Errorf("with %d bytes free: %v", free, err)
	}
	free--
	if err := s.Check(t.Context()); !domain.IsCode(err, domain.StorageFull) {
		t.Errorf("with %d bytes free: %v", free, err)
	}
}
