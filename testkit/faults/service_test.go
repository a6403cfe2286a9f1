package faults

import (
	"context"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"time"

	"hermes/internal/doctor"
	"hermes/testkit/rig"
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
	binary, err := doomed()
	w.must(err)
	h := *w.home
	h.Binary = binary
	p, err := h.StartArgs([]string{"HERMES_FAILPOINT=" + mark}, w.args("gateway", "run")...)
	w.must(err)
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
