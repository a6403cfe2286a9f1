package openai

import (
	"strings"
	"testing"

	"hermes/internal/model"
)

// through sends text through a thinking in pieces of n bytes.
func through(text string, n int) (answer, reasoning string) {
	var t thinking
	add := func(d model.Delta) { answer += d.Text; reasoning += d.Reasoning }
	for len(text) > 0 {
		cut := min(n, len(text))
		add(t.split(text[:cut]))
		text = text[cut:]
	}
	add(t.end())
	return answer, reasoning
}

func TestThinking(t *testing.T) {
	for in, want := range map[string][2]string{
		"":                                {"", ""},
		"plain":                           {"plain", ""},
		"  indented":                      {"  indented", ""},
		"<think>a < b</think>\n\nyes":     {"yes", "a < b"},
		"\n<think>\nhm\n</think>yes":      {"yes", "\nhm\n"},
		"<think></think>yes":              {"yes", ""},
		"<think>never closed":             {"", "never closed"},
		"<think>nearly </thin":            {"", "nearly </thin"},
		"<thi":                            {"<thi", ""},
		"<thinker> is a word":             {"<thinker> is a word", ""},
		"use <think> tags</think>":        {"use <think> tags</think>", ""},
		"<think>a</think>b</think>":       {"b</think>", "a"},
		"<think>a</think> \n":             {"", "a"},
		strings.Repeat(" ", 1000) + "<th": {strings.Repeat(" ", 1000) + "<th", ""},
	} {
		for _, n := range []int{1, 3, 1 << 20} {
			if answer, reasoning := through(in, n); answer != want[0] || reasoning != want[1] {
				t.Errorf("%.40q in pieces of %d: %.40q and %q, want %q", in, n, answer, reasoning, want)
			}
		}
	}
}

// FuzzThinking: nothing is lost but the tags and white space around them, and
// the pieces do not matter.
func FuzzThinking(f *testing.F) {
	f.Add("<think>a</think>b", 2)
	f.Add(" <thi", 1)
	f.Fuzz(func(t *testing.T, text string, n int) {
		n = max(n%64, 1)
		a1, r1 := through(text, n)
		a2, r2 := through(text, 1<<20)
		if len(text) < 256 && (a1 != a2 || r1 != r2) {
			t.Fatalf("%q, %q in pieces; %q, %q whole", a1, r1, a2, r2)
		}
		if !strings.Contains(text, thinkOpen) && a1 != text {
			t.Fatalf("%q became %q", text, a1)
		}
	})
}
