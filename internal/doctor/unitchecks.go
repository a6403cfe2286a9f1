package doctor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"hermes/internal/domain"
	"hermes/internal/plain"
	"hermes/internal/service"
)

// unitChecks are about how the gateway is started: units on disk, and what the
// manager knows of them.
func unitChecks() []check {
	return []check{checkProgram, checkMissingAt, checkTwoUnits, checkUnitScope, checkUnitKeys, checkFlaws, checkStopTime, checkLegacy, checkManager, checkUnitState, checkLinger, checkEnabled, checkReload, checkNoUnit}
}

// systemctl is a command for the manager of a unit.
func systemctl(system bool, args string) string {
	if system {
		return "sudo systemctl " + args
	}
	return "systemctl --user " + args
}

// reload brings changed unit files in force, where there is a manager.
func (c *Case) reload(f *unitFile, command string, serve bool) string {
	if c.Units.managed() {
		command += " && " + systemctl(f.System, "daemon-reload")
		if serve && c.Gateway.Status == nil && f.Kind == service.Gateway {
			command += " && " + c.hermes("gateway start")
		}
	}
	return command
}

// checkProgram finds units whose program is not there, or cannot be run.
func checkProgram(c *Case) []Finding {
	var out []Finding
	for i := range c.Units.Files {
		f := &c.Units.Files[i]
		path := f.Exec[0]
		st, err := os.Stat(path)
		var what string
		switch {
		case !filepath.IsAbs(path):
			continue // systemd looks for it in its own path
		case errors.Is(err, fs.ErrNotExist):
			what = "does not exist"
		case err != nil:
			what = "cannot be looked at: " + err.Error()
		case st.IsDir():
			what = "is a folder"
		case st.Mode()&0o111 == 0:
			what = "may not be executed"
		default:
			continue
		}
		line := 0
		for _, e := range service.Parse(f.Text) {
			if e.Key == "ExecStart" {
				line = e.Line
			}
		}
		evidence := []string{fmt.Sprintf("%s line %d: ExecStart=%s", f.Path, line, strings.Join(f.Exec, " ")), "the right path is " + c.Binary}
		fix := fmt.Sprintf("sed -i 's|^ExecStart=[^ ]*|ExecStart=%s|' %s", c.Binary, f.Path)
		if service.OriginOf(f.Text) == service.Generated && c.Units.managed() {
			fix = c.hermes("gateway install")
		} else {
			fix = c.reload(f, fix, true)
		}
		if what == "may not be executed" {
			fix = c.reload(f, "chmod +x "+path, true)
		}
		out = append(out, Finding{ID: "service.exec", Class: Service, Severity: Error, depth: ofUnit, about: f.Name,
			explains: []string{"service.start_limit", "service.unit_failed", "service.not_running", "service.crashed", "service.unit_keys"},
			What:     fmt.Sprintf("%s starts a program that %s: %s", f.Name, what, path), Evidence: append(evidence, c.journal(f.Name, "EXEC")...),
			Means: "systemd cannot start it (status 203/EXEC), now or at the next boot.", Fix: fix})
	}
	return out
}

// checkMissingAt finds a template that was saved without its @.
func checkMissingAt(c *Case) []Finding {
	var out []Finding
	for i := range c.Units.Files {
		f := &c.Units.Files[i]
		if f.Instance != "" || !strings.Contains(f.Text, "%i") {
			continue
		}
		right := strings.TrimSuffix(f.Path, ".service") + "@.service"
		fix := fmt.Sprintf("mv %s %s", f.Path, right)
		if c.Units.managed() {
			fix = fmt.Sprintf("%s && %s && %s && %s", systemctl(f.System, "disable --now "+f.Name), fix, systemctl(f.System, "daemon-reload"),
				systemctl(f.System, fmt.Sprintf("enable --now %s@%s", strings.TrimSuffix(f.Name, ".service"), c.Profile.Name)))
		}
		out = append(out, Finding{ID: "service.missing_at", Class: Service, Severity: Error, depth: ofUnit, about: f.Name, explains: []string{"service.unit_*", "service.enabled", "service.two_units", "profile.unit_*"},
			What:     f.Name + " lacks the @ in its name",
			Evidence: []string{fmt.Sprintf("%s uses %%i, which is empty in a unit that is no template", f.Path)},
			Means:    "It serves the default profile, whichever it was written for.", Fix: fix})
	}
	return out
}

