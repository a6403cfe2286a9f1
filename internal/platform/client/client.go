// Package client makes the HTTP clients with which adapters speak to their
// services.
package client

import (
	"net"
	"net/http"
	"net/url"
	"syscall"
	"time"
)

// Control is asked about each address before it is connected to (net.Dialer).
type Control func(network, address string, c syscall.RawConn) error

// New makes a client that goes through a proxy (HTTP or SOCKS5; "" means the
// environment's) and asks control, unless it is nil. It speaks HTTP/1.1 only:
// websockets need it, and over HTTP/2 one dead connection would take every other
// request with it, where here each has one of its own that can be cut. Only a
// connection has bounds in time; a request has those of its context.
func New(proxy string, control Control) *http.Client {
	var protocols http.Protocols
	protocols.SetHTTP1(true)
	t := &http.Transport{
		Proxy:               http.ProxyFromEnvironment,
		DialContext:         (&net.Dialer{Timeout: 10 * time.Second, KeepAlive: 30 * time.Second, Control: control}).DialContext,
		TLSHandshakeTimeout: 10 * time.Second,
		MaxIdleConnsPerHost: 8,
		MaxIdleConns:        16,
		IdleConnTimeout:     90 * time.Second,
		Protocols:           &protocols,
	}
	if u, err := url.Parse(proxy); proxy != "" && err == nil {
		t.Proxy = http.ProxyURL(u)
	}
	return &http.Client{Transport: t}
}
