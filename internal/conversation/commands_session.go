package conversation

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"hermes/internal/agent"
	"hermes/internal/domain"
	"hermes/internal/ledger"
	"hermes/internal/model"
)

// current is the lane's session; ok is false before its first turn.
func (ln *lane) current(ctx context.Context) (s domain.Session, ok bool, err error) {
	s, err = ln.Store.CurrentSession(ctx, ln.key)
	if domain.IsCode(err, domain.NotFound) {
		return s, false, nil
	}
	return s, err == nil, err
}

func cmdNew(ctx context.Context, c Call) (Reply, error) {
	if err := c.lane.halt(ctx); err != nil {
		return Reply{}, err
	}
	return Reply{Text: "✨ A new session. The last one is kept: /sessions lists it, /resume brings it back.",
		Effects: ledger.Effects{EndSession: "reset", DropQueued: true}}, nil
}

func cmdStatus(ctx context.Context, c Call) (Reply, error) {
	ln := c.lane
	s, ok, err := ln.current(ctx)
	if err != nil {
		return Reply{}, err
	}
	var b strings.Builder
	if !ok {
		b.WriteString("No session yet; your first message begins one.")
	} else {
		fmt.Fprintf(&b, "Session `%s`", s.ID)
		if s.Title != "" {
			fmt.Fprintf(&b, " “%s”", s.Title)
		}
		fmt.Fprintf(&b, "\nMessages: %d · tokens in/out: %d/%d", s.MessageCount, s.Usage.InputTokens, s.Usage.OutputTokens)
	}
	fmt.Fprintf(&b, "\nModel: %s", ln.modelName(s))
	switch open, err := ln.Store.OpenQuestions(ctx, ln.key); {
	case err != nil:
		return Reply{}, err
	case ln.turn != nil:
		fmt.Fprintf(&b, "\nWorking for %s. /stop ends it.", short(ln.Now().Sub(ln.turn.since)))
	case len(open) > 0:
		fmt.Fprintf(&b, "\nWaiting for your answer: %s", open[0].Text)
	default:
		b.WriteString("\nIdle.")
	}
	if waiting, err := ln.Store.Received(ctx, ln.key); err == nil && len(waiting) > 0 {
		fmt.Fprintf(&b, " %d messages wait.", len(waiting))
	}
	if ln.Hooks.Status != nil {
		b.WriteString("\n" + ln.Hooks.Status())
	}
	return say("%s", b.String())
}

func (ln *lane) modelName(s domain.Session) string {
	switch {
	case s.Model != "":
		return s.Model + " (this session)"
	case !ln.Config.Model.IsSet():
		return "none. " + noModel
	case ln.Config.Model.Provider == "offline":
		return "offline (the built-in stand-in; no real model is set)"
	}
	return ln.Config.Model.Model + " (" + ln.Config.Model.Provider + ")"
}

func cmdModel(ctx context.Context, c Call) (Reply, error) {
	ln := c.lane
	s, _, err := ln.current(ctx)
	if err != nil {
		return Reply{}, err
	}
	name, global := strings.CutSuffix(c.Args, "--global")
	name = strings.TrimSpace(name)
	switch {
	case name == "" && !global:
		return say("Model: %s\n`/model NAME` sets another for this session, `/model NAME --global` for all, `/model default` goes back.", ln.modelName(s))
	case global && name == "":
		return Reply{}, domain.E(domain.Invalid, nil, "which model? `/model NAME --global`")
	case global:
		if ln.Hooks.SetModel == nil {
			return Reply{}, domain.E(domain.Unavailable, nil, "the configuration cannot be changed from here; use `hermes config set model.default %s`", name)
		}
		if err := ln.Hooks.SetModel(ctx, name); err != nil {
			return Reply{}, err
		}
		return say("`%s` is set for all sessions, from the next start on. This session uses it at once with `/model %s`.", name, name)
	case name == "default":
		empty := ""
		return Reply{Text: "Back to the configured model.", Effects: ledger.Effects{Model: &empty}}, nil
	}
	return Reply{Text: fmt.Sprintf("This session uses `%s` from now on. If the provider does not know it, I will say so.", name), Effects: ledger.Effects{Model: &name}}, nil
}

func cmdUsage(ctx context.Context, c Call) (Reply, error) {
	s, ok, err := c.lane.current(ctx)
	if err != nil || !ok {
		return Reply{Text: "No session yet, so nothing was used."}, err
	}
	h, err := c.lane.Store.History(ctx, s.ID)
	if err != nil {
		return Reply{}, err
	}
	tokens := 0
	for _, m := range h {
		tokens += model.EstimateTokens(m.Content)
	}
	window := model.ContextLength(c.lane.Config.Model.Model, c.lane.Config.Model.ContextLength)
	return say("Model calls: %d\nTokens in: %d (cached %d)\nTokens out: %d\nHistory: about %d tokens, %d %% of the window of %d",
		s.Usage.Calls, s.Usage.InputTokens, s.Usage.CachedTokens, s.Usage.OutputTokens, tokens, 100*tokens/max(window, 1), window)
}

