package agent

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"hermes/internal/domain"
	"hermes/internal/model"
	"hermes/internal/model/openai"
	"hermes/internal/tool"
	"hermes/testkit/llm"
)

// world is an agent against the fake model, with tools that keep count.
type world struct {
	*Agent
	llm  *llm.Server
	mu   sync.Mutex
	runs map[string]int
	// journal is what would be in the ledger.
	journal []domain.Step
	events  []domain.TurnEvent
}

func setUp(t *testing.T, brain llm.Brain) *world {
	t.Helper()
	srv, err := llm.Start(brain)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(srv.Close)
	c, err := openai.New(openai.Config{Name: "fake", BaseURL: srv.URL(), Model: "m"}, openai.Deps{})
	if err != nil {
		t.Fatal(err)
	}
	return &world{Agent: New(c, slog.New(slog.DiscardHandler), time.Now), llm: srv, runs: map[string]int{}}
}

func (w *world) ran(name string) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.runs[name]
}

// tools: "look" only reads, "act" has an effect, "ask" needs approval, "boom" panics.
func (w *world) tools() []tool.Tool {
	counted := func(name string, readOnly bool, run func(context.Context, tool.Env, json.RawMessage) (tool.Result, error)) tool.Tool {
		return tool.Tool{Name: name, ReadOnly: readOnly, Description: name, Schema: json.RawMessage(`{"type":"object"}`),
			Run: func(ctx context.Context, e tool.Env, a json.RawMessage) (tool.Result, error) {
				w.mu.Lock()
				w.runs[name]++
				w.mu.Unlock()
				return run(ctx, e, a)
			}}
	}
	say := func(text string) func(context.Context, tool.Env, json.RawMessage) (tool.Result, error) {
		return func(context.Context, tool.Env, json.RawMessage) (tool.Result, error) {
			return tool.Result{Content: text}, nil
		}
	}
	ask := counted("ask", false, func(_ context.Context, e tool.Env, _ json.RawMessage) (tool.Result, error) {
		return tool.Result{Content: "did it, answer " + e.Answer}, nil
	})
	ask.Guard = func(_ context.Context, e tool.Env, _ json.RawMessage) (tool.Decision, error) {
		if e.Granted != nil && e.Granted("k") {
			return tool.Decision{}, nil
		}
		return tool.Decision{Action: tool.Ask, Question: domain.Question{Kind: domain.AskApproval, Text: "May I?", Key: "k"}}, nil
	}
	refuse := counted("refuse", false, say("no"))
	refuse.Guard = func(context.Context, tool.Env, json.RawMessage) (tool.Decision, error) {
		return tool.Decision{Action: tool.Refuse, Reason: "never"}, nil
	}
	return []tool.Tool{
		counted("look", true, say("seen")), counted("act", false, say("done")), ask, refuse,
		counted("boom", false, func(context.Context, tool.Env, json.RawMessage) (tool.Result, error) { panic("boom") }),
		counted("fail", false, func(context.Context, tool.Env, json.RawMessage) (tool.Result, error) {
			return tool.Result{}, domain.E(domain.NotFound, nil, "no such thing")
		}),
		counted("hang", false, func(ctx context.Context, _ tool.Env, _ json.RawMessage) (tool.Result, error) {
			<-ctx.Done()
			return tool.Result{}, ctx.Err()
		}),
		counted("big", true, say(strings.Repeat("é", 40_000))),
	}
}

// turn is a turn whose journal goes to w.
func (w *world) turn(text string) *Turn {
	return &Turn{ID: 7, Input: []domain.Message{{Role: domain.RoleUser, Content: text}}, Tools: NewToolset(w.tools()), CanAsk: true,
		Env:     tool.Env{SessionKey: "k", SessionID: "s"},
		Observe: func(e domain.TurnEvent) { w.events = append(w.events, e) },
		Journal: func(_ context.Context, s domain.Step) error { w.journal = append(w.journal, s); return nil }}
}

func (w *world) kinds() string {
	var out []string
	for _, s := range w.journal {
		out = append(out, string(s.Kind))
	}
	return strings.Join(out, " ")
}

// called makes a reply that calls tools.
func called(names ...string) llm.Reply {
	var r llm.Reply
	for _, n := range names {
		name, args, _ := strings.Cut(n, " ")
		if args == "" {
			args = "{}"
		}
		r.ToolCalls = append(r.ToolCalls, llm.ToolCall{Name: name, Arguments: args})
	}
	return r
}

