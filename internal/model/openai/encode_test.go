package openai

import (
	"strings"
	"testing"

	"hermes/internal/domain"
	"hermes/internal/model"
)

// TestServicesOfTheirOwn: what is sent differs where a service is known to
// insist on it.
func TestServicesOfTheirOwn(t *testing.T) {
	r := &model.Request{Model: "m", MaxTokens: 9, Messages: []domain.Message{
		{Role: domain.RoleUser, Content: "x"},
		{Role: domain.RoleAssistant, ToolCalls: []domain.ToolCall{{ID: "1", Name: "f"}, {ID: "2", Name: "f"}}},
	}}
	for base, want := range map[string]struct {
		field      string
		signatures int
	}{
		"https://api.openai.com/v1":                                {`"max_completion_tokens":9`, 0},
		"https://openrouter.ai/api/v1":                             {`"max_tokens":9`, 0},
		"https://generativelanguage.googleapis.com/v1beta/openai/": {`"max_tokens":9`, 1},
	} {
		c, err := New(Config{Name: "p", BaseURL: base}, Deps{})
		if err != nil {
			t.Fatal(err)
		}
		p, err := c.encode(r, c.quirks.of(r.Model), true)
		if err != nil {
			t.Fatal(err)
		}
		body := string(p.b)
		if !strings.Contains(body, want.field) || strings.Count(body, "skip_thought_signature") != want.signatures {
			t.Errorf("%s: %s", base, body)
		}
		if got := c.endpoint.String(); got != strings.TrimSuffix(base, "/")+"/chat/completions" {
			t.Errorf("endpoint %s", got)
		}
	}
}
