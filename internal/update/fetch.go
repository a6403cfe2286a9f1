package update

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"hermes/internal/domain"
	"hermes/internal/plain"
)

// The limits of fetching.
const (
	maxRedirects = 5
	maxAttempts  = 6
	headLimit    = 30 * time.Second // until an answer begins
	smallLimit   = time.Minute      // for an index or a signature
)

// newClient makes a client that follows no redirect to where a person would not
// want to be led: over plain HTTP only within the same host, and never from
// HTTPS down to it.
func newClient() *http.Client {
	transport := http.DefaultTransport.(*http.Transport).Clone() // the standard library's own type
	transport.ResponseHeaderTimeout = headLimit
	transport.DisableCompression = true // sizes and ranges are of the file itself
	return &http.Client{Transport: transport, CheckRedirect: func(req *http.Request, via []*http.Request) error {
		from := via[len(via)-1].URL
		switch {
		case len(via) > maxRedirects:
			return domain.E(domain.Unavailable, nil, "%s redirects in circles", from.Host)
		case req.URL.Scheme == "https":
			return nil
		case req.URL.Scheme == "http" && from.Scheme == "http" && req.URL.Host == from.Host:
			return nil
		}
		return domain.E(domain.Forbidden, nil, "%s redirects to %s://%s, which is not followed, since anybody on the way could answer there", from.Host, req.URL.Scheme, req.URL.Host)
	}}
}

// ask makes one request from an offset on. Errors: NotFound, Unavailable; what a
// redirect was refused for.
func (s *Source) ask(ctx context.Context, place string, offset int64) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, place, nil)
	if err != nil {
		return nil, domain.E(domain.Invalid, nil, "the address %s cannot be used", shown(place))
	}
	if offset > 0 {
		req.Header.Set("Range", fmt.Sprintf("bytes=%d-", offset))
	}
	res, err := s.Client.Do(req)
	if err != nil {
		var refused *domain.Error
		if errors.As(err, &refused) {
			return nil, refused
		}
		return nil, transient(domain.E(domain.Unavailable, nil, "%s cannot be reached: %s", shown(place), cause(err)))
	}
	switch {
	case res.StatusCode == http.StatusOK, res.StatusCode == http.StatusPartialContent && offset > 0:
		return res, nil
	}
	res.Body.Close()
	err = domain.E(domain.Unavailable, nil, "%s answers %s", shown(place), res.Status)
	switch {
	case res.StatusCode == http.StatusNotFound:
		return nil, domain.E(domain.NotFound, nil, "there is no %s (%s)", shown(place), res.Status)
	case res.StatusCode == http.StatusRequestedRangeNotSatisfiable && offset > 0:
		return nil, errRange
	case res.StatusCode >= 500, res.StatusCode == http.StatusTooManyRequests:
		return nil, transient(err)
	}
	return nil, err
}

// errRange says that what is there already is no beginning of the file.
var errRange = errors.New("the server has no such range")

// passing marks an error after which another attempt can help.
type passing struct{ error }

func (p passing) Unwrap() error { return p.error }

func transient(err error) error { return passing{err} }

// cause is what a client's error says, without the address, which may hold a
// password.
func cause(err error) string {
	for next := errors.Unwrap(err); next != nil; next = errors.Unwrap(err) {
		err = next
	}
	return err.Error()
}

// get reads a small file whole, trying again what can be over by itself.
func (s *Source) get(ctx context.Context, place string, limit int64) (text []byte, err error) {
	ctx, cancel := context.WithTimeout(ctx, smallLimit)
	defer cancel()
	err = s.again(ctx, func() error {
		res, err := s.ask(ctx, place, 0)
		if err != nil {
			return err
		}
		defer res.Body.Close()
		body := s.watch(res.Body)
		defer body.stop()
		text, err = io.ReadAll(io.LimitReader(body, limit+1))
		switch {
		case err != nil:
			return transient(domain.E(domain.Unavailable, nil, "%s was cut off: %s", shown(place), cause(err)))
		case int64(len(text)) > limit:
			return domain.E(domain.Invalid, nil, "%s has more than %d bytes, so it is not what it should be", shown(place), limit)
		}
		return nil
	})
	return text, err
}

// again calls try until it succeeds, fails for good, or has had its attempts.
func (s *Source) again(ctx context.Context, try func() error) error {
	pause := s.Retry
	for attempt := 1; ; attempt++ {
		err := try()
		var p passing
		if !errors.As(err, &p) {
			return err
		}
		if attempt == maxAttempts || ctx.Err() != nil {
			return p.error
		}
		timer := time.NewTimer(pause)
		select {
		case <-ctx.Done():
			timer.Stop()
			return p.error
		case <-timer.C:
		}
		pause *= 2
	}
}

