package api

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"time"
)

// access says what a route asks of its caller.
type access int

const (
	keyed access = iota // the key, or without one a process of our own user
	open                // nothing
)

// peerKey is the context key of the connection's *peer.
type peerKey struct{}

// peer is what is known of the other end of a connection. It is found out at
// the first request that needs it, in the connection's own goroutine.
type peer struct {
	once   sync.Once
	conn   net.Conn
	reason string // why it may not come in; "" when it may
}

func (s *Server) withPeer(ctx context.Context, c net.Conn) context.Context {
	if s.keyed {
		return ctx
	}
	return context.WithValue(ctx, peerKey{}, &peer{conn: c})
}

// refusal says why the peer may not come in without a key; "" when it may.
func (s *Server) refusal(ctx context.Context) string {
	p, ok := ctx.Value(peerKey{}).(*peer)
	if !ok {
		return "API_SERVER_KEY is not set, and the connection cannot be identified"
	}
	p.once.Do(func() { p.reason = s.judgePeer(p.conn) })
	return p.reason
}

func (s *Server) judgePeer(c net.Conn) string {
	if _, unix := c.LocalAddr().(*net.UnixAddr); unix {
		return "" // the socket file's mode is the guard
	}
	remote, ok := c.RemoteAddr().(*net.TCPAddr)
	if !ok || !remote.IP.IsLoopback() {
		return "API_SERVER_KEY is not set, so only this host is served. Set API_SERVER_KEY in the profile's .env to serve others."
	}
	uid, err := s.peerUID(remote, c.LocalAddr())
	switch {
	case err != nil:
		return "API_SERVER_KEY is not set, so only processes of the gateway's own user are served, and the owner of this connection cannot be told. Set API_SERVER_KEY in the profile's .env."
	case uid != s.uid:
		return fmt.Sprintf("API_SERVER_KEY is not set, so only processes of the gateway's own user (uid %d) are served; this connection belongs to uid %d. Set API_SERVER_KEY in the profile's .env.", s.uid, uid)
	}
	return ""
}

// ServeHTTP guards, routes and answers one request. A panic of a handler is
// answered with 500 and ends nothing else.
func (s *Server) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	w := &responseWriter{ResponseWriter: rw, s: s}
	w.control = http.NewResponseController(rw)
	// A deadline of the request before on this connection must not cut this one.
	_ = w.control.SetWriteDeadline(time.Time{})
	if r.ContentLength != 0 {
		_ = w.control.SetReadDeadline(time.Now().Add(s.o.BodyTimeout))
		defer boundBody(w, r).linger(w, r)
	}
	defer s.contain(w, r)
	header := w.Header()
	header.Set("X-Content-Type-Options", "nosniff")
	header.Set("Referrer-Policy", "no-referrer")
	if !s.checkOrigin(w, r) {
		return
	}
	s.mux.ServeHTTP(w, r)
	s.proveLife()
}

// contain answers for a handler that panicked, and counts the request.
func (s *Server) contain(w *responseWriter, r *http.Request) {
	caught := recover()
	if caught != nil && !errors.Is(asError(caught), http.ErrAbortHandler) {
		s.counts.panics.Add(1)
		s.o.Log.Error("a request handler panicked; the request failed, nothing else did",
			"method", r.Method, "path", r.URL.Path, "panic", fmt.Sprint(caught), "stack", string(debug.Stack()))
	}
	if caught == nil {
		s.counts.request(r.Pattern, w.status)
		return
	}
	if w.status != 0 {
		s.counts.request(r.Pattern, w.status)
		// Half an answer is out: only a cut connection says that it is not whole.
		panic(http.ErrAbortHandler)
	}
	s.fail(w, &apiError{status: http.StatusInternalServerError, kind: "server_error", code: "internal_error",
		message: "The gateway failed on this request. It was not carried out in full; the log has the cause.", final: true})
	s.counts.request(r.Pattern, w.status)
}

func asError(v any) error {
	err, _ := v.(error)
	return err
}

