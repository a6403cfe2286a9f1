package doctor

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"hermes/internal/domain"
	"hermes/internal/home"
	"hermes/internal/plain"
	"hermes/internal/service"
)

// unitFacts are about the units that serve the profile.
type unitFacts struct {
	Booted     bool  // systemd runs this machine
	Manager    error // why the user's manager cannot be asked
	Silent     bool  // it was asked and did not answer in time
	ManagerPID int   // of a silent one; 0 unknown
	Lingers    bool
	Account    service.Account
	Files      []unitFile          // on disk, of this profile
	Live       []service.Found     // as the managers know them, the one that counts first
	Legacy     []string            // units of the older system under other names
	Journal    map[string][]string // by unit: its journal, newest first
	Words      map[string][]string // by unit: what its processes wrote, newest first
}

// unitFile is a unit on disk as it concerns one profile.
type unitFile struct {
	Path     string
	Name     string // of the unit or the instance
	System   bool
	Kind     service.Kind
	Text     string
	Merged   string // with its drop-ins behind it
	DropIns  []string
	Instance string // "" when the file is no template
	Enabled  bool   // a target wants it
	Exec     []string
	Entries  []service.Entry // of Merged
	Complain []string        // of systemd-analyze
}

// managed tells whether the manager that runs the user's units can be asked.
func (u unitFacts) managed() bool { return u.Booted && u.Manager == nil }

// gatewayFile is the file that makes the profile's gateway a service.
func (u unitFacts) gatewayFile() *unitFile { return u.first(service.Gateway) }

// cronFile is the file of a scheduler alone.
func (u unitFacts) cronFile() *unitFile { return u.first(service.Cron) }

func (u unitFacts) first(k service.Kind) *unitFile {
	for i := range u.Files {
		if u.Files[i].Kind == k {
			return &u.Files[i]
		}
	}
	return nil
}

// gatewayLive is the unit that the manager says serves the profile.
func (u unitFacts) gatewayLive() *service.Unit {
	if len(u.Live) == 0 {
		return nil
	}
	return &u.Live[0].Unit
}

// askUnits reads unit files, and asks the managers for what they know.
func askUnits(ctx context.Context, c *Case) func(*Case) {
	h := c.host()
	u := unitFacts{Account: h.Account, Booted: booted(c.env)}
	u.Lingers = service.Lingers(h.Account.Name)
	u.Files = findUnits(ctx, c, h)
	u.Legacy = legacyUnits(h)
	if u.Booted {
		short, cancel := context.WithTimeout(ctx, managerLimit) // one that hangs leaves time to say so
		defer cancel()
		u.Live, u.Manager = h.All(short, c.Profile, false)
		if u.Silent = domain.IsCode(u.Manager, domain.Timeout); u.Silent {
			u.ManagerPID = managerPID(ctx, c, h.Account.UID)
		}
		if len(u.Live) > 0 {
			u.Manager = nil
		} else if u.Manager == nil {
			_, u.Manager = service.Open(false, c.env)
		}
	}
	u.Journal, u.Words = map[string][]string{}, map[string][]string{}
	for _, l := range u.Live {
		if l.Active != "active" {
			u.Journal[l.Name] = journalOf(ctx, l.Name, l.System, false)
			u.Words[l.Name] = journalOf(ctx, l.Name, l.System, true)
		}
	}
	return func(c *Case) { c.Units = u }
}

// managerLimit bounds the questions to the managers.
const managerLimit = 1500 * time.Millisecond

// managerPID is the process of a user's manager, which the system's knows; 0
// when it does not say.
func managerPID(ctx context.Context, c *Case, uid int) int {
	m, err := service.Open(true, c.env)
	if err != nil {
		return 0
	}
	u, err := m.Show(ctx, fmt.Sprintf("user@%d.service", uid))
	if err != nil {
		return 0
	}
	return u.MainPID
}

// booted is sd_booted(3), unless systemd's own tools were told to leave the
// manager alone.
func booted(getenv func(string) string) bool {
	if getenv("SYSTEMD_OFFLINE") == "1" {
		return false
	}
	_, err := os.Stat("/run/systemd/system")
	return err == nil
}

