package openai

import (
	"encoding/json"
	"fmt"
	"strings"

	"hermes/internal/domain"
	"hermes/internal/model"
)

const (
	interruptedResult = "[interrupted: no result of this call was recorded, so that its outcome is unknown]"
	emptyMessage      = "(empty message)"
	emptyResult       = "(no output)"
)

// encode writes a request as JSON.
func (c *Client) encode(r *model.Request, q quirks, stream bool) (*payload, error) {
	w := wireRequest{Model: r.Model, Messages: c.messages(r.System, r.Messages, !q.noImages), Stream: stream}
	if q.completionTokens {
		w.MaxCompletionTokens = r.MaxTokens
	} else {
		w.MaxTokens = r.MaxTokens
	}
	if !q.noTemperature {
		w.Temperature = r.Temperature
	}
	if stream && !q.noStreamOptions {
		w.StreamOptions = &streamOptions{IncludeUsage: true}
	}
	body, err := encodeJSON(w)
	if err != nil {
		return nil, err
	}
	tools, err := c.tools.encode(r.Tools)
	if err != nil {
		return nil, err
	}
	end := len(body) - 1 // the closing brace
	return newPayload(body[:end], tools, body[end:]), nil
}

// messages maps a transcript to what every service accepts. A transcript that
// crashes, interruptions or another provider left in a state that would be
// refused is mended: each tool call gets exactly one result, right after it; a
// result without its call becomes a note; nothing is without content; only the
// first message is a system message.
func (c *Client) messages(system string, history []domain.Message, images bool) []wireMessage {
	out := make([]wireMessage, 0, len(history)+1)
	shown := pictures{budget: maxImageBytes}
	if images {
		shown.choose(history)
	}
	used := make([]bool, len(history)) // tool results that stand after their call
	for i, m := range history {
		switch m.Role {
		case domain.RoleSystem:
			if len(out) == 0 {
				system = strings.TrimSpace(system + "\n\n" + m.Content)
				continue
			}
			if m.Content != "" {
				out = append(out, wireMessage{Role: "user", Content: "[System note] " + m.Content})
			}
		case domain.RoleAssistant:
			out = c.appendAssistant(out, history, i, used)
		case domain.RoleTool:
			if !used[i] && m.Content != "" {
				out = append(out, wireMessage{Role: "user", Content: fmt.Sprintf("[Result of an earlier call of the tool %s]\n%s", toolName(m.ToolName), m.Content)})
			}
		default:
			out = append(out, wireMessage{Role: "user", Content: shown.content(m)})
		}
	}
	if len(out) == 0 {
		out = append(out, wireMessage{Role: "user", Content: emptyMessage})
	}
	if system != "" {
		out = append([]wireMessage{{Role: "system", Content: system}}, out...)
	}
	return out
}

// appendAssistant appends the assistant message history[i] and, right after
// it, one result for each of its tool calls.
func (c *Client) appendAssistant(out []wireMessage, history []domain.Message, i int, used []bool) []wireMessage {
	m := history[i]
	w := wireMessage{Role: "assistant"}
	if m.Content != "" {
		w.Content = m.Content
	}
	if len(m.ToolCalls) == 0 {
		if m.Content == "" {
			return out // an answer that was nothing
		}
		return append(out, w)
	}
	results := make([]wireMessage, 0, len(m.ToolCalls))
	taken := map[string]bool{}
	for j, call := range m.ToolCalls {
		id := call.ID
		if id == "" || taken[id] {
			id = fmt.Sprintf("call_%d_%d", i, j)
		}
		taken[id] = true
		w.ToolCalls = append(w.ToolCalls, wireCall{ID: id, Type: "function", Function: wireFunction{toolName(call.Name), arguments(call.Arguments)}, ExtraContent: c.extra(call, j)})
		results = append(results, wireMessage{Role: "tool", ToolCallID: id, Content: result(history, i, call.ID, used)})
	}
	return append(append(out, w), results...)
}

// result finds the result of a call of history[i] before the next assistant
// message, marks it and its repetitions as used, and gives its content.
func result(history []domain.Message, i int, callID string, used []bool) string {
	content, found := interruptedResult, false
	for k := i + 1; k < len(history) && history[k].Role != domain.RoleAssistant; k++ {
		if history[k].Role != domain.RoleTool || history[k].ToolCallID != callID || used[k] {
			continue
		}
		used[k] = true
		if !found {
			content, found = history[k].Content, true
			if content == "" {
				content = emptyResult
			}
		}
		if callID == "" {
			break // calls without ids take their results in order
		}
	}
	return content
}

// arguments gives a call's arguments as a JSON object, which services that
// parse the history insist on.
func arguments(raw string) string {
	var object map[string]json.RawMessage
	if json.Unmarshal([]byte(raw), &object) == nil && object != nil {
		return raw
	}
	if strings.TrimSpace(raw) == "" {
		return "{}"
	}
	const kept = 4 << 10
	b, _ := json.Marshal(map[string]string{"malformed_arguments": strings.ToValidUTF8(raw[:min(len(raw), kept)], "")})
	return string(b)
}

// toolName gives a name that services accept: ^[a-zA-Z0-9_-]{1,64}$.
func toolName(name string) string {
	name = strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9', r == '_', r == '-':
			return r
		}
		return '_'
	}, name)
	if name == "" {
		return "unknown"
	}
	return name[:min(len(name), 64)]
}
