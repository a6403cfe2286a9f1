// Package torture kills the real gateway (SIGKILL) at every instant that the
// promise tells apart, again and again, against the Telegram and model fakes,
// and counts what was lost, run twice or repeated.
package torture

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
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
	"hermes/testkit/rig"
	"hermes/testkit/telegram"
)

// Counts is what a run found.
type Counts struct {
	Kills, Messages int
	Lost            []string // messages without an answer
	ToolTwice       []string // side effects that happened twice
	TurnTwice       []string // messages that stand twice in what the model was shown
	RepeatedMarked  int      // replies that came again with the mark that says so
	RepeatedSilent  []string // replies that came again without it
	ByPoint         map[string]int
}

// Bad tells whether a promise was broken.
func (c Counts) Bad() bool {
	return len(c.Lost)+len(c.ToolTwice)+len(c.TurnTwice)+len(c.RepeatedSilent) > 0
}

// String is the table of counts.
func (c Counts) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "kills %d, messages %d\nlost %d\ntools run twice %d\nturns run twice %d\nreplies repeated, marked as possibly repeated %d\nreplies repeated silently %d\n",
		c.Kills, c.Messages, len(c.Lost), len(c.ToolTwice), len(c.TurnTwice), c.RepeatedMarked, len(c.RepeatedSilent))
	for _, p := range points() {
		fmt.Fprintf(&b, "  %-28s %d\n", p, c.ByPoint[p])
	}
	return b.String()
}

// The instants that are seen from outside, at the proxies.
const (
	pollBefore  = "telegram.getUpdates.before"
	pollAfter   = "telegram.getUpdates.after"
	sendBefore  = "telegram.sendMessage.before"
	sendAfter   = "telegram.sendMessage.after"
	modelBefore = "model.before"
	modelAfter  = "model.after"
)

func points() []string {
	return append(failpoint.All(), pollBefore, pollAfter, sendBefore, sendAfter, modelBefore, modelAfter)
}

// bench is one run's surroundings.
type bench struct {
	tg       *telegram.Server
	brain    *llm.Server
	tgProxy  *faultproxy.Proxy
	llmProxy *faultproxy.Proxy
	home     *rig.Home
	effects  string
	rng      *rand.Rand
	next     int
	counts   Counts
	mu       sync.Mutex
	shown    map[string]int // how often a message stood in one model request, at most
}

// Run kills the gateway until it died n times, and counts.
func Run(ctx context.Context, dir, binary string, n int, seed uint64, logf func(string, ...any)) (Counts, error) {
	b, err := setUp(dir, binary, seed)
	if err != nil {
		return Counts{}, err
	}
	defer b.close()
	all := points()
	for round := 0; b.counts.Kills < n; round++ {
		if err := b.round(ctx, all[round%len(all)]); err != nil {
			return b.counts, fmt.Errorf("round %d (%s): %w", round, all[round%len(all)], err)
		}
		if round%100 == 99 {
			logf("%d kills, %d messages so far", b.counts.Kills, b.counts.Messages)
		}
	}
	return b.counts, nil
}