// checkTwoUnits finds two units that serve one profile.
func checkTwoUnits(c *Case) []Finding {
	var gates []*unitFile
	for i := range c.Units.Files {
		if f := &c.Units.Files[i]; f.Kind == service.Gateway && f.Enabled {
			gates = append(gates, f)
		}
	}
	if len(gates) < 2 {
		return nil
	}
	keep, drop := gates[0], gates[1]
	if u := c.Units.gatewayLive(); u != nil && u.Name == drop.Name {
		keep, drop = drop, keep
	}
	fix := systemctl(drop.System, "disable --now "+drop.Name)
	if !c.Units.managed() {
		fix = "rm " + c.linkOf(drop)
	}
	return []Finding{{ID: "service.two_units", Class: Service, Severity: Error, depth: ofUnit, explains: []string{"service.unit_failed", "service.start_limit"},
		What:     fmt.Sprintf("two units serve the profile %s: %s and %s", c.Profile.Name, keep.Name, drop.Name),
		Evidence: []string{keep.Path, drop.Path},
		Means:    "The second one cannot take the profile and is started again and again, until its limit.", Fix: fix}}
}

// linkOf is the link by which a target wants a unit.
func (c *Case) linkOf(f *unitFile) string {
	links, err := filepath.Glob(filepath.Join(c.host().Dir(f.System), "*.wants", f.Name))
	if err != nil || len(links) == 0 {
		return f.Path
	}
	return links[0]
}

// checkUnitScope finds units whose home or environment is another profile's.
func checkUnitScope(c *Case) []Finding {
	var out []Finding
	h := c.host()
	for i := range c.Units.Files {
		f := &c.Units.Files[i]
		if root, name := f.home(h); (root != c.Root || name != c.Profile.Name) && !strings.Contains(f.Text, "%i") {
			out = append(out, Finding{ID: "profile.unit_home", Class: Scope, Severity: Error, depth: ofUnit, about: f.Name, explains: []string{"service.not_running", "service.crashed", "service.unit_failed"},
				What:     fmt.Sprintf("%s serves the profile %s of %s, not %s of %s", f.Name, name, root, c.Profile.Name, c.Root),
				Evidence: []string{f.Path + ": ExecStart=" + strings.Join(f.Exec, " "), "HERMES_HOME=" + f.environment(h)["HERMES_HOME"]},
				Means:    "What is configured here is not what that unit runs.", Fix: c.reload(f, c.rehome(f), true)})
		}
		out = append(out, c.foreignEnvironment(f, h)...)
	}
	return out
}

// rehome is the command that makes a unit serve this profile.
func (c *Case) rehome(f *unitFile) string {
	return fmt.Sprintf(`sed -i -E 's|HERMES_HOME=[^"]*|HERMES_HOME=%s|; s/(--profile|-p) +[^ ]+/--profile %s/' %s`, c.Root, c.Profile.Name, f.Path)
}

// foreignEnvironment finds an EnvironmentFile= of another profile.
func (c *Case) foreignEnvironment(f *unitFile, h service.Host) []Finding {
	for _, e := range f.Entries {
		if e.Section != "Service" || e.Key != "EnvironmentFile" {
			continue
		}
		path := strings.TrimPrefix(f.expand(e.Value, h), "-")
		if path == c.Profile.EnvFile() || filepath.Base(path) != ".env" {
			continue
		}
		at := filepath.Dir(path)
		known := slices.ContainsFunc(c.Neighbours, func(n neighbour) bool { return n.Home == at })
		if !known {
			continue
		}
		return []Finding{{ID: "profile.unit_env_file", Class: Scope, Severity: Warning, depth: ofUnit, about: f.Name,
			What:     fmt.Sprintf("%s loads the .env of another profile", f.Name),
			Evidence: []string{f.Path + ": EnvironmentFile=" + e.Value},
			Means:    "What that profile sets and this one does not, tokens too, holds here.",
			Fix:      c.reload(f, fmt.Sprintf("sed -i 's|^EnvironmentFile=.*|EnvironmentFile=-%s|' %s", c.Profile.EnvFile(), f.Path), false)}}
	}
	return nil
}