// legacyName is the unit of the older system's first versions.
const legacyName = "hermes.service"

// legacyUnits finds units of the older system under names that nothing here
// uses.
func legacyUnits(h service.Host) []string {
	var out []string
	for _, dir := range []string{h.UserUnits, h.SystemUnits} {
		path := filepath.Join(dir, legacyName)
		if text, err := plain.Read(path); err == nil && strings.Contains(string(text), "gateway") {
			out = append(out, path)
		}
	}
	return out
}

// maxUnits bounds the files that are read.
const maxUnits = 200

// findUnits reads the unit files whose command serves the profile.
func findUnits(ctx context.Context, c *Case, h service.Host) []unitFile {
	var out []unitFile
	for _, system := range []bool{false, true} {
		paths, err := filepath.Glob(filepath.Join(h.Dir(system), "hermes*.service"))
		if err != nil {
			continue
		}
		for _, path := range paths[:min(len(paths), maxUnits)] {
			text, err := plain.Read(path)
			if err != nil || filepath.Base(path) == legacyName {
				continue
			}
			for _, f := range instances(h, path, string(text), system) {
				if f.read(c, h) {
					f.Complain = verify(ctx, f)
					out = append(out, f)
				}
			}
		}
	}
	slices.SortStableFunc(out, func(a, b unitFile) int { return onFirst(b.Enabled) - onFirst(a.Enabled) })
	return out
}

func onFirst(b bool) int {
	if b {
		return 1
	}
	return 0
}

// instances gives what a file is made use of as: itself, or the instances of a
// template that targets want or managers may have been told to start.
func instances(h service.Host, path, text string, system bool) []unitFile {
	base := filepath.Base(path)
	one := unitFile{Path: path, Name: base, System: system, Text: text}
	stem, template := strings.CutSuffix(base, "@.service")
	if !template {
		one.Enabled = wanted(h, base, system)
		return []unitFile{one}
	}
	links, err := filepath.Glob(filepath.Join(h.Dir(system), "*.wants", stem+"@*.service"))
	if err != nil {
		return nil
	}
	var out []unitFile
	for _, l := range links {
		f := one
		f.Name = filepath.Base(l)
		f.Instance = strings.TrimSuffix(strings.TrimPrefix(f.Name, stem+"@"), ".service")
		f.Enabled = true
		out = append(out, f)
	}
	return out
}

func wanted(h service.Host, name string, system bool) bool {
	links, err := filepath.Glob(filepath.Join(h.Dir(system), "*.wants", name))
	return err == nil && len(links) > 0
}

// read fills in what the file and its drop-ins say, and tells whether it serves
// the profile.
func (f *unitFile) read(c *Case, h service.Host) bool {
	f.Merged = f.Text
	dirs := []string{f.Path + ".d"}
	if f.Instance != "" {
		dirs = append(dirs, filepath.Join(filepath.Dir(f.Path), f.Name+".d"))
	}
	for _, dir := range dirs {
		drops, err := filepath.Glob(filepath.Join(dir, "*.conf"))
		if err != nil {
			continue
		}
		for _, d := range drops {
			if text, err := plain.Read(d); err == nil {
				f.DropIns = append(f.DropIns, d)
				f.Merged += "\n" + string(text)
			}
		}
	}
	f.Entries = service.Parse(f.Merged)
	exec := ""
	for _, e := range f.Entries {
		if e.Section == "Service" && e.Key == "ExecStart" {
			exec = e.Value // an empty one resets those before; systemd.service(5)
		}
	}
	for _, w := range service.Words(exec) {
		f.Exec = append(f.Exec, f.expand(w, h))
	}
	if len(f.Exec) == 0 {
		return false
	}
	f.Exec[0] = strings.TrimLeft(f.Exec[0], "@-:+!")
	switch {
	case slices.Contains(f.Exec, "gateway"):
		f.Kind = service.Gateway
	case slices.Contains(f.Exec, "cron"):
		f.Kind = service.Cron
	default:
		return false
	}
	return f.serves(c, h)
}

// expand replaces the specifiers of systemd.unit(5) that operators use.
func (f *unitFile) expand(s string, h service.Host) string {
	instance := f.Instance
	return strings.NewReplacer("%%", "%", "%i", instance, "%I", instance, "%h", h.Account.Home, "%u", h.Account.Name, "%n", f.Name).Replace(s)
}

