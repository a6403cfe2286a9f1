// Package catalog builds the model provider that a configuration names: the
// model with its fallbacks as one chain, the offline stand-in, or a provider
// that says in a sentence why there is none.
package catalog

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"time"

	"hermes/internal/domain"
	"hermes/internal/health"
	"hermes/internal/home"
	"hermes/internal/model"
	"hermes/internal/model/offline"
	"hermes/internal/model/openai"
)

// Deps are what the providers of one process share.
type Deps struct {
	Transport http.RoundTripper                                // nil makes one with openai.NewTransport
	Health    *health.Reporter                                 // of the part "model"; may be nil
	Log       *slog.Logger                                     // nil logs nothing
	Now       func() time.Time                                 // nil is time.Now
	Sleep     func(ctx context.Context, d time.Duration) error // nil sleeps; see model.ChainOptions
	Secrets   func(...string)                                  // told of each login before it is used, for a redactor; may be nil
}

// FromConfig builds the provider of a profile. It never fails: what cannot be
// called is replaced by a provider that says why, so that the gateway starts
// and tells the user. Fallbacks that cannot be called are left out and logged.
// With no model, Health is told what to do.
func FromConfig(cfg *home.Config, deps Deps) model.Provider {
	if deps.Transport == nil {
		deps.Transport = openai.NewTransport()
	}
	if deps.Log == nil {
		deps.Log = slog.New(slog.DiscardHandler)
	}
	first, why := build(cfg.Model, deps)
	if why != "" {
		deps.Health.Down(string(model.NotSet), why)
	}
	row := []model.Provider{first}
	for _, m := range cfg.Fallbacks {
		p, why := build(m, deps)
		if why != "" {
			deps.Log.Warn("a fallback model is left out", "provider", m.Provider, "model", m.Model, "why", why)
			continue
		}
		row = append(row, p)
	}
	return model.NewChain(row, model.ChainOptions{
		MaxRetries: cfg.Agent.APIMaxRetries, Health: deps.Health, Log: deps.Log, Now: deps.Now, Sleep: deps.Sleep,
	})
}

// Build builds one provider without retries and fallbacks, for a job or a
// check that names its own model. What cannot be called is replaced by a
// provider that says why.
func Build(m home.ModelConfig, deps Deps) model.Provider {
	p, _ := build(m, deps)
	return p
}

// build gives the provider, and why it cannot be called, if so.
func build(m home.ModelConfig, deps Deps) (model.Provider, string) {
	if m.Provider == "offline" {
		return offline.New(offline.Options{Now: deps.Now}), ""
	}
	if !m.IsSet() {
		p := model.Unset()
		_, err := p.Complete(context.Background(), &model.Request{}, nil)
		return p, model.AsError(err).Message
	}
	if why := unsupported(m); why != "" {
		return model.Unusable(m.Provider, why), why
	}
	if m.LoginFile != "" {
		if deps.Transport == nil {
			deps.Transport = openai.NewTransport()
		}
		return newPooled(m, deps), ""
	}
	c, err := openai.New(openai.Config{
		Name: m.Provider, BaseURL: m.BaseURL, Key: m.Key, KeyOrigin: m.KeyOrigin, Model: m.Model, MaxTokens: m.MaxTokens,
	}, openai.Deps{Transport: deps.Transport, Log: deps.Log, Now: deps.Now})
	if err != nil {
		why := domain.MessageOf(err)
		return model.Unusable(m.Provider, why), why
	}
	return c, ""
}

// unsupported says why a configured model cannot be called by this program;
// "" when it can.
func unsupported(m home.ModelConfig) string {
	const choose = "run `hermes model` to choose another provider"
	if m.APIMode != "" && m.APIMode != "chat_completions" {
		return fmt.Sprintf("the api_mode %s of provider %s is not supported, so that model %s cannot be called: "+
			"set model.api_mode to chat_completions if the service offers it, or %s", m.APIMode, m.Provider, m.Model, choose)
	}
	signIn := []string{"nous", "openai-codex", "copilot", "copilot-acp", "minimax-oauth", "xai-oauth", "qwen-oauth", "bedrock"}
	if slices.Contains(signIn, m.Provider) && (m.BaseURL == "" || !m.Key.IsSet() && m.LoginFile == "") {
		return fmt.Sprintf("the provider %s needs a sign-in that is not supported, so that model %s cannot be called: "+
			"%s, for example openrouter with an OPENROUTER_API_KEY", m.Provider, m.Model, choose)
	}
	if m.BaseURL == "" {
		return fmt.Sprintf("the provider %s has no address, so that model %s cannot be called: set model.base_url in config.yaml, or %s", m.Provider, m.Model, choose)
	}
	return ""
}
