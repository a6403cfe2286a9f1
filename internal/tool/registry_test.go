package tool

import (
	"context"
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"hermes/internal/domain"
)

func sample(name, set string) Tool {
	return Tool{Name: name, Toolset: set, Schema: json.RawMessage(`{"type":"object","properties":{"a":{"type":"string"}},"required":["a"]}`),
		Run: func(context.Context, Env, json.RawMessage) (Result, error) { return Result{}, nil }}
}

func names(ts []Tool) (out []string) {
	for _, t := range ts {
		out = append(out, t.Name)
	}
	return out
}

func TestRegistrySelect(t *testing.T) {
	r, err := NewRegistry(sample("web_fetch", "web"), sample("terminal", "terminal"), sample("process", "terminal"), sample("memory", "memory"))
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		toolsets, without, want []string
	}{
		{nil, nil, []string{"memory", "process", "terminal", "web_fetch"}},
		{[]string{"hermes-telegram"}, []string{"memory"}, []string{"process", "terminal", "web_fetch"}},
		{[]string{"terminal"}, []string{"process"}, []string{"terminal"}},
		{[]string{"search", "memory"}, nil, []string{"memory", "web_fetch"}},
		{[]string{"process"}, nil, []string{"process"}},
		{[]string{"vision"}, nil, nil},
	}
	for _, tt := range tests {
		if d := cmp.Diff(tt.want, names(r.Select(tt.toolsets, tt.without))); d != "" {
			t.Errorf("Select(%q, %q): %s", tt.toolsets, tt.without, d)
		}
	}
	if d := cmp.Diff([]string{"vision"}, r.Unknown([]string{"web", "vision", "all"})); d != "" {
		t.Error(d)
	}
	if _, ok := r.Lookup("terminal"); !ok {
		t.Error("terminal not found")
	}
	if s := r.Suggest("bash"); !strings.Contains(s, "terminal") {
		t.Errorf("the suggestion names no tool: %s", s)
	}
	r.Remove("terminal", "nothing")
	if _, ok := r.Lookup("terminal"); ok {
		t.Error("terminal is still there")
	}
}

func TestRegistryRefuses(t *testing.T) {
	r, _ := NewRegistry(sample("a", "x"))
	bad := func(f func(*Tool)) Tool { s := sample("b", "x"); f(&s); return s }
	for name, tt := range map[string]struct {
		tool Tool
		code domain.Code
	}{
		"taken":       {sample("a", "x"), domain.Conflict},
		"name":        {bad(func(s *Tool) { s.Name = "a b" }), domain.Invalid},
		"no function": {bad(func(s *Tool) { s.Run = nil }), domain.Invalid},
		"no schema":   {bad(func(s *Tool) { s.Schema = nil }), domain.Invalid},
		"no object":   {bad(func(s *Tool) { s.Schema = json.RawMessage(`{"type":"string"}`) }), domain.Invalid},
		"required":    {bad(func(s *Tool) { s.Schema = json.RawMessage(`{"type":"object","required":["q"]}`) }), domain.Invalid},
	} {
		if err := r.Add(tt.tool); domain.CodeOf(err) != tt.code {
			t.Errorf("%s: got %v, want %s", name, err, tt.code)
		}
	}
	if n := len(r.Select(nil, nil)); n != 1 {
		t.Errorf("%d tools, want 1", n)
	}
}

type sampleArgs struct {
	Command string   `json:"command"`
	Timeout int      `json:"timeout"`
	Force   bool     `json:"force"`
	Items   []string `json:"items"`
	Rate    float64  `json:"rate"`
}

func TestDecode(t *testing.T) {
	for _, tt := range []struct {
		raw  string
		want sampleArgs
	}{
		{`{"command":"ls"}`, sampleArgs{Command: "ls"}},
		{`{"command":"ls","timeout":"5","force":"True","items":"[\"a\"]","rate":"1.5"}`, sampleArgs{Command: "ls", Timeout: 5, Force: true, Items: []string{"a"}, Rate: 1.5}},
		{`{"command":"ls","timeout":5.0}`, sampleArgs{Command: "ls", Timeout: 5}},
		{`{"command":5,"items":"a"}`, sampleArgs{Command: "5", Items: []string{"a"}}},
		{`"{\"command\":\"ls\"}"`, sampleArgs{Command: "ls"}},
		{`{"command":"ls","timeout":null,"more":1}`, sampleArgs{Command: "ls"}},
	} {
		var got sampleArgs
		if err := Decode(json.RawMessage(tt.raw), &got, "command"); err != nil {
			t.Errorf("%s: %v", tt.raw, err)
		} else if d := cmp.Diff(tt.want, got); d != "" {
			t.Errorf("%s: %s", tt.raw, d)
		}
	}
	for _, tt := range []struct{ raw, want string }{
		{``, `"command" is missing`},
		{`{"cmd":"ls"}`, `does not know "cmd"`},
		{`{"command":""}`, `"command" is empty`},
		{`{"command":["ls"]}`, `"command" must be a text, but is a list`},
		{`{"command":"ls","timeout":"soon"}`, `"timeout" must be a whole number, but is a text`},
		{`{"command":"ls","force":"maybe"}`, `"force" must be true or false`},
		{`{"command":"ls"`, `not valid JSON`},
		{`["ls"]`, `must be one JSON object`},
	} {
		err := Decode(json.RawMessage(tt.raw), &sampleArgs{}, "command")
		if domain.CodeOf(err) != domain.Invalid || !strings.Contains(domain.MessageOf(err), tt.want) {
			t.Errorf("%s: got %v, want %q", tt.raw, err, tt.want)
		}
	}
}

func FuzzDecode(f *testing.F) {
	for _, s := range []string{`{"command":"ls","timeout":"5"}`, `"{}"`, `{"items":{"a":1}}`, `{"command":null}`, `[`, `{"rate":1e999}`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		var a sampleArgs
		if err := Decode(json.RawMessage(s), &a, "command"); err != nil && domain.CodeOf(err) != domain.Invalid {
			t.Fatalf("%q: %v", s, err)
		}
	})
}
