package cli

import (
	"bufio"
	"cmp"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"hermes/internal/domain"
	"hermes/internal/home"
	"hermes/internal/succession"
	"hermes/internal/update"
)

// updateFlags are the flags of `hermes update`.
type updateFlags struct {
	check, rollback, asJSON, yes, ownCopy bool
	version, from, channel, reportTo      string
}

func newUpdateCommand(app *App) *cobra.Command {
	var f updateFlags
	cmd := &cobra.Command{
		Use: "update", Short: "Bring a new version, and hand every running profile over to it", Args: cobra.NoArgs,
		Long: "Fetches a release, holds it to its sum and signature, asks it whether it could serve each\n" +
			"profile, hands the running ones over to it one after the other, and makes it what is\n" +
			"started from then on. A profile that is not well on it goes back to the old version at\n" +
			"once, and the ones after it are not touched. Interrupted at any point it leaves a\n" +
			"working installation; run it again and it goes on. logs/update.log tells each step.\n\n" +
			"Exit code: 0 updated, or nothing newer; 1 not updated, or a profile stays behind; 2 wrong usage.",
		Example: "  hermes update --check\n  hermes update\n  hermes update --from ./hermes_1.2.3_linux_amd64.tar.gz\n  hermes update --rollback",
		RunE:    func(cmd *cobra.Command, _ []string) error { return app.update(cmd.Context(), f) },
	}
	fs := cmd.Flags()
	fs.BoolVar(&f.check, "check", false, "say whether there is a newer version, and change nothing")
	fs.StringVar(&f.version, "to", "", "this `VERSION`, also an older one")
	fs.StringVar(&f.from, "from", "", "`FILE|URL` of an archive, or of the folder that holds the index")
	fs.BoolVar(&f.rollback, "rollback", false, "go back to the version before")
	fs.StringVar(&f.channel, "channel", "", "stable or beta (default: update.channel)")
	fs.BoolVarP(&f.yes, "yes", "y", false, "do not ask")
	fs.BoolVar(&f.ownCopy, "own-copy", false, "where the program is not yours to replace: take a copy of your own in ~/.local")
	fs.StringVar(&f.reportTo, "report-to", "", "send how it went to this chat")
	_ = fs.MarkHidden("report-to") // /update uses it
	jsonFlag(cmd, &f.asJSON)
	return cmd
}

// toolMark stands in the environment of every command that the agent runs.
const toolMark = "HERMES_TOOL_RUN"

// update does what `hermes update` was told.
func (a *App) update(ctx context.Context, f updateFlags) error {
	if err := f.consistent(); err != nil {
		return err
	}
	if err := a.mayUpdate(f); err != nil {
		return err
	}
	u, err := a.updater(f)
	if err != nil {
		return err
	}
	result, err := a.runUpdate(ctx, u, f)
	if f.reportTo != "" {
		a.reportUpdate(f.reportTo, result, err)
	}
	if f.asJSON {
		if err != nil {
			result.Error = domain.MessageOf(err)
		}
		if jerr := a.JSON(result); jerr != nil || err == nil {
			return jerr
		}
		return &ExitError{Code: exitFailed}
	}
	if err != nil {
		return err
	}
	a.tellUpdate(result, f)
	return nil
}

// consistent finds flags that contradict each other. Errors: Invalid.
func (f updateFlags) consistent() error {
	switch {
	case f.rollback && (f.check || f.version != "" || f.from != ""):
		return domain.E(domain.Invalid, nil, "--rollback goes to the version before, so that it goes with neither --check, --to nor --from")
	case f.channel != "" && f.channel != "stable" && f.channel != "beta":
		return domain.E(domain.Invalid, nil, "--channel is stable or beta, not %q", f.channel)
	case f.version != "" && !update.ValidVersion(strings.TrimPrefix(f.version, "v")):
		return domain.E(domain.Invalid, nil, "%q is no version; --to takes one such as 1.2.3", f.version)
	}
	return nil
}

// mayUpdate refuses what the gateway's own agent and jobs run, which would
// replace what they live in. Errors: Forbidden.
func (a *App) mayUpdate(f updateFlags) error {
	if f.check {
		return nil
	}
	refused := domain.E(domain.Forbidden, nil, "refused, since the gateway runs this command: what it runs must not replace it. Send /update in a chat, which updates it after the turn, or ask the operator")
	if _, tool := a.Lookup(toolMark); tool {
		return refused
	}
	profiles, err := home.List(a.Root())
	if err != nil {
		return err
	}
	for _, p := range profiles {
		if r, held := succession.Holder(p); held && r.PID > 0 && succession.Ancestor(r.PID, os.Getpid()) {
			return refused
		}
	}
	return nil
}

// runUpdate does the work, telling how it goes.
func (a *App) runUpdate(ctx context.Context, u *update.Updater, f updateFlags) (update.Result, error) {
	if f.rollback {
		return u.Rollback(ctx)
	}
	source, channel, err := a.source(f)
	if err != nil {
		return update.Result{From: Version()}, err
	}
	if !f.asJSON {
		source.Progress = a.progress()
	}
	r := update.Request{Source: source, Version: f.version, Channel: channel}
	if f.check {
		return u.Check(ctx, r)
	}
	return u.Update(ctx, r)
}

