package clock

import "time"

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
