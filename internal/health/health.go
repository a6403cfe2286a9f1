// Package health is the registry of evidence. Each part of the process reports
// what it last did and what is wrong; status, doctor and the watchdog read it.
// Nothing here guesses: a part that never reported is "starting".
package health

import (
	"sort"
	"sync"
	"time"
)

// State is the state of a part, as shown to people. For platforms the names
// are those of gateway_state.json.
type State string

// The states.
const (
	Starting State = "starting"
	OK       State = "ok"       // working, with evidence
	Degraded State = "degraded" // working partly, or retrying
	Down     State = "down"     // not working, and what to do is said
	Disabled State = "disabled" // switched off by configuration
)

// Part is what is known of one part.
type Part struct {
	Name     string            `json:"name"` // "platform.telegram", "api", "ledger", "cron", "model"
	State    State             `json:"state"`
	Code     string            `json:"code,omitempty"`    // machine word for what is wrong
	Message  string            `json:"message,omitempty"` // what is wrong, what it means, what to do
	Evidence map[string]string `json:"evidence,omitempty"`
	Since    time.Time         `json:"since"`            // of the state
	LastOK   time.Time         `json:"last_ok,omitzero"` // last proof of life
}

// Registry holds the parts. The zero value is not usable; see New.
type Registry struct {
	now func() time.Time
	mu  sync.Mutex
	m   map[string]*Part

	recovered func(part string)
}

// New makes a registry; now is the clock.
func New(now func() time.Time) *Registry { return &Registry{now: now, m: map[string]*Part{}} }

// OnRecovery sets what is called when a part works again that was degraded or
// down. It must not block. Set it before anything reports.
func (r *Registry) OnRecovery(f func(part string)) { r.recovered = f }

// Reporter reports for one part. Its methods are safe for concurrent use, and
// a nil *Reporter ignores every call.
type Reporter struct {
	r    *Registry
	name string
}

// Part gives the reporter of a named part, registering it as starting.
func (r *Registry) Part(name string) *Reporter {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.m[name] == nil {
		r.m[name] = &Part{Name: name, State: Starting, Since: r.now(), Evidence: map[string]string{}}
	}
	return &Reporter{r, name}
}

// Remove forgets a part.
func (r *Registry) Remove(name string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.m, name)
}

// Parts gives a copy of all parts, by name.
func (r *Registry) Parts() []Part {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := make([]Part, 0, len(r.m))
	for _, p := range r.m {
		c := *p
		c.Evidence = make(map[string]string, len(p.Evidence))
		for k, v := range p.Evidence {
			c.Evidence[k] = v
		}
		out = append(out, c)
	}
	sort.Slice(out, func(i, j int) bool { return out[i].Name < out[j].Name })
	return out
}

func (p *Reporter) set(s State, code, msg string, alive bool) {
	if p == nil {
		return
	}
	p.r.mu.Lock()
	part := p.r.m[p.name]
	if part == nil {
		p.r.mu.Unlock()
		return
	}
	now, was := p.r.now(), part.State
	if was != s {
		part.State, part.Since = s, now
	}
	part.Code, part.Message = code, msg
	if alive {
		part.LastOK = now
	}
	p.r.mu.Unlock()
	if s == OK && (was == Degraded || was == Down) && p.r.recovered != nil {
		p.r.recovered(p.name)
	}
}

// OK reports a proof of life.
func (p *Reporter) OK() { p.set(OK, "", "", true) }

// Alive records a proof of life and leaves the state as it is.
func (p *Reporter) Alive() {
	if p == nil {
		return
	}
	p.r.mu.Lock()
	defer p.r.mu.Unlock()
	if part := p.r.m[p.name]; part != nil {
		part.LastOK = p.r.now()
	}
}

// Degraded reports that the part works partly or is retrying.
func (p *Reporter) Degraded(code, message string) { p.set(Degraded, code, message, false) }

// Down reports that the part does not work; message says what to do.
func (p *Reporter) Down(code, message string) { p.set(Down, code, message, false) }

// Disabled reports that configuration switched the part off.
func (p *Reporter) Disabled(message string) { p.set(Disabled, "", message, false) }

// Note records a piece of evidence, e.g. "bot", "@name". "" removes it.
func (p *Reporter) Note(key, value string) {
	if p == nil {
		return
	}
	p.r.mu.Lock()
	defer p.r.mu.Unlock()
	part := p.r.m[p.name]
	switch {
	case part == nil:
	case value == "":
		delete(part.Evidence, key)
	default:
		part.Evidence[key] = value
	}
}
