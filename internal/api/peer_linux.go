package api

import (
	"bufio"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"sort"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

var errNoPeer = errors.New("the peer's socket is not on this host")

// ownUID is the user that this process acts as.
func ownUID() int { return os.Geteuid() }

// peerUID tells which user owns the other end of a connection within this
// host. The kernel is asked for the one socket over netlink (sock_diag(7)),
// which costs the same however many connections there are; where that is not
// to be had, /proc/net/tcp is read.
func peerUID(remote, local net.Addr) (int, error) {
	src, dst, err := addrPorts(remote, local)
	if err != nil {
		return 0, err
	}
	if uid, err := diagUID(src, dst); err == nil {
		return uid, nil
	}
	for _, f := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
		uid, err := procUID(f, src, dst)
		if err == nil {
			return uid, nil
		}
	}
	return 0, errNoPeer
}

func addrPorts(remote, local net.Addr) (src, dst netip.AddrPort, err error) {
	r, ok1 := remote.(*net.TCPAddr)
	l, ok2 := local.(*net.TCPAddr)
	if !ok1 || !ok2 {
		return src, dst, errNoPeer
	}
	src, dst = r.AddrPort(), l.AddrPort()
	return netip.AddrPortFrom(src.Addr().Unmap(), src.Port()), netip.AddrPortFrom(dst.Addr().Unmap(), dst.Port()), nil
}

// diagUID asks for the socket src→dst. The messages are inet_diag_req_v2 and
// inet_diag_msg of linux/inet_diag.h.
func diagUID(src, dst netip.AddrPort) (int, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, unix.NETLINK_INET_DIAG)
	if err != nil {
		return 0, err
	}
	defer unix.Close(fd)
	const headerLen, requestLen = 16, 56
	msg := make([]byte, headerLen+requestLen)
	ne := binary.NativeEndian
	ne.PutUint32(msg[0:], uint32(len(msg)))
	ne.PutUint16(msg[4:], 20) // SOCK_DIAG_BY_FAMILY
	ne.PutUint16(msg[6:], unix.NLM_F_REQUEST)
	req := msg[headerLen:]
	req[0], req[1] = unix.AF_INET6, unix.IPPROTO_TCP
	if src.Addr().Is4() {
		req[0] = unix.AF_INET
	}
	ne.PutUint32(req[4:], 0xffffffff) // in any state
	binary.BigEndian.PutUint16(req[8:], src.Port())
	binary.BigEndian.PutUint16(req[10:], dst.Port())
	copy(req[12:28], src.Addr().AsSlice())
	copy(req[28:44], dst.Addr().AsSlice())
	ne.PutUint64(req[48:], ^uint64(0)) // no cookie
	if err := unix.Sendto(fd, msg, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return 0, err
	}
	tv := unix.Timeval{Sec: 1}
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tv); err != nil {
		return 0, err
	}
	var answer [512]byte
	n, _, err := unix.Recvfrom(fd, answer[:], 0)
	if err != nil {
		return 0, err
	}
	const uidAt = headerLen + 4 + 48 + 12 // after family…retrans, the socket id, expires, rqueue, wqueue
	const listening = 10                  // TCP_LISTEN: the lookup falls back to a listener on the peer's port
	if n < uidAt+8 || ne.Uint16(answer[4:]) != 20 || answer[headerLen+1] == listening {
		return 0, errNoPeer
	}
	if inode := ne.Uint32(answer[uidAt+4:]); inode == 0 {
		return 0, errNoPeer // its process has let go of it; the owner is not known any more
	}
	return int(ne.Uint32(answer[uidAt:])), nil
}

// procUID finds the socket in a table of proc_net_tcp(5).
func procUID(file string, src, dst netip.AddrPort) (int, error) {
	found := errNoPeer
	var uid int
	err := eachSocket(file, func(sk procSocket) bool {
		if sk.local != src || sk.remote != dst || sk.inode == 0 {
			return true
		}
		uid, found = sk.uid, nil
		return false
	})
	if err != nil {
		return 0, err
	}
	return uid, found
}

// procSocket is one line of /proc/net/tcp.
type procSocket struct {
	local, remote netip.AddrPort
	listening     bool
	uid           int
	inode         uint64
}

// eachSocket calls f for the sockets of a table until f returns false.
func eachSocket(file string, f func(procSocket) bool) error {
	r, err := os.Open(file)
	if err != nil {
		return err
	}
	defer r.Close()
	lines := bufio.NewScanner(r)
	lines.Scan() // the header
	for lines.Scan() {
		sk, ok := parseSocket(lines.Text())
		if ok && !f(sk) {
			return nil
		}
	}
	return lines.Err()
}

