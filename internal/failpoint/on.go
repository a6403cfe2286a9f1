//go:build failpoint

package failpoint

import (
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
)

var name, left = parse(os.Getenv("HERMES_FAILPOINT"))

func parse(s string) (string, *atomic.Int64) {
	n := new(atomic.Int64)
	n.Store(1)
	point, count, ok := strings.Cut(s, ":")
	if ok {
		if i, err := strconv.ParseInt(count, 10, 64); err == nil {
			n.Store(i)
		}
	}
	return point, n
}

// Hit ends the process at once if this is the mark, and the time, that
// HERMES_FAILPOINT names.
func Hit(mark string) {
	if name == mark && left.Add(-1) == 0 {
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
		select {}
	}
}
