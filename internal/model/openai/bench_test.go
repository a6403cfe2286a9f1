package openai_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"hermes/internal/domain"
	"hermes/internal/model"
	"hermes/internal/model/openai"
	"hermes/testkit/llm"
)

// childVariable makes the test binary a fake service in a process of its own,
// so that a benchmark measures the client alone.
const childVariable = "HERMES_TEST_FAKE_LLM"

// serveAsChild serves until standard input ends: until the parent is gone.
func serveAsChild() {
	// "stall" streams half an answer and then nothing; all else is instant.
	s, err := llm.Start(func(r llm.Request) llm.Reply {
		if r.Model == "stall" {
			return llm.Reply{Text: "one two", Fault: llm.Stall}
		}
		return llm.Instant(r)
	})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	s.KeepRequests(0)
	fmt.Println(s.URL())
	_, _ = io.Copy(io.Discard, os.Stdin)
	s.Close()
}

func startChild(b *testing.B) *openai.Client {
	b.Helper()
	cmd := exec.CommandContext(b.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), childVariable+"=1")
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		b.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { stdin.Close(); _ = cmd.Wait() })
	url, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil {
		b.Fatal(err)
	}
	transport := openai.NewTransport()
	b.Cleanup(transport.CloseIdleConnections)
	c, err := openai.New(openai.Config{Name: "fake", BaseURL: strings.TrimSpace(url), Key: key, Model: "fake-1"}, openai.Deps{Transport: transport})
	if err != nil {
		b.Fatal(err)
	}
	return c
}

// BenchmarkStreamMemory reports the memory that an open stream holds, with a
// history of 100 KB behind it. Budget: 5,000 streams on 400 MB in the whole
// gateway, of which this is the model's side.
func BenchmarkStreamMemory(b *testing.B) {
	const streams = 1000
	client := startChild(b)
	r := &model.Request{Model: "stall", Messages: []domain.Message{{Role: domain.RoleUser, Content: strings.Repeat("history ", 12_500)}}}
	var perStream float64
	for b.Loop() {
		before := inUse()
		ctx, cancel := context.WithCancel(b.Context())
		var open, closed sync.WaitGroup
		open.Add(streams)
		for range streams {
			closed.Go(func() {
				var once sync.Once
				_, _ = client.Complete(ctx, r, func(model.Delta) { once.Do(open.Done) })
			})
		}
		open.Wait()
		perStream = float64(inUse()-before) / streams
		cancel()
		closed.Wait()
	}
	b.ReportMetric(perStream, "B/stream")
}

// inUse gives the bytes of heap and stacks in use.
func inUse() int64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc + m.StackInuse)
}

// BenchmarkFirstToken reports how long the first piece of an instant answer
// takes through the client, and what of that the bare HTTP exchange takes.
func BenchmarkFirstToken(b *testing.B) {
	client := startChild(b)
	r := ask("hello")
	var took []time.Duration
	for b.Loop() {
		start := time.Now()
		var first time.Duration
		if _, err := client.Complete(b.Context(), r, func(model.Delta) {
			if first == 0 {
				first = time.Since(start)
			}
		}); err != nil {
			b.Fatal(err)
		}
		took = append(took, first)
	}
	report(b, took)
}

// BenchmarkBareHTTP is the same exchange by net/http alone, to be compared.
func BenchmarkBareHTTP(b *testing.B) {
	server, err := llm.Start(llm.Instant)
	if err != nil {
		b.Fatal(err)
	}
	defer server.Close()
	server.KeepRequests(0)
	transport := openai.NewTransport()
	defer transport.CloseIdleConnections()
	var took []time.Duration
	for b.Loop() {
		start := time.Now()
		req, err := http.NewRequestWithContext(b.Context(), http.MethodPost, server.URL()+"/chat/completions",
			strings.NewReader(`{"model":"fake-1","messages":[{"role":"user","content":"hello"}],"stream":true}`))
		if err != nil {
			b.Fatal(err)
		}
		resp, err := transport.RoundTrip(req)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := bufio.NewReader(resp.Body).ReadString('\n'); err != nil {
			b.Fatal(err)
		}
		took = append(took, time.Since(start))
		_, _ = io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
	}
	report(b, took)
}

func report(b *testing.B, took []time.Duration) {
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)/2].Microseconds()), "µs-p50")
	b.ReportMetric(float64(took[len(took)*99/100].Microseconds()), "µs-p99")
}

// BenchmarkParallel reports how many whole calls a second the client makes.
func BenchmarkParallel(b *testing.B) {
	client := startChild(b)
	b.SetParallelism(16)
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if _, err := client.Complete(b.Context(), ask("hello"), func(model.Delta) {}); err != nil {
				b.Error(err)
				return
			}
		}
	})
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "calls/s")
}
