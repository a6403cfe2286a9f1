package offline_test

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"hermes/internal/domain"
	"hermes/internal/model"
	"hermes/internal/model/offline"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func tools(names ...string) []model.ToolSpec {
	var out []model.ToolSpec
	for _, n := range names {
		out = append(out, model.ToolSpec{Name: n, Schema: json.RawMessage(schemas()[n])})
	}
	return out
}

func schemas() map[string]string {
	return map[string]string{
		"terminal":       `{"type":"object","properties":{"command":{"type":"string"},"timeout":{"type":"integer"}}}`,
		"read_file":      `{"type":"object","properties":{"path":{"type":"string"}}}`,
		"memory":         `{"type":"object","properties":{"action":{},"target":{},"content":{}}}`,
		"search_files":   `{"type":"object","properties":{"pattern":{},"target":{},"path":{}}}`,
		"session_search": `{"type":"object","properties":{"query":{}}}`,
		"web_fetch":      `{"type":"object","properties":{"url":{}}}`,
		"todo":           `{"type":"object","properties":{"todos":{},"merge":{}}}`,
	}
}

func all() []model.ToolSpec {
	return tools("terminal", "read_file", "memory", "search_files", "session_search", "web_fetch", "todo")
}

func ask(text string, offered []model.ToolSpec) model.Request {
	return model.Request{Messages: []domain.Message{{Role: domain.RoleUser, Content: text}}, Tools: offered}
}

func complete(t *testing.T, r model.Request) model.Answer {
	t.Helper()
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	p := offline.New(offline.Options{Now: func() time.Time { return now }})
	var streamed strings.Builder
	a, err := p.Complete(t.Context(), &r, func(d model.Delta) {
		if len(d.Text) > 32 || !utf8.ValidString(d.Text) {
			t.Errorf("piece %q", d.Text)
		}
		streamed.WriteString(d.Text)
	})
	if err != nil {
		t.Fatal(err)
	}
	if streamed.String() != a.Text || a.Model != "offline" || a.Provider != "offline" || a.Usage.Calls != 1 || a.Usage.InputTokens == 0 || a.Usage.OutputTokens == 0 {
		t.Errorf("streamed %q, answer %+v", streamed.String(), a)
	}
	if again, err := p.Complete(t.Context(), &r, nil); err != nil || cmp.Diff(a, again) != "" {
		t.Errorf("a second answer differs: %+v, %v", again, err)
	}
	return *a
}

func TestToolRules(t *testing.T) {
	for text, want := range map[string]string{
		"run: ls -la":                           `terminal {"command":"ls -la"}`,
		"Run `git status`":                      `terminal {"command":"git status"}`,
		"read notes.txt":                        `read_file {"path":"notes.txt"}`,
		"read the file \"my notes.md\"":         `read_file {"path":"my notes.md"}`,
		"remember that I like tea":              `memory {"action":"add","content":"I like tea","target":"memory"}`,
		"what time is it?":                      `terminal {"command":"date"}`,
		"date":                                  `terminal {"command":"date"}`,
		"list files":                            `search_files {"path":".","pattern":"*","target":"files"}`,
		"list files in /tmp":                    `search_files {"path":"/tmp","pattern":"*","target":"files"}`,
		"search sessions for blue whales":       `session_search {"query":"blue whales"}`,
		"fetch https://example.org/a?b=c":       `web_fetch {"url":"https://example.org/a?b=c"}`,
		"todo add Buy milk":                     `todo {"merge":true,"todos":[{"content":"Buy milk","id":"buy-milk","status":"pending"}]}`,
		"[Ann] run: uptime":                     `terminal {"command":"uptime"}`,
		"A hint for scheduled jobs.\n\nrun: df": `terminal {"command":"df"}`,
	} {
		t.Run(text, func(t *testing.T) {
			a := complete(t, ask(text, all()))
			if len(a.ToolCalls) != 1 || a.Finish != model.FinishTools || a.ToolCalls[0].ID == "" {
				t.Fatalf("got %+v", a)
			}
			if got := a.ToolCalls[0].Name + " " + a.ToolCalls[0].Arguments; got != want {
				t.Errorf("got %s, want %s", got, want)
			}
		})
	}
}

