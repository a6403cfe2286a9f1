package home

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"hermes/internal/domain"
	"hermes/internal/plain"
)

// maxFile bounds the files that are read whole: .env, config.yaml, auth.json.
const maxFile = 4 << 20

// readBounded reads a file of at most maxFile bytes. A file that does not
// exist gives nil, nil. Errors: Config.
func readBounded(path string) ([]byte, error) {
	data, err := plain.ReadMost(path, maxFile)
	switch {
	case err == nil:
		return data, nil
	case errors.Is(err, fs.ErrNotExist):
		return nil, nil
	case errors.Is(err, plain.ErrTooLarge):
		return nil, domain.E(domain.Config, nil, "%s is larger than %d MiB, so it was not read; make it smaller", path, maxFile>>20)
	case errors.Is(err, plain.ErrNotPlain):
		if info, serr := os.Stat(path); serr == nil && info.IsDir() {
			return nil, domain.E(domain.Config, nil, "%s is a folder where a file is expected; move it away", path)
		}
		return nil, domain.E(domain.Config, err, "%s is no plain file, so its settings are unknown; put a file in its place", path)
	}
	return nil, domain.E(domain.Config, err, "%s cannot be read, so its settings are unknown; check its owner and mode", path)
}

// WriteAtomic replaces path by data: a reader, and a crash at any instant,
// sees the old content or the new, never a mixture. A symbolic link is
// followed, so that a linked dotfile stays linked. Errors: StorageFull,
// Unavailable.
func WriteAtomic(path string, data []byte, mode fs.FileMode) error {
	if target, err := filepath.EvalSymlinks(path); err == nil {
		path = target
	}
	dir := filepath.Dir(path)
	fail := func(err error) error {
		code := domain.Unavailable
		if isDiskFull(err) {
			code = domain.StorageFull
		}
		return domain.E(code, err, "%s was not changed, because writing it failed", path)
	}
	tmp, err := os.CreateTemp(dir, "."+filepath.Base(path)+".*.tmp")
	if err != nil {
		return fail(err)
	}
	defer os.Remove(tmp.Name())
	_, err = tmp.Write(data)
	if err == nil {
		err = tmp.Chmod(mode)
	}
	if err == nil {
		err = tmp.Sync()
	}
	if cerr := tmp.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Rename(tmp.Name(), path)
	}
	if err != nil {
		return fail(err)
	}
	SyncDir(dir)
	return nil
}

// SyncDir makes a rename in a folder durable. Where a folder cannot be synced, the
// file is still whole, under its old name or the new.
func SyncDir(dir string) {
	if d, err := os.Open(dir); err == nil {
		_ = d.Sync()
		d.Close()
	}
}

// replaceFile writes path atomically and keeps what it held in path.bak.
func replaceFile(path string, old, data []byte) error {
	if old != nil {
		if err := WriteAtomic(path+".bak", old, 0o600); err != nil {
			return err
		}
	}
	return WriteAtomic(path, data, 0o600)
}
