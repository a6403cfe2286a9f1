package update

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"hermes/internal/domain"
	"hermes/internal/failpoint"
	"hermes/internal/home"
	"hermes/internal/versions"
)

// Updater brings an installation to another version. One goroutine uses it, for
// one update.
type Updater struct {
	UserHome string
	Root     string // home of all profiles, whose logs/update.log is written
	Version  string // of this program
	Program  string // the file of this program
	Place    Place
	Fleet    Fleet
	Platform string // as Platform gives it
	Now      func() time.Time
	// Say is called with each line for people.
	Say func(format string, args ...any)
	// Confirm is asked before anything is fetched; nil agrees.
	Confirm func(question string) bool

	log    *journal
	result Result
	pins   map[string]versions.Pin // that stood before, by profile
}

// Request is what is wanted.
type Request struct {
	Source  *Source
	Version string // "" for the newest
	Channel string // stable or beta
}

// Outcome is what became of one member.
type Outcome struct {
	Profile string `json:"profile"`
	Name    string `json:"name"`
	From    string `json:"from,omitempty"`
	Now     string `json:"now,omitempty"`
	PID     int    `json:"pid,omitempty"`
	State   string `json:"state"` // switched, same, stays, back, down, untouched, pinned
	Why     string `json:"why,omitempty"`
}

// Result is what an update came to.
type Result struct {
	From     string    `json:"from"`
	To       string    `json:"to,omitempty"`
	Newest   string    `json:"newest,omitempty"`
	UpToDate bool      `json:"up_to_date"`
	Members  []Outcome `json:"members,omitempty"`
	Removed  []string  `json:"removed,omitempty"` // versions that nobody needed any more
	Error    string    `json:"error,omitempty"`
}

// target is the version that is to serve.
type target struct{ version, program string }

// Check tells what there is, and changes nothing. Errors: as Source's.
func (u *Updater) Check(ctx context.Context, r Request) (Result, error) {
	out := Result{From: u.Version}
	if r.Source.single() {
		version, err := versionOf(filepath.Base(r.Source.base().Path), u.Platform)
		out.Newest = version
		out.UpToDate = err == nil && Compare(version, u.Version) <= 0
		return out, err
	}
	in, err := r.Source.Index(ctx)
	if err != nil {
		return out, err
	}
	if err := u.fresh(in); err != nil {
		return out, err
	}
	release, err := in.Choose(r.Version, r.Channel)
	if err != nil {
		return out, err
	}
	out.Newest, out.UpToDate = release.Version, Compare(release.Version, u.Version) <= 0
	return out, nil
}

// fresh holds that an index is not older than one that was seen. Errors:
// Unauthenticated.
func (u *Updater) fresh(in Index) error {
	if seen := ReadState(u.UserHome).Made; in.Made.Before(seen) {
		return domain.E(domain.Unauthenticated, nil, "the index of releases is of %s, and one of %s was seen already: an old one is shown again, and what was mended since would be missing. Nothing was changed; ask who makes the releases", in.Made.Format(time.DateTime), seen.Format(time.DateTime))
	}
	return nil
}

// Update brings a release and hands every profile over to it. With an error the
// installation works as before, or as Result tells. Errors: Conflict, while
// another update is under way; Forbidden, when the program is not this user's;
// those of Source; Unavailable, when a profile does not serve on the new version.
func (u *Updater) Update(ctx context.Context, r Request) (Result, error) {
	return u.attempt("update", func() error { return u.update(ctx, r) })
}

// Rollback hands every profile over to the version before. Errors: as Update;
// NotFound, when no older version lies here.
func (u *Updater) Rollback(ctx context.Context) (Result, error) {
	return u.attempt("rollback", func() error { return u.rollback(ctx) })
}

