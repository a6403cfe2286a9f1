package doctor

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"hermes/internal/control"
	"hermes/internal/service"
	"hermes/internal/succession"
	"hermes/internal/update"
	"hermes/internal/versions"
)

// programFacts are about the program: the one that runs, the one that would be
// started, and what updates left.
type programFacts struct {
	Known   bool
	Running string // path of the file that the gateway runs, without the mark of a deleted one; "" when it does not run
	Deleted bool   // that file is not there any more, or is another one by now
	Target  string // what would be started
	From    string // what names Target
	Version string // of Target; "" when it does not say
	Same    bool   // Target is the very file that runs
	Updates update.Standing
	Others  []otherVersion // the neighbours that are served
}

// otherVersion is what serves another profile.
type otherVersion struct {
	Profile, Version, Target string
	Chosen                   bool // a person pinned it
}

// askProgramLimit bounds the wait for a program that is asked for its version.
const askProgramLimit = 2 * time.Second

// askPrograms finds out which program serves, which would be started, and how
// the versions lie there.
func askPrograms(ctx context.Context, c *Case) func(*Case) {
	p := programFacts{Known: true, Updates: update.Look(c.Request.UserHome, c.Root)}
	if s := c.Gateway.Status; s != nil {
		if exe, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", s.PID)); err == nil {
			p.Running, p.Deleted = strings.CutSuffix(exe, " (deleted)")
		}
	}
	p.Target, p.From = c.startedNext()
	p.Same = p.Target != "" && p.Running != "" && sameFiles(p.Target, fmt.Sprintf("/proc/%d/exe", c.Gateway.Status.PID))
	switch {
	case p.Target == "":
	case p.Same:
		p.Version = c.Gateway.Status.Version
	case sameFiles(p.Target, c.Binary):
		p.Version = c.Version
	default:
		short, cancel := context.WithTimeout(ctx, askProgramLimit)
		defer cancel()
		p.Version = versions.Ask(short, p.Target)
	}
	for _, n := range c.Neighbours {
		if o, ok := c.otherVersion(ctx, n); ok {
			p.Others = append(p.Others, o)
		}
	}
	return func(c *Case) { c.Program = p }
}

// neighbourLimit bounds the wait for the gateway of another profile.
const neighbourLimit = 300 * time.Millisecond

// otherVersion asks what serves another profile, where it has a gateway.
func (c *Case) otherVersion(ctx context.Context, n neighbour) (o otherVersion, ok bool) {
	short, cancel := context.WithTimeout(ctx, neighbourLimit)
	defer cancel()
	s, err := control.Dial(control.SocketPath(n.Profile, c.env)).Status(short)
	if err != nil {
		return o, false
	}
	o = otherVersion{Profile: n.Name, Version: s.Version, Target: succession.StartedAs(s.PID)}
	if pin, pinned, _ := versions.Pinned(n.Profile); pinned {
		o.Target, o.Chosen = pin.Path, !update.Pins(pin)
	}
	return o, true
}

// startedNext is the program that would serve after a crash, and what names it.
func (c *Case) startedNext() (program, from string) {
	if c.Starts.Pinned {
		return c.Starts.Pin.Path, versions.PinFile(c.Profile)
	}
	s := c.Gateway.Status
	if u := c.Units.gatewayLive(); u != nil && u.Program != "" && (s == nil || u.MainPID == s.PID) {
		return u.Program, u.Name
	}
	if s != nil {
		if named := succession.StartedAs(s.PID); named != "" {
			return named, fmt.Sprintf("the command line of PID %d", s.PID)
		}
	}
	if f := c.Units.gatewayFile(); f != nil && filepath.IsAbs(f.Exec[0]) {
		return f.Exec[0], f.Path
	}
	return "", ""
}

func sameFiles(a, b string) bool {
	one, err1 := os.Stat(a)
	two, err2 := os.Stat(b)
	return err1 == nil && err2 == nil && os.SameFile(one, two)
}

// programChecks are about versions: updates that did not end, and programs that
// differ from each other.
func programChecks() []check {
	return []check{checkLink, checkUpdate, checkLeftovers, checkFolders, checkRunning, checkOldPin, checkProfilesDiffer, checkShellDiffers}
}

