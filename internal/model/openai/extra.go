package openai

import (
	"encoding/json"

	"hermes/internal/domain"
)

// maxExtra bounds what is kept with a tool call, in bytes.
const maxExtra = 64 << 10

// kept is the form of domain.ToolCall.Extra: the extra_content of a tool call,
// and whose it is. Google's newer models refuse a history whose calls come
// back without it, and other services refuse a field that they do not know.
//
// Source: https://ai.google.dev/gemini-api/docs/thought-signatures
type kept struct {
	Provider     string          `json:"provider"`
	ExtraContent json.RawMessage `json:"extra_content"`
}

// keepExtra gives the Extra of a call; "" when the service sent nothing.
func keepExtra(provider string, content json.RawMessage) string {
	if len(content) == 0 || string(content) == "null" {
		return ""
	}
	b, err := json.Marshal(kept{provider, content})
	if err != nil {
		return ""
	}
	return string(b)
}

// extra gives what goes back with the n-th call of a message: what this
// service sent, or nothing. For Google's first call of a message, which must
// carry a signature, the documented stand-in takes the place of one that
// another model's call cannot have.
func (c *Client) extra(call domain.ToolCall, n int) json.RawMessage {
	var k kept
	if json.Unmarshal([]byte(call.Extra), &k) == nil && k.Provider == c.cfg.Name && len(k.ExtraContent) > 0 {
		return k.ExtraContent
	}
	if n == 0 && c.endpoint.Hostname() == "generativelanguage.googleapis.com" {
		return json.RawMessage(`{"google":{"thought_signature":"skip_thought_signature_validator"}}`)
	}
	return nil
}
