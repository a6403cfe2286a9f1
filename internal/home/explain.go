package home

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"hermes/internal/secret"
)

// Item is one setting with its value and where that comes from.
type Item struct {
	Key    string `json:"key"`
	Value  string `json:"value"` // a secret as <secret>
	Origin string `json:"origin"`
	Set    bool   `json:"set"` // not the default

	reveal string // the secret behind Value, where there is one
}

// Explain lists every setting of a profile with the place that it comes from,
// the ones that stand at their default included, and what a named profile
// takes from the root. Errors: Config.
func Explain(p Profile, env *Env) ([]Item, Problems, error) {
	l, err := load(p, env)
	if err != nil {
		return nil, nil, err
	}
	var items []Item
	add := func(key, value string) {
		o, set := l.origins[key]
		item := Item{Key: key, Value: value, Origin: o.String(), Set: set}
		if value == secret.Mask {
			item.reveal = env.Get(o.Env)
		}
		items = append(items, item)
	}
	m := l.draft.Model
	add("model.default", m.Model)
	add("model.provider", m.Provider)
	add("model.base_url", m.BaseURL)
	items = append(items, Item{Key: "model.api_key", Value: m.Key.String(), Origin: orDefault(m.KeyOrigin), Set: m.Key.IsSet(), reveal: m.Key.Reveal()})
	for i, f := range l.draft.Fallbacks {
		items = append(items, Item{Key: fmt.Sprintf("fallback_providers.%d", i), Value: f.Provider + " " + f.Model, Origin: "config.yaml", Set: true})
	}
	add("platforms.api_server.enabled", fmt.Sprint(l.draft.API.Enabled))
	for _, s := range settings() {
		add(s.paths[0], s.show(l.draft))
	}
	for _, spec := range l.namedPlatforms() {
		base := "platforms." + string(spec.name) + "."
		add(base+"enabled", fmt.Sprint(l.draft.platform(spec.name).Enabled))
		for _, s := range platformSettings(spec) {
			add(s.paths[0], s.show(l.draft))
		}
	}
	for _, file := range AuthFiles(p) {
		value, origin := "absent", "the profile's own"
		if data, err := readBounded(file); err == nil && data != nil {
			value = "present"
		}
		if p.Root != p.Home && filepath.Dir(file) == p.Root {
			origin = "inherited from the root, where the profile has no entry of its own"
		}
		items = append(items, Item{Key: "auth.json", Value: value, Origin: origin + ": " + file, Set: value == "present"})
	}
	slices.SortStableFunc(items, func(a, b Item) int { return strings.Compare(a.Key, b.Key) })
	return items, l.problems, nil
}

func orDefault(origin string) string {
	if origin == "" {
		return Origin{}.String()
	}
	return origin
}

// Effective gives the value of one setting, with defaults and the environment
// taken into account. Errors: Config.
func Effective(p Profile, env *Env, key string) (Item, bool, error) {
	items, _, err := Explain(p, env)
	if err != nil {
		return Item{}, false, err
	}
	i := slices.IndexFunc(items, func(it Item) bool { return it.Key == key })
	if i < 0 {
		return Item{}, false, nil
	}
	return items[i], true, nil
}
