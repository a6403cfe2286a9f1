package succession

import (
	"net"
	"os"
	"strconv"
	"strings"
	"syscall"
)

// Socket is a listening socket that another process left for this one.
type Socket struct {
	// Name is FDNAME, or of a predecessor "api", "control" or a platform's name.
	Name     string
	Listener net.Listener
	// Stored says that the service manager keeps a copy under Name.
	Stored bool
}

// firstListenFD is SD_LISTEN_FDS_START; see sd_listen_fds(3).
const (
	firstListenFD = 3
	maxListenFDs  = 64
)

// ListenFDs takes the sockets that the service manager passed (LISTEN_PID,
// LISTEN_FDS, LISTEN_FDNAMES). What is no listening socket is closed. It may be
// called once in the life of a process.
func ListenFDs(getenv func(string) string) []Socket {
	if getenv("LISTEN_PID") != strconv.Itoa(os.Getpid()) {
		return nil
	}
	n, err := strconv.Atoi(getenv("LISTEN_FDS"))
	if err != nil || n <= 0 {
		return nil
	}
	names := strings.Split(getenv("LISTEN_FDNAMES"), ":")
	var out []Socket
	for i := range min(n, maxListenFDs) {
		name := "unknown"
		if i < len(names) && names[i] != "" {
			name = names[i]
		}
		if l, err := listenerOf(firstListenFD + i); err == nil {
			out = append(out, Socket{Name: name, Listener: l, Stored: true})
		}
	}
	return out
}

// listenerOf makes a listener of a descriptor, which is used up either way. No
// child inherits it.
func listenerOf(fd int) (net.Listener, error) {
	syscall.CloseOnExec(fd)
	f := os.NewFile(uintptr(fd), "inherited")
	defer f.Close() // FileListener has a copy of its own
	return net.FileListener(f)
}

// SameAddress tells whether a bound TCP address is what binding host and port
// gives.
func SameAddress(bound net.Addr, host string, port int) bool {
	have, ok := bound.(*net.TCPAddr)
	if !ok || have.Port != port {
		return false
	}
	want, err := net.ResolveTCPAddr("tcp", net.JoinHostPort(host, strconv.Itoa(port)))
	if err != nil {
		return false
	}
	if want.IP == nil || want.IP.IsUnspecified() {
		return have.IP.IsUnspecified()
	}
	return want.IP.Equal(have.IP) && want.Zone == have.Zone
}
