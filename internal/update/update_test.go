package update_test

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"hermes/internal/domain"
	"hermes/internal/update"
	"hermes/internal/versions"
)

func same(t *testing.T, what string, got, want []string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("%s: %v, want %v", what, got, want)
	}
}

func TestUpdateHandsOverOneAfterTheOtherAndMovesTheLinkLast(t *testing.T) {
	w := newWorld(t, "1.1.0")
	w.fleet.during = func(m update.Member) {
		if w.linked() != "1.0.0" {
			t.Errorf("the link was moved before %s was handed over", m.Name)
		}
		if b := versions.Read(m.Profile).Brought; b == nil || b.Version != "1.1.0" || b.From != "1.0.0" {
			t.Errorf("%s was not told that an update brought its program: %+v", m.Name, b)
		}
	}
	r, err := w.update()
	if err != nil {
		t.Fatal(err)
	}
	w.fleet.during = nil
	same(t, "versions", w.fleet.versions(), []string{"1.1.0", "1.1.0", "1.1.0"})
	same(t, "order", w.fleet.order, []string{"hermes-gateway-default 1.1.0", "hermes-gateway-liam 1.1.0", "hermes-gateway-drj 1.1.0"})
	if w.linked() != "1.1.0" || r.To != "1.1.0" || r.From != "1.0.0" || len(r.Members) != 3 {
		t.Errorf("%+v, linked %s", r, w.linked())
	}
	for _, m := range w.fleet.members {
		if _, ok, _ := versions.Pinned(m.Profile); ok {
			t.Errorf("%s is pinned, though the link leads to it", m.Name)
		}
	}
	if !strings.HasPrefix(w.last(), "✓ 1.1.0") {
		t.Error(w.last())
	}
	w.now = "1.1.0"
	if r, err := w.update(); err != nil || !r.UpToDate || len(w.fleet.order) != 3 {
		t.Errorf("a second time: %+v, %v, %v", r, err, w.fleet.order)
	}
	r, err = w.updater().Rollback(context.Background())
	if err != nil || r.To != "1.0.0" || w.linked() != "1.0.0" {
		t.Errorf("back: %+v, %v", r, err)
	}
	same(t, "after the way back", w.fleet.versions(), []string{"1.0.0", "1.0.0", "1.0.0"})
}

func TestFirstThatIsNotWellGoesBackAndTheLaterAreNotTouched(t *testing.T) {
	w := newWorld(t, "1.1.0")
	w.fleet.sick["hermes-gateway-liam"] = "1.1.0"
	r, err := w.update()
	if !domain.IsCode(err, domain.Unavailable) || !strings.Contains(err.Error(), "hermes-gateway-liam is not well on 1.1.0: telegram is down. It went back to 1.0.0") {
		t.Fatal(err)
	}
	same(t, "versions", w.fleet.versions(), []string{"1.1.0", "1.0.0", "1.0.0"})
	var states []string
	for _, o := range r.Members {
		states = append(states, o.State)
	}
	same(t, "states", states, []string{"switched", "back", "untouched"})
	if w.linked() != "1.0.0" || !strings.HasPrefix(w.last(), "✗ hermes-gateway-liam") {
		t.Errorf("linked %s; %s", w.linked(), w.last())
	}
	if pin, ok, _ := versions.Pinned(w.fleet.members[0].Profile); !ok || pin.Version != "1.1.0" {
		t.Errorf("the one that serves 1.1.0 would be started as 1.0.0 after a crash: %+v", pin)
	}
	if _, ok, _ := versions.Pinned(w.fleet.members[1].Profile); ok {
		t.Error("the one that went back is pinned")
	}
	// The way back takes the first one back too; run again when it is mended, it goes on.
	if r, err := w.updater().Rollback(context.Background()); err != nil || r.To != "1.0.0" {
		t.Errorf("%+v, %v", r, err)
	}
	same(t, "after the way back", w.fleet.versions(), []string{"1.0.0", "1.0.0", "1.0.0"})
	delete(w.fleet.sick, "hermes-gateway-liam")
	if _, err := w.update(); err != nil || w.linked() != "1.1.0" {
		t.Errorf("%v, linked %s", err, w.linked())
	}
}

