package api

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"hermes/internal/domain"
)

// waitFor polls a condition that another goroutine brings about, within a
// generous bound.
func waitFor(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.NewTimer(30 * time.Second)
	defer deadline.Stop()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-deadline.C:
			t.Fatal("it never came to this: " + what)
		case <-tick.C:
		}
	}
}

func TestPortTakenThenFreed(t *testing.T) {
	thief, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := thief.Addr().(*net.TCPAddr).Port
	r := unstarted(&fakeGateway{}, func(o *Options) { o.Config.Port = port })
	startErr := r.Start()
	stopAtEnd(t, r)
	if !domain.IsCode(startErr, domain.Conflict) || !errors.Is(startErr, syscall.EADDRINUSE) {
		t.Fatalf("%v", startErr)
	}
	message := domain.MessageOf(startErr)
	if !strings.Contains(message, "API_SERVER_PORT already in use: 127.0.0.1:"+strconv.Itoa(port)) || !strings.Contains(message, "PID "+strconv.Itoa(os.Getpid())) {
		t.Errorf("%s", message)
	}
	part := r.health.Parts()[0]
	if part.State != "down" || part.Code != "port_in_use" || part.Message != message {
		t.Errorf("%+v", part)
	}
	thief.Close()
	waitFor(t, "the port is bound once it is free", func() bool { return r.Addr() != nil })
	r.url = "http://" + r.Addr().String()
	if res, _ := r.call(t, "GET", "/health", ""); res.StatusCode != 200 {
		t.Errorf("%d", res.StatusCode)
	}
	if part := r.health.Parts()[0]; part.State != "ok" || part.Evidence["address"] != r.url {
		t.Errorf("%+v", part)
	}
}

func TestStopWhileThePortIsTaken(t *testing.T) {
	thief, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer thief.Close()
	r := unstarted(&fakeGateway{}, func(o *Options) { o.Config.Port = thief.Addr().(*net.TCPAddr).Port })
	if r.Start() == nil {
		t.Fatal("it bound a taken port")
	}
	stopAtEnd(t, r)
}

func TestProfileOf(t *testing.T) {
	for _, c := range []struct{ args, want string }{
		{"/usr/bin/hermes -p liam gateway run", "liam"},
		{"hermes gateway run --profile drj", "drj"},
		{"hermes --profile=jeff gateway", "jeff"},
		{"hermes gateway run", "default"},
		{"python3 -m http.server", ""},
		{"", ""},
	} {
		if got := profileOf(strings.Fields(c.args)); got != c.want {
			t.Errorf("%q: %q", c.args, got)
		}
	}
}

