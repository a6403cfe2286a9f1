package telegram

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"

	"hermes/internal/platform/httpcall"
	"hermes/internal/secret"
)

const (
	maxReply     = 64 << 20  // bytes of a getUpdates reply; 100 updates are far below
	maxErrorBody = 64 << 10  // bytes kept of an error reply
	rewindable   = 256 << 10 // a request up to this size can be written again on a fresh connection
)

// call is what is known of one request to the Bot API, whoever makes it: the
// poll loop, or the library through wire.Do.
type call struct {
	httpcall.Call
	method string
	reply  apiReply // of an answer that is not 200
	isJSON bool     // reply was in the Bot API's form
}

// apiReply is the envelope of every answer,
// https://core.telegram.org/bots/api#making-requests.
type apiReply struct {
	OK          bool            `json:"ok"`
	Result      json.RawMessage `json:"result"`
	ErrorCode   int             `json:"error_code"`
	Description string          `json:"description"`
	Parameters  struct {
		MigrateToChatID int64 `json:"migrate_to_chat_id"`
		RetryAfter      int64 `json:"retry_after"` // seconds
	} `json:"parameters"`
}

type callKey struct{}

// withCall gives a context whose request reports to the returned call.
func withCall(ctx context.Context, method string) (context.Context, *call) {
	c := &call{method: method}
	return context.WithValue(ctx, callKey{}, c), c
}

// wire is the HTTP client that the library and the poll loop share. It notes
// in the request's call what became of it, and lets no URL, which holds the
// token, out in an error.
type wire struct{ http *http.Client }

func newWire(c *http.Client) *wire {
	return &wire{c}
}

// Do sends a request.
func (w *wire) Do(req *http.Request) (*http.Response, error) {
	c, _ := req.Context().Value(callKey{}).(*call)
	if c == nil {
		c = &call{}
	}
	if err := buffer(req); err != nil {
		c.Err = err
		return nil, err
	}
	resp := c.Call.Do(w.http, req)
	if resp == nil {
		return nil, c.Err
	}
	if c.Status != http.StatusOK {
		body, err := io.ReadAll(io.LimitReader(resp.Body, maxErrorBody))
		resp.Body.Close()
		c.Err = err
		c.isJSON = json.Unmarshal(body, &c.reply) == nil && c.reply.Description != ""
		resp.Body = io.NopCloser(bytes.NewReader(body))
	}
	return resp, nil
}

// buffer reads a small request body into memory. The library writes its forms
// through a pipe; a pipe cannot be rewound, so that a kept connection which the
// server has just closed would fail the send in place of being replaced.
func buffer(req *http.Request) error {
	if req.Body == nil || req.GetBody != nil {
		return nil
	}
	head, err := io.ReadAll(io.LimitReader(req.Body, rewindable+1))
	if err != nil {
		req.Body.Close()
		return err
	}
	if len(head) > rewindable {
		req.Body = struct {
			io.Reader
			io.Closer
		}{io.MultiReader(bytes.NewReader(head), req.Body), req.Body}
		return nil
	}
	req.Body.Close()
	req.Body = io.NopCloser(bytes.NewReader(head))
	req.ContentLength = int64(len(head))
	req.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(head)), nil }
	return nil
}

// scrub takes the token out of an error's text.
func (a *Adapter) scrub(err error) error { return secret.HideIn(err, a.cfg.Token) }

// scrubText takes the token out of a text.
func (a *Adapter) scrubText(s string) string { return secret.Hide(s, a.cfg.Token) }
