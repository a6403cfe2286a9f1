package cli

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"hermes/internal/control"
	"hermes/internal/domain"
	"hermes/internal/gateway"
	"hermes/internal/health"
	"hermes/internal/home"
	"hermes/internal/service"
	"hermes/internal/succession"
	"hermes/internal/update"
	"hermes/internal/versions"
)

// fleet is the processes of all profiles as an update sees them; update.Fleet.
type fleet struct {
	app   *App
	host  service.Host
	units map[string]service.Found // by the member's name
}

func newFleet(a *App) *fleet {
	return &fleet{app: a, host: service.NewHost(service.Me(a.UserHome()), a.getenv), units: map[string]service.Found{}}
}

// The limits of a switch.
const (
	wellLimit  = 30 * time.Second // for a new process to be as well as the old one
	steadyTime = 3 * time.Second  // it must stay so
	lookEvery  = 100 * time.Millisecond
	askVersion = 10 * time.Second
	busyLimit  = 20 * time.Second // for another restart of the same gateway to end
)

// Members lists the processes that serve profiles, and the profiles whose unit
// does not run.
func (f *fleet) Members(ctx context.Context) ([]update.Member, error) {
	profiles, err := home.List(f.app.Root())
	if err != nil {
		return nil, err
	}
	alone := f.schedulers()
	var out []update.Member
	for _, p := range profiles {
		if m, ok := f.gateway(ctx, p); ok {
			out = append(out, m)
		}
		for _, pid := range alone[p.Home] {
			out = append(out, f.scheduler(ctx, p, pid))
		}
	}
	return out, nil
}

// gateway describes a profile's gateway; ok is false where there is neither a
// process nor a unit.
func (f *fleet) gateway(ctx context.Context, p home.Profile) (m update.Member, ok bool) {
	m = update.Member{Profile: p, Name: "the gateway of " + p.Name}
	unit, err := f.host.Find(ctx, p, false)
	known := err == nil
	holder, held := succession.Holder(p)
	if held && holder.PID > 0 {
		f.process(ctx, &m, holder.PID)
		if known && unit.MainPID != holder.PID {
			known = false // a person started it, beside the unit
		}
	}
	if known {
		m.Name, m.Starts = strings.TrimSuffix(unit.Name, ".service"), unit.Program
		f.units[m.Name] = unit
	}
	if s, err := f.app.dial(p).Status(ctx); err == nil && s.PID == m.PID {
		m.Version = s.Version
	}
	return m, m.Running || known
}

// process fills in what a PID tells.
func (f *fleet) process(ctx context.Context, m *update.Member, pid int) {
	m.Running, m.PID, m.Program = true, pid, fmt.Sprintf("/proc/%d/exe", pid)
	ctx, cancel := context.WithTimeout(ctx, askVersion)
	defer cancel()
	m.Version = versions.Ask(ctx, m.Program)
	m.Starts = succession.StartedAs(pid)
}

// scheduler describes a scheduler that runs alone.
func (f *fleet) scheduler(ctx context.Context, p home.Profile, pid int) update.Member {
	m := update.Member{Profile: p, Name: "the scheduler of " + p.Name, Scheduler: true}
	f.process(ctx, &m, pid)
	unit, system, ok := service.UnitOf(pid)
	if !ok || !strings.Contains(unit, "hermes") {
		return m
	}
	manager, err := service.Open(system, f.app.getenv)
	if err != nil {
		return m
	}
	if u, err := manager.Show(ctx, unit); err == nil && u.MainPID == pid {
		m.Name, m.Starts = strings.TrimSuffix(u.Name, ".service"), u.Program
		f.units[m.Name] = service.Found{Unit: u, Manager: manager}
	}
	return m
}

// schedulers finds the processes of this user that run `cron run`, by the home
// of their profile.
func (f *fleet) schedulers() map[string][]int {
	out := map[string][]int{}
	dirs, err := os.ReadDir("/proc")
	if err != nil {
		return out
	}
	for _, d := range dirs {
		pid, err := strconv.Atoi(d.Name())
		if err != nil || pid == os.Getpid() {
			continue
		}
		if at, ok := schedules(pid, f.app.UserHome()); ok {
			out[at] = append(out[at], pid)
		}
	}
	return out
}