// checkUnitKeys tells what systemd itself cannot read in a unit.
func checkUnitKeys(c *Case) []Finding {
	var out []Finding
	for i := range c.Units.Files {
		f := &c.Units.Files[i]
		if len(f.Complain) == 0 {
			continue
		}
		out = append(out, Finding{ID: "service.unit_keys", Class: Service, Severity: Warning, depth: ofUnit, about: f.Name, What: f.Name + " has lines that systemd passes over",
			Evidence: f.Complain, Means: "What they were to set is not set.", Fix: c.reload(f, c.dropLine(f), false)})
	}
	return out
}

// dropLine is the command that takes the first line out that systemd complains
// of.
func (c *Case) dropLine(f *unitFile) string {
	path, rest, _ := strings.Cut(f.Complain[0], ":")
	line, _, _ := strings.Cut(rest, ":")
	return fmt.Sprintf("sed -i '%sd' %s", line, path)
}

// sameLine tells that systemd complains of the very line of a flaw: of a key in
// the wrong section, or one that only later versions know.
func sameLine(f *unitFile, flaw service.Flaw) []string {
	if flaw.Line > 0 && slices.ContainsFunc(f.Complain, func(s string) bool { return strings.Contains(s, fmt.Sprintf(":%d:", flaw.Line)) }) {
		return []string{"service.unit_keys:" + f.Name}
	}
	return nil
}

// minor are flaws that cost nothing.
var minor = []service.FlawCode{service.FlawLimitPlace, service.FlawOnlineTarget}

// checkFlaws reads the units as a person would who knows their traps.
func checkFlaws(c *Case) []Finding {
	var out []Finding
	for i := range c.Units.Files {
		f := &c.Units.Files[i]
		base := filepath.Base(f.Path)
		for _, flaw := range slices.Concat(service.Lint(base, f.Text, f.System), dropInFlaws(f)) {
			if flaw.Code == service.FlawNoAt {
				continue
			}
			// What is missing counts with the drop-ins; what stands somewhere, where it stands.
			if flaw.Line == 0 && !slices.ContainsFunc(service.Lint(base, f.Merged, f.System), func(m service.Flaw) bool { return m.Code == flaw.Code }) {
				continue
			}
			one := Finding{ID: "service.unit_" + string(flaw.Code), Class: Service, Severity: Warning, depth: ofUnit, about: f.Name, What: flaw.String(), explains: sameLine(f, flaw),
				Evidence: []string{f.Path}, Means: "It does not do what it seems to.", Fix: c.reload(f, c.mendFlaw(f, flaw), false)}
			if flaw.Code == service.FlawOneStart {
				one.Means = "It stays down after its first crash until somebody, or a rescue, starts it."
			}
			if slices.Contains(minor, flaw.Code) {
				one.Severity, one.Means = Advice, "It does no harm."
			}
			if !slices.ContainsFunc(out, func(o Finding) bool { return o.ID == one.ID && o.about == one.about }) {
				out = append(out, one)
			}
		}
	}
	return out
}

// dropInFlaws are what the drop-ins themselves, and all files together, get
// wrong.
func dropInFlaws(f *unitFile) []service.Flaw {
	var out []service.Flaw
	for _, d := range f.DropIns {
		text, err := plain.Read(d)
		if err != nil {
			continue
		}
		for _, flaw := range service.Lint(filepath.Base(d), string(text), f.System) {
			if flaw.Line > 0 {
				out = append(out, flaw)
			}
		}
	}
	for _, flaw := range service.Lint(filepath.Base(f.Path), f.Merged, f.System) {
		if flaw.Line == 0 {
			out = append(out, flaw)
		}
	}
	return out
}

