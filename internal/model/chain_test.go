package model_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"hermes/internal/domain"
	"hermes/internal/health"
	"hermes/internal/model"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// scripted is a provider that fails as it is told and then answers.
type scripted struct {
	name string
	mu   sync.Mutex
	fail []*model.Error // one a call; nil answers; then it answers for ever
	last *model.Error   // where not nil: fails with it for ever after fail
	at   []time.Time
	got  []model.Request
	text string // streamed before every failure
}

func (s *scripted) Name() string { return s.name }

func (s *scripted) Complete(ctx context.Context, r *model.Request, onDelta func(model.Delta)) (*model.Answer, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.at, s.got = append(s.at, time.Now()), append(s.got, *r)
	e := s.last
	if len(s.fail) > 0 {
		e, s.fail = s.fail[0], s.fail[1:]
	}
	if e != nil {
		if s.text != "" && onDelta != nil {
			onDelta(model.Delta{Text: s.text})
		}
		return nil, e
	}
	if onDelta != nil {
		onDelta(model.Delta{Text: "answer of " + s.name})
	}
	return &model.Answer{Text: "answer of " + s.name, Provider: s.name, Model: s.name + "-1", Usage: domain.Usage{Calls: 1, InputTokens: 10}}, nil
}

func fails(k model.Kind) *model.Error {
	return &model.Error{Kind: k, Message: "it failed: " + string(k), Usage: domain.Usage{Calls: 1, InputTokens: 3}}
}

func limited(d time.Duration) *model.Error {
	e := fails(model.RateLimited)
	e.RetryAfter = d
	return e
}

func repeated(e *model.Error, n int) []*model.Error {
	var out []*model.Error
	for range n {
		out = append(out, e)
	}
	return out
}

func chain(retries int, providers ...model.Provider) *model.Chain {
	return model.NewChain(providers, model.ChainOptions{MaxRetries: retries, Jitter: func() float64 { return 0.5 }})
}

// TestPolicy: for each kind, how often one provider is called and whether the
// next one is.
func TestPolicy(t *testing.T) {
	for _, test := range []struct {
		kind  model.Kind
		calls int
		next  bool
	}{
		{model.RateLimited, 4, true}, {model.Unavailable, 4, true}, {model.Timeout, 2, true},
		{model.Malformed, 3, true}, {model.Empty, 3, true},
		{model.Auth, 1, true}, {model.Quota, 1, true}, {model.NoModel, 1, true}, {model.BadRequest, 1, true},
		{model.TooLong, 1, true}, {model.NotSet, 1, true}, {model.Other, 1, true},
		{model.TooLarge, 1, false},
	} {
		t.Run(string(test.kind), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				first, second := &scripted{name: "first", last: fails(test.kind)}, &scripted{name: "second"}
				answer, err := chain(3, first, second).Complete(t.Context(), &model.Request{Model: "mine"}, nil)
				if len(first.got) != test.calls || (len(second.got) == 1) != test.next {
					t.Fatalf("%d calls of the first, %d of the second", len(first.got), len(second.got))
				}
				if !test.next {
					if model.AsError(err).Kind != test.kind {
						t.Errorf("got %v", err)
					}
					return
				}
				want := domain.Usage{Calls: int64(test.calls) + 1, InputTokens: int64(test.calls)*3 + 10}
				if err != nil || answer.Provider != "second" || answer.Usage != want {
					t.Errorf("got %+v, %v", answer, err)
				}
				if first.got[0].Model != "mine" || second.got[0].Model != "" {
					t.Errorf("models %q, %q", first.got[0].Model, second.got[0].Model)
				}
			})
		})
	}
}

