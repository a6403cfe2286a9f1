// Package torture kills the real gateway (SIGKILL) at every instant that the
// promise tells apart, again and again, against the fakes of each chat platform
// and of a model, and counts what was lost, run twice or repeated.
package torture

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"hermes/internal/failpoint"
	"hermes/testkit/faultproxy"
	"hermes/testkit/llm"
	"hermes/testkit/people"
	"hermes/testkit/rig"
)

// Counts is what a run found.
type Counts struct {
	Kills, Messages  int
	Lost             []string // messages without an answer
	ToolTwice        []string // side effects that happened twice
	TurnTwice        []string // messages that stand twice in what the model was shown
	RepeatedMarked   int      // replies that came again with the mark that says so
	RepeatedSilent   []string // replies that came again without it
	RepeatedNeedless []string // replies that came again where a repetition is known by its id
	MarkedNeedless   []string // replies that came once and are marked as possibly repeated, where the platform knows
	ByPoint          map[string]int
}

// Bad tells whether a promise was broken.
func (c Counts) Bad() bool {
	return len(c.Lost)+len(c.ToolTwice)+len(c.TurnTwice)+len(c.RepeatedSilent)+len(c.RepeatedNeedless) > 0
}

// String is the table of counts.
func (c Counts) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "kills %d, messages %d\nlost %d\ntools run twice %d\nturns run twice %d\nreplies repeated, marked as possibly repeated %d\nreplies repeated silently %d\nreplies marked needlessly %d %v\n",
		c.Kills, c.Messages, len(c.Lost), len(c.ToolTwice), len(c.TurnTwice), c.RepeatedMarked, len(c.RepeatedSilent), len(c.MarkedNeedless), c.MarkedNeedless)
	for _, p := range slices.Sorted(maps.Keys(c.ByPoint)) {
		fmt.Fprintf(&b, "  %-28s %d\n", p, c.ByPoint[p])
	}
	return b.String()
}

// The instants of a request to the model, seen from outside. The platform has
// its own (people.Platform.Points).
const (
	modelBefore = "model.before"
	modelAfter  = "model.after"
)

// bench is one run's surroundings.
type bench struct {
	platform *people.Platform
	brain    *llm.Server
	llmProxy *faultproxy.Proxy
	home     *rig.Home
	effects  string
	points   []string
	rng      *rand.Rand
	next     int
	counts   Counts
	witness  *Witness
}

// Run kills the gateway until it died n times, and counts. People talk to it on
// one platform.
func Run(ctx context.Context, dir, binary, platform string, n int, seed uint64, logf func(string, ...any)) (Counts, error) {
	b, err := setUp(dir, binary, platform, seed)
	if err != nil {
		return Counts{}, err
	}
	defer b.close()
	if err := b.meet(ctx); err != nil {
		return b.counts, err
	}
	for round := 0; b.counts.Kills < n; round++ {
		point := b.points[round%len(b.points)]
		if err := b.round(ctx, point); err != nil {
			return b.counts, fmt.Errorf("%s, round %d (%s): %w", platform, round, point, err)
		}
		if round%100 == 99 {
			logf("%s: %d kills, %d messages so far", platform, b.counts.Kills, b.counts.Messages)
		}
	}
	return b.counts, nil
}

func setUp(dir, binary, platform string, seed uint64) (*bench, error) {
	b := &bench{effects: filepath.Join(dir, "effects.log"), rng: rand.New(rand.NewPCG(seed, 1)), counts: Counts{ByPoint: map[string]int{}}}
	b.witness = NewWitness(func(id string) string { return fmt.Sprintf("echo %s >> %s", id, b.effects) })
	var err error
	if b.platform, err = people.New(platform, people.Options{Watched: true}); err != nil {
		return nil, err
	}
	b.points = append(append(failpoint.All(), b.platform.Points()...), modelBefore, modelAfter)
	for _, p := range b.points {
		b.counts.ByPoint[p] = 0
	}
	if b.brain, err = llm.Start(b.witness.Think); err != nil {
		return nil, err
	}
	if b.llmProxy, err = faultproxy.New(strings.TrimSuffix(b.brain.URL(), "/v1")); err != nil {
		return nil, err
	}
	config := fmt.Sprintf(`model:
  default: fake
  provider: custom
  base_url: %s
  api_key: torture-key-of-the-model
approvals:
  mode: "off"
display:
  busy_input_mode: queue
streaming:
  enabled: false
session_reset:
  mode: none
`, b.llmProxy.URL()+"/v1")
	if b.platform.Config != "" {
		config += "platforms:\n  " + b.platform.Config + "\n"
	}
	b.home, err = rig.NewHome(filepath.Join(dir, "home"), binary, config, b.platform.Env+"HERMES_LOG_LEVEL=info\n")
	return b, err
}

func (b *bench) close() {
	b.llmProxy.Close()
	b.platform.Close()
	b.brain.Close()
}

