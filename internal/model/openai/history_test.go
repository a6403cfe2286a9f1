package openai_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"pgregory.net/rapid"

	"hermes/internal/domain"
	"hermes/internal/model"
	"hermes/testkit/llm"
)

func user(text string) domain.Message { return domain.Message{Role: domain.RoleUser, Content: text} }

func says(text string, calls ...domain.ToolCall) domain.Message {
	return domain.Message{Role: domain.RoleAssistant, Content: text, ToolCalls: calls}
}

func calls(id string) domain.ToolCall {
	return domain.ToolCall{ID: id, Name: "terminal", Arguments: `{"command":"ls"}`}
}

func result(id, content string) domain.Message {
	return domain.Message{Role: domain.RoleTool, ToolCallID: id, ToolName: "terminal", Content: content}
}

// flat writes a request's messages in short form.
func flat(r llm.Request) string {
	var out []string
	for _, m := range r.Messages {
		s := m.Role
		if m.ToolCallID != "" {
			s += "(" + m.ToolCallID + ")"
		}
		s += ":" + m.Text()
		for _, c := range m.ToolCalls {
			s += " call(" + c.ID + " " + c.Function.Name + " " + c.Function.Arguments + ")"
		}
		out = append(out, s)
	}
	return strings.Join(out, " | ")
}

func TestHistories(t *testing.T) {
	for name, test := range map[string]struct {
		system  string
		history []domain.Message
		want    string
	}{
		"plain":                {"sys", []domain.Message{user("a"), says("b"), user("c")}, "system:sys | user:a | assistant:b | user:c"},
		"tools":                {"", []domain.Message{user("a"), says("", calls("1")), result("1", "r"), says("b")}, `user:a | assistant: call(1 terminal {"command":"ls"}) | tool(1):r | assistant:b`},
		"result missing":       {"", []domain.Message{user("a"), says("", calls("1")), user("b")}, `user:a | assistant: call(1 terminal {"command":"ls"}) | tool(1):[interrupted: no result of this call was recorded, so that its outcome is unknown] | user:b`},
		"result after a word":  {"", []domain.Message{user("a"), says("", calls("1")), user("b"), result("1", "r")}, `user:a | assistant: call(1 terminal {"command":"ls"}) | tool(1):r | user:b`},
		"results out of order": {"", []domain.Message{says("", calls("1"), calls("2")), result("2", "s"), result("1", "r")}, `assistant: call(1 terminal {"command":"ls"}) call(2 terminal {"command":"ls"}) | tool(1):r | tool(2):s`},
		"result twice":         {"", []domain.Message{says("", calls("1")), result("1", "r"), result("1", "again")}, `assistant: call(1 terminal {"command":"ls"}) | tool(1):r`},
		"result without call":  {"", []domain.Message{result("9", "r"), user("a")}, "user:[Result of an earlier call of the tool terminal]\nr | user:a"},
		"empty result":         {"", []domain.Message{says("", calls("1")), result("1", "")}, `assistant: call(1 terminal {"command":"ls"}) | tool(1):(no output)`},
		"ids missing":          {"", []domain.Message{says("", calls(""), calls("")), result("", "r"), result("", "s")}, `assistant: call(call_0_0 terminal {"command":"ls"}) call(call_0_1 terminal {"command":"ls"}) | tool(call_0_0):r | tool(call_0_1):s`},
		"empty messages":       {"", []domain.Message{user(""), says(""), user("b")}, "user:(empty message) | user:b"},
		"nothing":              {"", nil, "user:(empty message)"},
		"system only":          {"sys", nil, "system:sys | user:(empty message)"},
		"systems":              {"sys", []domain.Message{{Role: domain.RoleSystem, Content: "more"}, user("a"), {Role: domain.RoleSystem, Content: "late"}}, "system:sys\n\nmore | user:a | user:[System note] late"},
		"strange names and arguments": {"", []domain.Message{says("", domain.ToolCall{ID: "1", Name: "functions.exec!", Arguments: `{"a":`}, domain.ToolCall{ID: "2"}), result("1", "r"), result("2", "s")},
			`assistant: call(1 functions_exec_ {"malformed_arguments":"{\"a\":"}) call(2 unknown {}) | tool(1):r | tool(2):s`},
	} {
		t.Run(name, func(t *testing.T) {
			b := setUp(t, llm.Say("ok"), nil)
			if _, err := b.client.Complete(t.Context(), &model.Request{System: test.system, Messages: test.history}, nil); err != nil {
				t.Fatal(err)
			}
			if got := flat(b.server.Requests()[0]); got != test.want {
				t.Errorf("got  %s\nwant %s", got, test.want)
			}
		})
	}
}