func lastTool(ms []domain.Message) string {
	for i := len(ms) - 1; i >= 0; i-- {
		if ms[i].Role == domain.RoleTool {
			return ms[i].Content
		}
	}
	return ""
}

func TestAnswerWithoutTools(t *testing.T) {
	w := setUp(t, llm.Say("hello there"))
	out := w.Run(t.Context(), w.turn("hi"))
	if out.State != domain.TurnDone || out.Text != "hello there" || len(out.Messages) != 2 || out.Usage.Calls != 1 {
		t.Fatalf("%+v", out)
	}
	if len(w.journal) != 0 {
		t.Errorf("an answer without tools needs no journal: %s", w.kinds())
	}
	var said strings.Builder
	for _, e := range w.events {
		if e.Kind == domain.EventDelta {
			said.WriteString(e.Text)
		}
	}
	if said.String() != "hello there" || w.events[0].Kind != domain.EventStarted || w.events[len(w.events)-1].Kind != domain.EventEnded {
		t.Errorf("events %+v", w.events)
	}
}

func TestEveryStepIsJournaledBeforeItsConsequence(t *testing.T) {
	w := setUp(t, llm.Script(called("look", "act"), llm.Reply{Text: "all done"}))
	out := w.Run(t.Context(), w.turn("go"))
	if out.State != domain.TurnDone || out.Text != "all done" {
		t.Fatalf("%+v", out)
	}
	if want := "answer tool_started tool_finished tool_started tool_finished"; w.kinds() != want {
		t.Errorf("journal %q, want %q", w.kinds(), want)
	}
	if w.ran("look") != 1 || w.ran("act") != 1 {
		t.Errorf("runs %v", w.runs)
	}
	if len(out.Messages) != 5 || out.Usage.Calls != 2 {
		t.Errorf("messages %d, usage %+v", len(out.Messages), out.Usage)
	}
}

// What a model gets wrong is told to the model, and never ends the turn.
func TestBadCallsAreToldToTheModel(t *testing.T) {
	for name, c := range map[string]struct{ call, want string }{
		"malformed": {`act {"a":`, "not valid JSON"},
		"unknown":   {"fly", `no tool "fly"`},
		"panic":     {"boom", "crashed"},
		"error":     {"fail", "no such thing"},
		"refused":   {"refuse", "never"},
	} {
		t.Run(name, func(t *testing.T) {
			w := setUp(t, llm.Script(called(c.call), llm.Reply{Text: "I see"}))
			out := w.Run(t.Context(), w.turn("go"))
			if out.State != domain.TurnDone || !strings.Contains(lastTool(out.Messages), c.want) {
				t.Errorf("%s: %q", out.State, lastTool(out.Messages))
			}
			if w.ran("act")+w.ran("refuse") > 0 {
				t.Errorf("it ran: %v", w.runs)
			}
		})
	}
}

func TestApproval(t *testing.T) {
	for answer, want := range map[string]string{
		domain.ApproveOnce: "did it, answer once", domain.ApproveDeny: "the user refused it", domain.AnswerExpired: "nobody approved it in time",
	} {
		t.Run(answer, func(t *testing.T) {
			w := setUp(t, llm.Script(called("act", "ask", "look"), llm.Reply{Text: "ok"}))
			out := w.Run(t.Context(), w.turn("go"))
			if out.State != domain.TurnWaiting || out.Question == nil || out.Question.TurnID != 7 || w.ran("ask") != 0 || w.ran("look") != 0 {
				t.Fatalf("%+v %v", out, w.runs)
			}
			q := *out.Question
			q.Answer = answer
			next := w.turn("go")
			next.Steps, next.Answers = w.journal, []domain.Question{q}
			out = w.Run(t.Context(), next)
			if out.State != domain.TurnDone || w.ran("act") != 1 || w.ran("look") != 1 {
				t.Fatalf("%+v %v", out, w.runs)
			}
			var told string
			for _, m := range out.Messages {
				if m.ToolName == "ask" {
					told = m.Content
				}
			}
			if !strings.Contains(told, want) {
				t.Errorf("the model was told %q", told)
			}
			if (w.ran("ask") == 1) != (answer == domain.ApproveOnce) {
				t.Errorf("ran %v", w.runs)
			}
		})
	}
}

