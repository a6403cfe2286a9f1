// Package wire is what the fakes of services that speak HTTP have in common: an
// address that stays theirs while they are down, faults, counted calls, and
// changes that can be waited for.
package wire

import (
	"context"
	"errors"
	"net"
	"net/http"
	"sync"
	"time"

	"hermes/testkit/fault"
	"hermes/testkit/port"
)

// Options are what a server is made of.
type Options struct {
	Name     string       // of the fake, for errors
	Addr     string       // to listen on; "" means 127.0.0.1 and a free port
	Listener net.Listener // in place of an address to listen on; may be nil
	// State guards what the fake knows. Touch is called with it held, and Until
	// holds it while it asks.
	State sync.Locker
	// Refuse writes a refusal as the service does (fault.New).
	Refuse func(w http.ResponseWriter, f fault.Fault)
	// Dark is called after the server went dark, to end the connections that were
	// taken over from net/http; may be nil.
	Dark func()
}

// Server is the part of a fake that a fake embeds. Its methods are safe for
// concurrent use.
type Server struct {
	o       Options
	addr    string // that clients are told
	port    *port.Port
	handler http.Handler
	rules   *fault.Rules
	done    chan struct{}
	work    sync.WaitGroup

	mu      sync.Mutex // taken inside of Options.State, never around it
	changed chan struct{}
	http    *http.Server // nil while dark
	closed  bool
	calls   map[string]int
}

// New gives a server that has an address and does not listen yet.
func New(o Options) (*Server, error) {
	if o.Addr == "" {
		o.Addr = "127.0.0.1:0"
	}
	p, err := port.Open(o.Addr, o.Listener)
	if err != nil {
		return nil, err
	}
	return &Server{
		o: o, addr: p.Addr(), port: p, rules: fault.New(o.Refuse),
		done: make(chan struct{}), changed: make(chan struct{}), calls: map[string]int{},
	}, nil
}

// Start begins to serve. On an error the address is given up.
func (s *Server) Start(h http.Handler) error {
	s.handler = h
	if err := s.ComeBack(); err != nil {
		s.port.Release()
		return err
	}
	return nil
}

// Addr is the host and port that clients are told.
func (s *Server) Addr() string { return s.addr }

// URL is the base URL, to be used in place of the service's own.
func (s *Server) URL() string { return "http://" + s.addr }

// Behind makes the server tell clients another address (host and port), that of
// a proxy in front of it. It is called before anybody connects.
func (s *Server) Behind(addr string) { s.addr = addr }

// Close stops the server, cuts every connection and waits for what it began.
func (s *Server) Close() {
	s.mu.Lock()
	if !s.closed {
		s.closed = true
		close(s.done)
	}
	s.mu.Unlock()
	s.rules.Close()
	s.GoDark()
	s.work.Wait()
	s.port.Release()
}

// GoDark cuts every connection and refuses new ones until ComeBack. What the
// server knows stays.
func (s *Server) GoDark() {
	s.mu.Lock()
	h := s.http
	s.http = nil
	s.mu.Unlock()
	if h != nil {
		h.Close()
	}
	if s.o.Dark != nil {
		s.o.Dark()
	}
}

// ComeBack listens again at the same address, which stayed its own.
func (s *Server) ComeBack() error {
	ln, err := s.port.Listen()
	if err != nil {
		return err
	}
	h := &http.Server{Handler: s.handler, ReadHeaderTimeout: time.Minute}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || s.http != nil {
		return ln.Close()
	}
	s.http = h
	s.work.Go(func() { _ = h.Serve(ln) }) // it ends when the server is closed
	return nil
}

// Done is closed with the server.
func (s *Server) Done() <-chan struct{} { return s.done }

// Closed tells whether Close was called.
func (s *Server) Closed() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.closed
}

// Enter lets in a connection that is taken over from net/http, which Close then
// waits for until leave is called; nil while the server is dark. It is called with
// Options.State held, under which the connection becomes one that Options.Dark
// knows.
func (s *Server) Enter() (leave func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || s.http == nil {
		return nil
	}
	s.work.Add(1)
	return s.work.Done
}

// Fail arms a fault for an operation, by the name that Calls counts it by; ""
// means every one. Faults of one operation apply one after the other in the order
// of their arming. The returned function takes the fault back, and lets go of what
// it holds.
func (s *Server) Fail(operation string, f fault.Fault) (cancel func()) {
	return s.rules.Fail(operation, f)
}

// Serve counts a request of an operation that concerns a chat, if any, and answers
// it: as well does, or as the fault says that it meets.
func (s *Server) Serve(w http.ResponseWriter, r *http.Request, operation, chat string, well func(w http.ResponseWriter)) {
	s.Count(operation)
	s.rules.Serve(w, r, operation, chat, well)
}

// Count counts a request of an operation and tells those who wait for it.
func (s *Server) Count(operation string) {
	s.mu.Lock()
	s.calls[operation]++
	s.mu.Unlock()
	s.Touch()
}

// Calls counts the requests of an operation, failed ones included.
func (s *Server) Calls(operation string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.calls[operation]
}

// WaitCalls waits until an operation was requested n times.
func (s *Server) WaitCalls(ctx context.Context, operation string, n int) error {
	return s.Until(ctx, func() bool { return s.Calls(operation) >= n })
}

// Touch wakes everybody who waits for a change.
func (s *Server) Touch() {
	s.mu.Lock()
	defer s.mu.Unlock()
	close(s.changed)
	s.changed = make(chan struct{})
}

// Changed is closed at the next change.
func (s *Server) Changed() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.changed
}

// Until waits for a condition of the state, which it calls with Options.State
// held.
func (s *Server) Until(ctx context.Context, holds func() bool) error {
	for {
		changed := s.Changed() // before the condition is looked at: a change after it wakes us
		s.o.State.Lock()
		ok := holds()
		s.o.State.Unlock()
		if ok {
			return nil
		}
		select {
		case <-changed:
		case <-s.done:
			return errors.New(s.o.Name + " fake: the server was closed")
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
