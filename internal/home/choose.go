package home

import (
	"maps"
	"slices"
	"strings"

	"hermes/internal/domain"
	"hermes/internal/secret"
)

// The ids of the providers that are no service of somebody's.
const (
	CustomProvider  = "custom"  // any OpenAI-compatible address
	OfflineProvider = "offline" // the stand-in made of rules
)

// Provider describes a place where models are served, for a menu.
type Provider struct {
	ID       string   `json:"id"`
	BaseURL  string   `json:"base_url,omitempty"`  // "" where it must be given, or where there is none
	KeyNames []string `json:"key_names,omitempty"` // variables that hold its key; the first that is set counts
	NeedsKey bool     `json:"needs_key"`
	NeedsURL bool     `json:"needs_url"`
}

// Providers lists what `hermes model` offers: the services that need no
// further description, then custom and offline.
func Providers() []Provider {
	var out []Provider
	for _, p := range providers() {
		out = append(out, Provider{ID: p.id, BaseURL: p.base, KeyNames: p.keys, NeedsKey: !p.open, NeedsURL: p.base == ""})
	}
	return append(out,
		Provider{ID: CustomProvider, KeyNames: []string{customKeyName(CustomProvider)}, NeedsURL: true},
		Provider{ID: OfflineProvider})
}

// customKeyName is the variable for the key of a provider that has none of its
// own.
func customKeyName(provider string) string {
	name := strings.ToUpper(strings.NewReplacer(":", "_", "-", "_", ".", "_", " ", "_").Replace(provider)) + "_API_KEY"
	if !validEnvName(name) {
		return "CUSTOM_API_KEY"
	}
	return name
}

// Choice is the model that a person chose for a profile. BaseURL and Key may be
// left out: the provider's own address and the key that is there already count
// then.
type Choice struct {
	Provider, Model, BaseURL string
	Key                      secret.Value
}

// Resolve gives the model as Load would once the choice is written, and what
// would be wrong with it; nothing is written. Errors: Invalid for a provider
// that is not known or a model that is not named, Conflict when a variable
// overrides the choice, Config.
func (c Choice) Resolve(p Profile, env *Env) (ModelConfig, Problems, error) {
	old, err := readBounded(p.ConfigFile())
	if err != nil {
		return ModelConfig{}, nil, err
	}
	data, keyName, err := c.edit(p, env, old)
	if err != nil {
		return ModelConfig{}, nil, err
	}
	if c.Key.IsSet() {
		key := c.Key.Reveal()
		env = env.with(keyName, &key)
	}
	l, err := loadBytes(p, env, data)
	if err != nil {
		return ModelConfig{}, nil, err
	}
	wrong := slices.DeleteFunc(l.problems, func(p Problem) bool { return p.Key != "model" && !strings.HasPrefix(p.Key, "model.") })
	return l.draft.Model, wrong, nil
}

// Apply writes the choice: the key into .env, everything else into config.yaml,
// both or neither, so that no half of a choice is ever in force. What belonged to
// another provider (its key, its address) is taken out of the model's section.
// It tells which files changed. Errors: as Resolve, StorageFull, Unavailable.
func (c Choice) Apply(p Profile, env *Env, by By) (files []string, err error) {
	err = withEditLock(p, by.did(c.Model), func() error {
		now, err := readFiles(p)
		if err != nil {
			return err
		}
		to := now
		data, keyName, err := c.edit(p, env, now.Config)
		if err != nil {
			return err
		}
		if c.Key.IsSet() {
			file, _ := ParseEnv(p.EnvFile(), now.Env)
			if err := file.Set(keyName, c.Key.Reveal()); err != nil {
				return err
			}
			to.Env = file.Bytes()
			files = append(files, p.EnvFile())
		}
		if string(data) != string(now.Config) {
			to.Config = data
			files = append(files, p.ConfigFile())
		}
		return writeFiles(p, now, to)
	})
	return files, err
}

