// Package rescue is what happens when a gateway's unit has ended for good: the
// home channels are told, once, and the unit is started again on what was last
// good, where that has not been tried. It runs as a process of its own, started
// by systemd (OnFailure= of the unit), and trusts nothing of the one that died.
package rescue

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"hermes/internal/domain"
	"hermes/internal/plain"
)

// Incident is one time that a unit went down for good, from its end to what
// became of it. A unit that fails again within Quiet of a rescue's start is the
// same incident.
type Incident struct {
	Unit string `json:"unit"`
	// Runs are the invocation ids that belong to it; systemd.exec(5),
	// $INVOCATION_ID.
	Runs []string  `json:"runs"`
	At   time.Time `json:"at"`
	Why  string    `json:"why"`
	// Tried is the start on what was last good; nil where there was none.
	Tried *Attempt `json:"tried,omitempty"`
	// Again is when the unit went down after that start; then nothing more is
	// tried.
	Again time.Time `json:"again,omitzero"`
	Told  []Told    `json:"told,omitempty"`
}

// Attempt is a start of the unit by a rescue.
type Attempt struct {
	At      time.Time `json:"at"`
	On      string    `json:"on"` // what was to be tried, in words
	Program string    `json:"program"`
	Served
	Error string `json:"error,omitempty"`
}

// Served is what came of a start, as the started process itself says.
type Served struct {
	PID int `json:"pid,omitempty"` // that serves; 0: it does not, or nobody could see
	// What serves, in words: which program, and which configuration.
	What string `json:"serves,omitempty"`
	// Back says that not all that is installed serves, so that a restart can go
	// back to it.
	Back bool `json:"went_back,omitempty"`
	// Asked says that somebody else was asked to start the unit, after the rescue.
	Asked bool `json:"asked,omitempty"`
}

// Words are what serves, and where nobody could see that, what was to be tried.
func (a Attempt) Words() string { return cmp.Or(a.What, a.On) }

// Told is a message about the incident.
type Told struct {
	At      time.Time `json:"at"`
	To      string    `json:"to"` // platform:chat
	Receipt string    `json:"receipt,omitempty"`
	Error   string    `json:"error,omitempty"` // why it did not get there
}

// Good is what another start of the unit is worth being tried on: what served
// healthily last and differs from what died, or what nothing speaks against.
type Good struct {
	Program string // absolute path; "" where the unit's own is as good as any
	On      string // in words: "the program that served last, version 1.4.2"
}

// Options is what a rescue is made of. All but Good and Start are needed.
type Options struct {
	Unit string // full name
	Run  string // its invocation id
	Why  string // why it ended, for people; holds no secret
	// File keeps the incidents of a profile.
	File string
	// Good is what was last good; nil when nothing else than what died is known.
	Good *Good
	// Down tells whether the unit is still down, once no other rescue of the
	// profile runs; nil counts as true.
	Down func(context.Context) bool
	// Start starts the unit on it and gives what then serves. It is called once an
	// incident.
	Start func(context.Context, Good) (Served, error)
	// Tell sends a text to every home channel. It is called again after an error
	// that is domain.Unavailable, until TellLimit; what is in its first answer
	// counts as told.
	Tell func(context.Context, string) ([]Told, error)
	Now  func() time.Time
	// Pause waits between tries of Tell; nil is a real wait.
	Pause func(context.Context, time.Duration)
	Host  string
	Flag  string // that names the profile on a command line, " -p liam"; "" for the default one
}

// The limits of a rescue.
const (
	Quiet       = 30 * time.Minute
	TellLimit   = 10 * time.Minute
	tellFirst   = 5 * time.Second // wait after the first failure; doubled up to tellLongest
	tellLongest = time.Minute
	maxKept     = 20 // incidents in the file
	maxRuns     = 16 // ids of one incident
)

// Run handles the end of a unit. handled is false when this very run was handled
// before, or the unit is no longer down. Errors: Unavailable, when nobody
// could be told.
func Run(ctx context.Context, o Options) (i Incident, handled bool, err error) {
	lock, err := lockFile(o.File + ".lock")
	if err != nil {
		return i, false, err
	}
	defer lock.Close()
	all := load(o.File)
	n := slices.IndexFunc(all, func(one Incident) bool { return one.Unit == o.Unit && o.Run != "" && slices.Contains(one.Runs, o.Run) })
	switch {
	case n >= 0 && len(all[n].Told) > 0:
		return all[n], false, nil
	case n >= 0: // by a rescue that ended before anybody was told
		if t := all[n].Tried; t != nil && t.PID == 0 && !t.Asked {
			t.Error = cmp.Or(t.Error, "the rescue that started it ended before it knew more")
		}
	case o.Down != nil && !o.Down(ctx):
		return i, false, nil
	default:
		all, n = o.begin(all)
	}
	inc := &all[n]
	// What is about to be tried is on record before it is: a rescue that dies
	// with it is not repeated.
	if inc.Tried == nil && inc.Again.IsZero() && o.Good != nil {
		inc.Tried = &Attempt{At: o.Now(), On: o.Good.On, Program: o.Good.Program}
		save(o.File, all)
		if inc.Tried.Served, err = o.Start(ctx, *o.Good); err != nil {
			inc.Tried.Error = domain.MessageOf(err)
		}
	}
	save(o.File, all)
	told, err := Tell(ctx, inc.Text(o.Host, o.Flag), o.Tell, o.Now, o.Pause)
	inc.Told = append(inc.Told, told...)
	save(o.File, all)
	return *inc, true, err
}

