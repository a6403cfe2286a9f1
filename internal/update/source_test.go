package update_test

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"hermes/internal/domain"
	"hermes/internal/update"
	"hermes/internal/versions"
	"hermes/testkit/releases"
)

// fetch updates from an address.
func (w *world) fetch(from string) error {
	w.t.Helper()
	_, err := w.updater().Update(context.Background(), update.Request{Source: w.source(from), Channel: "stable"})
	return err
}

// cutAt lets the first answers to an archive end after n bytes.
func cutAt(n int, times int32) func(http.Handler) http.Handler {
	var cut atomic.Int32
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			if !strings.HasSuffix(r.URL.Path, ".tar.gz") || cut.Add(1) > times {
				next.ServeHTTP(rw, r)
				return
			}
			rec := httptest.NewRecorder()
			next.ServeHTTP(rec, r)
			for k, v := range rec.Header() {
				rw.Header()[k] = v
			}
			rw.WriteHeader(rec.Code)
			_, _ = rw.Write(rec.Body.Bytes()[:min(n, rec.Body.Len())])
			panic(http.ErrAbortHandler)
		})
	}
}

func TestFetchGoesOnWhereItWasCut(t *testing.T) {
	w := newWorld(t, "1.1.0")
	asked := 0
	var ranges []string
	url := w.serve(func(next http.Handler) http.Handler {
		next = cutAt(100_000, 3)(next)
		return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			if strings.HasSuffix(r.URL.Path, ".tar.gz") {
				asked++
				ranges = append(ranges, r.Header.Get("Range"))
			}
			next.ServeHTTP(rw, r)
		})
	})
	if err := w.fetch(url); err != nil {
		t.Fatal(err)
	}
	if asked != 4 || ranges[0] != "" || ranges[1] == "" || w.linked() != "1.1.0" {
		t.Errorf("asked %d times, ranges %q", asked, ranges)
	}
}

func TestFetchThatIsAlwaysCutIsContinuedByTheNextUpdate(t *testing.T) {
	w := newWorld(t, "1.1.0")
	url := w.serve(cutAt(50_000, 6))
	if err := w.fetch(url); !domain.IsCode(err, domain.Unavailable) {
		t.Fatal(err)
	}
	w.unchanged()
	if err := w.fetch(url); err != nil || w.linked() != "1.1.0" {
		t.Error(err)
	}
	if parts, _ := filepath.Glob(filepath.Join(versions.Dir(w.user), ".fetch-*")); len(parts) != 0 {
		t.Errorf("left behind: %v", parts)
	}
}

func TestServersThatMisbehave(t *testing.T) {
	elsewhere := httptest.NewServer(http.NotFoundHandler())
	t.Cleanup(elsewhere.Close)
	only := func(suffix string, do func(rw http.ResponseWriter, r *http.Request, next http.Handler)) func(http.Handler) http.Handler {
		return func(next http.Handler) http.Handler {
			return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
				if strings.HasSuffix(r.URL.Path, suffix) {
					do(rw, r, next)
					return
				}
				next.ServeHTTP(rw, r)
			})
		}
	}
	for name, c := range map[string]struct {
		change func(http.Handler) http.Handler
		code   domain.Code
		want   string
	}{
		"redirect to elsewhere": {only(".tar.gz", func(rw http.ResponseWriter, r *http.Request, _ http.Handler) {
			http.Redirect(rw, r, elsewhere.URL+r.URL.Path, http.StatusFound)
		}), domain.Forbidden, "which is not followed"},
		"redirect to a file": {only("index.json", func(rw http.ResponseWriter, r *http.Request, _ http.Handler) {
			http.Redirect(rw, r, "file:///etc/passwd", http.StatusFound)
		}), domain.Forbidden, "which is not followed"},
		"redirects in circles": {only("index.json", func(rw http.ResponseWriter, r *http.Request, _ http.Handler) {
			http.Redirect(rw, r, r.URL.Path, http.StatusFound)
		}), domain.Unavailable, "in circles"},
		"another content of the same length": {only(".tar.gz", func(rw http.ResponseWriter, r *http.Request, next http.Handler) {
			rec := httptest.NewRecorder()
			next.ServeHTTP(rec, r)
			text := rec.Body.Bytes()
			text[len(text)/2] ^= 1
			_, _ = rw.Write(text)
		}), domain.Invalid, "is not what the index says"},
		"more than was announced": {only(".tar.gz", func(rw http.ResponseWriter, r *http.Request, next http.Handler) {
			rec := httptest.NewRecorder()
			next.ServeHTTP(rec, r)
			rw.Header().Set("Transfer-Encoding", "chunked")
			_, _ = rw.Write(append(rec.Body.Bytes(), make([]byte, 1<<20)...))
		}), domain.Invalid, "that it may have"},
		"an endless index": {only("index.json", func(rw http.ResponseWriter, _ *http.Request, _ http.Handler) {
			for range 64 {
				_, _ = rw.Write(make([]byte, 64<<10))
			}
		}), domain.Invalid, "has more than"},
		"an answer that stalls": {only("index.json", func(rw http.ResponseWriter, r *http.Request, _ http.Handler) {
			rw.WriteHeader(http.StatusOK)
			_ = http.NewResponseController(rw).Flush()
			<-r.Context().Done()
		}), domain.Unavailable, "was cut off"},
		"always down": {only("index.json", func(rw http.ResponseWriter, _ *http.Request, _ http.Handler) {
			http.Error(rw, "later", http.StatusBadGateway)
		}), domain.Unavailable, "502"},
		"nothing there": {only("index.json", func(rw http.ResponseWriter, r *http.Request, _ http.Handler) {
			http.NotFound(rw, r)
		}), domain.NotFound, "there is no"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, "1.1.0")
			if err := w.fetch(w.serve(c.change)); !domain.IsCode(err, c.code) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v", err)
			}
			w.unchanged()
		})
	}
}

