package succession

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"time"

	"hermes/internal/domain"
)

// Elder is a process that has handed over and still ends its turns and streams.
type Elder struct {
	Record
	Socket string `json:"socket"` // its control socket
}

// handoverEnv carries what a predecessor left, as JSON (see legacy), to the
// program that it starts or becomes. It reaches no tool.
const handoverEnv = "HERMES_HANDOVER"

// Inherits tells whether a predecessor left something for the process with this
// environment: it was chosen by that one.
func Inherits(environ []string) bool {
	return slices.ContainsFunc(environ, func(kv string) bool { return strings.HasPrefix(kv, handoverEnv+"=") })
}

// legacy is the content of handoverEnv. The numbers are descriptors, 0 for none.
type legacy struct {
	Version int  `json:"v"`
	PID     int  `json:"pid"` // of the process that left it
	Channel int  `json:"channel,omitempty"`
	Launch  bool `json:"launch,omitempty"` // start the successor and end; see launch
	Lock    int  `json:"lock,omitempty"`
	API     int  `json:"api,omitempty"`
	Control int  `json:"control,omitempty"`
	// Others are sockets of platforms, by the platform's name.
	Others map[string]int `json:"others,omitempty"`
	Elders []Elder        `json:"elders,omitempty"`
	Stored []string       `json:"stored,omitempty"`
}

// Offer is what a predecessor has to give.
type Offer struct {
	Instance *Instance
	API      net.Listener // nil when none is bound
	// Others are sockets of platforms, by the platform's name: at most six. A
	// successor that does not know one closes it.
	Others  map[string]net.Listener
	Working []string // the parts that work, by name
	Elders  []Elder  // this process and those before it that still live
	Stored  []string // names of sockets in the service manager's store
}

// Successor is the process that is to take over, as its predecessor sees it.
// One goroutine uses it.
type Successor struct {
	PID     int
	Release string // its version, once it is ready
	ch      *channel
	proc    *os.Process // nil for a stranger
}

// Spawn starts program, with args (without the name) and environ, as a
// successor that does nothing before it is told to. It is no child of ours but
// of whoever reaps orphans: a service manager takes only its own child for a
// main process that it can watch and stop in order (systemd's KillMode=mixed
// kills any other at once).
func Spawn(ctx context.Context, program string, args, environ []string) (*Successor, error) {
	fail := func(err error) error {
		return domain.E(domain.Unavailable, err, "the new process could not be started: %v", err)
	}
	pair, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM, 0)
	if err != nil {
		return nil, fail(err)
	}
	syscall.CloseOnExec(pair[0])
	syscall.CloseOnExec(pair[1])
	theirs := os.NewFile(uintptr(pair[1]), "successor")
	defer theirs.Close()
	conn, err := unixConn(pair[0])
	if err != nil {
		return nil, fail(err)
	}
	s := &Successor{ch: &channel{conn: conn}}
	cmd, err := start(program, args, environ, legacy{Version: protocol, PID: os.Getpid(), Channel: channelFD, Launch: true}, theirs)
	if err != nil {
		s.ch.close()
		return nil, fail(err)
	}
	theirs.Close() // so that the end of theirs is seen here
	m, fds, err := s.ch.receive(ctx)
	closeAll(fds)
	if err != nil { // a program that hangs would not end by itself
		grace := time.Duration(0)
		if errors.Is(err, errGone) {
			grace = lastWords
		}
		defer time.AfterFunc(grace, func() { _ = cmd.Process.Kill() }).Stop()
	}
	switch ended := cmd.Wait(); {
	case errors.Is(err, errGone):
		s.ch.close()
		return nil, domain.E(domain.Unavailable, ended, "the new process ended before it could serve (%s); its last words are in the log", cmd.ProcessState)
	case err != nil:
		s.ch.close()
		return nil, err
	default:
		err = ended
	}
	if err == nil {
		s.PID = m.PID
		s.proc, err = os.FindProcess(m.PID) // by a pidfd, which is of that very process
	}
	if err != nil {
		s.ch.close()
		return nil, fail(err)
	}
	return s, nil
}

// lastWords is how long a program that has closed its end may take to say with
// which status it ends.
const lastWords = time.Second

// channelFD is the channel's number in the process that start starts.
const channelFD = 3

// start starts a program with what is left for it and one end of a channel.
func start(program string, args, environ []string, left legacy, end *os.File) (*exec.Cmd, error) {
	text, err := json.Marshal(left)
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(program, args...) //nolint:noctx // it outlives whoever asked for it
	cmd.Args[0] = os.Args[0]
	cmd.Env = append(WithoutLegacy(environ), handoverEnv+"="+string(text))
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.ExtraFiles = []*os.File{end}
	return cmd, cmd.Start()
}

// ErrLaunched says that this process has started the successor and has nothing
// else to do.
var ErrLaunched = errors.New("the successor was started")

// launch starts the successor proper and tells the predecessor of it.
func launch(ctx context.Context, left legacy, environ []string) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	syscall.CloseOnExec(left.Channel)
	end := os.NewFile(uintptr(left.Channel), "successor")
	left.Launch = false
	cmd, err := start(self, os.Args[1:], environ, left, end)
	if err != nil {
		return err
	}
	conn, err := net.FileConn(end)
	if err != nil {
		return errors.Join(err, cmd.Process.Kill())
	}
	defer conn.Close()
	ch := &channel{conn: conn.(*net.UnixConn)}
	if err := ch.send(ctx, message{Type: msgLaunched, PID: cmd.Process.Pid}); err != nil {
		return errors.Join(err, cmd.Process.Kill())
	}
	return ErrLaunched
}

