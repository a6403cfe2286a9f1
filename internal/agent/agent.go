// Package agent runs one turn: prompt, model call, tool calls, again, until
// the final answer. Every step is journaled before its consequence, so that a
// turn that a crash cut off goes on from its journal. The package knows nothing
// of chats, lanes and the store; it sees the small interfaces in Turn.
package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"hermes/internal/domain"
	"hermes/internal/failpoint"
	"hermes/internal/model"
	"hermes/internal/tool"
)

// The causes with which a turn's context is cancelled, and what they mean for
// the turn: a stop ends it as interrupted; a release leaves it to be resumed
// from its journal by whoever claims it next.
var (
	ErrStopped  = errors.New("stopped by the user")
	ErrReleased = errors.New("released for another process")
	errStalled  = errors.New("no activity within the limit")
)

// Agent runs turns. It holds no state of any turn and is safe for concurrent use.
type Agent struct {
	model model.Provider
	log   *slog.Logger
	now   func() time.Time
}

// New makes an Agent.
func New(p model.Provider, log *slog.Logger, now func() time.Time) *Agent {
	return &Agent{model: p, log: log, now: now}
}

// Limits bound a turn. A zero field means no bound.
type Limits struct {
	Steps         int           // model calls
	Idle          time.Duration // without a delta, a step or a tool's end
	ContextTokens int           // the model's window
	CompressAt    float64       // share of ContextTokens at which the history is compressed
	ResultBytes   int           // of one tool result; the rest goes to a file
	MaxTokens     int           // of one answer; 0 means the model's default
}

// Turn is all that a run needs.
type Turn struct {
	ID       int64
	Model    string         // "" means the configured one
	Provider model.Provider // nil means the agent's
	System   string
	History  []domain.Message // the session's transcript before this turn
	Input    []domain.Message
	Steps    []domain.Step     // the journal, when the turn is continued
	Answers  []domain.Question // answers to the turn's questions
	Tools    *Toolset          // nil for none
	Env      tool.Env          // CallID and Answer are filled in per call
	Limits   Limits
	CanAsk   bool   // a person can be asked and will be waited for
	DenyWith string // what the model is told when nobody can be asked

	// Redact takes secrets out of what tools said. May be nil.
	Redact func(string) string
	// Journal makes a step durable before it returns.
	Journal func(ctx context.Context, s domain.Step) error
	// Join gives text that joined the turn meanwhile (steer), already
	// journaled. May be nil.
	Join func(ctx context.Context) ([]domain.Message, error)
	// Compact replaces the transcript up to a message id by a summary. May be nil.
	Compact func(ctx context.Context, upTo int64, summary domain.Message) error
	// Observe is told of progress; it must not block. May be nil.
	Observe func(domain.TurnEvent)
}

// Outcome is how a run ended. State is done, failed, interrupted or waiting
// (then Question is set), or running when the turn was released and is to be
// resumed by another process.
type Outcome struct {
	State    domain.TurnState
	Text     string // the final answer
	Finish   model.FinishReason
	Messages []domain.Message // what the transcript gains: input, steps, answer
	Files    []domain.Attachment
	Usage    domain.Usage
	Model    string
	Question *domain.Question
	Err      error // why it failed, or was fenced
}

// run is the state of one run.
type run struct {
	*Agent
	*Turn
	ctx      context.Context
	touch    func() // proves activity
	history  []domain.Message
	msgs     []domain.Message // since the turn began: input, answers, results
	started  map[string]bool  // calls that the journal says were started
	answered map[string]domain.Question
	calls    int
	usage    domain.Usage
	files    []domain.Attachment
	model    string
	recent   []string // signatures of the latest tool calls
	squeezed bool
}

// Run runs a turn to its end, or to where it waits or is let go. It returns
// soon after ctx ends, whatever a tool or the model does. It only reads t.
//
// Thousands of runs wait for their models at once, each with the whole row of
// calls from here to the socket on its stack: so these pass big things by
// pointer and leave what comes before and after the wait to functions of its own.
func (a *Agent) Run(ctx context.Context, t *Turn) (out *Outcome) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	if t.Provider != nil {
		own := *a
		own.model = t.Provider
		a = &own
	}
	r := &run{Agent: a, Turn: t, ctx: ctx, history: t.History, started: map[string]bool{}, answered: map[string]domain.Question{}, touch: func() {}}
	if t.Limits.Idle > 0 {
		timer := time.AfterFunc(t.Limits.Idle, func() { cancel(errStalled) })
		defer timer.Stop()
		r.touch = func() { timer.Reset(t.Limits.Idle) }
	}
	r.start()
	defer func() { r.observeEnd(out) }()
	return r.loop()
}

