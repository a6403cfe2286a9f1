package cron

import (
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"hermes/internal/domain"
)

// Each ready watchdog is run for real: quiet, in trouble, still in trouble, well
// again.
func TestReadyWatchdogs(t *testing.T) {
	answers := httptest.NewServer(http.NotFoundHandler())
	defer answers.Close()
	well := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	defer well.Close()
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	gone := closed.Addr().String()
	closed.Close()
	dir := t.TempDir()
	run := func(w Watchdog, env ...string) scriptResult {
		t.Helper()
		path, err := (Scripts{Dir: dir}).Resolve(w.Script)
		if err != nil {
			t.Fatal(err)
		}
		return scriptRun{path: path, env: append([]string{"PATH=" + os.Getenv("PATH"), "LC_ALL=C.UTF-8"}, env...), timeout: 2 * time.Minute}.run(t.Context())
	}
	for _, c := range []struct{ name, trouble, says, well string }{
		{"disk", "DISK_LIMIT=0", "% full, ", "DISK_LIMIT=101"},
		{"memory", "MEMORY_LIMIT=101", " MiB of memory are available", "MEMORY_LIMIT=0"},
		{"http", "HTTP_URLS=" + well.URL + " " + answers.URL + "/nothing", "404", "HTTP_URLS=" + well.URL},
		{"port", "PORTS=" + gone, gone, "PORTS=" + well.Listener.Addr().String()},
	} {
		w, err := FindWatchdog(c.name)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(dir); err != nil {
			t.Fatal(err)
		}
		if r := run(w, c.well); r.err != nil || r.stdout != "" {
			t.Errorf("%s, all well: %q %q %v", c.name, r.stdout, r.stderr, r.err)
		}
		if r := run(w, c.trouble); r.err != nil || !strings.Contains(r.stdout, "⚠️") || !strings.Contains(r.stdout, c.says) {
			t.Errorf("%s, in trouble: %q %q %v", c.name, r.stdout, r.stderr, r.err)
		}
		if r := run(w, c.trouble); r.err != nil || r.stdout != "" {
			t.Errorf("%s repeats itself: %q %q %v", c.name, r.stdout, r.stderr, r.err)
		}
		if r := run(w, c.trouble, "REMIND=-1"); r.err != nil || !strings.Contains(r.stdout, c.says) {
			t.Errorf("%s does not remind: %q %q %v", c.name, r.stdout, r.stderr, r.err)
		}
		if r := run(w, c.well); r.err != nil || !strings.Contains(r.stdout, "✅") {
			t.Errorf("%s, well again: %q %q %v", c.name, r.stdout, r.stderr, r.err)
		}
	}
	beats := make(chan string, 1)
	watcher := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { beats <- r.URL.Path }))
	defer watcher.Close()
	w, err := FindWatchdog("heartbeat.sh")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(dir); err != nil {
		t.Fatal(err)
	}
	if r := run(w, "HERMES_HEARTBEAT_URL="+watcher.URL+"/beat"); r.err != nil || r.stdout != "" {
		t.Errorf("heartbeat: %q %q %v", r.stdout, r.stderr, r.err)
	} else if path := <-beats; path != "/beat" {
		t.Errorf("the watcher was asked for %s", path)
	}
	if r := run(w); r.err == nil || !strings.Contains(r.stderr, "HERMES_HEARTBEAT_URL is not set") {
		t.Errorf("a heartbeat to nobody: %q %v", r.stderr, r.err)
	}
}

func TestAnExampleNeverOverwrites(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "scripts")
	for _, w := range Watchdogs() {
		path, err := w.Write(dir)
		if err != nil {
			t.Fatal(err)
		}
		if again, err := w.Write(dir); err != nil || again != path {
			t.Errorf("%s: %v", w.Name, err)
		}
		if err := os.WriteFile(path, []byte("mine\n"), 0o700); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(dir); !domain.IsCode(err, domain.Conflict) {
			t.Errorf("%s: %v", w.Name, err)
		}
		if have, err := os.ReadFile(path); err != nil || string(have) != "mine\n" {
			t.Errorf("%s was overwritten: %q %v", w.Name, have, err)
		}
		text, err := w.Text()
		for _, name := range w.Set {
			if !strings.Contains(string(text), "\n"+name+"=") {
				t.Errorf("%s has no line that sets %s (%v)", w.Script, name, err)
			}
		}
	}
	if _, err := FindWatchdog("dsik"); !domain.IsCode(err, domain.Invalid) || !strings.Contains(err.Error(), "disk, memory") {
		t.Errorf("%v", err)
	}
}