func TestWaits(t *testing.T) {
	for name, test := range map[string]struct {
		fail []*model.Error
		want []time.Duration // between the calls
	}{
		"doubling":      {repeated(fails(model.Unavailable), 3), []time.Duration{750 * time.Millisecond, 1500 * time.Millisecond, 3 * time.Second}},
		"as asked":      {[]*model.Error{limited(20 * time.Second)}, []time.Duration{21 * time.Second}},
		"asked, longer": {[]*model.Error{limited(time.Minute)}, []time.Duration{63 * time.Second}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := &scripted{name: "p", fail: test.fail}
				if _, err := chain(3, p).Complete(t.Context(), &model.Request{}, nil); err != nil {
					t.Fatal(err)
				}
				var got []time.Duration
				for i := 1; i < len(p.at); i++ {
					got = append(got, p.at[i].Sub(p.at[i-1]))
				}
				if diff := cmp.Diff(test.want, got); diff != "" {
					t.Error(diff)
				}
			})
		})
	}
}

func TestLongRetryAfter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		first, second := &scripted{name: "first", fail: []*model.Error{limited(10 * time.Minute)}}, &scripted{name: "second"}
		c := chain(3, first, second)
		for i, want := range []struct {
			after  time.Duration
			answer string
		}{
			{0, "second"},                // asked to wait too long
			{5 * time.Minute, "second"},  // still left alone
			{11 * time.Minute, "first"},  // its time has passed
			{12 * time.Minute, "first"},  // and stays so
			{120 * time.Minute, "first"}, //
		} {
			time.Sleep(time.Until(start.Add(want.after)))
			a, err := c.Complete(t.Context(), &model.Request{TurnID: int64(i)}, nil)
			if err != nil || a.Provider != want.answer {
				t.Errorf("after %v: %s, %v", want.after, a.Provider, err)
			}
		}
		if len(first.got) != 4 {
			t.Errorf("the first was called %d times", len(first.got))
		}
	})
	t.Run("no fallback", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			start := time.Now()
			p := &scripted{name: "p", last: limited(10 * time.Minute)}
			_, err := chain(3, p).Complete(t.Context(), &model.Request{}, nil)
			if e := model.AsError(err); e.Kind != model.RateLimited || e.RetryAfter != 10*time.Minute || time.Since(start) != 0 || len(p.got) != 1 {
				t.Errorf("got %v after %v and %d calls", err, time.Since(start), len(p.got))
			}
		})
	})
}

// TestTurnStaysOnFallback: within a turn the fallback is kept; another turn
// starts on the first provider.
func TestTurnStaysOnFallback(t *testing.T) {
	first, second := &scripted{name: "first", fail: repeated(fails(model.Auth), 2)}, &scripted{name: "second"}
	c := chain(0, first, second)
	for i, want := range []struct {
		turn   int64
		answer string
	}{{7, "second"}, {7, "second"}, {7, "second"}, {8, "second"}, {9, "first"}, {7, "second"}} {
		a, err := c.Complete(t.Context(), &model.Request{TurnID: want.turn}, nil)
		if err != nil || a.Provider != want.answer {
			t.Errorf("call %d: %s, %v", i, a.Provider, err)
		}
	}
	// A fallback that fails later in the turn hands back to the first.
	second.last = fails(model.Auth)
	if a, err := c.Complete(t.Context(), &model.Request{TurnID: 7}, nil); err != nil || a.Provider != "first" {
		t.Errorf("%s, %v", a.Provider, err)
	}
	// The memory of turns is bounded and does not mix turns up.
	second.last, first.last = nil, fails(model.Auth)
	for turn := range int64(5000) {
		if _, err := c.Complete(t.Context(), &model.Request{TurnID: turn + 10}, nil); err != nil {
			t.Fatal(err)
		}
	}
}

func TestReset(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		first := &scripted{name: "first", fail: repeated(fails(model.Malformed), 3), text: "half an ans"}
		second := &scripted{name: "second"}
		var got []string
		_, err := chain(3, first, second).Complete(t.Context(), &model.Request{}, func(d model.Delta) {
			if d.Reset {
				got = append(got, "RESET")
				return
			}
			got = append(got, d.Text)
		})
		want := []string{"half an ans", "RESET", "half an ans", "RESET", "half an ans", "RESET", "answer of second"}
		if diff := cmp.Diff(want, got); diff != "" || err != nil {
			t.Errorf("%v %s", err, diff)
		}
	})
}

