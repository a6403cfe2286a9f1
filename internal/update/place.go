package update

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"hermes/internal/domain"
	"hermes/internal/home"
	"hermes/internal/plain"
	"hermes/internal/versions"
)

// Kind is how the program that people and units start is installed.
type Kind string

// The kinds.
const (
	// Linked: what is started leads through the link `current` to a folder of the
	// versions. Moving that link is the whole switch.
	Linked Kind = "linked"
	// Copied: it is a plain file that this user may replace.
	Copied Kind = "copied"
	// Foreign: it is not this user's to change.
	Foreign Kind = "foreign"
	// Own: it is not this user's to change, so that from now on this user has a
	// copy of their own, to which profiles are pinned.
	Own Kind = "own copy"
)

// Place is where the program lies that people and units start.
type Place struct {
	Kind     Kind
	Path     string // what is started: a link or the file
	UserHome string
	// Why says of a foreign one what it is; Remedy is the command that updates it.
	Why, Remedy string
}

// Surroundings are what Locate looks at.
type Surroundings struct {
	UserHome   string
	Executable string // the file of this program
	Called     string // the path by which it was found, "" where that is not known
	InPath     string // what the shell finds under the name hermes, "" for nothing
}

// dpkgFiles lists the files of the Debian package; dpkg(1).
const dpkgFiles = "/var/lib/dpkg/info/hermes.list"

// Locate finds out how the program is installed.
func Locate(s Surroundings) Place {
	p := Place{Path: s.Executable, UserHome: s.UserHome, Kind: Copied}
	if s.Called != "" && sameFile(s.Called, s.Executable) {
		p.Path = s.Called
	}
	exe, err := filepath.EvalSymlinks(s.Executable)
	if err != nil {
		exe = s.Executable
	}
	foreign := func(remedy, format string, args ...any) Place {
		p.Kind, p.Why, p.Remedy = Foreign, fmt.Sprintf(format, args...), remedy
		return p
	}
	if s.InPath != "" && !sameFile(s.InPath, exe) && isScript(s.InPath) {
		return foreign(exe+" update", "%s, which a shell starts as hermes, is a wrapper around %s", s.InPath, exe)
	}
	if dir, err := filepath.EvalSymlinks(versions.Dir(s.UserHome)); err == nil && strings.HasPrefix(exe, dir+string(filepath.Separator)) {
		p.Kind = Linked
		return p
	}
	if target, err := os.Readlink(p.Path); err == nil {
		return foreign("", "%s is a symbolic link to %s, which somebody else made", p.Path, target)
	}
	if text, err := plain.Read(dpkgFiles); err == nil && strings.Contains(string(text), exe+"\n") {
		return foreign("sudo apt install ./hermes_VERSION_ARCH.deb && hermes gateway restart --all", "%s belongs to Debian's package hermes", exe)
	}
	dir := filepath.Dir(p.Path)
	if unix.Access(dir, unix.W_OK) != nil {
		return foreign("sudo hermes update && hermes gateway restart --all", "%s cannot be replaced: its folder %s is not yours to write", p.Path, dir)
	}
	return p
}

func sameFile(a, b string) bool {
	one, err1 := os.Stat(a)
	two, err2 := os.Stat(b)
	return err1 == nil && err2 == nil && os.SameFile(one, two)
}

func isScript(path string) bool {
	f, err := plain.Open(path)
	if err != nil {
		return false
	}
	defer f.Close()
	head := make([]byte, 2)
	_, err = io.ReadFull(f, head)
	return err == nil && string(head) == "#!"
}

// Ready says why the program cannot be switched to another version, nil where
// it can. Errors: Forbidden, with the exact command that can.
func (p Place) Ready() error {
	if p.Kind != Foreign {
		return nil
	}
	other := "`hermes update --own-copy` gives you a copy of your own in ~/.local, which needs nobody else from then on"
	if p.Remedy != "" {
		other = "`" + p.Remedy + "` updates it; " + other
	}
	return domain.E(domain.Forbidden, nil, "nothing was downloaded: %s. %s", p.Why, other)
}

// Owned is the place with a copy of the user's own, where it is foreign.
func (p Place) Owned() Place {
	if p.Kind == Foreign {
		p.Kind = Own
	}
	return p
}

// link is where a user's own copy is started.
func (p Place) link() string { return filepath.Join(p.UserHome, ".local", "bin", programName) }

// Point makes what people and units start the program of a version, in one step
// a file. Doing it again changes nothing. Errors: Conflict, Unavailable, StorageFull.
func (p Place) Point(version string) error {
	program, err := versions.File(p.UserHome, version)
	if err != nil {
		return err
	}
	if p.Kind == Copied {
		return replace(program, p.Path)
	}
	current := versions.Current(p.UserHome)
	if err := versions.Switch(current, filepath.Join(filepath.Base(versions.Dir(p.UserHome)), version)); err != nil {
		return err
	}
	home.SyncDir(filepath.Dir(current))
	through := filepath.Join(current, programName)
	if p.Kind == Own {
		if err := versions.Switch(p.link(), through); err != nil {
			return err
		}
	} else if target, err := os.Readlink(p.Path); err == nil && !sameFile(p.Path, program) && filepath.IsAbs(target) {
		// A link to the folder of one version by its name.
		return versions.Switch(p.Path, through)
	}
	return nil
}

// Starts tells whether what a unit or a command line names is, by now, the
// program of a version.
func (p Place) Starts(path, version string) bool {
	program, err := versions.File(p.UserHome, version)
	if err != nil || path == "" {
		return false
	}
	if sameFile(path, program) {
		return true
	}
	return p.Kind == Copied && sameFile(path, p.Path)
}

// replace puts a copy of a file in the place of another in one step.
func replace(from, to string) error {
	in, err := plain.Open(from)
	if err != nil {
		return storage(err, from)
	}
	defer in.Close()
	mode := fs.FileMode(0o755)
	if info, err := os.Stat(to); err == nil {
		mode = info.Mode().Perm()
	}
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return storage(err, to)
	}
	tmp, err := os.CreateTemp(filepath.Dir(to), "."+filepath.Base(to)+".*.new")
	if err != nil {
		return storage(err, to)
	}
	defer os.Remove(tmp.Name())
	_, err = io.Copy(tmp, in)
	if err == nil {
		err = tmp.Chmod(mode)
	}
	if err == nil {
		err = tmp.Sync()
	}
	if err := errors.Join(err, tmp.Close()); err != nil {
		return storage(err, to)
	}
	if err := os.Rename(tmp.Name(), to); err != nil {
		return storage(err, to)
	}
	home.SyncDir(filepath.Dir(to))
	return nil
}
