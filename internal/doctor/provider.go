package doctor

import (
	"fmt"
	"net/http"
	"slices"
	"strings"

	"hermes/internal/health"
	"hermes/internal/home"
	"hermes/internal/model"
)

// providerChecks are about models: which is set, its key, its provider's
// answer, logins.
func providerChecks() []check {
	return []check{checkModelSet, checkLogins, checkProviders, checkModelPart, checkSpeech}
}

// checkModelSet says that nothing can be answered for want of a model.
func checkModelSet(c *Case) []Finding {
	if c.Config == nil || c.Config.Model.IsSet() || c.Home.Missing {
		return nil
	}
	evidence := []string{"neither config.yaml nor the environment names one"}
	if c.Config.Model.Key.IsSet() {
		evidence = append(evidence, "there is a key, "+c.Config.Model.KeyOrigin)
	}
	return []Finding{{ID: "provider.none", Class: Provider, Severity: Error, depth: ofSetting, explains: []string{"service.part_model"}, What: "no model is set", Evidence: evidence,
		Means: "The bot answers every message by saying so.", Fix: c.then(c.hermes("model set <provider> <model>"))}}
}

// keyName is the variable that holds a provider's key.
func keyName(provider string) string {
	if provider == "custom" || strings.HasPrefix(provider, "custom:") {
		return "model.api_key"
	}
	for _, p := range home.Providers() {
		if p.ID == provider && len(p.KeyNames) > 0 {
			return p.KeyNames[0]
		}
	}
	return "model.api_key"
}

// checkProviders judges the providers' answers.
func checkProviders(c *Case) []Finding {
	var out []Finding
	for _, p := range c.Models {
		f, bad := c.judge(p)
		if !bad {
			continue
		}
		f.Class, f.depth, f.about = Provider, ofSetting, p.Model.Model
		if p.Fallback {
			f.Severity = Warning
			f.What = "the fallback: " + f.What
		} else if f.Severity == Error {
			f.explains = []string{"service.part_model"}
		}
		out = append(out, f)
	}
	return out
}

// judge makes a finding of one answer.
func (c *Case) judge(p modelProbe) (f Finding, bad bool) {
	m := p.Model
	origin := m.KeyOrigin
	if origin == "" {
		origin = "no key is set"
	} else {
		origin = "the key: " + origin
	}
	f.Severity = Error
	f.Evidence = []string{fmt.Sprintf("%s answered %d to a question for its models", m.BaseURL, p.Status), origin}
	if p.Said != "" {
		f.Evidence = append(f.Evidence, "it said: "+cutTo(p.Said, 200))
	}
	newKey := c.newKey(m)
	switch {
	case p.Err != nil:
		if part := c.part("model"); part.Known && part.State == health.OK && !part.LastOK.IsZero() {
			return f, false // it is reached, only not by this process just now
		}
		f.ID, f.Severity, f.What = "provider.unreachable", Warning, m.Provider+" could not be reached from here"
		f.Evidence = []string{m.BaseURL + ": " + c.redact(p.Err.Error())}
		f.Means = "That says nothing of the key: the address may be wrong, the service off, or this machine without network."
		f.Fix = c.then(c.hermes("config set model.base_url <address>"))
	case p.Status == http.StatusUnauthorized:
		f.ID, f.What, f.Means, f.Fix = "provider.key_refused", m.Provider+" refuses the key", "Nothing can be answered with it.", newKey
		if !m.Key.IsSet() {
			f.ID, f.What = "provider.key_missing", m.Provider+" asks for a key, and none is set"
		}
	case p.Status == http.StatusForbidden:
		f.ID, f.What, f.Means, f.Fix = "provider.key_forbidden", m.Provider+" forbids this key what it is used for", "Nothing can be answered with it.", newKey
	case p.Status == http.StatusPaymentRequired, p.Empty, p.Status == http.StatusTooManyRequests && strings.Contains(p.Said, "quota"):
		f.ID, f.What, f.Means, f.Fix = "provider.quota", "the credit at "+m.Provider+" is used up", "Every call is refused until it is topped up, or another key is used.", newKey
	case len(p.Models) > 0 && !served(p.Models, m.Model) && !c.answersWith(m):
		f.ID, f.What, f.Means = "provider.model_unknown", m.Provider+" does not serve the model "+m.Model, "Every call to it ends in an error."
		f.Evidence = []string{m.BaseURL + "/models lists: " + someOf(p.Models, 5)}
		f.Fix = c.then(c.hermes("config set model.default <model>"))
		if len(p.Models) == 1 {
			f.Fix = c.then(c.hermes("config set model.default " + p.Models[0]))
		}
	default:
		return f, false
	}
	return f, true
}

// served tells whether a provider's list holds a model, under one of the forms
// in which its name is written: models/NAME, and NAME:latest.
func served(list []string, name string) bool {
	return slices.ContainsFunc(list, func(m string) bool { return m == name || m == "models/"+name || m == name+":latest" })
}

// answersWith tells whether the running gateway has had an answer of a model:
// some providers list fewer than they serve.
func (c *Case) answersWith(m home.ModelConfig) bool {
	p := c.part("model")
	return p.Known && p.State == health.OK && !p.LastOK.IsZero() && c.Gateway.Status.Model.Name == m.Model
}

// keyPlace is what to set for another key: where the present one stands.
func (c *Case) keyPlace(m home.ModelConfig) string {
	if strings.HasPrefix(m.KeyOrigin, "config.yaml") {
		return "model.api_key"
	}
	if i, j := strings.LastIndexByte(m.KeyOrigin, '('), strings.LastIndexByte(m.KeyOrigin, ')'); i >= 0 && j > i && !strings.Contains(m.KeyOrigin, "auth.json") && !strings.HasPrefix(m.KeyOrigin, "custom_providers") {
		return m.KeyOrigin[i+1 : j]
	}
	return keyName(m.Provider)
}

// checkModelPart tells what the running gateway found out by calling the model.
func checkModelPart(c *Case) []Finding {
	p := c.part("model")
	if !p.bad() || c.Config == nil {
		return nil
	}
	f := Finding{ID: "provider." + p.Code, Class: Provider, Severity: Error, depth: ofPart, about: c.Config.Model.Model, What: "the model does not answer as it should",
		Evidence: []string{"status since " + p.Since.Local().Format("15:04:05") + ": " + p.Message}, Means: "Turns fail, or are answered by a fallback."}
	newKey := c.newKey(c.Config.Model)
	switch model.Kind(p.Code) {
	case model.Auth:
		f.ID, f.What, f.Fix = "provider.key_refused", "the provider refuses the key", newKey
	case model.Quota:
		f.ID, f.What, f.Fix = "provider.quota", "the credit at the provider is used up", newKey
	case model.NoModel:
		f.ID, f.What, f.Fix = "provider.model_unknown", "the provider does not know the model", c.then(c.hermes("config set model.default <model>"))
	case model.NotSet:
		f.ID, f.What, f.Fix = "provider.none", "no model is set", c.then(c.hermes("model set <provider> <model>"))
	default:
		f.Severity, f.Fix = Warning, c.hermes("model check")
	}
	return []Finding{f}
}
