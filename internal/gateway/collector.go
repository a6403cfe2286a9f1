package gateway

import (
	"context"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

// How much may live and lie unused on the heap before it is collected. A gateway
// holds one or two MiB when it rests, and under load makes that much anew in a few
// milliseconds: with the collector's usual measure, a share of what lives, a fifth
// of the load would be its work. With many streams open tens of MiB live, and a
// smaller share of them is enough. See https://go.dev/doc/gc-guide on GOGC.
const (
	heapFloor = 5 << 20 // bytes, live and dead, that are never worth a collection
	heapShare = 60      // dead, in percent of what lives, above the floor
	heapStart = 4 << 20 // the runtime's own floor, at 100 percent, in bytes
)

// gcPercent gives the measure for what lives, in bytes; see debug.SetGCPercent.
func gcPercent(live uint64) int {
	if live == 0 {
		live = 1
	}
	floor := 100 * heapFloor / heapStart // what the runtime's floor becomes with it
	if above := 100 * (heapFloor - min(int64(live), heapFloor)) / int64(live); above < int64(floor) {
		floor = int(above)
	}
	return max(floor, heapShare)
}

// minded is an object that is never used, so that its end tells of a collection.
type minded struct{ _ *minded }

// tuneCollector keeps the collector's measure at what lives, until ctx ends, and
// gives back once the memory that only the start needed.
func tuneCollector(ctx context.Context) {
	over := time.AfterFunc(proofFirst, debug.FreeOSMemory)
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
