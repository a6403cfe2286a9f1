package schedule

import (
	"time"
)

// horizonDays bounds every search: 29 February can be eight years away
// (1896–1904, 2096–2104), and nothing that possible lets through is rarer.
const horizonDays = 366 * 9

// next is the first firing after an instant.
func (f fields) next(after time.Time, zone *time.Location) time.Time {
	after = after.In(zone)
	if f.everyHour() {
		return f.nextReal(after, zone)
	}
	return f.nextWall(after, zone)
}

// nextWall walks the calendar: wall times in order are instants in order, so
// the first that lies after is the answer.
func (f fields) nextWall(after time.Time, zone *time.Location) time.Time {
	year, month, day := after.Date()
	for i := range horizonDays {
		d := time.Date(year, month, day+i, 0, 0, 0, 0, time.UTC)
		if !f.matchDay(d.Date()) || !instant(d.Add(24*time.Hour-time.Minute), zone).After(after) {
			continue
		}
		for h := range 24 {
			hour := d.Add(time.Duration(h) * time.Hour)
			if f.hour&(1<<h) == 0 || !instant(hour.Add(59*time.Minute), zone).After(after) {
				continue
			}
			for m := range 60 {
				if f.minute&(1<<m) == 0 {
					continue
				}
				if t := instant(hour.Add(time.Duration(m)*time.Minute), zone); t.After(after) {
					return t
				}
			}
		}
	}
	return time.Time{}
}

// nextReal walks real time, one stretch of constant offset after the other.
func (f fields) nextReal(after time.Time, zone *time.Location) time.Time {
	limit := after.AddDate(0, 0, horizonDays)
	for from := after.Add(1); from.Before(limit); {
		_, end := from.In(zone).ZoneBounds()
		if end.IsZero() || end.After(limit) {
			end = limit
		}
		if t := f.nextWithin(from, end, zone); !t.IsZero() {
			return t
		}
		from = end
	}
	return time.Time{}
}

// nextWithin is the first match in [from, end), where the offset of the zone
// is constant, or zero.
func (f fields) nextWithin(from, end time.Time, zone *time.Location) time.Time {
	_, offset := from.In(zone).Zone()
	shift := time.Duration(offset) * time.Second
	// wall shows the local clock as if it were UTC.
	wall := from.Add(shift).UTC()
	if rounded := wall.Truncate(time.Minute); rounded.Before(wall) {
		wall = rounded.Add(time.Minute)
	}
	last := end.Add(shift).UTC()
	for wall.Before(last) {
		if !f.matchDay(wall.Date()) {
			wall = wall.Truncate(24 * time.Hour).Add(24 * time.Hour)
			continue
		}
		hour := wall.Truncate(time.Hour)
		for m := wall.Minute(); m < 60; m++ {
			if f.minute&(1<<m) != 0 {
				if t := hour.Add(time.Duration(m) * time.Minute); t.Before(last) {
					return t.Add(-shift).In(zone)
				}
				return time.Time{}
			}
		}
		wall = hour.Add(time.Hour)
	}
	return time.Time{}
}

// instant is the real instant of a wall time (given as if it were UTC) in a
// zone: the first where it occurs twice, the end of the gap where it does not
// occur.
func instant(wall time.Time, zone *time.Location) time.Time {
	guess := time.Date(wall.Year(), wall.Month(), wall.Day(), wall.Hour(), wall.Minute(), wall.Second(), 0, zone)
	start, end := guess.ZoneBounds()
	const near = 26 * time.Hour // more than any two offsets differ
	beforeStart := !start.IsZero() && guess.Sub(start) < near
	beforeEnd := !end.IsZero() && end.Sub(guess) < near
	if !beforeStart && !beforeEnd {
		return guess
	}
	first := guess
	if beforeStart {
		first = start.Add(-1)
	}
	var gap time.Time
	for at, i := first, 0; i < 4; i++ {
		from, to := at.ZoneBounds()
		_, offset := at.Zone()
		t := wall.Add(-time.Duration(offset) * time.Second)
		switch {
		case !from.IsZero() && t.Before(from):
			// This stretch begins after the wall time, and none before it
			// held it: the wall time was jumped over.
			return latest(gap, from).In(zone)
		case to.IsZero() || t.Before(to):
			return t.In(zone)
		}
		at, gap = to.In(zone), to
	}
	return guess
}

func latest(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
