package accounts

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"hermes/internal/delivery"
	"hermes/internal/domain"
	"hermes/internal/ledger"
	"hermes/internal/ledger/sqlite"
	"hermes/internal/platform"
)

// TestMain lets rapid try eight plans on each platform, unless it is told
// otherwise (-rapid.checks).
func TestMain(m *testing.M) {
	flag.Parse()
	told := false
	flag.Visit(func(f *flag.Flag) { told = told || f.Name == "rapid.checks" })
	if !told {
		if err := flag.Set("rapid.checks", "8"); err != nil {
			panic(err)
		}
	}
	os.Exit(m.Run())
}

// TestOrder lets random things happen on each platform while messages are
// accepted for several chats: refusals, broken connections, silence, restarts and
// deaths between what is done and what is recorded. In the end every chat shows
// everything, in the order in which it was accepted; nothing is there twice but
// what says so, and that only where the platform cannot be asked.
func TestOrder(t *testing.T) {
	for _, name := range Names() {
		t.Run(name, func(t *testing.T) {
			rapid.Check(t, func(rt *rapid.T) {
				p := anyPlan(rt)
				var err error
				synctest.Test(t, func(t *testing.T) { err = p.carryOut(t, name) })
				if err != nil {
					rt.Fatalf("%s: %v", name, err)
				}
			})
		})
	}
}

// plan is what happens on one platform.
type plan struct {
	Chats    [][]said
	Troubles []trouble
	Restarts []time.Duration // planned ones, since the beginning
	Deaths   []death         // of one life after the other
}

// said is one message that is accepted for a chat.
type said struct {
	After time.Duration // since the one before
	Words int
	Files int           // behind the words
	Shown time.Duration // while it is written; 0: it is accepted whole
}

// trouble is what the platform does at an instant.
type trouble struct {
	At    time.Duration
	Upset Upset
	Times int
	All   bool
}

// death is a kill at a write to the ledger.
type death struct {
	Verb      string
	Nth       int
	Committed bool // the write was still done
}

func anyPlan(rt *rapid.T) plan {
	instant := rapid.Custom(func(rt *rapid.T) time.Duration {
		return time.Duration(rapid.IntRange(0, 60_000).Draw(rt, "ms")) * time.Millisecond
	})
	message := rapid.Custom(func(rt *rapid.T) said {
		s := said{After: time.Duration(rapid.IntRange(0, 5000).Draw(rt, "after")) * time.Millisecond,
			Words: rapid.SampledFrom([]int{1, 6, 80, 900, 1500}).Draw(rt, "words")}
		if rapid.IntRange(0, 3).Draw(rt, "with files") == 0 {
			s.Files = rapid.IntRange(1, 3).Draw(rt, "files")
		}
		if rapid.Bool().Draw(rt, "shown while it is written") {
			s.Shown = time.Duration(rapid.IntRange(500, 12_000).Draw(rt, "for")) * time.Millisecond
		}
		return s
	})
	return plan{
		Chats: rapid.SliceOfN(rapid.SliceOfN(message, 1, 6), 1, 3).Draw(rt, "chats"),
		Troubles: rapid.SliceOfN(rapid.Custom(func(rt *rapid.T) trouble {
			return trouble{At: instant.Draw(rt, "at"), Upset: rapid.SampledFrom(Upsets()).Draw(rt, "upset"),
				Times: rapid.IntRange(1, 4).Draw(rt, "times"), All: rapid.Bool().Draw(rt, "all")}
		}), 0, 6).Draw(rt, "troubles"),
		Restarts: rapid.SliceOfN(instant, 0, 2).Draw(rt, "restarts"),
		Deaths: rapid.SliceOfN(rapid.Custom(func(rt *rapid.T) death {
			return death{Verb: rapid.SampledFrom([]string{claims, sends, retries}).Draw(rt, "verb"),
				Nth: rapid.IntRange(1, 6).Draw(rt, "nth"), Committed: rapid.Bool().Draw(rt, "committed")}
		}), 0, 3).Draw(rt, "deaths"),
	}
}

// The bounds of a run, in simulated time.
const (
	settling = 30 * time.Second // until an account is connected
	enough   = 12 * time.Hour   // until the last message is there: each trouble can cost five minutes
)

