package schedule

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"
)

// oracle walks real time minute by minute, the slow and obvious way.
type oracle struct {
	f     fields
	zone  *time.Location
	at    time.Time // last real minute looked at
	wall  time.Time // its wall clock, as if UTC
	limit time.Time // greatest wall clock seen
}

func newOracle(f fields, zone *time.Location, from time.Time) *oracle {
	// Begin a day and a half early, so that a fold before from is known.
	o := &oracle{f: f, zone: zone, at: from.Add(-36 * time.Hour)}
	o.wall = wallOf(o.at, zone)
	o.limit = o.wall
	for o.at.Before(from) {
		o.step()
	}
	return o
}

func wallOf(t time.Time, zone *time.Location) time.Time {
	_, offset := t.In(zone).Zone()
	return t.UTC().Add(time.Duration(offset) * time.Second)
}

func (o *oracle) match(wall time.Time) bool {
	return o.f.minute&(1<<wall.Minute()) != 0 && o.f.hour&(1<<wall.Hour()) != 0 && o.f.matchDay(wall.Date())
}

// step moves one real minute on and tells whether that minute fires.
func (o *oracle) step() bool {
	o.at = o.at.Add(time.Minute)
	wall := wallOf(o.at, o.zone)
	fires := false
	switch {
	case o.f.everyHour():
		fires = o.match(wall)
	case wall.After(o.limit):
		for w := o.limit.Add(time.Minute); !w.After(wall); w = w.Add(time.Minute) {
			fires = fires || o.match(w)
		}
	}
	o.wall = wall
	if wall.After(o.limit) {
		o.limit = wall
	}
	return fires
}

// TestNextAgainstOracle compares a year of firings, minute by minute, for
// random expressions in zones with every kind of transition.
func TestNextAgainstOracle(t *testing.T) {
	zones := []struct {
		name string
		year int
	}{
		{"UTC", 2027}, {"America/New_York", 2026}, {"Europe/Berlin", 2024}, {"Asia/Seoul", 1988},
		{"Australia/Lord_Howe", 2026}, {"Pacific/Apia", 2011}, {"America/Santiago", 2022}, {"Asia/Kathmandu", 1985},
		{"Africa/Casablanca", 2025}, {"America/Sao_Paulo", 2017}, {"Europe/Dublin", 2026}, {"Asia/Pyongyang", 2015},
	}
	rng := rand.New(rand.NewPCG(1, 2))
	rounds := 2
	if testing.Short() {
		rounds = 1
	}
	for _, z := range zones {
		loc := zone(t, z.name)
		for range rounds {
			expr := randomExpr(rng)
			s, err := Parse(expr, reference, loc)
			if err != nil {
				continue // a day that never comes
			}
			from := time.Date(z.year, 1, 1, 0, 0, 0, 0, time.UTC)
			o := newOracle(s.fields, loc, from)
			next := s.Next(o.at)
			for i := 0; i < 366*24*60; i++ {
				fires := o.step()
				if predicted := next.Equal(o.at); fires != predicted {
					t.Fatalf("%s in %s at %s: oracle says %v, Next said %s", expr, z.name, o.at.In(loc), fires, next)
				}
				if fires {
					next = s.Next(o.at)
				}
			}
		}
	}
}

func randomExpr(rng *rand.Rand) string {
	pick := func(options ...string) string { return options[rng.IntN(len(options))] }
	n := func(lo, hi int) string { return fmt.Sprint(lo + rng.IntN(hi-lo+1)) }
	minute := pick("0", "30", "*/15", n(0, 59), n(0, 29)+"-"+n(30, 59), n(0, 59)+","+n(0, 59))
	hour := pick("*", "*", "2", "1-3", "0,2", "*/2", n(0, 23), n(0, 11)+"-"+n(12, 23))
	day := pick("*", "*", "*", n(1, 31), "L", "*/2", n(1, 15)+"-"+n(16, 31))
	month := pick("*", "*", "*", n(1, 12), n(1, 6)+"-"+n(7, 12))
	weekday := pick("*", "*", "1-5", "0", "sun,sat", n(0, 7))
	return minute + " " + hour + " " + day + " " + month + " " + weekday
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{"every 10m", "30m", "0 9 * * 1-5", "@daily", "every monday at 9am", "2026-02-03T14:00", "0 0 L,15 2 5-7", "weekdays at 9:30pm", "every", "at", "and", ",", "on", "every and"} {
		f.Add(s)
	}
	loc := zone(f, "America/New_York")
	f.Fuzz(func(t *testing.T, text string) {
		s, err := Parse(text, reference, loc)
		if err != nil {
			return
		}
		_ = s.Words()
		next := s.Next(reference)
		if s.Kind() != Once && next.IsZero() {
			t.Errorf("%q repeats and never fires", text)
		}
		if !next.IsZero() && !next.After(reference) {
			t.Errorf("%q: next %v is not after %v", text, next, reference)
		}
		again, err := Parse(s.Text(), reference, loc)
		if err != nil || !again.Next(reference).Equal(next) {
			t.Errorf("%q does not survive being stored as %q: %v", text, s.Text(), err)
		}
	})
}

func BenchmarkNext(b *testing.B) {
	loc := zone(b, "Europe/Berlin")
	for _, expr := range []string{"*/10 * * * *", "0 9 * * 1-5", "0 0 29 2 *"} {
		s, err := Parse(expr, reference, loc)
		if err != nil {
			b.Fatal(err)
		}
		b.Run(expr, func(b *testing.B) {
			for b.Loop() {
				s.Next(reference)
			}
		})
	}
}