// checkLink says that the link to the version in use leads nowhere.
func checkLink(c *Case) []Finding {
	u := c.Program.Updates
	if u.LinkErr == nil || u.UnderWay != nil {
		return nil
	}
	link := versions.Current(c.Request.UserHome)
	best := ""
	for _, f := range u.Folders {
		if !f.Changed && (best == "" || update.Compare(f.Version, best) > 0 || f.Version == u.Version) && best != u.Version {
			best = f.Version
		}
	}
	fix := fmt.Sprintf("ln -sfn versions/%s %s", best, link)
	if best == "" {
		dir := filepath.Join(versions.Dir(c.Request.UserHome), u.Link)
		fix = fmt.Sprintf("mkdir -p %[1]s && cp %[2]s %[1]s/hermes", dir, c.Binary)
	}
	return []Finding{{ID: "service.current_link", Class: Service, Severity: Error, depth: ofSetting,
		explains: []string{"service.exec", "service.not_running", "service.crashed", "service.version_differs", "service.program_deleted", "service.update_partial", "service.two_programs"},
		What:     "the link to the version in use leads nowhere", Evidence: []string{fmt.Sprintf("%s names version %s, whose program is missing", link, u.Link)},
		Means: "Nothing that is started through it can be started: a crash or a reboot is the end.", Fix: c.thenIfDown(fix)}}
}

// releases tells whether an update knows where to look.
func (c *Case) releases() bool {
	if c.env("HERMES_UPDATE_URL") != "" || update.BuiltinURL() != "" || c.Config != nil && c.Config.Update.URL != "" {
		return true
	}
	return slices.ContainsFunc(c.Neighbours, func(n neighbour) bool { return n.Home == c.Root && n.Config != nil && n.Config.Update.URL != "" })
}

// checkUpdate says that an update did not come to its end.
func checkUpdate(c *Case) []Finding {
	u := c.Program.Updates
	if u.UnderWay != nil || u.Partial == nil && !u.Interrupted {
		return nil
	}
	f := Finding{ID: "service.update_interrupted", Class: Service, Severity: Advice, depth: ofSetting, explains: []string{"service.update_leftovers"},
		What: "the last update was interrupted", Evidence: []string{"logs/update.log ends with: " + cutTo(u.Ended, 200)},
		Means: "Nothing is half done: what serves and what is started is whole.", Fix: "hermes update"}
	if !c.releases() {
		f.Fix = "hermes update --from <archive>"
	}
	if p := u.Partial; p != nil {
		f.ID, f.Severity = "service.update_partial", Warning
		f.explains = append(f.explains, "service.update_interrupted", "service.pin_old", "service.version_differs", "service.versions_differ", "service.two_programs")
		f.What = fmt.Sprintf("the update from %s to %s did not come to its end", p.From, p.To)
		f.Evidence = append(f.Evidence, c.whoServes()...)
		f.Means = "Some profiles may be served by one version, and some by the other; both are here and work."
		if !c.releases() {
			f.Fix = "hermes update --rollback"
		} else {
			f.Evidence = append(f.Evidence, "`hermes update --rollback` goes back to "+p.From+" instead")
		}
	}
	return []Finding{f}
}

// whoServes tells which version serves which profile.
func (c *Case) whoServes() []string {
	var out []string
	if s := c.Gateway.Status; s != nil {
		out = append(out, fmt.Sprintf("%s is served by %s", c.Profile.Name, s.Version))
	}
	for _, o := range c.Program.Others {
		out = append(out, fmt.Sprintf("%s is served by %s", o.Profile, o.Version))
	}
	if l := c.Program.Updates.Link; l != "" {
		out = append(out, "what is started is "+l)
	}
	return []string{strings.Join(out, "; ")}
}

// checkLeftovers tells of archives and folders that updates began and left.
func checkLeftovers(c *Case) []Finding {
	u := c.Program.Updates
	if u.UnderWay != nil || len(u.Left) == 0 {
		return nil
	}
	return []Finding{{ID: "service.update_leftovers", Class: Service, Severity: Advice, depth: ofSetting, What: fmt.Sprintf("updates left %d MiB that nobody needs", u.LeftBytes>>20),
		Evidence: u.Left[:min(len(u.Left), 5)], Means: "It takes room on the disk, and does nothing else.", Fix: "rm -rf " + strings.Join(u.Left, " "),
		repair: func(context.Context) error {
			for _, path := range u.Left {
				if err := os.RemoveAll(path); err != nil {
					return err
				}
			}
			return nil
		}}}
}

