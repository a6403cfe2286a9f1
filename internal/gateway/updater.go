package gateway

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"time"

	"hermes/internal/conversation"
	"hermes/internal/domain"
	"hermes/internal/succession"
	"hermes/internal/update"
)

// updateCommand is /update in a chat. It runs after the session's turn; another
// process does the update, outlives this one, and tells the chat how it went.
func (g *Gateway) updateCommand(ctx context.Context, c conversation.Call) (conversation.Reply, error) {
	if known, err := g.gate.Named(ctx, c.In.Source); err != nil {
		return conversation.Reply{}, err
	} else if !known {
		return conversation.Reply{}, domain.E(domain.Forbidden, nil, "only people whom the operator let in by name may update me: by their id on a list of allowed users, or by an approved pairing")
	}
	if c.Args != "" && c.Args != "rollback" {
		return conversation.Reply{}, domain.E(domain.Invalid, nil, "/update brings the newest version, /update rollback goes back to the one before; everything else is done in a shell, by `hermes update`")
	}
	if err := update.UnderWay(g.processEnv("HOME")); err != nil {
		return conversation.Reply{}, err
	}
	argv, err := g.updaterArgs(c.In.Address, c.Args == "rollback")
	if err != nil {
		return conversation.Reply{}, err
	}
	what := "Looking for a newer version"
	if c.Args != "" {
		what = "Going back to the version before"
	}
	return conversation.Reply{Text: "⏬ " + what + "; I write here how it went.", After: func() { go g.beginUpdate(c.In.Address, argv) }}, nil
}

// updaterLimit bounds how long it takes to start the process that updates.
const updaterLimit = 15 * time.Second

// updaterArgs is the command line that starts an update which is neither our
// descendant nor in our control group: what is either may not replace us, and
// would end with us. Errors: Unavailable, where no such process can be started.
func (g *Gateway) updaterArgs(to domain.Address, back bool) ([]string, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, domain.E(domain.Internal, err, "the path of this program is unknown")
	}
	self = strings.TrimSuffix(self, " (deleted)") // where another was put in its place
	argv := []string{self, "--profile", g.Profile.Name, "update", "--yes", "--report-to", to.String()}
	if back {
		argv = append(argv, "--rollback")
	}
	if !succession.UnitMain(g.processEnv) {
		// The shell ends at once, so that the process becomes an orphan.
		return append([]string{"/bin/sh", "-c", `"$@" </dev/null >/dev/null 2>&1 &`, "sh"}, argv...), nil
	}
	run, err := exec.LookPath("systemd-run")
	if err != nil || g.processEnv("XDG_RUNTIME_DIR") == "" {
		return nil, domain.E(domain.Unavailable, err, "from here no update can be started: this gateway is a unit of the system, or systemd-run is missing; type `hermes update` in a shell")
	}
	unit := []string{run, "--user", "--quiet", "--collect", "--property=Type=exec", fmt.Sprintf("--unit=hermes-update-%d", g.Now().Unix())}
	for _, name := range []string{"HERMES_HOME", "HERMES_UPDATE_URL", "HERMES_GATEWAY_LOCK_DIR", "XDG_CONFIG_HOME", "PATH"} {
		if g.processEnv(name) != "" {
			unit = append(unit, "--setenv="+name) // its value is taken from our environment; an address may hold a password
		}
	}
	return append(unit, argv...), nil
}

// beginUpdate starts the update, and tells the chat when that was not possible.
func (g *Gateway) beginUpdate(to domain.Address, argv []string) {
	ctx, cancel := context.WithTimeout(context.Background(), updaterLimit)
	defer cancel()
	g.Log.Info("an update was asked for", "component", "gateway", "reason", "/update in a chat")
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Env = withoutNames(succession.WithoutLegacy(g.Process), "NOTIFY_SOCKET", "WATCHDOG_USEC", "INVOCATION_ID", "JOURNAL_STREAM", "SYSTEMD_EXEC_PID")
	cmd.WaitDelay = time.Second
	if out, err := cmd.CombinedOutput(); err != nil {
		why := lastLine(string(out))
		g.Log.Error("the update could not be started", "component", "gateway", "err", err, "said", why)
		g.tell(ctx, to, fmt.Sprintf("⚠️ The update could not be started (%v). Type `hermes update` in a shell. %s", err, g.Redactor.Redact(why)))
	}
}

// withoutNames leaves variables out of an environment.
func withoutNames(environ []string, names ...string) []string {
	out := make([]string, 0, len(environ))
	for _, kv := range environ {
		name, _, _ := strings.Cut(kv, "=")
		keep := true
		for _, n := range names {
			keep = keep && n != name
		}
		if keep {
			out = append(out, kv)
		}
	}
	return out
}
