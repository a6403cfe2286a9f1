package mattermost

import (
	"cmp"
	"net/http"
	"strconv"

	"hermes/testkit/fault"
)

// TooMany is a refusal by the rate limiter, which answers in plain text
// (https://api.mattermost.com/#tag/rate-limiting).
func TooMany(reset int) fault.Fault {
	return fault.Fault{Status: http.StatusTooManyRequests, Header: http.Header{"X-Ratelimit-Reset": {strconv.Itoa(reset)}}, Body: "limit exceeded\n"}
}

// misbehave writes a fault's answer, whose Code is the error's id.
func misbehave(w http.ResponseWriter, f fault.Fault) {
	answer(w, 0, nil, refuse(f.Status, cmp.Or(f.Code, "api.fake.app_error"), cmp.Or(f.Message, http.StatusText(f.Status))))
}
