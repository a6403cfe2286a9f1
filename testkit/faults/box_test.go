package faults

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"hermes/internal/doctor"
	"hermes/testkit/box"
	"hermes/testkit/rig"
)

// boxLimit bounds what a box is waited for.
const boxLimit = time.Minute

// machine is a box with the program and one user, for all faults of units.
type machine struct {
	*box.Box
	t    *testing.T
	user *box.User
	name string // of the fault's profile
	unit string
	port int
	fill map[string]string
	bare bool // the user's commands have no way to the bus in their environment
}

// boxFault is one way to break what systemd does.
type boxFault struct {
	what    string
	id      string
	class   doctor.Class
	byHand  bool // the unit is an operator's own
	inject  func(m *machine)
	hand    func(m *machine)
	later   func(m *machine) // what the operator does when the fix is through
	logout  bool             // the user manager goes away with the fault
	profile string
	shows   []string // what the finding must tell beside its ID
}

// boxFaults are about managers, units, lingering and what they make of ends.
func boxFaults() []boxFault {
	return []boxFault{
		{what: "a generated unit's program is gone, and systemd could not start it", id: "service.exec", class: doctor.Service, shows: []string{"/usr/local/bin/hermes-old", "the right path is /usr/local/bin/hermes", "203"}, inject: func(m *machine) {
			m.run("systemctl --user stop " + m.unit)
			m.run("sed -i 's|^ExecStart=[^ ]*|ExecStart=/usr/local/bin/hermes-old|' " + m.file() + " && systemctl --user daemon-reload && systemctl --user start --no-block " + m.unit)
			m.until("the unit to fail", func() bool { return m.property("ExecMainStatus") == "203" })
		}},
		{what: "the program ends at once, again and again, until systemd gives it up", id: "service.start_limit", class: doctor.Service, shows: []string{"panic: the disk of the database is gone"}, byHand: true, inject: func(m *machine) {
			m.run("systemctl --user stop " + m.unit)
			m.Write(m.t, m.program(), "#!/bin/sh\necho 'panic: the disk of the database is gone' >&2\nexit 2\n")
			m.Root(m.t, "chmod 755 "+m.program())
			m.run("systemctl --user start --no-block " + m.unit)
			m.until("the limit to be hit", func() bool { return m.property("ActiveState") == "failed" })
		}, hand: func(m *machine) { m.Root(m.t, "cp /usr/local/bin/hermes "+m.program()) }},
		{what: "the unit is not enabled", id: "service.not_enabled", class: doctor.Service, byHand: true, inject: func(m *machine) {
			m.run("systemctl --user disable " + m.unit)
		}},
		{what: "the unit was edited and systemd not told", id: "service.needs_reload", class: doctor.Service, byHand: true, inject: func(m *machine) {
			m.run("touch -d '+2 seconds' " + m.file() + "; mkdir -p " + m.file() + ".d; printf '[Service]\\nEnvironment=A=1\\n' > " + m.file() + ".d/20-a.conf")
		}},
		{what: "the unit is masked", id: "service.masked", class: doctor.Service, inject: func(m *machine) {
			m.run("systemctl --user stop " + m.unit + " && mv " + m.file() + " /tmp/" + m.unit + " && systemctl --user mask " + m.unit)
		}, hand: func(m *machine) {
			m.run("systemctl --user unmask " + m.unit + " && mv /tmp/" + m.unit + " " + m.file() + " && systemctl --user daemon-reload && systemctl --user enable " + m.unit)
		}},
		{what: "a drop-in makes a unit that systemd refuses", id: "service.bad_unit", class: doctor.Service, byHand: true, inject: func(m *machine) {
			m.run("systemctl --user stop " + m.unit + "; mkdir -p " + m.file() + ".d; printf '[Service]\\nType=oneshot\\n' > " + m.file() + ".d/30-oneshot.conf; systemctl --user daemon-reload")
		}},
		{what: "config.yaml is broken, and the unit ended with 78", id: "profile.config_yaml", class: doctor.Scope, inject: func(m *machine) {
			m.run("systemctl --user stop " + m.unit)
			m.run("rm -rf " + m.home("config-history") + " " + m.home("gateway-starts.json"))
			m.run("echo 'agent: [' >> " + m.home("config.yaml") + "; systemctl --user start --no-block " + m.unit)
			m.until("the unit to end", func() bool { return m.property("ActiveState") != "activating" })
			m.Write(m.t, "/opt/editor", "#!/bin/sh\nsed -i '/agent: \\[/d' \"$1\"\n")
			m.Root(m.t, "chmod 755 /opt/editor")
		}},
		{what: "the unit was stopped", id: "service.not_running", class: doctor.Service, inject: func(m *machine) { m.run("systemctl --user stop " + m.unit) }},
		{what: "a unit and an instance of a template are both enabled", id: "service.two_units", class: doctor.Service, byHand: true, inject: func(m *machine) {
			at := strings.Replace(m.file(), m.unit, "hermes-gateway@.service", 1)
			m.run("sed 's/--profile " + m.name + "/--profile %i/' " + m.file() + " > " + at + " && systemctl --user daemon-reload && systemctl --user enable hermes-gateway@" + m.name)
			m.t.Cleanup(func() { m.run("rm -f " + at) })
		}},
		{what: "the template was saved without its @, and started", id: "service.missing_at", class: doctor.Service, byHand: true, profile: "default", inject: func(m *machine) {
			m.run("systemctl --user disable --now " + m.unit + "; sed -i 's/--profile default/--profile %i/' " + m.file() + " && systemctl --user daemon-reload && systemctl --user enable --now " + m.unit)
			m.t.Cleanup(func() {
				m.run("systemctl --user disable --now hermes-gateway@default; rm -f " + strings.Replace(m.file(), m.unit, "hermes-gateway@.service", 1))
			})
		}},
		{what: "lingering is off, and somebody logged in", id: "service.linger", class: doctor.Service, byHand: true, inject: func(m *machine) {
			m.user.Login(m.t)
			m.Root(m.t, "loginctl disable-linger ada")
			m.t.Cleanup(func() { m.user.Logout(m.t) })
		}},
		{what: "lingering is off, and everybody has logged out", id: "service.user_bus", class: doctor.Service, byHand: true, logout: true, inject: func(m *machine) {
			m.Root(m.t, "loginctl disable-linger ada")
			m.until("the user's manager to end", func() bool {
				out, _ := m.Try(m.deadline(), fmt.Sprintf("systemctl is-active user@%d.service", m.user.UID))
				return strings.TrimSpace(out) != "active" && strings.TrimSpace(out) != "deactivating"
			})
		}},
		{what: "the unit's program may not be executed any more", id: "service.exec", class: doctor.Service, byHand: true, inject: func(m *machine) {
			m.run("systemctl --user stop " + m.unit)
			m.Root(m.t, "chmod 644 "+m.program()+" && chown ada "+m.program())
		}},
		{what: "the gateway was killed by a signal after which its unit does not start it", id: "service.unit_failed", class: doctor.Service, byHand: true, inject: func(m *machine) {
			m.run("mkdir -p " + m.file() + ".d; printf '[Service]\\nRestartPreventExitStatus=SIGKILL\\n' > " + m.file() + ".d/20-kill.conf; systemctl --user daemon-reload; systemctl --user kill -s KILL " + m.unit)
			m.until("the unit to fail", func() bool { return m.property("ActiveState") == "failed" })
		}},
		{what: "the user's systemd is suspended", id: "service.manager_silent", class: doctor.Service, byHand: true, inject: func(m *machine) {
			m.Root(m.t, fmt.Sprintf("systemctl kill --kill-whom=main -s STOP user@%d.service", m.user.UID))
		}},
		{what: "the program ends at once, and systemd is about to start it again", id: "service.crash_loop", class: doctor.Service, shows: []string{"it said last: panic: the socket is gone"}, byHand: true, inject: func(m *machine) {
			m.run("systemctl --user stop " + m.unit + "; sed -i 's/^RestartSec=.*/RestartSec=29/' " + m.file() + "; systemctl --user daemon-reload")
			m.Write(m.t, m.program(), "#!/bin/sh\necho 'panic: the socket is gone' >&2\nexit 2\n")
			m.Root(m.t, "chmod 755 "+m.program())
			m.run("systemctl --user start --no-block " + m.unit)
			m.until("systemd to wait, and the journal to have what the program said", func() bool {
				out, err := m.try("journalctl --user --no-pager -o cat -n 20 _SYSTEMD_USER_UNIT=" + m.unit)
				return err == nil && strings.Contains(out, "the socket is gone") && m.property("SubState") == "auto-restart"
			})
		}, hand: func(m *machine) { m.Root(m.t, "cp /usr/local/bin/hermes "+m.program()) }},
		{what: "config.yaml was broken and is mended, and nobody has started the unit", id: "service.unit_config", class: doctor.Service, inject: func(m *machine) {
			m.run("systemctl --user stop " + m.unit)
			m.run("rm -rf " + m.home("config-history") + " " + m.home("gateway-starts.json"))
			m.run("cp " + m.home("config.yaml") + " /tmp/config.sound; echo 'agent: [' >> " + m.home("config.yaml") + "; systemctl --user start --no-block " + m.unit)
			m.until("the unit to end", func() bool { return m.property("ActiveState") == "failed" })
			m.run("cp /tmp/config.sound " + m.home("config.yaml"))
		}},
		{what: "the gateway was started by hand, and no unit is installed", id: "service.no_unit", class: doctor.Service, inject: func(m *machine) {
			m.run("systemctl --user disable --now " + m.unit + "; rm -f " + m.file() + "; systemctl --user daemon-reload")
			m.run("nohup setsid hermes -p " + m.name + " gateway run > /tmp/by-hand.log 2>&1 < /dev/null &")
			m.until("it to serve", func() bool { return m.doctor().Gateway == "running" })
		}, later: func(m *machine) {
			m.run(m.hermes("gateway stop"))
			m.run("systemctl --user start " + m.unit)
		}},
		{what: "a hand-written unit is killed at its stop", id: "service.unit_stop_timeout", class: doctor.Service, byHand: true, inject: func(m *machine) {
			m.run("sed -i 's/TimeoutStopSec=20/TimeoutStopSec=1/' " + m.file() + " && systemctl --user daemon-reload")
		}},
	}
}

