// Package succession says which process is the one that serves a profile, and
// which may use a bot's credential: by a held flock and by evidence that
// survives the reuse of a PID, never by the mere existence of a file.
package succession

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"
)

// Record identifies a process in gateway.pid, gateway.lock and the machine-wide
// credential locks. The keys are those that tools for the other system read.
type Record struct {
	PID       int      `json:"pid"`
	Kind      string   `json:"kind"` // hermes-gateway
	Argv      []string `json:"argv"`
	StartTime uint64   `json:"start_time"` // field 22 of /proc/PID/stat, clock ticks since boot
	Home      string   `json:"hermes_home,omitempty"`
	Profile   string   `json:"profile,omitempty"`
}

// Self is the record of this process.
func Self(home, profile string) Record {
	start, _, _ := procStat(os.Getpid())
	return Record{PID: os.Getpid(), Kind: "hermes-gateway", Argv: os.Args, StartTime: start, Home: home, Profile: profile}
}

// RecordOf is the record of a gateway process that is known by its PID only.
func RecordOf(pid int) Record {
	start, _, _ := procStat(pid)
	return Record{PID: pid, Kind: "hermes-gateway", StartTime: start}
}

// Alive tells whether the recorded process still runs: its PID exists, is no
// zombie, and began when the record says. A record without a start time is
// believed only when the command line looks like a gateway.
func (r Record) Alive() bool {
	start, state, err := procStat(r.PID)
	if err != nil || state == 'Z' || state == 'X' {
		return false
	}
	if r.StartTime != 0 {
		return start == r.StartTime
	}
	cmd, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", r.PID))
	return err == nil && bytes.Contains(cmd, []byte("gateway"))
}

// procStat reads start time and state of a process from /proc/PID/stat; see
// proc_pid_stat(5). The command's name may hold spaces and parentheses, so the
// fields are counted from the last ')'.
func procStat(pid int) (start uint64, state byte, err error) {
	if pid <= 0 {
		return 0, 0, os.ErrNotExist
	}
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, 0, err
	}
	i := bytes.LastIndexByte(text, ')')
	if i < 0 {
		return 0, 0, fmt.Errorf("/proc/%d/stat: unexpected form", pid)
	}
	f := strings.Fields(string(text[i+1:]))
	if len(f) < 20 {
		return 0, 0, fmt.Errorf("/proc/%d/stat: unexpected form", pid)
	}
	start, err = strconv.ParseUint(f[19], 10, 64)
	return start, f[0][0], err
}
