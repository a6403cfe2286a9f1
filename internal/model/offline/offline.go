// Package offline is a small stand-in for a language model, made of rules. It
// needs no key and no network, so that a first run, a demonstration and a test
// work with no account. It can call tools, it is deterministic, and it never
// poses as a model: it says what it is.
package offline

import (
	"context"
	"encoding/json"
	"fmt"
	"hash/fnv"
	"strings"
	"time"
	"unicode/utf8"

	"hermes/internal/domain"
	"hermes/internal/model"
)

// Name is the name of the provider and of its only model.
const Name = "offline"

// Options set the stand-in up.
type Options struct {
	Now func() time.Time // nil is time.Now
}

// Provider is the stand-in. It is stateless and safe for concurrent use.
type Provider struct {
	now   func() time.Time
	rules []rule
}

// New makes one.
func New(o Options) *Provider {
	if o.Now == nil {
		o.Now = time.Now
	}
	return &Provider{o.Now, rules()}
}

// Name gives "offline".
func (p *Provider) Name() string { return Name }

// Complete answers by rules; see model.Provider. It fails with ctx's error
// only.
func (p *Provider) Complete(ctx context.Context, r *model.Request, onDelta func(model.Delta)) (*model.Answer, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	a := p.answer(r)
	a.Model, a.Provider = Name, Name
	if a.Finish == "" {
		a.Finish = model.FinishStop
	}
	a.Usage = domain.Usage{Calls: 1, InputTokens: int64(model.EstimateRequest(r)), OutputTokens: int64(model.EstimateTokens(a.Text))}
	for _, c := range a.ToolCalls {
		a.Usage.OutputTokens += int64(model.EstimateTokens(c.Name + c.Arguments))
	}
	if onDelta != nil {
		for _, piece := range pieces(a.Text) {
			if err := ctx.Err(); err != nil {
				return nil, err
			}
			onDelta(model.Delta{Text: piece})
		}
	}
	return &a, nil
}

// answer decides: a summary after tools, a tool call where a rule and an
// offered tool fit, a text otherwise.
func (p *Provider) answer(r *model.Request) model.Answer {
	if results := trailingResults(r.Messages); len(results) > 0 {
		return model.Answer{Text: summarise(results)}
	}
	text, first := lastUser(r.Messages)
	offered := offeredTools(r.Tools)
	a, ok := p.apply(text, offered)
	if _, bare, named := strings.Cut(text, "] "); !ok && named && text[0] == '[' {
		a, ok = p.apply(strings.TrimSpace(bare), offered) // behind the name of who wrote it
	}
	if i := strings.LastIndex(text, "\n\n"); !ok && i >= 0 {
		a, ok = p.apply(strings.TrimSpace(text[i:]), offered) // below a hint that a job or a platform put before it
	}
	if !ok {
		return model.Answer{Text: unknown(text, first, offered)}
	}
	for i := range a.ToolCalls {
		a.ToolCalls[i].ID = callID(r.Messages, i)
		a.Finish = model.FinishTools
	}
	return a
}

// apply gives what the first fitting rule says.
func (p *Provider) apply(text string, o offered) (model.Answer, bool) {
	for _, rule := range p.rules {
		if m := rule.match.FindStringSubmatch(text); m != nil {
			if a, ok := rule.act(p, m, o); ok {
				return a, true
			}
		}
	}
	return model.Answer{}, false
}

// trailingResults gives the tool results that nobody has answered yet.
func trailingResults(messages []domain.Message) []domain.Message {
	end := len(messages)
	for end > 0 && messages[end-1].Role == domain.RoleTool {
		end--
	}
	return messages[end:]
}

// lastUser gives the text that was written last, and whether nothing was
// answered before it.
func lastUser(messages []domain.Message) (text string, first bool) {
	first = true
	for i := len(messages) - 1; i >= 0; i-- {
		switch messages[i].Role {
		case domain.RoleUser:
			if text == "" {
				text = strings.TrimSpace(messages[i].Content)
			}
		case domain.RoleAssistant:
			first = false
		}
	}
	return text, first
}

// callID gives an id that is the same for the same conversation and differs
// between the calls of one.
func callID(messages []domain.Message, i int) string {
	h := fnv.New64a()
	for _, m := range messages {
		_, _ = fmt.Fprintf(h, "%d %s %s\n", m.ID, m.Role, m.Content)
	}
	return fmt.Sprintf("call_offline_%x_%d_%d", h.Sum64(), len(messages), i)
}

// maxShown bounds how much of a tool's result is repeated, in bytes.
const maxShown = 1500

// summarise tells what tools gave.
func summarise(results []domain.Message) string {
	var b strings.Builder
	for i, m := range results {
		if i > 0 {
			b.WriteString("\n\n")
		}
		name := m.ToolName
		if name == "" {
			name = "the tool"
		}
		content := strings.TrimSpace(m.Content)
		if content == "" {
			fmt.Fprintf(&b, "%s has run and said nothing.", name)
			continue
		}
		fmt.Fprintf(&b, "%s answered:\n\n%s", name, fence(head(content, maxShown)))
	}
	b.WriteString("\n\n(Offline stand-in: I repeat what tools say and understand none of it.)")
	return b.String()
}

// fence puts text into a code block that the text itself cannot close.
func fence(text string) string {
	mark := "```"
	for strings.Contains(text, mark) {
		mark += "`"
	}
	return mark + "\n" + text + "\n" + mark
}

// tail keeps the last n bytes of text or so, between runes.
func tail(text string, n int) string {
	if len(text) <= n {
		return text
	}
	at := len(text) - n
	for at < len(text) && !utf8.RuneStart(text[at]) {
		at++
	}
	return "[cut …]\n" + text[at:]
}

// head cuts text after at most n bytes, between runes.
func head(text string, n int) string {
	if len(text) <= n {
		return text
	}
	for n > 0 && !utf8.RuneStart(text[n]) {
		n--
	}
	return text[:n] + "\n[… cut]"
}

// pieces cuts text for streaming, after spaces and in at most 24 bytes or so.
func pieces(text string) []string {
	const most = 24
	var out []string
	for len(text) > most {
		i := strings.LastIndexByte(text[:most], ' ') + 1
		if i == 0 {
			for i = most; i < len(text) && !utf8.RuneStart(text[i]); i++ {
			}
		}
		out = append(out, text[:i])
		text = text[i:]
	}
	if text != "" {
		out = append(out, text)
	}
	return out
}

// offered is what the request offers: the properties of each tool's schema.
type offered map[string]map[string]bool

func offeredTools(tools []model.ToolSpec) offered {
	out := offered{}
	for _, t := range tools {
		var s struct {
			Properties map[string]json.RawMessage `json:"properties"`
		}
		_ = json.Unmarshal(t.Schema, &s) // a schema that is none has no properties
		out[t.Name] = map[string]bool{}
		for name := range s.Properties {
			out[t.Name][name] = true
		}
	}
	return out
}

// has tells whether the tool is offered.
func (o offered) has(name string) bool { return o[name] != nil }

// call gives an answer that calls the tool, false when it is not offered.
// Arguments that its schema does not know are left out.
func (o offered) call(name string, args map[string]any) (model.Answer, bool) {
	if !o.has(name) {
		return model.Answer{}, false
	}
	for k := range args {
		if len(o[name]) > 0 && !o[name][k] {
			delete(args, k)
		}
	}
	b, err := json.Marshal(args)
	if err != nil {
		return model.Answer{}, false
	}
	return model.Answer{ToolCalls: []domain.ToolCall{{Name: name, Arguments: string(b)}}}, true
}
