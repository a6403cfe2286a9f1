package slack

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"hermes/internal/platform"
	"hermes/internal/platform/httpcall"
	"hermes/internal/secret"
)

const (
	maxReply     = 16 << 20 // bytes of an answer; a page of history is far below
	maxErrorBody = 64 << 10 // bytes kept of an answer that is none of the API's
)

// call is what became of one request.
type call struct {
	httpcall.Call
	method string
	reply  reply
	isJSON bool // the answer was in the API's form
}

// reply is what every answer of the Web API has,
// https://docs.slack.dev/apis/web-api/#responses.
type reply struct {
	OK       bool   `json:"ok"`
	Error    string `json:"error"`
	Needed   string `json:"needed"` // the scope of missing_scope
	Metadata struct {
		NextCursor string   `json:"next_cursor"`
		Messages   []string `json:"messages"`
	} `json:"response_metadata"`
}

// call asks a method of the Web API with the bot's token and reads its answer
// into out, unless it is nil.
func (a *Adapter) call(ctx context.Context, method string, args url.Values, out any) (*call, *platform.Error) {
	return a.callAs(ctx, a.cfg.Token, method, args, out)
}

// callAs asks a method with one of the tokens. Arguments go as a form, which
// every method takes (https://docs.slack.dev/apis/web-api/#post_bodies).
func (a *Adapter) callAs(ctx context.Context, token secret.Value, method string, args url.Values, out any) (*call, *platform.Error) {
	if wait := a.tiers.reserve(method, time.Now()); wait > 0 {
		return &call{method: method}, &platform.Error{Kind: platform.Retry, Code: codeLimited, RetryAfter: wait,
			Reason: "Slack's rate limit for " + method + " is used up for " + wait.Round(time.Second).String()}
	}
	ctx, cancel := context.WithTimeout(ctx, a.cfg.SendTimeout)
	defer cancel()
	c := &call{method: method}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, a.cfg.BaseURL+"/api/"+method, strings.NewReader(args.Encode()))
	if err != nil {
		c.Err = errors.New("the request could not be made")
		return c, a.classify(c)
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.Header.Set("Authorization", "Bearer "+token.Reveal())
	body := a.exchange(c, req)
	if c.Err == nil && out != nil && c.reply.OK {
		if err := json.Unmarshal(body, out); err != nil {
			c.isJSON, c.Err = false, errors.New("the answer is not what the API answers")
		}
	}
	if c.Err == nil && c.reply.OK {
		return c, nil
	}
	e := a.classify(c)
	if c.Status == http.StatusTooManyRequests {
		a.tiers.hold(method, time.Now().Add(e.RetryAfter))
	}
	return c, e
}

// exchange makes the request and reads its answer, bounded.
func (a *Adapter) exchange(c *call, req *http.Request) []byte {
	resp := c.Do(a.http, req)
	if resp == nil {
		return nil
	}
	defer resp.Body.Close()
	body, err := httpcall.ReadAll(resp.Body, maxReply)
	if c.Err = err; err == nil {
		c.isJSON = json.Unmarshal(body, &c.reply) == nil && (c.reply.OK || c.reply.Error != "")
		if !c.isJSON && c.Status < 300 {
			c.Err = errors.New("the answer is not what the API answers")
		}
	}
	if !c.isJSON {
		return bytes.Clone(body[:min(len(body), maxErrorBody)])
	}
	return body
}

// Requests a minute of the tiers, https://docs.slack.dev/apis/web-api/rate-limits.
// Sending is not among them: it is bound by channel, which the centre obeys
// (Capabilities.PerChatEvery).
const (
	tier2 = 20
	tier3 = 50
	tier4 = 100
)

// methodTiers are the tiers of what is asked here.
var methodTiers = map[string]int{
	"users.conversations": tier3, "conversations.history": tier3, "conversations.replies": tier3, "conversations.info": tier3,
	"conversations.open": tier3, "users.info": tier4, "bots.info": tier3, "reactions.add": tier3, "chat.update": tier3,
	"files.info": tier4, "files.getUploadURLExternal": tier4, "files.completeUploadExternal": tier4,
}

// tiers keeps the rate limits of methods before they are hit, and the pauses
// that Slack asks for. Its methods are safe for concurrent use.
type tiers struct {
	off bool // for servers that are not Slack's own

	mu     sync.Mutex
	limits map[string]*rate.Limiter
	held   map[string]time.Time
}

// reserve takes one request of a method, or says how long to wait with it. A
// fifth of a minute's requests may go at once.
func (t *tiers) reserve(method string, now time.Time) time.Duration {
	t.mu.Lock()
	defer t.mu.Unlock()
	if until := t.held[method]; until.After(now) {
		return until.Sub(now)
	}
	n, limited := methodTiers[method]
	if !limited || t.off {
		return 0
	}
	if t.limits == nil {
		t.limits = map[string]*rate.Limiter{}
	}
	if t.limits[method] == nil {
		t.limits[method] = rate.NewLimiter(rate.Limit(float64(n)/60), n/5)
	}
	r := t.limits[method].ReserveN(now, 1)
	if wait := r.DelayFrom(now); wait > 0 {
		r.CancelAt(now)
		return wait
	}
	return 0
}

// peek says how long a request of a method would have to wait.
func (t *tiers) peek(method string, now time.Time) time.Duration {
	t.mu.Lock()
	defer t.mu.Unlock()
	if until := t.held[method]; until.After(now) {
		return until.Sub(now)
	}
	l := t.limits[method]
	if l == nil || t.off {
		return 0
	}
	if missing := 1 - l.TokensAt(now); missing > 0 {
		return time.Duration(missing / float64(l.Limit()) * float64(time.Second))
	}
	return 0
}

// hold stops a method until an instant.
func (t *tiers) hold(method string, until time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.held == nil {
		t.held = map[string]time.Time{}
	}
	if until.After(t.held[method]) {
		t.held[method] = until
	}
}
