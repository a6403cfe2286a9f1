package email

import "time"

// Hasten shortens the waits between attempts.
func (a *Adapter) Hasten() {
	a.pause = pauses{first: time.Millisecond, most: 10 * time.Millisecond, failures: 50, copies: 10 * time.Millisecond}
}

// HTMLText, TrimQuoted and Unflow are tested by themselves.
var (
	HTMLText   = htmlText
	TrimQuoted = trimQuoted
	Unflow     = unflow
)

// PassedDMARC tells whether a server's headers let a mail pass.
func PassedDMARC(values []string, server, domain string) bool {
	return dmarc(values, server, domain) == dmarcPass
}
