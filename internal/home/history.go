package home

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"hermes/internal/domain"
)

// By says who changes a configuration, for its history.
type By struct {
	Command string // what was typed, without its arguments: "config set", "/sethome"
	Version string // of hermes
}

// did is By with what the command was about.
func (b By) did(what string) By {
	if b.Command == "" {
		b.Command = "change"
	}
	if what != "" {
		b.Command += " " + what
	}
	return b
}

// Entry is one configuration that a profile had.
type Entry struct {
	N           int       `json:"number"` // from 1, never used again
	At          time.Time `json:"at"`     // since when it is known
	Why         string    `json:"why"`    // how it came to be
	Version     string    `json:"version,omitempty"`
	Fingerprint string    `json:"fingerprint"`
	NoEnv       bool      `json:"no_env,omitempty"` // there was no .env
	NoConfig    bool      `json:"no_config,omitempty"`
	// HealthyAt is when a gateway last served with it and nothing was wrong;
	// zero means never. HealthyBy is that gateway's version.
	HealthyAt time.Time `json:"healthy_at,omitzero"`
	HealthyBy string    `json:"healthy_by,omitempty"`
}

// Healthy tells whether a gateway has served healthily with it.
func (e Entry) Healthy() bool { return !e.HealthyAt.IsZero() }

// historyKept is how many configurations are kept. Beyond it the oldest goes,
// but never the one that served healthily last.
const historyKept = 50

// History keeps the configurations that a profile had: one folder an entry under
// config-history, with .env, config.yaml and entry.json in it, so that a person
// can copy them back by hand. Every change by hermes adds what the files held
// before, where that was not known yet, and what they hold since; a healthy start
// marks what it served. Entries are written whole or not at all; those that are
// damaged count as absent. Its methods are safe for use by several processes.
type History struct {
	profile Profile
	dir     string
}

// OpenHistory gives the history of a profile. It touches nothing.
func OpenHistory(p Profile) History { return History{p, p.Path("config-history")} }

// Dir is the folder of an entry.
func (h History) Dir(n int) string { return filepath.Join(h.dir, fmt.Sprintf("%04d", n)) }

// List gives all entries, the oldest first. A profile without a history gives
// none. Errors: Unavailable.
func (h History) List() ([]Entry, error) {
	names, err := os.ReadDir(h.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, domain.E(domain.Unavailable, err, "the history of configurations in %s cannot be read", h.dir)
	}
	var out []Entry
	for _, name := range names {
		n, err := strconv.Atoi(name.Name())
		if err != nil || n < 1 {
			continue
		}
		if e, err := h.entry(n); err == nil {
			out = append(out, e)
		}
	}
	slices.SortFunc(out, func(a, b Entry) int { return a.N - b.N })
	return out, nil
}

func (h History) entry(n int) (Entry, error) {
	var e Entry
	text, err := readBounded(filepath.Join(h.Dir(n), "entry.json"))
	if err == nil && text != nil {
		err = json.Unmarshal(text, &e)
	}
	if err != nil || e.N != n {
		return Entry{}, domain.E(domain.NotFound, err, "the history holds no configuration %d; `hermes%s config history` lists what it holds", n, flagOf(h.profile))
	}
	return e, nil
}

// Get gives an entry and what its files held. Errors: NotFound; Unavailable,
// when what is kept is no longer what was kept.
func (h History) Get(n int) (Entry, Files, error) {
	e, err := h.entry(n)
	if err != nil {
		return e, Files{}, err
	}
	read := func(name string, absent bool) []byte {
		if absent {
			return nil
		}
		data, rerr := readBounded(filepath.Join(h.Dir(n), name))
		if rerr != nil {
			err = rerr
		}
		return data
	}
	f := Files{Env: read(".env", e.NoEnv), Config: read("config.yaml", e.NoConfig)}
	if err == nil && f.Fingerprint() != e.Fingerprint {
		err = domain.E(domain.Unavailable, nil, "configuration %d in %s was changed since it was kept, so it is not used", n, h.Dir(n))
	}
	return e, f, err
}

