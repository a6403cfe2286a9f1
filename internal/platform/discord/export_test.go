package discord

import "time"

// Hasten shortens the waits of the gateway loop.
func (a *Adapter) Hasten() {
	a.pause.first, a.pause.most = time.Millisecond, 5*time.Millisecond
	a.pause.invalid, a.pause.identify, a.pause.intent = 5*time.Millisecond, 0, 5*time.Millisecond
	a.pause.save, a.pause.steady = 5*time.Millisecond, 0
}

// Impatient shortens the wait for hello and ready.
func (a *Adapter) Impatient() { a.pause.hello = 50 * time.Millisecond }

// Patience is the longest that a request waits for its rate limit.
func (a *Adapter) Patience(d time.Duration) { a.pause.inner = d }

// CloseIdle closes connections that tests of single calls leave open.
func (a *Adapter) CloseIdle() { a.http.CloseIdleConnections(); a.files.CloseIdleConnections() }

// What tests look into.
const (
	MaxIdentifies = maxIdentifies
	MaxPositions  = maxPositions
)

// ReadPosition and its string are the cursor.
func ReadPosition(cursor string) string { return readPosition(cursor).String() }
