package cli

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"hermes/testkit/llm"
)

// TestSetupProvesSpeech gives setup a service for voice messages: it says whether
// that would answer, and writes what was given either way.
func TestSetupProvesSpeech(t *testing.T) {
	const key = "sk-speech-key-of-the-setup-0001"
	srv, err := llm.Start(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer srv.Close()
	srv.RequireKey(key)
	for _, tt := range []struct{ what, address, key, said string }{
		{"well", srv.URL(), key, "✓ Voice messages are written down by the transcription service at 127.0.0.1"},
		{"another key", srv.URL(), "sk-another", "✗ Voice messages will come without their words"},
		{"another address", strings.TrimSuffix(srv.URL(), "/v1"), key, "check stt.base_url"},
	} {
		t.Run(tt.what, func(t *testing.T) {
			dir := t.TempDir()
			var out bytes.Buffer
			code := Execute(t.Context(), []string{"setup", "--non-interactive", "--no-install", "--use", "tasks", "--provider", "offline", "--api", "off",
				"--set", "STT_OPENAI_BASE_URL=" + tt.address, "--secret", "VOICE_TOOLS_OPENAI_KEY=env:SPEECH"},
				Streams{In: strings.NewReader(""), Out: &out, Err: &out}, []string{"HOME=" + dir, "SPEECH=" + tt.key})
			said := strings.Join(strings.Fields(out.String()), " ") // however it was wrapped
			if code != 0 || !strings.Contains(said, tt.said) || strings.Contains(said, tt.key) {
				t.Fatalf("exit %d:\n%s", code, out.String())
			}
			env, err := os.ReadFile(filepath.Join(dir, ".hermes", ".env"))
			if err != nil || !strings.Contains(string(env), "VOICE_TOOLS_OPENAI_KEY="+tt.key) || !strings.Contains(string(env), "STT_OPENAI_BASE_URL="+tt.address) {
				t.Errorf(".env is %q, %v", env, err)
			}
		})
	}
}
