package matrix

import (
	"cmp"
	"net/http"

	"hermes/testkit/fault"
)

// TooMany is a refusal by the rate limiter, in milliseconds,
// https://spec.matrix.org/v1.15/client-server-api/#rate-limiting.
func TooMany(ms int64) fault.Fault {
	e := refuse(http.StatusTooManyRequests, "M_LIMIT_EXCEEDED", "Too Many Requests")
	e.RetryMS = ms
	return fault.Answer(func(w http.ResponseWriter) { answer(w, nil, e) })
}

// misbehave writes a fault's answer, whose Code is an errcode such as M_FORBIDDEN.
func misbehave(w http.ResponseWriter, f fault.Fault) {
	answer(w, nil, refuse(f.Status, cmp.Or(f.Code, "M_UNKNOWN"), cmp.Or(f.Message, http.StatusText(f.Status))))
}