// checkFolders judges the folders of versions.
func checkFolders(c *Case) []Finding {
	u := c.Program.Updates
	if u.UnderWay != nil {
		return nil
	}
	var out []Finding
	for _, f := range u.Folders {
		one := Finding{Class: Service, Severity: Error, depth: ofSetting, about: f.Version, Evidence: []string{f.Program}}
		switch {
		case f.Open != "":
			one.ID, one.What, one.about = "service.version_open", "other users of this machine can replace the program", f.Open
			one.Evidence, one.Means = []string{f.Open + " may be written by others"}, "Whoever can replace it runs what they like as this user."
			one.Fix = "chmod go-w " + f.Open
			one.repair = func(context.Context) error {
				info, err := os.Stat(f.Open)
				if err != nil {
					return err
				}
				return os.Chmod(f.Open, info.Mode().Perm()&^0o022)
			}
			if slices.ContainsFunc(out, func(o Finding) bool { return o.ID == one.ID && o.about == one.about }) {
				continue
			}
		case f.Changed:
			one.ID, one.What = "service.version_changed", fmt.Sprintf("the program of version %s is not the one that was verified", f.Version)
			one.Evidence = append(one.Evidence, "its SHA-256 is not the one in release.json beside it")
			one.Means = "It was damaged, or somebody put another in its place."
			one.Fix = "hermes update --to " + f.Version
			if !c.releases() {
				one.Fix = "hermes update --from <archive of " + f.Version + ">"
			}
			if f.Version != u.Link && !c.pinnedTo(f.Program) {
				one.Severity, one.Fix = Warning, "rm -rf "+filepath.Dir(f.Program)
			}
		case !f.Receipt && u.Version != "" && f.Version != u.Link && !c.pinnedTo(f.Program):
			one.ID, one.Severity, one.What = "service.version_unverified", Advice, fmt.Sprintf("version %s was put among the versions by hand", f.Version)
			one.Evidence = append(one.Evidence, "no release.json says what it was made of")
			one.Means, one.Fix = "`hermes update --rollback` may go to it, and nobody verified it.", "rm -rf "+filepath.Dir(f.Program)
		default:
			continue
		}
		out = append(out, one)
	}
	return out
}

// pinnedTo tells whether a known profile is pinned to a program.
func (c *Case) pinnedTo(program string) bool {
	return c.Starts.Pinned && sameFiles(c.Starts.Pin.Path, program) ||
		slices.ContainsFunc(c.Program.Others, func(o otherVersion) bool { return sameFiles(o.Target, program) })
}

// checkRunning compares the program that runs with the one that would be
// started.
func checkRunning(c *Case) []Finding {
	p, s := c.Program, c.Gateway.Status
	if s == nil || p.Running == "" || p.Same || p.Updates.UnderWay != nil {
		return nil
	}
	f := Finding{Class: Service, Severity: Warning, depth: ofSetting, explains: []string{"service.two_programs", "service.versions_differ"}, Fix: c.hermes("gateway restart"),
		Evidence: []string{fmt.Sprintf("PID %d runs version %s, %s", s.PID, s.Version, p.Running)}}
	_, gone := os.Stat(p.Target)
	switch {
	case p.Target == "" || gone != nil:
		if !p.Deleted {
			return nil // it serves from a copy of its own; what starts it is judged with its unit
		}
		f.ID, f.Severity, f.What = "service.program_deleted", Error, "the program that serves was deleted: "+p.Running
		f.Evidence = append(f.Evidence, fmt.Sprintf("/proc/%d/exe is marked (deleted)", s.PID))
		f.Means = "It serves on, and nothing can start it again: a crash or a reboot is the end."
		f.Fix = fmt.Sprintf("cp %s %s && ", c.Binary, p.Running) + c.hermes("gateway restart")
	case p.Deleted:
		f.ID, f.What = "service.program_replaced", "the program was replaced since the gateway was started"
		f.Evidence = append(f.Evidence, fmt.Sprintf("/proc/%d/exe is marked (deleted), and %s (%s) is version %s", s.PID, p.Target, p.From, orNone(p.Version)))
		f.Means = "The one before serves until it is restarted."
	case p.Version != "" && p.Version != s.Version:
		f.ID, f.What = "service.version_differs", fmt.Sprintf("version %s serves, and %s would be started", s.Version, p.Version)
		f.Evidence = append(f.Evidence, fmt.Sprintf("%s names %s, version %s", p.From, p.Target, p.Version))
		f.Means = "After a crash or a reboot another version serves than now."
	default:
		return nil
	}
	return []Finding{f}
}

