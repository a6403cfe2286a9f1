package openai

import (
	"io"
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
		text, err := io.ReadAll(p.open())
		if err != nil {
			t.Fatal(err)
		}
		body := string(text)
		if !strings.Contains(body, want.field) || strings.Count(body, "skip_thought_signature") != want.signatures {
			t.Errorf("%s: %s", base, body)
		}
		if got := c.endpoint.String(); got != strings.TrimSuffix(base, "/")+"/chat/completions" {
			t.Errorf("endpoint %s", got)
		}
	}
}

// TestToolListsAreRemembered: a list is encoded once, another at the same place
// in memory but of another length is not taken for it, and the book is bounded.
func TestToolListsAreRemembered(t *testing.T) {
	var b toolBook
	list := []model.ToolSpec{{Name: "a"}, {Name: "b"}}
	first, err := b.encode(list)
	if err != nil || strings.Count(string(first), `"function"`) != 4 {
		t.Fatalf("%s, %v", first, err)
	}
	if again, _ := b.encode(list); &again[0] != &first[0] {
		t.Error("encoded twice")
	}
	if one, _ := b.encode(list[:1]); strings.Contains(string(one), `"b"`) {
		t.Errorf("a shorter list: %s", one)
	}
	for range 3 * maxToolLists {
		if _, err := b.encode([]model.ToolSpec{{Name: "c"}}); err != nil || len(b.m) > maxToolLists {
			t.Fatalf("%d lists are kept, %v", len(b.m), err)
		}
	}
	if none, err := b.encode(nil); none != nil || err != nil {
		t.Errorf("no tools: %q, %v", none, err)
	}
}
