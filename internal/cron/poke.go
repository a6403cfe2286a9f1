package cron

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"hermes/internal/domain"
	"hermes/internal/plain"
)

// pokeFile is a file of a profile that is touched when jobs were changed, for a
// scheduler in the foreground, which has no control socket.
func pokeFile(home string) string { return filepath.Join(home, "cron", "poke") }

// Poke tells a scheduler in the foreground that jobs were changed or a run was
// asked for. Without one it does nothing. domain.Unavailable.
func Poke(home string) error {
	now := time.Now()
	if err := os.Chtimes(pokeFile(home), now, now); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return domain.E(domain.Unavailable, err, "the scheduler was not told; it notices within a minute")
	}
	return nil
}

// makePokeFile makes the file, once.
func makePokeFile(home string) error {
	path := pokeFile(home)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	f, err := plain.OpenFile(path, os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	return f.Close()
}
