package home

import (
	"strings"
	"testing"

	"hermes/internal/domain"
)

// A job's model is resolved as the profile's is, and a key goes only to the
// address that it is configured for.
func TestOwnModel(t *testing.T) {
	p := profileIn(t)
	write(t, p.ConfigFile(), `model:
  default: main-1
  provider: custom
  base_url: http://127.0.0.1:1/v1
  api_key: key-of-main
fallback_providers:
  - provider: deepseek
    model: deep-1
custom_providers:
  - name: lab
    base_url: http://127.0.0.1:2/v1
    api_key: key-of-lab
    models: [lab-1, lab-2]
`)
	write(t, p.EnvFile(), "DEEPSEEK_API_KEY=key-of-deep\nOPENROUTER_API_KEY=key-of-router\n")
	env := mustEnv(t, p, "HOME=/home/x")
	for _, c := range []struct{ provider, model, base, want string }{
		{"", "", "", "custom main-1 http://127.0.0.1:1/v1 key-of-main"},
		{"", "main-2", "", "custom main-2 http://127.0.0.1:1/v1 key-of-main"},
		{"", "deep-1", "", "deepseek deep-1 https://api.deepseek.com/v1 key-of-deep"},
		{"deepseek", "", "", "deepseek deep-1 https://api.deepseek.com/v1 key-of-deep"},
		{"deepseek", "deep-2", "", "deepseek deep-2 https://api.deepseek.com/v1 key-of-deep"},
		{"openrouter", "a/b", "", "openrouter a/b https://openrouter.ai/api/v1 key-of-router"},
		{"lab", "", "", "custom:lab lab-1 http://127.0.0.1:2/v1 key-of-lab"},
		{"custom:lab", "lab-2", "", "custom:lab lab-2 http://127.0.0.1:2/v1 key-of-lab"},
		{"offline", "", "", "offline offline  "},
		{"", "x", "http://127.0.0.1:3/v1", "custom x http://127.0.0.1:3/v1 "},
		{"custom", "x", "http://127.0.0.1:1/v1", "custom x http://127.0.0.1:1/v1 key-of-main"},
	} {
		m, err := OwnModel(p, env, c.provider, c.model, c.base)
		got := strings.Join([]string{m.Provider, m.Model, m.BaseURL, m.Key.Reveal()}, " ")
		if err != nil || got != c.want {
			t.Errorf("%q %q %q: %q, %v; want %q", c.provider, c.model, c.base, got, err, c.want)
		}
	}
	for _, c := range []struct{ provider, model, want string }{
		{"openrouter", "", "--model"},
		{"deepsek", "x", "did you mean deepseek?"},
		{"xai", "grok", "XAI_API_KEY"},
		{"custom:nowhere", "x", "nowhere"},
	} {
		if _, err := OwnModel(p, env, c.provider, c.model, ""); !domain.IsCode(err, domain.Config) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q %q: %v", c.provider, c.model, err)
		}
	}
}