// mendFlaw is the command that mends a flaw where it stands.
func (c *Case) mendFlaw(f *unitFile, flaw service.Flaw) string {
	file := f.Path
	for _, d := range f.DropIns {
		if filepath.Base(d) == flaw.File {
			file = d
		}
	}
	inService := func(key, value string) string {
		if f.value("Service", key) != "" {
			last := f.Path
			for _, d := range f.DropIns {
				if text, err := plain.Read(d); err == nil && service.Value(service.Parse(string(text)), "Service", key) != "" {
					last = d
				}
			}
			return fmt.Sprintf("sed -i 's/^%[1]s=.*/%[1]s=%[2]s/' %[3]s", key, value, last)
		}
		return fmt.Sprintf(`sed -i '/^\[Service\]/a %s=%s' %s`, key, value, f.Path)
	}
	switch flaw.Code {
	case service.FlawOneStart:
		last := f.Path
		for _, d := range f.DropIns {
			if text, err := plain.Read(d); err == nil && strings.Contains(string(text), "StartLimitBurst=") {
				last = d
			}
		}
		return "sed -i 's/^StartLimitBurst=.*/StartLimitBurst=5/' " + last
	case service.FlawSlowRestart, service.FlawFastRestart:
		return inService("RestartSec", "1s")
	case service.FlawNoRestart:
		if f.value("Service", "RestartSec") == "" {
			return inService("Restart", `always\nRestartSec=1s`)
		}
		return inService("Restart", "always")
	case service.FlawSteps:
		return fmt.Sprintf("sed -i -e '/^RestartSteps=/d' -e '/^RestartMaxDelaySec=/d' %s", file)
	case service.FlawNoLimit:
		if !strings.Contains(f.Text, "[Unit]") {
			return fmt.Sprintf(`sed -i '1i [Unit]\nStartLimitIntervalSec=10min\nStartLimitBurst=5' %s`, f.Path)
		}
		return fmt.Sprintf(`sed -i '/^\[Unit\]/a StartLimitIntervalSec=10min\nStartLimitBurst=5' %s`, f.Path)
	case service.FlawLimitPlace:
		return fmt.Sprintf(`sed -i -e '/^StartLimit/d' -e '/^\[Unit\]/a StartLimitIntervalSec=10min\nStartLimitBurst=5' %s`, file)
	case service.FlawOnlineTarget:
		return fmt.Sprintf("sed -i '/network-online.target/d' %s", file)
	}
	return fmt.Sprintf("sed -i '%dd' %s", flaw.Line, file) // the key stands where it is ignored
}

// checkStopTime finds a unit that kills the gateway before it has drained.
func checkStopTime(c *Case) []Finding {
	var out []Finding
	for i := range c.Units.Files {
		f := &c.Units.Files[i]
		text := f.value("Service", "TimeoutStopSec")
		if f.Kind != service.Gateway || text == "" || text == "infinity" {
			continue
		}
		need, why := leastStop, "what it needs to send what was said"
		if c.Config != nil && c.Config.Agent.DrainTimeout+stopMargin > need {
			need, why = c.Config.Agent.DrainTimeout+stopMargin, "agent.restart_drain_timeout and what follows it"
		}
		limit := service.Span(text)
		if limit >= need {
			continue
		}
		value := fmt.Sprintf("%ds", int(max(need, time.Minute).Seconds()))
		fix := fmt.Sprintf("sed -i 's/^TimeoutStopSec=.*/TimeoutStopSec=%s/' %s", value, strings.Join(append([]string{f.Path}, f.DropIns...), " "))
		out = append(out, Finding{ID: "service.unit_stop_timeout", Class: Service, Severity: Warning, depth: ofUnit, about: f.Name,
			What:     fmt.Sprintf("%s leaves %s for a stop, and the gateway may take %s", f.Name, limit, need),
			Evidence: []string{fmt.Sprintf("%s: TimeoutStopSec=%s", f.Path, text), fmt.Sprintf("%s: %s", need, why)},
			Means:    "What is under way then is cut, and goes on at the next start.", Fix: c.reload(f, fix, false)})
	}
	return out
}

// stopMargin is what a stop takes besides the drain; see service.StopDrain.
const stopMargin = 5 * time.Second

// leastStop is what a stop needs: the margin that the drain leaves, and time to
// send what was said.
const leastStop = 10 * time.Second

