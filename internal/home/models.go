package home

import (
	"encoding/json"
	"path/filepath"
	"slices"
	"strings"

	"hermes/internal/secret"
)

// provider is a place where models are served over OpenAI's chat completions.
type provider struct {
	id   string
	base string   // "" means that it must be configured
	keys []string // variables that hold its key, the first that is set counts
	open bool     // works without a key
}

// baseEnv names the variable that overrides the provider's address.
func (p provider) baseEnv() string {
	switch p.id {
	case "openai-api":
		return "OPENAI_BASE_URL"
	case "lmstudio":
		return "LM_BASE_URL"
	}
	return strings.ToUpper(strings.ReplaceAll(p.id, "-", "_")) + "_BASE_URL"
}

// providers lists them in the order in which `auto` looks for keys. The
// addresses are those of their documentation for OpenAI-compatible clients.
func providers() []provider {
	return []provider{
		{id: "openrouter", base: "https://openrouter.ai/api/v1", keys: []string{"OPENROUTER_API_KEY"}},
		{id: "anthropic", base: "https://api.anthropic.com/v1", keys: []string{"ANTHROPIC_API_KEY"}},
		{id: "openai-api", base: "https://api.openai.com/v1", keys: []string{"OPENAI_API_KEY"}},
		{id: "gemini", base: "https://generativelanguage.googleapis.com/v1beta/openai", keys: []string{"GOOGLE_API_KEY", "GEMINI_API_KEY"}},
		{id: "deepseek", base: "https://api.deepseek.com/v1", keys: []string{"DEEPSEEK_API_KEY"}},
		{id: "xai", base: "https://api.x.ai/v1", keys: []string{"XAI_API_KEY"}},
		{id: "zai", base: "https://api.z.ai/api/paas/v4", keys: []string{"GLM_API_KEY"}},
		{id: "kimi-coding", base: "https://api.moonshot.ai/v1", keys: []string{"KIMI_API_KEY"}},
		{id: "kimi-coding-cn", base: "https://api.moonshot.cn/v1", keys: []string{"KIMI_CN_API_KEY"}},
		{id: "minimax", base: "https://api.minimax.io/v1", keys: []string{"MINIMAX_API_KEY"}},
		{id: "minimax-cn", base: "https://api.minimaxi.com/v1", keys: []string{"MINIMAX_CN_API_KEY"}},
		{id: "nvidia", base: "https://integrate.api.nvidia.com/v1", keys: []string{"NVIDIA_API_KEY"}},
		{id: "ollama-cloud", base: "https://ollama.com/v1", keys: []string{"OLLAMA_API_KEY"}},
		{id: "alibaba", base: "https://dashscope-intl.aliyuncs.com/compatible-mode/v1", keys: []string{"DASHSCOPE_API_KEY"}},
		{id: "ai-gateway", base: "https://ai-gateway.vercel.sh/v1", keys: []string{"AI_GATEWAY_API_KEY"}},
		{id: "huggingface", base: "https://router.huggingface.co/v1", keys: []string{"HF_TOKEN"}},
		{id: "arcee", keys: []string{"ARCEEAI_API_KEY"}},
		{id: "azure-foundry", keys: []string{"AZURE_FOUNDRY_API_KEY"}},
		{id: "nous", base: "https://inference-api.nousresearch.com/v1", keys: []string{"NOUS_API_KEY"}},
		{id: "qwen-oauth", base: "https://portal.qwen.ai/v1", keys: []string{"QWEN_OAUTH_API_KEY"}},
		{id: "lmstudio", base: "http://127.0.0.1:1234/v1", keys: []string{"LM_API_KEY"}, open: true},
	}
}

func providerByID(id string) (provider, bool) {
	if id == "openai" {
		id = "openai-api"
	}
	for _, p := range providers() {
		if p.id == id {
			return p, true
		}
	}
	return provider{}, false
}

// ProviderIDs gives the ids of the providers that need no further description,
// for a menu.
func ProviderIDs() []string {
	var out []string
	for _, p := range providers() {
		out = append(out, p.id)
	}
	return append(out, "offline")
}

