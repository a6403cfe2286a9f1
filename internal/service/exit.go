package service

import (
	"context"
	"os"
	"strconv"
	"strings"
	"time"
)

// The exit codes that units know; sysexits.h.
const (
	ExitOK      = 0
	ExitRestart = 75 // EX_TEMPFAIL: start me again
	ExitConfig  = 78 // EX_CONFIG: starting me again cannot help
)

// answerLimit is how long a process that ends waits for its manager's word.
const answerLimit = 300 * time.Millisecond

// StopExitCode is the code with which a gateway leaves that a signal stopped:
// ExitOK when its manager is stopping the unit, when there is no manager, and
// when the manager does not answer; ExitRestart when its unit is still active,
// since then somebody else killed it and Restart=on-failure must revive it too.
// getenv gives the process's environment.
func StopExitCode(ctx context.Context, getenv func(string) string) int {
	if getenv("INVOCATION_ID") == "" {
		return ExitOK // nothing that runs under systemd lacks it; systemd.exec(5)
	}
	unit, system, ok := unitOf("self")
	if !ok {
		return ExitOK
	}
	ctx, cancel := context.WithTimeout(ctx, answerLimit)
	defer cancel()
	m, err := Open(system, getenv)
	if err != nil {
		return ExitOK
	}
	u, err := m.Show(ctx, unit)
	if err != nil {
		return ExitOK
	}
	return strayKillCode(u, os.Getpid())
}

// strayKillCode judges by the state of the unit and by whether pid is its main
// process: what merely descends from some unit, a shell in a terminal for one,
// is nobody's to revive.
func strayKillCode(u Unit, pid int) int {
	if u.MainPID == pid && (u.Active == "active" || u.Active == "reloading") {
		return ExitRestart
	}
	return ExitOK
}

// StopDrain is how long a gateway that its unit stops may take for running
// turns: TimeoutStopSec less 5 s, 15 s where that is not known.
func StopDrain(ctx context.Context, getenv func(string) string) time.Duration {
	const unknown, margin = 15 * time.Second, 5 * time.Second
	unit, system, ok := unitOf("self")
	if !ok || getenv("INVOCATION_ID") == "" {
		return unknown
	}
	ctx, cancel := context.WithTimeout(ctx, answerLimit)
	defer cancel()
	m, err := Open(system, getenv)
	if err != nil {
		return unknown
	}
	u, err := m.Show(ctx, unit)
	if err != nil || u.MainPID != os.Getpid() || u.StopTimeout <= 0 {
		return unknown
	}
	return max(u.StopTimeout-margin, time.Second)
}

// OwnUnit gives the service in whose control group this process lies, and
// whether it is one of the system's manager; ok is false outside of any.
func OwnUnit() (unit string, system, ok bool) { return unitOf("self") }

// UnitOf gives the service in whose control group a process lies, as OwnUnit
// does for this one.
func UnitOf(pid int) (unit string, system, ok bool) { return unitOf(strconv.Itoa(pid)) }

// unitOf gives the service in whose control group a process lies ("self" for
// this one), and whether it is one of the system's manager.
func unitOf(pid string) (unit string, system, ok bool) {
	text, err := os.ReadFile("/proc/" + pid + "/cgroup")
	if err != nil {
		return "", false, false
	}
	return unitIn(string(text))
}

// unitIn finds the service in the text of /proc/PID/cgroup; cgroups(7). Both
// hierarchies are read: "0::PATH", and "N:name=systemd:PATH" of old machines.
func unitIn(text string) (unit string, system, ok bool) {
	for _, line := range strings.Split(text, "\n") {
		f := strings.SplitN(line, ":", 3)
		if len(f) != 3 || f[1] != "" && f[1] != "name=systemd" {
			continue
		}
		user := false
		for _, part := range strings.Split(f[2], "/") {
			switch {
			case strings.HasPrefix(part, "user@") && strings.HasSuffix(part, ".service"):
				user = true
			case strings.HasSuffix(part, ".service"):
				unit = part
			case strings.HasSuffix(part, ".scope"):
				unit = ""
			}
		}
		if unit != "" {
			return unit, !user, true
		}
	}
	return "", false, false
}

// Inside tells whether this process runs inside the unit: an agent's tool or a
// job of the gateway, which must not stop what it lives in.
func Inside(u Unit) bool {
	unit, system, ok := unitOf("self")
	return ok && unit == u.Name && system == u.System
}
