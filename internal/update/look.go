package update

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"hermes/internal/plain"
	"hermes/internal/versions"
)

// Standing is what updates left behind, as it is found on the disk.
type Standing struct {
	State
	UnderWay error // says which update runs now, nil for none
	// Ended is what update.log says last, without its time; Interrupted, that the
	// process of that update died.
	Ended       string
	Interrupted bool
	Link        string // the version that the link `current` names, "" where there is no link
	LinkErr     error  // it leads to no program
	Folders     []Folder
	Left        []string // archives and folders that were begun, absolute paths
	LeftBytes   int64
}

// Folder is the folder of one version.
type Folder struct {
	Version string
	Program string // absolute path
	Receipt bool   // an update or an installer's version that was kept: its sum is known
	Changed bool   // the program is not the one whose sum is known
	Open    string // what other users may write: the folder or the program; "" for nothing
}

// maxFolders bounds the versions whose programs are read through.
const maxFolders = 6

// Look finds out how the versions of a user lie there. It changes nothing, and
// reads the programs of the newest few versions through. root is the home of all
// profiles.
func Look(userHome, root string) Standing {
	s := Standing{State: ReadState(userHome), UnderWay: UnderWay(userHome), Ended: lastSaid(LogFile(root))}
	_, begun := readAttempt(userHome)
	s.Interrupted = s.UnderWay == nil && (begun || strings.HasPrefix(s.Ended, "✗ ") && strings.Contains(s.Ended, interrupted))
	current := versions.Current(userHome)
	if target, err := os.Readlink(current); err == nil {
		s.Link = filepath.Base(target)
		if _, err := os.Stat(filepath.Join(current, programName)); err != nil {
			s.LinkErr = err
		}
	}
	all := versions.List(userHome)
	for _, v := range all[max(0, len(all)-maxFolders):] {
		if f, ok := lookAt(userHome, v); ok {
			s.Folders = append(s.Folders, f)
		}
	}
	for _, prefix := range []string{stagePrefix, partPrefix} {
		left, err := filepath.Glob(filepath.Join(versions.Dir(userHome), prefix+"*"))
		if err != nil {
			continue
		}
		for _, path := range left {
			s.Left = append(s.Left, path)
			s.LeftBytes += size(path)
		}
	}
	return s
}

// lookAt judges the folder of one version.
func lookAt(userHome, version string) (f Folder, ok bool) {
	program, err := versions.File(userHome, version)
	if err != nil {
		return f, false
	}
	f = Folder{Version: version, Program: program}
	for _, path := range []string{filepath.Dir(filepath.Dir(program)), filepath.Dir(program), program} {
		if f.Open == "" && writableByOthers(path) {
			f.Open = path
		}
	}
	text, err := plain.Read(filepath.Join(filepath.Dir(program), receiptName))
	var r receipt
	if err != nil || json.Unmarshal(text, &r) != nil || r.Program == "" {
		return f, true
	}
	f.Receipt = true
	sum, err := sumOf(program)
	f.Changed = err == nil && sum != r.Program
	return f, true
}

// writableByOthers tells whether users besides this one and root may change what
// is there.
func writableByOthers(path string) bool {
	info, err := os.Stat(path)
	if err != nil {
		return false
	}
	if info.Mode().Perm()&0o002 != 0 && info.Mode()&fs.ModeSticky == 0 {
		return true
	}
	sys, ok := info.Sys().(*syscall.Stat_t)
	return ok && sys.Uid != 0 && int(sys.Uid) != os.Getuid() && os.Getuid() != 0
}

// size is how many bytes a file or a folder takes.
func size(path string) (n int64) {
	err := filepath.WalkDir(path, func(_ string, d fs.DirEntry, err error) error {
		if err != nil {
			return nil //nolint:nilerr // it went away meanwhile
		}
		if info, err := d.Info(); err == nil && info.Mode().IsRegular() {
			n += info.Size()
		}
		return nil
	})
	if errors.Is(err, fs.ErrNotExist) {
		return 0
	}
	return n
}
