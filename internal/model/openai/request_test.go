package openai_test

import (
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"hermes/internal/domain"
	"hermes/internal/model"
	"hermes/internal/model/openai"
	"hermes/internal/secret"
	"hermes/testkit/llm"
)

func TestRequestFields(t *testing.T) {
	b := setUp(t, llm.Echo, func(c *openai.Config) {
		c.MaxTokens = 100
		c.Headers = map[string]string{"X-Title": "hermes"}
	})
	hot := 0.5
	r := ask("x")
	r.System, r.Model, r.Temperature = "be brief", "other", &hot
	r.Tools = []model.ToolSpec{{Name: "a", Description: "d", Schema: json.RawMessage(`{"type":"object"}`)}, {Name: "b", Schema: json.RawMessage(`nonsense`)}}
	if _, err := b.client.Complete(t.Context(), r, func(model.Delta) {}); err != nil {
		t.Fatal(err)
	}
	got := b.server.Requests()[0]
	want := `{"model":"other","messages":[{"role":"system","content":"be brief"},{"role":"user","content":"x"}],` +
		`"max_tokens":100,"temperature":0.5,"stream":true,"stream_options":{"include_usage":true},` +
		`"tools":[{"type":"function","function":{"name":"a","description":"d","parameters":{"type":"object"}}},` +
		`{"type":"function","function":{"name":"b","parameters":{"type":"object","properties":{}}}}]}`
	if s := strings.TrimSpace(string(got.Raw)); s != want {
		t.Errorf("got  %s\nwant %s", s, want)
	}
	if got.Header.Get("X-Title") != "hermes" {
		t.Errorf("headers %v", got.Header)
	}
}

// TestQuirks: an option that the model refuses is left out at once and from
// then on, and nothing else is repeated.
func TestQuirks(t *testing.T) {
	hot := 0.5
	picture := filepath.Join(t.TempDir(), "p.png")
	if err := os.WriteFile(picture, []byte("\x89PNG\r\n\x1a\n0000"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, refuses := range map[string]func(llm.Request) *llm.Failure{
		"stream_options": func(r llm.Request) *llm.Failure {
			return when(r.StreamOptions != nil, llm.Failure{Status: 400, Message: "Unrecognized request argument supplied: stream_options"})
		},
		"max_tokens": func(r llm.Request) *llm.Failure {
			return when(r.MaxTokens != 0, llm.Failure{Status: 400, Param: "max_tokens", Message: "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead."})
		},
		"temperature": func(r llm.Request) *llm.Failure {
			return when(r.Temperature != nil, llm.Failure{Status: 400, Param: "temperature", Message: "Unsupported value"})
		},
		"images": func(r llm.Request) *llm.Failure {
			return when(strings.Contains(string(r.Raw), "image_url"), llm.Failure{Status: 404, Message: "No endpoints found that support image input"})
		},
	} {
		t.Run(name, func(t *testing.T) {
			b := setUp(t, func(r llm.Request) llm.Reply { return llm.Reply{Text: "ok", Failure: refuses(r)} }, nil)
			r := ask("x")
			r.MaxTokens, r.Temperature = 50, &hot
			r.Messages[0].Images = []domain.Attachment{{Kind: domain.Image, Path: picture, Name: "p.png"}}
			for range 2 {
				if _, err := b.client.Complete(t.Context(), r, func(model.Delta) {}); err != nil {
					t.Fatal(err)
				}
			}
			if n := b.server.Count(); n != 3 {
				t.Errorf("%d requests for two calls, want 3", n)
			}
		})
	}
	t.Run("refused whatever is left out", func(t *testing.T) {
		b := setUp(t, llm.Always(llm.Failure{Status: 400, Message: "max_tokens max_completion_tokens temperature stream_options image"}.Reply()), nil)
		r := ask("x")
		r.MaxTokens, r.Temperature = 50, &hot
		_, err := b.client.Complete(t.Context(), r, func(model.Delta) {})
		failure(t, err, model.BadRequest)
		if n := b.server.Count(); n > 5 {
			t.Errorf("%d requests", n)
		}
	})
}

func when(refused bool, f llm.Failure) *llm.Failure {
	if refused {
		return &f
	}
	return nil
}

func TestNew(t *testing.T) {
	for _, address := range []string{"", "openrouter.ai", "ftp://x/v1", "://", "http://"} {
		if _, err := openai.New(openai.Config{Name: "p", BaseURL: address, Key: secret.Value(key)}, openai.Deps{}); !domain.IsCode(err, domain.Config) {
			t.Errorf("%q: %v", address, err)
		}
	}
}

func TestUserInAddress(t *testing.T) {
	b := setUp(t, llm.Echo, func(c *openai.Config) {
		c.Key = ""
		c.BaseURL = strings.Replace(c.BaseURL, "http://", "http://ann:pass-"+key+"@", 1) + "/"
	})
	if _, err := b.client.Complete(t.Context(), ask("x"), nil); err != nil {
		t.Fatal(err)
	}
	r := http.Request{Header: b.server.Requests()[0].Header}
	if user, password, _ := r.BasicAuth(); user != "ann" || password != "pass-"+key {
		t.Errorf("user %q", user)
	}
	b.server.Close()
	_, err := b.client.Complete(t.Context(), ask("x"), nil)
	failure(t, err, model.Unavailable)
}

// TestExtraContent: what a service sends with a tool call goes back to it with
// the call, and to no other service.
func TestExtraContent(t *testing.T) {
	const extra = `{"google":{"thought_signature":"abc"}}`
	brain := llm.Always(llm.Reply{ToolCalls: []llm.ToolCall{{ID: "1", Name: "f", Arguments: "{}", Extra: json.RawMessage(extra)}}})
	b, other := setUp(t, brain, nil), setUp(t, brain, func(c *openai.Config) { c.Name = "other" })
	modes(t, func(t *testing.T, onDelta func(model.Delta)) {
		answer, err := b.client.Complete(t.Context(), ask("x"), onDelta)
		if err != nil {
			t.Fatal(err)
		}
		r := ask("x")
		r.Messages = append(r.Messages, domain.Message{Role: domain.RoleAssistant, ToolCalls: answer.ToolCalls})
		for _, to := range []*bench{b, other} {
			if _, err := to.client.Complete(t.Context(), r, onDelta); err != nil {
				t.Fatal(err)
			}
			requests := to.server.Requests()
			raw := string(requests[len(requests)-1].Raw)
			if sent := strings.Contains(raw, `"extra_content":`+extra); sent != (to == b) {
				t.Errorf("sent to %s: %v in %s", to.client.Name(), sent, raw)
			}
		}
	})
}

func TestThinkTags(t *testing.T) {
	b := setUp(t, llm.Always(llm.Reply{Text: "<think>let me see </think> the answer <b>"}), nil)
	onDelta, seen := collect()
	for _, observer := range []func(model.Delta){onDelta, nil} {
		answer, err := b.client.Complete(t.Context(), ask("x"), observer)
		if err != nil || answer.Text != "the answer <b>" || answer.Reasoning != "let me see " {
			t.Errorf("%+v, %v", answer, err)
		}
	}
	if joined(*seen) != "the answer <b>" {
		t.Errorf("streamed %+v", *seen)
	}
	b.server.SetBrain(llm.Always(llm.Reply{Text: "<"}))
	*seen = nil
	if answer, err := b.client.Complete(t.Context(), ask("x"), onDelta); err != nil || answer.Text != "<" || joined(*seen) != "<" {
		t.Errorf("%+v, %v, streamed %+v", answer, err, *seen)
	}
}
