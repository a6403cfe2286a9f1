package api

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"hermes/internal/domain"
)

func TestCompletion(t *testing.T) {
	r := newRig(t, &fakeGateway{}, nil)
	res, body := r.call(t, "POST", "/v1/chat/completions", ping, "Content-Type", "application/json", "Authorization", "Bearer ")
	var c completion
	if err := json.Unmarshal([]byte(body), &c); err != nil || res.StatusCode != 200 {
		t.Fatalf("%d %v %s", res.StatusCode, err, body)
	}
	if !regexp.MustCompile(`^chatcmpl-[0-9a-f]{29}$`).MatchString(c.ID) {
		t.Errorf("id %q", c.ID)
	}
	if c.Object != "chat.completion" || c.Model != "test-model" || c.Choices[0].Message.Content != "pong" ||
		c.Choices[0].FinishReason != "stop" || c.Usage != (usage{7, 2, 9}) {
		t.Errorf("%s", body)
	}
	// sha256("\nping")
	if got := res.Header.Get("X-Hermes-Session-Id"); got != "api-4616533c3b295d8a" {
		t.Errorf("session %q", got)
	}
	if res.Header.Get("X-Hermes-Completed") != "true" || res.Header.Get("X-Hermes-Partial") != "false" {
		t.Errorf("headers %v", res.Header)
	}
}

func TestSessionIDIsDerivedFromTheBeginning(t *testing.T) {
	r := newRig(t, &fakeGateway{}, nil)
	first := `{"messages":[{"role":"system","content":"be brief"},{"role":"user","content":"hi"}]}`
	later := `{"messages":[{"role":"system","content":"be brief"},{"role":"user","content":"hi"},{"role":"assistant","content":"hello"},{"role":"user","content":"more"}]}`
	other := `{"messages":[{"role":"system","content":"be long"},{"role":"user","content":"hi"}]}`
	for _, body := range []string{first, later, other} {
		r.call(t, "POST", "/v1/chat/completions", body)
	}
	asked := r.gateway.requests()
	// The first 16 digits of sha256("be brief\nhi").
	const want = "api-51a0e55c52e57154"
	if asked[0].SessionID != asked[1].SessionID || asked[0].SessionID == asked[2].SessionID || asked[0].SessionID != want {
		t.Fatalf("%q %q %q", asked[0].SessionID, asked[1].SessionID, asked[2].SessionID)
	}
	wantHistory := []domain.Message{{Role: "user", Content: "hi"}, {Role: "assistant", Content: "hello"}}
	if diff := cmp.Diff(wantHistory, asked[1].History); diff != "" {
		t.Error(diff)
	}
	if asked[1].Input.Content != "more" || asked[1].System != "be brief" {
		t.Errorf("%+v", asked[1])
	}
}