func TestWithoutTools(t *testing.T) {
	for text, want := range map[string]string{
		"what time is it":           "12:00:00",
		"run: ls":                   "offline stand-in",
		"run away from here":        "offline stand-in",
		"who are you?":              "not a language model",
		"are you GPT?":              "not a language model",
		"which model answers me":    "not a language model",
		"what can you do":           "`say …`",
		"how do I bake bread":       "`hermes model`",
		"":                          "`hermes model`",
		"say good night":            "good night",
		"ping":                      "pong",
		strings.Repeat("é日🙂", 2000): "offline stand-in",
	} {
		a := complete(t, ask(text, nil))
		if len(a.ToolCalls) != 0 || a.Finish != model.FinishStop || !strings.Contains(a.Text, want) {
			t.Errorf("%.20q: %+v", text, a)
		}
	}
	if a := complete(t, ask("run the tests please", all())); len(a.ToolCalls) != 0 {
		t.Errorf("prose was run as a command: %+v", a)
	}
}

// TestSaysWhatItIs: whatever is written, the answer is marked unless a rule
// only repeats what it was told to.
func TestSaysWhatItIs(t *testing.T) {
	r := ask("tell me about love", all())
	first := complete(t, r)
	r.Messages = append(r.Messages, domain.Message{Role: domain.RoleAssistant, Content: first.Text}, domain.Message{Role: domain.RoleUser, Content: "go on"})
	second := complete(t, r)
	for _, a := range []model.Answer{first, second} {
		if !strings.Contains(strings.ToLower(a.Text), "offline stand-in") || !strings.Contains(a.Text, "hermes model") {
			t.Errorf("got %q", a.Text)
		}
	}
	if len(second.Text) >= len(first.Text) {
		t.Error("it introduces itself at length every time")
	}
}

func TestAfterTools(t *testing.T) {
	r := ask("run: cat x", all())
	call := complete(t, r).ToolCalls[0]
	r.Messages = append(r.Messages, domain.Message{Role: domain.RoleAssistant, ToolCalls: []domain.ToolCall{call}},
		domain.Message{Role: domain.RoleTool, ToolCallID: call.ID, ToolName: "terminal", Content: "```\n" + strings.Repeat("é", 5000)},
		domain.Message{Role: domain.RoleTool, ToolCallID: "other", ToolName: "process", Content: " "})
	a := complete(t, r)
	if len(a.ToolCalls) != 0 || !strings.Contains(a.Text, "terminal answered:\n\n````\n") || !strings.Contains(a.Text, "[… cut]") ||
		!strings.Contains(a.Text, "process has run and said nothing") || len(a.Text) > 2500 {
		t.Errorf("got %q", a.Text)
	}
	r.Messages = append(r.Messages, domain.Message{Role: domain.RoleAssistant, Content: a.Text}, domain.Message{Role: domain.RoleUser, Content: "run: cat x"})
	if next := complete(t, r).ToolCalls[0]; next.ID == call.ID {
		t.Error("two calls of one conversation have the same id")
	}
}

func TestSummary(t *testing.T) {
	a := complete(t, ask("Summarise this conversation.\n\n"+strings.Repeat("user: blah é\n\n", 2000)+"user: my cat is called Mau", all()))
	if len(a.ToolCalls) != 0 || !strings.Contains(a.Text, "cannot summarise") || !strings.HasSuffix(a.Text, "called Mau") || len(a.Text) > 4200 || !utf8.ValidString(a.Text) {
		t.Errorf("got %d bytes, %.200q", len(a.Text), a.Text)
	}
}

func TestUnknownSchema(t *testing.T) {
	a := complete(t, ask("run: ls", []model.ToolSpec{{Name: "terminal", Schema: json.RawMessage("nonsense")}}))
	if len(a.ToolCalls) != 1 || a.ToolCalls[0].Arguments != `{"command":"ls"}` {
		t.Errorf("got %+v", a)
	}
}

func TestCancelled(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	r := ask("hello", nil)
	_, err := offline.New(offline.Options{}).Complete(ctx, &r, func(model.Delta) { cancel() })
	if !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

func FuzzComplete(f *testing.F) {
	for _, s := range []string{"run: ls", "read x", "todo add", "say ", "\xff\n\n", "`", "what is the time"} {
		f.Add(s)
	}
	p := offline.New(offline.Options{})
	offered := all()
	f.Fuzz(func(t *testing.T, text string) {
		r := ask(text, offered)
		a, err := p.Complete(t.Context(), &r, nil)
		if err != nil || (a.Text == "" && len(a.ToolCalls) == 0) {
			t.Fatalf("%+v, %v", a, err)
		}
		for _, c := range a.ToolCalls {
			if !json.Valid([]byte(c.Arguments)) {
				t.Fatalf("arguments %q", c.Arguments)
			}
		}
	})
}