// checkOldPin finds a pin that an update left which is over.
func checkOldPin(c *Case) []Finding {
	pin, u := c.Starts.Pin, c.Program.Updates
	if !c.Starts.Pinned || !update.Pins(pin) || u.UnderWay != nil || u.Partial != nil || u.Version == "" || pin.Version == u.Version {
		return nil
	}
	return []Finding{{ID: "service.pin_old", Class: Service, Severity: Warning, depth: ofSetting, explains: []string{"service.versions_differ", "service.two_programs", "service.version_differs"},
		What:     fmt.Sprintf("an update that is over keeps this profile on version %s, and %s is installed", pin.Version, u.Version),
		Evidence: []string{fmt.Sprintf("%s: %s, of %s", versions.PinFile(c.Profile), pin.Path, pin.At.Local().Format("2006-01-02 15:04"))},
		Means:    "Updates pass the profile by, whatever its unit starts.", Fix: c.thenServed("rm " + versions.PinFile(c.Profile))}}
}

// thenServed brings a change in force where a gateway runs.
func (c *Case) thenServed(command string) string {
	if c.Gateway.Status == nil {
		return command
	}
	return command + " && " + c.hermes("gateway restart")
}

// checkProfilesDiffer finds a profile that is served by an older version than
// another one, where nobody chose that.
func checkProfilesDiffer(c *Case) []Finding {
	s, p := c.Gateway.Status, c.Program
	if s == nil || p.Updates.UnderWay != nil || c.Starts.Pinned && !update.Pins(c.Starts.Pin) {
		return nil
	}
	for _, o := range p.Others {
		if o.Version == s.Version || o.Chosen || o.Target == "" || !update.ValidVersion(o.Version) || !update.ValidVersion(s.Version) || update.Compare(o.Version, s.Version) < 0 {
			continue
		}
		return []Finding{{ID: "service.versions_differ", Class: Service, Severity: Warning, depth: ofSetting, explains: []string{"service.two_programs"},
			What:     fmt.Sprintf("the profile %s is served by %s, and %s by %s", o.Profile, o.Version, c.Profile.Name, s.Version),
			Evidence: []string{fmt.Sprintf("%s starts %s", p.From, p.Target), fmt.Sprintf("%s is served by %s", o.Profile, o.Target)},
			Means:    "An update of the one leaves the other behind.", Fix: c.useProgram(o.Target)}}
	}
	return nil
}

// useProgram lets another program serve the profile from now on.
func (c *Case) useProgram(program string) string {
	flag := c.flag()
	if f := c.Units.gatewayFile(); f != nil {
		if service.OriginOf(f.Text) == service.Generated && c.Units.managed() {
			return fmt.Sprintf("%[1]s%[2]s gateway install && %[1]s%[2]s gateway restart", program, flag)
		}
		fix := fmt.Sprintf("sed -i 's|^ExecStart=[^ ]*|ExecStart=%s|' %s", program, f.Path)
		if !c.Units.managed() {
			return fix
		}
		return fix + " && " + systemctl(f.System, "daemon-reload") + " && " + systemctl(f.System, "restart "+f.Name)
	}
	return fmt.Sprintf("%s%s gateway run --replace", program, flag)
}

// checkShellDiffers says that a shell runs another version than serves.
func checkShellDiffers(c *Case) []Finding {
	s, p := c.Gateway.Status, c.Program
	if s == nil || c.Starts.Pinned || p.Target == "" || p.Version == "" || p.Version == c.Version || sameFiles(p.Target, c.Binary) || p.Updates.UnderWay != nil ||
		!update.ValidVersion(c.Version) || !update.ValidVersion(p.Version) {
		return nil
	}
	f := Finding{ID: "service.two_programs", Class: Service, Severity: Warning, depth: ofSetting,
		What:     fmt.Sprintf("commands are run by version %s, and the gateway is started from %s, which is %s", c.Version, p.Target, p.Version),
		Evidence: []string{"this command is " + c.Binary, fmt.Sprintf("%s names %s", p.From, p.Target)},
		Means:    "An update of the one leaves the other behind.", Fix: c.useProgram(c.Binary)}
	switch older := update.Compare(c.Version, p.Version) < 0; {
	case older && c.releases():
		f.Fix = "hermes update"
	case older:
		f.Fix = fmt.Sprintf("cp %[1]s %[2]s.new && mv %[2]s.new %[2]s", p.Target, c.Binary)
	}
	return []Finding{f}
}
