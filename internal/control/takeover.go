package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"hermes/internal/domain"
)

// restartLimit bounds a restart that is asked for here, drain in place included.
const restartLimit = 2 * time.Minute

// restart answers POST /restart: 200 with Restarted once it is known how it went.
func restart(w http.ResponseWriter, r *http.Request, g Gateway) {
	if err := g.Refuses(peer(r)); err != nil {
		refuse(w, err)
		return
	}
	var ask RestartRequest
	if err := json.NewDecoder(io.LimitReader(r.Body, 16<<10)).Decode(&ask); err != nil && !errors.Is(err, io.EOF) {
		refuse(w, domain.E(domain.Invalid, err, "the request is no JSON"))
		return
	}
	// A requester who leaves does not take the restart back.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), restartLimit)
	defer cancel()
	done, err := g.Restart(ctx, ask)
	if err != nil {
		refuse(w, err)
		return
	}
	reply(w, done)
}

// replaceProtocol is named in the Upgrade header of POST /replace.
const replaceProtocol = "hermes-handover"

// replace answers POST /replace by giving the connection to a hand-over.
func replace(w http.ResponseWriter, r *http.Request, g Gateway) {
	pid := peer(r)
	if err := g.Refuses(pid); err != nil {
		refuse(w, err)
		return
	}
	h, ok := w.(http.Hijacker)
	if !ok || r.Header.Get("Upgrade") != replaceProtocol {
		refuse(w, domain.E(domain.Invalid, nil, "a hand-over needs a connection of its own"))
		return
	}
	conn, _, err := h.Hijack()
	if err != nil {
		refuse(w, domain.E(domain.Internal, err, "the connection cannot be used for a hand-over"))
		return
	}
	u, ok := conn.(*net.UnixConn)
	if !ok {
		conn.Close()
		return
	}
	_ = u.SetDeadline(time.Time{})
	if _, err := fmt.Fprintf(u, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: %s\r\n\r\n", replaceProtocol); err != nil {
		u.Close()
		return
	}
	g.Replace(u, pid)
}

// Ask connects to a running gateway for a hand-over to this process.
// domain.NotFound when none runs; other codes with what it said.
func Ask(ctx context.Context, path string) (*net.UnixConn, error) {
	var d net.Dialer
	c, err := d.DialContext(ctx, "unix", path)
	if err != nil {
		return nil, domain.E(domain.NotFound, err, "no gateway answers at %s", path)
	}
	u := c.(*net.UnixConn) // of network unix, as asked
	if _, err := fmt.Fprintf(u, "POST /replace HTTP/1.1\r\nHost: gateway\r\nConnection: Upgrade\r\nUpgrade: %s\r\nContent-Length: 0\r\n\r\n", replaceProtocol); err != nil {
		u.Close()
		return nil, domain.E(domain.Unavailable, err, "the running gateway cannot be asked")
	}
	if err := upgraded(u); err != nil {
		u.Close()
		return nil, err
	}
	return u, nil
}

// upgraded reads the head of the answer byte by byte: what comes after it, and
// the descriptors with it, belong to the hand-over.
func upgraded(u *net.UnixConn) error {
	_ = u.SetReadDeadline(time.Now().Add(10 * time.Second))
	defer func() { _ = u.SetReadDeadline(time.Time{}) }()
	var head strings.Builder
	one := make([]byte, 1)
	for head.Len() < 16<<10 && !strings.HasSuffix(head.String(), "\r\n\r\n") {
		if _, err := u.Read(one); err != nil {
			return domain.E(domain.Unavailable, err, "the running gateway does not answer; stop it with `hermes gateway stop`, then start again")
		}
		head.Write(one)
	}
	if strings.HasPrefix(head.String(), "HTTP/1.1 101 ") {
		return nil
	}
	body, _ := io.ReadAll(io.LimitReader(u, 4<<10))
	var told refusal
	if i := strings.IndexByte(string(body), '{'); i >= 0 && json.NewDecoder(strings.NewReader(string(body[i:]))).Decode(&told) == nil && told.Message != "" {
		return domain.E(told.Code, nil, "%s", told.Message)
	}
	return domain.E(domain.Unavailable, nil, "the running gateway is of a version that cannot hand over; stop it with `hermes gateway stop`, then start again")
}

