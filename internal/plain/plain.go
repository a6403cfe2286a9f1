// Package plain opens plain files and nothing else. A pipe that lies where a
// file is expected would be waited for without end, a device may give bytes
// without end, and a folder gives none: none of them is opened, so that no
// start, no command and no message ever hangs on what stands in a path.
//
// Every file whose path a person, a model or another program can put something
// else into is opened here; a test holds the whole program to it.
package plain

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// ErrNotPlain is in the chain of the error about a path that holds something
// other than a plain file.
var ErrNotPlain = errors.New("no plain file")

// ErrTooLarge is in the chain of the error about a file that holds more than is
// read.
var ErrTooLarge = errors.New("the file is too large")

// Most is how much of a file Read takes, in bytes. The largest that is read
// whole in practice is the list of jobs of a busy home, a few megabytes.
const Most = 32 << 20

// LockFlag are the flags by which a lock file is opened: a pipe in its place is
// locked as well as a file would be, and is not waited for.
const LockFlag = os.O_CREATE | os.O_RDWR | syscall.O_NONBLOCK

// Open opens a plain file, or a link to one, to read it. The null device counts
// as an empty file, since a link to it is how people say that there is nothing.
// The error is an *fs.PathError, with ErrNotPlain in its chain for anything else
// than a file.
func Open(path string) (*os.File, error) { return OpenFile(path, os.O_RDONLY, 0) }

// OpenFile is os.OpenFile for plain files. It never waits: open(2) returns at
// once for a pipe when O_NONBLOCK is set, and what was opened is looked at
// before it is used. Errors: as Open.
func OpenFile(path string, flag int, perm fs.FileMode) (*os.File, error) {
	// Of a pipe nobody may have read a byte, and of a file nobody have cut one
	// off, before it is known what it is.
	f, err := os.OpenFile(path, flag&^os.O_TRUNC|syscall.O_NONBLOCK, perm)
	if err != nil {
		if errors.Is(err, syscall.ENXIO) { // a pipe that nobody reads from, a socket
			err = notPlain(path, "a pipe or a socket")
		}
		return nil, err //nolint:wrapcheck // it names the operation and the path
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() && !isNull(path) {
		err = notPlain(path, Kind(info.Mode()))
	}
	if err == nil && flag&os.O_TRUNC != 0 && info.Mode().IsRegular() {
		err = f.Truncate(0)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// Read reads a plain file of at most Most bytes. Errors: as Open; ErrTooLarge.
func Read(path string) ([]byte, error) { return ReadMost(path, Most) }

// ReadMost is Read with another bound, in bytes.
func ReadMost(path string, most int64) ([]byte, error) {
	f, err := Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	tooLarge := &fs.PathError{Op: "read", Path: path, Err: fmt.Errorf("%w: it holds more than the %d KiB that are read", ErrTooLarge, most>>10)}
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if info.Size() > most {
		return nil, tooLarge
	}
	// The size is only what it was: the file may grow, and some tell none.
	text, err := io.ReadAll(io.LimitReader(f, most+1))
	if err != nil {
		return nil, err
	}
	if int64(len(text)) > most {
		return nil, tooLarge
	}
	return text, nil
}

// Head reads at most the first n bytes of a plain file, however large it is.
// Errors: as Open.
func Head(path string, n int64) ([]byte, error) {
	f, err := Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, n))
}

// Tail reads at most the last n bytes of a plain file, however large it is.
// Errors: as Open.
func Tail(path string, n int64) ([]byte, error) {
	f, err := Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	size, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return nil, err
	}
	if _, err := f.Seek(max(0, size-n), io.SeekStart); err != nil {
		return nil, err
	}
	return io.ReadAll(io.LimitReader(f, n))
}

// Sum is the SHA-256 of what a plain file holds, in hex, however large it is.
// Errors: as Open.
func Sum(path string) (string, error) {
	f, err := Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// Write writes a plain file, making it or replacing what it holds: not in one
// step, so for what may be lost. Errors: as Open.
func Write(path string, text []byte, perm fs.FileMode) error {
	f, err := OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, perm)
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	return errors.Join(err, f.Close())
}

func notPlain(path, what string) error {
	return &fs.PathError{Op: "open", Path: path, Err: fmt.Errorf("%w, but %s", ErrNotPlain, what)}
}

// isNull tells whether a path leads to the null device.
func isNull(path string) bool {
	target, err := filepath.EvalSymlinks(path)
	return err == nil && target == os.DevNull
}

// Kind says in words what a path leads to, as the second half of "it is …".
func Kind(mode fs.FileMode) string {
	switch {
	case mode.IsRegular():
		return "a file"
	case mode.IsDir():
		return "a folder"
	case mode&fs.ModeNamedPipe != 0:
		return "a pipe"
	case mode&fs.ModeSocket != 0:
		return "a socket"
	case mode&fs.ModeDevice != 0:
		return "a device"
	}
	return "something else"
}
