package todo

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"hermes/internal/domain"
	"hermes/internal/tool"
)

// notes keeps notes in memory, as a ledger does on disk.
type notes map[string]string

func (n notes) Note(_ context.Context, key string) (string, error) { return n[key], nil }

func (n notes) SetNote(_ context.Context, key, value string) error {
	if value == "" {
		delete(n, key)
	} else {
		n[key] = value
	}
	return nil
}

func TestTodo(t *testing.T) {
	kept := notes{}
	x := New(kept)
	if _, err := tool.NewRegistry(x); err != nil {
		t.Fatal(err)
	}
	env := tool.Env{SessionKey: "agent:main:telegram:dm:1", SessionID: "s1"}
	for _, step := range []struct {
		raw, want string
		code      domain.Code
	}{
		{`{}`, "The list is empty.", ""},
		{`{"todos":[{"id":"a","content":"read","status":"in_progress"},{"content":"write"}]}`, "0 of 2 done.\n[>] a: read\n[ ] 2: write", ""},
		{`{"merge":true,"todos":[{"id":"a","status":"completed"},{"id":"b","content":"test","status":"pending"}]}`, "1 of 3 done.\n[x] a: read\n[ ] 2: write\n[ ] b: test", ""},
		{`{"merge":true,"todos":[{"id":"c","status":"pending"}]}`, "has no content", domain.Invalid},
		{`{"todos":[{"id":"c","content":"x","status":"later"}]}`, "must be one of pending", domain.Invalid},
		{`{"todos":[{"id":"c","content":"` + strings.Repeat("x", maxContent+1) + `"}]}`, "longer than", domain.TooLarge},
		{`null`, "1 of 3 done.", ""},
	} {
		res, err := x.Run(t.Context(), env, json.RawMessage(step.raw))
		out := res.Content
		if err != nil {
			out = domain.MessageOf(err)
		}
		if domain.CodeOf(err) != step.code || !strings.Contains(out, step.want) {
			t.Errorf("%.80s: got %q, %v", step.raw, out, err)
		}
	}
	other := env
	other.SessionID = "s2"
	if res, _ := x.Run(t.Context(), other, nil); res.Content != "The list is empty." {
		t.Errorf("a new session sees %q", res.Content)
	}
	var many []string
	for i := range maxItems + 1 {
		many = append(many, fmt.Sprintf(`{"id":"%d","content":"x","status":"pending"}`, i))
	}
	if _, err := x.Run(t.Context(), env, json.RawMessage(`{"todos":[`+strings.Join(many, ",")+`]}`)); domain.CodeOf(err) != domain.TooLarge {
		t.Errorf("too many items: %v", err)
	}
	if _, err := x.Run(t.Context(), env, json.RawMessage(`{"todos":[]}`)); err != nil || len(kept) != 0 {
		t.Errorf("an empty list is kept: %v, %v", kept, err)
	}
}
