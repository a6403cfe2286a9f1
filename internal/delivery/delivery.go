// Package delivery takes messages from the outbox to their platforms. Plan
// renders an answer into deliveries; the Dispatcher sends them in order,
// retries what can be retried, and records a receipt or a reason for each; a
// Preview shows an answer while it is written.
//
// Each address with work is one goroutine for as long as it can go on, so that
// the order within an address is kept and a stuck chat holds up nobody. Each
// platform has a number of such goroutines of its own, so that a slow one does
// not slow the others down. What must wait, for a retry or for a rate limit,
// holds no goroutine: it lies in one heap of instants. Nothing is polled; a
// slow scan of the ledger makes up for a wake-up that was lost.
package delivery

import (
	"container/heap"
	"context"
	"log/slog"
	"strconv"
	"sync"
	"time"

	"hermes/internal/domain"
	"hermes/internal/health"
	"hermes/internal/ledger"
	"hermes/internal/platform"
)

// Store is the part of the ledger that the dispatcher needs; see ledger.Outbox
// for what each verb promises.
type Store interface {
	DueAddresses(ctx context.Context) ([]ledger.DueAddress, error)
	ClaimDelivery(ctx context.Context, to domain.Address, now time.Time) (d domain.Delivery, ok bool, next time.Time, err error)
	MarkSent(ctx context.Context, d ledger.DeliveryRef, receipt string, now time.Time) error
	MarkRetry(ctx context.Context, d ledger.DeliveryRef, next time.Time, reason string, uncertain bool, part *domain.Part, edit *string) error
	MarkDead(ctx context.Context, d ledger.DeliveryRef, reason string, now time.Time) error
	MoveAddress(ctx context.Context, from, to domain.Address) error
	Deliveries(ctx context.Context, f ledger.DeliveryFilter) ([]domain.Delivery, error)
	RetryDelivery(ctx context.Context, id int64, now time.Time) (domain.Delivery, error)
}

// What to do with a message whose earlier attempt may have arrived, on a
// platform that cannot tell.
const (
	Resend = "resend" // send it again, marked as possibly repeated
	Drop   = "drop"   // give it up
)

const (
	scanEvery   = time.Minute      // the safety scan
	sendTimeout = time.Minute      // of one message without a file
	fileTimeout = 10 * time.Minute // of one message with files
	grace       = 5 * time.Second  // for an adapter to come back once its context has ended
	perPlatform = 64               // addresses of a platform that are sent to at once
	maxLanes    = 1 << 14          // addresses with work that are kept in mind
)

// Options wires a Dispatcher. Store, Now and Log are needed.
type Options struct {
	Store  Store
	Now    func() time.Time
	Log    *slog.Logger
	Health *health.Registry

	OnUnknown   string        // Resend (default) or Drop
	MaxAge      time.Duration // after which a failed attempt is the last one; 24 h
	MaxAttempts int           // failed attempts after which a message is given up; 0 means until MaxAge
	Unlimited   bool          // rate limiter off (benchmarks)

	// Capabilities gives those of a platform that is not attached, so that
	// messages for it are rendered for it. May be nil.
	Capabilities func(domain.Platform) (platform.Capabilities, bool)
	// ToolProgress says which tool calls a preview shows: all, new (only when
	// the tool changes; the default), verbose (with their outcome) or off.
	ToolProgress string
	// AllowFile is asked before a file that an answer names is sent; an error
	// is shown in its place. nil allows every file.
	AllowFile func(path string) error
}

// Dispatcher sends what is in the outbox. Its methods are safe for concurrent
// use.
type Dispatcher struct {
	o      Options
	health *health.Reporter

	base     context.Context // of everything that is sent; ends when Stop runs out of time
	cancel   context.CancelFunc
	stop     chan struct{} // closed when Stop begins
	poke     chan struct{} // wakes the loop
	checks   chan chan struct{}
	loopDone chan struct{}
	work     sync.WaitGroup // running lanes and previews

	mu       sync.Mutex
	started  bool
	stopping bool
	lines    map[domain.Platform]*line
	lanes    map[domain.Address]*lane
	timers   laneHeap
	scanDue  bool
	missed   bool // an address found no place; scan once there is room
	dead     int64
	absent   string // platforms that messages wait for and that are not attached
	readable bool   // the ledger, at the last try
	writable bool
}

// line is an attached platform.
type line struct {
	name    domain.Platform
	adapter platform.Adapter
	caps    platform.Capabilities
	limits  *limits
	health  *health.Reporter

	// Guarded by Dispatcher.mu.
	scanned bool // what the ledger holds for it has lanes
	queue   []*lane
	running int
	slotAt  time.Time // when the platform's rate lets the queue go on; zero when it does
	paused  string    // why the account is refused; nothing is sent then
	failing string    // why the last attempt failed; "" once one succeeds
	away    bool      // the last attempts could not reach the platform
}

