// Package port keeps a port for a server that goes away and comes back, so that
// no other process is given it in the meantime, and has a network in memory for
// tests in which time is simulated.
package port

import (
	"context"
	"fmt"
	"net"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// Port is one that stays ours. While nobody listens on it, connections to it are
// refused, as those to a server that is down. Its methods are safe for
// concurrent use.
type Port struct {
	addr   string
	once   sync.Once
	fd     int
	memory net.Listener // in place of a port; nil for a real one
}

// Open is Keep, or where l is not nil a port that l stands for, such as one of a
// Network.
func Open(addr string, l net.Listener) (*Port, error) {
	if l == nil {
		return Keep(addr)
	}
	return &Port{addr: l.Addr().String(), memory: l}, nil
}

// Keep takes an IPv4 address such as 127.0.0.1:0, for Listen. A second socket is
// bound to it and never listens (SO_REUSEPORT, socket(7)).
func Keep(addr string) (*Port, error) { return keep(addr, unix.SO_REUSEPORT) }

// Lend takes an address for a server that is another process: one that binds it
// by its number and with SO_REUSEADDR, as Go's servers do, is let in; whoever
// asks for any free port is not given this one.
func Lend(addr string) (*Port, error) { return keep(addr, unix.SO_REUSEADDR) }

func keep(addr string, option int) (*Port, error) {
	at, err := net.ResolveTCPAddr("tcp4", addr)
	if err != nil {
		return nil, err
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("no socket to keep a port with: %w", err)
	}
	to := &unix.SockaddrInet4{Port: at.Port}
	copy(to.Addr[:], at.IP.To4())
	if err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, option, 1); err == nil {
		err = unix.Bind(fd, to)
	}
	var got unix.Sockaddr
	if err == nil {
		got, err = unix.Getsockname(fd)
	}
	if err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("%s cannot be kept: %w", addr, err)
	}
	in := got.(*unix.SockaddrInet4)
	return &Port{fd: fd, addr: (&net.TCPAddr{IP: in.Addr[:], Port: in.Port}).String()}, nil
}

// Addr is the address, with its port.
func (p *Port) Addr() string { return p.addr }

// Listen listens on the port until the listener is closed; then again.
func (p *Port) Listen() (net.Listener, error) {
	if p.memory != nil {
		return p.memory, nil
	}
	c := net.ListenConfig{Control: func(_, _ string, raw syscall.RawConn) error {
		var err error
		if e := raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT, 1) }); e != nil {
			return e
		}
		return err
	}}
	return c.Listen(context.Background(), "tcp4", p.addr)
}

// Release gives the port up.
func (p *Port) Release() {
	p.once.Do(func() {
		if p.memory == nil {
			unix.Close(p.fd)
		}
	})
}
