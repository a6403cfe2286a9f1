// Package llm is a fake of the OpenAI chat completions API at the wire, for
// tests, benchmarks and demonstrations: a real HTTP server on 127.0.0.1 that
// streams and answers as the documentation says, and misbehaves on command.
// A program under test needs nothing but its URL.
//
// Sources: https://platform.openai.com/docs/api-reference/chat and
// https://platform.openai.com/docs/guides/error-codes
package llm

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"time"
)

const (
	maxRecorded  = 4096     // requests kept; the oldest go first
	maxBodyBytes = 64 << 20 // of one request
)

// Brain answers a request. It is called from the request's own goroutine.
type Brain func(Request) Reply

// Request is a chat completion request as it came in.
type Request struct {
	Model               string          `json:"model"`
	Messages            []Message       `json:"messages"`
	Tools               []Tool          `json:"tools"`
	Stream              bool            `json:"stream"`
	StreamOptions       *StreamOptions  `json:"stream_options"`
	MaxTokens           int             `json:"max_tokens"`
	MaxCompletionTokens int             `json:"max_completion_tokens"`
	Temperature         *float64        `json:"temperature"`
	N                   int64           `json:"-"` // 1 for the first request of the server
	At                  time.Time       `json:"-"`
	Header              http.Header     `json:"-"`
	RemoteAddr          string          `json:"-"`
	Raw                 json.RawMessage `json:"-"` // the body
}

// StreamOptions is the request field of that name.
type StreamOptions struct {
	IncludeUsage bool `json:"include_usage"`
}

// Message is one message of a request. Content is a JSON string, null, or an
// array of parts; Text gives its text.
type Message struct {
	Role       string          `json:"role"`
	Content    json.RawMessage `json:"content"`
	ToolCalls  []wireCall      `json:"tool_calls"`
	ToolCallID string          `json:"tool_call_id"`
}

// Text gives the text of the content; of parts, that of all text parts.
func (m Message) Text() string {
	var s string
	if json.Unmarshal(m.Content, &s) == nil {
		return s
	}
	var parts []struct{ Type, Text string }
	if json.Unmarshal(m.Content, &parts) != nil {
		return ""
	}
	for _, p := range parts {
		s += p.Text
	}
	return s
}

// Tool is an offered tool.
type Tool struct {
	Type     string `json:"type"`
	Function struct {
		Name        string          `json:"name"`
		Description string          `json:"description"`
		Parameters  json.RawMessage `json:"parameters"`
	} `json:"function"`
}

// LastUser gives the text of the last user message.
func (r Request) LastUser() string {
	for i := len(r.Messages) - 1; i >= 0; i-- {
		if r.Messages[i].Role == "user" {
			return r.Messages[i].Text()
		}
	}
	return ""
}

// Offers tells whether the request offers the named tool.
func (r Request) Offers(name string) bool {
	for _, t := range r.Tools {
		if t.Function.Name == name {
			return true
		}
	}
	return false
}

// Server is a running fake. Its methods are safe for concurrent use.
type Server struct {
	srv   *http.Server
	ln    net.Listener
	done  chan struct{}
	mu    sync.Mutex
	brain Brain
	log   []Request
	count int64
	more  chan struct{} // closed and replaced at every request
	keep  int
	key   string

	ears  func(Recording) Heard
	heard []Recording

	refusal                  int // of the list of models
	refusalKind, refusalText string
}

// Start starts a fake on a free port of 127.0.0.1.
func Start(brain Brain) (*Server, error) { return Listen("127.0.0.1:0", brain) }

// Listen starts a fake on an address.
func Listen(addr string, brain Brain) (*Server, error) {
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("fake LLM: %w", err)
	}
	s := &Server{ln: ln, brain: brain, done: make(chan struct{}), more: make(chan struct{}), keep: maxRecorded}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /v1/chat/completions", s.chat)
	mux.HandleFunc("GET /v1/models", s.models)
	mux.HandleFunc("POST /v1/audio/transcriptions", s.transcribe)
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		Fail(http.StatusNotFound).write(w, "invalid_request_error", "unknown_url", "Unknown request URL: "+r.Method+" "+r.URL.Path)
	})
	s.srv = &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	go func() {
		defer close(s.done)
		_ = s.srv.Serve(ln)
	}()
	return s, nil
}

// URL is the base URL, as a provider's base_url: it ends in /v1.
func (s *Server) URL() string { return "http://" + s.ln.Addr().String() + "/v1" }

// Close stops the server and cuts every open stream.
func (s *Server) Close() {
	_ = s.srv.Close()
	<-s.done
}

// SetBrain replaces the brain for the requests that come from now on.
func (s *Server) SetBrain(b Brain) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.brain = b
}

