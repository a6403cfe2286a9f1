// Package cron fires scheduled jobs and runs them: a script, or a turn of the
// agent. A firing is a row of the ledger before anything runs, unique on job
// and instant, and its end is committed together with what is to be delivered;
// whether the delivery succeeded is a fact of its own. The scheduler sleeps
// until the next instant on the wall clock and does nothing in between.
//
// Definition is a job as the ledger keeps it, Scheduler is the running part,
// Service is what the command line, the chat, the agent's tool and the HTTP
// API call.
package cron

import (
	"bytes"
	"encoding/json"
	"reflect"
	"strings"
	"sync"
	"time"

	"hermes/internal/cron/schedule"
	"hermes/internal/domain"
)

// Policies for firings whose instant passed while nothing could fire them.
const (
	CatchUpOne  = "one"  // the latest within the grace is fired, the others are missed
	CatchUpAll  = "all"  // all within the grace are fired, in order
	CatchUpNone = "none" // all are missed
)

// Policies for a firing that comes while the run before is still going.
const (
	OverlapSkip     = "skip"
	OverlapQueue    = "queue"
	OverlapParallel = "parallel"
)

// Policies for a run that a crash or a stop cut off.
const (
	InterruptFail  = "fail"  // it is reported
	InterruptRetry = "retry" // it is run again, at most three times
)

// Delivery targets that are no address.
const (
	DeliverLocal  = "local"  // only saved
	DeliverOrigin = "origin" // where the job was created
	DeliverAll    = "all"    // every home channel
)

// Repeat bounds how often a job fires.
type Repeat struct {
	Times     int `json:"times,omitempty"`     // 0 means for ever
	Completed int `json:"completed,omitempty"` // firings up to and including Through
	// Through is the instant of the last firing in Completed; later ones are
	// counted from the ledger, so that a crash cannot miscount.
	Through time.Time `json:"through,omitzero"`
}

// Origin is the chat that a job was created in.
type Origin struct {
	Platform domain.Platform `json:"platform"`
	ChatID   string          `json:"chat_id"`
	ChatName string          `json:"chat_name,omitempty"`
	ThreadID string          `json:"thread_id,omitempty"`
}

// Address is where an answer to the origin goes.
func (o Origin) Address() domain.Address {
	return domain.Address{Platform: o.Platform, ChatID: o.ChatID, ThreadID: o.ThreadID}
}

// Definition is what a job does and when, as domain.Job.Definition holds it.
// Keys that it does not know are kept.
type Definition struct {
	Prompt      string         `json:"prompt,omitempty"`
	Skills      []string       `json:"skills,omitempty"`
	Model       string         `json:"model,omitempty"`
	Provider    string         `json:"provider,omitempty"`
	BaseURL     string         `json:"base_url,omitempty"`
	Script      string         `json:"script,omitempty"`
	NoAgent     bool           `json:"no_agent,omitempty"`
	ContextFrom []domain.JobID `json:"context_from,omitempty"` // jobs whose newest output is put before the prompt

	Schedule string    `json:"schedule"`
	Anchor   time.Time `json:"anchor"`             // what intervals are counted from
	Timezone string    `json:"timezone,omitempty"` // IANA name; "" means the profile's
	Repeat   Repeat    `json:"repeat,omitzero"`

	Deliver        []string `json:"deliver,omitempty"`
	FailureDeliver []string `json:"failure_deliver,omitempty"` // in place of Deliver for alerts
	Origin         *Origin  `json:"origin,omitempty"`

	Workdir        string   `json:"workdir,omitempty"`
	Toolsets       []string `json:"enabled_toolsets,omitempty"`
	CatchUp        string   `json:"catch_up,omitempty"`
	Overlap        string   `json:"overlap,omitempty"`
	OnInterrupt    string   `json:"on_interrupt,omitempty"`
	TimeoutSeconds int      `json:"timeout_seconds,omitempty"` // of a whole run; 0 means the configured one for scripts, none for the agent
	GraceMinutes   int      `json:"grace_minutes,omitempty"`   // 0 means half the period, from 2 minutes to 2 hours
	Archive        string   `json:"archive,omitempty"`         // absolute path with %Y %m %d %H %M %S, in the job's zone

	Paused       bool      `json:"paused,omitempty"`
	PausedAt     time.Time `json:"paused_at,omitzero"`
	PausedReason string    `json:"paused_reason,omitempty"`

	extra map[string]json.RawMessage // keys of other programs, kept
}

