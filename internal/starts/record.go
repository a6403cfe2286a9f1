// Package starts keeps the record of a profile's starts: what was started with
// which program and configuration, how far it came, what was being started when
// it died, and how it ended. From that record, and nothing else, the next start
// judges whether it must be careful; see Judge. The record stands in files of
// the profile's home (file.go), so that it can be read and written with a broken
// ledger and a broken configuration. It is not synchronised to the disk: it must
// outlive a process, and a machine that goes down is no fault of one.
package starts

import (
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"hermes/internal/home"
	"hermes/internal/plain"
	"hermes/internal/succession"
	"hermes/internal/versions"
)

// Stage is how far a start came.
type Stage string

// The stages, in their order.
const (
	Begun   Stage = "begun"   // the process runs
	Built   Stage = "built"   // configuration read, ledger open, parts built
	Serving Stage = "serving" // every part was started
	Settled Stage = "settled" // and it served for SettleTime: the deaths before it are forgotten
)

// SettleTime is how long a life must serve before the deaths before it no
// longer count.
const SettleTime = 10 * time.Minute

func (s Stage) rank() int { return slices.Index([]Stage{Begun, Built, Serving, Settled}, s) }

// Reached tells whether a start came at least as far as a stage.
func (s Start) Reached(stage Stage) bool { return s.Stage.rank() >= stage.rank() }

// Start is one start of the profile's gateway, and the life that followed.
type Start struct {
	ID      string            `json:"id"`
	At      time.Time         `json:"at"`
	Up      time.Duration     `json:"up,omitempty"` // of the machine, in nanoseconds; 0 unknown
	Process succession.Record `json:"process"`
	Boot    string            `json:"boot,omitempty"` // of the machine; see random(4), boot_id
	Unit    string            `json:"invocation,omitempty"`
	Binary  versions.Binary   `json:"binary"`
	Disk    string            `json:"config_on_disk,omitempty"` // fingerprint
	Config  string            `json:"config_served,omitempty"`  // fingerprint
	Planned bool              `json:"planned,omitempty"`        // a hand-over: the one before served until this one did
	Careful []string          `json:"careful,omitempty"`        // why, where it was
	Slow    bool              `json:"slow,omitempty"`           // parts were started one by one
	Stage   Stage             `json:"stage"`
	Parts   []string          `json:"starting,omitempty"` // being started, so suspect if it dies now
	Jobs    bool              `json:"jobs,omitempty"`     // jobs that run stand among Parts
	Kills   int64             `json:"oom_kills"`          // of the control group above, at the start; -1 unknown
	Served  time.Time         `json:"serving_at,omitzero"`
	Healthy time.Time         `json:"healthy_at,omitzero"` // when it served and nothing was wrong, the first time
	End     *End              `json:"end,omitempty"`       // nil while it lives, or until the next start has judged it
}

// Cause is how a life ended.
type Cause string

// The causes. Only Failed, Panicked and Vanished count as deaths.
const (
	Clean    Cause = "clean"    // asked to, or handed over
	Outside  Cause = "outside"  // killed by somebody else: the kernel, an operator, the machine
	Failed   Cause = "failed"   // an error that it told
	Panicked Cause = "panicked" // the runtime gave up, and left a dump
	Vanished Cause = "vanished" // gone without a trace, before all was started or again with the same job at work
)

// End is how a life ended.
type End struct {
	At     time.Time `json:"at,omitzero"` // zero when nobody can say
	Code   int       `json:"code"`        // exit code; -1 unknown
	Cause  Cause     `json:"cause"`
	Part   string    `json:"part,omitempty"` // that it names
	Reason string    `json:"reason,omitempty"`
}

// Death tells whether the end counts as one.
func (e *End) Death() bool {
	return e != nil && (e.Cause == Failed || e.Cause == Panicked || e.Cause == Vanished)
}

// Quarantined is a part that is not started before its time.
type Quarantined struct {
	Part  string    `json:"part"`
	Since time.Time `json:"since"`
	Until time.Time `json:"until"` // then it is tried again
	Times int       `json:"times"` // deaths that named it
	Why   string    `json:"why"`
}

// Distrust is what is not used as long as it stays as it was when lives ended
// by it.
type Distrust struct {
	Config string          `json:"config,omitempty"` // fingerprint
	Binary versions.Binary `json:"binary,omitzero"`
	Since  time.Time       `json:"since"`
	Why    string          `json:"why"`
}

// Record is all that is known of a profile's starts.
type Record struct {
	Starts     []Start       `json:"starts"` // the oldest first, at most kept
	Quarantine []Quarantined `json:"quarantine,omitempty"`
	Distrusted []Distrust    `json:"distrusted,omitempty"`
	// Told is the incident of which the home channels were told last, so that
	// they hear of each once.
	Told string `json:"told,omitempty"`
	// ParkTold is when the home channels were told last that starts come to
	// nothing and wait.
	ParkTold time.Time `json:"park_told,omitzero"`
}

// Last is the latest start; ok is false when there is none.
func (r Record) Last() (s Start, ok bool) {
	if len(r.Starts) == 0 {
		return Start{}, false
	}
	return r.Starts[len(r.Starts)-1], true
}

// Troubled tells whether the record holds a reason to look closer: a life whose
// end is not known or was a death, or a program that is not to be used.
func (r Record) Troubled() bool {
	for _, d := range r.Distrusted {
		if d.Binary.Path != "" {
			return true
		}
	}
	for i := len(r.Starts) - 1; i >= 0; i-- {
		if s := r.Starts[i]; s.End == nil || s.End.Death() {
			return true
		} else if s.Reached(Settled) {
			return false
		}
	}
	return false
}

// New describes the start of this process. getenv reads the environment that it
// was started with.
func New(p home.Profile, binary versions.Binary, getenv func(string) string, now time.Time) Start {
	return Start{
		ID: now.UTC().Format("20060102T150405.000") + "-" + strconv.Itoa(os.Getpid()), At: now.UTC(), Process: succession.Self(p.Home, p.Name),
		Up: Uptime(), Boot: bootID(), Unit: getenv("INVOCATION_ID"), Binary: binary, Stage: Begun, Kills: oomKills(),
	}
}

// bootID names this boot of the machine, "" where that cannot be told.
func bootID() string {
	text, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(text))
}

// oomKills counts the processes that the kernel has killed for lack of memory
// in the control group above ours, which outlives our unit's; cgroups(7) and the
// kernel's cgroup-v2, memory.events. -1 where it is not told.
func oomKills() int64 {
	text, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return -1
	}
	for line := range strings.SplitSeq(string(text), "\n") {
		if path, ok := strings.CutPrefix(line, "0::/"); ok && path != "" {
			return oomKillsIn(filepath.Join("/sys/fs/cgroup", filepath.Dir(path), "memory.events"))
		}
	}
	return -1
}

func oomKillsIn(file string) int64 {
	text, err := plain.Read(file)
	if err != nil {
		return -1
	}
	for line := range strings.SplitSeq(string(text), "\n") {
		if v, ok := strings.CutPrefix(line, "oom_kill "); ok {
			if n, err := strconv.ParseInt(strings.TrimSpace(v), 10, 64); err == nil {
				return n
			}
		}
	}
	return -1
}
