package service

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"hermes/internal/home"
	"hermes/internal/starts"
	"hermes/internal/succession"
)

// life is a start that served a second after it began.
func life(id, boot string, at time.Time, end *starts.End) starts.Start {
	return starts.Start{ID: id, Boot: boot, At: at, Served: at.Add(time.Second), Unit: "an-invocation", End: end, Config: "c", Disk: "c", Process: succession.Record{PID: 1 << 22}}
}

func holds(t *testing.T, what string, f Fact, known, good bool, text string) {
	t.Helper()
	if f.Known != known || f.Good != good || !strings.Contains(f.Text, text) {
		t.Errorf("%s: %+v; want known %v, good %v, %q", what, f, known, good, text)
	}
}

func TestLastBoot(t *testing.T) {
	began := time.Date(2026, 5, 3, 6, 0, 0, 0, time.UTC)
	m := boot{id: "b2", at: began}
	r := Report{Unit: &Unit{Name: "hermes-gateway.service", Enabled: "enabled"}}
	old := life("0", "b1", began.Add(-time.Hour), &starts.End{})
	by := func(after time.Duration) starts.Start { return life("1", "b2", began.Add(after), nil) }
	hand := by(13 * time.Second)
	hand.Unit = ""
	full := starts.Record{}
	for range 60 {
		full.Starts = append(full.Starts, by(time.Hour))
	}
	for name, c := range map[string]struct {
		record      starts.Record
		m           boot
		known, good bool
		text        string
	}{
		"by itself":           {starts.Record{Starts: []starts.Start{old, by(13 * time.Second), by(time.Hour)}}, m, true, true, "up by itself, 14 s after boot"},
		"its first boot":      {starts.Record{Starts: []starts.Start{by(13 * time.Second)}}, m, true, true, "up by itself"},
		"late":                {starts.Record{Starts: []starts.Start{old, by(2 * time.Hour)}}, m, true, false, "not up before 2 h 0 min after boot"},
		"installed later":     {starts.Record{Starts: []starts.Start{by(2 * time.Hour)}}, m, true, false, "no boot since is on record"},
		"by hand":             {starts.Record{Starts: []starts.Start{old, hand}}, m, true, false, "started by hand"},
		"not in this boot":    {starts.Record{Starts: []starts.Start{old}}, m, false, false, "no start of this boot"},
		"forgotten":           {full, m, false, false, "too many starts"},
		"a machine unknown":   {starts.Record{Starts: []starts.Start{old, by(time.Second)}}, boot{}, false, false, "/proc does not tell"},
		"nothing on record":   {starts.Record{}, m, false, false, "no start of this boot"},
		"never served so far": {starts.Record{Starts: []starts.Start{{Boot: "b2"}}}, m, false, false, "no start of this boot"},
	} {
		holds(t, name, lastBoot(c.record, r, c.m), c.known, c.good, c.text)
	}
	r.Enabled = "disabled"
	holds(t, "disabled since", lastBoot(starts.Record{Starts: []starts.Start{old, by(13 * time.Second)}}, r, m), true, false, "is disabled now")
}

func TestLastRestart(t *testing.T) {
	at := time.Date(2026, 5, 3, 6, 0, 0, 0, time.UTC)
	none := Report{}
	end := func(after time.Duration, cause starts.Cause) *starts.End {
		return &starts.End{At: at.Add(after), Cause: cause}
	}
	later := life("2", "b", at.Add(time.Hour), nil)
	holds(t, "nothing", lastRestart(nil, none, boot{}), false, false, "no start is on record")
	holds(t, "the first", lastRestart([]starts.Start{life("1", "a", at, nil), later}, none, boot{}), true, true, "none since boot")
	holds(t, "a restart", lastRestart([]starts.Start{life("1", "b", at, end(time.Hour-time.Second, starts.Clean)), later}, none, boot{}), true, true, "2.00 s at ")
	holds(t, "a crash", lastRestart([]starts.Start{life("1", "b", at, end(time.Minute, starts.Panicked)), later}, none, boot{}), true, false, "59 min 1 s at ")
	holds(t, "a kill", lastRestart([]starts.Start{life("1", "b", at, nil), later}, none, boot{}), false, false, "nobody saw when PID")
	unit := Report{Unit: &Unit{ActiveExit: 100 * time.Second, ActiveEnter: 101050 * time.Millisecond, Type: "notify"}}
	holds(t, "a kill that systemd saw", lastRestart([]starts.Start{life("1", "b", at, nil), later}, unit, boot{}), true, true, "1.05 s at ")
	later.Planned = true
	holds(t, "a hand-over", lastRestart([]starts.Start{life("1", "b", at, nil), later}, none, boot{}), true, true, "none: a hand-over")
}

