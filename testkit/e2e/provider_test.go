package e2e

import (
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"hermes/internal/control"
	"hermes/testkit/llm"
)

// sick is a model that fails as the message says, until it is healed.
type sick struct {
	healed atomic.Bool
	faults map[string]llm.Reply
}

func (s *sick) think(r llm.Request) llm.Reply {
	said := r.LastUser()
	if f, ok := s.faults[said]; ok && !s.healed.Load() {
		return f
	}
	return llm.Reply{Text: "well again: " + said}
}

// once keeps a failing call from being tried again, which takes seconds and is
// held by tests of its own.
const once = "agent:\n  api_max_retries: 0\n"

// Whatever a provider answers, the chat gets a sentence that says what is wrong,
// the message is not lost, and /retry answers it once the provider is well.
func TestEveryFailureOfAProviderIsExplained(t *testing.T) {
	t.Parallel()
	s := &sick{faults: map[string]llm.Reply{
		"empty stream":  {Fault: llm.EmptyChoices},
		"empty content": {Fault: llm.EmptyContent},
		"cut":           {Text: "this will be cut in the middle of it", Fault: llm.CutMidChunk},
		"no end":        {Text: "this has no end", Fault: llm.NoEnd},
		"no JSON":       {Text: "this turns into rubbish", Fault: llm.BadChunk},
		"error event":   {Text: "this breaks off", Fault: llm.ErrorChunk},
		"web page":      {Fault: llm.WebPage},
		"proxy":         llm.FailHTML(502).Reply(),
		"endless":       {Fault: llm.Endless},
		"huge line":     {Fault: llm.HugeLine},
		"huge call":     {Fault: llm.HugeArguments, ToolCalls: []llm.ToolCall{{ID: "c1", Name: "terminal"}}},
	}}
	want := map[string]string{ // what the sentence must speak of
		"status 401": "key", "status 402": "credit", "status 403": "access", "status 404": "model", "status 408": "time",
		"status 409": "409", "status 413": "/compress", "status 429": "rate", "status 500": "500", "status 502": "502", "status 503": "503",
		"empty stream": "", "empty content": "", "cut": "broke off", "no end": "", "no JSON": "", "error event": "", "web page": "", "proxy": "502",
		"endless": "did not stop", "huge line": "", "huge call": "",
	}
	for _, status := range []int{401, 402, 403, 404, 408, 409, 413, 429, 500, 502, 503} {
		s.faults[fmt.Sprintf("status %d", status)] = llm.Fail(status).Reply()
	}
	w := setUp(t, options{brain: s.think, config: once})
	w.brain.KeepRequests(100)
	p := w.start()
	chats := map[string]int64{}
	for name := range want {
		ann := w.tg.AddUser("Ann " + name)
		chats[name] = ann.ID
		w.tg.Say(ann, name)
	}
	for name, text := range want {
		m := w.sees(chats[name], "⚠")
		if len([]rune(m.Text)) < 40 || !strings.Contains(m.Text, text) {
			t.Errorf("%s: the chat was told %q, which does not speak of %q", name, m.Text, text)
		}
		for _, leak := range []string{"goroutine", "*model.", "0x", "<html", "EOF"} {
			if strings.Contains(m.Text, leak) {
				t.Errorf("%s: the chat was told %q", name, m.Text)
			}
		}
		t.Logf("%-13s → %s", name, m.Text)
	}
	s.healed.Store(true)
	for name, chat := range chats {
		ann := w.tg.AddUserID(chat, "Ann "+name) // the same person
		w.tg.Say(ann, "/retry")
		w.sees(chat, "well again: "+name)
	}
	w.waitStatus("it is healthy again", func(s control.Status) bool { return s.Healthy })
	w.stop(p)
}

// The provider is away for a while: what came meanwhile is answered by itself
// once it is back, or on /retry; the status says what is wrong.
func TestAProviderThatComesBack(t *testing.T) {
	t.Parallel()
	w := setUp(t, options{})
	away := atomic.Bool{}
	w.brain.SetBrain(func(r llm.Request) llm.Reply {
		if away.Load() {
			return llm.Fail(http.StatusServiceUnavailable).Reply()
		}
		return llm.Reply{Text: "answer to " + r.LastUser()}
	})
	away.Store(true)
	p := w.start()
	ann := w.tg.AddUser("Ann")
	calls := w.brain.Count()
	w.tg.Say(ann, "patience")
	if err := w.brain.Wait(w.deadline(), calls+2); err != nil {
		t.Fatal(err)
	}
	away.Store(false) // within the tries of one call
	w.sees(ann.ID, "answer to patience")
	if n := w.count(ann.ID, "⚠"); n != 0 {
		t.Errorf("a fault that passed was shown\n%s", w.tg.Transcript(ann.ID))
	}
	w.waitStatus("healthy", func(s control.Status) bool { return s.Healthy })
	w.stop(p)
}

// Tool calls that make no sense are answered to the model as errors, and the
// turn goes on.
func TestMalformedToolCalls(t *testing.T) {
	t.Parallel()
	bad := map[string]llm.ToolCall{
		"no JSON":      {ID: "c1", Name: "terminal", Arguments: `{"command": "echo`},
		"unknown tool": {ID: "c1", Name: "no_such_tool", Arguments: `{}`},
		"wrong type":   {ID: "c1", Name: "terminal", Arguments: `{"command": 7}`},
		"no arguments": {ID: "c1", Name: "terminal", Arguments: ``},
		"a list":       {ID: "c1", Name: "terminal", Arguments: `[1,2]`},
		"no id":        {Name: "terminal", Arguments: `{"command":"echo fine"}`},
		"nul":          {ID: "c1", Name: "terminal", Arguments: "{\"command\":\"echo a\\u0000b\"}"},
	}
	w := setUp(t, options{brain: func(r llm.Request) llm.Reply {
		if last := r.Messages[len(r.Messages)-1]; last.Role == "tool" {
			return llm.Reply{Text: "the tool said: " + last.Text()}
		}
		return llm.Reply{ToolCalls: []llm.ToolCall{bad[r.LastUser()]}}
	}, config: once})
	p := w.start()
	for name := range bad {
		ann := w.tg.AddUser("Ann " + name)
		w.tg.Say(ann, name)
		if name == "nul" { // which a person is asked about
			w.sees(ann.ID, "control characters")
			w.tg.Say(ann, "/deny")
		}
		m := w.sees(ann.ID, "the tool said: ")
		t.Logf("%-13s → %s", name, m.Text)
		if strings.TrimSpace(m.Text) == "the tool said:" {
			t.Errorf("%s: the model was told nothing", name)
		}
	}
	if s, _ := w.status(); !s.Healthy {
		t.Errorf("%v", s.Problems)
	}
	w.stop(p)
}
