package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"hermes/testkit/llm"
	"hermes/testkit/rig"
	"hermes/testkit/telegram"
)

// A gateway looks after dead processes five seconds after its start, and keeps
// what served healthily after ten; it is idle after settleFor, and its wake-ups
// are counted for idleFor.
const (
	settleFor = 13 * time.Second
	idleFor   = 20 * time.Second
)

// measureIdle is memory and wake-ups at rest, and memory after 100 messages.
func measureIdle(ctx context.Context, b *bench) ([]row, error) {
	var idle, after []int64
	var wakes []float64
	for range max(b.rounds/2, 1) {
		w, err := b.newWorld(llm.Echo, "")
		if err != nil {
			return nil, err
		}
		if out, err := w.home.Run(ctx, "cron", "create", "0 4 * * *", "say good morning", "--name", "daily", "--deliver", "local"); err != nil {
			return nil, fmt.Errorf("cron create: %w: %s", err, out)
		}
		p, _, err := w.start(ctx)
		if err != nil {
			return nil, err
		}
		if err := w.tg.WaitCalls(ctx, "getUpdates", 1); err != nil {
			return nil, err
		}
		pause(ctx, settleFor)
		before := switches(p.Cmd.Process.Pid)
		pause(ctx, idleFor)
		wakes = append(wakes, float64(switches(p.Cmd.Process.Pid)-before)/idleFor.Seconds())
		idle = append(idle, p.RSS())
		user := w.tg.AddUser("Ann")
		for i := range 100 {
			w.tg.Say(user, fmt.Sprintf("message number %d", i))
			if _, err := w.tg.WaitFor(ctx, user.ID, botSaid(fmt.Sprintf("message number %d", i))); err != nil {
				return nil, fmt.Errorf("message %d: %w\n%s", i, err, p.Output())
			}
		}
		after = append(after, p.RSS())
		if n := w.brain.Count(); n != 100 {
			return nil, fmt.Errorf("the model was called %d times for 100 messages", n)
		}
		if _, err := p.Stop(ctx); err != nil {
			return nil, err
		}
		w.close()
	}
	m1, t1 := spread(idle, mib)
	m2, t2 := spread(after, mib)
	m3, t3 := spread(wakes, func(f float64) string { return fmt.Sprintf("%.2f", f) })
	return []row{
		{"idle RSS; Telegram, cron and API on", "≤ 28 MiB", t1, within(m1 <= 28<<20)},
		{"RSS after 100 messages", "≤ 34 MiB", t2, within(m2 <= 34<<20)},
		{"idle wake-ups a second (context switches of all threads)", "≤ 2", t3, within(m3 <= 2)},
		{"model calls while idle", "0", "0", "✓"},
	}, nil
}

// pause lets the gateway be for a while; ctx ends it early.
func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// switches sums the context switches of all threads of a process; see
// proc_pid_status(5).
func switches(pid int) (n int64) {
	files, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", pid))
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			continue
		}
		for _, l := range strings.Split(string(text), "\n") {
			var k int64
			if name, value, ok := strings.Cut(l, ":"); ok && strings.HasSuffix(name, "voluntary_ctxt_switches") {
				_, _ = fmt.Sscan(value, &k)
				n += k
			}
		}
	}
	return n
}

func botSaid(text string) func(telegram.Message) bool {
	return func(m telegram.Message) bool { return m.FromBot && strings.Contains(m.Text, text) }
}