func TestNothingStreamedNothingReset(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &scripted{name: "p", fail: repeated(fails(model.Unavailable), 2)}
		n := 0
		_, err := chain(3, p).Complete(t.Context(), &model.Request{}, func(d model.Delta) { n++ })
		if err != nil || n != 1 {
			t.Errorf("%d deltas, %v", n, err)
		}
	})
}

func TestAllFail(t *testing.T) {
	first := &scripted{name: "first", last: fails(model.Auth)}
	second := &scripted{name: "second", last: fails(model.Quota)}
	_, err := chain(0, first, second).Complete(t.Context(), &model.Request{}, nil)
	e := model.AsError(err)
	if e.Kind != model.Auth || !strings.Contains(e.Message, "it failed: auth") || !strings.Contains(e.Message, "it failed: quota") || e.Usage.Calls != 2 {
		t.Errorf("got %+v", e)
	}
	second.last = fails(model.TooLarge)
	_, err = chain(0, first, second).Complete(t.Context(), &model.Request{}, nil)
	if e := model.AsError(err); e.Kind != model.TooLarge {
		t.Errorf("got %+v", e)
	}
}

func TestCancelWhileWaiting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		p := &scripted{name: "p", last: limited(50 * time.Second)}
		start := time.Now()
		time.AfterFunc(3*time.Second, cancel)
		_, err := chain(3, p).Complete(ctx, &model.Request{}, nil)
		if !errors.Is(err, context.Canceled) || time.Since(start) != 3*time.Second {
			t.Errorf("got %v after %v", err, time.Since(start))
		}
	})
}

func TestHealth(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	registry := health.New(func() time.Time { return now })
	first, second := &scripted{name: "first"}, &scripted{name: "second"}
	c := model.NewChain([]model.Provider{first, second}, model.ChainOptions{Health: registry.Part("model"), Now: func() time.Time { return now }})
	call := func() health.Part {
		now = now.Add(time.Minute)
		_, _ = c.Complete(t.Context(), &model.Request{}, nil)
		return registry.Parts()[0]
	}
	if p := call(); p.State != health.OK || p.LastOK != now || p.Evidence["provider"] != "first" || p.Evidence["model"] != "first-1" {
		t.Errorf("after a success: %+v", p)
	}
	first.last = fails(model.Auth)
	if p := call(); p.State != health.Degraded || p.Code != "fallback" || p.LastOK != now || p.Evidence["provider"] != "second" || !strings.Contains(p.Message, "it failed: auth") {
		t.Errorf("on the fallback: %+v", p)
	}
	second.last = fails(model.Unavailable)
	lastOK := now
	if p := call(); p.State != health.Down || p.Code != "auth" || p.LastOK != lastOK || p.Evidence["last_error"] == "" || p.Evidence["last_error_at"] == "" {
		t.Errorf("after a failure: %+v", p)
	}
	first.last = fails(model.Unavailable)
	if p := call(); p.State != health.Degraded || p.Code != "unavailable" {
		t.Errorf("after a passing failure: %+v", p)
	}
	before := registry.Parts()[0]
	first.last, second.last = fails(model.TooLarge), nil
	if p := call(); p.State != before.State || p.Message != before.Message {
		t.Errorf("a large request changed the state: %+v", p)
	}
	first.last = nil
	if p := call(); p.State != health.OK || p.Message != "" {
		t.Errorf("after recovery: %+v", p)
	}
}

func TestConcurrent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		first := &scripted{name: "first", fail: repeated(limited(2*time.Second), 20)}
		c := chain(3, first, &scripted{name: "second"})
		var wg sync.WaitGroup
		for i := range 50 {
			wg.Go(func() {
				if _, err := c.Complete(t.Context(), &model.Request{TurnID: int64(i)}, func(model.Delta) {}); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
	})
}

