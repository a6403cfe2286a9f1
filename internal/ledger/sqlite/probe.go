package sqlite

import (
	"context"
	"errors"
	"io/fs"
	"os"

	"hermes/internal/domain"
)

// Probe tells whether this program could open the ledger at path, without
// registering, upgrading or writing anything. A ledger that is not there yet
// would be made. It answers as Open does.
func Probe(ctx context.Context, path string) error {
	o, err := Options{Path: path}.withDefaults()
	if err != nil {
		return err
	}
	if _, err := os.Stat(o.Path); errors.Is(err, fs.ErrNotExist) {
		return nil
	} else if err != nil {
		return domain.E(domain.Config, err, "the ledger %s cannot be looked at", o.Path)
	}
	dsn, err := connector(o.Path, true)
	if err != nil {
		return classifyFile(err, o.Path)
	}
	c, err := openConn(dsn)
	if err != nil {
		return classifyFile(err, o.Path)
	}
	defer func() { _ = c.close() }() // it was opened to be looked at
	if err := ctx.Err(); err != nil {
		return domain.E(domain.CodeOf(err), err, "the ledger was not looked at in time")
	}
	version, err := schemaVersion(c)
	if err != nil {
		return classifyFile(err, o.Path)
	}
	if version >= o.maxSchema {
		return checkReader(c, version, o)
	}
	return nil
}
