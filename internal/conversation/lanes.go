// Package conversation runs sessions: what was accepted becomes turns, and
// what turns say becomes deliveries. Each session with something to do has a
// lane: one goroutine that owns the session's state, handles its slash commands
// and starts its turns one after another. A lane starts on demand and ends when
// it is idle; a panic in it ends that turn only.
package conversation

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"hermes/internal/access"
	"hermes/internal/agent"
	"hermes/internal/delivery"
	"hermes/internal/domain"
	"hermes/internal/health"
	"hermes/internal/home"
	"hermes/internal/ledger"
	"hermes/internal/platform"
)

// Store is the part of the ledger that conversations need.
type Store interface {
	ledger.Inbox
	ledger.Turns
	ledger.Questions
	ledger.Sessions
	Enqueue(ctx context.Context, d []domain.NewDelivery, now time.Time) ([]int64, error)
	MarkReturned(ctx context.Context, p domain.Platform, chatID, receipt, reason string, now time.Time) (ok bool, err error)
}

// Outbox plans and wakes deliveries and shows previews of answers.
type Outbox interface {
	Plan(to domain.Address, kind, markdown string, o delivery.PlanOptions) []domain.NewDelivery
	Wake(to ...domain.Address)
	NewPreview(ctx context.Context, to domain.Address, replyTo string, onFirst func(messageID string) error) *delivery.Preview
}

// Toolbox gives the tools of a turn.
type Toolbox func(kind domain.TurnKind, p domain.Platform, toolsets []string) *agent.Toolset

// Options wires Lanes. All fields but Hooks and Commands are needed.
type Options struct {
	Store   Store
	Agent   *agent.Agent
	Tools   Toolbox
	Outbox  Outbox
	Gate    *access.Gate
	Profile home.Profile
	Config  *home.Config
	Health  *health.Registry
	Log     *slog.Logger
	Now     func() time.Time
	Hooks   Hooks
	// Commands are slash commands that other features bring.
	Commands []Command
}

// Hooks are what the process around the lanes can do for them. A nil hook is
// a capability that is not there, and the command that needs it says so.
type Hooks struct {
	SetHome       func(ctx context.Context, to domain.Address, name string) error
	SetModel      func(ctx context.Context, name string) error // for every session (--global)
	Memory        func() string                                // the snapshot for the system prompt
	BusyProcesses func(key domain.SessionKey) int              // background processes of a session
	Status        func() string                                // a line on the whole gateway, for /status
	Redact        func(string) string                          // takes secrets out of what tools said
	// Transcribe gives the words of a recording in a file. It bounds itself, and
	// its errors are for people. Without it a voice message is a file only.
	Transcribe func(ctx context.Context, path string) (string, error)
	// Elsewhere tells whether another live process runs a turn of the session,
	// and makes that one look at it: after a hand-over a running turn stays with
	// the process that began it.
	Elsewhere func(ctx context.Context, key domain.SessionKey) bool
	// Left is called after a turn has ended in lanes that have handed over: what
	// comes next is the successor's.
	Left func()
}

// Lanes is the set of lanes of one profile. It is safe for concurrent use.
type Lanes struct {
	Options
	commands map[string]Command
	slots    chan struct{} // one for each chat turn that may run at once
	ill      atomic.Bool   // a failure of the ledger is shown

	mu       sync.Mutex
	lanes    map[domain.SessionKey]*lane
	adapters map[domain.Platform]platform.Adapter
	serial   map[domain.SessionID]chan struct{} // explicit API sessions, one call at a time
	draining bool
	left     bool          // handed over: turns that run go on, none is claimed
	gone     chan struct{} // closed when, after that, no lane is left

	base     context.Context // of everything that runs; ends when Stop gives up waiting
	release  context.CancelCauseFunc
	work     sync.WaitGroup // lanes, turns
	loops    sync.WaitGroup
	stop     context.CancelFunc
	running  atomic.Int64
	finished atomic.Int64
	expiry   chan struct{} // a question was asked: look at the next expiry again
}

