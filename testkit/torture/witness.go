package torture

import (
	"fmt"
	"strings"
	"sync"

	"hermes/testkit/llm"
	"hermes/testkit/people"
)

// Message is something that was said to the bot. Its text holds its ID, which is
// m and a number; where Tool is set it begins with "do", else with "say".
type Message struct {
	ID   string
	Tool bool // answering it takes a tool with an effect
	From people.Person
}

// Text is what is said.
func (m Message) Text() string {
	if m.Tool {
		return "do " + m.ID
	}
	return "say " + m.ID
}

// Answered tells whether a text is the answer.
func (m Message) Answered(text string) bool {
	return word(text) == m.ID && strings.Contains(text, "answer ")
}

// word is the message's own word, e.g. m17.
func word(s string) string {
	for _, w := range strings.Fields(s) {
		if strings.HasPrefix(w, "m") && len(w) > 1 && strings.Trim(w[1:], "0123456789") == "" {
			return w
		}
	}
	return ""
}

// Witness is the model of a torture: it remembers what it was shown, and judges
// what became of each message. Its methods are safe for concurrent use.
type Witness struct {
	effect func(id string) string
	mu     sync.Mutex
	shown  map[string]int // how often a message stood in one model request, at most
}

// NewWitness makes a witness. effect gives a command whose effect can be counted.
func NewWitness(effect func(id string) string) *Witness {
	return &Witness{effect: effect, shown: map[string]int{}}
}

// Think is the model: it runs a tool with a side effect that can be counted,
// then answers with what the tool said. A message that begins with "say" is
// answered at once.
func (w *Witness) Think(r llm.Request) llm.Reply {
	said, result, results := "", "", 0
	seen := map[string]int{}
	for _, m := range r.Messages {
		switch m.Role {
		case "user":
			said, result, results = m.Text(), "", 0
			seen[word(said)]++
		case "tool":
			result = m.Text()
			results++
		}
	}
	id := word(said)
	w.mu.Lock()
	w.shown[id] = max(w.shown[id], seen[id])
	w.mu.Unlock()
	if strings.Contains(said, "say "+id) {
		return llm.Reply{Text: "answer " + id}
	}
	if results == 0 {
		return llm.Reply{ToolCalls: []llm.ToolCall{{Name: "terminal", Arguments: fmt.Sprintf(`{"command":"%s; echo ran %s"}`, w.effect(id), id)}}}
	}
	return llm.Reply{Text: "answer " + id + "\n\ntool said: " + strings.TrimSpace(result)}
}

// Judge adds to the counts what the person of a message sees, and how often the
// tool did its work. at names the instant in what it finds; mayRepeat is
// people.Platform.MayRepeat.
func (w *Witness) Judge(c *Counts, m Message, did int, at string, mayRepeat bool) {
	c.Messages++
	name := m.ID + " (" + at + ")"
	plain, marked := 0, 0
	for _, text := range m.From.Heard() {
		if !m.Answered(text) {
			continue
		}
		if strings.Contains(text, "may be a repeat") {
			marked++
		} else {
			plain++
		}
	}
	if plain > 1 {
		c.RepeatedSilent = append(c.RepeatedSilent, name)
	}
	if plain+marked > 1 {
		c.RepeatedMarked += marked
		if !mayRepeat {
			c.RepeatedNeedless = append(c.RepeatedNeedless, name)
		}
	}
	if plain == 0 && marked == 1 && !mayRepeat {
		c.MarkedNeedless = append(c.MarkedNeedless, name)
	}
	if did > 1 {
		c.ToolTwice = append(c.ToolTwice, name)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.shown[m.ID] > 1 {
		c.TurnTwice = append(c.TurnTwice, name)
	}
}
