package link

import (
	"bytes"
	"crypto/rand"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// pair is a link whose two sides are in one process.
func pair(t *testing.T) (first, second *Link) {
	t.Helper()
	a, b := net.Pipe()
	first, second = New(a, First), New(b, Second)
	t.Cleanup(func() {
		first.Close()
		second.Close()
	})
	return first, second
}

// echo listens and sends back what comes.
func echo(t *testing.T) int {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer c.Close()
				_, _ = io.Copy(c, c)
			})
		}
	})
	t.Cleanup(func() {
		ln.Close()
		wg.Wait()
	})
	return ln.Addr().(*net.TCPAddr).Port
}

func TestManyConnectionsBothWays(t *testing.T) {
	port := echo(t)
	first, second := pair(t)
	var wg sync.WaitGroup
	for i := range 20 {
		l := first
		if i%2 == 0 {
			l = second
		}
		wg.Go(func() {
			near, far := net.Pipe()
			defer near.Close()
			if err := l.Carry(far, port); err != nil {
				t.Error(err)
				return
			}
			sent := make([]byte, 3*maxPayload+i)
			_, _ = rand.Read(sent)
			go func() { _, _ = near.Write(sent) }()
			got := make([]byte, len(sent))
			if _, err := io.ReadFull(near, got); err != nil || !bytes.Equal(got, sent) {
				t.Errorf("what came back differs: %v", err)
			}
		})
	}
	wg.Wait()
}

func TestNobodyListens(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := ln.Addr().(*net.TCPAddr).Port
	ln.Close()
	first, _ := pair(t)
	near, far := net.Pipe()
	if err := first.Carry(far, port); err != nil {
		t.Fatal(err)
	}
	if _, err := near.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("got %v, want the end of the connection", err)
	}
}

func TestPauseHoldsBack(t *testing.T) {
	port := echo(t)
	first, _ := pair(t)
	near, far := net.Pipe()
	if err := first.Carry(far, port); err != nil {
		t.Fatal(err)
	}
	resume := first.Pause()
	if _, err := near.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	_ = near.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
	if n, err := near.Read(make([]byte, 1)); err == nil {
		t.Errorf("%d bytes came back through a paused link", n)
	}
	resume()
	_ = near.SetReadDeadline(time.Time{})
	if _, err := near.Read(make([]byte, 1)); err != nil {
		t.Error(err)
	}
	near.Close()
}

// A machine that loses its power says goodbye to nobody.
func TestAbandonedConnectionsStayOpen(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	a, b := net.Pipe()
	first, second := New(a, First), New(b, Second)
	near, far := net.Pipe()
	defer near.Close()
	if err := second.Carry(far, ln.Addr().(*net.TCPAddr).Port); err != nil {
		t.Fatal(err)
	}
	conn, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	bury := first.Abandon()
	second.Close()
	first.Close()
	_ = conn.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
	if _, err := conn.Read(make([]byte, 1)); err == nil || err == io.EOF {
		t.Errorf("got %v, want a connection that is silent", err)
	}
	bury()
	_ = conn.SetReadDeadline(time.Time{})
	if _, err := conn.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("got %v, want the end", err)
	}
}

// What a router forgot is lost, and neither side is told.
func TestForgottenConnectionsAreSilent(t *testing.T) {
	port := echo(t)
	first, second := pair(t)
	near, far := net.Pipe()
	defer near.Close()
	if err := second.Carry(far, port); err != nil {
		t.Fatal(err)
	}
	word := make([]byte, 1)
	if _, err := near.Write(word); err != nil {
		t.Fatal(err)
	}
	if _, err := near.Read(word); err != nil {
		t.Fatal(err)
	}
	bury := first.Forget()
	for range 2 {
		if _, err := near.Write(word); err != nil {
			t.Fatal(err)
		}
		_ = near.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
		if _, err := near.Read(word); err == nil || err == io.EOF {
			t.Errorf("got %v, want silence", err)
		}
		bury() // which the other side does not hear of either
	}
}
