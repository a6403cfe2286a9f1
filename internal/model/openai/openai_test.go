package openai_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"hermes/internal/domain"
	"hermes/internal/model"
	"hermes/internal/model/openai"
	"hermes/testkit/llm"
)

func TestMain(m *testing.M) {
	if os.Getenv(childVariable) != "" {
		serveAsChild()
		return
	}
	goleak.VerifyTestMain(m)
}

const key = "sk-test-4f1c9b7e2a8d6053"

// bench is a client and the fake service that it calls.
type bench struct {
	server *llm.Server
	client *openai.Client
	log    *lockedBuffer
}

// lockedBuffer collects log lines of concurrent calls.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func setUp(t *testing.T, brain llm.Brain, change func(*openai.Config)) *bench {
	t.Helper()
	server, err := llm.Start(brain)
	if err != nil {
		t.Fatal(err)
	}
	cfg := openai.Config{
		Name: "fake", BaseURL: server.URL(), Key: key, KeyOrigin: ".env line 3 (FAKE_API_KEY)", Model: "fake-1",
		Limits: openai.Limits{FirstByte: 30 * time.Second, Idle: 30 * time.Second, Call: time.Minute},
	}
	if change != nil {
		change(&cfg)
	}
	transport := openai.NewTransport()
	out := &lockedBuffer{}
	client, err := openai.New(cfg, openai.Deps{
		Transport: transport, Log: slog.New(slog.NewTextHandler(out, &slog.HandlerOptions{Level: slog.LevelDebug})),
		Now: func() time.Time { return time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC) },
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		transport.CloseIdleConnections()
		server.Close()
		if strings.Contains(out.String(), key) {
			t.Errorf("the key stands in the log:\n%s", out)
		}
	})
	return &bench{server, client, out}
}

func ask(text string) *model.Request {
	return &model.Request{Messages: []domain.Message{{Role: domain.RoleUser, Content: text}}}
}

// collect gives an observer and what it saw.
func collect() (func(model.Delta), *[]model.Delta) {
	var got []model.Delta
	return func(d model.Delta) { got = append(got, d) }, &got
}

func joined(deltas []model.Delta) string {
	var b strings.Builder
	for _, d := range deltas {
		b.WriteString(d.Text)
	}
	return b.String()
}

// failure checks that err is a *model.Error of the kind and shows no secret.
func failure(t *testing.T, err error, kind model.Kind) *model.Error {
	t.Helper()
	var e *model.Error
	if !errors.As(err, &e) {
		t.Fatalf("got %v, want a *model.Error of kind %s", err, kind)
	}
	if e.Kind != kind {
		t.Fatalf("got kind %s (%v), want %s", e.Kind, err, kind)
	}
	for _, form := range []string{err.Error(), fmt.Sprintf("%+v", e), fmt.Sprintf("%#v", e)} {
		if strings.Contains(form, key) {
			t.Errorf("the error shows the key: %s", form)
		}
	}
	if e.Message == "" || e.Provider != "fake" || len(err.Error()) > 3000 {
		t.Errorf("message %q, provider %q", e.Message, e.Provider)
	}
	return e
}

// modes runs a test streamed and not.
func modes(t *testing.T, run func(t *testing.T, onDelta func(model.Delta))) {
	t.Helper()
	t.Run("streamed", func(t *testing.T) { run(t, func(model.Delta) {}) })
	t.Run("whole", func(t *testing.T) { run(t, nil) })
}

func TestAnswer(t *testing.T) {
	reply := llm.Reply{Text: "the quick brown fox jumps", Reasoning: "hm", Usage: &llm.Usage{PromptTokens: 11, CompletionTokens: 5}}
	reply.Usage.Details.CachedTokens = 7
	b := setUp(t, llm.Always(reply), nil)
	want := &model.Answer{Text: "the quick brown fox jumps", Reasoning: "hm", Finish: model.FinishStop, Model: "fake-1", Provider: "fake",
		Usage: domain.Usage{Calls: 1, InputTokens: 11, OutputTokens: 5, CachedTokens: 7}}

	onDelta, seen := collect()
	got, err := b.client.Complete(t.Context(), ask("hello"), onDelta)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("streamed: -want +got\n%s", diff)
	}
	if len(*seen) != 6 || joined(*seen) != want.Text || (*seen)[0].Reasoning != "hm" {
		t.Errorf("deltas: %+v", *seen)
	}
	got, err = b.client.Complete(t.Context(), ask("hello"), nil)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("whole: -want +got\n%s", diff)
	}
	for i, r := range b.server.Requests() {
		if r.Header.Get("Authorization") != "Bearer "+key || r.Stream != (i == 0) {
			t.Errorf("request %d: %v stream %v", i, r.Header, r.Stream)
		}
		if _, sent := r.Header["Idempotency-Key"]; sent {
			t.Error("an Idempotency-Key was sent")
		}
	}
}

