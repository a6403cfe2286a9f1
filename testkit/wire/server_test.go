package wire_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"hermes/testkit/fault"
	"hermes/testkit/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fake says hello, and how often it did.
type fake struct {
	*wire.Server
	mu     sync.Mutex
	said   int
	darken int
}

func start(t *testing.T) *fake {
	t.Helper()
	f := &fake{}
	var err error
	f.Server, err = wire.New(wire.Options{Name: "demo", State: &f.mu, Dark: func() { f.mu.Lock(); defer f.mu.Unlock(); f.darken++ }})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(f.Close)
	if err = f.Start(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		f.Serve(w, r, "hello", "", func(w http.ResponseWriter) {
			f.mu.Lock()
			defer f.mu.Unlock()
			f.said++
			f.Touch()
			io.WriteString(w, "hello")
		})
	})); err != nil {
		t.Fatal(err)
	}
	return f
}

func (f *fake) ask() (string, error) {
	c := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	res, err := c.Get(f.URL())
	if err != nil {
		return "", err
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	return string(b), err
}

// A server that goes dark refuses connections at an address that stays its own,
// and knows what it knew when it comes back.
func TestGoesDarkAndComesBack(t *testing.T) {
	f := start(t)
	addr := f.Addr()
	for round := range 3 {
		if text, err := f.ask(); text != "hello" || err != nil {
			t.Fatalf("round %d: %q, %v", round, text, err)
		}
		f.GoDark()
		if _, err := f.ask(); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("while it is dark: %v", err)
		}
		if f.Enter() != nil {
			t.Error("a connection was let in while it is dark")
		}
		for range 2 { // twice is once
			if err := f.ComeBack(); err != nil {
				t.Fatal(err)
			}
		}
		f.mu.Lock()
		said, darken := f.said, f.darken
		f.mu.Unlock()
		if f.Addr() != addr || said != round+1 || darken != round+1 {
			t.Errorf("it came back at %s having said %d, gone dark %d times", f.Addr(), said, darken)
		}
	}
}

// What is waited for is seen as soon as it is, and a wait ends with its context
// and with the server.
func TestWaits(t *testing.T) {
	f := start(t)
	seen := make(chan error, 1)
	go func() { seen <- f.Until(t.Context(), func() bool { return f.said == 2 }) }()
	defer f.Fail("hello", fault.CutBefore())() // is counted, and not said
	for range 3 {
		_, _ = f.ask() // the first is cut
	}
	if err := <-seen; err != nil {
		t.Error(err)
	}
	if err := f.WaitCalls(t.Context(), "hello", 3); err != nil || f.Calls("hello") != 3 || f.Calls("other") != 0 {
		t.Errorf("%d calls, %v", f.Calls("hello"), err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if err := f.WaitCalls(ctx, "hello", 99); !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
	go func() { seen <- f.Until(t.Context(), func() bool { return false }) }()
	f.Close()
	f.Close() // twice is once
	if err := <-seen; err == nil || !strings.Contains(err.Error(), "demo fake: the server was closed") {
		t.Error(err)
	}
	if err := f.Until(t.Context(), func() bool { return true }); err != nil {
		t.Errorf("what holds is seen afterwards too: %v", err)
	}
	if !f.Closed() {
		t.Error("it does not know that it is closed")
	}
}

// Close waits for connections that were taken over.
func TestCloseWaits(t *testing.T) {
	f := start(t)
	leave := f.Enter()
	closed := make(chan struct{})
	go func() {
		f.Close()
		close(closed)
	}()
	<-f.Done()
	select {
	case <-closed:
		t.Error("it did not wait")
	default:
	}
	leave()
	<-closed
}