// TestFaultsInABox breaks what systemd does, in one box.
func TestFaultsInABox(t *testing.T) {
	if why := box.Missing(); why != "" {
		t.Skip(why)
	}
	binary, err := build()
	if err != nil {
		t.Fatal(err)
	}
	b := box.Start(t)
	b.Install(t, binary, "/usr/local/bin/hermes")
	m := &machine{Box: b, t: t, user: b.User(t, "ada")}
	b.Root(t, "loginctl enable-linger ada")
	m.user.AwaitManager(t)
	t.Run("healthy", func(t *testing.T) { m.in(t, "sound").healthy() })
	t.Run("healthy with a drop-in", func(t *testing.T) { m.in(t, "adopted").adopted() })
	t.Run("healthy as a unit of the system", func(t *testing.T) { m.in(t, "ofsystem").ofSystem() })
	t.Run("healthy as a scheduler alone", func(t *testing.T) { m.in(t, "alone").alone() })
	all, seen := boxFaults(), map[string]outcome{}
	for i, f := range all {
		t.Run(f.id+"/"+f.what, func(t *testing.T) {
			name := fmt.Sprintf("case%d", i)
			if f.profile != "" {
				name = f.profile
			}
			seen[f.what] = f.run(m.in(t, name), 8700+i)
		})
	}
	if t.Failed() || len(seen) < len(all) && !*update {
		return
	}
	var rows []fault
	for _, f := range all {
		rows = append(rows, fault{what: f.what, id: f.id, class: f.class})
	}
	document(t, "a machine run by systemd", rows, seen)
}

