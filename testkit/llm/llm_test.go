package llm_test

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"hermes/testkit/llm"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func start(t *testing.T, brain llm.Brain) (*llm.Server, *http.Client) {
	t.Helper()
	s, err := llm.Start(brain)
	if err != nil {
		t.Fatal(err)
	}
	c := &http.Client{Transport: &http.Transport{}}
	t.Cleanup(func() { c.CloseIdleConnections(); s.Close() })
	return s, c
}

func post(t *testing.T, c *http.Client, s *llm.Server, body string) (int, string) {
	t.Helper()
	resp, err := c.Post(s.URL()+"/chat/completions", "application/json", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(b)
}

// TestStreamForm holds a stream against the documented form, line by line.
func TestStreamForm(t *testing.T) {
	s, c := start(t, llm.Always(llm.Reply{Text: "hi you", ToolCalls: []llm.ToolCall{{ID: "call_1", Name: "f", Arguments: `{"a":"bcdefg"}`}}, Usage: &llm.Usage{PromptTokens: 3, CompletionTokens: 2}}))
	_, body := post(t, c, s, `{"model":"m","stream":true,"stream_options":{"include_usage":true},"messages":[{"role":"user","content":"x"}]}`)
	var got []string
	for line := range strings.SplitSeq(strings.TrimSpace(body), "\n\n") {
		data := strings.TrimPrefix(line, "data: ")
		if data == "[DONE]" {
			got = append(got, data)
			continue
		}
		var chunk struct {
			Object  string
			Choices []json.RawMessage
			Usage   json.RawMessage
		}
		if err := json.Unmarshal([]byte(data), &chunk); err != nil || chunk.Object != "chat.completion.chunk" {
			t.Fatalf("%v in %q", err, line)
		}
		if len(chunk.Choices) == 0 {
			got = append(got, string(chunk.Usage))
			continue
		}
		var b bytes.Buffer
		if err := json.Compact(&b, chunk.Choices[0]); err != nil {
			t.Fatal(err)
		}
		got = append(got, b.String())
	}
	want := []string{
		`{"index":0,"delta":{"role":"assistant","content":""},"finish_reason":null}`,
		`{"index":0,"delta":{"content":"hi "},"finish_reason":null}`,
		`{"index":0,"delta":{"content":"you"},"finish_reason":null}`,
		`{"index":0,"delta":{"tool_calls":[{"index":0,"id":"call_1","type":"function","function":{"name":"f","arguments":""}}]},"finish_reason":null}`,
		`{"index":0,"delta":{"tool_calls":[{"index":0,"function":{"arguments":"{\"a\":\"b"}}]},"finish_reason":null}`,
		`{"index":0,"delta":{"tool_calls":[{"index":0,"function":{"arguments":"cdefg\"}"}}]},"finish_reason":null}`,
		`{"index":0,"delta":{},"finish_reason":"tool_calls"}`,
		`{"prompt_tokens":3,"completion_tokens":2,"total_tokens":5,"prompt_tokens_details":{"cached_tokens":0}}`,
		`[DONE]`,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if _, body = post(t, c, s, `{"model":"m","stream":true,"messages":[{"role":"user","content":"x"}]}`); strings.Contains(body, "prompt_tokens") {
		t.Error("usage was not asked for")
	}
}

// TestRefusals: the fake is as strict as the service.
func TestRefusals(t *testing.T) {
	s, c := start(t, llm.Echo)
	for _, body := range []string{
		`{`, `{"messages":[{"role":"user","content":"x"}]}`, `{"model":"m","messages":[]}`,
		`{"model":"m","messages":[{"role":"user","content":null}]}`,
		`{"model":"m","messages":[{"role":"assistant","content":""}]}`,
		`{"model":"m","messages":[{"role":"robot","content":"x"}]}`,
		`{"model":"m","messages":[{"role":"tool","tool_call_id":"a","content":"x"}]}`,
		`{"model":"m","messages":[{"role":"assistant","content":null,"tool_calls":[{"id":"a","type":"function","function":{"name":"f","arguments":"{}"}}]}]}`,
		`{"model":"m","messages":[{"role":"assistant","content":null,"tool_calls":[{"id":"a","type":"function","function":{"name":"f","arguments":"{}"}}]},{"role":"user","content":"x"}]}`,
	} {
		if status, answer := post(t, c, s, body); status != http.StatusBadRequest || !strings.Contains(answer, `"error"`) {
			t.Errorf("%s: %d %s", body, status, answer)
		}
	}
}

func TestOtherRoutes(t *testing.T) {
	s, c := start(t, llm.Echo)
	for path, want := range map[string]int{"/models": 200, "/nothing": 404} {
		resp, err := c.Get(s.URL() + path)
		if err != nil {
			t.Fatal(err)
		}
		b, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		if resp.StatusCode != want || !json.Valid(b) {
			t.Errorf("%s: %d %s", path, resp.StatusCode, b)
		}
	}
}

func TestBrains(t *testing.T) {
	const hello = `{"model":"m","messages":[{"role":"user","content":[{"type":"text","text":"hel"},{"type":"text","text":"lo"}]}]}`
	s, c := start(t, llm.Echo)
	if _, body := post(t, c, s, hello); !strings.Contains(body, `"content":"hello"`) {
		t.Errorf("echo: %s", body)
	}
	s.SetBrain(llm.Script(llm.Reply{Text: "one"}, llm.Fail(500).Reply()))
	for i, want := range []int{200, 500, 500} {
		if status, _ := post(t, c, s, hello); status != want {
			t.Errorf("script %d: %d", i, status)
		}
	}
	s.SetBrain(llm.ToolThenAnswer("f", "{}", "got: "))
	if _, body := post(t, c, s, hello); !strings.Contains(body, `"finish_reason":"tool_calls"`) {
		t.Errorf("tool: %s", body)
	}
	after := `{"model":"m","messages":[{"role":"assistant","content":null,"tool_calls":[{"id":"a","type":"function","function":{"name":"f","arguments":"{}"}}]},{"role":"tool","tool_call_id":"a","content":"42"}]}`
	if _, body := post(t, c, s, after); !strings.Contains(body, `"content":"got: 42"`) {
		t.Errorf("answer: %s", body)
	}
	s.RequireKey("k")
	if status, _ := post(t, c, s, hello); status != 401 {
		t.Errorf("wrong key: %d", status)
	}
}

func TestRecordingAndGate(t *testing.T) {
	gate := llm.NewGate()
	s, c := start(t, llm.Always(llm.Reply{Text: "x", Before: gate.Pass}))
	s.KeepRequests(3)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for range 5 {
			resp, err := c.Post(s.URL()+"/chat/completions", "application/json", strings.NewReader(`{"model":"m","messages":[{"role":"user","content":"x"}]}`))
			if err != nil {
				t.Error(err)
				return
			}
			_, _ = io.Copy(io.Discard, resp.Body)
			resp.Body.Close()
		}
	}()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := s.Wait(ctx, 1); err != nil {
		t.Fatal(err)
	}
	<-gate.Arrived()
	select {
	case <-done:
		t.Fatal("the gate did not hold")
	default:
	}
	gate.Open()
	<-done
	got := s.Requests()
	if s.Count() != 5 || len(got) != 3 || got[0].N != 3 || got[2].N != 5 || got[0].At.IsZero() {
		t.Errorf("%d requests, recorded %+v", s.Count(), got)
	}
	cancel()
	if err := s.Wait(ctx, 6); err == nil {
		t.Error("Wait did not end with its context")
	}
}

// TestCloseCutsStreams: nothing holds a server back from closing.
func TestCloseCutsStreams(t *testing.T) {
	for _, fault := range []llm.Fault{llm.Never, llm.Stall, llm.Endless, llm.EndlessKeepalives, llm.OpenAfterEnd} {
		s, c := start(t, llm.Always(llm.Reply{Text: "a b c", Fault: fault}))
		done := make(chan error, 1)
		go func() {
			resp, err := c.Post(s.URL()+"/chat/completions", "application/json", strings.NewReader(`{"model":"m","stream":true,"messages":[{"role":"user","content":"x"}]}`))
			if err == nil {
				_, _ = io.Copy(io.Discard, resp.Body)
				resp.Body.Close()
			}
			done <- err
		}()
		if err := s.Wait(t.Context(), 1); err != nil {
			t.Fatal(err)
		}
		s.Close()
		<-done
	}
}
