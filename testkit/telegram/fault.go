package telegram

import (
	"net/http"

	"hermes/testkit/fault"
)

// Migrated is the refusal of a group that has become a supergroup with another id.
func Migrated(to int64) fault.Fault {
	e := badRequest("group chat was upgraded to a supergroup chat")
	e.Parameters.MigrateTo = to
	return fault.Answer(func(w http.ResponseWriter) { answer(w, nil, e) })
}

// misbehave writes a fault's answer, whose Message is the description.
func misbehave(w http.ResponseWriter, f fault.Fault) {
	e := &apiError{Code: f.Status, Description: f.Message}
	if f.Status == http.StatusTooManyRequests {
		e = tooMany(int(f.RetryAfter))
	}
	switch {
	case e.Description != "":
	case f.Status == http.StatusConflict:
		e.Description = conflictPoller
	default:
		e.Description = http.StatusText(f.Status)
	}
	answer(w, nil, e)
}
