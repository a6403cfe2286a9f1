package doctor

import (
	"context"
	"os/exec"
	"slices"
	"strings"
	"time"
)

// journalOf gives the last lines of a unit's journal, newest first; nothing
// where it cannot be read. With own only what the unit's processes wrote is
// taken, and not what systemd says of them; systemd.journal-fields(7).
func journalOf(ctx context.Context, unit string, system, own bool) []string {
	args := []string{"--no-pager", "-o", "cat", "-n", "50"}
	field := "_SYSTEMD_UNIT="
	if !system {
		args = append(args, "--user")
		field = "_SYSTEMD_USER_UNIT="
	}
	if own {
		args = append(args, field+unit)
	} else {
		args = append(args, "-u", unit)
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

// lastWords gives what the processes of a unit wrote last.
func (c *Case) lastWords(unit string) []string {
	lines := c.Units.Words[unit]
	if len(lines) == 0 {
		return nil
	}
	return []string{"it said last: " + cutTo(lines[0], 200)}
}

// journal gives the newest line of a unit's journal that holds a text.
func (c *Case) journal(unit, text string) []string {
	lines := c.Units.Journal[unit]
	if i := slices.IndexFunc(lines, func(l string) bool { return strings.Contains(l, text) }); i >= 0 {
		return []string{"journal: " + cutTo(lines[i], 200)}
	}
	return nil
}
