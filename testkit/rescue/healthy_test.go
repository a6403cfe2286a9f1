package rescue

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
)

// dying is a build of the program that dies where HERMES_FAILPOINT says.
const dying = "/opt/dying"

// managed is one kind of unit that runs a profile.
type managed struct {
	*world
	name, profile string
	systemctl     string // "systemctl --user"
	dropIns       string // folder
}

func (m managed) do(command string) string {
	m.t.Helper()
	if m.system() {
		return m.Root(m.t, command)
	}
	return m.user.Run(m.t, command)
}

func (m managed) system() bool { return !strings.Contains(m.systemctl, "--user") }

func (m managed) at(name string) string {
	return m.user.Home + "/.hermes/profiles/" + m.profile + "/" + name
}

// again lets systemd start the unit as its drop-ins say.
func (m managed) again() {
	m.t.Helper()
	m.do(fmt.Sprintf("%[1]s daemon-reload; %[1]s reset-failed %[2]s; %[1]s restart %[2]s", m.systemctl, m.name))
}

// limited makes what comes next an incident of its own, under a limit of so many
// starts, with a program that dies as soon as it has to reach a Mattermost.
func (m managed) limited(burst int) {
	m.t.Helper()
	m.do("rm -f " + m.at("rescue.json") + " " + m.at("gateway-starts.json"))
	conf := fmt.Sprintf("[Unit]\nStartLimitIntervalSec=10min\nStartLimitBurst=%d\n[Service]\nRestart=on-failure\nRestartSec=100ms\nEnvironment=HERMES_FAILPOINT=part.platform.mattermost:1:fatal\nExecStart=\nExecStart=%s --profile %s gateway run\n", burst, dying, m.profile)
	m.do("mkdir -p " + m.dropIns + " && printf '" + strings.ReplaceAll(conf, "\n", `\n`) + "' >" + m.dropIns + "/95-limit.conf")
	m.again()
	m.servedBy(m.name, dying)
}

// proved waits until what stands on disk has served healthily, by a program that
// is kept.
func (m managed) proved() {
	m.t.Helper()
	m.Until(m.t, limit, "the configuration and the program to have served healthily", func(ctx context.Context) error {
		out, err := m.user.Try(ctx, "cmp "+dying+" "+kept+" && "+good+" -p "+m.profile+" config history --json")
		var all struct {
			Entries []struct {
				HealthyAt string `json:"healthy_at"`
				OnDisk    bool   `json:"on_disk"`
			}
		}
		if err == nil {
			err = json.Unmarshal([]byte(out), &all)
		}
		if err != nil {
			return fmt.Errorf("%s %w", out, err)
		}
		for _, e := range all.Entries {
			if e.HealthyAt != "" && e.OnDisk {
				return nil
			}
		}
		return fmt.Errorf("%s", out)
	})
}

// goesBack lets a changed configuration end every start, under a limit that allows
// one. The rescue gets it another, which serves what served healthily before, and
// says so from what it sees.
func (m managed) goesBack() {
	t := m.t
	t.Helper()
	m.limited(1)
	m.proved()
	env := m.Read(m.at(".env"))
	m.user.Write(t, m.at(".env"), env+"MATTERMOST_URL=http://127.0.0.1:9\nMATTERMOST_TOKEN=a-token-of-the-tests-mattermost\n")
	m.do(m.systemctl + " reset-failed " + m.name + "; " + m.systemctl + " restart " + m.name + " || true")
	m.servedBy(m.name, dying)
	heard := m.heard("went down", "safe mode")
	want(t, heard, "the configuration that served healthily on", "was started 1 times within 10m0s")
	if !m.system() {
		want(t, heard, "brought back", "It serves again (PID "+m.main()+"), on the installed program and the configuration that served healthily on", "in place of the one on disk", "gateway restart goes back to what is installed")
	}
	out, _ := m.user.Try(context.Background(), good+" -p "+m.profile+" gateway status")
	want(t, out, "safe mode: served is the configuration in")
	m.user.Write(t, m.at(".env"), env)
	if !m.system() { // root's systemd goes on by its own restart
		want(t, m.do(good+" -p "+m.profile+" gateway restart"), "✓ Restarted")
		m.servedBy(m.name, dying)
	}
	m.quiet()
}