// LastHealthy gives the configuration that last served healthily; ok is false
// when none is known.
func (h History) LastHealthy() (e Entry, f Files, ok bool) {
	all, _ := h.List() // one that cannot be read holds none
	slices.SortStableFunc(all, func(a, b Entry) int { return b.HealthyAt.Compare(a.HealthyAt) })
	for _, one := range all {
		if !one.Healthy() {
			break
		}
		if e, f, err := h.Get(one.N); err == nil {
			return e, f, true
		}
	}
	return Entry{}, Files{}, false
}

// Healthy notes that a gateway serves with a configuration and nothing is wrong,
// and lets .env.bak and config.yaml.bak hold it. Errors: Unavailable,
// StorageFull.
func (h History) Healthy(f Files, version string, now time.Time) (e Entry, err error) {
	err = withEditLock(h.profile, By{}, func() error {
		// The files may have been changed since the gateway read them, so that what
		// it serves need not be the last entry.
		if e, err = h.latest(f.Fingerprint()); err == nil && e.N == 0 {
			e, err = h.keep(f, By{"healthy start", version})
		}
		if err != nil {
			return err
		}
		if err := h.correct(now); err != nil {
			return err
		}
		e.HealthyAt, e.HealthyBy = now, version
		if err := h.write(e); err != nil {
			return err
		}
		h.prune()
		return errors.Join(refresh(h.profile.EnvFile()+".bak", f.Env), refresh(h.profile.ConfigFile()+".bak", f.Config))
	})
	return e, err
}

// correct takes back times that are still to come, which a wrong clock left:
// else what served then would count as the latest until they have passed.
func (h History) correct(now time.Time) error {
	all, err := h.List()
	if err != nil {
		return err
	}
	for _, e := range all {
		if !e.HealthyAt.After(now) {
			continue
		}
		e.HealthyAt = now.Add(-time.Second)
		if err := h.write(e); err != nil {
			return err
		}
	}
	return nil
}

// Note keeps what the files hold now, where the last entry does not: before and
// after somebody edits them. Errors: Unavailable, StorageFull.
func (h History) Note(by By) error {
	return withEditLock(h.profile, By{}, func() error {
		now, err := readFiles(h.profile)
		if err != nil || now.Env == nil && now.Config == nil {
			return err
		}
		_, err = h.keep(now, by)
		return err
	})
}

// latest gives the last entry with a fingerprint, N 0 for none.
func (h History) latest(fingerprint string) (e Entry, err error) {
	all, err := h.List()
	for _, one := range all {
		if one.Fingerprint == fingerprint {
			e = one
		}
	}
	return e, err
}

// refresh writes a file where it does not hold the content yet. nil leaves it
// alone.
func refresh(path string, data []byte) error {
	if old, err := readBounded(path); data == nil || err == nil && string(old) == string(data) {
		return nil
	}
	return WriteAtomic(path, data, 0o600)
}

// Restored tells what a Restore did.
type Restored struct {
	Entry   Entry `json:"entry"`
	Before  int   `json:"before"`  // the entry that holds what was replaced
	Changed bool  `json:"changed"` // false: the files held it already
}

// Restore puts the files back as they were; a file that did not exist then is
// removed. What they hold now is kept first. Errors: as Get, StorageFull.
func (h History) Restore(n int, by By) (r Restored, err error) {
	err = withEditLock(h.profile, By{}, func() error {
		var f Files
		if r.Entry, f, err = h.Get(n); err != nil {
			return err
		}
		now, err := readFiles(h.profile)
		if err != nil {
			return err
		}
		if now.Fingerprint() == f.Fingerprint() {
			r.Before = n
			return nil
		}
		before, err := h.keep(now, By{"found before " + by.Command, by.Version})
		if err != nil {
			return err
		}
		r.Before, r.Changed = before.N, true
		if err := writeFiles(h.profile, now, f); err != nil {
			return err
		}
		_, _ = h.keep(f, by.did(strconv.Itoa(n))) // the files stand; the next edit keeps what this could not
		return nil
	})
	return r, err
}

