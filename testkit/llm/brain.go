package llm

import (
	"context"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Echo answers with the last user message.
func Echo(r Request) Reply { return Reply{Text: r.LastUser()} }

// Instant answers "ok" in one piece, with as little work as the wire allows.
func Instant(Request) Reply { return Reply{Text: "ok", Pieces: []string{"ok"}} }

// Say always answers the same text.
func Say(text string) Brain { return func(Request) Reply { return Reply{Text: text} } }

// Always gives the same reply to every request.
func Always(r Reply) Brain { return func(Request) Reply { return r } }

// Script gives the replies one after another, and the last one for ever.
func Script(replies ...Reply) Brain {
	var mu sync.Mutex
	next := 0
	return func(Request) Reply {
		mu.Lock()
		defer mu.Unlock()
		r := replies[next]
		if next < len(replies)-1 {
			next++
		}
		return r
	}
}

// ToolThenAnswer calls the tool once for each user message, and answers with
// the text and the tool's result when that is there.
func ToolThenAnswer(name, arguments, text string) Brain {
	return func(r Request) Reply {
		if n := len(r.Messages); n > 0 && r.Messages[n-1].Role == "tool" {
			return Reply{Text: text + r.Messages[n-1].Text()}
		}
		id := "call_" + strconv.FormatInt(r.N, 10)
		return Reply{ToolCalls: []ToolCall{{ID: id, Name: name, Arguments: arguments}}}
	}
}

// Gate holds requests until it is opened, and tells when one has come: with it
// a test acts while a call is in flight.
type Gate struct {
	arrived chan struct{}
	open    chan struct{}
	once    sync.Once
}

// NewGate makes a closed gate.
func NewGate() *Gate { return &Gate{arrived: make(chan struct{}, 1024), open: make(chan struct{})} }

// Pass waits at the gate; it is what Reply.Before wants.
func (g *Gate) Pass(ctx context.Context) {
	select {
	case g.arrived <- struct{}{}:
	default:
	}
	select {
	case <-g.open:
	case <-ctx.Done():
	}
}

// Arrived gives one value for each request that came to the gate.
func (g *Gate) Arrived() <-chan struct{} { return g.arrived }

// Open lets everybody pass from now on.
func (g *Gate) Open() { g.once.Do(func() { close(g.open) }) }

// Failure is an answer with an error status.
type Failure struct {
	Status     int
	Type, Code string // of the error object; "" takes what the status usually has
	Param      string
	Message    string
	HTML       bool   // as a web page, the way a proxy in between answers
	Body       string // in place of both, as it stands
	Header     map[string]string
}

// Fail makes a failure in the service's own shape.
func Fail(status int) Failure { return Failure{Status: status} }

// FailHTML makes a failure as a proxy's web page.
func FailHTML(status int) Failure { return Failure{Status: status, HTML: true} }

// RateLimited is a 429 with Retry-After in seconds and the x-ratelimit headers.
func RateLimited(seconds int) Failure {
	return Failure{Status: http.StatusTooManyRequests, Header: map[string]string{
		"Retry-After":                    strconv.Itoa(seconds),
		"X-Ratelimit-Limit-Requests":     "60",
		"X-Ratelimit-Remaining-Requests": "0",
		"X-Ratelimit-Reset-Requests":     (time.Duration(seconds) * time.Second).String(),
	}}
}

// RateLimitedUntil is a 429 with Retry-After as an HTTP date.
func RateLimitedUntil(t time.Time) Failure {
	return Failure{Status: http.StatusTooManyRequests, Header: map[string]string{
		"Retry-After": t.UTC().Format(http.TimeFormat),
	}}
}

// Reply makes a reply of the failure.
func (f Failure) Reply() Reply { return Reply{Failure: &f} }

// usual gives type, code and message of the service's error for a status.
func usual(status int) (kind, code, message string) {
	switch status {
	case http.StatusUnauthorized:
		return "invalid_request_error", "invalid_api_key", "Incorrect API key provided."
	case http.StatusPaymentRequired:
		return "insufficient_quota", "insufficient_quota", "Insufficient credits."
	case http.StatusForbidden:
		return "invalid_request_error", "unsupported_country_region_territory", "Country, region, or territory not supported"
	case http.StatusNotFound:
		return "invalid_request_error", "model_not_found", "The model does not exist or you do not have access to it."
	case http.StatusTooManyRequests:
		return "requests", "rate_limit_exceeded", "Rate limit reached for requests"
	case http.StatusInternalServerError, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return "server_error", "", "The server had an error while processing your request. Sorry about that!"
	}
	return "invalid_request_error", "", strings.ToLower(http.StatusText(status))
}
