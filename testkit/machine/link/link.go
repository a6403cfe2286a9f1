// Package link carries TCP connections between a test and the machine that it
// boots, over one byte channel (a virtio serial port), since that machine has no
// network but its own loopback: a connection that is handed to Carry on one side
// is made to 127.0.0.1 on the other.
package link

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

// A frame is a header of 9 bytes (kind, connection, length of what follows) and
// its payload.
const (
	kindOpen  = 'O' // payload: the port to connect to, 2 bytes
	kindData  = 'D'
	kindClose = 'C'

	headerSize = 9
	maxPayload = 32 << 10
	maxQueued  = 256 // frames that wait for a connection's slow reader
	dialTime   = 10 * time.Second
	ownBit     = 1 << 31 // of connections that the Second side began
)

// Side tells the two ends of a link apart, so that they number connections
// differently.
type Side uint32

// The two sides.
const (
	First  Side = 0
	Second Side = ownBit
)

// Link is one end. Its methods are safe for concurrent use.
type Link struct {
	channel io.ReadWriteCloser
	side    Side
	writing sync.Mutex // held for a whole frame, and by Pause
	wg      sync.WaitGroup

	mu     sync.Mutex
	conns  map[uint32]*carried
	next   uint32
	closed bool
	done   chan struct{}
	left   bool // connections stay open when the link ends; see Abandon
}

// carried is one connection of this side.
type carried struct {
	conn  net.Conn
	queue chan []byte   // to be written to it
	gone  chan struct{} // closed with it
	once  sync.Once
	// silent tells that the other side must not hear of it any more; see Forget.
	silent atomic.Bool
}

func (c *carried) close() {
	c.once.Do(func() {
		close(c.gone)
		c.conn.Close()
	})
}

// New begins to serve the channel; Close ends that.
func New(channel io.ReadWriteCloser, side Side) *Link {
	l := &Link{channel: channel, side: side, conns: map[uint32]*carried{}, done: make(chan struct{})}
	l.wg.Go(l.read)
	return l
}

// Done is closed when the channel has ended.
func (l *Link) Done() <-chan struct{} { return l.done }

// Carry connects conn to 127.0.0.1:port on the other side. It returns at once;
// where nobody listens there, conn is closed.
func (l *Link) Carry(conn net.Conn, port int) error {
	l.mu.Lock()
	l.next++
	id := l.next | uint32(l.side)
	c := l.add(id, conn)
	l.mu.Unlock()
	if c == nil {
		conn.Close()
		return net.ErrClosed
	}
	if err := l.send(kindOpen, id, binary.BigEndian.AppendUint16(nil, uint16(port))); err != nil {
		l.drop(id)
		return err
	}
	l.serve(id, c)
	return nil
}

// Listen carries every connection to 127.0.0.1:port of this side to the same
// port of the other, until the link is closed. onError is told why it ended
// before that.
func (l *Link) Listen(port int, onError func(error)) error {
	ln, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
	if err != nil {
		return err
	}
	go func() {
		<-l.done
		ln.Close()
	}()
	go func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				if !errors.Is(err, net.ErrClosed) {
					onError(err)
				}
				return
			}
			_ = l.Carry(conn, port) // the client sees a closed connection
		}
	}()
	return nil
}

// Pause holds back everything that this side sends, until the function that it
// returns is called: a port that sleeps forgets what comes in.
func (l *Link) Pause() (resume func()) {
	l.writing.Lock()
	return l.writing.Unlock
}

// Forget drops every connection of this side, as a router does that forgets what
// went through it: what the other side sends on them is lost, and nobody is told.
// It gives the function that closes the connections on this side.
func (l *Link) Forget() (bury func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	left := l.conns
	l.conns = map[uint32]*carried{}
	for _, c := range left {
		c.silent.Store(true)
	}
	return func() {
		for _, c := range left {
			c.close()
		}
	}
}

// Abandon makes the connections of this side outlive the link, as those of a
// machine do that lost its power: nobody says goodbye. It gives the function that
// closes them at last.
func (l *Link) Abandon() (bury func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.left = true
	var left []*carried
	for _, c := range l.conns {
		left = append(left, c)
	}
	return func() {
		for _, c := range left {
			c.close()
		}
	}
}

