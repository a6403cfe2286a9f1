package torture

import (
	"context"
	"os"
	"strconv"
	"testing"
	"time"

	"hermes/testkit/people"
	"hermes/testkit/rig"
)

// TestTorture kills the gateway at every row of the crash table while people talk
// to it on one platform after another: in CI 200 times on Telegram, on which most
// can go wrong, and 40 times on each other; HERMES_TORTURE times on each where
// that is set.
func TestTorture(t *testing.T) {
	n := 0
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
	for _, name := range people.Names() {
		t.Run(name, func(t *testing.T) {
			kills := n
			if kills == 0 {
				kills = 40
				if name == "telegram" {
					kills = 200
				}
			}
			c, err := Run(ctx, t.TempDir(), binary, name, kills, seed, t.Logf)
			t.Logf("counts:\n%s", c)
			if err != nil {
				t.Fatal(err)
			}
			if c.Bad() {
				t.Errorf("broken promises: lost %v, tools twice %v, turns twice %v, repeated silently %v, repeated where the platform knows a repetition %v",
					c.Lost, c.ToolTwice, c.TurnTwice, c.RepeatedSilent, c.RepeatedNeedless)
			}
			for p, n := range c.ByPoint {
				if n == 0 {
					t.Errorf("the gateway never died at %s: the mark is not reached", p)
				}
			}
		})
	}
}