func TestStatuses(t *testing.T) {
	for _, test := range []struct {
		status int
		kind   model.Kind
		says   string
	}{
		{400, model.BadRequest, "fake-1"},
		{401, model.Auth, ".env line 3 (FAKE_API_KEY)"},
		{402, model.Quota, "credit"},
		{403, model.Auth, ".env line 3 (FAKE_API_KEY)"},
		{404, model.NoModel, "hermes model"},
		{405, model.NoModel, "hermes model"},
		{408, model.Timeout, "again"},
		{409, model.BadRequest, "refused"},
		{413, model.TooLarge, "/compress"},
		{422, model.BadRequest, "refused"},
		{429, model.RateLimited, "rate"},
		{500, model.Unavailable, "later"},
		{502, model.Unavailable, "later"},
		{503, model.Unavailable, "later"},
		{504, model.Unavailable, "later"},
		{529, model.Unavailable, "later"},
		{301, model.NoModel, "base_url"},
		{204, model.NoModel, "base_url"},
	} {
		for _, html := range []bool{false, true} {
			f := llm.Failure{Status: test.status, HTML: html}
			t.Run(fmt.Sprintf("%d html=%v", test.status, html), func(t *testing.T) {
				b := setUp(t, llm.Always(f.Reply()), nil)
				modes(t, func(t *testing.T, onDelta func(model.Delta)) {
					_, err := b.client.Complete(t.Context(), ask("x"), onDelta)
					e := failure(t, err, test.kind)
					if e.Status != test.status || !strings.Contains(e.Message, test.says) || strings.ContainsAny(e.Message, "<>\n") {
						t.Errorf("status %d, message %q", e.Status, e.Message)
					}
				})
				if n := b.server.Count(); n != 2 {
					t.Errorf("%d requests for two calls: the client must not retry", n)
				}
			})
		}
	}
}

func TestErrorBodies(t *testing.T) {
	for name, test := range map[string]struct {
		failure llm.Failure
		kind    model.Kind
		says    string
	}{
		"quota as 429":       {llm.Failure{Status: 429, Type: "insufficient_quota", Code: "insufficient_quota"}, model.Quota, "credit"},
		"context by code":    {llm.Failure{Status: 400, Code: "context_length_exceeded"}, model.TooLarge, "/compress"},
		"context by words":   {llm.Failure{Status: 400, Message: "This model's maximum context length is 8192 tokens."}, model.TooLarge, "/compress"},
		"model as 400":       {llm.Failure{Status: 400, Code: "model_not_found", Message: "no such model"}, model.NoModel, "no such model"},
		"google's array":     {llm.Failure{Status: 400, Body: `[{"error":{"code":400,"message":"API key not valid. Please pass a valid API key."}}]`}, model.Auth, "key"},
		"error is a string":  {llm.Failure{Status: 422, Body: `{"error":"bad thing"}`}, model.BadRequest, "bad thing"},
		"detail":             {llm.Failure{Status: 422, Body: `{"detail":[{"text":"field required"}]}`}, model.BadRequest, "field required"},
		"message at the top": {llm.Failure{Status: 400, Body: `{"object":"error","message":"nope","code":40001}`}, model.BadRequest, "nope"},
		"router's metadata":  {llm.Failure{Status: 400, Body: `{"error":{"message":"Provider returned error","code":400,"metadata":{"raw":"tools?"}}}`}, model.BadRequest, "tools?"},
		"nothing":            {llm.Failure{Status: 400, Body: " "}, model.BadRequest, "refused"},
		"garbage":            {llm.Failure{Status: 400, Body: "{\"error\":\xff\x00"}, model.BadRequest, "refused"},
		"echoed key":         {llm.Failure{Status: 400, Message: "bad key " + key + " or Bearer abcdefghijkl and sk-proj-abc***xyz"}, model.BadRequest, "<secret>"},
		"endless body":       {llm.Failure{Status: 400, Message: strings.Repeat("blah ", 1<<20)}, model.BadRequest, "refused"},
	} {
		t.Run(name, func(t *testing.T) {
			b := setUp(t, llm.Always(test.failure.Reply()), nil)
			_, err := b.client.Complete(t.Context(), ask("x"), nil)
			if e := failure(t, err, test.kind); !strings.Contains(e.Message, test.says) || strings.Contains(err.Error(), "sk-proj") {
				t.Errorf("message %q, want %q in it", err, test.says)
			}
		})
	}
}

