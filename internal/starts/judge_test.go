package starts

import (
	"slices"
	"strings"
	"testing"
	"time"

	"hermes/internal/succession"
	"hermes/internal/versions"
)

var (
	noon    = time.Date(2026, 3, 4, 12, 0, 0, 0, time.UTC)
	program = versions.Binary{Path: "/opt/hermes/2/hermes", Version: "2", Size: 2}
	before  = versions.Binary{Path: "/opt/hermes/1/hermes", Version: "1", Size: 1}
	gone    = succession.Record{PID: 1 << 30, StartTime: 1} // no process has that number
)

const discordDump = `panic: runtime error: invalid memory address or nil pointer dereference
[signal SIGSEGV: segmentation violation code=0x1 addr=0x0 pc=0x1]

goroutine 77 [running]:
github.com/bwmarrin/discordgo.(*Session).onEvent(0xc000001)
	/src/discordgo/wsapi.go:1 +0x1
created by hermes/internal/platform/discord.(*Adapter).Run in goroutine 5
	/src/discord.go:1 +0x1

goroutine 1 [select]:
hermes/internal/platform/telegram.(*Adapter).Run(0xc000001)
`

// life is a start so long before noon, which ended as said.
func life(ago time.Duration, change func(*Start)) Start {
	s := Start{ID: ago.String(), At: noon.Add(-ago), Process: gone, Boot: "b", Binary: program, Config: "new", Disk: "new", Stage: Begun, Kills: -1}
	if change != nil {
		change(&s)
	}
	return s
}

func failed(s *Start)  { s.End = &End{Cause: Failed, Code: 1, Reason: "no such thing"} }
func serving(s *Start) { s.Stage = Serving }
func panicked(part string) func(*Start) {
	return func(s *Start) {
		s.Stage, s.End = Serving, &End{Cause: Panicked, Code: 2, Part: part, Reason: "panic: boom"}
	}
}

// loose is a manager that never gives up, generated one that allows 5 starts.
var (
	loose     = Limit{Known: true}
	generated = Limit{Known: true, Burst: 5, Span: 10 * time.Minute, Delay: time.Second, Stops: true}
	template  = Limit{Known: true, Burst: 3, Span: time.Minute, Delay: 10 * time.Second}
)

func facts(l Limit) Facts {
	return Facts{Now: noon, Boot: "b", Kills: -1, Limit: func() Limit { return l }, Binary: program, Disk: "new", Good: "new"}
}

func TestJudgeCountsDeathsOnly(t *testing.T) {
	for _, c := range []struct {
		name   string
		starts []Start
		dump   string
		deaths int
		cause  Cause // of the last
	}{
		{name: "none"},
		{name: "one that vanished", starts: []Start{life(time.Minute, nil)}, deaths: 1, cause: Vanished},
		{name: "killed while serving", starts: []Start{life(time.Minute, serving)}, cause: Outside},
		{name: "a panic while serving", starts: []Start{life(time.Minute, serving)}, dump: discordDump, deaths: 1, cause: Panicked},
		{name: "asked for a dump", starts: []Start{life(time.Minute, serving)}, dump: "SIGQUIT: quit\nPC=1\n\ngoroutine 1 [running]:\n", cause: Outside},
		{name: "the watchdog", starts: []Start{life(time.Minute, serving)}, dump: "SIGABRT: abort\nPC=1\n\ngoroutine 0 gp=1 [idle]:\n", deaths: 1, cause: Panicked},
		{name: "another boot", starts: []Start{life(time.Minute, func(s *Start) { s.Boot = "a" })}, cause: Outside},
		{name: "two, a clean stop between them", deaths: 2, cause: Failed, starts: []Start{
			life(3*time.Minute, failed), life(2*time.Minute, func(s *Start) { s.End = &End{Cause: Clean} }), life(time.Minute, failed)}},
		{name: "a settled life between them", deaths: 1, cause: Failed, starts: []Start{
			life(50*time.Minute, failed), life(40*time.Minute, func(s *Start) { s.Stage, s.End = Settled, &End{Cause: Clean} }), life(time.Minute, failed)}},
		{name: "a settled life that panicked is the first of a row", deaths: 2, cause: Failed, starts: []Start{
			life(50*time.Hour, failed), life(40*time.Hour, func(s *Start) { s.Stage, s.End = Settled, &End{Cause: Panicked} }), life(time.Minute, failed)}},
		{name: "a long pause", deaths: 0, cause: Failed, starts: []Start{life(3*time.Hour, failed), life(2*time.Hour, failed)}},
		{name: "a successor that never served", starts: []Start{life(time.Minute, func(s *Start) { s.Planned, s.End = true, &End{Cause: Failed} })}, cause: Failed},
	} {
		t.Run(c.name, func(t *testing.T) {
			r, f := Record{Starts: c.starts}, facts(loose)
			f.Dump = c.dump
			p := Judge(&r, f)
			if p.Deaths != c.deaths {
				t.Errorf("%d deaths, want %d: %+v", p.Deaths, c.deaths, r.Starts)
			}
			if last, ok := r.Last(); ok && last.End.Cause != c.cause {
				t.Errorf("the last ended %q, want %q", last.End.Cause, c.cause)
			}
			if (len(p.Careful) > 0) != (c.deaths >= 2) {
				t.Errorf("careful because %q", p.Careful)
			}
		})
	}
}

