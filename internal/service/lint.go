package service

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// Flaw is something in a unit file that does not do what it seems to.
type Flaw struct {
	Code FlawCode `json:"code"`
	File string   `json:"file"`           // the file's name
	Line int      `json:"line,omitempty"` // 0 when something is missing
	Text string   `json:"text"`
}

// String is the flaw for people.
func (f Flaw) String() string {
	if f.Line == 0 {
		return f.File + ": " + f.Text
	}
	return fmt.Sprintf("%s: line %d: %s", f.File, f.Line, f.Text)
}

// FlawCode names a kind of flaw.
type FlawCode string

// The kinds of flaws.
const (
	FlawLimitPlace   FlawCode = "limit_place"   // a start limit in [Service]
	FlawOnlineTarget FlawCode = "online_target" // network-online.target in a user's unit
	FlawNoAt         FlawCode = "missing_at"    // %i in a file whose name lacks the @
	FlawSteps        FlawCode = "restart_steps" // restarts that grow slower
	FlawSlowRestart  FlawCode = "restart_slow"  // RestartSec= over 30 s
	FlawFastRestart  FlawCode = "restart_fast"  // RestartSec= left at 100 ms
	FlawNoRestart    FlawCode = "no_restart"    // nothing starts it after a crash
	FlawNoLimit      FlawCode = "no_limit"      // no start limit
	FlawOneStart     FlawCode = "limit_one"     // a start limit that the first crash hits
	FlawMisplaced    FlawCode = "misplaced_key" // a key in a section where systemd ignores it
)

// FlawCodes lists the kinds of flaws.
func FlawCodes() []FlawCode {
	return []FlawCode{FlawLimitPlace, FlawOnlineTarget, FlawNoAt, FlawSteps, FlawSlowRestart, FlawFastRestart, FlawNoRestart, FlawNoLimit, FlawMisplaced}
}

// Lint reads a unit file as an operator wrote it and says what in it does not do
// what it seems to. name is the file's; a generated file has no flaws.
func Lint(name, text string, system bool) []Flaw {
	entries := Parse(text)
	value := func(key string) string { return Value(entries, "Service", key) }
	var out []Flaw
	say := func(code FlawCode, line int, format string, args ...any) {
		if !slices.ContainsFunc(out, func(f Flaw) bool { return f.Code == code && (line == 0 || code != FlawMisplaced) }) {
			out = append(out, Flaw{code, name, line, fmt.Sprintf(format, args...)})
		}
	}
	template := strings.HasSuffix(name, "@.service")
	for _, e := range entries {
		switch {
		case e.Section == "Service" && strings.HasPrefix(e.Key, "StartLimit"):
			say(FlawLimitPlace, e.Line, "%s= belongs in [Unit]; systemd still honours it where it stands", e.Key)
		case !system && e.Section == "Unit" && strings.Contains(e.Value, "network-online.target"):
			say(FlawOnlineTarget, e.Line, "network-online.target does nothing in a user's manager; the gateway waits for the network by itself")
		case !template && strings.Contains(e.Value, "%i"):
			say(FlawNoAt, e.Line, "%%i is empty because the file's name lacks its @; save it as %s", strings.Replace(name, ".service", "@.service", 1))
		case e.Key == "RestartSteps" && e.Value != "0" && e.Value != "":
			say(FlawSteps, e.Line, "RestartSteps= makes every restart slower than the one before, up to RestartMaxDelaySec=")
		case homeOfKey(e.Key) != "" && homeOfKey(e.Key) != e.Section:
			say(FlawMisplaced, e.Line, "%s= is ignored in [%s]; it belongs in [%s]", e.Key, e.Section, homeOfKey(e.Key))
		}
	}
	if d := delayOf(value("RestartSec")); d > 30*time.Second {
		say(FlawSlowRestart, 0, "RestartSec=%s leaves the gateway down that long after each end; 1s is enough", value("RestartSec"))
	} else if value("RestartSec") == "" && value("Restart") != "" && value("Restart") != "no" {
		say(FlawFastRestart, 0, "RestartSec= is not set, so systemd waits 100 ms only and a broken start uses up its limit at once")
	}
	if r := value("Restart"); r == "" || r == "no" {
		say(FlawNoRestart, 0, "Restart= is not set, so nothing starts the gateway after a crash")
	}
	if !limited(entries) {
		say(FlawNoLimit, 0, "no StartLimitIntervalSec= is set; the manager's own (10 s, 5 starts) never ends a slow crash loop")
	}
	if oneStart(entries) {
		say(FlawOneStart, 0, "StartLimitBurst=1 allows one start, so the first crash ends the unit for good; with 3 or more systemd starts it again")
	}
	return out
}

// oneStart tells whether the start limit that is in force allows one start.
func oneStart(entries []Entry) bool {
	burst, span := "", ""
	for _, e := range entries {
		switch e.Key {
		case "StartLimitBurst":
			burst = e.Value
		case "StartLimitIntervalSec", "StartLimitInterval":
			span = e.Value
		}
	}
	return burst == "1" && (span == "" || span == "infinity" || delayOf(span) > 0)
}

// sectionOf are the keys that operators write into the wrong section, with the
// right one; systemd.unit(5), systemd.service(5), systemd.exec(5), systemd.kill(5).
var sectionOf = map[string][]string{
	"Unit":    {"After", "Wants", "Requires", "Before", "BindsTo", "PartOf", "OnFailure", "Description"},
	"Service": {"ExecStart", "ExecStop", "ExecReload", "Type", "Restart", "RestartSec", "Environment", "EnvironmentFile", "WorkingDirectory", "TimeoutStopSec", "TimeoutStartSec", "WatchdogSec", "KillMode", "User", "Group", "StandardOutput", "StandardError", "SyslogIdentifier", "SuccessExitStatus", "RestartForceExitStatus", "RestartPreventExitStatus"},
	"Install": {"WantedBy", "RequiredBy", "Alias", "Also"},
}

// homeOfKey is the section that a key belongs to, "" for one that is not known.
func homeOfKey(key string) string {
	for section, keys := range sectionOf {
		if slices.Contains(keys, key) {
			return section
		}
	}
	return ""
}

// limited tells whether the file sets a start limit, by either name of the key.
func limited(entries []Entry) bool {
	for _, e := range entries {
		if e.Key == "StartLimitIntervalSec" || e.Key == "StartLimitInterval" {
			return true
		}
	}
	return false
}

// delayOf reads a time span as people write it in a unit: a bare number is
// seconds; systemd.time(7).
func delayOf(text string) time.Duration {
	if text != "" && strings.Trim(text, "0123456789.") == "" {
		text += "s"
	}
	return span(text)
}

// Span reads a time span as people write it in a unit: a bare number is
// seconds; 0 for "infinity" and for what cannot be read. systemd.time(7).
func Span(text string) time.Duration { return delayOf(text) }

// Words splits the value of a unit's key into words, quotes and escapes taken
// away; systemd.syntax(7).
func Words(text string) []string { return words(text) }