func TestWrongKeyIsNotShown(t *testing.T) {
	b := setUp(t, llm.Echo, nil)
	b.server.RequireKey("sk-another")
	_, err := b.client.Complete(t.Context(), ask("x"), nil)
	failure(t, err, model.Auth) // the fake echoes the key that it refused
}

func TestRetryAfter(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	for name, test := range map[string]struct {
		failure llm.Failure
		want    time.Duration
	}{
		"seconds":      {llm.RateLimited(7), 7 * time.Second},
		"HTTP date":    {llm.RateLimitedUntil(now.Add(90 * time.Second)), 90 * time.Second},
		"a past date":  {llm.RateLimitedUntil(now.Add(-time.Hour)), 0},
		"fraction":     {header(429, "Retry-After", "1.5"), 1500 * time.Millisecond},
		"milliseconds": {header(429, "Retry-After-Ms", "250"), 250 * time.Millisecond},
		"reset only":   {header(429, "X-Ratelimit-Remaining-Tokens", "0", "X-Ratelimit-Reset-Tokens", "6m0s"), 6 * time.Minute},
		"epoch":        {header(429, "X-Ratelimit-Remaining", "0", "X-Ratelimit-Reset", fmt.Sprint(now.Add(time.Minute).UnixMilli())), time.Minute},
		"garbage":      {header(429, "Retry-After", "soon"), 0},
		"negative":     {header(429, "Retry-After", "-5"), 0},
		"not a number": {header(429, "Retry-After", "NaN"), 0},
		"absurd":       {header(429, "Retry-After", "1e300"), 7 * 24 * time.Hour},
		"none":         {llm.Fail(429), 0},
		"of a 503":     {header(503, "Retry-After", "3"), 3 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			b := setUp(t, llm.Always(test.failure.Reply()), nil)
			_, err := b.client.Complete(t.Context(), ask("x"), nil)
			kind := model.RateLimited
			if test.failure.Status == 503 {
				kind = model.Unavailable
			}
			if e := failure(t, err, kind); e.RetryAfter != test.want {
				t.Errorf("RetryAfter %v, want %v", e.RetryAfter, test.want)
			}
		})
	}
}

func header(status int, kv ...string) llm.Failure {
	f := llm.Failure{Status: status, Header: map[string]string{}}
	for i := 0; i < len(kv); i += 2 {
		f.Header[kv[i]] = kv[i+1]
	}
	return f
}