// RequireKey makes the server answer 401 to any other key; "" accepts all.
func (s *Server) RequireKey(key string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.key = key
}

// KeepRequests bounds how many requests are recorded; 0 records none, which
// is what a benchmark wants.
func (s *Server) KeepRequests(n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.keep = min(max(n, 0), maxRecorded)
}

// Requests gives the recorded requests, oldest first.
func (s *Server) Requests() []Request {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]Request(nil), s.log...)
}

// Count is the number of chat requests that came so far.
func (s *Server) Count() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.count
}

// Wait returns when at least n chat requests have come, or with ctx's error.
func (s *Server) Wait(ctx context.Context, n int64) error {
	for {
		s.mu.Lock()
		count, more := s.count, s.more
		s.mu.Unlock()
		if count >= n {
			return nil
		}
		select {
		case <-more:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (s *Server) record(r *Request) (Brain, string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.count++
	r.N = s.count
	if s.keep > 0 {
		if len(s.log) >= s.keep {
			s.log = append(s.log[:0], s.log[len(s.log)-s.keep+1:]...)
		}
		s.log = append(s.log, *r)
	}
	close(s.more)
	s.more = make(chan struct{})
	return s.brain, s.key
}

func (s *Server) chat(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBodyBytes))
	if err != nil {
		Fail(http.StatusRequestEntityTooLarge).write(w, "invalid_request_error", "request_too_large", "request too large")
		return
	}
	req := Request{At: time.Now(), Header: r.Header.Clone(), RemoteAddr: r.RemoteAddr, Raw: body}
	if err := json.Unmarshal(body, &req); err != nil {
		Fail(http.StatusBadRequest).write(w, "invalid_request_error", "", "We could not parse the JSON body of your request.")
		return
	}
	brain, key := s.record(&req)
	if key != "" && r.Header.Get("Authorization") != "Bearer "+key {
		Fail(http.StatusUnauthorized).write(w, "invalid_request_error", "invalid_api_key",
			"Incorrect API key provided: "+r.Header.Get("Authorization")+".")
		return
	}
	if problem := check(req); problem != "" {
		Fail(http.StatusBadRequest).write(w, "invalid_request_error", "", problem)
		return
	}
	brain(req).serve(w, r, req)
}

// Refuse makes the list of models be answered with a failure, as a service does
// to a key that may not, or has no credit left; 0 ends that.
func (s *Server) Refuse(status int, kind, message string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.refusal, s.refusalKind, s.refusalText = status, kind, message
}

func (s *Server) models(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	key, refusal, kind, text := s.key, s.refusal, s.refusalKind, s.refusalText
	s.mu.Unlock()
	switch {
	case key != "" && r.Header.Get("Authorization") != "Bearer "+key:
		Fail(http.StatusUnauthorized).write(w, "invalid_request_error", "invalid_api_key", "Incorrect API key provided.")
		return
	case refusal != 0:
		Fail(refusal).write(w, kind, kind, text)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = io.WriteString(w, `{"object":"list","data":[{"id":"fake-1","object":"model","created":1700000000,"owned_by":"fake"}]}`)
}

// check refuses what the real service refuses: a history whose tool calls and
// tool results do not belong together, and messages without content.
func check(r Request) string {
	if r.Model == "" {
		return "you must provide a model parameter"
	}
	if len(r.Messages) == 0 {
		return "Invalid 'messages': empty array. Expected an array with minimum length 1, but got an empty array instead."
	}
	open := map[string]bool{}
	for i, m := range r.Messages {
		if m.Role != "tool" && len(open) > 0 {
			return "An assistant message with 'tool_calls' must be followed by tool messages responding to each 'tool_call_id'."
		}
		switch m.Role {
		case "system", "developer", "user":
			if len(m.Content) == 0 || string(m.Content) == "null" {
				return fmt.Sprintf("Invalid value for 'content': expected a string, got null. (messages.[%d].content)", i)
			}
		case "assistant":
			if len(m.ToolCalls) == 0 && m.Text() == "" {
				return fmt.Sprintf("Invalid value for 'content': expected a string, got null. (messages.[%d].content)", i)
			}
			for _, c := range m.ToolCalls {
				open[c.ID] = true
			}
		case "tool":
			if !open[m.ToolCallID] {
				return "messages with role 'tool' must be a response to a preceeding message with 'tool_calls'."
			}
			delete(open, m.ToolCallID)
		default:
			return fmt.Sprintf("Invalid value: '%s'. (messages.[%d].role)", m.Role, i)
		}
	}
	if len(open) > 0 {
		return "An assistant message with 'tool_calls' must be followed by tool messages responding to each 'tool_call_id'."
	}
	return ""
}
