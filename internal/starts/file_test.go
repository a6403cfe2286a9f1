package starts_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/signal"
	"reflect"
	"syscall"
	"testing"
	"time"

	"hermes/internal/home"
	"hermes/internal/starts"
	"hermes/internal/versions"
)

func journal(p home.Profile) string { return p.Path("gateway-starts.journal") }

// ordinary puts the changes of an ordinary start on the record, one by one.
func ordinary(p home.Profile, id string, each func()) *starts.Life {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	l := starts.Begin(p, starts.Start{ID: id, At: now, Stage: starts.Begun, Binary: versions.Binary{Path: "/x"}})
	each()
	for _, step := range []func(){
		func() { l.Reach(starts.Built, now) },
		func() { l.Starting("cron") }, func() { l.Started("cron") },
		func() { l.Starting("api") }, func() { l.Starting("platform.telegram") }, func() { l.Started("api") },
		func() { l.Reach(starts.Serving, now) }, func() { l.Started("platform.telegram") },
	} {
		step()
		each()
	}
	return l
}

// TestAnOrdinaryStartReplacesNoFile counts what holds a start up.
func TestAnOrdinaryStartReplacesNoFile(t *testing.T) {
	p := profile(t)
	ordinary(p, "first", func() {}).Ended(starts.End{Cause: starts.Clean})
	before, err := os.Stat(starts.File(p))
	if err != nil {
		t.Fatal(err)
	}
	l := ordinary(p, "second", func() {
		if now, err := os.Stat(starts.File(p)); err != nil || !os.SameFile(before, now) {
			t.Errorf("the file was replaced: %v", err)
		}
	})
	if s, _ := starts.Read(p).Last(); s.ID != "second" || s.Stage != starts.Serving {
		t.Errorf("the journal tells %+v", s)
	}
	l.Ended(starts.End{Cause: starts.Clean})
	var alone starts.Record // as a program that knows no journal reads it
	text, err := os.ReadFile(starts.File(p))
	if err != nil || json.Unmarshal(text, &alone) != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(alone, starts.Read(p)) {
		t.Errorf("after the end the file tells %+v", alone)
	}
}

// TestAJournalCutAnywhere dies in the middle of every write: what was noted
// before is known, nothing else is, and what follows is noted again.
func TestAJournalCutAnywhere(t *testing.T) {
	p := profile(t)
	ordinary(p, "first", func() {}).Ended(starts.End{Cause: starts.Clean})
	var sizes []int
	var states []starts.Record
	note := func() {
		text, err := os.ReadFile(journal(p))
		if err != nil {
			t.Fatal(err)
		}
		sizes, states = append(sizes, len(text)), append(states, starts.Read(p))
	}
	note()
	ordinary(p, "second", note)
	whole, err := os.ReadFile(journal(p))
	if err != nil {
		t.Fatal(err)
	}
	at := 0
	for n := sizes[0]; n <= len(whole); n += 7 {
		if err := os.WriteFile(journal(p), whole[:n], 0o600); err != nil {
			t.Fatal(err)
		}
		for at+1 < len(sizes) && n >= sizes[at+1] {
			at++
		}
		got, ahead := starts.Read(p), states[min(at+1, len(states)-1)]
		// The line end is no part of what a line tells.
		if !reflect.DeepEqual(got, states[at]) && !(at+1 < len(sizes) && n == sizes[at+1]-1 && reflect.DeepEqual(got, ahead)) {
			t.Fatalf("cut after %d bytes: %+v", n, got)
		}
		starts.Begin(p, starts.Start{ID: "next"})
		if r := starts.Read(p); len(r.Starts) != len(got.Starts)+1 || r.Starts[len(got.Starts)].ID != "next" || !reflect.DeepEqual(r.Starts[:len(got.Starts)], got.Starts) {
			t.Fatalf("cut after %d bytes, the next start: %+v", n, r)
		}
	}
}

