package approval

import (
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"hermes/internal/lazyregexp"
)

const (
	stopReason    = "this would stop or restart the gateway that you run in, and cut this very answer off; it is refused from inside." + rightWay
	managerReason = "this would end the service manager, and with it the gateway that you run in; it is refused from inside." + rightWay
	machineReason = "shutting down, restarting or suspending the machine from a chat is never allowed; an operator can do it from a terminal of his own."
)

// isGateway tells whether a program name is the gateway's own binary.
func (w *walker) isGateway(name string) bool {
	return name == "hermes" || name == "hermes-gateway" || slices.Contains(w.o.Programs, name)
}

// gateway is our own command line. What changes whether a gateway runs is
// refused; what changes what the agent may do is asked about.
func gateway(w *walker, c call) {
	var words []string
	for i := 0; i < len(c.args); i++ {
		switch a := c.args[i]; {
		case a == "-p" || a == "--profile":
			i++
		case a == "--yolo":
			w.ask(finding{key: "approval settings", reason: "switches approvals off", severe: true})
		case strings.HasPrefix(a, "-"):
		default:
			words = append(words, a)
		}
	}
	words = append(words, "", "")
	switch verb := words[1]; words[0] {
	case "gateway":
		switch {
		case verb == "stop" || verb == "restart" || verb == "uninstall" || verb == "reload":
			w.refuse(stopReason)
		case slices.Contains(c.args, "--replace") || slices.Contains(c.args, "--force"):
			w.refuse(stopReason)
		case verb == "run" || verb == "start" || verb == "install" || verb == "" || strings.Contains(verb, unknown):
			w.ask(finding{key: "hermes gateway", reason: "changes which gateways run", severe: true})
		}
	case "update", "rollback", "uninstall":
		if !slices.Contains(c.args, "--check") {
			w.refuse("updating the gateway replaces the program that you run in; it is refused from inside. Send /update in the chat, or let an operator do it.")
		}
	case "profile":
		if verb == "delete" || verb == "rename" || verb == "import" {
			w.ask(finding{key: "hermes profile", reason: "changes profiles", severe: true})
		}
	case "config", "pairing", "auth", "model", "tools", "import", "setup", "login", "logout", "approvals", "access":
		if verb != "list" && verb != "show" && verb != "get" && verb != "path" && verb != "check" && verb != "status" && verb != "history" {
			w.ask(finding{key: "gateway settings", reason: "changes the gateway's own settings (hermes " + words[0] + ")", severe: true})
		}
	}
}

var lifeUnit = lazyregexp.New(`(?i)hermes|^user@|^user-|^user\.slice|^dbus(-broker)?\.|^dbus(-broker)?$|^init\.scope|^-\.slice|^app\.slice|^session-|^session\.slice|^systemd-logind|^basic\.target|^default\.target|^sysinit`)

// touchesLifeUnit tells whether a unit name or pattern may mean our unit.
func touchesLifeUnit(unit string) bool {
	if lifeUnit.MatchString(unit) {
		return true
	}
	return strings.ContainsAny(unit, "*?[") && matches(unit, "hermes-gateway", "hermes-gateway.service", "hermes-gateway-x.service", "user@1000.service")
}

// systemctl refuses what ends us or the manager, and asks about other changes.
func systemctl(w *walker, c call) {
	ops := dropValues(c.args, "-H", "--host", "-M", "--machine", "-t", "--type", "-p", "--property", "-s", "--signal", "-n", "-o", "--kill-who", "--kill-whom", "--state", "--job-mode")
	if len(ops) == 0 {
		return
	}
	verb, units := ops[0], ops[1:]
	switch verb {
	case "status", "show", "cat", "is-active", "is-enabled", "is-failed", "is-system-running", "list-units", "list-unit-files", "list-timers",
		"list-sockets", "list-dependencies", "list-jobs", "list-machines", "list-paths", "help", "get-default", "show-environment", "--version":
		return
	case "poweroff", "reboot", "halt", "kexec", "suspend", "hibernate", "hybrid-sleep", "suspend-then-hibernate", "soft-reboot", "sleep", "switch-root":
		w.refuse(machineReason)
		return
	case "exit", "daemon-reexec", "isolate", "rescue", "emergency", "default":
		w.refuse(managerReason)
		return
	}
	for _, u := range units {
		if touchesLifeUnit(u) {
			w.refuse(stopReason)
			return
		}
	}
	if strings.Contains(c.src, "hermes") && verb != "daemon-reload" || strings.Contains(verb, unknown) && len(units) == 0 {
		w.refuse(stopReason)
		return
	}
	w.ask(finding{key: "systemctl " + clip(verb), reason: "changes services (systemctl " + clip(verb) + ")", severe: true})
}