// checkLegacy finds units of the older system.
func checkLegacy(c *Case) []Finding {
	if len(c.Units.Legacy) == 0 {
		return nil
	}
	path := c.Units.Legacy[0]
	system := strings.HasPrefix(path, "/etc/")
	fix := "mv " + path + " " + path + ".old"
	if c.Units.Booted && (c.Units.managed() || system) {
		fix = systemctl(system, "disable --now hermes.service") + " && " + fix + " && " + systemctl(system, "daemon-reload")
	}
	return []Finding{{ID: "service.legacy_unit", Class: Service, Severity: Warning, depth: ofUnit, What: "a unit of the older system is still there: " + path,
		Evidence: []string{path}, Means: "It may start the other program on this home at the next boot.", Fix: fix}}
}

// checkManager says that the user's manager cannot be asked although units are
// there for it.
func checkManager(c *Case) []Finding {
	if !c.Units.Booted || c.Units.Manager == nil || !slices.ContainsFunc(c.Units.Files, func(f unitFile) bool { return !f.System }) {
		return nil
	}
	f := Finding{ID: "service.user_bus", Class: Service, Severity: Error, depth: ofUnit, explains: []string{"service.not_running", "service.crashed", "service.linger", "service.stopped_with_session"},
		What: "the user's systemd cannot be reached", Evidence: []string{domain.MessageOf(c.Units.Manager)},
		Means: "The gateway's unit runs only while that manager does.", Fix: "sudo loginctl enable-linger " + c.Units.Account.Name}
	if c.Units.Silent {
		f.ID, f.Severity, f.What, f.Means = "service.manager_silent", Warning, "the user's systemd does not answer", "Whether the units are well is not known, and it would not start them again."
		f.Fix = fmt.Sprintf("sudo systemctl restart user@%d.service", c.Units.Account.UID)
		if pid := c.Units.ManagerPID; processState(pid) == "T" {
			f.Evidence = append(f.Evidence, fmt.Sprintf("its process, PID %d, is suspended", pid))
			f.Fix = fmt.Sprintf("sudo kill -CONT %d", pid)
		}
	}
	return []Finding{f}
}

// checkUnitState says what the manager knows of a unit that does not run.
func checkUnitState(c *Case) []Finding {
	u := c.Units.gatewayLive()
	if u == nil {
		return nil
	}
	f := Finding{Class: Service, Severity: Error, depth: ofUnit, about: u.Name, explains: []string{"service.not_running", "service.crashed"},
		Evidence: []string{fmt.Sprintf("systemctl: %s, %s, result %s, last status %d, %d restarts", u.Active, u.Sub, u.Result, u.ExitStatus, u.Restarts)}}
	if c.Gateway.Exited && c.Gateway.Exit.Code != 0 {
		f.Evidence = append(f.Evidence, "the last exit: "+c.Gateway.Exit.String())
	}
	f.Evidence = append(f.Evidence, c.lastWords(u.Name)...)
	if len(c.Units.Words[u.Name]) == 0 {
		f.Evidence = append(f.Evidence, c.journal(u.Name, "")...)
	}
	switch {
	case u.Load == "masked":
		f.ID, f.What, f.Means = "service.masked", u.Name+" is masked", "systemd refuses to start it, whoever asks."
		f.Fix = service.Unmask(*u) + " && " + c.hermes("gateway start")
	case u.Load == "bad-setting" || u.Load == "error":
		f.ID, f.What, f.Means = "service.bad_unit", "systemd refuses "+u.Name+" as it is written", "It cannot be started."
		f.Fix = c.hermes("gateway install --force")
		if n := len(u.DropIns); n > 0 {
			last := u.DropIns[n-1]
			f.Evidence = append(f.Evidence, "the last drop-in: "+last)
			f.Fix = fmt.Sprintf("mv %[1]s %[1]s.off && %s && %s", last, systemctl(u.System, "daemon-reload"), c.hermes("gateway start"))
		}
	case u.Active != "failed" && u.Sub != "auto-restart":
		return nil
	case u.ExitStatus == 203:
		f.ID, f.What, f.Means = "service.exec", u.Name+" names a program that cannot be run", "systemd cannot start it (status 203/EXEC)."
		f.Fix = c.hermes("gateway install --force")
	case u.Active == "failed" && u.ExitStatus == service.ExitConfig:
		f.ID, f.What, f.Means = "service.unit_config", u.Name+" ended because its configuration is unusable (status 78)", "Starting it again cannot help before that is mended."
		f.Fix = c.hermes("config check") + " && " + c.hermes("gateway start")
	case service.LimitHit(*u):
		f.ID, f.What, f.Means = "service.start_limit", fmt.Sprintf("%s ended %d times within %s, so systemd gave it up", u.Name, u.LimitBurst, u.LimitSpan), "It stays down until somebody starts it."
		f.Fix = systemctl(u.System, "reset-failed "+u.Name) + " && " + c.hermes("gateway start")
	case u.Sub == "auto-restart":
		f.ID, f.What, f.Means = "service.crash_loop", u.Name+" ends again and again", "systemd starts it until its limit is reached."
		f.Fix = c.hermes("gateway start")
	default:
		f.ID, f.What, f.Means = "service.unit_failed", service.Explain(*u), "It stays down until somebody starts it."
		f.Fix = c.hermes("gateway start")
	}
	return []Finding{f}
}

