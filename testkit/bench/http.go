package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"hermes/testkit/llm"
)

// client keeps many connections open.
var client = &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 6000, MaxConnsPerHost: 0, ReadBufferSize: 1024, WriteBufferSize: 1024}}

func request(ctx context.Context, base, text string, stream bool) (*http.Response, error) {
	body := fmt.Sprintf(`{"model":"bench","stream":%v,"messages":[{"role":"user","content":%q}]}`, stream, text)
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, base+"/chat/completions", bytes.NewReader([]byte(body)))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/json")
	res, err := client.Do(req)
	if err == nil && res.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(io.LimitReader(res.Body, 1000))
		res.Body.Close()
		err = fmt.Errorf("%s: %s", res.Status, text)
	}
	return res, err
}

// ask makes one call that is not streamed.
func ask(ctx context.Context, base, text string) (time.Duration, error) {
	began := time.Now()
	res, err := request(ctx, base, text, false)
	if err != nil {
		return 0, err
	}
	_, err = io.Copy(io.Discard, res.Body)
	res.Body.Close()
	return time.Since(began), err
}

// firstToken makes one streamed call and times the first content.
func firstToken(ctx context.Context, base, text string) (time.Duration, error) {
	began := time.Now()
	res, err := request(ctx, base, text, true)
	if err != nil {
		return 0, err
	}
	defer res.Body.Close()
	var took time.Duration
	in := bufio.NewScanner(res.Body)
	for in.Scan() {
		if took == 0 && strings.Contains(in.Text(), `"content":"ok`) {
			took = time.Since(began)
		}
	}
	if took == 0 {
		return 0, fmt.Errorf("the stream had no content: %v", in.Err())
	}
	return took, nil
}

// paced makes calls at 200 a second and gives their times.
func paced(ctx context.Context, n int, call func(context.Context, string) (time.Duration, error)) ([]time.Duration, error) {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	var mu sync.Mutex
	var took []time.Duration
	var failed error
	var wg sync.WaitGroup
	for i := range n {
		<-tick.C
		wg.Go(func() {
			d, err := call(ctx, fmt.Sprintf("ping %d", i))
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				failed = err
				return
			}
			took = append(took, d)
		})
	}
	wg.Wait()
	return took, failed
}

// measureAPI is the gateway's overhead over the model's own time: the same
// calls at 200 a second, in turn straight to the model and through the gateway.
func measureAPI(ctx context.Context, b *bench) ([]row, error) {
	w, err := b.newWorld(llm.Instant, "")
	if err != nil {
		return nil, err
	}
	defer w.close()
	p, _, err := w.start(ctx)
	if err != nil {
		return nil, err
	}
	defer p.Kill()
	var o50, o99, first, disk50, disk99 []time.Duration
	for round := range b.rounds + 1 {
		n := 600
		direct, err := paced(ctx, n, func(ctx context.Context, s string) (time.Duration, error) { return ask(ctx, w.brain.URL(), s) })
		if err != nil {
			return nil, err
		}
		through, err := paced(ctx, n, func(ctx context.Context, s string) (time.Duration, error) { return ask(ctx, w.api+"/v1", s) })
		if err != nil {
			return nil, fmt.Errorf("%w\n%s", err, p.Output())
		}
		d1, err := paced(ctx, n/2, func(ctx context.Context, s string) (time.Duration, error) { return firstToken(ctx, w.brain.URL(), s) })
		if err != nil {
			return nil, err
		}
		t1, err := paced(ctx, n/2, func(ctx context.Context, s string) (time.Duration, error) { return firstToken(ctx, w.api+"/v1", s) })
		if err != nil {
			return nil, err
		}
		disk, err := b.syncs(ctx)
		if err != nil {
			return nil, err
		}
		if round == 0 {
			continue // warm-up
		}
		disk50, disk99 = append(disk50, quantile(disk, 0.5)), append(disk99, quantile(disk, 0.99))
		o50 = append(o50, quantile(through, 0.5)-quantile(direct, 0.5))
		o99 = append(o99, quantile(through, 0.99)-quantile(direct, 0.5))
		first = append(first, quantile(t1, 0.5)-quantile(d1, 0.5))
	}
	m50, t50 := spread(o50, ms)
	m99, t99 := spread(o99, ms)
	mf, tf := spread(first, ms)
	_, td50 := spread(disk50, ms)
	_, td99 := spread(disk99, ms)
	return []row{
		{"API overhead over the model's own time, 200 requests/s, p50", "≤ 1 ms", t50, within(m50 <= time.Millisecond)},
		{"the same, p99 over the model's p50", "≤ 5 ms", t99, within(m99 <= 5*time.Millisecond)},
		{"one bare fsync in the same minutes, of which each call waits for two, p50", "", td50, ""},
		{"the same, p99", "", td99, ""},
		{"first token over the model's own, p50", "≤ 1 ms", tf, within(mf <= time.Millisecond)},
	}, nil
}