// clip bounds a word that becomes part of a key.
func clip(s string) string {
	s = strings.ReplaceAll(s, unknown, "…")
	if len(s) > 24 {
		s = s[:24]
	}
	return s
}

// dropValues gives the operands, without the values of the named options.
func dropValues(args []string, valued ...string) []string {
	var out []string
	for i := 0; i < len(args); i++ {
		switch {
		case slices.Contains(valued, args[i]):
			i++
		case args[i] == "--":
			return append(out, args[i+1:]...)
		case strings.HasPrefix(args[i], "-") && len(args[i]) > 1:
		default:
			out = append(out, args[i])
		}
	}
	return out
}

func service(w *walker, c call) {
	ops := operands(c.args)
	if len(ops) < 2 || ops[1] == "status" {
		return
	}
	if touchesLifeUnit(ops[0]) {
		w.refuse(stopReason)
		return
	}
	w.ask(finding{key: "service " + clip(ops[1]), reason: "changes services (service " + clip(ops[0]) + " " + clip(ops[1]) + ")", severe: true})
}

func loginctl(w *walker, c call) {
	ops := operands(c.args)
	if len(ops) == 0 {
		return
	}
	switch verb := ops[0]; verb {
	case "disable-linger", "terminate-user", "kill-user", "terminate-session", "kill-session", "terminate-seat":
		w.refuse(managerReason)
	case "poweroff", "reboot", "halt", "suspend", "hibernate", "hybrid-sleep", "suspend-then-hibernate":
		w.refuse(machineReason)
	case "list-sessions", "list-users", "list-seats", "session-status", "user-status", "show-session", "show-user", "show-seat", "seat-status":
	default:
		w.ask(finding{key: "loginctl " + clip(verb), reason: "changes login sessions", severe: true})
	}
}

// bus is busctl, dbus-send and gdbus: another way to talk to the manager.
func bus(w *walker, c call) {
	all := strings.Join(c.args, " ")
	switch {
	case regexpStop.MatchString(all) && (strings.Contains(all, "hermes") || strings.Contains(all, "user@") || strings.Contains(all, unknown)):
		w.refuse(stopReason)
	case regexpManager.MatchString(all):
		w.refuse(managerReason)
	case !strings.Contains(all, "org.freedesktop.systemd1") && !strings.Contains(all, "org.freedesktop.login1"):
	case regexpStop.MatchString(all) || strings.Contains(all, "call") || strings.Contains(all, "--dest"):
		w.ask(finding{key: c.name, reason: "talks to the service manager (" + c.name + ")", severe: true})
	}
}

var (
	regexpStop    = lazyregexp.New(`(Stop|Restart|TryRestart|ReloadOrRestart|ReloadOrTryRestart|Kill|Reload|Freeze|Disable|Mask)Unit|ResetFailed|StopTransient|DisableUnitFiles|MaskUnitFiles|RevertUnitFiles`)
	regexpManager = lazyregexp.New(`\b(Exit|PowerOff|Reboot|Halt|KExec|Reexecute|Suspend|Hibernate|SoftReboot|SwitchRoot|TerminateUser|KillUser|TerminateSession|KillSession|SetUserLinger)\b`)
	ourTraces     = lazyregexp.New(`(?i)hermes|gateway\.(pid|lock|sock)|MainPID|\$\{?PPID|\bppid\b`)
)

// isGatewayPID tells whether a word names the gateway's process.
func (w *walker) isGatewayPID(s string) bool {
	s = strings.TrimPrefix(s, "-")
	return s == "$PPID" || w.o.GatewayPID > 0 && s == strconv.Itoa(w.o.GatewayPID)
}

