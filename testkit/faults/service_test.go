package faults

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"hermes/internal/doctor"
	"hermes/testkit/rig"

	_ "modernc.org/sqlite" // to lock the ledger as another program would
)

// serviceFaults are about processes, ports, disks and the ledger.
func serviceFaults() []fault {
	return []fault{
		{what: "another program holds the API's port", id: "service.port_taken", class: doctor.Service, shape: shape{unstarted: true}, shows: []string{"already in use", "faults.test (PID"},
			inject: func(w *world) { w.occupy(); w.start(); w.part("api", "down") }},
		{what: "another program holds the API's port, and the gateway down", id: "service.port_taken", class: doctor.Service, shape: shape{unstarted: true},
			inject: func(w *world) { w.occupy() }},
		{what: "the API is bound to the network without a key", id: "service.bind_without_key", class: doctor.Service, shows: []string{"Refusing to start: binding to 0.0.0.0 requires API_SERVER_KEY", "/.hermes/.env line"},
			inject: func(w *world) {
				w.edit(".env", "API_SERVER_KEY="+apiKey+"\n", "API_SERVER_HOST=0.0.0.0\n")
				w.restart()
			}},
		{what: "the API is bound to the network with a short key", id: "service.weak_key", class: doctor.Service,
			inject: func(w *world) {
				w.edit(".env", "API_SERVER_KEY="+apiKey+"\n", "API_SERVER_HOST=0.0.0.0\nAPI_SERVER_KEY=hunter2hunter\n")
				w.restart()
			}},
		{what: "the API is bound to the network with a placeholder as key", id: "service.weak_key", class: doctor.Service,
			inject: func(w *world) {
				w.edit(".env", "API_SERVER_KEY="+apiKey+"\n", "API_SERVER_HOST=0.0.0.0\nAPI_SERVER_KEY=<openssl-rand-hex-32-goes-here>\n")
				w.restart()
			}},
		{what: "the API's port is no number", id: "service.api_setting", class: doctor.Service,
			inject: func(w *world) {
				w.edit(".env", "API_SERVER_PORT="+strconv.Itoa(w.port), "API_SERVER_PORT=http")
				w.restart()
				w.fill["value"] = strconv.Itoa(w.port)
			}},
		{what: "a page calls the API, which is off", id: "service.api_off", class: doctor.Service, shape: shape{noAPI: true}, ask: []string{"--origin", "https://chat.example.org"}, fixes: 2,
			inject: func(w *world) { w.add(".env", "API_SERVER_PORT="+strconv.Itoa(w.port)+"\n") }},
		{what: "a page calls the API, which does not know its origin", id: "service.cors", class: doctor.Service, shows: []string{"https://chat.example.org", "answered with 403"}, ask: []string{"--origin", "https://chat.example.org"},
			inject: func(*world) {}},
		{what: "two profiles have one API port", id: "service.port_shared", class: doctor.Service, shape: shape{profile: "liam", noBot: true, unstarted: true},
			inject: func(w *world) {
				w.must(os.WriteFile(filepath.Join(w.home.Dir, ".env"), []byte("API_SERVER_ENABLED=true\nAPI_SERVER_PORT="+strconv.Itoa(w.port)+"\n"), 0o600))
			}},
		{what: "the gateway was stopped", id: "service.not_running", class: doctor.Service,
			inject: func(w *world) { w.stop() }},
		{what: "the gateway was killed, and nothing starts it", id: "service.crashed", class: doctor.Service,
			inject: func(w *world) { w.procs[0].Kill() }},
		{what: "the gateway is suspended", id: "service.suspended", class: doctor.Service,
			inject: func(w *world) { w.must(w.procs[0].Cmd.Process.Signal(syscall.SIGSTOP)) }},
		{what: "a child of a dead gateway holds the profile's lock", id: "service.stale_lock", class: doctor.Service, needs: "flock",
			inject: func(w *world) { w.procs[0].Kill(); w.lockedBy() }},
		{what: "the gateway died twice as it started Telegram", id: "service.quarantine", class: doctor.Service, shape: shape{unstarted: true},
			inject: func(w *world) {
				for range 2 {
					w.die("part.platform.telegram:1:fatal")
				}
				w.start()
				w.part("platform.telegram", "down")
			}},
		{what: "the ledger is no database", id: "service.ledger_not_database", class: doctor.Service,
			inject: func(w *world) {
				w.stop()
				w.write("ledger.db", "this is no database, and it is longer than a header would be: "+string(make([]byte, 100)))
			}},
		{what: "the ledger is torn", id: "service.ledger_damaged", class: doctor.Service,
			inject: func(w *world) { w.stop(); w.tear() }},
		{what: "a folder lies where the ledger should", id: "service.ledger_unreadable", class: doctor.Service,
			inject: func(w *world) {
				w.stop()
				w.must(os.Remove(w.path("ledger.db")))
				w.must(os.Mkdir(w.path("ledger.db"), 0o700))
			}},
		{what: "the program that the profile is pinned to was deleted", id: "service.pin", class: doctor.Service,
			inject: func(w *world) { w.write("binary.pin", "/opt/hermes/0.1/hermes\n") }},
		{what: "the API is bound to an address that this machine does not have", id: "service.api_down", class: doctor.Service,
			inject: func(w *world) {
				w.add(".env", "API_SERVER_HOST=192.0.2.7\n")
				w.restart()
				w.part("api", "down")
			}},
		{what: "another program keeps the ledger locked", id: "service.ledger_busy", class: doctor.Service,
			inject: func(w *world) { w.release = w.lockLedger() },
			hand:   func(w *world) { w.release() }},
		{what: "the ledger was written by a newer version", id: "service.ledger_newer", class: doctor.Service, shape: shape{versions: true, noBot: true},
			inject: func(w *world) {
				w.stop()
				w.sql("PRAGMA user_version = 9999; INSERT INTO meta (key, value) VALUES ('oldest_reader', '9999') ON CONFLICT (key) DO UPDATE SET value = excluded.value")
			},
			// The release that knows it: to it the ledger is as it was.
			hand: func(w *world) {
				w.sql(fmt.Sprintf("PRAGMA user_version = %d; DELETE FROM meta WHERE key = 'oldest_reader'", w.schema))
			}},
		{what: "the gateway was started and does not answer yet", id: "service.starting", class: doctor.Service, shape: shape{unstarted: true},
			inject: func(w *world) { w.hang("start.claimed") },
			hand:   func(w *world) { w.procs[0].Kill(); w.start() }}, // it has come up
		{what: "the gateway lives and answers nobody", id: "service.silent", class: doctor.Service, shape: shape{unstarted: true},
			inject: func(w *world) {
				w.hang("start.claimed")
				w.until("it to be older than a start may take", func() bool {
					r := w.doctor("--local")
					return len(r.Findings) > 0 && r.Findings[0].ID != "service.starting"
				})
			}},
		{what: "the gateway crashed by a defect, and runs again", id: "service.panicked", class: doctor.Service, shape: shape{unstarted: true}, shows: []string{"gateway-exit-diag.log"},
			inject: func(w *world) {
				w.die("start.serving:1:fatal")
				w.start()
			}},
		{what: "a file lies where the folder of background commands should", id: "service.part_tool.terminal", class: doctor.Service, shape: shape{unstarted: true},
			inject: func(w *world) {
				w.write("processes", "")
				w.start()
			}, hand: func(w *world) { w.must(os.Remove(w.path("processes"))) }},
		{what: "the gateway died twice by a configuration, and the one before serves", id: "profile.not_served", class: doctor.Scope,
			inject: func(w *world) {
				w.until("the configuration to have served", func() bool { return strings.Contains(w.hermes("config", "history", "--json"), "healthy_at") })
				w.stop()
				w.add("config.yaml", "agent:\n  max_turns: 33\n")
				for range 2 {
					w.die("start.built:1:exit")
				}
				w.start()
			}},
		{what: "the clock is wrong by hours", id: "service.clock", class: doctor.Service,
			inject: func(w *world) {
				w.edit("config.yaml", w.brain.URL(), w.elsewhen(3*time.Hour))
				w.hermes("gateway", "restart")
			}, hand: func(w *world) { w.ahead.Store(0) }},
		{what: "the clock was set back", id: "service.clock", class: doctor.Service,
			inject: func(w *world) {
				at := time.Now().Add(3 * time.Hour)
				w.must(os.Chtimes(w.path("config.yaml"), at, at))
			}},
	}
}