// attempt runs an update under the lock, with its log.
func (u *Updater) attempt(word string, do func() error) (Result, error) {
	u.result = Result{From: u.Version}
	held, err := lock(u.UserHome)
	if err != nil {
		return u.result, err
	}
	defer held.Close()
	complete(u.UserHome, u.Now())
	u.log = &journal{file: LogFile(u.Root), now: u.Now, home: u.UserHome}
	u.log.begin("the " + word + " from " + u.Version)
	u.log.step("%s from %s, in %s", word, u.Version, u.Place.Path)
	failpoint.Hit(failpoint.UpdateBegun)
	err = do()
	switch {
	case err != nil:
		u.result.Error = domain.MessageOf(err)
		u.log.end("✗ " + domain.MessageOf(err))
	case u.result.UpToDate:
		u.log.end("✓ " + u.Version + " is the newest version")
	default:
		u.log.end("✓ " + u.result.To + " serves")
	}
	return u.result, err
}

func (u *Updater) update(ctx context.Context, r Request) error {
	if err := u.Place.Ready(); err != nil {
		return err
	}
	if err := os.MkdirAll(versions.Dir(u.UserHome), 0o755); err != nil {
		return storage(err, versions.Dir(u.UserHome))
	}
	sweep(u.UserHome, false)
	t, err := u.obtain(ctx, r)
	if err != nil {
		return err
	}
	return u.switchTo(ctx, t)
}

// obtain makes the wanted version lie here, verified.
func (u *Updater) obtain(ctx context.Context, r Request) (target, error) {
	if r.Source.single() {
		return u.obtainSingle(ctx, r)
	}
	u.log.step("reading the index of %s", r.Source.Shown())
	in, err := r.Source.Index(ctx)
	if err == nil {
		err = u.fresh(in)
	}
	if err != nil {
		return target{}, err
	}
	release, err := in.Choose(r.Version, r.Channel)
	if err != nil {
		return target{}, err
	}
	state := ReadState(u.UserHome)
	state.Made = in.Made
	if err := writeState(u.UserHome, state); err != nil {
		return target{}, err
	}
	u.result.Newest = release.Version
	if r.Version == "" && Compare(release.Version, u.Version) <= 0 {
		return u.present()
	}
	if program, ok := staged(u.UserHome, release.Version, release.Archives[u.Platform].SHA256); ok {
		u.log.step("%s lies here already", release.Version)
		return target{release.Version, program}, u.agree(ctx, release.Version)
	}
	if err := enough(versions.Dir(u.UserHome), room(release.Archives[u.Platform].Size)); err != nil {
		return target{}, err
	}
	if err := u.agree(ctx, release.Version); err != nil {
		return target{}, err
	}
	u.log.step("fetching %s", release.Version)
	u.Say("Fetching %s from %s", release.Version, r.Source.Shown())
	f, err := r.Source.Fetch(ctx, versions.Dir(u.UserHome), release, u.Platform)
	if err != nil {
		return target{}, err
	}
	return u.unpack(ctx, f)
}

func (u *Updater) obtainSingle(ctx context.Context, r Request) (target, error) {
	version, err := versionOf(filepath.Base(r.Source.base().Path), u.Platform)
	if err != nil {
		return target{}, err
	}
	if want := strings.TrimPrefix(r.Version, "v"); want != "" && want != version {
		return target{}, domain.E(domain.Invalid, nil, "%s holds %s, and %s was asked for", r.Source.Shown(), version, want)
	}
	if err := enough(versions.Dir(u.UserHome), room(16<<20)); err != nil {
		return target{}, err
	}
	if err := u.agree(ctx, version); err != nil {
		return target{}, err
	}
	u.log.step("fetching %s", r.Source.Shown())
	f, err := r.Source.FetchSingle(ctx, versions.Dir(u.UserHome), u.Platform)
	if err != nil {
		return target{}, err
	}
	return u.unpack(ctx, f)
}

// unpack stages what was fetched.
func (u *Updater) unpack(ctx context.Context, f Fetched) (target, error) {
	failpoint.Hit(failpoint.UpdateFetched)
	u.log.step("unpacking %s, whose sum and signature are right", f.Version)
	program, ok := staged(u.UserHome, f.Version, f.SHA256)
	if !ok {
		var err error
		if program, err = stage(ctx, u.UserHome, f, u.Platform); err != nil {
			return target{}, err
		}
	}
	sweep(u.UserHome, true)
	failpoint.Hit(failpoint.UpdateStaged)
	u.Say("✓ %s is here: size, sum and signature are right, and it runs on this machine", f.Version)
	return target{f.Version, program}, nil
}

