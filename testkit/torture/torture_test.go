package torture

import (
	"context"
	"os"
	"strconv"
	"testing"
	"time"

	"hermes/testkit/rig"
)

// TestTorture kills the gateway at every row of the crash table: 200 times in
// CI, HERMES_TORTURE times where that is set.
func TestTorture(t *testing.T) {
	n := 200
	if s := os.Getenv("HERMES_TORTURE"); s != "" {
		var err error
		if n, err = strconv.Atoi(s); err != nil {
			t.Fatal(err)
		}
	}
	ctx := context.Background()
	binary, err := rig.Build(ctx, t.TempDir(), "failpoint")
	if err != nil {
		t.Fatal(err)
	}
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	c, err := Run(ctx, t.TempDir(), binary, n, seed, t.Logf)
	t.Logf("counts:\n%s", c)
	if err != nil {
		t.Fatal(err)
	}
	if c.Bad() {
		t.Errorf("broken promises: lost %v, tools twice %v, turns twice %v, repeated silently %v", c.Lost, c.ToolTwice, c.TurnTwice, c.RepeatedSilent)
	}
	for _, p := range points() {
		if c.ByPoint[p] == 0 {
			t.Errorf("the gateway never died at %s: the mark is not reached", p)
		}
	}
}
