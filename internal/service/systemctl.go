package service

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"hermes/internal/domain"
)

// The limits of one call of systemctl(1).
const (
	askLimit  = 3 * time.Second  // that only asks
	callLimit = 10 * time.Second // that changes something, or hands in a job
)

// Manager is a systemd manager, driven by systemctl(1). Its methods may be used
// at once by several goroutines.
type Manager struct {
	System  bool
	env     []string
	runtime string // XDG_RUNTIME_DIR of a user's manager
}

// Open finds the system's manager, or that of the user whose process this is.
// The variables that lead to the user's bus are derived where they are missing
// or another user's, as after su. Errors: Unavailable, which says what to do.
func Open(system bool, getenv func(string) string) (*Manager, error) {
	if _, err := os.Stat("/run/systemd/system"); err != nil || getenv("SYSTEMD_OFFLINE") == "1" { // sd_booted(3)
		return nil, domain.E(domain.Unavailable, nil, "this machine is not run by systemd, so there is no service to act on; run `hermes gateway run` in the foreground, or under what starts programs here")
	}
	env := []string{"PATH=" + getenv("PATH"), "LANG=C.UTF-8", "SYSTEMD_COLORS=0", "SYSTEMD_PAGER=", "HOME=" + getenv("HOME")}
	if system {
		return &Manager{System: true, env: env}, nil
	}
	dir := runtimeDir(getenv)
	bus := filepath.Join(dir, "bus")
	if _, err := os.Stat(bus); err != nil {
		return nil, domain.E(domain.Unavailable, nil, "no systemd user manager runs for UID %d (%s is missing): it lives from the first login to the last logout, or always with lingering. Log in as that user, or run `sudo loginctl enable-linger %s`", os.Getuid(), bus, accountName())
	}
	return &Manager{runtime: dir, env: append(env, "XDG_RUNTIME_DIR="+dir, "DBUS_SESSION_BUS_ADDRESS=unix:path="+bus)}, nil
}

// runtimeDir is XDG_RUNTIME_DIR, if it belongs to this user, else where
// pam_systemd(8) puts it.
func runtimeDir(getenv func(string) string) string {
	if dir := getenv("XDG_RUNTIME_DIR"); dir != "" {
		if st, err := os.Stat(dir); err == nil {
			if sys, ok := st.Sys().(*syscall.Stat_t); ok && int(sys.Uid) == os.Getuid() {
				return dir
			}
		}
	}
	return fmt.Sprintf("/run/user/%d", os.Getuid())
}

// call runs systemctl to change something. Errors: Timeout, Forbidden,
// Unavailable; the message holds systemctl's own words.
func (m *Manager) call(ctx context.Context, args ...string) ([]byte, error) {
	return m.run(ctx, callLimit, args...)
}

// run runs systemctl for so long at most.
func (m *Manager) run(ctx context.Context, limit time.Duration, args ...string) ([]byte, error) {
	all := append([]string{"--no-ask-password", "--no-pager"}, args...)
	if !m.System {
		all = append([]string{"--user"}, all...)
	}
	began := time.Now()
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	cmd := exec.CommandContext(ctx, "systemctl", all...)
	cmd.Env = m.env
	cmd.WaitDelay = time.Second
	var out, complaint bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &complaint
	err := cmd.Run()
	switch text := strings.TrimSpace(complaint.String()); {
	case err == nil:
		return out.Bytes(), nil
	case ctx.Err() != nil:
		return nil, domain.E(domain.Timeout, ctx.Err(), "systemd did not answer within %s when it was asked for `systemctl %s`", time.Since(began).Round(100*time.Millisecond), strings.TrimSpace(verbOf(args)+" "+args[len(args)-1]))
	case errors.Is(err, exec.ErrNotFound):
		return nil, domain.E(domain.Unavailable, err, "systemctl is not installed")
	case strings.Contains(text, "Access denied"), strings.Contains(text, "nteractive authentication required"), strings.Contains(text, "ermission denied"):
		return nil, domain.E(domain.Forbidden, nil, "`systemctl %s` is not allowed to this user: run it as root (sudo). systemd says: %s", strings.Join(args, " "), text)
	default:
		return nil, domain.E(domain.Unavailable, err, "`systemctl %s` failed: %s", strings.Join(args, " "), text)
	}
}

