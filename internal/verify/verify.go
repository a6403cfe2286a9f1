// Package verify proves an installation from end to end, by doing each thing
// once for real: the model is called, a message is delivered, the API is asked.
// What was never wanted is no failure, and is said as such.
package verify

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"hermes/internal/control"
	"hermes/internal/cron"
	"hermes/internal/domain"
	"hermes/internal/secret"
	"hermes/internal/service"
)

// State is what became of a check.
type State string

// The states.
const (
	Proved   State = "ok"
	Failed   State = "failed"
	Unwanted State = "not wanted" // nothing of the kind is set up, and nothing needs it
)

// Check is one line of the answer.
type Check struct {
	Name     string  `json:"check"`
	State    State   `json:"state"`
	Evidence string  `json:"evidence"` // of a failed one: why, and what to do
	Seconds  float64 `json:"seconds"`
}

// Receipt is a message that was delivered, or was not.
type Receipt struct {
	To    string
	Sent  bool
	ID    string // the platform's id of it, "" where it gives none
	Error string // why it was not delivered
}

// Options is what is looked at. All but Deliver are needed.
type Options struct {
	Profile string // "" or " -p NAME", for what is to be typed
	Status  func(context.Context) (control.Status, error)
	Config  string // why the configuration on disk is not the one that is proved; "" when it is
	// Model calls the model that is set, and says in a sentence how it answered.
	Model func(context.Context) (string, error)
	// Chats tells whether a chat platform is set up; Deliver sends to every home
	// channel and waits for the receipts. No receipt means no home channel. nil
	// sends nothing.
	Chats   bool
	Deliver func(context.Context) ([]Receipt, error)
	Key     secret.Value // of the API
	Cron    func(context.Context) (cron.Status, error)
	Unit    service.Report
	Now     func() time.Time
}

// The longest that each check takes.
const (
	modelLimit   = 45 * time.Second
	deliverLimit = 45 * time.Second
	apiLimit     = 10 * time.Second
	askLimit     = 10 * time.Second
)

// Run makes every check, gives each to show as it is known, and tells whether
// none failed.
func Run(ctx context.Context, o Options, show func(Check)) bool {
	all := true
	one := func(name string, limit time.Duration, check func(context.Context) (State, string)) {
		ctx, cancel := context.WithTimeout(ctx, limit)
		defer cancel()
		began := o.Now()
		state, evidence := check(ctx)
		if state == Failed && errors.Is(ctx.Err(), context.DeadlineExceeded) {
			evidence += fmt.Sprintf(" (given up after %s)", limit)
		}
		all = all && state != Failed
		show(Check{name, state, evidence, o.Now().Sub(began).Round(time.Millisecond).Seconds()})
	}
	ask, cancel := context.WithTimeout(ctx, askLimit)
	status, err := o.Status(ask)
	cancel()
	if o.Config != "" {
		one("config", askLimit, func(context.Context) (State, string) { return Failed, o.Config })
	}
	if err != nil {
		one("gateway", askLimit, func(context.Context) (State, string) { return Failed, domain.MessageOf(err) })
	}
	one("model", modelLimit, func(ctx context.Context) (State, string) { return result(o.Model(ctx)) })
	if err == nil {
		one("message", deliverLimit, o.message)
		one("API", apiLimit, func(ctx context.Context) (State, string) { return o.api(ctx, status) })
		one("next tick", askLimit, o.tick)
	}
	one("logout", askLimit, func(context.Context) (State, string) { return o.logout(status) })
	one("reboot", askLimit, func(context.Context) (State, string) { return o.reboot(status) })
	return all
}

func result(evidence string, err error) (State, string) {
	if err != nil {
		return Failed, domain.MessageOf(err)
	}
	return Proved, evidence
}

// message holds that the home channels can be reached: what goes wrong one day
// is told there.
func (o Options) message(ctx context.Context) (State, string) {
	switch {
	case !o.Chats:
		return Unwanted, "no chat platform is set up"
	case o.Deliver == nil:
		return Unwanted, "nothing was sent (--no-send)"
	}
	receipts, err := o.Deliver(ctx)
	if err != nil {
		return Failed, domain.MessageOf(err)
	}
	if len(receipts) == 0 {
		return Failed, "no home channel is set, so nobody hears of trouble: write /sethome to the bot"
	}
	var sent, failed []string
	for _, r := range receipts {
		if r.Sent {
			sent = append(sent, fmt.Sprintf("delivered to %s (receipt %s)", r.To, orNone(r.ID)))
		} else {
			failed = append(failed, fmt.Sprintf("not delivered to %s: %s", r.To, r.Error))
		}
	}
	if len(failed) > 0 {
		return Failed, strings.Join(append(failed, sent...), "; ")
	}
	return Proved, strings.Join(sent, "; ")
}