// modelSpec is a model as it is written, before it is resolved.
type modelSpec struct {
	ModelConfig
	keyEnv   string
	place    *node // for problems; nil when the environment alone names it
	key      string
	keyPlace Origin
}

func (l *loader) readModels() {
	l.readProviders()
	main := l.modelSpec(l.root.at("model"), "model", "default", "model", "name")
	for _, o := range []struct {
		names []string
		at    *string
		path  string
	}{
		{[]string{"HERMES_INFERENCE_MODEL", "HERMES_MODEL", "LLM_MODEL"}, &main.Model, "model.default"},
		{[]string{"HERMES_INFERENCE_PROVIDER"}, &main.Provider, "model.provider"},
	} {
		for _, name := range o.names {
			if v, set := l.env.Lookup(name); set {
				*o.at = v
				l.origins[o.path] = l.env.Origin(name)
				break
			}
		}
	}
	if v, set := l.env.Lookup("HERMES_MAX_TOKENS"); set {
		if n, ok := intOf(&node{kind: scalarNode, text: v}); ok && n > 0 {
			main.MaxTokens = n
		} else {
			l.reportEnv(Fault, "HERMES_MAX_TOKENS", "is not a whole number over 0, so it is ignored", "write one")
		}
	}
	l.draft.Model = l.resolveModel(main, "model")

	list := l.root.at("fallback_providers")
	var chain []*node
	switch {
	case list != nil && list.kind == listNode:
		chain = list.items
	case list != nil && list.kind != nullNode:
		l.report(Fault, list, "fallback_providers", "is not a list, so there is no fallback", "write a list of {provider, model}")
	default:
		if one := l.root.at("fallback_model"); one != nil && one.kind == mapNode {
			chain = []*node{one}
		}
	}
	for _, n := range chain {
		spec := l.modelSpec(n, "fallback_providers", "model", "default")
		if spec.Model == "" || spec.Provider == "" {
			l.report(Warning, n, "fallback_providers", "an entry has no provider or no model, so it is ignored", "write both")
			continue
		}
		l.draft.Fallbacks = append(l.draft.Fallbacks, l.resolveModel(spec, "fallback_providers"))
	}
}

// modelSpec reads a mapping, or a text that is only the model's id; nameKeys
// are the keys that may hold that id.
func (l *loader) modelSpec(n *node, path string, nameKeys ...string) modelSpec {
	spec := modelSpec{place: n}
	if n == nil || n.kind == nullNode {
		return spec
	}
	if n.kind == scalarNode {
		spec.Model = l.expand(n).text
		l.origins[path+".default"] = l.originOf(n)
		return spec
	}
	text := func(key string) string {
		v := n.get(key)
		if v == nil || v.kind == nullNode {
			return ""
		}
		if v.kind != scalarNode {
			l.report(Fault, v, path+"."+key, "is not a text, so it is ignored", "write a text")
			return ""
		}
		l.origins[path+"."+key] = l.originOf(v)
		return strings.TrimSpace(l.expand(v).text)
	}
	number := func(key string) int {
		v := n.get(key)
		if v == nil || v.kind == nullNode {
			return 0
		}
		i, ok := intOf(v)
		if !ok || i < 0 {
			l.report(Fault, v, path+"."+key, "is not a whole number, so it is ignored", "write a number of tokens")
			return 0
		}
		return i
	}
	for _, key := range nameKeys {
		if spec.Model = text(key); spec.Model != "" {
			l.origins[path+".default"] = l.origins[path+"."+key]
			break
		}
	}
	spec.Provider, spec.BaseURL, spec.APIMode = text("provider"), text("base_url"), text("api_mode")
	spec.key, spec.keyEnv = text("api_key"), text("key_env")
	if v := n.get("api_key"); v != nil {
		spec.keyPlace = l.originOf(v)
	}
	spec.ContextLength, spec.MaxTokens = number("context_length"), number("max_tokens")
	return spec
}

