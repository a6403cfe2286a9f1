package cli

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"hermes/internal/domain"
	"hermes/internal/home"
	"hermes/internal/secret"
)

// askModel asks for provider, model, address and key, calls the model and
// writes the choice.
func (a *App) askModel(ctx context.Context) error {
	cfg, _, err := a.Config()
	if err != nil {
		return err
	}
	q := a.asker()
	c, err := a.askChoice(ctx, q, cfg.Model)
	if err != nil {
		return err
	}
	if err := a.tryModel(ctx, c, false); domain.IsCode(err, domain.Unavailable) {
		fmt.Fprintf(a.Err, "✗ %s\n", err)
		anyway, err := q.yes(ctx, "Write it all the same?")
		if err != nil {
			return err
		}
		if !anyway {
			return domain.E(domain.Unavailable, nil, "nothing was written")
		}
	} else if err != nil {
		return err
	}
	return a.applyModel(ctx, c)
}

// askChoice asks what is to be chosen.
func (a *App) askChoice(ctx context.Context, q *asker, now home.ModelConfig) (home.Choice, error) {
	if now.IsSet() {
		fmt.Fprintf(a.Err, "Set now: %s\n", modelTitle(now))
	}
	p, err := a.askProvider(ctx, q, now)
	if err != nil || p.ID == home.OfflineProvider {
		return home.Choice{Provider: p.ID}, err
	}
	c := home.Choice{Provider: p.ID}
	same := now.Provider == p.ID
	known := ""
	if same {
		known = now.Model
	}
	if c.Model, err = q.line(ctx, "Model, as the provider names it", known); err != nil {
		return c, err
	}
	if p.NeedsURL {
		known := ""
		if same {
			known = now.BaseURL
		}
		if c.BaseURL, err = q.line(ctx, "Address, up to /v1", known); err != nil {
			return c, err
		}
	}
	question := "Key"
	switch {
	case keySet(p, a.env), same && now.Key.IsSet():
		question = "Key; empty keeps the one that is set"
	case !p.NeedsKey:
		question = "Key; empty for none"
	}
	key, err := q.secret(ctx, question)
	if len(key) > maxKey {
		return c, domain.E(domain.Invalid, nil, "that is too long for a key; nothing was changed")
	}
	c.Key = secret.Value(key)
	return c, err
}

// askProvider shows the menu and gives what was chosen, by number or by name.
func (a *App) askProvider(ctx context.Context, q *asker, now home.ModelConfig) (home.Provider, error) {
	all := home.Providers()
	for i, p := range all {
		note := p.BaseURL
		switch {
		case p.ID == home.OfflineProvider:
			note = "no key, no network: rules in place of a model, to try things out"
		case p.ID == home.CustomProvider:
			note = "any OpenAI-compatible address"
		case keySet(p, a.env):
			note += "  (key set)"
		}
		fmt.Fprintf(a.Err, "%3d  %-15s %s\n", i+1, p.ID, note)
	}
	known := "openrouter"
	if now.IsSet() && slices.ContainsFunc(all, func(p home.Provider) bool { return p.ID == now.Provider }) {
		known = now.Provider
	}
	for range 3 {
		text, err := q.line(ctx, "Provider, by number or name", known)
		if err != nil {
			return home.Provider{}, err
		}
		if n, err := strconv.Atoi(text); err == nil && n >= 1 && n <= len(all) {
			return all[n-1], nil
		}
		if i := slices.IndexFunc(all, func(p home.Provider) bool { return p.ID == strings.ToLower(text) }); i >= 0 {
			return all[i], nil
		}
		fmt.Fprintf(a.Err, "There is no %q in the list.\n", text)
	}
	return home.Provider{}, domain.E(domain.Invalid, nil, "no provider was chosen; nothing was changed")
}
