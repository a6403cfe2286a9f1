package doctor

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"hermes/internal/domain"
)

// An acknowledgement holds for the very evidence that was seen, until its time
// is over, and never for what else has the same ID.
func TestAcknowledge(t *testing.T) {
	now := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	dir := t.TempDir()
	report := func(evidence string) Report {
		return Report{Home: dir, Profile: "default", Findings: []Finding{
			{ID: "transport.limited", About: "telegram", Severity: Warning, What: "slow", Evidence: []string{evidence}},
			{ID: "transport.limited", About: "discord", Severity: Warning, What: "slow", Evidence: []string{"status since 11:00:00: wait"}},
		}}
	}
	seen := func(evidence string, at time.Time) (about []string, healthy bool) {
		r := report(evidence)
		r.acknowledged(at)
		for _, f := range r.Findings {
			if f.Acknowledged != nil {
				about = append(about, f.About)
			}
		}
		return about, len(about) == len(r.Findings)
	}
	r := report("status since 11:00:00: 20 s")
	if err := Acknowledge(&r, "transport.limited:telegram", now.Add(time.Hour), now); err != nil {
		t.Fatal(err)
	}
	if r.Healthy || r.Findings[1].About != "telegram" || r.Findings[1].Acknowledged == nil {
		t.Errorf("the one that is known does not come last: %+v", r)
	}
	if about, _ := seen("status since 11:59:00: 20 s", now.Add(59*time.Minute)); len(about) != 1 || about[0] != "telegram" {
		t.Errorf("within its time %v is acknowledged", about)
	}
	if about, _ := seen("status since 11:00:00: 40 s", now); len(about) != 0 {
		t.Errorf("with other evidence %v is acknowledged", about)
	}
	if about, _ := seen("status since 11:00:00: 20 s", now.Add(time.Hour)); len(about) != 0 {
		t.Errorf("after its time %v is acknowledged", about)
	}
	r = report("status since 11:00:00: 20 s")
	if err := Acknowledge(&r, "transport.limited", now.Add(time.Hour), now); err != nil || !r.Healthy {
		t.Errorf("both: %v, healthy %v", err, r.Healthy)
	}
	if _, all := seen("status since 11:00:00: 20 s", now); !all {
		t.Error("the ID alone does not mean both")
	}
	if n, err := Withdraw(dir, "transport.limited:discord"); n != 1 || err != nil {
		t.Errorf("%d taken back, %v", n, err)
	}
	if about, _ := seen("status since 11:00:00: 20 s", now); len(about) != 1 {
		t.Errorf("%v is acknowledged", about)
	}
	if n, err := Withdraw(dir, "transport.limited:discord"); n != 0 || err != nil {
		t.Errorf("%d taken back twice, %v", n, err)
	}
}

// A file of acknowledgements that is broken, endless or somebody else's hides
// nothing.
func TestAcknowledgementsThatCannotBeRead(t *testing.T) {
	now := time.Now()
	r := Report{Home: t.TempDir(), Findings: []Finding{{ID: "a.b"}}}
	for _, c := range []struct {
		word  string
		until time.Time
		code  domain.Code
	}{{"a.c", now.Add(time.Hour), domain.NotFound}, {"a.b:x", now.Add(time.Hour), domain.NotFound}, {"a.b", now, domain.Invalid}, {"a.b", now.Add(MostAcknowledged + time.Hour), domain.Invalid}} {
		if err := Acknowledge(&r, c.word, c.until, now); !domain.IsCode(err, c.code) {
			t.Errorf("%s until %s: %v", c.word, c.until, err)
		}
	}
	path := filepath.Join(r.Home, "doctor-acks.json")
	for _, text := range []string{"", "{", "[]", "null", `[{"id":"a.b","until":"9999-01-01T00:00:00Z","mark":"x"}]`} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if r.acknowledged(now); r.Findings[0].Acknowledged != nil {
			t.Errorf("%q acknowledges", text)
		}
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(path, 0o700); err != nil {
		t.Fatal(err)
	}
	if r.acknowledged(now); r.Findings[0].Acknowledged != nil {
		t.Error("a folder acknowledges")
	}
}
