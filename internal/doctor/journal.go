package doctor

import (
	"context"
	"os/exec"
	"slices"
	"strings"
	"time"
)

// journalOf gives the last lines of a unit's journal, newest first; nothing
// where it cannot be read.
func journalOf(ctx context.Context, unit string, system bool) []string {
	args := []string{"--no-pager", "-o", "cat", "-n", "50", "-u", unit}
	if !system {
		args = append([]string{"--user"}, args...)
	}
	cmd := exec.CommandContext(ctx, "journalctl", args...)
	cmd.WaitDelay = time.Second
	out, err := cmd.Output()
	if err != nil {
		return nil
	}
	var lines []string
	for line := range strings.Lines(string(out)) {
		if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "-- ") {
			lines = append(lines, line)
		}
	}
	slices.Reverse(lines)
	return lines
}

// journal gives the newest line of a unit's journal that holds a text.
func (c *Case) journal(unit, text string) []string {
	lines := c.Units.Journal[unit]
	if i := slices.IndexFunc(lines, func(l string) bool { return strings.Contains(l, text) }); i >= 0 {
		return []string{"journal: " + cutTo(lines[i], 200)}
	}
	return nil
}
