package cli

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"hermes/internal/control"
	"hermes/internal/health"
)

// A new process must be as well as the one before, not better.
func TestWorse(t *testing.T) {
	up := health.Part{Name: "platform.telegram", State: health.OK}
	weak := health.Part{Name: "platform.telegram", State: health.Degraded}
	down := health.Part{Name: "platform.telegram", State: health.Down, Message: "the token is refused"}
	well := control.Status{Version: "2", State: "running", Healthy: true, Parts: []health.Part{up}}
	with := func(s control.Status, change func(*control.Status)) control.Status { change(&s); return s }
	ill := with(well, func(s *control.Status) { s.Healthy, s.Problems = false, []string{"no model is set"} })
	for _, c := range []struct {
		what        string
		before, now control.Status
		want        string
	}{
		{"both well", well, well, ""},
		{"the old version came back", well, with(well, func(s *control.Status) { s.Version = "1" }), "version 1 serves"},
		{"still starting", well, with(well, func(s *control.Status) { s.State = "starting" }), "it is starting"},
		{"parked", well, with(well, func(s *control.Status) { s.Parked = true }), "it is running"},
		{"ill where the old one was well", well, ill, "no model is set"},
		{"ill as the old one was", ill, ill, ""},
		{"a part that worked is down", ill, with(ill, func(s *control.Status) { s.Parts = []health.Part{down} }), "platform.telegram: the token is refused"},
		{"a part that worked half is down", with(ill, func(s *control.Status) { s.Parts = []health.Part{weak} }), with(ill, func(s *control.Status) { s.Parts = []health.Part{down} }), "platform.telegram: the token is refused"},
		{"a part that was down is", with(ill, func(s *control.Status) { s.Parts = []health.Part{down} }), with(ill, func(s *control.Status) { s.Parts = []health.Part{down} }), ""},
		{"a part that is new is down", with(ill, func(s *control.Status) { s.Parts = nil }), with(ill, func(s *control.Status) { s.Parts = []health.Part{down} }), ""},
	} {
		if got := worse(c.before, c.now, "2"); got != c.want {
			t.Errorf("%s: %q, want %q", c.what, got, c.want)
		}
	}
}

// A scheduler alone is told from what merely speaks of one, by its command line.
func TestSchedulesByCommandLine(t *testing.T) {
	home := t.TempDir()
	if err := os.MkdirAll(filepath.Join(home, ".hermes/profiles/liam"), 0o700); err != nil {
		t.Fatal(err)
	}
	for line, want := range map[string]string{
		"cron run":                ".hermes",
		"-p liam cron run":        ".hermes/profiles/liam",
		"cron run --profile liam": ".hermes/profiles/liam",
		"cron run --accept-hooks": ".hermes",
		"cron run some-job":       "",
		"cron list":               "",
		"gateway run":             "",
		"send cron run":           "",
	} {
		at, ok := schedulerHome(append([]string{"hermes"}, strings.Fields(line)...), []string{"HOME=" + home}, home)
		if want == "" && ok || want != "" && at != filepath.Join(home, want) {
			t.Errorf("%q: %q, %v", line, at, ok)
		}
	}
}
