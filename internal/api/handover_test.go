package api

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// Clients on kept connections, which never repeat a request, see no failure
// while the socket changes hands several times.
func TestHandOverUnderLoad(t *testing.T) {
	const clients, handOvers = 6, 5
	first, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := first.Addr().String()
	current := serveOn(t, first)
	stopClients := make(chan struct{})
	var answered, failed atomic.Int64
	var running sync.WaitGroup
	for range clients {
		running.Go(func() {
			for {
				select {
				case <-stopClients:
					return
				default:
				}
				n, err := oneConnection(address, 40)
				answered.Add(int64(n))
				if err != nil {
					failed.Add(1)
					t.Errorf("after %d requests on a connection: %v", n, err)
					return
				}
			}
		})
	}
	for range handOvers {
		seen := answered.Load()
		waitFor(t, "the load goes on", func() bool { return answered.Load() > seen+200 || failed.Load() > 0 })
		f, err := current.Listener().(*net.TCPListener).File()
		if err != nil {
			t.Fatal(err)
		}
		passed, err := net.FileListener(f)
		f.Close()
		if err != nil {
			t.Fatal(err)
		}
		successor := serveOn(t, passed)
		ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
		if err := current.Drain(ctx); err != nil {
			t.Errorf("the drain: %v", err)
		}
		if err := current.Stop(ctx); err != nil {
			t.Errorf("the stop: %v", err)
		}
		cancel()
		current = successor
	}
	close(stopClients)
	running.Wait()
	t.Logf("%d requests over %d hand-overs", answered.Load(), handOvers)
}

func serveOn(t *testing.T, l net.Listener) *rig {
	return newRig(t, &fakeGateway{}, func(o *Options) { o.Listener = l; withKey(o) })
}

// oneConnection sends up to n requests on one connection and tells how many
// were answered. It ends early when the server asks to close.
func oneConnection(address string, n int) (int, error) {
	c, err := net.DialTimeout("tcp", address, 30*time.Second)
	if err != nil {
		return 0, err
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(60 * time.Second)); err != nil {
		return 0, err
	}
	reader := bufio.NewReader(c)
	for i := range n {
		fmt.Fprintf(c, "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer %s\r\nContent-Length: %d\r\n\r\n%s", testKey, len(ping), ping)
		res, err := http.ReadResponse(reader, nil)
		if err != nil {
			return i, err
		}
		if _, err := io.Copy(io.Discard, res.Body); err != nil {
			return i, err
		}
		if res.StatusCode != http.StatusOK {
			return i, fmt.Errorf("status %d", res.StatusCode)
		}
		if res.Close {
			return i + 1, nil
		}
	}
	return n, nil
}