// Close ends the link and its connections, and waits for its goroutines. Those of
// abandoned connections end when these are closed.
func (l *Link) Close() {
	l.channel.Close()
	l.end()
	l.mu.Lock()
	left := l.left
	l.mu.Unlock()
	if !left {
		l.wg.Wait()
	}
}

// add puts a connection on the list; the caller holds mu. nil when the link has ended.
func (l *Link) add(id uint32, conn net.Conn) *carried {
	if l.closed {
		return nil
	}
	c := &carried{conn: conn, queue: make(chan []byte, maxQueued), gone: make(chan struct{})}
	l.conns[id] = c
	return c
}

// drop forgets a connection and closes it.
func (l *Link) drop(id uint32) {
	l.mu.Lock()
	c := l.conns[id]
	delete(l.conns, id)
	l.mu.Unlock()
	if c != nil {
		c.close()
	}
}

// serve copies both ways until either side closes.
func (l *Link) serve(id uint32, c *carried) {
	l.wg.Go(func() {
		for {
			select {
			case b := <-c.queue:
				if b == nil {
					l.drop(id)
					return
				}
				if _, err := c.conn.Write(b); err != nil {
					l.drop(id)
				}
			case <-c.gone:
				return
			}
		}
	})
	l.wg.Go(func() {
		buf := make([]byte, maxPayload)
		for {
			n, err := c.conn.Read(buf)
			if n > 0 && !c.silent.Load() && l.send(kindData, id, buf[:n]) != nil {
				return
			}
			if err != nil {
				if c.silent.Load() {
					return
				}
				_ = l.send(kindClose, id, nil) // the link has ended otherwise
				l.mu.Lock()
				ended := l.closed
				l.mu.Unlock()
				if !ended {
					l.drop(id)
				}
				return
			}
		}
	})
}

func (l *Link) send(kind byte, id uint32, payload []byte) error {
	frame := make([]byte, headerSize, headerSize+len(payload))
	frame[0] = kind
	binary.BigEndian.PutUint32(frame[1:], id)
	binary.BigEndian.PutUint32(frame[5:], uint32(len(payload)))
	l.writing.Lock()
	defer l.writing.Unlock()
	_, err := l.channel.Write(append(frame, payload...))
	return err
}

// read takes in frames until the channel ends.
func (l *Link) read() {
	defer l.end()
	var header [headerSize]byte
	for {
		if _, err := io.ReadFull(l.channel, header[:]); err != nil {
			return
		}
		id, n := binary.BigEndian.Uint32(header[1:]), binary.BigEndian.Uint32(header[5:])
		if n > maxPayload {
			return
		}
		payload := make([]byte, n)
		if _, err := io.ReadFull(l.channel, payload); err != nil {
			return
		}
		l.take(header[0], id, payload)
	}
}

// take acts on one frame. It never waits for a connection: one whose reader is
// too slow is closed.
func (l *Link) take(kind byte, id uint32, payload []byte) {
	if kind == kindOpen && len(payload) == 2 {
		port := int(binary.BigEndian.Uint16(payload))
		there, here := net.Pipe()
		l.mu.Lock()
		c := l.add(id, here)
		l.mu.Unlock()
		if c != nil {
			l.serve(id, c)
			l.wg.Go(func() { join(there, port) })
		}
		return
	}
	l.mu.Lock()
	c := l.conns[id]
	l.mu.Unlock()
	if c == nil {
		return
	}
	if kind == kindClose {
		payload = nil // after what is queued
	}
	select {
	case c.queue <- payload:
	default:
		l.drop(id)
	}
}

// join connects one end of a pipe to a port of this side.
func join(pipe net.Conn, port int) {
	defer pipe.Close()
	conn, err := net.DialTimeout("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)), dialTime)
	if err != nil {
		return
	}
	defer conn.Close()
	var both sync.WaitGroup
	both.Go(func() {
		_, _ = io.Copy(conn, pipe)
		conn.Close()
	})
	both.Go(func() {
		_, _ = io.Copy(pipe, conn)
		pipe.Close()
	})
	both.Wait()
}

// end closes all connections, unless they were abandoned.
func (l *Link) end() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return
	}
	l.closed = true
	close(l.done)
	if l.left {
		return
	}
	for _, c := range l.conns {
		c.close()
	}
}

// String names the link in errors.
func (l *Link) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return fmt.Sprintf("link with %d connections", len(l.conns))
}
