package fault

import (
	"bytes"
	"maps"
	"net"
	"net/http"
	"strconv"
)

// Serve answers a request of an operation: as well does, or as the fault says that
// the request meets. well is called once at the most, and writes to nobody when
// its answer is to be lost.
func (r *Rules) Serve(w http.ResponseWriter, req *http.Request, operation, chat string, well func(w http.ResponseWriter)) {
	f := r.Take(operation, chat)
	if !f.Wait(req.Context()) {
		Cut(w)
		return
	}
	if !f.Answers() {
		well(w)
		return
	}
	if f.Act {
		well(&recorder{})
		f.Linger(req.Context())
	}
	if f.Cut {
		Cut(w)
		return
	}
	r.answer(w, f.Fault)
}

// answer writes what a fault gives in place of the service's answer.
func (r *Rules) answer(w http.ResponseWriter, f Fault) {
	h := w.Header()
	maps.Copy(h, f.Header)
	if f.RetryAfter > 0 {
		h.Set("Retry-After", strconv.FormatFloat(f.RetryAfter, 'f', -1, 64))
	}
	if f.Body == "" && r.refuse != nil {
		r.refuse(w, f)
		return
	}
	if f.Body != "" && h.Get("Content-Type") == "" {
		h.Set("Content-Type", "text/html")
	}
	w.WriteHeader(max(f.Status, http.StatusOK))
	_, _ = w.Write([]byte(f.Body)) // the client may be gone
}

// Cut ends the connection in the middle of the exchange.
func Cut(w http.ResponseWriter) {
	if h, ok := w.(http.Hijacker); ok {
		if c, _, err := h.Hijack(); err == nil {
			if t, ok := c.(*net.TCPConn); ok {
				_ = t.SetLinger(0) // a reset is nicer, a close will do
			}
			c.Close()
			return
		}
	}
	panic(http.ErrAbortHandler)
}

// recorder is a http.ResponseWriter that nobody reads, or that Answer reads.
type recorder struct {
	status int
	header http.Header
	body   bytes.Buffer
}

func (r *recorder) Header() http.Header {
	if r.header == nil {
		r.header = http.Header{}
	}
	return r.header
}

func (r *recorder) WriteHeader(status int) {
	if r.status == 0 {
		r.status = status
	}
}

func (r *recorder) Write(b []byte) (int, error) {
	r.WriteHeader(http.StatusOK)
	return r.body.Write(b)
}