// measureTelegram is the way of single messages, and the rate of many chats.
func measureTelegram(ctx context.Context, b *bench) ([]row, error) {
	var mu sync.Mutex
	asked := map[string]time.Time{}
	brain := func(r llm.Request) llm.Reply {
		mu.Lock()
		defer mu.Unlock()
		text := r.Messages[len(r.Messages)-1].Text()
		asked[text] = time.Now()
		return llm.Reply{Text: text}
	}
	w, err := b.newWorld(brain, "")
	if err != nil {
		return nil, err
	}
	defer w.close()
	p, _, err := w.start(ctx)
	if err != nil {
		return nil, err
	}
	defer p.Kill()
	var in50, in99, out50 []time.Duration
	var rates []float64
	user := w.tg.AddUser("Ann")
	for round := range b.rounds + 1 {
		var in, out []time.Duration
		for i := range 100 {
			text := fmt.Sprintf("ping %d of %d", i, round)
			said := time.Now()
			w.tg.Say(user, text)
			if _, err := w.tg.WaitFor(ctx, user.ID, botSaid(text)); err != nil {
				return nil, fmt.Errorf("%w\n%s", err, p.Output())
			}
			sent := time.Now()
			mu.Lock()
			in, out = append(in, asked[text].Sub(said)), append(out, sent.Sub(asked[text]))
			mu.Unlock()
		}
		rate, err := w.flood(ctx, p, round)
		if err != nil {
			return nil, err
		}
		if round > 0 { // the first warms up
			in50, in99, out50 = append(in50, quantile(in, 0.5)), append(in99, quantile(in, 0.99)), append(out50, quantile(out, 0.5))
			rates = append(rates, rate)
		}
	}
	m50, t50 := spread(in50, ms)
	m99, t99 := spread(in99, ms)
	mo, to := spread(out50, ms)
	mr, tr := spread(rates, count)
	return []row{
		{"Telegram update to model request, durable, p50", "≤ 4 ms", t50, within(m50 <= 4*time.Millisecond)},
		{"the same, p99", "≤ 15 ms", t99, within(m99 <= 15*time.Millisecond)},
		{"model answer to Telegram send, p50 (with the model's own answer)", "≤ 3 ms", to, within(mo <= 3*time.Millisecond)},
		{"Telegram messages answered a second, 200 chats, limiter off", "≥ 500", tr, within(mr >= 500)},
	}, nil
}

// flood lets 200 chats write 10 messages each, one after the other per chat,
// and gives the answers a second.
func (w *world) flood(ctx context.Context, p *rig.Process, round int) (float64, error) {
	const chats, each = 200, 10
	began := time.Now()
	errs := make(chan error, chats)
	for c := range chats {
		go func() {
			user := w.tg.AddUser(fmt.Sprintf("C%d-%d", round, c))
			for i := range each {
				text := fmt.Sprintf("r%d-c%d-%d.", round, c, i)
				w.tg.Say(user, text)
				if _, err := w.tg.WaitFor(ctx, user.ID, botSaid(text)); err != nil {
					errs <- fmt.Errorf("%w\n%s", err, p.Output())
					return
				}
			}
			errs <- nil
		}()
	}
	for range chats {
		if err := <-errs; err != nil {
			return 0, err
		}
	}
	return chats * each / time.Since(began).Seconds(), nil
}

// measureCrash kills the gateway in the middle of a model call and times the
// answer after the new start.
func measureCrash(ctx context.Context, b *bench) ([]row, error) {
	var took []time.Duration
	for range b.rounds {
		arrived := make(chan struct{}, 16)
		release := make(chan struct{})
		brain := func(llm.Request) llm.Reply {
			return llm.Reply{Text: "the answer", Before: func(ctx context.Context) {
				arrived <- struct{}{}
				select {
				case <-release:
				case <-ctx.Done():
				}
			}}
		}
		w, err := b.newWorld(brain, "")
		if err != nil {
			return nil, err
		}
		p, _, err := w.start(ctx)
		if err != nil {
			return nil, err
		}
		user := w.tg.AddUser("Ann")
		w.tg.Say(user, "hello")
		<-arrived
		p.Kill()
		close(release)
		began := time.Now()
		if p, _, err = w.start(ctx); err != nil {
			return nil, err
		}
		if _, err := w.tg.WaitFor(ctx, user.ID, botSaid("the answer")); err != nil {
			return nil, err
		}
		took = append(took, time.Since(began))
		if _, err := p.Stop(ctx); err != nil {
			return nil, err
		}
		n := 0
		for _, m := range w.tg.Messages(user.ID) {
			if botSaid("the answer")(m) {
				n++
			}
		}
		if n != 1 {
			return nil, fmt.Errorf("the answer came %d times", n)
		}
		w.close()
	}
	m, text := spread(took, ms)
	return []row{{"`kill -9` in the middle of a model call: answer after the new start, once", "≤ 2 s", text, within(m <= 2*time.Second)}}, nil
}
