package schedule

import (
	"strconv"
	"strings"
	"time"

	"hermes/internal/domain"
	"hermes/internal/lazyregexp"
)

// Forms lists the accepted forms with an example each, for messages and help.
const Forms = `"every 10m" (repeating), "30m" or "in 2h" (once), "0 9 * * 1-5" (cron: minute hour day month weekday), "@daily", "every monday at 9am", "weekdays at 9:30pm", "2026-02-03T14:00" (once)`

const (
	maxText     = 256
	maxInterval = 10 * 366 * 24 * time.Hour
)

// Parse reads a schedule. now is what intervals and "in 2h" are counted from;
// whoever stores the text stores now with it. zone is what wall times are read
// in. It fails with domain.Invalid, with what was meant and an example.
func Parse(text string, now time.Time, zone *time.Location) (Schedule, error) {
	text = strings.Join(strings.Fields(text), " ")
	switch {
	case text == "":
		return Schedule{}, domain.E(domain.Invalid, nil, "the schedule is empty; write one of %s", Forms)
	case len(text) > maxText:
		return Schedule{}, domain.E(domain.TooLarge, nil, "the schedule has %d bytes; at most %d are read", len(text), maxText)
	}
	s := Schedule{text: text, zone: zone}
	lower := strings.ToLower(text)
	parsers := []func(*Schedule, string, time.Time) (bool, error){
		(*Schedule).parseMacro, (*Schedule).parseDuration, (*Schedule).parseInstant, (*Schedule).parsePhrase, (*Schedule).parseCron,
	}
	for _, parse := range parsers {
		if ok, err := parse(&s, lower, now); err != nil {
			return Schedule{}, err
		} else if ok {
			return s, nil
		}
	}
	return Schedule{}, domain.E(domain.Invalid, nil, "%q is no schedule that I know; write one of %s", text, Forms)
}

// parseMacro reads @daily and friends.
func (s *Schedule) parseMacro(text string, now time.Time) (bool, error) {
	name, ok := strings.CutPrefix(text, "@")
	if !ok {
		return false, nil
	}
	expr := map[string]string{
		"yearly": "0 0 1 1 *", "annually": "0 0 1 1 *", "monthly": "0 0 1 * *", "weekly": "0 0 * * 0",
		"daily": "0 0 * * *", "midnight": "0 0 * * *", "hourly": "0 * * * *",
	}[name]
	if expr != "" {
		return true, s.setCron(expr, expr)
	}
	if rest, ok := strings.CutPrefix(name, "every "); ok {
		return s.parseDuration("every "+rest, now)
	}
	return false, domain.E(domain.Invalid, nil, "@%s is not known; there are @hourly, @daily, @weekly, @monthly and @yearly (for something at every start there is no schedule)", name)
}

// setCron makes it a cron schedule.
func (s *Schedule) setCron(expr, display string) error {
	f, err := parseFields(strings.Fields(expr))
	if err != nil {
		return err
	}
	s.kind, s.expr, s.display, s.fields = Cron, expr, display, f
	return nil
}

var durationPart = lazyregexp.New(`^(\d*) ?([a-z]+) ?`)

// duration reads "30m", "2 hours", "1h30m", "hour". ok is false when it is none.
func duration(text string) (d time.Duration, ok bool, err error) {
	rest := text
	for rest != "" {
		m := durationPart.FindStringSubmatch(rest)
		if m == nil {
			return 0, false, nil
		}
		unit, known := unitOf(m[2])
		if !known {
			return 0, false, nil
		}
		if unit < time.Minute {
			return 0, false, domain.E(domain.Invalid, nil, "%q counts seconds; the shortest step of a schedule is a minute, e.g. \"every 1m\"", text)
		}
		n := 1
		if m[1] != "" {
			if n, err = strconv.Atoi(m[1]); err != nil || n > int(maxInterval/time.Minute) {
				return 0, false, domain.E(domain.Invalid, nil, "%q is too long; write the date instead, e.g. \"2027-01-31T09:00\"", text)
			}
		} else if len(m[2]) < 3 {
			return 0, false, nil
		}
		d += time.Duration(n) * unit
		rest = rest[len(m[0]):]
		if d > maxInterval {
			return 0, false, domain.E(domain.Invalid, nil, "%q is longer than ten years; write the date instead, e.g. \"2027-01-31T09:00\"", text)
		}
	}
	if d <= 0 {
		return 0, false, domain.E(domain.Invalid, nil, "%q is no time at all; the shortest step is a minute, e.g. \"every 1m\"", text)
	}
	return d, true, nil
}

