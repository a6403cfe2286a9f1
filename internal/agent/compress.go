package agent

import (
	"context"
	"fmt"
	"strings"

	"hermes/internal/domain"
	"hermes/internal/model"
)

// protectLast is how many messages of the history a compression leaves alone.
const protectLast = 20

// staleResult stands in the prompt for an old tool result of a long turn.
const staleResult = "[result left out to save space; run the tool again if you need it]"

// summarySystem asks for a summary.
const summarySystem = "You write the memory of a conversation that became too long. Keep every fact, decision, name, number, path, open task and promise that later answers may need; leave out chatter. Plain text, at most 600 words."

// prompt is the conversation as the model sees it: history, then this turn.
func (r *run) prompt() []domain.Message {
	out := make([]domain.Message, 0, len(r.history)+len(r.msgs))
	out = append(out, r.history...)
	return append(out, r.msgs...)
}

// compress keeps the prompt within the window: first the history before the
// turn is replaced by a summary, then old tool results of the turn itself are
// left out. forced does so whatever the estimate says.
func (r *run) compress(forced bool) error {
	budget := int(float64(r.Limits.ContextTokens) * r.Limits.CompressAt)
	if !forced && (budget <= 0 || r.size() <= budget) {
		return nil
	}
	keep := protectLast
	if forced {
		keep = protectLast / 4
	}
	if err := r.compressHistory(keep); err != nil {
		return err
	}
	if forced || r.size() > budget {
		r.dropStaleResults()
	}
	return nil
}

func (r *run) size() int {
	n := model.EstimateTokens(r.System)
	for _, m := range r.history {
		n += model.EstimateMessage(m)
	}
	for _, m := range r.msgs {
		n += model.EstimateMessage(m)
	}
	return n
}

func (r *run) compressHistory(keep int) error {
	cut := splitPoint(r.history, keep)
	if cut == 0 || r.Compact == nil {
		return nil
	}
	summary, usage, err := r.Summarise(r.ctx, r.Model, r.history[:cut], "")
	r.usage = r.usage.Add(usage)
	if err != nil {
		if context.Cause(r.ctx) != nil {
			return context.Cause(r.ctx)
		}
		r.log.Warn("history could not be compressed", "component", "agent", "turn", r.ID, "err", err)
		return nil // the call may still fit; if not, the model says so
	}
	if err := r.Compact(r.ctx, r.history[cut-1].ID, summary); err != nil {
		return err
	}
	r.history = append([]domain.Message{summary}, r.history[cut:]...)
	r.observe(domain.TurnEvent{Kind: domain.EventAnswerReset})
	return nil
}

// splitPoint finds how many messages a compression replaces: all but the last
// keep, cut where a user speaks, so that no tool result loses its call.
func splitPoint(h []domain.Message, keep int) int {
	cut := len(h) - keep
	for cut > 0 && h[cut].Role != domain.RoleUser {
		cut--
	}
	if cut < 2 {
		return 0
	}
	return cut
}

// dropStaleResults shortens all but the latest tool results of the turn.
func (r *run) dropStaleResults() {
	const fresh = 4
	seen := 0
	for i := len(r.msgs) - 1; i >= 0; i-- {
		if r.msgs[i].Role != domain.RoleTool {
			continue
		}
		if seen++; seen > fresh && len(r.msgs[i].Content) > 4*len(staleResult) {
			r.msgs[i].Content = staleResult
		}
	}
}

// Summarise asks the model for a summary of messages, as one that can stand in
// their place. focus, where not empty, names what must not be lost.
func (a *Agent) Summarise(ctx context.Context, name string, msgs []domain.Message, focus string) (domain.Message, domain.Usage, error) {
	var b strings.Builder
	for _, m := range msgs {
		text := m.Content
		if m.Role == domain.RoleTool {
			text = cutRunes(text, 1000)
		}
		for _, c := range m.ToolCalls {
			text += fmt.Sprintf("\n(called %s %s)", c.Name, cutRunes(c.Arguments, 300))
		}
		fmt.Fprintf(&b, "%s: %s\n\n", m.Role, cutRunes(text, 8000))
	}
	ask := "Summarise this conversation."
	if focus != "" {
		ask += " Above all keep: " + focus
	}
	ans, err := a.model.Complete(ctx, &model.Request{Model: name, System: summarySystem,
		Messages: []domain.Message{{Role: domain.RoleUser, Content: ask + "\n\n" + cutRunes(b.String(), 400_000)}}}, nil)
	if err != nil {
		return domain.Message{}, model.AsError(err).Usage, err
	}
	return domain.Message{Role: domain.RoleUser, Content: "[Summary of the conversation so far]\n" + ans.Text, At: a.now()}, ans.Usage, nil
}
