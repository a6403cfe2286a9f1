// Package versions knows the programs that a profile may be served by: the
// folder in which versions lie beside each other, the one that a profile is
// pinned to, the one that served it healthily last, and the one that an update
// brought. All of it is plain files that are replaced in one step, so that it
// works with a broken ledger, a broken configuration, and from another process.
package versions

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"hermes/internal/domain"
	"hermes/internal/home"
	"hermes/internal/plain"
)

// program is the file's name in the folder of a version.
const program = "hermes"

// Dir is the folder of all versions of a user. XDG_DATA_HOME is not asked: a
// service and a shell of the same user must mean the same place.
func Dir(userHome string) string {
	return filepath.Join(userHome, ".local", "share", "hermes", "versions")
}

// Current is the link that names the version in use, for whoever is not pinned.
func Current(userHome string) string { return filepath.Join(filepath.Dir(Dir(userHome)), "current") }

// wellFormed tells whether a version can be the name of a folder.
func wellFormed(version string) bool {
	for i, c := range []byte(version) {
		plain := 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9'
		if !plain && (i == 0 || !strings.ContainsRune(".+_-", rune(c))) {
			return false
		}
	}
	return version != "" && len(version) <= 100
}

// File is the program of a version. Errors: Invalid, when the version is no name
// of a folder.
func File(userHome, version string) (string, error) {
	if !wellFormed(version) || strings.Contains(version, "..") {
		return "", domain.E(domain.Invalid, nil, "%q is no version", version)
	}
	return filepath.Join(Dir(userHome), version, program), nil
}

// List gives the versions whose program is there, sorted by name.
func List(userHome string) []string {
	found, err := filepath.Glob(filepath.Join(Dir(userHome), "*", program))
	if err != nil {
		return nil
	}
	out := make([]string, 0, len(found))
	for _, f := range found {
		if name := filepath.Base(filepath.Dir(f)); runnable(f) && wellFormed(name) {
			out = append(out, name)
		}
	}
	slices.Sort(out)
	return out
}

// Switch makes a link point to target in one step: whoever follows it meanwhile
// finds the old one or the new one. Errors: Conflict, when path is something
// else than a link; Unavailable.
func Switch(path, target string) error {
	if info, err := os.Lstat(path); err == nil && info.Mode()&fs.ModeSymlink == 0 {
		return domain.E(domain.Conflict, nil, "%s is no link, so it was left alone", path)
	}
	fail := func(err error) error {
		return domain.E(domain.Unavailable, err, "the link %s could not be made to name %s", path, target)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return fail(err)
	}
	tmp, err := os.MkdirTemp(filepath.Dir(path), ".link-")
	if err != nil {
		return fail(err)
	}
	defer os.RemoveAll(tmp)
	if err := os.Symlink(target, filepath.Join(tmp, "l")); err != nil {
		return fail(err)
	}
	if err := os.Rename(filepath.Join(tmp, "l"), path); err != nil {
		return fail(err)
	}
	return nil
}

// Binary is one program file. Size and time of change tell it from another that
// was put in its place later.
type Binary struct {
	Path    string    `json:"path"` // absolute
	Version string    `json:"version,omitempty"`
	Size    int64     `json:"size"`
	Changed time.Time `json:"changed"`     // the file's time of change
	At      time.Time `json:"at,omitzero"` // when this was noted
}

// Look describes a program file. Errors: NotFound.
func Look(path, version string, now time.Time) (Binary, error) {
	info, err := os.Stat(path)
	if err != nil || !info.Mode().IsRegular() {
		return Binary{}, domain.E(domain.NotFound, err, "there is no program %s", path)
	}
	return Binary{Path: path, Version: version, Size: info.Size(), Changed: info.ModTime().UTC(), At: now.UTC()}, nil
}

// Same tells whether two are the same file with the same content, as far as can
// be told without reading it.
func (b Binary) Same(o Binary) bool {
	return b.Path == o.Path && b.Size == o.Size && b.Changed.Equal(o.Changed)
}

// Present tells whether the file is still there, unchanged, and can be run.
func (b Binary) Present() bool {
	if b.Path == "" {
		return false
	}
	now, err := Look(b.Path, "", time.Time{})
	return err == nil && now.Same(b) && runnable(b.Path)
}

