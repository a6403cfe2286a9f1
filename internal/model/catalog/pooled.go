package catalog

import (
	"context"
	"net/http"
	"sync"
	"time"

	"hermes/internal/domain"
	"hermes/internal/home"
	"hermes/internal/model"
	"hermes/internal/model/login"
	"hermes/internal/model/openai"
	"hermes/internal/secret"
)

// How long a credential that was refused is left alone.
const (
	refusedFor = time.Hour      // a key that is not taken
	spentFor   = 24 * time.Hour // one without credit
	limitedFor = time.Minute    // one that asked for a pause and did not say how long
)

// pooled calls one service with whichever credential of a pool is good.
type pooled struct {
	m    home.ModelConfig
	pool *login.Pool
	deps Deps

	mu      sync.Mutex
	clients map[secret.Value]*openai.Client
}

func newPooled(m home.ModelConfig, deps Deps) *pooled {
	client := &http.Client{Transport: deps.Transport}
	return &pooled{m: m, deps: deps, clients: map[secret.Value]*openai.Client{},
		pool: login.NewPool(login.Open(m.LoginFile, deps.Now), m.Provider, m.PoolStrategy, client, deps.Secrets)}
}

// Name gives the provider's name.
func (p *pooled) Name() string { return p.m.Provider }

// Complete calls the model; see model.Provider. A login that is refused is
// renewed once, a key that is refused gives way to the next one. What other
// failures mean is for the chain to decide.
func (p *pooled) Complete(ctx context.Context, r *model.Request, onDelta func(model.Delta)) (*model.Answer, error) {
	renewed := map[string]bool{}
	const most = 16 // credentials tried for one call
	var last error
	for range most {
		c, err := p.pool.Pick(ctx)
		if err != nil {
			if ctx.Err() != nil {
				return nil, ctx.Err()
			}
			if last != nil {
				return nil, last
			}
			return nil, p.failure(err)
		}
		client, err := p.client(c)
		if err != nil {
			return nil, p.failure(err)
		}
		answer, err := client.Complete(ctx, r, onDelta)
		if err == nil {
			return answer, nil
		}
		if ctx.Err() != nil {
			return nil, err
		}
		if !p.next(ctx, c, model.AsError(err), renewed) {
			return nil, err
		}
		last = err
	}
	return nil, last
}

// next tells whether a failure is the credential's, so that another is tried.
func (p *pooled) next(ctx context.Context, c login.Credential, e *model.Error, renewed map[string]bool) bool {
	switch e.Kind {
	case model.Auth:
		if !renewed[c.ID] {
			renewed[c.ID] = true
			if p.pool.Renew(ctx, c) == nil {
				return true
			}
		}
		p.pool.Refuse(c, refusedFor)
	case model.Quota:
		p.pool.Refuse(c, spentFor)
	case model.RateLimited:
		if !p.pool.Others(c) {
			return false // the chain waits, and tries this one again
		}
		p.pool.Refuse(c, max(e.RetryAfter, limitedFor))
	default:
		return false
	}
	return true
}

// client gives the client for a credential. Few are kept: a token of the day
// takes the place of the one before.
func (p *pooled) client(c login.Credential) (*openai.Client, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if client := p.clients[c.Access]; client != nil {
		return client, nil
	}
	base := p.m.BaseURL
	if c.BaseURL != "" && c.Type == login.OAuth && !p.m.OwnAddress {
		base = c.BaseURL
	}
	client, err := openai.New(openai.Config{Name: p.m.Provider, BaseURL: base, Key: c.Access, KeyOrigin: "auth.json, " + c.Label, Model: p.m.Model, MaxTokens: p.m.MaxTokens},
		openai.Deps{Transport: p.deps.Transport, Log: p.deps.Log, Now: p.deps.Now})
	if err != nil {
		return nil, err
	}
	const kept = 16
	if len(p.clients) >= kept {
		clear(p.clients)
	}
	p.clients[c.Access] = client
	return client, nil
}

// failure makes a model's error of a login's.
func (p *pooled) failure(err error) error {
	kind := model.Unavailable
	switch domain.CodeOf(err) {
	case domain.Unauthenticated, domain.Config, domain.NotFound:
		kind = model.Auth
	case domain.RateLimited:
		kind = model.RateLimited
	}
	return &model.Error{Kind: kind, Provider: p.m.Provider, Message: domain.MessageOf(err), Cause: err}
}
