package schedule

import (
	"math/bits"
	"strconv"
	"strings"
	"time"

	"hermes/internal/domain"
)

// fields are the five fields of a cron expression as bit sets: bit n stands
// for value n.
type fields struct {
	minute, hour, day, month, weekday uint64
	lastDay                           bool // L in day-of-month
	anyDay, anyWeekday                bool
}

// field describes what one field may hold.
type field struct {
	name     string
	min, max int
	names    []string // names[i] stands for min+i
	example  string
}

var monthNames = []string{"jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"}
var dayNames = []string{"sun", "mon", "tue", "wed", "thu", "fri", "sat"}

// fieldList is the order of the fields in an expression.
func fieldList() [5]field {
	return [5]field{
		{name: "minute", min: 0, max: 59, example: "0, */15 or 0,30"},
		{name: "hour", min: 0, max: 23, example: "9, */2 or 9-17"},
		{name: "day of the month", min: 1, max: 31, example: "1, 1,15 or L"},
		{name: "month", min: 1, max: 12, names: monthNames, example: "1, jan or 6-8"},
		{name: "day of the week", min: 0, max: 7, names: dayNames, example: "1-5, mon or sat,sun"},
	}
}

// set gives the bits of a range of values.
func set(lo, hi int) uint64 {
	var m uint64
	for v := lo; v <= hi; v++ {
		m |= 1 << v
	}
	return m
}

// parseFields reads the five fields of an expression.
func parseFields(parts []string) (fields, error) {
	var f fields
	list := fieldList()
	targets := [5]*uint64{&f.minute, &f.hour, &f.day, &f.month, &f.weekday}
	for i, text := range parts {
		if i == 2 {
			text, f.lastDay = cutLast(text)
			if text == "" {
				continue
			}
		}
		m, err := list[i].parse(text)
		if err != nil {
			return fields{}, err
		}
		*targets[i] = m
	}
	if f.weekday&(1<<7) != 0 {
		f.weekday = f.weekday&^(1<<7) | 1
	}
	f.anyDay, f.anyWeekday = f.day == set(1, 31), f.weekday == set(0, 6)
	if !f.possible() {
		return fields{}, domain.E(domain.Invalid, nil, "day %s never comes in month %s, so this would never fire; for the last day of a month write L, as in \"0 9 L * *\"", parts[2], parts[3])
	}
	return f, nil
}

// cutLast takes L, the last day of the month, out of a list.
func cutLast(text string) (rest string, found bool) {
	var kept []string
	for item := range strings.SplitSeq(text, ",") {
		if strings.EqualFold(item, "L") {
			found = true
			continue
		}
		kept = append(kept, item)
	}
	if !found {
		return text, false
	}
	return strings.Join(kept, ","), true
}

// parse reads one field: a list of items.
func (d field) parse(text string) (uint64, error) {
	var m uint64
	for item := range strings.SplitSeq(text, ",") {
		bits, err := d.item(item)
		if err != nil {
			return 0, err
		}
		m |= bits
	}
	return m, nil
}

// item reads *, n, a-b, each with an optional /step. A single value with a
// step runs to the end of the field.
func (d field) item(text string) (uint64, error) {
	body, stepText, stepped := strings.Cut(text, "/")
	step := 1
	if stepped {
		n, err := strconv.Atoi(stepText)
		if err != nil || n < 1 || n > d.max {
			return 0, d.refuse(text, "the step after / must be a number from 1 to "+strconv.Itoa(d.max))
		}
		step = n
	}
	lo, hi := d.min, d.max
	if d.names != nil && d.min == 0 {
		hi = 6 // 7 is Sunday's other name, no day of its own
	}
	from, to, ranged := strings.Cut(body, "-")
	switch {
	case body == "*" || body == "?" && strings.HasPrefix(d.name, "day"):
	case ranged:
		a, okA := d.value(from)
		b, okB := d.value(to)
		if !okA || !okB {
			return 0, d.refuse(text, "")
		}
		if b == 0 && a > 0 && d.max == 7 {
			b = 7
		}
		if b < a {
			return 0, d.refuse(text, "a range goes from the smaller to the greater value; write "+from+"-"+strconv.Itoa(hi)+","+strconv.Itoa(d.min)+"-"+to+" to go over the end")
		}
		lo, hi = a, b
	default:
		v, ok := d.value(body)
		if !ok {
			return 0, d.refuse(text, "")
		}
		lo = v
		if !stepped {
			hi = v
		}
	}
	var m uint64
	for v := lo; v <= hi; v += step {
		m |= 1 << v
	}
	return m, nil
}

// value reads a number or a name; names may be written out.
func (d field) value(text string) (int, bool) {
	if n, err := strconv.Atoi(text); err == nil && text[0] != '+' && text[0] != '-' {
		return n, n >= d.min && n <= d.max
	}
	text = strings.ToLower(text)
	for i, name := range d.names {
		if text == name || len(text) > 3 && strings.HasPrefix(fullName(name), text) {
			return d.min + i, true
		}
	}
	return 0, false
}

// fullName is the written-out form of a three-letter name.
func fullName(short string) string {
	for d := time.Sunday; d <= time.Saturday; d++ {
		if full := strings.ToLower(d.String()); full[:3] == short {
			return full
		}
	}
	for m := time.January; m <= time.December; m++ {
		if full := strings.ToLower(m.String()); full[:3] == short {
			return full
		}
	}
	return short
}

func (d field) refuse(text, why string) error {
	if why == "" {
		why = "it takes " + strconv.Itoa(d.min) + " to " + strconv.Itoa(d.max)
		if d.names != nil {
			why += " or names (" + d.names[0] + " … " + d.names[len(d.names)-1] + ")"
		}
	}
	return domain.E(domain.Invalid, nil, "%q is not a %s: %s, e.g. %s", text, d.name, why, d.example)
}

// possible tells whether some day can ever match.
func (f fields) possible() bool {
	if f.lastDay || f.anyDay || !f.anyWeekday {
		return true
	}
	first := bits.TrailingZeros64(f.day)
	for m := 1; m <= 12; m++ {
		if f.month&(1<<m) != 0 && first <= daysIn(2000, time.Month(m)) {
			return true
		}
	}
	return false
}

// daysIn is the number of days of a month.
func daysIn(year int, m time.Month) int {
	return time.Date(year, m+1, 0, 0, 0, 0, 0, time.UTC).Day()
}

// matchDay tells whether a calendar day matches. Where both the day of the
// month and the day of the week are restricted, either is enough.
func (f fields) matchDay(year int, m time.Month, day int) bool {
	if f.month&(1<<m) == 0 {
		return false
	}
	inMonth := f.day&(1<<day) != 0 || f.lastDay && day == daysIn(year, m)
	inWeek := f.weekday&(1<<time.Date(year, m, day, 0, 0, 0, 0, time.UTC).Weekday()) != 0
	if f.anyDay || f.anyWeekday {
		return inMonth && inWeek
	}
	return inMonth || inWeek
}

// everyHour tells whether the expression follows real hours.
func (f fields) everyHour() bool { return f.hour == set(0, 23) }