// meet lets the gateway connect for the first time: what was said before that is
// history to some platforms.
func (b *bench) meet(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 60*time.Second)
	defer cancel()
	p, err := b.home.Start()
	if err != nil {
		return err
	}
	defer p.Kill()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		if out, err := b.home.Run(ctx, "platforms"); err == nil && strings.Contains(out, b.platform.Name) {
			return b.settled(ctx, p)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("%s never connects: %w\n%s", b.platform.Name, ctx.Err(), p.Output())
		}
	}
}

// round starts the gateway so that it dies at a point, lets people write, starts
// it again (now and then to die again), and checks what they see.
func (b *bench) round(ctx context.Context, point string) error {
	ctx, cancel := context.WithTimeout(ctx, 60*time.Second)
	defer cancel()
	var said []Message
	for range 1 + b.rng.IntN(3) {
		b.next++
		m := Message{ID: fmt.Sprintf("m%d", b.next), Tool: len(said) == 0 || b.rng.IntN(4) > 0, From: b.platform.Join()}
		said = append(said, m)
	}
	var telling sync.WaitGroup
	refused := make([]error, len(said))
	defer telling.Wait()
	say := func() {
		for i, m := range said {
			telling.Go(func() { refused[i] = m.From.Say(ctx, m.Text()) })
		}
	}
	if b.rng.IntN(2) == 0 {
		say()
		say = func() {}
	}
	nth := 1
	if b.counts.ByPoint[point] > 0 && b.rng.IntN(2) == 0 {
		nth += b.rng.IntN(len(said))
	}
	if err := b.live(ctx, point, nth, nth == 1, say, said); err != nil {
		return err
	}
	if b.rng.IntN(3) == 0 { // it dies again in the middle of its recovery
		if err := b.live(ctx, b.points[b.rng.IntN(len(b.points))], 1, false, func() {}, said); err != nil {
			return err
		}
	}
	p, err := b.start()
	if err != nil {
		return err
	}
	defer p.Kill()
	for _, m := range said {
		if err := m.From.WaitFor(ctx, m.Answered); err != nil {
			b.counts.Lost = append(b.counts.Lost, m.ID+" ("+point+")")
			return fmt.Errorf("%s was not answered: %w\nheard: %q\n%s", m.ID, err, m.From.Heard(), p.Output())
		}
	}
	telling.Wait()
	if err := errors.Join(refused...); err != nil {
		return err
	}
	if err := b.settled(ctx, p); err != nil {
		return err
	}
	return b.check(point, said)
}

// start starts the gateway as if it had not just died: one that dies in start
// after start holds back what its deaths name, which is tested elsewhere, and
// here every life must connect.
func (b *bench) start(env ...string) (*rig.Process, error) {
	if err := os.Remove(filepath.Join(b.home.Dir, "gateway-starts.json")); err != nil && !os.IsNotExist(err) {
		return nil, err
	}
	return b.home.Start(env...)
}

// settled waits until nothing is pending, so that late doubles are seen.
func (b *bench) settled(ctx context.Context, p *rig.Process) error {
	if err := p.Ready(ctx); err != nil {
		return err
	}
	if code, err := p.Stop(ctx); err != nil || code != 0 {
		return fmt.Errorf("after a clean stop: exit %d, %v\n%s", code, err, p.Output())
	}
	return nil
}

// live runs the gateway until it dies at the point, for the nth time. Where it
// is not sure that the point is met (again), it is killed once everything is
// answered.
func (b *bench) live(ctx context.Context, point string, nth int, sure bool, say func(), said []Message) error {
	var env []string
	if slices.Contains(failpoint.All(), point) {
		env = []string{fmt.Sprintf("HERMES_FAILPOINT=%s:%d", point, nth)}
	}
	p, err := b.start(env...)
	if err != nil {
		return err
	}
	defer p.Kill()
	var left atomic.Int64
	left.Store(int64(nth))
	meet := func(at string) {
		if at == point && left.Add(-1) == 0 {
			p.Kill()
		}
	}
	b.platform.Watch(meet)
	b.llmProxy.Set(func(_ *http.Request, w faultproxy.When) { meet("model." + string(w)) })
	defer b.platform.Watch(nil)
	defer b.llmProxy.Set(nil)
	say()
	wctx, stop := context.WithCancel(ctx)
	defer stop()
	answered := make(chan struct{})
	if !sure {
		go func() {
			defer close(answered)
			for _, m := range said {
				if err := m.From.WaitFor(wctx, m.Answered); err != nil {
					return
				}
			}
		}()
	}
	select {
	case <-p.Done():
		b.counts.ByPoint[point]++
	case <-answered:
	case <-ctx.Done():
		return fmt.Errorf("neither died nor answered: %w\n%s", ctx.Err(), p.Output())
	}
	p.Kill()
	b.counts.Kills++
	return nil
}

// check counts what the people of a round see and what the tools did.
func (b *bench) check(point string, said []Message) error {
	text, err := os.ReadFile(b.effects)
	if err != nil && !os.IsNotExist(err) {
		return err
	}
	done := map[string]int{}
	for _, l := range strings.Fields(string(text)) {
		done[l]++
	}
	for _, m := range said {
		b.witness.Judge(&b.counts, m, done[m.ID], point, b.platform.MayRepeat)
	}
	return nil
}