// download makes file what place holds, size bytes of it (0 for unknown), and
// continues what is there of it already.
func (s *Source) download(ctx context.Context, place, file string, size int64) error {
	f, err := plain.OpenFile(file, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return storage(err, file)
	}
	defer f.Close()
	err = s.again(ctx, func() error { return s.part(ctx, f, place, size) })
	if err == nil {
		if err = f.Sync(); err != nil {
			err = storage(err, file)
		}
	}
	return err
}

// part makes one request for what the file still lacks.
func (s *Source) part(ctx context.Context, f *os.File, place string, size int64) error {
	have, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return storage(err, f.Name())
	}
	if size > 0 && have == size {
		return nil
	}
	if size > 0 && have > size {
		have = 0
	}
	res, err := s.ask(ctx, place, have)
	if errors.Is(err, errRange) {
		have = 0
		res, err = s.ask(ctx, place, 0)
	}
	if err != nil {
		return err
	}
	defer res.Body.Close()
	total := size
	if start, ok := rangeStart(res); res.StatusCode == http.StatusOK || !ok || start != have {
		if res.StatusCode != http.StatusOK {
			return domain.E(domain.Unavailable, nil, "%s answers another part of the file than was asked for", shown(place))
		}
		have = 0 // the whole from its beginning
	}
	if total == 0 && res.ContentLength > 0 {
		total = have + res.ContentLength
	}
	limit := size
	if limit == 0 {
		limit = maxArchive
	}
	if total > limit {
		return domain.E(domain.Invalid, nil, "%s has %d bytes, more than the %d that it may have", shown(place), total, limit)
	}
	if err := f.Truncate(have); err != nil {
		return storage(err, f.Name())
	}
	if _, err := f.Seek(have, io.SeekStart); err != nil {
		return storage(err, f.Name())
	}
	return s.drain(f, res.Body, place, have, total, limit)
}

// rangeStart reads where a partial answer begins; RFC 9110, 14.4.
func rangeStart(res *http.Response) (int64, bool) {
	text, ok := strings.CutPrefix(res.Header.Get("Content-Range"), "bytes ")
	first, _, _ := strings.Cut(text, "-")
	start, err := strconv.ParseInt(first, 10, 64)
	return start, ok && err == nil
}

// drain writes an answer behind what the file has.
func (s *Source) drain(f *os.File, body io.ReadCloser, place string, have, total, limit int64) error {
	in := s.watch(body)
	defer in.stop()
	buf := make([]byte, 128<<10)
	for {
		n, err := in.Read(buf)
		if have+int64(n) > limit {
			return domain.E(domain.Invalid, nil, "%s has more than the %d bytes that it may have", shown(place), limit)
		}
		if n > 0 {
			if _, werr := f.Write(buf[:n]); werr != nil {
				return storage(werr, f.Name())
			}
			have += int64(n)
			if s.Progress != nil {
				s.Progress(have, total)
			}
		}
		switch {
		case errors.Is(err, io.EOF) && (total == 0 || have == total):
			return nil
		case errors.Is(err, io.EOF):
			return transient(domain.E(domain.Unavailable, nil, "%s ended after %d of %d bytes", shown(place), have, total))
		case err != nil:
			return transient(domain.E(domain.Unavailable, nil, "%s was cut off after %d bytes: %s", shown(place), have, cause(err)))
		}
	}
}

// watched is a body that is closed when nothing comes for a while, which ends
// the read that waits.
type watched struct {
	io.ReadCloser
	limit time.Duration
	timer *time.Timer
}

func (s *Source) watch(body io.ReadCloser) *watched {
	w := &watched{ReadCloser: body, limit: s.Stall}
	w.timer = time.AfterFunc(s.Stall, func() { body.Close() })
	return w
}

func (w *watched) Read(p []byte) (int, error) {
	n, err := w.ReadCloser.Read(p)
	if n > 0 {
		w.timer.Reset(w.limit)
	}
	return n, err
}

func (w *watched) stop() { w.timer.Stop() }

// storage is the error of a file of ours.
func storage(err error, file string) error {
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return domain.E(domain.StorageFull, err, "the disk of %s is full, so nothing was changed; make room and run it again, it goes on from there", file)
	}
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return domain.E(domain.Cancelled, err, "it was ended before it was through; nothing was changed")
	}
	return domain.E(domain.Unavailable, err, "%s cannot be written: %s", file, reason(err))
}
