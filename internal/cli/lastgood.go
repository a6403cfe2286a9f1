package cli

import (
	"context"
	"fmt"
	"os"
	"time"

	"hermes/internal/control"
	"hermes/internal/gateway"
	"hermes/internal/home"
	"hermes/internal/rescue"
	"hermes/internal/service"
	"hermes/internal/starts"
	"hermes/internal/versions"
)

// asItIs is what a unit is started on that was killed: what served is good.
const asItIs = "what is installed, against which nothing speaks"

// lastGood gives what a unit that ended is worth being started on once more, nil
// where nothing speaks for another start. run is the invocation that ended.
func (a *App) lastGood(op service.Operation, run string, system bool) *rescue.Good {
	plan, last, disk := gateway.Preparation{
		Profile: op.Profile, Process: a.Environ, Version: Version(), Now: a.Now,
		Limit: func() starts.Limit { return service.LimitOf(op.Unit) },
	}.Foresee()
	// The record holds this end only where the process lived long enough to begin it.
	known := run != "" && last.Unit == run
	if known && plan.Deaths == 0 && last.Reached(starts.Serving) && fromOutside(op.Unit) {
		return &rescue.Good{On: asItIs}
	}
	book := versions.Read(op.Profile)
	if good, kept := book.Good, service.Rescuer(a.UserHome()); !system {
		switch {
		case good.Present() && !rescue.Same(good.Path, op.Program):
			return &rescue.Good{Program: good.Path, On: programWord(good.Version)}
		case runnable(kept) && !rescue.Same(kept, op.Program):
			return &rescue.Good{Program: kept, On: programWord(good.Version)}
		}
	}
	// A start after deaths goes back by itself to the configuration that served
	// healthily last; here it gets one that the limit of the unit had denied.
	switch entry, _, ok := home.OpenHistory(op.Profile).LastHealthy(); {
	case ok && plan.LastHealthy:
		return &rescue.Good{On: healthyWord(entry.HealthyAt)}
	case known && last.Disk != disk:
		return &rescue.Good{On: "the configuration that is on disk now, which was changed since"}
	}
	return nil
}

// fromOutside tells whether a signal ended the unit's last process: by itself, or by
// the exit code that asks for another start.
func fromOutside(u service.Unit) bool {
	return u.Result != "watchdog" && (u.Killed || u.ExitStatus == service.ExitRestart)
}

// startAgain gives what starts the unit on what is good. A unit of the system is
// started by root, once this process has said so by its exit code.
func (a *App) startAgain(op service.Operation, system bool) func(context.Context, rescue.Good) (rescue.Served, error) {
	if system {
		return func(context.Context, rescue.Good) (rescue.Served, error) { return rescue.Served{Asked: true}, nil }
	}
	return func(ctx context.Context, g rescue.Good) (rescue.Served, error) {
		begin := op.Start
		if g.Program != "" {
			begin = func(ctx context.Context) (service.Unit, error) { return op.StartOn(ctx, g.Program, op.Profile) }
		}
		u, err := begin(ctx)
		if err != nil {
			return rescue.Served{PID: u.MainPID}, err
		}
		return a.whatServes(ctx, op, u.MainPID), nil
	}
}

// whatServes says by which program and configuration a process serves: as itself
// tells, and as the kernel knows.
func (a *App) whatServes(ctx context.Context, op service.Operation, pid int) rescue.Served {
	s, err := a.dial(op.Profile).Status(ctx)
	if err != nil {
		return rescue.Served{PID: pid, Back: true} // what was tried is as much as is known
	}
	r := rescue.Served{PID: pid}
	exe := fmt.Sprintf("/proc/%d/exe", pid)
	program := "the installed program"
	if !same(exe, op.Program) {
		r.Back = true
		program = fmt.Sprintf("the program that served last, version %s", s.Version)
		if path, err := os.Readlink(exe); err == nil {
			program += " (" + path + ")"
		}
	}
	config, back := configWord(op.Profile, s)
	r.Back = r.Back || back
	r.What = program + " and " + config
	return r
}

// configWord says which configuration a gateway serves; back tells that it is not
// the one on disk.
func configWord(p home.Profile, s control.Status) (word string, back bool) {
	if s.Safe == nil || s.Safe.Config == "" {
		return "the configuration on disk", false
	}
	if entry, _, ok := home.OpenHistory(p).LastHealthy(); ok && home.OpenHistory(p).Dir(entry.N) == s.Safe.Config {
		return healthyWord(entry.HealthyAt) + ", in place of the one on disk", true
	}
	return "the configuration in " + s.Safe.Config + ", in place of the one on disk", true
}

func healthyWord(at time.Time) string {
	return "the configuration that served healthily on " + at.Local().Format("2 January 15:04")
}

func programWord(version string) string {
	if version == "" {
		return "the program that served last"
	}
	return "the program that served last, version " + version
}

func runnable(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular() && info.Mode().Perm()&0o100 != 0
}
