package conversation

import (
	"context"
	"encoding/json"
	"log/slog"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"hermes/internal/access"
	"hermes/internal/agent"
	"hermes/internal/delivery"
	"hermes/internal/domain"
	"hermes/internal/health"
	"hermes/internal/home"
	"hermes/internal/ledger/sqlite"
	"hermes/internal/model/openai"
	"hermes/internal/platform"
	"hermes/internal/platform/telegram"
	"hermes/internal/secret"
	"hermes/internal/tool"
	"hermes/testkit/llm"
	fake "hermes/testkit/telegram"
)

// world is lanes between the real adapter, ledger, dispatcher and agent, with
// the fakes of Telegram and the model at the wire.
type world struct {
	*Lanes
	t     *testing.T
	tg    *fake.Server
	llm   *llm.Server
	store *sqlite.Store
	disk  *failingStore
	out   *delivery.Dispatcher
	cfg   *home.Config
	stop  func()

	mu   sync.Mutex
	runs map[string]int
	// hold, where not nil, keeps the tool "slow" from ending.
	hold chan struct{}
}

// config is a configuration with what the tests rely on.
func config() *home.Config {
	return &home.Config{
		Model:    home.ModelConfig{Model: "m", Provider: "custom"},
		Agent:    home.AgentConfig{MaxSteps: 20, MaxConcurrent: 8, QuestionTTL: time.Hour},
		Terminal: home.TerminalConfig{Cwd: "/"},
		Timezone: time.UTC,
		Session:  home.SessionConfig{PerUser: true, ResetMode: "none"},
		Display:  home.DisplayConfig{BusyMode: BusyQueue, BusyAck: true},
		Approvals: home.ApprovalsConfig{
			Timeout: time.Hour,
		},
		Platforms: map[domain.Platform]home.PlatformConfig{telegram.Name: {Enabled: true, AllowAll: true}},
	}
}

func setUp(t *testing.T, brain llm.Brain, edit func(*home.Config)) *world {
	t.Helper()
	w := &world{t: t, runs: map[string]int{}, cfg: config()}
	if edit != nil {
		edit(w.cfg)
	}
	var err error
	if w.tg, err = fake.New(fake.Options{}); err != nil {
		t.Fatal(err)
	}
	if w.llm, err = llm.Start(brain); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	w.start(dir)
	t.Cleanup(func() {
		w.stop()
		w.tg.Close()
		w.llm.Close()
	})
	return w
}

// start brings everything up over the ledger in dir; stop takes it down.
func (w *world) start(dir string) {
	t := w.t
	log := slog.New(slog.NewTextHandler(t.Output(), nil))
	ctx := context.Background()
	store, err := sqlite.Open(ctx, sqlite.Options{Path: filepath.Join(dir, "ledger.db"), NoBallast: true})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := store.Recover(ctx, time.Now()); err != nil {
		t.Fatal(err)
	}
	w.store, w.disk = store, &failingStore{Store: store}
	reg := health.New(time.Now)
	provider, err := openai.New(openai.Config{Name: "fake", BaseURL: w.llm.URL(), Model: "m"}, openai.Deps{})
	if err != nil {
		t.Fatal(err)
	}
	w.out = delivery.New(delivery.Options{Store: store, Now: time.Now, Log: log, Health: reg, Unlimited: true})
	adapter, err := telegram.New(telegram.Config{Token: secret.Value(w.tg.Token()), BaseURL: w.tg.URL(), PollTimeout: time.Second},
		platform.Deps{Log: log, Health: reg.Part("platform.telegram")})
	if err != nil {
		t.Fatal(err)
	}
	p := home.Profile{Name: "default", Root: dir, Home: dir}
	w.Lanes = New(Options{
		Store: w.disk, Agent: agent.New(provider, log, time.Now), Outbox: w.out, Profile: p, Config: w.cfg, Health: reg, Log: log, Now: time.Now,
		Gate:  access.New(store, p, w.cfg, log, time.Now),
		Tools: func(domain.TurnKind, domain.Platform, []string) *agent.Toolset { return agent.NewToolset(w.tools()) },
	})
	w.out.Attach(adapter)
	w.Attach(adapter)
	if err := w.out.Start(ctx); err != nil {
		t.Fatal(err)
	}
	if err := w.Start(ctx); err != nil {
		t.Fatal(err)
	}
	rctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := adapter.Run(rctx, w.Sink(telegram.Name)); err != nil {
			t.Errorf("the adapter ended: %v", err)
		}
	}()
	w.stop = sync.OnceFunc(func() {
		cancel()
		<-done
		sctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		_ = w.Stop(sctx)
		_ = w.out.Stop(sctx)
		_ = store.Close()
	})
}