// in is the machine for one test and one profile.
func (m *machine) in(t *testing.T, name string) *machine {
	one := *m
	one.t, one.name, one.unit, one.fill = t, name, "hermes-gateway-"+name+".service", map[string]string{}
	if name == "default" {
		one.unit = "hermes-gateway.service"
	}
	return &one
}

// run goes through one fault.
func (f boxFault) run(m *machine, port int) outcome {
	m.port = port
	m.make()
	if f.byHand {
		m.Root(m.t, "cp /usr/local/bin/hermes "+m.program())
		m.user.Write(m.t, m.file(), m.unitText())
		m.run("systemctl --user daemon-reload && systemctl --user enable --now " + m.unit)
	} else {
		m.run(m.hermes("gateway install"))
	}
	m.t.Cleanup(m.remove)
	m.awaitWell()
	f.inject(m)
	m.bare = f.logout
	r := m.first(f.id)
	first := r.Findings[0]
	if first.Class != f.class || len(first.Evidence) == 0 {
		m.t.Errorf("the finding is not whole, or of another class: %+v", first)
	}
	told := first.What + "\n" + strings.Join(first.Evidence, "\n")
	for _, part := range f.shows {
		if !strings.Contains(told, part) {
			m.t.Errorf("the finding does not tell %q:\n%s", part, told)
		}
	}
	if f.hand != nil {
		f.hand(m)
	}
	fix := strings.ReplaceAll(first.Fix, "sudo ", "")
	if strings.HasPrefix(first.Fix, "sudo ") {
		m.Root(m.t, fix)
	} else if out, err := m.try("export EDITOR=/opt/editor; " + fix); err != nil {
		m.t.Fatalf("%s: %v\n%s", first.Fix, err, out)
	}
	m.bare = false
	if f.later != nil {
		f.later(m)
	}
	m.awaitWell()
	shown := numbers.ReplaceAllString(first.Fix, "${1}…")
	shown = strings.NewReplacer(m.user.Home, "~", m.name, "liam").Replace(shown)
	return outcome{place: 1, fix: shown, healed: !m.t.Failed()}
}

