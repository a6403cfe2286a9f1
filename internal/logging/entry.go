package logging

import (
	"log/slog"
	"slices"
	"strings"
	"time"
)

// Entry is a parsed line.
type Entry struct {
	At        time.Time  `json:"at"`
	Level     slog.Level `json:"level"`
	Session   string     `json:"session,omitempty"`
	Component string     `json:"component"`
	Message   string     `json:"message"`
}

// ParseLine parses a line of the log's format. It gives false for a line that
// is none, such as the rest of a trace that an older program wrote.
func ParseLine(line string, zone *time.Location) (Entry, bool) {
	var e Entry
	if len(line) < stampLen+2 || line[stampLen] != ' ' {
		return e, false
	}
	at, err := time.ParseInLocation("2006-01-02 15:04:05,000", line[:stampLen], zone)
	if err != nil {
		return e, false
	}
	e.At = at
	name, rest, ok := strings.Cut(line[stampLen+1:], " ")
	if !ok {
		return e, false
	}
	if e.Level, err = ParseLevel(name); err != nil {
		return e, false
	}
	if strings.HasPrefix(rest, "[") {
		if session, after, found := strings.Cut(rest[1:], "] "); found {
			e.Session, rest = session, after
		}
	}
	e.Component, e.Message, ok = strings.Cut(rest, ": ")
	return e, ok
}

// Filter chooses lines. The zero value takes all.
type Filter struct {
	Level     slog.Leveler // least level; nil for any
	Since     time.Time
	Session   string // part of a session's id
	Component string // gateway, agent, tools, cli, cron, or a component's own name
	Zone      *time.Location
}

func (f Filter) empty() bool {
	return f.Level == nil && f.Since.IsZero() && f.Session == "" && f.Component == ""
}

func (f Filter) zone() *time.Location {
	if f.Zone == nil {
		return time.Local
	}
	return f.Zone
}

func (f Filter) takes(e Entry) bool {
	if f.Level != nil && e.Level < f.Level.Level() || e.At.Before(f.Since) || !strings.Contains(e.Session, f.Session) {
		return false
	}
	if f.Component == "" {
		return true
	}
	names := append([]string{f.Component}, componentGroups()[f.Component]...)
	return slices.Contains(names, e.Component) || slices.Contains(names, head(e.Component))
}

// head gives a component's first part: "platform" of "platform.telegram".
func head(component string) string {
	name, _, _ := strings.Cut(component, ".")
	return name
}

// componentGroups maps the names of --component to the parts of this program,
// and to the logger names of files that an older program wrote.
func componentGroups() map[string][]string {
	return map[string][]string{
		"gateway": {"gateway", "platform", "telegram", "discord", "slack", "mattermost", "matrix", "email", "webhook", "conversation", "delivery", "access", "api", "ledger", "succession", "control", "hermes_plugins", "plugins"},
		"agent":   {"agent", "model", "run_agent", "model_tools", "batch_runner"},
		"tools":   {"tools", "tool", "terminal", "approval", "web", "mcp"},
		"cli":     {"cli", "hermes_cli"},
		"cron":    {"cron"},
	}
}
