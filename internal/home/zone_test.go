package home

import (
	"testing"
	"time"
)

// The zone under its name is the same zone.
func TestHostZone(t *testing.T) {
	zone := hostZone()
	for _, month := range []time.Month{time.January, time.July} {
		at := time.Date(2026, month, 1, 12, 0, 0, 0, time.UTC)
		_, want := at.In(time.Local).Zone()
		if _, got := at.In(zone).Zone(); got != want {
			t.Errorf("%s is %d s from UTC in %s, the host's zone %d s", zone, got, month, want)
		}
	}
}