// hermes is a command for the profile.
func (m *machine) hermes(args string) string { return "hermes -p " + m.name + " " + args }

// program is what the unit of an operator's own starts.
func (m *machine) program() string { return "/usr/local/bin/hermes-" + m.name }

// file is the unit's file.
func (m *machine) file() string { return m.user.Home + "/.config/systemd/user/" + m.unit }

// home is a path in the profile's home.
func (m *machine) home(name string) string {
	if m.name == "default" {
		return m.user.Home + "/.hermes/" + name
	}
	return m.user.Home + "/.hermes/profiles/" + m.name + "/" + name
}

// unitText is a unit that an operator wrote, without a flaw.
func (m *machine) unitText() string {
	return fmt.Sprintf("[Unit]\nDescription=Hermes\nStartLimitIntervalSec=10min\nStartLimitBurst=4\n[Service]\nType=simple\nExecStart=%s --profile %s gateway run\nEnvironment=HERMES_HOME=%s/.hermes\nRestart=always\nRestartSec=1\nTimeoutStopSec=20\n[Install]\nWantedBy=default.target\n", m.program(), m.name, m.user.Home)
}

// make makes the profile.
func (m *machine) make() {
	m.t.Helper()
	if m.name != "default" {
		m.run("hermes profile create " + m.name)
	}
	m.run(fmt.Sprintf("%s && %s && %s", m.hermes("config set model.provider offline"), m.hermes("config set API_SERVER_ENABLED true"), m.hermes(fmt.Sprintf("config set API_SERVER_PORT %d", m.port))))
}

// remove takes the profile's units away again.
func (m *machine) remove() {
	m.bare = false
	m.Root(m.t, "loginctl enable-linger ada")
	m.user.AwaitManager(m.t)
	m.run("systemctl --user disable --now " + m.unit + " hermes-gateway@" + m.name + " 2>/dev/null; rm -rf " + m.file() + " " + m.file() + ".d; systemctl --user daemon-reload; systemctl --user reset-failed; true")
	if m.name != "default" {
		m.run("hermes profile delete -y " + m.name + " || true")
	}
}

// healthy holds that units of every kind give no finding.
func (m *machine) healthy() {
	m.port = 8690
	m.make()
	m.t.Cleanup(m.remove)
	m.run(m.hermes("gateway install"))
	m.awaitWell()
	m.run("systemctl --user disable --now " + m.unit + " && rm " + m.file())
	m.run(m.hermes("gateway install --template"))
	m.awaitWell()
	m.run(m.hermes("gateway restart"))
	m.awaitWell()
	m.bare = true // as after su, with no way to the user's bus in the environment
	m.awaitWell()
	m.bare = false
	m.bySudo()
	m.run("systemctl --user disable --now hermes-gateway@" + m.name + " && rm -f ~/.config/systemd/user/hermes-*@.service && systemctl --user daemon-reload")
}

// adopted holds that a hand-written unit with the drop-in that adds what it
// lacks gives no finding.
func (m *machine) adopted() {
	m.port = 8691
	m.make()
	m.t.Cleanup(m.remove)
	m.Root(m.t, "cp /usr/local/bin/hermes "+m.program())
	m.user.Write(m.t, m.file(), m.unitText())
	m.run("systemctl --user daemon-reload && systemctl --user enable --now " + m.unit)
	m.awaitWell()
	m.run(m.hermes("gateway install --adopt"))
	m.run(m.hermes("gateway restart"))
	m.awaitWell()
}