// environment is what the unit sets, by Environment=.
func (f *unitFile) environment(h service.Host) map[string]string {
	env := map[string]string{}
	for _, e := range f.Entries {
		if e.Section != "Service" || e.Key != "Environment" {
			continue
		}
		for _, w := range service.Words(e.Value) {
			if k, v, ok := strings.Cut(f.expand(w, h), "="); ok {
				env[k] = v
			}
		}
	}
	return env
}

// serves tells whether the command of the unit, in its environment, means the
// profile. That of the unit of another home under the same name counts too,
// for it was meant.
func (f *unitFile) serves(c *Case, h service.Host) bool {
	_, name, set, err := home.SplitProfileFlag(f.Exec[1:])
	if err != nil {
		return false
	}
	env := f.environment(h)
	request := home.Request{Flag: name, FlagSet: set, UserHome: h.Account.Home, Env: func(k string) (string, bool) { v, ok := env[k]; return v, ok }}
	root, at, dir := home.Locate(request)
	if set {
		at = name
	}
	if at == "" {
		at = home.DefaultProfile
	}
	own := f.Name == (service.Spec{Kind: f.Kind, Profile: c.Profile, Account: h.Account}).Name() || f.Name == "hermes-"+string(f.Kind)+"@"+c.Profile.Name+".service"
	if f.System && root != c.Root {
		return false // of another account
	}
	return own || at == c.Profile.Name && (root == c.Root || dir == c.Profile.Home)
}

// home is the profile's folder as the unit means it.
func (f *unitFile) home(h service.Host) (root, name string) {
	_, flag, set, err := home.SplitProfileFlag(f.Exec[1:])
	env := f.environment(h)
	root, name, _ = home.Locate(home.Request{UserHome: h.Account.Home, Env: func(k string) (string, bool) { v, ok := env[k]; return v, ok }})
	if err == nil && set {
		name = flag
	}
	if name == "" {
		name = home.DefaultProfile
	}
	return root, name
}

// value is the last assignment of a key in a section, drop-ins taken into account.
func (f *unitFile) value(section, key string) string { return service.Value(f.Entries, section, key) }

// verifyLimit bounds systemd-analyze, which reads all units that are named.
const verifyLimit = 2 * time.Second

// verify lets systemd itself read the file; systemd-analyze(1). What it says of
// other files, and of programs that are missing, is left out.
func verify(ctx context.Context, f unitFile) []string {
	ctx, cancel := context.WithTimeout(ctx, verifyLimit)
	defer cancel()
	scope := "--user"
	if f.System {
		scope = "--system"
	}
	path := f.Path
	if f.Instance != "" {
		path = filepath.Join(filepath.Dir(f.Path), f.Name)
	}
	scratch, err := os.MkdirTemp("", "hermes-doctor-") // it wants a runtime folder to itself
	if err != nil {
		return nil
	}
	defer os.RemoveAll(scratch)
	cmd := exec.CommandContext(ctx, "systemd-analyze", scope, "--man=no", "verify", path)
	cmd.Env = append(os.Environ(), "XDG_RUNTIME_DIR="+scratch, "LANG=C.UTF-8", "SYSTEMD_COLORS=0")
	cmd.WaitDelay = time.Second
	out, err := cmd.CombinedOutput()
	if ctx.Err() != nil || err != nil && len(out) == 0 {
		return nil
	}
	var said []string
	for line := range strings.Lines(string(out)) {
		line = strings.TrimSpace(line)
		mine := slices.ContainsFunc(append([]string{f.Path}, f.DropIns...), func(p string) bool { return strings.HasPrefix(line, p+":") })
		if mine && (strings.Contains(line, "Unknown key") || strings.Contains(line, "Unknown lvalue") || strings.Contains(line, "Failed to parse") || strings.Contains(line, "Missing '='") || strings.Contains(line, "Unknown section")) && len(said) < 5 {
			said = append(said, line)
		}
	}
	return said
}

// lookupID is user.LookupId.
func lookupID(id string) (*user.User, error) { return user.LookupId(id) }
