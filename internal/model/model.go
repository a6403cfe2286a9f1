// Package model is the contract of a language model provider, and what stands
// around one: retries, fallbacks, pools of keys. Providers live in packages of
// their own below this one.
package model

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	"hermes/internal/domain"
)

// ToolSpec is a tool as the model sees it.
type ToolSpec struct {
	Name        string
	Description string
	Schema      json.RawMessage // JSON Schema of the arguments
}

// Request is one model call.
type Request struct {
	Model       string // "" means the provider's default
	System      string
	Messages    []domain.Message
	Tools       []ToolSpec // must not change any more: providers remember what they made of a list
	MaxTokens   int        // 0 means the provider's default
	Temperature *float64   // nil means the provider's default
	SessionID   domain.SessionID
	TurnID      int64 // a Chain that fell to a fallback stays there for the rest of the turn; 0: each call stands alone
}

// FinishReason says why an answer ended.
type FinishReason string

// The reasons, as chat completions name them.
const (
	FinishStop   FinishReason = "stop"
	FinishLength FinishReason = "length"
	FinishTools  FinishReason = "tool_calls"
	FinishFilter FinishReason = "content_filter"
)

// Answer is a whole answer.
type Answer struct {
	Text      string
	Reasoning string
	ToolCalls []domain.ToolCall
	Finish    FinishReason
	Usage     domain.Usage
	Model     string // that answered
	Provider  string
}

// Delta is a piece of an answer as it comes. Reset says that everything
// streamed before it in this call belonged to an attempt that failed.
type Delta struct {
	Text      string
	Reasoning string
	Reset     bool
}

// Provider calls one model service. Complete is safe for concurrent use. It only
// reads r, and calls onDelta, where not nil, from the calling goroutine, in
// order. The answer is the caller's own; it is nil when the call fails, with an
// *Error or with ctx's error. It holds no more than a bounded answer: an endless
// stream is cut off with Kind TooLong.
type Provider interface {
	Name() string
	Complete(ctx context.Context, r *Request, onDelta func(Delta)) (*Answer, error)
}

// Kind classifies a failure of a model call.
type Kind string

// The kinds, with the HTTP status that each stands for.
const (
	Auth        Kind = "auth"         // 401, 403: key missing, wrong or without the right
	Quota       Kind = "quota"        // 402: no credit
	NoModel     Kind = "no_model"     // 404: the model or the address does not exist
	BadRequest  Kind = "bad_request"  // 400, 409, 422
	TooLarge    Kind = "too_large"    // 413, or the context window is exceeded
	RateLimited Kind = "rate_limited" // 429
	Timeout     Kind = "timeout"      // 408, or ours
	Unavailable Kind = "unavailable"  // 5xx, network
	Malformed   Kind = "malformed"    // an answer that is none: broken or truncated stream, no JSON
	Empty       Kind = "empty"        // an answer without text and tool calls
	TooLong     Kind = "too_long"     // the stream did not end within its bound
	NotSet      Kind = "not_set"      // no model is configured
	Other       Kind = "other"
)

// Error is how a provider fails. Message says what happened, what it means and
// what to do, and holds no secret.
type Error struct {
	Kind       Kind
	Provider   string
	Status     int // HTTP status; 0 when there was none
	Message    string
	RetryAfter time.Duration
	Usage      domain.Usage // what the failed call cost, as far as it is known
	Cause      error
}

// Error gives the message and the cause.
func (e *Error) Error() string {
	if e.Cause != nil {
		return e.Message + ": " + e.Cause.Error()
	}
	return e.Message
}

// Unwrap gives the cause.
func (e *Error) Unwrap() error { return e.Cause }

// AsError finds the *Error in err's chain, or makes one of Kind Other.
func AsError(err error) *Error {
	var e *Error
	if errors.As(err, &e) {
		return e
	}
	return &Error{Kind: Other, Message: "the model call failed", Cause: err}
}
