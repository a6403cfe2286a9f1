package api

import (
	"io"
	"net/http"
	"time"
)

// What is still read of a body that a refused request goes on sending.
const (
	lingerFrom  = 256 << 10 // bytes; net/http reads up to this much by itself
	lingerBytes = 64 << 20
	lingerTime  = 5 * time.Second
)

// boundedBody is a request's body within its limit. It knows whether it was
// read to its end.
type boundedBody struct {
	io.ReadCloser           // bounded
	raw           io.Reader // the same without the bound
	whole         bool
}

// boundBody limits the body of a request to maxBody.
func boundBody(w *responseWriter, r *http.Request) *boundedBody {
	b := &boundedBody{ReadCloser: http.MaxBytesReader(w, r.Body, maxBody), raw: r.Body}
	r.Body = b
	if r.ContentLength < 0 || r.ContentLength > lingerFrom {
		// Else net/http closes the body before the answer is written.
		_ = w.control.EnableFullDuplex()
	}
	return b
}

// Read reads within the limit.
func (b *boundedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.whole = b.whole || err == io.EOF
	return n, err
}

// linger takes in what a client still sends of a body that the answer did not
// wait for. Without it the connection would be closed with data unread, which
// resets it, and the client might never read why it was refused; see RFC 9112,
// section 9.6.
func (b *boundedBody) linger(w *responseWriter, r *http.Request) {
	if b.whole || w.status == 0 || r.ContentLength >= 0 && r.ContentLength <= lingerFrom {
		return
	}
	_ = w.control.Flush()
	_ = w.control.SetReadDeadline(time.Now().Add(lingerTime))
	_, _ = io.CopyN(io.Discard, b.raw, lingerBytes)
}
