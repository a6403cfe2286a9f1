//go:build failpoint

package failpoint

import (
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
)

var name, left, how = parse(os.Getenv("HERMES_FAILPOINT"))

func parse(s string) (string, *atomic.Int64, string) {
	n := new(atomic.Int64)
	n.Store(1)
	point, rest, _ := strings.Cut(s, ":")
	count, how, _ := strings.Cut(rest, ":")
	if i, err := strconv.ParseInt(count, 10, 64); err == nil {
		n.Store(i)
	}
	return point, n, how
}

// Hit ends the process at once if this is the mark, and the time, that
// HERMES_FAILPOINT names.
func Hit(mark string) {
	if name != mark || left.Add(-1) != 0 {
		return
	}
	switch how {
	case "panic":
		panic("failpoint " + mark)
	case "exit":
		os.Exit(3)
	case "fatal":
		new(sync.Mutex).Unlock() // the runtime ends the process
	case "hang":
		select {}
	}
	_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
	select {}
}
