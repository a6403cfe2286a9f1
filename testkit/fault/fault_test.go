package fault_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"hermes/testkit/fault"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// service is a fake whose path is the operation, and whose query names the chat.
type service struct {
	*fault.Rules
	url   string
	acted atomic.Int64
	come  chan struct{} // one for each request that was carried out
}

func serve(t *testing.T) *service {
	t.Helper()
	s := &service{come: make(chan struct{}, 100)}
	s.Rules = fault.New(func(w http.ResponseWriter, f fault.Fault) {
		w.WriteHeader(f.Status)
		io.WriteString(w, f.Code+": "+f.Message)
	})
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.Serve(w, r, strings.TrimPrefix(r.URL.Path, "/"), r.URL.RawQuery, func(w http.ResponseWriter) {
			s.acted.Add(1)
			w.Header().Set("X-Service", "well")
			io.WriteString(w, "well")
			s.come <- struct{}{}
		})
	}))
	s.url = srv.URL
	t.Cleanup(srv.Close)
	t.Cleanup(s.Close) // first: what is held lets go
	return s
}

type answer struct {
	status int
	header http.Header
	body   string
	err    error
}

func (s *service) ask(ctx context.Context, path string) answer {
	// A connection of its own: net/http repeats what is cut on a used one.
	c := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.url+"/"+path, nil)
	if err != nil {
		return answer{err: err}
	}
	res, err := c.Do(req)
	if err != nil {
		return answer{err: err}
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	return answer{res.StatusCode, res.Header, string(b), err}
}

// Each fault gives its answer, carries the request out or does not, and is over
// after the request that met it.
func TestAnswers(t *testing.T) {
	for name, c := range map[string]struct {
		fault  fault.Fault
		status int // 0: the connection is cut
		body   string
		header string // name: value
		acted  int64
	}{
		"nothing":      {fault.Fault{}, 200, "well", "X-Service: well", 1},
		"bad gateway":  {fault.BadGateway(), 502, "<html>\r\n<head><title>502 Bad Gateway</title></head>\r\n</html>\r\n", "Content-Type: text/html", 0},
		"cut before":   {fault.CutBefore(), 0, "", "", 0},
		"cut after":    {fault.CutAfter(), 0, "", "", 1},
		"too many":     {fault.TooMany(7.5), 429, ": ", "Retry-After: 7.5", 0},
		"redirect":     {fault.Redirect(302, "https://elsewhere.test/"), 302, "moved", "Location: https://elsewhere.test/", 0},
		"its words":    {fault.Fault{Status: 403, Code: "E7", Message: "no"}, 403, "E7: no", "", 0},
		"act and fail": {fault.Fault{Act: true, Status: 504, Body: "<html>"}, 504, "<html>", "X-Service: ", 1},
		"a body alone": {fault.Fault{Body: "x"}, 200, "x", "", 0},
		"a type":       {fault.Fault{Header: http.Header{"Content-Type": {"text/plain"}}, Body: "x"}, 200, "x", "Content-Type: text/plain", 0},
		"written": {fault.Answer(func(w http.ResponseWriter) {
			w.Header().Set("X-Of", "ours")
			w.WriteHeader(418)
			w.WriteHeader(500) // the first counts
			io.WriteString(w, "tea")
		}), 418, "tea", "X-Of: ours", 0},
	} {
		t.Run(name, func(t *testing.T) {
			s := serve(t)
			s.Fail("op", c.fault)
			a := s.ask(t.Context(), "op")
			if a.status != c.status || a.body != c.body || (a.err != nil) != (c.status == 0) || s.acted.Load() != c.acted {
				t.Errorf("%d %q %v, carried out %d times", a.status, a.body, a.err, s.acted.Load())
			}
			if h, v, ok := strings.Cut(c.header, ": "); ok && a.header.Get(h) != v {
				t.Errorf("%s is %q, want %q", h, a.header.Get(h), v)
			}
			if a = s.ask(t.Context(), "op"); a.body != "well" {
				t.Errorf("the next request met it too: %+v", a)
			}
		})
	}
}

// A fault is met by its operation and chat only, so often as it says, and one
// after the other.
func TestWhatMeetsIt(t *testing.T) {
	s := serve(t)
	say := func(op, text string, f fault.Fault) func() {
		f.Body = text
		return s.Fail(op, f)
	}
	want := func(path, body string) {
		t.Helper()
		if a := s.ask(t.Context(), path); a.body != body || a.err != nil {
			t.Errorf("%s: %+v, want %q", path, a, body)
		}
	}
	say("a", "first", fault.Fault{Times: 2})
	say("a", "second", fault.Fault{})
	say("b", "of seven", fault.Fault{Chat: "7"})
	want("b", "well")
	want("b?8", "well")
	want("b?7", "of seven")
	want("b?7", "well")
	want("a", "first")
	want("a", "first")
	want("a", "second")
	want("a", "well")

	back := say("", "always", fault.Fault{Times: -1})
	say("a", "behind it", fault.Fault{})
	for range 3 {
		want("a", "always")
	}
	want("c", "always")
	back()
	back() // twice is once
	want("a", "behind it")
	want("a", "well")
}

// What is held goes on when it is let go, when the fault is taken back, and not
// at all when the client goes or the fake closes.
func TestHeld(t *testing.T) {
	s := serve(t)
	ask := func(ctx context.Context) <-chan answer {
		out := make(chan answer, 1)
		go func() { out <- s.ask(ctx, "op") }()
		return out
	}
	closed := make(chan struct{})
	close(closed)

	hold := make(chan struct{})
	s.Fail("op", fault.Fault{Hold: hold})
	a := ask(t.Context())
	close(hold)
	if got := <-a; got.body != "well" {
		t.Errorf("after it was let go: %+v", got)
	}
	for name, f := range map[string]fault.Fault{"held": {Hold: make(chan struct{})}, "black hole": {Hold: closed, BlackHole: true}} {
		back := s.Fail("op", f)
		a = ask(t.Context())
		back()
		if got := <-a; got.body != "well" {
			t.Errorf("%s, taken back: %+v", name, got)
		}
		acted := s.acted.Load()
		back = s.Fail("op", f)
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		if got := <-ask(ctx); !errors.Is(got.err, context.DeadlineExceeded) || s.acted.Load() != acted {
			t.Errorf("%s: %+v", name, got)
		}
		cancel()
		back()
	}

	for len(s.come) > 0 {
		<-s.come
	}
	s.Fail("op", fault.Lost())
	ctx, cancel := context.WithCancel(t.Context())
	a = ask(ctx)
	<-s.come // it was carried out,
	select {
	case got := <-a:
		t.Errorf("a lost answer came: %+v", got)
	default:
	}
	cancel() // and nobody hears of it
	if got := <-a; !errors.Is(got.err, context.Canceled) {
		t.Errorf("%+v", got)
	}

	s.Fail("op", fault.Fault{BlackHole: true})
	s.Fail("op", fault.Lost())
	first, second := ask(t.Context()), ask(t.Context())
	<-s.come // the lost one; the other has met the black hole, or will find the fake closed
	s.Close()
	for _, a := range []<-chan answer{first, second} {
		if got := <-a; got.err == nil {
			t.Errorf("answered when the fake closed: %+v", got)
		}
	}
}
