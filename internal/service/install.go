package service

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"hermes/internal/domain"
	"hermes/internal/home"
	"hermes/internal/plain"
)

// Rendered is a unit file that install would write.
type Rendered struct {
	Name, Path, Text string
}

// Files renders what an installation of spec consists of: one unit, or the two
// templates, and the rescue unit that they name.
func (h Host) Files(spec Spec) ([]Rendered, error) {
	kinds := []Kind{spec.Kind}
	if spec.Template {
		kinds = []Kind{Gateway, Cron}
	}
	var out []Rendered
	for _, k := range kinds {
		s := spec
		s.Kind = k
		text, err := s.Render()
		if err != nil {
			return nil, err
		}
		out = append(out, Rendered{Name: s.Name(), Path: filepath.Join(h.Dir(s.System), s.Name()), Text: text})
	}
	rescue, err := h.rescueFile(spec)
	if err != nil {
		return nil, err
	}
	return append(out, rescue), nil
}

// InstallOptions say how far an installation goes.
type InstallOptions struct {
	Spec  Spec
	Force bool // replace a hand-edited unit, of which a copy is kept
	Say   func(format string, args ...any)
	Now   func() time.Time
}

// Install writes the unit files and enables the unit. m may be nil, when no
// manager can be reached: then the files are written and the unit is enabled by
// the link that the manager will find. Errors: Conflict, when another unit
// serves the profile or a file was edited by hand (the difference is said);
// Forbidden; Unavailable.
func (h Host) Install(ctx context.Context, m *Manager, o InstallOptions) error {
	files, err := h.Files(o.Spec)
	if err != nil {
		return err
	}
	if err := h.rival(ctx, o.Spec); err != nil {
		return err
	}
	unit := o.Spec.Instance()
	if m != nil {
		if u, err := m.Show(ctx, unit); err == nil {
			if err := u.mayStart(); err != nil {
				return err
			}
		}
	}
	if err := writeAll(files, o); err != nil {
		return err
	}
	if m == nil {
		return h.enableByLink(o.Spec, unit, o.Say)
	}
	if err := m.Reload(ctx); err != nil {
		return err
	}
	if err := m.Enable(ctx, unit); err != nil {
		return err
	}
	o.Say("✓ Enabled %s", unit)
	return nil
}

// rival finds another unit that serves, or will serve, the same profile: two at
// once would fight for it.
func (h Host) rival(ctx context.Context, s Spec) error {
	all, _ := h.AllOf(ctx, s.Kind, s.Profile, false) // a manager that is missing holds no rival
	for _, u := range all {
		if u.Name == s.Instance() && u.System == s.System {
			continue
		}
		if rank(u.Unit, "") < 2 {
			continue // neither active nor enabled
		}
		scope := " --user"
		if u.System {
			scope = ""
		}
		return domain.E(domain.Conflict, nil, "profile %s is already served by %s (%s, %s), and two units would fight for it. Keep that one, or take it away first: `systemctl%s disable --now %s`",
			s.Profile.Name, u.Name, u.Active, u.Enabled, scope, u.Name)
	}
	return nil
}

// writeAll writes files, all of which are looked at before one is written. A rescue
// unit that is masked is somebody's decision and no obstacle. Errors: as Install.
func writeAll(files []Rendered, o InstallOptions) error {
	var wanted []Rendered
	for _, f := range files {
		if rescue := strings.HasPrefix(f.Name, rescuePrefix); rescue && maskedFile(f.Path) {
			o.Say("! %s is masked and was left so: nobody is told when a unit ends for good", f.Path)
			continue
		}
		if err := mayWrite(f, o); err != nil {
			return err
		}
		wanted = append(wanted, f)
	}
	for _, f := range wanted {
		if err := write(f, o); err != nil {
			return err
		}
	}
	return nil
}