// refusal is the body of an error.
type refusal struct {
	Code    domain.Code `json:"code"`
	Message string      `json:"message"`
}

func refuse(w http.ResponseWriter, err error) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Connection", "close")
	status := http.StatusServiceUnavailable
	if domain.IsCode(err, domain.Forbidden) {
		status = http.StatusForbidden
	}
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(refusal{domain.CodeOf(err), domain.MessageOf(err)})
}

// Restart asks the gateway to be replaced, and returns when that is known.
func (c *Client) Restart(ctx context.Context, ask RestartRequest) (Restarted, error) {
	var done Restarted
	body, err := json.Marshal(ask)
	if err != nil {
		return done, domain.E(domain.Internal, err, "the request could not be made")
	}
	patient := *c
	patient.http = &http.Client{Timeout: restartLimit + 5*time.Second, Transport: c.http.Transport}
	err = patient.send(ctx, http.MethodPost, "/restart", body, &done)
	return done, err
}

// PokeLane makes a gateway look at a session whose turn runs in it, and tells
// whether one does.
func (c *Client) PokeLane(ctx context.Context, key string) bool {
	return c.call(ctx, http.MethodPost, "/lane?key="+escape(key), nil) == nil
}

// Aside is the name under which a process's control socket is found while, and
// after, another takes the profile's place at path.
func Aside(path string, pid int) string { return path + "." + strconv.Itoa(pid) }

// StepAside gives the socket its second name, which stays when a successor
// takes the first one.
func (s *Server) StepAside() (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, err := s.restore(); err != nil {
		return "", err
	}
	name := Aside(s.path, os.Getpid())
	if s.own == name && !missing(name) {
		return name, nil
	}
	_ = os.Remove(name)
	if err := os.Link(s.path, name); err != nil {
		return "", domain.E(domain.Unavailable, err, "the control socket could not be given a second name")
	}
	s.own = name
	return name, nil
}

// Passed says that the profile's name, or the socket itself, has passed to a
// successor, so that Stop removes only the second name.
func (s *Server) Passed() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stays = true
}

// StepBack takes the profile's name again, from a successor that failed.
func (s *Server) StepBack() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.own == "" {
		return nil
	}
	tmp := s.path + ".back"
	_ = os.Remove(tmp)
	err := os.Link(s.own, tmp)
	if err == nil {
		err = os.Rename(tmp, s.path)
		_ = os.Remove(tmp) // where both names were one socket already, rename did nothing
	}
	if err != nil {
		return domain.E(domain.Unavailable, err, "the control socket %s could not be taken back", s.path)
	}
	return nil
}

// TakePlace listens beside the socket that is there and then takes its name in
// one step, so that at no moment nobody answers.
func TakePlace(path string, g Gateway) (*Server, error) {
	name := Aside(path, os.Getpid())
	if len(name) > maxSocketPath {
		return nil, domain.E(domain.Unavailable, nil, "the control socket's path %s is too long for a second one", path)
	}
	if err := os.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, domain.E(domain.Unavailable, err, "the control socket %s cannot be replaced", name)
	}
	s, err := bind(name, g)
	if err != nil {
		return nil, err
	}
	if err := os.Rename(name, path); err != nil {
		s.ln.Close()
		_ = os.Remove(name)
		return nil, domain.E(domain.Unavailable, err, "the control socket %s cannot be replaced", path)
	}
	s.path = path
	return s, nil
}

// Resume serves on a socket that this process kept over an execve.
func Resume(ln *net.UnixListener, path string, g Gateway) *Server {
	ln.SetUnlinkOnClose(false)
	return serverOn(ln, path, g)
}

// Listener is the socket, for an execve.
func (s *Server) Listener() net.Listener {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.ln
}

// remove takes away the names of the socket that are ours.
func (s *Server) remove() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.own != "" {
		_ = os.Remove(s.own)
	}
	if !s.stays {
		_ = os.Remove(s.path)
	}
	s.stays = true
}

// Asides finds the second names that processes gave their sockets, by PID.
func Asides(path string) map[int]string {
	names, err := filepath.Glob(path + ".*")
	if err != nil {
		return nil
	}
	out := map[int]string{}
	for _, n := range names {
		if pid, err := strconv.Atoi(strings.TrimPrefix(n, path+".")); err == nil {
			out[pid] = n
		}
	}
	return out
}
