package starts

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/gofrs/flock"

	"hermes/internal/domain"
	"hermes/internal/home"
	"hermes/internal/plain"
)

// The record is a file, replaced in one step, and a journal of what has changed
// since: one line for each start that changed, appended, with all that is known
// of that start. A start notes about ten changes before it serves. To replace a
// file so often would hold it up: ext4 begins to write out the data of a file that
// another one is renamed over (auto_da_alloc, ext4(5)), a millisecond each time
// and more. The journal names the file that it goes on from, so that one that a
// crash or a program without a journal left behind is never taken for its own.

// kept bounds the record, maxJournal the journal, in bytes.
const (
	kept       = 50
	maxJournal = 64 << 10
)

// File is where the record of a profile stands.
func File(p home.Profile) string { return p.Path("gateway-starts.json") }

func journalFile(p home.Profile) string { return p.Path("gateway-starts.journal") }

// whole is what File holds.
type whole struct {
	Record
	// Journal is the one that goes on from here, "" for none.
	Journal string `json:"journal,omitempty"`
}

// line is one line of the journal; the first names it, each other is a start as
// it is from then on.
type line struct {
	Journal string `json:"journal,omitempty"`
	Start   *Start `json:"start,omitempty"`
}

// state is the record as it was read.
type state struct {
	Record
	journal string // that can be appended to, "" for none
	size    int64  // of it
}

// Read gives the record. What cannot be read counts as never having been.
func Read(p home.Profile) Record { return load(p).Record }

func load(p home.Profile) state {
	w := readWhole(p)
	for range 5 {
		text, err := plain.Read(journalFile(p))
		lines := bytes.Split(text, []byte("\n"))
		var head line
		named := err == nil && json.Unmarshal(lines[0], &head) == nil && head.Journal != ""
		if named && head.Journal == w.Journal {
			return state{replay(w.Record, lines[1:]), w.Journal, int64(len(text))}
		}
		// Another process may have replaced the one between the two reads, and the
		// other not yet.
		again := readWhole(p)
		if again.Journal == w.Journal {
			return state{Record: again.Record}
		}
		w = again
	}
	return state{Record: w.Record} // writers without end: what was whole a moment ago
}

func readWhole(p home.Profile) (w whole) {
	text, err := plain.Read(File(p))
	if err != nil || json.Unmarshal(text, &w) != nil {
		return whole{}
	}
	return w
}

// replay makes the changes of the journal. A line that a death cut off is left
// out: what it would have told was not noted yet.
func replay(r Record, lines [][]byte) Record {
	for _, text := range lines {
		var l line
		if json.Unmarshal(text, &l) == nil && l.Start != nil {
			r.put(*l.Start)
		}
	}
	r.trim()
	return r
}

// put sets the entry of a start, which may be a new one.
func (r *Record) put(s Start) {
	for i := len(r.Starts) - 1; i >= 0; i-- {
		if r.Starts[i].ID == s.ID {
			r.Starts[i] = s
			return
		}
	}
	if len(r.Starts) >= kept && s.At.Before(r.Starts[0].At) {
		return // it lives on, but newer ones have taken its place
	}
	r.Starts = append(r.Starts, s)
}

func (r *Record) trim() {
	if n := len(r.Starts) - kept; n > 0 {
		r.Starts = slices.Clone(r.Starts[n:])
	}
}

// lockWait bounds the wait for another process that writes the record.
const lockWait = 2 * time.Second

// Update changes the record, alone among all processes. Errors: Unavailable,
// StorageFull; then nothing has changed.
func Update(p home.Profile, change func(*Record)) error {
	return locked(p, func() error {
		s := load(p)
		before := clone(s.Record)
		change(&s.Record)
		changed, few := difference(before, s.Record)
		if few && len(changed) == 0 {
			return nil
		}
		return s.save(p, few, changed)
	})
}

// save notes the starts that have changed where few says that nothing else has
// and the journal takes them, and writes the whole record otherwise.
func (s state) save(p home.Profile, few bool, changed []Start) error {
	if few && s.journal != "" && s.size < maxJournal {
		if _, err := appendLines(p, changed); err == nil {
			return nil
		}
	}
	return replace(p, s.Record)
}

