package home

import (
	"os"
	"strings"
	"testing"

	"hermes/internal/domain"
)

// chosenRoom is a profile with the given files.
func chosenRoom(t *testing.T, config, env string) (Profile, *Env) {
	t.Helper()
	dir := t.TempDir()
	p := Profile{Name: DefaultProfile, Home: dir, Root: dir}
	for name, text := range map[string]string{"config.yaml": config, ".env": env} {
		if err := os.WriteFile(p.Path(name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	e, _, err := LoadEnv(p, nil)
	if err != nil {
		t.Fatal(err)
	}
	return p, e
}

// Each choice leaves a config.yaml in which nothing of another provider is
// left, and Resolve foresees what Load then reads.
func TestChoiceApply(t *testing.T) {
	const before = "# mine\nmodel:\n  default: a/b  # the good one\n  provider: openrouter\n  api_key: sk-inline\n  context_length: 9000\nagent: {max_turns: 3}\n"
	tests := []struct {
		name, config, env string
		choice            Choice
		want, wantEnv     string
	}{
		{"a first model", "", "", Choice{Provider: "openrouter", Model: "x/y", Key: "sk-1"},
			"model:\n  default: x/y\n  provider: openrouter\n", "OPENROUTER_API_KEY=sk-1\n"},
		{"another model of the same provider keeps its key", before, "", Choice{Provider: "openrouter", Model: "c/d"},
			"# mine\nmodel:\n  default: c/d  # the good one\n  provider: openrouter\n  api_key: sk-inline\nagent: {max_turns: 3}\n", ""},
		{"another provider never gets the key of the first", before, "DEEPSEEK_API_KEY=sk-d\n", Choice{Provider: "deepseek", Model: "chat"},
			"# mine\nmodel:\n  default: chat  # the good one\n  provider: deepseek\nagent: {max_turns: 3}\n", "DEEPSEEK_API_KEY=sk-d\n"},
		{"an address of one's own", "model: just/a-name\n", "", Choice{Provider: "custom", Model: "m", BaseURL: "http://127.0.0.1:9/v1", Key: "k"},
			`model: {default: m, provider: custom, base_url: http://127.0.0.1:9/v1, key_env: CUSTOM_API_KEY}` + "\n", "CUSTOM_API_KEY=k\n"},
		{"a described provider", "custom_providers: [{name: box, base_url: \"http://box/v1\"}]\n", "", Choice{Provider: "box", Model: "m"},
			"custom_providers: [{name: box, base_url: \"http://box/v1\"}]\nmodel:\n  default: m\n  provider: custom:box\n", ""},
		{"the stand-in", before, "", Choice{Provider: "offline"},
			"# mine\nmodel:\n  default: offline  # the good one\n  provider: offline\nagent: {max_turns: 3}\n", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p, env := chosenRoom(t, tt.config, tt.env)
			foreseen, _, err := tt.choice.Resolve(p, env)
			if err != nil {
				t.Fatal(err)
			}
			if now, _ := os.ReadFile(p.ConfigFile()); string(now) != tt.config {
				t.Fatal("Resolve wrote something")
			}
			if _, err := tt.choice.Apply(p, env, By{}); err != nil {
				t.Fatal(err)
			}
			if got, _ := os.ReadFile(p.ConfigFile()); string(got) != tt.want {
				t.Errorf("config.yaml:\n%s\nwant:\n%s", got, tt.want)
			}
			if got, _ := os.ReadFile(p.EnvFile()); string(got) != tt.wantEnv {
				t.Errorf(".env:\n%s\nwant:\n%s", got, tt.wantEnv)
			}
			env, _, err = LoadEnv(p, nil)
			if err != nil {
				t.Fatal(err)
			}
			cfg, _, err := Load(p, env)
			if err != nil {
				t.Fatal(err)
			}
			// Line numbers are known only once the file is written.
			cfg.Model.KeyOrigin, foreseen.KeyOrigin = "", ""
			if cfg.Model != foreseen {
				t.Errorf("read %+v, foreseen %+v", cfg.Model, foreseen)
			}
		})
	}
}

func TestChoiceRefused(t *testing.T) {
	tests := []struct {
		name, env string
		choice    Choice
		code      domain.Code
		says      string
	}{
		{"misspelt", "", Choice{Provider: "openruter", Model: "m"}, domain.Invalid, "did you mean openrouter?"},
		{"no model", "", Choice{Provider: "openrouter"}, domain.Invalid, "no model is named"},
		{"custom without an address", "", Choice{Provider: "custom", Model: "m"}, domain.Invalid, "--base-url"},
		{"a key for the stand-in", "", Choice{Provider: "offline", Key: "k"}, domain.Invalid, "neither a key"},
		{"overridden model", "HERMES_MODEL=other\n", Choice{Provider: "openrouter", Model: "m"}, domain.Conflict, "HERMES_MODEL (.env line 1"},
		{"overridden provider", "HERMES_INFERENCE_PROVIDER=xai\n", Choice{Provider: "offline"}, domain.Conflict, "hermes config unset HERMES_INFERENCE_PROVIDER"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p, env := chosenRoom(t, "", tt.env)
			_, _, err := tt.choice.Resolve(p, env)
			if !domain.IsCode(err, tt.code) || !strings.Contains(err.Error(), tt.says) {
				t.Errorf("Resolve: %v", err)
			}
			if _, err := tt.choice.Apply(p, env, By{}); !domain.IsCode(err, tt.code) {
				t.Errorf("Apply: %v", err)
			}
			if data, _ := os.ReadFile(p.ConfigFile()); len(data) > 0 {
				t.Errorf("written all the same: %s", data)
			}
		})
	}
}

// A provider without a key is named as a problem before anything is written.
func TestChoiceForeseesProblems(t *testing.T) {
	p, env := chosenRoom(t, "", "")
	_, problems, err := Choice{Provider: "openrouter", Model: "m"}.Resolve(p, env)
	if err != nil || len(problems) != 1 || !strings.Contains(problems[0].Message, "has no key") {
		t.Errorf("%v, %v", problems, err)
	}
	if _, problems, err = (Choice{Provider: "openrouter", Model: "m", Key: "k"}).Resolve(p, env); err != nil || len(problems) != 0 {
		t.Errorf("%v, %v", problems, err)
	}
}
