package logging

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	"hermes/internal/plain"
)

// file is a log file that is rotated by size: name → name.1 → name.2 … the
// names that operators know. Two processes may write the same file during a
// hand-over: each line is one append, and only one of them rotates. (lumberjack
// names its backups otherwise, and with two processes the one that did not
// rotate would go on in the backup.)
//
// A write that fails is dropped and counted: a full disk must cost log lines,
// nothing else.
type file struct {
	path    string
	max     int64 // bytes; 0 never rotates
	backups int

	mu      sync.Mutex
	f       *os.File
	size    int64
	dropped int64
}

// write appends one whole line.
func (w *file) write(line []byte) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.f == nil && w.open() != nil {
		w.dropped++
		return
	}
	if w.max > 0 && w.size > 0 && w.size+int64(len(line)) > w.max {
		w.rotate()
		if w.f == nil {
			w.dropped++
			return
		}
	}
	if w.dropped > 0 {
		note := fmt.Appendf(nil, "%s WARNING logging: lines could not be written here count=%d\n", line[:min(len(line), stampLen)], w.dropped)
		if n, err := w.f.Write(note); err == nil {
			w.size += int64(n)
			w.dropped = 0
		}
	}
	n, err := w.f.Write(line)
	w.size += int64(n)
	if err != nil {
		w.dropped++
		if errors.Is(err, os.ErrClosed) {
			w.f = nil
		}
	}
}

func (w *file) open() error {
	f, err := plain.OpenFile(w.path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if errors.Is(err, fs.ErrNotExist) {
		if err = os.MkdirAll(filepath.Dir(w.path), 0o700); err == nil {
			f, err = plain.OpenFile(w.path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
		}
	}
	if err != nil {
		return err
	}
	w.f, w.size = f, 0
	if info, err := f.Stat(); err == nil {
		w.size = info.Size()
	}
	return nil
}

// rotate moves the file away and opens a new one. When another process has
// done so already, or is about to, it only opens the name again.
func (w *file) rotate() {
	if lockFile(w.f) {
		mine, err := w.f.Stat()
		now, nerr := os.Stat(w.path)
		if err == nil && nerr == nil && os.SameFile(mine, now) {
			w.shift()
		}
	}
	w.f.Close() // ends the lock
	w.f = nil
	_ = w.open() // write counts the line when this failed
}

func (w *file) shift() {
	if w.backups == 0 {
		_ = os.Remove(w.path)
		return
	}
	for i := w.backups - 1; i >= 1; i-- {
		_ = os.Rename(backup(w.path, i), backup(w.path, i+1))
	}
	_ = os.Rename(w.path, backup(w.path, 1))
}

func backup(path string, n int) string { return fmt.Sprintf("%s.%d", path, n) }

func (w *file) close() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.f != nil {
		w.f.Close()
		w.f = nil
	}
}
