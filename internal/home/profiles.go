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
	"strings"

	"hermes/internal/domain"
	"hermes/internal/plain"
)

// List gives the profiles under root: the default one, then the others by name.
func List(root string) ([]Profile, error) {
	out := []Profile{{Name: DefaultProfile, Root: root, Home: root}}
	entries, err := os.ReadDir(filepath.Join(root, "profiles"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, domain.E(domain.Unavailable, err, "the folder of the profiles in %s cannot be read", root)
	}
	for _, e := range entries {
		if info, err := os.Stat(filepath.Join(root, "profiles", e.Name())); err == nil && info.IsDir() && ValidName(e.Name()) && e.Name() != DefaultProfile {
			p, err := Named(root, e.Name())
			if err != nil {
				return nil, err
			}
			out = append(out, p)
		}
	}
	return out, nil
}

// Active gives the name of the sticky profile.
func Active(root string) string {
	if name := stickyName(root); name != "" {
		return name
	}
	return DefaultProfile
}

// Existing gives a profile that must exist. Errors: Invalid, Config.
func Existing(root, name string) (Profile, error) {
	p, err := Named(root, name)
	if err != nil {
		return p, err
	}
	return mustExist(p, false)
}

// Use makes a profile the one that is meant when nothing else says so.
// Errors: Invalid, Config, StorageFull, Unavailable.
func Use(root, name string) (Profile, error) {
	p, err := Existing(root, name)
	if err != nil {
		return p, err
	}
	if err := os.MkdirAll(root, 0o700); err != nil {
		return p, domain.E(domain.Unavailable, err, "the folder %s cannot be made", root)
	}
	return p, WriteAtomic(filepath.Join(root, "active_profile"), []byte(p.Name+"\n"), 0o600)
}

// CreateOptions say what a new profile begins with.
type CreateOptions struct {
	Name        string
	From        *Profile // copied from; nil for an empty one
	All         bool     // copy everything but runtime state and the ledger
	Channels    bool     // copy the credentials of chat platforms too
	Description string
}

// Created is a new profile and what was left out of it.
type Created struct {
	Profile Profile
	Left    []string // credentials of chat platforms that were not copied
	Logins  []string // providers whose logins were not copied
}

// Create makes a profile. Two profiles with one bot token take each other's
// messages, so those are left out of a copy unless Channels is set; logins that
// renew themselves are never copied, or the two would log each other out; nor is
// the ledger, or what it still has to send would be sent twice. Errors:
// Invalid, Conflict when it exists, Config, StorageFull, Unavailable.
func Create(root string, o CreateOptions) (Created, error) {
	p, err := newProfile(root, o.Name)
	if err != nil {
		return Created{}, err
	}
	tmp, err := scratch(p)
	if err != nil {
		return Created{}, err
	}
	defer os.RemoveAll(tmp.Home)
	made := Created{Profile: p}
	if o.From != nil {
		if made.Left, err = copyProfile(*o.From, tmp, o.All, o.Channels); err != nil {
			return Created{}, err
		}
		if made.Logins, err = dropLogins(tmp); err != nil {
			return Created{}, err
		}
	}
	for _, dir := range []string{"logs", "cron", "scripts", "memories", "skills", "cache"} {
		if err := os.MkdirAll(tmp.Path(dir), 0o700); err != nil {
			return Created{}, domain.E(domain.Unavailable, err, "the profile %s was not made: %s cannot be made", p.Name, tmp.Path(dir))
		}
	}
	if o.Description != "" {
		text := "description: " + yamlText(o.Description) + "\n"
		if err := WriteAtomic(tmp.Path("profile.yaml"), []byte(text), 0o600); err != nil {
			return Created{}, err
		}
	}
	if err := os.Rename(tmp.Home, p.Home); err != nil {
		return Created{}, domain.E(domain.Unavailable, err, "the profile %s was not made: its folder cannot be moved into place", p.Name)
	}
	return made, nil
}

func newProfile(root, name string) (Profile, error) {
	p, err := Named(root, name)
	if err != nil {
		return p, err
	}
	if p.Name == DefaultProfile || slices.Contains([]string{"hermes", "test", "tmp", "root", "sudo"}, p.Name) {
		return p, domain.E(domain.Invalid, nil, "the name %q is reserved; choose another", p.Name)
	}
	if _, err := os.Lstat(p.Home); err == nil {
		return p, domain.E(domain.Conflict, nil, "the profile %q exists already (%s); choose another name, or run `hermes profile delete %s` first", p.Name, p.Home, p.Name)
	}
	return p, nil
}

// scratch makes a folder beside the future profile, to be renamed when it is whole.
func scratch(p Profile) (Profile, error) {
	dir := filepath.Dir(p.Home)
	err := os.MkdirAll(dir, 0o700)
	if err == nil {
		p.Home, err = os.MkdirTemp(dir, ".new-") // a name that no profile can have; 0700
	}
	if err != nil {
		return p, domain.E(domain.Unavailable, err, "the folder %s cannot be written", dir)
	}
	return p, nil
}

// notCopied are what belongs to one running profile only, or to the root.
var notCopied = []string{
	"profiles", "active_profile", "logs", "cache", "backups", "state-snapshots", "state", "config-history",
	"gateway.pid", "gateway.lock", "gateway.sock", "gateway_state.json", "gateway-starts.log", "processes.json",
	".clean_shutdown", ".gateway-takeover.json", ".gateway-planned-stop.json", ".config.lock", "binary.pin",
	"binaries.json", "gateway-starts.json", "gateway-starts.journal", ".config-change.json",
}

// leftOut tells whether a top-level name is runtime state.
func leftOut(name string) bool {
	return slices.Contains(notCopied, name) || strings.HasPrefix(name, "ledger.db") || strings.HasSuffix(name, ".tmp") ||
		strings.HasSuffix(name, ".sock") || strings.HasSuffix(name, ".lock") || strings.HasSuffix(name, "-wal") || strings.HasSuffix(name, "-shm") || strings.HasPrefix(name, ".update_") || strings.HasPrefix(name, ".restart_")
}

func copyProfile(from, to Profile, all, channels bool) (left []string, err error) {
	settle(from)
	names := []string{"config.yaml", ".env", "SOUL.md", "skills", "memories"}
	if all {
		names = nil
		entries, err := os.ReadDir(from.Home)
		if err != nil {
			return nil, domain.E(domain.Unavailable, err, "the profile %s cannot be read", from.Name)
		}
		for _, e := range entries {
			switch {
			case leftOut(e.Name()) || olderCopy(e.Name()):
			case !channels && slices.Contains(channelFiles, e.Name()):
				left = append(left, e.Name())
			default:
				names = append(names, e.Name())
			}
		}
	}
	for _, name := range names {
		if err := copyTree(from.Path(name), to.Path(name)); err != nil {
			return nil, domain.E(domain.Unavailable, err, "%s cannot be copied", from.Path(name))
		}
	}
	if channels {
		return nil, nil
	}
	dropped, err := dropChannels(to)
	return append(dropped, left...), err
}

// copyTree copies files and folders, 0600 and 0700, and what can be run stays
// so for its owner. Links and other special files are passed over.
func copyTree(from, to string) error {
	return filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) && path == from {
			return nil
		}
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		switch dst := filepath.Join(to, rel); {
		case d.IsDir():
			return os.MkdirAll(dst, 0o700)
		case d.Type().IsRegular():
			info, err := d.Info()
			if err != nil {
				return err
			}
			src, err := plain.Open(path)
			if err != nil {
				return err
			}
			defer src.Close()
			return writeFrom(dst, src, 0o600|info.Mode().Perm()&0o100)
		}
		return nil
	})
}

