// Package service keeps gateways running by systemd: it renders units, reads
// those that operators wrote by hand, drives systemctl with a deadline on every
// step, and tells from the manager's own words how a unit fares. What each kind
// of unit can give is told in docs/service.md.
package service

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"path/filepath"
	"strings"

	"hermes/internal/home"
)

// Kind is what a unit runs.
type Kind string

// The kinds.
const (
	Gateway Kind = "gateway" // everything of a profile
	Cron    Kind = "cron"    // the scheduler alone
)

// Readiness is how systemd learns that a gateway serves: Type= of the unit.
type Readiness string

// The kinds of readiness.
const (
	Notify Readiness = "notify" // the process says so; with a watchdog, and its sockets kept by systemd
	Simple Readiness = "simple" // systemd takes the start for granted
)

// Spec is all that a unit is made of. It is a value.
type Spec struct {
	Kind     Kind
	Profile  home.Profile // of a template only Root counts
	Template bool         // hermes-KIND@.service, whose instance is the profile
	System   bool         // a unit of the system's manager, which runs as Account
	Account  Account
	Binary   string // absolute path
	Path     string // PATH of the gateway and its tools
	Ready    Readiness
}

// Account is whom a gateway runs as.
type Account struct {
	Name  string
	Group string
	Home  string
	UID   int
}

// The numbers of a generated unit. They are what docs/service.md promises.
const (
	restartDelay  = "1s"
	limitInterval = "10min"
	limitBurst    = 5
	stopTimeout   = "60s" // over the drain of a stop, which leaves 5 s of it
	watchdog      = "60s"
	storedSockets = 16
)

// Name is the unit's file name. A home outside the standard place gets a name
// of its own, by a hash, so that two homes never share a unit.
func (s Spec) Name() string {
	base := "hermes-" + string(s.Kind)
	switch {
	case s.Template:
		return base + "@.service"
	case s.Profile.Root != filepath.Join(s.Account.Home, ".hermes"):
		sum := sha256.Sum256([]byte(s.Profile.Home))
		return base + "-" + hex.EncodeToString(sum[:4]) + ".service"
	case s.Profile.Name == home.DefaultProfile:
		return base + ".service"
	}
	return base + "-" + s.Profile.Name + ".service"
}

// Instance is the name to start and enable: of a template the profile's
// instance, else Name.
func (s Spec) Instance() string {
	if !s.Template {
		return s.Name()
	}
	return strings.Replace(s.Name(), "@.", "@"+s.Profile.Name+".", 1)
}

// Render gives the unit's text; see systemd.unit(5), systemd.service(5) and
// systemd.exec(5). Errors: Invalid, when a path cannot stand in a unit.
func (s Spec) Render() (string, error) {
	if err := s.checkPaths(); err != nil {
		return "", err
	}
	profile := s.Profile.Name
	if s.Template {
		profile = "%i"
	}
	u := &builder{}
	s.unitSection(u, profile)
	s.serviceSection(u, profile)
	u.section("Install")
	if s.System {
		u.set("WantedBy", "multi-user.target")
	} else {
		u.set("WantedBy", "default.target")
	}
	return seal(u.String()), nil
}

func (s Spec) unitSection(u *builder, profile string) {
	u.section("Unit")
	what := "Hermes Agent Gateway"
	if s.Kind == Cron {
		what = "Hermes Cron Scheduler"
	}
	u.set("Description", fmt.Sprintf("%s (profile: %s)", what, profile))
	if s.System { // a user's manager knows no network-online.target
		after := "network-online.target"
		if s.Account.UID != 0 {
			after += fmt.Sprintf(" user@%d.service", s.Account.UID)
		}
		u.set("After", after)
		u.set("Wants", after)
	}
	u.set("StartLimitIntervalSec", limitInterval)
	u.set("StartLimitBurst", fmt.Sprint(limitBurst))
	u.set("OnFailure", s.onFailure())
}