func TestWhatIsFetchedMustBeSigned(t *testing.T) {
	for name, spoil := range map[string]func(w *world){
		"the archive's signature is of another key": func(w *world) {
			other, err := releases.New(t.TempDir())
			w.must(err)
			name := filepath.Base(w.archive("1.1.0"))
			text, err := os.ReadFile(w.archive("1.1.0"))
			w.must(err)
			w.must(os.WriteFile(w.archive("1.1.0")+update.SignatureSuffix, other.Sign(name, text), 0o600))
		},
		"the index's signature is another file's": func(w *world) {
			text, err := os.ReadFile(filepath.Join(w.folder.Dir, update.IndexName))
			w.must(err)
			w.must(os.WriteFile(filepath.Join(w.folder.Dir, update.IndexName+update.SignatureSuffix), w.folder.Sign("other", text), 0o600))
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, "1.1.0")
			spoil(w)
			if err := w.fetch(w.serve(nil)); !domain.IsCode(err, domain.Unauthenticated) {
				t.Error(err)
			}
			w.unchanged()
		})
	}
}

// archive is the file of a version in the folder.
func (w *world) archive(version string) string {
	return filepath.Join(w.folder.Dir, w.folder.Index.Releases[0].Archives[update.Platform()].File)
}

func TestOneArchiveByFileOrAddress(t *testing.T) {
	for _, remote := range []bool{false, true} {
		w := newWorld(t, "1.1.0")
		from := w.archive("1.1.0")
		if remote {
			from = w.serve(cutAt(100_000, 2)) + "/" + filepath.Base(from)
		}
		if err := w.fetch(from); err != nil || w.linked() != "1.1.0" {
			t.Errorf("remote %v: %v", remote, err)
		}
	}
	w := newWorld(t, "1.1.0")
	renamed := filepath.Join(w.folder.Dir, "hermes.tar.gz")
	w.must(os.Link(w.archive("1.1.0"), renamed))
	if err := w.fetch(renamed); !domain.IsCode(err, domain.Invalid) || !strings.Contains(err.Error(), "is not named as the archive of a release is") {
		t.Error(err)
	}
	foreign := filepath.Join(w.folder.Dir, update.ArchiveName("1.1.0", "linux", "s390x"))
	w.must(os.Link(w.archive("1.1.0"), foreign))
	if err := w.fetch(foreign); !domain.IsCode(err, domain.Invalid) || !strings.Contains(err.Error(), "was made for linux/s390x") {
		t.Error(err)
	}
	older := filepath.Join(w.folder.Dir, strings.Replace(filepath.Base(w.archive("1.1.0")), "1.1.0", "9.9.9", 1))
	w.must(os.Link(w.archive("1.1.0"), older))
	w.must(os.Link(w.archive("1.1.0")+update.SignatureSuffix, older+update.SignatureSuffix))
	if err := w.fetch(older); !domain.IsCode(err, domain.Unauthenticated) || !strings.Contains(err.Error(), "made for another file") {
		t.Error(err)
	}
}