// maskedFile tells whether a unit file is a mask: a link to /dev/null, see
// systemctl(1), "mask".
func maskedFile(path string) bool {
	target, err := os.Readlink(path)
	return err == nil && target == os.DevNull
}

func mayWrite(f Rendered, o InstallOptions) error {
	old, err := plain.Read(f.Path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if maskedFile(f.Path) {
		return Unit{Name: f.Name, System: o.Spec.System, Load: "masked", File: f.Path}.mayStart()
	}
	if err != nil {
		return domain.E(domain.Unavailable, err, "%s cannot be read, so it was left as it is", f.Path)
	}
	origin := OriginOf(string(old))
	if origin == Generated || Same(string(old), f.Text) || o.Force {
		return nil
	}
	o.Say("%s is %s. To what install would write it differs so:\n%s", f.Path, origin, strings.TrimRight(Diff(string(old), f.Text), "\n"))
	return domain.E(domain.Conflict, nil, "%s is %s and was left as it is. `hermes%s gateway install --adopt` adds what it lacks as a drop-in; `--force` replaces it and keeps a copy", f.Path, origin, profileFlag(o.Spec.Profile))
}

func write(f Rendered, o InstallOptions) error {
	old, err := plain.Read(f.Path)
	switch {
	case err == nil && string(old) == f.Text:
		o.Say("✓ %s is up to date", f.Path)
		return nil
	case err == nil && OriginOf(string(old)) == Generated:
		o.Say("↻ Updated %s", f.Path)
	case err == nil:
		kept := f.Path + ".bak-" + o.Now().UTC().Format("20060102T150405Z")
		if err := replaceFile(kept, string(old)); err != nil {
			return err
		}
		o.Say("↻ Replaced %s; what it was is kept as %s", f.Path, kept)
	default:
		o.Say("✓ Wrote %s", f.Path)
	}
	return replaceFile(f.Path, f.Text)
}

// replaceFile writes a file in one step, and returns when it is on the disk: a unit
// file that a power cut left empty counts as masked, and starts no more
// (systemd.unit(5)). Errors: Forbidden, Unavailable.
func replaceFile(path, text string) error {
	fail := func(err error) error {
		code := domain.Unavailable
		if errors.Is(err, fs.ErrPermission) {
			code = domain.Forbidden
		}
		return domain.E(code, err, "%s cannot be written", path)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return fail(err)
	}
	tmp := filepath.Join(filepath.Dir(path), ".hermes-"+filepath.Base(path)+".new")
	f, err := plain.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o644)
	if err != nil {
		return fail(err)
	}
	_, err = f.WriteString(text)
	if err = errors.Join(err, f.Sync(), f.Close()); err == nil {
		err = os.Rename(tmp, path)
	}
	if err != nil {
		_ = os.Remove(tmp)
		return fail(err)
	}
	home.SyncDir(filepath.Dir(path))
	return nil
}

// wants is the folder of links by which a manager starts units at its own
// start.
func (h Host) wants(system bool) string {
	if system {
		return filepath.Join(h.SystemUnits, "multi-user.target.wants")
	}
	return filepath.Join(h.UserUnits, "default.target.wants")
}

// enableByLink does what `systemctl enable` does, where no manager runs.
func (h Host) enableByLink(s Spec, unit string, say func(string, ...any)) error {
	link := filepath.Join(h.wants(s.System), unit)
	if err := os.MkdirAll(filepath.Dir(link), 0o755); err != nil {
		return domain.E(domain.Unavailable, err, "%s cannot be made", filepath.Dir(link))
	}
	if err := os.Symlink(filepath.Join(h.Dir(s.System), s.Name()), link); err != nil && !errors.Is(err, fs.ErrExist) {
		return domain.E(domain.Unavailable, err, "%s cannot be linked", link)
	}
	say("✓ Enabled %s for when systemd runs it", unit)
	return nil
}

