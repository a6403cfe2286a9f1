package model

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"strings"
	"sync"
	"time"

	"hermes/internal/domain"
	"hermes/internal/health"
)

const (
	firstBackoff = time.Second
	maxBackoff   = 30 * time.Second
	maxTurns     = 1024 // turns whose fallback is remembered
)

// ChainOptions set a Chain up. The zero value retries nothing.
type ChainOptions struct {
	// MaxRetries is how often one provider is tried again within a call.
	MaxRetries int
	// MaxWait is the longest Retry-After that is waited for; a longer one goes
	// to the next provider, or ends the call. 0 means 60 s.
	MaxWait time.Duration
	Health  *health.Reporter // of the part "model"; may be nil
	Log     *slog.Logger     // nil logs nothing
	Now     func() time.Time // nil is time.Now
	// Sleep waits, or returns ctx's error when that ends first. nil sleeps.
	Sleep func(ctx context.Context, d time.Duration) error
	// Jitter gives a number of [0, 1) that spreads waits. nil is random.
	Jitter func() float64
}

// Chain is a row of providers that stands in for one: the first, tried again
// where that helps, then its fallbacks. It is a Provider, safe for concurrent
// use.
//
// Which failures are retried and which go to the next provider at once is the
// table in policy. A turn that fell to a fallback stays there; the next turn
// starts on the first provider again, unless that asked to be left alone and
// its time has not passed.
type Chain struct {
	providers []Provider
	o         ChainOptions

	mu     sync.Mutex
	resume []time.Time   // by provider: not to be called before
	turns  map[int64]int // turn → provider that it fell to
	order  []int64       // of turns, oldest first
}

