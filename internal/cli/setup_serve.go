package cli

import (
	"context"
	"fmt"
	"net"
	"strconv"
	"strings"

	"hermes/internal/domain"
	"hermes/internal/home"
	"hermes/internal/service"
	"hermes/internal/succession"
)

// write shows the plan, asks for a last yes, and writes it.
func (w *wizard) write(ctx context.Context) (changed bool, err error) {
	_, cfg, problems, err := w.plan.Load()
	if err != nil {
		return false, err
	}
	w.summary(cfg)
	for _, p := range problems {
		if p.Severity != home.Notice {
			wrap(w.Err, "! ", p.String())
		}
	}
	if w.q != nil && (len(w.plan.Changed()) > 0 || len(w.further) > 0) {
		yes, err := w.q.sure(ctx, "Write this?", true)
		if err != nil {
			return false, err
		}
		if !yes {
			return false, domain.E(domain.Cancelled, nil, "nothing was changed")
		}
	}
	files, err := w.plan.Write(home.By{Command: "setup", Version: Version()})
	if err != nil {
		return false, err
	}
	w.env = nil // what was loaded is of before
	if len(files) == 0 {
		fmt.Fprintln(w.Out, "It was set up like this already; no file was changed.")
	} else {
		fmt.Fprintf(w.Out, "✓ Written: %s\n", strings.Join(files, "\n           "))
	}
	return len(files) > 0, w.makeFurther()
}

// summary says what is about to be written.
func (w *wizard) summary(cfg *home.Config) {
	w.heading("This is what it comes to:")
	if w.q == nil {
		return
	}
	api := "off"
	if cfg.API.Enabled {
		api = "http://" + net.JoinHostPort(cfg.API.Host, strconv.Itoa(cfg.API.Port))
		if cfg.API.Key.IsSet() {
			api += ", with a key"
		}
	}
	chats := "none"
	if names := w.named(cfg); len(names) > 0 {
		chats = strings.Join(names, ", ")
	}
	for _, row := range [][2]string{{"Model", modelTitle(cfg.Model)}, {"Chat", chats}, {"API", api}, {"Further", strings.Join(w.further, ", ")}} {
		if row[1] != "" {
			wrap(w.Err, fmt.Sprintf("  %-8s ", row[0]), row[1])
		}
	}
}

// makeFurther makes the further profiles: the same model, no bot, a port and a
// key of their own.
func (w *wizard) makeFurther() error {
	for _, name := range w.further {
		made, err := home.Create(w.p.Root, home.CreateOptions{Name: name, From: &w.p})
		if err != nil {
			return err
		}
		fmt.Fprintf(w.Out, "✓ Profile %s in %s\n", name, made.Profile.Home)
		one := &wizard{App: w.App, p: made.Profile, vars: map[string]string{}}
		if one.plan, err = home.NewPlan(made.Profile, []string{"HOME=" + w.UserHome()}); err != nil {
			return err
		}
		cfg, err := one.config()
		if err != nil {
			return err
		}
		if cfg.API.Enabled {
			want := apiLocal
			if !isLoopback(cfg.API.Host) {
				want = apiRemote
			}
			one.f.apiHost, one.freshKey = cfg.API.Host, cfg.API.Key.IsSet()
			cfg.API.Enabled = false // port and key are still the first profile's
			if err := one.useAPI(cfg, want, one.freePort(cfg)); err != nil {
				return err
			}
		}
		if _, err := one.plan.Write(home.By{Command: "setup", Version: Version()}); err != nil {
			return err
		}
		fmt.Fprintf(w.Out, "  Its own bot and service: hermes -p %s setup\n", name)
	}
	return nil
}

// serve installs the service, brings a change in force, and proves the whole.
func (w *wizard) serve(ctx context.Context, changed bool) error {
	_, ran := succession.Holder(w.p)
	if !w.f.noInstall && !w.f.onlyPlatforms {
		if err := w.installUnit(ctx); err != nil {
			return err
		}
	}
	if ran && changed {
		if err := w.comeInForce(ctx); err != nil {
			return err
		}
	}
	if _, runs := succession.Holder(w.p); !runs {
		flag := profileFlag(w.p)
		fmt.Fprintf(w.Out, "Next: hermes%[1]s gateway run, or hermes%[1]s gateway install; then hermes%[1]s gateway verify\n", flag)
		return nil
	}
	w.heading("The proof:")
	return w.verify(ctx, false, w.f.noSend || w.f.noCheck)
}

// installUnit makes a service of it, where there is a systemd and it is wanted.
func (w *wizard) installUnit(ctx context.Context) error {
	if _, err := service.Open(false, w.getenv); err != nil {
		wrap(w.Out, "! ", "No service was installed: "+domain.MessageOf(err))
		return nil
	}
	if w.q != nil {
		w.heading("A service lives on when you log out, and comes back after a crash and at boot.")
		yes, err := w.q.sure(ctx, "Install it?", true)
		if err != nil || !yes {
			return err
		}
	}
	return w.install(ctx, installFlags{start: true, ready: string(service.Notify), noLinger: w.f.noLinger})
}

// comeInForce restarts a gateway that ran before the change.
func (w *wizard) comeInForce(ctx context.Context) error {
	if w.q != nil {
		yes, err := w.q.sure(ctx, "The gateway runs with what was set before. Restart it now? Nothing is lost by it.", true)
		if err != nil || !yes {
			return err
		}
	}
	return w.operate(ctx, service.NewHost(service.Me(w.UserHome()), w.getenv), w.p, false, "restart")
}
