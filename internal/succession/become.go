package succession

import (
	"encoding/json"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"

	"hermes/internal/domain"
)

// Become makes this process go on as program, with the same PID: the instance
// lock and the listening sockets pass over the execve, everything else ends
// with this program. It returns only when that fails. Where the program cannot
// be executed, this one is begun anew instead, so that something serves.
func Become(program string, args, environ []string, o Offer, control net.Listener) error {
	left := legacy{Version: protocol, PID: os.Getpid(), Elders: o.Elders, Stored: o.Stored}
	var err error
	if left.Lock, err = keep(o.Instance.lock); err == nil {
		left.API, err = keep(o.API)
	}
	if err == nil {
		left.Control, err = keep(control)
	}
	if err != nil {
		return domain.E(domain.Internal, err, "the sockets cannot be kept")
	}
	text, err := json.Marshal(left)
	if err != nil {
		return err
	}
	env := append(WithoutLegacy(environ), handoverEnv+"="+string(text))
	err = syscall.Exec(program, append([]string{program}, args...), env)
	// The link names our own file also when it was removed or replaced.
	_ = syscall.Exec("/proc/self/exe", append([]string{program}, args...), env)
	return domain.E(domain.Unavailable, err, "%s cannot be executed", program)
}

// keep makes a copy of a descriptor that lives over an execve; 0 for none.
func keep(s any) (int, error) {
	sc, ok := s.(syscall.Conn)
	if !ok || s == nil {
		return 0, nil
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return 0, err
	}
	fd, dup := 0, error(nil)
	if err := raw.Control(func(f uintptr) { fd, dup = syscall.Dup(int(f)) }); err != nil {
		return 0, err
	}
	return fd, dup
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
