package rescue

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"hermes/internal/domain"
)

// bench is a rescue with everything outside of it in the test's hand.
type bench struct {
	Options
	now     time.Time
	started []Good
	said    []string
	startBy func() (Served, error)
	tellBy  func(n int) error
}

func newBench(t *testing.T) *bench {
	b := &bench{now: time.Date(2026, 5, 3, 12, 0, 0, 0, time.UTC)}
	b.startBy = func() (Served, error) {
		return Served{PID: 4711, What: "the program /opt/good, version 1.0, and the configuration on disk", Back: true}, nil
	}
	b.tellBy = func(int) error { return nil }
	b.Options = Options{
		Unit: "hermes-gateway-liam.service", Run: "r1", Why: "it was started 5 times and ended each time (last status 2)",
		File: filepath.Join(t.TempDir(), "new", "rescue.json"), Good: &Good{Program: "/opt/good", On: "version 1.0"},
		Now:   func() time.Time { return b.now },
		Pause: func(_ context.Context, d time.Duration) { b.now = b.now.Add(d) },
		Start: func(_ context.Context, g Good) (Served, error) {
			b.started = append(b.started, g)
			return b.startBy()
		},
		Tell: func(_ context.Context, text string) ([]Told, error) {
			b.said = append(b.said, text)
			if err := b.tellBy(len(b.said)); err != nil {
				return nil, err
			}
			return []Told{{At: b.now, To: "telegram:1", Receipt: "99"}}, nil
		},
	}
	return b
}

func (b *bench) run(t *testing.T, id string) Incident {
	t.Helper()
	b.Run = id
	i, handled, err := Run(context.Background(), b.Options)
	if err != nil || !handled {
		t.Fatalf("handled %v: %v", handled, err)
	}
	return i
}

func (b *bench) holds(t *testing.T, parts ...string) {
	t.Helper()
	last := b.said[len(b.said)-1]
	for _, p := range parts {
		if !strings.Contains(last, p) {
			t.Errorf("%q is missing in:\n%s", p, last)
		}
	}
}

func TestOnceAnIncident(t *testing.T) {
	b := newBench(t)
	i := b.run(t, "r1")
	if !i.Up() || len(b.started) != 1 || b.started[0].Program != "/opt/good" {
		t.Errorf("started %v, up %v", b.started, i.Up())
	}
	b.holds(t, "hermes-gateway-liam went down and was brought back", "5 times", "PID 4711", "version 1.0")
	if got, ok := Last(b.File); !ok || got.Told[0].Receipt != "99" {
		t.Errorf("on record: %+v", got)
	}
	// The second program of the unit, for the same end.
	if _, handled, err := Run(context.Background(), b.Options); handled || err != nil {
		t.Errorf("handled again: %v %v", handled, err)
	}
	if len(b.said) != 1 || len(b.started) != 1 {
		t.Errorf("said %d times, started %d times", len(b.said), len(b.started))
	}
}

func TestDownAgain(t *testing.T) {
	b := newBench(t)
	b.run(t, "r1")
	b.now = b.now.Add(2 * time.Minute)
	if i := b.run(t, "r2"); i.Up() || len(b.started) != 1 {
		t.Errorf("what was tried is tried again: %v", b.started)
	}
	b.holds(t, "is down again", "started again 2m0s before, on the program /opt/good", "somebody must look")
	// Long after that it is another incident.
	b.now = b.now.Add(Quiet)
	if i := b.run(t, "r3"); !i.Up() || len(b.started) != 2 {
		t.Errorf("a new incident: up %v, started %d times", i.Up(), len(b.started))
	}
}

func TestNothingGood(t *testing.T) {
	b := newBench(t)
	b.Good = nil
	if i := b.run(t, "r1"); i.Up() {
		t.Error("up, by nothing")
	}
	b.holds(t, "is down", "not started again")
}

func TestStartInVain(t *testing.T) {
	b := newBench(t)
	b.startBy = func() (Served, error) { return Served{}, domain.E(domain.Unavailable, nil, "it ended with status 3") }
	if i := b.run(t, "r1"); i.Up() {
		t.Error("up")
	}
	b.holds(t, "does not serve: it ended with status 3.")
}

// While no platform can be reached it is tried again, within a bound, and what
// came of it is on record.
func TestPlatformAway(t *testing.T) {
	away := domain.E(domain.Unavailable, nil, "no route to host")
	b := newBench(t)
	b.tellBy = func(n int) error {
		if n < 4 {
			return away
		}
		return nil
	}
	i := b.run(t, "r1")
	if len(b.said) != 4 || len(i.Told) != 1 || i.Told[0].Error != "" {
		t.Errorf("said %d times: %+v", len(b.said), i.Told)
	}
	b = newBench(t)
	b.tellBy = func(int) error { return away }
	began := b.now
	i, handled, err := Run(context.Background(), b.Options)
	if !errors.Is(err, away) || !handled {
		t.Errorf("handled %v: %v", handled, err)
	}
	if took := b.now.Sub(began); took < TellLimit || took > TellLimit+2*tellLongest {
		t.Errorf("tried for %s", took)
	}
	if got, _ := Last(b.File); len(got.Told) != 1 || got.Told[0].Error != "no route to host" || i.Told[0].Error == "" {
		t.Errorf("on record: %+v", got.Told)
	}
	// What is no matter of reach is not tried again.
	b = newBench(t)
	b.tellBy = func(int) error { return domain.E(domain.NotFound, nil, "no home channel is set") }
	if _, _, err := Run(context.Background(), b.Options); !domain.IsCode(err, domain.NotFound) || len(b.said) != 1 {
		t.Errorf("%v after %d tries", err, len(b.said))
	}
}