// updater gathers what an update works on.
func (a *App) updater(f updateFlags) (*update.Updater, error) {
	file, err := os.Executable()
	if err != nil {
		return nil, domain.E(domain.Internal, err, "the path of this program is unknown")
	}
	inPath, _ := exec.LookPath("hermes")
	place := update.Locate(update.Surroundings{UserHome: a.UserHome(), Executable: file, Called: calledPath(), InPath: inPath})
	if f.ownCopy {
		place = place.Owned()
	}
	u := &update.Updater{
		UserHome: a.UserHome(), Root: a.Root(), Version: Version(), Program: "/proc/self/exe", Place: place,
		Fleet: newFleet(a), Platform: update.Platform(), Now: a.Now, Say: a.say,
	}
	if f.asJSON {
		u.Say = func(string, ...any) {}
	}
	if in, ok := a.In.(*os.File); ok && !f.yes && !f.asJSON && isTerminal(in) {
		u.Confirm = a.confirm
	}
	return u, nil
}

// confirm asks on the terminal. Only a yes, or an empty line, agrees.
func (a *App) confirm(question string) bool {
	fmt.Fprintf(a.Out, "%s [Y/n] ", question)
	line, err := bufio.NewReader(a.In).ReadString('\n')
	answer := strings.ToLower(strings.TrimSpace(line))
	return err == nil && (answer == "" || answer == "y" || answer == "yes")
}

// source is where releases come from: as the command line says, else the
// profile's configuration, else the default profile's, else the maker's. A
// configuration that cannot be read does not keep a better program away.
func (a *App) source(f updateFlags) (*update.Source, string, error) {
	cfg := a.updateConfig()
	keys, err := update.BuiltinKeys()
	if err != nil {
		return nil, "", err
	}
	more, err := update.ParseKeys(cfg.PublicKey)
	if err != nil {
		return nil, "", err
	}
	s, err := update.NewSource(cmp.Or(f.from, cfg.URL, update.BuiltinURL()), append(keys, more...))
	return s, cmp.Or(f.channel, cfg.Channel, "stable"), err
}

func (a *App) updateConfig() home.UpdateConfig {
	var out home.UpdateConfig
	if cfg, _, err := a.Config(); err == nil {
		out = cfg.Update
	}
	p := home.Profile{Name: home.DefaultProfile, Root: a.Root(), Home: a.Root()}
	env, _, err := home.LoadEnv(p, a.Environ)
	if err != nil {
		return out
	}
	if cfg, _, err := home.Load(p, env); err == nil {
		out.URL, out.PublicKey = cmp.Or(out.URL, cfg.Update.URL), cmp.Or(out.PublicKey, cfg.Update.PublicKey)
		if out.Channel == "" || out.Channel == "stable" {
			out.Channel = cfg.Update.Channel
		}
	}
	if url, _ := a.Lookup("HERMES_UPDATE_URL"); url != "" {
		out.URL = url
	}
	return out
}

// progress tells how much is there: in one line on a terminal, else at each quarter.
func (a *App) progress() func(done, total int64) {
	out, ok := a.Out.(*os.File)
	live := ok && isTerminal(out)
	told, shown := int64(-1), time.Time{}
	return func(done, total int64) {
		if total <= 0 {
			return
		}
		const mb = 1e6
		quarter := done * 4 / total
		switch {
		case live && (done == total || time.Since(shown) > 100*time.Millisecond):
			shown = time.Now()
			fmt.Fprintf(a.Out, "\r  %5.1f of %.1f MB", float64(done)/mb, float64(total)/mb)
			if done == total {
				fmt.Fprintln(a.Out)
			}
		case !live && quarter > told && quarter > 0:
			fmt.Fprintf(a.Out, "  %.1f of %.1f MB\n", float64(done)/mb, float64(total)/mb)
		}
		told = max(told, quarter)
	}
}

// tellUpdate prints how an update ended well.
func (a *App) tellUpdate(r update.Result, f updateFlags) {
	switch {
	case f.check && r.UpToDate:
		fmt.Fprintf(a.Out, "✓ %s is the newest version (there is %s)\n", r.From, r.Newest)
	case f.check:
		fmt.Fprintf(a.Out, "%s can be had; this is %s. `hermes update` brings it.\n", r.Newest, r.From)
	case r.UpToDate:
		fmt.Fprintf(a.Out, "✓ %s is the newest version\n", r.From)
	case f.rollback:
		fmt.Fprintf(a.Out, "✓ Went back to %s (was %s)\n", r.To, r.From)
	default:
		fmt.Fprintf(a.Out, "✓ Updated to %s (was %s)\n", r.To, r.From)
	}
	for _, v := range r.Removed {
		fmt.Fprintf(a.Out, "  removed %s, which nobody needs any more\n", v)
	}
}

// reportLimit bounds the message to the chat that asked.
const reportLimit = time.Minute

// reportUpdate tells the chat that asked how it went. The gateway sends it,
// whichever program that is by now.
func (a *App) reportUpdate(to string, r update.Result, failed error) {
	ctx, cancel := context.WithTimeout(context.Background(), reportLimit)
	defer cancel()
	text := fmt.Sprintf("✓ I was updated from %s to %s.", r.From, r.To)
	switch {
	case failed != nil:
		text = "⚠️ The update did not come to its end: " + domain.MessageOf(failed)
	case r.UpToDate:
		text = fmt.Sprintf("✓ %s is the newest version; nothing was changed.", r.From)
	}
	quiet := *a
	quiet.profile, quiet.env = nil, nil // read anew: the configuration may have been brought up to date
	if err := quiet.send(ctx, sendFlags{to: to, quiet: true, timeout: reportLimit}, []string{text}); err != nil {
		fmt.Fprintf(a.Err, "hermes: the chat was not told: %s\n", domain.MessageOf(err))
	}
}
