package service

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"

	"hermes/internal/domain"
	"hermes/internal/home"
	"hermes/internal/succession"
)

// Host is the machine as one account sees it: where its units lie and how its
// managers are reached. Its methods may be used at once by several goroutines.
type Host struct {
	Account Account
	Getenv  func(string) string
	// UserUnits and SystemUnits are the folders of unit files.
	UserUnits, SystemUnits string
	silent                 *silence
}

// silence remembers the managers that did not answer, so that one command waits
// for each of them only once.
type silence struct {
	mu   sync.Mutex
	told map[bool]error // by whether it is the system's
}

// of is why a manager is not asked again, nil where it may be.
func (s *silence) of(system bool) error {
	if s == nil {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.told[system]
}

func (s *silence) note(system bool, err error) {
	if s == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.told[system] = err
}

// NewHost is the host for an account. getenv gives the process's environment.
func NewHost(a Account, getenv func(string) string) Host {
	config := getenv("XDG_CONFIG_HOME")
	if !filepath.IsAbs(config) || a.UID != os.Getuid() {
		config = filepath.Join(a.Home, ".config")
	}
	return Host{Account: a, Getenv: getenv, UserUnits: filepath.Join(config, "systemd/user"), SystemUnits: "/etc/systemd/system",
		silent: &silence{told: map[bool]error{}}}
}

// Dir is the folder of unit files of a manager.
func (h Host) Dir(system bool) string {
	if system {
		return h.SystemUnits
	}
	return h.UserUnits
}

// names are the units of a kind that may serve a profile, the generated one
// first.
func (h Host) names(kind Kind, p home.Profile) []string {
	s := Spec{Kind: kind, Profile: p, Account: h.Account}
	own := s.Name()
	s.Template = true
	return []string{own, s.Instance()}
}

// Found is a unit with the manager that runs it.
type Found struct {
	Unit
	Manager *Manager
}

// Find gives the unit that serves a profile: the one that runs it, whatever its
// name, else one that is active, else one that is enabled, else one that is
// there. With system only the system's manager is asked, and a unit of another
// home counts too, for root acts on what others run. Errors: NotFound, when no
// unit is there; Unavailable, when no manager can be asked, and why.
func (h Host) Find(ctx context.Context, p home.Profile, system bool) (Found, error) {
	return h.FindKind(ctx, Gateway, p, system)
}

// FindKind is Find for the units of a kind. A scheduler alone is a unit of its
// own, beside the gateway's or without one.
func (h Host) FindKind(ctx context.Context, kind Kind, p home.Profile, system bool) (Found, error) {
	all, err := h.AllOf(ctx, kind, p, system)
	if len(all) > 0 {
		return all[0], nil
	}
	if err != nil {
		return Found{}, err
	}
	what, only := "unit", ""
	if kind == Cron {
		what, only = "unit of a scheduler", " --cron-only"
	}
	return Found{}, domain.E(domain.NotFound, nil, "no %s is installed for profile %s; `hermes%s gateway install%s` makes one", what, p.Name, profileFlag(p), only)
}

// All gives every unit of a profile's gateway, the one that Find chooses first,
// within askLimit, though no manager answers. An error says why a manager could
// not be asked; what others said is there.
func (h Host) All(ctx context.Context, p home.Profile, system bool) ([]Found, error) {
	return h.AllOf(ctx, Gateway, p, system)
}

// AllOf is All for the units of a kind.
func (h Host) AllOf(ctx context.Context, kind Kind, p home.Profile, system bool) ([]Found, error) {
	ctx, cancel := context.WithTimeout(ctx, askLimit)
	defer cancel()
	running, runningSystem := "", false
	if kind == Gateway { // a scheduler holds no profile
		running, runningSystem = h.running(p)
	}
	scopes := []bool{false, true}
	if system {
		scopes = scopes[1:]
	}
	found, errs := make([][]Found, len(scopes)), make([]error, len(scopes))
	var asked sync.WaitGroup
	for i, sys := range scopes { // at once: one that is silent takes no time from the other
		asked.Go(func() {
			names := h.names(kind, p)
			if running != "" && runningSystem == sys && !slices.Contains(names, running) {
				names = append(names, running)
			}
			found[i], errs[i] = h.ask(ctx, sys, names, func(u Unit) bool { return u.Name == running && running != "" || system || h.serves(u, p) })
		})
	}
	asked.Wait()
	out := slices.Concat(found...)
	slices.SortStableFunc(out, func(a, b Found) int { return rank(b.Unit, running) - rank(a.Unit, running) })
	var trouble error
	for _, err := range errs {
		if err != nil && (trouble == nil || !domain.IsCode(trouble, domain.Timeout)) {
			trouble = err
		}
	}
	return out, trouble
}

// ask asks one manager for the units with these names, and gives those that
// exist and are wanted. One that was silent before is not asked again.
func (h Host) ask(ctx context.Context, system bool, names []string, wanted func(Unit) bool) (out []Found, trouble error) {
	if err := h.silent.of(system); err != nil {
		return nil, err
	}
	m, err := Open(system, h.Getenv)
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		u, err := m.Show(ctx, name)
		if domain.IsCode(err, domain.Timeout) {
			h.silent.note(system, err)
			return out, err // each further question would take as long
		}
		if err != nil {
			trouble = err
			continue
		}
		if u.Load != "not-found" && wanted(u) {
			out = append(out, Found{u, m})
		}
	}
	return out, trouble
}

