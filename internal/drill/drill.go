// Package drill lets a gateway die on purpose, on the operator's own unit and
// under a light load of its own, and counts what that costs: connections
// refused, requests failed, messages lost or answered twice, and the longest
// time without an answer. What it finds is held against what is promised. It
// costs no money: the load are health checks, lists of models, and a chat
// command that no model answers.
package drill

import (
	"context"
	"fmt"
	"time"

	"hermes/internal/domain"
	"hermes/internal/secret"
)

// Step is one thing that is done to the gateway.
type Step struct {
	Name string
	// Do does it and returns when the gateway serves again, with a remark for
	// people. It must leave nothing undone when ctx ends.
	Do      func(ctx context.Context) (remark string, err error)
	Promise Promise
}

// Promise is what a step may cost. Nothing may ever be lost or doubled.
type Promise struct {
	Refused bool          // connections may be refused
	Cut     bool          // requests that were under way may be cut
	Gap     time.Duration // longest time without an answer
}

// Options is what a drill is made of.
type Options struct {
	// Address is that of the API, http://host:port; "" where it is off. Then the
	// only load is Ask.
	Address string
	Key     secret.Value
	// Ask is one question to the gateway that costs nothing, for where the API is
	// off.
	Ask   func(context.Context) error
	Steps []Step
	Now   func() time.Time
	// Patience is how long the load may wait to be served, before a step and
	// after it; 15 s when 0.
	Patience time.Duration
}

// Result is what a step cost.
type Result struct {
	Name     string   `json:"step"`
	Kept     bool     `json:"promise_kept"`
	Remark   string   `json:"remark,omitempty"`
	Requests int64    `json:"requests"`
	Refused  int64    `json:"refused"`
	Failed   int64    `json:"failed"` // other than refused and cut
	Cut      int64    `json:"cut"`    // under way when the process died
	Messages int      `json:"messages"`
	Lost     int      `json:"lost"`
	Doubled  int      `json:"doubled"`
	Gap      float64  `json:"gap_seconds"`
	Broken   []string `json:"broken"` // what of the promise was not kept
}

// The limits of a drill.
const (
	stepLimit   = 3 * time.Minute
	patience    = 15 * time.Second
	warmAnswers = 150              // before a step, and after it
	replyLimit  = 30 * time.Second // for the replies to what was accepted
)

// Run does one step after another, shows what each cost, and tells whether every
// promise was kept. Errors: Unavailable, when the gateway does not serve the load
// even before a step; Cancelled, when ctx ended.
func Run(ctx context.Context, o Options, show func(Result)) (kept bool, err error) {
	kept = true
	if o.Patience == 0 {
		o.Patience = patience
	}
	for n, s := range o.Steps {
		if ctx.Err() != nil {
			return false, interrupted(ctx, s)
		}
		r, err := o.step(ctx, n, s)
		if err != nil {
			return false, err
		}
		kept = kept && r.Kept
		show(r)
	}
	return kept, nil
}

func interrupted(ctx context.Context, s Step) error {
	return domain.E(domain.Cancelled, ctx.Err(), "the drill was interrupted at %s", s.Name)
}

// step does one step under load.
func (o Options) step(ctx context.Context, n int, s Step) (Result, error) {
	ctx, cancel := context.WithTimeout(ctx, stepLimit)
	defer cancel()
	l := startLoad(ctx, o, fmt.Sprintf("drill-%x-%d", o.Now().Unix(), n))
	defer l.end()
	if err := l.served(ctx, warmAnswers); ctx.Err() != nil {
		return Result{}, interrupted(ctx, s)
	} else if err != nil {
		return Result{}, domain.E(domain.Unavailable, err, "the gateway does not answer as it stands, so a drill would prove nothing; `hermes gateway verify` says what is wrong")
	}
	remark, err := s.Do(ctx)
	if ctx.Err() != nil {
		return Result{}, interrupted(ctx, s)
	}
	r := Result{Name: s.Name, Remark: remark, Broken: []string{}}
	if err != nil {
		r.Broken = append(r.Broken, domain.MessageOf(err))
	}
	if err := l.served(ctx, warmAnswers); err != nil {
		r.Broken = append(r.Broken, "it does not answer afterwards: "+domain.MessageOf(err))
	}
	l.end()
	l.count(&r)
	r.judge(s.Promise)
	return r, nil
}

// judge holds the figures against the promise.
func (r *Result) judge(p Promise) {
	say := func(broken bool, format string, args ...any) {
		if broken {
			r.Broken = append(r.Broken, fmt.Sprintf(format, args...))
		}
	}
	say(r.Refused > 0 && !p.Refused, "%d connections were refused", r.Refused)
	say(r.Cut > 0 && !p.Cut, "%d requests were cut", r.Cut)
	say(r.Failed > 0, "%d requests failed", r.Failed)
	say(r.Lost > 0, "%d messages were lost", r.Lost)
	say(r.Doubled > 0, "%d messages were answered twice", r.Doubled)
	say(r.Gap > p.Gap.Seconds(), "nothing was answered for %.1f s (%.1f s are promised)", r.Gap, p.Gap.Seconds())
	r.Kept = len(r.Broken) == 0
}
