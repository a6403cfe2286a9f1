package conversation

import (
	"context"
	"strings"
	"time"

	"hermes/internal/agent"
	"hermes/internal/delivery"
	"hermes/internal/domain"
	"hermes/internal/failpoint"
	"hermes/internal/ledger"
	"hermes/internal/model"
	"hermes/internal/platform"
	"hermes/internal/tool"
)

// maxRevivals is how often a turn is taken up again after its process died in
// the middle of it. One that keeps killing the process is ended, loudly.
const maxRevivals = 6

// runTurn runs a claimed chat turn to its end in the ledger.
func (l *Lanes) runTurn(ctx context.Context, a *active) {
	l.running.Add(1)
	defer func() { l.running.Add(-1); l.finished.Add(1) }()
	failpoint.Hit(failpoint.TurnClaimed)
	if !l.contained("a turn", func() { l.workTurn(ctx, a) }) {
		l.contained("the end of a turn", func() { l.settle(a.claim, crashed(a.claim.Turn.Input), "") })
	}
}

// workTurn is runTurn's work.
func (l *Lanes) workTurn(ctx context.Context, a *active) {
	c := a.claim
	log := l.Log.With("component", "conversation", "session", string(c.Turn.SessionID), "turn", c.Turn.ID)
	if c.Turn.Resumed {
		if c.Turn.Attempt-len(c.Answers) > maxRevivals {
			l.settle(c, &agent.Outcome{State: domain.TurnFailed, Messages: c.Turn.Input,
				Err: domain.E(domain.Internal, nil, "the gateway died %d times while it worked on this; it will not be tried again by itself", maxRevivals)}, "")
			return
		}
		log.Info("a turn goes on after a restart", "attempt", c.Turn.Attempt, "steps", len(c.Steps))
		l.notice(ctx, c.Turn.Source, "♻️ I was restarted and go on where I was.")
	}
	l.announceReset(ctx, c)
	l.fetchAttachments(ctx, &c)
	view := l.newView(ctx, c)
	out := l.guardedRun(ctx, l.agentTurn(&c, a, view.observe))
	preview := view.close()
	if out.State == domain.TurnFailed && !domain.IsCode(out.Err, domain.Fenced) {
		log.Warn("a turn failed", "err", out.Err)
	}
	l.settle(c, out, preview)
}

// guardedRun contains a panic of the agent: the turn fails, nothing else does.
func (l *Lanes) guardedRun(ctx context.Context, t *agent.Turn) (out *agent.Outcome) {
	if !l.contained("the agent", func() { out = l.Agent.Run(ctx, t) }) {
		return crashed(t.Input)
	}
	return out
}

// agentTurn fills in what the agent needs for a claim.
func (l *Lanes) agentTurn(c *ledger.Claim, a *active, observe func(domain.TurnEvent)) *agent.Turn {
	t := l.baseTurn(c, nil)
	t.System = l.systemPrompt(agent.PromptParts{Source: c.Turn.Source, Kind: c.Turn.Kind, Workdir: t.Env.Workdir})
	t.CanAsk = true
	t.Observe = observe
	if a != nil {
		a.steer.Store(l.Config.Display.BusyMode == BusySteer || len(c.Answers) > 0)
		t.Join = func(ctx context.Context) ([]domain.Message, error) {
			var in []domain.Inbound
			var err error
			if a.steer.Load() {
				in, err = l.Store.Received(ctx, c.Turn.SessionKey)
			}
			if err == nil && a.steerCommands.Swap(false) {
				var cmds []domain.Inbound
				cmds, err = l.steers(ctx, c.Turn.SessionKey)
				in = append(in, cmds...)
			}
			if err != nil {
				return nil, err
			}
			return l.join(ctx, *c, in)
		}
	}
	return t
}

// systemPrompt completes the parts with what is the same for every turn.
func (l *Lanes) systemPrompt(p agent.PromptParts) string {
	p.Soul, p.Memory, p.Now = agent.ReadSoul(l.Profile.Home), l.memory(), l.Now().In(l.Config.Zone())
	return agent.BuildPrompt(p)
}

