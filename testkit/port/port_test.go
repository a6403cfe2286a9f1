package port

import (
	"errors"
	"net"
	"syscall"
	"testing"
)

func TestAPortStaysOursWhileNobodyListens(t *testing.T) {
	p, err := Keep("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer p.Release()
	for range 3 {
		if c, err := net.Dial("tcp", p.Addr()); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Fatalf("while it is down a connection is %v, %v; want refused", c, err)
		}
		if l, err := net.Listen("tcp", p.Addr()); err == nil {
			l.Close()
			t.Fatal("somebody else was given the port")
		}
		l, err := p.Listen()
		if err != nil {
			t.Fatal(err)
		}
		c, err := net.Dial("tcp", p.Addr())
		if err != nil {
			t.Fatal(err)
		}
		c.Close()
		l.Close()
	}
	p.Release()
	l, err := net.Listen("tcp", p.Addr())
	if err != nil {
		t.Fatalf("after it was given up: %v", err)
	}
	l.Close()
}

func TestALentPortIsFreeForWhoeverNamesIt(t *testing.T) {
	p, err := Lend("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer p.Release()
	for range 2 {
		l, err := net.Listen("tcp", p.Addr())
		if err != nil {
			t.Fatal(err)
		}
		c, err := net.Dial("tcp", p.Addr())
		if err != nil {
			t.Fatal(err)
		}
		c.Close()
		l.Close()
	}
}