func TestSchedulerThatIsNotWellTakesItsGatewayBackWithIt(t *testing.T) {
	w := newWorld(t, "1.1.0")
	w.fleet.members = w.fleet.members[:1]
	w.fleet.add(w.fleet.members[0].Profile, "hermes-cron@default", true)
	w.fleet.sick["hermes-cron@default"] = "1.1.0"
	if _, err := w.update(); !domain.IsCode(err, domain.Unavailable) {
		t.Fatal(err)
	}
	same(t, "versions", w.fleet.versions(), []string{"1.0.0", "1.0.0"})
	if pin, ok, _ := versions.Pinned(w.fleet.members[0].Profile); ok {
		t.Errorf("a pin was left: %+v", pin)
	}
	delete(w.fleet.sick, "hermes-cron@default")
	if _, err := w.update(); err != nil {
		t.Fatal(err)
	}
	same(t, "versions", w.fleet.versions(), []string{"1.1.0", "1.1.0"})
}

func TestOneThatCannotBeBroughtBackIsNamed(t *testing.T) {
	w := newWorld(t, "1.1.0")
	w.fleet.sick["hermes-gateway-default"], w.fleet.stuck = "1.1.0", true
	r, err := w.update()
	if err == nil || !strings.Contains(err.Error(), "could not be brought back to 1.0.0; `hermes gateway start`") || r.Members[0].State != "down" {
		t.Errorf("%v, %+v", err, r.Members)
	}
}

func TestNothingChangesWhereAProfileCouldNotBeServed(t *testing.T) {
	w := newWorld(t, "1.1.0")
	w.fleet.unfit["drj"] = "1.1.0"
	if _, err := w.update(); !domain.IsCode(err, domain.Config) || !strings.Contains(err.Error(), "1.1.0 could not serve profile drj: the ledger was written by a newer version") {
		t.Fatal(err)
	}
	if len(w.fleet.order) != 0 || w.linked() != "1.0.0" {
		t.Errorf("%v, linked %s", w.fleet.order, w.linked())
	}
	w.fleet.at("hermes-gateway-drj").Running = false
	if _, err := w.update(); err != nil || w.linked() != "1.1.0" {
		t.Errorf("one that does not run holds up the others: %v", err)
	}
}

func TestAPersonsPinIsKept(t *testing.T) {
	w := newWorld(t, "1.1.0")
	p := w.fleet.members[1].Profile
	w.must(os.WriteFile(versions.PinFile(p), []byte(w.program("1.0.0")+"\n"), 0o600))
	r, err := w.update()
	if err != nil || r.Members[1].State != "pinned" {
		t.Fatalf("%v, %+v", err, r.Members)
	}
	same(t, "versions", w.fleet.versions(), []string{"1.1.0", "1.0.0", "1.1.0"})
	if pin, ok, _ := versions.Pinned(p); !ok || pin.Path != w.program("1.0.0") {
		t.Errorf("%+v", pin)
	}
}

func TestReleasesThatAreRefusedChangeNothing(t *testing.T) {
	for name, c := range map[string]struct {
		program string
		want    string
	}{
		"another version than its name": {"1.1.1", `says that it is "hermes 1.1.1"`},
		"panics before main":            {"broken", "does not run on this machine"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			_, err := w.folder.Add("stable", "1.1.0", program(t, c.program))
			w.must(err)
			if _, err := w.update(); !domain.IsCode(err, domain.Invalid) || !strings.Contains(err.Error(), c.want) {
				t.Error(err)
			}
			w.unchanged()
		})
	}
	t.Run("another processor", func(t *testing.T) {
		w := newWorld(t)
		text := program(t, "1.1.0")
		text[18], text[19] = 0xf7, 0x00 // e_machine: BPF
		_, err := w.folder.Add("stable", "1.1.0", text)
		w.must(err)
		if _, err := w.update(); !domain.IsCode(err, domain.Invalid) || !strings.Contains(err.Error(), "is for EM_BPF") {
			t.Error(err)
		}
		w.unchanged()
	})
}

// unchanged holds that an update that was refused left everything as it was.
func (w *world) unchanged() {
	w.t.Helper()
	if w.linked() != "1.0.0" || len(w.fleet.order) != 0 || !slices.Equal(versions.List(w.user), []string{"1.0.0"}) {
		w.t.Errorf("linked %s, switches %v, versions %v", w.linked(), w.fleet.order, versions.List(w.user))
	}
	if stages, _ := filepath.Glob(filepath.Join(versions.Dir(w.user), ".stage-*")); len(stages) != 0 {
		w.t.Errorf("left behind: %v", stages)
	}
	if !strings.HasPrefix(w.last(), "✗ ") {
		w.t.Errorf("the log ends with %q", w.last())
	}
}

