package starts_test

import (
	"fmt"
	"os"
	"sync"
	"testing"
	"time"

	"hermes/internal/home"
	"hermes/internal/starts"
	"hermes/internal/versions"
)

func profile(t *testing.T) home.Profile {
	dir := t.TempDir()
	return home.Profile{Name: "default", Root: dir, Home: dir}
}

func nothing(string) string { return "" }

func TestALifeIsOnTheRecord(t *testing.T) {
	p := profile(t)
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	l := starts.Begin(p, starts.New(p, versions.Binary{Path: "/x"}, nothing, now))
	l.Starting("api")
	l.Starting("platform.telegram")
	l.Started("api")
	l.Reach(starts.Serving, now.Add(time.Second))
	l.Reach(starts.Built, now.Add(2*time.Second)) // too late
	s, ok := starts.Read(p).Last()
	if !ok || s.ID != l.ID() || s.Stage != starts.Serving || len(s.Parts) != 1 || s.Parts[0] != "platform.telegram" || !s.Served.Equal(now.Add(time.Second)) {
		t.Fatalf("%+v", s)
	}
	if !s.Process.Alive() || s.Process.PID != os.Getpid() {
		t.Errorf("process %+v", s.Process)
	}
	l.Ended(starts.End{Cause: starts.Clean})
	if s, _ := starts.Read(p).Last(); s.End == nil || s.End.Death() {
		t.Errorf("end %+v", s.End)
	}
	if st, err := os.Stat(starts.File(p)); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("%v %v", st, err)
	}
	var none *starts.Life
	none.Starting("x")
	none.Ended(starts.End{})
}

func TestTheRecordIsBoundedAndMayBeDamaged(t *testing.T) {
	p := profile(t)
	for i := range 60 {
		if err := starts.Update(p, func(r *starts.Record) { r.Starts = append(r.Starts, starts.Start{ID: fmt.Sprint(i)}) }); err != nil {
			t.Fatal(err)
		}
	}
	r := starts.Read(p)
	if last, _ := r.Last(); len(r.Starts) != 50 || last.ID != "59" {
		t.Errorf("%d starts, the last is %q", len(r.Starts), last.ID)
	}
	if err := os.WriteFile(starts.File(p), []byte(`{"starts": [`), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, ok := starts.Read(p).Last(); ok {
		t.Error("something was read from a damaged record")
	}
	l := starts.Begin(p, starts.Start{ID: "new"})
	if last, _ := starts.Read(p).Last(); last.ID != "new" || l.Err() != nil {
		t.Errorf("the last is %q", last.ID)
	}
	// A home that takes no file costs a warning and nothing else.
	if err := os.Remove(starts.File(p)); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(p.Path("gateway-starts.json", "in the way"), 0o700); err != nil {
		t.Fatal(err)
	}
	l.Starting("api")
	if l.Err() == nil {
		t.Error("nobody learns that nothing was written")
	}
}

func TestTroubled(t *testing.T) {
	clean, died := &starts.End{Cause: starts.Clean}, &starts.End{Cause: starts.Panicked}
	for name, c := range map[string]struct {
		r    starts.Record
		want bool
	}{
		"nothing":               {starts.Record{}, false},
		"a clean stop":          {starts.Record{Starts: []starts.Start{{End: clean}}}, false},
		"an unknown end":        {starts.Record{Starts: []starts.Start{{}, {End: clean}}}, true},
		"a death":               {starts.Record{Starts: []starts.Start{{End: died}, {End: clean}}}, true},
		"a death long ago":      {starts.Record{Starts: []starts.Start{{End: died}, {End: clean, Stage: starts.Settled}}}, false},
		"a distrusted program":  {starts.Record{Distrusted: []starts.Distrust{{Binary: versions.Binary{Path: "/x"}}}}, true},
		"a distrusted settings": {starts.Record{Distrusted: []starts.Distrust{{Config: "x"}}}, false},
	} {
		if got := c.r.Troubled(); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

func TestSeveralWritersLoseNothing(t *testing.T) {
	p := profile(t)
	var all sync.WaitGroup
	for i := range 10 {
		all.Go(func() {
			l := starts.Begin(p, starts.Start{ID: fmt.Sprint(i)})
			l.Reach(starts.Serving, time.Now())
			if l.Err() != nil {
				t.Error(l.Err())
			}
		})
	}
	all.Wait()
	r := starts.Read(p)
	if len(r.Starts) != 10 {
		t.Fatalf("%d starts", len(r.Starts))
	}
	for _, s := range r.Starts {
		if s.Stage != starts.Serving {
			t.Errorf("%s is %s", s.ID, s.Stage)
		}
	}
}