// baseTurn is what turns of every kind have in common, but for the system prompt.
func (l *Lanes) baseTurn(c *ledger.Claim, toolsets []string) *agent.Turn {
	cfg := l.Config
	name := c.Session.Model
	window := model.ContextLength(cfg.Model.Model, cfg.Model.ContextLength)
	ref, id := c.Ref(), c.Turn.SessionID // closures keep these, not the claim
	return &agent.Turn{
		ID: c.Turn.ID, Model: name, Input: c.Turn.Input, Steps: c.Steps, Answers: c.Answers,
		Tools: l.Tools(c.Turn.Kind, c.Turn.Source.Platform, toolsets),
		Env: tool.Env{
			Home: l.Profile.Home, Workdir: cfg.Terminal.Cwd, CacheDir: l.Profile.CacheDir(),
			SessionKey: c.Turn.SessionKey, SessionID: c.Turn.SessionID, Source: c.Turn.Source, Kind: c.Turn.Kind, TurnID: c.Turn.ID,
			Granted: func(key string) bool {
				ok, err := l.Store.Granted(l.base, id, key)
				return err == nil && ok
			},
		},
		Limits: agent.Limits{Steps: cfg.Agent.MaxSteps, Idle: cfg.Agent.TurnTimeout, ContextTokens: window,
			CompressAt: cfg.CompressionThreshold, MaxTokens: cfg.Model.MaxTokens},
		History: l.history(c),
		Redact:  l.Hooks.Redact,
		Journal: func(ctx context.Context, s domain.Step) error {
			return l.persist(ctx, "journal", func(ctx context.Context) error {
				_, err := l.Store.AppendStep(ctx, ref, s)
				return err
			})
		},
		Compact: func(ctx context.Context, upTo int64, summary domain.Message) error {
			return l.persist(ctx, "compress", func(ctx context.Context) error {
				return l.Store.Compress(ctx, id, upTo, summary)
			})
		},
	}
}

func (l *Lanes) memory() string {
	if l.Hooks.Memory == nil {
		return ""
	}
	return l.Hooks.Memory()
}

// history reads the session's transcript. A failure is logged, not fatal: a
// turn without its past is better than none.
func (l *Lanes) history(c *ledger.Claim) []domain.Message {
	if c.NewSession {
		return nil
	}
	h, err := l.Store.History(l.base, c.Turn.SessionID)
	if err != nil {
		l.Log.Error("the transcript could not be read; the turn goes on without it", "component", "conversation", "session", string(c.Turn.SessionID), "err", err)
	}
	return h
}

// steers lists the received /steer commands of a session as messages.
func (l *Lanes) steers(ctx context.Context, key domain.SessionKey) ([]domain.Inbound, error) {
	cmds, err := l.Store.ReceivedCommands(ctx, key)
	var out []domain.Inbound
	for _, e := range cmds {
		if name, args := parse(e.Text); name == "steer" && args != "" {
			e.Text = args
			out = append(out, e)
		}
	}
	return out, err
}

// join gives received events to the running turn, durably.
func (l *Lanes) join(ctx context.Context, c ledger.Claim, in []domain.Inbound) ([]domain.Message, error) {
	var out []domain.Message
	for _, e := range in {
		m := domain.Message{Role: domain.RoleUser, Content: e.Text, At: e.SentAt}
		l.addFiles(ctx, &m, []domain.Inbound{e}, l.speechOf(&c))
		err := l.persist(ctx, "steer", func(ctx context.Context) error {
			return l.Store.JoinTurn(ctx, c.Ref(), e.ID, domain.Step{Kind: domain.StepInput, CallID: joinID(e.ID), Message: m, At: l.Now()})
		})
		if domain.IsCode(err, domain.Conflict) {
			continue
		}
		if err != nil {
			return out, err
		}
		out = append(out, m)
	}
	return out, nil
}

// settle writes a turn's outcome into the ledger: transcript, deliveries and
// end in one transaction. It does not give up while the process lives.
func (l *Lanes) settle(c ledger.Claim, out *agent.Outcome, preview string) {
	ctx, cancel := l.settleContext()
	defer cancel()
	var err error
	switch out.State {
	case domain.TurnRunning:
		err = l.persist(ctx, "release", func(ctx context.Context) error { return l.Store.RequeueTurn(ctx, c.Ref()) })
	case domain.TurnWaiting:
		err = l.persist(ctx, "ask", func(ctx context.Context) error {
			_, _, err := l.Store.SuspendTurn(ctx, c.Ref(), l.withExpiry(*out.Question), l.planQuestion(c, *out.Question, preview))
			return err
		})
		l.nudgeExpiry()
	default:
		f := ledger.Finish{State: out.State, Messages: out.Messages, Usage: out.Usage, Deliveries: l.planReply(c, out, preview), Now: l.Now()}
		if out.Err != nil {
			f.Error = domain.MessageOf(out.Err)
		}
		failpoint.Hit(failpoint.TurnBeforeFinish)
		err = l.persist(ctx, "finish", func(ctx context.Context) error {
			_, err := l.Store.FinishTurn(ctx, c.Ref(), f)
			return err
		})
		failpoint.Hit(failpoint.TurnFinished)
	}
	switch {
	case domain.IsCode(err, domain.Fenced):
		l.Log.Warn("a turn passed to another holder; its result here is dropped", "component", "conversation", "turn", c.Turn.ID)
	case err != nil:
		l.Log.Error("a turn's end could not be stored; it goes on from its journal after the next start", "component", "conversation", "turn", c.Turn.ID, "err", err)
	default:
		l.Outbox.Wake(c.Turn.Source.Address)
	}
}

// settleContext lives on for a while when the process is told to stop, so that
// an answer that is there is stored.
func (l *Lanes) settleContext() (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(context.WithoutCancel(l.base))
	stop := context.AfterFunc(l.base, func() {
		time.AfterFunc(3*time.Second, cancel)
	})
	return ctx, func() { stop(); cancel() }
}

