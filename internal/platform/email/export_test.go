package email

import (
	"bytes"
	"time"

	"hermes/internal/domain"
)

// Hasten shortens the waits between attempts.
func (a *Adapter) Hasten() {
	a.pause = pauses{first: time.Millisecond, most: 10 * time.Millisecond, failures: 50, copies: 10 * time.Millisecond}
}

// Read makes an event of a mail, or gives why it came back.
func (a *Adapter) Read(raw []byte) (in domain.Inbound, ok bool, back string) {
	m := letter{uid: 1, arrived: a.now(), size: int64(len(raw))}
	m.take(bytes.NewReader(raw), a.cfg.MaxText)
	in, ok = a.mail(1, m)
	b, _ := a.comesBack(m)
	return in, ok, b.reason
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
