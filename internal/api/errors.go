package api

import (
	"bytes"
	"encoding/json"
	"errors"
	"net/http"
	"strconv"
	"time"

	"hermes/internal/domain"
)

// apiError is a failure in OpenAI's shape. See
// https://platform.openai.com/docs/guides/error-codes.
type apiError struct {
	status     int
	kind       string // error.type
	code       string
	message    string
	param      string
	hint       string        // what to do, where the message is fixed by contract
	retryAfter time.Duration // 0 sends no Retry-After
	final      bool          // the client's library must not repeat the request by itself
	turn       *outcome      // of a turn that ran
}

// outcome says how far a turn came.
type outcome struct {
	Completed bool `json:"completed"`
	Partial   bool `json:"partial"`
	Failed    bool `json:"failed"`
}

func (o outcome) setHeaders(h http.Header) {
	h.Set("X-Hermes-Completed", strconv.FormatBool(o.Completed))
	h.Set("X-Hermes-Partial", strconv.FormatBool(o.Partial))
	if o.Failed {
		h.Set("X-Hermes-Error", "true")
	}
}

// errorBody is the JSON envelope.
type errorBody struct {
	Error errorFields `json:"error"`
}

type errorFields struct {
	Message string   `json:"message"`
	Type    string   `json:"type"`
	Param   *string  `json:"param,omitempty"`
	Code    string   `json:"code"`
	Hint    string   `json:"hint,omitempty"`
	Hermes  *outcome `json:"hermes,omitempty"`
}

func (e *apiError) body() errorBody {
	f := errorFields{Message: e.message, Type: e.kind, Code: e.code, Hint: e.hint, Hermes: e.turn}
	if e.param != "" {
		f.Param = &e.param
	}
	return errorBody{f}
}

// fail answers with an error.
func (s *Server) fail(w http.ResponseWriter, e *apiError) {
	h := w.Header()
	if e.retryAfter > 0 {
		h.Set("Retry-After", retrySeconds(e.retryAfter))
	}
	if e.final {
		// OpenAI's libraries repeat 5xx, 409 and 429 by themselves; what has run
		// tools must not run again unasked.
		h.Set("X-Should-Retry", "false")
	}
	if e.turn != nil {
		e.turn.setHeaders(h)
	}
	writeJSON(w, e.status, e.body())
}

// writeJSON answers with a document.
func writeJSON(w http.ResponseWriter, status int, v any) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		panic(err) // our own types always encode
	}
	writeBody(w, status, "application/json", bytes.TrimRight(b.Bytes(), "\n"))
}

func writeBody(w http.ResponseWriter, status int, contentType string, body []byte) {
	h := w.Header()
	h.Set("Content-Type", contentType)
	h.Set("Content-Length", strconv.Itoa(len(body)))
	if h.Get("Cache-Control") == "" {
		h.Set("Cache-Control", "no-store")
	}
	w.WriteHeader(status)
	// The client may be gone; there is nobody to tell.
	_, _ = w.Write(body)
}

// invalid is a request that can never work as it is.
func invalid(param, message string) *apiError {
	return &apiError{status: http.StatusBadRequest, kind: "invalid_request_error", code: "invalid_request", param: param, message: message}
}

func tooLarge(code, message string) *apiError {
	return &apiError{status: http.StatusRequestEntityTooLarge, kind: "invalid_request_error", code: code, message: message}
}

// turnStatus maps the code of a failed turn.
var turnStatus = map[domain.Code]struct {
	status     int
	kind       string
	retryAfter time.Duration
}{
	domain.Invalid:     {http.StatusBadRequest, "invalid_request_error", 0},
	domain.Forbidden:   {http.StatusForbidden, "invalid_request_error", 0},
	domain.NotFound:    {http.StatusNotFound, "invalid_request_error", 0},
	domain.Conflict:    {http.StatusConflict, "invalid_request_error", 0},
	domain.TooLarge:    {http.StatusRequestEntityTooLarge, "invalid_request_error", 0},
	domain.RateLimited: {http.StatusTooManyRequests, "rate_limit_error", 10 * time.Second},
	domain.Unavailable: {http.StatusServiceUnavailable, "server_error", 5 * time.Second},
	domain.StorageFull: {http.StatusServiceUnavailable, "server_error", time.Minute},
	domain.Timeout:     {http.StatusGatewayTimeout, "server_error", 0},
}

// turnError is the failure of a turn. partial tells whether some of the answer
// was written before.
func turnError(err error, partial bool) *apiError {
	var known *domain.Error
	message := domain.MessageOf(err)
	if !errors.As(err, &known) && domain.CodeOf(err) == domain.Internal {
		message = "The gateway failed on this turn; the log has the cause."
	}
	e := &apiError{status: http.StatusBadGateway, kind: "server_error", code: "agent_incomplete", message: message,
		final: true, turn: &outcome{Partial: partial, Failed: true}}
	if m, ok := turnStatus[domain.CodeOf(err)]; ok {
		e.status, e.kind, e.retryAfter, e.code = m.status, m.kind, m.retryAfter, string(domain.CodeOf(err))
	}
	return e
}