// isKilled lets kills from outside use up all starts, right after the
// configuration was changed. Nothing speaks against what is installed: that is
// started again, and nobody is told of anything else.
func (m managed) isKilled() {
	t := m.t
	t.Helper()
	m.limited(2)
	m.proved()
	m.user.Run(t, "echo '# another' >>"+m.at("config.yaml"))
	m.again()
	for range 2 {
		m.servedBy(m.name, dying)
		m.do("kill -KILL " + m.main())
	}
	said := m.told("went down", "was started 2 times within 10m0s and ended each time (last signal SIGKILL)", "ended from outside")
	m.servedBy(m.name, dying)
	if m.system() {
		want(t, said, "is asked to start it again, on what is installed, against which nothing speaks")
	} else {
		want(t, said, "It serves again (PID "+m.main()+"), on the installed program and the configuration on disk.")
	}
	if strings.Contains(said, "healthily") || strings.Contains(said, "goes back") {
		t.Errorf("it says more than happened:\n%s", said)
	}
	if out, err := m.user.Try(context.Background(), good+" -p "+m.profile+" gateway status"); strings.Contains(out, "safe mode") {
		t.Errorf("kills from outside made it careful: %v\n%s", err, out)
	}
	m.quiet()
}

// main is the unit's main process.
func (m managed) main() string {
	m.t.Helper()
	return strings.TrimSpace(m.do(m.systemctl + " show -p MainPID --value " + m.name))
}

// heard waits until messages with all of these parts came, in any order, and gives
// their texts.
func (w *world) heard(parts ...string) string {
	w.t.Helper()
	text := ""
	w.Until(w.t, limit, "messages in the home channel", func(context.Context) error {
		text = ""
		for _, m := range w.tg.Replies(w.ann.ID)[w.said:] {
			text += m.Text + "\n"
		}
		for _, p := range parts {
			if !strings.Contains(text, p) {
				return fmt.Errorf("%q is missing in:\n%s", p, text)
			}
		}
		return nil
	})
	w.said = len(w.tg.Replies(w.ann.ID))
	return text
}

// Whatever kind of unit has ended, its rescue goes back to the configuration that
// served healthily where the one on disk ended it, and changes nothing where it
// was killed.
func testHealthy(t *testing.T, w *world) {
	u := w.user
	units := u.Home + "/.config/systemd/user/"
	handWritten := "[Service]\nType=simple\nExecStart=" + program + " --profile %i gateway run\nRestart=on-failure\nRestartSec=100ms\n" +
		"Environment=HERMES_HOME=%h/.hermes\n[Install]\nWantedBy=default.target\n"
	liam := managed{world: w, profile: "liam", systemctl: "systemctl --user"}
	u.Run(t, "hermes -p liam gateway uninstall")
	for _, how := range []string{"generated", "template", "adopted"} {
		ok := t.Run(how, func(t *testing.T) {
			m := liam
			m.world, m.name = w.in(t), "hermes-gateway@liam.service"
			switch how {
			case "generated":
				m.name = unit
				u.Run(t, "hermes -p liam gateway install --no-start-now")
			case "template":
				u.Run(t, "hermes -p liam gateway install --template --no-start-now")
			case "adopted":
				u.Write(t, units+"hermes-gateway@.service", handWritten)
				u.Run(t, "systemctl --user daemon-reload && systemctl --user enable "+m.name+" && hermes -p liam gateway install --adopt")
			}
			m.dropIns = units + m.name + ".d"
			m.goesBack()
			m.isKilled()
			u.Run(t, "rm -r "+m.dropIns+"; hermes -p liam gateway uninstall; rm -rf "+units+"hermes-gateway@.service*; systemctl --user daemon-reload; systemctl --user reset-failed")
		})
		if !ok {
			return
		}
	}
	t.Run("system", func(t *testing.T) {
		m := managed{world: w.in(t), profile: "liam", systemctl: "systemctl", name: unit, dropIns: "/etc/systemd/system/" + unit + ".d"}
		w.Root(t, "hermes -p liam gateway install --system --run-as-user ada --no-start-now")
		m.goesBack()
		m.isKilled()
		w.Root(t, "rm -r "+m.dropIns+"; hermes -p liam gateway uninstall --system")
	})
	w.in(t)
	u.Run(t, "rm -f "+w.file("rescue.json")+" "+w.file("gateway-starts.json")+" "+w.file("binaries.json")+" && hermes -p liam gateway install")
	w.serves(program)
}