func TestParseChat(t *testing.T) {
	const png = "data:image/png;base64,iVBORw0KGgo="
	for _, c := range []struct{ name, body, want, code string }{
		{"no JSON", `{`, "Invalid JSON in request body", "invalid_request"},
		{"a list", `[]`, "Invalid JSON in request body", "invalid_request"},
		{"no messages", `{"model":"x"}`, "Missing or invalid 'messages' field", "invalid_request"},
		{"messages no list", `{"messages":"hi"}`, "Missing or invalid 'messages' field", "invalid_request"},
		{"messages empty", `{"messages":[]}`, "Missing or invalid 'messages' field", "invalid_request"},
		{"message no object", `{"messages":["hi"]}`, "Missing or invalid 'messages' field", "invalid_request"},
		{"no user", `{"messages":[{"role":"system","content":"x"}]}`, "No user message found in messages", "invalid_request"},
		{"empty user", `{"messages":[{"role":"user","content":""}]}`, "No user message found in messages", "invalid_request"},
		{"null content", `{"messages":[{"role":"user","content":null}]}`, "No user message found in messages", "invalid_request"},
		{"number content", `{"messages":[{"role":"user","content":5}]}`, "A message's content must be a string or a list of parts.", "invalid_request"},
		{"file URL", `{"messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":"file:///etc/passwd"}}]}]}`, "An image needs an http, https or data URL.", "invalid_request"},
		{"audio", `{"messages":[{"role":"user","content":[{"type":"input_audio"}]}]}`, "Content parts of type input_audio are not supported. Send text and image_url parts.", "invalid_request"},
		{"data URL of text", `{"messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":"data:text/html;base64,AA=="}}]}]}`, "An image's data URL must look like data:image/png;base64,…", "invalid_request"},
		{"too many parts", `{"messages":[{"role":"user","content":[` + strings.TrimSuffix(strings.Repeat(`"a",`, 1001), ",") + `]}]}`, "A message's content has more than 1,000 parts.", "too_many_parts"},
		{"string", `{"messages":[{"role":"user","content":"a"}]}`, "a", ""},
		{"parts", `{"messages":[{"role":"user","content":["a",{"type":"text","text":"b"},{"type":"image_url","image_url":{"url":"` + png + `"}}]}]}`, "a\nb", ""},
		{"image alone", `{"messages":[{"role":"user","content":[{"type":"input_image","image_url":"https://example.org/a.png"}]}]}`, "", ""},
		{"NUL", `{"messages":[{"role":"user","content":"a\u0000b"}]}`, "a\uFFFDb", ""},
		{"lone surrogate", `{"messages":[{"role":"user","content":"a\ud800b"}]}`, "a\uFFFDb", ""},
		{"assistant last", `{"messages":[{"role":"user","content":"a"},{"role":"assistant","content":"b"}]}`, "a", ""},
		{"tool messages", `{"messages":[{"role":"user","content":"z"},{"role":"assistant","content":null,"tool_calls":[]},{"role":"tool","content":"r","tool_call_id":"1"},{"role":"user","content":"a"}]}`, "a", ""},
		{"odd types of the rest", `{"model":5,"stream":"yes","messages":[{"role":"user","content":"a"}]}`, "a", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			req, e := parseChat([]byte(c.body))
			if c.code != "" {
				if e == nil || e.message != c.want || e.code != c.code {
					t.Fatalf("%+v", e)
				}
				return
			}
			if e != nil {
				t.Fatal(e.message)
			}
			if req.Input.Content != c.want {
				t.Fatalf("%q", req.Input.Content)
			}
		})
	}
}

