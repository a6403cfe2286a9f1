// Package httpcall is what the adapters that speak HTTP have in common: the client,
// and the record of what became of one request.
package httpcall

import (
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"sync/atomic"
	"syscall"
	"time"
)

// NewClient makes a client with the transport of NewTransport.
func NewClient(proxy string) *http.Client { return &http.Client{Transport: NewTransport(proxy, nil)} }

// NewTransport makes the transport for one service. It speaks HTTP/1.1 only: a
// websocket needs it, and over HTTP/2 one dead connection would take every
// request with it, where here each has a connection of its own that can be cut.
// proxy "" means the proxy of the environment. control, unless it is nil, is
// asked about each address before it is connected to (net.Dialer.Control).
func NewTransport(proxy string, control func(network, address string, c syscall.RawConn) error) *http.Transport {
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
	return t
}

// Fixed gives a client like c that follows no redirect: one would turn a POST
// into a GET, and may carry the token elsewhere.
func Fixed(c *http.Client) *http.Client {
	own := *c
	own.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return &own
}

// Call is what became of one request. The zero Call is one that was not made.
type Call struct {
	Status int         // of the answer; 0 when none came
	Header http.Header // of the answer
	Err    error       // of the transport, without the URL

	wrote atomic.Bool
}

// OK tells whether the answer says that the request succeeded.
func (c *Call) OK() bool { return c.Status >= 200 && c.Status < 300 }

// Wrote tells whether the whole request was handed to the kernel, so that it may
// have been carried out though no answer came.
func (c *Call) Wrote() bool { return c.wrote.Load() }

// Do makes the request and notes what becomes of it. The answer is nil when none
// came, and its body the caller's otherwise.
func (c *Call) Do(client *http.Client, req *http.Request) *http.Response {
	req = req.WithContext(httptrace.WithClientTrace(req.Context(), &httptrace.ClientTrace{
		GotConn:      func(httptrace.GotConnInfo) { c.wrote.Store(false) },
		WroteRequest: func(i httptrace.WroteRequestInfo) { c.wrote.Store(i.Err == nil) },
	}))
	resp, err := client.Do(req)
	if err != nil {
		c.Err = WithoutURL(err)
		return nil
	}
	c.Status, c.Header = resp.StatusCode, resp.Header
	return resp
}

// WithoutURL takes the address, which may hold a secret, out of the error of a
// request.
func WithoutURL(err error) error {
	var ue *url.Error
	if errors.As(err, &ue) {
		return ue.Err
	}
	return err
}

// ErrTooLarge is ReadAll's.
var ErrTooLarge = errors.New("the answer is larger than any should be")

// ReadAll reads an answer of at most most bytes. ErrTooLarge.
func ReadAll(r io.Reader, most int64) ([]byte, error) {
	b, err := io.ReadAll(io.LimitReader(r, most+1))
	if err == nil && int64(len(b)) > most {
		err = ErrTooLarge
	}
	return b, err
}
