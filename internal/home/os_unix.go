//go:build unix

package home

import (
	"errors"
	"syscall"
)

func isDiskFull(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}

// alive tells whether a process lives that started at start, where /proc says
// when, and start is known.
func alive(pid int, start uint64) bool {
	if err := syscall.Kill(pid, 0); err != nil && !errors.Is(err, syscall.EPERM) {
		return false
	}
	now := procStart(pid)
	return now == 0 && procStart(1) == 0 || now != 0 && (start == 0 || now == start)
}
