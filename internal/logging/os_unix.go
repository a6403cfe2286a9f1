//go:build unix

package logging

import (
	"fmt"
	"os"
	"syscall"
)

// lockFile takes the file for rotation, without waiting; closing it lets go.
func lockFile(f *os.File) bool {
	return syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) == nil
}

// fileID gives a file's device and inode as JOURNAL_STREAM writes them.
func fileID(f *os.File) string {
	var st syscall.Stat_t
	if syscall.Fstat(int(f.Fd()), &st) != nil {
		return ""
	}
	return fmt.Sprintf("%d:%d", st.Dev, st.Ino)
}
