package telegram

import (
	"net/http"
	"time"
)

// Fault is one way to misbehave. Zero fields do nothing; the fields that are
// set apply in the order in which they stand here.
type Fault struct {
	Chat  int64 // only requests that name this chat
	Times int   // how often; 0 means once, below 0 until it is taken back

	Delay time.Duration   // before anything else
	Hold  <-chan struct{} // wait for this to be closed before anything else
	// BlackHole never answers: the connection stays open until the client goes,
	// the fault is taken back or the server closes.
	BlackHole bool

	Act bool // carry the request out before failing
	Cut bool // close the connection without an answer

	Status      int    // the answer's HTTP status and error_code
	Description string // of the answer; "" means the one that Telegram gives with the status
	RetryAfter  int    // seconds, of a 429
	MigrateTo   int64  // the group's new id, of a 400
	Body        string // in place of a JSON answer, e.g. a front end's HTML
}

// BadGateway is the answer of a front end whose server is away.
func BadGateway() Fault {
	return Fault{Status: http.StatusBadGateway, Body: "<html>\r\n<head><title>502 Bad Gateway</title></head>\r\n</html>\r\n"}
}

// CutBefore drops the connection; the request is not carried out.
func CutBefore() Fault { return Fault{Cut: true} }

// CutAfter carries the request out and drops the connection in place of
// answering: to the client the outcome is unknown.
func CutAfter() Fault { return Fault{Cut: true, Act: true} }

// TooMany is a refusal by flood control.
func TooMany(seconds int) Fault {
	return Fault{Status: http.StatusTooManyRequests, RetryAfter: seconds}
}

// armed is a fault that waits for its method.
type armed struct {
	Fault
	method string // "" means any
	left   int    // below 0: no end
	gone   chan struct{}
}

// Fail arms a fault for a method ("" means every method, "file" the downloads).
// Faults of one method apply one after the other in the order of their arming.
// The returned function takes it back, and lets go of what it holds.
func (s *Server) Fail(method string, f Fault) (cancel func()) {
	a := &armed{Fault: f, method: method, left: f.Times, gone: make(chan struct{})}
	if a.left == 0 {
		a.left = 1
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults = append(s.faults, a)
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		select {
		case <-a.gone:
			return
		default:
		}
		a.left = 0
		close(a.gone)
	}
}

// fault takes the fault that applies to a request, or nil.
func (s *Server) fault(method string, chat int64) *armed {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, f := range s.faults {
		if f.left == 0 || f.method != "" && f.method != method || f.Chat != 0 && f.Chat != chat {
			continue
		}
		if f.left > 0 {
			f.left--
		}
		if f.left == 0 {
			s.faults = append(s.faults[:i:i], s.faults[i+1:]...)
		}
		return f
	}
	return nil
}

// wait holds a request as its fault says; false when it is never to be answered.
func (f *armed) wait(s *Server, r *http.Request) bool {
	if f.Delay > 0 {
		t := time.NewTimer(f.Delay)
		defer t.Stop()
		select {
		case <-t.C:
		case <-r.Context().Done():
			return false
		case <-s.done:
			return false
		}
	}
	hold := f.Hold
	if f.BlackHole {
		hold = make(chan struct{})
	}
	if hold == nil {
		return true
	}
	select {
	case <-hold:
		return true
	case <-f.gone:
		return true
	case <-r.Context().Done():
	case <-s.done:
	}
	return false
}

// answers tells whether the fault answers in place of the method.
func (f *armed) answers() bool { return f.Cut || f.Status != 0 || f.Body != "" }

// reply is the fault's answer.
func (f *armed) reply() *apiError {
	e := &apiError{Code: f.Status, Description: f.Description}
	e.Parameters.RetryAfter, e.Parameters.MigrateTo = f.RetryAfter, f.MigrateTo
	if e.Description == "" {
		e.Description = usualDescription(f)
	}
	return e
}

func usualDescription(f *armed) string {
	switch f.Status {
	case http.StatusTooManyRequests:
		return tooMany(f.RetryAfter).Description
	case http.StatusConflict:
		return conflictPoller
	case http.StatusBadRequest:
		if f.MigrateTo != 0 {
			return "Bad Request: group chat was upgraded to a supergroup chat"
		}
	}
	return http.StatusText(f.Status)
}
