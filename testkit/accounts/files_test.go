package accounts

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
	"unicode"
	"unicode/utf8"

	"hermes/internal/domain"
	"hermes/internal/platform"
	"hermes/testkit/adapter"
)

// senders are the platforms on which people can send files.
func senders() []string {
	return slices.DeleteFunc(Names(), func(name string) bool { return name == "webhook" })
}

// listening is an adapter that receives into an inbox.
type listening struct {
	platform.Adapter
	platform.Fetcher
	account *Account
	chat    Chat
	in      *adapter.Inbox
}

// listen connects an account in a bubble, which ends with f.
func listen(t *testing.T, name string, f func(t *testing.T, l listening)) {
	synctest.Test(t, func(t *testing.T) {
		a, err := New(name)
		if err != nil {
			t.Fatal(err)
		}
		defer a.Close()
		one, err := a.Connect(slog.New(slog.NewTextHandler(t.Output(), nil)), nil)
		if err != nil {
			t.Fatal(err)
		}
		l := listening{one, one.(platform.Fetcher), a, a.Chat(), adapter.NewInbox()}
		stop := adapter.Run(t, t.Context(), one, l.in)
		defer stop() //nolint:errcheck // it was told to end
		time.Sleep(settling)
		f(t, l)
	})
}

// receive has somebody send files, and gives what came of them.
func (l listening) receive(t *testing.T, text string, files ...File) (out []domain.Attachment) {
	t.Helper()
	before := len(l.in.Events())
	l.chat.Say(text, files...)
	time.Sleep(time.Minute)
	for _, e := range l.in.Events()[before:] {
		out = append(out, e.Attachments...)
	}
	return out
}

