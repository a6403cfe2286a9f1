package webhook

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"hermes/internal/platform"
)

// The times of a connection.
const (
	headerTime = 10 * time.Second
	bodyTime   = 30 * time.Second
	replyTime  = 30 * time.Second
	lastGrace  = 800 * time.Millisecond // for requests in flight when Run is to end
)

// Run takes calls until ctx ends. Calls are answered 503 before.
func (a *Adapter) Run(ctx context.Context, sink platform.Sink) error {
	l, e := a.listen()
	if e != nil {
		return e
	}
	a.set(func() { a.sink = sink })
	defer a.set(func() { a.sink, a.listener = nil, nil })
	g := &gate{Listener: l}
	var open inFlight
	srv := &http.Server{
		Handler: a.handler(), ReadHeaderTimeout: headerTime, ReadTimeout: bodyTime, WriteTimeout: replyTime,
		MaxHeaderBytes: 32 << 10, ConnState: open.track, ErrorLog: nil,
		BaseContext: func(net.Listener) context.Context { return context.WithoutCancel(ctx) },
	}
	// One request a connection: there is never one that waits for its next
	// request, which would have to be cut when this process hands over.
	srv.SetKeepAlivesEnabled(false)
	a.d.Log.Info("webhooks are taken", "address", l.Addr().String(), "routes", a.routes.count())
	a.d.Health.Note("address", "http://"+l.Addr().String())
	a.d.Health.Note("routes", strconv.Itoa(a.routes.count()))
	a.d.Health.OK()

	served := make(chan error, 1)
	go func() { served <- srv.Serve(g) }()
	select {
	case err := <-served:
		_ = srv.Close()
		return &platform.Error{Kind: platform.Retry, Code: "accept_failed", Reason: "webhooks could not be taken any more", Cause: err}
	case <-ctx.Done():
	}
	g.park()
	<-served // from here on every accepted connection is known to open
	open.wait(lastGrace)
	_ = srv.Close()
	return nil
}

func (a *Adapter) set(f func()) {
	a.mu.Lock()
	defer a.mu.Unlock()
	f()
}

// listen binds the address, unless it is bound.
func (a *Adapter) listen() (net.Listener, *platform.Error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.listener != nil {
		return a.listener, nil
	}
	address := net.JoinHostPort(a.cfg.Host, strconv.Itoa(a.cfg.Port))
	l, err := net.Listen("tcp", address)
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return nil, &platform.Error{Kind: platform.Retry, Code: "port_in_use", Cause: err,
			Reason: "WEBHOOK_PORT is in use: another program listens on " + address + "; stop it, or set another WEBHOOK_PORT"}
	case errors.Is(err, syscall.EACCES):
		return nil, &platform.Error{Kind: platform.BadCredentials, Code: "port_forbidden", Cause: err,
			Reason: fmt.Sprintf("WEBHOOK_PORT %d may not be bound by this user: set a port above 1023", a.cfg.Port)}
	case err != nil:
		return nil, &platform.Error{Kind: platform.Retry, Code: "bind_failed", Cause: err,
			Reason: "webhooks cannot be taken at " + address + ": check WEBHOOK_HOST and WEBHOOK_PORT"}
	}
	a.listener = l
	return l, nil
}

// gate is a listener that can stop accepting at once. What waits in its queue
// stays there for a process that shares the socket.
type gate struct {
	net.Listener
	shut atomic.Bool
}

func (g *gate) Accept() (net.Conn, error) {
	c, err := g.Listener.Accept()
	if err != nil && g.shut.Load() && errors.Is(err, os.ErrDeadlineExceeded) {
		return nil, net.ErrClosed // or net/http would try again
	}
	return c, err
}

func (g *gate) park() {
	g.shut.Store(true)
	if d, ok := g.Listener.(interface{ SetDeadline(time.Time) error }); ok && d.SetDeadline(time.Unix(1, 0)) == nil {
		return
	}
	_ = g.Listener.Close()
}

// inFlight counts connections. The zero value is usable.
type inFlight struct {
	mu   sync.Mutex
	n    int
	none chan struct{} // closed when n falls to 0, where somebody waits
}

// track is the http.Server's ConnState hook.
func (f *inFlight) track(_ net.Conn, s http.ConnState) {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch s {
	case http.StateNew:
		f.n++
	case http.StateClosed, http.StateHijacked:
		if f.n--; f.n == 0 && f.none != nil {
			close(f.none)
			f.none = nil
		}
	}
}

// wait returns when no connection is left, or after a time.
func (f *inFlight) wait(most time.Duration) {
	f.mu.Lock()
	if f.n == 0 {
		f.mu.Unlock()
		return
	}
	none := make(chan struct{})
	f.none = none
	f.mu.Unlock()
	t := time.NewTimer(most)
	defer t.Stop()
	select {
	case <-none:
	case <-t.C:
	}
}
