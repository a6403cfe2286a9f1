package logging

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/fsnotify/fsnotify"

	"hermes/internal/domain"
	"hermes/internal/plain"
)

const (
	readBlock = 64 << 10
	// maxTail bounds the lines that Tail gives.
	maxTail = 100_000
	// oldest is the last rotated file that is looked at.
	oldest = 100
)

// Tail gives the last n lines that the filter takes, oldest first. It reads
// from the end, into the rotated files where need be, and no further than n
// lines or Since demand. A line that is not in the log's format belongs to the
// one before it. Errors: NotFound when there is no such log, Unavailable.
func Tail(path string, n int, f Filter) ([]string, error) {
	return tail(path, n, f, -1)
}

// tail is Tail over the first limit bytes of path; -1 means all.
func tail(path string, n int, f Filter, limit int64) ([]string, error) {
	n = min(n, maxTail)
	var out, rest []string // newest first; rest: lines that wait for the one they belong to
	for i := 0; i <= oldest && len(out) < n; i++ {
		name := path
		if i > 0 {
			name, limit = backup(path, i), -1
		}
		done := false
		err := backwards(name, limit, func(line string) bool {
			e, ok := ParseLine(line, f.zone())
			switch {
			case f.empty():
				out = append(out, line)
			case !ok:
				if len(rest) < n {
					rest = append(rest, line)
				}
				return true
			case f.takes(e):
				out = append(append(out, rest...), line)
			}
			rest = rest[:0]
			done = ok && !f.Since.IsZero() && e.At.Before(f.Since)
			return len(out) < n && !done
		})
		if errors.Is(err, fs.ErrNotExist) {
			if i == 0 {
				return nil, domain.E(domain.NotFound, nil, "there is no log %s yet", path)
			}
			break
		}
		if err != nil {
			return nil, domain.E(domain.Unavailable, err, "the log %s cannot be read", name)
		}
		if done {
			break
		}
	}
	if len(out) > n {
		out = out[:n]
	}
	slices.Reverse(out)
	return out, nil
}

// backwards gives the lines of a file's first limit bytes (-1: all) from the
// last to the first until take says no.
func backwards(path string, limit int64, take func(line string) bool) error {
	f, err := plain.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	pos, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return err
	}
	if limit >= 0 {
		pos = min(pos, limit)
	}
	var held []byte // the beginning of it may lie in the block before
	block := make([]byte, readBlock)
	first := true
	for pos > 0 {
		size := min(pos, readBlock)
		pos -= size
		if _, err := f.ReadAt(block[:size], pos); err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		held = append(bytes.Clone(block[:size]), held...)
		if first {
			held, first = bytes.TrimSuffix(held, []byte("\n")), false
		}
		for {
			i := bytes.LastIndexByte(held, '\n')
			if i < 0 {
				break
			}
			if !take(string(held[i+1:])) {
				return nil
			}
			held = held[:i]
		}
		if len(held) > 16*maxLine { // no log line of ours; give it as it is rather than hold it all
			if !take(string(held)) {
				return nil
			}
			held = held[:0]
		}
	}
	if len(held) > 0 {
		take(string(held))
	}
	return nil
}

// Follow gives the last n lines that the filter takes and then, without a gap,
// every one that is written, until ctx ends; it goes on in the new file after
// a rotation, and waits for a file that does not exist yet. Errors: those of emit; Unavailable
// when the folder cannot be watched.
func Follow(ctx context.Context, path string, n int, f Filter, emit func(line string) error) error {
	watch, err := fsnotify.NewWatcher()
	if err == nil {
		defer watch.Close()
		err = watch.Add(filepath.Dir(path))
	}
	if err != nil {
		return domain.E(domain.Unavailable, err, "the folder %s cannot be watched, so the log cannot be followed", filepath.Dir(path))
	}
	t := &follower{path: path, filter: f, emit: emit}
	defer t.close()
	if err := t.begin(n); err != nil {
		return err
	}
	for {
		select {
		case <-ctx.Done():
			return nil
		case err := <-watch.Errors:
			// The queue overran: read on, nothing is lost by it.
			if !errors.Is(err, fsnotify.ErrEventOverflow) {
				return domain.E(domain.Unavailable, err, "the log cannot be followed any further")
			}
		case event := <-watch.Events:
			if event.Name != path && !strings.HasPrefix(event.Name, path+".") {
				continue
			}
		}
		if err := t.step(); err != nil {
			return err
		}
	}
}

// follower reads the end of a file that another process writes.
type follower struct {
	path   string
	filter Filter
	emit   func(string) error
	f      *os.File
	r      *bufio.Reader
	part   []byte // a line that is not yet ended
	taken  bool   // the line before was taken, so what belongs to it is too
}

// begin opens the file at its end and gives what stands before that.
func (t *follower) begin(n int) error {
	if err := t.open(io.SeekEnd); err != nil || t.f == nil {
		return err
	}
	end, err := t.f.Seek(0, io.SeekCurrent)
	if err != nil {
		return domain.E(domain.Unavailable, err, "the log %s cannot be read", t.path)
	}
	lines, err := tail(t.path, n, t.filter, end)
	if err != nil {
		return err
	}
	for _, line := range lines {
		if err := t.emit(line); err != nil {
			return err
		}
	}
	return nil
}

func (t *follower) open(whence int) error {
	f, err := plain.Open(t.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return domain.E(domain.Unavailable, err, "the log %s cannot be read", t.path)
	}
	if _, err := f.Seek(0, whence); err != nil {
		f.Close()
		return domain.E(domain.Unavailable, err, "the log %s cannot be read", t.path)
	}
	t.close()
	t.f, t.r, t.part = f, bufio.NewReader(f), nil
	return nil
}

func (t *follower) close() {
	if t.f != nil {
		t.f.Close()
		t.f = nil
	}
}

// step reads what there is, then goes over to the new file where the name has
// come to mean another one.
func (t *follower) step() error {
	for range oldest {
		if t.f != nil {
			if err := t.drain(); err != nil {
				return err
			}
			mine, err := t.f.Stat()
			now, nerr := os.Stat(t.path)
			if err == nil && nerr == nil && os.SameFile(mine, now) {
				pos, perr := t.f.Seek(0, io.SeekCurrent)
				if perr == nil && now.Size() < pos { // cut short in place
					return t.open(io.SeekStart)
				}
				return nil
			}
			if nerr != nil {
				return nil //nolint:nilerr // the file is away; the one that comes in its place is followed
			}
		}
		if err := t.open(io.SeekStart); err != nil || t.f == nil {
			return err
		}
	}
	return nil
}

func (t *follower) drain() error {
	for {
		chunk, err := t.r.ReadSlice('\n')
		t.part = append(t.part, chunk...)
		if err != nil && !errors.Is(err, bufio.ErrBufferFull) {
			if errors.Is(err, io.EOF) {
				return nil
			}
			return domain.E(domain.Unavailable, err, "the log %s cannot be read", t.path)
		}
		if err != nil && len(t.part) < 16*maxLine {
			continue
		}
		line := string(bytes.TrimSuffix(t.part, []byte("\n")))
		t.part = t.part[:0]
		if e, ok := ParseLine(line, t.filter.zone()); ok {
			t.taken = t.filter.takes(e)
		} else if t.filter.empty() {
			t.taken = true
		}
		if t.taken {
			if err := t.emit(line); err != nil {
				return err
			}
		}
	}
}
