package webhook

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptrace"
	"strconv"
	"sync/atomic"
	"time"

	"hermes/internal/domain"
	"hermes/internal/platform"
	"hermes/internal/platform/clean"
	"hermes/internal/secret"
)

// post is what a receiver gets. Its id and that of the header Webhook-Id are the
// same for every attempt of one message, so that a repetition can be dropped.
type post struct {
	ID        string    `json:"id"`
	Type      string    `json:"type"` // message
	Timestamp time.Time `json:"timestamp"`
	Data      postData  `json:"data"`
}

type postData struct {
	Route   string          `json:"route"`
	EventID string          `json:"event_id,omitempty"` // of the call that is answered
	Text    string          `json:"text"`               // Markdown
	Buttons []domain.Button `json:"buttons,omitempty"`
}

// Send posts a message to a target, or to the address that a route's answers
// go to. What a route only logs is logged.
func (a *Adapter) Send(ctx context.Context, to domain.Address, p domain.Part, nonce string) (string, error) {
	id, _ := splitThread(to.ThreadID)
	if t, ok := a.cfg.Targets[to.ChatID]; ok {
		return a.post(ctx, t, to.ChatID, id, p, nonce)
	}
	r, ok := a.routes.find(to.ChatID)
	if !ok {
		return "", giveUp("webhook_route", "there is neither a route nor a target "+strconv.Quote(clean.Short(to.ChatID, 64))+": add it under platforms.webhook.extra, or subscribe it with `hermes webhook subscribe`")
	}
	switch r.Deliver {
	case "", deliverLog:
		a.d.Log.Info("the answer to a webhook", "route", to.ChatID, "event", id, "text", clean.Short(p.Text, 2000))
		return "log:" + nonce, nil
	case deliverPost:
		t := Target{URL: r.Extra["url"], Secrets: a.cfg.keysOf(r)}
		if name := r.Extra["target"]; name != "" {
			if t, ok = a.cfg.Targets[name]; !ok {
				return "", giveUp("webhook_route", "the route "+to.ChatID+" answers to the target "+strconv.Quote(clean.Short(name, 64))+", which does not stand under platforms.webhook.extra.targets")
			}
		}
		return a.post(ctx, t, to.ChatID, id, p, nonce)
	}
	if dest := a.chatOf(r, to); dest.Platform != Name {
		return "", giveUp("webhook_route", "the route "+to.ChatID+" only sends on to "+dest.String()+": send there")
	}
	return "", giveUp("webhook_route", "the route "+to.ChatID+" answers on "+r.Deliver+", and names no chat there: set deliver_extra.chat_id, or send /sethome in the chat that should get it")
}

func giveUp(code, reason string) *platform.Error {
	return &platform.Error{Kind: platform.GiveUp, Code: code, Reason: reason}
}

// post makes one request.
func (a *Adapter) post(ctx context.Context, t Target, name, event string, p domain.Part, nonce string) (string, error) {
	if p.Text == "" && len(p.Buttons) == 0 {
		return "", giveUp("webhook_empty", "there is nothing in the message that could be posted")
	}
	now := a.d.Now().UTC()
	id := "msg_" + nonce
	body, err := json.Marshal(post{ID: id, Type: "message", Timestamp: now, Data: postData{Route: name, EventID: event, Text: p.Text, Buttons: p.Buttons}})
	if err != nil {
		return "", giveUp("webhook_body", "the message cannot be written as JSON")
	}
	ctx, cancel := context.WithTimeout(ctx, a.cfg.SendTimeout)
	defer cancel()
	var wrote atomic.Bool
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{WroteRequest: func(i httptrace.WroteRequestInfo) { wrote.Store(i.Err == nil) }})
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, t.URL, bytes.NewReader(body))
	if err != nil {
		return "", giveUp("webhook_url", "the address of "+name+" is no URL")
	}
	// net/http would send it again by itself, and not say so.
	req.GetBody = nil
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("User-Agent", "hermes-webhook/1")
	req.Header.Set("Idempotency-Key", id)
	Sign(req.Header, id, now, body, signing(t.Secrets))
	res, err := a.d.HTTP.Do(req)
	if err != nil {
		return "", &platform.Error{Kind: platform.Retry, Code: "webhook_unreachable", Uncertain: wrote.Load(), Cause: withoutURL(err),
			Reason: "the receiver of " + name + " did not answer; it is tried again"}
	}
	defer res.Body.Close()
	_, _ = io.Copy(io.Discard, io.LimitReader(res.Body, 64<<10)) // a receiver may wait until its answer is read
	if e := refused(name, res); e != nil {
		return "", e
	}
	return id, nil
}

// signing leaves out the mark that no secret is wanted.
func signing(keys []secret.Value) []secret.Value {
	var out []secret.Value
	for _, k := range keys {
		if k.Reveal() != NoAuth {
			out = append(out, k)
		}
	}
	return out
}

// refused classifies an answer; nil when the receiver has the message.
func refused(name string, res *http.Response) *platform.Error {
	code := res.StatusCode
	said := strconv.Itoa(code) + " " + http.StatusText(code)
	e := &platform.Error{Kind: platform.GiveUp, Code: "webhook_" + strconv.Itoa(code), Reason: "the receiver of " + name + " refused the message: HTTP " + said}
	switch {
	case code >= 200 && code < 300:
		return nil
	case code == http.StatusTooManyRequests || code == http.StatusRequestTimeout || code == http.StatusTooEarly || code == http.StatusServiceUnavailable:
		e.Kind, e.RetryAfter = platform.Retry, retryAfter(res.Header)
		e.Reason = "the receiver of " + name + " is busy (HTTP " + said + ")"
	case code >= 500:
		e.Kind, e.Uncertain = platform.Retry, true
		e.Reason = "the receiver of " + name + " has a fault of its own (HTTP " + said + "); it is tried again"
	case code >= 300 && code < 400:
		e.Reason = "the receiver of " + name + " is at another address (HTTP " + said + "): set that one"
	case code == http.StatusUnauthorized || code == http.StatusForbidden:
		e.Reason += ": do both sides have the same secret, and the right time?"
	case code == http.StatusGone:
		e.Reason = "the receiver of " + name + " wants no more messages (HTTP " + said + ")"
	}
	return e
}

// retryAfter reads the header in its form of seconds; 0 when there is none.
func retryAfter(h http.Header) time.Duration {
	n, err := strconv.Atoi(h.Get("Retry-After"))
	if err != nil || n < 0 || n > 24*60*60 {
		return 0
	}
	return time.Duration(n) * time.Second
}

// withoutURL drops the address from an error: its query may be a secret.
func withoutURL(err error) error {
	for {
		inner := errors.Unwrap(err)
		if inner == nil {
			return err
		}
		if _, ok := err.(interface{ Timeout() bool }); !ok { //nolint:errorlint // one layer at a time
			return err
		}
		err = inner
	}
}
