package torture

import (
	"context"
	"os"
	"strconv"
	"testing"

	"hermes/testkit/rig"
)

// TestSoak holds that memory stays flat under load: for one simulated hour in
// CI, for HERMES_SOAK_HOURS where that is set (`make soak`).
func TestSoak(t *testing.T) {
	hours := 1
	if s := os.Getenv("HERMES_SOAK_HOURS"); s != "" {
		var err error
		if hours, err = strconv.Atoi(s); err != nil {
			t.Fatal(err)
		}
	}
	ctx := context.Background()
	binary, err := rig.Build(ctx, t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	samples, err := Soak(ctx, t.TempDir(), binary, hours, t.Logf)
	if err != nil {
		t.Fatal(err)
	}
	for i, rss := range samples {
		if rss > 120<<20 {
			t.Errorf("after hour %d it holds %d MiB", i+1, rss>>20)
		}
	}
	if hours < 8 {
		return
	}
	g := Growth(samples)
	t.Logf("the last quarter is %+.1f %% of the second", 100*g)
	if g > 0.05 {
		t.Errorf("memory grew by %.1f %% between the second and the last quarter", 100*g)
	}
}

func TestGrowth(t *testing.T) {
	if g := Growth([]int64{1, 1, 100, 100, 7, 7, 110, 110}); g < 0.099 || g > 0.101 {
		t.Errorf("%v", g)
	}
}
