package conversation

import (
	"context"
	"fmt"
	"strings"

	"hermes/internal/agent"
	"hermes/internal/domain"
	"hermes/internal/ledger"
)

// halt stops the running turn, or cancels the one that waits, and comes back
// when it has ended.
func (ln *lane) halt(ctx context.Context) error {
	if ln.turn != nil {
		ln.turn.cancel(agent.ErrStopped)
		select {
		case <-ln.turn.done:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		ln.turn = nil
	}
	open, err := ln.Store.OpenTurns(ctx, ln.key)
	if err != nil {
		return err
	}
	for _, t := range open {
		if t.State == domain.TurnWaiting {
			if err := ln.Store.CancelTurn(ctx, t.ID, "stopped by the user", ln.Now()); err != nil && !domain.IsCode(err, domain.Conflict) {
				return err
			}
		}
	}
	return nil
}

func cmdStop(ctx context.Context, c Call) (Reply, error) {
	was := c.lane.turn != nil
	open, err := c.lane.Store.OpenTurns(ctx, c.lane.key)
	if err != nil {
		return Reply{}, err
	}
	if err := c.lane.halt(ctx); err != nil {
		return Reply{}, err
	}
	text := "⏹ Stopped."
	if !was && len(open) == 0 {
		text = "Nothing is running."
	}
	return Reply{Text: text, Effects: ledger.Effects{DropQueued: true}}, nil
}

// question is the open question of a kind: the session's own, else one of its
// background turns.
func (ln *lane) question(ctx context.Context, kind domain.QuestionKind) (domain.Question, error) {
	open, err := ln.Store.OpenQuestions(ctx, ln.key)
	if err != nil {
		return domain.Question{}, err
	}
	all, err := ln.Store.OpenQuestions(ctx, "")
	if err != nil {
		return domain.Question{}, err
	}
	for _, q := range all {
		if strings.HasPrefix(string(q.SessionKey), backgroundKey(ln.key)) {
			open = append(open, q)
		}
	}
	for _, q := range open {
		if q.Kind == kind {
			return q, nil
		}
	}
	return domain.Question{}, domain.E(domain.NotFound, nil, "nothing waits for an answer here; it may have been answered, or its time ran out")
}

// backgroundKey begins the keys of a session's background turns.
func backgroundKey(key domain.SessionKey) string { return string(key) + ":bg:" }

// answer is the reply that answers a question. The turn goes on by itself.
func (c Call) answer(q domain.Question, text, reply string) Reply {
	return Reply{Text: reply, Effects: ledger.Effects{Answer: &ledger.Answer{Question: q.ID, Text: text, By: c.In.UserID}}, After: func() { c.lane.Wake(q.SessionKey) }}
}

func cmdApprove(ctx context.Context, c Call) (Reply, error) {
	scope := strings.ToLower(c.Args)
	if scope == "" {
		scope = domain.ApproveOnce
	}
	if scope != domain.ApproveOnce && scope != domain.ApproveSession && scope != domain.ApproveAlways {
		return Reply{}, domain.E(domain.Invalid, nil, "/approve takes nothing, once, session or always")
	}
	q, err := c.lane.question(ctx, domain.AskApproval)
	if err != nil {
		return Reply{}, err
	}
	said := map[string]string{domain.ApproveOnce: "✅ Allowed, this once.", domain.ApproveSession: "✅ Allowed for this session.", domain.ApproveAlways: "✅ Allowed from now on."}
	return c.answer(q, scope, said[scope]), nil
}

func cmdDeny(ctx context.Context, c Call) (Reply, error) {
	q, err := c.lane.question(ctx, domain.AskApproval)
	if err != nil {
		return Reply{}, err
	}
	return c.answer(q, domain.ApproveDeny, "🚫 Refused."), nil
}

func cmdAnswer(ctx context.Context, c Call) (Reply, error) {
	q, err := c.lane.question(ctx, domain.AskClarify)
	if err != nil {
		return Reply{}, err
	}
	if c.Args == "" {
		return Reply{}, domain.E(domain.Invalid, nil, "/answer takes the number of a choice, or your own words")
	}
	return c.answer(q, pickChoice(q, c.Args), ""), nil
}

// newTurn queues text as a turn of the lane's session.
func (c Call) newTurn(text string) *ledger.NewTurn {
	return &ledger.NewTurn{Kind: domain.TurnChat, SessionKey: c.lane.key, Source: c.In.Source,
		Input: []domain.Message{{Role: domain.RoleUser, Content: text, At: c.In.SentAt}}}
}

func cmdQueue(_ context.Context, c Call) (Reply, error) {
	if c.Args == "" {
		return Reply{}, domain.E(domain.Invalid, nil, "what should come next? /queue TEXT")
	}
	r := Reply{Effects: ledger.Effects{Queue: c.newTurn(c.Args)}, After: c.lane.poke}
	if c.lane.turn != nil {
		r.Text = "📥 Queued; it comes next."
	}
	return r, nil
}

// cmdSteer is reached only when no turn runs: a running one takes the event
// itself at its next step (see steerLater), so that it is joined durably.
func cmdSteer(ctx context.Context, c Call) (Reply, error) {
	if c.Args == "" {
		return Reply{}, domain.E(domain.Invalid, nil, "what should the running turn know? /steer TEXT")
	}
	return cmdQueue(ctx, c)
}

// steerLater leaves a /steer to the running turn. Should the turn end before it
// comes to a next step, the command is worked out as a message of its own.
func (ln *lane) steerLater(ctx context.Context, in domain.Inbound) {
	ln.turn.steerCommands.Store(true)
	if in.ID > ln.steered {
		ln.steered = in.ID
		ln.notice(ctx, in.Source, "↪️ Noted; I take it in at the next step.")
	}
}

func cmdBackground(_ context.Context, c Call) (Reply, error) {
	if c.Args == "" {
		return Reply{}, domain.E(domain.Invalid, nil, "what should be done in the background? /background TEXT")
	}
	t := c.newTurn(c.Args)
	t.Kind = domain.TurnBackground
	t.SessionKey = domain.SessionKey(fmt.Sprint(backgroundKey(c.lane.key), c.In.ID))
	return Reply{Text: "🔧 Started in the background; the result comes here.", Effects: ledger.Effects{Queue: t}}, nil
}