func FuzzParseChat(f *testing.F) {
	f.Add([]byte(ping))
	f.Add([]byte(`{"messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":"data:image/png;base64,AA=="}}]}]}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		req, e := parseChat(raw)
		if e != nil {
			if e.status < 400 || e.message == "" {
				t.Fatalf("%+v", e)
			}
			return
		}
		if req.Input.Role != domain.RoleUser || (req.Input.Content == "" && len(req.Input.Images) == 0) {
			t.Fatalf("%+v", req)
		}
		if strings.ContainsRune(req.Input.Content, 0) || len(req.SessionID) != len("api-")+16 {
			t.Fatalf("%+v", req)
		}
	})
}

func TestFailuresOfTurns(t *testing.T) {
	for _, c := range []struct {
		err    error
		status int
		code   string
		retry  string
	}{
		{domain.E(domain.Invalid, nil, "The image is broken."), 400, "invalid", ""},
		{domain.E(domain.Unavailable, nil, "The model cannot be reached."), 503, "unavailable", "5"},
		{domain.E(domain.RateLimited, nil, "The provider asks to wait."), 429, "rate_limited", "10"},
		{domain.E(domain.Timeout, nil, "The model took too long."), 504, "timeout", ""},
		{domain.E(domain.Unauthenticated, nil, "The provider refuses the key of .env line 3."), 502, "agent_incomplete", ""},
		{errors.New("secret detail"), 502, "agent_incomplete", ""},
	} {
		t.Run(c.code, func(t *testing.T) {
			r := newRig(t, &fakeGateway{chat: func(context.Context, ChatRequest, func(domain.TurnEvent)) (ChatResult, error) {
				return ChatResult{}, c.err
			}}, nil)
			for _, request := range []string{ping, pingStream} {
				res, body := r.call(t, "POST", "/v1/chat/completions", request)
				wantError(t, res, body, c.status, c.code)
				if strings.Contains(body, "secret detail") {
					t.Errorf("a cause was shown: %s", body)
				}
				if !strings.Contains(body, `"hermes":{"completed":false,"partial":false,"failed":true}`) {
					t.Errorf("no outcome: %s", body)
				}
				if res.Header.Get("Retry-After") != c.retry || res.Header.Get("X-Should-Retry") != "false" {
					t.Errorf("%v", res.Header)
				}
			}
		})
	}
}

// sse is one event of a stream.
type sse struct{ name, data string }

// readEvents reads a stream to its end; comments have the name ":".
func readEvents(t testing.TB, body *bufio.Scanner) []sse {
	t.Helper()
	var events []sse
	var e sse
	for body.Scan() {
		line := body.Text()
		switch {
		case strings.HasPrefix(line, ":"):
			events = append(events, sse{":", strings.TrimSpace(line[1:])})
		case strings.HasPrefix(line, "event: "):
			e.name = line[7:]
		case strings.HasPrefix(line, "data: "):
			e.data = line[6:]
		case line == "" && e.data != "":
			events = append(events, e)
			e = sse{}
		}
	}
	return events
}

func TestStream(t *testing.T) {
	r := newRig(t, &fakeGateway{chat: func(_ context.Context, req ChatRequest, on func(domain.TurnEvent)) (ChatResult, error) {
		on(domain.TurnEvent{Kind: domain.EventStarted, TurnID: 1})
		on(domain.TurnEvent{Kind: domain.EventDelta, Text: "Let me \"look\".\n"})
		on(domain.TurnEvent{Kind: domain.EventAnswerReset})
		on(domain.TurnEvent{Kind: domain.EventToolStarted, Tool: "terminal", CallID: "c1", Label: "df -h"})
		on(domain.TurnEvent{Kind: domain.EventToolFinished, Tool: "terminal", CallID: "c1", Label: "df -h"})
		on(domain.TurnEvent{Kind: domain.EventDelta, Text: "Plenty "})
		on(domain.TurnEvent{Kind: domain.EventDelta, Text: "of room \U0001F600."})
		return ChatResult{Text: "Plenty of room \U0001F600.", Usage: domain.Usage{InputTokens: 3, OutputTokens: 4}}, nil
	}}, nil)
	res, body := r.call(t, "POST", "/v1/chat/completions", pingStream)
	if ct := res.Header.Get("Content-Type"); !strings.HasPrefix(ct, "text/event-stream") {
		t.Fatalf("content type %q", ct)
	}
	events := readEvents(t, bufio.NewScanner(strings.NewReader(body)))
	var text strings.Builder
	var tools []string
	var finish string
	for i, e := range events {
		if e.data == "[DONE]" {
			if i != len(events)-1 {
				t.Error("something follows [DONE]")
			}
			continue
		}
		var chunk struct {
			ID, Object, Tool, Label, ToolCallID, Status, Emoji string
			Choices                                            []struct {
				Delta        struct{ Role, Content string }
				FinishReason *string `json:"finish_reason"`
			}
			Usage *usage
		}
		if err := json.Unmarshal([]byte(e.data), &chunk); err != nil {
			t.Fatalf("%v in %s", err, e.data)
		}
		if chunk.Object != "chat.completion.chunk" || len(chunk.Choices) != 1 {
			t.Errorf("no chunk: %s", e.data)
		}
		if i == 0 && chunk.Choices[0].Delta.Role != "assistant" {
			t.Errorf("the first chunk names no role: %s", e.data)
		}
		if e.name == "hermes.tool.progress" {
			tools = append(tools, chunk.Tool+" "+chunk.Label+" "+chunk.ToolCallID+" "+chunk.Status)
			if chunk.Emoji == "" {
				t.Error("no emoji")
			}
		}
		text.WriteString(chunk.Choices[0].Delta.Content)
		if f := chunk.Choices[0].FinishReason; f != nil {
			finish = *f
			if chunk.Usage == nil || *chunk.Usage != (usage{3, 4, 7}) {
				t.Errorf("usage %v", chunk.Usage)
			}
		}
	}
	if got, want := text.String(), "Let me \"look\".\n\n\nPlenty of room \U0001F600."; got != want {
		t.Errorf("text %q, want %q", got, want)
	}
	if diff := cmp.Diff([]string{"terminal df -h c1 running", "terminal df -h c1 completed"}, tools); diff != "" {
		t.Error(diff)
	}
	if finish != "stop" {
		t.Errorf("finish_reason %q", finish)
	}
}

func TestStreamThatFailsLate(t *testing.T) {
	r := newRig(t, &fakeGateway{chat: func(_ context.Context, _ ChatRequest, on func(domain.TurnEvent)) (ChatResult, error) {
		on(domain.TurnEvent{Kind: domain.EventDelta, Text: "half"})
		return ChatResult{Text: "half"}, domain.E(domain.Unavailable, nil, "The model went away.")
	}}, nil)
	_, body := r.call(t, "POST", "/v1/chat/completions", pingStream)
	events := readEvents(t, bufio.NewScanner(strings.NewReader(body)))
	n := len(events)
	if n < 4 || !strings.Contains(events[n-3].data, `"finish_reason":"error"`) || !strings.Contains(events[n-2].data, "The model went away.") || events[n-1].data != "[DONE]" {
		t.Errorf("%s", body)
	}
}

func TestMerger(t *testing.T) {
	const reset = "\x00"
	for _, c := range []struct{ name, script, final, want string }{
		{"plain", "a|b|c", "abc", "abc"},
		{"nothing streamed", "", "whole", "whole"},
		{"tail not streamed", "a|b", "abcd", "abcd"},
		{"an attempt repeated", "Hel|lo|" + reset + "|He|llo wor|ld", "Hello world", "Hello world"},
		{"an attempt that goes elsewhere", "Hello|" + reset + "|Help", "Help", "Hello\n\nHelp"},
		{"a step before tools", "Let me look|" + reset + "|Done", "Done", "Let me look\n\nDone"},
		{"reset in the middle of a repetition", "Hello|" + reset + "|He|" + reset + "|Hello!", "Hello!", "Hello!"},
		{"a repetition that stops short", "Hello|" + reset + "|He", "Hello", "Hello"},
		{"reset and a final text that was not streamed", "Look|" + reset, "Done", "Look\n\nDone"},
		{"a character cut between attempts", "é|" + reset + "|è", "è", "é\n\nè"},
		{"shorter attempt", "Hello|" + reset + "|He", "He", "Hello\n\nHe"},
		{"final is something else", "abc", "xyz", "abc"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var m merger
			var got strings.Builder
			for _, piece := range strings.Split(c.script, "|") {
				if piece == reset {
					m.reset()
					continue
				}
				got.WriteString(m.delta(piece))
			}
			got.WriteString(m.rest(c.final))
			if got.String() != c.want {
				t.Errorf("got %q, want %q", got.String(), c.want)
			}
		})
	}
}

func FuzzAppendJSON(f *testing.F) {
	f.Add("a\"\\\n\t\x00\x7f\u2028é😀")
	f.Add("\xff\xfe")
	f.Fuzz(func(t *testing.T, s string) {
		var back string
		if err := json.Unmarshal(appendJSON(nil, s), &back); err != nil {
			t.Fatal(err)
		}
		if want := string([]rune(s)); back != want {
			t.Fatalf("%q became %q", s, back)
		}
	})
}

func TestKeepalive(t *testing.T) {
	release := make(chan struct{})
	r := newRig(t, &fakeGateway{chat: func(context.Context, ChatRequest, func(domain.TurnEvent)) (ChatResult, error) {
		<-release
		return ChatResult{Text: "late"}, nil
	}}, func(o *Options) { o.Keepalive = 20 * time.Millisecond })
	res, err := r.client.Post(r.url+"/v1/chat/completions", "application/json", strings.NewReader(pingStream))
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	lines := bufio.NewScanner(res.Body)
	for seen := 0; seen < 2 && lines.Scan(); {
		if lines.Text() == ": keepalive" {
			seen++
		}
	}
	close(release)
	events := readEvents(t, lines)
	if len(events) < 3 || events[len(events)-1].data != "[DONE]" {
		t.Fatalf("%v", events)
	}
}

func TestClientDisconnectCancelsTheTurn(t *testing.T) {
	for name, body := range map[string]string{"document": ping, "stream": pingStream} {
		t.Run(name, func(t *testing.T) {
			began, ended := make(chan struct{}), make(chan error, 1)
			r := newRig(t, &fakeGateway{chat: func(ctx context.Context, _ ChatRequest, on func(domain.TurnEvent)) (ChatResult, error) {
				on(domain.TurnEvent{Kind: domain.EventDelta, Text: "x"})
				close(began)
				<-ctx.Done()
				ended <- ctx.Err()
				return ChatResult{}, ctx.Err()
			}}, nil)
			ctx, cancel := context.WithCancel(context.Background())
			defer cancel()
			req, err := http.NewRequestWithContext(ctx, "POST", r.url+"/v1/chat/completions", strings.NewReader(body))
			if err != nil {
				t.Fatal(err)
			}
			go func() {
				<-began
				cancel()
			}()
			if res, err := r.client.Do(req); err == nil {
				res.Body.Close()
			}
			if err := <-ended; !errors.Is(err, context.Canceled) {
				t.Fatal(err)
			}
		})
	}
}

func TestIdempotencyKey(t *testing.T) {
	turns := 0
	r := newRig(t, &fakeGateway{chat: func(context.Context, ChatRequest, func(domain.TurnEvent)) (ChatResult, error) {
		turns++
		return ChatResult{Text: "the answer"}, nil
	}}, nil)
	post := func(body, key string) (*http.Response, string) {
		return r.call(t, "POST", "/v1/chat/completions", body, "Idempotency-Key", key)
	}
	post(ping, "k1")
	res, body := post(ping, "k1")
	if turns != 1 || res.Header.Get("Idempotency-Replayed") != "true" || !strings.Contains(body, "the answer") {
		t.Fatalf("%d turns, %v, %s", turns, res.Header, body)
	}
	res, body = post(pingStream, "k1")
	wantError(t, res, body, http.StatusConflict, "idempotency_key_conflict")
	post(ping, "k2")
	if turns != 2 {
		t.Fatalf("%d turns", turns)
	}
	post(pingStream, "k3")
	res, body = post(pingStream, "k3")
	if turns != 3 || !strings.Contains(body, "the answer") || !strings.Contains(body, "[DONE]") || res.Header.Get("Idempotency-Replayed") != "true" {
		t.Fatalf("%d turns: %s", turns, body)
	}
}

func TestReplayCacheIsBounded(t *testing.T) {
	now := time.Unix(1000, 0)
	c := newReplayCache(func() time.Time { return now })
	put := func(key string, size int) {
		e, leads := c.join(key, [32]byte{})
		if !leads {
			t.Fatalf("%s is known", key)
		}
		c.finish(e, turnEnd{result: &ChatResult{Text: strings.Repeat("x", size)}}, true)
	}
	for i := range 2 * replayCount {
		put(strings.Repeat("k", i+1), 1)
	}
	if n := c.order.Len(); n > replayCount || n != len(c.byKey) {
		t.Fatalf("%d kept, %d by key", n, len(c.byKey))
	}
	put("big", replayBytes)
	put("bigger", replayBytes)
	if c.bytes > replayBytes {
		t.Fatalf("%d bytes kept", c.bytes)
	}
	now = now.Add(replayAge + time.Second)
	put("fresh", 1)
	if c.order.Len() != 1 || c.bytes != 1 {
		t.Fatalf("%d kept, %d bytes", c.order.Len(), c.bytes)
	}
}
