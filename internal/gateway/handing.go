package gateway

import (
	"context"
	"slices"
	"sync"

	"hermes/internal/domain"
	"hermes/internal/succession"
)

// outcome is what became of this process as the one that serves.
type outcome int

const (
	serves   outcome = iota // it does, or stops with nobody to follow
	gaveAway                // a successor serves
	goesOn                  // it will be another program, under the same PID
)

// handing is the state of handing over. At most one hand-over is under way.
type handing struct {
	mu      sync.Mutex
	busy    bool
	stopped bool
	result  outcome
	cancel  context.CancelFunc // of the one under way
	work    sync.WaitGroup
	rushed  chan struct{} // closed when lingering is to end soon
	rush    sync.Once

	elders []succession.Elder // those who handed over before us and still live
	child  int                // PID of the successor
	lanes  <-chan struct{}    // closed when no chat turn runs here any more

	program string // for goesOn
	held    *succession.Held
}

// begin claims the hand-over; domain.Conflict when one is under way or the
// process stops.
func (h *handing) begin(ctx context.Context) (context.Context, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case h.stopped || h.result != serves:
		return nil, domain.E(domain.Conflict, nil, "this gateway is stopping already")
	case h.busy:
		return nil, domain.E(domain.Conflict, nil, "a restart is under way already")
	}
	ctx, h.cancel = context.WithCancel(ctx)
	h.busy = true
	h.work.Add(1)
	return ctx, nil
}

// end closes a hand-over with its outcome.
func (h *handing) end(r outcome) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.cancel()
	h.busy, h.result = false, r
	h.work.Done()
}

// stop ends what is under way, where that is possible still, and lets nothing
// new begin.
func (h *handing) stop() {
	h.mu.Lock()
	h.stopped = true
	if h.busy {
		h.cancel()
	}
	h.mu.Unlock()
	h.work.Wait()
}

func (h *handing) outcome() outcome {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.result
}

// hurried is closed once hurry was called.
func (h *handing) hurried() <-chan struct{} { return h.rushing() }

func (h *handing) rushing() chan struct{} {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.rushed == nil {
		h.rushed = make(chan struct{})
	}
	return h.rushed
}

// hurry ends lingering soon.
func (h *handing) hurry() {
	c := h.rushing()
	h.rush.Do(func() { close(c) })
}

// abandon lets a restart in place that drains end as a stop.
func (h *handing) abandon() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.held, h.program = nil, ""
}

// becomes remembers the program that this process goes on as, with nothing kept.
func (h *handing) becomes(program string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.program = program
}

// living are the elders that still live; others are forgotten.
func (h *handing) living() []succession.Elder {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.elders = slices.DeleteFunc(h.elders, func(e succession.Elder) bool { return !e.Alive() })
	return slices.Clone(h.elders)
}

func (h *handing) setChild(pid int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.child = pid
}

// kin tells whether a PID is that of an elder or of the successor.
func (h *handing) kin(pid int) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return pid == h.child || slices.ContainsFunc(h.elders, func(e succession.Elder) bool { return e.PID == pid && e.Alive() })
}

// owns tells whether the profile's files and signs are this process's to keep.
func (g *Gateway) owns() bool { return g.handing.outcome() != gaveAway }