// New makes the lanes. Nothing runs before Start.
func New(o Options) *Lanes {
	n := o.Config.Agent.MaxConcurrent
	if n <= 0 {
		n = 64
	}
	l := &Lanes{
		Options: o, slots: make(chan struct{}, n), commands: map[string]Command{},
		lanes: map[domain.SessionKey]*lane{}, adapters: map[domain.Platform]platform.Adapter{},
		serial: map[domain.SessionID]chan struct{}{}, expiry: make(chan struct{}, 1),
	}
	l.base, l.release = context.WithCancelCause(context.Background())
	for _, c := range append(builtins(), o.Commands...) {
		l.commands[c.Name] = c
		for _, a := range c.Aliases {
			l.commands[a] = c
		}
	}
	return l
}

// Attach makes an adapter known, for typing signals, downloads and live views.
func (l *Lanes) Attach(a platform.Adapter) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.adapters[a.Name()] = a
}

func (l *Lanes) adapter(p domain.Platform) platform.Adapter {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.adapters[p]
}

// safetyScan is how often the ledger is looked at for work that no wake-up
// announced (written by a process that could not poke us).
const safetyScan = time.Minute

// Start wakes the lanes that have work, and keeps looking after questions that
// run out and work that nobody announced.
func (l *Lanes) Start(ctx context.Context) error {
	keys, err := l.Store.ActiveKeys(ctx)
	if err != nil {
		return err
	}
	loop, stop := context.WithCancel(l.base)
	l.stop = stop
	l.loops.Go(func() { l.watch(loop) })
	for _, k := range keys {
		l.Wake(k)
	}
	return nil
}

// watch is the slow loop: expiry of questions, and the safety scan.
func (l *Lanes) watch(ctx context.Context) {
	for {
		wait := safetyScan
		expired, next, err := l.Store.ExpireQuestions(ctx, l.Now())
		if err == nil && !next.IsZero() {
			wait = min(wait, max(next.Sub(l.Now()), 10*time.Millisecond))
		}
		for _, q := range expired {
			l.Wake(q.SessionKey)
		}
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-l.expiry:
			timer.Stop()
		case <-timer.C:
			if keys, err := l.Store.ActiveKeys(ctx); err == nil {
				for _, k := range keys {
					l.Wake(k)
				}
			}
		}
	}
}

// Stop drains: no new turn begins, running ones may end until ctx does. Those
// that are left go back to the ledger, to be resumed from their journals.
func (l *Lanes) Stop(ctx context.Context) error {
	l.mu.Lock()
	l.draining = true
	for _, ln := range l.lanes {
		ln.poke()
	}
	l.mu.Unlock()
	l.stopWatching()
	done := make(chan struct{})
	go func() { l.work.Wait(); close(done) }()
	var err error
	select {
	case <-done:
	case <-ctx.Done():
		err = domain.E(domain.Timeout, nil, "%d turns were still running at the drain limit; they go on after the next start", l.running.Load())
		l.release(agent.ErrReleased)
		<-done
	}
	l.release(agent.ErrReleased)
	return err
}

func (l *Lanes) stopWatching() {
	if l.stop != nil {
		l.stop()
	}
	l.loops.Wait()
}

// Leave hands the sessions over: turns that run go on here and obey what their
// chats say meanwhile, but no chat turn begins any more. Calls of Chat go on to
// be served until Stop. The channel is closed when the last chat turn has ended.
func (l *Lanes) Leave() <-chan struct{} {
	l.stopWatching()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.left = true
	gone := make(chan struct{})
	if len(l.lanes) == 0 {
		close(gone)
		return gone
	}
	l.gone = gone
	for _, ln := range l.lanes {
		ln.poke() // those without a turn retire
	}
	return gone
}

