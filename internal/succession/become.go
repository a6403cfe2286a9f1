package succession

import (
	"encoding/json"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"hermes/internal/domain"
)

// Held are the sockets and the lock that live over an execve.
type Held struct{ left legacy }

// Hold makes copies of what is to live over an execve, so that the parts that
// use it can be stopped meanwhile. api and control may be nil.
func Hold(o Offer, control net.Listener) (*Held, error) {
	left := legacy{Version: protocol, PID: os.Getpid(), Elders: o.Elders, Stored: o.Stored}
	var err error
	if left.Lock, err = keep(o.Instance.lock); err == nil {
		left.API, err = keep(o.API)
	}
	if err == nil {
		left.Control, err = keep(control)
	}
	left.Others = map[string]int{}
	for name, l := range o.Others {
		if err == nil {
			left.Others[name], err = keep(l)
		}
	}
	if err != nil {
		return nil, domain.E(domain.Internal, err, "the sockets cannot be kept over a restart in place")
	}
	return &Held{left}, nil
}

// Become makes this process go on as program, with the same PID. It returns only
// when that fails. Where the program cannot be executed, this one is begun anew
// instead, so that something serves.
func (h *Held) Become(program string, args, environ []string) error {
	text, err := json.Marshal(h.left)
	if err != nil {
		return err
	}
	for _, fd := range slices.AppendSeq([]int{h.left.Lock, h.left.API, h.left.Control}, maps.Values(h.left.Others)) {
		if fd > 0 {
			inheritable(fd)
		}
	}
	env := append(WithoutLegacy(environ), handoverEnv+"="+string(text))
	return become(program, args, env)
}

func become(program string, args, env []string) error {
	argv := append([]string{os.Args[0]}, args...)
	err := syscall.Exec(program, argv, env)
	// The link names our own file also when it was removed or replaced.
	_ = syscall.Exec("/proc/self/exe", argv, env)
	return domain.E(domain.Unavailable, err, "%s cannot be executed", program)
}

// BeginAnew makes this process go on as program, with the same PID and with
// nothing kept. It returns only when that fails; as Become.
func BeginAnew(program string, args, environ []string) error {
	return become(program, args, WithoutLegacy(environ))
}

// keep makes a copy of a descriptor; 0 for none. Tools do not inherit it.
func keep(s any) (int, error) {
	sc, ok := s.(syscall.Conn)
	if !ok {
		return 0, nil
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return 0, err
	}
	fd, dup := 0, error(nil)
	err = raw.Control(func(f uintptr) {
		syscall.ForkLock.RLock()
		defer syscall.ForkLock.RUnlock()
		if fd, dup = syscall.Dup(int(f)); dup == nil {
			syscall.CloseOnExec(fd)
		}
	})
	if err == nil {
		err = dup
	}
	return fd, err
}

// inheritable clears FD_CLOEXEC; see fcntl(2).
func inheritable(fd int) {
	_, _, _ = syscall.Syscall(syscall.SYS_FCNTL, uintptr(fd), syscall.F_SETFD, 0)
}

// Program is the program that a restart runs: what the command line named, so
// that a link or a file that was replaced meanwhile counts, else the file that
// this process began as.
func Program(getenv func(string) string) string {
	name := os.Args[0]
	if !strings.Contains(name, "/") {
		for _, dir := range filepath.SplitList(getenv("PATH")) {
			if p, err := exec.LookPath(filepath.Join(dir, name)); err == nil && filepath.IsAbs(p) {
				return p
			}
		}
	} else if p, err := filepath.Abs(name); err == nil {
		if _, err := exec.LookPath(p); err == nil {
			return p
		}
	}
	if p, err := os.Executable(); err == nil {
		return p
	}
	return name
}