// edit gives config.yaml with the choice in it, and the variable that its key
// belongs into.
func (c Choice) edit(p Profile, env *Env, data []byte) (out []byte, keyName string, err error) {
	l, err := loadBytes(p, env, data)
	if err != nil {
		return nil, "", err
	}
	set, keyName, err := c.settle(l)
	if err != nil {
		return nil, "", err
	}
	if err := c.overridden(env, set["provider"]); err != nil {
		return nil, "", err
	}
	now := l.draft.Model
	drop := []string{"model", "name"} // older names of default
	sameService := now.Provider == set["provider"] && (c.BaseURL == "" || c.BaseURL == now.BaseURL)
	if !sameService {
		drop = append(drop, "api_key", "key_env", "api_mode", "base_url")
	}
	if !sameService || now.Model != set["default"] {
		drop = append(drop, "context_length")
	}
	if c.Key.IsSet() {
		drop = append(drop, "api_key", "key_env")
	}
	out = data
	for _, key := range drop {
		if _, kept := set[key]; kept || l.root.at("model", key) == nil {
			continue
		}
		if out, err = spliceUnset(out, []string{"model", key}); err != nil {
			return nil, "", c.cannotEdit(p, err)
		}
	}
	for _, key := range []string{"default", "provider", "base_url", "key_env"} {
		if value, ok := set[key]; ok {
			if out, err = setField(p.ConfigFile(), out, []string{"model", key}, yamlText(value)); err != nil {
				return nil, "", c.cannotEdit(p, err)
			}
		}
	}
	return out, keyName, nil
}

func (c Choice) cannotEdit(p Profile, err error) error {
	return domain.E(domain.Conflict, err, "%s was not changed: the model's section cannot be edited in place; run `hermes config edit`", p.ConfigFile())
}

// settle checks the choice against what is known, and gives the fields of the
// model's section and the variable of the key.
func (c Choice) settle(l *loader) (set map[string]string, keyName string, err error) {
	set = map[string]string{"provider": c.Provider, "default": c.Model}
	if c.BaseURL != "" {
		set["base_url"] = c.BaseURL
	}
	if c.Provider == OfflineProvider {
		if c.Key.IsSet() || c.BaseURL != "" {
			return nil, "", domain.E(domain.Invalid, nil, "the offline stand-in takes neither a key nor an address; leave them out")
		}
		set["default"] = OfflineProvider
		return set, "", nil
	}
	if strings.TrimSpace(c.Model) == "" || strings.ContainsAny(c.Model, "\r\n\x00") {
		return nil, "", domain.E(domain.Invalid, nil, "no model is named; write its id as the provider does, such as openai/gpt-5")
	}
	if p, known := providerByID(c.Provider); known {
		set["provider"] = p.id
		return set, p.keys[0], nil
	}
	name := strings.TrimPrefix(c.Provider, "custom:")
	described := slices.ContainsFunc(l.draft.Providers, func(p ProviderConfig) bool { return p.Name == name })
	if !described && c.Provider != CustomProvider {
		ids := ProviderIDs()
		hint := "`hermes model list` lists them, and any OpenAI-compatible address works as custom with --base-url"
		if near := Nearest(c.Provider, append(ids, CustomProvider)); near != "" {
			hint = "did you mean " + near + "?"
		}
		return nil, "", domain.E(domain.Invalid, nil, "the provider %q is not known; %s", c.Provider, hint)
	}
	if c.Provider == CustomProvider && c.BaseURL == "" && (l.draft.Model.Provider != CustomProvider || l.draft.Model.BaseURL == "") {
		return nil, "", domain.E(domain.Invalid, nil, "the provider custom needs an address; add --base-url URL, such as http://127.0.0.1:8000/v1")
	}
	if described {
		set["provider"] = "custom:" + name
	}
	keyName = customKeyName(set["provider"])
	if c.Key.IsSet() {
		set["key_env"] = keyName
	}
	return set, keyName, nil
}

// overridden refuses a choice that a variable would make void.
func (c Choice) overridden(env *Env, provider string) error {
	chosen := map[string]string{"HERMES_INFERENCE_PROVIDER": provider}
	if provider != OfflineProvider { // which has no models to name
		for _, name := range []string{"HERMES_INFERENCE_MODEL", "HERMES_MODEL", "LLM_MODEL"} {
			chosen[name] = c.Model
		}
	}
	for _, name := range slices.Sorted(maps.Keys(chosen)) {
		if v, set := env.Lookup(name); set && v != chosen[name] {
			return domain.E(domain.Conflict, nil, "%s (%s) overrides config.yaml, so the choice would have no effect; remove it first, by `hermes config unset %s` where it stands in .env",
				name, env.Origin(name), name)
		}
	}
	return nil
}
