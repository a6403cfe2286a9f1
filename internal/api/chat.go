package api

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"strings"
	"time"

	"hermes/internal/domain"
)

// completion is a chat.completion object.
type completion struct {
	ID      string   `json:"id"`
	Object  string   `json:"object"`
	Created int64    `json:"created"`
	Model   string   `json:"model"`
	Choices []choice `json:"choices"`
	Usage   usage    `json:"usage"`
}

type choice struct {
	Index        int           `json:"index"`
	Message      answerMessage `json:"message"`
	FinishReason Finish        `json:"finish_reason"`
	Logprobs     *struct{}     `json:"logprobs"`
}

type answerMessage struct {
	Role    string  `json:"role"`
	Content string  `json:"content"`
	Refusal *string `json:"refusal"`
}

type usage struct {
	Prompt     int64 `json:"prompt_tokens"`
	Completion int64 `json:"completion_tokens"`
	Total      int64 `json:"total_tokens"`
}

func usageOf(u domain.Usage) usage {
	return usage{u.InputTokens, u.OutputTokens, u.InputTokens + u.OutputTokens}
}

// newID makes "chatcmpl-" and 29 hexadecimal digits.
func newID() string {
	var b [15]byte
	rand.Read(b[:])
	return "chatcmpl-" + hex.EncodeToString(b[:])[:29]
}

// postChat serves POST /v1/chat/completions.
func (s *Server) postChat(w http.ResponseWriter, r *http.Request) {
	select {
	case s.slots <- struct{}{}:
		defer func() { <-s.slots }()
	default:
		s.counts.refusedBusy.Add(1)
		s.fail(w, &apiError{status: http.StatusTooManyRequests, kind: "rate_limit_error", code: "rate_limit_exceeded",
			message: "Too many concurrent requests with this key. Wait for one to end, or raise the limit in the profile's configuration.", retryAfter: time.Second})
		return
	}
	a, e := s.readChat(w, r)
	if e != nil {
		s.fail(w, e)
		return
	}
	s.counts.turns.Add(1)
	s.counts.active.Add(1)
	defer s.counts.active.Add(-1)
	if a.key == "" {
		a.run(r.Context())
		return
	}
	s.answerOnce(r.Context(), a)
}

// readChat reads a request, or says what is wrong with it.
func (s *Server) readChat(w http.ResponseWriter, r *http.Request) (*answer, *apiError) {
	raw, e := readBody(r)
	if e != nil {
		w.Header().Set("Connection", "close") // what follows may be the rest of this body
		return nil, e
	}
	bodyRead(w)
	req, e := parseChat(raw)
	if e == nil {
		e = s.chooseSession(r, req)
	}
	if e != nil {
		return nil, e
	}
	a := &answer{s: s, w: w, req: req, id: newID(), created: s.now().Unix(), key: r.Header.Get("Idempotency-Key")}
	if len(a.key) > maxKeyHeader {
		return nil, invalid("Idempotency-Key", "The Idempotency-Key header is longer than 256 characters.")
	}
	if a.key != "" {
		a.digest = fingerprint(req.SessionKey, raw)
	}
	return a, nil
}

// chooseSession applies the session headers of a request.
func (s *Server) chooseSession(r *http.Request, req *ChatRequest) *apiError {
	if id := strings.TrimSpace(r.Header.Get("X-Hermes-Session-Id")); id != "" {
		if !s.keyed {
			return forbidden("session_needs_key", "X-Hermes-Session-Id needs API_SERVER_KEY to be set: it reaches into stored conversations.")
		}
		if !isSessionID(id) {
			return invalid("X-Hermes-Session-Id", "X-Hermes-Session-Id must be 1 to 128 letters, digits, and . _ : -")
		}
		req.SessionID, req.Stored, req.History = id, true, nil
	}
	key := r.Header.Get("X-Hermes-Session-Key")
	if len(key) > maxKeyHeader || strings.ContainsFunc(key, isControl) {
		return invalid("X-Hermes-Session-Key", "X-Hermes-Session-Key must be at most 256 characters without control characters.")
	}
	req.SessionKey = key
	return nil
}

func isControl(r rune) bool { return r < 0x20 || r == 0x7f }

func isSessionID(id string) bool {
	if len(id) > 128 {
		return false
	}
	return !strings.ContainsFunc(id, func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("._:-", r))
	})
}

// answer is one turn on its way to one client.
type answer struct {
	s       *Server
	w       http.ResponseWriter
	req     *ChatRequest
	id      string
	created int64
	key     string            // Idempotency-Key, "" for none
	digest  [sha256.Size]byte // of the request that came with the key
}

// run runs the turn and answers. It tells how the turn ended, and false when
// that says nothing about the request, since its client has gone.
func (a *answer) run(ctx context.Context) (turnEnd, bool) {
	if a.req.Stream {
		return a.stream(ctx)
	}
	result, err := a.s.o.Gateway.Chat(ctx, a.req, func(domain.TurnEvent) {})
	end := a.settle(result, err)
	if ctx.Err() != nil {
		a.s.counts.gone.Add(1)
		return end, false
	}
	a.write(end)
	return end, true
}

// turnEnd is how a turn ended: its result, and the failure where it failed.
type turnEnd struct {
	result  *ChatResult
	failure *apiError
}

// settle fills in what the gateway left open.
func (a *answer) settle(r *ChatResult, err error) turnEnd {
	if r.Finish == "" {
		r.Finish = FinishStop
	}
	if r.SessionID == "" {
		r.SessionID = a.req.SessionID
	}
	if r.Model == "" {
		r.Model = a.s.o.Gateway.ModelName()
	}
	if r.Model == "" {
		r.Model = a.s.modelName()
	}
	if err == nil {
		return turnEnd{result: r}
	}
	a.s.counts.failed.Add(1)
	a.s.o.Log.Warn("an API turn failed", "turn", r.TurnID, "session", r.SessionID, "code", string(domain.CodeOf(err)), "error", err)
	r.Finish = FinishError
	return turnEnd{r, turnError(err, r.Text != "")}
}

func (e turnEnd) outcome() outcome {
	if e.failure != nil {
		return *e.failure.turn
	}
	return outcome{Completed: !e.result.Partial, Partial: e.result.Partial}
}

// write answers with one document.
func (a *answer) write(end turnEnd) {
	h := a.w.Header()
	h.Set("X-Hermes-Session-Id", end.result.SessionID)
	if end.failure != nil {
		a.s.fail(a.w, end.failure)
		return
	}
	end.outcome().setHeaders(h)
	writeJSON(a.w, http.StatusOK, completion{
		ID: a.id, Object: "chat.completion", Created: a.created, Model: end.result.Model,
		Choices: []choice{{Message: answerMessage{Role: "assistant", Content: end.result.Text}, FinishReason: end.result.Finish}},
		Usage:   usageOf(end.result.Usage),
	})
}
