package home

import (
	"slices"
	"testing"

	"hermes/internal/secret"
)

// Transcription is on where somebody said where or with which key, and not before.
func TestTranscriptionSettings(t *testing.T) {
	p := Profile{Name: DefaultProfile, Root: t.TempDir()}
	p.Home = p.Root
	for name, c := range map[string]struct {
		config, env string
		want        STTConfig
		set         bool
		problems    int
	}{
		"nothing":       {want: STTConfig{Enabled: true, Model: "whisper-1"}},
		"a key":         {env: "VOICE_TOOLS_OPENAI_KEY=sk-abcdefgh\n", want: STTConfig{Enabled: true, Model: "whisper-1", Key: "sk-abcdefgh"}, set: true},
		"switched off":  {config: "stt: {enabled: false}\n", env: "VOICE_TOOLS_OPENAI_KEY=sk-abcdefgh\n", want: STTConfig{Model: "whisper-1", Key: "sk-abcdefgh"}},
		"a local one":   {config: "stt: {base_url: 'http://127.0.0.1:9000/v1', model: small, language: de}\n", want: STTConfig{Enabled: true, BaseURL: "http://127.0.0.1:9000/v1", Model: "small", Language: "de"}, set: true},
		"older names":   {config: "stt: {openai: {model: gpt-4o-transcribe, base_url: 'https://stt.example/v1'}}\n", want: STTConfig{Enabled: true, BaseURL: "https://stt.example/v1", Model: "gpt-4o-transcribe"}, set: true},
		"the variables": {env: "STT_OPENAI_BASE_URL=https://stt.example/v1\nSTT_OPENAI_MODEL=m\n", want: STTConfig{Enabled: true, BaseURL: "https://stt.example/v1", Model: "m"}, set: true},
		"no address":    {config: "stt: {base_url: stt.example}\n", want: STTConfig{Enabled: true, Model: "whisper-1"}, problems: 1},
	} {
		t.Run(name, func(t *testing.T) {
			_, cfg, problems, err := LoadFiles(p, Files{Config: []byte(c.config), Env: []byte(c.env)}, nil)
			if err != nil {
				t.Fatal(err)
			}
			_, bare, before, err := LoadFiles(p, Files{}, nil)
			if err != nil || bare.STT.IsSet() {
				t.Fatal("set by nobody", err)
			}
			if cfg.STT != c.want || cfg.STT.IsSet() != c.set || len(problems)-len(before) != c.problems {
				t.Errorf("read %+v, in use %t; %v", cfg.STT, cfg.STT.IsSet(), problems)
			}
			if k := cfg.STT.Key; k != secret.Value("") && !slices.Contains(cfg.Secrets(), k.Reveal()) {
				t.Error("the key is no secret")
			}
		})
	}
}
