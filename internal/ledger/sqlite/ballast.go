package sqlite

import (
	"crypto/rand"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"hermes/internal/domain"
)

const (
	defaultBallast = 16 << 20
	// ballastRoom is how many times the ballast must be free before it is made.
	ballastRoom = 16
	// ballastReturn is how many times the ballast must be free before a full
	// disk counts as over.
	ballastReturn = 2
	// scarce is how many free bytes are next to none.
	scarce = 256 << 10
)

// reserve is the state of a full disk: a file of real blocks that is given up
// when there is no space left, so that receipts, ends of turns and the alarm
// can still be committed. While it is given up nothing else may use its space.
type reserve struct {
	path       string
	size       int64
	wanted     bool
	fileSystem func(dir string) (fileSystem, error)
	log        *slog.Logger

	mu    sync.Mutex
	since time.Time // zero: not full
	busy  bool      // being written
	wg    sync.WaitGroup
	quit  chan struct{}
}

func newReserve(o Options) *reserve {
	return &reserve{
		path: filepath.Join(filepath.Dir(o.Path), "ledger.ballast"), size: o.ballastBytes,
		wanted: !o.NoBallast && o.Kind != kindCommand, fileSystem: o.fileSystem, log: o.Log, quit: make(chan struct{}),
	}
}

// start makes the ballast where it is missing, without delaying anybody.
func (r *reserve) start() {
	if r.wanted && !r.inPlace() {
		r.fillLater()
	}
}

func (r *reserve) stop() {
	close(r.quit)
	r.wg.Wait()
}

func (r *reserve) inPlace() bool {
	st, err := os.Stat(r.path)
	return err == nil && st.Size() == r.size
}

func (r *reserve) free() int64 {
	f, err := r.fileSystem(filepath.Dir(r.path))
	if err != nil {
		return 0
	}
	return f.freeBytes
}

// nearlyFull fails when less than scarce is free.
func (r *reserve) nearlyFull() error {
	f, err := r.fileSystem(filepath.Dir(r.path))
	if err != nil || f.freeBytes >= scarce {
		return nil //nolint:nilerr // what cannot be told is no failure of the ledger
	}
	return domain.E(domain.StorageFull, nil, "next to no space is left in %s: %d KiB; free at least %d MiB there before nothing can be written", filepath.Dir(r.path), f.freeBytes>>10, ballastReturn*r.size>>20)
}

// full notes that a write found no space, and gives up the ballast. It tells
// whether there is a point in trying again.
func (r *reserve) full(now time.Time) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.since.IsZero() {
		r.since = now
		r.log.Error("no space is left for the ledger; its reserve is given up so that receipts can be committed", "ballast", r.path)
	}
	return os.Remove(r.path) == nil
}

// admit refuses ordinary writes while the disk is full, so that they do not
// eat what the ballast left for the essential ones.
func (r *reserve) admit() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.since.IsZero() || r.recovered() {
		return nil
	}
	return domain.E(domain.StorageFull, nil, "no space is left in %s; nothing was written; free at least %d MiB there", filepath.Dir(r.path), ballastReturn*r.size>>20)
}

// recovered ends the state of a full disk when space is back. r.mu is held.
func (r *reserve) recovered() bool {
	if r.free() < ballastReturn*r.size {
		return false
	}
	r.log.Info("there is space for the ledger again", "full_since", r.since)
	r.since = time.Time{}
	if r.wanted {
		r.fillLaterLocked()
	}
	return true
}

// committed is told after every commit.
func (r *reserve) committed() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.since.IsZero() {
		r.recovered()
	}
}

func (r *reserve) state() (inPlace bool, fullSince time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.inPlace(), r.since
}

func (r *reserve) fillLater() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.fillLaterLocked()
}

func (r *reserve) fillLaterLocked() {
	if r.busy {
		return
	}
	r.busy = true
	r.wg.Go(func() {
		err := r.fill()
		r.mu.Lock()
		r.busy = false
		r.mu.Unlock()
		if err != nil {
			r.log.Warn("the ledger's reserve for a full disk could not be made", "ballast", r.path, "error", err)
		}
	})
}

// fill writes the ballast. Its bytes are random, so that no file system
// compresses them away, and it gets its name only when it is whole.
func (r *reserve) fill() (err error) {
	if r.free() < ballastRoom*r.size {
		return nil
	}
	tmp, err := os.CreateTemp(filepath.Dir(r.path), ".ballast-*")
	if err != nil {
		return err
	}
	defer func() {
		err = errors.Join(err, tmp.Close())
		if rerr := os.Remove(tmp.Name()); !errors.Is(rerr, fs.ErrNotExist) {
			err = errors.Join(err, rerr)
		}
	}()
	block := make([]byte, min(r.size, 256<<10))
	rand.Read(block) // never fails
	for written := int64(0); written < r.size; {
		select {
		case <-r.quit:
			return nil
		default:
		}
		n, err := tmp.Write(block[:min(int64(len(block)), r.size-written)])
		if err != nil {
			return err
		}
		written += int64(n)
	}
	if err := tmp.Sync(); err != nil {
		return err
	}
	return os.Rename(tmp.Name(), r.path)
}
