package doctor

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"hermes/internal/control"
	"hermes/internal/cron"
	"hermes/internal/delivery"
	"hermes/internal/domain"
	"hermes/internal/gateway"
	"hermes/internal/health"
	"hermes/internal/home"
	"hermes/internal/ledger"
	"hermes/internal/ledger/sqlite"
	"hermes/internal/logging"
	"hermes/internal/starts"
	"hermes/internal/succession"
	"hermes/internal/versions"
)

type partHealth = health.Part

// partFacts is the health of a part of the running gateway.
type partFacts struct {
	Known bool
	partHealth
}

// bad tells whether the part says that it does not work, or not wholly.
func (p partFacts) bad() bool {
	return p.Known && (p.State == health.Down || p.State == health.Degraded)
}

// youth is how long a process may take to begin to answer.
const youth = 30 * time.Second

// age is how long a process has lived, by field 22 of /proc/PID/stat and the
// machine's uptime; youth where that is not known.
func age(r succession.Record) time.Duration {
	up := starts.Uptime()
	if up == 0 || r.StartTime == 0 {
		return youth
	}
	const tick = time.Second / 100 // USER_HZ
	return up - time.Duration(r.StartTime)*tick
}

// statusLimit bounds the wait for a gateway that does not answer.
const statusLimit = 1500 * time.Millisecond

// askGateway asks the process that serves, and looks at what the last one left.
func askGateway(ctx context.Context, c *Case) func(*Case) {
	var g gatewayFacts
	short, cancel := context.WithTimeout(ctx, statusLimit) // one that hangs leaves time for the rest
	defer cancel()
	client := control.Dial(control.SocketPath(c.Profile, c.env))
	status, err := client.Status(short)
	g.Holder, g.Held = succession.Holder(c.Profile)
	for err != nil && g.Held && age(g.Holder) < youth && short.Err() == nil { // it has just been started
		select {
		case <-short.Done():
		case <-time.After(50 * time.Millisecond):
			status, err = client.Status(short)
		}
	}
	if err == nil {
		g.Status = &status
	}
	if g.Status == nil && g.Held {
		g.Silent = err
	}
	if g.Holder.PID > 0 {
		g.Command = commandOf(g.Holder.PID)
	}
	if !g.Held {
		_, g.Unclean = succession.Unclean(c.Profile)
	}
	g.Exit, g.Exited = gateway.LastExit(c.Profile.LogDir())
	g.Tail = lastTrouble(c.Profile.LogDir())
	older := findOlder(c.Request.UserHome)
	s := startFacts{Record: starts.Read(c.Profile)}
	s.Pin, s.Pinned, s.PinErr = versions.Pinned(c.Profile)
	return func(c *Case) {
		c.Gateway, c.Starts, c.Older = g, s, older
		for _, o := range older {
			for _, token := range o.Tokens {
				c.redactor.Add(token.Reveal())
			}
		}
	}
}

// commandOf is the command line of a process, "" when it cannot be seen.
func commandOf(pid int) string {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(strings.ReplaceAll(string(text), "\x00", " "))
}

// maxTrouble bounds the lines of the log that stand as evidence.
const maxTrouble = 20

// lastTrouble gives the messages of the last errors and warnings, newest first.
func lastTrouble(dir string) []string {
	lines, err := logging.Tail(filepath.Join(dir, "gateway.error.log"), maxTrouble, logging.Filter{})
	if err != nil {
		return nil
	}
	slices.Reverse(lines)
	return lines
}

// lineWith gives the newest line of the error log that holds a text.
func (g gatewayFacts) lineWith(text string) []string {
	if i := slices.IndexFunc(g.Tail, func(l string) bool { return strings.Contains(l, text) }); i >= 0 {
		return []string{"gateway.error.log: " + g.Tail[i]}
	}
	return nil
}