// TestFaults holds each misbehaviour against what must come of it.
func TestFaults(t *testing.T) {
	short := func(c *openai.Config) { c.Limits.Idle, c.Limits.FirstByte = 200*time.Millisecond, 200*time.Millisecond }
	patient := func(c *openai.Config) { c.Limits.Idle = time.Second } // less than the whole drip takes
	small := func(c *openai.Config) { c.Limits.AnswerBytes, c.Limits.StreamBytes = 100<<10, 1<<20 }
	brief := func(c *openai.Config) { c.Limits.Call = 300 * time.Millisecond }
	long := strings.Repeat("word ", 40)
	for name, test := range map[string]struct {
		reply  llm.Reply
		change func(*openai.Config)
		stream model.Kind // "" means an answer
		whole  model.Kind
	}{
		"empty choices":      {llm.Reply{Text: long, Fault: llm.EmptyChoices}, nil, model.Empty, model.Empty},
		"empty content":      {llm.Reply{Text: long, Fault: llm.EmptyContent}, nil, model.Empty, model.Empty},
		"spaces only":        {llm.Reply{Text: " \n "}, nil, model.Empty, model.Empty},
		"all filtered":       {llm.Reply{Finish: "content_filter"}, nil, model.Empty, model.Empty},
		"only reasoning":     {llm.Reply{Reasoning: "hmm", Finish: "length"}, nil, model.Empty, model.Empty},
		"upstream failed":    {llm.Reply{Text: long, Finish: "error"}, nil, model.Unavailable, model.Unavailable},
		"cut in an event":    {llm.Reply{Text: long, Fault: llm.CutMidChunk}, nil, model.Malformed, model.Malformed},
		"no end":             {llm.Reply{Text: long, Fault: llm.NoEnd}, nil, model.Malformed, model.Malformed},
		"no [DONE]":          {llm.Reply{Text: long, Fault: llm.NoDone}, nil, "", ""},
		"open after the end": {llm.Reply{Text: long, Fault: llm.OpenAfterEnd}, nil, "", ""},
		"bad event":          {llm.Reply{Text: long, Fault: llm.BadChunk}, nil, model.Malformed, model.Malformed},
		"error event":        {llm.Reply{Text: long, Fault: llm.ErrorChunk}, nil, model.Unavailable, model.Unavailable},
		"web page":           {llm.Reply{Text: long, Fault: llm.WebPage}, nil, model.Malformed, model.Malformed},
		"JSON, no stream":    {llm.Reply{Text: long, Fault: llm.PlainJSON}, nil, "", ""},
		"endless":            {llm.Reply{Fault: llm.Endless}, small, model.TooLong, model.TooLong},
		"50 MB":              {llm.Reply{Fault: llm.Huge}, nil, model.TooLong, model.TooLong},
		"50 MB in one event": {llm.Reply{Fault: llm.HugeLine}, nil, model.TooLong, model.TooLong},
		"never answers":      {llm.Reply{Fault: llm.Never}, short, model.Timeout, ""},
		"never ends":         {llm.Reply{Fault: llm.Never}, brief, model.Timeout, model.Timeout},
		"stalls":             {llm.Reply{Text: long, Fault: llm.Stall}, short, model.Timeout, ""},
		"only comments":      {llm.Reply{Fault: llm.EndlessKeepalives}, brief, model.Timeout, ""},
		"keepalives, CRLF":   {llm.Reply{Text: long, Keepalive: true, CRLF: true}, nil, "", ""},
		"slow drip":          {llm.Reply{Text: long, Drip: 40 * time.Millisecond}, patient, "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := setUp(t, llm.Always(test.reply), test.change)
			onDelta, seen := collect()
			answer, err := b.client.Complete(t.Context(), ask("x"), onDelta)
			check(t, answer, err, test.stream, long)
			if err == nil && joined(*seen) != long {
				t.Errorf("streamed %q", joined(*seen))
			}
			if test.whole == "" && test.stream != "" {
				return // the fault is one of streams
			}
			answer, err = b.client.Complete(t.Context(), ask("x"), nil)
			check(t, answer, err, test.whole, long)
		})
	}
}

