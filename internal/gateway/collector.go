package gateway

import (
	"context"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

// How much may lie unused on the heap before it is collected. A gateway holds one
// or two MiB when it rests, and under load makes that much anew in a few
// milliseconds: with the collector's usual measure, a share of what lives, a fifth
// of the load would be its work. With many streams open tens of MiB live, and a
// share of them is enough. See https://go.dev/doc/gc-guide on GOGC.
const (
	heapSpare = 3840 << 10 // bytes
	heapShare = 60         // in percent of what lives, where that is more
	heapFloor = 4 << 20    // the runtime's own, at 100 percent, in bytes
)

// gcPercent gives the measure for what lives, in bytes; see debug.SetGCPercent.
func gcPercent(live uint64) int {
	if live > heapSpare*100/heapShare {
		return heapShare
	}
	byShare := 100 * heapSpare / max(live, 1)
	byFloor := 100 * (live + heapSpare) / heapFloor // which grows with the percentage
	return int(min(byShare, byFloor))
}

// minded is an object that is never used, so that its end tells of a collection.
type minded struct{ _ *minded }

// tuneCollector keeps the collector's measure at what lives, until ctx ends, and
// gives back once the memory that only the start needed, of which vouch is the last.
func tuneCollector(ctx context.Context) {
	over := time.AfterFunc(proofFirst+proofAgain+time.Second, debug.FreeOSMemory)
	defer over.Stop()
	follow(ctx, func(percent int) { debug.SetGCPercent(percent) })
}

// follow sets the measure after each collection that has changed it, until ctx
// ends.
func follow(ctx context.Context, set func(percent int)) {
	collected := make(chan struct{}, 1)
	sample := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	for now := 100; ; {
		metrics.Read(sample)
		// It stops the process for some microseconds, so small changes are left out.
		if want := gcPercent(sample[0].Value.Uint64()); want*10 < now*9 || want*10 > now*11 {
			set(want)
			now = want
		}
		runtime.SetFinalizer(&minded{}, func(*minded) {
			select {
			case collected <- struct{}{}:
			default:
			}
		})
		select {
		case <-collected:
		case <-ctx.Done():
			return
		}
	}
}