// Adopt adds the drop-in that gives a hand-written unit what a generated one
// has, and the rescue unit. What runs keeps running; the next start brings it in
// force. Errors: Conflict, when an edited file of that name is there; NotFound,
// when the unit has no file.
func (h Host) Adopt(ctx context.Context, u Found, o InstallOptions) error {
	if u.File == "" {
		return domain.E(domain.NotFound, nil, "%s has no file that could be added to", u.Name)
	}
	spec := o.Spec
	spec.System = u.System
	rescue, err := h.rescueFile(spec)
	if err != nil {
		return err
	}
	name := filepath.Base(u.File) // of an instance that is the template
	path := filepath.Join(h.Dir(u.System), name+".d", adoptName)
	files := []Rendered{rescue, {Name: adoptName, Path: path, Text: AdoptText(spec)}}
	if err := writeAll(files, o); err != nil {
		return err
	}
	return u.Manager.Reload(ctx)
}

// Uninstall stops and disables a profile's unit and removes its file, except
// one that was written by hand, which is left, and a template that other
// profiles use. The rescue unit goes with the last unit that names it. Of an edited file a copy is kept. Errors: as Operation.Stop.
func (h Host) Uninstall(ctx context.Context, op Operation, now time.Time) error {
	if _, err := op.Stop(ctx); err != nil {
		return err
	}
	if err := op.Manager.Disable(ctx, op.Name); err != nil {
		return err
	}
	op.Say("✓ Stopped and disabled %s", op.Name)
	if err := h.removeFile(op, now); err != nil {
		return err
	}
	if err := h.removeRescue(op, now); err != nil {
		return err
	}
	if err := op.Manager.Reload(ctx); err != nil {
		return err
	}
	return op.Manager.resetFailed(ctx, op.Name)
}

func (h Host) removeFile(op Operation, now time.Time) error {
	if origin, there := fileOrigin(op.File); !there {
		return nil // it was a transient unit, or is gone
	} else if origin == Foreign {
		op.Say("  %s is hand-written and was left", op.File)
		return nil
	}
	files := []string{op.File}
	if base, ok := strings.CutSuffix(filepath.Base(op.File), "@.service"); ok {
		if others := h.instances(op.System); len(others) > 0 {
			op.Say("  %s is left for %s", op.File, strings.Join(others, ", "))
			return nil
		}
		if base == "hermes-gateway" {
			files = append(files, filepath.Join(filepath.Dir(op.File), "hermes-cron@.service"))
		}
	}
	for _, path := range files {
		if err := drop(path, now, op.Say); err != nil {
			return err
		}
	}
	return nil
}

// fileOrigin is OriginOf a file; there is false when it cannot be read.
func fileOrigin(path string) (o Origin, there bool) {
	text, err := plain.Read(path)
	return OriginOf(string(text)), err == nil
}

// drop removes a generated file; one that was edited is moved aside.
func drop(path string, now time.Time, say func(string, ...any)) error {
	origin, there := fileOrigin(path)
	if !there {
		return nil
	}
	switch origin {
	case Foreign:
		say("  %s is hand-written and was left", path)
		return nil
	case Edited:
		kept := path + ".bak-" + now.UTC().Format("20060102T150405Z")
		if err := os.Rename(path, kept); err != nil {
			return domain.E(domain.Unavailable, err, "%s cannot be moved aside", path)
		}
		say("✓ Removed %s; it was edited by hand and is kept as %s", path, kept)
		return nil
	}
	if err := os.Remove(path); err != nil {
		return domain.E(domain.Unavailable, err, "%s cannot be removed", path)
	}
	say("✓ Removed %s", path)
	return nil
}

// instances lists the enabled instances of our templates.
func (h Host) instances(system bool) []string {
	var out []string
	for _, pattern := range []string{"hermes-gateway@*.service", "hermes-cron@*.service"} {
		found, _ := filepath.Glob(filepath.Join(h.wants(system), pattern))
		for _, path := range found {
			out = append(out, filepath.Base(path))
		}
	}
	return out
}
