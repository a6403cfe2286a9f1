package service

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"hermes/internal/control"
	"hermes/internal/domain"
	"hermes/internal/home"
)

// Operation starts, stops and restarts one unit, and returns when the truth is
// known. Jobs are handed in without waiting, and the manager and the gateway
// are asked until both say the same, so that neither a lost D-Bus answer nor a
// passing state misleads.
type Operation struct {
	Found
	Profile home.Profile // whose control socket proves that the unit serves
	Getenv  func(string) string
	Say     func(format string, args ...any) // progress, for people
	// Serves tells whether the unit, which has a main process, does its work. Nil
	// asks the gateway's control socket.
	Serves func(context.Context, Unit) bool
	// Preflight says why a new process could not serve. It is asked before an
	// active unit is stopped and started; a hand-over asks by itself. May be nil.
	Preflight func(ctx context.Context) error
	// HandOver replaces the running process by program, "" for the one that runs,
	// without a gap, and returns when the new one serves. It is called for a restart of an active unit; nil, or an
	// answer of false, means that the unit is stopped and started. An error says
	// that the old process goes on serving, and why.
	HandOver func(ctx context.Context, program string) (done bool, err error)
}

// The pace and the limits of waiting.
const (
	pollEvery  = 100 * time.Millisecond
	startLimit = 90 * time.Second // as DefaultTimeoutStartSec
	settle     = 3 * time.Second  // a job that was handed in is visible by then
	slowDelay  = 2 * time.Second  // a restart delay over it is cut short
)

// Start starts the unit, clearing a failure first, and returns when its gateway
// serves. Errors: Unavailable with the unit's result, Timeout, Forbidden.
func (o Operation) Start(ctx context.Context) (Unit, error) {
	if u, err := o.Manager.Show(ctx, o.Name); err == nil && u.Active == "active" {
		if s, ok := o.serving(ctx, u); ok {
			o.Say("%s already runs (PID %d)", o.Name, s.PID)
			return u, nil
		}
	}
	if _, _, err := o.Reinstate(ctx); err != nil {
		return o.Unit, err
	}
	return o.start(ctx)
}

// start starts the unit as it stands, clearing a failure first.
func (o Operation) start(ctx context.Context) (Unit, error) {
	if u, err := o.Manager.Show(ctx, o.Name); err == nil {
		if err := u.mayStart(); err != nil {
			return u, err
		}
	}
	if err := o.Manager.resetFailed(ctx, o.Name); err != nil {
		return o.Unit, err
	}
	if err := o.Manager.job(ctx, "start", o.Name); err != nil {
		return o.Unit, err
	}
	return o.await(ctx, 0, startLimit)
}

// Stop stops the unit and returns when it has stopped. Errors: Timeout,
// Forbidden (also from inside the unit), Unavailable.
func (o Operation) Stop(ctx context.Context) (Unit, error) {
	if err := o.refuseInside("stop"); err != nil {
		return o.Unit, err
	}
	if err := o.Manager.job(ctx, "stop", o.Name); err != nil {
		return o.Unit, err
	}
	limit := o.StopTimeout + 10*time.Second
	began := time.Now()
	u, err := o.poll(ctx, limit, func(u Unit) (bool, error) {
		return (u.Active == "inactive" || u.Active == "failed") && u.MainPID == 0, nil
	})
	switch {
	case domain.IsCode(err, domain.Timeout):
		return u, domain.E(domain.Timeout, nil, "%s did not stop within %s (it is %s, %s); `%s` shows what it does", o.Name, limit, u.Active, u.Sub, o.journal())
	case err == nil:
		o.Say("%s stopped after %.1f s (%s)", o.Name, time.Since(began).Seconds(), u.Result)
	}
	return u, err
}

// Restart puts a new process in the place of the running one and returns when
// that serves. A start limit that was hit is cleared. Errors: as Start.
func (o Operation) Restart(ctx context.Context) (Unit, error) {
	if err := o.refuseInside("restart"); err != nil {
		return o.Unit, err
	}
	u, err := o.Manager.Show(ctx, o.Name)
	if err != nil {
		return u, err
	}
	program := ""
	overridden := Overridden(u)
	own, undo, err := o.Reinstate(ctx)
	if err != nil {
		return u, err
	}
	if overridden {
		program = own.Program
	}
	if u.Active == "active" && o.HandOver != nil && !outgrown(u) {
		if done, err := o.HandOver(ctx, program); err != nil {
			undo()
			return u, err
		} else if done {
			return o.await(ctx, 0, startLimit)
		}
	}
	if err := u.mayStart(); err != nil {
		undo()
		return u, err
	}
	if u.Active == "active" && o.Preflight != nil {
		if err := o.Preflight(ctx); err != nil {
			undo()
			return u, domain.E(domain.CodeOf(err), err, "%s was not restarted and serves on, since a new process could not serve: %s", o.Name, domain.MessageOf(err))
		}
	}
	if err := o.Manager.resetFailed(ctx, o.Name); err != nil {
		return u, err
	}
	if err := o.Manager.job(ctx, "restart", o.Name); err != nil {
		return u, err
	}
	return o.await(ctx, u.MainPID, u.StopTimeout+startLimit)
}