func TestOutOfMemoryIsNoDeath(t *testing.T) {
	r := Record{Starts: []Start{life(time.Minute, func(s *Start) { s.Kills = 3 })}}
	f := facts(loose)
	f.Kills = 4
	if p := Judge(&r, f); p.Deaths != 0 || r.Starts[0].End.Cause != Outside {
		t.Errorf("%+v %+v", p, r.Starts[0].End)
	}
}

func TestTheLastStartThatALimitAllowsIsCareful(t *testing.T) {
	for _, c := range []struct {
		name  string
		limit Limit
		gone  int // deaths before
		last  bool
	}{
		{"generated, second", generated, 1, false},
		{"generated, fifth", generated, 4, true},
		{"template, second", template, 1, false},
		{"template, third", template, 2, true},
		{"unknown, third", Limit{}, 2, true},
		{"burst of two, second", Limit{Known: true, Burst: 2, Span: time.Hour, Delay: time.Second}, 1, true},
		{"systemd's default, which never bites at 10 s", Limit{Known: true, Burst: 5, Span: 10 * time.Second, Delay: 10 * time.Second}, 9, false},
		{"no limit", loose, 9, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			var r Record
			for i := c.gone; i > 0; i-- {
				r.Starts = append(r.Starts, life(time.Duration(i)*5*time.Second, failed))
			}
			p := Judge(&r, facts(c.limit))
			if p.LastChance != c.last || (len(p.Careful) > 0) != (c.last || c.gone >= 2) {
				t.Errorf("last chance %v, careful %q", p.LastChance, p.Careful)
			}
		})
	}
}

func TestANamedPartIsQuarantinedAndTriedLaterAndLater(t *testing.T) {
	r := Record{Starts: []Start{life(time.Minute, panicked("platform.discord"))}}
	if p := Judge(&r, facts(loose)); len(p.Quarantine) != 0 {
		t.Fatalf("quarantined after one death: %+v", p)
	}
	r.Starts = append(r.Starts, life(30*time.Second, panicked("platform.discord")))
	now := noon
	for i, want := range []time.Duration{5, 10, 20, 40} {
		f := facts(loose)
		f.Now = now
		p := Judge(&r, f)
		if len(p.Quarantine) != 1 || p.Slow || p.Quarantine[0].Part != "platform.discord" {
			t.Fatalf("%d: %+v", i, p)
		}
		if got := p.Quarantine[0].Until.Sub(now); got != want*time.Minute {
			t.Errorf("%d: held back for %s, want %s", i, got, want*time.Minute)
		}
		now = p.Quarantine[0].Until.Add(time.Second) // tried again, and dead at once
		s := life(0, panicked("platform.discord"))
		s.At = f.Now
		r.Starts = append(r.Starts, s)
	}
	f := facts(loose)
	f.Now, f.Planned = now, true
	if p := Judge(&r, f); len(p.Quarantine) != 0 {
		t.Errorf("a planned restart still holds back %+v", p.Quarantine)
	}
}

