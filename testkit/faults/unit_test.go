package faults

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"hermes/internal/doctor"
)

// unitFaults are in files of units, as operators write and edit them. What a
// manager makes of them is looked at in a box.
func unitFaults() []fault {
	edit := func(what, id, from, to string) fault {
		return fault{what: what, id: id, class: doctor.Service, inject: func(w *world) {
			text := w.unitText()
			if !strings.Contains(text, from) {
				w.t.Fatalf("the unit holds no %q", from)
			}
			w.unit("hermes-gateway.service", strings.Replace(text, from, to, 1))
		}}
	}
	return []fault{
		edit("the unit's program was moved", "service.exec", "/bin/hermes", "/bin/hermes-old"),
		{what: "the unit's program may not be executed", id: "service.exec", class: doctor.Service, inject: func(w *world) {
			path := filepath.Join(w.dir, "bin", "wrapper")
			w.must(os.WriteFile(path, []byte("#!/bin/sh\nexec hermes \"$@\"\n"), 0o600))
			w.unit("hermes-gateway.service", strings.Replace(w.unitText(), filepath.Join(w.dir, "bin", "hermes"), path, 1))
		}},
		{what: "the template was saved without its @", id: "service.missing_at", class: doctor.Service, inject: func(w *world) {
			w.unit("hermes-gateway.service", strings.Replace(w.unitText(), "--profile default", "--profile %i", 1))
		}},
		{what: "a unit and an instance of the template serve one profile", id: "service.two_units", class: doctor.Service, shape: shape{profile: "liam"}, inject: func(w *world) {
			w.unit("hermes-gateway-liam.service", w.unitText())
			w.unit("hermes-gateway@.service", strings.Replace(w.unitText(), "--profile liam", "--profile %i", 1))
		}},
		{what: "the unit serves another profile than its name says", id: "profile.unit_home", class: doctor.Scope, shape: shape{profile: "liam"}, inject: func(w *world) {
			w.unit("hermes-gateway-liam.service", strings.Replace(w.unitText(), "--profile liam", "--profile default", 1))
		}},
		{what: "the unit's HERMES_HOME is another folder", id: "profile.unit_home", class: doctor.Scope, inject: func(w *world) {
			w.unit("hermes-gateway.service", strings.Replace(w.unitText(), "HERMES_HOME="+w.home.Dir, "HERMES_HOME="+w.dir+"/old-home", 1))
		}},
		{what: "the unit loads the .env of another profile", id: "profile.unit_env_file", class: doctor.Scope, shape: shape{profile: "liam"}, inject: func(w *world) {
			w.unit("hermes-gateway-liam.service", strings.Replace(w.unitText(), "Restart=", "EnvironmentFile=-"+w.home.Dir+"/.env\nRestart=", 1))
		}},
		edit("RestartSec= leaves the gateway down for a minute", "service.unit_restart_slow", "RestartSec=5", "RestartSec=60"),
		edit("RestartSec= is not set", "service.unit_restart_fast", "RestartSec=5\n", ""),
		edit("RestartSteps= makes restarts slower and slower", "service.unit_restart_steps", "RestartSec=5\n", "RestartSec=5\nRestartSteps=20\nRestartMaxDelaySec=300\n"),
		edit("Restart= is not set", "service.unit_no_restart", "Restart=always\nRestartSec=5\n", ""),
		edit("the unit has no start limit", "service.unit_no_limit", "StartLimitIntervalSec=10min\nStartLimitBurst=5\n", ""),
		edit("the start limit allows one start", "service.unit_limit_one", "StartLimitBurst=5", "StartLimitBurst=1"),
		edit("the start limit stands in [Service]", "service.unit_limit_place", "[Service]\n", "[Service]\nStartLimitInterval=60\nStartLimitBurst=3\n"),
		edit("the unit waits for network-online.target, which users' managers do not have", "service.unit_online_target", "[Service]\n", "After=network-online.target\n[Service]\n"),
		edit("Restart= stands in [Unit]", "service.unit_misplaced_key", "[Service]\n", "Restart=always\n[Service]\n"),
		needing("systemd-analyze", edit("a key of the unit is misspelt", "service.unit_keys", "TimeoutStopSec=20", "TimeoutStopSec=20\nRestratSec=5")),
		needing("systemd-analyze", edit("a value of the unit cannot be read", "service.unit_keys", "TimeoutStopSec=20", "TimeoutStopSec=20\nWatchdogSec=soon")),
		edit("the unit kills the gateway before it has drained", "service.unit_stop_timeout", "TimeoutStopSec=20", "TimeoutStopSec=2"),
		{what: "the unit allows a stop less time than the drain that is configured", id: "service.unit_stop_timeout", class: doctor.Service, inject: func(w *world) {
			w.add("config.yaml", "agent:\n  restart_drain_timeout: 180\n")
			w.unit("hermes-gateway.service", w.unitText())
		}},
		{what: "a drop-in switches Restart= off", id: "service.unit_no_restart", class: doctor.Service, inject: func(w *world) {
			w.unit("hermes-gateway.service", w.unitText())
			w.dropIn("hermes-gateway.service", "20-debug.conf", "[Service]\nRestart=no\n")
		}},
		{what: "a drop-in makes restarts slow", id: "service.unit_restart_slow", class: doctor.Service, inject: func(w *world) {
			w.unit("hermes-gateway.service", w.unitText())
			w.dropIn("hermes-gateway.service", "20-slow.conf", "[Service]\nRestartSec=5min\n")
		}},
		{what: "the unit of the older system is still there", id: "service.legacy_unit", class: doctor.Service, inject: func(w *world) {
			w.must(os.MkdirAll(w.units(), 0o755))
			w.must(os.WriteFile(filepath.Join(w.units(), "hermes.service"), []byte("[Service]\nExecStart=/usr/bin/python3 -m hermes_cli.main gateway run\n"), 0o644))
		}},
		{what: "the unit of a scheduler names a program that is gone", id: "service.exec", class: doctor.Service, inject: func(w *world) {
			w.unit("hermes-cron.service", strings.NewReplacer("gateway run", "cron run", "/bin/hermes", "/bin/gone").Replace(w.unitText()))
		}},
	}
}