func TestOldVersionsAreRemoved(t *testing.T) {
	w := newWorld(t, "1.1.0")
	p := w.fleet.members[2].Profile
	for _, v := range []string{"1.1.0", "1.2.0", "1.3.0"} {
		if v != "1.1.0" {
			_, err := w.folder.Add("stable", v, program(t, v))
			w.must(err)
		}
		if v == "1.2.0" { // one of them stays behind by a person's wish
			w.must(versions.SetPin(p, versions.Pin{Path: w.program("1.1.0"), Why: "a person's"}))
		}
		_, err := w.update()
		w.must(err)
		w.now = v
	}
	same(t, "kept", versions.List(w.user), []string{"1.1.0", "1.2.0", "1.3.0"})
	w.must(versions.Unpin(p))
	_, err := w.folder.Add("stable", "1.4.0", program(t, "1.4.0"))
	w.must(err)
	_, err = w.update()
	w.must(err)
	same(t, "kept", versions.List(w.user), []string{"1.3.0", "1.4.0"})
}

func TestAnOldIndexIsNoticed(t *testing.T) {
	w := newWorld(t, "1.1.0")
	old := w.folder.Index
	_, err := w.folder.Add("stable", "1.2.0", program(t, "1.2.0"))
	w.must(err)
	if _, err := w.update(); err != nil {
		t.Fatal(err)
	}
	w.must(w.folder.WriteIndex(old))
	if _, err := w.update(); !domain.IsCode(err, domain.Unauthenticated) || !strings.Contains(err.Error(), "an old one is shown again") {
		t.Error(err)
	}
}

func TestInterruptedUpdatesAreTold(t *testing.T) {
	w := newWorld(t, "1.1.0")
	_, err := w.update()
	w.must(err)
	log := update.LogFile(filepath.Join(w.user, ".hermes"))
	under := filepath.Join(w.user, ".local/share/hermes/update-under-way.json")
	w.must(os.WriteFile(under, []byte(`{"pid":4711,"log":"`+log+`","what":"the update from 1.0.0","step":"unpacking 1.1.0"}`), 0o600))
	f, err := os.OpenFile(log, os.O_APPEND|os.O_WRONLY, 0)
	w.must(err)
	_, err = f.WriteString("2026-03-04 05:06:07  unpacking 1.1.0\n")
	w.must(err)
	w.must(f.Close())
	update.Complete(w.user, time.Now())
	if got := w.last(); !strings.HasPrefix(got, "✗ the update from 1.0.0 was interrupted (unpacking 1.1.0)") {
		t.Error(got)
	}
	before, err := os.ReadFile(log)
	w.must(err)
	update.Complete(w.user, time.Now())
	if after, err := os.ReadFile(log); err != nil || string(after) != string(before) {
		t.Error("told twice")
	}
}

// Whoever presses Ctrl-C between two profiles finds both working, and goes on later.
func TestAnUpdateThatIsEndedBetweenTwoProfilesGoesOnLater(t *testing.T) {
	w := newWorld(t, "1.1.0")
	ctx, cancel := context.WithCancel(context.Background())
	w.fleet.during = func(update.Member) { cancel() }
	r, err := w.updater().Update(ctx, update.Request{Source: w.source(w.folder.Dir), Channel: "stable"})
	if !domain.IsCode(err, domain.Cancelled) || len(r.Members) != 3 || w.linked() != "1.0.0" || !strings.HasPrefix(w.last(), "✗ ") {
		t.Fatalf("%v, %+v, linked %s; %s", err, r.Members, w.linked(), w.last())
	}
	same(t, "versions", w.fleet.versions(), []string{"1.1.0", "1.0.0", "1.0.0"})
	w.fleet.during = nil
	if _, err := w.update(); err != nil || w.linked() != "1.1.0" {
		t.Error(err)
	}
	same(t, "versions", w.fleet.versions(), []string{"1.1.0", "1.1.0", "1.1.0"})
}