// What a signed archive may not do either: a maker's slip must not write outside.
func TestArchivesStayInTheirFolder(t *testing.T) {
	for name, entries := range map[string][]releases.Entry{
		"a name that leads up":      {{Name: "../../escaped", Text: []byte("x")}},
		"an absolute name":          {{Name: "/tmp/hermes-escaped", Text: []byte("x")}},
		"a symbolic link":           {{Name: "hermes", Type: tar.TypeSymlink, Link: "/bin/true"}},
		"a hard link":               {{Name: "hermes", Type: tar.TypeLink, Link: "/bin/true"}},
		"a device":                  {{Name: "hermes", Type: tar.TypeChar}},
		"no program":                {{Name: "LICENSE", Text: []byte("x")}},
		"the program as a folder":   {{Name: "hermes/", Type: tar.TypeDir}},
		"the same name twice":       {{Name: "a", Text: []byte("x")}, {Name: "a", Text: []byte("y")}},
		"more files than a release": manyEntries(),
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			_, err := w.folder.AddArchive("stable", "1.1.0", entries...)
			w.must(err)
			if err := w.fetch(w.folder.Dir); err == nil {
				t.Error("it was taken")
			}
			w.unchanged()
			if left, _ := filepath.Glob(filepath.Join(w.user, ".local/share/hermes/*escaped*")); len(left) != 0 {
				t.Errorf("it wrote %v", left)
			}
		})
	}
	t.Run("no archive at all", func(t *testing.T) {
		w := newWorld(t, "1.1.0")
		w.must(w.folder.Write(filepath.Base(w.archive("1.1.0")), bytes.Repeat([]byte("x"), 100)))
		if err := w.fetch(w.archive("1.1.0")); !domain.IsCode(err, domain.Invalid) {
			t.Error(err)
		}
		w.unchanged()
	})
}

func manyEntries() (out []releases.Entry) {
	for i := range 2100 {
		out = append(out, releases.Entry{Name: fmt.Sprintf("f%d", i)})
	}
	return out
}

func TestWhereReleasesAre(t *testing.T) {
	w := newWorld(t)
	keys, err := update.ParseKeys(w.folder.PublicKey)
	w.must(err)
	for from, want := range map[string]domain.Code{"": domain.Config, "ftp://example.org": domain.Invalid, "https://": domain.Invalid} {
		if _, err := update.NewSource(from, keys); !domain.IsCode(err, want) {
			t.Errorf("%q: %v", from, err)
		}
	}
	if _, err := update.NewSource("https://example.org", nil); !domain.IsCode(err, domain.Config) || !strings.Contains(err.Error(), "update.public_key") {
		t.Error(err)
	}
	s, err := update.NewSource("https://user:secret@example.org/r/index.json?token=secret", keys)
	if err != nil || strings.Contains(s.Shown(), "secret") {
		t.Errorf("%v, %v", s.Shown(), err)
	}
}

func TestChoose(t *testing.T) {
	in := update.Index{}.With("stable", update.Release{Version: "1.0.0"}).With("beta", update.Release{Version: "1.1.0-beta.1"})
	for _, c := range []struct{ version, channel, want string }{
		{"", "stable", "1.0.0"}, {"", "beta", "1.1.0-beta.1"}, {"v1.0.0", "beta", "1.0.0"},
	} {
		if r, err := in.Choose(c.version, c.channel); err != nil || r.Version != c.want {
			t.Errorf("%+v: %q, %v", c, r.Version, err)
		}
	}
	if r, err := in.With("stable", update.Release{Version: "1.1.0"}).Choose("", "beta"); err != nil || r.Version != "1.1.0" {
		t.Errorf("who tries betas stays behind: %q, %v", r.Version, err)
	}
	if _, err := in.Choose("9.9.9", "stable"); !domain.IsCode(err, domain.NotFound) || !strings.Contains(err.Error(), "the newest are 1.1.0-beta.1, 1.0.0") {
		t.Error(err)
	}
	if _, err := in.Choose("", "nightly"); !domain.IsCode(err, domain.NotFound) {
		t.Error(err)
	}
}