func TestWithNoNamePartsStartOneByOneAndAMarkerNamesTheNext(t *testing.T) {
	r := Record{Starts: []Start{life(20*time.Second, nil), life(10*time.Second, nil)}}
	if p := Judge(&r, facts(loose)); !p.Slow || len(p.Quarantine) != 0 {
		t.Fatalf("%+v", p)
	}
	r.Starts = append(r.Starts, life(5*time.Second, func(s *Start) { s.Slow, s.Parts = true, []string{"platform.telegram"} }))
	if p := Judge(&r, facts(loose)); p.Slow || len(p.Quarantine) != 1 || p.Quarantine[0].Part != "platform.telegram" {
		t.Fatalf("%+v", p)
	}
}

// Who is killed from outside while it starts leaves a marker as well, of
// whichever part takes longest. That costs no platform: the next start finds
// out, unless none is left.
func TestAMarkerWithoutATraceIsNoProof(t *testing.T) {
	telegram := func(s *Start) { s.Parts = []string{"platform.telegram"} }
	lives := []Start{life(20*time.Second, telegram), life(10*time.Second, telegram)}
	r := Record{Starts: slices.Clone(lives)}
	if p := Judge(&r, facts(loose)); !p.Slow || len(p.Quarantine) != 0 {
		t.Fatalf("%+v", p)
	}
	r = Record{Starts: slices.Clone(lives)}
	if p := Judge(&r, facts(template)); p.Slow || len(p.Quarantine) != 1 || !p.LastChance {
		t.Fatalf("on the last start: %+v", p)
	}
}

func TestOnTheLastStartEverySuspectIsHeldBack(t *testing.T) {
	both := func(s *Start) { s.Parts = []string{"platform.telegram", "platform.slack"} }
	three := func(s *Start) { s.Parts = []string{"api", "platform.slack", "platform.telegram"} }
	r := Record{Starts: []Start{life(20*time.Second, both), life(10*time.Second, three)}}
	p := Judge(&r, facts(template))
	if p.Slow || len(p.Quarantine) != 2 || !p.LastChance {
		t.Fatalf("%+v", p)
	}
	r = Record{Starts: []Start{life(20*time.Second, both), life(10*time.Second, three)}}
	if p := Judge(&r, facts(generated)); !p.Slow || len(p.Quarantine) != 0 {
		t.Fatalf("%+v", p)
	}
}

func TestAChangedConfigurationIsDistrustedUntilItChangesAgain(t *testing.T) {
	r := Record{Starts: []Start{life(20*time.Second, failed), life(10*time.Second, failed)}}
	f := facts(generated)
	f.Good = "old"
	if p := Judge(&r, f); !p.LastHealthy || p.Fallback {
		t.Fatalf("%+v", p)
	}
	again := Record{Starts: []Start{life(5*time.Second, func(s *Start) { s.End = &End{Cause: Clean} })}, Distrusted: r.Distrusted}
	if p := Judge(&again, f); !p.LastHealthy {
		t.Error("forgot the distrust after a clean stop")
	}
	planned := f
	planned.Planned = true
	if p := Judge(&again, planned); p.LastHealthy {
		t.Error("a planned restart does not try what the operator wrote")
	}
	mended := f
	mended.Disk = "mended"
	if p := Judge(&r, mended); p.LastHealthy || len(r.Distrusted) != 0 {
		t.Errorf("the mended one is not served: %+v", p)
	}
	f.Good = ""
	if p := Judge(&r, f); p.LastHealthy {
		t.Error("serves one that is not there")
	}
}

