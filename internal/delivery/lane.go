package delivery

import (
	"container/heap"
	"time"

	"hermes/internal/domain"
)

// laneState says where a lane is.
type laneState int

const (
	waiting laneState = iota // in the heap, for an instant
	queued                   // in its line's queue, for a goroutine
	running                  // its goroutine sends
)

// lane is an address that has work. It is guarded by Dispatcher.mu, but for
// failures, which belongs to its goroutine.
type lane struct {
	to       domain.Address
	state    laneState
	at       time.Time // waiting: until when
	slot     int       // waiting: place in the heap
	again    bool      // running: it was woken meanwhile
	failures int       // of the ledger, in a row
}

// laneHeap orders waiting lanes by their instants.
type laneHeap []*lane

func (h laneHeap) Len() int           { return len(h) }
func (h laneHeap) Less(i, j int) bool { return h[i].at.Before(h[j].at) }
func (h laneHeap) Swap(i, j int)      { h[i], h[j] = h[j], h[i]; h[i].slot, h[j].slot = i, j }

// Push implements heap.Interface.
func (h *laneHeap) Push(x any) {
	ln := x.(*lane)
	ln.slot = len(*h)
	*h = append(*h, ln)
}

// Pop implements heap.Interface.
func (h *laneHeap) Pop() any {
	old := *h
	ln := old[len(old)-1]
	old[len(old)-1] = nil
	*h = old[:len(old)-1]
	return ln
}

// drop takes a lane out if it is waiting.
func (h *laneHeap) drop(ln *lane) {
	if ln.state == waiting {
		heap.Remove(h, ln.slot)
	}
}

// lane finds or makes the lane of an address, unknown to queue and heap when it
// is new. It is nil when there is no room or nobody to send, which before Start
// is nobody: the first scan finds it. The caller holds mu.
func (d *Dispatcher) lane(to domain.Address) (ln *lane, isNew bool) {
	if !d.started || d.stopping || d.lines[to.Platform] == nil {
		return nil, false
	}
	if ln = d.lanes[to]; ln != nil {
		return ln, false
	}
	if len(d.lanes) >= maxLanes {
		d.missed = true
		return nil, false
	}
	ln = &lane{to: to}
	d.lanes[to] = ln
	return ln, true
}

// ready gives an address work to do now. The caller holds mu.
func (d *Dispatcher) ready(to domain.Address) {
	ln, isNew := d.lane(to)
	switch {
	case ln == nil:
	case isNew:
		d.enqueue(ln)
	case ln.state == waiting:
		d.timers.drop(ln)
		d.enqueue(ln)
	case ln.state == running:
		ln.again = true
	}
}

// wait gives an address work to do at an instant, unless it has some before.
// The caller holds mu.
func (d *Dispatcher) wait(to domain.Address, at time.Time) {
	ln, isNew := d.lane(to)
	switch {
	case ln == nil:
	case isNew:
		d.park(ln, at)
	case ln.state == waiting && at.Before(ln.at):
		ln.at = at
		heap.Fix(&d.timers, ln.slot)
	}
}

// park puts a lane into the heap. The caller holds mu.
func (d *Dispatcher) park(ln *lane, at time.Time) {
	ln.state, ln.at = waiting, at
	heap.Push(&d.timers, ln)
	if ln.slot == 0 {
		d.wakeLoop()
	}
}

// enqueue puts a lane that is nowhere into its line's queue. The caller holds mu.
func (d *Dispatcher) enqueue(ln *lane) {
	l := d.lines[ln.to.Platform]
	if l == nil {
		delete(d.lanes, ln.to)
		return
	}
	ln.state = queued
	l.queue = append(l.queue, ln)
	d.launch(l)
}

// launch gives goroutines to queued lanes, in turn, as far as the line has some
// free and the platform's rates allow. The caller holds mu.
func (d *Dispatcher) launch(l *line) {
	for !d.stopping && l.running < perPlatform && len(l.queue) > 0 {
		ln := l.queue[0]
		if l.paused != "" {
			l.take()
			delete(d.lanes, ln.to)
			continue
		}
		giveBack, chatAt, slotAt := l.limits.reserve(ln.to.ChatID, d.o.Now())
		if !slotAt.IsZero() {
			l.slotAt = slotAt
			d.wakeLoop()
			return
		}
		l.take()
		if !chatAt.IsZero() {
			d.park(ln, chatAt)
			continue
		}
		ln.state = running
		l.running++
		d.work.Go(func() {
			next, more := d.step(l, ln, giveBack)
			d.rest(l, ln, next, more)
		})
	}
}

// take takes the first lane off the queue.
func (l *line) take() {
	l.queue[0] = nil
	l.queue = l.queue[1:]
}

// rest ends a lane's goroutine after one attempt, so that the addresses of a
// platform take turns. more says that there is work left to do now, and next,
// unless zero, when there is some later.
func (d *Dispatcher) rest(l *line, ln *lane, next time.Time, more bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	l.running--
	again := more || ln.again
	ln.again = false
	switch {
	case d.stopping || d.lines[ln.to.Platform] == nil:
		delete(d.lanes, ln.to)
	case d.lines[ln.to.Platform] != l:
		d.enqueue(ln) // another adapter came, whose scan did not see what this lane had claimed
	case again || (!next.IsZero() && !next.After(d.o.Now())):
		d.enqueue(ln)
	case next.IsZero():
		delete(d.lanes, ln.to)
	default:
		d.park(ln, next)
	}
	if d.missed && len(d.lanes) <= maxLanes/2 {
		d.missed, d.scanDue = false, true
		d.wakeLoop()
	}
	d.launch(l)
}