// kill refuses signals to us, to init and to everything.
func kill(w *walker, c call) {
	if hasFlag(c.args, "lL", "--list", "--table") {
		return
	}
	targets, first := []string{}, true
	for i := 0; i < len(c.args); i++ {
		a := c.args[i]
		switch {
		case a == "--" && first:
			first = false
		case first && (a == "-s" || a == "-n" || a == "--signal"):
			i++
		case first && a == "-0":
			return // asks whether a process is there
		case first && strings.HasPrefix(a, "-") && len(targets) == 0 && (len(c.args) > 1 && i < len(c.args)-1):
			first = false // the signal
		default:
			targets = append(targets, a)
		}
	}
	own := true
	for _, t := range targets {
		switch {
		case t == "1" || t == "-1":
			w.refuse("signalling process 1, or every process, takes the machine or the gateway down; it is never allowed")
			return
		case w.isGatewayPID(t):
			w.refuse(stopReason)
			return
		}
		own = own && (strings.HasPrefix(t, "%") || t == "$!")
	}
	if ourTraces.MatchString(c.src) || ourTraces.MatchString(c.in.src) {
		w.refuse(stopReason)
		return
	}
	w.ask(finding{key: "kill", reason: "ends processes (kill)", low: own})
}

// ourCommandLines are what a pattern for processes must not match.
var ourCommandLines = []string{"hermes", "hermes gateway run", "/usr/local/bin/hermes gateway run", "hermes -p default gateway run --replace", "systemd --user"}

// killByName is pkill, killall and their kin.
func killByName(w *walker, c call) {
	ops := dropValues(c.args, "-u", "-U", "-g", "-G", "-P", "-s", "-t", "--signal", "--euid", "--uid", "--user", "-n", "-y", "-o", "--older-than", "--younger-than", "--parent", "--pgroup", "--session")
	user := hasFlag(c.args, "uUPgGst", "--euid", "--uid", "--user", "--parent", "--pgroup", "--session", "--inverse", "--cgroup")
	if len(ops) == 0 {
		if user || c.name == "killall5" {
			w.refuse("signalling every process of a user ends the gateway that you run in; it is refused from inside." + rightWay)
		}
		return
	}
	full := hasFlag(c.args, "f", "--full") || c.name != "pkill"
	for _, pattern := range ops {
		if w.killsUs(pattern, full, c) || hasFlag(c.args, "v", "--inverse") && c.name == "pkill" {
			w.refuse(stopReason)
			return
		}
	}
	w.ask(finding{key: c.name, reason: "ends processes by name (" + c.name + " " + clip(ops[0]) + ")", severe: true})
}

func (w *walker) killsUs(pattern string, full bool, c call) bool {
	if strings.Contains(strings.ToLower(pattern), "hermes") || w.isGateway(pattern) || pattern == "systemd" || pattern == "init" {
		return true
	}
	if strings.Contains(pattern, unknown) {
		return ourTraces.MatchString(c.src)
	}
	if c.name == "killall" && !hasFlag(c.args, "r", "--regexp") {
		return false
	}
	re, err := regexp.Compile(pattern)
	if err != nil {
		return false
	}
	lines := ourCommandLines
	if !full {
		lines = lines[:1]
	}
	return slices.ContainsFunc(lines, re.MatchString)
}

// power is shutdown, reboot and their kin.
func power(w *walker, c call) {
	if c.name == "shutdown" && hasFlag(c.args, "c") || slices.Contains(c.args, "--help") || slices.Contains(c.args, "--version") {
		return
	}
	if c.name == "init" || c.name == "telinit" {
		if ops := operands(c.args); len(ops) == 0 || !strings.Contains("0123456sSquU", ops[0]) {
			return
		}
	}
	w.refuse(machineReason)
}

// crontab replaces or removes scheduled commands.
func crontab(w *walker, c call) {
	if hasFlag(c.args, "l") {
		return
	}
	w.ask(finding{key: "crontab", reason: "changes the system's scheduled commands (crontab)", severe: true})
	if c.in.known {
		w.keep(onlyRefused, func() {
			for line := range strings.Lines(c.in.text) {
				if f := strings.Fields(line); len(f) > 5 && !strings.HasPrefix(line, "#") {
					w.script(strings.Join(f[5:], " "), input{})
				}
			}
		})
	}
}

// chdir follows the working folder.
func chdir(w *walker, c call) {
	ops := operands(c.args)
	switch {
	case len(ops) == 0 && w.o.UserHome != "":
		w.cwd = w.o.UserHome
	case len(ops) == 0 || ops[0] == "-":
		w.cwd = unknown
	default:
		w.cwd = path.Clean(w.resolve(ops[0]))
	}
}
