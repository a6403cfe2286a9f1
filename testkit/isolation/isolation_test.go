package isolation

import (
	"os"
	"testing"
	"time"

	"hermes/testkit/people"
	"hermes/testkit/rig"
)

// TestOneBadPlatformHarmsNoOther lets each platform misbehave in each way while
// people on all others talk: for 0.7 seconds each in CI, HERMES_ISOLATION (a
// duration) where that is set.
func TestOneBadPlatformHarmsNoOther(t *testing.T) {
	window := 700 * time.Millisecond
	if s := os.Getenv("HERMES_ISOLATION"); s != "" {
		var err error
		if window, err = time.ParseDuration(s); err != nil {
			t.Fatal(err)
		}
	}
	victims := people.Names()
	if s := os.Getenv("HERMES_ISOLATION_OF"); s != "" {
		victims = []string{s}
	}
	binary, err := rig.Build(t.Context(), t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	cells, err := Run(t.Context(), Options{Dir: t.TempDir(), Binary: binary, Window: window, Platforms: victims, Logf: t.Logf})
	if err != nil {
		t.Fatal(err)
	}
	if want := len(victims) * len(faults()); len(cells) != want {
		t.Errorf("%d cells were measured; want %d", len(cells), want)
	}
	t.Log(Sum(cells))
	var usual time.Duration // of the whole run, since a fault from the start has no before
	for _, c := range cells {
		usual = max(usual, c.Before.P99)
	}
	for _, c := range cells {
		if c.Before.Lost > 0 || c.During.Lost > 0 || c.During.N == 0 {
			t.Errorf("%s: answers were lost, or nobody asked", c)
		}
		if limit := max(10*max(c.Before.P99, usual), 5*time.Second); c.During.P99 > limit {
			t.Errorf("%s: the others waited longer than %s", c, limit)
		}
	}
}