// lockLedger lets another program begin to write into the ledger and not end.
func (w *world) lockLedger() (release func()) {
	w.t.Helper()
	db, err := sql.Open("sqlite", "file:"+w.path("ledger.db")+"?_txlock=immediate&_pragma=busy_timeout(20000)")
	w.must(err)
	tx, err := db.BeginTx(w.deadline(), nil)
	w.must(err)
	release = sync.OnceFunc(func() { _ = tx.Rollback(); _ = db.Close() })
	w.t.Cleanup(release)
	return release
}

// sql runs a statement on the ledger, whose schema it notes before.
func (w *world) sql(statement string) {
	w.t.Helper()
	db, err := sql.Open("sqlite", "file:"+w.path("ledger.db")+"?_pragma=busy_timeout(20000)")
	w.must(err)
	if w.schema == 0 {
		w.must(db.QueryRow("PRAGMA user_version").Scan(&w.schema))
	}
	_, err = db.Exec(statement)
	w.must(errors.Join(err, db.Close()))
}

// hang starts a gateway that stands still at a mark.
func (w *world) hang(mark string) {
	w.t.Helper()
	w.doomedProcess(mark + ":1:hang")
	w.until("it to hold the profile", func() bool { return w.doctor("--local").Gateway == "silent" })
}

