package migrate

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"hermes/internal/home"
	"hermes/internal/succession"
)

// OldProcess is a process of the old system.
type OldProcess struct {
	PID     int
	Command string
	Token   string // what it holds of this profile's, e.g. "telegram bot token"; "" when it serves the home
}

// String names it and how it is stopped.
func (p OldProcess) String() string {
	holds := ""
	if p.Token != "" {
		holds = ", which holds the " + p.Token + " of this profile"
	}
	return fmt.Sprintf("PID %d (%s)%s; stop its unit, or `kill %d`", p.PID, p.Command, holds, p.PID)
}

// Serving finds the process of the old system that serves a home, or holds the
// lock of one of its tokens.
func Serving(p home.Profile, getenv func(string) string) (OldProcess, bool) {
	if r, ok := succession.Holder(p); ok {
		if command, old := oldCommand(r.PID); old {
			return OldProcess{PID: r.PID, Command: command}, true
		}
	}
	env, _, err := home.LoadEnv(p, nil)
	if err != nil {
		return OldProcess{}, false
	}
	hashes := map[string]bool{}
	for _, name := range env.FileNames() {
		if v := env.Get(name); strings.HasSuffix(name, "_TOKEN") && v != "" {
			sum := sha256.Sum256([]byte(v))
			hashes[hex.EncodeToString(sum[:])[:16]] = true
		}
	}
	locks, _ := filepath.Glob(filepath.Join(succession.LockDir(getenv), "*.lock"))
	for _, path := range locks {
		name := strings.TrimSuffix(filepath.Base(path), ".lock")
		i := strings.LastIndexByte(name, '-')
		if i < 0 || !hashes[name[i+1:]] {
			continue
		}
		text, err := readStore(path)
		var r succession.Record
		if err != nil || json.Unmarshal(text, &r) != nil || !r.Alive() {
			continue
		}
		if command, old := oldCommand(r.PID); old {
			return OldProcess{r.PID, command, strings.ReplaceAll(name[:i], "-", " ")}, true
		}
	}
	return OldProcess{}, false
}

// oldCommand gives the command of a process, and whether it is Python's: ours
// is a program of its own.
func oldCommand(pid int) (command string, old bool) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	if err != nil || len(text) == 0 {
		return "", false
	}
	args := strings.Split(strings.TrimRight(string(text), "\x00"), "\x00")
	old = strings.HasPrefix(filepath.Base(args[0]), "python")
	for i, a := range args {
		old = old || strings.HasPrefix(a, "hermes_cli")
		if i > 0 && strings.Contains(a, "=") { // options may hold secrets
			args[i] = "…"
		}
	}
	return strings.Join(args[:min(len(args), 6)], " "), old
}
