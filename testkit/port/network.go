package port

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"sync"
	"syscall"
	"time"
)

// Network is one in memory, for tests in which time is simulated (it does not
// pass over real sockets). The zero value is ready; its methods are safe for
// concurrent use.
type Network struct {
	mu        sync.Mutex
	listeners map[string]*memory
	conns     map[*memoryConn]bool
	holed     bool
	swallows  string // kills the connection on which it is written
	dials     int
	abroad    int
	last      int
}

// dialTime is how long a connection into a black hole is tried.
const dialTime = 10 * time.Second

// Listen gives a listener at an address of its own.
func (n *Network) Listen() (net.Listener, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.listeners == nil {
		n.listeners, n.conns = map[string]*memory{}, map[*memoryConn]bool{}
	}
	n.last++
	l := &memory{addr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 1023 + n.last}, queue: make(chan net.Conn), done: make(chan struct{})}
	n.listeners[l.addr.String()] = l
	return l, nil
}

// Dial connects to a listener's address.
func (n *Network) Dial(ctx context.Context, _, addr string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTime)
	defer cancel()
	n.mu.Lock()
	l, holed := n.listeners[addr], n.holed
	n.dials++
	if l == nil {
		n.abroad++
	}
	n.mu.Unlock()
	if holed {
		<-ctx.Done()
		return nil, fmt.Errorf("dial %s: %w", addr, os.ErrDeadlineExceeded)
	}
	if l == nil {
		return nil, fmt.Errorf("dial %s: %w", addr, syscall.ECONNREFUSED)
	}
	near, far := net.Pipe()
	c := &memoryConn{Conn: near, n: n, at: l.addr, closed: make(chan struct{}), dead: make(chan struct{})}
	select {
	case l.queue <- &addressed{far, l.addr}:
	case <-l.done:
		return nil, fmt.Errorf("dial %s: %w", addr, syscall.ECONNREFUSED)
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.conns[c] = true
	if n.holed {
		close(c.dead)
	}
	return c, nil
}

// BlackHole swallows everything while it is on, and new connections come to
// nothing. A connection that was open stays open and dead for ever.
func (n *Network) BlackHole(on bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if on && !n.holed {
		for c := range n.conns {
			close(c.dead)
		}
		clear(n.conns)
	}
	n.holed = on
}

// Swallow kills each connection on which a text is written from now on, which
// then stays open and dead as in a black hole: all others go on. "" ends it.
func (n *Network) Swallow(text string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.swallows = text
}

// swallowed kills a connection that writes what is swallowed.
func (n *Network) swallowed(c *memoryConn, b []byte) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.swallows != "" && n.conns[c] && bytes.Contains(b, []byte(n.swallows)) {
		close(c.dead)
		delete(n.conns, c)
	}
}

// Dials is how often somebody connected, or tried to.
func (n *Network) Dials() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.dials
}

// Abroad is how often somebody tried to connect to an address at which nobody
// ever listened.
func (n *Network) Abroad() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.abroad
}

// memory is a listener of a Network.
type memory struct {
	addr  *net.TCPAddr
	queue chan net.Conn
	once  sync.Once
	done  chan struct{}
}

func (l *memory) Accept() (net.Conn, error) {
	select {
	case c := <-l.queue:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

func (l *memory) Close() error {
	l.once.Do(func() { close(l.done) })
	return nil
}

func (l *memory) Addr() net.Addr { return l.addr }

// addressed is the server's end of a connection.
type addressed struct {
	net.Conn
	at net.Addr
}

func (c *addressed) LocalAddr() net.Addr  { return c.at }
func (c *addressed) RemoteAddr() net.Addr { return c.at }

// memoryConn is the client's end.
type memoryConn struct {
	net.Conn
	n      *Network
	at     net.Addr
	once   sync.Once
	closed chan struct{}
	dead   chan struct{} // closed once nothing comes through any more
}

func (c *memoryConn) RemoteAddr() net.Addr { return c.at }

func (c *memoryConn) isDead() bool {
	select {
	case <-c.dead:
		return true
	default:
		return false
	}
}

// Write gives what is swallowed out as sent, as a kernel does.
func (c *memoryConn) Write(b []byte) (int, error) {
	c.n.swallowed(c, b)
	if c.isDead() {
		return len(b), nil
	}
	return c.Conn.Write(b)
}

// Read hears nothing more once the connection is dead, not even its end.
func (c *memoryConn) Read(b []byte) (int, error) {
	for {
		n, err := c.Conn.Read(b)
		if !c.isDead() || err != nil && os.IsTimeout(err) {
			return n, err
		}
		if err != nil {
			<-c.closed
			return 0, net.ErrClosed
		}
	}
}

func (c *memoryConn) Close() error {
	c.once.Do(func() {
		close(c.closed)
		c.n.mu.Lock()
		defer c.n.mu.Unlock()
		delete(c.n.conns, c)
	})
	return c.Conn.Close()
}
