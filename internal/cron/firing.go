package cron

import (
	"fmt"
	"time"

	"hermes/internal/cron/schedule"
	"hermes/internal/domain"
)

const (
	// inTime is how late a firing may be and still count as punctual.
	inTime = time.Minute
	// maxMissedRecorded bounds the rows that one long outage leaves behind.
	maxMissedRecorded = 20
	// maxCaughtUp bounds what "all" makes up for at once.
	maxCaughtUp = 100
	// maxQueued bounds a job's unfinished firings.
	maxQueued = 100
	// maxWalked bounds the search through a long outage.
	maxWalked = 5000
)

// situation is what a firing decision depends on.
type situation struct {
	def      Definition
	schedule schedule.Schedule
	from     time.Time // the job's NextAt, not after now
	now      time.Time
	left     int // firings that a finite repeat still allows; negative: no bound
	open     int // the job's firings that are due or running
	grace    time.Duration
}

// firing is the decision: runs to record, and when to look again.
type firing struct {
	runs   []domain.Run
	next   time.Time
	due    int // of runs
	missed int // instants that passed unfired, recorded or not
}

// decide says what becomes of every instant from s.from to now.
func (s situation) decide() firing {
	instants, passed := s.backlog()
	late := s.grace
	policy := orDefault(s.def.CatchUp, CatchUpOne)
	if policy == CatchUpNone {
		late = min(late, inTime)
	}
	var eligible []time.Time
	var f firing
	for _, t := range instants {
		if s.now.Sub(t) <= late {
			eligible = append(eligible, t)
		}
	}
	keep := 1
	if policy == CatchUpAll {
		keep = maxCaughtUp
	}
	if cut := len(eligible) - keep; cut > 0 {
		eligible = eligible[cut:]
	}
	missed := instants[:len(instants)-len(eligible)]
	f.missed = passed + len(missed)
	for _, t := range missed[max(0, len(missed)-maxMissedRecorded):] {
		f.runs = append(f.runs, domain.Run{Job: "", Instant: t, State: domain.RunMissed,
			Error: fmt.Sprintf("nothing could fire it at %s; it was noticed %s later", t.In(s.schedule.Zone()).Format("15:04"), s.now.Sub(t).Round(time.Second))})
	}
	for _, t := range eligible {
		if s.left == 0 {
			break
		}
		f.runs = append(f.runs, s.fire(t, &f))
	}
	if s.left != 0 {
		f.next = s.schedule.Next(s.now)
	}
	return f
}

// fire decides about one instant that is in time.
func (s *situation) fire(t time.Time, f *firing) domain.Run {
	overlap := orDefault(s.def.Overlap, OverlapSkip)
	switch {
	case s.open > 0 && overlap == OverlapSkip && s.def.CatchUp != CatchUpAll:
		return domain.Run{Instant: t, State: domain.RunSkipped, Error: "the run before was still going (overlap: skip)"}
	case s.open >= maxQueued:
		return domain.Run{Instant: t, State: domain.RunSkipped, Error: fmt.Sprintf("%d firings of this job are already waiting or running", s.open)}
	}
	s.open++
	s.left--
	f.due++
	return domain.Run{Instant: t, State: domain.RunDue}
}

// backlog lists the instants from s.from to now. Of a very long outage only
// the end is listed; passed counts at least the steps walked before it.
func (s situation) backlog() (instants []time.Time, passed int) {
	t := s.from
	if s.schedule.Kind() == schedule.Cron {
		// An instant that the schedule does not have was computed in another
		// zone: it is not fired, and the next real one takes its place.
		t = s.schedule.Next(s.from.Add(-1))
	}
	for ; !t.IsZero() && !t.After(s.now); t = s.schedule.Next(t) {
		if len(instants) == maxWalked {
			passed += len(instants) - maxMissedRecorded
			instants = append(instants[:0:0], instants[len(instants)-maxMissedRecorded:]...)
			if jump := s.schedule.Next(s.now.Add(-s.grace - time.Second)); jump.After(t) {
				t = jump
				if t.IsZero() || t.After(s.now) {
					break
				}
			}
		}
		instants = append(instants, t)
	}
	return instants, passed
}