// outgrown tells whether the running process was started when the unit promised
// less than it does now: only a start by systemd brings that in force.
func outgrown(u Unit) bool {
	env, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", u.MainPID))
	return err == nil && u.Type == string(Notify) && !bytes.Contains(env, []byte("NOTIFY_SOCKET="))
}

// Kill ends the unit's main process as a crash does, and returns when systemd
// has started another that serves. Errors: as Start; Forbidden, from inside.
func (o Operation) Kill(ctx context.Context) (Unit, error) {
	if err := o.refuseInside("kill"); err != nil {
		return o.Unit, err
	}
	u, err := o.Manager.Show(ctx, o.Name)
	if err != nil {
		return u, err
	}
	if _, err := o.Manager.call(ctx, "kill", "--kill-who=main", "--signal=SIGKILL", o.Name); err != nil {
		return u, err
	}
	return o.await(ctx, u.MainPID, u.RestartDelay+startLimit)
}

// refuseInside holds what lives in the unit from ending it.
func (o Operation) refuseInside(verb string) error {
	if !Inside(o.Unit) {
		return nil
	}
	return domain.E(domain.Forbidden, nil, "this command runs inside %s, which it would %s, and itself with it; send /restart to the bot instead, which waits for the turn to end", o.Name, verb)
}

// serving asks the gateway itself, and believes it only when it is the unit's
// main process.
func (o Operation) serving(ctx context.Context, u Unit) (control.Status, bool) {
	if u.MainPID == 0 {
		return control.Status{}, false
	}
	if o.Serves != nil {
		return control.Status{PID: u.MainPID}, o.Serves(ctx, u)
	}
	s, err := control.Dial(control.SocketPath(o.Profile, o.Getenv)).Status(ctx)
	return s, err == nil && s.PID == u.MainPID && s.State == "running"
}

// await returns when the unit's main process, another than old, serves. Passing
// states are waited out: activating (auto-restart) too, whose delay is cut
// short where it is long.
func (o Operation) await(ctx context.Context, old int, limit time.Duration) (Unit, error) {
	began := time.Now()
	hurried := false
	u, err := o.poll(ctx, limit, func(u Unit) (bool, error) {
		switch {
		case u.MainPID != 0 && u.MainPID != old && u.Active != "deactivating":
			s, ok := o.serving(ctx, u)
			if s.Parked && s.PID == u.MainPID && len(s.Problems) > 0 {
				return false, domain.E(domain.Unavailable, nil, "%s does not serve: %s", o.Name, s.Problems[0])
			}
			return ok, nil
		case u.Active == "failed":
			return false, o.failure(u)
		case u.Active == "inactive" && time.Since(began) > settle:
			return false, o.failure(u)
		case u.Sub == "auto-restart" && u.RestartDelay > slowDelay && !hurried:
			hurried = true
			return false, o.Manager.job(ctx, "start", o.Name)
		}
		return false, nil
	})
	if domain.IsCode(err, domain.Timeout) {
		return u, domain.E(domain.Timeout, nil, "%s is %s (%s) after %s, and does not say that it serves; `%s` shows why", o.Name, u.Active, u.Sub, limit, o.journal())
	}
	return u, err
}

// failure says why a unit is down, and what to do.
func (o Operation) failure(u Unit) error {
	return domain.E(domain.Unavailable, nil, "%s", Explain(u))
}

// Cause says in a sentence without a full stop why a unit does not run.
func Cause(u Unit) string {
	switch {
	case u.Load == "masked":
		return u.Name + " is masked, so systemd starts it for nobody, neither at boot nor after a crash"
	case u.Load == "bad-setting" || u.Load == "error":
		return "systemd cannot read " + u.Name
	case u.ExitStatus == exitExec:
		return fmt.Sprintf("%s names a program that cannot be run (status 203/EXEC)", u.Name)
	case LimitHit(u):
		return fmt.Sprintf("%s was started %d times within %s and ended each time (last %s), so systemd gave up", u.Name, u.LimitBurst, u.LimitSpan, u.lastEnd())
	case u.ExitStatus == ExitConfig:
		return u.Name + " ended with status 78: its configuration is unusable, and starting it again cannot help"
	case u.Active == "failed":
		return fmt.Sprintf("%s failed (%s, %s)", u.Name, u.Result, u.lastEnd())
	}
	return fmt.Sprintf("%s is %s (%s, %s)", u.Name, u.Active, u.Result, u.lastEnd())
}

