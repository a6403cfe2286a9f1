package succession

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"hermes/internal/domain"
)

// Notifier tells the service manager what this process does, by datagrams as
// sd_notify(3) describes them. A nil Notifier tells nobody. It is safe for
// concurrent use.
type Notifier struct {
	address string
	pid     int
	every   time.Duration
}

// NewNotifier makes the notifier that NOTIFY_SOCKET names, nil where it is not
// set. getenv reads the environment that the process was started with.
func NewNotifier(getenv func(string) string) *Notifier {
	address := getenv("NOTIFY_SOCKET")
	if !strings.HasPrefix(address, "/") && !strings.HasPrefix(address, "@") {
		return nil
	}
	return &Notifier{address: address, pid: os.Getpid(), every: watchdogInterval(getenv)}
}

// watchdogInterval reads WATCHDOG_USEC; see sd_watchdog_enabled(3). 0 means that
// no watchdog waits for this process.
func watchdogInterval(getenv func(string) string) time.Duration {
	if pid := getenv("WATCHDOG_PID"); pid != "" && pid != strconv.Itoa(os.Getpid()) {
		return 0
	}
	usec, err := strconv.ParseInt(getenv("WATCHDOG_USEC"), 10, 64)
	if err != nil || usec <= 0 || usec > int64(24*time.Hour/time.Microsecond) {
		return 0
	}
	return time.Duration(usec) * time.Microsecond
}

// WatchdogInterval is the longest silence that the manager bears; 0 when it has
// no watchdog for us.
func (n *Notifier) WatchdogInterval() time.Duration {
	if n == nil {
		return 0
	}
	return n.every
}

// Ready says that the process serves.
func (n *Notifier) Ready(status string) error {
	return n.send("READY=1\nSTATUS="+oneLine(status), nil)
}

// Status shows a sentence in `systemctl status`.
func (n *Notifier) Status(status string) error { return n.send("STATUS="+oneLine(status), nil) }

// Extend asks the manager for more time to start or stop than the unit allows,
// from now on; see EXTEND_TIMEOUT_USEC= in sd_notify(3). It must be said again
// before that time is over.
func (n *Notifier) Extend(by time.Duration, status string) error {
	return n.send(fmt.Sprintf("EXTEND_TIMEOUT_USEC=%d\nSTATUS=%s", by.Microseconds(), oneLine(status)), nil)
}

// Stopping says that the process drains and will end.
func (n *Notifier) Stopping(status string) error {
	return n.send("STOPPING=1\nSTATUS="+oneLine(status), nil)
}

// Ping feeds the watchdog.
func (n *Notifier) Ping() error { return n.send("WATCHDOG=1", nil) }

// MainPID makes another process of the unit its main one. Only the present main
// process may say it, where NotifyAccess=main.
func (n *Notifier) MainPID(pid int) error { return n.send(fmt.Sprintf("MAINPID=%d", pid), nil) }

// Store gives the manager a copy of a socket under a name, to be passed on to
// the next start; see FileDescriptorStoreMax= in systemd.service(5). FDPOLL=0
// keeps it also when the other side of it is gone.
func (n *Notifier) Store(name string, s syscall.Conn) error {
	if n == nil {
		return nil
	}
	raw, err := s.SyscallConn()
	if err != nil {
		return domain.E(domain.Internal, err, "a socket could not be given to the service manager")
	}
	var sent error
	err = raw.Control(func(fd uintptr) { sent = n.send("FDSTORE=1\nFDPOLL=0\nFDNAME="+name, []int{int(fd)}) })
	if err == nil {
		err = sent
	}
	return err
}

// Unstore makes the manager close what it keeps under a name.
func (n *Notifier) Unstore(name string) error {
	return n.send("FDSTOREREMOVE=1\nFDNAME="+name, nil)
}

// notifyDeadline bounds one datagram: a manager that does not read must not
// hold up a hand-over.
const notifyDeadline = 2 * time.Second

func (n *Notifier) send(state string, fds []int) error {
	if n == nil {
		return nil
	}
	fail := func(err error) error {
		return domain.E(domain.Unavailable, err, "the service manager could not be told %q", strings.SplitN(state, "\n", 2)[0])
	}
	s, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_DGRAM, 0)
	if err != nil {
		return fail(err)
	}
	defer syscall.Close(s)
	syscall.CloseOnExec(s)
	wait := syscall.NsecToTimeval(int64(notifyDeadline))
	if err := syscall.SetsockoptTimeval(s, syscall.SOL_SOCKET, syscall.SO_SNDTIMEO, &wait); err != nil {
		return fail(err)
	}
	var rights []byte
	if len(fds) > 0 {
		rights = syscall.UnixRights(fds...)
	}
	if err := syscall.Sendmsg(s, []byte(state), rights, &syscall.SockaddrUnix{Name: n.address}, 0); err != nil {
		return fail(err)
	}
	return nil
}

func oneLine(s string) string { return strings.ReplaceAll(s, "\n", "; ") }
