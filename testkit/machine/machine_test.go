package machine

import (
	"context"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"hermes/testkit/rig"
)

// cuts is how often the power is cut in CI; HERMES_POWER says otherwise.
const cuts = 8

// kit makes what all machines of the tests are made of.
func kit(t *testing.T) *Kit {
	t.Helper()
	if missing := Missing(t.Context()); len(missing) > 0 {
		text := "no machine can be made without " + strings.Join(missing, ", ") + "; as root on Debian `make setup` gets them"
		if os.Getenv("CI") != "" {
			t.Fatal(text)
		}
		t.Skip(text)
	}
	binary, err := rig.Build(t.Context(), t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	k, err := NewKit(t.Context(), t.TempDir(), binary)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// The machines are made of one kit, which takes a while to build.
func TestMachine(t *testing.T) {
	k := kit(t)
	t.Run("power", func(t *testing.T) {
		t.Parallel()
		testPowerCuts(t, k)
	})
	for name, test := range map[string]func(*testing.T, *Kit){"clock": testClockSet, "suspend": testSuspend, "no-clock": testNoClock} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, k)
		})
	}
	if os.Getenv("HERMES_POWER") != "" {
		t.Run("control", testControl)
	}
}

// testControl lets the cuts find a program that does not wait for the disk: were
// it found whole, the cuts would prove nothing of any other. It is part of the
// big form only, because it takes some cuts until one hits.
func testControl(t *testing.T) {
	const store, honest, careless = "internal/ledger/sqlite/sqlite.go", "synchronous(FULL)", "synchronous(OFF)"
	source, err := rig.Source(t.Context(), store)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(source, honest) {
		t.Fatalf("%s does not say %s", store, honest)
	}
	binary, err := rig.BuildOther(t.Context(), t.TempDir(), "careless", "", map[string]string{store: strings.ReplaceAll(source, honest, careless)})
	if err != nil {
		t.Fatal(err)
	}
	k, err := NewKit(t.Context(), t.TempDir(), binary)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 10 {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
		o, err := k.CutPower(ctx, t.TempDir(), 10, uint64(i))
		cancel()
		if o.Bad() || len(o.Broken) > 0 {
			t.Logf("found out in the %dth ten cuts: %v\n%s%s", i+1, err, o, strings.Join(o.Broken, "\n"))
			return
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	t.Error("a ledger that does not wait for the disk was not found out by 100 cuts")
}

// testPowerCuts cuts the power at random instants while people talk.
func testPowerCuts(t *testing.T, k *Kit) {
	n := cuts
	if s := os.Getenv("HERMES_POWER"); s != "" {
		var err error
		if n, err = strconv.Atoi(s); err != nil {
			t.Fatal(err)
		}
	}
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	ctx, cancel := context.WithTimeout(t.Context(), time.Duration(n+1)*3*time.Minute)
	defer cancel()
	o, err := k.CutPower(ctx, t.TempDir(), n, seed)
	t.Logf("counts:\n%s", o)
	if err != nil {
		t.Fatal(err)
	}
	if o.Bad() {
		t.Errorf("broken promises: lost %v, tools twice %v, turns twice %v, repeated silently %v, repeated where the platform knows a repetition %v",
			o.Lost, o.ToolTwice, o.TurnTwice, o.RepeatedSilent, o.RepeatedNeedless)
	}
	for _, b := range o.Broken {
		t.Error(b)
	}
	if o.Disk.Lost+o.Disk.Torn == 0 {
		t.Error("no cut took anything from the disk: this proves nothing")
	}
}
