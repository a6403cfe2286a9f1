package faultproxy

import (
	"net"
	"sync"
	"time"
)

// Link stands between a client and a server and passes bytes on, whatever they
// mean, until it is told to misbehave as networks do. Its methods are safe for
// concurrent use.
type Link struct {
	target string
	ln     net.Listener
	work   sync.WaitGroup

	mu      sync.Mutex
	conns   map[net.Conn]bool
	closed  bool
	held    bool
	rate    int           // bytes a second; 0 means no limit
	changed chan struct{} // closed when held, rate or closed changes
}

// NewLink starts a link to a server's address, on 127.0.0.1.
func NewLink(target string) (*Link, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	l := &Link{target: target, ln: ln, conns: map[net.Conn]bool{}, changed: make(chan struct{})}
	l.work.Go(l.accept)
	return l, nil
}

// Addr is where the link listens.
func (l *Link) Addr() string { return l.ln.Addr().String() }

// Close ends the link, cuts what goes over it and waits for its goroutines.
func (l *Link) Close() {
	l.ln.Close()
	l.change(func() { l.closed = true })
	l.Cut()
	l.work.Wait()
}

// BlackHole swallows everything while it is on: connections open and stay open,
// and nothing comes through in either direction.
func (l *Link) BlackHole(on bool) { l.change(func() { l.held = on }) }

// Slow lets through so many bytes a second of each direction of each connection;
// 0 takes the limit away.
func (l *Link) Slow(bytesPerSecond int) { l.change(func() { l.rate = bytesPerSecond }) }

// Cut resets every connection; later ones live.
func (l *Link) Cut() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for c := range l.conns {
		if t, ok := c.(*net.TCPConn); ok {
			_ = t.SetLinger(0) // a reset is nicer, a close will do
		}
		c.Close()
	}
}

func (l *Link) change(f func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	f()
	close(l.changed)
	l.changed = make(chan struct{})
}

func (l *Link) accept() {
	for {
		c, err := l.ln.Accept()
		if err != nil {
			return
		}
		l.work.Go(func() { l.join(c) })
	}
}

// keep notes a connection so that it can be cut; false when the link is closed.
func (l *Link) keep(c net.Conn) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		c.Close()
		return false
	}
	l.conns[c] = true
	return true
}

func (l *Link) drop(c net.Conn) {
	c.Close()
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.conns, c)
}

// join passes on one connection until either side ends it.
func (l *Link) join(client net.Conn) {
	if !l.keep(client) {
		return
	}
	defer l.drop(client)
	server, err := net.Dial("tcp", l.target)
	if err != nil || !l.keep(server) {
		return
	}
	defer l.drop(server)
	var both sync.WaitGroup
	both.Go(func() { l.pass(server, client) })
	both.Go(func() { l.pass(client, server) })
	both.Wait()
}

// pass copies one direction, and ends both when it is over.
func (l *Link) pass(to, from net.Conn) {
	defer to.Close()
	defer from.Close()
	buf := make([]byte, 32<<10)
	for {
		n, err := from.Read(buf)
		for sent := 0; sent < n; {
			k := l.admit(n - sent)
			if k == 0 {
				return
			}
			if _, werr := to.Write(buf[sent : sent+k]); werr != nil {
				return
			}
			sent += k
		}
		if err != nil {
			return
		}
	}
}

// Slices of a slowed connection.
const slice = 50 * time.Millisecond

// admit waits until some of n bytes may pass, and says how many; 0 when the link
// is closed.
func (l *Link) admit(n int) int {
	for {
		l.mu.Lock()
		held, rate, closed, changed := l.held, l.rate, l.closed, l.changed
		l.mu.Unlock()
		switch {
		case closed:
			return 0
		case held:
			<-changed
		case rate == 0:
			return n
		default:
			t := time.NewTimer(slice)
			select {
			case <-t.C:
				return min(n, max(1, int(int64(rate)*int64(slice)/int64(time.Second))))
			case <-changed:
				t.Stop()
			}
		}
	}
}