// Delete removes a profile and resets the sticky choice if it was that one.
// Errors: Invalid for the default profile, Conflict while its gateway runs,
// Unavailable.
func Delete(p Profile) error {
	if p.Name == DefaultProfile || p.Home == p.Root {
		return domain.E(domain.Invalid, nil, "the default profile cannot be deleted, since it is the root of all others")
	}
	if err := mustBeStopped(p); err != nil {
		return err
	}
	// Renamed first: a deletion that is cut short leaves no half profile.
	trash, err := os.MkdirTemp(filepath.Dir(p.Home), ".deleting-")
	if err == nil {
		err = os.Rename(p.Home, filepath.Join(trash, p.Name))
	}
	if err != nil {
		return domain.E(domain.Unavailable, err, "the profile %s was not deleted: %s cannot be moved", p.Name, p.Home)
	}
	if Active(p.Root) == p.Name {
		if _, err := Use(p.Root, DefaultProfile); err != nil {
			return err
		}
	}
	if err := os.RemoveAll(trash); err != nil {
		return domain.E(domain.Unavailable, err, "the profile %s is gone, but some of its files are left in %s; remove them", p.Name, trash)
	}
	return nil
}

// Rename gives a profile another name. Errors: Invalid, Conflict, Unavailable.
func Rename(p Profile, name string) (Profile, error) {
	if p.Name == DefaultProfile {
		return p, domain.E(domain.Invalid, nil, "the default profile cannot be renamed, since it is the root of all others")
	}
	to, err := newProfile(p.Root, name)
	if err != nil {
		return p, err
	}
	if err := mustBeStopped(p); err != nil {
		return p, err
	}
	if err := os.Rename(p.Home, to.Home); err != nil {
		return p, domain.E(domain.Unavailable, err, "the profile %s was not renamed: %s cannot be moved", p.Name, p.Home)
	}
	if Active(p.Root) == p.Name {
		if _, err := Use(p.Root, to.Name); err != nil {
			return to, err
		}
	}
	return to, nil
}

func mustBeStopped(p Profile) error {
	if pid, runs := Running(p); runs {
		return domain.E(domain.Conflict, nil, "the gateway of the profile %s runs (PID %d), so nothing was changed; run `hermes -p %s gateway stop` first", p.Name, pid, p.Name)
	}
	return nil
}

// Running tells by gateway.pid whether a profile's gateway lives. The file may
// hold a bare number; a PID that another program has taken since is told apart
// by its start time, where the file has one.
func Running(p Profile) (pid int, ok bool) {
	data, err := plain.Read(p.PIDFile())
	if err != nil {
		return 0, false
	}
	var record struct {
		PID   int    `json:"pid"`
		Start uint64 `json:"start_time"`
	}
	if json.Unmarshal(data, &record) != nil {
		if record.PID, err = strconv.Atoi(strings.TrimSpace(string(data))); err != nil {
			return 0, false
		}
	}
	return record.PID, record.PID > 0 && alive(record.PID, record.Start)
}

// procStart gives a process's start time as field 22 of /proc/<pid>/stat; see
// proc(5). 0 means that there is no such process, or no /proc.
func procStart(pid int) uint64 {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0
	}
	i := strings.LastIndexByte(string(data), ')') // the name may hold blanks
	fields := strings.Fields(string(data[i+1:]))
	if i < 0 || len(fields) < 20 || fields[0] == "Z" {
		return 0
	}
	start, err := strconv.ParseUint(fields[19], 10, 64)
	if err != nil {
		return 0
	}
	return start
}