// proveLife reports a served request as evidence, at most every ten seconds.
func (s *Server) proveLife() {
	now := s.now().Unix()
	last := s.lastOK.Load()
	if now-last >= 10 && s.lastOK.CompareAndSwap(last, now) {
		s.o.Health.OK()
	}
}

// guarded wraps a route's handler with its access check.
func (s *Server) guarded(a access, untilDrain bool, h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if a == keyed && !s.authorised(w, r) {
			return
		}
		if !untilDrain {
			h.ServeHTTP(w, r)
			return
		}
		if s.draining() {
			s.fail(w, &apiError{status: http.StatusServiceUnavailable, kind: "server_error", code: "restarting",
				message: "The gateway is restarting. Try again at once.", retryAfter: time.Second})
			return
		}
		ctx, cancel := context.WithCancel(r.Context())
		defer cancel()
		go func() {
			select {
			case <-s.drain:
				cancel()
			case <-ctx.Done():
			}
		}()
		h.ServeHTTP(w, r.WithContext(ctx))
	})
}

// authorised checks key or peer, and answers when they do not suffice.
func (s *Server) authorised(w http.ResponseWriter, r *http.Request) bool {
	if s.keyed {
		sum := sha256.Sum256([]byte(bearer(r)))
		if subtle.ConstantTimeCompare(sum[:], s.keyHash[:]) == 1 {
			return true
		}
		s.counts.refusedKey.Add(1)
		w.Header().Set("WWW-Authenticate", `Bearer realm="hermes"`)
		s.fail(w, &apiError{status: http.StatusUnauthorized, kind: "invalid_request_error", code: "invalid_api_key",
			message: "Invalid API key", hint: s.keyHint()})
		return false
	}
	if why := s.refusal(r.Context()); why != "" {
		s.counts.refusedPeer.Add(1)
		s.fail(w, forbidden("peer_not_allowed", why))
		return false
	}
	if !isLoopbackAuthority(r.Host) {
		s.fail(w, forbidden("host_not_allowed", fmt.Sprintf("API_SERVER_KEY is not set, so the Host header must name this host (localhost or 127.0.0.1), not %q: a web page could else reach the agent through its own name. Set API_SERVER_KEY in the profile's .env.", clip(r.Host, 100))))
		return false
	}
	return true
}

// keyHint says where the key lives.
func (s *Server) keyHint() string {
	cmd := "hermes"
	if s.o.Profile != "" && s.o.Profile != "default" {
		cmd += " -p " + s.o.Profile
	}
	return "The key is API_SERVER_KEY in the .env of the gateway's profile; `" + cmd + " config get API_SERVER_KEY --reveal` shows it."
}

func forbidden(code, message string) *apiError {
	return &apiError{status: http.StatusForbidden, kind: "invalid_request_error", code: code, message: message}
}

// bearer is the token of the Authorization header, or "".
func bearer(r *http.Request) string {
	scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	if !strings.EqualFold(scheme, "Bearer") {
		return ""
	}
	return strings.TrimSpace(token)
}

// isLoopbackAuthority tells whether a Host header names this machine. A client
// of HTTP/1.0 sends none; a browser always does.
func isLoopbackAuthority(authority string) bool {
	if authority == "" {
		return true
	}
	host := authority
	if h, _, err := net.SplitHostPort(authority); err == nil {
		host = h
	}
	return isLoopbackHost(host)
}