// forget takes a life out of the journal whose end cannot be noted, as on a full
// disk that had room for its beginning: else an ordinary stop would count as a
// death. It needs no space: what stays is shorter, and is written where it is.
func forget(p home.Profile, life Start) {
	text, err := plain.Read(journalFile(p))
	if err != nil {
		return
	}
	var rest []byte
	for one := range bytes.Lines(text) {
		var l line
		own := json.Unmarshal(one, &l) == nil && l.Start != nil && l.Start.ID == life.ID
		if !own {
			rest = append(rest, one...)
		}
	}
	f, err := plain.OpenFile(journalFile(p), os.O_WRONLY, 0o600)
	if err != nil || len(rest) == len(text) {
		return
	}
	defer f.Close()
	if _, err := f.WriteAt(rest, 0); err == nil {
		_ = f.Truncate(int64(len(rest))) // what is left over then was there before, or is no line
	}
}

// locked runs f while no other process writes the record.
func locked(p home.Profile, f func() error) error {
	err := os.MkdirAll(p.Home, 0o700)
	if err == nil {
		lock := flock.New(p.Path(".gateway-starts.lock"), flock.SetPermissions(0o600), flock.SetFlag(plain.LockFlag))
		ctx, cancel := context.WithTimeout(context.Background(), lockWait)
		defer cancel()
		if _, err = lock.TryLockContext(ctx, 5*time.Millisecond); err == nil {
			defer lock.Unlock()
			err = f()
		}
	}
	if err != nil {
		return domain.E(domain.Unavailable, err, "the record of starts %s was not written, so the next start knows less", File(p))
	}
	return nil
}

// clone copies a record so far that a change of one does not show in the other.
func clone(r Record) Record {
	r.Starts = slices.Clone(r.Starts)
	for i := range r.Starts {
		s := &r.Starts[i]
		s.Careful, s.Parts = slices.Clone(s.Careful), slices.Clone(s.Parts)
		if s.End != nil {
			end := *s.End
			s.End = &end
		}
	}
	r.Quarantine, r.Distrusted = slices.Clone(r.Quarantine), slices.Clone(r.Distrusted)
	return r
}

// difference gives the starts that have changed or are new; few is false when
// more than that has changed.
func difference(before, after Record) (changed []Start, few bool) {
	if len(after.Starts) < len(before.Starts) {
		return nil, false
	}
	for i, s := range after.Starts {
		if i < len(before.Starts) && before.Starts[i].ID != s.ID {
			return nil, false
		}
		if i >= len(before.Starts) || !same(before.Starts[i], s) {
			changed = append(changed, s)
		}
	}
	before.Starts, after.Starts = nil, nil
	return changed, same(before, after)
}

// same tells whether two values are written alike.
func same(a, b any) bool {
	x, err := json.Marshal(a)
	y, err2 := json.Marshal(b)
	return err == nil && err2 == nil && bytes.Equal(x, y)
}

// appendLines notes starts in the journal and gives its size. An empty line before
// each keeps what a death left of the one before from spoiling it.
func appendLines(p home.Profile, changed []Start) (size int64, err error) {
	var text []byte
	for _, s := range changed {
		one, err := json.Marshal(line{Start: &s})
		if err != nil {
			return 0, err
		}
		text = append(append(append(text, '\n'), one...), '\n')
	}
	f, err := plain.OpenFile(journalFile(p), os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	if _, err := f.Write(text); err != nil {
		return 0, err
	}
	return f.Seek(0, io.SeekCurrent)
}

// replace writes the whole record, and begins its journal. Without a journal the
// record is whole all the same.
func replace(p home.Profile, r Record) error {
	r.trim()
	w := whole{Record: r, Journal: rand.Text()}
	text, err := json.MarshalIndent(w, "", " ")
	if err != nil {
		return err
	}
	tmp := filepath.Join(p.Home, ".gateway-starts.tmp") // under the lock there is one writer
	if err := plain.Write(tmp, append(text, '\n'), 0o600); err != nil {
		_ = os.Remove(tmp) // on a full disk, what came of it helps nobody
		return err
	}
	if err := os.Rename(tmp, File(p)); err != nil {
		return err
	}
	head, _ := json.Marshal(line{Journal: w.Journal}) // a string
	_ = plain.Write(journalFile(p), append(head, '\n'), 0o600)
	return nil
}

// identity tells one state of File from another; see inode(7).
func identity(p home.Profile) fs.FileInfo {
	info, err := os.Stat(File(p))
	if err != nil {
		return nil
	}
	return info
}

func unchanged(a, b fs.FileInfo) bool {
	return a != nil && b != nil && os.SameFile(a, b) && a.Size() == b.Size() && a.ModTime().Equal(b.ModTime())
}
