package schedule

import (
	"strings"
	"testing"
	"time"
	_ "time/tzdata"

	"hermes/internal/domain"
)

func zone(t testing.TB, name string) *time.Location {
	t.Helper()
	z, err := time.LoadLocation(name)
	if err != nil {
		t.Fatal(err)
	}
	return z
}

// reference is a Thursday.
var reference = time.Date(2026, 1, 15, 10, 7, 30, 0, time.UTC)

func TestParseForms(t *testing.T) {
	for _, c := range []struct{ text, kind, display, next, words string }{
		{"every 10m", "interval", "every 10m", "2026-01-15 10:17", "every 10 minutes"},
		{"every 2 hours", "interval", "every 120m", "2026-01-15 12:07", "every 2 hours"},
		{"every 1h30m", "interval", "every 90m", "2026-01-15 11:37", "every 90 minutes"},
		{"every hour", "interval", "every 60m", "2026-01-15 11:07", "every hour"},
		{"every 1d", "interval", "every 1440m", "2026-01-16 10:07", "every day,"},
		{"30m", "once", "once in 30m", "2026-01-15 10:37", "once, at Thursday, 15 January 2026, 10:37"},
		{"in 2h", "once", "once in 2h", "2026-01-15 12:07", "once"},
		{"in 2 hours", "once", "once in 2hours", "2026-01-15 12:07", "once"},
		{"1d", "once", "once in 1d", "2026-01-16 10:07", "once"},
		{"@daily", "cron", "0 0 * * *", "2026-01-16 00:00", "at 00:00 every day"},
		{"@hourly", "cron", "0 * * * *", "2026-01-15 11:00", "on the hour of every hour"},
		{"@weekly", "cron", "0 0 * * 0", "2026-01-18 00:00", "at 00:00 on Sunday"},
		{"@yearly", "cron", "0 0 1 1 *", "2027-01-01 00:00", "at 00:00 on day 1 of the month in January"},
		{"0 9 * * *", "cron", "0 9 * * *", "2026-01-16 09:00", "at 09:00 every day"},
		{"*/15 * * * *", "cron", "*/15 * * * *", "2026-01-15 10:15", "every 15 minutes (UTC)"},
		{"* * * * *", "cron", "* * * * *", "2026-01-15 10:08", "every minute (UTC)"},
		{"5/20 * * * *", "cron", "5/20 * * * *", "2026-01-15 10:25", "at minute 5, 25 and 45 of every hour"},
		{"0 9-17/2 * * MON-FRI", "cron", "0 9-17/2 * * MON-FRI", "2026-01-15 11:00", "at 09:00, 11:00, 13:00, 15:00 and 17:00 on Monday to Friday"},
		{"0 0 * * 5-7", "cron", "0 0 * * 5-7", "2026-01-16 00:00", "at 00:00 on Friday to Sunday"},
		{"0 0 * * 7", "cron", "0 0 * * 7", "2026-01-18 00:00", "on Sunday"},
		{"0 0 * * sat-sun", "cron", "0 0 * * sat-sun", "2026-01-17 00:00", "on Saturday and Sunday"},
		{"0 0 13 * 5", "cron", "0 0 13 * 5", "2026-01-16 00:00", "at 00:00 on day 13 of the month, and also on Friday"},
		{"0 12 1 jan,JUL *", "cron", "0 12 1 jan,JUL *", "2026-07-01 12:00", "in January and July"},
		{"0 0 29 2 *", "cron", "0 0 29 2 *", "2028-02-29 00:00", "on day 29 of the month in February"},
		{"0 9 L * *", "cron", "0 9 L * *", "2026-01-31 09:00", "on the last day of the month"},
		{"0 9 31 * *", "cron", "0 9 31 * *", "2026-01-31 09:00", "on day 31"},
		{"0 9 ? * 1", "cron", "0 9 ? * 1", "2026-01-19 09:00", "on Monday"},
		{"every monday 9am", "cron", "0 9 * * 1", "2026-01-19 09:00", "at 09:00 on Monday"},
		{"every monday at 9:15 pm", "cron", "15 21 * * 1", "2026-01-19 21:15", "at 21:15 on Monday"},
		{"weekdays at 9:30pm", "cron", "30 21 * * 1-5", "2026-01-15 21:30", "on Monday to Friday"},
		{"Mondays and Thursdays at 14:00", "cron", "0 14 * * 1,4", "2026-01-15 14:00", "on Monday and Thursday"},
		{"every mon, wed, fri at noon", "cron", "0 12 * * 1,3,5", "2026-01-16 12:00", "on Monday, Wednesday and Friday"},
		{"weekends 7", "cron", "0 7 * * 6,0", "2026-01-17 07:00", "on Saturday and Sunday"},
		{"daily", "cron", "0 0 * * *", "2026-01-16 00:00", "at 00:00 every day"},
		{"every day at 12am", "cron", "0 0 * * *", "2026-01-16 00:00", "at 00:00"},
		{"daily at midnight", "cron", "0 0 * * *", "2026-01-16 00:00", "at 00:00"},
		{"2026-02-03T14:00", "once", "once at 2026-02-03 14:00", "2026-02-03 14:00", "once, at Tuesday, 3 February 2026, 14:00 (UTC)"},
		{"2026-02-03 14:00:30", "once", "once at 2026-02-03 14:00", "2026-02-03 14:00", "once"},
		{"2026-02-03T14:00:00+09:00", "once", "once at 2026-02-03 05:00", "2026-02-03 05:00", "once"},
		{"2026-02-03T14:00Z", "once", "once at 2026-02-03 14:00", "2026-02-03 14:00", "once"},
		{"2026-02-03T14:00:00.123456+0530", "once", "once at 2026-02-03 08:30", "2026-02-03 08:30", "once"},
		{"2026-02-03", "once", "once at 2026-02-03 00:00", "2026-02-03 00:00", "once"},
	} {
		s, err := Parse(c.text, reference, time.UTC)
		if err != nil {
			t.Errorf("%q: %v", c.text, err)
			continue
		}
		if string(s.Kind()) != c.kind || s.Display() != c.display {
			t.Errorf("%q: got %s %q, want %s %q", c.text, s.Kind(), s.Display(), c.kind, c.display)
		}
		if got := s.Next(reference).Format("2006-01-02 15:04"); got != c.next {
			t.Errorf("%q: next is %s, want %s", c.text, got, c.next)
		}
		if !strings.Contains(s.Words(), c.words) {
			t.Errorf("%q: words are %q, want %q in them", c.text, s.Words(), c.words)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	for text, want := range map[string]string{
		"":                          "empty",
		"tomorrowish":               "every 10m",
		"every 10s":                 "minute",
		"every 0m":                  "no time at all",
		"99999999999999999999m":     "too long",
		"every 500000000 minutes":   "too long",
		"every 5000 days":           "ten years",
		"0 9 * *":                   "five",
		"0 0 9 * * 1":               "seconds",
		"60 * * * *":                "minute",
		"0 24 * * *":                "hour",
		"0 0 0 * *":                 "day of the month",
		"0 0 * 13 *":                "month",
		"0 0 * * 8":                 "day of the week",
		"0 0 * * fr-mo":             "day of the week",
		"0 22-2 * * *":              "22-23,0-2",
		"*/0 * * * *":               "step",
		"*/99 * * * *":              "step",
		"1,,2 * * * *":              "minute",
		"-1 * * * *":                "minute",
		"0 0 31 2 *":                "never",
		"0 0 30 feb *":              "never",
		"@reboot":                   "@daily",
		"every monday at":           "no time of day",
		"every monday at 25:00":     "9:30pm",
		"every monday at 13pm":      "9:30pm",
		"daily at 9am and 6pm":      "0 9,18 * * *",
		"hourly at 9":               "30 * * * *",
		"2026-02-30T10:00":          "date",
		"2026-02-03T25:00":          "date",
		strings.Repeat("1,", 200):   "bytes",
		"0 9 * * * # good morning":  "every 10m",
		"every \u202e10m":           "every 10m",
		"0 9 * * 1;touch /tmp/file": "every 10m",
	} {
		_, err := Parse(text, reference, time.UTC)
		if code := domain.CodeOf(err); code != domain.Invalid && code != domain.TooLarge {
			t.Errorf("%q: error %v, want domain.Invalid", text, err)
			continue
		}
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %q does not name %q", text, err, want)
		}
	}
}

func TestDaylightSaving(t *testing.T) {
	for _, c := range []struct {
		name, zone, text, after string
		want                    []string
	}{
		{"gap, fixed: once at its end", "America/New_York", "30 2 * * *", "2026-03-07T12:00:00-05:00",
			[]string{"2026-03-08T03:00:00-04:00", "2026-03-09T02:30:00-04:00"}},
		{"gap, several fixed times: one firing", "Europe/Berlin", "0,15,30 2,3 * * *", "2026-03-28T12:00:00+01:00",
			[]string{"2026-03-29T03:00:00+02:00", "2026-03-29T03:15:00+02:00", "2026-03-29T03:30:00+02:00", "2026-03-30T02:00:00+02:00"}},
		{"gap, every hour: real hours", "America/New_York", "30 * * * *", "2026-03-08T00:45:00-05:00",
			[]string{"2026-03-08T01:30:00-05:00", "2026-03-08T03:30:00-04:00"}},
		{"fold, fixed: the first only", "America/New_York", "30 1 * * *", "2026-10-31T12:00:00-04:00",
			[]string{"2026-11-01T01:30:00-04:00", "2026-11-02T01:30:00-05:00"}},
		{"fold, asked between the two", "Europe/Berlin", "30 2 * * *", "2026-10-25T02:10:00+01:00",
			[]string{"2026-10-26T02:30:00+01:00"}},
		{"fold, every hour: both", "America/New_York", "30 * * * *", "2026-11-01T00:45:00-04:00",
			[]string{"2026-11-01T01:30:00-04:00", "2026-11-01T01:30:00-05:00", "2026-11-01T02:30:00-05:00"}},
		{"no daylight saving", "Asia/Seoul", "0 9 * * 1-5", "2026-03-06T10:00:00+09:00",
			[]string{"2026-03-09T09:00:00+09:00"}},
		{"half an hour's gap", "Australia/Lord_Howe", "15 2 * * *", "2026-10-03T12:00:00+10:30",
			[]string{"2026-10-04T02:30:00+11:00", "2026-10-05T02:15:00+11:00"}},
		{"half an hour's fold", "Australia/Lord_Howe", "45 1 * * *", "2026-04-04T12:00:00+11:00",
			[]string{"2026-04-05T01:45:00+11:00", "2026-04-06T01:45:00+10:30"}},
		{"a day that was left out", "Pacific/Apia", "0 9 * * *", "2011-12-29T08:00:00-10:00",
			[]string{"2011-12-29T09:00:00-10:00", "2011-12-31T00:00:00+14:00", "2011-12-31T09:00:00+14:00"}},
		{"gap at midnight", "America/Santiago", "0 0 * * *", "2026-09-05T12:00:00-04:00",
			[]string{"2026-09-06T01:00:00-03:00", "2026-09-07T00:00:00-03:00"}},
		{"ISO instant in a gap", "America/New_York", "2026-03-08T02:30", "2026-01-01T00:00:00-05:00",
			[]string{"2026-03-08T03:00:00-04:00"}},
		{"ISO instant in a fold", "America/New_York", "2026-11-01T01:30", "2026-01-01T00:00:00-05:00",
			[]string{"2026-11-01T01:30:00-04:00"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, err := Parse(c.text, reference, zone(t, c.zone))
			if err != nil {
				t.Fatal(err)
			}
			at, err := time.Parse(time.RFC3339, c.after)
			if err != nil {
				t.Fatal(err)
			}
			for _, want := range c.want {
				at = s.Next(at)
				if got := at.Format(time.RFC3339); got != want {
					t.Fatalf("got %s, want %s", got, want)
				}
			}
		})
	}
}

func TestLeapDayOverACentury(t *testing.T) {
	s, err := Parse("0 0 29 2 *", reference, time.UTC)
	if err != nil {
		t.Fatal(err)
	}
	if got := s.Next(time.Date(2096, 3, 1, 0, 0, 0, 0, time.UTC)); got.Year() != 2104 {
		t.Errorf("after 2096 it comes in %d, want 2104", got.Year())
	}
}

func TestIntervalKeepsItsPhase(t *testing.T) {
	s, err := Parse("every 10m", reference, time.UTC)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ after, want time.Duration }{
		{0, 10 * time.Minute}, {time.Second, 10 * time.Minute}, {10 * time.Minute, 20 * time.Minute},
		{10*time.Minute - 1, 10 * time.Minute}, {-time.Hour, 10 * time.Minute},
	} {
		if got := s.Next(reference.Add(c.after)).Sub(reference); got != c.want {
			t.Errorf("after %v: %v, want %v", c.after, got, c.want)
		}
	}
	if p := s.Period(reference); p != 10*time.Minute {
		t.Errorf("period is %v", p)
	}
}

func TestDamagedAnchor(t *testing.T) {
	for _, anchor := range []time.Time{{}, time.Date(9000, 1, 1, 0, 0, 0, 0, time.UTC)} {
		s, err := Parse("every 7m", anchor, time.UTC)
		if err != nil {
			t.Fatal(err)
		}
		if next := s.Next(reference); !next.After(reference) || next.Sub(reference) > 7*time.Minute {
			t.Errorf("counted from %v it is next due at %v", anchor, next)
		}
	}
}