// schedules tells whether a process is a scheduler alone, and gives the home of
// its profile.
func schedules(pid int, userHome string) (at string, ok bool) {
	return schedulerHome(succession.Words(pid, "cmdline"), succession.Words(pid, "environ"), userHome)
}

// schedulerHome reads a command line and an environment; both are empty of a
// process of another user.
func schedulerHome(args, environ []string, userHome string) (at string, ok bool) {
	if len(args) < 3 || len(environ) == 0 {
		return "", false
	}
	rest, name, set, err := home.SplitProfileFlag(args[1:])
	if err != nil || len(rest) < 2 || rest[0] != "cron" || rest[1] != "run" || len(rest) > 2 && !strings.HasPrefix(rest[2], "-") {
		return "", false
	}
	its := App{Environ: environ}
	p, err := home.Resolve(home.Request{Flag: name, FlagSet: set, Env: its.Lookup, UserHome: userHome})
	return p.Home, err == nil
}

// Look gives a member as it is now.
func (f *fleet) Look(ctx context.Context, m update.Member) update.Member {
	now := update.Member{Profile: m.Profile, Name: m.Name, Scheduler: m.Scheduler, Starts: m.Starts}
	if !m.Scheduler {
		if g, ok := f.gateway(ctx, m.Profile); ok {
			g.Name = m.Name
			return g
		}
		return now
	}
	pids := f.schedulers()[m.Profile.Home]
	if len(pids) == 0 {
		return now
	}
	pid := pids[0]
	if slices.Contains(pids, m.PID) {
		pid = m.PID
	}
	f.process(ctx, &now, pid)
	now.Starts = m.Starts
	return now
}

// Preflight asks a program as a running gateway does before it hands over.
func (f *fleet) Preflight(ctx context.Context, p home.Profile, program string) error {
	environ := append(without(succession.WithoutLegacy(f.app.Environ), "HERMES_HOME"), "HERMES_HOME="+p.Root)
	_, err := gateway.AskProgram(ctx, p, program, environ)
	return err
}

// Switch puts a process of another program in the member's place.
func (f *fleet) Switch(ctx context.Context, m update.Member, program, version string) (update.Member, error) {
	if m.Scheduler {
		return f.switchScheduler(ctx, m, program, version)
	}
	c := f.app.dial(m.Profile)
	before, err := c.Status(ctx)
	if err != nil {
		return f.switchByUnit(ctx, m, program, version)
	}
	done, err := f.askRestart(ctx, c, control.RestartRequest{Reason: "hermes update to " + version, Program: program})
	if err == nil && done.Mode == string(succession.InPlace) {
		err = waitBack(ctx, c, m.Profile, before.StartedAt)
	}
	if err != nil {
		return m, err
	}
	return f.awaitWell(ctx, m, before, version)
}

// askRestart asks until no other restart is under way.
func (f *fleet) askRestart(ctx context.Context, c *control.Client, r control.RestartRequest) (done control.Restarted, err error) {
	limit := time.Now().Add(busyLimit)
	for {
		done, err = c.Restart(ctx, r)
		if !domain.IsCode(err, domain.Conflict) || time.Now().After(limit) || pause(ctx, lookEvery) != nil {
			return done, err
		}
	}
}

// switchByUnit is for a gateway that does not answer: its unit is restarted, and
// the profile's pin says what then serves.
func (f *fleet) switchByUnit(ctx context.Context, m update.Member, program, version string) (update.Member, error) {
	u, ok := f.units[m.Name]
	if !ok {
		return m, domain.E(domain.Unavailable, nil, "it does not answer on its control socket, and no unit could start it again")
	}
	if err := versions.SetPin(m.Profile, versions.Pin{Path: program, Version: version, Why: "update to " + version, At: f.app.Now().UTC()}); err != nil {
		return m, err
	}
	op := service.Operation{Found: u, Profile: m.Profile, Getenv: f.app.getenv, Say: func(string, ...any) {}}
	if _, err := op.Restart(ctx); err != nil {
		return m, err
	}
	return f.awaitWell(ctx, m, control.Status{}, version)
}

