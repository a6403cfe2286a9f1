package matrix

import (
	"net/http"
	"strconv"
)

// Fault is one way to misbehave. Zero fields do nothing.
type Fault struct {
	Times int // how often; 0 means once, below 0 until it is taken back

	Hold <-chan struct{} // wait for this to be closed before anything else
	// BlackHole never answers: the connection stays open until the client goes,
	// the fault is taken back or the server closes.
	BlackHole bool

	Act  bool            // carry the request out before failing
	Then <-chan struct{} // having carried it out, wait for this to be closed, or for the client to go
	Cut  bool            // close the connection without an answer

	Status     int    // the answer's HTTP status
	Code       string // of the error, such as M_FORBIDDEN
	Message    string // of the error
	RetryAfter int    // seconds, in the header Retry-After
	RetryMS    int64  // milliseconds, in the field retry_after_ms
	Location   string // of a redirect
	Body       string // in place of a JSON answer, e.g. a front end's HTML
}

// BadGateway is the answer of a front end whose server is away.
func BadGateway() Fault {
	return Fault{Status: http.StatusBadGateway, Body: "<html>\r\n<head><title>502 Bad Gateway</title></head>\r\n</html>\r\n"}
}

// CutBefore drops the connection; the request is not carried out.
func CutBefore() Fault { return Fault{Cut: true} }

// CutAfter carries the request out and drops the connection in place of
// answering: to the client the outcome is unknown.
func CutAfter() Fault { return Fault{Cut: true, Act: true} }

// TooMany is a refusal by the rate limiter,
// https://spec.matrix.org/v1.15/client-server-api/#rate-limiting.
func TooMany(ms int64) Fault {
	return Fault{Status: http.StatusTooManyRequests, Code: "M_LIMIT_EXCEEDED", Message: "Too Many Requests", RetryMS: ms}
}

// armed is a fault that waits for its request.
type armed struct {
	Fault
	pattern string // "" means any
	left    int    // below 0: no end
	gone    chan struct{}
}

// Fail arms a fault for a request by its pattern, e.g. "GET /v3/sync" or
// "PUT /v3/rooms/{room}/send/{type}/{txn}" (Send); "" means every one. Faults of one pattern apply one after
// the other in the order of their arming. The returned function takes it back,
// and lets go of what it holds.
func (s *Server) Fail(pattern string, f Fault) (cancel func()) {
	a := &armed{Fault: f, pattern: pattern, left: f.Times, gone: make(chan struct{})}
	if a.left == 0 {
		a.left = 1
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults = append(s.faults, a)
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		select {
		case <-a.gone:
		default:
			a.left = 0
			close(a.gone)
		}
	}
}

// fault takes the fault that applies to a request, or nil.
func (s *Server) fault(pattern string) *armed {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, f := range s.faults {
		if f.left == 0 || f.pattern != "" && f.pattern != pattern {
			continue
		}
		if f.left > 0 {
			f.left--
		}
		if f.left == 0 {
			s.faults = append(s.faults[:i:i], s.faults[i+1:]...)
		}
		return f
	}
	return nil
}

// wait holds a request as its fault says; false when it is never to be answered.
func (f *armed) wait(s *Server, r *http.Request) bool {
	hold := f.Hold
	if f.BlackHole {
		hold = make(chan struct{})
	}
	if hold == nil {
		return true
	}
	select {
	case <-hold:
		return true
	case <-f.gone:
		return true
	case <-r.Context().Done():
	case <-s.done:
	}
	return false
}

// linger waits between carrying a request out and answering it.
func (f *armed) linger(s *Server, r *http.Request) {
	if f.Then == nil {
		return
	}
	select {
	case <-f.Then:
	case <-f.gone:
	case <-r.Context().Done():
	case <-s.done:
	}
}

// answers tells whether the fault answers in place of the server.
func (f *armed) answers() bool { return f.Cut || f.Status != 0 || f.Body != "" }

// answer is the fault's answer.
func (f *armed) answer(w http.ResponseWriter) {
	if f.Cut {
		cut(w)
		return
	}
	h := w.Header()
	if f.RetryAfter > 0 {
		h.Set("Retry-After", strconv.Itoa(f.RetryAfter))
	}
	if f.Location != "" {
		h.Set("Location", f.Location)
	}
	if f.Body != "" {
		h.Set("Content-Type", "text/html")
		w.WriteHeader(max(f.Status, http.StatusOK))
		w.Write([]byte(f.Body)) //nolint:errcheck // the client may be gone
		return
	}
	code, message := f.Code, f.Message
	if code == "" {
		code = "M_UNKNOWN"
	}
	if message == "" {
		message = http.StatusText(f.Status)
	}
	e := refuse(f.Status, code, message)
	e.RetryMS = f.RetryMS
	answer(w, nil, e)
}