// lastEnd is how the last main process ended: by a status or a signal.
func (u Unit) lastEnd() string {
	if !u.Killed {
		return fmt.Sprintf("status %d", u.ExitStatus)
	}
	if name := unix.SignalName(syscall.Signal(u.ExitStatus)); name != "" {
		return "signal " + name
	}
	return fmt.Sprintf("signal %d", u.ExitStatus)
}

// mayStart says why systemd would start a unit for nobody, whoever asks: it is
// masked. Errors: Conflict.
func (u Unit) mayStart() error {
	if u.Load != "masked" {
		return nil
	}
	return domain.E(domain.Conflict, nil, "%s; `%s` takes that back", Cause(u), Unmask(u))
}

// Unmask is the command that takes a mask back: a link to /dev/null in one of the
// folders of systemd.unit(5), "Unit File Load Path".
func Unmask(u Unit) string {
	command, name := "systemctl --user unmask", u.Name
	switch {
	case u.System:
		command = "sudo systemctl unmask"
	case strings.HasPrefix(u.File, "/etc/"), strings.HasPrefix(u.File, "/run/systemd/"): // for every user of the machine
		command = "sudo systemctl --global unmask"
	}
	if strings.HasPrefix(u.File, "/run/") || u.Enabled == "masked-runtime" {
		command += " --runtime"
	}
	if file := filepath.Base(u.File); strings.HasSuffix(file, "@.service") {
		name = file // with the template every instance is masked
	}
	return command + " " + name
}

// exitExec is the status of a program that could not be run; systemd.exec(5),
// "Process Exit Codes".
const exitExec = 203

// Explain says in a sentence why a unit does not run, and what to do.
func Explain(u Unit) string {
	look := fmt.Sprintf("`%s` shows what it said", journalOf(u))
	manager := "systemctl --user"
	if u.System {
		manager = "systemctl"
	}
	cause := Cause(u)
	switch {
	case u.Load == "masked":
		return fmt.Sprintf("%s; `%s` takes that back", cause, Unmask(u))
	case u.Load == "bad-setting" || u.Load == "error":
		return fmt.Sprintf("%s; `systemd-analyze verify %s` says why", cause, u.File)
	case u.ExitStatus == exitExec:
		return fmt.Sprintf("%s: `hermes gateway install` writes the right path; %s", cause, look)
	case LimitHit(u):
		return fmt.Sprintf("%s; %s. When that is mended: `%s reset-failed %s`, or `hermes gateway start`, which does it by itself", cause, look, manager, u.Name)
	case u.ExitStatus == ExitConfig:
		return fmt.Sprintf("%s; %s, `hermes config check` what is wrong", cause, look)
	}
	return cause + "; " + look
}

// LimitHit tells whether systemd has given the unit up. Its Result says so only
// where the first start was refused; after a crash loop it names the last crash.
func LimitHit(u Unit) bool {
	if u.Result == "start-limit-hit" {
		return true
	}
	revived := u.Restart == "always" || u.Restart == "on-failure"
	return u.Active == "failed" && revived && u.ExitStatus != ExitConfig && u.LimitBurst > 0 && u.Restarts+1 >= u.LimitBurst
}

func (o Operation) journal() string { return journalOf(o.Unit) }

func journalOf(u Unit) string {
	if u.System {
		return "journalctl -u " + u.Name + " -n 30"
	}
	return "journalctl --user -u " + u.Name + " -n 30"
}

// poll shows the unit every pollEvery until done says so or fails. Errors:
// Timeout at the limit. A manager that does not answer once is asked again.
func (o Operation) poll(ctx context.Context, limit time.Duration, done func(Unit) (bool, error)) (Unit, error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	last := o.Unit
	for {
		if u, err := o.Manager.Show(ctx, o.Name); err == nil {
			last = u
			if ok, err := done(u); ok || err != nil {
				return u, err
			}
		}
		select {
		case <-ctx.Done():
			return last, domain.E(domain.Timeout, ctx.Err(), "%s did not get there in time", o.Name)
		case <-tick.C:
		}
	}
}

// StartsLeft is how many starts the unit's limit still allows at the least, -1
// when there is no limit. systemd counts within the interval and does not tell;
// what it does tell, how often it restarted the unit and since when it stands,
// gives a bound.
func StartsLeft(u Unit, now time.Time) int {
	if u.LimitSpan <= 0 || u.LimitBurst <= 0 {
		return -1
	}
	switch {
	case LimitHit(u):
		return 0
	case !u.Since.IsZero() && now.Sub(u.Since) > u.LimitSpan:
		return u.LimitBurst
	}
	return max(u.LimitBurst-1-u.Restarts, 0)
}