// planReply makes the deliveries of an ended turn.
func (l *Lanes) planReply(c ledger.Claim, out *agent.Outcome, preview string) []domain.NewDelivery {
	to := c.Turn.Source.Address
	o := delivery.PlanOptions{Edit: preview, ReplyTo: l.replyTo(c)}
	switch out.State {
	case domain.TurnDone:
		if silent(out.Text) && len(out.Files) == 0 {
			return nil
		}
		o.Attachments = out.Files
		text := out.Text
		if c.Turn.Kind == domain.TurnBackground {
			text = "🔧 Background task finished:\n\n" + text
		}
		return l.Outbox.Plan(to, "reply", text, o)
	case domain.TurnFailed:
		if domain.IsCode(out.Err, domain.Fenced) {
			return nil
		}
		o.Commands = l.spoken()
		return l.Outbox.Plan(to, "alert", "⚠️ "+failureText(out.Err), o)
	case domain.TurnInterrupted:
		if preview != "" {
			return l.Outbox.Plan(to, "notice", "⏹ _stopped here_", o)
		}
	}
	return nil
}

func failureText(err error) string {
	text := domain.MessageOf(err)
	if domain.CodeOf(err) == domain.Internal && text == "internal error" {
		return "Something went wrong inside; the log has the details. Your message is kept: /retry tries it again."
	}
	return strings.ToUpper(text[:1]) + text[1:] + "\n\nYour message is kept: /retry tries it again."
}

// replyTo is the message that the first part answers, as reply_to_mode says.
func (l *Lanes) replyTo(c ledger.Claim) string {
	if l.Config.Platforms[c.Turn.Source.Platform].ReplyTo == "off" || c.Turn.Source.ChatType == domain.ChatDM {
		return ""
	}
	return c.Turn.Source.MessageID
}

// silent tells whether an answer is one that asks not to be sent.
func silent(text string) bool {
	switch strings.ToUpper(strings.TrimSpace(text)) {
	case "[SILENT]", "SILENT", "NO_REPLY", "NO REPLY":
		return true
	}
	return false
}

// announceReset tells the user that a reset policy began a new session.
func (l *Lanes) announceReset(ctx context.Context, c ledger.Claim) {
	if !c.NewSession || !l.Config.Session.ResetNotify || c.Turn.Kind != domain.TurnChat {
		return
	}
	past, err := l.Store.ListSessions(ctx, ledger.SessionFilter{Key: c.Turn.SessionKey, Limit: 2})
	if err != nil || len(past) < 2 {
		return
	}
	for _, s := range past {
		if s.ID != c.Session.ID && (s.EndReason == "idle" || s.EndReason == "daily") {
			l.notice(ctx, c.Turn.Source, "🕐 A new session began (the last one ended: "+s.EndReason+"). /resume brings it back.")
			return
		}
	}
}

// view shows a running turn to its chat: typing, live events, the streamed preview.
type view struct {
	*Lanes
	preview *delivery.Preview
	live    platform.Live
	to      domain.Address
	stop    context.CancelFunc
	before  string // preview of an earlier life
}

func (l *Lanes) newView(ctx context.Context, c ledger.Claim) *view {
	v := &view{Lanes: l, to: c.Turn.Source.Address, stop: func() {}}
	a := l.adapter(v.to.Platform)
	if a == nil {
		v.before = c.Turn.Preview
		return v
	}
	v.live, _ = a.(platform.Live)
	if t, ok := a.(platform.Typer); ok && l.Config.Platforms[v.to.Platform].Typing && a.Capabilities().TypingEvery > 0 {
		tctx, stop := context.WithCancel(ctx)
		v.stop = stop
		every := a.Capabilities().TypingEvery
		l.work.Go(func() { l.contained("an adapter's typing signal", func() { l.typing(tctx, t, v.to, every) }) })
	}
	// A resumed turn has a preview already: the answer edits that one.
	if v.before = c.Turn.Preview; len(c.Answers) > 0 {
		v.before = "" // the question took its place
	}
	if l.Config.Display.Streaming && v.before == "" {
		v.preview = l.Outbox.NewPreview(ctx, v.to, l.replyTo(c), func(id string) error {
			return l.Store.SetPreview(ctx, c.Ref(), id)
		})
	}
	return v
}

func (v *view) observe(e domain.TurnEvent) {
	if v.live != nil && !v.contained("an adapter's live view", func() { v.live.Live(v.to, e) }) {
		v.live = nil
	}
	if v.preview != nil {
		v.preview.Event(e)
	}
}

// close ends the view and gives the message that the answer should edit.
func (v *view) close() string {
	v.stop()
	if v.preview == nil {
		return v.before
	}
	return v.preview.Close()
}

// typing shows that an answer is being written until ctx ends.
func (l *Lanes) typing(ctx context.Context, t platform.Typer, to domain.Address, every time.Duration) {
	tick := time.NewTicker(max(every-500*time.Millisecond, time.Second))
	defer tick.Stop()
	for {
		_ = t.Typing(ctx, to) // a missing indicator harms nobody
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}
