package agent

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
	"unicode/utf8"

	"hermes/internal/domain"
	"hermes/internal/failpoint"
	"hermes/internal/home"
	"hermes/internal/tool"
)

// sameCallLimit is how often in a row a model may make the very same call
// before it is told to stop.
const sameCallLimit = 4

// defaultResultBytes bounds a tool result where Limits does not.
const defaultResultBytes = 32 << 10

// replay rebuilds the run from its journal.
func (r *run) replay() {
	r.msgs = append(r.msgs, r.Input...)
	for _, s := range r.Steps {
		switch s.Kind {
		case domain.StepAnswer:
			r.calls++
			r.usage = r.usage.Add(s.Usage)
			r.msgs = append(r.msgs, s.Message)
		case domain.StepToolStarted:
			r.started[s.CallID] = true
		case domain.StepToolFinished, domain.StepInput:
			r.msgs = append(r.msgs, s.Message)
		}
	}
	for _, q := range r.Answers {
		r.answered[q.CallID] = q
	}
}

// outstanding lists the calls of the last answer that have no result yet.
func (r *run) outstanding() []domain.ToolCall {
	last := len(r.msgs) - 1
	for ; last >= 0 && r.msgs[last].Role != domain.RoleAssistant; last-- {
	}
	if last < 0 {
		return nil
	}
	done := map[string]bool{}
	for _, m := range r.msgs[last+1:] {
		if m.Role == domain.RoleTool {
			done[m.ToolCallID] = true
		}
	}
	var open []domain.ToolCall
	for _, c := range r.msgs[last].ToolCalls {
		if !done[c.ID] {
			open = append(open, c)
		}
	}
	return open
}

// runTools runs the outstanding calls in order. A question ends the run; the
// calls behind it are made when the turn is continued.
func (r *run) runTools() (*domain.Question, error) {
	for _, c := range r.outstanding() {
		if err := context.Cause(r.ctx); err != nil {
			return nil, err
		}
		q, err := r.runCall(c)
		if q != nil || err != nil {
			return q, err
		}
	}
	return nil, nil
}

// runCall makes one call: look up, recover, guard, journal, run, journal.
func (r *run) runCall(c domain.ToolCall) (*domain.Question, error) {
	t, known := r.Tools.lookup(c.Name)
	args := json.RawMessage(c.Arguments)
	if strings.TrimSpace(c.Arguments) == "" {
		args = json.RawMessage("{}")
	}
	switch {
	case !known:
		return nil, r.finish(c, fmt.Sprintf("Error: there is no tool %q. The tools are: %s.", c.Name, r.Tools.names()))
	case !json.Valid(args):
		return nil, r.finish(c, "Error: the arguments are not valid JSON. Nothing was run. Call the tool again with one JSON object.")
	case r.started[c.ID] && !t.ReadOnly:
		return nil, r.finish(c, "[interrupted: the gateway was restarted while this ran. It was not run again. Its outcome is unknown: check before you repeat it.]")
	case r.repeated(c):
		return nil, r.finish(c, "Error: this very call was just made several times with the same result. Do something else, or answer.")
	}
	env := r.Env
	env.CallID = c.ID
	if q, stop, err := r.guard(t, &env, c, args); stop || err != nil || q != nil {
		return q, err
	}
	if !r.started[c.ID] {
		if err := r.journal(domain.Step{Kind: domain.StepToolStarted, CallID: c.ID, Tool: c.Name}); err != nil {
			return nil, err
		}
	}
	failpoint.Hit(failpoint.ToolStarted)
	label := c.Name
	if t.Label != nil {
		label = t.Label(args)
	}
	r.observe(domain.TurnEvent{Kind: domain.EventToolStarted, Tool: c.Name, CallID: c.ID, Label: label})
	res, err := r.protect(t, env, args)
	failpoint.Hit(failpoint.ToolRan)
	r.observe(domain.TurnEvent{Kind: domain.EventToolFinished, Tool: c.Name, CallID: c.ID, Label: label, Failed: err != nil})
	if cause := context.Cause(r.ctx); cause != nil {
		return nil, cause // the journal says started; what it did is unknown
	}
	text := res.Content
	if err != nil {
		text = strings.TrimSpace(text + "\nError: " + errorForModel(err))
	}
	r.files = append(r.files, res.Files...)
	err = r.finish(c, text)
	failpoint.Hit(failpoint.ToolFinished)
	return nil, err
}

