package update

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"hermes/internal/domain"
	"hermes/internal/home"
	"hermes/internal/plain"
)

// Attempt is an update that is under way, or was when its process died.
type Attempt struct {
	PID   int       `json:"pid"`
	Began time.Time `json:"began"`
	Log   string    `json:"log"`  // its update.log
	What  string    `json:"what"` // "the update from 1.0.0 to 1.1.0"
	Step  string    `json:"step"` // what it is about
}

// State is what updates know of each other.
type State struct {
	Version string `json:"version,omitempty"` // that the last complete one brought
	Before  string `json:"before,omitempty"`  // to which --rollback goes
	// Partial is a switch that began and did not end: some profiles may be served
	// by To already.
	Partial *Switch `json:"partial,omitempty"`
	// Made is the date of the newest index that was seen, so that an old one that
	// is shown again, without what was mended since, is noticed.
	Made time.Time `json:"made,omitzero"`
}

// Switch is one version in the place of another.
type Switch struct {
	From string `json:"from"`
	To   string `json:"to"`
}

func share(userHome string) string { return filepath.Join(userHome, ".local", "share", "hermes") }
func attemptFile(userHome string) string {
	return filepath.Join(share(userHome), "update-under-way.json")
}
func stateFile(userHome string) string { return filepath.Join(share(userHome), "update.json") }
func lockFile(userHome string) string  { return filepath.Join(share(userHome), "update.lock") }

// LogFile is where the updates of an installation are told.
func LogFile(root string) string { return filepath.Join(root, "logs", "update.log") }

// ReadState gives what is known. What cannot be read counts as unknown.
func ReadState(userHome string) (s State) {
	text, err := plain.Read(stateFile(userHome))
	if err != nil || json.Unmarshal(text, &s) != nil {
		return State{}
	}
	return s
}

func writeState(userHome string, s State) error { return writeJSON(stateFile(userHome), s) }

func writeJSON(file string, v any) error {
	text, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	return home.WriteAtomic(file, append(text, '\n'), 0o600)
}

// lock takes the right to update. Errors: Conflict, while another process has it.
func lock(userHome string) (*os.File, error) {
	if err := os.MkdirAll(share(userHome), 0o755); err != nil {
		return nil, storage(err, share(userHome))
	}
	f, err := plain.OpenFile(lockFile(userHome), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, storage(err, lockFile(userHome))
	}
	for limit := time.Now().Add(lookTime); ; time.Sleep(lookTime / 20) {
		if syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) == nil {
			return f, nil
		}
		if time.Now().After(limit) {
			break
		}
	}
	f.Close()
	if err := UnderWay(userHome); err != nil {
		return nil, err
	}
	return nil, domain.E(domain.Conflict, nil, "another command looks after an update that was interrupted; try again")
}

// lookTime is how long a command that only looks whether an update is under way
// may have the lock.
const lookTime = 400 * time.Millisecond

// UnderWay says which update is under way, nil for none. Errors: Conflict.
func UnderWay(userHome string) error {
	f, err := plain.OpenFile(lockFile(userHome), os.O_RDWR, 0)
	if err != nil {
		return nil //nolint:nilerr // nobody ever updated
	}
	defer f.Close()
	if syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) == nil {
		return nil
	}
	a, ok := readAttempt(userHome)
	if !ok {
		return domain.E(domain.Conflict, nil, "an update is under way; wait until it is through")
	}
	return domain.E(domain.Conflict, nil, "%s is under way since %s (PID %d, %s); wait until it is through, %s tells how it goes", a.What, a.Began.Local().Format(time.TimeOnly), a.PID, a.Step, a.Log)
}

func readAttempt(userHome string) (a Attempt, ok bool) {
	text, err := plain.Read(attemptFile(userHome))
	return a, err == nil && json.Unmarshal(text, &a) == nil
}

// Complete ends the log of an update whose process died, so that its last line
// says how it ended. It costs one look at a file where there is none.
func Complete(userHome string, now time.Time) {
	if !exists(attemptFile(userHome)) {
		return
	}
	f, err := lock(userHome)
	if err != nil {
		return // it is under way
	}
	defer f.Close()
	complete(userHome, now)
}

// interrupted stands in the last line of an update whose process died.
const interrupted = " was interrupted ("

// complete is Complete for who holds the lock.
func complete(userHome string, now time.Time) {
	a, ok := readAttempt(userHome)
	if ok && !concluded(a.Log) {
		l := &journal{file: a.Log, now: func() time.Time { return now }}
		l.line("✗ " + a.What + interrupted + a.Step + "): its process, PID " + fmt.Sprint(a.PID) + ", was killed or the machine went down. What serves is as it was left; run `hermes update` again, which goes on from there, or `hermes update --rollback`")
	}
	_ = os.Remove(attemptFile(userHome)) // looked at again by the next
}

// concluded tells whether a log's last line says how an update ended.
func concluded(file string) bool {
	said := lastSaid(file)
	return strings.HasPrefix(said, "✓ ") || strings.HasPrefix(said, "✗ ")
}

// lastSaid is the last line of a log without its time, "" where there is none.
func lastSaid(file string) string {
	f, err := plain.Open(file)
	if err != nil {
		return ""
	}
	defer f.Close()
	if end, err := f.Seek(0, io.SeekEnd); err == nil {
		_, _ = f.Seek(max(0, end-16<<10), io.SeekStart)
	}
	text, err := io.ReadAll(io.LimitReader(f, 16<<10))
	if err != nil {
		return ""
	}
	text = bytes.TrimRight(text, "\n")
	last := text[bytes.LastIndexByte(text, '\n')+1:]
	_, said, _ := strings.Cut(string(last), "  ")
	return said
}

// maxLog is the size at which update.log is put aside, in bytes.
const maxLog = 1 << 20

// journal writes update.log. Its methods never fail: an update does not end
// because its log cannot be written.
type journal struct {
	file    string
	now     func() time.Time
	attempt Attempt
	home    string // of the user; "" keeps no attempt
}

// begin notes an attempt.
func (l *journal) begin(what string) {
	l.attempt = Attempt{PID: os.Getpid(), Began: l.now().UTC(), Log: l.file, What: what, Step: "it began"}
	l.save()
	if info, err := os.Stat(l.file); err == nil && info.Size() > maxLog {
		_ = os.Rename(l.file, l.file+".1")
	}
}

func (l *journal) save() {
	if l.home != "" {
		_ = writeJSON(attemptFile(l.home), l.attempt)
	}
}

// step notes what is done next.
func (l *journal) step(format string, args ...any) {
	l.attempt.Step = fmt.Sprintf(format, args...)
	l.save()
	l.line(l.attempt.Step)
}

// end writes the last line and forgets the attempt.
func (l *journal) end(text string) {
	if l.line(text) && l.home != "" { // else whoever comes next completes it
		_ = os.Remove(attemptFile(l.home))
	}
}

// line appends a line with its time, and tells whether it stands there.
func (l *journal) line(text string) bool {
	if err := os.MkdirAll(filepath.Dir(l.file), 0o700); err != nil {
		return false
	}
	f, err := plain.OpenFile(l.file, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return false
	}
	defer f.Close()
	_, err = fmt.Fprintf(f, "%s  %s\n", l.now().Format("2006-01-02 15:04:05"), strings.ReplaceAll(text, "\n", " "))
	return err == nil
}