// checkOrigin lets pass what no foreign web page sent, answers preflights, and
// refuses the rest. See https://fetch.spec.whatwg.org/#http-cors-protocol.
func (s *Server) checkOrigin(w http.ResponseWriter, r *http.Request) bool {
	origin := r.Header.Get("Origin")
	if origin == "" {
		site := r.Header.Get("Sec-Fetch-Site")
		// A browser on behalf of another site, without an Origin: an image or a
		// form of theirs. Following a link to a page is harmless.
		if (site == "cross-site" || site == "same-site") && r.Header.Get("Sec-Fetch-Mode") != "navigate" && !s.keyed {
			s.fail(w, s.foreignOrigin("another web page"))
			return false
		}
		return true
	}
	header := w.Header()
	header.Add("Vary", "Origin")
	allowed := s.origins[origin] || (s.keyed && s.origins["*"])
	if !allowed && !sameOrigin(origin, r.Host) {
		s.counts.refusedOrigin.Add(1)
		s.sayRefused(clip(origin, 200))
		s.fail(w, s.foreignOrigin(clip(origin, 200)))
		return false
	}
	if allowed {
		header.Set("Access-Control-Allow-Origin", origin)
		header.Set("Access-Control-Expose-Headers", "X-Hermes-Session-Id, X-Hermes-Completed, X-Hermes-Partial, X-Hermes-Error, Retry-After")
	}
	if r.Method == http.MethodOptions && r.Header.Get("Access-Control-Request-Method") != "" {
		header.Set("Access-Control-Allow-Methods", "GET, POST, PATCH, DELETE, OPTIONS")
		header.Set("Access-Control-Allow-Headers", "Authorization, Content-Type, Idempotency-Key, X-Hermes-Session-Id, X-Hermes-Session-Key")
		header.Set("Access-Control-Max-Age", "600")
		w.WriteHeader(http.StatusNoContent)
		return false
	}
	return true
}

// sayRefused logs a refused web page, at most once a minute: its user sees no
// more than "Failed to fetch".
func (s *Server) sayRefused(origin string) {
	now := s.now().Unix()
	last := s.lastRefused.Load()
	if now-last >= 60 && s.lastRefused.CompareAndSwap(last, now) {
		s.o.Log.Warn("a web page was refused; its browser says only \"Failed to fetch\". Add its origin to API_SERVER_CORS_ORIGINS if it may drive the agent", "origin", origin)
	}
}

func (s *Server) foreignOrigin(origin string) *apiError {
	why := "Add it to API_SERVER_CORS_ORIGINS in the profile's .env if that page may drive the agent."
	if s.origins["*"] && !s.keyed {
		why = "API_SERVER_CORS_ORIGINS=* works only together with API_SERVER_KEY."
	}
	return forbidden("origin_not_allowed", fmt.Sprintf("The origin %s is not allowed to use this API. %s", origin, why))
}

// sameOrigin tells whether a page came from this very server.
func sameOrigin(origin, host string) bool {
	u, err := url.Parse(origin)
	return err == nil && (u.Scheme == "http" || u.Scheme == "https") && host != "" && strings.EqualFold(u.Host, host)
}

// clip bounds text that came from outside.
func clip(s string, n int) string {
	if len(s) <= n {
		return s
	}
	return strings.ToValidUTF8(s[:n], "") + "…"
}

// responseWriter remembers the status, bounds how long a slow client may hold
// an answer, and says "Connection: close" while draining.
type responseWriter struct {
	http.ResponseWriter
	s       *Server
	control *http.ResponseController
	status  int
}

// writeTimeout is how long a client may take to receive what was written.
const writeTimeout = time.Minute

// WriteHeader sends the status line.
func (w *responseWriter) WriteHeader(status int) {
	if w.status == 0 && status >= 200 {
		w.status = status
		if w.s.draining() || w.s.closing.Load() {
			w.Header().Set("Connection", "close")
		}
		_ = w.control.SetWriteDeadline(time.Now().Add(writeTimeout))
	}
	w.ResponseWriter.WriteHeader(status)
}

// Write sends a piece of the body.
func (w *responseWriter) Write(p []byte) (int, error) {
	if w.status == 0 {
		w.WriteHeader(http.StatusOK)
	}
	return w.ResponseWriter.Write(p)
}

// Unwrap is for http.ResponseController.
func (w *responseWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// bodyRead lifts the deadline of the body once it is whole, since net/http
// takes a late read error for a client that has gone.
func bodyRead(w http.ResponseWriter) {
	_ = http.NewResponseController(w).SetReadDeadline(time.Time{})
}

// retrySeconds is a Retry-After header's value, at least one second.
func retrySeconds(d time.Duration) string {
	return strconv.Itoa(max(1, int((d+time.Second-1)/time.Second)))
}