// guard asks the tool's guard. stop says that the call has its result already.
func (r *run) guard(t tool.Tool, env *tool.Env, c domain.ToolCall, args json.RawMessage) (q *domain.Question, stop bool, err error) {
	if t.Guard == nil || r.started[c.ID] {
		return nil, false, nil
	}
	d, err := r.protectGuard(t, *env, args)
	if err != nil {
		return nil, true, r.finish(c, "Error: "+errorForModel(err))
	}
	switch d.Action {
	case tool.Refuse:
		return nil, true, r.finish(c, "Refused: "+d.Reason)
	case tool.Run:
		return nil, false, nil
	}
	if a, ok := r.answered[c.ID]; ok {
		denied := a.Answer == domain.ApproveDeny || a.Answer == domain.AnswerExpired
		if a.Kind == domain.AskApproval && denied {
			why := "the user refused it"
			if a.Answer == domain.AnswerExpired {
				why = "nobody approved it in time"
			}
			return nil, true, r.finish(c, "Refused: "+why+". Do not try it again in another form; say what you could not do.")
		}
		env.Answer = a.Answer
		return nil, false, nil
	}
	if !r.CanAsk {
		why := r.DenyWith
		if why == "" {
			why = "nobody can be asked here"
		}
		return nil, true, r.finish(c, "Refused: "+d.Question.Text+" "+why)
	}
	question := d.Question
	question.TurnID, question.SessionKey, question.CallID, question.AskedAt = r.ID, r.Env.SessionKey, c.ID, r.now()
	return &question, false, nil
}

// finish journals a call's result and adds it to the conversation.
func (r *run) finish(c domain.ToolCall, text string) error {
	m := r.result(c, r.bound(c, text))
	if err := r.journal(domain.Step{Kind: domain.StepToolFinished, CallID: c.ID, Tool: c.Name, Message: m}); err != nil {
		return err
	}
	r.msgs = append(r.msgs, m)
	return nil
}

func (r *run) result(c domain.ToolCall, text string) domain.Message {
	return domain.Message{Role: domain.RoleTool, ToolCallID: c.ID, ToolName: c.Name, Content: text, At: r.now()}
}

// protect runs a tool; a panic in it is an error of that call only.
func (r *run) protect(t tool.Tool, env tool.Env, args json.RawMessage) (res tool.Result, err error) {
	defer func() {
		if p := recover(); p != nil {
			r.log.Error("tool panicked", "component", "agent", "tool", t.Name, "turn", r.ID, "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
			err = domain.E(domain.Internal, nil, "the tool %s crashed; this is a defect of the tool, and nothing else was harmed", t.Name)
		}
	}()
	return t.Run(r.ctx, env, args)
}

func (r *run) protectGuard(t tool.Tool, env tool.Env, args json.RawMessage) (d tool.Decision, err error) {
	defer func() {
		if p := recover(); p != nil {
			r.log.Error("guard panicked", "component", "agent", "tool", t.Name, "turn", r.ID, "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
			d, err = tool.Decision{}, domain.E(domain.Internal, nil, "the check of %s crashed, so it was not run", t.Name)
		}
	}()
	return t.Guard(r.ctx, env, args)
}

// errorForModel words an error for the model: our sentence where we have one.
func errorForModel(err error) string {
	if domain.CodeOf(err) == domain.Internal && domain.MessageOf(err) == "internal error" {
		return err.Error()
	}
	return domain.MessageOf(err)
}

// repeated notes a call and tells whether it was made too often in a row.
func (r *run) repeated(c domain.ToolCall) bool {
	sig := c.Name + "\x00" + c.Arguments
	if n := len(r.recent); n > 0 && r.recent[n-1] != sig {
		r.recent = r.recent[:0]
	}
	r.recent = append(r.recent, sig)
	return len(r.recent) > sameCallLimit
}

// bound keeps head and tail of an oversized result and puts the whole of it
// into a file, whose path the model is told.
func (r *run) bound(c domain.ToolCall, text string) string {
	text = strings.ToValidUTF8(strings.ReplaceAll(text, "\x00", ""), "\uFFFD")
	if r.Redact != nil {
		text = r.Redact(text)
	}
	limit := r.Limits.ResultBytes
	if limit <= 0 {
		limit = defaultResultBytes
	}
	if len(text) <= limit {
		return text
	}
	where := ""
	if r.Env.CacheDir != "" {
		dir := filepath.Join(r.Env.CacheDir, "results")
		path := filepath.Join(dir, fmt.Sprintf("turn-%d-%s.txt", r.ID, fileSafe(c.ID)))
		if os.MkdirAll(dir, 0o700) == nil && home.WriteAtomic(path, []byte(text), 0o600) == nil {
			where = "; all of it is in " + path
		}
	}
	head, tail := cutRunes(text, limit*2/3), cutRunesTail(text, limit/3)
	return fmt.Sprintf("%s\n[… %d bytes left out%s …]\n%s", head, len(text)-len(head)-len(tail), where, tail)
}

func fileSafe(s string) string {
	return strings.Map(func(c rune) rune {
		if c == '-' || c == '_' || c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' {
			return c
		}
		return '_'
	}, cutRunes(s, 64))
}

func cutRunes(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}

func cutRunesTail(s string, n int) string {
	if len(s) <= n {
		return s
	}
	i := len(s) - n
	for i < len(s) && !utf8.RuneStart(s[i]) {
		i++
	}
	return s[i:]
}