// New makes a dispatcher. It does nothing before Start.
func New(o Options) *Dispatcher {
	if o.MaxAge <= 0 {
		o.MaxAge = 24 * time.Hour
	}
	if o.OnUnknown == "" {
		o.OnUnknown = Resend
	}
	d := &Dispatcher{
		o:    o,
		stop: make(chan struct{}), poke: make(chan struct{}, 1), checks: make(chan chan struct{}), loopDone: make(chan struct{}),
		lines: map[domain.Platform]*line{}, lanes: map[domain.Address]*lane{}, readable: true, writable: true,
	}
	d.base, d.cancel = context.WithCancel(context.Background())
	if o.Health != nil {
		d.health = o.Health.Part("delivery")
	}
	return d
}

// Start begins to send what the ledger holds. It returns at once. ctx bounds
// nothing but Start itself: Stop ends the dispatcher.
func (d *Dispatcher) Start(ctx context.Context) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.started {
		return domain.E(domain.Conflict, nil, "the dispatcher was started before")
	}
	if err := ctx.Err(); err != nil {
		return domain.E(domain.Cancelled, err, "the dispatcher was not started: its start was cancelled")
	}
	d.started, d.scanDue = true, true
	go d.loop()
	return nil
}

// Stop claims nothing more and waits until what is being sent has its receipt.
// When ctx ends first, the sends are cut off and recorded as uncertain, and the
// error (domain.Timeout or domain.Cancelled) says so.
func (d *Dispatcher) Stop(ctx context.Context) error {
	d.mu.Lock()
	started, first := d.started, !d.stopping
	d.stopping = true
	if first {
		close(d.stop)
	}
	d.mu.Unlock()

	idle := make(chan struct{})
	go func() { d.work.Wait(); close(idle) }()
	var err error
	select {
	case <-idle:
	case <-ctx.Done():
		d.cancel()
		err = domain.E(domain.CodeOf(ctx.Err()), ctx.Err(), "messages were being sent when the time to stop ran out; they are recorded as possibly sent and tried again after the next start")
		late := time.NewTimer(2 * grace)
		defer late.Stop()
		select {
		case <-idle:
		case <-late.C:
		}
	}
	d.cancel()
	if started {
		<-d.loopDone
	}
	return err
}

// Attach connects a platform, or puts another adapter in the place of the one
// of the same name. Whatever waits for it is sent, also what waited because its
// credentials were refused.
func (d *Dispatcher) Attach(a platform.Adapter) {
	l := &line{name: a.Name(), adapter: a, caps: a.Capabilities()}
	if d.o.Health != nil {
		l.health = d.o.Health.Part("platform." + string(l.name))
	}
	l.limits = newLimits(l.caps, a, d.o.Unlimited)
	d.mu.Lock()
	if old := d.lines[l.name]; old != nil {
		d.forget(old)
		if old.caps == l.caps {
			l.limits = old.limits // the platform counts on
		}
	}
	d.lines[l.name] = l
	d.scanDue = true
	d.report()
	d.mu.Unlock()
	d.wakeLoop()
}

// Detach disconnects a platform. Messages for it wait in the ledger; one that
// is being sent is finished.
func (d *Dispatcher) Detach(name domain.Platform) {
	d.mu.Lock()
	if l := d.lines[name]; l != nil {
		delete(d.lines, name)
		d.forget(l)
		d.scanDue = true // to see what waits for it now
	}
	d.mu.Unlock()
	d.wakeLoop()
}

// forget drops the addresses of a line that are not being sent to.
func (d *Dispatcher) forget(l *line) {
	l.queue = nil
	for to, ln := range d.lanes {
		if to.Platform == l.name && ln.state != running {
			d.timers.drop(ln)
			delete(d.lanes, to)
		}
	}
}

// Adapter gives the attached adapter of a platform.
func (d *Dispatcher) Adapter(name domain.Platform) (platform.Adapter, bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	l := d.lines[name]
	if l == nil {
		return nil, false
	}
	return l.adapter, true
}

// Wake tells that messages for these addresses were committed.
func (d *Dispatcher) Wake(to ...domain.Address) {
	where := make([]domain.Address, len(to))
	for i, a := range to {
		where[i] = d.route(a)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, a := range where {
		d.ready(a)
	}
}

// owes tells whether messages may wait for an address that were accepted before.
func (d *Dispatcher) owes(to domain.Address) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	l := d.lines[to.Platform]
	return l == nil || !l.scanned || d.missed || d.lanes[to] != nil
}

// WakeAll tells that messages were committed, to addresses that the caller
// does not know.
func (d *Dispatcher) WakeAll() {
	d.mu.Lock()
	d.scanDue = true
	d.mu.Unlock()
	d.wakeLoop()
}

