package llm

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"
	"unicode/utf8"
)

// Fault is a way to misbehave in an answer that began well.
type Fault int

// The faults. Where a fault makes no sense for an answer that is not
// streamed, the nearest thing happens (said beside each).
const (
	NoFault           Fault = iota
	EmptyChoices            // "choices": [] throughout
	EmptyContent            // a role and a finish reason, no content
	CutMidChunk             // half of the text, then half an event, then the connection is cut (not streamed: half the body)
	NoEnd                   // the text, then a clean end without finish_reason and [DONE] (not streamed: half the body)
	NoDone                  // everything but [DONE]; some servers do this always
	OpenAfterEnd            // everything, then the connection stays open
	BadChunk                // half of the text, then an event that is no JSON (not streamed: a body that is none)
	ErrorChunk              // half of the text, then an error object as an event (not streamed: status 200 with an error object)
	Endless                 // text without end (not streamed: likewise)
	EndlessKeepalives       // comments without end and never an event
	Never                   // no answer at all, not even a status
	Stall                   // half of the text, then silence
	Huge                    // 50 MB of text
	HugeLine                // one event of 50 MB
	HugeArguments           // tool-call arguments of 50 MB
	PlainJSON               // a stream was asked for, one JSON object comes
	WebPage                 // status 200 with a web page
	DuplicateIndexes        // every tool call carries index 0
	NoIndexes               // tool-call deltas carry no index
	NoCallIDs               // tool calls without an id
)

const hugeBytes = 50 << 20

// ToolCall is a tool call of a reply. Arguments is sent as it stands, valid or
// not, and Name whether the tool was offered or not.
type ToolCall struct {
	ID, Name, Arguments string
	Extra               json.RawMessage // extra_content, as Google sends it
}

// Usage is the usage object of a reply.
type Usage struct {
	PromptTokens     int `json:"prompt_tokens"`
	CompletionTokens int `json:"completion_tokens"`
	TotalTokens      int `json:"total_tokens"`
	Details          struct {
		CachedTokens int `json:"cached_tokens"`
	} `json:"prompt_tokens_details"`
}

// Reply is what the server does with a request.
type Reply struct {
	Text      string
	Reasoning string   // sent as reasoning_content before the text
	Pieces    []string // how a stream cuts Text; nil cuts after each word
	ToolCalls []ToolCall
	Finish    string // "" gives stop, or tool_calls
	Usage     *Usage // nil counts four bytes a token
	Fault     Fault
	Failure   *Failure // answers with an error in place of all that

	CRLF      bool          // lines end in \r\n
	Keepalive bool          // a comment before each event
	Drip      time.Duration // waited before each event
	// Before is called before the status is sent, BeforePiece before each
	// piece of the text; ctx ends with the request.
	Before      func(ctx context.Context)
	BeforePiece func(ctx context.Context, i int)
}

// wireCall is a tool call on the wire, whole or as a delta.
type wireCall struct {
	Index    *int   `json:"index,omitempty"`
	ID       string `json:"id,omitempty"`
	Type     string `json:"type,omitempty"`
	Function struct {
		Name      string `json:"name,omitempty"`
		Arguments string `json:"arguments"`
	} `json:"function"`
	Extra json.RawMessage `json:"extra_content,omitempty"`
}

type delta struct {
	Role      string     `json:"role,omitempty"`
	Content   *string    `json:"content,omitempty"`
	Reasoning string     `json:"reasoning_content,omitempty"`
	ToolCalls []wireCall `json:"tool_calls,omitempty"`
}

type chunkChoice struct {
	Index  int     `json:"index"`
	Delta  delta   `json:"delta"`
	Finish *string `json:"finish_reason"`
}

type chunk struct {
	ID      string        `json:"id"`
	Object  string        `json:"object"`
	Created int64         `json:"created"`
	Model   string        `json:"model"`
	Choices []chunkChoice `json:"choices"`
	Usage   *Usage        `json:"usage,omitempty"`
}

func (f Failure) write(w http.ResponseWriter, kind, code, message string) {
	for k, v := range f.Header {
		w.Header().Set(k, v)
	}
	switch {
	case f.Body != "":
		w.WriteHeader(f.Status)
		_, _ = io.WriteString(w, f.Body)
	case f.HTML:
		w.Header().Set("Content-Type", "text/html")
		w.WriteHeader(f.Status)
		text := fmt.Sprintf("%d %s", f.Status, http.StatusText(f.Status))
		_, _ = fmt.Fprintf(w, "<html>\r\n<head><title>%s</title></head>\r\n<body><center><h1>%s</h1></center></body></html>\r\n", text, text)
	default:
		var param, c any
		if f.Param != "" {
			param = f.Param
		}
		if code != "" {
			c = code
		}
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(f.Status)
		_ = json.NewEncoder(w).Encode(map[string]any{"error": map[string]any{"message": message, "type": kind, "param": param, "code": c}})
	}
}