// plainDefinition has Definition's fields and none of its methods.
type plainDefinition Definition

// MarshalJSON writes the known fields and the kept ones.
func (d Definition) MarshalJSON() ([]byte, error) {
	known, err := json.Marshal(plainDefinition(d))
	if err != nil || len(d.extra) == 0 {
		return known, err
	}
	all := make(map[string]json.RawMessage, len(d.extra))
	for k, v := range d.extra {
		all[k] = v
	}
	if err := json.Unmarshal(known, &all); err != nil {
		return nil, err
	}
	return json.Marshal(all)
}

// UnmarshalJSON reads the known fields and keeps the others.
func (d *Definition) UnmarshalJSON(b []byte) error {
	var p plainDefinition
	if err := json.Unmarshal(b, &p); err != nil {
		return err
	}
	if err := json.Unmarshal(b, &p.extra); err != nil {
		return err
	}
	for _, k := range definitionKeys() {
		delete(p.extra, k)
	}
	*d = Definition(p)
	return nil
}

var definitionKeys = sync.OnceValue(func() []string { return jsonKeys(reflect.TypeFor[plainDefinition]()) })

// jsonKeys lists the keys that a struct's tags name.
func jsonKeys(t reflect.Type) []string {
	var keys []string
	for i := range t.NumField() {
		if name, _, _ := strings.Cut(t.Field(i).Tag.Get("json"), ","); name != "" && name != "-" {
			keys = append(keys, name)
		}
	}
	return keys
}

// DefinitionOf reads a job's definition. It fails with domain.Invalid.
func DefinitionOf(j domain.Job) (Definition, error) {
	var d Definition
	if err := json.Unmarshal(bytes.TrimSpace(j.Definition), &d); err != nil {
		return Definition{}, domain.E(domain.Invalid, err, "the definition of job %q (%s) cannot be read; remove the job and create it again", j.Name, j.ID)
	}
	return d, nil
}

// ParseSchedule parses the schedule in the job's zone, or in fallback when it
// has none. It fails with domain.Invalid.
func (d Definition) ParseSchedule(fallback *time.Location) (schedule.Schedule, error) {
	zone, err := d.zone(fallback)
	if err != nil {
		return schedule.Schedule{}, err
	}
	return schedule.Parse(d.Schedule, d.Anchor, zone)
}

func (d Definition) zone(fallback *time.Location) (*time.Location, error) {
	if d.Timezone == "" {
		return fallback, nil
	}
	zone, err := time.LoadLocation(d.Timezone)
	if err != nil || strings.EqualFold(d.Timezone, "local") {
		return nil, domain.E(domain.Invalid, err, "%q is no time zone; write an IANA name such as Asia/Seoul, Europe/Berlin or UTC", d.Timezone)
	}
	return zone, nil
}

// orDefault gives v, or def when it is empty.
func orDefault(v, def string) string {
	if v == "" {
		return def
	}
	return v
}

// Bounds of the grace that is derived from a period, as the older system has
// them (two minutes, two hours).
const (
	minGrace = 120 * time.Second
	maxGrace = 7200 * time.Second
)

// grace is how late a firing may be made up for: the job's own, else the
// configured one, else half the period within bounds. What comes once has no
// period, and the longest grace.
func (d Definition) grace(s schedule.Schedule, at time.Time, configured time.Duration) time.Duration {
	switch {
	case d.GraceMinutes > 0:
		return time.Duration(d.GraceMinutes) * time.Minute
	case configured > 0:
		return configured
	case s.Kind() == schedule.Once:
		return maxGrace
	}
	return min(max(s.Period(at)/2, minGrace), maxGrace)
}