// running gives the unit whose main process serves the profile now, "" when no
// unit does.
func (h Host) running(p home.Profile) (unit string, system bool) {
	r, ok := succession.Holder(p)
	if !ok || r.PID <= 0 {
		return "", false
	}
	unit, system, ok = unitOf(strconv.Itoa(r.PID))
	if !ok || !strings.Contains(unit, "hermes") {
		return "", false // a terminal's own service, for one
	}
	return unit, system
}

// Installed tells whether somebody made the unit a profile's: an instance of a
// template is there for every name, so only one that is enabled, runs or failed
// counts.
func (u Unit) Installed() bool {
	return !strings.Contains(u.Name, "@") || rank(u, "") > 0
}

// rank orders the units of one profile.
func rank(u Unit, running string) int {
	n := 0
	if u.Name == running {
		n += 8
	}
	if u.Active == "active" || u.Active == "activating" || u.Active == "reloading" || u.Active == "deactivating" {
		n += 4
	}
	if strings.HasPrefix(u.Enabled, "enabled") {
		n += 2
	}
	if u.Active == "failed" {
		n++
	}
	return n
}

// serves tells whether a unit's home is the profile's. One that names no home
// means the standard one.
func (h Host) serves(u Unit, p home.Profile) bool {
	set := HomeOf(u)
	if set == "" {
		set = filepath.Join(h.Account.Home, ".hermes")
	}
	return set == p.Root || set == p.Home
}

// HomeOf gives HERMES_HOME as the unit sets it, "" where it does not.
func HomeOf(u Unit) string {
	set := ""
	for _, e := range u.Environment {
		if v, ok := strings.CutPrefix(e, "HERMES_HOME="); ok {
			set = filepath.Clean(v)
		}
	}
	return set
}

// ProfileOf gives the profile that a unit serves, which need not be p: root
// acts on units of others. p is the answer where the unit names no home.
func ProfileOf(u Unit, p home.Profile) home.Profile {
	set := HomeOf(u)
	if set == "" || set == p.Root || set == p.Home {
		return p
	}
	if q, err := home.Named(set, p.Name); err == nil {
		return q
	}
	return p
}

// profileFlag is what names the profile on a command line.
func profileFlag(p home.Profile) string {
	if p.Name == home.DefaultProfile {
		return ""
	}
	return " -p " + p.Name
}