// askNeighbours reads the other profiles of the root.
func askNeighbours(_ context.Context, c *Case) func(*Case) {
	var out []neighbour
	var secrets []string
	profiles, err := home.List(c.Root)
	if err != nil {
		profiles = nil
	}
	for _, p := range profiles {
		if p.Name == c.Profile.Name {
			continue
		}
		n := neighbour{Profile: p}
		if n.Env, _, err = home.LoadEnv(p, nil); err == nil {
			secrets = append(secrets, n.Env.Secrets()...)
			if n.Config, _, err = home.Load(p, n.Env); err == nil {
				secrets = append(secrets, n.Config.Secrets()...)
			}
		}
		out = append(out, n)
	}
	return func(c *Case) {
		c.Neighbours = out
		c.redactor.Add(secrets...)
	}
}

// askLedger reads the ledger, where that changes nothing in it.
func askLedger(ctx context.Context, c *Case) func(*Case) {
	var l ledgerFacts
	l.Inspection, l.Err = sqlite.Inspect(ctx, c.Profile.LedgerFile())
	if l.Err == nil && l.Usable() && c.Config != nil {
		l.Err = l.read(ctx, c)
	}
	return func(c *Case) { c.Ledger = l }
}

// maxJobs bounds the jobs that are looked at one by one.
const maxJobs = 2000

// read asks the ledger for what is known of jobs and messages.
func (l *ledgerFacts) read(ctx context.Context, c *Case) error {
	s, err := sqlite.Open(ctx, sqlite.Options{Path: c.Profile.LedgerFile(), Kind: "cli", Now: c.Now, NoBallast: true})
	if err != nil {
		return err
	}
	defer func() { _ = s.Close() }() // it was only read
	if l.Dead, err = delivery.UnseenDead(ctx, s); err != nil {
		return err
	}
	if l.Waiting, err = s.Deliveries(ctx, ledger.DeliveryFilter{States: []domain.DeliveryState{domain.DeliveryRetrying, domain.DeliveryPending}, Limit: 200}); err != nil {
		return err
	}
	zone := func() *time.Location { return c.Config.Timezone }
	jobs := cron.NewService(cron.ServiceOptions{Store: s, Home: c.Profile.Home, RootDir: c.Profile.Root, Zone: zone,
		Targets: &cron.Targets{Homes: cron.ConfigHomes{Config: func() *home.Config { return c.Config }}}})
	st, err := jobs.Status(ctx)
	if err != nil {
		return err
	}
	l.Cron = &st
	if l.Jobs, _, err = jobs.List(ctx, cron.Page{All: true, Limit: maxJobs}); err != nil {
		return err
	}
	return nil
}

// cronOnly tells whether a scheduler alone serves the profile, as it was meant:
// it never had a gateway, and nothing that needs one is switched on.
func (c *Case) cronOnly() bool {
	if c.Config == nil || c.Config.API.Enabled || c.Gateway.Held || c.Gateway.Exited || c.Units.gatewayFile() != nil {
		return false
	}
	return c.Units.cronFile() != nil || c.Ledger.Cron != nil && c.Ledger.Cron.Running
}

// processChecks are about the process that serves.
func processChecks() []check {
	return []check{checkOlderSystem, checkSilent, checkDown, checkOldConfig, checkCrashes, checkPin, checkParked, checkQuarantine, checkParts}
}