// present is the version of this program, for the profiles that run another
// still because a switch was interrupted.
func (u *Updater) present() (target, error) {
	u.result.UpToDate = true
	program, err := keep(u.UserHome, u.Version, u.Program)
	return target{u.Version, program}, err
}

// agree asks before something is fetched.
func (u *Updater) agree(ctx context.Context, version string) error {
	if u.Confirm == nil {
		return nil
	}
	members, err := u.Fleet.Members(ctx)
	if err != nil {
		return err
	}
	var names []string
	for _, m := range members {
		if m.Running {
			names = append(names, m.Name)
		}
	}
	what := "nothing runs"
	if len(names) > 0 {
		what = list(names) + " will be handed over, one after the other"
	}
	if u.Confirm(fmt.Sprintf("Update from %s to %s? %s.", u.Version, version, what)) {
		return nil
	}
	return domain.E(domain.Cancelled, nil, "nothing was changed")
}

func (u *Updater) rollback(ctx context.Context) error {
	if err := u.Place.Ready(); err != nil {
		return err
	}
	sweep(u.UserHome, false)
	state := ReadState(u.UserHome)
	to := state.Before
	if state.Partial != nil {
		to = state.Partial.From
	}
	if to == "" || state.Partial == nil && to == u.Version {
		older, ok := older(u.UserHome, u.Version)
		if !ok {
			return domain.E(domain.NotFound, nil, "no version before %s lies here, so there is nothing to go back to; `hermes update --to VERSION` fetches one", u.Version)
		}
		to = older
	}
	program, err := versions.File(u.UserHome, to)
	if err != nil {
		return err
	}
	if !exists(program) {
		return domain.E(domain.NotFound, nil, "version %s does not lie here any more; `hermes update --to %[1]s` fetches it", to)
	}
	if err := runs(ctx, program, to); err != nil {
		return err
	}
	if u.Confirm != nil && !u.Confirm(fmt.Sprintf("Go back from %s to %s?", cmp.Or(state.Version, u.Version), to)) {
		return domain.E(domain.Cancelled, nil, "nothing was changed")
	}
	return u.switchTo(ctx, target{to, program})
}

// switchTo lets a version serve: it is asked whether it could, each profile is
// handed over and pinned, and the link is moved last.
func (u *Updater) switchTo(ctx context.Context, t target) error {
	u.result.To = t.version
	if err := u.Place.Ready(); err != nil {
		return err
	}
	members, err := u.Fleet.Members(ctx)
	if err != nil {
		return err
	}
	u.pins = map[string]versions.Pin{}
	for _, m := range members {
		if _, mine, pin := pinOf(m); !mine || pin.Version != t.version {
			u.pins[m.Profile.Name] = pin
		}
	}
	if err := u.preflight(ctx, members, t); err != nil {
		return err
	}
	if _, err := keep(u.UserHome, u.Version, u.Program); err != nil {
		return err
	}
	before := ReadState(u.UserHome)
	state := before
	from := u.Version
	if p := before.Partial; p != nil && p.To == t.version {
		from = p.From // it goes on
	}
	if from != t.version {
		state.Partial = &Switch{From: from, To: t.version}
		if err := writeState(u.UserHome, state); err != nil {
			return err
		}
	}
	failpoint.Hit(failpoint.UpdateKept)
	if err := u.handOverAll(ctx, members, t); err != nil {
		if !slices.ContainsFunc(u.result.Members, func(o Outcome) bool { return o.Now == t.version && o.State == stateSwitched }) && before.Partial == nil {
			_ = writeState(u.UserHome, before) // nobody is served by it
		}
		return err
	}
	u.log.step("making %s what is started from now on", t.version)
	if err := u.Place.Point(t.version); err != nil {
		return err
	}
	failpoint.Hit(failpoint.UpdatePointed)
	u.settle(members, t)
	state.Partial = nil
	if from != t.version {
		state.Version, state.Before = t.version, from
	}
	u.result.Removed = u.prune(members, t, state)
	if err := writeState(u.UserHome, state); err != nil {
		return err
	}
	failpoint.Hit(failpoint.UpdateSettled)
	return nil
}