func TestNobodyToAsk(t *testing.T) {
	w := setUp(t, llm.Script(called("ask"), llm.Reply{Text: "I could not"}))
	turn := w.turn("go")
	turn.CanAsk, turn.DenyWith = false, "This is a scheduled job."
	out := w.Run(t.Context(), turn)
	if out.State != domain.TurnDone || w.ran("ask") != 0 || !strings.Contains(lastTool(out.Messages), "scheduled job") {
		t.Errorf("%+v", out)
	}
}

// The rows of the crash table that are the agent's: what the journal says
// decides what happens after a restart.
func TestRecovery(t *testing.T) {
	answer := domain.Step{Kind: domain.StepAnswer, Usage: domain.Usage{Calls: 1, InputTokens: 10},
		Message: domain.Message{Role: domain.RoleAssistant, ToolCalls: []domain.ToolCall{{ID: "c1", Name: "act", Arguments: "{}"}, {ID: "c2", Name: "look", Arguments: "{}"}}}}
	started := func(id string) domain.Step { return domain.Step{Kind: domain.StepToolStarted, CallID: id} }
	finished := func(id, name string) domain.Step {
		return domain.Step{Kind: domain.StepToolFinished, CallID: id, Message: domain.Message{Role: domain.RoleTool, ToolCallID: id, ToolName: name, Content: "earlier"}}
	}
	for name, c := range map[string]struct {
		steps     []domain.Step
		act, look int
		told      string
		unknown   bool
	}{
		"in the model call":                  {nil, 0, 0, "", false},
		"answer journaled, no tool started":  {[]domain.Step{answer}, 1, 1, "", false},
		"a tool with an effect was started":  {[]domain.Step{answer, started("c1")}, 0, 1, "", true},
		"that tool had finished":             {[]domain.Step{answer, started("c1"), finished("c1", "act")}, 0, 1, "", false},
		"a tool that only reads was started": {[]domain.Step{answer, started("c1"), finished("c1", "act"), started("c2")}, 0, 1, "", false},
		"all tools had finished":             {[]domain.Step{answer, started("c1"), finished("c1", "act"), started("c2"), finished("c2", "look")}, 0, 0, "", false},
		"steered text had joined after them": {[]domain.Step{answer, started("c1"), finished("c1", "act"), finished("c2", "look"), {Kind: domain.StepInput, Message: domain.Message{Role: domain.RoleUser, Content: "and hurry"}}}, 0, 0, "", false},
	} {
		t.Run(name, func(t *testing.T) {
			w := setUp(t, llm.Say("finished"))
			turn := w.turn("go")
			turn.Steps = c.steps
			out := w.Run(t.Context(), turn)
			if out.State != domain.TurnDone || out.Text != "finished" {
				t.Fatalf("%+v", out)
			}
			if w.ran("act") != c.act || w.ran("look") != c.look {
				t.Errorf("runs %v, want act %d look %d", w.runs, c.act, c.look)
			}
			var text strings.Builder
			for _, m := range out.Messages {
				text.WriteString(m.Content + "\n")
			}
			if got := strings.Contains(text.String(), "outcome is unknown"); got != c.unknown {
				t.Errorf("told that the outcome is unknown: %v\n%s", got, text.String())
			}
			if len(c.steps) > 0 && out.Usage.Calls != 2 {
				t.Errorf("the calls before the crash count: %+v", out.Usage)
			}
			checkTranscript(t, out.Messages)
		})
	}
}

// checkTranscript holds a transcript to what providers accept: every call has
// its result, right behind it.
func checkTranscript(t *testing.T, ms []domain.Message) {
	t.Helper()
	for i, m := range ms {
		for k, c := range m.ToolCalls {
			at := i + 1 + k
			if at >= len(ms) || ms[at].ToolCallID != c.ID {
				t.Errorf("call %s of message %d has no result behind it: %+v", c.ID, i, ms)
			}
		}
	}
}