// NewChain makes a chain of at least one provider.
func NewChain(providers []Provider, o ChainOptions) *Chain {
	if len(providers) == 0 {
		providers = []Provider{Unset()}
	}
	if o.MaxWait <= 0 {
		o.MaxWait = time.Minute
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Sleep == nil {
		o.Sleep = sleep
	}
	if o.Jitter == nil {
		o.Jitter = rand.Float64
	}
	return &Chain{providers: providers, o: o, resume: make([]time.Time, len(providers)), turns: map[int64]int{}}
}

// policy says what a kind of failure means for the call.
type policy struct {
	retries int  // after failures of this kind; -1 means as many as the chain allows
	next    bool // whether the next provider may do better
}

// policyOf gives the policy. A request that is too large goes back to the
// agent, which compresses it.
func policyOf(k Kind) policy {
	switch k {
	case RateLimited, Unavailable:
		return policy{-1, true}
	case Malformed, Empty:
		return policy{2, true}
	case Timeout:
		return policy{1, true} // each costs minutes
	case TooLarge:
		return policy{0, false}
	}
	return policy{0, true} // key, credit, model, request: the same again fails again
}

// Name gives the first provider's name.
func (c *Chain) Name() string { return c.providers[0].Name() }

// call is one Complete of a chain. It lies on the heap with all that it notes:
// thousands of calls wait at once, and their stacks should stay small.
type call struct {
	c        *Chain
	request  *Request
	onDelta  func(Delta)
	streamed bool         // since the last reset
	spent    domain.Usage // of failed attempts
	failures []*Error     // one of each provider that failed
}

// Complete calls the providers in turn; see Provider. The usage of failed
// attempts is part of the answer's. Request.Model is for the first provider;
// fallbacks use their own.
func (c *Chain) Complete(ctx context.Context, r *Request, onDelta func(Delta)) (*Answer, error) {
	k := &call{c: c, request: r}
	if onDelta != nil {
		k.onDelta = func(d Delta) {
			k.streamed = k.streamed || d.Text != "" || d.Reasoning != ""
			onDelta(d)
		}
	}
	for _, i := range c.candidates(r.TurnID) {
		k.reset()
		answer, err := k.try(ctx, i)
		if err == nil {
			c.answered(r.TurnID, i, answer, k.failures)
			return answer, nil
		}
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if !k.passOn(i, err) {
			break
		}
	}
	return nil, k.giveUp()
}

// passOn notes that a provider failed, and tells whether the next may do better.
func (k *call) passOn(i int, err error) bool {
	e := *AsError(err)
	if e.Provider == "" {
		e.Provider = k.c.providers[i].Name()
	}
	k.failures = append(k.failures, &e)
	if !policyOf(e.Kind).next {
		return false
	}
	k.c.o.Log.Warn("model call failed", "provider", e.Provider, "kind", e.Kind, "status", e.Status, "error", &e)
	return true
}

// giveUp gives the error of a call that no provider answered.
func (k *call) giveUp() error {
	e := summary(k.failures)
	e.Usage = k.spent
	k.c.failed(e, k.request)
	return e
}

// candidates gives the providers to try, in order: from where the turn fell to
// and around, and last those that asked to be left alone.
func (c *Chain) candidates(turn int64) []int {
	c.mu.Lock()
	defer c.mu.Unlock()
	now, from := c.o.Now(), c.turns[turn]
	var ready, resting []int
	for n := range c.providers {
		if i := (from + n) % len(c.providers); now.Before(c.resume[i]) {
			resting = append(resting, i)
		} else {
			ready = append(ready, i)
		}
	}
	return append(ready, resting...) // asking too early costs nothing but the refusal
}

// try calls one provider, again where that helps.
func (k *call) try(ctx context.Context, i int) (*Answer, error) {
	r := k.request
	if i > 0 && r.Model != "" {
		own := *r
		own.Model = ""
		r = &own
	}
	var seen map[Kind]int
	for attempt := 1; ; attempt++ {
		answer, err := k.c.providers[i].Complete(ctx, r, k.onDelta)
		if err == nil {
			answer.Usage = answer.Usage.Add(k.spent)
			return answer, nil
		}
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if seen == nil {
			seen = map[Kind]int{}
		}
		if err := k.wait(ctx, i, attempt, AsError(err), seen); err != nil {
			return nil, err
		}
	}
}

// wait waits before the next attempt at a provider. It fails with e when there
// is to be none. seen counts the failures of this provider by kind.
func (k *call) wait(ctx context.Context, i, attempt int, e *Error, seen map[Kind]int) error {
	k.spent = k.spent.Add(e.Usage)
	if e.RetryAfter > 0 {
		k.c.rest(i, e.RetryAfter)
	}
	seen[e.Kind]++
	p := policyOf(e.Kind)
	if attempt > k.c.o.MaxRetries || (p.retries >= 0 && seen[e.Kind] > p.retries) || e.RetryAfter > k.c.o.MaxWait {
		return e
	}
	k.reset()
	pause := k.c.backoff(attempt, e.RetryAfter)
	k.c.o.Log.Info("model call is tried again", "provider", k.c.providers[i].Name(), "kind", e.Kind, "status", e.Status, "attempt", attempt, "wait", pause, "error", e)
	return k.c.o.Sleep(ctx, pause)
}

// reset tells the observer that what it saw belongs to a failed attempt.
func (k *call) reset() {
	if k.streamed {
		k.streamed = false
		k.onDelta(Delta{Reset: true})
	}
}

// backoff gives the wait after the n-th attempt: doubling, between half and
// the whole of each step, and never less than was asked for.
func (c *Chain) backoff(n int, asked time.Duration) time.Duration {
	step := min(firstBackoff<<min(n-1, 10), maxBackoff)
	wait := step/2 + time.Duration(c.o.Jitter()*float64(step/2))
	if asked > 0 {
		wait = asked + time.Duration(c.o.Jitter()*float64(asked)/10)
	}
	return wait
}

// rest remembers that a provider asked to be left alone.
func (c *Chain) rest(i int, d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if until := c.o.Now().Add(d); until.After(c.resume[i]) {
		c.resume[i] = until
	}
}

// answered records a success: where the turn stays, and the evidence.
func (c *Chain) answered(turn int64, i int, a *Answer, failures []*Error) {
	c.mu.Lock()
	c.resume[i] = time.Time{}
	if _, known := c.turns[turn]; turn != 0 && i > 0 && !known {
		if len(c.order) >= maxTurns {
			delete(c.turns, c.order[0])
			c.order = append(c.order[:0], c.order[1:]...)
		}
		c.order = append(c.order, turn)
	}
	if turn != 0 && i > 0 {
		c.turns[turn] = i
	}
	c.mu.Unlock()

	h := c.o.Health
	h.Note("provider", a.Provider)
	h.Note("model", a.Model)
	if i == 0 {
		h.OK()
		return
	}
	why := "it is left alone until its limit ends, or failed earlier in this turn"
	if len(failures) > 0 {
		why = failures[0].Message
		h.Note("last_error", why)
	}
	h.Degraded("fallback", "the fallback "+c.providers[i].Name()+" answers in the place of "+c.Name()+": "+why)
	h.Alive()
}

// failed records that nobody answered. A request that is itself at fault, by
// its size, content or a model of its own choice, says nothing of the part.
func (c *Chain) failed(e *Error, r *Request) {
	h := c.o.Health
	if e.Kind == TooLarge || e.Kind == BadRequest || (e.Kind == NoModel && r.Model != "") {
		return
	}
	h.Note("last_error", e.Message)
	h.Note("last_error_at", c.o.Now().UTC().Format(time.RFC3339))
	switch e.Kind {
	case Auth, Quota, NoModel, NotSet:
		h.Down(string(e.Kind), e.Message)
	default:
		h.Degraded(string(e.Kind), e.Message)
	}
}

// summary makes one error of those of all providers: the first one's, which is
// the one to mend, and a word on the others. An error that the agent can act
// on, TooLarge, stands for all.
func summary(failures []*Error) *Error {
	last := failures[len(failures)-1]
	if last.Kind == TooLarge || len(failures) == 1 {
		e := *last
		return &e
	}
	e := *failures[0]
	var b strings.Builder
	b.WriteString(strings.TrimRight(e.Message, "."))
	causes := []error{e.Cause}
	for _, f := range failures[1:] {
		b.WriteString(". The fallback failed as well: " + strings.TrimRight(f.Message, "."))
		causes = append(causes, f.Cause)
	}
	e.Message, e.Cause = bound(b.String(), 2000), errors.Join(causes...)
	return &e
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
