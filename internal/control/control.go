package control

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"hermes/internal/domain"
	"hermes/internal/home"
)

// maxSocketPath is what fits into sockaddr_un; see unix(7).
const maxSocketPath = 107

// SocketPath is where a profile's control socket lies. A path that is too long
// for a socket goes to XDG_RUNTIME_DIR, or what stands for it (else /tmp), named
// by a hash of the home.
func SocketPath(p home.Profile, getenv func(string) string) string {
	path := p.SocketFile()
	if len(path) <= maxSocketPath {
		return path
	}
	sum := sha256.Sum256([]byte(p.Home))
	name := hex.EncodeToString(sum[:8]) + ".sock"
	// A service, a shell after su and a cron job must mean the same place, so the
	// folder that logind makes for this user counts without the variable too.
	for _, dir := range []string{getenv("XDG_RUNTIME_DIR"), fmt.Sprintf("/run/user/%d", os.Getuid())} {
		if ownFolder(dir) {
			return filepath.Join(dir, "hermes", name)
		}
	}
	return filepath.Join(os.TempDir(), "hermes", name)
}

// ownFolder tells whether a folder is there and this user's own.
func ownFolder(dir string) bool {
	info, err := os.Stat(dir)
	if dir == "" || err != nil || !info.IsDir() {
		return false
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	return ok && int(st.Uid) == os.Getuid()
}

// Gateway is what a control server asks of the gateway.
type Gateway interface {
	Status(ctx context.Context) Status
	// Poke tells that another process wrote to the ledger.
	Poke()
	// Shutdown begins a clean stop; reason goes to the log.
	Shutdown(reason string)
	// Refuses says why a process may not stop or replace the gateway, nil when
	// it may. pid is 0 where the system does not tell.
	Refuses(pid int) error
	// Restart puts another process, or another program, in the gateway's place.
	// It returns when that one serves, or, in place, when it is about to.
	Restart(ctx context.Context, r RestartRequest) (Restarted, error)
	// Replace hands over to a stranger on the other end of the connection.
	Replace(conn *net.UnixConn, pid int)
	// PokeLane looks at a session whose turn runs in this process; false when
	// none does.
	PokeLane(key string) bool
}

// RestartRequest asks for a restart.
type RestartRequest struct {
	Reason  string `json:"reason"`
	Program string `json:"program,omitempty"` // absolute path; "" is the one that began this process
}

// Restarted tells how a restart went.
type Restarted struct {
	Mode    string `json:"mode"` // overlap or exec
	PID     int    `json:"pid"`  // of the process that serves, or will
	OldPID  int    `json:"old_pid"`
	Version string `json:"version,omitempty"` // of the new program, where it is known already
}

// Server serves the control socket.
type Server struct {
	srv    *http.Server
	serves sync.WaitGroup
	path   string // where everybody finds the gateway

	mu    sync.Mutex
	ln    *net.UnixListener
	own   string // a name of this very socket; see Aside
	stays bool   // the file belongs to somebody else now
}

// Listen binds the socket, 0600. The caller must hold the profile's instance
// lock: a socket file that is there is one of a dead process and is replaced.
func Listen(path string, g Gateway) (*Server, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, domain.E(domain.Unavailable, err, "the folder of the control socket cannot be made")
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, domain.E(domain.Unavailable, err, "the old control socket %s cannot be removed", path)
	}
	s, err := bind(path, g)
	if err != nil {
		return nil, err
	}
	s.path = path
	return s, nil
}

// bind listens at a path that is free.
func bind(path string, g Gateway) (*Server, error) {
	ln, err := listen(path)
	if err != nil {
		return nil, err
	}
	return serverOn(ln, path, g), nil
}

func listen(path string) (*net.UnixListener, error) {
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, domain.E(domain.Unavailable, err, "the control socket %s cannot be bound", path)
	}
	ln.SetUnlinkOnClose(false) // Stop knows whether the file is still ours
	if err := os.Chmod(path, 0o600); err != nil {
		ln.Close()
		return nil, domain.E(domain.Unavailable, err, "the control socket %s cannot be made private", path)
	}
	return ln, nil
}

func serverOn(ln *net.UnixListener, path string, g Gateway) *Server {
	return &Server{srv: &http.Server{Handler: routes(g), ReadHeaderTimeout: 5 * time.Second, MaxHeaderBytes: 16 << 10, ConnContext: withPeer}, ln: ln, path: path}
}

// Start serves until Stop.
func (s *Server) Start() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.serve(s.ln)
}

func (s *Server) serve(ln *net.UnixListener) {
	s.serves.Go(func() { _ = s.srv.Serve(ln) })
}

// Stop ends the server, and removes its socket unless somebody else has it.
func (s *Server) Stop(ctx context.Context) error {
	s.remove()
	err := s.srv.Shutdown(ctx)
	s.serves.Wait()
	if errors.Is(err, net.ErrClosed) { // a socket that Restore had closed just then
		return nil
	}
	return err
}