func parseSocket(line string) (procSocket, bool) {
	f := strings.Fields(line)
	if len(f) < 10 {
		return procSocket{}, false
	}
	local, ok1 := parseProcAddr(f[1])
	remote, ok2 := parseProcAddr(f[2])
	uid, err1 := strconv.Atoi(f[7])
	inode, err2 := strconv.ParseUint(f[9], 10, 64)
	if !ok1 || !ok2 || err1 != nil || err2 != nil {
		return procSocket{}, false
	}
	return procSocket{local, remote, f[3] == "0A", uid, inode}, true
}

// parseProcAddr reads "0100007F:21C2": 32-bit words in the host's byte order,
// the port in hexadecimal.
func parseProcAddr(s string) (netip.AddrPort, bool) {
	host, port, ok := strings.Cut(s, ":")
	raw, err := hex.DecodeString(host)
	if !ok || err != nil || (len(raw) != 4 && len(raw) != 16) {
		return netip.AddrPort{}, false
	}
	p, err := strconv.ParseUint(port, 16, 16)
	if err != nil {
		return netip.AddrPort{}, false
	}
	for i := 0; i < len(raw); i += 4 {
		binary.NativeEndian.PutUint32(raw[i:], binary.BigEndian.Uint32(raw[i:]))
	}
	addr, _ := netip.AddrFromSlice(raw)
	return netip.AddrPortFrom(addr.Unmap(), uint16(p)), true
}

// PortHolder says in words who listens on a port: program, PID and, for one of
// ours, its profile. "" when that cannot be seen.
func PortHolder(port int) string {
	inodes, uids := map[uint64]bool{}, map[int]bool{}
	for _, f := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
		// A table that cannot be read leaves the holder unnamed.
		_ = eachSocket(f, func(sk procSocket) bool {
			if sk.listening && int(sk.local.Port()) == port {
				inodes[sk.inode], uids[sk.uid] = true, true
			}
			return true
		})
	}
	if len(inodes) == 0 {
		return ""
	}
	var named []string
	for _, pid := range holdersOf(inodes) {
		named = append(named, describeProcess(pid))
	}
	if len(named) > 1 { // systemd keeps a copy of the sockets that it passes on
		named = withoutSystemd(named)
	}
	if len(named) > 0 {
		sort.Strings(named)
		return strings.Join(named[:min(len(named), 3)], ", ")
	}
	for uid := range uids {
		return fmt.Sprintf("a process of another user (uid %d)", uid)
	}
	return ""
}

func withoutSystemd(named []string) []string {
	kept := named[:0:0]
	for _, n := range named {
		if !strings.HasPrefix(n, "systemd ") {
			kept = append(kept, n)
		}
	}
	return kept
}

// holdersOf lists the processes that have one of the sockets open, as far as
// they may be looked into.
func holdersOf(inodes map[uint64]bool) []int {
	var pids []int
	dirs, err := filepath.Glob("/proc/[0-9]*/fd")
	if err != nil {
		return nil
	}
	for _, dir := range dirs {
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(dir)))
		if err != nil {
			continue
		}
		fds, err := os.ReadDir(dir)
		if err != nil {
			continue
		}
		for _, fd := range fds {
			target, err := os.Readlink(filepath.Join(dir, fd.Name()))
			if err != nil || !strings.HasPrefix(target, "socket:[") {
				continue
			}
			inode, err := strconv.ParseUint(strings.TrimSuffix(target[len("socket:["):], "]"), 10, 64)
			if err == nil && inodes[inode] {
				pids = append(pids, pid)
				break
			}
		}
	}
	return pids
}

// describeProcess names a process for people.
func describeProcess(pid int) string {
	dir := "/proc/" + strconv.Itoa(pid)
	comm, _ := os.ReadFile(dir + "/comm")
	name := strings.TrimSpace(string(comm))
	if name == "" {
		name = "a process"
	}
	words := fmt.Sprintf("%s (PID %d", name, pid)
	if profile := profileOf(readArgs(dir + "/cmdline")); profile != "" {
		words += ", profile " + profile
	}
	return words + ")"
}

// readArgs reads the head of a command line.
func readArgs(file string) []string {
	f, err := os.Open(file)
	if err != nil {
		return nil
	}
	defer f.Close()
	raw, err := io.ReadAll(io.LimitReader(f, 64<<10))
	if err != nil {
		return nil
	}
	return strings.Split(strings.TrimRight(string(raw), "\x00"), "\x00")
}