// begin adds the end of the unit to its incident, an open one or a new one.
func (o Options) begin(all []Incident) ([]Incident, int) {
	n := slices.IndexFunc(all, func(one Incident) bool { return one.Unit == o.Unit && one.open(o.Now()) })
	if n < 0 {
		all = append(all, Incident{Unit: o.Unit, At: o.Now(), Why: o.Why})
		n = len(all) - 1
	} else {
		all[n].Again, all[n].Why = o.Now(), o.Why
	}
	runs := append(all[n].Runs, o.Run)
	all[n].Runs = runs[max(0, len(runs)-maxRuns):]
	return all, n
}

// open tells whether a further end of the unit belongs to the incident.
func (i Incident) open(now time.Time) bool {
	last := i.At
	if i.Tried != nil {
		last = i.Tried.At
	}
	// A clock that was set back must not keep it open for ever.
	return now.Sub(last).Abs() < Quiet
}

// Up tells whether the unit served again when the rescue ended.
func (i Incident) Up() bool { return i.Tried != nil && i.Tried.PID > 0 && i.Again.IsZero() }

// Text is the incident for the home channel. flag names the profile on a command
// line.
func (i Incident) Text(host, flag string) string {
	name := strings.TrimSuffix(i.Unit, ".service")
	if host != "" {
		name += " on " + host
	}
	var b strings.Builder
	switch {
	case !i.Again.IsZero():
		fmt.Fprintf(&b, "🛑 %s is down again. %s", name, sentence(i.Why))
		if i.Tried != nil {
			fmt.Fprintf(&b, "\n\nIt was started again %s before, on %s, so nothing more is tried: somebody must look.", i.Again.Sub(i.Tried.At).Round(time.Second), i.Tried.Words())
		}
		return b.String()
	case i.Up():
		fmt.Fprintf(&b, "⚠️ %s went down and was brought back. %s", name, sentence(i.Why))
		fmt.Fprintf(&b, "\n\nIt serves again (PID %d), on %s.", i.Tried.PID, i.Tried.Words())
		if i.Tried.Back {
			fmt.Fprintf(&b, " `hermes%s gateway restart` goes back to what is installed, once that is mended.", flag)
		}
	case i.Tried != nil && i.Tried.Asked:
		fmt.Fprintf(&b, "⚠️ %s went down. %s", name, sentence(i.Why))
		fmt.Fprintf(&b, "\n\nThe system's manager is asked to start it again, on %s. `hermes%s gateway status` says whether it serves.", i.Tried.On, flag)
	case i.Tried != nil:
		fmt.Fprintf(&b, "🛑 %s is down. %s", name, sentence(i.Why))
		fmt.Fprintf(&b, "\n\nIt was started again, on %s, and does not serve: %s", i.Tried.On, sentence(i.Tried.Error))
	default:
		fmt.Fprintf(&b, "🛑 %s is down. %s", name, sentence(i.Why))
		b.WriteString("\n\nNothing else is known to be good, so it was not started again: somebody must look.")
	}
	return b.String()
}

// sentence ends a text with one full stop.
func sentence(s string) string { return strings.TrimRight(strings.TrimSpace(s), ".") + "." }

// Tell sends a text to the home channels, and tries again until TellLimit while
// nobody can be reached. send, now and pause are as Options' Tell, Now and Pause.
// Errors: send's last.
func Tell(ctx context.Context, text string, send func(context.Context, string) ([]Told, error), now func() time.Time, pause func(context.Context, time.Duration)) ([]Told, error) {
	ctx, cancel := context.WithTimeout(ctx, TellLimit)
	defer cancel()
	if pause == nil {
		pause = wait
	}
	delay, spent := tellFirst, time.Duration(0)
	for {
		told, err := send(ctx, text)
		if err == nil {
			return told, nil
		}
		if ctx.Err() != nil || spent >= TellLimit || !domain.IsCode(err, domain.Unavailable) {
			return append(told, Told{At: now(), Error: domain.MessageOf(err)}), err
		}
		pause(ctx, delay)
		spent += delay
		delay = min(2*delay, tellLongest)
	}
}

func wait(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}

// Last gives the newest incident of a profile; ok is false when there is none.
func Last(file string) (i Incident, ok bool) {
	all := load(file)
	if len(all) == 0 {
		return i, false
	}
	return all[len(all)-1], true
}

// load reads the incidents, oldest first. A file that is damaged holds none: the
// worst that follows is a second message.
func load(file string) []Incident {
	text, err := plain.Read(file)
	if err != nil {
		return nil
	}
	var all []Incident
	if json.Unmarshal(text, &all) != nil {
		return nil
	}
	return all
}

// save keeps the incidents. A disk that takes nothing does not end the rescue.
func save(file string, all []Incident) {
	all = all[max(0, len(all)-maxKept):]
	text, err := json.MarshalIndent(all, "", "  ")
	if err != nil {
		return
	}
	tmp := file + ".tmp"
	if plain.Write(tmp, append(text, '\n'), 0o600) != nil || os.Rename(tmp, file) != nil {
		_ = os.Remove(tmp)
	}
}

// lockFile keeps two rescues of one profile from telling the same. A disk that
// takes no file has no lock.
func lockFile(path string) (*os.File, error) {
	f, err := plain.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if errors.Is(err, fs.ErrNotExist) {
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			return nil, domain.E(domain.Unavailable, err, "%s cannot be made", filepath.Dir(path))
		}
		f, err = plain.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	}
	if err != nil {
		return os.Open(os.DevNull) //nolint:wrapcheck // told even where nothing can be written
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX); err != nil {
		f.Close()
		return nil, domain.E(domain.Unavailable, err, "%s cannot be locked", path)
	}
	return f, nil
}
