package cron

import (
	"strings"
	"testing"
	"time"

	"hermes/internal/domain"
)

// strip writes cells in letters: the first of each state, "." for none.
func strip(cs []Cell) string {
	var b strings.Builder
	for _, c := range cs {
		switch c.State {
		case cellNone:
			b.WriteByte('.')
		case cellUnknown:
			b.WriteByte('?')
		default:
			b.WriteByte(c.State[0])
		}
	}
	return b.String()
}

func TestCellsOfDays(t *testing.T) {
	berlin, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		t.Fatal(err)
	}
	// The clock went forward on 29 March.
	now := time.Date(2026, 3, 31, 10, 0, 0, 0, berlin)
	at := func(day, hour int) time.Time { return time.Date(2026, 3, day, hour, 0, 0, 0, berlin) }
	runs := []domain.Run{
		{Instant: at(31, 9), State: domain.RunOK, Delivery: "sent"},
		{Instant: at(30, 9), State: domain.RunOK, Delivery: "dead"},
		{Instant: at(29, 23), State: domain.RunSilent},
		{Instant: at(29, 1), State: domain.RunOK},
		{Instant: at(28, 23), State: domain.RunFailed, Error: "exit 3\nmore"},
		{Instant: at(28, 9), State: domain.RunOK},
		{Instant: at(27, 9), State: domain.RunMissed},
		{Instant: at(26, 9), State: domain.RunSilent},
	}
	got, step := cells(runs, now)
	if s := strip(got); s != strings.Repeat(".", 24)+"smfouo" || step != "1 day" {
		t.Errorf("%s, %s", s, step)
	}
	if c := got[26]; c.Note != "22:00 UTC: exit 3" || c.Runs["failed"] != 1 || c.Runs["ok"] != 1 || c.From != "2026-03-28T00:00:00+01:00" {
		t.Errorf("%+v", c)
	}
	if c := got[29]; c.From != "2026-03-31T00:00:00+02:00" {
		t.Errorf("%+v", c)
	}
	if c := got[28]; c.Runs[cellUndelivered] != 1 || c.Note == "" {
		t.Errorf("%+v", c)
	}
}

// Of a job of every ten minutes the ledger keeps a day and a half: the cells
// are shorter, and what is not known is not shown as quiet.
func TestCellsOfAFrequentJob(t *testing.T) {
	now := begin.Add(30 * time.Minute)
	var runs []domain.Run
	for i := range boardRuns {
		runs = append(runs, domain.Run{Instant: begin.Add(-time.Duration(i) * 10 * time.Minute), State: domain.RunSilent})
	}
	got, step := cells(runs, now)
	if s := strip(got); s != strings.Repeat("?", 18)+strings.Repeat("s", 12) || step != "3 hours" {
		t.Errorf("%s, %s", s, step)
	}
}

func TestBoard(t *testing.T) {
	r := newRig(t)
	r.watchdog("disk", "echo full")
	other := r.watchdog("quiet", "exit 0", func(c *Change) { c.Timezone = ptr("Asia/Seoul") })
	r.tick(10 * time.Minute)
	if _, err := r.service.Pause(t.Context(), "disk", ""); err != nil {
		t.Fatal(err)
	}
	b, err := r.service.Board(t.Context(), 1, 1)
	if err != nil || b.Total != 2 || len(b.Jobs) != 1 || b.Jobs[0].ID != other {
		t.Fatalf("%+v, %v", b, err)
	}
	j := b.Jobs[0]
	if len(j.Next) != 3 || j.Next[0].Local != "2026-01-15T19:20:00+09:00" || !j.Next[0].UTC.Equal(begin.Add(20*time.Minute)) || !strings.HasSuffix(strip(j.Past), ".s") {
		t.Errorf("%+v", j)
	}
	if b, err = r.service.Board(t.Context(), 0, 0); err != nil || len(b.Jobs[0].Next) != 0 || b.Jobs[0].State != "paused" || !strings.HasSuffix(strip(b.Jobs[0].Past), ".o") {
		t.Errorf("%+v, %v", b, err)
	}
}
