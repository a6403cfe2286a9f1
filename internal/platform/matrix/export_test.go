package matrix

import "time"

// Hasten shortens the pauses between attempts, so that tests need not wait.
func (a *Adapter) Hasten() {
	a.pause = pauses{first: 5 * time.Millisecond, most: 20 * time.Millisecond, failures: 10_000}
}

// GiveUpAfter sets how many failures in a row end Run.
func (a *Adapter) GiveUpAfter(failures int) { a.pause.failures = failures }

// CloseIdle closes the connections that are kept for the next send.
func (a *Adapter) CloseIdle() { a.http.CloseIdleConnections() }
