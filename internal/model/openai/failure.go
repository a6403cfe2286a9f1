package openai

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"syscall"
	"time"

	"hermes/internal/lazyregexp"
	"hermes/internal/model"
)

const (
	maxErrorBody = 64 << 10
	maxCause     = 500 // bytes of a cause
	maxQuote     = 200 // bytes of the service's words in a message
)

// scrubbed gives a cause that is bounded and holds no secret.
func (c *Client) scrubbed(cause error) error {
	if cause == nil {
		return nil
	}
	var r *refusal
	if errors.As(cause, &r) {
		return r // its text is scrubbed already
	}
	return errors.New(c.scrub(cause.Error(), maxCause))
}

func (c *Client) scrub(text string, limit int) string {
	secrets := []string{c.cfg.Key.Reveal()}
	if password, ok := c.user.Password(); ok {
		secrets = append(secrets, password)
	}
	for _, v := range c.cfg.Headers {
		if len(v) >= 12 { // a short one is no secret, and would blank out words
			secrets = append(secrets, v)
		}
	}
	return model.Scrub(text, limit, secrets...)
}

// netFailure is a request that got no answer at all.
func (c *Client) netFailure(ctx context.Context, err error) error {
	if e := c.ended(ctx); e != nil {
		return e
	}
	name, where := c.cfg.Name, c.where
	var dns *net.DNSError
	var invalid x509.CertificateInvalidError
	var cert *tls.CertificateVerificationError
	var header tls.RecordHeaderError
	switch {
	case errors.As(err, &dns):
		return c.fail(model.Unavailable, 0, err, "%s cannot be reached: the name in %s cannot be resolved. "+
			"Either this machine has no network or DNS, or the base_url is misspelt", name, where)
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return c.fail(model.Unavailable, 0, err, "%s cannot be reached at %s: its certificate is not valid at this time. "+
			"Check this machine's clock first", name, where)
	case errors.As(err, &cert):
		return c.fail(model.Unavailable, 0, err, "%s cannot be reached at %s: its certificate is not trusted. "+
			"A proxy in between, or an own server whose certificate this machine does not know", name, where)
	case errors.As(err, &header):
		return c.fail(model.Unavailable, 0, err, "%s cannot be reached at %s: the server there does not speak TLS; the base_url probably begins with http://", name, where)
	case errors.Is(err, syscall.ECONNREFUSED):
		return c.fail(model.Unavailable, 0, err, "%s cannot be reached: nothing listens at %s. "+
			"If it is a server of your own, start it; otherwise check the base_url", name, where)
	}
	return c.fail(model.Unavailable, 0, err, "%s cannot be reached at %s; check the network of this machine", name, where)
}

// ended gives the error for a call that was ended by a limit of ours or by the
// caller, else nil.
func (c *Client) ended(ctx context.Context) error {
	if ctx.Err() == nil {
		return nil
	}
	cause := context.Cause(ctx)
	if s, ok := errors.AsType[silence](cause); ok {
		return c.fail(model.Timeout, 0, cause, "%s sent nothing for %s, and the call was given up; trying again later or another model may help",
			c.cfg.Name, model.Wait(time.Duration(s)))
	}
	if errors.Is(cause, errCallTime) {
		return c.fail(model.Timeout, 0, cause, "%s did not finish its answer within %s, and the call was given up", c.cfg.Name, model.Wait(c.limits.Call))
	}
	return ctx.Err()
}

// readFailure is an answer that broke while it was read.
func (c *Client) readFailure(ctx context.Context, err error, a *assembly, r *model.Request) error {
	e := c.classifyRead(ctx, err)
	if e, ok := errors.AsType[*model.Error](e); ok {
		e.Usage = usageOf(a, r)
	}
	return e
}

