package service

import (
	"fmt"
	"strings"
	"time"
)

// Lint reads a unit file as an operator wrote it and says what in it does not do
// what it seems to. name is the file's; a generated file has no findings.
func Lint(name, text string, system bool) []string {
	entries := Parse(text)
	value := func(key string) string { return Value(entries, "Service", key) }
	var out []string
	say := func(format string, args ...any) { out = append(out, name+": "+fmt.Sprintf(format, args...)) }
	template := strings.HasSuffix(name, "@.service")
	for _, e := range entries {
		switch {
		case e.Section == "Service" && strings.HasPrefix(e.Key, "StartLimit"):
			say("line %d: %s= belongs in [Unit]; systemd still honours it where it stands", e.Line, e.Key)
		case !system && e.Section == "Unit" && strings.Contains(e.Value, "network-online.target"):
			say("line %d: network-online.target does nothing in a user's manager; the gateway waits for the network by itself", e.Line)
		case !template && strings.Contains(e.Value, "%i"):
			say("line %d: %%i is empty because the file's name lacks its @; save it as %s", e.Line, strings.Replace(name, ".service", "@.service", 1))
		case e.Key == "RestartSteps" && e.Value != "0" && e.Value != "":
			say("line %d: RestartSteps= makes every restart slower than the one before, up to RestartMaxDelaySec=", e.Line)
		}
	}
	if d := delayOf(value("RestartSec")); d > 30*time.Second {
		say("RestartSec=%s leaves the gateway down that long after each end; 1s is enough", value("RestartSec"))
	} else if value("RestartSec") == "" && value("Restart") != "" && value("Restart") != "no" {
		say("RestartSec= is not set, so systemd waits 100 ms only and a broken start uses up its limit at once")
	}
	if r := value("Restart"); r == "" || r == "no" {
		say("Restart= is not set, so nothing starts the gateway after a crash")
	}
	if !limited(entries) {
		say("no StartLimitIntervalSec= is set; the manager's own (10 s, 5 starts) never ends a slow crash loop")
	}
	return unique(out)
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

// unique drops repeated findings, the first of each kept.
func unique(in []string) []string {
	seen := map[string]bool{}
	var out []string
	for _, s := range in {
		_, rest, _ := strings.Cut(s, ": ")
		if i := strings.Index(rest, ": "); strings.HasPrefix(rest, "line ") && i > 0 {
			rest = rest[i:]
		}
		if !seen[rest] {
			seen[rest] = true
			out = append(out, s)
		}
	}
	return out
}