// measureTurns is the rate of turns with an instant model, all durable.
func measureTurns(ctx context.Context, b *bench) ([]row, error) {
	w, err := b.newWorld(llm.Instant, "")
	if err != nil {
		return nil, err
	}
	defer w.close()
	p, _, err := w.start(ctx)
	if err != nil {
		return nil, err
	}
	defer p.Kill()
	var rates []float64
	for range b.rounds {
		const callers = 64
		var done atomic.Int64
		until := time.Now().Add(3 * time.Second)
		errs := make(chan error, callers)
		for c := range callers {
			go func() {
				for i := 0; time.Now().Before(until); i++ {
					if _, err := ask(ctx, w.api+"/v1", fmt.Sprintf("ping %d of %d", i, c)); err != nil {
						errs <- err
						return
					}
					done.Add(1)
				}
				errs <- nil
			}()
		}
		began := time.Now()
		for range callers {
			if err := <-errs; err != nil {
				return nil, fmt.Errorf("%w\n%s", err, p.Output())
			}
		}
		rates = append(rates, float64(done.Load())/time.Since(began).Seconds())
	}
	m, text := spread(rates, count)
	return []row{{"sustained turns a second, instant model, all durable, 64 callers", "≥ 1,500", text, within(m >= 1500)}}, nil
}

// measureStreams is the memory of the gateway with 5,000 streams under way.
func measureStreams(ctx context.Context, b *bench) ([]row, error) {
	const streams = 5000
	gate := llm.NewGate()
	brain := func(llm.Request) llm.Reply {
		return llm.Reply{Pieces: []string{"ok ", "and more"}, Text: "ok and more", BeforePiece: func(ctx context.Context, i int) {
			if i == 1 {
				gate.Pass(ctx)
			}
		}}
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
	var wg sync.WaitGroup
	var began, ended atomic.Int64
	errs := make(chan error, streams)
	slots := make(chan struct{}, 200)
	for i := range streams {
		slots <- struct{}{}
		wg.Go(func() {
			res, err := request(ctx, w.api+"/v1", fmt.Sprintf("stream %d", i), true)
			if err != nil {
				<-slots
				errs <- err
				return
			}
			defer res.Body.Close()
			in := bufio.NewReaderSize(res.Body, 1024)
			first := true
			for {
				line, err := in.ReadString('\n')
				if first && strings.Contains(line, `"content":"ok`) {
					first = false
					began.Add(1)
					<-slots
				}
				if strings.HasPrefix(line, "data: [DONE]") {
					ended.Add(1)
				}
				if err != nil {
					return
				}
			}
		})
	}
	for began.Load() < streams && len(errs) == 0 && ctx.Err() == nil {
		pause(ctx, 50*time.Millisecond)
	}
	rss := p.RSS()
	gate.Open()
	wg.Wait()
	if len(errs) > 0 {
		return nil, fmt.Errorf("%d of %d streams failed: %w\n%s", len(errs), streams, <-errs, p.Output())
	}
	if ended.Load() != streams {
		return nil, fmt.Errorf("%d of %d streams came to their end", ended.Load(), streams)
	}
	return []row{{"5,000 concurrent streams, RSS", "≤ 400 MB", mib(rss), within(rss <= 400e6)}}, nil
}
