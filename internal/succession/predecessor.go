package succession

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"os"
	"slices"
	"strings"
	"syscall"

	"hermes/internal/domain"
	"hermes/internal/home"
)

// Legacy is what other processes left for this one: the service manager's
// store, the program that this process was before an execve, or a predecessor
// that still serves and waits for us. The zero Legacy is nothing.
type Legacy struct {
	Sockets []Socket
	// Elders are processes that have handed over and still end their work.
	Elders []Elder
	// Waiting is the predecessor that serves until this process does; nil where
	// there is none.
	Waiting *Predecessor
	// Became says that this process went on as another program (execve).
	Became bool
	lock   *os.File
	stored []string
}

// Predecessor is the process that hands over, as its successor sees it. One
// goroutine uses it.
type Predecessor struct {
	PID     int
	Working []string // the parts that work there
	ch      *channel
}

// Inherit takes what environ names. The descriptors can be taken once only, so
// it is called once, at the start. ErrLaunched says that this process is to end
// at once; another error, that a predecessor waits whom this program does not
// understand.
func Inherit(ctx context.Context, environ []string) (*Legacy, error) {
	getenv := func(name string) string {
		for i := len(environ) - 1; i >= 0; i-- {
			if v, ok := strings.CutPrefix(environ[i], name+"="); ok {
				return v
			}
		}
		return ""
	}
	l := &Legacy{Sockets: ListenFDs(getenv)}
	text := getenv(handoverEnv)
	if text == "" {
		return l, nil
	}
	var left legacy
	if err := json.Unmarshal([]byte(text), &left); err != nil || left.Version != protocol {
		return l, domain.E(domain.Conflict, err, "what the process before this one left cannot be understood; stop the gateway and start it again")
	}
	switch {
	case left.Launch && left.PID == os.Getppid():
		return l, launch(ctx, left, environ)
	case left.Channel > 0 && !left.Launch:
		syscall.CloseOnExec(left.Channel)
		conn, err := unixConn(left.Channel)
		if err != nil {
			return l, domain.E(domain.Internal, err, "the channel of the hand-over cannot be used")
		}
		return l, l.Meet(ctx, conn)
	case left.Channel == 0 && left.PID == os.Getpid():
		l.become(left)
	}
	return l, nil // left for another process, whose environment we got
}

// become takes what this process kept over its execve.
func (l *Legacy) become(left legacy) {
	l.Became, l.Elders, l.stored = true, left.Elders, left.Stored
	if left.Lock > 0 {
		syscall.CloseOnExec(left.Lock)
		l.lock = os.NewFile(uintptr(left.Lock), "gateway.lock")
	}
	l.adopt("api", left.API)
	l.adopt("control", left.Control)
	for name, fd := range left.Others {
		l.adopt(name, fd)
	}
}

// adopt makes a socket of a descriptor; 0 is none.
func (l *Legacy) adopt(name string, fd int) {
	if fd <= 0 {
		return
	}
	if ln, err := listenerOf(fd); err == nil {
		l.Sockets = append(l.Sockets, Socket{Name: name, Listener: ln, Stored: slices.Contains(l.stored, name)})
	}
}

// Meet hears from a predecessor what there is to take over.
func (l *Legacy) Meet(ctx context.Context, conn *net.UnixConn) error {
	p := &Predecessor{ch: &channel{conn: conn}}
	l.Waiting = p
	m, fds, err := p.ch.receive(ctx)
	if err != nil {
		return err
	}
	if m.Type != msgHello {
		closeAll(fds)
		if m.Type == msgRefuse {
			return domain.E(domain.Code(m.Code), nil, "%s", m.Reason)
		}
		return domain.E(domain.Invalid, nil, "the predecessor began with %q", m.Type)
	}
	p.PID, p.Working, l.Elders, l.stored = m.PID, m.Working, m.Elders, m.Stored
	for i, fd := range fds {
		name := ""
		if i < len(m.Files) {
			name = m.Files[i]
		}
		switch name {
		case "lock":
			l.lock = os.NewFile(uintptr(fd), "gateway.lock")
		case "", "control":
			_ = syscall.Close(fd)
		default:
			l.adopt(name, fd)
		}
	}
	if l.lock == nil {
		return domain.E(domain.Invalid, nil, "the predecessor did not pass the profile's lock")
	}
	return nil
}

