package delivery

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"time"

	"github.com/cenkalti/backoff/v5"

	"hermes/internal/delivery/markup"
	"hermes/internal/domain"
	"hermes/internal/failpoint"
	"hermes/internal/ledger"
	"hermes/internal/platform"
)

// repeatMark stands before a message that may have arrived before.
const repeatMark = "♻️ (may be a repeat)"

// maxMoves ends a message that chats send to each other, in attempts.
const maxMoves = 10

// step takes the first message of an address one attempt further. more says
// that there may be another one to send now; next, unless zero, when to look
// again otherwise. giveBack returns what the rate limits allowed.
//
// The rate limits come before the claim (launch): a message that a crash finds
// claimed counts as possibly sent, so none is claimed that cannot go at once.
func (d *Dispatcher) step(l *line, ln *lane, giveBack func()) (next time.Time, more bool) {
	del, ok, next := d.claim(ln)
	if !ok {
		giveBack()
		return next, false
	}
	out, decided := d.decide(l, &del)
	if !decided {
		began := d.o.Now()
		receipt, err := d.send(l, del)
		out = d.classify(del, receipt, err)
		out.took = d.o.Now().Sub(began)
	}
	return d.record(l, del, out)
}

// outcome is what becomes of an attempt.
type outcome struct {
	sent      bool
	took      time.Duration // what the platform needed
	dead      bool
	receipt   string
	reason    string
	next      time.Time // of a retry
	uncertain bool
	away      bool         // the platform could not be reached
	part      *domain.Part // replaces the content
	edit      *string      // replaces the message to edit
	moved     string       // the chat's new id
	paused    bool         // the account is refused
	hold      time.Duration
	global    bool // hold binds the whole platform
}

// claim commits that the address's first message is being sent.
func (d *Dispatcher) claim(ln *lane) (del domain.Delivery, ok bool, next time.Time) {
	// A claim that was cut off may have been committed, and nobody else could
	// take it from this process; so it is never cut off.
	del, ok, next, err := d.o.Store.ClaimDelivery(context.WithoutCancel(d.base), ln.to, d.o.Now())
	d.ledgerAnswered(err)
	if err != nil {
		ln.failures++
		d.o.Log.Error("a message cannot be claimed; it waits", "to", ln.to.String(), "err", err)
		return del, false, d.o.Now().Add(min(backoffAt(ln.failures), scanEvery))
	}
	ln.failures = 0
	if ok {
		failpoint.Hit(failpoint.DeliveryClaimed)
	}
	return del, ok, next
}

// decide settles what is to happen with a message that may have arrived by an
// earlier attempt: nothing where sending it again does no harm, what the
// platform's records say where they tell, else what on_unknown says.
func (d *Dispatcher) decide(l *line, del *domain.Delivery) (out outcome, decided bool) {
	if !del.Uncertain || del.Edit != "" || l.dedupes(del, d.o.Now()) {
		return outcome{}, false
	}
	receipt, err := d.trace(l, *del)
	var unread *platform.Error
	switch {
	case err == nil:
		d.o.Log.Info("a message whose attempt was cut off had arrived", "delivery", del.ID, "to", del.To.String(), "receipt", receipt)
		return outcome{sent: true, receipt: receipt}, true
	case errors.Is(err, platform.ErrNotTaken):
		d.o.Log.Info("a message whose attempt was cut off had not arrived; it is sent", "delivery", del.ID, "to", del.To.String())
		return outcome{}, false
	case d.o.OnUnknown == Drop && errors.As(err, &unread):
		return d.classify(*del, "", err), true // it is not given up for records that can be read later
	}
	if d.o.OnUnknown == Drop {
		return outcome{dead: true, reason: "an attempt was cut off and the message may have arrived; it is not sent again, since delivery.on_unknown is drop"}, true
	}
	del.Part = marked(del.Part, l.caps)
	return outcome{}, false
}

// dedupes tells whether the platform would drop a repetition of the message.
func (l *line) dedupes(del *domain.Delivery, now time.Time) bool {
	switch l.caps.Idempotency {
	case platform.IdempotencyAlways:
		return true
	case platform.IdempotencyWindow:
		return now.Sub(del.CreatedAt) < l.caps.IdempotencyFor
	}
	return false
}

// marked says of a part that it may be a repetition, if there is room for it.
func marked(p domain.Part, caps platform.Capabilities) domain.Part {
	limit := caps.MaxText
	if len(p.Attachments) > 0 {
		if limit = caps.MaxCaption; limit <= 0 {
			return p
		}
	}
	seen := p.Plain
	if seen == "" {
		seen = p.Text
	}
	if limit > 0 && markup.Len(seen, caps.Unit)+repeatRoom(caps) > limit {
		return p
	}
	add := func(s string) string {
		if s == "" {
			return repeatMark
		}
		return repeatMark + "\n" + s
	}
	p.Text = add(p.Text)
	p.Plain = add(p.Plain)
	return p
}

// repeatRoom is the length that repeatMark takes.
func repeatRoom(caps platform.Capabilities) int { return markup.Len(repeatMark+"\n", caps.Unit) }

