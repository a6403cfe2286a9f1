package conversation

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"hermes/internal/home"
	"hermes/testkit/llm"
	fake "hermes/testkit/telegram"
)

// TestFilesStayInTheirFolder sends files whose names lead elsewhere, and an
// archive: each is kept byte for byte, under a name that is ours.
func TestFilesStayInTheirFolder(t *testing.T) {
	w := setUp(t, func(llm.Request) llm.Reply { return llm.Reply{Text: "seen"} }, nil)
	ann := w.tg.AddUser("ann")
	archive := "PK\x03\x04" + strings.Repeat("\x00", 200)
	for _, name := range []string{"../../../../escape.sh", "/etc/cron.d/x", `..\..\x.exe`, "~/.ssh/authorized_keys", "photo\u202egpj.exe", "CON", strings.Repeat("a", 300) + ".pdf", "bomb.zip", "$(id).sh;rm -rf"} {
		w.tg.Post(fake.Post{From: ann, Text: "look", File: &fake.Upload{Kind: "document", Name: name, Data: []byte(archive)}})
		if _, err := w.tg.Next(t.Context(), ann.ID); err != nil {
			t.Fatal(err)
		}
	}
	kept := 0
	documents := filepath.Join(w.Profile.CacheDir(), "documents")
	err := filepath.WalkDir(w.Profile.Home, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		text, err := os.ReadFile(path)
		if err != nil || string(text) != archive {
			return err
		}
		kept++
		if filepath.Dir(path) != documents || strings.Trim(strings.TrimSuffix(e.Name(), filepath.Ext(path)), "0123456789-") != "" {
			t.Errorf("a file was kept at %s", path)
		}
		return nil
	})
	if err != nil || kept != 9 {
		t.Errorf("%d files are kept, want 9; %v", kept, err)
	}
}

// TestTheCacheIsBounded fills the folder of a kind by count and by size: the
// latest stay.
func TestTheCacheIsBounded(t *testing.T) {
	w := setUp(t, func(llm.Request) llm.Reply { return llm.Reply{} }, nil)
	for _, tt := range []struct {
		name  string
		files int
		size  int64
		age   time.Duration // between one and the next
		stay  int
	}{
		{"many", maxCached + 3, 1, time.Second, maxCached - 1},
		{"large", 20, maxFile, time.Second, maxCacheSize/maxFile - 1},
		{"old", 3, 1, mediaKept - time.Hour, 2},
		{"few", 3, 1, time.Second, 3},
	} {
		dir := t.TempDir()
		var want []string
		for i := range tt.files {
			path := filepath.Join(dir, fmt.Sprintf("%03d.bin", i))
			at := w.Now().Add(-time.Duration(i) * tt.age)
			if err := os.WriteFile(path, nil, 0o600); err != nil {
				t.Fatal(err)
			}
			if err := os.Truncate(path, tt.size); err != nil {
				t.Fatal(err)
			}
			if err := os.Chtimes(path, at, at); err != nil {
				t.Fatal(err)
			}
			if i < tt.stay {
				want = append(want, filepath.Base(path))
			}
		}
		w.pruneCache(dir)
		var got []string
		entries, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			got = append(got, e.Name())
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s: %d stay, want %d: %q", tt.name, len(got), len(want), got)
		}
	}
}

// TestMenuHasEveryName lists what can be typed: the commands in their menus, and
// beside them their other names and the operator's own.
func TestMenuHasEveryName(t *testing.T) {
	w := setUp(t, func(llm.Request) llm.Reply { return llm.Reply{} }, func(c *home.Config) {
		c.QuickCommands = map[string]home.QuickCommand{"gs": {Type: "alias", Target: "/status"}}
	})
	listed := map[string]bool{}
	for _, c := range w.Menu() {
		if _, twice := listed[c.Name]; twice {
			t.Errorf("%s stands there twice", c.Name)
		}
		listed[c.Name] = !c.Unlisted
	}
	for name, want := range map[string]bool{"new": true, "status": true, "reset": false, "q": false, "bg": false, "set-home": false, "answer": false, "gs": false} {
		if got, there := listed[name]; !there || got != want {
			t.Errorf("%s: there %v, in menus %v, want %v", name, there, got, want)
		}
	}
}