// Ask lets a program say which version it is; "" when it does not, or not
// before ctx ends.
func Ask(ctx context.Context, program string) string {
	cmd := exec.CommandContext(ctx, program, "--version")
	cmd.WaitDelay = time.Second
	out, err := cmd.Output()
	if err != nil {
		return ""
	}
	_, version, _ := strings.Cut(strings.TrimSpace(string(out)), " ")
	return version
}

func runnable(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular() && info.Mode().Perm()&0o111 != 0
}

// Pin names the program that must serve a profile, whatever its unit starts.
type Pin struct {
	Path    string    `json:"path"` // absolute
	Version string    `json:"version,omitempty"`
	Why     string    `json:"why,omitempty"`
	At      time.Time `json:"at,omitzero"`
}

// PinFile is where the pin of a profile stands. A person may write the bare
// path of a program into it.
func PinFile(p home.Profile) string { return p.Path("binary.pin") }

// Pinned gives the pin; ok is false when there is none. Errors: Config, when
// there is one that cannot be read or used; what it says is not followed then.
func Pinned(p home.Profile) (pin Pin, ok bool, err error) {
	text, err := plain.Read(PinFile(p))
	if errors.Is(err, fs.ErrNotExist) {
		return Pin{}, false, nil
	}
	bad := func(cause error, what string) (Pin, bool, error) {
		return pin, false, domain.E(domain.Config, cause, "%s %s, so the profile is served by the program that was started; mend the file or remove it", PinFile(p), what)
	}
	if err != nil {
		return bad(err, "cannot be read")
	}
	if bare := strings.TrimSpace(string(text)); filepath.IsAbs(bare) && !strings.Contains(bare, "\n") {
		pin = Pin{Path: bare}
	} else if err := json.Unmarshal(text, &pin); err != nil {
		return bad(err, "is no pin")
	}
	switch {
	case !filepath.IsAbs(pin.Path):
		return bad(nil, "names no absolute path")
	case !runnable(pin.Path):
		return bad(nil, "names "+pin.Path+", which is missing or cannot be run")
	}
	return pin, true, nil
}

// SetPin pins a profile. Errors: Invalid, Unavailable, StorageFull.
func SetPin(p home.Profile, pin Pin) error {
	if !filepath.IsAbs(pin.Path) || !runnable(pin.Path) {
		return domain.E(domain.Invalid, nil, "%q is no program that can be run by its absolute path, so the profile was not pinned to it", pin.Path)
	}
	return write(PinFile(p), pin)
}

// Unpin takes the pin away. It is no error when there is none.
func Unpin(p home.Profile) error {
	if err := os.Remove(PinFile(p)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return domain.E(domain.Unavailable, err, "%s was not removed", PinFile(p))
	}
	return nil
}

// Book is what is known of the programs that served a profile.
type Book struct {
	Good    Binary   `json:"good,omitzero"`    // served healthily last; At is when
	Brought *Brought `json:"brought,omitzero"` // by the last update
}

// Brought is what an update put in place.
type Brought struct {
	Binary
	From string `json:"from,omitempty"` // the version before
}

func bookFile(p home.Profile) string { return p.Path("binaries.json") }

// Read gives what is known. What cannot be read counts as unknown.
func Read(p home.Profile) Book {
	var b Book
	text, err := plain.Read(bookFile(p))
	if err != nil || json.Unmarshal(text, &b) != nil {
		return Book{}
	}
	return b
}

// NoteGood notes that a program serves the profile healthily. Errors:
// Unavailable, StorageFull.
func NoteGood(p home.Profile, good Binary) error {
	b := Read(p)
	b.Good = good
	return write(bookFile(p), b)
}

// NoteBrought notes that an update put a program in place for the profile.
// Errors: Unavailable, StorageFull.
func NoteBrought(p home.Profile, brought Brought) error {
	b := Read(p)
	b.Brought = &brought
	return write(bookFile(p), b)
}

// Fallback gives the program that served the profile healthily last, where it
// is another than present and still there.
func (b Book) Fallback(present Binary) (Binary, bool) {
	return b.Good, !b.Good.Same(present) && b.Good.Present()
}

func write(path string, v any) error {
	text, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return domain.E(domain.Unavailable, err, "the folder %s cannot be made", filepath.Dir(path))
	}
	return home.WriteAtomic(path, append(text, '\n'), 0o600)
}