// awaitWell returns when the version serves the profile as well as the one
// before did, and has done so for a moment.
func (f *fleet) awaitWell(ctx context.Context, m update.Member, before control.Status, version string) (update.Member, error) {
	c := f.app.dial(m.Profile)
	limit := time.Now().Add(wellLimit)
	var since time.Time
	pid := 0
	for {
		s, err := c.Status(ctx)
		why := "it does not answer"
		if err == nil {
			why = worse(before, s, version)
		}
		switch {
		case why != "" || s.PID != pid:
			if pid != 0 && why == "" {
				return m, domain.E(domain.Unavailable, nil, "its process (PID %d) ended soon after it began to serve", pid)
			}
			since, pid = time.Time{}, 0
			if why == "" {
				since, pid = time.Now(), s.PID
			}
		case time.Since(since) >= steadyTime:
			m.Running, m.PID, m.Version, m.Program = true, s.PID, s.Version, fmt.Sprintf("/proc/%d/exe", s.PID)
			return m, nil
		}
		if time.Now().After(limit) {
			return m, domain.E(domain.Unavailable, nil, "after %s it is not well: %s", wellLimit, why)
		}
		if err := pause(ctx, lookEvery); err != nil {
			return m, err
		}
	}
}

// worse says why a gateway is not as well as it was before, "" where it is.
func worse(before, now control.Status, version string) string {
	switch {
	case now.Version != version:
		return fmt.Sprintf("version %s serves", now.Version)
	case now.State != "running" || now.Parked:
		return "it is " + now.State
	case now.Healthy:
		return ""
	case before.Healthy && len(now.Problems) > 0:
		return now.Problems[0]
	case before.Healthy:
		return "it says that it is not healthy"
	}
	for _, p := range now.Parts {
		i := slices.IndexFunc(before.Parts, func(o health.Part) bool { return o.Name == p.Name })
		if p.State == health.Down && i >= 0 && before.Parts[i].State != health.Down {
			return p.Name + ": " + p.Message
		}
	}
	return ""
}

// switchScheduler lets a scheduler go on as what its profile is pinned to.
func (f *fleet) switchScheduler(ctx context.Context, m update.Member, program, version string) (update.Member, error) {
	pid := m.PID
	if syscall.Kill(pid, 0) == nil {
		if _, ok := schedules(pid, f.app.UserHome()); ok {
			if err := syscall.Kill(pid, syscall.SIGUSR1); err != nil {
				return m, domain.E(domain.Forbidden, err, "the scheduler (PID %d) cannot be told", pid)
			}
		}
	} else if u, ok := f.units[m.Name]; !ok {
		return m, domain.E(domain.Unavailable, nil, "the scheduler ended, and no unit starts it again; `hermes%s cron run` does", profileFlag(m.Profile))
	} else if err := u.Manager.Begin(ctx, u.Name); err != nil {
		return m, err
	}
	limit := time.Now().Add(waitForRuns)
	var since time.Time
	seen := 0
	for {
		now := 0
		for _, pid := range f.schedulers()[m.Profile.Home] {
			if same(fmt.Sprintf("/proc/%d/exe", pid), program) {
				now = pid
			}
		}
		switch {
		case now == 0 && seen != 0:
			return m, domain.E(domain.Unavailable, nil, "the scheduler of version %s (PID %d) ended soon after it began", version, seen)
		case now == 0 && !f.alive(m):
			limit = minTime(limit, time.Now().Add(wellLimit))
		case now != 0 && now != seen:
			seen, since = now, time.Now()
		case now != 0 && time.Since(since) >= steadyTime:
			m.Running, m.PID, m.Version, m.Program = true, now, version, fmt.Sprintf("/proc/%d/exe", now)
			return m, nil
		}
		if time.Now().After(limit) {
			return m, domain.E(domain.Timeout, nil, "the scheduler did not become version %s in time; it may still wait for a job that runs", version)
		}
		if err := pause(ctx, lookEvery); err != nil {
			return m, err
		}
	}
}

// waitForRuns bounds how long a scheduler may take until its jobs have ended.
const waitForRuns = 60 * time.Second

func (f *fleet) alive(m update.Member) bool { return len(f.schedulers()[m.Profile.Home]) > 0 }

func minTime(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

func same(a, b string) bool {
	one, err1 := os.Stat(a)
	two, err2 := os.Stat(b)
	return err1 == nil && err2 == nil && os.SameFile(one, two)
}

// pause waits, and gives ctx's end as an error.
func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return domain.E(domain.Cancelled, ctx.Err(), "it was ended before it was through")
	case <-timer.C:
		return nil
	}
}
