package schedule

import (
	"strconv"
	"strings"
	"time"

	"hermes/internal/domain"
	"hermes/internal/lazyregexp"
)

// parsePhrase reads "[every] day|weekday|monday and friday [at] 9:30pm" into a
// cron expression. Without a time of day it is midnight.
func (s *Schedule) parsePhrase(text string, _ time.Time) (bool, error) {
	if strings.ContainsAny(text, "*/") {
		return false, nil
	}
	words := strings.Fields(strings.NewReplacer(",", " ", " on ", " ").Replace(text))
	if len(words) == 0 {
		return false, nil
	}
	if words[0] == "every" || words[0] == "each" || words[0] == "on" {
		words = words[1:]
	}
	day, n := dayPart(words)
	if n == 0 {
		return false, nil
	}
	clock := words[n:]
	if len(clock) > 0 && clock[0] == "at" {
		if clock = clock[1:]; len(clock) == 0 {
			return false, domain.E(domain.Invalid, nil, "%q says \"at\" but no time of day; write e.g. \"every monday at 9am\"", s.text)
		}
	}
	if day == "hourly" {
		if len(clock) > 0 {
			return false, domain.E(domain.Invalid, nil, "%q: hourly takes no time of day; write e.g. \"30 * * * *\" for half past every hour", s.text)
		}
		return true, s.setCron("0 * * * *", "0 * * * *")
	}
	hour, minute, ok := timeOfDay(strings.Join(clock, ""))
	if !ok {
		return false, domain.E(domain.Invalid, nil, "%q is no time of day; write one such as 9am, 9:30pm, 14:00, noon or midnight (for several times a day use cron, e.g. \"0 9,18 * * *\")", strings.Join(clock, " "))
	}
	expr := strconv.Itoa(minute) + " " + strconv.Itoa(hour) + " " + day
	return true, s.setCron(expr, expr)
}

// dayPart reads the days at the beginning of words and gives the last three
// fields of the expression and how many words it took.
func dayPart(words []string) (expr string, n int) {
	if len(words) == 0 {
		return "", 0
	}
	switch words[0] {
	case "day", "daily", "everyday":
		return "* * *", 1
	case "hourly":
		return "hourly", 1
	case "weekly", "week":
		return "* * 0", 1
	case "monthly", "month":
		return "1 * *", 1
	case "yearly", "year", "annually":
		return "1 1 *", 1
	}
	var days []string
	for n < len(words) {
		d := daySet(words[n])
		if d == "" {
			break
		}
		days = append(days, d)
		if n++; n < len(words)-1 && words[n] == "and" && daySet(words[n+1]) != "" {
			n++
		}
	}
	if len(days) == 0 {
		return "", 0
	}
	return "* * " + strings.Join(days, ","), n
}

// daySet is the day-of-week field of a day's name, in singular or plural.
func daySet(word string) string {
	switch word = strings.TrimSuffix(word, "s"); word {
	case "weekday":
		return "1-5"
	case "weekend":
		return "6,0"
	}
	if len(word) < 3 {
		return ""
	}
	for d := time.Sunday; d <= time.Saturday; d++ {
		if full := strings.ToLower(d.String()); strings.HasPrefix(full, word) {
			return strconv.Itoa(int(d))
		}
	}
	return ""
}

var clockTime = lazyregexp.New(`^(\d{1,2})(?:[:.](\d{2}))?(am|pm|a\.m\.|p\.m\.)?$`)

// timeOfDay reads 9am, 9:30pm, 14:00, 7, noon, midnight; "" is midnight.
func timeOfDay(text string) (hour, minute int, ok bool) {
	switch text {
	case "", "midnight":
		return 0, 0, true
	case "noon":
		return 12, 0, true
	}
	m := clockTime.FindStringSubmatch(text)
	if m == nil {
		return 0, 0, false
	}
	hour, _ = strconv.Atoi(m[1])
	minute, _ = strconv.Atoi(m[2])
	if half := m[3]; half != "" {
		if hour < 1 || hour > 12 {
			return 0, 0, false
		}
		hour %= 12
		if half[0] == 'p' {
			hour += 12
		}
	}
	return hour, minute, hour < 24 && minute < 60
}