// send makes the attempt. It comes back when the adapter does, or soon after
// the attempt's time is over.
func (d *Dispatcher) send(l *line, del domain.Delivery) (receipt string, err error) {
	timeout := sendTimeout
	if len(del.Part.Attachments) > 0 {
		timeout = fileTimeout
	}
	return d.call(timeout, func(ctx context.Context) (string, error) {
		if del.Edit == "" {
			return l.adapter.Send(ctx, del.To, del.Part, del.Nonce)
		}
		editor, ok := l.adapter.(platform.Editor)
		if !ok {
			return "", &platform.Error{Kind: platform.EditRefused, Reason: "the platform cannot edit messages"}
		}
		return del.Edit, editor.Edit(ctx, del.To, del.Edit, del.Part)
	})
}

// call calls an adapter and survives it: a panic becomes an error, and an
// adapter that ignores the end of its context is left behind.
func (d *Dispatcher) call(timeout time.Duration, fn func(ctx context.Context) (string, error)) (string, error) {
	type result struct {
		receipt string
		err     error
	}
	ctx, cancel := context.WithTimeout(d.base, timeout)
	defer cancel()
	done := make(chan result, 1)
	go func() {
		var r result
		defer func() {
			if p := recover(); p != nil {
				d.o.Log.Error("a platform adapter panicked; the message is tried again", "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
				r.err = &platform.Error{Kind: platform.Retry, Code: "panic", Reason: "the platform adapter failed by a defect of ours; the log has the details", Uncertain: true}
			}
			done <- r
		}()
		r.receipt, r.err = fn(ctx)
	}()
	select {
	case r := <-done:
		return r.receipt, r.err
	case <-ctx.Done():
	}
	late := time.NewTimer(grace)
	defer late.Stop()
	select {
	case r := <-done:
		return r.receipt, r.err
	case <-late.C:
		return "", &platform.Error{Kind: platform.Retry, Code: "stuck", Reason: "the platform did not answer in time and its connection did not close", Uncertain: true, Cause: ctx.Err()}
	}
}

// classify turns what an attempt came to into what is to be recorded.
func (d *Dispatcher) classify(del domain.Delivery, receipt string, err error) outcome {
	if err == nil {
		return outcome{sent: true, receipt: receipt}
	}
	e := platform.AsError(err)
	now := d.o.Now()
	out := outcome{reason: reason(e), next: now, uncertain: e.Uncertain && del.Edit == "", away: e.Kind == platform.Retry && (e.Uncertain || platform.Unreachable(e))}
	switch e.Kind {
	case platform.BadCredentials:
		out.paused = true
	case platform.Moved:
		out.moved, out.dead = e.NewChatID, e.NewChatID == "" || e.NewChatID == del.To.ChatID || del.Attempt > maxMoves
	case platform.EditRefused:
		out.edit, out.dead = new(string), del.Edit == ""
	case platform.MarkupRefused:
		out.part, out.dead = withoutMarkup(del.Part), !del.Part.Markup
	case platform.GiveUp:
		out.dead = true
	default:
		d.schedule(&out, del, e, now)
	}
	return out
}

// schedule decides when a failed message is tried again, or that it is not.
func (d *Dispatcher) schedule(out *outcome, del domain.Delivery, e *platform.Error, now time.Time) {
	deadline := del.CreatedAt.Add(d.o.MaxAge)
	if del.NotBefore.After(del.CreatedAt) {
		deadline = del.NotBefore.Add(d.o.MaxAge)
	}
	switch {
	case !now.Before(deadline):
		out.dead = true
		out.reason = fmt.Sprintf("could not be delivered within %s: %s", span(d.o.MaxAge), out.reason)
	case d.o.MaxAttempts > 0 && del.Attempt >= d.o.MaxAttempts && e.RetryAfter == 0:
		out.dead = true
		out.reason = fmt.Sprintf("could not be delivered in %d attempts: %s", del.Attempt, out.reason)
	case e.RetryAfter > 0:
		out.next, out.hold, out.global = now.Add(e.RetryAfter), e.RetryAfter, e.Global
	default:
		out.next = now.Add(backoffAt(del.Attempt))
		if out.next.After(deadline) {
			out.next = deadline
		}
	}
}

// record commits the outcome and tells what is next. It comes back without a
// commit only when the claim has passed to another process or this one is
// stopping; the claim is then found as uncertain by whoever starts next.
func (d *Dispatcher) record(l *line, del domain.Delivery, out outcome) (next time.Time, more bool) {
	ref := ledger.DeliveryRef{ID: del.ID, Attempt: del.Attempt}
	var committed bool
	switch {
	case out.sent:
		failpoint.Hit(failpoint.DeliverySent)
		committed = d.persist(del, func(ctx context.Context) error { return d.o.Store.MarkSent(ctx, ref, out.receipt, d.o.Now()) })
	case out.dead:
		committed = d.persist(del, func(ctx context.Context) error { return d.o.Store.MarkDead(ctx, ref, out.reason, d.o.Now()) })
	default:
		committed = d.persist(del, func(ctx context.Context) error {
			return d.o.Store.MarkRetry(ctx, ref, out.next, out.reason, out.uncertain, out.part, out.edit)
		})
	}
	failpoint.Hit(failpoint.DeliveryMarked)
	d.note(l, del, out)
	if out.hold > 0 {
		l.limits.hold(del.To.ChatID, out.next, out.global)
	}
	if !committed {
		return time.Time{}, false
	}
	if out.moved != "" && !out.dead {
		d.move(del, out.moved)
		return time.Time{}, false
	}
	if out.sent || out.dead || !out.next.After(d.o.Now()) {
		return time.Time{}, !out.paused
	}
	return out.next, false
}

// move gives an address's messages to the chat's new id.
func (d *Dispatcher) move(del domain.Delivery, chat string) {
	to := del.To
	to.ChatID = chat
	d.o.Log.Info("a chat has a new id", "from", del.To.String(), "to", to.String())
	if d.persist(del, func(ctx context.Context) error { return d.o.Store.MoveAddress(ctx, del.To, to) }) {
		d.Wake(to)
	}
}

// persist commits, however long it takes: a receipt must not be lost while the
// process lives. It gives up when the claim is lost, or when the dispatcher is
// stopped and has tried once more.
func (d *Dispatcher) persist(del domain.Delivery, commit func(ctx context.Context) error) bool {
	for n := 1; ; n++ {
		err := commit(context.WithoutCancel(d.base))
		switch domain.CodeOf(err) {
		case "":
			d.ledgerAnswered(nil)
			return true
		case domain.Fenced, domain.NotFound, domain.Conflict, domain.Invalid:
			d.o.Log.Error("the outcome of a message is not ours to record", "delivery", del.ID, "err", err)
			return false
		}
		d.ledgerAnswered(err)
		d.o.Log.Error("the outcome of a message cannot be recorded yet", "delivery", del.ID, "attempt", n, "err", err)
		timer := time.NewTimer(min(backoffAt(n)/4, 30*time.Second))
		select {
		case <-timer.C:
		case <-d.base.Done():
			timer.Stop()
			return false
		}
	}
}

// ledgerAnswered keeps in mind whether the ledger takes writes.
func (d *Dispatcher) ledgerAnswered(err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if up := err == nil; up != d.writable {
		d.writable = up
		d.report()
	}
}

// note records the evidence of an attempt.
func (d *Dispatcher) note(l *line, del domain.Delivery, out outcome) {
	at := d.o.Now().UTC().Format(time.RFC3339)
	log := d.o.Log.With("delivery", del.ID, "to", del.To.String(), "kind", del.Kind, "attempt", del.Attempt)
	switch {
	case out.sent:
		d.health.Note("last_sent", at)
		l.health.Note("last_sent", at)
		l.health.Note("send_latency", out.took.Round(time.Millisecond).String())
		log.Debug("message sent", "receipt", out.receipt)
	case out.dead:
		d.health.Note("last_dead", at+" "+out.reason)
		l.health.Note("last_error", at+" "+out.reason)
		log.Error("message given up", "reason", out.reason)
	default:
		l.health.Note("last_error", at+" "+out.reason)
		log.Warn("message not sent yet", "reason", out.reason, "next", out.next, "uncertain", out.uncertain)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case out.sent:
		l.failing = ""
		d.recovered(l)
	case out.dead:
		d.dead++
	case out.paused:
		l.paused = out.reason
	case out.next.After(d.o.Now()):
		l.failing, l.away = out.reason, l.away || out.away
	}
	d.report()
}

// reason is what people are told of a failure.
func reason(e *platform.Error) string {
	switch {
	case e.Reason == "":
		return "the platform gave no reason"
	case e.Cause != nil && (errors.Is(e.Cause, context.DeadlineExceeded) || errors.Is(e.Cause, context.Canceled)):
		return e.Reason + ": no answer in time"
	}
	return e.Reason
}

// withoutMarkup is the part as plain text.
func withoutMarkup(p domain.Part) *domain.Part {
	if p.Plain != "" {
		p.Text = p.Plain
	}
	p.Markup = false
	return &p
}

// backoffAt is how long to wait after the nth failure in a row: from 1 s to
// 5 min, spread by a fifth.
func backoffAt(n int) time.Duration {
	b := backoff.ExponentialBackOff{InitialInterval: time.Second, Multiplier: 2, RandomizationFactor: 0.2, MaxInterval: 5 * time.Minute}
	b.Reset()
	wait := b.NextBackOff()
	for range min(n-1, 10) {
		wait = b.NextBackOff()
	}
	return wait
}

// span writes a duration in the largest unit that it is whole in.
func span(d time.Duration) string {
	switch {
	case d%time.Hour == 0:
		return fmt.Sprintf("%dh", d/time.Hour)
	case d%time.Minute == 0:
		return fmt.Sprintf("%dm", d/time.Minute)
	}
	return d.String()
}
