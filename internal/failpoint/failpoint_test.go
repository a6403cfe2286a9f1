package failpoint

import (
	"slices"
	"testing"
)

// A normal build must pass every mark.
func TestMarksAreDistinctAndHarmless(t *testing.T) {
	seen := map[string]bool{}
	for _, m := range slices.Concat(All(), Firing(), Handover(), Life(), Update()) {
		if seen[m] {
			t.Errorf("%s stands twice", m)
		}
		seen[m] = true
		Hit(m)
	}
}
