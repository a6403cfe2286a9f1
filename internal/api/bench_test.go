package api

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"runtime"
	"sort"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"hermes/internal/domain"
)

// residentMiB is the process's resident memory.
func residentMiB(b *testing.B) float64 {
	raw, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		b.Skip("no /proc/self/statm here: ", err)
	}
	pages, err := strconv.Atoi(strings.Fields(string(raw))[1])
	if err != nil {
		b.Fatal(err)
	}
	return float64(pages*os.Getpagesize()) / (1 << 20)
}

// BenchmarkStreams holds 5,000 streams open at once and reports the memory of
// the whole process, the clients' raw sockets included. The budget is 400 MiB.
func BenchmarkStreams(b *testing.B) {
	const streams = 5000
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil || limit.Cur < 2*streams+100 {
		b.Skipf("needs %d open files, %d are allowed", 2*streams+100, limit.Cur)
	}
	release := make(chan struct{})
	var open sync.WaitGroup
	open.Add(streams)
	r := newRig(b, &fakeGateway{chat: func(ctx context.Context, _ ChatRequest, on func(domain.TurnEvent)) (ChatResult, error) {
		on(domain.TurnEvent{Kind: domain.EventDelta, Text: "hello"})
		open.Done()
		select {
		case <-release:
		case <-ctx.Done():
		}
		return ChatResult{Text: "hello"}, nil
	}}, func(o *Options) { withKey(o); o.MaxConcurrent = streams })
	before := residentMiB(b)
	request := fmt.Sprintf("POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer %s\r\nContent-Length: %d\r\n\r\n%s", testKey, len(pingStream), pingStream)
	conns := make([]net.Conn, streams)
	for i := range conns {
		c, err := net.Dial("tcp", r.Addr().String())
		if err != nil {
			b.Fatal(err)
		}
		defer c.Close()
		if _, err := io.WriteString(c, request); err != nil {
			b.Fatal(err)
		}
		conns[i] = c
	}
	open.Wait()
	for b.Loop() {
		runtime.KeepAlive(conns)
	}
	after := residentMiB(b)
	b.ReportMetric(after, "MiB")
	b.ReportMetric((after-before)*1024/streams, "KiB/stream")
	close(release)
}

// BenchmarkOverhead sends 200 requests a second on kept connections to an
// instant gateway and reports the time from request to answer, and for streams
// to the first piece. The budgets are 1 ms (p50) and 5 ms (p99).
func BenchmarkOverhead(b *testing.B) {
	for name, body := range map[string]string{"document": ping, "first-token": pingStream} {
		b.Run(name, func(b *testing.B) {
			r := newRig(b, &fakeGateway{chat: func(_ context.Context, _ ChatRequest, on func(domain.TurnEvent)) (ChatResult, error) {
				on(domain.TurnEvent{Kind: domain.EventDelta, Text: "pong"})
				return ChatResult{Text: "pong"}, nil
			}}, withKey)
			tick := time.NewTicker(5 * time.Millisecond)
			defer tick.Stop()
			var took []time.Duration
			for b.Loop() {
				<-tick.C
				took = append(took, timeOne(b, r, body))
			}
			sort.Slice(took, func(i, j int) bool { return took[i] < took[j] })
			b.ReportMetric(float64(took[len(took)/2].Microseconds()), "p50-µs")
			b.ReportMetric(float64(took[len(took)*99/100].Microseconds()), "p99-µs")
		})
	}
}

func timeOne(b *testing.B, r *rig, body string) time.Duration {
	req, err := http.NewRequest("POST", r.url+"/v1/chat/completions", strings.NewReader(body))
	if err != nil {
		b.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+testKey)
	start := time.Now()
	res, err := r.client.Do(req)
	if err != nil {
		b.Fatal(err)
	}
	defer res.Body.Close()
	reader := bufio.NewReader(res.Body)
	if _, err := reader.ReadByte(); err != nil {
		b.Fatal(err)
	}
	took := time.Since(start)
	if _, err := io.Copy(io.Discard, reader); err != nil {
		b.Fatal(err)
	}
	return took
}

// BenchmarkPeerUID is the cost of finding out who a local client is.
func BenchmarkPeerUID(b *testing.B) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	defer l.Close()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		b.Fatal(err)
	}
	defer c.Close()
	s, err := l.Accept()
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	for b.Loop() {
		if _, err := peerUID(s.RemoteAddr(), s.LocalAddr()); err != nil {
			b.Fatal(err)
		}
	}
}
