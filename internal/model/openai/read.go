package openai

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"hermes/internal/domain"
	"hermes/internal/model"
)

const (
	// afterFinish is how long the usage and [DONE] are waited for once the
	// answer is whole.
	afterFinish = 5 * time.Second
	// afterDone is how long the end of the body is waited for, so that the
	// connection can be used again.
	afterDone = 100 * time.Millisecond
)

// finishError is how routers say that the upstream failed in the middle.
const finishError model.FinishReason = "error"

// errTruncated says that a stream ended before the answer did.
var errTruncated = errors.New("the stream ended before the answer did")

// badJSON is an event or a body that is no JSON.
type badJSON struct {
	text string // its head
	err  error
}

func (e *badJSON) Error() string { return fmt.Sprintf("%v in %q", e.err, e.text) }

// upstreamError is an error object in the place of an answer.
type upstreamError struct{ body []byte }

func (e *upstreamError) Error() string { return "an error in place of an answer: " + string(e.body) }

// assembly puts an answer together from its pieces.
type assembly struct {
	limits          *Limits
	text, reasoning strings.Builder
	thinking        thinking
	calls           []*callAssembly
	finish          model.FinishReason
	model           string
	usage           *usage
}

type callAssembly struct {
	index    int
	hasIndex bool
	id, name string
	args     strings.Builder
	extra    json.RawMessage // extra_content
}

func newAssembly(l *Limits) *assembly { return &assembly{limits: l} }

// readStream reads events until the answer is whole.
func readStream(in *watchedReader, a *assembly, onDelta func(model.Delta)) error {
	ev := newEvents(in)
	for {
		data, err := ev.next()
		if errors.Is(err, io.EOF) {
			err = errTruncated
		}
		if err != nil {
			if a.finish != "" && !errors.Is(err, errTooLong) {
				return nil // only the usage and the farewell are missing
			}
			return err
		}
		data = bytes.TrimSpace(data)
		if len(data) == 0 {
			continue
		}
		if bytes.Equal(data, []byte("[DONE]")) {
			if a.finish == "" {
				a.finish = model.FinishStop
			}
			return nil
		}
		d, err := a.add(data)
		if err != nil {
			return err
		}
		if d.Text != "" || d.Reasoning != "" {
			onDelta(d)
		}
		if a.finish != "" && !in.last {
			in.ending(afterFinish)
		}
	}
}

// readWhole reads an answer that is not streamed.
func readWhole(in io.Reader, a *assembly, onDelta func(model.Delta)) error {
	body, err := io.ReadAll(io.LimitReader(in, 16<<20+1))
	if err != nil {
		return err
	}
	if len(body) > 16<<20 {
		return errTooLong
	}
	d, err := a.add(body)
	if err != nil {
		return err
	}
	if onDelta != nil && (d.Text != "" || d.Reasoning != "") {
		onDelta(d)
	}
	return nil
}

// drain reads to the end of a finished answer, so that its connection can be
// used again.
func drain(in *watchedReader) {
	in.ending(afterDone)
	_, _ = io.Copy(io.Discard, io.LimitReader(in, 4<<10))
}

// add takes one event or a whole answer, and gives what was new in it.
func (a *assembly) add(data []byte) (model.Delta, error) {
	var r response
	if err := json.Unmarshal(data, &r); err != nil {
		// A field of another type than expected is passed over.
		if _, ok := errors.AsType[*json.UnmarshalTypeError](err); !ok {
			return model.Delta{}, &badJSON{string(data[:min(len(data), 200)]), err}
		}
	}
	if isError(r.Error) {
		return model.Delta{}, &upstreamError{bytes.Clone(data[:min(len(data), 4<<10)])}
	}
	if r.Model != "" {
		a.model = r.Model
	}
	if r.Usage != nil {
		a.usage = r.Usage
	}
	if len(r.Choices) == 0 {
		return model.Delta{}, nil
	}
	ch := r.Choices[0]
	if isError(ch.Error) {
		return model.Delta{}, &upstreamError{bytes.Clone(data[:min(len(data), 4<<10)])}
	}
	var d model.Delta
	for _, s := range []*said{ch.Delta, ch.Message} {
		if s == nil {
			continue
		}
		piece, err := a.say(s, s == ch.Message)
		if err != nil {
			return d, err
		}
		d.Text += piece.Text
		d.Reasoning += piece.Reasoning
	}
	if ch.Finish != "" {
		a.finish = finishReason(ch.Finish)
	}
	return d, nil
}

func isError(raw json.RawMessage) bool {
	return len(raw) > 0 && !bytes.Equal(raw, []byte("null")) && !bytes.Equal(raw, []byte("{}"))
}

// finishReason maps a service's word to ours; unknown ones are a plain end.
func finishReason(word string) model.FinishReason {
	switch word {
	case "length", "max_tokens":
		return model.FinishLength
	case "tool_calls", "function_call":
		return model.FinishTools
	case "content_filter":
		return model.FinishFilter
	case "error":
		return finishError
	}
	return model.FinishStop
}