func TestUnset(t *testing.T) {
	for _, p := range []model.Provider{model.Unset(), model.NewChain(nil, model.ChainOptions{})} {
		_, err := p.Complete(t.Context(), &model.Request{}, nil)
		if e := model.AsError(err); e.Kind != model.NotSet || !strings.Contains(e.Message, "hermes model") {
			t.Errorf("got %v", err)
		}
	}
}

func TestScrub(t *testing.T) {
	for in, want := range map[string]string{
		"key sk-proj-abcdef123456 is bad":       "key <secret> is bad",
		"Authorization: Bearer abc.def.ghi_jkl": "Authorization: <secret>",
		"mine: hunter2hunter2":                  "mine: <secret>",
		"a\n\tb\r\n  c":                         "a b c",
		"ask for sk- keys":                      "ask for sk- keys",
		"héé":                                   "héé",
	} {
		if got := model.Scrub(in, 100, "hunter2hunter2", "", "a"); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
	if got := model.Scrub(strings.Repeat("é", 100), 21); len(got) > 21 || !strings.HasSuffix(got, "…") {
		t.Errorf("got %q", got)
	}
}

func TestEstimateTokens(t *testing.T) {
	for _, test := range []struct {
		text string
		want int
	}{
		{"", 0}, {"a", 1}, {"four", 1}, {"hello world!", 3}, {"日本語", 3}, {"привет", 3}, {"🙂", 1}, {"\xff\xff\xff", 2},
	} {
		if got := model.EstimateTokens(test.text); got != test.want {
			t.Errorf("%q: %d, want %d", test.text, got, test.want)
		}
	}
	r := &model.Request{System: strings.Repeat("x", 400), Messages: []domain.Message{{Content: strings.Repeat("y", 800),
		ToolCalls: []domain.ToolCall{{Name: "terminal", Arguments: strings.Repeat("z", 400)}}}},
		Tools: []model.ToolSpec{{Name: "terminal", Description: strings.Repeat("d", 400), Schema: []byte(strings.Repeat("s", 400))}}}
	if got := model.EstimateRequest(r); got < 600 || got > 640 {
		t.Errorf("a request of 2,400 bytes: %d tokens", got)
	}
}

func TestContextLength(t *testing.T) {
	for _, test := range []struct {
		name       string
		configured int
		want       int
	}{
		{"whatever", 5000, 5000}, {"whatever", 0, 128_000}, {"", 0, 128_000},
		{"openai/gpt-4o-mini", 0, 128_000}, {"gpt-4", 0, 8_192}, {"gpt-4-turbo-2024", 0, 128_000}, {"gpt-4.1", 0, 1_047_576},
		{"anthropic/Claude-Sonnet-4.5", 0, 200_000}, {"solo1-large", 0, 128_000}, {"o1-mini", 0, 200_000}, {"offline", 0, 32_768},
	} {
		if got := model.ContextLength(test.name, test.configured); got != test.want {
			t.Errorf("%s: %d, want %d", test.name, got, test.want)
		}
	}
}

func TestWait(t *testing.T) {
	for d, want := range map[time.Duration]string{
		300 * time.Millisecond: "1 s", 40 * time.Second: "40 s", 5 * time.Minute: "5 min", 2 * time.Hour: "2 h", 185 * time.Minute: "3 h 5 min",
	} {
		if got := model.Wait(d); got != want {
			t.Errorf("%v: %s, want %s", d, got, want)
		}
	}
}

func ExampleChain() {
	c := model.NewChain([]model.Provider{model.Unset()}, model.ChainOptions{})
	_, err := c.Complete(context.Background(), &model.Request{}, nil)
	fmt.Println(model.AsError(err).Kind)
	// Output: not_set
}