// tools: "note" has an effect that is counted, "slow" waits for hold, "danger"
// needs approval, "which" asks the user.
func (w *world) tools() []tool.Tool {
	mk := func(name string, run func(context.Context, tool.Env) (tool.Result, error)) tool.Tool {
		return tool.Tool{Name: name, Description: name, Schema: json.RawMessage(`{"type":"object"}`),
			Run: func(ctx context.Context, e tool.Env, _ json.RawMessage) (tool.Result, error) {
				w.mu.Lock()
				w.runs[name]++
				w.mu.Unlock()
				return run(ctx, e)
			}}
	}
	danger := mk("danger", func(context.Context, tool.Env) (tool.Result, error) { return tool.Result{Content: "done it"}, nil })
	danger.Guard = func(_ context.Context, e tool.Env, _ json.RawMessage) (tool.Decision, error) {
		if e.Granted("rm -r") {
			return tool.Decision{}, nil
		}
		return tool.Decision{Action: tool.Ask, Question: domain.Question{Kind: domain.AskApproval, Text: "This deletes things", Detail: "rm -r x", Key: "rm -r"}}, nil
	}
	which := mk("which", func(_ context.Context, e tool.Env) (tool.Result, error) {
		return tool.Result{Content: "they said " + e.Answer}, nil
	})
	which.Guard = func(_ context.Context, e tool.Env, _ json.RawMessage) (tool.Decision, error) {
		return tool.Decision{Action: tool.Ask, Question: domain.Question{Kind: domain.AskClarify, Text: "Which one?", Choices: []string{"red", "blue"}}}, nil
	}
	return []tool.Tool{
		mk("note", func(context.Context, tool.Env) (tool.Result, error) { return tool.Result{Content: "noted"}, nil }),
		mk("slow", func(ctx context.Context, _ tool.Env) (tool.Result, error) {
			select {
			case <-w.hold:
				return tool.Result{Content: "at last"}, nil
			case <-ctx.Done():
				return tool.Result{}, ctx.Err()
			}
		}),
		danger, which,
		mk("boom", func(context.Context, tool.Env) (tool.Result, error) { panic("boom") }),
	}
}

func (w *world) ran(name string) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.runs[name]
}

// sees waits until the chat shows a message of the bot that holds the text.
func (w *world) sees(chat int64, text string) fake.Message {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	m, err := w.tg.WaitFor(ctx, chat, func(m fake.Message) bool { return m.FromBot && strings.Contains(m.Text, text) })
	if err != nil {
		w.t.Fatalf("the chat never showed %q: %v\n%s", text, err, w.tg.Transcript(chat))
	}
	return m
}

// shown counts the bot's messages that hold the text.
func (w *world) shown(chat int64, text string) (n int) {
	for _, m := range w.tg.Messages(chat) {
		if m.FromBot && strings.Contains(m.Text, text) {
			n++
		}
	}
	return n
}

// said is the last message of the user in a request.
func said(r llm.Request) string {
	for i := len(r.Messages) - 1; i >= 0; i-- {
		if r.Messages[i].Role == "user" {
			return r.Messages[i].Text()
		}
	}
	return ""
}

// obey is a model that calls the tool that the user names ("use slow"), and
// answers with what it said; otherwise it repeats the user.
func obey(r llm.Request) llm.Reply {
	last := r.Messages[len(r.Messages)-1]
	if last.Role == "tool" {
		return llm.Reply{Text: "result: " + last.Text()}
	}
	if name, ok := strings.CutPrefix(said(r), "use "); ok {
		return llm.Reply{ToolCalls: []llm.ToolCall{{Name: name, Arguments: "{}"}}}
	}
	return llm.Reply{Text: "you said: " + said(r)}
}
