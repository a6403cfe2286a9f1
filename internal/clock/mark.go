package clock

import (
	"context"
	"time"
)

// Mark is an instant by every clock that the machine has.
type Mark struct {
	wall time.Time     // without a monotonic reading
	mono time.Time     // to be compared by its monotonic reading
	boot time.Duration // since the machine booted, sleep included
}

// Here is the present instant.
func Here() Mark {
	at := time.Now()
	return Mark{wall: at.Round(0), mono: at, boot: sinceBoot(at)}
}

// Until tells what happened to the clocks between m and a later mark: how long
// the machine was suspended, and by how much the wall clock was set, which is
// negative when it was set back. A clock that is corrected without a jump was not
// set. Both are right to some milliseconds; where nothing tells that the machine
// slept, its sleep counts as set.
func (m Mark) Until(later Mark) (slept, set time.Duration) {
	whole := later.boot - m.boot
	return whole - later.mono.Sub(m.mono), later.wall.Sub(m.wall) - whole
}

// noticed is by how much the clocks must have moved apart to count as moved.
const noticed = time.Second

// Watch calls moved as soon as the machine has slept or its wall clock was set,
// with what Mark.Until gives, until ctx ends. It costs nothing meanwhile; only
// where the system does not tell of it, it looks every half minute.
func Watch(ctx context.Context, moved func(slept, set time.Duration)) {
	watch(ctx, mover(moved))
}

// mover gives a function that is called whenever the clocks may have moved.
func mover(moved func(slept, set time.Duration)) func() {
	mark := Here()
	return func() {
		here := Here()
		slept, set := mark.Until(here)
		mark = here
		if slept >= noticed || set.Abs() >= noticed {
			moved(slept, set)
		}
	}
}

// watchSliced looks at the clocks after each slice.
func watchSliced(ctx context.Context, look func()) {
	tick := time.NewTicker(slice)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			look()
		}
	}
}