func unitOf(s string) (time.Duration, bool) {
	switch s {
	case "s", "sec", "secs", "second", "seconds":
		return time.Second, true
	case "m", "min", "mins", "minute", "minutes":
		return time.Minute, true
	case "h", "hr", "hrs", "hour", "hours":
		return time.Hour, true
	case "d", "day", "days":
		return 24 * time.Hour, true
	case "w", "week", "weeks":
		return 7 * 24 * time.Hour, true
	}
	return 0, false
}

// parseDuration reads "every 10m" (repeating), "in 2h" and "30m" (once).
func (s *Schedule) parseDuration(text string, now time.Time) (bool, error) {
	rest, every := strings.CutPrefix(text, "every ")
	if every && (rest == "day" || rest == "week") {
		return false, nil // the calendar's, with or without a time of day
	}
	if !every {
		rest, _ = strings.CutPrefix(rest, "in ")
	}
	d, ok, err := duration(rest)
	if !ok || err != nil {
		return false, err
	}
	if y := now.Year(); y < 1970 || y > 2200 {
		now = time.Unix(0, 0) // a stored anchor that is damaged; a Duration spans 292 years only
	}
	base := now.In(s.zone).Truncate(time.Second)
	if every {
		s.kind, s.every, s.at = Interval, d, base
		s.display = "every " + strconv.Itoa(int(d/time.Minute)) + "m"
		return true, nil
	}
	s.kind, s.at, s.display = Once, base.Add(d), "once in "+strings.ReplaceAll(rest, " ", "")
	return true, nil
}

var dateStart = lazyregexp.New(`^\d{4}-\d{2}-\d{2}([t ]|$)`)

// parseInstant reads an ISO date or date and time, with or without a zone.
func (s *Schedule) parseInstant(text string, _ time.Time) (bool, error) {
	if !dateStart.MatchString(text) {
		return false, nil
	}
	iso := strings.Replace(strings.ToUpper(text), " ", "T", 1)
	for _, layout := range []string{time.RFC3339, "2006-01-02T15:04Z07:00", "2006-01-02T15:04:05Z0700", "2006-01-02T15:04Z0700"} {
		if t, err := time.Parse(layout, iso); err == nil {
			s.setOnce(t.In(s.zone))
			return true, nil
		}
	}
	for _, layout := range []string{"2006-01-02T15:04:05", "2006-01-02T15:04", "2006-01-02"} {
		if wall, err := time.Parse(layout, iso); err == nil {
			s.setOnce(instant(wall, s.zone))
			return true, nil
		}
	}
	return false, domain.E(domain.Invalid, nil, "%q looks like a date but is none; write e.g. \"2026-02-03T14:00\", with +09:00 or Z behind it for another zone than %s", s.text, s.zone)
}

func (s *Schedule) setOnce(t time.Time) {
	s.kind, s.at = Once, t.Truncate(time.Second)
	s.display = "once at " + t.Format("2006-01-02 15:04")
}

var cronField = lazyregexp.New(`^[0-9a-z*,/?-]+$`)

// parseCron reads five fields.
func (s *Schedule) parseCron(text string, _ time.Time) (bool, error) {
	parts := strings.Fields(text)
	if !strings.ContainsAny(parts[0], "0123456789*") {
		return false, nil
	}
	for _, p := range parts {
		if !cronField.MatchString(p) {
			return false, nil
		}
	}
	switch len(parts) {
	case 5:
		return true, s.setCron(text, s.text)
	case 6:
		return false, domain.E(domain.Invalid, nil, "%q has six fields; schedules have no seconds. Leave that field out: minute hour day month weekday, e.g. \"30 9 * * 1-5\"", s.text)
	}
	if strings.Contains(text, "*") {
		return false, domain.E(domain.Invalid, nil, "%q has %d fields; a cron expression has five: minute hour day month weekday, e.g. \"0 9 * * *\"", s.text, len(parts))
	}
	return false, nil
}