func (l *loader) readProviders() {
	add := func(name string, n *node) {
		spec := l.modelSpec(n, "custom_providers", "name")
		if name == "" {
			name = spec.Model
		}
		if name == "" || spec.BaseURL == "" {
			l.report(Warning, n, "custom_providers", "an entry has no name or no base_url, so it is ignored", "write both")
			return
		}
		p := ProviderConfig{Name: name, BaseURL: spec.BaseURL, APIMode: spec.APIMode, Key: secret.Value(spec.key)}
		if spec.keyEnv != "" && !p.Key.IsSet() {
			p.Key = secret.Value(l.env.Get(spec.keyEnv))
		}
		if m := n.get("models"); m != nil {
			if words, ok := listOf(m); ok {
				p.Models = words
			}
			for _, e := range m.entries {
				p.Models = append(p.Models, e.key)
			}
		}
		l.draft.Providers = append(l.draft.Providers, p)
	}
	if list := l.root.at("custom_providers"); list != nil {
		for _, n := range list.items {
			add("", n)
		}
	}
	if m := l.root.at("providers"); m != nil {
		for _, e := range m.entries {
			if e.value.get("base_url") != nil {
				add(e.key, e.value)
			}
		}
	}
}

// resolveModel finds the address and the key of a model.
func (l *loader) resolveModel(spec modelSpec, path string) ModelConfig {
	m := spec.ModelConfig
	if m.APIMode == "" {
		m.APIMode = "chat_completions"
	}
	if m.Provider == "" || m.Provider == "auto" {
		m.Provider = l.detect(spec)
	}
	if spec.key != "" {
		m.Key, m.KeyOrigin = secret.Value(spec.key), spec.keyPlace.String()
	} else if spec.keyEnv != "" {
		l.useKey(&m, spec.keyEnv)
	}
	if m.Provider == "offline" {
		return ModelConfig{Model: "offline", Provider: "offline", APIMode: m.APIMode, ContextLength: m.ContextLength}
	}
	if m.Model == "" {
		return m
	}
	name, custom := strings.CutPrefix(m.Provider, "custom:")
	if i := slices.IndexFunc(l.draft.Providers, func(p ProviderConfig) bool { return p.Name == name }); i >= 0 {
		p := l.draft.Providers[i]
		if m.BaseURL == "" {
			m.BaseURL = p.BaseURL
		}
		if !m.Key.IsSet() && p.Key.IsSet() {
			m.Key, m.KeyOrigin = p.Key, "custom_providers ("+name+")"
		}
		if p.APIMode != "" && spec.APIMode == "" {
			m.APIMode = p.APIMode
		}
		m.Provider, m.OwnAddress = "custom:"+name, true
		if !m.Key.IsSet() {
			l.pooledKey(&m, m.Provider)
		}
		return m
	} else if custom {
		l.reportModel(spec, path, "no entry of custom_providers is called "+name, "add it, or correct the name")
		return m
	}
	if m.Provider == "custom" {
		if m.BaseURL == "" {
			l.reportModel(spec, path, "the provider is custom, but base_url is missing", "hermes config set model.base_url URL")
		}
		if m.OwnAddress = true; !m.Key.IsSet() {
			l.pooledKey(&m, m.Provider)
		}
		return m
	}
	return l.resolveBuiltIn(spec, m, path)
}

func (l *loader) resolveBuiltIn(spec modelSpec, m ModelConfig, path string) ModelConfig {
	p, known := providerByID(m.Provider)
	if !known {
		var ids []string
		for _, p := range providers() {
			ids = append(ids, p.id)
		}
		fix := "hermes model chooses one; any OpenAI-compatible address works as provider custom with base_url"
		if near := Nearest(m.Provider, ids); near != "" {
			fix = "did you mean " + near + "?"
		}
		if m.BaseURL == "" {
			l.reportModel(spec, path, "the provider "+m.Provider+" is not supported here", fix)
		}
		return m
	}
	m.Provider = p.id
	if v, set := l.env.Lookup(p.baseEnv()); set && m.BaseURL == "" {
		m.BaseURL = v
		l.origins[path+".base_url"] = l.env.Origin(p.baseEnv())
	}
	ownAddress := m.BaseURL == ""
	if ownAddress {
		m.BaseURL = p.base
	}
	if m.BaseURL == "" {
		l.reportModel(spec, path, "the provider "+p.id+" needs an address", "hermes config set "+p.baseEnv()+" URL")
	}
	for _, name := range p.keys {
		if !m.Key.IsSet() {
			l.useKey(&m, name)
		}
	}
	m.OwnAddress = !ownAddress
	if !m.Key.IsSet() {
		l.pooledKey(&m, p.id)
	}
	if !m.Key.IsSet() && m.LoginFile == "" && !p.open && ownAddress {
		l.reportModel(spec, path, "the provider "+p.id+" has no key, so every call will be refused", "hermes config set "+p.keys[0]+" KEY")
	}
	return m
}

