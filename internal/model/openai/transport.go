package openai

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"sync"
	"time"
)

// NewTransport makes a transport to be shared by all clients of the process:
// connections are kept and reused, and one with a stream on it costs little.
func NewTransport() *http.Transport {
	return &http.Transport{
		Proxy:               http.ProxyFromEnvironment,
		DialContext:         (&net.Dialer{Timeout: 10 * time.Second, KeepAlive: 30 * time.Second}).DialContext,
		TLSHandshakeTimeout: 10 * time.Second,
		ForceAttemptHTTP2:   true,
		MaxIdleConns:        512,
		MaxIdleConnsPerHost: 256,
		IdleConnTimeout:     90 * time.Second,
		ReadBufferSize:      1 << 10,
		WriteBufferSize:     1 << 10,
		// A gzip reader would cost 40 KB a stream and hold pieces back.
		DisableCompression: true,
		// Without pings a dead HTTP/2 connection is noticed by the first
		// request that hangs on it.
		HTTP2: &http.HTTP2Config{SendPingTimeout: 30 * time.Second, PingTimeout: 15 * time.Second},
	}
}

// payload is the body of a request. A history can be megabytes, and net/http
// keeps the request for as long as the response is read: so the bytes are let
// go as soon as they are sent and cannot be needed again.
type payload struct {
	size  int64
	mu    sync.Mutex
	parts [][]byte // one after another
}

func newPayload(parts ...[]byte) *payload {
	p := &payload{parts: parts}
	for _, b := range parts {
		p.size += int64(len(b))
	}
	return p
}

// open gives a reader from the start, for the first try and for net/http's
// repetition on a fresh connection.
func (p *payload) open() io.ReadCloser {
	p.mu.Lock()
	defer p.mu.Unlock()
	return &payloadReader{parts: p.parts}
}

// release lets the bytes go; the server has answered.
func (p *payload) release() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.parts = nil
}

type payloadReader struct {
	mu    sync.Mutex // net/http may close while it reads
	parts [][]byte   // what is left
	at    int        // in the first of them
}

func (p *payloadReader) Read(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := 0
	for n < len(b) && len(p.parts) > 0 {
		k := copy(b[n:], p.parts[0][p.at:])
		n, p.at = n+k, p.at+k
		if p.at == len(p.parts[0]) {
			p.parts, p.at = p.parts[1:], 0
		}
	}
	if len(p.parts) == 0 {
		p.parts = nil // the array behind it holds the bytes
		return n, io.EOF
	}
	return n, nil
}

func (p *payloadReader) Close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.parts = nil
	return nil
}

// Why a call was ended by us.
var (
	errCallTime = errors.New("the whole call took longer than its limit")
	errTooLong  = errors.New("the answer is longer than its limit")
	errAtEnd    = errors.New("the connection stayed open after the end")
)

// silence says that nothing came for so long.
type silence time.Duration

func (s silence) Error() string { return "nothing came for " + time.Duration(s).String() }

// watch ends a call that is silent for too long, or too long in all, by
// cancelling its context with the reason. One timer serves both.
type watch struct {
	cancel context.CancelCauseFunc
	idle   time.Duration
	end    time.Time
	bytes  int64 // that may still come
	mu     sync.Mutex
	cause  error
	timer  *time.Timer
}

func newWatch(cancel context.CancelCauseFunc, first time.Duration, l Limits) *watch {
	w := &watch{cancel: cancel, idle: l.Idle, end: time.Now().Add(l.Call), bytes: l.StreamBytes}
	w.mu.Lock() // the timer may fire before it is stored
	defer w.mu.Unlock()
	w.cause = silence(first)
	w.timer = time.AfterFunc(min(first, l.Call), w.fire)
	return w
}

func (w *watch) fire() {
	w.mu.Lock()
	cause := w.cause
	w.mu.Unlock()
	if !time.Now().Before(w.end) {
		cause = errCallTime
	}
	w.cancel(cause)
}

// expect gives the call d more, and the reason for ending it then.
func (w *watch) expect(d time.Duration, cause error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.cause = cause
	w.timer.Reset(max(min(d, time.Until(w.end)), 0))
}

func (w *watch) stop() { w.timer.Stop() }

// reader gives r, watched: each byte is a sign of life, and no more than the
// limit of bytes comes.
func (w *watch) reader(r io.Reader) *watchedReader { return &watchedReader{w, r, false} }

type watchedReader struct {
	w    *watch
	r    io.Reader
	last bool // the end is known; more bytes prolong nothing
}

func (r *watchedReader) Read(b []byte) (int, error) {
	n, err := r.r.Read(b)
	r.w.bytes -= int64(n)
	if r.w.bytes < 0 {
		return 0, errTooLong
	}
	if n > 0 && err == nil && !r.last {
		r.w.expect(r.w.idle, silence(r.w.idle))
	}
	return n, err
}

// ending gives the service d to close what it has finished.
func (r *watchedReader) ending(d time.Duration) {
	r.last = true
	r.w.expect(d, errAtEnd)
}
