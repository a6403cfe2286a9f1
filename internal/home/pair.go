package home

import (
	"bytes"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"hermes/internal/domain"
	"hermes/internal/failpoint"
)

// pending is a change of both files that was begun: what .env and config.yaml
// held, and what they are to hold. It stands beside them while they are written,
// so that a process that dies between the two leaves a change that the next one
// completes, and never a key without the model that it is for.
type pending struct {
	Before Files `json:"before"`
	After  Files `json:"after"`
}

func pendingFile(p Profile) string { return p.Path(".config-change.json") }

// writeFiles makes both files hold something else, or neither: .env first, then
// config.yaml. The caller holds the lock of edits and knows what they hold now.
// Errors: StorageFull, Unavailable; then the files are as they were.
func writeFiles(p Profile, now, to Files) error {
	if same(now.Env, to.Env) || same(now.Config, to.Config) {
		return errors.Join(put(p.EnvFile(), now.Env, to.Env), put(p.ConfigFile(), now.Config, to.Config))
	}
	text, err := json.Marshal(pending{now, to})
	if err != nil {
		return domain.E(domain.Internal, err, "the change cannot be written down before it is made")
	}
	if err := WriteAtomic(pendingFile(p), text, 0o600); err != nil {
		return err
	}
	failpoint.Hit(failpoint.EditPlanned)
	if err := put(p.EnvFile(), now.Env, to.Env); err != nil {
		return errors.Join(err, dropPending(p))
	}
	failpoint.Hit(failpoint.EditHalf)
	if err := put(p.ConfigFile(), now.Config, to.Config); err != nil {
		return errors.Join(err, put(p.EnvFile(), to.Env, now.Env), dropPending(p))
	}
	failpoint.Hit(failpoint.EditWritten)
	return dropPending(p)
}

// same tells whether a file holds that already; none is not an empty one.
func same(a, b []byte) bool { return bytes.Equal(a, b) && (a == nil) == (b == nil) }

func dropPending(p Profile) error {
	if err := os.Remove(pendingFile(p)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return domain.E(domain.Unavailable, err, "%s was not removed; remove it, since what it describes is done", pendingFile(p))
	}
	return nil
}

// complete ends a change that another process began and did not end. Of what a
// death can leave only one thing needs anything: the new .env beside the old
// config.yaml. Whatever else is found was done, never begun, or is somebody's own
// work since, and stays. It takes away what dead writers left behind. The caller
// holds the lock of edits.
func complete(p Profile) error {
	for _, name := range []string{".env", "config.yaml", ".env.bak", "config.yaml.bak", ".config-change.json"} {
		left, err := filepath.Glob(p.Path("." + name + ".*.tmp"))
		if err != nil {
			continue // the home's own name is a pattern
		}
		for _, path := range left {
			_ = os.Remove(path)
		}
	}
	text, err := readBounded(pendingFile(p))
	if err != nil || text == nil {
		return err
	}
	var c pending
	if json.Unmarshal(text, &c) == nil {
		now, err := readFiles(p)
		if err != nil {
			return err
		}
		if same(now.Env, c.After.Env) && same(now.Config, c.Before.Config) {
			if err := put(p.ConfigFile(), now.Config, c.After.Config); err != nil {
				return err
			}
		}
	}
	return dropPending(p)
}

// settle waits for a change of both files that is being written, and completes
// one whose writer died, before they are read. Where it cannot, the files are
// read as they are.
func settle(p Profile) {
	info, err := os.Lstat(pendingFile(p))
	if err != nil {
		return
	}
	// What another user's program completed would be the other user's file.
	if sys, ok := info.Sys().(*syscall.Stat_t); ok && int(sys.Uid) != os.Geteuid() {
		return
	}
	_ = withEditLock(p, By{}, func() error { return nil })
}