// say takes a message, whole or a piece of one.
func (a *assembly) say(s *said, whole bool) (model.Delta, error) {
	d := a.thinking.split(string(s.Content) + string(s.Refusal))
	if s.ReasoningContent != "" {
		d.Reasoning += string(s.ReasoningContent)
	} else {
		d.Reasoning += string(s.Reasoning)
	}
	return d, a.append(d, s.ToolCalls, whole)
}

// append adds what was said to the answer, within the limits.
func (a *assembly) append(d model.Delta, calls []callDelta, whole bool) error {
	if a.text.Len()+len(d.Text) > a.limits.AnswerBytes || a.reasoning.Len()+len(d.Reasoning) > a.limits.AnswerBytes {
		return errTooLong
	}
	a.text.WriteString(d.Text)
	a.reasoning.WriteString(d.Reasoning)
	for _, t := range calls {
		if err := a.callDelta(t, whole); err != nil {
			return err
		}
	}
	return nil
}

// flush adds what was held back when the answer is whole, and tells it.
func (a *assembly) flush(onDelta func(model.Delta)) error {
	d := a.thinking.end()
	if err := a.append(d, nil, false); err != nil {
		return err
	}
	if onDelta != nil && d != (model.Delta{}) {
		onDelta(d)
	}
	return nil
}

// callDelta takes a piece of a tool call, or a whole one.
func (a *assembly) callDelta(t callDelta, whole bool) error {
	var call *callAssembly
	if !whole {
		call = a.callFor(t)
	}
	if call == nil {
		if len(a.calls) >= a.limits.ToolCalls {
			return errTooLong
		}
		call = &callAssembly{}
		if t.Index != nil {
			call.index, call.hasIndex = *t.Index, true
		}
		a.calls = append(a.calls, call)
	}
	if call.id == "" {
		call.id = t.ID
	}
	switch name := t.Function.Name; {
	case name == "" || name == call.name:
	case call.args.Len() == 0:
		if len(call.name)+len(name) > 256 {
			return errTooLong
		}
		call.name += name
	}
	if call.args.Len()+len(t.Function.Arguments) > a.limits.ArgumentBytes {
		return errTooLong
	}
	call.args.WriteString(string(t.Function.Arguments))
	if len(t.ExtraContent) > 0 && len(t.ExtraContent) <= maxExtra {
		call.extra = bytes.Clone(t.ExtraContent)
	}
	return nil
}

// callFor finds the call that a piece goes on with; nil means that it begins
// one. Pieces belong together by index; but some services leave the index out
// and others give every call index 0, so a piece with a name and a new id
// begins a call whatever its index says.
func (a *assembly) callFor(t callDelta) *callAssembly {
	begins := func(c *callAssembly) bool {
		return t.ID != "" && c.id != "" && t.ID != c.id && t.Function.Name != ""
	}
	if t.Index == nil {
		for _, c := range a.calls {
			if t.ID != "" && c.id == t.ID {
				return c
			}
		}
		if t.Function.Name != "" || len(a.calls) == 0 {
			return nil
		}
		return a.calls[len(a.calls)-1]
	}
	for i := len(a.calls) - 1; i >= 0; i-- {
		c := a.calls[i]
		if c.hasIndex && c.index == *t.Index {
			if begins(c) {
				// The same index again: an earlier call with this id goes on,
				// else it is a new one.
				for _, other := range a.calls {
					if other.id == t.ID {
						return other
					}
				}
				return nil
			}
			return c
		}
	}
	return nil
}

// blank tells whether nothing is known of the call: some services send an
// empty one beside an answer in text.
func (c *callAssembly) blank() bool { return c.id == "" && c.name == "" && c.args.Len() == 0 }

// nameless tells whether a tool call lacks its name.
func (a *assembly) nameless() bool {
	for _, c := range a.calls {
		if !c.blank() && strings.TrimSpace(c.name) == "" {
			return true
		}
	}
	return false
}

// answer gives the whole answer. Every tool call has an id of its own.
func (a *assembly) answer(provider string) *model.Answer {
	ans := &model.Answer{Text: a.text.String(), Reasoning: a.reasoning.String(), Finish: a.finish, Model: a.model}
	seen := map[string]bool{}
	for _, c := range a.calls {
		if c.blank() {
			continue
		}
		id := c.id
		if id == "" || seen[id] {
			id = "call_" + rand.Text()
		}
		seen[id] = true
		ans.ToolCalls = append(ans.ToolCalls, domain.ToolCall{ID: id, Name: strings.TrimSpace(c.name), Arguments: c.args.String(), Extra: keepExtra(provider, c.extra)})
	}
	switch {
	case len(ans.ToolCalls) > 0 && ans.Finish != model.FinishLength && ans.Finish != finishError:
		ans.Finish = model.FinishTools
	case ans.Finish == "" || ans.Finish == model.FinishTools:
		ans.Finish = model.FinishStop
	}
	return ans
}
