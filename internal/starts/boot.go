package starts

import (
	"os"
	"strings"
	"time"
)

// BootID names this boot of the machine, "" where that cannot be told.
func BootID() string { return bootID() }

// Full tells whether older starts may have been dropped from the record.
func (r Record) Full() bool { return len(r.Starts) >= kept }

// Uptime is how long ago the machine booted, sleep included; proc_uptime(5). 0
// where that is not told.
func Uptime() time.Duration {
	text, err := os.ReadFile("/proc/uptime")
	if err != nil {
		return 0
	}
	seconds, _, _ := strings.Cut(string(text), " ")
	up, err := time.ParseDuration(seconds + "s")
	if err != nil {
		return 0
	}
	return up
}