// doomed starts a gateway that fails at a mark, and waits until it serves.
func (w *world) doomed(mark string) { w.t.Helper(); w.must(w.doomedProcess(mark).Ready(w.deadline())) }

func (w *world) doomedProcess(mark string) *rig.Process {
	w.t.Helper()
	binary, err := doomed()
	w.must(err)
	h := *w.home
	h.Binary = binary
	p, err := h.StartArgs([]string{"HERMES_FAILPOINT=" + mark}, w.args("gateway", "run")...)
	w.must(err)
	w.keep(p)
	return p
}

// occupy lets another program listen on the API's port.
func (w *world) occupy() {
	l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(w.port)))
	w.must(err)
	srv := &http.Server{Handler: http.NotFoundHandler(), ReadHeaderTimeout: time.Second}
	done := make(chan struct{})
	go func() { defer close(done); _ = srv.Serve(l) }()
	w.t.Cleanup(func() { _ = srv.Close(); <-done })
}

// tear overwrites the middle of the ledger, as a failing disk does.
func (w *world) tear() {
	path := w.path("ledger.db")
	_ = os.Remove(path + "-wal")
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	w.must(err)
	st, err := f.Stat()
	w.must(err)
	junk := make([]byte, 4096)
	for i := range junk {
		junk[i] = byte(i*7 + 13)
	}
	for at := int64(4096); at < st.Size()-4096; at += 3 * 4096 {
		_, err = f.WriteAt(junk, at)
		w.must(err)
	}
	w.must(f.Close())
}

// lockedBy lets a program that is no gateway hold the profile's lock.
func (w *world) lockedBy() {
	cmd := exec.Command("flock", w.path("gateway.lock"), "sleep", "300")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	w.must(cmd.Start())
	gone := make(chan struct{})
	go func() { _ = cmd.Wait(); close(gone) }()
	w.t.Cleanup(func() { _ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL); <-gone })
	w.until("the lock to be held", func() bool { return w.doctor().Gateway == "silent" })
}

// doomed is the program with marks at which it can be told to die.
var doomed = sync.OnceValues(func() (string, error) {
	file, err := build()
	if err != nil {
		return "", err
	}
	return rig.Build(context.Background(), filepath.Dir(file), "failpoint")
})

// die starts a gateway that ends at a mark.
func (w *world) die(mark string) {
	w.t.Helper()
	p := w.doomedProcess(mark)
	select {
	case <-p.Done():
	case <-w.deadline().Done():
		p.Kill()
		w.t.Fatalf("it did not die:\n%s", p.Output())
	}
}

// elsewhen is the model's service as it looks from a machine whose clock is
// wrong: its Date is ahead.
func (w *world) elsewhen(by time.Duration) string {
	w.ahead.Store(int64(by))
	l, err := net.Listen("tcp", "127.0.0.1:0")
	w.must(err)
	srv := &http.Server{ReadHeaderTimeout: time.Second, Handler: http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {
		rw.Header().Set("Date", time.Now().Add(time.Duration(w.ahead.Load())).UTC().Format(http.TimeFormat))
		_, _ = rw.Write([]byte(`{"data":[{"id":"fake-1"}]}`))
	})}
	done := make(chan struct{})
	go func() { defer close(done); _ = srv.Serve(l) }()
	w.t.Cleanup(func() { _ = srv.Close(); <-done })
	return "http://" + l.Addr().String() + "/v1"
}
