package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"hermes/internal/domain"
	"hermes/internal/home"
	"hermes/internal/service"
	"hermes/internal/succession"
)

// installed is what of a profile --all acts on.
type installed struct {
	profile   home.Profile
	gateway   bool // a gateway's unit, or a process
	scheduler bool // the unit of a scheduler alone
	// left is an instance of a gateway's template that is neither enabled nor
	// running, which only its own profile's command starts; "" for none.
	left string
}

// everyInstalled lists the profiles with what is installed or runs of each. With
// cronOnly the gateways are left out.
func (a *App) everyInstalled(ctx context.Context, host service.Host, system, cronOnly bool) ([]installed, error) {
	profiles, err := home.List(a.Root())
	if err != nil {
		return nil, err
	}
	out := make([]installed, 0, len(profiles))
	for _, p := range profiles {
		one := installed{profile: p}
		if !cronOnly {
			u, findErr := host.Find(ctx, p, system)
			_, held := succession.Holder(p)
			one.gateway = findErr == nil && u.Installed() || held
			if findErr == nil && !one.gateway && setUp(p) {
				one.left = strings.TrimSuffix(u.Name, ".service")
			}
		}
		u, err := host.FindKind(ctx, service.Cron, p, system)
		one.scheduler = err == nil && u.Installed()
		out = append(out, one)
	}
	return out, nil
}

// sayIfNone says that there is nothing to act on, which silence would not.
func (a *App) sayIfNone(all []installed) {
	if !slices.ContainsFunc(all, func(one installed) bool { return one.gateway || one.scheduler }) {
		fmt.Fprintln(a.Out, "No profile has a unit or runs.")
	}
}

// operateAll acts on every profile: its gateway and the unit of its scheduler
// alone, whichever there are. A start and a restart end at the first that does
// not serve, so that one mistake does not take them all down.
func (a *App) operateAll(ctx context.Context, system, cronOnly bool, verb string) error {
	host := service.NewHost(service.Me(a.UserHome()), a.getenv)
	all, err := a.everyInstalled(ctx, host, system, cronOnly)
	if err != nil {
		return err
	}
	a.sayIfNone(all)
	var failed []error
	for _, one := range all {
		p := one.profile
		if one.left != "" && verb != "stop" {
			fmt.Fprintf(a.Out, "%s is neither enabled nor running and was left; `hermes%s gateway start` starts it\n", one.left, profileFlag(p))
		}
		var steps []func() error
		if one.gateway {
			steps = append(steps, func() error { return a.operate(ctx, host, p, system, verb) })
		}
		if one.scheduler {
			steps = append(steps, func() error { return a.operateScheduler(ctx, host, p, system, verb) })
		}
		if verb == "stop" { // else the scheduler would begin what the gateway leaves
			slices.Reverse(steps)
		}
		for _, step := range steps {
			err := step()
			if err != nil && verb != "stop" {
				return domain.E(domain.CodeOf(err), err, "profile %s does not serve, so the profiles after it were left as they are", p.Name)
			}
			if err != nil {
				failed = append(failed, fmt.Errorf("%s: %w", p.Name, err))
			}
		}
	}
	return errors.Join(failed...)
}

// installAll makes a service of every profile, and ends at the first that does
// not serve. A profile that has the unit of a scheduler alone, and no gateway's,
// keeps to that.
func (a *App) installAll(ctx context.Context, f installFlags) error {
	if f.system { // whose units they are to be is known first
		account, err := a.runAs(f.runAs)
		if err != nil {
			return err
		}
		return a.installEach(ctx, f, account)
	}
	return a.installEach(ctx, f, service.Me(a.UserHome()))
}

func (a *App) installEach(ctx context.Context, f installFlags, account service.Account) error {
	request := a.request()
	request.UserHome = account.Home
	first, err := home.Resolve(request)
	if err != nil {
		return err
	}
	profiles, err := home.List(first.Root)
	if err != nil {
		return err
	}
	host := service.NewHost(account, a.getenv)
	profiles = slices.DeleteFunc(profiles, func(p home.Profile) bool { return !setUp(p) })
	if len(profiles) == 0 {
		return domain.E(domain.NotFound, nil, "no profile is set up yet, so nothing was installed; `hermes setup` sets one up")
	}
	for _, p := range profiles {
		its := f
		if !f.cronOnly && !f.print {
			u, err := host.Find(ctx, p, f.system)
			alone, cronErr := host.FindKind(ctx, service.Cron, p, f.system)
			none := domain.IsCode(err, domain.NotFound) || err == nil && !u.Installed()
			its.cronOnly = none && cronErr == nil && alone.Installed()
		}
		if !f.print {
			fmt.Fprintf(a.Out, "%s:\n", p.Name)
		}
		if its.cronOnly && !f.cronOnly {
			fmt.Fprintf(a.Out, "  It has the unit of a scheduler alone and keeps to that; `hermes%s gateway install` gives it a gateway.\n", profileFlag(p))
		}
		if err := a.forProfile(p).install(ctx, its); err != nil {
			return domain.E(domain.CodeOf(err), err, "profile %s was not installed, so the profiles after it were left as they are", p.Name)
		}
	}
	return nil
}

// uninstallAll takes away what is installed of every profile, also where one of
// them refuses.
func (a *App) uninstallAll(ctx context.Context, system, cronOnly bool) error {
	host := service.NewHost(service.Me(a.UserHome()), a.getenv)
	all, err := a.everyInstalled(ctx, host, system, cronOnly)
	if err != nil {
		return err
	}
	a.sayIfNone(all)
	var failed []error
	for _, one := range all {
		kinds := []service.Kind{service.Cron, service.Gateway}
		if cronOnly {
			kinds = kinds[:1]
		}
		for _, kind := range kinds {
			if kind == service.Cron && !one.scheduler || kind == service.Gateway && !one.gateway {
				continue
			}
			err := a.uninstall(ctx, host, kind, one.profile, system)
			if domain.IsCode(err, domain.NotFound) {
				fmt.Fprintf(a.Out, "  the gateway of %s was started by hand and was left: `hermes%s gateway stop`\n", one.profile.Name, profileFlag(one.profile))
			} else if err != nil {
				failed = append(failed, fmt.Errorf("%s: %w", one.profile.Name, err))
			}
		}
	}
	return errors.Join(failed...)
}

// setUp tells whether a profile is used: one that was made, or the default one with
// anything to be served by.
func setUp(p home.Profile) bool {
	if p.Name != home.DefaultProfile {
		return true
	}
	for _, name := range []string{"config.yaml", ".env"} {
		if _, err := os.Stat(p.Path(name)); err == nil {
			return true
		}
	}
	return false
}

// forProfile is this command for another profile.
func (a *App) forProfile(p home.Profile) *App {
	its := *a
	its.profileName, its.profileSet, its.profile, its.env, its.served = p.Name, true, &p, nil, nil
	return &its
}