func (c *Client) classifyRead(ctx context.Context, err error) error {
	if errors.Is(err, errTooLong) {
		return c.fail(model.TooLong, 0, err, "%s did not stop: the answer grew over its limit and was cut off. The model is probably caught in a loop; "+
			"ask differently or choose another model", c.cfg.Name)
	}
	if e := c.ended(ctx); e != nil {
		return e
	}
	if upstream, ok := errors.AsType[*upstreamError](err); ok {
		return c.upstreamFailure(upstream.body)
	}
	if _, ok := errors.AsType[*badJSON](err); ok {
		return c.fail(model.Malformed, 0, err, "%s sent something that is no answer, so that it cannot be used", c.cfg.Name)
	}
	return c.fail(model.Malformed, 0, err, "the answer of %s broke off in the middle", c.cfg.Name)
}

// upstreamFailure is an error object that came with status 200; a router's
// code is the status that the upstream gave.
func (c *Client) upstreamFailure(body []byte) *model.Error {
	b := parseErrorBody(body)
	status, err := strconv.Atoi(b.code)
	if err != nil || status < 400 || status > 599 {
		return c.fail(model.Unavailable, 0, &refusal{b.param, b.code, c.scrub(b.text(), maxCause)},
			"%s broke the answer off because of an error of its own%s", c.cfg.Name, c.quote(b))
	}
	return c.explain(status, b, &model.Request{})
}

// statusFailure is an answer with another status than 200.
func (c *Client) statusFailure(resp *http.Response, w *watch, r *model.Request) error {
	const patience = 10 * time.Second
	w.expect(patience, silence(patience))
	body, _ := io.ReadAll(io.LimitReader(resp.Body, maxErrorBody))
	b := parseErrorBody(body)
	if resp.StatusCode < 400 {
		return c.fail(model.NoModel, resp.StatusCode, nil, "%s answered with HTTP %d (%s) at %s: its API has moved; correct the base_url in config.yaml",
			c.cfg.Name, resp.StatusCode, http.StatusText(resp.StatusCode), c.where)
	}
	e := c.explain(resp.StatusCode, b, r)
	e.RetryAfter = model.RetryAfter(resp.Header, c.now())
	if e.Kind == model.RateLimited && e.RetryAfter > 0 {
		e.Message += "; it asks to wait " + model.Wait(e.RetryAfter)
	}
	return e
}

// explain makes the error of a status: its kind, and a sentence that says what
// to do.
func (c *Client) explain(status int, b errorBody, r *model.Request) *model.Error {
	kind := kindOf(status, b)
	name := c.cfg.Name
	key := "no key is set for it; run `hermes model`, or set the key in .env"
	if c.cfg.Key.IsSet() {
		key = "the key stands in " + c.keyOrigin()
	}
	modelName := r.Model
	if modelName == "" {
		modelName = c.cfg.Model
	}
	var text string
	switch kind {
	case model.Auth:
		text = "%s refused the key (HTTP %d): it is missing, wrong or revoked; %s"
		if status == http.StatusForbidden {
			text = "%s refused access (HTTP %d): the key may lack the right to this model, or the service is not open to this address; %s"
		}
		text = fmt.Sprintf(text, name, status, key)
	case model.Quota:
		text = fmt.Sprintf("the account at %s has no credit left (HTTP %d): add credit there, or choose another model with `hermes model`; %s", name, status, key)
	case model.NoModel:
		text = fmt.Sprintf("%s does not know the model %q, or the address %s is not that of its API (HTTP %d): check both with `hermes model`", name, modelName, c.where, status)
	case model.TooLarge:
		text = fmt.Sprintf("the conversation is too long for %s at %s (HTTP %d): it must be compressed (/compress) or started anew (/new)", modelName, name, status)
	case model.RateLimited:
		text = fmt.Sprintf("%s limits the rate of calls (HTTP %d)", name, status)
	case model.Timeout:
		text = fmt.Sprintf("%s gave up because of time (HTTP %d); trying again usually helps", name, status)
	case model.Unavailable:
		text = fmt.Sprintf("%s has a fault of its own (HTTP %d); trying again later usually helps", name, status)
	default:
		text = fmt.Sprintf("%s refused the request (HTTP %d); the model %q may not support something in it, for example tools", name, status, modelName)
	}
	switch kind {
	case model.BadRequest, model.NoModel, model.Quota, model.Other:
		text += c.quote(b)
	}
	return &model.Error{Kind: kind, Provider: name, Status: status, Message: text, Cause: &refusal{b.param, b.code, c.scrub(b.text(), maxCause)}}
}

