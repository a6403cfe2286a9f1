package schedule

import (
	"fmt"
	"math/bits"
	"strconv"
	"strings"
	"time"
)

// Words explains the schedule in a sentence: "at 09:30 on Monday to Friday
// (Europe/Berlin)".
func (s Schedule) Words() string {
	switch s.kind {
	case Once:
		return "once, at " + s.at.In(s.zone).Format("Monday, 2 January 2006, 15:04") + " (" + s.zone.String() + ")"
	case Interval:
		return "every " + span(s.every) + ", counted from " + s.at.In(s.zone).Format("2006-01-02 15:04")
	}
	text := s.fields.time()
	if day := s.fields.days(); day != "" {
		text += " " + day
	} else if !s.fields.everyHour() {
		text += " every day"
	}
	if all := set(1, 12); s.fields.month != all {
		text += " in " + list(s.fields.month, 1, 12, func(n int) string { return time.Month(n).String() })
	}
	return text + " (" + s.zone.String() + ")"
}

// span says a whole number of minutes in words.
func span(d time.Duration) string {
	for _, u := range []struct {
		unit time.Duration
		name string
	}{{7 * 24 * time.Hour, "week"}, {24 * time.Hour, "day"}, {time.Hour, "hour"}, {time.Minute, "minute"}} {
		if d%u.unit == 0 {
			if n := d / u.unit; n != 1 {
				return fmt.Sprintf("%d %ss", n, u.name)
			}
			return u.name
		}
	}
	return d.String()
}

// time says the minute and hour fields.
func (f fields) time() string {
	minutes, hours := bits.OnesCount64(f.minute), bits.OnesCount64(f.hour)
	if minutes*hours <= 6 && !f.everyHour() {
		var times []string
		for h := range 24 {
			for m := range 60 {
				if f.hour&(1<<h) != 0 && f.minute&(1<<m) != 0 {
					times = append(times, fmt.Sprintf("%02d:%02d", h, m))
				}
			}
		}
		return "at " + join(times)
	}
	var text string
	switch step := stepOf(f.minute, 60); {
	case f.minute == set(0, 59):
		text = "every minute"
	case step > 0:
		text = "every " + strconv.Itoa(step) + " minutes"
	case minutes == 1 && f.minute == 1:
		text = "on the hour"
	default:
		text = "at minute " + list(f.minute, 0, 59, strconv.Itoa)
	}
	switch step := stepOf(f.hour, 24); {
	case f.everyHour() && (minutes == 60 || stepOf(f.minute, 60) > 0):
		return text
	case f.everyHour():
		return text + " of every hour"
	case step > 0:
		return text + " of every " + strconv.Itoa(step) + " hours from midnight"
	}
	return text + " in the hours " + list(f.hour, 0, 23, func(n int) string { return fmt.Sprintf("%02d", n) })
}

// stepOf is n where the set is 0, n, 2n … up to size, and n divides size.
func stepOf(m uint64, size int) int {
	if m&1 == 0 || bits.OnesCount64(m) < 2 {
		return 0
	}
	n := bits.TrailingZeros64(m &^ 1)
	if n == 1 || size%n != 0 {
		return 0
	}
	var want uint64
	for v := 0; v < size; v += n {
		want |= 1 << v
	}
	if m != want {
		return 0
	}
	return n
}

// days says the day fields; "" when every day matches.
func (f fields) days() string {
	var month, week string
	if !f.anyDay {
		if f.day != 0 {
			month = "on day " + list(f.day, 1, 31, strconv.Itoa)
		}
		if f.lastDay {
			if month != "" {
				month += " and "
			}
			month += "on the last day"
		}
		month += " of the month"
	}
	if !f.anyWeekday {
		// Sunday is put last, so that a weekend reads as one.
		m := f.weekday&^1 | f.weekday&1<<7
		week = "on " + list(m, 1, 7, func(n int) string { return time.Weekday(n % 7).String() })
	}
	if month != "" && week != "" {
		return month + ", and also " + week
	}
	return month + week
}

// list says the values of a set, with runs of three and more as "a to b".
func list(m uint64, lo, hi int, say func(int) string) string {
	var parts []string
	for v := lo; v <= hi; v++ {
		if m&(1<<v) == 0 {
			continue
		}
		end := v
		for end < hi && m&(1<<(end+1)) != 0 {
			end++
		}
		if end-v >= 2 {
			parts = append(parts, say(v)+" to "+say(end))
			v = end
			continue
		}
		parts = append(parts, say(v))
	}
	return join(parts)
}

// join puts commas and a final "and" between parts.
func join(parts []string) string {
	if len(parts) < 2 {
		return strings.Join(parts, "")
	}
	return strings.Join(parts[:len(parts)-1], ", ") + " and " + parts[len(parts)-1]
}
