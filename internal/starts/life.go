package starts

import (
	"cmp"
	"io/fs"
	"os"
	"slices"
	"sync"
	"time"

	"hermes/internal/home"
)

// Life is this process's own start in the record. A nil Life records nothing.
// Its methods are safe for concurrent use. Nothing depends on a record that cannot
// be written but the next start's judgement; see Err.
type Life struct {
	profile home.Profile
	id      string

	mu   sync.Mutex
	own  Start       // nobody else changes it while this process lives
	file fs.FileInfo // of the record, when this life wrote to it last
	size int64       // of its journal; 0 for none
	err  error
}

// Begin puts a start on the record.
func Begin(p home.Profile, s Start) *Life {
	l := &Life{profile: p, id: s.ID, own: s}
	l.note(false, func(*Start) {})
	return l
}

// ID names the start.
func (l *Life) ID() string {
	if l == nil {
		return ""
	}
	return l.id
}

// note changes this process's entry. wholly keeps the record in its file, not in
// the journal: at the ends of a life's chapters, when nobody waits for it.
func (l *Life) note(wholly bool, change func(own *Start)) {
	if l == nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	change(&l.own)
	l.err = cmp.Or(l.err, locked(l.profile, func() error { return l.write(wholly) }))
}

// write puts the entry on the record. As long as nobody has replaced the record
// since this life wrote to it, a line is all that there is to do.
func (l *Life) write(wholly bool) error {
	if !wholly && l.size > 0 && l.size < maxJournal && unchanged(l.file, identity(l.profile)) {
		if size, err := appendLines(l.profile, []Start{l.own}); err == nil {
			l.size = size
			return nil
		}
	}
	s := load(l.profile)
	s.put(l.own)
	if err := s.save(l.profile, !wholly, []Start{l.own}); err != nil {
		// A full disk may have room for a line where it has none for a file.
		if s.journal != "" && wholly {
			if _, aerr := appendLines(l.profile, []Start{l.own}); aerr == nil {
				err = nil
			}
		}
		if err != nil && l.own.End != nil {
			forget(l.profile, l.own)
		}
		return err
	}
	l.file, l.size = identity(l.profile), 0
	if info, err := os.Stat(journalFile(l.profile)); err == nil {
		l.size = info.Size()
	}
	return nil
}

// Update changes what the record holds beside the starts.
func (l *Life) Update(change func(r *Record)) {
	if l == nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.err = cmp.Or(l.err, Update(l.profile, change))
}

// Err is why the record was not written, the first time that it was not.
func (l *Life) Err() error {
	if l == nil {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.err
}

// Reach notes a stage. One that was reached before stays.
func (l *Life) Reach(stage Stage, now time.Time) {
	l.note(stage == Settled, func(own *Start) {
		if !own.Reached(stage) {
			own.Stage = stage
		}
		if stage == Serving {
			own.Served = now.UTC()
		}
	})
}

// Proved notes that nothing was wrong with this life.
func (l *Life) Proved(now time.Time) {
	l.note(true, func(own *Start) { own.Healthy = now.UTC() })
}

// Starting notes that a part is being started: a death from now on names it.
func (l *Life) Starting(part string) {
	l.note(false, func(own *Start) {
		if !slices.Contains(own.Parts, part) {
			own.Parts = append(own.Parts, part)
		}
	})
}

// Started notes that a part got through its start.
func (l *Life) Started(part string) {
	l.note(false, func(own *Start) {
		own.Parts = slices.DeleteFunc(own.Parts, func(s string) bool { return s == part })
	})
}

// Ended notes how this life ends.
func (l *Life) Ended(e End) {
	l.note(true, func(own *Start) { own.End = &e })
}