// put makes a file hold a content, nil for no file.
func put(path string, old, data []byte) error {
	switch {
	case data != nil && string(old) == string(data) && old != nil:
		return nil
	case data != nil:
		return replaceFile(path, old, data)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return domain.E(domain.Unavailable, err, "%s was not removed", path)
	}
	return nil
}

// noteFound keeps what the files hold before a change, where that is not what
// the last entry says: somebody edited them by hand.
func (h History) noteFound(by By) error {
	now, err := readFiles(h.profile)
	if err == nil && (now.Env != nil || now.Config != nil) {
		_, err = h.keep(now, By{"found before " + by.Command, by.Version})
		return err
	}
	return nil // the change itself says what is wrong with the files
}

// keep adds a configuration, unless the last entry holds it. The caller holds
// the lock of edits.
func (h History) keep(f Files, by By) (Entry, error) {
	all, err := h.List()
	if err != nil {
		return Entry{}, err
	}
	n := 1
	if len(all) > 0 {
		last := all[len(all)-1]
		if last.Fingerprint == f.Fingerprint() {
			return last, nil
		}
		n = last.N + 1
	}
	e := Entry{N: n, At: time.Now().UTC(), Why: by.Command, Version: by.Version, Fingerprint: f.Fingerprint(), NoEnv: f.Env == nil, NoConfig: f.Config == nil}
	if err := h.add(e, f); err != nil {
		return Entry{}, err
	}
	h.prune()
	return e, nil
}

// add writes an entry beside the others and renames it into place.
func (h History) add(e Entry, f Files) error {
	fail := func(err error) error {
		code := domain.Unavailable
		if isDiskFull(err) {
			code = domain.StorageFull
		}
		return domain.E(code, err, "the configuration as it is could not be kept in %s, so that it could be gone back to", h.dir)
	}
	if err := os.MkdirAll(h.dir, 0o700); err != nil {
		return fail(err)
	}
	tmp, err := os.MkdirTemp(h.dir, ".new-")
	if err != nil {
		return fail(err)
	}
	defer os.RemoveAll(tmp)
	text, err := json.MarshalIndent(e, "", "  ")
	if err != nil {
		return err
	}
	for name, data := range map[string][]byte{".env": f.Env, "config.yaml": f.Config, "entry.json": text} {
		if data == nil {
			continue
		}
		if err := WriteAtomic(filepath.Join(tmp, name), data, 0o600); err != nil {
			return fail(err)
		}
	}
	_ = os.RemoveAll(h.Dir(e.N)) // a damaged one of that number
	if err := os.Rename(tmp, h.Dir(e.N)); err != nil {
		return fail(err)
	}
	return nil
}

// write replaces the entry's own words.
func (h History) write(e Entry) error {
	text, err := json.MarshalIndent(e, "", "  ")
	if err != nil {
		return err
	}
	return WriteAtomic(filepath.Join(h.Dir(e.N), "entry.json"), text, 0o600)
}

// prune drops the oldest entries beyond what is kept, and what interrupted
// writers left.
func (h History) prune() {
	if left, err := filepath.Glob(filepath.Join(h.dir, ".new-*")); err == nil {
		for _, dir := range left {
			_ = os.RemoveAll(dir)
		}
	}
	all, err := h.List()
	if err != nil {
		return
	}
	spared := 0
	for i, e := range all {
		if e.Healthy() && (spared == 0 || e.HealthyAt.After(all[spared-1].HealthyAt)) {
			spared = i + 1
		}
	}
	for i := 0; i < len(all)-historyKept; i++ {
		if i != spared-1 {
			_ = os.RemoveAll(h.Dir(all[i].N))
		}
	}
}

// flagOf is what names the profile on a command line.
func flagOf(p Profile) string {
	if p.Name == DefaultProfile || p.Name == "" {
		return ""
	}
	return " -p " + p.Name
}
