package cli

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"

	"hermes/internal/domain"
	"hermes/internal/gateway"
	"hermes/internal/service"
	"hermes/internal/starts"
	"hermes/internal/succession"
)

// chosenEnv tells a program that it was chosen for this start, as "PID REASON",
// so that it does not choose again.
const chosenEnv = "HERMES_PROGRAM_CHOSEN"

// insteadOf is the reason of a program that runs because another one died.
const insteadOf = "fallback"

// runChosen goes on as the program that is to serve the profile, where that is
// another than this one: the one that it is pinned to, or the one that served
// healthily last. A successor in a hand-over was chosen by its predecessor. It
// returns when this program is to serve; instead says that another one died.
func (a *App) runChosen(o serveOptions) (instead bool, err error) {
	if text, ok := a.Lookup(chosenEnv); ok {
		pid, reason, _ := strings.Cut(text, " ")
		a.Environ = without(a.Environ, chosenEnv)
		if pid == strconv.Itoa(os.Getpid()) {
			return reason == insteadOf, nil
		}
	}
	if succession.Inherits(a.Environ) {
		return false, nil
	}
	p, err := a.Profile()
	if err != nil {
		return false, err
	}
	path, why, warn := gateway.Preparation{
		Profile: p, Process: a.Environ, Version: Version(), Now: a.Now, CronOnly: o.cronOnly,
		Limit: func() starts.Limit { return service.OwnLimit(context.Background(), a.getenv) },
	}.Program()
	if warn != nil {
		fmt.Fprintf(a.Err, "hermes: %s\n", domain.MessageOf(warn))
	}
	if path == "" {
		return why != "", nil
	}
	reason := "pin"
	if why != gateway.Pinned {
		reason = insteadOf
	}
	fmt.Fprintf(a.Err, "hermes: %s serves the profile %s: %s\n", path, p.Name, why)
	env := append(without(a.Environ, chosenEnv), chosenEnv+"="+strconv.Itoa(os.Getpid())+" "+reason)
	// Under the name of what was started, since a restart by hand goes back to that.
	err = syscall.Exec(path, append([]string{os.Args[0]}, a.args...), env)
	fmt.Fprintf(a.Err, "hermes: %s cannot be run (%v), so this program serves\n", path, err)
	return false, nil
}

// without leaves a variable out of an environment.
func without(environ []string, name string) []string {
	out := make([]string, 0, len(environ))
	for _, kv := range environ {
		if !strings.HasPrefix(kv, name+"=") {
			out = append(out, kv)
		}
	}
	return out
}

// parkOr waits in place of ending with an error, where ending helps nobody: the
// unit's manager would give it up after this start, or would never, or does not
// know that a configuration does not mend itself. Then the start begins anew.
func (a *App) parkOr(ctx context.Context, failed error, start *gateway.Prepared, o gateway.Options) error {
	if !a.parks(ctx, failed, start) {
		return failed
	}
	o.Process, o.Version, o.Now = a.Environ, Version(), a.Now
	fmt.Fprintf(a.Err, "hermes: the start came to nothing and is tried again by and by, since another start by the manager could be its last: %s\n", domain.MessageOf(failed))
	told := a.tellParked(ctx, o.Profile, failed)
	err := gateway.Park(ctx, o, failed)
	told()
	if err != nil {
		return nil //nolint:nilerr // it was asked to stop, and that is done
	}
	argv := append([]string{os.Args[0]}, a.args...)
	err = syscall.Exec("/proc/self/exe", argv, succession.WithoutLegacy(a.Environ)) // the link names our file also when it was replaced
	return domain.E(domain.Internal, err, "the start could not be begun anew after: %s", domain.MessageOf(failed))
}

// parks tells whether a start that failed waits.
func (a *App) parks(ctx context.Context, failed error, start *gateway.Prepared) bool {
	if start.Safe.Life == nil || start.Waits {
		return false
	}
	limit := service.OwnLimit(ctx, a.getenv)
	switch {
	case !limit.Managed:
		return false
	case domain.IsCode(failed, domain.Config):
		return limit.Known && !limit.Stops
	}
	return start.Safe.Plan.LastChance || !limit.Effective()
}