func cmdTitle(ctx context.Context, c Call) (Reply, error) {
	s, ok, err := c.lane.current(ctx)
	switch {
	case err != nil:
		return Reply{}, err
	case !ok:
		return say("No session yet; your first message begins one.")
	case c.Args == "":
		return say("Title: %s", orDash(s.Title))
	}
	title := c.Args
	if r := []rune(title); len(r) > 100 {
		title = string(r[:100])
	}
	return Reply{Text: "Title set: " + title, Effects: ledger.Effects{Title: &title}}, nil
}

func cmdSessions(ctx context.Context, c Call) (Reply, error) {
	list, err := c.lane.Store.ListSessions(ctx, ledger.SessionFilter{Key: c.lane.key, Limit: 10})
	if err != nil || len(list) == 0 {
		return Reply{Text: "There are no sessions of this chat yet."}, err
	}
	var b strings.Builder
	b.WriteString("**Sessions of this chat**, newest first\n")
	for _, s := range list {
		fmt.Fprintf(&b, "\n`%s` %s · %d messages", s.ID, s.UpdatedAt.In(c.lane.Config.Zone()).Format("2006-01-02 15:04"), s.MessageCount)
		if s.Title != "" {
			fmt.Fprintf(&b, " · %s", s.Title)
		}
		if s.EndedAt.IsZero() {
			b.WriteString(" · current")
		}
	}
	b.WriteString("\n\n/resume ID goes back to one.")
	return say("%s", b.String())
}

func cmdResume(ctx context.Context, c Call) (Reply, error) {
	if c.Args == "" {
		return cmdSessions(ctx, c)
	}
	list, err := c.lane.Store.ListSessions(ctx, ledger.SessionFilter{Key: c.lane.key, Limit: 200})
	if err != nil {
		return Reply{}, err
	}
	var hits []domain.Session
	for _, s := range list {
		if string(s.ID) == c.Args || strings.EqualFold(s.Title, c.Args) {
			hits = []domain.Session{s}
			break
		}
		if strings.HasPrefix(string(s.ID), c.Args) || s.Title != "" && strings.Contains(strings.ToLower(s.Title), strings.ToLower(c.Args)) {
			hits = append(hits, s)
		}
	}
	switch len(hits) {
	case 0:
		return Reply{}, domain.E(domain.NotFound, nil, "no session of this chat has that id or title; /sessions lists them")
	case 1:
		return Reply{Text: fmt.Sprintf("Back in session `%s`.", hits[0].ID), Effects: ledger.Effects{Resume: hits[0].ID}}, nil
	}
	return Reply{}, domain.E(domain.Invalid, nil, "%d sessions fit; say more of the id or title", len(hits))
}

func cmdUndo(ctx context.Context, c Call) (Reply, error) {
	n := 1
	if c.Args != "" {
		var err error
		if n, err = strconv.Atoi(c.Args); err != nil || n < 1 || n > 100 {
			return Reply{}, domain.E(domain.Invalid, nil, "/undo takes how many exchanges to take back, 1 to 100")
		}
	}
	last, found, err := c.lane.lastSaid(ctx, n)
	if err != nil || !found {
		return Reply{Text: "There is nothing to take back."}, err
	}
	return Reply{Text: "↩️ Taken back, from “" + cutLabel(last.Content) + "” on.", Effects: ledger.Effects{Undo: n}}, nil
}

func cmdRetry(ctx context.Context, c Call) (Reply, error) {
	last, found, err := c.lane.lastSaid(ctx, 1)
	if err != nil || !found {
		return Reply{Text: "There is no message to try again."}, err
	}
	last.ID = 0
	return Reply{Effects: ledger.Effects{Undo: 1, Queue: &ledger.NewTurn{Kind: domain.TurnChat, SessionKey: c.lane.key, Source: c.In.Source, Input: []domain.Message{last}}},
		After: c.lane.poke}, nil
}

// lastSaid is the n-th last message of the user in the session.
func (ln *lane) lastSaid(ctx context.Context, n int) (m domain.Message, found bool, err error) {
	s, ok, err := ln.current(ctx)
	if err != nil || !ok {
		return m, false, err
	}
	h, err := ln.Store.History(ctx, s.ID)
	if err != nil {
		return m, false, err
	}
	for i := len(h) - 1; i >= 0; i-- {
		if h[i].Role == domain.RoleUser {
			m, found = h[i], true
			if n--; n == 0 {
				break
			}
		}
	}
	return m, found, nil
}

// compressDeadline bounds the model call of /compress.
const compressDeadline = 2 * time.Minute

func cmdCompress(ctx context.Context, c Call) (Reply, error) {
	ln := c.lane
	s, ok, err := ln.current(ctx)
	if err != nil || !ok {
		return Reply{Text: "No session yet, so there is nothing to compress."}, err
	}
	h, err := ln.Store.History(ctx, s.ID)
	if err != nil {
		return Reply{}, err
	}
	if len(h) < 4 {
		return say("The history is short already (%d messages).", len(h))
	}
	ctx, cancel := context.WithTimeout(ctx, compressDeadline)
	defer cancel()
	sum, _, err := ln.Agent.Summarise(ctx, s.Model, h, c.Args)
	if err != nil {
		return Reply{}, domain.E(domain.Unavailable, err, "the history could not be summarised, so it was left as it is: %s", agent.Explain(err))
	}
	if err := ln.Store.Compress(ctx, s.ID, h[len(h)-1].ID, sum); err != nil {
		return Reply{}, err
	}
	return say("🗜 %d messages are now one summary. The old ones stay searchable.", len(h))
}