func (p Reply) serve(w http.ResponseWriter, r *http.Request, req Request) {
	ctx := r.Context()
	if p.Before != nil {
		p.Before(ctx)
	}
	if p.Fault == Never {
		<-ctx.Done()
		return
	}
	if f := p.Failure; f != nil {
		kind, code, message := usual(f.Status)
		f.write(w, or(f.Type, kind), or(f.Code, code), or(f.Message, message))
		return
	}
	if p.Fault == WebPage {
		FailHTML(http.StatusOK).write(w, "", "", "")
		return
	}
	if !req.Stream || p.Fault == PlainJSON {
		p.whole(w, req)
		return
	}
	s := &stream{w: w, rc: http.NewResponseController(w), ctx: ctx, p: p, req: req,
		head: chunk{ID: fmt.Sprintf("chatcmpl-%d", req.N), Object: "chat.completion.chunk", Created: time.Now().Unix(), Model: req.Model}}
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("Cache-Control", "no-cache")
	s.run()
}

// usage gives the usage of the reply, counted where none was set.
func (p Reply) usage(req Request) *Usage {
	if p.Usage != nil {
		u := *p.Usage
		u.TotalTokens = u.PromptTokens + u.CompletionTokens
		return &u
	}
	u := Usage{PromptTokens: len(req.Raw) / 4, CompletionTokens: (len(p.Text) + len(p.Reasoning) + 3) / 4}
	u.TotalTokens = u.PromptTokens + u.CompletionTokens
	return &u
}

func (p Reply) finish() string {
	if p.Finish != "" {
		return p.Finish
	}
	if len(p.ToolCalls) > 0 {
		return "tool_calls"
	}
	return "stop"
}

// whole answers without a stream.
func (p Reply) whole(w http.ResponseWriter, req Request) {
	type message struct {
		Role      string     `json:"role"`
		Content   *string    `json:"content"`
		Reasoning string     `json:"reasoning_content,omitempty"`
		ToolCalls []wireCall `json:"tool_calls,omitempty"`
	}
	type choice struct {
		Index   int     `json:"index"`
		Message message `json:"message"`
		Finish  string  `json:"finish_reason"`
	}
	m := message{Role: "assistant", Reasoning: p.Reasoning}
	if p.Text != "" || len(p.ToolCalls) == 0 {
		m.Content = &p.Text
	}
	for _, c := range p.ToolCalls {
		wc := wireCall{ID: c.ID, Type: "function", Extra: c.Extra}
		wc.Function.Name, wc.Function.Arguments = c.Name, c.Arguments
		m.ToolCalls = append(m.ToolCalls, wc)
	}
	choices := []choice{{Message: m, Finish: p.finish()}}
	switch p.Fault {
	case EmptyChoices:
		choices = []choice{}
	case EmptyContent:
		empty := ""
		choices[0].Message = message{Role: "assistant", Content: &empty}
	case Huge, HugeLine, Endless:
		huge := strings.Repeat("all work and no play ", hugeBytes/21)
		choices[0].Message.Content = &huge
	}
	body, _ := json.Marshal(map[string]any{
		"id": fmt.Sprintf("chatcmpl-%d", req.N), "object": "chat.completion", "created": time.Now().Unix(),
		"model": req.Model, "choices": choices, "usage": p.usage(req),
	})
	w.Header().Set("Content-Type", "application/json")
	switch p.Fault {
	case ErrorChunk:
		body = []byte(errorEvent)
	case BadChunk, NoEnd:
		body = body[:len(body)/2]
	case CutMidChunk:
		w.Header().Set("Content-Length", fmt.Sprint(len(body)))
		_, _ = w.Write(body[:len(body)/2])
		_ = http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	}
	_, _ = w.Write(body)
}

// errorEvent is how a router tells of a failure after the status was sent;
// see https://openrouter.ai/docs/api-reference/errors.
const errorEvent = `{"id":"gen-1","object":"chat.completion.chunk","error":{"code":502,"message":"Provider disconnected"},"choices":[]}`

func or(a, b string) string {
	if a != "" {
		return a
	}
	return b
}

// words cuts text after each space.
func words(text string) []string { return strings.SplitAfter(text, " ") }

// fragments cuts text into pieces of about n bytes, between runes.
func fragments(text string, n int) []string {
	var out []string
	for len(text) > n {
		i := n
		for i < len(text) && !utf8.RuneStart(text[i]) {
			i++
		}
		out = append(out, text[:i])
		text = text[i:]
	}
	if text != "" {
		out = append(out, text)
	}
	return out
}
