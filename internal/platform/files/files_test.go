package files_test

import (
	"bytes"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"hermes/internal/domain"
	"hermes/internal/platform"
	"hermes/internal/platform/files"
)

// What is sent is a plain file that exists, is not empty and is not too large.
// Nothing that could be in its place, such as a FIFO, is waited for.
func TestOnlyPlainFilesAreSent(t *testing.T) {
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	for name, text := range map[string]string{"plain": "12345", "empty": "", "large": "123456"} {
		if err := os.WriteFile(at(name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	socket, err := net.Listen("unix", at("socket"))
	if err != nil {
		t.Fatal(err)
	}
	defer socket.Close()
	if err := errors.Join(syscall.Mkfifo(at("fifo"), 0o600), os.Mkdir(at("folder"), 0o700), os.Symlink("loop", at("loop")), os.Symlink("plain", at("link"))); err != nil {
		t.Fatal(err)
	}
	s := files.Service{Code: "pigeon_file", Name: "a pigeon", Most: 5, TooLarge: "pigeons carry (5 bytes)"}
	for path, says := range map[string]string{
		at("plain"): "", at("link"): "",
		at("missing"): "the file f is not there any more",
		at("empty"):   "the file f is empty, and a pigeon takes no empty files",
		at("large"):   "the file f is larger than pigeons carry (5 bytes)",
		at("fifo"):    "f is no file that could be sent",
		at("socket"):  "f is no file that could be sent",
		at("folder"):  "f is no file that could be sent",
		at("loop"):    "the file f cannot be read",
		"/dev/zero":   "f is no file that could be sent",
		"":            "the file f is not on this machine",
	} {
		f, size, e := s.Open(&domain.Attachment{Path: path}, "f")
		switch {
		case says == "":
			if e != nil || size != 5 {
				t.Errorf("%s: %d bytes, %v", path, size, e)
				continue
			}
			f.Close()
		case e == nil || e.Kind != platform.GiveUp || e.Code != "pigeon_file" || e.Reason != says:
			t.Errorf("%s: %+v, want %q", path, e, says)
		}
	}
	s.Name = ""
	f, size, e := s.Open(&domain.Attachment{Path: at("empty")}, "f")
	if e != nil || size != 0 {
		t.Fatalf("%d bytes, %v", size, e)
	}
	f.Close()
}

func TestACopyIsBounded(t *testing.T) {
	for text, want := range map[string]error{"": nil, "12345": nil, "123456": files.ErrTooLarge} {
		var b bytes.Buffer
		n, err := files.Copy(&b, strings.NewReader(text), 5)
		if !errors.Is(err, want) || n != int64(b.Len()) || n > 5 || err == nil && b.String() != text {
			t.Errorf("%q: %d bytes, %v", text, n, err)
		}
	}
}