func TestStopLeavesAWholeTranscript(t *testing.T) {
	w := setUp(t, llm.Script(called("hang", "act"), llm.Reply{Text: "never"}))
	ctx, cancel := context.WithCancelCause(t.Context())
	turn := w.turn("go")
	turn.Observe = func(e domain.TurnEvent) {
		if e.Kind == domain.EventToolStarted {
			cancel(ErrStopped)
		}
	}
	out := w.Run(ctx, turn)
	if out.State != domain.TurnInterrupted || w.ran("act") != 0 {
		t.Fatalf("%+v %v", out, w.runs)
	}
	checkTranscript(t, out.Messages)
}

func TestReleaseKeepsTheTurnRunning(t *testing.T) {
	w := setUp(t, llm.Always(llm.Reply{Fault: llm.Never}))
	ctx, cancel := context.WithCancelCause(t.Context())
	go func() {
		_ = w.llm.Wait(ctx, 1)
		cancel(ErrReleased)
	}()
	if out := w.Run(ctx, w.turn("go")); out.State != domain.TurnRunning {
		t.Errorf("%+v", out)
	}
}

func TestNoActivityEndsTheTurn(t *testing.T) {
	w := setUp(t, llm.Always(llm.Reply{Fault: llm.Never}))
	turn := w.turn("go")
	turn.Limits.Idle = 50 * time.Millisecond
	out := w.Run(t.Context(), turn)
	if out.State != domain.TurnFailed || !domain.IsCode(out.Err, domain.Timeout) {
		t.Errorf("%+v", out)
	}
}

func TestFencedTurnSaysNothing(t *testing.T) {
	w := setUp(t, llm.Script(called("act")))
	turn := w.turn("go")
	turn.Journal = func(context.Context, domain.Step) error { return domain.E(domain.Fenced, nil, "taken over") }
	out := w.Run(t.Context(), turn)
	if !domain.IsCode(out.Err, domain.Fenced) || len(out.Messages) != 0 || w.ran("act") != 0 {
		t.Errorf("%+v %v", out, w.runs)
	}
}

func TestStepLimitAsksForAnAnswer(t *testing.T) {
	n := 0
	w := setUp(t, func(r llm.Request) llm.Reply {
		if len(r.Tools) == 0 {
			return llm.Reply{Text: "this is how far I came"}
		}
		n++
		return called(`look {"n":` + strings.Repeat("1", n) + `}`)
	})
	turn := w.turn("go")
	turn.Limits.Steps = 3
	out := w.Run(t.Context(), turn)
	if out.State != domain.TurnDone || out.Text != "this is how far I came" || w.ran("look") != 3 {
		t.Errorf("%+v %v", out, w.runs)
	}
}

func TestTheSameCallAgainAndAgainIsStopped(t *testing.T) {
	w := setUp(t, llm.Always(called("act")))
	turn := w.turn("go")
	turn.Limits.Steps = 10
	w.Run(t.Context(), turn)
	if n := w.ran("act"); n != sameCallLimit {
		t.Errorf("ran %d times", n)
	}
}

func TestOversizedResultGoesToAFile(t *testing.T) {
	w := setUp(t, llm.Script(called("big"), llm.Reply{Text: "ok"}))
	turn := w.turn("go")
	turn.Env.CacheDir = t.TempDir()
	turn.Limits.ResultBytes = 1001
	out := w.Run(t.Context(), turn)
	got := lastTool(out.Messages)
	if len(got) > 1400 || !strings.HasPrefix(got, "ééé") || !strings.HasSuffix(got, "ééé") {
		t.Errorf("result of %d bytes", len(got))
	}
	files, _ := filepath.Glob(filepath.Join(turn.Env.CacheDir, "results", "*"))
	if len(files) != 1 || !strings.Contains(got, files[0]) {
		t.Fatalf("files %v", files)
	}
	if all, err := os.ReadFile(files[0]); err != nil || len(all) != 80_000 {
		t.Errorf("%d bytes, %v", len(all), err)
	}
}

// What a tool says of the gateway's own keys reaches neither model nor transcript.
func TestSecretsInResultsAreTakenOut(t *testing.T) {
	var told string
	w := setUp(t, func(r llm.Request) llm.Reply {
		if last := r.Messages[len(r.Messages)-1]; last.Role == "tool" {
			told = last.Text()
			return llm.Reply{Text: "ok"}
		}
		return called("look")
	})
	turn := w.turn("go")
	turn.Redact = func(s string) string { return strings.ReplaceAll(s, "seen", "<secret>") }
	out := w.Run(t.Context(), turn)
	if told != "<secret>" || lastTool(out.Messages) != "<secret>" {
		t.Errorf("the model was told %q, the transcript %q", told, lastTool(out.Messages))
	}
}

