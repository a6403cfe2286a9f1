//go:build unix

package logging

import (
	"os"
	"syscall"
)

// lockFile takes the file for rotation, without waiting; closing it lets go.
func lockFile(f *os.File) bool {
	return syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) == nil
}
