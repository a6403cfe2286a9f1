package gateway

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"
	"time"

	"hermes/internal/domain"
	"hermes/internal/plain"
)

// ExitRecord is one line of logs/gateway-exit-diag.log: why a process left. The
// keys tag, pid, code and traceback are those of the other system.
type ExitRecord struct {
	Tag       string  `json:"tag"` // gateway.exit, gateway.exit_nonzero, gateway.refused, gateway.previous_unclean_exit
	Time      string  `json:"ts"`
	PID       int     `json:"pid"`
	Code      int     `json:"code"`
	Reason    string  `json:"reason"`
	Traceback string  `json:"traceback,omitempty"`
	Version   string  `json:"version,omitempty"`
	Uptime    float64 `json:"uptime_seconds,omitempty"`
	InFlight  int64   `json:"turns_in_flight,omitempty"`
}

// String is the record for people.
func (r ExitRecord) String() string {
	if r.Code < 0 { // unknown, and so is the time
		return r.Reason
	}
	return fmt.Sprintf("%s, code %d: %s", r.Time, r.Code, r.Reason)
}

// exitLogKept bounds the file: beyond it the older half is dropped.
const exitLogKept = 512 << 10

func exitLog(logDir string) string { return filepath.Join(logDir, "gateway-exit-diag.log") }

// WriteExit adds a record. A disk that takes nothing loses the record only.
func WriteExit(logDir string, r ExitRecord) {
	if r.PID == 0 {
		r.PID = os.Getpid()
	}
	r.Time = time.Now().UTC().Format(time.RFC3339Nano)
	text, err := json.Marshal(r)
	if err != nil {
		return
	}
	path := exitLog(logDir)
	_ = os.MkdirAll(logDir, 0o700)
	if st, err := os.Stat(path); err == nil && st.Size() > exitLogKept {
		halve(path)
	}
	f, err := plain.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return
	}
	defer f.Close()
	_, _ = f.Write(append(text, '\n'))
}

// halve keeps the newest lines of a file, half of what it may hold.
func halve(path string) {
	text, err := plain.Tail(path, exitLogKept/2)
	if err != nil {
		return
	}
	if i := bytes.IndexByte(text, '\n'); i >= 0 {
		text = text[i+1:]
	}
	tmp := path + ".tmp"
	if plain.Write(tmp, text, 0o600) == nil {
		_ = os.Rename(tmp, path)
	}
}

// refused is the tag of a process that never served, because another does. It
// says nothing of the one that does.
const refused = "gateway.refused"

// LastExit is the last record of a process that served or tried to; ok is false
// when there is none.
func LastExit(logDir string) (r ExitRecord, ok bool) {
	text, err := plain.Tail(exitLog(logDir), 2*exitLogKept)
	if err != nil {
		return r, false
	}
	for lines := bytes.Split(bytes.TrimSpace(text), []byte("\n")); len(lines) > 0; lines = lines[:len(lines)-1] {
		r = ExitRecord{}
		if json.Unmarshal(lines[len(lines)-1], &r) == nil && r.Tag != refused {
			return r, true
		}
	}
	return ExitRecord{}, false
}

// Unclean is the record of a process that left without one; nobody can say when.
func Unclean(pid int) ExitRecord {
	return ExitRecord{Tag: "gateway.previous_unclean_exit", PID: pid, Code: -1,
		Reason: fmt.Sprintf("PID %d ended without a clean stop: it was killed or crashed, or the machine went down", pid)}
}

// FailedStart is the record of a start that came to nothing.
func FailedStart(err error, code int, reason, version string) ExitRecord {
	r := ExitRecord{Tag: "gateway.exit_nonzero", Code: code, Reason: reason, Version: version}
	if domain.IsCode(err, domain.Conflict) {
		r.Tag = refused
	}
	return r
}

// crashFile is what a crash of the runtime prints to.
func crashFile(logDir string) string { return filepath.Join(logDir, "gateway-crash.log") }

// CatchCrash sends what a crash of the runtime prints to a file too, so that
// the next start can tell of it. It reports the crash of the last life, if there
// was one, as a record and moves its text aside.
func CatchCrash(logDir string) (last string, err error) {
	path := crashFile(logDir)
	if err := os.MkdirAll(logDir, 0o700); err != nil {
		return "", err
	}
	if text, err := plain.Head(path, 4000); err == nil && len(text) > 0 {
		last = string(text)
		_ = os.Rename(path, path+".1")
		WriteExit(logDir, ExitRecord{Tag: "gateway.previous_unclean_exit", Code: 2, Reason: "the runtime crashed; the whole dump is in gateway-crash.log.1", Traceback: last})
	}
	f, err := plain.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return last, err
	}
	defer f.Close()
	return last, debug.SetCrashOutput(f, debug.CrashOptions{})
}