func history(n int) []domain.Message {
	var h []domain.Message
	for i := range n {
		role := domain.RoleUser
		if i%2 == 1 {
			role = domain.RoleAssistant
		}
		h = append(h, domain.Message{ID: int64(i + 1), Role: role, Content: strings.Repeat("word ", 200)})
	}
	return h
}

func TestHistoryIsCompressedBeforeItIsTooLong(t *testing.T) {
	var asked llm.Request
	w := setUp(t, func(r llm.Request) llm.Reply {
		if strings.Contains(r.Messages[len(r.Messages)-1].Text(), "Summarise this conversation") {
			return llm.Reply{Text: "they spoke of words"}
		}
		asked = r
		return llm.Reply{Text: "ok"}
	})
	turn := w.turn("go")
	turn.History = history(60)
	turn.Limits.ContextTokens, turn.Limits.CompressAt = 10_000, 0.5
	var upTo int64
	turn.Compact = func(_ context.Context, id int64, s domain.Message) error {
		upTo = id
		if !strings.Contains(s.Content, "they spoke of words") {
			t.Errorf("summary %q", s.Content)
		}
		return nil
	}
	out := w.Run(t.Context(), turn)
	if out.State != domain.TurnDone || upTo != 40 {
		t.Fatalf("%+v, up to %d", out, upTo)
	}
	if n := len(asked.Messages); n > 25 {
		t.Errorf("%d messages were sent", n)
	}
	if out.Usage.Calls != 2 {
		t.Errorf("the summary counts: %+v", out.Usage)
	}
}

func TestTooLargeIsSqueezedOnce(t *testing.T) {
	calls := 0
	w := setUp(t, func(r llm.Request) llm.Reply {
		if strings.Contains(r.Messages[len(r.Messages)-1].Text(), "Summarise this conversation") {
			return llm.Reply{Text: "short"}
		}
		if calls++; calls == 1 {
			f := llm.Fail(400)
			f.Code, f.Message = "context_length_exceeded", "This model's maximum context length is 8192 tokens."
			return f.Reply()
		}
		return llm.Reply{Text: "fits now"}
	})
	turn := w.turn("go")
	turn.History = history(30)
	turn.Compact = func(context.Context, int64, domain.Message) error { return nil }
	if out := w.Run(t.Context(), turn); out.State != domain.TurnDone || out.Text != "fits now" {
		t.Errorf("%+v", out)
	}
}

func TestSteeredTextJoinsAtTheNextStep(t *testing.T) {
	var last string
	w := setUp(t, func(r llm.Request) llm.Reply {
		last = r.Messages[len(r.Messages)-1].Text()
		if len(r.Messages) < 3 {
			return called("look")
		}
		return llm.Reply{Text: "ok"}
	})
	turn := w.turn("go")
	joined := false
	turn.Join = func(context.Context) ([]domain.Message, error) {
		if w.ran("look") == 1 && !joined {
			joined = true
			return []domain.Message{{Role: domain.RoleUser, Content: "also this"}}, nil
		}
		return nil, nil
	}
	out := w.Run(t.Context(), turn)
	if out.State != domain.TurnDone || last != "also this" {
		t.Errorf("%+v, last %q", out, last)
	}
	checkTranscript(t, out.Messages)
}

func TestFailuresAreWordedForPeople(t *testing.T) {
	for status, code := range map[int]domain.Code{401: domain.Unauthenticated, 402: domain.RateLimited, 404: domain.Config} {
		w := setUp(t, llm.Always(llm.Fail(status).Reply()))
		out := w.Run(t.Context(), w.turn("hello"))
		if out.State != domain.TurnFailed || !domain.IsCode(out.Err, code) || len(Explain(out.Err)) < 20 {
			t.Errorf("%d: %v %q", status, domain.CodeOf(out.Err), Explain(out.Err))
		}
		if len(out.Messages) != 1 {
			t.Errorf("the user's message is kept: %+v", out.Messages)
		}
	}
	if !errors.As(asDomain(&model.Error{Kind: model.NotSet, Message: "none"}), new(*domain.Error)) {
		t.Error("a model error must become a domain error")
	}
}