func TestLastLogout(t *testing.T) {
	at := time.Date(2026, 5, 3, 6, 0, 0, 0, time.UTC)
	m := boot{id: "b"}
	none := Report{}
	out := session{ended: at.Add(time.Hour)}
	end := func(after time.Duration) *starts.End { return &starts.End{At: at.Add(after), Cause: starts.Clean} }
	mine := life("1", "b", at, nil)
	mine.Process = succession.Self("", "") // which lives
	over := life("2", "b", at.Add(2*time.Hour), nil)
	over.Planned = true
	for name, c := range map[string]struct {
		lives       []starts.Start
		s           session
		known, good bool
		text        string
	}{
		"it lives":              {[]starts.Start{mine}, out, true, true, "survived, "},
		"it lived on":           {[]starts.Start{life("1", "b", at, end(3*time.Hour))}, out, true, true, "survived, "},
		"handed over since":     {[]starts.Start{life("1", "b", at, nil), over}, out, true, true, "survived, "},
		"ended with it":         {[]starts.Start{life("1", "b", at, end(time.Hour+time.Second))}, out, true, false, "not survived"},
		"ended before":          {[]starts.Start{life("1", "b", at, end(time.Minute))}, out, false, false, "did not run"},
		"ended, nobody saw":     {[]starts.Start{life("1", "b", at, &starts.End{})}, out, false, false, "nobody saw"},
		"began later":           {[]starts.Start{over}, out, false, false, "no start before the last logout"},
		"no logind":             {[]starts.Start{mine}, session{err: "logind does not run here"}, false, false, "logind does not run"},
		"before the oldest":     {[]starts.Start{mine}, session{open: 1, oldest: at.Add(time.Minute)}, true, true, "as far as can be seen"},
		"in the oldest":         {[]starts.Start{mine}, session{open: 1, oldest: at.Add(-time.Minute)}, false, false, "nobody has logged out"},
		"nobody there":          {[]starts.Start{mine}, session{}, true, true, "nobody is logged in"},
		"nobody, and no record": {nil, session{}, false, false, "no start is on record"},
	} {
		holds(t, name, lastLogout(c.lives, none, m, c.s), c.known, c.good, c.text)
	}
}

func TestServedConfig(t *testing.T) {
	dir := t.TempDir()
	p, err := home.Named(dir, home.DefaultProfile)
	if err != nil {
		t.Fatal(err)
	}
	write := func(text string) string {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, "config.yaml"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		f, err := home.ReadFiles(p)
		if err != nil {
			t.Fatal(err)
		}
		return f.Fingerprint()
	}
	one, two := write("a: 1\n"), write("a: 2\n")
	served := func(config, disk string) []starts.Start { return []starts.Start{{Config: config, Disk: disk}} }
	holds(t, "the same", servedConfig(p, served(two, two)), true, true, "served = on disk")
	holds(t, "changed since", servedConfig(p, served(one, one)), true, false, "hermes gateway restart")
	holds(t, "the last healthy one", servedConfig(p, served(one, two)), true, false, "served healthily last")
	holds(t, "no record", servedConfig(p, nil), false, false, "no start is on record")
}

// What this machine says of itself is believable.
func TestMachine(t *testing.T) {
	m := machine()
	if now := time.Now(); m.id == "" || m.at.After(now) || now.Sub(m.at) > 20*365*24*time.Hour || m.began < 0 {
		t.Errorf("%+v", m)
	}
}