// A stream and a kept connection live through a drain, while a successor on
// the same socket takes every new connection.
func TestDrainLosesNothing(t *testing.T) {
	release := make(chan struct{})
	began := make(chan struct{}, 1)
	old := newRig(t, &fakeGateway{chat: func(_ context.Context, req ChatRequest, on func(domain.TurnEvent)) (ChatResult, error) {
		if !req.Stream {
			return ChatResult{Text: "old"}, nil
		}
		on(domain.TurnEvent{Kind: domain.EventDelta, Text: "first "})
		began <- struct{}{}
		<-release
		on(domain.TurnEvent{Kind: domain.EventDelta, Text: "second"})
		return ChatResult{Text: "first second"}, nil
	}}, nil)
	stream, err := http.Post(old.url+"/v1/chat/completions", "application/json", strings.NewReader(pingStream))
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Body.Close()
	<-began
	kept := old.dial(t)
	reader := bufio.NewReader(kept)
	exchange := func() *http.Response {
		fmt.Fprintf(kept, "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n%s", len(ping), ping)
		res, err := http.ReadResponse(reader, nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.Copy(io.Discard, res.Body); err != nil {
			t.Fatal(err)
		}
		return res
	}
	if res := exchange(); res.StatusCode != 200 || res.Close {
		t.Fatalf("before the drain: %d, close %v", res.StatusCode, res.Close)
	}

	f, err := old.Listener().(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	passed, err := net.FileListener(f)
	f.Close()
	if err != nil {
		t.Fatal(err)
	}
	successor := newRig(t, &fakeGateway{chat: func(context.Context, ChatRequest, func(domain.TurnEvent)) (ChatResult, error) {
		return ChatResult{Text: "new"}, nil
	}}, func(o *Options) { o.Listener = passed })

	drained := make(chan error, 1)
	go func() { drained <- old.Drain(context.Background()) }()
	<-old.drain
	if res := exchange(); res.StatusCode != 200 || !res.Close {
		t.Errorf("in the drain: %d, close %v", res.StatusCode, res.Close)
	}
	// Until the old one's Accept rests either may take a connection; both answer.
	waitFor(t, "new connections reach the successor", func() bool {
		successor.client.CloseIdleConnections()
		_, body := successor.call(t, "POST", "/v1/chat/completions", ping)
		return strings.Contains(body, "new")
	})
	close(release)
	raw, err := io.ReadAll(stream.Body)
	if err != nil || !strings.Contains(string(raw), "second") || !strings.Contains(string(raw), "[DONE]") {
		t.Errorf("the stream was cut: %v %s", err, raw)
	}
	stream.Body.Close()
	http.DefaultClient.CloseIdleConnections()
	if err := <-drained; err != nil {
		t.Error(err)
	}
}

func TestStopWaitsForRequestsAndThenCuts(t *testing.T) {
	began := make(chan struct{})
	r := newRig(t, &fakeGateway{chat: func(ctx context.Context, _ ChatRequest, _ func(domain.TurnEvent)) (ChatResult, error) {
		close(began)
		<-ctx.Done()
		return ChatResult{}, ctx.Err()
	}}, nil)
	answered := make(chan error, 1)
	go func() {
		res, err := r.client.Post(r.url+"/v1/chat/completions", "application/json", strings.NewReader(ping))
		if err == nil {
			res.Body.Close()
		}
		answered <- err
	}()
	<-began
	idle := r.dial(t)
	fmt.Fprintf(idle, "GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
	if _, err := http.ReadResponse(bufio.NewReader(idle), nil); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	if err := r.Stop(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Stop: %v", err)
	}
	if err := <-answered; err == nil {
		t.Error("the stuck request got an answer")
	}
	if _, err := idle.Read(make([]byte, 1)); err == nil {
		t.Error("the idle connection lives")
	}
	if _, err := net.Dial("tcp", r.Addr().String()); err == nil {
		t.Error("the socket still listens")
	}
}

func TestEndlessStreamsEndAtTheDrain(t *testing.T) {
	began := make(chan struct{}, 1)
	r := newRig(t, &fakeGateway{}, func(o *Options) {
		o.Mounts = []Mount{{Pattern: "GET /endless", UntilDrain: true, Handler: http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
			w.Header().Set("Connection", "close")
			w.WriteHeader(200)
			if err := http.NewResponseController(w).Flush(); err != nil {
				t.Error(err)
			}
			began <- struct{}{}
			<-req.Context().Done()
		})}}
	})
	res, err := r.client.Get(r.url + "/endless")
	if err != nil {
		t.Fatal(err)
	}
	<-began
	c := r.dial(t)
	reader := bufio.NewReader(c)
	fmt.Fprintf(c, "GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
	if _, err := http.ReadResponse(reader, nil); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	drained := make(chan error, 1)
	go func() { drained <- r.Drain(ctx) }()
	if _, err := io.ReadAll(res.Body); err != nil {
		t.Errorf("it did not end cleanly: %v", err)
	}
	res.Body.Close()
	if _, err := reader.Discard(reader.Buffered()); err != nil {
		t.Fatal(err)
	}
	fmt.Fprintf(c, "GET /endless HTTP/1.1\r\nHost: localhost\r\n\r\n")
	again, err := http.ReadResponse(reader, nil)
	if err != nil || again.StatusCode != 503 || !again.Close {
		t.Errorf("while draining: %v %v", again, err)
	}
	if err := <-drained; err != nil {
		t.Error(err)
	}
}
