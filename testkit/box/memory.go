package box

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// Memory is a limit on what a process of the box and its descendants may use.
type Memory struct {
	events string // the file in which the kernel counts whom it killed
}

// LimitMemory lets the kernel's own killer loose on a process of the box and
// what it starts from now on, as a full machine does, until the test ends: by
// memory.max of the unit's own group where control groups are version 2 (see
// https://docs.kernel.org/admin-guide/cgroup-v2.html), by a group made for it in
// the memory controller where they are version 1 (see
// https://docs.kernel.org/admin-guide/cgroup-v1/memory.html). It fails where
// this machine gives neither.
func (b *Box) LimitMemory(t testing.TB, pid int, limit int64) (Memory, error) {
	t.Helper()
	outside, err := b.outside(pid)
	if err != nil {
		return Memory{}, err
	}
	text := strconv.FormatInt(limit, 10)
	if groups, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", outside)); err == nil {
		for line := range strings.Lines(string(groups)) {
			path, unified := strings.CutPrefix(strings.TrimSpace(line), "0::")
			dir := filepath.Join("/sys/fs/cgroup", path)
			if !unified || os.WriteFile(dir+"/memory.max", []byte(text), 0o600) != nil {
				continue
			}
			t.Cleanup(func() { _ = os.WriteFile(dir+"/memory.max", []byte("max"), 0o600) })
			return Memory{dir + "/memory.events"}, nil
		}
	}
	const controller = "/sys/fs/cgroup/memory"
	dir, err := os.MkdirTemp(controller, "box")
	if err != nil {
		return Memory{}, fmt.Errorf("no memory controller can be used here: %w", err)
	}
	t.Cleanup(func() { removeGroup(dir, controller) })
	if err := errors.Join(
		os.WriteFile(dir+"/memory.limit_in_bytes", []byte(text), 0o600),
		os.WriteFile(dir+"/cgroup.procs", []byte(strconv.Itoa(outside)), 0o600)); err != nil {
		return Memory{}, err
	}
	return Memory{dir + "/memory.oom_control"}, nil
}

// removeGroup moves what lives in a group to its parent, and removes it.
func removeGroup(dir, parent string) {
	for range 10 { // some fork meanwhile
		procs, _ := os.ReadFile(dir + "/cgroup.procs")
		for pid := range strings.FieldsSeq(string(procs)) {
			_ = os.WriteFile(parent+"/cgroup.procs", []byte(pid), 0o600)
		}
		if os.Remove(dir) == nil {
			return
		}
	}
}

// Killed is how many processes the kernel has killed for the limit.
func (m Memory) Killed() int {
	text, _ := os.ReadFile(m.events)
	for line := range strings.Lines(string(text)) {
		if n, ok := strings.CutPrefix(line, "oom_kill "); ok {
			killed, _ := strconv.Atoi(strings.TrimSpace(n))
			return killed
		}
	}
	return 0
}

// outside is the PID that a process of the box has on this machine: the first
// of NSpid in proc_pid_status(5).
func (b *Box) outside(pid int) (int, error) {
	leader, err := b.leader()
	if err != nil {
		return 0, err
	}
	space, err := os.Readlink("/proc/" + leader + "/ns/pid")
	if err != nil {
		return 0, err
	}
	inside := []byte("\t" + strconv.Itoa(pid))
	found, err := filepath.Glob("/proc/[0-9]*/status")
	if err != nil {
		return 0, err
	}
	for _, file := range found {
		text, err := os.ReadFile(file)
		if err != nil {
			continue // it ended
		}
		_, after, _ := bytes.Cut(text, []byte("NSpid:"))
		line, _, _ := bytes.Cut(after, []byte("\n"))
		if !bytes.HasSuffix(line, inside) {
			continue
		}
		dir := filepath.Dir(file)
		if ns, err := os.Readlink(dir + "/ns/pid"); err == nil && ns == space {
			return strconv.Atoi(filepath.Base(dir))
		}
	}
	return 0, fmt.Errorf("process %d of the box is not seen from here", pid)
}