// TestAJournalOfAnotherFile is left behind by a death between the two writes, by
// a program that knows no journal, and by a hand.
func TestAJournalOfAnotherFile(t *testing.T) {
	p := profile(t)
	l := ordinary(p, "first", func() {})
	old, err := os.ReadFile(journal(p))
	if err != nil {
		t.Fatal(err)
	}
	l.Ended(starts.End{Cause: starts.Clean})
	if err := os.WriteFile(journal(p), old, 0o600); err != nil {
		t.Fatal(err)
	}
	if s, _ := starts.Read(p).Last(); s.End == nil {
		t.Error("an older journal counts")
	}
	text, err := json.Marshal(starts.Record{Starts: []starts.Start{{ID: "of another program"}}})
	if err != nil || os.WriteFile(starts.File(p), text, 0o600) != nil {
		t.Fatal(err)
	}
	if r := starts.Read(p); len(r.Starts) != 1 || r.Starts[0].ID != "of another program" {
		t.Errorf("%+v", r)
	}
	l.Starting("api") // it lives on, and knows nothing of the other program
	if r := starts.Read(p); len(r.Starts) != 2 || r.Starts[1].Parts[0] != "api" {
		t.Errorf("%+v", r)
	}
	if err := os.Remove(journal(p)); err != nil {
		t.Fatal(err)
	}
	l.Started("api")
	if r := starts.Read(p); len(r.Starts) != 2 || len(r.Starts[1].Parts) != 0 || l.Err() != nil {
		t.Errorf("%+v: %v", r, l.Err())
	}
}

// TestTheJournalIsBounded lets jobs come and go for long.
func TestTheJournalIsBounded(t *testing.T) {
	p := profile(t)
	l := starts.Begin(p, starts.Start{ID: "one", Unit: string(bytes.Repeat([]byte("x"), 1000))})
	for i := range 200 {
		l.Starting(fmt.Sprintf("job.%d", i))
		l.Started(fmt.Sprintf("job.%d", i))
	}
	if st, err := os.Stat(journal(p)); err != nil || st.Size() > 80<<10 {
		t.Errorf("%v %v", st.Size(), err)
	}
	if s, ok := starts.Read(p).Last(); !ok || len(s.Parts) != 0 || l.Err() != nil {
		t.Errorf("%+v: %v", s, l.Err())
	}
}

// Where there is room for a life's beginning and none for its end, as on a full
// disk, it is forgotten: it did not die. Where there is room for a line, its end is
// a line.
func TestAnEndThatCannotBeWritten(t *testing.T) {
	for name, room := range map[string]bool{"room for a line": true, "room for nothing": false} {
		p := profile(t)
		ordinary(p, "first", func() {}).Ended(starts.End{Cause: starts.Clean})
		l := ordinary(p, "second", func() {})
		// The file cannot be replaced, and then its journal not be written either.
		if err := os.MkdirAll(p.Path(".gateway-starts.tmp", "in the way"), 0o700); err != nil {
			t.Fatal(err)
		}
		if !room {
			var limit, none syscall.Rlimit
			if err := syscall.Getrlimit(syscall.RLIMIT_FSIZE, &limit); err != nil {
				t.Fatal(err)
			}
			info, err := os.Stat(journal(p))
			if err != nil {
				t.Fatal(err)
			}
			none.Cur, none.Max = uint64(info.Size()), limit.Max // no file grows beyond it; setrlimit(2)
			if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &none); err != nil {
				t.Fatal(err)
			}
			signal.Ignore(syscall.SIGXFSZ)
			l.Ended(starts.End{Cause: starts.Clean})
			signal.Reset(syscall.SIGXFSZ)
			if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &limit); err != nil {
				t.Fatal(err)
			}
		} else {
			l.Ended(starts.End{Cause: starts.Clean})
		}
		last, _ := starts.Read(p).Last()
		if room && (last.ID != "second" || last.End == nil) || !room && last.ID != "first" {
			t.Errorf("%s: the last life on record is %+v", name, last)
		}
	}
}
