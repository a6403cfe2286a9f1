package slack

import (
	"encoding/json"
	"net/http"

	"hermes/testkit/fault"
)

// Refusal is an answer with ok: false.
func Refusal(name string) fault.Fault { return fault.Fault{Code: name} }

// MissingScope is the refusal of an app that lacks a scope.
func MissingScope(scope string) fault.Fault {
	return fault.Answer(func(w http.ResponseWriter) { tell(w, http.StatusOK, refuse("missing_scope", scope)) })
}

// misbehave writes a fault's answer, whose Code is the error's name. A 429 is
// that of https://docs.slack.dev/apis/web-api/rate-limits.
func misbehave(w http.ResponseWriter, f fault.Fault) {
	if f.Code == "" && f.Status == http.StatusTooManyRequests {
		f.Code = "ratelimited"
	}
	status := max(f.Status, http.StatusOK)
	if f.Code == "" {
		w.WriteHeader(status)
		return
	}
	tell(w, status, refuse(f.Code, ""))
}

func tell(w http.ResponseWriter, status int, a answer) {
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(a) //nolint:errcheck // the client may be gone
}