// checkLinger says that the gateway ends with the login session.
func checkLinger(c *Case) []Finding {
	user := slices.ContainsFunc(c.Units.Files, func(f unitFile) bool { return !f.System && f.Enabled })
	if !c.Units.Booted || c.Units.Lingers || !user {
		return nil
	}
	account := c.Units.Account.Name
	return []Finding{{ID: "service.linger", Class: Service, Severity: Warning, depth: ofUnit,
		What: "lingering is off for " + account, Evidence: []string{"/var/lib/systemd/linger/" + account + " is missing"},
		Means: "The gateway ends with the last logout, and does not start at boot.", Fix: "sudo loginctl enable-linger " + account,
		repair: func(ctx context.Context) error { return service.EnableLinger(ctx, account) }}}
}

// checkEnabled says that a unit does not start at boot.
func checkEnabled(c *Case) []Finding {
	u := c.Units.gatewayLive()
	if u == nil || u.Load != "loaded" || strings.HasPrefix(u.Enabled, "enabled") || u.File == "" || strings.HasPrefix(u.File, "/run/") {
		return nil
	}
	name, m := u.Name, c.Units.Live[0].Manager
	return []Finding{{ID: "service.not_enabled", Class: Service, Severity: Warning, depth: ofUnit, about: name, What: name + " is not enabled",
		Evidence: []string{"systemctl is-enabled: " + u.Enabled}, Means: "It does not start at boot.", Fix: systemctl(u.System, "enable "+name),
		repair: func(ctx context.Context) error { return m.Enable(ctx, name) }}}
}

// checkReload says that systemd has not read the files as they are now.
func checkReload(c *Case) []Finding {
	u := c.Units.gatewayLive()
	if u == nil || !u.NeedsReload {
		return nil
	}
	m := c.Units.Live[0].Manager
	return []Finding{{ID: "service.needs_reload", Class: Service, Severity: Warning, depth: ofUnit, about: u.Name, What: "unit files changed since systemd read them",
		Evidence: append([]string{u.File}, u.DropIns...), Means: "What was changed is not in force.", Fix: systemctl(u.System, "daemon-reload"), repair: m.Reload}}
}

// checkNoUnit says that nothing starts a gateway that runs by hand.
func checkNoUnit(c *Case) []Finding {
	if !c.Units.managed() || len(c.Units.Files) > 0 || len(c.Units.Live) > 0 || c.Gateway.Status == nil || c.Gateway.Status.Mode.Supervisor != "none" {
		return nil
	}
	return []Finding{{ID: "service.no_unit", Class: Service, Severity: Advice, depth: ofUnit, What: "the gateway was started by hand, and no unit is installed",
		Evidence: []string{"status: " + c.Gateway.Status.Mode.Explain}, Means: "Nothing starts it again when it ends, or after a reboot.", Fix: c.hermes("gateway install")}}
}
