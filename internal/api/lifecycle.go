package api

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"sync"
	"syscall"
	"time"

	"hermes/internal/domain"
)

// Listen binds the address, or adopts Options.Listener, without serving yet.
// Connections wait in the kernel's queue until Start. It fails with
// domain.Config when the address may not be bound as configured,
// domain.Conflict when the port is taken (the message names the holder) and
// domain.Unavailable when the address does not exist on this host.
func (s *Server) Listen() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.listenLocked()
}

func (s *Server) listenLocked() error {
	if s.listener != nil {
		return nil
	}
	if err := s.checkBind(); err != nil {
		s.failure = err
		s.o.Health.Down("bind_refused", err.Message)
		return err
	}
	l := s.o.Listener
	if l == nil {
		address := net.JoinHostPort(s.o.Config.Host, strconv.Itoa(s.o.Config.Port))
		var err error
		if l, err = s.listen(address); err != nil {
			failure := s.explainBind(address, err)
			s.failure = failure
			s.o.Health.Down(bindCode(failure), failure.Message)
			return failure
		}
	}
	s.failure = nil
	s.listener = newParkingListener(l)
	return nil
}

func listenTCP(address string) (net.Listener, error) { return net.Listen("tcp", address) }

// explainBind turns a failure of bind(2) into what an operator can act on.
func (s *Server) explainBind(address string, err error) *domain.Error {
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		by := s.holder(s.o.Config.Port)
		if by == "" {
			by = "another process that cannot be seen from here"
		}
		return domain.E(domain.Conflict, err, "API_SERVER_PORT already in use: %s is held by %s. The API is off until the port is free, and is tried again by itself; chat platforms and cron keep running. Stop that process, or set another API_SERVER_PORT.", address, by)
	case errors.Is(err, syscall.EACCES):
		return domain.E(domain.Config, err, "API_SERVER_PORT %d may not be bound by this user. Set a port above 1023.", s.o.Config.Port)
	}
	return domain.E(domain.Unavailable, err, "the API could not bind %s. It is tried again by itself; check API_SERVER_HOST and API_SERVER_PORT.", address)
}

func bindCode(e *domain.Error) string {
	if e.Code == domain.Conflict {
		return "port_in_use"
	}
	return "bind_failed"
}

// Start serves. When the address cannot be bound it returns why; a cause that
// may pass (the port is taken, the address is not there yet) is tried again in
// the background, at growing intervals of up to 30 seconds, until Stop. The
// error is for showing: it never ends the process.
func (s *Server) Start() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.started {
		return nil
	}
	s.started = true
	err := s.listenLocked()
	if err == nil {
		s.serveLocked()
		return nil
	}
	s.o.Log.Error("[Api_Server] "+domain.MessageOf(err), "cause", errors.Unwrap(err))
	if domain.IsCode(err, domain.Config) {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	s.stopWatch = cancel
	s.watching.Go(func() { s.retryBind(ctx) })
	return err
}

// retryBind binds as soon as the address can be had.
func (s *Server) retryBind(ctx context.Context) {
	pause := time.Second
	for {
		timer := time.NewTimer(pause)
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-timer.C:
		}
		if s.bindAgain(ctx) {
			return
		}
		pause = min(2*pause, 30*time.Second)
	}
}

// bindAgain tells whether there is nothing more to try.
func (s *Server) bindAgain(ctx context.Context) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if ctx.Err() != nil {
		return true
	}
	err := s.listenLocked()
	if err == nil {
		s.serveLocked()
	}
	return err == nil || domain.IsCode(err, domain.Config)
}

// serveLocked begins to accept on the bound listener.
func (s *Server) serveLocked() {
	l := s.listener
	s.serving = true
	go func() {
		// Serve returns when the listener is closed; connections live on.
		if err := s.http.Serve(l); err != nil && !errors.Is(err, http.ErrServerClosed) && !errors.Is(err, net.ErrClosed) {
			s.o.Log.Error("the API stopped accepting connections", "error", err)
			s.o.Health.Down("accept_failed", "The API stopped accepting connections. Restart the gateway; the log has the cause.")
		}
	}()
	url := "http://" + l.Addr().String()
	s.o.Log.Info(fmt.Sprintf("API server listening on %s (model: %s)", url, s.modelName()))
	if !s.keyed {
		s.o.Log.Warn("API_SERVER_KEY is not set: only processes of this user on this host are served")
	}
	s.o.Health.Note("address", url)
	s.o.Health.OK()
}

// Addr is the bound address, nil while there is none.
func (s *Server) Addr() net.Addr {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.listener == nil {
		return nil
	}
	return s.listener.Addr()
}

// Listener is the socket that is bound, for handing it to a successor; nil
// while there is none. It must not be closed by the caller.
func (s *Server) Listener() net.Listener {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.listener == nil {
		return nil
	}
	return s.listener.Listener
}

// Err is why nothing is bound; nil when something is.
func (s *Server) Err() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.failure
}

// Drain stops accepting, so that a successor on the same socket gets every new
// connection, answers what still comes on the old ones with "Connection:
// close", and returns when the last connection is gone or with ctx's error.
// Nothing is cut; call Stop afterwards.
//
// http.Server.Shutdown would drop a request that it has just read on a kept
// connection, so it is not used. See net/http's conn.serve.
func (s *Server) Drain(ctx context.Context) error {
	s.beginDrain()
	return s.conns.wait(ctx)
}

// CloseConnections makes every answer from now on end its connection, while new
// ones go on to be accepted: clients that are busy have let go of their kept
// connections by the time at which a Stop closes those that are left.
func (s *Server) CloseConnections() { s.closing.Store(true) }

