package clock

import (
	"time"

	"golang.org/x/sys/unix"
)

// began is what the monotonic clock is measured from where CLOCK_BOOTTIME cannot
// be read.
var began = time.Now()

// sinceBoot is CLOCK_BOOTTIME, which goes on while the machine is suspended;
// clock_gettime(2).
func sinceBoot(at time.Time) time.Duration {
	var ts unix.Timespec
	if unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts) != nil {
		return at.Sub(began)
	}
	return time.Duration(ts.Nano())
}
