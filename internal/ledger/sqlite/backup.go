package sqlite

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"hermes/internal/domain"
)

const (
	// keptCopies is how many copies from before upgrades stay beside the ledger.
	keptCopies = 2
	// copyReserve is what must stay free beside a copy, in bytes: the ledger
	// itself goes on growing, and other programs live on that disk too.
	copyReserve = 64 << 20
)

// backup copies the ledger before its schema changes. A copy of the same
// schema that is there already was made by an attempt that did not end, and
// the ledger may have gone on since; it is replaced. Without room for a copy the
// upgrade goes on: each step is one transaction, so that the copy is there for
// those who want to go back further than the ledger allows, not for its safety.
func backup(ctx context.Context, c *conn, o Options, version int) error {
	path := copyPath(o.Path, version)
	tmp := path + ".part"
	dropCopies(o.Path, keptCopies-1, version) // room for this one
	if err := os.Remove(tmp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	skip := func(why string) error {
		o.Log.Warn("the ledger is upgraded without a copy of it: "+why, "component", "ledger", "schema", version)
		return nil
	}
	need, free, err := copyRoom(o)
	if err != nil {
		return err
	}
	if free < need {
		return skip(fmt.Sprintf("it needs %d MiB of free space and %d MiB are there", need>>20, free>>20))
	}
	switch err := copyTo(ctx, c, tmp); {
	case isFull(err):
		_ = os.Remove(tmp)
		return skip("the disk filled up meanwhile")
	case err != nil:
		_ = os.Remove(tmp)
		return fmt.Errorf("copy before the upgrade: %w", err)
	}
	if err := os.Rename(tmp, path); err != nil {
		return err
	}
	o.Log.Info("the ledger is upgraded; a copy of it was made", "component", "ledger", "schema", version, "copy", path)
	return nil
}

func copyPath(ledger string, version int) string { return fmt.Sprintf("%s.schema-%d", ledger, version) }

// copyRoom is how many bytes a copy asks for, and how many there are.
func copyRoom(o Options) (need, free int64, err error) {
	need = copyReserve
	for _, suffix := range []string{"", "-wal"} {
		if st, err := os.Stat(o.Path + suffix); err == nil {
			need += st.Size()
		}
	}
	f, err := o.fileSystem(filepath.Dir(o.Path))
	return need, f.freeBytes, err
}

// copyTo writes a whole copy, readable by this user only, and has it on the disk
// when it returns. Others may write to the ledger meanwhile.
func copyTo(ctx context.Context, c *conn, to string) error {
	f, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600) // VACUUM INTO takes an empty file
	if err != nil {
		return err
	}
	defer f.Close()
	if err := c.execContext(ctx, "VACUUM INTO ?", to); err != nil {
		if ctx.Err() != nil {
			err = domain.E(domain.Cancelled, err, "stopped while the ledger was copied; nothing was changed")
		}
		return err
	}
	return f.Sync()
}

// dropCopies removes copies of earlier upgrades beyond the newest keep; the one
// of the schema except does not count.
func dropCopies(ledger string, keep, except int) {
	names, _ := filepath.Glob(ledger + ".schema-*")
	var numbers []int
	for _, n := range names {
		k, err := strconv.Atoi(strings.TrimPrefix(n, ledger+".schema-"))
		if err == nil && k != except {
			numbers = append(numbers, k)
		}
	}
	slices.Sort(numbers)
	for len(numbers) > keep {
		_ = os.Remove(copyPath(ledger, numbers[0])) // one that stays costs space only
		numbers = numbers[1:]
	}
}
