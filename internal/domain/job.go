package domain

import (
	"encoding/json"
	"time"
)

// JobID names a scheduled job: 12 lowercase hex digits.
type JobID string

// Job is a scheduled job as the ledger keeps it: the columns that the store
// must understand, and the definition as the cron package writes it.
type Job struct {
	ID         JobID           `json:"id"`
	Name       string          `json:"name"`
	Enabled    bool            `json:"enabled"`
	Definition json.RawMessage `json:"definition"`
	NextAt     time.Time       `json:"next_at,omitzero"` // next instant to fire; zero when none
	CreatedAt  time.Time       `json:"created_at"`
	UpdatedAt  time.Time       `json:"updated_at"`
	Version    int64           `json:"version"` // rises with every change; updates name the one that they read
}

// RunState is the state of one firing of a job.
type RunState string

// run: due → running(lease) → ok | silent | failed | timed_out | interrupted | missed | skipped.
const (
	RunDue         RunState = "due"
	RunRunning     RunState = "running"
	RunOK          RunState = "ok"
	RunSilent      RunState = "silent" // ended well with nothing to say
	RunFailed      RunState = "failed"
	RunTimedOut    RunState = "timed_out"
	RunInterrupted RunState = "interrupted" // its process died
	RunMissed      RunState = "missed"      // its instant passed while nothing could fire it
	RunSkipped     RunState = "skipped"     // its instant came while the run before was still going
)

// Ended tells whether the state is final.
func (s RunState) Ended() bool { return s != RunDue && s != RunRunning }

// Run is one firing of a job, unique on (Job, Instant).
type Run struct {
	ID        int64     `json:"id"`
	Job       JobID     `json:"job"`
	Instant   time.Time `json:"instant"` // when it was due
	Manual    bool      `json:"manual,omitempty"`
	State     RunState  `json:"state"`
	Fence     int64     `json:"fence"`
	TurnID    int64     `json:"turn_id,omitempty"`
	StartedAt time.Time `json:"started_at,omitzero"`
	EndedAt   time.Time `json:"ended_at,omitzero"`
	Error     string    `json:"error,omitempty"`
	Output    string    `json:"output,omitempty"` // bounded head of what it said
	Usage     Usage     `json:"usage"`
	// Delivery is derived from the run's deliveries: "" (none), pending, sent,
	// retrying, dead. It is a fact of its own beside State.
	Delivery string `json:"delivery,omitempty"`
}