// ofSystem holds that a unit of the system that runs as the user gives no finding.
func (m *machine) ofSystem() {
	m.port = 8692
	m.make()
	m.t.Cleanup(m.remove)
	m.Root(m.t, "hermes -p "+m.name+" gateway install --system --run-as-user "+m.user.Name)
	m.t.Cleanup(func() {
		m.Root(m.t, "systemctl disable --now "+m.unit+"; rm -f /etc/systemd/system/"+m.unit+"; systemctl daemon-reload")
	})
	m.awaitWell()
}

// alone holds that the unit of a scheduler alone gives no finding.
func (m *machine) alone() {
	m.t.Helper()
	m.run("hermes profile create " + m.name + " && " + m.hermes("config set model.provider offline"))
	m.t.Cleanup(m.remove)
	m.run(m.hermes("gateway install --cron-only"))
	m.t.Cleanup(func() { m.run(m.hermes("gateway uninstall --cron-only")) })
	m.Until(m.t, boxLimit, "all to be well", func(context.Context) error {
		if r := m.doctor(); len(r.Findings) > 0 {
			out, _ := m.try(m.hermes("doctor"))
			return fmt.Errorf("doctor says:\n%s", out)
		}
		return nil
	})
}

// bySudo holds that root, who has no installation, is shown the way to that of
// the user behind sudo, and that this way leads there.
func (m *machine) bySudo() {
	m.t.Helper()
	out, _ := m.Try(m.deadline(), "HOME=/opt/nobody SUDO_USER=ada hermes doctor --json")
	var r doctor.Report
	if err := json.Unmarshal([]byte(out), &r); err != nil || len(r.Findings) == 0 || r.Findings[0].ID != "profile.wrong_user" || r.Findings[0].Fix != "sudo -iu ada hermes doctor" {
		m.t.Errorf("root by sudo is told %v:\n%s", err, out)
	}
}

func (m *machine) deadline() context.Context {
	ctx, cancel := rig.Deadline(boxLimit)
	m.t.Cleanup(cancel)
	return ctx
}

// try runs a command of the user's.
func (m *machine) try(command string) (string, error) {
	if m.bare {
		return m.user.TryBare(m.deadline(), command)
	}
	return m.user.Try(m.deadline(), command)
}

func (m *machine) run(command string) string {
	m.t.Helper()
	out, err := m.try(command)
	if err != nil {
		m.t.Fatalf("%s: %v\n%s", command, err, out)
	}
	return out
}

// property is one of the profile's unit.
func (m *machine) property(name string) string { return m.user.Property(m.t, m.unit, name) }

func (m *machine) until(what string, ok func() bool) {
	m.t.Helper()
	m.Until(m.t, boxLimit, what, func(context.Context) error {
		if !ok() {
			return fmt.Errorf("not seen")
		}
		return nil
	})
}

// doctor asks what is wrong.
func (m *machine) doctor() (r doctor.Report) {
	m.t.Helper()
	out, _ := m.try(m.hermes("doctor --json"))
	if err := json.Unmarshal([]byte(out), &r); err != nil {
		m.t.Fatalf("doctor --json: %v\n%s", err, out)
	}
	return r
}

// first asks until the answer begins with a finding.
func (m *machine) first(id string) (r doctor.Report) {
	m.t.Helper()
	m.Until(m.t, boxLimit, "doctor to say first "+id, func(context.Context) error {
		if r = m.doctor(); len(r.Findings) > 0 && r.Findings[0].ID == id {
			return nil
		}
		out, _ := m.try(m.hermes("doctor"))
		return fmt.Errorf("it says:\n%s", out)
	})
	return r
}

// awaitWell asks until nothing is wrong.
func (m *machine) awaitWell() {
	m.t.Helper()
	m.Until(m.t, boxLimit, "all to be well", func(context.Context) error {
		r := m.doctor()
		if len(r.Findings) == 0 && r.Gateway == "running" {
			return nil
		}
		out, _ := m.try(m.hermes("doctor"))
		return fmt.Errorf("doctor says:\n%s", out)
	})
}