// TestAnyHistoryIsAccepted: whatever a crash left behind, the service takes it.
func TestAnyHistoryIsAccepted(t *testing.T) {
	b, ctx := setUp(t, llm.Say("ok"), nil), t.Context()
	text := rapid.SampledFrom([]string{"", "x", "\xff", "<b>"})
	id := rapid.SampledFrom([]string{"", "1", "2", "3"})
	toolCall := rapid.Custom(func(t *rapid.T) domain.ToolCall {
		return domain.ToolCall{ID: id.Draw(t, "id"), Name: text.Draw(t, "name"), Arguments: text.Draw(t, "arguments")}
	})
	message := rapid.Custom(func(t *rapid.T) domain.Message {
		m := domain.Message{Role: rapid.SampledFrom([]domain.Role{domain.RoleSystem, domain.RoleUser, domain.RoleAssistant, domain.RoleTool}).Draw(t, "role"), Content: text.Draw(t, "content")}
		switch m.Role {
		case domain.RoleAssistant:
			m.ToolCalls = rapid.SliceOfN(toolCall, 0, 3).Draw(t, "calls")
		case domain.RoleTool:
			m.ToolCallID = id.Draw(t, "of")
		}
		return m
	})
	rapid.Check(t, func(t *rapid.T) {
		history := rapid.SliceOfN(message, 0, 12).Draw(t, "history")
		if _, err := b.client.Complete(ctx, &model.Request{System: text.Draw(t, "system"), Messages: history}, nil); err != nil {
			t.Fatalf("refused: %v\n%s", err, b.server.Requests()[len(b.server.Requests())-1].Raw)
		}
	})
}

func TestImages(t *testing.T) {
	dir := t.TempDir()
	write := func(name string, content string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	const png = "\x89PNG\r\n\x1a\n0000"
	good := domain.Attachment{Kind: domain.Image, Path: write("good.png", png), Name: "good.png"}
	fifo := filepath.Join(dir, "fifo.png")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		image domain.Attachment
		says  string // "" means that it is shown
	}{
		"good":           {good, ""},
		"gone":           {domain.Attachment{Path: filepath.Join(dir, "gone.png"), Name: "gone.png"}, "gone.png, is not shown: it cannot be read"},
		"a FIFO":         {domain.Attachment{Path: fifo}, "it cannot be read"},
		"no image":       {domain.Attachment{Path: write("x.png", "#!/bin/sh")}, "no PNG"},
		"too large":      {domain.Attachment{Path: write("large.png", png+strings.Repeat("x", 6<<20))}, "too large"},
		"not downloaded": {domain.Attachment{Ref: "abc"}, "not downloaded"},
	} {
		t.Run(name, func(t *testing.T) {
			b := setUp(t, llm.Say("ok"), nil)
			m := user("look")
			m.Images = []domain.Attachment{test.image}
			if _, err := b.client.Complete(t.Context(), &model.Request{Messages: []domain.Message{m}}, nil); err != nil {
				t.Fatal(err)
			}
			r := b.server.Requests()[0]
			shown := strings.Contains(string(r.Raw), `"url":"data:image/png;base64,iVBORw0KGgowMDAw"`)
			if shown != (test.says == "") || !strings.Contains(r.LastUser(), test.says) || !strings.HasPrefix(r.LastUser(), "look") {
				t.Errorf("got %.300s", r.Raw)
			}
		})
	}
	t.Run("only the latest", func(t *testing.T) {
		b := setUp(t, llm.Say("ok"), nil)
		var history []domain.Message
		for i := range 12 {
			m := user(fmt.Sprint("picture ", i))
			m.Images = []domain.Attachment{{Kind: domain.Image, Path: write(fmt.Sprintf("%d.png", i), png)}}
			history = append(history, m)
		}
		if _, err := b.client.Complete(t.Context(), &model.Request{Messages: history}, nil); err != nil {
			t.Fatal(err)
		}
		raw := string(b.server.Requests()[0].Raw)
		if n := strings.Count(raw, "image_url\",\"image_url"); n != 8 || strings.Index(raw, "data:image") < strings.Index(raw, "picture 3") {
			t.Errorf("%d images are carried", n)
		}
	})
}
