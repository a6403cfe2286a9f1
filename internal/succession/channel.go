package succession

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"syscall"
	"time"

	"hermes/internal/domain"
)

// protocol is the version of the hand-over's messages. Unknown fields are
// ignored, so only a change of meaning raises it.
const protocol = 1

// The messages of a hand-over, in their order. P is the predecessor, S the
// successor. Until P has read "owning" it gives up nothing.
const (
	// msgLaunched comes from the process in between; see launch.
	msgLaunched = "launched"

	msgHello  = "hello"  // P: what there is to take over, with the descriptors
	msgReady  = "ready"  // S: I could serve, and no part is worse than yours
	msgRefuse = "refuse" // S: I cannot, for this reason
	msgOwn    = "own"    // P: serve
	msgBusy   = "busy"   // S: not yet; I bring the ledger up to date (any number of times)
	msgOwning = "owning" // S: I serve
	msgYours  = "yours"  // P: I have let go of what only one may have (polls, credentials)
)

// message is one line of JSON on the channel.
type message struct {
	Type    string   `json:"type"`
	Version int      `json:"v"`
	PID     int      `json:"pid,omitempty"`
	Release string   `json:"release,omitempty"` // the program's version
	Reason  string   `json:"reason,omitempty"`
	Code    string   `json:"code,omitempty"` // of the reason
	Files   []string `json:"files,omitempty"`
	Working []string `json:"working,omitempty"`
	Elders  []Elder  `json:"elders,omitempty"`
	Stored  []string `json:"stored,omitempty"`
}

// Bounds of the channel.
const (
	maxMessage = 256 << 10 // bytes of one message
	maxRights  = 8         // descriptors of one message
)

// channel carries messages and descriptors between two processes over a Unix
// stream socket; see unix(7), SCM_RIGHTS. One goroutine uses it at a time.
type channel struct {
	conn   *net.UnixConn
	buf    []byte
	rights []int
}

// send writes a message, with descriptors where given, before ctx ends.
func (c *channel) send(ctx context.Context, m message, fds ...int) error {
	m.Version = protocol
	text, err := json.Marshal(m)
	if err != nil {
		return err
	}
	var oob []byte
	if len(fds) > 0 {
		oob = syscall.UnixRights(fds...)
	}
	defer c.bound(ctx, c.conn.SetWriteDeadline)()
	text = append(text, '\n')
	n, _, err := c.conn.WriteMsgUnix(text, oob, nil)
	for err == nil && n < len(text) {
		text = text[n:]
		n, err = c.conn.Write(text)
	}
	return c.explain(ctx, err)
}

// receive reads the next message and the descriptors that came with it.
func (c *channel) receive(ctx context.Context) (m message, fds []int, err error) {
	defer c.bound(ctx, c.conn.SetReadDeadline)()
	for {
		if i := bytes.IndexByte(c.buf, '\n'); i >= 0 {
			line := c.buf[:i]
			c.buf = c.buf[i+1:]
			fds, c.rights = c.rights, nil
			if err := json.Unmarshal(line, &m); err != nil {
				closeAll(fds)
				return m, nil, domain.E(domain.Invalid, err, "the other side of the hand-over sent what is no message")
			}
			if m.Version != protocol {
				closeAll(fds)
				return m, nil, domain.E(domain.Conflict, nil, "the other side speaks version %d of the hand-over, this program version %d; stop the gateway and start it again", m.Version, protocol)
			}
			return m, fds, nil
		}
		if len(c.buf) > maxMessage {
			return m, nil, domain.E(domain.Invalid, nil, "the other side of the hand-over sent too much")
		}
		if err := c.fill(); err != nil {
			return m, nil, c.explain(ctx, err)
		}
	}
}

// fill reads what has come.
func (c *channel) fill() error {
	text, oob := make([]byte, 32<<10), make([]byte, syscall.CmsgSpace(4*maxRights))
	n, r, _, _, err := c.conn.ReadMsgUnix(text, oob)
	if err == nil && n == 0 && r == 0 {
		err = io.EOF
	}
	if err != nil {
		return err
	}
	c.buf = append(c.buf, text[:n]...)
	msgs, err := syscall.ParseSocketControlMessage(oob[:r])
	if err != nil {
		return err
	}
	for i := range msgs {
		fds, err := syscall.ParseUnixRights(&msgs[i])
		if err != nil {
			continue // credentials and the like
		}
		for _, fd := range fds {
			syscall.CloseOnExec(fd)
		}
		c.rights = append(c.rights, fds...)
	}
	return nil
}

// bound makes the operation end with ctx, and gives what lifts that again.
func (c *channel) bound(ctx context.Context, set func(time.Time) error) (lift func()) {
	_ = set(time.Time{})
	stop := context.AfterFunc(ctx, func() { _ = set(time.Unix(1, 0)) })
	return func() { stop() }
}

func (c *channel) explain(ctx context.Context, err error) error {
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return domain.E(domain.Timeout, context.Cause(ctx), "the other side of the hand-over did not answer in time")
	case errors.Is(err, io.EOF), errors.Is(err, syscall.EPIPE), errors.Is(err, syscall.ECONNRESET):
		return errGone
	}
	return domain.E(domain.Unavailable, err, "the channel of the hand-over broke")
}

// errGone says that the other process ended or closed the channel.
var errGone error = domain.E(domain.Cancelled, nil, "the other side of the hand-over is gone")

func (c *channel) close() {
	closeAll(c.rights)
	c.rights = nil
	_ = c.conn.Close()
}

func closeAll(fds []int) {
	for _, fd := range fds {
		_ = syscall.Close(fd)
	}
}
