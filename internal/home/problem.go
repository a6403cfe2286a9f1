package home

import (
	"fmt"
	"path/filepath"
	"sort"
	"strings"
)

// Severity tells what a Problem costs.
type Severity string

// The severities.
const (
	Notice  Severity = "notice"  // worth knowing; nothing is ignored
	Warning Severity = "warning" // something is ignored or unsafe; the rest works
	Fault   Severity = "error"   // a setting is unusable, and what it governs is off or at its safest
)

// Problem is one thing that is wrong in a profile's files, with its place and
// its remedy. It never holds a secret.
type Problem struct {
	Severity Severity `json:"severity"`
	File     string   `json:"file,omitempty"` // absolute path; "" for the process's environment
	Line     int      `json:"line,omitempty"` // from 1; 0 when the whole file is meant
	Column   int      `json:"column,omitempty"`
	Key      string   `json:"key,omitempty"` // dotted key or the variable's name
	Message  string   `json:"message"`
	Fix      string   `json:"fix,omitempty"`
}

// String gives file:line:column: message. fix
func (p Problem) String() string {
	var b strings.Builder
	switch {
	case p.File == "":
		b.WriteString("environment")
	case p.Line == 0:
		b.WriteString(p.File)
	case p.Column == 0:
		fmt.Fprintf(&b, "%s:%d", p.File, p.Line)
	default:
		fmt.Fprintf(&b, "%s:%d:%d", p.File, p.Line, p.Column)
	}
	b.WriteString(": ")
	if p.Key != "" {
		b.WriteString(p.Key + ": ")
	}
	b.WriteString(p.Message)
	if p.Fix != "" {
		b.WriteString("; " + p.Fix)
	}
	return b.String()
}

// Problems are all problems of a load, in the order of their places.
type Problems []Problem

// Faults gives those of severity Fault.
func (ps Problems) Faults() Problems {
	var out Problems
	for _, p := range ps {
		if p.Severity == Fault {
			out = append(out, p)
		}
	}
	return out
}

func (ps Problems) sort() {
	sort.SliceStable(ps, func(i, j int) bool {
		a, b := ps[i], ps[j]
		if a.File != b.File {
			return a.File > b.File // config.yaml before .env
		}
		if a.Line != b.Line {
			return a.Line < b.Line
		}
		return a.Column < b.Column
	})
}

// Origin says where a value comes from.
type Origin struct {
	File string // absolute path, or "" for the environment and for defaults
	Line int
	Env  string // name of the variable, if one gave the value
}

// String gives "config.yaml line 3", ".env line 3 (NAME)", "environment
// (NAME)" or "default".
func (o Origin) String() string {
	s := "default"
	switch {
	case o.File != "" && o.Line > 0:
		s = fmt.Sprintf("%s line %d", filepath.Base(o.File), o.Line)
	case o.File != "":
		s = filepath.Base(o.File)
	case o.Env != "":
		s = "environment"
	}
	if o.Env != "" {
		s += " (" + o.Env + ")"
	}
	return s
}
