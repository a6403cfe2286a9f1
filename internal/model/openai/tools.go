package openai

import (
	"bytes"
	"encoding/json"
	"sync"

	"hermes/internal/model"
)

// maxToolLists bounds how many lists of tools are remembered.
const maxToolLists = 16

// toolBook remembers lists of tools as JSON: they are the greater part of most
// requests, and the same for all turns of a kind. A list is known by where it
// stands in memory, since it must not change; see model.Request.
type toolBook struct {
	mu sync.Mutex
	m  map[*model.ToolSpec]toolList
}

type toolList struct {
	n    int // tools
	json []byte
}

// encode gives a list as the field "tools" and its value; nil for none. The
// result is shared and must not be changed.
func (b *toolBook) encode(specs []model.ToolSpec) ([]byte, error) {
	if len(specs) == 0 {
		return nil, nil
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if l := b.m[&specs[0]]; l.n == len(specs) {
		return l.json, nil
	}
	tools := make([]wireTool, 0, len(specs))
	for _, t := range specs {
		tools = append(tools, wireTool{"function", wireToolDef{t.Name, t.Description, schema(t.Schema)}})
	}
	text, err := encodeJSON(tools)
	if err != nil {
		return nil, err
	}
	if b.m == nil || len(b.m) >= maxToolLists {
		b.m = map[*model.ToolSpec]toolList{}
	}
	text = append([]byte(`,"tools":`), text...)
	b.m[&specs[0]] = toolList{len(specs), text}
	return text, nil
}

// schema gives a tool's schema, or that of no arguments.
func schema(s json.RawMessage) json.RawMessage {
	if !json.Valid(s) {
		return json.RawMessage(`{"type":"object","properties":{}}`)
	}
	return s
}

// encodeJSON writes v as JSON, with the characters of HTML as they are.
func encodeJSON(v any) ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}
