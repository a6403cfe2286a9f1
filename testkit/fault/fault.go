// Package fault is how the fakes of the testkit misbehave on command. A fake asks
// its Rules about each request by the name of its operation, such as a method of
// the service's API; a test arms a Fault there, which the next such request meets.
// What a network does to bytes is the duty of testkit/faultproxy and testkit/port.
package fault

import (
	"context"
	"net/http"
	"slices"
	"sync"
)

// Fault is one way to misbehave. Its zero value does nothing; the fields that are
// set apply in the order in which they stand here.
type Fault struct {
	Chat  string // only requests that name this chat; "" means any
	Times int    // how often; 0 means once, below 0 until it is taken back

	Hold <-chan struct{} // wait for this to be closed before anything else
	// BlackHole never answers: the connection stays open until the client goes,
	// the fault is taken back or the fake closes.
	BlackHole bool

	Act  bool            // carry the request out before failing
	Then <-chan struct{} // having carried it out, wait for this to be closed, or for the client to go
	Cut  bool            // close the connection without an answer

	Status     int         // the answer's status; 0 means the service's usual one
	Code       string      // the error's name or number in the service's own words
	Message    string      // the error's text; "" means the one that the service gives with the status
	RetryAfter float64     // seconds that the answer asks for; 0 means it does not ask
	Header     http.Header // of the answer, beside what the service sets
	Body       string      // in place of an answer of the service, e.g. a front end's HTML
}

// BadGateway is the answer of a front end whose server is away.
func BadGateway() Fault {
	return Fault{Status: http.StatusBadGateway, Body: "<html>\r\n<head><title>502 Bad Gateway</title></head>\r\n</html>\r\n"}
}

// CutBefore drops the connection; the request is not carried out.
func CutBefore() Fault { return Fault{Cut: true} }

// CutAfter carries the request out and drops the connection in place of
// answering: to the client the outcome is unknown.
func CutAfter() Fault { return Fault{Act: true, Cut: true} }

// Lost carries the request out and never answers: the client is left to wait
// until it gives up, or until the fault is taken back.
func Lost() Fault { return Fault{Act: true, Then: make(chan struct{}), Cut: true} }

// TooMany is a refusal by a rate limit.
func TooMany(seconds float64) Fault {
	return Fault{Status: http.StatusTooManyRequests, RetryAfter: seconds}
}

// Redirect sends the client somewhere else.
func Redirect(status int, to string) Fault {
	return Fault{Status: status, Header: http.Header{"Location": {to}}, Body: "moved"}
}

// Answer is what a handler writes, in place of the service's answer.
func Answer(write func(w http.ResponseWriter)) Fault {
	var r recorder
	write(&r)
	return Fault{Status: r.status, Header: r.header, Body: r.body.String()}
}

// Rules are the faults that wait for requests of one fake. Their methods are safe
// for concurrent use.
type Rules struct {
	refuse func(w http.ResponseWriter, f Fault)
	done   chan struct{}

	mu    sync.Mutex
	rules []*Armed
}

// New gives rules without a fault. refuse writes the answer of a fault that has no
// Body, in the service's own words; nil writes the status alone. The headers that
// every service has are set before.
func New(refuse func(w http.ResponseWriter, f Fault)) *Rules {
	return &Rules{refuse: refuse, done: make(chan struct{})}
}

// Close lets go of every request that is held, for good.
func (r *Rules) Close() {
	r.mu.Lock()
	defer r.mu.Unlock()
	select {
	case <-r.done:
	default:
		close(r.done)
	}
}

// Fail arms a fault for an operation; "" means every one. Faults of one operation
// apply one after the other in the order of their arming. The returned function
// takes the fault back, and lets go of what it holds.
func (r *Rules) Fail(operation string, f Fault) (cancel func()) {
	a := &Armed{Fault: f, operation: operation, left: f.Times, gone: make(chan struct{}), done: r.done}
	if a.left == 0 {
		a.left = 1
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.rules = append(r.rules, a)
	return sync.OnceFunc(func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.rules = slices.DeleteFunc(r.rules, func(o *Armed) bool { return o == a })
		close(a.gone)
	})
}

// Take gives the fault that a request meets, or nil.
func (r *Rules) Take(operation, chat string) *Armed {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i, a := range r.rules {
		if a.operation != "" && a.operation != operation || a.Chat != "" && a.Chat != chat {
			continue
		}
		if a.left > 0 {
			a.left--
		}
		if a.left == 0 {
			r.rules = slices.Delete(r.rules, i, i+1)
		}
		return a
	}
	return nil
}

// Armed is a fault that a request has met.
type Armed struct {
	Fault
	operation string
	left      int           // below 0: no end
	gone      chan struct{} // closed when it is taken back
	done      chan struct{} // closed with the rules
}

// Wait holds a request as its fault says; false when it is never to be answered.
// A nil fault holds nothing.
func (a *Armed) Wait(ctx context.Context) bool {
	if a == nil || a.Hold == nil && !a.BlackHole {
		return true
	}
	hold := a.Hold
	if a.BlackHole {
		hold = nil
	}
	select {
	case <-hold:
		return true
	case <-a.gone:
		return true
	case <-ctx.Done():
	case <-a.done:
	}
	return false
}

// Linger waits between carrying a request out and answering it; a nil fault does
// not.
func (a *Armed) Linger(ctx context.Context) {
	if a == nil || a.Then == nil {
		return
	}
	select {
	case <-a.Then:
	case <-a.gone:
	case <-ctx.Done():
	case <-a.done:
	}
}

// Answers tells whether the fault answers in place of the service; a nil one does
// not.
func (a *Armed) Answers() bool {
	return a != nil && (a.Cut || a.Status != 0 || a.Code != "" || a.Message != "" || a.Body != "")
}