// Stranger is a successor that came by itself, over a connection of its own
// (`gateway run --replace`).
func Stranger(conn *net.UnixConn, pid int) *Successor {
	return &Successor{PID: pid, ch: &channel{conn: conn}}
}

// unixConn makes a connection of a socket's descriptor, which is used up.
func unixConn(fd int) (*net.UnixConn, error) {
	f := os.NewFile(uintptr(fd), "handover")
	defer f.Close()
	c, err := net.FileConn(f)
	if err != nil {
		return nil, err
	}
	u, ok := c.(*net.UnixConn)
	if !ok {
		c.Close()
		return nil, fmt.Errorf("the channel is no Unix socket")
	}
	return u, nil
}

// WithoutLegacy is an environment without what belongs to one process only:
// inherited sockets, the watchdog's PID and what a predecessor left.
func WithoutLegacy(environ []string) []string {
	out := make([]string, 0, len(environ))
	for _, kv := range environ {
		name, _, _ := strings.Cut(kv, "=")
		switch name {
		case handoverEnv, "LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "WATCHDOG_PID":
		default:
			out = append(out, kv)
		}
	}
	return out
}

// Offer sends what there is and returns when the successor is ready to serve
// and no part of it is worse. Errors say why it is not; the successor is then
// to be ended with Kill, and nothing has happened.
func (s *Successor) Offer(ctx context.Context, o Offer) error {
	m := message{Type: msgHello, PID: os.Getpid(), Working: o.Working, Elders: o.Elders, Stored: o.Stored}
	err := withFDs(o, func(names []string, fds []int) error {
		m.Files = names
		return s.ch.send(ctx, m, fds...)
	})
	if err != nil {
		return s.why(err)
	}
	answer, fds, err := s.ch.receive(ctx)
	closeAll(fds)
	if err != nil {
		return s.why(err)
	}
	switch answer.Type {
	case msgReady:
		s.Release = answer.Release
		return nil
	case msgRefuse:
		return domain.E(domain.Code(answer.Code), nil, "the new process cannot take over: %s", answer.Reason)
	}
	return domain.E(domain.Invalid, nil, "the new process answered %q; its version does not fit", answer.Type)
}

// withFDs gives the descriptors of an offer. Those of sockets are copies, which
// do not become blocking as os.File.Fd would make them.
func withFDs(o Offer, use func(names []string, fds []int) error) error {
	names, fds := []string{"lock"}, []int{int(o.Instance.lock.Fd())}
	defer func() { closeAll(fds[1:]) }()
	add := func(name string, l net.Listener) error {
		if l == nil {
			return nil
		}
		fd, err := keep(l)
		if err != nil || fd == 0 {
			return domain.E(domain.Internal, err, "the socket %q cannot be passed on", name)
		}
		names, fds = append(names, name), append(fds, fd)
		return nil
	}
	err := add("api", o.API)
	for _, name := range slices.Sorted(maps.Keys(o.Others)) {
		if err == nil && len(fds) < maxRights {
			err = add(name, o.Others[name])
		}
	}
	if err != nil {
		return err
	}
	return use(names, fds)
}

// Own tells the successor to serve, and returns when it does. It may be silent
// for so long as silence says, and takes until ctx ends at most. After an error it
// must be ended with Kill, and the caller goes on as the owner.
func (s *Successor) Own(ctx context.Context, silence time.Duration) error {
	answer := message{Type: msgBusy}
	err := s.ch.send(ctx, message{Type: msgOwn})
	for err == nil && answer.Type == msgBusy {
		answer, err = s.hear(ctx, silence)
	}
	if err != nil {
		return s.why(err)
	}
	if answer.Type != msgOwning {
		return domain.E(domain.Unavailable, nil, "the new process could not begin to serve: %s", orUnknown(answer.Reason))
	}
	return nil
}

// hear receives a message that comes within a time.
func (s *Successor) hear(ctx context.Context, within time.Duration) (message, error) {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	m, fds, err := s.ch.receive(ctx)
	closeAll(fds)
	return m, err
}

func orUnknown(s string) string {
	if s == "" {
		return "it does not say why"
	}
	return s
}

// Yours tells the successor that what only one may have is free now.
func (s *Successor) Yours(ctx context.Context) {
	_ = s.ch.send(ctx, message{Type: msgYours}) // one that is gone needs no word
	s.ch.close()
	if s.proc != nil {
		_ = s.proc.Release()
	}
}

// Refuse tells a stranger why it does not get anything.
func (s *Successor) Refuse(ctx context.Context, why error) {
	_ = s.ch.send(ctx, message{Type: msgRefuse, Reason: domain.MessageOf(why), Code: string(domain.CodeOf(why))})
	s.ch.close()
}

// Kill ends a successor that does not come to own, and waits for its end. A
// stranger is only left alone.
func (s *Successor) Kill() {
	if s.proc != nil {
		_ = s.proc.Kill()
		ctx, cancel := context.WithTimeout(context.Background(), endLimit)
		defer cancel()
		for err := error(nil); err == nil; { // its end of the channel closes with it
			var fds []int
			_, fds, err = s.ch.receive(ctx)
			closeAll(fds)
		}
		_ = s.proc.Release()
	}
	s.ch.close()
}

// endLimit is how long a killed process may take to end.
const endLimit = 5 * time.Second

// why says that the process ended, where that is the reason.
func (s *Successor) why(err error) error {
	if errors.Is(err, errGone) {
		return domain.E(domain.Unavailable, nil, "the new process (PID %d) ended before it could serve; its last words are in the log", s.PID)
	}
	return err
}
