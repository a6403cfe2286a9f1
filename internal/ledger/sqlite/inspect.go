package sqlite

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
)

// Inspection is what can be learnt of a ledger without changing anything.
type Inspection struct {
	Exists      bool
	Bytes       int64 // on disk, with its log
	NotDatabase bool  // the file is something else
	Network     string
	Schema      int // of the file
	Known       int // that this program writes
	Damage      []string
	Unchecked   bool // too large to be read through
}

// Usable tells whether the ledger can be opened without being upgraded.
func (i Inspection) Usable() bool {
	return i.Exists && !i.NotDatabase && i.Network == "" && i.Schema == i.Known && len(i.Damage) == 0
}

// maxChecked is the size up to which Inspect reads a ledger through.
const maxChecked = 256 << 20

// Inspect looks at the ledger at path and reads it through
// (https://www.sqlite.org/pragma.html#pragma_quick_check), without registering,
// upgrading, or writing anything. Errors: as Open.
func Inspect(ctx context.Context, path string) (Inspection, error) {
	var i Inspection
	o, err := Options{Path: path}.withDefaults()
	if err != nil {
		return i, err
	}
	i.Known = o.maxSchema
	st, err := os.Stat(o.Path)
	if errors.Is(err, fs.ErrNotExist) {
		return i, nil
	} else if err != nil {
		return i, classifyFile(err, o.Path)
	}
	i.Exists, i.Bytes = true, st.Size()
	if wal, err := os.Stat(o.Path + "-wal"); err == nil {
		i.Bytes += wal.Size()
	}
	if kind, err := o.fileSystem(filepath.Dir(o.Path)); err == nil {
		i.Network = kind.network()
	}
	whole, err := looksLikeDatabase(o.Path)
	if err != nil {
		return i, classifyFile(err, o.Path)
	}
	if i.NotDatabase = !whole; i.NotDatabase || i.Network != "" {
		return i, nil
	}
	dsn, err := connector(o.Path, true)
	if err != nil {
		return i, classifyFile(err, o.Path)
	}
	c, err := openConn(dsn)
	if err != nil {
		return i, classifyFile(err, o.Path)
	}
	defer func() { _ = c.close() }() // it was opened to be looked at
	if i.Schema, err = schemaVersion(c); err != nil {
		i.NotDatabase = isNoDatabase(err)
		return i, classifyFile(err, o.Path)
	}
	if i.Schema > o.maxSchema {
		return i, checkReader(c, i.Schema, o)
	}
	if i.Unchecked = i.Bytes > maxChecked || ctx.Err() != nil; i.Unchecked {
		return i, nil
	}
	err = c.each(`PRAGMA quick_check(5)`, nil, func(r row) error {
		var line string
		if err := r.scan(&line); err != nil || line == "ok" {
			return err
		}
		i.Damage = append(i.Damage, line)
		return nil
	})
	if err != nil {
		i.Damage = append(i.Damage, err.Error())
	}
	return i, nil
}