func (l *loader) useKey(m *ModelConfig, name string) {
	if v, set := l.env.Lookup(name); set {
		m.Key, m.KeyOrigin = secret.Value(v), l.env.Origin(name).String()
	}
}

// detect chooses a provider by which key there is.
func (l *loader) detect(spec modelSpec) string {
	if spec.BaseURL != "" {
		return "custom"
	}
	for _, p := range providers() {
		for _, name := range p.keys {
			if _, set := l.env.Lookup(name); set {
				return p.id
			}
		}
	}
	return "openrouter"
}

func (l *loader) reportModel(spec modelSpec, path, message, fix string) {
	if spec.place == nil {
		l.problems = append(l.problems, Problem{Severity: Fault, File: l.file, Key: path, Message: message, Fix: fix})
		return
	}
	l.report(Fault, spec.place, path, message, fix)
}

// pooledKey names the auth.json that holds credentials of the provider, the
// profile's own first, then the root's, and takes the first API key of its pool.
// Tokens that need refreshing are not taken from here.
func (l *loader) pooledKey(m *ModelConfig, providerID string) {
	for _, file := range AuthFiles(l.profile) {
		data, err := readBounded(file)
		if err != nil || data == nil {
			continue
		}
		var auth struct {
			Pool   map[string][]pooledEntry `json:"credential_pool"`
			Logins map[string]struct {
				Token   string `json:"access_token"`
				Refresh string `json:"refresh_token"`
			} `json:"providers"`
		}
		if json.Unmarshal(data, &auth) != nil {
			l.problems = append(l.problems, Problem{Severity: Warning, File: file, Message: "is not the JSON that was expected, so no key is taken from it", Fix: "correct it, or log in again"})
			continue
		}
		best := -1
		pool := auth.Pool[providerID]
		for i, c := range pool {
			if strings.ReplaceAll(c.Type, "-", "_") == "api_key" && c.Token != "" && (best < 0 || c.Prio < pool[best].Prio) {
				best = i
			}
		}
		if login := auth.Logins[providerID]; best < 0 && !slices.ContainsFunc(pool, func(c pooledEntry) bool { return c.Token != "" }) && login.Token == "" && login.Refresh == "" {
			continue
		}
		m.LoginFile, m.PoolStrategy = file, l.poolStrategy(providerID)
		if best >= 0 {
			m.Key, m.KeyOrigin = secret.Value(pool[best].Token), Origin{File: file}.String()+" of "+filepath.Base(filepath.Dir(file))
		}
		return
	}
}

// pooledEntry is what is read here of a credential in a pool.
type pooledEntry struct {
	Type  string `json:"auth_type"`
	Token string `json:"access_token"`
	Prio  int    `json:"priority"`
}

// poolStrategy is how config.yaml wants one of several credentials chosen.
func (l *loader) poolStrategy(provider string) string {
	n := l.root.at("credential_pool_strategies", provider)
	if n == nil || n.kind == nullNode {
		return ""
	}
	known := []string{"fill_first", "round_robin", "least_used", "random"}
	if n.kind != scalarNode || !slices.Contains(known, n.text) {
		l.report(Warning, n, "credential_pool_strategies."+provider, "is none that is known, so that one credential is used after the other", "write one of "+strings.Join(known, ", "))
		return ""
	}
	return n.text
}

// AuthFiles gives the files with tokens that a profile reads: its own, then
// the root's. It writes its own only.
func AuthFiles(p Profile) []string {
	own, root := p.Path("auth.json"), filepath.Join(p.Root, "auth.json")
	if own == root {
		return []string{own}
	}
	return []string{own, root}
}
