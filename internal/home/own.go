package home

import (
	"slices"
	"strings"

	"hermes/internal/domain"
)

// OwnModel resolves the model that a job names for itself, as the profile's own
// is resolved: from config.yaml and env as they are now. What the job leaves
// out ("") is the profile's: the model of the provider that it names, or the
// provider that serves the model that it names. Errors: Config, with what is
// missing and how to add it.
func OwnModel(p Profile, env *Env, provider, model, baseURL string) (ModelConfig, error) {
	l, err := load(p, env)
	if err != nil {
		return ModelConfig{}, err
	}
	if provider == "openai" {
		provider = "openai-api"
	}
	known := append([]ModelConfig{l.draft.Model}, l.draft.Fallbacks...)
	spec := modelSpec{ModelConfig: ModelConfig{Model: model, Provider: provider, BaseURL: baseURL}}
	if spec.BaseURL != "" && spec.Provider == "" {
		spec.Provider = CustomProvider
	}
	if spec.BaseURL == "" {
		if same := l.likeConfigured(known, provider, model); same != nil {
			return *same, nil
		}
	}
	if spec.Model == "" {
		if spec.Model = l.firstModel(known, spec.Provider); spec.Model == "" {
			return ModelConfig{}, domain.E(domain.Config, nil, "the job names the provider %s and no model, and config.yaml names none for it; add one with --model", spec.Provider)
		}
	}
	l.problems = nil
	if spec.Provider == CustomProvider {
		// An address of the job's own: a configured key goes along only to the
		// address that it was configured for.
		for _, m := range known {
			if m.Provider == CustomProvider && (spec.BaseURL == "" || m.BaseURL == spec.BaseURL) {
				spec.BaseURL = m.BaseURL
				spec.key = m.Key.Reveal()
				break
			}
		}
		if spec.key == "" && spec.BaseURL != "" {
			spec.keyEnv = customKeyName(CustomProvider)
		}
	}
	m := l.resolveModel(spec, "the job's model")
	if len(l.problems) > 0 {
		why := l.problems[0]
		return ModelConfig{}, domain.E(domain.Config, nil, "the job's model %s cannot be used: %s; %s", spec.Model, why.Message, why.Fix)
	}
	return m, nil
}

// likeConfigured gives the configured model that the job means, or with the
// job's model in its place when the job names only another model of the same
// service. nil when the provider is not among the configured ones.
func (l *loader) likeConfigured(known []ModelConfig, provider, model string) *ModelConfig {
	for _, m := range known {
		if m.IsSet() && sameProvider(m.Provider, provider) && (model == "" || m.Model == model) {
			return &m
		}
	}
	for _, m := range known {
		if m.IsSet() && sameProvider(m.Provider, provider) {
			if m.Provider == OfflineProvider {
				return &m // which has one model
			}
			m.Model, m.ContextLength = model, 0
			return &m
		}
	}
	return nil
}

// sameProvider tells whether a configured provider is the one that a job names;
// "" means any, so that the first counts.
func sameProvider(have, want string) bool {
	return want == "" || have == want || have == "custom:"+strings.TrimPrefix(want, "custom:")
}

// firstModel is the model that a configured provider is known to serve.
func (l *loader) firstModel(known []ModelConfig, provider string) string {
	if i := slices.IndexFunc(known, func(m ModelConfig) bool { return m.Provider == provider }); i >= 0 {
		return known[i].Model
	}
	name := strings.TrimPrefix(provider, "custom:")
	for _, p := range l.draft.Providers {
		if p.Name == name && len(p.Models) > 0 {
			return p.Models[0]
		}
	}
	if provider == OfflineProvider {
		return OfflineProvider
	}
	return ""
}
