package terminal

import (
	"bytes"
	"context"
	"errors"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// proc names a process by evidence that survives the reuse of its PID.
type proc struct {
	PID   int    `json:"pid"`
	Start uint64 `json:"start_time"` // field 22 of /proc/PID/stat, clock ticks
}

// stat is what family needs of /proc/PID/stat.
type stat struct {
	proc
	state   byte
	ppid    int
	session int
}

// readStat reads /proc/PID/stat, see proc_pid_stat(5). The name in brackets
// may hold anything, so fields are counted from the last bracket.
func readStat(pid int) (stat, bool) {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return stat{}, false
	}
	f := bytes.Fields(b[bytes.LastIndexByte(b, ')')+1:])
	if len(f) < 20 {
		return stat{}, false
	}
	s := stat{state: f[0][0]}
	s.PID = pid
	s.ppid, _ = strconv.Atoi(string(f[1]))
	s.session, _ = strconv.Atoi(string(f[3]))
	s.Start, err = strconv.ParseUint(string(f[19]), 10, 64)
	return s, err == nil
}

// identify gives the process that has this PID now.
func identify(pid int) (proc, bool) {
	s, ok := readStat(pid)
	return s.proc, ok
}

// alive tells whether p still runs. A zombie does not.
func (p proc) alive() bool {
	s, ok := readStat(p.PID)
	return ok && s.Start == p.Start && s.state != 'Z' && s.state != 'X'
}

// bootID changes with every boot, so that a PID and start time of an earlier
// one are not taken for a process of this one.
func bootID() string {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}

// family lists the live processes that belong to root: itself, its session, its
// descendants, and whoever carries the mark in the environment, which is how
// one is found that made itself a daemon.
func family(root proc, mark string) []proc {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil
	}
	all := map[int]stat{}
	for _, e := range entries {
		if pid, err := strconv.Atoi(e.Name()); err == nil {
			if s, ok := readStat(pid); ok && s.state != 'Z' && s.state != 'X' {
				all[pid] = s
			}
		}
	}
	ours := func(s stat) bool {
		if s.session == root.PID && s.Start >= root.Start {
			return true
		}
		for p, n := s, 0; n < 256; n++ {
			if p.PID == root.PID {
				return p.Start == root.Start
			}
			next, ok := all[p.ppid]
			if !ok || next.PID <= 1 {
				break
			}
			p = next
		}
		return s.Start >= root.Start && mark != "" && marked(s.PID, mark)
	}
	self := os.Getpid()
	var out []proc
	for pid, s := range all {
		if pid != self && ours(s) {
			out = append(out, s.proc)
		}
	}
	return out
}

// marked tells whether a process of ours carries the mark. Those of other users
// cannot be read, and are none of ours.
func marked(pid int, mark string) bool {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/environ")
	return err == nil && bytes.Contains(b, []byte(markName+"="+mark+"\x00"))
}

// killTree ends root and all that belongs to it: TERM, and KILL for what is
// left after the grace. It returns when nothing is left, or after some seconds
// when something cannot be killed (a process that waits for a dead disk).
func killTree(root proc, mark string, grace time.Duration) {
	until(signalAll(family(root, mark), unix.SIGTERM), grace)
	for range 10 {
		left := family(root, mark)
		if len(left) == 0 {
			return
		}
		until(signalAll(left, unix.SIGKILL), 500*time.Millisecond)
	}
}

// signalAll signals each process through a pidfd, so that no stranger with a
// reused PID is hit, and gives the pidfds to wait on.
func signalAll(ps []proc, sig unix.Signal) []int {
	var fds []int
	for _, p := range ps {
		fd, err := unix.PidfdOpen(p.PID, 0)
		if err != nil {
			continue
		}
		if s, ok := readStat(p.PID); !ok || s.Start != p.Start {
			unix.Close(fd)
			continue
		}
		_ = unix.PidfdSendSignal(fd, sig, nil, 0) // an error means that it is gone
		fds = append(fds, fd)
	}
	return fds
}

// until waits for processes to end, for at most d, and closes their pidfds.
func until(fds []int, d time.Duration) {
	deadline := time.Now().Add(d)
	for _, fd := range fds {
		for {
			left := time.Until(deadline)
			_, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, int(max(left, 0)/time.Millisecond))
			if !errors.Is(err, unix.EINTR) {
				break
			}
		}
		unix.Close(fd)
	}
}

// watch returns when p has ended, or with ctx's error. It holds a goroutine but
// no thread: the pidfd is waited for by the runtime's poller.
func watch(ctx context.Context, p proc) error {
	fd, err := unix.PidfdOpen(p.PID, unix.PIDFD_NONBLOCK)
	if err != nil || !p.alive() {
		if err == nil {
			unix.Close(fd)
		}
		return ctx.Err()
	}
	f := os.NewFile(uintptr(fd), "pidfd")
	defer f.Close()
	stop := context.AfterFunc(ctx, func() { f.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	err = raw.Read(func(fd uintptr) bool {
		n, _ := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0)
		return n > 0
	})
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return err
}

// reap collects the exit code of a dead child that nobody waits for: after an
// exec in place the children are still ours, but no os.Process is.
func reap(pid int) {
	var ws unix.WaitStatus
	_, _ = unix.Wait4(pid, &ws, unix.WNOHANG, nil) // an error means that it is no child
}

// ownSession puts a child into a session of its own, away from any terminal.
func ownSession() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setsid: true} }

// punch gives the disk space of the first n bytes of a file back, without
// moving what comes after them.
func punch(f *os.File, n int64) error {
	return unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, 0, n)
}