// units is the folder of the user's units.
func (w *world) units() string { return filepath.Join(w.dir, ".config/systemd/user") }

// unitText is a unit that an operator wrote, without a flaw.
func (w *world) unitText() string {
	profile := w.shape.profile
	if profile == "" {
		profile = "default"
	}
	return fmt.Sprintf(`[Unit]
Description=Hermes
StartLimitIntervalSec=10min
StartLimitBurst=5
[Service]
Type=simple
ExecStart=%s/bin/hermes --profile %s gateway run
Environment="HERMES_HOME=%s"
Restart=always
RestartSec=5
TimeoutStopSec=20
[Install]
WantedBy=default.target
`, w.dir, profile, w.home.Dir)
}

// unit writes a unit file and lets the default target want it; of a template,
// the instance for the profile.
func (w *world) unit(name, text string) {
	w.t.Helper()
	wants := filepath.Join(w.units(), "default.target.wants")
	w.must(os.MkdirAll(wants, 0o755))
	w.must(os.WriteFile(filepath.Join(w.units(), name), []byte(text), 0o644))
	link := strings.Replace(name, "@.", "@"+w.shape.profile+".", 1)
	w.must(os.Symlink(filepath.Join(w.units(), name), filepath.Join(wants, link)))
}

// dropIn writes a drop-in.
func (w *world) dropIn(unit, name, text string) {
	w.t.Helper()
	dir := filepath.Join(w.units(), unit+".d")
	w.must(os.MkdirAll(dir, 0o755))
	w.must(os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644))
}

// needing is a fault for which a program must be there.
func needing(program string, f fault) fault {
	f.needs = program
	return f
}
