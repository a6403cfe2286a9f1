package gateway

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"strings"

	"hermes/internal/domain"
	"hermes/internal/succession"
)

// toolMark stands in the environment of every command that the terminal runs.
const toolMark = "HERMES_TOOL_RUN="

// Refuses protects the gateway from its own agent and jobs: a process that
// descends from it, bears the terminal's mark, or lies in the cgroup of its unit
// may not stop or replace it. Those that belong to a hand-over may. pid 0 is
// unknown, and let in.
func (g *Gateway) Refuses(pid int) error {
	if pid <= 0 || pid == os.Getpid() || g.handing.kin(pid) {
		return nil
	}
	if r, ok := succession.Holder(g.Profile); ok && r.PID == pid {
		return nil // it serves now
	}
	var why string
	switch {
	case succession.Ancestor(os.Getpid(), pid):
		why = "a process of this gateway asked"
	case marked(pid):
		why = "a command of the agent asked"
	case succession.UnitMain(g.processEnv) && sameCgroup(pid):
		why = "a process inside this gateway's own unit asked"
	default:
		return nil
	}
	g.Log.Warn("a request to stop or restart the gateway was refused", "component", "control", "pid", pid, "why", why)
	return domain.E(domain.Forbidden, nil, "refused, since %s (PID %d): what the gateway runs must not end it. Send /restart in a chat, which restarts it after the turn, or ask the operator", why, pid)
}

func marked(pid int) bool {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
	return err == nil && (bytes.HasPrefix(text, []byte(toolMark)) || bytes.Contains(text, []byte("\x00"+toolMark)))
}

// sameCgroup tells whether a process lies in our cgroup or below it.
func sameCgroup(pid int) bool {
	ours, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return false
	}
	theirs, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
	if err != nil {
		return false
	}
	a, b := strings.TrimSpace(string(ours)), strings.TrimSpace(string(theirs))
	return strings.Count(a, "\n") == 0 && (a == b || strings.HasPrefix(b, a+"/"))
}

// controlListener is the control socket, nil while there is none.
func (g *Gateway) controlListener() net.Listener {
	if g.control == nil {
		return nil
	}
	return g.control.Listener()
}
