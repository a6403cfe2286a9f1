//go:build !linux

package clock

import "time"

// began is what the monotonic clock is measured from.
var began = time.Now()

// sinceBoot knows of no clock that goes on while the machine is suspended.
func sinceBoot(at time.Time) time.Duration { return at.Sub(began) }