// Restore gives the socket its name again, by another socket in its place, where
// somebody swept it away or it is looked for at another path now; restored tells
// whether it had to. After Passed nothing is done, and a successor that takes the
// name at that moment has it. Errors: Unavailable.
func (s *Server) Restore(path string) (restored bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.path == path || s.stays {
		return s.restore()
	}
	before := s.path
	s.path = path
	if restored, err = s.restore(); err != nil {
		s.path = before
		return restored, err
	}
	_ = os.Remove(before)
	return restored, nil
}

func (s *Server) restore() (restored bool, err error) {
	if s.stays || !missing(s.path) {
		return false, nil
	}
	if err := os.MkdirAll(filepath.Dir(s.path), 0o700); err != nil {
		return false, domain.E(domain.Unavailable, err, "the control socket %s is gone, and its folder cannot be made", s.path)
	}
	ln, err := listen(s.path)
	if err != nil {
		return false, err
	}
	if s.own != "" { // a second name of the one that is closed now
		_ = os.Remove(s.own)
		s.own = ""
	}
	old := s.ln
	s.ln = ln
	s.serve(ln)
	old.Close() // nobody finds it any more; who is connected stays so
	return true, nil
}

func missing(path string) bool {
	_, err := os.Lstat(path)
	return errors.Is(err, fs.ErrNotExist)
}

func routes(g Gateway) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /status", func(w http.ResponseWriter, r *http.Request) {
		reply(w, g.Status(r.Context()))
	})
	mux.HandleFunc("POST /poke", func(w http.ResponseWriter, _ *http.Request) {
		g.Poke()
		w.WriteHeader(http.StatusNoContent)
	})
	mux.HandleFunc("POST /lane", func(w http.ResponseWriter, r *http.Request) {
		if !g.PokeLane(r.URL.Query().Get("key")) {
			w.WriteHeader(http.StatusNotFound)
			return
		}
		w.WriteHeader(http.StatusNoContent)
	})
	mux.HandleFunc("POST /restart", func(w http.ResponseWriter, r *http.Request) { restart(w, r, g) })
	mux.HandleFunc("POST /replace", func(w http.ResponseWriter, r *http.Request) { replace(w, r, g) })
	mux.HandleFunc("POST /stop", func(w http.ResponseWriter, r *http.Request) {
		if err := g.Refuses(peer(r)); err != nil {
			refuse(w, err)
			return
		}
		reason := r.URL.Query().Get("reason")
		if reason == "" {
			reason = "asked over the control socket"
		}
		g.Shutdown(reason)
		w.WriteHeader(http.StatusAccepted)
	})
	return mux
}

func reply(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v) // the reader is gone if this fails
}

// Client talks to a profile's gateway.
type Client struct {
	http *http.Client
	path string
}

// Dial makes a client; nothing is connected yet.
func Dial(path string) *Client {
	d := net.Dialer{Timeout: 2 * time.Second}
	return &Client{path: path, http: &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext:       func(ctx context.Context, _, _ string) (net.Conn, error) { return d.DialContext(ctx, "unix", path) },
	}}}
}

// Status asks for the status. domain.NotFound when no gateway listens;
// domain.Unavailable when one does but does not answer.
func (c *Client) Status(ctx context.Context) (Status, error) {
	var s Status
	err := c.call(ctx, http.MethodGet, "/status", &s)
	return s, err
}

// Poke tells the gateway that the ledger was written to. No gateway is no error.
func (c *Client) Poke(ctx context.Context) error {
	err := c.call(ctx, http.MethodPost, "/poke", nil)
	if domain.IsCode(err, domain.NotFound) {
		return nil
	}
	return err
}

// Stop asks the gateway to stop. It returns before the gateway has.
func (c *Client) Stop(ctx context.Context, reason string) error {
	return c.call(ctx, http.MethodPost, "/stop?reason="+escape(reason), nil)
}

func escape(s string) string { return url.QueryEscape(s) }

func (c *Client) call(ctx context.Context, method, path string, into any) error {
	return c.send(ctx, method, path, nil, into)
}

func (c *Client) send(ctx context.Context, method, path string, body []byte, into any) error {
	req, err := http.NewRequestWithContext(ctx, method, "http://gateway"+path, bytes.NewReader(body))
	if err != nil {
		return domain.E(domain.Internal, err, "the request could not be made")
	}
	res, err := c.http.Do(req)
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED):
		return domain.E(domain.NotFound, nil, "the gateway is not running")
	case err != nil:
		return domain.E(domain.Unavailable, err, "the gateway's control socket %s does not answer", c.path)
	}
	defer res.Body.Close()
	if res.StatusCode >= 300 {
		text, _ := io.ReadAll(io.LimitReader(res.Body, 4<<10))
		var told refusal
		if json.Unmarshal(text, &told) == nil && told.Message != "" {
			return domain.E(told.Code, nil, "%s", told.Message)
		}
		return domain.E(domain.Unavailable, nil, "the gateway answered %s: %s", res.Status, text)
	}
	if into == nil {
		return nil
	}
	if err := json.NewDecoder(io.LimitReader(res.Body, 8<<20)).Decode(into); err != nil {
		return domain.E(domain.Unavailable, err, "the gateway's answer could not be read")
	}
	return nil
}
