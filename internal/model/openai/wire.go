package openai

import (
	"bytes"
	"encoding/json"
	"strings"
)

// The request, without its tools, which toolBook adds;
// https://platform.openai.com/docs/api-reference/chat/create.
type wireRequest struct {
	Model               string         `json:"model"`
	Messages            []wireMessage  `json:"messages"`
	MaxTokens           int            `json:"max_tokens,omitempty"`
	MaxCompletionTokens int            `json:"max_completion_tokens,omitempty"`
	Temperature         *float64       `json:"temperature,omitempty"`
	Stream              bool           `json:"stream,omitempty"`
	StreamOptions       *streamOptions `json:"stream_options,omitempty"`
}

type streamOptions struct {
	IncludeUsage bool `json:"include_usage"`
}

// wireMessage is a message out. Content is a string, []wirePart, or nil, which
// goes as null: an assistant that only calls tools.
type wireMessage struct {
	Role       string     `json:"role"`
	Content    any        `json:"content"`
	ToolCalls  []wireCall `json:"tool_calls,omitempty"`
	ToolCallID string     `json:"tool_call_id,omitempty"`
}

type wirePart struct {
	Type     string    `json:"type"`
	Text     string    `json:"text,omitempty"`
	ImageURL *imageURL `json:"image_url,omitempty"`
}

type imageURL struct {
	URL string `json:"url"`
}

type wireCall struct {
	ID           string          `json:"id"`
	Type         string          `json:"type"`
	Function     wireFunction    `json:"function"`
	ExtraContent json.RawMessage `json:"extra_content,omitempty"`
}

type wireFunction struct {
	Name      string `json:"name"`
	Arguments string `json:"arguments"`
}

type wireTool struct {
	Type     string      `json:"type"`
	Function wireToolDef `json:"function"`
}

type wireToolDef struct {
	Name        string          `json:"name"`
	Description string          `json:"description,omitempty"`
	Parameters  json.RawMessage `json:"parameters"`
}

// response is a whole answer or one event of a stream.
type response struct {
	Model   string          `json:"model"`
	Choices []choice        `json:"choices"`
	Usage   *usage          `json:"usage"`
	Error   json.RawMessage `json:"error"`
}

type choice struct {
	Delta   *said           `json:"delta"`
	Message *said           `json:"message"`
	Finish  string          `json:"finish_reason"`
	Error   json.RawMessage `json:"error"`
}

// said is a message in, whole or in part. Reasoning has two names: DeepSeek's
// reasoning_content and OpenRouter's reasoning.
type said struct {
	Content          looseText   `json:"content"`
	Refusal          looseText   `json:"refusal"`
	Reasoning        looseText   `json:"reasoning"`
	ReasoningContent looseText   `json:"reasoning_content"`
	ToolCalls        []callDelta `json:"tool_calls"`
}

type callDelta struct {
	Index    *int   `json:"index"`
	ID       string `json:"id"`
	Function struct {
		Name      string    `json:"name"`
		Arguments looseText `json:"arguments"`
	} `json:"function"`
	ExtraContent json.RawMessage `json:"extra_content"`
}

type usage struct {
	Prompt     int64 `json:"prompt_tokens"`
	Completion int64 `json:"completion_tokens"`
	Details    struct {
		Cached int64 `json:"cached_tokens"`
	} `json:"prompt_tokens_details"`
	CacheHit int64 `json:"prompt_cache_hit_tokens"` // DeepSeek's name
}

func (u usage) cached() int64 { return max(u.Details.Cached, u.CacheHit) }

// looseText is text as services send it: a string, null, an array of text
// parts, or (arguments of some local servers) an object, which is kept as it
// stands.
type looseText string

// UnmarshalJSON accepts any JSON value.
func (t *looseText) UnmarshalJSON(b []byte) error {
	b = bytes.TrimSpace(b)
	switch {
	case len(b) == 0 || bytes.Equal(b, []byte("null")):
		*t = ""
	case b[0] == '"':
		return json.Unmarshal(b, (*string)(t))
	case b[0] == '[':
		var parts []struct {
			Text looseText `json:"text"`
		}
		if json.Unmarshal(b, &parts) != nil {
			*t = ""
			return nil //nolint:nilerr // what is no text is taken for none
		}
		var text strings.Builder
		for _, p := range parts {
			text.WriteString(string(p.Text))
		}
		*t = looseText(text.String())
	default:
		*t = looseText(b)
	}
	return nil
}
