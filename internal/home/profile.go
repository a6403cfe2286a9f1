// Package home knows where a profile lives and what its files say: paths and
// profile names, .env, and config.yaml (load, check, edit). It never changes
// the process's environment.
package home

import "path/filepath"

// Profile is a resolved profile: a name and two folders. It is a value.
type Profile struct {
	Name string // "default" or a profile name
	Root string // owns profiles/ and active_profile
	Home string // the profile's own folder; Root itself for default
}

// Path joins names to the profile's home.
func (p Profile) Path(elem ...string) string {
	return filepath.Join(append([]string{p.Home}, elem...)...)
}

// EnvFile holds secrets and what is set for each platform.
func (p Profile) EnvFile() string { return p.Path(".env") }

// ConfigFile holds all other settings.
func (p Profile) ConfigFile() string { return p.Path("config.yaml") }

// LedgerFile is the durable store.
func (p Profile) LedgerFile() string { return p.Path("ledger.db") }

// SocketFile is the control socket, where its path is short enough for one.
func (p Profile) SocketFile() string { return p.Path("gateway.sock") }

// PIDFile says which process serves, for tools that look there.
func (p Profile) PIDFile() string { return p.Path("gateway.pid") }

// LockFile is held by the process that serves.
func (p Profile) LockFile() string { return p.Path("gateway.lock") }

// StateFile is the status as a file, for tools that look there.
func (p Profile) StateFile() string { return p.Path("gateway_state.json") }

// LogDir holds the logs.
func (p Profile) LogDir() string { return p.Path("logs") }

// CacheDir holds what may be deleted at any time while nothing runs.
func (p Profile) CacheDir() string { return p.Path("cache") }

// ScriptsDir is the only folder that scripts of jobs may stand in.
func (p Profile) ScriptsDir() string { return p.Path("scripts") }