// The attempt is on record before it is made, so that a rescue which dies with
// it is not repeated.
func TestDiesInTheAttempt(t *testing.T) {
	b := newBench(t)
	b.startBy = func() (Served, error) { panic("killed") }
	func() {
		defer func() { _ = recover() }()
		_, _, _ = Run(context.Background(), b.Options)
	}()
	b.startBy = func() (Served, error) { return Served{PID: 1}, nil }
	b.now = b.now.Add(time.Minute)
	if i := b.run(t, "r2"); len(b.started) != 1 || i.Up() {
		t.Errorf("started %d times", len(b.started))
	}
}

func TestRecordsAreBounded(t *testing.T) {
	b := newBench(t)
	b.Good = nil
	for n := range maxKept + 5 {
		b.now = b.now.Add(2 * Quiet)
		b.run(t, "r"+strings.Repeat("x", n+1))
	}
	if n := len(load(b.File)); n != maxKept {
		t.Errorf("%d incidents are kept", n)
	}
	if err := os.WriteFile(b.File, []byte("{not json"), 0o600); err != nil {
		t.Fatal(err)
	}
	b.run(t, "after a damaged file")
}

func TestKeep(t *testing.T) {
	dir := t.TempDir()
	program, kept := filepath.Join(dir, "hermes"), filepath.Join(dir, "deep", "hermes")
	if Same(program, kept) {
		t.Error("two that are missing are the same")
	}
	for _, text := range []string{"one", "two", "two", "three"} { // the same size too
		if err := os.WriteFile(program, []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
		before, _ := os.Stat(kept)
		same := Same(program, kept)
		if err := Keep(program, kept); err != nil {
			t.Fatal(err)
		}
		after, err := os.Stat(kept)
		if err != nil {
			t.Fatal(err)
		}
		if got, _ := os.ReadFile(kept); string(got) != text || after.Mode().Perm() != 0o700 {
			t.Errorf("kept %q, mode %v", got, after.Mode())
		}
		if before != nil && os.SameFile(before, after) != same {
			t.Errorf("%q: written anew although it was the same, or not although it was not", text)
		}
	}
	if left, _ := filepath.Glob(filepath.Join(dir, "deep", ".hermes-*")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
	if err := Keep(filepath.Join(dir, "none"), kept); !domain.IsCode(err, domain.Unavailable) {
		t.Errorf("a program that is missing: %v", err)
	}
}

// A rescue that was ended before it told anybody is taken up by the next program
// of the unit, which starts nothing again.
func TestARescueThatDiedIsToldOf(t *testing.T) {
	b := newBench(t)
	func() {
		defer func() { _ = recover() }()
		b.startBy = func() (Served, error) { panic("killed") }
		b.run(t, "r1")
	}()
	b.startBy = func() (Served, error) { return Served{PID: 1}, nil }
	i := b.run(t, "r1")
	if len(b.started) != 1 || i.Up() {
		t.Errorf("started %d times, up %v", len(b.started), i.Up())
	}
	b.holds(t, "is down", "ended before it knew more")
}

// What was brought back by somebody else meanwhile is left alone.
func TestAUnitThatIsUpIsLeftAlone(t *testing.T) {
	b := newBench(t)
	b.Down = func(context.Context) bool { return false }
	if _, handled, err := Run(context.Background(), b.Options); handled || err != nil || len(b.started)+len(b.said) > 0 {
		t.Errorf("handled %v (%v), started %v, said %q", handled, err, b.started, b.said)
	}
}

// An incident that a wrong clock dated into the future holds up no later rescue.
func TestAnIncidentOfTheFutureIsClosed(t *testing.T) {
	b := newBench(t)
	b.Flag = " -p liam"
	right := b.now
	b.now = right.AddDate(10, 0, 0)
	b.run(t, "r1")
	b.now = right
	b.run(t, "r2")
	if len(b.started) != 2 {
		t.Errorf("started %d times", len(b.started))
	}
	b.holds(t, "brought back", "`hermes -p liam gateway restart`")
}

// What people are told is what serves, not what was meant to; where nothing was
// gone back from, no restart is recommended.
func TestToldIsWhatServes(t *testing.T) {
	b := newBench(t)
	b.Good = &Good{On: "the configuration that served healthily on 2 May 10:00"}
	b.startBy = func() (Served, error) {
		return Served{PID: 7, What: "the installed program and the configuration on disk"}, nil
	}
	b.run(t, "r1")
	b.holds(t, "(PID 7), on the installed program and the configuration on disk.")
	if said := b.said[0]; strings.Contains(said, "healthily") || strings.Contains(said, "gateway restart") {
		t.Errorf("it says more than is known:\n%s", said)
	}
	b = newBench(t)
	b.startBy = func() (Served, error) { return Served{Asked: true}, nil }
	if i := b.run(t, "r1"); i.Up() {
		t.Error("up, before anybody has seen it")
	}
	b.holds(t, "went down", "is asked to start it again, on version 1.0", "gateway status")
}
