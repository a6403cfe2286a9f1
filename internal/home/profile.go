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

// The files that more than one package touches.
func (p Profile) EnvFile() string    { return p.Path(".env") }
func (p Profile) ConfigFile() string { return p.Path("config.yaml") }
func (p Profile) LedgerFile() string { return p.Path("ledger.db") }
func (p Profile) SocketFile() string { return p.Path("gateway.sock") }
func (p Profile) PIDFile() string    { return p.Path("gateway.pid") }
func (p Profile) LockFile() string   { return p.Path("gateway.lock") }
func (p Profile) StateFile() string  { return p.Path("gateway_state.json") }
func (p Profile) LogDir() string     { return p.Path("logs") }
func (p Profile) CacheDir() string   { return p.Path("cache") }
func (p Profile) ScriptsDir() string { return p.Path("scripts") }