// keyOrigin says where the key stands.
func (c *Client) keyOrigin() string {
	if c.cfg.KeyOrigin == "" {
		return "the configuration"
	}
	return c.cfg.KeyOrigin
}

// quote gives the service's own words as the tail of a message.
func (c *Client) quote(b errorBody) string {
	if b.message == "" {
		return ""
	}
	return fmt.Sprintf(". It said: %q", c.scrub(b.message, maxQuote))
}

// kindOf classifies a status, looking at what the body says.
func kindOf(status int, b errorBody) model.Kind {
	kind := model.KindOfStatus(status)
	low := strings.ToLower(b.message)
	switch {
	case b.code == "insufficient_quota" || b.kind == "insufficient_quota":
		return model.Quota // OpenAI says it with 429, and waiting does not help
	case b.code == "context_length_exceeded" || b.code == "string_above_max_length" || (kind == model.BadRequest && saysTooLong(low)):
		return model.TooLarge
	case kind == model.BadRequest && (b.code == "model_not_found" || b.code == "invalid_model"):
		return model.NoModel
	case kind == model.BadRequest && (b.code == "invalid_api_key" || strings.Contains(low, "api key not valid")):
		return model.Auth // Google says it with 400
	}
	return kind
}

// saysTooLong tells whether a refusal means the context window.
func saysTooLong(low string) bool {
	for _, words := range []string{"context length", "context window", "context size", "maximum context", "prompt is too long",
		"input is too long", "too many tokens", "exceeds the maximum number of tokens", "reduce the length"} {
		if strings.Contains(low, words) {
			return true
		}
	}
	return false
}

// errorBody is what an error's body says, in whatever shape.
type errorBody struct{ message, kind, param, code string }

// text is all of it, for the log.
func (b errorBody) text() string {
	var out []string
	for _, s := range []string{b.message, b.kind, b.code, b.param} {
		if s != "" {
			out = append(out, s)
		}
	}
	if len(out) == 0 {
		return "no explanation given"
	}
	return strings.Join(out, "; ")
}

var title = lazyregexp.New(`(?is)<title[^>]*>(.*?)</title>`)

// parseErrorBody reads OpenAI's error object and its relatives: an error that
// is a string, {"message":…} and {"detail":…} at the top, an array around it
// (Google), the upstream's words in metadata.raw (OpenRouter), and web pages.
func parseErrorBody(body []byte) errorBody {
	type object struct {
		Message  looseText       `json:"message"`
		Detail   looseText       `json:"detail"`
		Type     looseText       `json:"type"`
		Param    looseText       `json:"param"`
		Code     looseText       `json:"code"`
		Error    json.RawMessage `json:"error"`
		Metadata struct {
			Raw looseText `json:"raw"`
		} `json:"metadata"`
	}
	text := strings.TrimSpace(string(body))
	if strings.HasPrefix(text, "[") {
		var list []json.RawMessage
		if json.Unmarshal(body, &list) == nil && len(list) > 0 {
			return parseErrorBody(list[0])
		}
	}
	var o object
	if !strings.HasPrefix(text, "{") || json.Unmarshal(body, &o) != nil {
		if m := title.FindStringSubmatch(text); m != nil {
			return errorBody{message: "a web page: " + m[1]}
		}
		return errorBody{message: text[:min(len(text), 1<<10)]}
	}
	if isError(o.Error) {
		inner := o
		if json.Unmarshal(o.Error, &inner) != nil {
			var words looseText
			_ = json.Unmarshal(o.Error, &words)
			return errorBody{message: string(words)}
		}
		o = inner
	}
	b := errorBody{string(o.Message), string(o.Type), string(o.Param), string(o.Code)}
	if b.message == "" {
		b.message = string(o.Detail)
	}
	if o.Metadata.Raw != "" {
		b.message += " (" + string(o.Metadata.Raw) + ")"
	}
	return b
}