// Take gives the first socket that fits and forgets it; nil when none does.
func (l *Legacy) Take(fits func(Socket) bool) *Socket {
	if l == nil {
		return nil
	}
	for i, s := range l.Sockets {
		if fits(s) {
			l.Sockets = slices.Delete(l.Sockets, i, i+1)
			return &s
		}
	}
	return nil
}

// Rest closes the sockets that nobody took, and gives their names.
func (l *Legacy) Rest() (stored []string) {
	if l == nil {
		return nil
	}
	for _, s := range l.Sockets {
		_ = s.Listener.Close()
		if s.Stored {
			stored = append(stored, s.Name)
		}
	}
	l.Sockets = nil
	return stored
}

// Claim takes the right to serve a profile, where the predecessor passed it on
// without a moment in which nobody held it. Otherwise it is as the function
// Claim. The records name this process only once it serves; see Instance.Enter.
func (l *Legacy) Claim(p home.Profile) (*Instance, error) {
	if l == nil || l.lock == nil {
		return Claim(p)
	}
	same, err := sameFile(l.lock, p.LockFile())
	if err != nil || !same {
		return nil, domain.E(domain.Conflict, err, "the predecessor serves another profile, or %s was replaced while it ran; stop it and start again", p.LockFile())
	}
	i := &Instance{profile: p, lock: l.lock, Record: Self(p.Home, p.Name)}
	l.lock = nil
	return i, nil
}

func sameFile(f *os.File, path string) (bool, error) {
	a, err := f.Stat()
	if err != nil {
		return false, err
	}
	b, err := os.Stat(path)
	return err == nil && os.SameFile(a, b), err
}

// Enter names this process in the records of the profile.
func (i *Instance) Enter() error {
	if err := i.write(); err != nil {
		return domain.E(domain.Unavailable, err, "the PID file cannot be written; is the home folder writable and the disk not full?")
	}
	return nil
}

// Pass lets go of the right without ending it: another process has it by the
// same lock. The records are left to that one.
func (i *Instance) Pass() { i.lock.Close() }

// Ready says that this process could serve; release is its version.
func (p *Predecessor) Ready(ctx context.Context, release string) error {
	return p.ch.send(ctx, message{Type: msgReady, PID: os.Getpid(), Release: release})
}

// Refuse says why this process cannot take over.
func (p *Predecessor) Refuse(ctx context.Context, why error) {
	_ = p.ch.send(ctx, message{Type: msgRefuse, Reason: domain.MessageOf(why), Code: string(domain.CodeOf(why))})
	p.ch.close()
}

// AwaitOwn returns when the predecessor says that this process is to serve. A
// predecessor that went away first took its wish with it.
func (p *Predecessor) AwaitOwn(ctx context.Context) error {
	m, fds, err := p.ch.receive(ctx)
	closeAll(fds)
	switch {
	case errors.Is(err, errGone):
		return domain.E(domain.Cancelled, nil, "the predecessor (PID %d) ended, or no longer wants to hand over", p.PID)
	case err != nil:
		return err
	case m.Type != msgOwn:
		return domain.E(domain.Invalid, nil, "the predecessor said %q where it should hand over", m.Type)
	}
	return nil
}

// Busy says that this process was told to serve and is still preparing to.
func (p *Predecessor) Busy(ctx context.Context) error {
	return p.ch.send(ctx, message{Type: msgBusy})
}

// Owning says that this process serves.
func (p *Predecessor) Owning(ctx context.Context) error {
	return p.ch.send(ctx, message{Type: msgOwning})
}

// AwaitYours returns when the predecessor has let go of what only one may have,
// or is gone, or ctx ends.
func (p *Predecessor) AwaitYours(ctx context.Context) {
	for {
		m, fds, err := p.ch.receive(ctx)
		closeAll(fds)
		if err != nil || m.Type == msgYours {
			break
		}
	}
	p.ch.close()
}