func check(t *testing.T, answer *model.Answer, err error, kind model.Kind, text string) {
	t.Helper()
	if kind != "" {
		failure(t, err, kind)
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	if answer.Text != text || answer.Finish != model.FinishStop {
		t.Errorf("got %+v", answer)
	}
}

func TestToolCalls(t *testing.T) {
	calls := []llm.ToolCall{
		{ID: "call_a", Name: "terminal", Arguments: `{"command":"ls -la /tmp","timeout":5}`},
		{ID: "call_b", Name: "read_file", Arguments: `{"path":"héllo/wörld.txt"}`},
	}
	for name, test := range map[string]struct {
		fault llm.Fault
		calls []llm.ToolCall
	}{
		"as documented":     {llm.NoFault, calls},
		"duplicate indexes": {llm.DuplicateIndexes, calls},
		"no indexes":        {llm.NoIndexes, calls},
		"no ids":            {llm.NoCallIDs, calls},
		"garbage arguments": {llm.NoFault, []llm.ToolCall{{ID: "call_a", Name: "terminal", Arguments: `{"command": "ls`}}},
		"no arguments":      {llm.NoFault, []llm.ToolCall{{ID: "call_a", Name: "terminal"}}},
		"unknown tool":      {llm.NoFault, []llm.ToolCall{{ID: "call_a", Name: "nuke_from_orbit", Arguments: `{}`}}},
		"same id twice":     {llm.NoFault, []llm.ToolCall{{ID: "x", Name: "a", Arguments: "{}"}, {ID: "x", Name: "b", Arguments: "{}"}}},
	} {
		t.Run(name, func(t *testing.T) {
			b := setUp(t, llm.Always(llm.Reply{ToolCalls: test.calls, Fault: test.fault}), nil)
			modes(t, func(t *testing.T, onDelta func(model.Delta)) {
				got, err := b.client.Complete(t.Context(), ask("x"), onDelta)
				if err != nil {
					t.Fatal(err)
				}
				if got.Finish != model.FinishTools || len(got.ToolCalls) != len(test.calls) {
					t.Fatalf("got %+v", got)
				}
				ids := map[string]bool{}
				for i, c := range got.ToolCalls {
					if c.Name != test.calls[i].Name || c.Arguments != test.calls[i].Arguments {
						t.Errorf("call %d: %+v", i, c)
					}
					if c.ID == "" || ids[c.ID] {
						t.Errorf("call %d has the id %q", i, c.ID)
					}
					ids[c.ID] = true
				}
			})
		})
	}
	t.Run("without a name", func(t *testing.T) {
		b := setUp(t, llm.Always(llm.Reply{ToolCalls: []llm.ToolCall{{ID: "a", Arguments: "{}"}}}), nil)
		_, err := b.client.Complete(t.Context(), ask("x"), func(model.Delta) {})
		failure(t, err, model.Malformed)
	})
	t.Run("50 MB of arguments", func(t *testing.T) {
		b := setUp(t, llm.Always(llm.Reply{ToolCalls: calls[:1], Fault: llm.HugeArguments}), nil)
		_, err := b.client.Complete(t.Context(), ask("x"), func(model.Delta) {})
		failure(t, err, model.TooLong)
	})
	t.Run("a thousand calls", func(t *testing.T) {
		var many []llm.ToolCall
		for i := range 1000 {
			many = append(many, llm.ToolCall{ID: fmt.Sprint("call_", i), Name: "terminal", Arguments: "{}"})
		}
		b := setUp(t, llm.Always(llm.Reply{ToolCalls: many}), nil)
		_, err := b.client.Complete(t.Context(), ask("x"), func(model.Delta) {})
		failure(t, err, model.TooLong)
	})
	t.Run("cut by the token limit", func(t *testing.T) {
		b := setUp(t, llm.Always(llm.Reply{ToolCalls: calls[:1], Finish: "length"}), nil)
		got, err := b.client.Complete(t.Context(), ask("x"), nil)
		if err != nil || got.Finish != model.FinishLength {
			t.Errorf("got %+v, %v", got, err)
		}
	})
}

func TestNetwork(t *testing.T) {
	b := setUp(t, llm.Echo, nil)
	b.server.Close()
	_, err := b.client.Complete(t.Context(), ask("x"), nil)
	if e := failure(t, err, model.Unavailable); !strings.Contains(e.Message, "nothing listens") {
		t.Errorf("message %q", e.Message)
	}
}

func TestCancel(t *testing.T) {
	gate := llm.NewGate()
	b := setUp(t, llm.Always(llm.Reply{Text: "x", Before: gate.Pass}), nil)
	modes(t, func(t *testing.T, onDelta func(model.Delta)) {
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() {
			_, err := b.client.Complete(ctx, ask("x"), onDelta)
			done <- err
		}()
		<-gate.Arrived()
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
	})
	t.Run("in the middle of a stream", func(t *testing.T) {
		b := setUp(t, llm.Always(llm.Reply{Text: "one two three four", Fault: llm.Stall}), nil)
		ctx, cancel := context.WithCancel(t.Context())
		_, err := b.client.Complete(ctx, ask("x"), func(model.Delta) { cancel() })
		if !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
	})
	t.Run("deadline of the caller", func(t *testing.T) {
		b := setUp(t, llm.Always(llm.Reply{Fault: llm.Never}), nil)
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		_, err := b.client.Complete(ctx, ask("x"), nil)
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
	})
}

// TestConnectionsAreReused counts connections over many calls, failed ones too.
func TestConnectionsAreReused(t *testing.T) {
	b := setUp(t, llm.Echo, nil)
	addresses := map[string]bool{}
	for i := range 20 {
		var onDelta func(model.Delta)
		if i%2 == 0 {
			onDelta = func(model.Delta) {}
		}
		b.server.SetBrain(func(r llm.Request) llm.Reply {
			if i%5 == 4 {
				return llm.Fail(500).Reply()
			}
			return llm.Echo(r)
		})
		_, _ = b.client.Complete(t.Context(), ask("hello there"), onDelta)
	}
	for _, r := range b.server.Requests() {
		addresses[r.RemoteAddr] = true
	}
	if len(addresses) != 1 {
		t.Errorf("20 calls in a row used %d connections", len(addresses))
	}
}