func checkSilent(c *Case) []Finding {
	g := c.Gateway
	if g.Silent == nil {
		return nil
	}
	if processState(g.Holder.PID) == "" {
		return []Finding{c.orphanedLock()}
	}
	state := processState(g.Holder.PID)
	evidence := []string{"the control socket: " + domain.MessageOf(g.Silent)}
	fix := fmt.Sprintf("kill -9 %d", g.Holder.PID)
	if state == "T" || state == "t" {
		evidence = append(evidence, fmt.Sprintf("the process is stopped (state T in /proc/%d/stat): somebody sent it SIGSTOP, or pressed Ctrl-Z", g.Holder.PID))
		return []Finding{{ID: "service.suspended", Class: Service, Severity: Error, depth: ofProcess, explains: []string{"service.silent", "service.ledger_busy", "scheduler.*", "transport.*", "service.api_*", "delivery.*"},
			What: fmt.Sprintf("the gateway is suspended (PID %d)", g.Holder.PID), Evidence: evidence,
			Means: "It does nothing at all until it is told to go on.", Fix: fmt.Sprintf("kill -CONT %d", g.Holder.PID)}}
	}
	if state != "T" && state != "t" && age(g.Holder) < youth {
		return []Finding{{ID: "service.starting", Class: Service, Severity: Warning, depth: ofProcess, explains: []string{"service.ledger_busy", "scheduler.*", "transport.*", "service.api_*", "delivery.*"},
			What: fmt.Sprintf("the gateway was started %s ago and does not answer yet (PID %d)", age(g.Holder).Round(time.Second), g.Holder.PID), Evidence: evidence,
			Means: "It may be about to serve.", Fix: c.hermes("gateway status")}}
	}
	if !c.supervised() {
		fix = c.then(fix)
	}
	return []Finding{{ID: "service.silent", Class: Service, Severity: Error, depth: ofProcess, explains: []string{"service.ledger_busy", "scheduler.*", "transport.*", "service.api_*", "delivery.*"},
		What: fmt.Sprintf("PID %d holds the profile and does not answer", g.Holder.PID), Evidence: evidence,
		Means: "Nothing can be asked of it, and it may serve nobody.", Fix: fix}}
}

// orphanedLock is about a lock of which the process that took it is dead: a
// child that it left has the file open.
func (c *Case) orphanedLock() Finding {
	g, path := c.Gateway, c.Profile.LockFile()
	f := Finding{ID: "service.stale_lock", Class: Service, Severity: Error, depth: ofProcess, explains: []string{"service.not_running", "service.crashed", "scheduler.*", "transport.*", "service.api_*", "delivery.*"},
		What:     "the profile is locked, and the gateway that locked it is dead",
		Evidence: []string{fmt.Sprintf("%s names PID %d, which is gone", path, g.Holder.PID)},
		Means:    "No gateway can start as long as that lock is held."}
	holders := openers(path)
	if len(holders) == 0 {
		f.Fix = "sudo fuser -v " + path
		f.Evidence = append(f.Evidence, "who holds it cannot be seen by this user")
		return f
	}
	var pids []string
	for _, pid := range holders {
		pids = append(pids, strconv.Itoa(pid))
		f.Evidence = append(f.Evidence, fmt.Sprintf("PID %d has it open: %s", pid, cutTo(commandOf(pid), 80)))
	}
	f.Fix = c.then("kill " + strings.Join(pids, " "))
	return f
}

// openers are the processes that have a file open, as far as they may be looked
// into.
func openers(path string) []int {
	var out []int
	links, err := filepath.Glob("/proc/[0-9]*/fd/*")
	if err != nil {
		return nil
	}
	for _, l := range links {
		if to, err := os.Readlink(l); err != nil || to != path {
			continue
		}
		pid, err := strconv.Atoi(strings.Split(l, "/")[2])
		if err == nil && pid != os.Getpid() && !slices.Contains(out, pid) {
			out = append(out, pid)
		}
	}
	return out
}

// toldElsewhere are the parts that have checks of their own.
var toldElsewhere = []string{"model", "speech", "cron", "cron.import", "delivery"}

// checkParts tells of what else in the running gateway does not work.
func checkParts(c *Case) []Finding {
	if c.Gateway.Status == nil {
		return nil
	}
	var out []Finding
	for _, p := range c.Gateway.Status.Parts {
		if !(partFacts{true, p}).bad() || slices.Contains(toldElsewhere, p.Name) || strings.HasPrefix(p.Name, "platform.") && p.Name != "platform.webchat" {
			continue
		}
		f := Finding{ID: "service.part_" + p.Name, Class: Service, Severity: Error, depth: ofPart, about: p.Name, What: p.Name + " does not work",
			Evidence: []string{"status since " + p.Since.Local().Format("15:04:05") + ": " + p.Message}, Means: "The rest of the gateway works.", Fix: c.hermes("gateway restart")}
		if p.State == health.Degraded {
			f.Severity, f.What = Warning, p.Name+" works partly"
		}
		out = append(out, f)
	}
	return out
}

