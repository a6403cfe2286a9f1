package home

import (
	"maps"
	"slices"
	"strings"

	"hermes/internal/domain"
)

// Plan is a change of a profile's configuration that is looked at before it is
// made: several settings of .env and config.yaml, loaded as they would be, and
// then written whole or not at all, whatever dies meanwhile. It is a value: each step gives a new plan
// and leaves the old one as it was, so that an answer can be taken back.
type Plan struct {
	profile     Profile
	process     []string
	before, now Files
}

// NewPlan begins a change of a profile's configuration as it stands. process is
// the environment that it is loaded with, as os.Environ gives it. Errors:
// Config.
func NewPlan(p Profile, process []string) (Plan, error) {
	files, err := ReadFiles(p)
	return Plan{profile: p, process: process, before: files, now: files}, err
}

// Load loads the configuration as it will be. Errors: Config.
func (pl Plan) Load() (*Env, *Config, Problems, error) {
	return LoadFiles(pl.profile, pl.now, pl.process)
}

// SetEnv sets variables of .env; those mapped to nil are removed. Errors:
// Invalid.
func (pl Plan) SetEnv(changes map[string]*string) (Plan, error) {
	f, _ := ParseEnv(pl.profile.EnvFile(), pl.now.Env)
	for _, name := range slices.Sorted(maps.Keys(changes)) {
		v := changes[name]
		if v == nil {
			f.Unset(name)
		} else if err := f.Set(name, *v); err != nil {
			return pl, err
		}
	}
	if data := f.Bytes(); len(data) > 0 || pl.now.Env != nil {
		pl.now.Env = data
	}
	return pl, nil
}

// Choose sets the model. Errors: as Choice.Resolve.
func (pl Plan) Choose(c Choice) (Plan, error) {
	env, _, _, err := pl.Load()
	if err != nil {
		return pl, err
	}
	data, keyName, err := c.edit(pl.profile, env, pl.now.Config)
	if err != nil {
		return pl, err
	}
	pl.now.Config = data
	if !c.Key.IsSet() {
		return pl, nil
	}
	key := c.Key.Reveal()
	return pl.SetEnv(map[string]*string{keyName: &key})
}

// Changed names the files that the plan changes.
func (pl Plan) Changed() []string {
	var out []string
	if string(pl.before.Env) != string(pl.now.Env) {
		out = append(out, pl.profile.EnvFile())
	}
	if string(pl.before.Config) != string(pl.now.Config) {
		out = append(out, pl.profile.ConfigFile())
	}
	return out
}

// Write makes the change, and tells which files are new. Where the second file
// cannot be written the first is put back. Errors: Conflict, when somebody
// changed the files since the plan began; Config, StorageFull, Unavailable. In
// every case nothing is changed.
func (pl Plan) Write(by By) ([]string, error) {
	changed := pl.Changed()
	if len(changed) == 0 {
		return nil, nil
	}
	err := withEditLock(pl.profile, by.did(""), func() error {
		now, err := readFiles(pl.profile)
		if err != nil {
			return err
		}
		if now.Fingerprint() != pl.before.Fingerprint() {
			return domain.E(domain.Conflict, nil, "%s changed while the questions were answered, so nothing was written; begin again", strings.Join(changed, " or "))
		}
		return writeFiles(pl.profile, now, pl.now)
	})
	if err != nil {
		return nil, err
	}
	return changed, nil
}

// Needs lists the variables without which a platform cannot run, its main
// credential first.
func Needs(p domain.Platform) []string {
	s := specOf(p)
	return append([]string{s.token}, s.required...)
}

// AllowedVariable names the variable with the people who may talk to the bot.
func AllowedVariable(p domain.Platform) string { return specOf(p).prefix + "ALLOWED_USERS" }

// ChannelVariable names the variable with a platform's home channel.
func ChannelVariable(p domain.Platform) string {
	s := specOf(p)
	if s.home != "" {
		return s.home
	}
	return s.prefix + "HOME_CHANNEL"
}