// carryOut carries the plan out and tells what broke.
func (p plan) carryOut(t *testing.T, name string) error {
	w, err := newWorld(t, name, p.Deaths)
	if err != nil {
		return err
	}
	defer w.close()
	chats := make([]Chat, len(p.Chats))
	for i := range chats {
		chats[i] = w.account.Chat()
	}
	time.Sleep(settling) // simulated, as all sleeps here
	var all sync.WaitGroup
	for i, c := range p.Chats {
		all.Go(func() {
			for n, s := range c {
				time.Sleep(s.After)
				w.say(chats[i].To, n, s)
			}
		})
	}
	for _, trouble := range p.Troubles {
		all.Go(func() {
			time.Sleep(trouble.At)
			w.account.Upset(trouble.Upset, trouble.Times, trouble.All)
		})
	}
	for _, at := range p.Restarts {
		all.Go(func() {
			time.Sleep(at)
			w.restart(nil)
		})
	}
	all.Wait()
	if err := w.emptied(); err != nil {
		return fmt.Errorf("%w\n%s", err, w.log.String())
	}
	calm := len(p.Troubles)+len(p.Restarts)+len(p.Deaths) == 0
	for i, c := range p.Chats {
		if err := w.compare(chats[i], c, calm); err != nil {
			return fmt.Errorf("chat %d: %w\n%s", i, err, w.log.String())
		}
	}
	return nil
}

// TestAStuckChat lets everything that names one chat vanish on its way: the other
// chats of the account get their messages all the same, and it gets its own, in
// order, once the way is free.
func TestAStuckChat(t *testing.T) {
	for _, name := range Names() {
		t.Run(name, func(t *testing.T) { synctest.Test(t, func(t *testing.T) { stick(t, name) }) })
	}
}