// processState is field 3 of /proc/PID/stat, e.g. "S", "T"; proc_pid_stat(5).
func processState(pid int) string {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return ""
	}
	f := strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:]))
	if len(f) == 0 {
		return ""
	}
	return f[0]
}

// supervised tells whether a unit brings the gateway back by itself.
func (c *Case) supervised() bool { u := c.Units.gatewayLive(); return u != nil && u.Active == "active" }

// checkDown says that nothing serves the profile, and what is known of why.
func checkDown(c *Case) []Finding {
	g := c.Gateway
	if g.Status != nil || g.Held || c.cronOnly() && c.Ledger.Cron != nil {
		return nil
	}
	f := Finding{ID: "service.not_running", Class: Service, Severity: Error, depth: ofProcess,
		What: "no gateway runs for this profile", Means: "Nobody is answered, no job fires, and the API is off.", Fix: c.serve(),
		explains: []string{"scheduler.not_running", "scheduler.stalled", "scheduler.behind", "service.api_down", "delivery.waiting", "delivery.held_up"}}
	switch {
	case g.Unclean:
		f.ID, f.What = "service.crashed", "the gateway ended without a clean stop, and nothing has started it again"
		f.Evidence = append(f.Evidence, gateway.Unclean(g.Holder.PID).String())
	case g.Exited && g.Exit.Code != 0:
		f.Evidence = append(f.Evidence, "last exit: "+g.Exit.String())
	case g.Exited:
		// That it is down is no mystery; what else is wrong comes first, and the
		// fix of that starts it as well.
		f.depth = ofWork
		f.Evidence = append(f.Evidence, "it was stopped: "+g.Exit.String())
	default:
		f.depth = ofWork
		f.Evidence = append(f.Evidence, "it has never run, as far as logs/gateway-exit-diag.log knows")
	}
	if len(g.Tail) > 0 {
		f.Evidence = append(f.Evidence, "gateway.error.log: "+g.Tail[0])
	}
	return []Finding{f}
}

// checkOldConfig says that the files changed since the gateway read them.
func checkOldConfig(c *Case) []Finding {
	s := c.Gateway.Status
	if s == nil || c.Config == nil {
		return nil
	}
	var what []string
	m := c.Config.Model
	if s.Model.Set != m.IsSet() || s.Model.Name != m.Model || s.Model.Provider != m.Provider {
		what = append(what, fmt.Sprintf("the model is %s by %s in config.yaml, and the gateway uses %s by %s", orNone(m.Model), orNone(m.Provider), orNone(s.Model.Name), orNone(s.Model.Provider)))
	}
	if s.API.Enabled != c.Config.API.Enabled {
		what = append(what, fmt.Sprintf("the API is switched %s in the files, and %s in the gateway", onOff(c.Config.API.Enabled), onOff(s.API.Enabled)))
	}
	for p, cfg := range c.Config.Platforms {
		if cfg.Enabled != c.part("platform."+string(p)).Known && gateway.Connectable(p) && p != domain.PlatformWebchat {
			what = append(what, fmt.Sprintf("%s is switched %s in the files, and %s in the gateway", p, onOff(cfg.Enabled), onOff(!cfg.Enabled)))
		}
	}
	if len(what) == 0 {
		return nil
	}
	slices.Sort(what)
	return []Finding{{ID: "profile.not_loaded", Class: Scope, Severity: Warning, depth: ofProcess,
		What: "the files changed since the gateway read them", Evidence: what,
		Means: "What was changed holds only from the next restart on.", Fix: c.hermes("gateway restart")}}
}