// verbOf is what systemctl is told to do, "" when that is the last word.
func verbOf(args []string) string {
	for _, a := range args[:len(args)-1] {
		if !strings.HasPrefix(a, "-") {
			return a
		}
	}
	return ""
}

// Reload makes the manager read the unit files again.
func (m *Manager) Reload(ctx context.Context) error {
	_, err := m.call(ctx, "daemon-reload")
	return err
}

// Enable makes the manager start the unit at its own start.
func (m *Manager) Enable(ctx context.Context, unit string) error {
	_, err := m.call(ctx, "enable", "--quiet", unit)
	return err
}

// Disable is the opposite of Enable.
func (m *Manager) Disable(ctx context.Context, unit string) error {
	_, err := m.call(ctx, "disable", "--quiet", unit)
	return err
}

// job hands in a job and does not wait for it.
func (m *Manager) job(ctx context.Context, verb, unit string) error {
	_, err := m.call(ctx, "--no-block", verb, unit)
	return err
}

// Begin starts a unit that is down or waits for its next start, clearing a
// failure first, and does not wait. Errors: Unavailable, Forbidden, Timeout.
func (m *Manager) Begin(ctx context.Context, unit string) error {
	if err := m.resetFailed(ctx, unit); err != nil {
		return err
	}
	return m.job(ctx, "start", unit)
}

// resetFailed clears a failure and the count of starts. A unit that the manager
// does not hold in memory has neither.
func (m *Manager) resetFailed(ctx context.Context, unit string) error {
	_, err := m.call(ctx, "reset-failed", unit)
	if err != nil && strings.Contains(err.Error(), "not loaded") {
		return nil
	}
	return err
}

// Unit is what a manager says of a unit; the words are systemd's own.
type Unit struct {
	Name         string        `json:"name"`
	System       bool          `json:"system"`
	Load         string        `json:"load"`   // loaded, not-found, masked, …
	Active       string        `json:"active"` // active, reloading, inactive, failed, activating, deactivating
	Sub          string        `json:"sub"`    // running, auto-restart, …
	Result       string        `json:"result"` // success, exit-code, start-limit-hit, …
	Type         string        `json:"type"`
	File         string        `json:"file,omitempty"`
	DropIns      []string      `json:"drop_ins,omitempty"`
	Enabled      string        `json:"enabled"` // enabled, disabled, static, …
	MainPID      int           `json:"main_pid,omitempty"`
	Restarts     int           `json:"restarts"` // by the manager itself, since it was last started by hand
	ExitStatus   int           `json:"last_exit_status"`
	Killed       bool          `json:"last_exit_by_signal,omitempty"` // then ExitStatus is the signal's number
	Restart      string        `json:"restart"`
	NeedsReload  bool          `json:"needs_daemon_reload,omitempty"` // the files changed since the manager read them
	StopTimeout  time.Duration `json:"-"`
	RestartDelay time.Duration `json:"-"`
	LimitSpan    time.Duration `json:"-"`
	LimitBurst   int           `json:"-"`
	Since        time.Time     `json:"since,omitzero"` // of Active
	// Invocation is the id of the unit's last or present run.
	Invocation string `json:"invocation_id,omitempty"`
	// Program is the path that ExecStart= names, Args what follows it.
	Program string   `json:"program,omitempty"`
	Args    []string `json:"-"`
	// ActiveEnter and ActiveExit are when the unit last began and ceased to be
	// active, since the machine's boot by the monotonic clock; 0 for never.
	ActiveEnter time.Duration `json:"-"`
	ActiveExit  time.Duration `json:"-"`
	Environment []string      `json:"-"`
	NoRestart   []string      `json:"-"` // exit codes after which the manager leaves it
}

// asked are the properties that Show asks for; org.freedesktop.systemd1(5).
const asked = "Id,LoadState,ActiveState,SubState,Result,Type,FragmentPath,DropInPaths,UnitFileState,MainPID,NRestarts,ExecMainStatus,ExecMainCode,Restart,NeedDaemonReload,TimeoutStopUSec,RestartUSec,StartLimitIntervalUSec,StartLimitBurst,StateChangeTimestamp,Environment,InvocationID,ExecStart,ActiveEnterTimestampMonotonic,ActiveExitTimestampMonotonic,RestartPreventExitStatus"

