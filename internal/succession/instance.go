package succession

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"hermes/internal/domain"
	"hermes/internal/home"
	"hermes/internal/plain"
)

// Instance is the right to serve a profile. It ends with the process, however
// that ends, because the kernel lets go of the flock.
type Instance struct {
	profile home.Profile
	lock    *os.File
	Record  Record
	// Unrecorded is why the files do not name this process, nil where they do.
	// The right holds all the same: a full disk must not keep a gateway down.
	Unrecorded error
	// Before is the process that served last, where it left its PID file: it
	// ended without a clean stop. PID 0 where there was none.
	Before Record
}

// Unclean gives the process that served a profile last, when it ended without a
// clean stop (killed, crashed, or the machine went down): it left its PID file.
func Unclean(p home.Profile) (r Record, ok bool) {
	r = readRecord(p.PIDFile())
	return r, r.PID > 0 && r.PID != os.Getpid() && !r.Alive()
}

// Claim takes the right to serve a profile. domain.Conflict when a live process
// has it; the message names its PID.
func Claim(p home.Profile) (*Instance, error) {
	if err := os.MkdirAll(p.Home, 0o700); err != nil {
		return nil, domain.E(domain.Unavailable, err, "the home folder %s cannot be made", p.Home)
	}
	f, err := plain.OpenFile(p.LockFile(), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, domain.E(domain.Unavailable, err, "%s cannot be opened; is the home folder writable?", p.LockFile())
	}
	if err := lockOrWait(f, p); err != nil {
		f.Close()
		return nil, err
	}
	// A gateway of the other system may hold the PID file without our lock.
	if r := readRecord(p.PIDFile()); r.PID != os.Getpid() && r.Alive() && r.isGateway() {
		f.Close()
		return nil, inUse(p, r)
	}
	i := &Instance{profile: p, lock: f, Record: Self(p.Home, p.Name)}
	if before, unclean := Unclean(p); unclean {
		i.Before = before
	}
	if err := i.write(); errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		i.Unrecorded = err
	} else if err != nil {
		f.Close()
		return nil, domain.E(domain.Unavailable, err, "the PID file cannot be written; is the home folder writable?")
	}
	return i, nil
}

// A lock whose recorded holder is dead is held by a child that was forked and
// has not begun its own program yet. It is waited for, for so long.
const (
	orphanWait = 3 * time.Second
	orphanPoll = 10 * time.Millisecond
)

// lockOrWait takes the lock. domain.Conflict when a live process has it.
func lockOrWait(f *os.File, p home.Profile) error {
	for waited := time.Duration(0); ; waited += orphanPoll {
		err := flock(f)
		if err == nil {
			return nil
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) {
			return domain.E(domain.Unavailable, err, "%s cannot be locked", p.LockFile())
		}
		if holder := readRecord(p.LockFile()); holder.PID > 0 && holder.Alive() || waited >= orphanWait {
			return inUse(p, holder)
		}
		time.Sleep(orphanPoll)
	}
}

func inUse(p home.Profile, r Record) error {
	who := "PID unknown"
	if r.PID > 0 {
		who = fmt.Sprintf("PID %d", r.PID)
	}
	return domain.E(domain.Conflict, nil, "Another gateway instance is already running for profile %s (%s). Stop it with `hermes%s gateway stop`, or take over with `--replace`", p.Name, who, flag(p))
}

func flag(p home.Profile) string {
	if p.Name == "default" {
		return ""
	}
	return " -p " + p.Name
}

// isGateway tells whether a record is one of a gateway and not of some other
// program that got its number.
func (r Record) isGateway() bool {
	return r.Kind == "hermes-gateway" || r.StartTime == 0
}

// write puts the record into both files. The lock file is written in place:
// renaming another over it would lose the lock. It is cut to its length
// afterwards and not before, so that a full disk has the block that it needs.
func (i *Instance) write() error {
	text, err := json.Marshal(i.Record)
	if err != nil {
		return err
	}
	text = append(text, '\n')
	if _, err := i.lock.WriteAt(text, 0); err != nil {
		return err
	}
	if err := i.lock.Truncate(int64(len(text))); err != nil {
		return err
	}
	return writeFile(i.profile.PIDFile(), text)
}

// Release gives the right back and removes the PID file.
func (i *Instance) Release() {
	if readRecord(i.profile.PIDFile()).PID == i.Record.PID {
		_ = os.Remove(i.profile.PIDFile())
	}
	i.lock.Close()
}

// Holder tells which live process serves a profile; ok is false when none does.
func Holder(p home.Profile) (r Record, ok bool) {
	f, err := plain.OpenFile(p.LockFile(), os.O_RDWR, 0)
	if err != nil {
		r = readRecord(p.PIDFile())
		return r, r.Alive() && r.isGateway()
	}
	defer f.Close()
	if flock(f) == nil {
		r = readRecord(p.PIDFile())
		return r, r.PID != os.Getpid() && r.Alive() && r.isGateway()
	}
	return readRecord(p.LockFile()), true
}

func flock(f *os.File) error {
	return syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
}

// readRecord reads a record, or a bare PID; a zero record when there is none.
func readRecord(path string) (r Record) {
	text, err := plain.Read(path)
	if err != nil {
		return r
	}
	if json.Unmarshal(text, &r) != nil {
		r.PID, _ = strconv.Atoi(strings.TrimSpace(string(text)))
	}
	return r
}

// writeFile replaces a file in one step.
func writeFile(path string, text []byte) error {
	tmp, err := os.CreateTemp(filepath.Dir(path), ".tmp-*")
	if err != nil {
		return err
	}
	defer os.Remove(tmp.Name())
	_, err = tmp.Write(text)
	if cerr := tmp.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Rename(tmp.Name(), path)
	}
	return err
}