// Check answers once the dispatcher's loop does, for the watchdog. domain.Timeout
// or domain.Cancelled when ctx ends first, domain.Conflict when it is stopped.
func (d *Dispatcher) Check(ctx context.Context) error {
	answer := make(chan struct{})
	select {
	case d.checks <- answer:
		<-answer
		return nil
	case <-d.base.Done():
		return domain.E(domain.Conflict, nil, "the dispatcher is stopped")
	case <-ctx.Done():
		return domain.E(domain.CodeOf(ctx.Err()), ctx.Err(), "the dispatcher does not answer; messages are not being sent")
	}
}

func (d *Dispatcher) wakeLoop() {
	select {
	case d.poke <- struct{}{}:
	default:
	}
}

// loop turns instants that have come into work, and scans the ledger.
func (d *Dispatcher) loop() {
	defer close(d.loopDone)
	timer := time.NewTimer(0)
	defer timer.Stop()
	var scanAt time.Time
	failures := 0
	for {
		now := d.o.Now()
		next, scan := d.expire(now)
		if scan || !now.Before(scanAt) {
			if d.scan() {
				failures, scanAt = 0, now.Add(scanEvery)
			} else {
				failures++
				scanAt = now.Add(min(backoffAt(failures), scanEvery))
			}
			next, _ = d.expire(now)
		}
		if next.IsZero() || next.After(scanAt) {
			next = scanAt
		}
		timer.Reset(max(next.Sub(d.o.Now()), 0))
		select {
		case <-d.base.Done():
			return
		case <-d.stop:
			<-d.base.Done()
			return
		case answer := <-d.checks:
			close(answer)
		case <-d.poke:
		case <-timer.C:
		}
	}
}

// expire readies the addresses whose instant has come, and tells the next
// instant and whether a scan is wanted.
func (d *Dispatcher) expire(now time.Time) (next time.Time, scan bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for len(d.timers) > 0 && !d.timers[0].at.After(now) {
		ln := heap.Pop(&d.timers).(*lane)
		d.enqueue(ln)
	}
	for _, l := range d.lines {
		if !l.slotAt.IsZero() && !l.slotAt.After(now) {
			l.slotAt = time.Time{}
			d.launch(l)
		}
		next = sooner(next, l.slotAt)
	}
	if len(d.timers) > 0 {
		next = sooner(next, d.timers[0].at)
	}
	scan, d.scanDue = d.scanDue, false
	return next, scan
}

// sooner is the earlier of two instants, of which zero is none.
func sooner(a, b time.Time) time.Time {
	if a.IsZero() || (!b.IsZero() && b.Before(a)) {
		return b
	}
	return a
}

// scan reads from the ledger which addresses have work.
func (d *Dispatcher) scan() bool {
	due, err := d.o.Store.DueAddresses(context.WithoutCancel(d.base))
	d.mu.Lock()
	defer d.mu.Unlock()
	d.readable = err == nil
	if err != nil {
		d.o.Log.Error("the outbox cannot be read; messages wait", "err", err)
		d.report()
		return false
	}
	now := d.o.Now()
	waiting := map[domain.Platform]int{}
	for _, a := range due {
		switch {
		case d.lines[a.To.Platform] == nil:
			waiting[a.To.Platform]++
		case a.Next.After(now):
			d.wait(a.To, a.Next)
		default:
			d.ready(a.To)
		}
	}
	for _, l := range d.lines {
		l.scanned = true
	}
	d.absent = ""
	for name, n := range waiting {
		d.absent += " " + string(name) + " (" + strconv.Itoa(n) + ")"
	}
	d.report()
	return true
}

// report shows the state of the whole; the caller holds mu.
func (d *Dispatcher) report() {
	if d.health == nil {
		return
	}
	d.health.Note("dead", strconv.FormatInt(d.dead, 10))
	paused, names, failing := 0, "", ""
	for _, l := range d.lines {
		if l.paused != "" {
			paused++
			names += " " + string(l.name) + ": " + l.paused + ";"
		} else if l.failing != "" {
			failing += " " + string(l.name) + ": " + l.failing + ";"
		}
	}
	switch {
	case !d.readable || !d.writable:
		d.health.Degraded("ledger", "the outbox cannot be read or written; messages wait and nothing is lost")
	case paused > 0 && paused == len(d.lines):
		d.health.Down("credentials", "no message can be sent until the credentials are corrected:"+names)
	case paused > 0:
		d.health.Degraded("credentials", "messages wait until the credentials are corrected:"+names)
	case failing != "":
		d.health.Degraded("retrying", "messages wait and are tried again:"+failing)
	case d.absent != "":
		d.health.Degraded("not_connected", "messages wait for platforms that are not connected; addresses waiting:"+d.absent)
	default:
		d.health.OK()
	}
}