// TestNamesOfFilesLeadNowhere sends files under names that lead elsewhere, show
// something else than they are, or are no names: what comes of them is a name
// without folders, that can be read, of at most 200 bytes.
func TestNamesOfFilesLeadNowhere(t *testing.T) {
	names := []string{"../../etc/passwd", `..\..\win.ini`, "/etc/shadow", "a\x00b.txt", "a\nb\tc.txt", strings.Repeat("ü", 300) + ".pdf", "photo\u202egpj.exe",
		"zero\u200bwidth.txt", "CON", ".", "..", "~/.ssh/id", "$(id).sh", "-rf", "\u200f.txt", "\u0085.txt", "a\xffb.txt"}
	for _, name := range senders() {
		t.Run(name, func(t *testing.T) {
			listen(t, name, func(t *testing.T, l listening) {
				for _, bad := range names {
					got := l.receive(t, "look", File{Name: bad, MIME: "application/octet-stream", Data: []byte("data")})
					if len(got) != 1 {
						t.Errorf("%.40q: %d files came", bad, len(got))
						continue
					}
					if s := got[0].Name; s == "" || s == "." || s == ".." || len(s) > 200 || !utf8.ValidString(s) || strings.ContainsAny(s, `/\`) || strings.ContainsFunc(s, func(r rune) bool {
						return unicode.IsControl(r) || unicode.Is(unicode.Cf, r)
					}) {
						t.Errorf("%.40q came as %q", bad, s)
					}
					if got[0].Path != "" {
						t.Errorf("%.40q stands for the file %q of this machine", bad, got[0].Path)
					}
				}
			})
		})
	}
}

// TestManyFilesAreCounted sends a message with more files than anybody sends:
// what comes of it is bounded, and the message is heard.
func TestManyFilesAreCounted(t *testing.T) {
	const most = 100
	for _, name := range senders() {
		if name == "matrix" { // a message is one file there
			continue
		}
		t.Run(name, func(t *testing.T) {
			listen(t, name, func(t *testing.T, l listening) {
				files := make([]File, 300)
				for i := range files {
					files[i] = File{Name: fmt.Sprintf("%d.bin", i), MIME: "application/octet-stream", Data: []byte("data")}
				}
				got := l.receive(t, "look", files...)
				if len(got) == 0 || len(got) > most {
					t.Errorf("%d files came of %d", len(got), len(files))
				}
			})
		})
	}
}

// fetchTime is the most that the conversation waits for a file.
const fetchTime = 2 * time.Minute

// TestFilesAreFetchedWithinBounds fetches files that are not what they are said
// to be: too large, of a lying type, packed, without an end, hardly moving, or
// moved elsewhere. At most the allowed bytes are written, in time, as they are.
func TestFilesAreFetchedWithinBounds(t *testing.T) {
	for _, name := range senders() {
		t.Run(name, func(t *testing.T) {
			listen(t, name, func(t *testing.T, l listening) {
				bomb := append([]byte("\x1f\x8b\x08\x00\x00\x00\x00\x00"), bytes.Repeat([]byte{0}, 1000)...)
				page := []byte("<html><script>alert(1)</script>")
				got := slices.Concat(l.receive(t, "bomb", File{"bomb.gz", "application/gzip", bomb}), l.receive(t, "lie", File{"lie.png", "image/png", page}))
				if len(got) != 2 {
					t.Fatalf("%d files came", len(got))
				}
				for i, want := range [][]byte{bomb, page} {
					if b, err := l.fetch(got[i], 1<<20); err != nil || !bytes.Equal(b, want) {
						t.Errorf("%s: fetched %d bytes of %d: %v", got[i].Name, len(b), len(want), err)
					}
				}
				lying := got[0]
				lying.Size = 1
				if b, err := l.fetch(lying, 10); err == nil || platform.AsError(err).Kind != platform.GiveUp || len(b) > 11 {
					t.Errorf("a file that is larger than it says: %d bytes were written, %v", len(b), err)
				}
				if name != "email" { // whose parts have the length that the server counted
					l.badBodies(t, got[0])
				}
				if l.account.Network().Abroad() != 0 {
					t.Error("another host was asked for")
				}
			})
		})
	}
}

func (l listening) fetch(at domain.Attachment, most int64) ([]byte, error) {
	ctx, cancel := context.WithTimeout(context.Background(), fetchTime)
	defer cancel()
	var b bytes.Buffer
	_, err := l.Fetch(ctx, at, most, &b)
	return b.Bytes(), err
}

// badBodies lets the answer with the file have no end, hardly move, be packed on
// its way, or point to another host.
func (l listening) badBodies(t *testing.T, at domain.Attachment) {
	file := func(change func(*http.Response)) func(*http.Response) {
		return func(r *http.Response) {
			if isFile(r) {
				change(r)
			}
		}
	}
	const most = 1 << 20
	l.account.Bend(file(func(r *http.Response) {
		r.Body, r.ContentLength = struct {
			io.Reader
			io.Closer
		}{zeros{}, r.Body}, -1
	}))
	if b, err := l.fetch(at, most); err == nil || platform.AsError(err).Kind != platform.GiveUp || len(b) > most+1 {
		t.Errorf("a file without an end: %d bytes, %v", len(b), err)
	}
	l.account.Bend(file(func(r *http.Response) {
		r.Body, r.ContentLength = struct {
			io.Reader
			io.Closer
		}{slow{r.Request.Context()}, r.Body}, -1
	}))
	began := time.Now()
	if _, err := l.fetch(at, most); err == nil || time.Since(began) > fetchTime+time.Second {
		t.Errorf("a file that hardly moves: %v after %s", err, time.Since(began))
	}
	for _, to := range []string{"http://169.254.169.254/latest/meta-data/", "http://127.0.0.1:1/", "http://[::1]:1/", "http://10.0.0.1/", "http://[::ffff:127.0.0.1]:1/"} {
		l.account.Bend(file(func(r *http.Response) {
			r.StatusCode, r.Status = http.StatusFound, "302 Found"
			r.Header.Set("Location", to)
		}))
		if _, err := l.fetch(at, most); err == nil {
			t.Errorf("a file that is said to lie at %s was fetched", to)
		}
	}
	l.account.Bend(nil)
}

// isFile tells the answer with a file from those of the API.
func isFile(r *http.Response) bool {
	p := r.Request.URL.Path
	return r.Request.Method == http.MethodGet && slices.ContainsFunc([]string{"/file/bot", "/attachments/", "/files-pri/", "/api/v4/files/", "/media/download/", "/media/v3/download/"}, func(s string) bool { return strings.Contains(p, s) })
}

// zeros never end.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

// slow gives a byte every ten seconds.
type slow struct{ ctx context.Context }

func (s slow) Read(p []byte) (int, error) {
	select {
	case <-time.After(10 * time.Second):
		p[0] = 0
		return 1, nil
	case <-s.ctx.Done():
		return 0, s.ctx.Err()
	}
}

// TestFilesThatCannotGo sends what is no file, what is not there and what is larger
// than the platform takes: each is given up at once, with a reason for people, and
// shown to nobody.
func TestFilesThatCannotGo(t *testing.T) {
	for _, name := range senders() {
		t.Run(name, func(t *testing.T) {
			listen(t, name, func(t *testing.T, l listening) {
				dir := t.TempDir()
				at := func(name string) string { return filepath.Join(dir, name) }
				large := l.Capabilities().MaxUpload + 1
				if err := errors.Join(syscall.Mkfifo(at("pipe"), 0o600), os.Mkdir(at("folder"), 0o700), os.WriteFile(at("empty"), nil, 0o600),
					os.WriteFile(at("large.bin"), nil, 0o600), os.Truncate(at("large.bin"), large), os.Symlink(at("pipe"), at("link"))); err != nil {
					t.Fatal(err)
				}
				bad := []string{at("pipe"), at("link"), at("folder"), at("missing"), at("large.bin"), "/dev/zero", ""}
				if name != "email" { // a mail may have an empty file
					bad = append(bad, at("empty"))
				}
				for _, bad := range bad {
					ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
					_, err := l.Send(ctx, l.chat.To, domain.Part{Attachments: []domain.Attachment{{Path: bad, Name: "report.bin"}}}, "nonce-of-"+filepath.Base(bad))
					cancel()
					if e := platform.AsError(err); err == nil || e.Kind != platform.GiveUp || !strings.Contains(e.Reason, " ") {
						t.Errorf("%q: %v", bad, err)
					}
				}
				if shown := l.chat.Shown(); len(shown) > 0 {
					t.Errorf("the chat shows %q", shown)
				}
			})
		})
	}
}
