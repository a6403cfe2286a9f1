// Package schedule reads what people write for "when", and computes instants
// from it: five-field cron expressions, intervals, single instants and a few
// phrases of English. All of it is pure; the zone and the current time are
// given by the caller.
//
// Daylight saving: a wall time that does not exist fires once, at the end of
// the gap; one that occurs twice fires once, the first time. An expression
// whose hour field is every hour follows real time: it fires in every real
// hour, twice in an hour that occurs twice and not in one that does not exist.
package schedule

import (
	"time"
)

// Kind is how a schedule repeats.
type Kind string

// The kinds, as jobs.json names them.
const (
	Cron     Kind = "cron"
	Interval Kind = "interval"
	Once     Kind = "once"
)

// Schedule is a parsed schedule. It is a value, immutable and safe to share.
type Schedule struct {
	kind    Kind
	text    string
	display string
	zone    *time.Location
	fields  fields        // Cron
	expr    string        // Cron: the five fields
	every   time.Duration // Interval
	at      time.Time     // Once: the instant; Interval: what it is counted from
}

// Kind tells how it repeats.
func (s Schedule) Kind() Kind { return s.kind }

// Text is what was parsed, with its white space tidied.
func (s Schedule) Text() string { return s.text }

// Display is the short form of jobs.json: "0 9 * * *", "every 30m", "once in
// 30m", "once at 2026-02-03 14:00".
func (s Schedule) Display() string { return s.display }

// Expr is the cron expression of Kind Cron.
func (s Schedule) Expr() string { return s.expr }

// Every is the period of Kind Interval, whole minutes.
func (s Schedule) Every() time.Duration { return s.every }

// At is the instant of Kind Once.
func (s Schedule) At() time.Time {
	if s.kind != Once {
		return time.Time{}
	}
	return s.at
}

// Zone is the zone that the wall clock of the schedule is read in.
func (s Schedule) Zone() *time.Location { return s.zone }

// Next is the first firing after an instant, in the schedule's zone; zero when
// there is none.
func (s Schedule) Next(after time.Time) time.Time {
	switch s.kind {
	case Once:
		if s.at.After(after) {
			return s.at
		}
	case Interval:
		if s.at.After(after) {
			// The clock was set back, or the caller looks at the past: the
			// count begins one period after the anchor.
			return s.at.Add(s.every)
		}
		n := after.Sub(s.at)/s.every + 1
		return s.at.Add(n * s.every)
	case Cron:
		return s.fields.next(after, s.zone)
	}
	return time.Time{}
}

// Period is the time between the next two firings after an instant; 0 when
// there are no two.
func (s Schedule) Period(after time.Time) time.Duration {
	first := s.Next(after)
	if first.IsZero() {
		return 0
	}
	second := s.Next(first)
	if second.IsZero() {
		return 0
	}
	return second.Sub(first)
}
