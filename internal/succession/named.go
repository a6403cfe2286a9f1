package succession

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// StartedAs is the program that the command line of a process names, as an
// absolute path, whatever file it began as: what would be run if it were started
// anew. It is "" where that cannot be told.
func StartedAs(pid int) string {
	args := Words(pid, "cmdline")
	if len(args) == 0 {
		return ""
	}
	name := args[0]
	if strings.Contains(name, "/") && !filepath.IsAbs(name) {
		dir, err := os.Readlink(fmt.Sprintf("/proc/%d/cwd", pid))
		if err != nil {
			return ""
		}
		return filepath.Join(dir, name)
	}
	if filepath.IsAbs(name) {
		return name
	}
	for _, v := range Words(pid, "environ") {
		list, ok := strings.CutPrefix(v, "PATH=")
		if !ok {
			continue
		}
		for _, dir := range filepath.SplitList(list) {
			if path, err := exec.LookPath(filepath.Join(dir, name)); err == nil && filepath.IsAbs(path) {
				return path
			}
		}
	}
	return ""
}

// Words reads a file of /proc/PID that parts words by NUL (cmdline, environ);
// nil where it cannot be read. See proc(5).
func Words(pid int, name string) []string {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", pid, name))
	if err != nil || len(text) == 0 {
		return nil
	}
	return strings.Split(strings.TrimSuffix(string(text), "\x00"), "\x00")
}