// preflight asks the program whether it could serve each profile. One that runs
// and could not be served ends the update; another is only told of.
func (u *Updater) preflight(ctx context.Context, members []Member, t target) error {
	asked := map[string]bool{}
	for _, m := range members {
		if asked[m.Profile.Name] || m.Version == t.version && m.Running {
			continue
		}
		if pin, mine, _ := pinOf(m); pin && !mine {
			continue
		}
		asked[m.Profile.Name] = true
		u.log.step("asking %s whether it could serve profile %s", t.version, m.Profile.Name)
		err := u.Fleet.Preflight(ctx, m.Profile, t.program)
		switch {
		case err == nil:
		case slices.ContainsFunc(members, func(o Member) bool { return o.Running && o.Profile.Name == m.Profile.Name }):
			return domain.E(domain.CodeOf(err), err, "nothing was changed, since %s could not serve profile %s: %s", t.version, m.Profile.Name, domain.MessageOf(err))
		default:
			u.Say("! profile %s, which does not run, could not be served by %s: %s", m.Profile.Name, t.version, domain.MessageOf(err))
		}
	}
	return nil
}

// settle takes away the pins that the link makes needless, and notes what the
// update brought for whoever is started later.
func (u *Updater) settle(members []Member, t target) {
	for _, m := range members {
		pin, mine, _ := pinOf(m)
		if pin && !mine {
			continue
		}
		others := slices.ContainsFunc(members, func(o Member) bool {
			return o.Profile.Name == m.Profile.Name && o.Starts != "" && !u.Place.Starts(o.Starts, t.version)
		})
		if pin && !others {
			if err := versions.Unpin(m.Profile); err != nil { // it is pinned to what it would get
				u.Say("! %s", domain.MessageOf(err))
			}
		}
		if !others {
			u.noteBrought(m, cmp.Or(m.Starts, u.Place.Path), t.version)
		}
	}
}

// noteBrought lets the profile's next starts know that an update brought the
// program, so that one that dies soon gives way to the one before.
func (u *Updater) noteBrought(m Member, program, version string) {
	path, err := filepath.EvalSymlinks(program)
	if err != nil {
		path = program
	}
	b, err := versions.Look(path, version, u.Now())
	if err != nil {
		return
	}
	from := m.Version
	if from == "" || from == version {
		from = u.Version
	}
	if have := versions.Read(m.Profile).Brought; have != nil && have.Same(b) {
		return
	}
	if err := versions.NoteBrought(m.Profile, versions.Brought{Binary: b, From: from}); err != nil && exists(m.Profile.Home) {
		u.Say("! %s", domain.MessageOf(err))
	}
}

// prune removes versions that nobody needs any more.
func (u *Updater) prune(members []Member, t target, s State) []string {
	wanted := []string{t.program, u.Place.Path, versions.Current(u.UserHome) + "/" + programName}
	for _, v := range []string{s.Before, s.Version, u.Version} {
		if program, err := versions.File(u.UserHome, v); err == nil {
			wanted = append(wanted, program)
		}
	}
	for _, m := range members {
		wanted = append(wanted, u.Fleet.Look(context.Background(), m).Program, m.Starts, versions.Read(m.Profile).Good.Path)
		if pin, ok, _ := versions.Pinned(m.Profile); ok {
			wanted = append(wanted, pin.Path)
		}
	}
	return prune(u.UserHome, wanted)
}

// pinWord begins the reason of the pins that updates set.
const pinWord = "update to "

// pinOf tells whether the member's profile is pinned, and whether by an update.
func pinOf(m Member) (pinned, mine bool, pin versions.Pin) {
	pin, pinned, _ = versions.Pinned(m.Profile) // one that cannot be followed pins nothing
	return pinned, Pins(pin), pin
}

// Pins tells whether an update, and not a person, set a pin.
func Pins(pin versions.Pin) bool { return strings.HasPrefix(pin.Why, pinWord) }

func (u *Updater) pin(p home.Profile, t target) error {
	return versions.SetPin(p, versions.Pin{Path: t.program, Version: t.version, Why: pinWord + t.version, At: u.Now().UTC()})
}
