package domain

import (
	"context"
	"errors"
	"fmt"
)

// Code classifies an error for machines. Codes are part of the contract: they
// appear in --json output, in API errors and in the ledger.
type Code string

// The codes. A method's comment names those that it may answer.
const (
	Invalid         Code = "invalid"         // the caller's input is wrong; retrying it unchanged cannot help
	NotFound        Code = "not_found"       // the named thing does not exist
	Conflict        Code = "conflict"        // the thing is in a state, or in hands, that forbids this
	Unauthenticated Code = "unauthenticated" // a key, token or pairing is missing or wrong
	Forbidden       Code = "forbidden"       // known caller, but not allowed
	TooLarge        Code = "too_large"       // over a limit of size or count
	RateLimited     Code = "rate_limited"    // try later; see the cause for when
	Unavailable     Code = "unavailable"     // passing: network, provider, busy store
	StorageFull     Code = "storage_full"    // no space left where the ledger lives
	Fenced          Code = "fenced"          // the lease has passed to another holder; stop at once
	Config          Code = "config"          // configuration is unusable (exit 78)
	Cancelled       Code = "cancelled"       // stopped on request
	Timeout         Code = "timeout"         // a deadline of ours ran out
	Internal        Code = "internal"        // a defect of ours
)

// Error is an error with a code for machines, a sentence for people and a
// cause for the log. Message says what happened, what it means and what to do;
// it never holds a secret.
type Error struct {
	Code    Code
	Message string
	Cause   error
}

// E makes an Error. cause may be nil.
func E(code Code, cause error, format string, args ...any) *Error {
	return &Error{Code: code, Message: fmt.Sprintf(format, args...), Cause: cause}
}

// Error gives the message, and the cause behind a colon where there is one.
func (e *Error) Error() string {
	if e.Cause != nil {
		return e.Message + ": " + e.Cause.Error()
	}
	return e.Message
}

// Unwrap gives the cause.
func (e *Error) Unwrap() error { return e.Cause }

// CodeOf gives the code of the outermost Error in err's chain. Context errors
// are Cancelled and Timeout; anything unknown is Internal; nil is "".
func CodeOf(err error) Code {
	if err == nil {
		return ""
	}
	var e *Error
	if errors.As(err, &e) {
		return e.Code
	}
	switch {
	case errors.Is(err, context.Canceled):
		return Cancelled
	case errors.Is(err, context.DeadlineExceeded):
		return Timeout
	}
	return Internal
}

// IsCode tells whether err has the code.
func IsCode(err error, code Code) bool { return err != nil && CodeOf(err) == code }

// MessageOf gives the sentence that a person may be shown: an Error's Message,
// and "internal error" for anything that was not made to be shown.
func MessageOf(err error) string {
	var e *Error
	if errors.As(err, &e) {
		return e.Message
	}
	switch CodeOf(err) {
	case "":
		return ""
	case Cancelled:
		return "stopped"
	case Timeout:
		return "it took too long"
	}
	return "internal error"
}