func orNone(id string) string {
	if id == "" {
		return "without an id"
	}
	return id
}

// api asks the API on its own address, with its own key.
func (o Options) api(ctx context.Context, s control.Status) (State, string) {
	switch {
	case !s.API.Enabled:
		return Unwanted, "the API is off (API_SERVER_ENABLED=true switches it on)"
	case s.API.Address == "":
		return Failed, partMessage(s, "api", "it is switched on and not bound")
	}
	address, err := s.API.Reachable()
	if err != nil {
		return Failed, err.Error()
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address+"/v1/models", nil)
	if err != nil {
		return Failed, err.Error()
	}
	how := "without a key, as none is set"
	if o.Key.IsSet() {
		req.Header.Set("Authorization", "Bearer "+o.Key.Reveal())
		how = "with its key"
	}
	t := &http.Transport{} // no proxy
	defer t.CloseIdleConnections()
	res, err := (&http.Client{Transport: t}).Do(req)
	if err != nil {
		return Failed, fmt.Sprintf("%s did not answer: %s", address, reason(err))
	}
	defer res.Body.Close()
	if _, err := io.Copy(io.Discard, io.LimitReader(res.Body, 1<<20)); err != nil {
		return Failed, fmt.Sprintf("%s broke off: %s", address, reason(err))
	}
	switch res.StatusCode {
	case http.StatusOK:
		return Proved, fmt.Sprintf("%s/v1/models answered %s", address, how)
	case http.StatusUnauthorized:
		return Failed, fmt.Sprintf("%s answered 401 %s: the gateway was started with another key than .env has now; `hermes%s gateway restart`", address, how, o.Profile)
	}
	return Failed, fmt.Sprintf("%s/v1/models answered %s", address, res.Status)
}

// reason is an error of a request without its address.
func reason(err error) string {
	var e *url.Error
	if errors.As(err, &e) {
		return e.Err.Error()
	}
	return err.Error()
}

// partMessage is what a part says is wrong with it.
func partMessage(s control.Status, name, otherwise string) string {
	for _, p := range s.Parts {
		if p.Name == name && p.Message != "" {
			return p.Message
		}
	}
	return otherwise
}

// tick holds that a scheduler runs and keeps up.
func (o Options) tick(ctx context.Context) (State, string) {
	st, err := o.Cron(ctx)
	switch {
	case err != nil:
		return Failed, domain.MessageOf(err)
	case !st.Running:
		return Failed, "no scheduler runs: " + st.Who
	case st.Stalled:
		return Failed, fmt.Sprintf("the scheduler (%s) is stuck since %s; `hermes%s gateway restart`", st.Who, st.Heartbeat.Local().Format("15:04:05"), o.Profile)
	case st.Behind > 0:
		return Failed, fmt.Sprintf("the scheduler (%s) is %d s behind with %s", st.Who, st.Behind, st.NextName)
	case st.Next.IsZero():
		return Unwanted, "no job is scheduled; the scheduler runs (" + st.Who + ")"
	}
	return Proved, fmt.Sprintf("%s at %s (%s)", st.NextName, st.Next.Local().Format("2006-01-02 15:04:05 MST"), st.Who)
}

// container is how Mode.Supervisor names PID 1.
const container = "container"

func (o Options) logout(s control.Status) (State, string) {
	if s.Mode.Supervisor == container {
		return Unwanted, "it is PID 1 of a container, which knows no login sessions"
	}
	return verdict(o.Unit.Logout())
}

func (o Options) reboot(s control.Status) (State, string) {
	if s.Mode.Supervisor == container {
		return Unwanted, "it is PID 1 of a container; whatever runs that decides"
	}
	return verdict(o.Unit.Reboot())
}

func verdict(ok bool, why string) (State, string) {
	if ok {
		return Proved, why
	}
	return Failed, why
}
