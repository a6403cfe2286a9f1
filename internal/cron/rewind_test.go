package cron

import (
	"testing"
	"time"
)

// A clock that goes back and forth fires no instant twice, and once it is right
// again every instant comes in its time.
func TestAClockThatIsSet(t *testing.T) {
	r := newRig(t)
	id := r.watchdog("tick", "exit 0")
	r.started()
	at := func(h, m int) time.Time { return time.Date(2026, 1, 15, h, m, 0, 0, time.UTC) }
	want := func(states string) {
		t.Helper()
		waitFor(t, func() bool { return r.states(id) == states })
	}
	r.asleep(at(10, 1))
	r.clock.Set(at(10, 10))
	want("10:10 silent")
	// Half an hour back: 10:10 comes again, and is not fired again.
	r.clock.Set(at(9, 40))
	r.asleep(at(9, 41))
	r.clock.Set(at(9, 50))
	want("09:50 silent, 10:10 silent")
	r.asleep(at(9, 51))
	r.clock.Set(at(10, 0))
	want("09:50 silent, 10:00 silent, 10:10 silent")
	r.asleep(at(10, 1))
	r.clock.Set(at(10, 10))
	r.asleep(at(10, 11))
	want("09:50 silent, 10:00 silent, 10:10 silent")
	// Three hours ahead, by mistake: one is made up for, the others are missed.
	r.clock.Set(at(13, 12))
	waitFor(t, func() bool { return len(r.runs(id)) == 21 })
	r.asleep(at(13, 13))
	// And right again: what was only missed by the wrong clock is fired.
	r.clock.Set(at(10, 12))
	want("09:50 silent, 10:00 silent, 10:10 silent, 13:10 silent")
	r.asleep(at(10, 13))
	r.clock.Set(at(10, 20))
	want("09:50 silent, 10:00 silent, 10:10 silent, 10:20 silent, 13:10 silent")
}
