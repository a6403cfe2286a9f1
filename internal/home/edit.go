package home

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/gofrs/flock"

	"hermes/internal/domain"
	"hermes/internal/plain"
)

// Change tells what an edit did.
type Change struct {
	Key      string   `json:"key"`
	File     string   `json:"file"`
	Secret   bool     `json:"secret"`
	Changed  bool     `json:"changed"`
	Problems Problems `json:"problems,omitempty"` // new ones, none of which forbids the change
}

// SplitKey splits a dotted key; \. is a dot within a part. Errors: Invalid.
func SplitKey(key string) ([]string, error) {
	var parts []string
	var part strings.Builder
	for i := 0; i < len(key); i++ {
		switch {
		case key[i] == '\\' && i+1 < len(key) && key[i+1] == '.':
			part.WriteByte('.')
			i++
		case key[i] == '.':
			parts = append(parts, part.String())
			part.Reset()
		default:
			part.WriteByte(key[i])
		}
	}
	parts = append(parts, part.String())
	if slices.Contains(parts, "") || strings.ContainsAny(key, "\x00\n\r") {
		return nil, domain.E(domain.Invalid, nil, `%q is no key; write parts with dots between them, such as model.default, and \. for a dot within a part`, key)
	}
	return parts, nil
}

// envNameOf gives the variable that a key means, or "" for one of config.yaml.
func envNameOf(key string) string {
	name := strings.ToUpper(key)
	if !validEnvName(name) {
		return ""
	}
	for _, suffix := range []string{"_API_KEY", "_TOKEN", "_SECRET"} {
		if strings.HasSuffix(name, suffix) {
			return name
		}
	}
	if name == key && strings.Contains(name, "_") || slices.Contains(KnownEnvNames(), name) {
		return name
	}
	return ""
}

// Set sets a key: a variable, or one whose name says that it is secret, in
// .env, any other in config.yaml, where the text becomes a number, a truth
// value or a list if it is written like one. Only the bytes of that value
// change, and the file before is kept with .bak behind its name. A value that
// cannot be read is refused. Errors: Invalid, Conflict when the file cannot be
// edited in place, Config, StorageFull, Unavailable.
func Set(p Profile, env *Env, key, value string, by By) (Change, error) {
	if name := envNameOf(key); name != "" {
		return editEnvKey(p, env, name, &value, by)
	}
	path, err := SplitKey(key)
	if err != nil {
		return Change{}, err
	}
	return editConfig(p, env, key, by, func(data []byte) ([]byte, error) { return setField(p.ConfigFile(), data, path, coerce(value)) })
}

// setField puts a value, already written as YAML, at a path of config.yaml.
// model: ID is short for {default: ID}; a second field needs the long form.
func setField(file string, data []byte, path []string, value string) ([]byte, error) {
	root, err := parseYAML(file, data)
	if err != nil {
		return nil, err
	}
	if m := root.get("model"); len(path) == 2 && path[0] == "model" && m != nil && m.kind == scalarNode {
		long := "{default: " + yamlText(m.text) + "}"
		if data, err = spliceSet(data, path[:1], long); err != nil {
			return nil, err
		}
	}
	return spliceSet(data, path, value)
}

// Unset removes a key from .env or config.yaml. Errors: as Set.
func Unset(p Profile, env *Env, key string, by By) (Change, error) {
	if name := envNameOf(key); name != "" {
		return editEnvKey(p, env, name, nil, by)
	}
	path, err := SplitKey(key)
	if err != nil {
		return Change{}, err
	}
	return editConfig(p, env, key, by, func(data []byte) ([]byte, error) { return spliceUnset(data, path) })
}

// Value is what Get found.
type Value struct {
	Value  any    `json:"value"`
	Origin string `json:"origin"`
	Secret bool   `json:"secret"`
}

// Get gives a key's value: a variable as the profile sees it, else what stands
// in config.yaml, a mapping too, else the value in force by default. Errors:
// NotFound, Invalid, Config.
func Get(p Profile, env *Env, key string) (Value, error) {
	if name := envNameOf(key); name != "" {
		if v, ok := env.Lookup(name); ok {
			return Value{v, env.Origin(name).String(), IsSecretName(name)}, nil
		}
		if name == key {
			return Value{}, domain.E(domain.NotFound, nil, "%s is not set, neither in %s nor in the environment", name, p.EnvFile())
		}
	}
	path, err := SplitKey(key)
	if err != nil {
		return Value{}, err
	}
	data, err := readBounded(p.ConfigFile())
	if err != nil {
		return Value{}, err
	}
	root, err := parseYAML(p.ConfigFile(), data)
	if err != nil {
		return Value{}, err
	}
	if n := root.at(path...); n != nil {
		o := Origin{File: p.ConfigFile(), Line: n.line}
		return Value{n.plain(), o.String(), n.kind == scalarNode && IsSecretName(path[len(path)-1])}, nil
	}
	item, known, err := Effective(p, env, key)
	if err != nil {
		return Value{}, err
	}
	if !known {
		return Value{}, domain.E(domain.NotFound, nil, "%s is not set in %s", key, p.ConfigFile())
	}
	if item.reveal != "" {
		return Value{item.reveal, item.Origin, true}, nil
	}
	return Value{item.Value, item.Origin, false}, nil
}