func (s Spec) serviceSection(u *builder, profile string) {
	u.section("Service")
	verb := "gateway run"
	if s.Kind == Cron {
		verb = "cron run"
	}
	notify := s.Ready == Notify && s.Kind == Gateway
	if notify {
		u.set("Type", "notify")
		u.set("NotifyAccess", "main")
	} else {
		u.set("Type", "simple")
	}
	if s.System {
		u.set("User", s.Account.Name)
		if s.Account.Group != "" {
			u.set("Group", s.Account.Group)
		}
	}
	u.set("ExecStart", execWord(s.Binary)+" --profile "+profile+" "+verb)
	if notify {
		u.set("ExecReload", "/bin/kill -USR1 $MAINPID")
	}
	u.set("WorkingDirectory", "-"+escape(s.Account.Home))
	u.env("HERMES_HOME", s.Profile.Root)
	if s.Path != "" {
		u.env("PATH", s.Path)
	}
	if s.System {
		u.env("HOME", s.Account.Home)
		u.env("USER", s.Account.Name)
		u.env("LOGNAME", s.Account.Name)
	}
	u.set("Restart", "always")
	u.set("RestartSec", restartDelay)
	u.set("SuccessExitStatus", fmt.Sprint(ExitRestart))
	u.set("RestartForceExitStatus", fmt.Sprint(ExitRestart))
	u.set("RestartPreventExitStatus", fmt.Sprint(ExitConfig))
	if notify {
		u.set("WatchdogSec", watchdog)
		u.set("FileDescriptorStoreMax", fmt.Sprint(storedSockets))
	}
	u.set("KillMode", "mixed")
	u.set("TimeoutStopSec", stopTimeout)
	u.set("OOMPolicy", "continue")
	u.set("StandardOutput", "journal")
	u.set("StandardError", "journal")
	u.set("SyslogIdentifier", "hermes-"+string(s.Kind)+"-"+profile)
}

// adoptName stands before what operators call their drop-ins (10-…), so that
// theirs win.
const adoptName = "05-hermes.conf"

// AdoptText is the drop-in that lifts a hand-written gateway unit to what a
// generated one gives, and leaves the file itself alone. Of spec it takes the
// readiness and the rescue unit.
func AdoptText(s Spec) string {
	u := &builder{}
	u.section("Unit")
	u.set("StartLimitIntervalSec", limitInterval)
	u.set("StartLimitBurst", fmt.Sprint(limitBurst))
	u.set("OnFailure", s.onFailure())
	u.section("Service")
	if s.Ready == Notify {
		u.set("Type", "notify")
		u.set("NotifyAccess", "main")
		u.set("ExecReload", "")
		u.set("ExecReload", "/bin/kill -USR1 $MAINPID")
		u.set("WatchdogSec", watchdog)
		u.set("FileDescriptorStoreMax", fmt.Sprint(storedSockets))
	}
	u.set("Restart", "always")
	u.set("RestartSec", restartDelay)
	u.set("SuccessExitStatus", fmt.Sprint(ExitRestart))
	u.set("RestartForceExitStatus", fmt.Sprint(ExitRestart))
	u.set("RestartPreventExitStatus", fmt.Sprint(ExitConfig))
	u.set("KillMode", "mixed")
	u.set("OOMPolicy", "continue")
	return seal(u.String())
}

// builder writes a unit file.
type builder struct{ strings.Builder }

func (b *builder) section(name string) {
	if b.Len() > 0 {
		b.WriteByte('\n')
	}
	fmt.Fprintf(b, "[%s]\n", name)
}

func (b *builder) set(key, value string) { fmt.Fprintf(b, "%s=%s\n", key, value) }

func (b *builder) env(key, value string) {
	b.set("Environment", `"`+strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(escape(key+"="+value))+`"`)
}

// escape keeps % from being read as a specifier; systemd.unit(5).
func escape(s string) string { return strings.ReplaceAll(s, "%", "%%") }

// execWord quotes the first word of a command line, in which systemd replaces
// specifiers and no variables; systemd.service(5), "COMMAND LINES".
func execWord(s string) string {
	s = escape(s)
	if strings.ContainsAny(s, " \t\"'\\;") {
		return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(s) + `"`
	}
	return s
}
