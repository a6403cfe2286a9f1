package gateway

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// watcher is the other end of the heartbeat.
type watcher struct {
	mu     sync.Mutex
	well   bool // the gateway
	beats  int
	status int
	err    error
}

func (w *watcher) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.Method != http.MethodGet || r.URL.String() != "https://watch.example/ping/a-secret-id" {
		return nil, errors.New("asked for " + r.URL.String())
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.beats++
	if w.err != nil {
		return nil, w.err
	}
	return &http.Response{StatusCode: w.status, Status: "of the watcher", Body: io.NopCloser(strings.NewReader("")), Request: r}, nil
}

// One beat a minute while all is well, none while it is not; a watcher that is
// away is told of once, and its address never.
func TestHeartbeat(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		w := &watcher{status: 200, well: true}
		ctx, cancel := context.WithCancel(context.Background())
		h := heartbeat{address: "https://watch.example/ping/a-secret-id", client: &http.Client{Transport: w},
			well: func(context.Context) bool { w.mu.Lock(); defer w.mu.Unlock(); return w.well }, log: slog.New(slog.NewTextHandler(&log, nil))}
		done := make(chan struct{})
		go func() { defer close(done); h.run(ctx) }()
		after := func(minutes, beats int, what string, then func()) {
			t.Helper()
			time.Sleep(time.Duration(minutes)*beatEvery + time.Second) // of the bubble's clock
			synctest.Wait()
			w.mu.Lock()
			defer w.mu.Unlock()
			if w.beats != beats {
				t.Errorf("%s: %d beats, want %d", what, w.beats, beats)
			}
			w.beats = 0
			then()
		}
		after(2, 3, "well", func() { w.well = false })
		after(5, 0, "not well", func() { w.well, w.err = true, errors.New("no route to host") })
		after(3, 3, "the watcher is away", func() { w.err, w.status = nil, 503 })
		after(2, 2, "the watcher is ill", func() { w.status = 204 })
		after(2, 2, "the watcher is back", func() {})
		cancel()
		<-done
		text := log.String()
		if n := strings.Count(text, "did not get through"); n != 1 || strings.Count(text, "gets through again") != 1 || strings.Contains(text, "a-secret-id") {
			t.Errorf("the log:\n%s", text)
		}
	})
}
