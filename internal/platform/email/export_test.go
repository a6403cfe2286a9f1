package email

import "time"

// Hasten shortens the waits between attempts.
func (a *Adapter) Hasten() {
	a.pause = pauses{first: time.Millisecond, most: 10 * time.Millisecond, failures: 50, copies: 10 * time.Millisecond}
}

// HTMLText, TrimQuoted and PassedDMARC are tested by themselves.
var (
	HTMLText    = htmlText
	TrimQuoted  = trimQuoted
	PassedDMARC = passedDMARC
)