func TestAFreshProgramYieldsToTheGoodOne(t *testing.T) {
	dead := []Start{life(20*time.Second, failed), life(10*time.Second, failed)}
	f := facts(generated)
	f.Fallback = before
	r := Record{Starts: dead}
	if p := Judge(&r, f); !p.Fallback {
		t.Fatalf("%+v", p)
	}
	r.Starts = nil
	if p := Judge(&r, f); !p.Fallback {
		t.Error("forgot the distrust of the program")
	}
	old := f
	old.BroughtAt = noon.Add(-2 * time.Hour)
	if p := Judge(&Record{Starts: dead}, old); p.Fallback {
		t.Error("a program that is there for two hours is not to blame")
	}
	both := Record{Starts: append([]Start{life(30*time.Second, func(s *Start) { failed(s); s.Binary = before })}, dead...)}
	if p := Judge(&both, f); p.Fallback {
		t.Error("went back to one that died too")
	}
	f.Fallback = versions.Binary{}
	if p := Judge(&Record{Starts: dead}, f); p.Fallback {
		t.Error("runs one that is not there")
	}
}

func TestReadTrace(t *testing.T) {
	for dump, want := range map[string]Trace{
		discordDump: {Reason: "panic: runtime error: invalid memory address or nil pointer dereference", Part: "platform.discord"},
		"fatal error: concurrent map writes\n\ngoroutine 9 [running]:\nhermes/internal/cron.(*Scheduler).fire(...)\n\t/x.go:1\n":        {Reason: "fatal error: concurrent map writes", Part: "cron"},
		"panic: x\n\ngoroutine 9 [running]:\nhermes/internal/platform/webchat.(*Adapter).Run(...)\n":                                    {Reason: "panic: x", Part: "api"},
		"panic: x\n\ngoroutine 9 [running]:\nhermes/internal/ledger/sqlite.(*Store).Check(...)\n":                                       {Reason: "panic: x"},
		"SIGABRT: abort\nPC=0x1\n\ngoroutine 0 [idle]:\nhermes/internal/cron.x(...)\n":                                                  {Reason: "SIGABRT: abort"},
		"goroutine 9 [running]:\ninternal/sync.fatal({0x1, 0x2})\n\t/x.go:1\nhermes/internal/platform/mattermost.(*Adapter).Run(...)\n": {Reason: "fatal error of the runtime", Part: "platform.mattermost"},
		"SIGQUIT: quit\n": {Reason: "SIGQUIT: quit", Asked: true},
		"":                {},
	} {
		if got := ReadTrace(dump); got != want {
			t.Errorf("%.40q: %+v, want %+v", dump, got, want)
		}
	}
}

func FuzzReadTrace(f *testing.F) {
	f.Add(discordDump)
	f.Add("goroutine ")
	f.Fuzz(func(t *testing.T, dump string) {
		if tr := ReadTrace(dump); strings.ContainsAny(tr.Part, " \n(") {
			t.Errorf("part %q", tr.Part)
		}
	})
}

// A clock that is set between two starts changes nothing within one boot.
func TestAClockThatIsSetForgetsNothing(t *testing.T) {
	at := func(up time.Duration, ago time.Duration) Start {
		return life(ago, func(s *Start) { failed(s); s.Up = up })
	}
	r := &Record{Starts: []Start{at(10*time.Second, 1000*time.Hour), at(21*time.Second, time.Second)}} // set forward by NTP
	f := facts(template)
	f.Up = 32 * time.Second
	if p := Judge(r, f); p.Deaths != 2 || !p.LastChance {
		t.Errorf("after a clock set forward: %+v", p)
	}
	r = &Record{Quarantine: []Quarantined{{Part: "api", Since: noon.Add(1000 * time.Hour), Until: noon.Add(1001 * time.Hour), Times: 2}}}
	if p := Judge(r, f); len(p.Quarantine) != 1 || !p.Quarantine[0].Until.Equal(noon.Add(10*time.Minute)) {
		t.Errorf("after a clock set back: %+v", p.Quarantine)
	}
}