// start tells that the turn runs and takes up its journal.
func (r *run) start() {
	r.observe(domain.TurnEvent{Kind: domain.EventStarted})
	r.replay()
}

// observeEnd tells how the run ended; out is nil when it panicked.
func (r *run) observeEnd(out *Outcome) {
	e := domain.TurnEvent{Kind: domain.EventEnded}
	if out != nil {
		e.Failed, e.Text = out.State == domain.TurnFailed, eventText(out)
		if out.State == domain.TurnWaiting {
			e.Kind = domain.EventWaiting
		}
	}
	r.observe(e)
}

func eventText(o *Outcome) string {
	switch {
	case o.Question != nil:
		return o.Question.Text
	case o.Err != nil:
		return domain.MessageOf(asDomain(o.Err))
	}
	return o.Text
}

func (r *run) observe(e domain.TurnEvent) {
	if r.Observe != nil {
		e.TurnID = r.ID
		r.Observe(e)
	}
}

// loop is the turn: finish what the last answer asked for, call the model, again.
func (r *run) loop() *Outcome {
	for {
		q, err := r.runTools()
		switch {
		case err != nil:
			return r.ended(err)
		case q != nil:
			return &Outcome{State: domain.TurnWaiting, Question: q, Usage: r.usage, Model: r.model}
		}
		if err := r.join(); err != nil {
			return r.ended(err)
		}
		ans, err := r.ask()
		if err != nil {
			return r.ended(err)
		}
		if len(ans.ToolCalls) == 0 {
			return r.done(ans)
		}
		if err := r.keep(ans); err != nil {
			return r.ended(err)
		}
	}
}

// message is an answer as the transcript keeps it.
func (r *run) message(a *model.Answer) domain.Message {
	return domain.Message{Role: domain.RoleAssistant, Content: a.Text, Reasoning: a.Reasoning, ToolCalls: a.ToolCalls, At: r.now()}
}

// done is the outcome of a final answer.
func (r *run) done(a *model.Answer) *Outcome {
	r.msgs = append(r.msgs, r.message(a))
	return &Outcome{State: domain.TurnDone, Text: a.Text, Finish: a.Finish, Messages: r.msgs, Files: r.files, Usage: r.usage, Model: r.model}
}

// keep journals an answer that calls tools.
func (r *run) keep(a *model.Answer) error {
	msg := r.message(a)
	if err := r.journal(domain.Step{Kind: domain.StepAnswer, Message: msg, Usage: a.Usage}); err != nil {
		return err
	}
	failpoint.Hit(failpoint.AnswerJournaled)
	r.msgs = append(r.msgs, msg)
	r.observe(domain.TurnEvent{Kind: domain.EventAnswerReset})
	return nil
}

// journal makes a step durable.
func (r *run) journal(s domain.Step) error {
	r.touch()
	s.At = r.now()
	return r.Journal(r.ctx, s)
}

// join takes in what the user steered into the turn.
func (r *run) join() error {
	if r.Join == nil {
		return nil
	}
	in, err := r.Join(r.ctx)
	r.msgs = append(r.msgs, in...)
	return err
}

// ask calls the model once, with the history compressed where it must be. When
// the model says that the window is exceeded, the history is squeezed and the
// call is made once more.
func (r *run) ask() (*model.Answer, error) {
	tools, err := r.prepare()
	if err != nil {
		return nil, err
	}
	ans, err := r.complete(tools)
	if err == nil || r.squeezed || model.AsError(err).Kind != model.TooLarge {
		return ans, err
	}
	r.squeezed = true
	if err := r.compress(true); err != nil {
		return nil, err
	}
	return r.complete(tools)
}

// prepare makes the run ready for a model call, and gives the tools that the
// model may use in it: none in the last call that the limit allows.
func (r *run) prepare() (*Toolset, error) {
	if err := context.Cause(r.ctx); err != nil {
		return nil, err
	}
	tools := r.Tools
	if r.Limits.Steps > 0 && r.calls >= r.Limits.Steps {
		if r.calls > r.Limits.Steps {
			return nil, domain.E(domain.TooLarge, nil, "the turn reached its limit of %d model calls; say \"go on\" to continue, or raise agent.max_turns", r.Limits.Steps)
		}
		tools = nil // the last call must answer
		r.msgs = append(r.msgs, domain.Message{Role: domain.RoleUser, At: r.now(),
			Content: fmt.Sprintf("[The limit of %d steps is reached. Tools are off now. Say what was done, what is left, and how to go on.]", r.Limits.Steps)})
	}
	return tools, r.compress(false)
}

