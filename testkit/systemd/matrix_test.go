package systemd

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"hermes/testkit/box"
)

// row is one thing that must hold, with the modes in which it holds.
type row struct {
	name  string
	holds func(mode) bool
	test  func(*profile)
}

func always(mode) bool      { return true }
func managed(m mode) bool   { return m.managed() }
func keeps(m mode) bool     { return m.kept }
func unmanaged(m mode) bool { return !m.managed() }

// rows are the promises, each tested in every mode in which it holds. Each has
// a profile of its own.
var rows = []row{
	{"planned restarts under load", always, rowPlannedRestarts},
	{"kill -9 in the middle of a turn, under load", always, rowKilled},
	{"systemctl restart under load", managed, rowSystemdRestart},
	{"stray SIGTERM", always, rowStrayTerm},
	{"stop, also after a hand-over", always, rowStop},
	{"SIGTERM twice, SIGHUP", always, rowSignals},
	{"stop during a start", managed, rowStopDuringStart},
	{"stop during a restart", always, rowStopDuringRestart},
	{"a successor that cannot serve", always, rowBadSuccessor},
	{"no usable configuration", managed, rowUnusable},
	{"a part that ends every start", managed, rowBadPart},
	{"a job whose run kills the gateway", managed, rowBadJob},
	{"a configuration that broke, then kill -9", managed, rowBrokenConfiguration},
	{"hang, seen by the watchdog", keeps, rowWatchdog},
	{"environment file changed, keys deleted", managed, rowEnvironment},
	{"port taken, freed later", always, rowPortTaken},
	{"neighbour restarted", always, rowNeighbour},
	{"two restarts at once", always, rowTwoRestarts},
	{"two --replace at once", unmanaged, rowTwoReplace},
	{"--replace against a unit", managed, rowReplaceUnit},
	{"daemon-reload, daemon-reexec after a restart", managed, rowReexec},
	{"tools that ignore a stop", managed, rowStubbornTools},
	{"a tool that eats all memory", managed, rowToolKilled},
	{"attacks by the agent's tools", always, rowSelfHarm},
	{"no variables of a session", always, rowNoSession},
	{"lingering off", managed, rowLingerOff},
	{"systemd does not answer", managed, rowSilentBus},
	{"the user's manager restarted in a restart", managed, rowManagerRestarted},
	{"a unit that allows one start", managed, rowOneStart},
	{"a disk that fails, turns read-only, is full", always, rowDiskFails},
	{"a disk that is full in a restart", managed, rowFullInRestart},
	{"a program that died, then mended", managed, rowFallbackLifted},
	{"the program replaced while it runs", always, rowProgramReplaced},
	{"the program and its folder deleted", always, rowProgramDeleted},
	{"passing files and sockets swept away", always, rowSwept},
	{"the gateway itself is out of memory", managed, rowOutOfMemory},
	{"out of processes and threads", managed, rowOutOfTasks},
	{"out of open files", managed, rowOutOfFiles},
}

// cases are what is held in one way only, or needs a world of its own.
var cases = []struct {
	name string
	test func(*testing.T, *world)
}{
	{"HandWrittenFourProfiles", testFourProfiles},
	{"Runbook", testRunbook},
	{"Update", testUpdate},
	{"CronAlone", testCronAlone},
	{"CronUnit", testCronUnit},
	{"FromNothing", testFromNothing},
	{"EveryProfile", testEveryProfile},
	{"Masked", testMasked},
	{"RuntimeGone", testRuntimeGone},
}

// TestSystemd runs every row in every mode, modes beside each other, in one box,
// after the full load has had it for itself. A reboot of all of them comes last.
func TestSystemd(t *testing.T) {
	if why := box.Missing(); why != "" {
		t.Skip(why)
	}
	m := newMachine(t)
	t.Run("HandOverUnderLoad", func(t *testing.T) { testHandOverUnderLoad(t, m.world(t, "alone")) })
	var s score
	t.Run("Modes", func(t *testing.T) {
		var lanes sync.WaitGroup
		for _, mode := range modes {
			lanes.Go(func() {
				t.Run(mode.name, func(t *testing.T) { m.lane(t, mode, &s) })
			})
		}
		lanes.Go(func() {
			for _, c := range cases {
				t.Run(c.name, func(t *testing.T) { c.test(t, m.world(t, strings.ToLower(c.name))) })
			}
		})
		lanes.Wait()
	})
	t.Run("HostChanges", func(t *testing.T) { testHost(t, m.world(t, "hosted")) })
	t.Run("LogoutAndReboot", func(t *testing.T) { testReboot(t, m) })
	t.Log("what holds where:\n" + s.table())
}

// lane runs the rows of one mode, one after the other.
func (m *machine) lane(t *testing.T, mode mode, s *score) {
	w := m.world(t, "of"+mode.name)
	for i, r := range rows {
		if !r.holds(mode) {
			continue
		}
		began, ran := time.Now(), false
		ok := t.Run(r.name, func(t *testing.T) {
			ran = true
			r.test(w.as(t, mode, fmt.Sprintf("p%d", i)))
		})
		if ran { // not left out by -run
			s.note(r.name, mode.name, ok, time.Since(began))
		}
	}
}

// score is how the rows fared. It may be used by several goroutines.
type score struct {
	mu   sync.Mutex
	cell map[[2]string]string
}

func (s *score) note(row, mode string, ok bool, took time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cell == nil {
		s.cell = map[[2]string]string{}
	}
	mark := "✓"
	if !ok {
		mark = "✗"
	}
	s.cell[[2]string{row, mode}] = fmt.Sprintf("%s %.1f s", mark, took.Seconds())
}

// table shows the rows by mode; a dash stands where a row holds nothing.
func (s *score) table() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%-46s", "")
	for _, m := range modes {
		fmt.Fprintf(&b, "%-12s", m.name)
	}
	for _, r := range rows {
		fmt.Fprintf(&b, "\n%-46s", r.name)
		for _, m := range modes {
			cell := s.cell[[2]string{r.name, m.name}]
			if cell == "" {
				cell = "–"
			}
			fmt.Fprintf(&b, "%-12s", cell)
		}
	}
	return b.String()
}