func setUp(dir, binary string, seed uint64) (*bench, error) {
	b := &bench{effects: filepath.Join(dir, "effects.log"), rng: rand.New(rand.NewPCG(seed, 1)), shown: map[string]int{}, counts: Counts{ByPoint: map[string]int{}}}
	var err error
	if b.tg, err = telegram.New(telegram.Options{}); err != nil {
		return nil, err
	}
	if b.brain, err = llm.Start(b.think); err != nil {
		return nil, err
	}
	if b.tgProxy, err = faultproxy.New(b.tg.URL()); err != nil {
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
	env := fmt.Sprintf("TELEGRAM_BOT_TOKEN=%s\nTELEGRAM_BASE_URL=%s\nTELEGRAM_ALLOW_ALL_USERS=true\nHERMES_LOG_LEVEL=info\n", b.tg.Token(), b.tgProxy.URL())
	b.home, err = rig.NewHome(filepath.Join(dir, "home"), binary, config, env)
	return b, err
}

func (b *bench) close() {
	b.tgProxy.Close()
	b.llmProxy.Close()
	b.tg.Close()
	b.brain.Close()
}

// think is the model: it runs a tool with a side effect that can be counted,
// then answers with what the tool said. A message that begins with "say" is
// answered at once.
func (b *bench) think(r llm.Request) llm.Reply {
	said, result, results := "", "", 0
	seen := map[string]int{}
	for _, m := range r.Messages {
		switch m.Role {
		case "user":
			said = m.Text()
			seen[word(said)]++
		case "tool":
			result = m.Text()
			results++
		}
	}
	id := word(said)
	b.mu.Lock()
	b.shown[id] = max(b.shown[id], seen[id])
	b.mu.Unlock()
	if strings.HasPrefix(said, "say") {
		return llm.Reply{Text: "answer " + id}
	}
	if results == 0 {
		return llm.Reply{ToolCalls: []llm.ToolCall{{Name: "terminal", Arguments: fmt.Sprintf(`{"command":"echo %s >> %s; echo ran %s"}`, id, b.effects, id)}}}
	}
	return llm.Reply{Text: "answer " + id + "\n\ntool said: " + strings.TrimSpace(result)}
}

// word is the message's own word, e.g. m17.
func word(s string) string {
	for _, w := range strings.Fields(s) {
		if strings.HasPrefix(w, "m") && len(w) > 1 && strings.Trim(w[1:], "0123456789") == "" {
			return w
		}
	}
	return ""
}

// message is one message of a round.
type message struct {
	id   string
	tool bool
	from telegram.User
}

// answered tells whether a message of a chat is the answer.
func (m message) answered(t telegram.Message) bool {
	return t.FromBot && word(t.Text) == m.id && strings.Contains(t.Text, "answer ")
}

// start starts the gateway as if the life before had ended well. A death that
// nothing explains makes the starts that follow careful, which is what the
// record of starts is for; here each death is explained, by this test.
func (b *bench) start(env ...string) (*rig.Process, error) {
	if err := os.Remove(filepath.Join(b.home.Dir, "gateway-starts.json")); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	return b.home.Start(env...)
}

// round starts the gateway so that it dies at a point, lets people write, starts
// it again (now and then to die again), and checks what they see.
func (b *bench) round(ctx context.Context, point string) error {
	ctx, cancel := context.WithTimeout(ctx, 60*time.Second)
	defer cancel()
	var said []message
	for range 1 + b.rng.IntN(3) {
		b.next++
		m := message{id: fmt.Sprintf("m%d", b.next), tool: len(said) == 0 || b.rng.IntN(4) > 0, from: b.tg.AddUser(fmt.Sprintf("U%d", b.next))}
		said = append(said, m)
	}
	say := func() {
		for _, m := range said {
			verb := "say"
			if m.tool {
				verb = "do"
			}
			b.tg.Say(m.from, verb+" "+m.id)
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
		all := points()
		if err := b.live(ctx, all[b.rng.IntN(len(all))], 1, false, func() {}, said); err != nil {
			return err
		}
	}
	p, err := b.start()
	if err != nil {
		return err
	}
	defer p.Kill()
	for _, m := range said {
		if _, err := b.tg.WaitFor(ctx, m.from.ID, m.answered); err != nil {
			b.counts.Lost = append(b.counts.Lost, m.id+" ("+point+")")
			return fmt.Errorf("%s was not answered: %w\n%s\n%s", m.id, err, b.tg.Transcript(m.from.ID), p.Output())
		}
	}
	if err := b.settled(ctx, p); err != nil {
		return err
	}
	return b.check(point, said)
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
func (b *bench) live(ctx context.Context, point string, nth int, sure bool, say func(), said []message) error {
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
	hook := func(name string) func(*http.Request, faultproxy.When) {
		return func(r *http.Request, w faultproxy.When) {
			if pointOf(name, r, w) == point && left.Add(-1) == 0 {
				p.Kill()
			}
		}
	}
	b.tgProxy.Set(hook("telegram"))
	b.llmProxy.Set(hook("model"))
	defer b.tgProxy.Set(nil)
	defer b.llmProxy.Set(nil)
	say()
	wctx, stop := context.WithCancel(ctx)
	defer stop()
	answered := make(chan struct{})
	if !sure {
		go func() {
			defer close(answered)
			for _, m := range said {
				if _, err := b.tg.WaitFor(wctx, m.from.ID, m.answered); err != nil {
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

// pointOf names an instant at a proxy.
func pointOf(service string, r *http.Request, w faultproxy.When) string {
	if service == "model" {
		return "model." + string(w)
	}
	path := r.URL.Path
	return "telegram." + path[strings.LastIndexByte(path, '/')+1:] + "." + string(w)
}

// check counts what the people of a round see and what the tools did.
func (b *bench) check(point string, said []message) error {
	text, err := os.ReadFile(b.effects)
	if err != nil && !os.IsNotExist(err) {
		return err
	}
	done := map[string]int{}
	for _, l := range strings.Fields(string(text)) {
		done[l]++
	}
	for _, m := range said {
		b.counts.Messages++
		plain, marked := 0, 0
		for _, t := range b.tg.Messages(m.from.ID) {
			if m.answered(t) {
				if strings.Contains(t.Text, "may be a repeat") {
					marked++
				} else {
					plain++
				}
			}
		}
		if plain > 1 {
			b.counts.RepeatedSilent = append(b.counts.RepeatedSilent, m.id+" ("+point+")")
		}
		if plain+marked > 1 {
			b.counts.RepeatedMarked += marked
		}
		if done[m.id] > 1 {
			b.counts.ToolTwice = append(b.counts.ToolTwice, m.id+" ("+point+")")
		}
		b.mu.Lock()
		if b.shown[m.id] > 1 {
			b.counts.TurnTwice = append(b.counts.TurnTwice, m.id+" ("+point+")")
		}
		b.mu.Unlock()
	}
	return nil
}
