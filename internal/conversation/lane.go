package conversation

import (
	"context"
	"fmt"
	"runtime/debug"
	"sync/atomic"
	"time"

	"hermes/internal/agent"
	"hermes/internal/delivery"
	"hermes/internal/domain"
	"hermes/internal/ledger"
)

// Busy modes: what a message does that arrives while a turn runs.
const (
	BusyInterrupt = "interrupt"
	BusyQueue     = "queue"
	BusySteer     = "steer"
)

// lane is one session's goroutine. Its fields belong to that goroutine; others
// only poke it.
type lane struct {
	*Lanes
	key  domain.SessionKey
	wake chan struct{}
	turn *active // running in its own goroutine; nil when none is
	// noted and steered are the last message and the last /steer that the user
	// was told of while busy.
	noted, steered int64
}

// active is a running turn as its lane sees it.
type active struct {
	claim  ledger.Claim
	cancel context.CancelCauseFunc
	done   chan struct{}
	// steer and steerCommands make the turn take in received messages, and
	// received /steer commands, at its next step.
	steer, steerCommands atomic.Bool
	since                time.Time
}

func (ln *lane) poke() {
	select {
	case ln.wake <- struct{}{}:
	default:
	}
}

// run is the lane's life.
func (ln *lane) run() {
	for {
		select {
		case <-ln.wake:
			ln.guarded(ln.look)
		case <-ln.turnDone():
			ln.turn = nil
			ln.poke()
			if ln.Hooks.Left != nil && ln.hasLeft() {
				ln.Hooks.Left()
			}
		}
		if ln.turn == nil && len(ln.wake) == 0 && ln.retire(ln) {
			return
		}
	}
}

func (ln *lane) turnDone() <-chan struct{} {
	if ln.turn == nil {
		return nil
	}
	return ln.turn.done
}