// beginDrain stops the watcher, parks the listener and tells handlers.
func (s *Server) beginDrain() {
	s.mu.Lock()
	if s.stopWatch != nil {
		s.stopWatch()
	}
	l, serving := s.listener, s.serving
	s.mu.Unlock()
	s.drainOnce.Do(func() {
		close(s.drain)
		if l == nil {
			return
		}
		l.park()
		if serving {
			// Once Accept rests, every accepted connection is in the table.
			select {
			case <-l.resting:
			case <-l.released:
			}
		}
	})
}

// newGrace is how long a connection that has said nothing yet may take to.
const newGrace = time.Second

// Settle stops accepting and serves what was accepted, also connections whose
// request is still on its way; kept connections between two requests are
// closed. It is for a restart in place, for which clients should have let go of
// those; see CloseConnections. Call Stop afterwards.
func (s *Server) Settle(ctx context.Context) error {
	s.beginDrain()
	s.conns.closeIdle(false)
	fresh, cancel := context.WithTimeout(ctx, newGrace)
	defer cancel()
	if s.conns.wait(fresh) == nil {
		return nil
	}
	s.conns.closeIdle(true)
	return s.conns.wait(ctx)
}

// Stop ends the server with nobody to take over: it closes the listener,
// closes idle connections, waits for requests in flight until ctx ends, and
// then cuts what is left, with ctx's error. It is safe to call after Drain, and
// more than once.
func (s *Server) Stop(ctx context.Context) error {
	s.beginDrain()
	s.watching.Wait()
	s.mu.Lock()
	l := s.listener
	s.mu.Unlock()
	if l != nil {
		l.release()
	}
	s.conns.closeIdle(true)
	err := s.conns.wait(ctx)
	s.conns.closeAll()
	s.pings.stop()
	return err
}

// draining tells whether Drain or Stop has begun.
func (s *Server) draining() bool {
	select {
	case <-s.drain:
		return true
	default:
		return false
	}
}

// parkingListener can stop accepting without closing its socket, which a
// successor may share.
type parkingListener struct {
	net.Listener
	mu       sync.Mutex
	parked   bool
	closed   bool
	resting  chan struct{} // closed when Accept has seen that it is parked
	released chan struct{}
}

func newParkingListener(l net.Listener) *parkingListener {
	return &parkingListener{Listener: l, resting: make(chan struct{}), released: make(chan struct{})}
}

// Accept accepts until the listener is parked, then blocks until it is released.
func (l *parkingListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err == nil {
		return c, nil
	}
	l.mu.Lock()
	parked := l.parked
	l.mu.Unlock()
	if !parked {
		return nil, err
	}
	close(l.resting) // net/http accepts in one goroutine and not again after an error
	<-l.released
	return nil, net.ErrClosed
}

// park makes a waiting Accept return and every later one block.
func (l *parkingListener) park() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.parked = true
	if d, ok := l.Listener.(interface{ SetDeadline(time.Time) error }); ok {
		// An hour ago rather than now: the deadline must have passed.
		_ = d.SetDeadline(time.Now().Add(-time.Hour))
	} else {
		l.closed = true
		_ = l.Listener.Close()
	}
}

// release closes the socket for this process and frees a parked Accept.
func (l *parkingListener) release() {
	l.mu.Lock()
	defer l.mu.Unlock()
	select {
	case <-l.released:
	default:
		close(l.released)
	}
	if !l.closed {
		l.closed = true
		_ = l.Listener.Close()
	}
}

// Close is called by net/http when Serve returns.
func (l *parkingListener) Close() error {
	l.release()
	return nil
}

// connTable knows every connection and whether it is between two requests.
type connTable struct {
	mu        sync.Mutex
	conns     map[net.Conn]http.ConnState
	closeWhen bool // close connections that become idle
	empty     chan struct{}
}

func (t *connTable) init() { t.conns = map[net.Conn]http.ConnState{} }

// track is the http.Server's ConnState hook.
func (t *connTable) track(c net.Conn, state http.ConnState) {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch state {
	case http.StateClosed, http.StateHijacked:
		delete(t.conns, c)
		if len(t.conns) == 0 && t.empty != nil {
			close(t.empty)
			t.empty = nil
		}
		return
	case http.StateNew:
		if len(t.conns) >= maxConns { // the rest of the gateway needs files too
			_ = c.Close()
		}
	case http.StateIdle:
		if t.closeWhen {
			_ = c.Close()
		}
	}
	t.conns[c] = state
}

// count is the number of open connections.
func (t *connTable) count() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.conns)
}

// wait returns when no connection is left, or with ctx's error.
func (t *connTable) wait(ctx context.Context) error {
	t.mu.Lock()
	if len(t.conns) == 0 {
		t.mu.Unlock()
		return nil
	}
	if t.empty == nil {
		t.empty = make(chan struct{})
	}
	empty := t.empty
	t.mu.Unlock()
	select {
	case <-empty:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// closeIdle closes connections that wait for a request, now and from now on;
// silent says whether those too that have never sent one.
func (t *connTable) closeIdle(silent bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.closeWhen = true
	for c, state := range t.conns {
		if state == http.StateIdle || silent && state == http.StateNew {
			_ = c.Close()
		}
	}
}

// closeAll cuts every connection.
func (t *connTable) closeAll() {
	t.mu.Lock()
	defer t.mu.Unlock()
	for c := range t.conns {
		_ = c.Close()
	}
}
