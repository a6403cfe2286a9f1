package update

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"hermes/internal/domain"
	"hermes/internal/home"
	"hermes/internal/plain"
	"hermes/internal/versions"
)

// receipt says what the folder of a version was made of. It stands in the folder
// and is written before that gets its name, so that a folder with one is whole.
type receipt struct {
	Version string `json:"version"`
	Archive string `json:"archive_sha256"` // "" for a copy of an installed program
	Program string `json:"program_sha256"`
}

const (
	receiptName = "release.json"
	stagePrefix = ".stage-"
)

// room is how many bytes an update may need beside its archive: the archive and
// what it holds, twice over.
func room(archive int64) uint64 { return uint64(8*archive) + 32<<20 }

// enough holds that a disk has room. Errors: StorageFull.
func enough(dir string, need uint64) error {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return nil //nolint:nilerr // a file system that does not tell; writing will
	}
	free := st.Bavail * uint64(st.Bsize)
	if free < need {
		return domain.E(domain.StorageFull, nil, "the disk of %s has %d MiB free, and an update may need %d MiB; nothing was downloaded. Make room and run it again", dir, free>>20, need>>20)
	}
	return nil
}

// staged gives the program of a version that lies there whole already, of the
// archive with that sum ("" for any).
func staged(userHome, version, archive string) (program string, ok bool) {
	program, err := versions.File(userHome, version)
	if err != nil {
		return "", false
	}
	text, err := plain.Read(filepath.Join(filepath.Dir(program), receiptName))
	if err != nil {
		return program, false
	}
	var r receipt
	if json.Unmarshal(text, &r) != nil || archive != "" && r.Archive != archive {
		return program, false
	}
	sum, err := sumOf(program)
	return program, err == nil && sum == r.Program
}

// stage unpacks an archive, holds its program to the machine and its version,
// and gives the folder its name in one step. Errors: Invalid, StorageFull,
// Unavailable.
func stage(ctx context.Context, userHome string, f Fetched, platform string) (program string, err error) {
	return fill(userHome, f.Version, f.SHA256, func(dir string) error {
		if err := unpack(ctx, f.File, dir); err != nil {
			return err
		}
		program := filepath.Join(dir, programName)
		if err := rightMachine(program, platform); err != nil {
			return err
		}
		return runs(ctx, program, f.Version)
	})
}

// keep makes a program that is installed one of the versions, so that an update
// can go back to it. from is read, whatever became of its name.
func keep(userHome, version, from string) (program string, err error) {
	sum, err := sumOf(from)
	if err != nil {
		return "", err
	}
	program, err = versions.File(userHome, version)
	if err != nil {
		return "", err
	}
	if have, err := sumOf(program); err == nil && have == sum {
		note := filepath.Join(filepath.Dir(program), receiptName)
		if exists(note) {
			return program, nil
		}
		return program, writeJSON(note, receipt{version, "", sum}) // put there by the installer
	}
	return fill(userHome, version, "", func(dir string) error { return replace(from, filepath.Join(dir, programName)) })
}

// fill makes the folder of a version: with is given an empty one to fill.
func fill(userHome, version, archive string, with func(dir string) error) (program string, err error) {
	program, err = versions.File(userHome, version)
	if err != nil {
		return "", err
	}
	all := versions.Dir(userHome)
	tmp, err := os.MkdirTemp(all, stagePrefix)
	if err != nil {
		return "", storage(err, all)
	}
	defer os.RemoveAll(tmp)
	if err := os.Chmod(tmp, 0o755); err != nil {
		return "", storage(err, tmp)
	}
	if err := with(tmp); err != nil {
		return "", err
	}
	made := filepath.Join(tmp, programName)
	if err := os.Chmod(made, 0o755); err != nil {
		return "", storage(err, made)
	}
	sum, err := sumOf(made)
	if err != nil {
		return "", err
	}
	text, err := json.Marshal(receipt{version, archive, sum})
	if err != nil {
		return "", err
	}
	if err := home.WriteAtomic(filepath.Join(tmp, receiptName), append(text, '\n'), 0o644); err != nil {
		return "", err
	}
	home.SyncDir(tmp)
	if dir := filepath.Dir(program); exists(dir) {
		// A folder with content cannot be replaced in one step; its program can, and
		// the receipt follows: until it does, the folder counts as not whole.
		if err := replace(made, program); err != nil {
			return "", err
		}
		if err := home.WriteAtomic(filepath.Join(dir, receiptName), append(text, '\n'), 0o644); err != nil {
			return "", err
		}
	} else if err := os.Rename(tmp, dir); err != nil {
		return "", storage(err, dir)
	}
	home.SyncDir(all)
	return program, nil
}

// sweep removes what interrupted updates left. Archives that were begun stay for
// the next attempt where they are still wanted.
func sweep(userHome string, downloads bool) {
	prefixes := []string{stagePrefix}
	if downloads {
		prefixes = append(prefixes, partPrefix)
	}
	for _, prefix := range prefixes {
		left, err := filepath.Glob(filepath.Join(versions.Dir(userHome), prefix+"*"))
		if err != nil {
			return
		}
		for _, path := range left {
			_ = os.RemoveAll(path) // again next time
		}
	}
}

// prune removes versions that nobody needs any more, and names them. wanted are
// the programs that serve, may be gone back to, or are pinned to.
func prune(userHome string, wanted []string) (removed []string) {
	keep := map[string]bool{}
	for _, path := range wanted {
		if target, err := filepath.EvalSymlinks(path); err == nil {
			keep[filepath.Dir(target)] = true
		}
	}
	for _, version := range versions.List(userHome) {
		program, err := versions.File(userHome, version)
		if err != nil {
			continue
		}
		dir, err := filepath.EvalSymlinks(filepath.Dir(program))
		if err != nil || keep[dir] || !exists(filepath.Join(dir, receiptName)) {
			continue
		}
		if os.RemoveAll(dir) == nil {
			removed = append(removed, version)
		}
	}
	return removed
}

// older gives the newest version that lies there and is older than another.
func older(userHome, than string) (string, bool) {
	best := ""
	for _, v := range versions.List(userHome) {
		if Compare(v, than) < 0 && (best == "" || Compare(v, best) > 0) {
			best = v
		}
	}
	return best, best != ""
}

// list joins names for a sentence.
func list(names []string) string {
	if len(names) < 2 {
		return strings.Join(names, "")
	}
	return fmt.Sprintf("%s and %s", strings.Join(names[:len(names)-1], ", "), names[len(names)-1])
}
