package succession

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
)

// Mode is how a process is replaced while it serves.
type Mode string

// The modes.
const (
	// Overlap starts the successor beside the predecessor, which ends its turns
	// and streams: nothing fails, nothing is cut.
	Overlap Mode = "overlap"
	// InPlace drains and executes the new program under the same PID: nothing
	// fails; streams beyond the drain limit are cut.
	InPlace Mode = "exec"
)

// modeEnv names the mode for those who know better.
const modeEnv = "HERMES_GATEWAY_HANDOVER"

// shells are parents that do not take the end of a process for a fault.
var shells = []string{"sh", "bash", "dash", "zsh", "ksh", "mksh", "fish", "ash", "busybox", "login", "su", "sudo", "sshd", "systemd", "init", "tmux: server", "screen", "nohup", "setsid", "script"}

// ModeOf tells how this process is to be replaced. A process whose parent
// follows its PID (a supervisor, a Type=simple unit, a container) must keep it;
// so must one that has the terminal, so that Ctrl-C goes on to reach it. getenv
// reads the environment that the process was started with.
func ModeOf(getenv func(string) string) Mode {
	switch m := Mode(getenv(modeEnv)); m {
	case Overlap, InPlace:
		return m
	}
	switch {
	case os.Getpid() == 1:
		return InPlace
	case getenv("NOTIFY_SOCKET") != "" && UnitMain(getenv):
		return Overlap // MAINPID tells the manager
	case UnitMain(getenv), getenv("HERMES_GATEWAY_EXTERNAL_SUPERVISOR") != "", hasTerminal():
		return InPlace
	}
	if slices.Contains(shells, parentName()) {
		return Overlap
	}
	return InPlace
}

// UnitMain tells whether this process is the main one of a systemd unit: by
// SYSTEMD_EXEC_PID (see systemd.exec(5)), or, after a hand-over, by lying in
// the cgroup of the unit that began its line.
func UnitMain(getenv func(string) string) bool {
	if getenv("INVOCATION_ID") == "" {
		return false
	}
	pid := getenv("SYSTEMD_EXEC_PID")
	return pid == "" || pid == strconv.Itoa(os.Getpid()) || inServiceCgroup()
}

// inServiceCgroup tells whether our cgroup is that of a service; a shell that a
// unit started somewhere lies in a scope.
func inServiceCgroup() bool {
	text, err := os.ReadFile("/proc/self/cgroup")
	return err == nil && strings.HasSuffix(strings.TrimSpace(string(text)), ".service")
}

// hasTerminal tells whether this process group has its terminal's foreground:
// fields 5 and 8 of /proc/PID/stat, see proc_pid_stat(5).
func hasTerminal() bool {
	f := statFields(os.Getpid())
	return len(f) > 5 && f[2] == f[5]
}

// parentName is the name of the parent process.
func parentName() string {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", os.Getppid()))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(text))
}

// statFields are the fields of /proc/PID/stat from the state (field 3) on.
func statFields(pid int) []string {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return nil
	}
	i := strings.LastIndexByte(string(text), ')')
	if i < 0 {
		return nil
	}
	return strings.Fields(string(text[i+1:]))
}

// Ancestor tells whether process a is b or one of b's ancestors.
func Ancestor(a, b int) bool {
	for range 128 { // deeper than any real tree
		if a == b {
			return true
		}
		f := statFields(b)
		if len(f) < 2 {
			return false
		}
		parent, err := strconv.Atoi(f[1])
		if err != nil || parent <= 0 {
			return false
		}
		b = parent
	}
	return false
}