// complete makes a model call and counts what it cost.
func (r *run) complete(tools *Toolset) (*model.Answer, error) {
	ans, err := r.Agent.model.Complete(r.ctx, r.request(tools), r.heard)
	r.touch()
	if err != nil {
		return nil, r.callFailed(err)
	}
	r.usage = r.usage.Add(ans.Usage)
	if ans.Model != "" {
		r.model = ans.Model
	}
	if len(tools.offered()) == 0 {
		ans.ToolCalls = nil
	}
	return ans, nil
}

// request words the next model call.
func (r *run) request(tools *Toolset) *model.Request {
	r.calls++
	return &model.Request{Model: r.Model, System: r.System, Messages: r.prompt(), Tools: tools.offered(), MaxTokens: r.Limits.MaxTokens, SessionID: r.Env.SessionID, TurnID: r.ID}
}

// heard takes a piece of the answer.
func (r *run) heard(d model.Delta) {
	r.touch()
	if d.Reset {
		r.observe(domain.TurnEvent{Kind: domain.EventAnswerReset})
	}
	if d.Text != "" {
		r.observe(domain.TurnEvent{Kind: domain.EventDelta, Text: d.Text})
	}
}

// callFailed counts a failed model call, and gives the reason for which the
// turn was ended where that is why it failed.
func (r *run) callFailed(err error) error {
	r.usage = r.usage.Add(model.AsError(err).Usage)
	if cause := context.Cause(r.ctx); cause != nil {
		return cause
	}
	return err
}

// ended turns an error into an outcome. The transcript stays one that a
// provider accepts: calls without a result get one that says so.
func (r *run) ended(err error) *Outcome {
	if cause := context.Cause(r.ctx); cause != nil {
		err = cause
	}
	out := &Outcome{Usage: r.usage, Model: r.model, Err: err, Files: r.files}
	switch {
	case domain.IsCode(err, domain.Fenced):
		out.State = domain.TurnFailed
		return out
	case errors.Is(err, ErrReleased):
		out.State = domain.TurnRunning
		return out
	case errors.Is(err, ErrStopped), errors.Is(err, context.Canceled):
		out.State = domain.TurnInterrupted
	case errors.Is(err, errStalled):
		out.State = domain.TurnFailed
		out.Err = domain.E(domain.Timeout, err, "the turn showed no activity for %s and was ended; nothing it had finished is lost", r.Limits.Idle)
	default:
		out.State = domain.TurnFailed
		out.Err = asDomain(err)
	}
	for _, c := range r.outstanding() {
		r.msgs = append(r.msgs, r.result(c, "[not run: the turn ended before]"))
	}
	out.Messages = r.msgs
	return out
}

// Explain words an error of a turn for people.
func Explain(err error) string { return domain.MessageOf(asDomain(err)) }

// asDomain gives err the code and the sentence that people are shown.
func asDomain(err error) error {
	var d *domain.Error
	if err == nil || errors.As(err, &d) {
		return err
	}
	var m *model.Error
	if !errors.As(err, &m) {
		return err
	}
	code := domain.Unavailable
	switch m.Kind {
	case model.Auth:
		code = domain.Unauthenticated
	case model.Quota, model.RateLimited:
		code = domain.RateLimited
	case model.NoModel, model.NotSet:
		code = domain.Config
	case model.BadRequest:
		code = domain.Invalid
	case model.TooLarge, model.TooLong:
		code = domain.TooLarge
	case model.Timeout:
		code = domain.Timeout
	}
	return domain.E(code, m.Cause, "%s", m.Message)
}

// Toolset is a selection of tools, with what models are told of them. It does
// not change, and turns share it. A nil one is empty.
type Toolset struct {
	tools []tool.Tool
	specs []model.ToolSpec
}

// NewToolset makes a Toolset.
func NewToolset(tools []tool.Tool) *Toolset {
	s := &Toolset{tools: tools, specs: make([]model.ToolSpec, 0, len(tools))}
	for _, t := range tools {
		s.specs = append(s.specs, model.ToolSpec{Name: t.Name, Description: t.Description, Schema: t.Schema})
	}
	return s
}

// lookup finds a tool by its name.
func (s *Toolset) lookup(name string) (tool.Tool, bool) {
	if s != nil {
		for _, t := range s.tools {
			if t.Name == name {
				return t, true
			}
		}
	}
	return tool.Tool{}, false
}

// names lists the tools for people.
func (s *Toolset) names() string {
	if s == nil {
		return ""
	}
	names := make([]string, 0, len(s.tools))
	for _, t := range s.tools {
		names = append(names, t.Name)
	}
	return strings.Join(names, ", ")
}

// offered is what a model is told.
func (s *Toolset) offered() []model.ToolSpec {
	if s == nil {
		return nil
	}
	return s.specs
}
