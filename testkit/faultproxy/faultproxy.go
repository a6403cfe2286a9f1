// Package faultproxy stands between a client and a fake service and lets a test
// act at the two instants that matter: when a request has arrived, and when the
// service has carried it out but the client does not know yet.
package faultproxy

import (
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"sync/atomic"
)

// When is an instant of a request.
type When string

// The instants.
const (
	Before When = "before" // arrived, not forwarded
	After  When = "after"  // carried out, not answered
)

// Hook is called at each instant, from the request's goroutine; the request
// waits for it.
type Hook func(r *http.Request, w When)

// Proxy forwards to one service.
type Proxy struct {
	srv  *http.Server
	ln   net.Listener
	hook atomic.Pointer[Hook]
}

// New starts a proxy for the service at target, on 127.0.0.1.
func New(target string) (*Proxy, error) {
	u, err := url.Parse(target)
	if err != nil {
		return nil, err
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	p := &Proxy{ln: ln}
	fwd := httputil.NewSingleHostReverseProxy(u)
	fwd.FlushInterval = -1
	fwd.ModifyResponse = func(res *http.Response) error {
		p.call(res.Request, After)
		return nil
	}
	fwd.ErrorHandler = func(w http.ResponseWriter, _ *http.Request, _ error) { w.WriteHeader(http.StatusBadGateway) }
	fwd.ErrorLog = nil
	p.srv = &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p.call(r, Before)
		fwd.ServeHTTP(w, r)
	})}
	go p.srv.Serve(ln)
	return p, nil
}

func (p *Proxy) call(r *http.Request, w When) {
	if h := p.hook.Load(); h != nil {
		(*h)(r, w)
	}
}

// Set sets the hook; nil takes it away.
func (p *Proxy) Set(h Hook) {
	if h == nil {
		p.hook.Store(nil)
		return
	}
	p.hook.Store(&h)
}

// URL is where the proxy listens.
func (p *Proxy) URL() string { return "http://" + p.ln.Addr().String() }

// Close stops it and cuts every connection.
func (p *Proxy) Close() { p.srv.Close() }
