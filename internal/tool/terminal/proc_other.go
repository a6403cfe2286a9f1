//go:build !linux

package terminal

import (
	"context"
	"os"
	"syscall"
	"time"
)

// proc names a process. Without /proc the PID is all there is.
type proc struct {
	PID   int    `json:"pid"`
	Start uint64 `json:"start_time"`
}

func identify(pid int) (proc, bool) { return proc{PID: pid}, true }
func (p proc) alive() bool          { return syscall.Kill(p.PID, 0) == nil }
func bootID() string                { return "" }

// killTree ends the process group: TERM, then KILL after the grace.
func killTree(root proc, _ string, grace time.Duration) {
	syscall.Kill(-root.PID, syscall.SIGTERM)
	ctx, cancel := context.WithTimeout(context.Background(), grace)
	defer cancel()
	watch(ctx, root)
	syscall.Kill(-root.PID, syscall.SIGKILL)
}

// watch looks twice a second.
func watch(ctx context.Context, p proc) error {
	t := time.NewTicker(500 * time.Millisecond)
	defer t.Stop()
	for p.alive() {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-t.C:
		}
	}
	return ctx.Err()
}

func reap(pid int) { syscall.Wait4(pid, nil, syscall.WNOHANG, nil) }

func ownSession() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setsid: true} }

func punch(f *os.File, _ int64) error { return f.Truncate(0) }
