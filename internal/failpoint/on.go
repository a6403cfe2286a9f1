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

// point is one mark at which something is to happen.
type point struct {
	mark string
	left *atomic.Int64 // times until then
	how  string
}

var points = parse(os.Getenv("HERMES_FAILPOINT"))

func parse(s string) (out []point) {
	for one := range strings.SplitSeq(s, ",") {
		mark, rest, _ := strings.Cut(one, ":")
		count, how, _ := strings.Cut(rest, ":")
		p := point{mark: mark, left: new(atomic.Int64), how: how}
		p.left.Store(1)
		if i, err := strconv.ParseInt(count, 10, 64); err == nil {
			p.left.Store(i)
		}
		out = append(out, p)
	}
	return out
}

// Hit does what HERMES_FAILPOINT says of this mark, at the time that it names.
func Hit(mark string) {
	for _, p := range points {
		if p.mark == mark && p.left.Add(-1) == 0 {
			p.happen()
		}
	}
}

func (p point) happen() {
	switch p.how {
	case "panic":
		panic("failpoint " + p.mark)
	case "exit":
		os.Exit(3)
	case "fatal":
		new(sync.Mutex).Unlock() // the runtime ends the process
	case "hang":
		select {}
	case "term":
		_ = syscall.Kill(os.Getpid(), syscall.SIGTERM)
		return
	case "hup":
		_ = syscall.Kill(os.Getpid(), syscall.SIGHUP)
		return
	}
	_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
	select {}
}
