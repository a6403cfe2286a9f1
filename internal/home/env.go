package home

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
)

// Env is what a profile's settings see as the environment: the process's own,
// with the profile's .env over it. It is a value that is passed on; nothing
// here changes the process's environment. It is read-only after LoadEnv and
// safe to share.
type Env struct {
	vars    map[string]envVar
	fromEnv map[string]string // as the process had it, for Remember
	profile Profile
	files   *Files // what LoadFiles was given; nil: the files as they are
}

type envVar struct {
	value  string
	origin Origin
}

// LoadEnv reads the profile's .env over the process's environment (as
// os.Environ gives it). The file wins. A variable that the file had at the
// last start (see Remember) and has no more is dropped although the process
// still carries it: a unit's EnvironmentFile= or a predecessor put it there.
// Errors: Config, when the file cannot be read.
func LoadEnv(p Profile, process []string) (*Env, Problems, error) {
	settle(p)
	data, err := readBounded(p.EnvFile())
	if err != nil {
		return nil, nil, err
	}
	e, problems := parseEnviron(p, process, data)
	return e, append(problems, checkMode(p)...), nil
}

// checkMode reports a .env that others can read.
func checkMode(p Profile) Problems {
	info, err := os.Stat(p.EnvFile())
	if err != nil || info.Mode().Perm()&0o077 == 0 {
		return nil
	}
	return Problems{{Severity: Warning, File: p.EnvFile(),
		Message: fmt.Sprintf("other users of this machine can reach it (mode %04o)", info.Mode().Perm()), Fix: "chmod 600 " + p.EnvFile()}}
}

// parseEnviron lays the text of a .env over the process's environment.
func parseEnviron(p Profile, process []string, data []byte) (*Env, Problems) {
	e := &Env{vars: map[string]envVar{}, fromEnv: map[string]string{}, profile: p}
	for _, kv := range process {
		if k, v, ok := strings.Cut(kv, "="); ok && k != "" {
			e.fromEnv[k] = v
			e.vars[k] = envVar{v, Origin{Env: k}}
		}
	}
	file, problems := ParseEnv(p.EnvFile(), data)
	for name, sum := range readEnvNote(p) {
		if v, carried := e.fromEnv[name]; carried && fingerprint(name, v) == sum {
			delete(e.vars, name)
		}
	}
	for _, s := range file.segments {
		if s.key != "" {
			e.vars[s.key] = envVar{s.value, Origin{File: p.EnvFile(), Line: s.line, Env: s.key}}
		}
	}
	return e, problems
}

// Lookup gives a variable. An empty one counts as absent, as in `NAME=`.
func (e *Env) Lookup(name string) (string, bool) {
	v := e.vars[name].value
	return v, v != ""
}

// Get gives a variable, or "".
func (e *Env) Get(name string) string { return e.vars[name].value }

// Origin says where a variable stands.
func (e *Env) Origin(name string) Origin { return e.vars[name].origin }

// Names gives the names of all variables, sorted.
func (e *Env) Names() []string { return slices.Sorted(maps.Keys(e.vars)) }

// FileNames gives the names that stand in .env, sorted.
func (e *Env) FileNames() []string {
	var out []string
	for name, v := range e.vars {
		if v.origin.File != "" {
			out = append(out, name)
		}
	}
	slices.Sort(out)
	return out
}

// Environ gives the environment as os/exec takes it, for a successor process.
func (e *Env) Environ() []string {
	out := make([]string, 0, len(e.vars))
	for _, name := range e.Names() {
		out = append(out, name+"="+e.vars[name].value)
	}
	return out
}

// Secrets gives the values of all variables whose names say that they are
// secret, for a Redactor.
func (e *Env) Secrets() []string {
	var out []string
	for name, v := range e.vars {
		if IsSecretName(name) && v.value != "" {
			out = append(out, v.value)
		}
	}
	return out
}

// Remember notes which variables came from .env, by name and fingerprint, so
// that a later start can tell those that were deleted from it. A gateway calls
// it once it has started; a note that says so already is left as it is. Errors:
// StorageFull, Unavailable.
func (e *Env) Remember() error {
	note := map[string]string{}
	for name, v := range e.vars {
		if v.origin.File != "" {
			note[name] = fingerprint(name, v.value)
		}
	}
	// What was dropped stays noted as long as the process carries it.
	for name, v := range e.fromEnv {
		if _, kept := e.vars[name]; !kept {
			note[name] = fingerprint(name, v)
		}
	}
	data, err := json.Marshal(note)
	if err != nil {
		return err
	}
	if old, err := readBounded(envNote(e.profile)); err == nil && bytes.Equal(old, data) {
		return nil
	}
	if err := os.MkdirAll(e.profile.CacheDir(), 0o700); err != nil {
		return err
	}
	return WriteAtomic(envNote(e.profile), data, 0o600)
}

func envNote(p Profile) string { return p.Path("cache", "env-seen.json") }

func readEnvNote(p Profile) map[string]string {
	// A note that is lost or damaged costs only the memory of deletions.
	data, err := readBounded(envNote(p))
	note := map[string]string{}
	if err == nil && data != nil && json.Unmarshal(data, &note) != nil {
		return nil
	}
	return note
}

func fingerprint(name, value string) string {
	sum := sha256.Sum256([]byte(name + "\x00" + value))
	return hex.EncodeToString(sum[:])
}

// IsSecretName tells by its name whether a variable or a key holds a secret.
func IsSecretName(name string) bool {
	name = strings.ToUpper(name)
	if i := strings.LastIndexByte(name, '.'); i >= 0 {
		name = name[i+1:]
	}
	switch name {
	case "PUBLIC_KEY":
		return false
	case "TOKEN", "KEY", "API_KEY", "SECRET", "PASSWORD", "API_SERVER_KEY", "HERMES_HEARTBEAT_URL", "HEARTBEAT_URL":
		return true
	}
	for _, suffix := range []string{"_API_KEY", "_TOKEN", "_SECRET", "_PASSWORD", "_PASS", "_PASSPHRASE", "_KEY"} {
		if strings.HasSuffix(name, suffix) {
			return true
		}
	}
	return false
}

// EditEnv changes the profile's .env: set names get new values, names mapped
// to nil are removed. Comments, order and unreadable lines stay; what the file
// held before is kept as .env.bak and in the history. Errors: Config, Invalid,
// StorageFull, Unavailable.
func EditEnv(p Profile, changes map[string]*string, by By) error {
	return withEditLock(p, by.did(strings.Join(slices.Sorted(maps.Keys(changes)), ", ")), func() error { return editEnv(p, changes) })
}

// editEnv is EditEnv for who holds the lock of edits.
func editEnv(p Profile, changes map[string]*string) error {
	old, err := readBounded(p.EnvFile())
	if err != nil {
		return err
	}
	f, _ := ParseEnv(p.EnvFile(), old)
	for _, name := range slices.Sorted(maps.Keys(changes)) {
		if v := changes[name]; v == nil {
			f.Unset(name)
		} else if err := f.Set(name, *v); err != nil {
			return err
		}
	}
	data := f.Bytes()
	if string(data) == string(old) {
		return nil
	}
	return replaceFile(p.EnvFile(), old, data)
}
