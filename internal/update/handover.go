package update

import (
	"context"
	"fmt"

	"hermes/internal/domain"
	"hermes/internal/failpoint"
	"hermes/internal/versions"
)

// The states of an Outcome.
const (
	stateSwitched  = "switched"  // the new version serves
	stateStays     = "stays"     // the old process serves on
	stateBack      = "back"      // the old version serves again
	stateDown      = "down"      // nothing serves
	stateUntouched = "untouched" // it came after one that failed
	statePinned    = "pinned"    // a person pinned it to another version
	stateOff       = "off"       // it does not run
)

// handOverAll hands the members over one after the other, and ends at the first
// that is not healthy.
func (u *Updater) handOverAll(ctx context.Context, members []Member, t target) error {
	var failed error
	for i, m := range members {
		o := Outcome{Profile: m.Profile.Name, Name: m.Name, From: m.Version, Now: m.Version, PID: m.PID}
		pinned, mine, pin := pinOf(m)
		switch {
		case pinned && !mine:
			o.State, o.Why = statePinned, fmt.Sprintf("it is pinned to %s", pin.Path)
			if m.Running {
				u.Say("- %s stays as it is: %s (%s names it)", m.Name, o.Why, versions.PinFile(m.Profile))
			}
		case !m.Running:
			o.State = stateOff
			u.noteBrought(m, t.program, t.version)
			if failed == nil && mine && m.Starts != "" { // it is started by a program that stays behind
				failed = u.pin(m.Profile, t)
			}
		case failed == nil && ctx.Err() != nil:
			o.State = stateUntouched
			failed = domain.E(domain.Cancelled, ctx.Err(), "it was ended before %s was handed over; run `hermes update` again, which goes on from there, or `hermes update --rollback`", m.Name)
		case failed != nil:
			o.State = stateUntouched
		default:
			failed = u.handOver(ctx, members[:i], m, t, &o)
		}
		u.result.Members = append(u.result.Members, o)
	}
	return failed
}

// handOver lets the target serve in a member's place. What went before within
// the same profile goes back with it.
func (u *Updater) handOver(ctx context.Context, before []Member, m Member, t target, o *Outcome) error {
	u.noteBrought(m, t.program, t.version)
	if m.Version == t.version && sameFile(m.Program, t.program) {
		o.State = stateSwitched
		return u.pin(m.Profile, t)
	}
	old, err := keep(u.UserHome, m.Version, m.Program)
	if err != nil {
		o.State, o.Why = stateStays, domain.MessageOf(err)
		return err
	}
	u.log.step("handing %s over from %s (PID %d) to %s", m.Name, m.Version, m.PID, t.version)
	if m.Scheduler { // it goes by the pin alone
		if err := u.pin(m.Profile, t); err != nil {
			o.State, o.Why = stateStays, domain.MessageOf(err)
			return err
		}
		failpoint.Hit(failpoint.UpdatePinned)
	}
	now, err := u.Fleet.Switch(ctx, m, t.program, t.version)
	if err == nil {
		failpoint.Hit(failpoint.UpdateHanded)
		if !m.Scheduler {
			err = u.pin(m.Profile, t)
			failpoint.Hit(failpoint.UpdatePinned)
		}
		o.State, o.Now, o.PID = stateSwitched, now.Version, now.PID
		u.log.line(fmt.Sprintf("✓ Restarted %s (PID %d, version %s)", m.Name, now.PID, now.Version))
		u.Say("✓ Restarted %s (PID %d, version %s)", m.Name, now.PID, now.Version)
		return err
	}
	why := domain.MessageOf(err)
	u.log.line("! " + m.Name + ": " + why)
	ctx = context.WithoutCancel(ctx) // what was begun is taken back also after Ctrl-C
	u.restorePin(m)
	u.goBack(ctx, m, target{m.Version, old}, o)
	u.restorePin(m)
	for _, b := range before { // the gateway of the profile whose scheduler failed
		if b.Running && b.Profile.Name == m.Profile.Name {
			u.returnOther(ctx, b)
		}
	}
	o.Why = why
	return domain.E(domain.Unavailable, err, "%s is not well on %s: %s. %s; what comes after it was left as it is", m.Name, t.version, why, u.said(m, o))
}

// restorePin makes the profile's pin what it was before the update.
func (u *Updater) restorePin(m Member) {
	var err error
	if was := u.pins[m.Profile.Name]; was.Path != "" {
		err = versions.SetPin(m.Profile, was)
	} else {
		err = versions.Unpin(m.Profile)
	}
	if err != nil {
		u.Say("! %s", domain.MessageOf(err))
	}
}

// said tells what serves after a switch that failed.
func (u *Updater) said(m Member, o *Outcome) string {
	switch o.State {
	case stateStays:
		return fmt.Sprintf("It stays on %s (PID %d)", o.Now, o.PID)
	case stateBack:
		return fmt.Sprintf("It went back to %s (PID %d)", o.Now, o.PID)
	}
	flag := ""
	if m.Profile.Name != "default" {
		flag = " -p " + m.Profile.Name
	}
	return fmt.Sprintf("It could not be brought back to %s; `hermes%s gateway start` starts it, `hermes%[2]s gateway status` shows how it is", m.Version, flag)
}

// goBack makes a member run its old version again, if it does not already.
func (u *Updater) goBack(ctx context.Context, m Member, old target, o *Outcome) {
	now := u.Fleet.Look(ctx, m)
	if now.Running && now.Version == m.Version {
		o.State, o.Now, o.PID = stateStays, now.Version, now.PID
		if now.PID != m.PID {
			o.State = stateBack
		}
		return
	}
	u.log.step("bringing %s back to %s", m.Name, m.Version)
	u.Say("  %s is brought back to %s", m.Name, m.Version)
	if now.PID == 0 {
		now.PID = m.PID
	}
	again, err := u.Fleet.Switch(ctx, now, old.program, old.version)
	if err == nil {
		o.State, o.Now, o.PID = stateBack, again.Version, again.PID
		return
	}
	u.log.line("! " + m.Name + ": " + domain.MessageOf(err))
	if now = u.Fleet.Look(ctx, m); now.Running && now.Version == m.Version {
		o.State, o.Now, o.PID = stateBack, now.Version, now.PID
		return
	}
	o.State, o.Now, o.PID = stateDown, now.Version, now.PID
}

// returnOther takes a member back that was handed over before the one of the
// same profile that failed.
func (u *Updater) returnOther(ctx context.Context, m Member) {
	for i := range u.result.Members {
		o := &u.result.Members[i]
		if o.Name != m.Name || o.State != stateSwitched {
			continue
		}
		if old, err := versions.File(u.UserHome, m.Version); err == nil {
			u.goBack(ctx, m, target{m.Version, old}, o)
		}
	}
}
