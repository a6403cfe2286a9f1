package doctor

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"hermes/internal/api"
	"hermes/internal/domain"
	"hermes/internal/gateway"
	"hermes/internal/health"
	"hermes/internal/home"
)

// apiFacts are what the configured address answers.
type apiFacts struct {
	Asked   bool
	Address string // host:port to connect to
	Err     error  // nobody answers as the API does
	Status  int    // of /health
	Ours    bool   // what answers is a gateway
	Holder  string // who listens there
	Refusal error  // why the address would not be bound
	Origin  int    // the status of a preflight from Options.Origin; 0: not asked
}

// askAPI connects to the API's address as a client of this machine would.
func askAPI(ctx context.Context, c *Case) func(*Case) {
	cfg := c.Config.API
	var a apiFacts
	if !cfg.Enabled {
		return func(*Case) {}
	}
	if err := api.CheckBind(cfg); err != nil {
		a.Refusal = err
	}
	host := cfg.Host
	if ip := net.ParseIP(host); ip != nil && ip.IsUnspecified() {
		host = "127.0.0.1"
	}
	a.Asked, a.Address = true, net.JoinHostPort(host, strconv.Itoa(cfg.Port))
	a.Holder = api.PortHolder(cfg.Port)
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	said, err := fetch(ctx, client, http.MethodGet, "http://"+a.Address+"/health", nil)
	if a.Err = err; err == nil {
		a.Status = said.status
		a.Ours = strings.Contains(string(said.body), "hermes")
	}
	if c.Origin != "" && a.Ours {
		head := http.Header{"Origin": {c.Origin}, "Access-Control-Request-Method": {http.MethodPost}}
		if said, err := fetch(ctx, client, http.MethodOptions, "http://"+a.Address+"/v1/chat/completions", head); err == nil {
			a.Origin = said.status
			if said.head.Get("Access-Control-Allow-Origin") == "" {
				a.Origin = http.StatusForbidden
			}
		}
	}
	return func(c *Case) { c.API = a }
}

// maxAnswer bounds what is read of an answer.
const maxAnswer = 1 << 20

// answer is what a server said.
type answer struct {
	status int
	head   http.Header
	body   []byte
}

// fetch makes one request and reads its answer.
func fetch(ctx context.Context, client *http.Client, method, address string, head http.Header) (a answer, err error) {
	req, err := http.NewRequestWithContext(ctx, method, address, http.NoBody)
	if err != nil {
		return a, err
	}
	for k, v := range head {
		req.Header[k] = v
	}
	res, err := client.Do(req)
	if err != nil {
		return a, err
	}
	defer res.Body.Close()
	a.status, a.head = res.StatusCode, res.Header
	a.body, err = io.ReadAll(io.LimitReader(res.Body, maxAnswer))
	return a, err
}

// modelProbe is how a provider answered, without a model being called: what
// costs money is not done behind anybody's back.
type modelProbe struct {
	Model    home.ModelConfig
	Fallback bool
	Err      error // it could not be reached
	Status   int
	Said     string   // the provider's words, where it refused
	Models   []string // that it serves; empty where it does not say
	Empty    bool     // it says that no credit is left
	Skew     time.Duration
}

// askModels asks each provider for its list of models, which proves the key,
// and OpenRouter, whose list is public, for the key itself.
func askModels(ctx context.Context, c *Case) func(*Case) {
	models := append([]home.ModelConfig{c.Config.Model}, c.Config.Fallbacks...)
	out := make([]modelProbe, 0, len(models))
	done := make(chan modelProbe, len(models))
	n := 0
	for i, m := range models {
		// A login's token changes, and is renewed by who calls the model.
		if m.BaseURL == "" || m.Model == "" || m.Provider == home.OfflineProvider || m.LoginFile != "" && !m.Key.IsSet() {
			continue
		}
		n++
		go func() {
			p := probeModel(ctx, m, c.Now)
			p.Fallback = i > 0
			done <- p
		}()
	}
	for range n {
		out = append(out, <-done) // each ends with ctx
	}
	slices.SortStableFunc(out, func(a, b modelProbe) int { return onFirst(a.Fallback) - onFirst(b.Fallback) })
	return func(c *Case) { c.Models = out }
}

// probeModel asks one provider.
func probeModel(ctx context.Context, m home.ModelConfig, now func() time.Time) modelProbe {
	p := modelProbe{Model: m}
	base, err := url.Parse(strings.TrimSuffix(m.BaseURL, "/"))
	if err != nil || base.Host == "" {
		p.Err = fmt.Errorf("%q is no address", m.BaseURL)
		return p
	}
	head := http.Header{}
	if m.Key.IsSet() {
		head.Set("Authorization", "Bearer "+m.Key.Reveal())
	}
	path := "/models"
	switch m.Provider {
	case "openrouter": // https://openrouter.ai/docs/api-reference/limits
		path = "/key"
	case "anthropic": // https://docs.anthropic.com/en/api/models-list
		head.Set("X-Api-Key", m.Key.Reveal())
		head.Set("Anthropic-Version", "2023-06-01")
		head.Del("Authorization")
	}
	client := &http.Client{Transport: &http.Transport{Proxy: http.ProxyFromEnvironment, DisableKeepAlives: true}}
	said, err := fetch(ctx, client, http.MethodGet, base.String()+path, head)
	if err != nil {
		p.Err = err
		return p
	}
	p.Status = said.status
	if at, err := http.ParseTime(said.head.Get("Date")); err == nil {
		p.Skew = now().Sub(at)
	}
	var form struct {
		Data  json.RawMessage `json:"data"`
		Error struct {
			Message string `json:"message"`
		} `json:"error"`
	}
	if json.Unmarshal(said.body, &form) != nil {
		return p
	}
	p.Said = form.Error.Message
	p.read(form.Data)
	return p
}

// read takes the list of models, or what is left of a key's credit.
func (p *modelProbe) read(data json.RawMessage) {
	var list []struct {
		ID string `json:"id"`
	}
	var key struct {
		Left *float64 `json:"limit_remaining"`
	}
	switch {
	case json.Unmarshal(data, &list) == nil:
		for _, m := range list {
			p.Models = append(p.Models, m.ID)
		}
	case json.Unmarshal(data, &key) == nil:
		p.Empty = key.Left != nil && *key.Left <= 0
	}
}

// wantsProbe tells whether a platform is to be asked: one on which a running
// gateway receives has proved itself, and one that it found bad has been judged.
func (c *Case) wantsProbe(p domain.Platform) bool {
	if !gateway.Connectable(p) || p == domain.PlatformWebchat {
		return false
	}
	part := c.part("platform." + string(p))
	return !part.Known || part.State == health.Starting
}

// askPlatform proves a platform's credentials.
func askPlatform(p domain.Platform, cfg home.PlatformConfig) func(context.Context, *Case) func(*Case) {
	return func(ctx context.Context, _ *Case) func(*Case) {
		known, _, err := gateway.CheckPlatform(ctx, p, cfg)
		return func(c *Case) { c.Probes[p] = probe{Asked: known, Err: err} }
	}
}
