package conversation

import (
	"context"

	"hermes/internal/agent"
	"hermes/internal/domain"
	"hermes/internal/ledger"
	"hermes/internal/model"
)

// ChatRequest is a turn that a program asks for and waits for.
type ChatRequest struct {
	SessionID domain.SessionID
	// Stored says that the session's own transcript is the history and that
	// calls to it go one after another; otherwise History is.
	Stored  bool
	Source  domain.Source
	Kind    domain.TurnKind // TurnAPI or TurnCron
	System  string
	History []domain.Message
	Input   domain.Message
	Model   string
	// Provider answers in place of the configured one, where not nil; Window is
	// its model's context length in tokens, 0 where it is not known.
	Provider model.Provider
	Window   int
	Vars     map[string]string // for the environment of commands
	Toolsets []string
	Workdir  string
	RunID    int64
	// End, where not nil, gives what the turn's last transaction has to contain
	// beside the transcript: the end of its run and what is to be delivered.
	End func(ChatResult, error) (*ledger.RunEnd, []domain.NewDelivery)
}

// ChatResult is its outcome. On an error it says what there was before it.
type ChatResult struct {
	SessionID domain.SessionID
	TurnID    int64
	Text      string
	Finish    model.FinishReason
	Usage     domain.Usage
	Model     string
	Completed bool
	Files     []domain.Attachment
}

// call is one Chat. It lies on the heap, and holds no more than it needs until
// its end: thousands of calls wait for their models at once.
type call struct {
	*Lanes
	req     *ChatRequest
	ref     ledger.TurnRef
	session domain.SessionID
	turn    *agent.Turn
	out     *agent.Outcome
}

// Chat runs a turn for a caller who waits for it. It only reads r. onEvent,
// where not nil, is called from the turn's goroutine and must not block. When
// ctx ends the turn is interrupted. The result is never nil. Errors:
// domain.Unavailable while draining, and what the turn failed with.
func (l *Lanes) Chat(ctx context.Context, r *ChatRequest, onEvent func(domain.TurnEvent)) (*ChatResult, error) {
	if !l.enter() {
		return &ChatResult{}, domain.E(domain.Unavailable, nil, "the gateway is stopping; try again in a moment")
	}
	defer l.work.Done()
	if r.Stored {
		leave, err := l.serialize(ctx, r.SessionID)
		if err != nil {
			return &ChatResult{}, err
		}
		defer leave()
	}
	c := &call{Lanes: l, req: r}
	if err := c.begin(ctx, onEvent); err != nil {
		return &ChatResult{}, err
	}
	l.running.Add(1)
	defer func() { l.running.Add(-1); l.finished.Add(1) }()
	c.run(ctx)
	return c.settle(), c.out.Err
}

// begin commits the turn and prepares its run.
func (c *call) begin(ctx context.Context, onEvent func(domain.TurnEvent)) error {
	r := c.req
	claim, err := c.Store.StartTurn(ctx, ledger.NewTurn{Kind: r.Kind, SessionKey: chatKey(r), SessionID: r.SessionID, Source: r.Source,
		Input: []domain.Message{r.Input}, RunID: r.RunID}, c.Now())
	if err != nil {
		return err
	}
	c.ref, c.session = claim.Ref(), claim.Turn.SessionID
	if !r.Stored {
		claim.NewSession = true // its history comes with it
	}
	t := c.baseTurn(&claim, r.Toolsets)
	if !r.Stored {
		t.History, t.Compact = r.History, nil
	}
	if r.Model != "" {
		t.Model = r.Model
	}
	parts := agent.PromptParts{Source: r.Source, Kind: r.Kind, Extra: r.System}
	if r.Provider != nil {
		t.Provider, t.Model, t.Limits.MaxTokens = r.Provider, "", 0
		t.Limits.ContextTokens = r.Window
	}
	t.Env.Vars = r.Vars
	if r.Workdir != "" {
		t.Env.Workdir, parts.Context = r.Workdir, agent.ReadContext(r.Workdir)
	}
	parts.Workdir = t.Env.Workdir
	t.System = c.systemPrompt(parts)
	t.Observe = onEvent
	t.DenyWith = "It needs a person's approval, and over this interface nobody can be asked. Allow it in a chat with /approve always, or by command_allowlist in config.yaml."
	c.turn = t
	return nil
}

// run runs the turn until it ends or its caller leaves.
func (c *call) run(ctx context.Context) {
	turnCtx, cancel := context.WithCancelCause(c.base)
	defer cancel(nil)
	defer context.AfterFunc(ctx, func() { cancel(agent.ErrStopped) })()
	c.out = c.guardedRun(turnCtx, c.turn)
	if c.out.State == domain.TurnRunning { // released: its caller is gone with us
		c.out.State = domain.TurnInterrupted
	}
}

// enter counts the caller as work, unless the lanes drain.
func (l *Lanes) enter() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.draining {
		return false
	}
	l.work.Add(1)
	return true
}

// chatKey is the session key of a call. A call without a stored session has
// one of its own, so that equal calls do not wait for one another.
func chatKey(r *ChatRequest) domain.SessionKey {
	return domain.SessionKey("agent:main:" + string(r.Source.Platform) + ":dm:" + string(r.SessionID))
}

// settle stores the end of the turn and gives its result.
func (c *call) settle() *ChatResult {
	l, out := c.Lanes, c.out
	res := &ChatResult{SessionID: c.session, TurnID: c.ref.ID, Text: out.Text, Finish: out.Finish, Usage: out.Usage, Model: out.Model,
		Completed: out.State == domain.TurnDone, Files: out.Files}
	ctx, cancel := l.settleContext()
	defer cancel()
	f := ledger.Finish{State: out.State, Messages: out.Messages, Usage: out.Usage, Now: l.Now()}
	if out.Err != nil {
		f.Error = domain.MessageOf(out.Err)
	}
	if c.req.End != nil {
		f.Run, f.Deliveries = c.req.End(*res, out.Err)
	}
	err := l.persist(ctx, "finish", func(ctx context.Context) error {
		_, err := l.Store.FinishTurn(ctx, c.ref, f)
		return err
	})
	for _, d := range f.Deliveries {
		l.Outbox.Wake(d.To)
	}
	if err != nil {
		l.Log.Error("the end of a call's turn could not be stored", "component", "conversation", "turn", c.ref.ID, "err", err)
	}
	return res
}

// serialize makes calls to one stored session wait for one another.
func (l *Lanes) serialize(ctx context.Context, id domain.SessionID) (leave func(), err error) {
	for {
		l.mu.Lock()
		busy, taken := l.serial[id]
		if !taken {
			mine := make(chan struct{})
			l.serial[id] = mine
			l.mu.Unlock()
			return func() {
				l.mu.Lock()
				delete(l.serial, id)
				l.mu.Unlock()
				close(mine)
			}, nil
		}
		l.mu.Unlock()
		select {
		case <-busy:
		case <-ctx.Done():
			return nil, domain.E(domain.Cancelled, ctx.Err(), "the caller left while another call to session %s ran", id)
		}
	}
}
