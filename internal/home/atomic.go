package home

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"hermes/internal/domain"
)

// maxFile bounds the files that are read whole: .env, config.yaml, auth.json.
const maxFile = 4 << 20

// readBounded reads a file of at most maxFile bytes. A file that does not
// exist gives nil, nil. Errors: Config.
func readBounded(path string) ([]byte, error) {
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err == nil && info.IsDir() {
		return nil, domain.E(domain.Config, nil, "%s is a folder where a file is expected; move it away", path)
	}
	if err == nil && info.Size() > maxFile {
		return nil, domain.E(domain.Config, nil, "%s is larger than %d MiB, so it was not read; make it smaller", path, maxFile>>20)
	}
	if err != nil {
		return nil, domain.E(domain.Config, err, "%s cannot be read, so its settings are unknown; check its owner and mode", path)
	}
	// A pipe would be waited for, and a device may never end; a link to
	// /dev/null is how people say that there is nothing.
	if mode := info.Mode(); !mode.IsRegular() {
		if target, err := filepath.EvalSymlinks(path); err == nil && target == os.DevNull {
			return []byte{}, nil
		}
		return nil, domain.E(domain.Config, nil, "%s is no plain file (%s), so its settings are unknown; put a file in its place", path, mode.Type())
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, domain.E(domain.Config, err, "%s cannot be read, so its settings are unknown; check its owner and mode", path)
	}
	return data, nil
}

// ReadPlain is os.ReadFile for a plain file of up to 16 MiB: a pipe, which would
// be waited for, a device and an endless file are refused. Errors: those of
// os.Stat and os.ReadFile, fs.ErrInvalid.
func ReadPlain(path string) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	const most = 16 << 20
	if !info.Mode().IsRegular() || info.Size() > most {
		return nil, &fs.PathError{Op: "read", Path: path, Err: fs.ErrInvalid}
	}
	return os.ReadFile(path)
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
	// The rename is durable once the folder is; where a folder cannot be
	// synced the new content is still whole.
	if d, err := os.Open(dir); err == nil {
		_ = d.Sync()
		d.Close()
	}
	return nil
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
