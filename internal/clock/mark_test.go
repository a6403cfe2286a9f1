package clock

import (
	"context"
	"testing"
	"testing/synctest"
	"time"
)

func TestMarkTellsWhatHappened(t *testing.T) {
	const hour = time.Hour
	begin := Here()
	// later makes a mark after so long awake and asleep, on a wall clock that was
	// set by so much meanwhile.
	later := func(awake, asleep, set time.Duration) Mark {
		return Mark{wall: begin.wall.Add(awake + asleep + set), mono: begin.mono.Add(awake), boot: begin.boot + awake + asleep}
	}
	for name, c := range map[string]struct{ awake, slept, set time.Duration }{
		"nothing":          {awake: hour},
		"slept":            {awake: hour, slept: 2 * hour},
		"set forward":      {awake: hour, set: 24 * hour},
		"set back":         {awake: hour, set: -2 * hour},
		"slept, then set":  {awake: time.Second, slept: hour, set: 3 * time.Minute},
		"out of 1970, say": {awake: time.Minute, set: 56 * 8766 * hour},
	} {
		if slept, set := begin.Until(later(c.awake, c.slept, c.set)); slept != c.slept || set != c.set {
			t.Errorf("%s: slept %s, set by %s; want %s and %s", name, slept, set, c.slept, c.set)
		}
	}
	if slept, set := begin.Until(Here()); slept.Abs() > time.Minute || set.Abs() > time.Minute {
		t.Errorf("between two marks of this test: slept %s, set by %s", slept, set)
	}
}

func TestWatchEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		Watch(ctx, func(slept, set time.Duration) { t.Logf("a clock moved: slept %s, set by %s", slept, set) })
	}()
	cancel()
	<-done
}

// Where nothing tells that the clocks moved, they are looked at.
func TestWatchInSlices(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 3*slice+time.Second)
		defer cancel()
		looks := 0
		watchSliced(ctx, func() { looks++ })
		if looks != 3 {
			t.Errorf("looked %d times in three slices", looks)
		}
	})
}