// coerce writes a value as YAML in one line.
func coerce(value string) string {
	switch strings.ToLower(value) {
	case "true", "false", "null":
		return strings.ToLower(value)
	case "":
		return `""`
	}
	trimmed := strings.TrimSpace(value)
	var v any
	if json.Unmarshal([]byte(trimmed), &v) == nil {
		if _, isText := v.(string); !isText && !strings.Contains(trimmed, "\n") {
			return trimmed // a number, a list or a mapping: JSON is YAML
		}
	}
	return yamlText(value)
}

func editConfig(p Profile, env *Env, key string, by By, edit func([]byte) ([]byte, error)) (Change, error) {
	c := Change{Key: key, File: p.ConfigFile(), Secret: IsSecretName(key)}
	err := withEditLock(p, by.did(key), func() error {
		old, err := readBounded(c.File)
		if err != nil {
			return err
		}
		before, err := Check(p, env, old)
		if err != nil {
			return err
		}
		data, err := edit(old)
		if err != nil {
			return domain.E(domain.Conflict, err, "%s was not changed: %s cannot be edited in place; run `hermes config edit`", c.File, key)
		}
		if string(data) == string(old) {
			return nil
		}
		after, err := Check(p, env, data)
		if err != nil {
			return err
		}
		if c.Problems, err = newProblems(key, before, after); err != nil {
			return err
		}
		c.Changed = true
		return replaceFile(c.File, old, data)
	})
	return c, err
}

func editEnvKey(p Profile, env *Env, name string, value *string, by By) (Change, error) {
	c := Change{Key: name, File: p.EnvFile(), Secret: IsSecretName(name)}
	err := withEditLock(p, by.did(name), func() error {
		data, err := readBounded(p.ConfigFile())
		if err != nil {
			return err
		}
		// A config.yaml that is broken must not keep a key from being set.
		if before, err := Check(p, env, data); err == nil {
			after, err := Check(p, env.with(name, value), data)
			if err != nil {
				return err
			}
			if c.Problems, err = newProblems(name, before, after); err != nil {
				return err
			}
		}
		_, c.Changed = env.vars[name]
		c.Changed = c.Changed || value != nil
		return editEnv(p, map[string]*string{name: value})
	})
	return c, err
}

// with gives a copy of the environment in which one variable differs.
func (e *Env) with(name string, value *string) *Env {
	c := *e
	c.vars = make(map[string]envVar, len(e.vars)+1)
	for k, v := range e.vars {
		c.vars[k] = v
	}
	delete(c.vars, name)
	if value != nil {
		c.vars[name] = envVar{*value, Origin{File: e.profile.EnvFile(), Env: name}}
	}
	return &c
}

// newProblems gives the problems that an edit brings. One that lies in the
// edited key itself forbids the edit; others, such as a key that is still
// missing, only come to light by it.
func newProblems(key string, before, after Problems) (Problems, error) {
	type id struct{ key, message string }
	known := map[id]bool{}
	for _, p := range before {
		known[id{p.Key, p.Message}] = true
	}
	var out Problems
	for _, p := range after {
		if known[id{p.Key, p.Message}] {
			continue
		}
		if p.Severity == Fault && (p.Key == key || strings.HasPrefix(p.Key, key+".")) {
			return nil, domain.E(domain.Invalid, nil, "%s was not changed: %s; %s", key, p.Message, p.Fix)
		}
		out = append(out, p)
	}
	return out, nil
}

// withEditLock keeps two edits of one profile from losing one of them, and
// keeps what the files held before and after in the history. Without a by, the
// edit is the history's own.
func withEditLock(p Profile, by By, edit func() error) error {
	if err := os.MkdirAll(p.Home, 0o700); err != nil {
		return domain.E(domain.Unavailable, err, "the folder %s cannot be made", p.Home)
	}
	lock := flock.New(filepath.Join(p.Home, ".config.lock"), flock.SetPermissions(0o600), flock.SetFlag(plain.LockFlag))
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if _, err := lock.TryLockContext(ctx, 20*time.Millisecond); err != nil {
		return domain.E(domain.Unavailable, err, "another edit of %s has not ended, so nothing was changed; try again", p.Home)
	}
	defer lock.Unlock()
	if err := complete(p); err != nil {
		return err
	}
	if by == (By{}) {
		return edit()
	}
	h := OpenHistory(p)
	if err := h.noteFound(by); err != nil {
		return err
	}
	err := edit()
	if after, rerr := readFiles(p); rerr == nil {
		// The edit stands; a state that is not kept now is kept as found by the next.
		_, _ = h.keep(after, by)
	}
	return err
}