// What a chosen program's start was announced as is the same start.
func TestAnAnnouncedStartIsNoOther(t *testing.T) {
	f := facts(template)
	f.Self = succession.Self("", "")
	announced := life(time.Second, func(s *Start) { s.Process = f.Self })
	died := life(5*time.Second, failed)
	r := &Record{Starts: []Start{died, announced}}
	if p := Judge(r, f); p.LastChance || len(r.Starts) != 1 {
		t.Errorf("counted twice: %+v, %d starts", p, len(r.Starts))
	}
}

// TestGoingBackHoldsNobody has a changed configuration end the only start that is
// allowed while two parts were being started: the one before is served, with both.
func TestGoingBackHoldsNobody(t *testing.T) {
	now := time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
	facts := Facts{Now: now, Boot: "b", Disk: "new", Good: "old",
		Limit: func() Limit {
			return Limit{Known: true, Managed: true, Burst: 1, Span: 10 * time.Minute}
		}}
	died := func(config string) *Record {
		return &Record{Starts: []Start{{ID: "one", At: now.Add(-time.Minute), Boot: "b", Config: config, Disk: "new", Stage: Built,
			Parts: []string{"platform.telegram", "platform.mattermost"}, End: &End{Code: 2, Cause: Panicked, Reason: "fatal error"}}}}
	}
	p := Judge(died("new"), facts)
	if !p.LastHealthy || len(p.Quarantine) > 0 || !p.Slow {
		t.Errorf("of the changed one: %+v", p)
	}
	facts.Disk = "old" // what died is what served well before
	if p := Judge(died("old"), facts); p.LastHealthy || len(p.Quarantine) != 2 {
		t.Errorf("of the one before: %+v", p)
	}
}

// A program or a configuration that was replaced by one that serves healthily is
// no reason to be careful with that; one that is flaky is.
func TestWhatWasReplacedIsForgiven(t *testing.T) {
	well := func(change func(*Start)) func(*Start) {
		return func(s *Start) {
			s.Stage, s.Planned, s.Healthy = Serving, true, s.At.Add(10*time.Second)
			if change != nil {
				change(s)
			}
		}
	}
	for _, c := range []struct {
		name   string
		died   func(*Start)
		lives  func(*Start)
		deaths int
	}{
		{"another program", panicked("cron"), well(func(s *Start) { s.Binary = before }), 0},
		{"another configuration", panicked("cron"), well(func(s *Start) { s.Config = "mended" }), 0},
		{"the same", panicked("cron"), well(nil), 2},
		{"one that died before it read any", func(s *Start) { s.Config, s.End = "", &End{Cause: Vanished} }, well(nil), 2},
		{"another that is not well", panicked("cron"), func(s *Start) { s.Stage, s.Binary = Serving, before }, 2},
	} {
		t.Run(c.name, func(t *testing.T) {
			held := []Quarantined{{Part: "cron", Since: noon.Add(-4 * time.Minute), Until: noon.Add(time.Minute), Times: 1}}
			r := Record{Starts: []Start{life(5*time.Minute, c.died), life(4*time.Minute, c.died), life(3*time.Minute, c.lives)}, Quarantine: slices.Clone(held)}
			id := r.Starts[2].ID
			if p := Judge(&r, facts(generated)); p.Deaths != c.deaths {
				t.Errorf("%d deaths, want %d", p.Deaths, c.deaths)
			}
			r.Quarantine = slices.Clone(held)
			r.Mended("another")
			if len(r.Quarantine) != 1 {
				t.Error("a life that is not on the record let go")
			}
			r.Mended(id)
			if lets := strings.HasPrefix(c.name, "another"); lets != (len(r.Quarantine) == 0) {
				t.Errorf("%d are held back", len(r.Quarantine))
			}
		})
	}
}
