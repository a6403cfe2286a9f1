package terminal

import (
	"slices"
	"strings"

	"hermes/internal/home"
)

// managerNames are what the service manager gave to us and to nobody else: a
// tool that had them could speak to it in our name, or take our sockets.
var managerNames = []string{
	"NOTIFY_SOCKET", "INVOCATION_ID", "JOURNAL_STREAM", "MAINPID", "MANAGERPID", "SYSTEMD_EXEC_PID", "CREDENTIALS_DIRECTORY",
	"MEMORY_PRESSURE_WATCH", "MEMORY_PRESSURE_WRITE", "FDSTORE",
}

// quiet makes programs ask nothing and page nothing, since nobody could answer.
var quiet = []string{
	"TERM=dumb", "PAGER=cat", "GIT_PAGER=cat", "MANPAGER=cat", "SYSTEMD_PAGER=cat", "GIT_TERMINAL_PROMPT=0", "GIT_EDITOR=true",
	"DEBIAN_FRONTEND=noninteractive", "NO_COLOR=1",
}

// Environ is the environment of a tool's process: base without the gateway's
// secrets (by name and by value), without the names in hidden (but for everyday ones like PATH), and without what
// belongs to the service manager. A value of less than 6 bytes is no secret.
func Environ(base, hidden, secrets []string) []string {
	out := make([]string, 0, len(base)+len(quiet))
	for _, kv := range base {
		name, value, ok := strings.Cut(kv, "=")
		if !ok || name == "" || withheld(name) || slices.Contains(hidden, name) && !everyday(name) || holdsSecret(value, secrets) {
			continue
		}
		out = append(out, kv)
	}
	for _, kv := range quiet {
		name, _, _ := strings.Cut(kv, "=")
		out = slices.DeleteFunc(out, func(s string) bool { return strings.HasPrefix(s, name+"=") })
		out = append(out, kv)
	}
	return out
}

// everyday names stay also where .env sets them: without a PATH nothing works.
func everyday(name string) bool {
	return slices.Contains([]string{"PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LANGUAGE", "TZ", "TMPDIR", "EDITOR", "HERMES_HOME"}, name) ||
		strings.HasPrefix(name, "LC_") || strings.HasPrefix(name, "XDG_")
}

func withheld(name string) bool {
	upper := strings.ToUpper(name)
	return slices.Contains(managerNames, upper) || strings.HasPrefix(upper, "LISTEN_") || strings.HasPrefix(upper, "WATCHDOG_") ||
		home.IsSecretName(name) || strings.Contains(upper, "PASSWORD") || strings.Contains(upper, "PASSWD") ||
		strings.Contains(upper, "CREDENTIAL") || strings.Contains(upper, "_SECRET_") || strings.Contains(upper, "APIKEY") || upper == "HERMES_LEDGER_URL"
}

func holdsSecret(value string, secrets []string) bool {
	return slices.ContainsFunc(secrets, func(s string) bool { return len(s) >= 6 && strings.Contains(value, s) })
}
