package update_test

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"hermes/internal/domain"
	"hermes/internal/update"
	"hermes/internal/versions"
)

// onVolume installs on a file system of a size in MiB.
func onVolume(t *testing.T, mib int, offered ...string) *world {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("only root can mount a small file system to fill")
	}
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, fmt.Sprintf("mode=0755,size=%dm", mib)); err != nil {
		t.Skipf("this system lets nobody mount: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return newWorldIn(t, dir, offered...)
}

// fill takes all the space that is left.
func (w *world) fill() {
	f, err := os.OpenFile(w.filler(), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	w.must(err)
	defer f.Close()
	for block := make([]byte, 1<<20); len(block) > 0; {
		if _, err := f.Write(block); errors.Is(err, syscall.ENOSPC) {
			block = block[:len(block)/2]
		} else {
			w.must(err)
		}
	}
}

func (w *world) filler() string { return filepath.Join(w.user, "filler") }

func TestDiskThatIsTooSmallIsToldBeforeTheDownload(t *testing.T) {
	w := onVolume(t, 24, "1.1.0")
	asked := 0
	url := w.serve(func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			if strings.HasSuffix(r.URL.Path, ".tar.gz") {
				asked++
			}
			next.ServeHTTP(rw, r)
		})
	})
	if err := w.fetch(url); !domain.IsCode(err, domain.StorageFull) || !strings.Contains(err.Error(), "nothing was downloaded") || asked != 0 {
		t.Errorf("%v, asked %d times", err, asked)
	}
	w.unchanged()
}

func TestDiskThatFillsDuringAnUpdate(t *testing.T) {
	t.Run("while it is fetched", func(t *testing.T) {
		w := onVolume(t, 96, "1.1.0")
		full := true
		url := w.serve(func(next http.Handler) http.Handler {
			return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
				if full && strings.HasSuffix(r.URL.Path, ".tar.gz") {
					w.fill()
				}
				next.ServeHTTP(rw, r)
			})
		})
		if err := w.fetch(url); !domain.IsCode(err, domain.StorageFull) {
			t.Fatal(err)
		}
		full = false
		w.afterFull()
		w.unchanged()
		if err := w.fetch(url); err != nil || w.linked() != "1.1.0" {
			t.Error(err)
		}
	})
	t.Run("while profiles are handed over", func(t *testing.T) {
		w := onVolume(t, 96, "1.1.0")
		w.fleet.during = func(m update.Member) {
			if m.Name == "hermes-gateway-liam" {
				w.fill()
			}
		}
		if _, err := w.update(); !domain.IsCode(err, domain.StorageFull) {
			t.Fatal(err)
		}
		if w.linked() != "1.0.0" || w.fleet.versions()[2] != "1.0.0" {
			t.Errorf("linked %s, %v", w.linked(), w.fleet.versions())
		}
		w.fleet.during = nil
		w.afterFull()
		if _, err := w.update(); err != nil || w.linked() != "1.1.0" {
			t.Error(err)
		}
		same(t, "versions", w.fleet.versions(), []string{"1.1.0", "1.1.0", "1.1.0"})
	})
}

// afterFull makes room, and holds that the next command tells how the update
// ended whose last line found none.
func (w *world) afterFull() {
	w.t.Helper()
	w.must(os.Remove(w.filler()))
	update.Complete(w.user, time.Now())
	if got := w.last(); !strings.HasPrefix(got, "✗ ") {
		w.t.Errorf("the log ends with %q", got)
	}
	if left, _ := filepath.Glob(filepath.Join(versions.Dir(w.user), ".stage-*")); len(left) != 0 {
		w.t.Errorf("left behind: %v", left)
	}
}