// Stay takes Leave back: nobody took over.
func (l *Lanes) Stay(ctx context.Context) error {
	l.mu.Lock()
	l.left, l.gone = false, nil
	l.mu.Unlock()
	return l.Start(ctx)
}

// PokeRunning makes a session's lane look at what came in, and tells whether
// there is such a lane, or a call to such a session.
func (l *Lanes) PokeRunning(key domain.SessionKey) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if ln := l.lanes[key]; ln != nil {
		ln.poke()
		return true
	}
	for id := range l.serial {
		if strings.HasSuffix(string(key), ":dm:"+string(id)) {
			return true
		}
	}
	return false
}

func (l *Lanes) hasLeft() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.left
}

// Wake tells that a session may have something to do. It never blocks.
func (l *Lanes) Wake(key domain.SessionKey) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if ln := l.lanes[key]; ln != nil {
		ln.poke()
		return
	}
	if l.draining || l.left {
		return
	}
	ln := &lane{Lanes: l, key: key, wake: make(chan struct{}, 1)}
	ln.poke()
	l.lanes[key] = ln
	l.work.Go(ln.run)
}

// retire removes an idle lane, unless it was woken meanwhile.
func (l *Lanes) retire(ln *lane) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(ln.wake) > 0 && !l.draining {
		return false
	}
	delete(l.lanes, ln.key)
	if l.left && len(l.lanes) == 0 && l.gone != nil {
		close(l.gone)
		l.gone = nil
	}
	return true
}

func (l *Lanes) isDraining() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.draining
}

// Counts tells how many lanes live and turns run, and how many turns ended
// since the start.
func (l *Lanes) Counts() (lanes, running, finished int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return int64(len(l.lanes)), l.running.Load(), l.finished.Load()
}

// Menu lists the commands in their order, with every name under which one can be
// typed and those of the operator's own.
func (l *Lanes) Menu() []platform.Command {
	var out []platform.Command
	for _, c := range append(builtins(), l.Options.Commands...) {
		out = append(out, platform.Command{Name: c.Name, Description: c.Help, Unlisted: c.Hidden})
		for _, alias := range c.Aliases {
			out = append(out, platform.Command{Name: alias, Description: c.Help, Unlisted: true})
		}
	}
	for _, name := range slices.Sorted(maps.Keys(l.Config.QuickCommands)) {
		out = append(out, platform.Command{Name: name, Description: "your own", Unlisted: true})
	}
	return out
}

// spoken are the names of the commands, for texts of ours that speak of them.
func (l *Lanes) spoken() []string {
	var out []string
	for _, c := range l.Menu() {
		out = append(out, c.Name)
	}
	return out
}

// ledgerFails shows a failure of the ledger, and ledgerWorks that it is over:
// nobody else would say so before the next look at the ledger.
func (l *Lanes) ledgerFails(err error) {
	l.Health.Part("ledger").Degraded(string(domain.CodeOf(err)), domain.MessageOf(err))
	l.ill.Store(true)
}

func (l *Lanes) ledgerWorks() {
	if l.ill.CompareAndSwap(true, false) {
		l.Health.Part("ledger").OK()
	}
}

// persist repeats a write of the ledger until it works, is refused for good, or
// ctx ends: what a turn did must not be lost to a full disk or a busy file.
func (l *Lanes) persist(ctx context.Context, what string, write func(context.Context) error) error {
	for wait := 50 * time.Millisecond; ; wait = min(2*wait, 10*time.Second) {
		err := write(ctx)
		switch domain.CodeOf(err) {
		case "":
			l.ledgerWorks()
			return nil
		case domain.StorageFull, domain.Unavailable:
			l.ledgerFails(err)
			l.Log.Error("the ledger does not take a write; it is tried again", "component", "conversation", "what", what, "err", err)
		default:
			return err
		}
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return fmt.Errorf("%s: %w", what, err)
		}
	}
}
