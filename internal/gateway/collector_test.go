package gateway

import (
	"context"
	"runtime"
	"runtime/debug"
	"testing"
)

func TestGCPercent(t *testing.T) {
	for live, want := range map[uint64]int{
		0: 93, 1 << 20: 118, 2 << 20: 143, 3 << 20: 125, 5 << 20: 75, 7 << 20: 60, 200 << 20: 60, 1 << 40: 60,
	} {
		if got := gcPercent(live); got != want {
			t.Errorf("%d KiB live: %d, want %d", live>>10, got, want)
		}
	}
}

// TestTheCollectorFollowsWhatLives lets much live, and little again.
func TestTheCollectorFollowsWhatLives(t *testing.T) {
	before := debug.SetGCPercent(100)
	defer debug.SetGCPercent(before)
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan struct{})
	set := make(chan int)
	go func() {
		defer close(ended)
		follow(ctx, func(percent int) { set <- percent })
	}()
	much := make([]byte, 64<<20)
	until := func(want func(int) bool) {
		for {
			select {
			case got := <-set:
				if want(got) {
					return
				}
			default:
				runtime.GC()
			}
		}
	}
	until(func(p int) bool { return p == heapShare })
	runtime.KeepAlive(much)
	stop()
	for {
		select {
		case <-set:
		case <-ended:
			return
		}
	}
}