// Show asks for the state of one unit. A unit that does not exist is no error:
// its Load is "not-found".
func (m *Manager) Show(ctx context.Context, unit string) (Unit, error) {
	out, err := m.run(ctx, askLimit, "show", "--timestamp=unix", "-p", asked, "--", unit)
	if err != nil {
		return Unit{}, err
	}
	u := parseShow(string(out))
	u.System = m.System
	if u.Name == "" {
		return u, domain.E(domain.Unavailable, nil, "systemd said nothing about %s", unit)
	}
	return u, nil
}

// parseShow reads the answer of `systemctl show`.
func parseShow(text string) Unit {
	v := map[string]string{}
	for _, line := range strings.Split(text, "\n") {
		if key, value, ok := strings.Cut(line, "="); ok {
			v[key] = value
		}
	}
	number := func(key string) int { n, _ := strconv.Atoi(v[key]); return n }
	u := Unit{
		Name: v["Id"], Load: v["LoadState"], Active: v["ActiveState"], Sub: v["SubState"], Result: v["Result"], Type: v["Type"],
		File: v["FragmentPath"], DropIns: strings.Fields(v["DropInPaths"]), Enabled: v["UnitFileState"], MainPID: number("MainPID"),
		Restarts: number("NRestarts"), ExitStatus: number("ExecMainStatus"), Killed: v["ExecMainCode"] == "2" || v["ExecMainCode"] == "3", Restart: v["Restart"], NeedsReload: v["NeedDaemonReload"] == "yes",
		StopTimeout: span(v["TimeoutStopUSec"]), RestartDelay: span(v["RestartUSec"]), LimitSpan: span(v["StartLimitIntervalUSec"]),
		LimitBurst: number("StartLimitBurst"), Environment: words(v["Environment"]),
		Invocation:  v["InvocationID"],
		NoRestart:   strings.Fields(v["RestartPreventExitStatus"]),
		ActiveEnter: time.Duration(number("ActiveEnterTimestampMonotonic")) * time.Microsecond,
		ActiveExit:  time.Duration(number("ActiveExitTimestampMonotonic")) * time.Microsecond,
	}
	u.Program, u.Args = commandOf(v["ExecStart"])
	if s, ok := strings.CutPrefix(v["StateChangeTimestamp"], "@"); ok {
		if n, err := strconv.ParseInt(s, 10, 64); err == nil {
			u.Since = time.Unix(n, 0)
		}
	}
	return u
}

// commandOf reads "{ path=/x ; argv[]=/x a b ; ignore_errors=no ; … }", as
// systemctl prints a command line. Arguments with spaces fall apart.
func commandOf(text string) (program string, args []string) {
	_, rest, ok := strings.Cut(text, "path=")
	if !ok {
		return "", nil
	}
	program, rest, _ = strings.Cut(rest, " ; argv[]=")
	line, _, _ := strings.Cut(rest, " ; ")
	return program, strings.Fields(strings.TrimPrefix(line, program))
}

// units of a time span as systemd prints it; systemd.time(7).
var spanUnits = map[string]time.Duration{
	"us": time.Microsecond, "ms": time.Millisecond, "s": time.Second, "min": time.Minute, "h": time.Hour,
	"d": 24 * time.Hour, "w": 7 * 24 * time.Hour, "month": 2629800 * time.Second, "y": 31557600 * time.Second,
}

// span reads a time span as systemd prints it, "1min 30s"; 0 for "infinity" and
// for what cannot be read.
func span(text string) time.Duration {
	var sum time.Duration
	for _, f := range strings.Fields(text) {
		i := strings.IndexFunc(f, func(r rune) bool { return (r < '0' || r > '9') && r != '.' })
		if i <= 0 {
			return 0
		}
		n, err := strconv.ParseFloat(f[:i], 64)
		unit, ok := spanUnits[f[i:]]
		if err != nil || !ok {
			return 0
		}
		sum += time.Duration(n * float64(unit))
	}
	return sum
}

// words splits systemd's list of assignments; a word with spaces is quoted.
func words(text string) []string {
	var out []string
	var word strings.Builder
	quoted, began := false, false
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case c == '\\' && i+1 < len(text):
			i++
			word.WriteByte(text[i])
		case c == '"':
			quoted, began = !quoted, true
		case c == ' ' && !quoted:
			if began || word.Len() > 0 {
				out = append(out, word.String())
			}
			word.Reset()
			began = false
		default:
			word.WriteByte(c)
		}
	}
	if began || word.Len() > 0 {
		out = append(out, word.String())
	}
	return out
}