func stick(t *testing.T, name string) {
	w, err := newWorld(t, name, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer w.close()
	chats := []Chat{w.account.Chat(), w.account.Chat(), w.account.Chat()}
	time.Sleep(settling)
	w.account.Network().Swallow(strings.Trim(chats[0].To.ChatID, "!"))
	accepted := make([]said, 5)
	for n := range accepted {
		accepted[n] = said{Words: 6}
		for _, c := range chats {
			w.say(c.To, n, accepted[n])
		}
	}
	time.Sleep(10 * time.Second) // which the slowest rate needs for five messages
	for i, c := range chats[1:] {
		if err := w.compare(c, accepted, true); err != nil {
			t.Errorf("chat %d waits for the one that is stuck: %v\n%s", i+1, err, w.log.String())
		}
	}
	time.Sleep(5 * time.Minute)
	if shown := chats[0].Shown(); len(shown) > 0 {
		t.Fatalf("the chat that is stuck shows %q", shown)
	}
	w.account.Network().Swallow("")
	if err := w.emptied(); err != nil {
		t.Fatal(err)
	}
	if err := w.compare(chats[0], accepted, true); err != nil {
		t.Errorf("the chat that was stuck: %v", err)
	}
}

// world is an account, and the process that serves it, life after life.
type world struct {
	account *Account
	path    string
	log     *slowLog
	deaths  []death
	died    chan *life
	done    chan struct{}
	worker  sync.WaitGroup
	failed  error

	turn chan struct{} // holds one token; whoever has it may use or change life
	life *life
}

// life is one process.
type life struct {
	store   *sqlite.Store
	out     *mortal
	sender  *delivery.Dispatcher
	cancel  context.CancelFunc
	ctx     context.Context
	running sync.WaitGroup
}

func newWorld(t *testing.T, name string, deaths []death) (*world, error) {
	a, err := New(name)
	if err != nil {
		return nil, err
	}
	w := &world{account: a, path: filepath.Join(t.TempDir(), "ledger.db"), log: &slowLog{}, deaths: deaths, died: make(chan *life, 8), done: make(chan struct{}), turn: make(chan struct{}, 1)}
	if err := w.begin(); err != nil {
		a.Close()
		return nil, err
	}
	w.turn <- struct{}{}
	w.worker.Go(func() {
		for {
			select {
			case l := <-w.died:
				w.restart(l)
			case <-w.done:
				return
			}
		}
	})
	return w, nil
}

// close ends the last life and the platform.
func (w *world) close() {
	close(w.done)
	w.worker.Wait()
	<-w.turn
	w.end(w.life, false)
	w.account.Close()
}

// begin is what a process does that starts.
func (w *world) begin() error {
	log := slog.New(slog.NewTextHandler(w.log, &slog.HandlerOptions{Level: slog.LevelInfo}))
	store, err := sqlite.Open(context.Background(), sqlite.Options{Path: w.path, Kind: "test", NoBallast: true})
	if err != nil {
		return err
	}
	if _, err := store.Recover(context.Background(), time.Now()); err != nil {
		return err
	}
	a, err := w.account.Connect(log, nil)
	if err != nil {
		return err
	}
	l := &life{store: store, out: &mortal{Store: store}}
	if len(w.deaths) > 0 {
		l.out.death, w.deaths = w.deaths[0], w.deaths[1:]
		l.out.die = func() { w.died <- l }
	}
	l.ctx, l.cancel = context.WithCancel(context.Background())
	l.sender = delivery.New(delivery.Options{Store: l.out, Now: time.Now, Log: log})
	l.sender.Attach(a)
	in := &forgetful{}
	l.running.Go(func() { supervise(l.ctx, a, in) })
	w.life = l
	return l.sender.Start(context.Background())
}

// end ends a life: as planned, or from one instant to the next.
func (w *world) end(l *life, killed bool) {
	l.cancel()
	ctx, cancel := context.WithTimeout(context.Background(), 15*time.Second)
	if killed {
		cancel()
	}
	_ = l.sender.Stop(ctx) // which says that messages were being sent
	cancel()
	l.running.Wait()
	w.account.HangUp()
	if err := l.store.Close(); err != nil {
		w.failed = err
	}
}

// restart follows a life by another: the one that died, unless another follows
// it already, or with nil the present one, as planned.
func (w *world) restart(dead *life) {
	<-w.turn
	defer func() { w.turn <- struct{}{} }()
	if dead != nil && dead != w.life || w.failed != nil {
		return
	}
	w.end(w.life, dead != nil)
	if err := w.begin(); err != nil {
		w.failed = err
	}
}

// say has a message accepted; while it is written it may be shown. A life that
// ends meanwhile is followed by one that knows what is shown, as it stands in the
// ledger.
func (w *world) say(to domain.Address, n int, s said) {
	text := words(n, s.Words)
	shown := ""
	if s.Shown > 0 {
		<-w.turn
		l := w.life
		preview := l.sender.NewPreview(l.ctx, to, "", func(id string) error {
			shown = id
			return nil
		})
		w.turn <- struct{}{}
		const steps = 10
		for i := range steps {
			preview.Event(domain.TurnEvent{Kind: domain.EventDelta, Text: text[i*len(text)/steps : (i+1)*len(text)/steps]})
			time.Sleep(s.Shown / steps)
		}
		preview.Close()
	}
	<-w.turn
	defer func() { w.turn <- struct{}{} }()
	if w.failed != nil {
		return
	}
	var files []domain.Attachment
	for i := range w.files(s) {
		path := filepath.Join(filepath.Dir(w.path), fileName(n, i))
		if err := os.WriteFile(path, []byte("of message "+fmt.Sprint(n)), 0o600); err != nil {
			w.failed = err
			return
		}
		files = append(files, domain.Attachment{Path: path})
	}
	parts := w.life.sender.Plan(to, "reply", text, delivery.PlanOptions{Edit: shown, Attachments: files})
	if _, err := w.life.store.Enqueue(context.Background(), parts, time.Now()); err != nil {
		w.failed = err
	}
	w.life.sender.Wake(to)
}

// words are the words of the nth message, a dozen on each line.
func words(n, count int) string {
	var b strings.Builder
	for i := range count {
		fmt.Fprintf(&b, "m%dw%d", n, i)
		if i%12 == 11 {
			b.WriteString("\n\n")
		} else {
			b.WriteByte(' ')
		}
	}
	return b.String()
}

// emptied waits until nothing is left to send.
func (w *world) emptied() error {
	for began := time.Now(); ; time.Sleep(20 * time.Second) {
		<-w.turn
		err := w.failed
		var left []domain.Delivery
		if err == nil {
			left, err = w.life.store.Deliveries(context.Background(), ledger.DeliveryFilter{Limit: 10,
				States: []domain.DeliveryState{domain.DeliveryPending, domain.DeliverySending, domain.DeliveryRetrying, domain.DeliveryDead}})
		}
		w.turn <- struct{}{}
		switch {
		case err != nil:
			return err
		case len(left) == 0:
			return nil
		case left[0].State == domain.DeliveryDead:
			return fmt.Errorf("a message was given up: %s", left[0].Reason)
		case time.Since(began) > enough:
			return fmt.Errorf("a message is still %s after %s: %s", left[0].State, enough, left[0].Reason)
		}
	}
}

// files is how many files a message has, where the platform takes any.
func (w *world) files(s said) int {
	if w.account.Name == "webhook" {
		return 0
	}
	return s.Files
}

// fileName is the name of the ith file of the nth message: a word of it.
func fileName(n, i int) string { return fmt.Sprintf("m%dw9999%d.bin", n, i) }

var word = regexp.MustCompile(`m\d+w\d+`)

// repeated is how a message begins that may be there already.
const repeated = "may be a repeat"

// unfinished is how a message ends that is being written.
const unfinished = "▉"

// compare holds what a chat shows to what was accepted for it, in a run in which
// nothing went wrong or in another.
func (w *world) compare(c Chat, accepted []said, calm bool) error {
	var want, got, last []string
	for n, s := range accepted {
		want = append(want, word.FindAllString(words(n, s.Words), -1)...)
		for i := range w.files(s) {
			want = append(want, word.FindString(fileName(n, i)))
		}
	}
	for _, text := range c.Shown() {
		found := word.FindAllString(text, -1)
		switch {
		case strings.Contains(text, unfinished):
			// The beginning of a message whose whole stands further below, since
			// nobody learned its id.
			if calm {
				return fmt.Errorf("it still shows a message that is being written: %.80q", text)
			}
		case strings.Contains(text, repeated) && slices.Equal(found, last):
			if !w.account.MayRepeat {
				return fmt.Errorf("a message is there again, on a platform that knows a repetition: %.80q", text)
			}
		default:
			got, last = append(got, found...), found
		}
	}
	for i := range max(len(want), len(got)) {
		if i >= len(want) || i >= len(got) || want[i] != got[i] {
			return fmt.Errorf("of %d words %d are there; from word %d on it shows %q, and not %q", len(want), len(got), i, head(got, i), head(want, i))
		}
	}
	return nil
}

func head(words []string, from int) []string {
	return words[min(from, len(words)):min(from+8, len(words))]
}

// The writes at which a process can die.
const (
	claims  = "claim"
	sends   = "sent"
	retries = "retry"
)

// mortal is a ledger whose process dies at one of its writes: from then on
// nothing is written any more.
type mortal struct {
	delivery.Store
	die func() // tells of the death; nil: none comes

	mu    sync.Mutex
	death death
	seen  int
	dead  bool
}

var errDead = domain.E(domain.Unavailable, nil, "the process is dead")

// write does one write, unless the process is dead or dies of it.
func (m *mortal) write(verb string, do func() error) error {
	m.mu.Lock()
	if m.dead {
		m.mu.Unlock()
		return errDead
	}
	dies := false
	if m.die != nil && verb == m.death.Verb {
		m.seen++
		dies = m.seen == m.death.Nth
	}
	m.dead = m.dead || dies
	m.mu.Unlock()
	if !dies {
		return do()
	}
	if m.death.Committed {
		_ = do() // nobody is left to know
	}
	m.die()
	return errDead
}

func (m *mortal) ClaimDelivery(ctx context.Context, to domain.Address, now time.Time) (d domain.Delivery, ok bool, next time.Time, err error) {
	err = m.write(claims, func() (err error) {
		d, ok, next, err = m.Store.ClaimDelivery(ctx, to, now)
		return err
	})
	return d, ok && err == nil, next, err
}

func (m *mortal) MarkSent(ctx context.Context, d ledger.DeliveryRef, receipt string, now time.Time) error {
	return m.write(sends, func() error { return m.Store.MarkSent(ctx, d, receipt, now) })
}

func (m *mortal) MarkRetry(ctx context.Context, d ledger.DeliveryRef, next time.Time, reason string, uncertain bool, part *domain.Part, edit *string) error {
	return m.write(retries, func() error { return m.Store.MarkRetry(ctx, d, next, reason, uncertain, part, edit) })
}

func (m *mortal) MarkDead(ctx context.Context, d ledger.DeliveryRef, reason string, now time.Time) error {
	return m.write("dead", func() error { return m.Store.MarkDead(ctx, d, reason, now) })
}

// supervise runs the adapter again when it gives up, as the gateway does.
func supervise(ctx context.Context, a platform.Adapter, in platform.Sink) {
	for pause := time.Second; ctx.Err() == nil; pause = min(2*pause, 5*time.Minute) {
		if err := a.Run(ctx, in); ctx.Err() != nil || err == nil {
			return
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
		}
	}
}

// forgetful takes everything and keeps only the position.
type forgetful struct {
	mu     sync.Mutex
	cursor string
}

func (f *forgetful) Accept(_ context.Context, _ string, _ []domain.Inbound, cursor string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if cursor != "" {
		f.cursor = cursor
	}
	return nil
}

func (f *forgetful) Cursor(context.Context, string) (string, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.cursor, nil
}

// slowLog keeps a log for the failure of a test.
type slowLog struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *slowLog) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *slowLog) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.b.String()
	return s[max(0, len(s)-8000):]
}
