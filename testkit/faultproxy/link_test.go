package faultproxy

import (
	"errors"
	"io"
	"net"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// echo answers every connection with what it says.
func echo(t *testing.T) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				_, _ = io.Copy(c, c)
			}()
		}
	}()
	return ln.Addr().String()
}

func TestALinkMisbehavesAsItIsTold(t *testing.T) {
	l, err := NewLink(echo(t))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	dial := func() net.Conn {
		t.Helper()
		c, err := net.Dial("tcp", l.Addr())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		return c
	}
	ask := func(c net.Conn, limit time.Duration) error {
		if err := c.SetDeadline(time.Now().Add(limit)); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Write([]byte("hello")); err != nil {
			return err
		}
		_, err := io.ReadFull(c, make([]byte, 5))
		return err
	}
	const long, short = 20 * time.Second, 100 * time.Millisecond

	c := dial()
	if err := ask(c, long); err != nil {
		t.Fatal(err)
	}
	l.BlackHole(true)
	var late net.Error
	if err := ask(c, short); !errors.As(err, &late) || !late.Timeout() {
		t.Fatalf("in a black hole: %v", err)
	}
	if err := ask(dial(), short); !errors.As(err, &late) || !late.Timeout() {
		t.Fatalf("a new connection into a black hole: %v", err)
	}
	l.BlackHole(false)
	c = dial()
	l.Slow(20) // a byte a slice
	began := time.Now()
	if err := ask(c, long); err != nil || time.Since(began) < 5*slice {
		t.Fatalf("slowed: %v after %s", err, time.Since(began))
	}
	l.Slow(0)
	l.Cut()
	if err := ask(c, long); err == nil {
		t.Fatal("a cut connection lives")
	}
	if err := ask(dial(), long); err != nil {
		t.Fatalf("after the cut: %v", err)
	}
}