// checkCrashes says that the process before this one ended badly, where the
// present one began shortly ago.
func checkCrashes(c *Case) []Finding {
	g := c.Gateway
	if g.Status == nil || !g.Exited || g.Exit.Tag != "gateway.previous_unclean_exit" || g.Exit.Traceback == "" {
		return nil
	}
	at, err := time.Parse(time.RFC3339Nano, g.Exit.Time)
	if err != nil || c.Now().Sub(at) > 24*time.Hour {
		return nil
	}
	return []Finding{{ID: "service.panicked", Class: Service, Severity: Advice, depth: ofProcess,
		What: "the gateway crashed within the last day, and runs again", Evidence: []string{"logs/gateway-exit-diag.log: " + cutTo(g.Exit.String(), 200)},
		Means: "That is a defect; what was accepted before was not lost.", Fix: c.hermes("doctor --ack service.panicked")}}
}

// checkPin says that the program which is to serve the profile cannot be run.
func checkPin(c *Case) []Finding {
	if c.Starts.PinErr == nil {
		return nil
	}
	return []Finding{{ID: "service.pin", Class: Service, Severity: Error, depth: ofSetting, What: "the program that this profile is pinned to cannot be run",
		Evidence: []string{domain.MessageOf(c.Starts.PinErr)}, Means: "Another version serves than was chosen.", Fix: "rm " + versions.PinFile(c.Profile)}}
}

// checkQuarantine says which parts are held back because the gateway died of
// them, and that another configuration serves than the one on disk.
func checkQuarantine(c *Case) []Finding {
	if c.Gateway.Status == nil || c.Gateway.Status.Safe == nil {
		return nil
	}
	safe := c.Gateway.Status.Safe
	var out []Finding
	for _, h := range safe.Held {
		if !h.Until.After(c.Now()) {
			continue
		}
		out = append(out, Finding{ID: "service.quarantine", Class: Service, Severity: Error, depth: ofProcess, about: h.Part,
			explains: []string{"transport.*:" + strings.TrimPrefix(h.Part, "platform."), "service.part_" + h.Part, "provider.*:" + h.Part, "scheduler.degraded", "service.panicked", "service.api_down"},
			What:     fmt.Sprintf("%s is held back, because the gateway died of it %d times", h.Part, h.Times),
			Evidence: append([]string{"status: " + h.Why}, safe.Why...), Means: "The rest works; it is tried again at " + h.Until.Local().Format("15:04:05") + ".",
			Fix: c.hermes("gateway restart")})
	}
	if safe.Config != "" && c.ConfigErr == nil {
		out = append(out, Finding{ID: "profile.not_served", Class: Scope, Severity: Error, depth: ofSetting, explains: []string{"profile.not_loaded"},
			What:     "the configuration on disk is not the one in force",
			Evidence: append([]string{"status: " + safe.Broken, "what serves is kept in " + safe.Config}, safe.NotTold...),
			Means:    "The one that served healthily last is used in its place.", Fix: c.hermes("config rollback")})
	}
	return out
}

// checkParked says that a start came to nothing and waits.
func checkParked(c *Case) []Finding {
	s := c.Gateway.Status
	if s == nil || s.State != "starting" || len(s.Problems) == 0 {
		return nil
	}
	return []Finding{{ID: "service.start_waits", Class: Service, Severity: Error, depth: ofProcess, explains: []string{"scheduler.*", "service.api_*", "transport.*", "delivery.*"},
		What: "the gateway cannot start, and waits", Evidence: s.Problems, Means: "Nobody is served until it can; it tries again by itself.", Fix: c.hermes("logs errors -n 50")}}
}

func onOff(b bool) string {
	if b {
		return "on"
	}
	return "off"
}

func orNone(s string) string {
	if s == "" {
		return "none"
	}
	return s
}

// cutTo bounds a text, in runes.
func cutTo(s string, n int) string {
	if r := []rune(s); len(r) > n {
		return string(r[:n]) + "…"
	}
	return s
}