// guarded contains a panic of the lane's own code.
func (ln *lane) guarded(f func(context.Context)) {
	defer func() {
		if p := recover(); p != nil {
			ln.Log.Error("a lane panicked", "component", "conversation", "session", string(ln.key), "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
			ln.Health.Part("conversation").Degraded("panic", "a lane crashed and went on; see the log")
		}
	}()
	f(ln.base)
}

// look does what there is to do: commands first, then the next turn, or what
// the busy mode says of messages that wait.
func (ln *lane) look(ctx context.Context) {
	if ln.isDraining() || ln.turn == nil && (ln.hasLeft() || ln.elsewhere(ctx)) {
		return
	}
	if err := ln.runCommands(ctx); err != nil {
		ln.stumble(ctx, "commands", err)
		return
	}
	at, do := "claim", ln.next
	if ln.turn != nil {
		at, do = "busy", ln.busy
	}
	if err := do(ctx); err != nil {
		ln.stumble(ctx, at, err)
		return
	}
	ln.ledgerWorks()
}

// elsewhere tells whether the session's turn runs in the process that handed
// over to this one, which then sees to what came in.
func (ln *lane) elsewhere(ctx context.Context) bool {
	return ln.Hooks.Elsewhere != nil && ln.Hooks.Elsewhere(ctx, ln.key)
}

// stumble logs a failure of the ledger and looks again a little later.
func (ln *lane) stumble(ctx context.Context, what string, err error) {
	if ctx.Err() != nil {
		return
	}
	ln.Log.Error("a lane could not go on; it tries again", "component", "conversation", "session", string(ln.key), "at", what, "err", err)
	ln.ledgerFails(err)
	key, lanes := ln.key, ln.Lanes
	time.AfterFunc(time.Second, func() { lanes.Wake(key) })
}

// next claims and starts the session's next turn.
func (ln *lane) next(ctx context.Context) error {
	before, reason := ln.resetBefore(ln.key)
	c, ok, err := ln.Store.ClaimTurn(ctx, ln.key, ledger.ClaimOptions{Now: ln.Now(), ResetBefore: before, ResetReason: reason, Collect: true})
	if err != nil {
		return err
	}
	if !ok {
		return ln.waiting(ctx)
	}
	ln.start(c)
	return nil
}

// start runs a claimed turn in a goroutine of its own, so that the lane stays
// able to stop, steer and answer.
func (ln *lane) start(c ledger.Claim) {
	ctx, cancel := context.WithCancelCause(ln.base)
	a := &active{claim: c, cancel: cancel, done: make(chan struct{}), since: ln.Now()}
	ln.turn = a
	ln.work.Go(func() {
		defer close(a.done)
		defer cancel(nil)
		select {
		case ln.slots <- struct{}{}:
			defer func() { <-ln.slots }()
		case <-ctx.Done():
		}
		ln.runTurn(ctx, a)
	})
}

// busy deals with messages that wait while a turn runs.
func (ln *lane) busy(ctx context.Context) error {
	in, err := ln.Store.Received(ctx, ln.key)
	if err != nil || len(in) == 0 {
		return err
	}
	newest := in[len(in)-1]
	if newest.ID <= ln.noted {
		return nil
	}
	ln.noted = newest.ID
	var ack string
	switch ln.Config.Display.BusyMode {
	case BusyQueue:
		ack = "⏳ I am still at it; yours comes next. (/stop ends what runs)"
	case BusySteer:
		ln.turn.steer.Store(true)
		ack = "↪️ Noted; I take it in at the next step."
	default:
		ln.turn.cancel(agent.ErrStopped)
		return nil
	}
	if ln.Config.Display.BusyAck {
		ln.notice(ctx, newest.Source, ack)
	}
	return nil
}

// waiting deals with messages that arrive while a turn waits for an answer. A
// plain answer answers; anything else refuses what was asked and joins the
// turn, so that nothing is lost and nothing hangs.
func (ln *lane) waiting(ctx context.Context) error {
	in, err := ln.Store.Received(ctx, ln.key)
	if err != nil || len(in) == 0 {
		return err
	}
	open, err := ln.Store.OpenQuestions(ctx, ln.key)
	if err != nil || len(open) == 0 {
		return err
	}
	q, said := open[0], in[0]
	if text, plain := plainAnswer(q, said.Text); plain {
		_, err = ln.Store.FinishCommand(ctx, said.ID, ln.Now(), ledger.Effects{Key: ln.key, Answer: &ledger.Answer{Question: q.ID, Text: text, By: said.UserID}})
	} else if ln.Config.Display.BusyMode == BusyQueue {
		if said.ID > ln.noted {
			ln.noted = said.ID
			ln.notice(ctx, said.Source, "⏳ I wait for your answer to the question above; this comes after it.")
		}
		return nil
	} else {
		_, err = ln.Store.AnswerQuestion(ctx, ledger.Answer{Question: q.ID, Text: domain.ApproveDeny, By: said.UserID}, ln.Now())
	}
	if err != nil && !domain.IsCode(err, domain.Conflict) {
		return err
	}
	ln.poke()
	return nil
}

// notice tells the user something in passing.
func (l *Lanes) notice(ctx context.Context, to domain.Source, text string) {
	d := l.Outbox.Plan(to.Address, "notice", text, delivery.PlanOptions{Commands: l.spoken()})
	if _, err := l.Store.Enqueue(ctx, d, l.Now()); err != nil {
		l.Log.Warn("a notice could not be stored", "component", "conversation", "err", err)
		return
	}
	l.Outbox.Wake(to.Address)
}

// resetBefore is the reset policy: a session last used before it has ended.
func (l *Lanes) resetBefore(key domain.SessionKey) (time.Time, string) {
	s := l.Config.Session
	if l.Hooks.BusyProcesses != nil && s.ResetMode != "none" && l.Hooks.BusyProcesses(key) > 0 {
		return time.Time{}, ""
	}
	now := l.Now().In(l.Config.Zone())
	idle := now.Add(-s.ResetIdle)
	daily := time.Date(now.Year(), now.Month(), now.Day(), s.ResetHour, 0, 0, 0, now.Location())
	if daily.After(now) {
		daily = daily.AddDate(0, 0, -1)
	}
	switch {
	case s.ResetMode == "idle" || s.ResetMode == "both" && idle.After(daily):
		return idle, "idle"
	case s.ResetMode == "daily" || s.ResetMode == "both":
		return daily, "daily"
	}
	return time.Time{}, ""
}
