// Package openai calls any service that speaks OpenAI's chat completions:
// OpenRouter, OpenAI, local servers and many more.
//
// It is a thin client over net/http, because what a daemon needs of a stream
// is what client libraries leave out: every size bounded, a truncated stream
// told apart from a finished one, silence cut off, Retry-After kept, and a few
// kilobytes of memory a stream.
//
// Source: https://platform.openai.com/docs/api-reference/chat
package openai

import (
	"context"
	"encoding/base64"
	"fmt"
	"io"
	"log/slog"
	"mime"
	"net/http"
	"net/url"
	"strings"
	"time"

	"hermes/internal/domain"
	"hermes/internal/model"
	"hermes/internal/secret"
)

// Limits bound one call. Zero fields take the defaults.
type Limits struct {
	AnswerBytes   int           // text and reasoning of an answer, each; 4 MiB
	ArgumentBytes int           // arguments of one tool call; 1 MiB
	ToolCalls     int           // of one answer; 128
	StreamBytes   int64         // of a whole response on the wire; 64 MiB
	FirstByte     time.Duration // until the first byte of a streamed answer; 5 min, since local servers read long prompts slowly
	Idle          time.Duration // between two pieces of a stream; 120 s
	Call          time.Duration // the whole call; 30 min
}

func (l Limits) filled() Limits {
	fill(&l.AnswerBytes, 4<<20)
	fill(&l.ArgumentBytes, 1<<20)
	fill(&l.ToolCalls, 128)
	fill(&l.StreamBytes, 64<<20)
	fill(&l.FirstByte, 5*time.Minute)
	fill(&l.Idle, 120*time.Second)
	fill(&l.Call, 30*time.Minute)
	return l
}

func fill[T int | int64 | time.Duration](v *T, to T) {
	if *v <= 0 {
		*v = to
	}
}

// Config says which service and how to call it.
type Config struct {
	Name      string       // as people know it: "openrouter"
	BaseURL   string       // up to and without /chat/completions
	Key       secret.Value // "" sends none
	KeyOrigin string       // where the key stands, for error messages
	Model     string       // default for requests that name none
	MaxTokens int          // default for requests that name none; 0 leaves it to the service
	Headers   map[string]string
	Limits    Limits
}

// Deps are what a client shares with others.
type Deps struct {
	Transport http.RoundTripper // shared; nil makes one by NewTransport
	Log       *slog.Logger      // nil logs nothing
	Now       func() time.Time  // nil is time.Now
}

// Client calls one service. It is safe for concurrent use.
type Client struct {
	cfg       Config
	limits    Limits
	endpoint  *url.URL
	user      *url.Userinfo // of the base URL
	where     string        // scheme and host, for messages
	whole     http.Header   // of requests whose answer comes whole
	stream    http.Header   // of requests whose answer is streamed
	transport http.RoundTripper
	log       *slog.Logger
	now       func() time.Time
	quirks    *quirkBook
	tools     toolBook
}

// New makes a client. It connects to nothing. It fails with domain.Config when
// the base URL is no http or https URL.
func New(cfg Config, deps Deps) (*Client, error) {
	u, err := url.Parse(strings.TrimRight(strings.TrimSpace(cfg.BaseURL), "/"))
	if err != nil || u.Host == "" || (u.Scheme != "http" && u.Scheme != "https") {
		return nil, domain.E(domain.Config, nil, "the base_url of provider %s is no http or https address, so that it cannot be called: "+
			"correct it in config.yaml, for example https://openrouter.ai/api/v1", cfg.Name)
	}
	c := &Client{cfg: cfg, limits: cfg.Limits.filled(), user: u.User, where: u.Scheme + "://" + u.Host,
		transport: deps.Transport, log: deps.Log, now: deps.Now, quirks: newQuirkBook(u.Hostname())}
	u.User = nil
	if !strings.HasSuffix(u.Path, "/chat/completions") {
		u.Path += "/chat/completions"
	}
	c.endpoint = u
	c.whole, c.stream = newHeader(&cfg, c.user, "application/json"), newHeader(&cfg, c.user, "text/event-stream")
	if c.transport == nil {
		c.transport = NewTransport()
	}
	if c.log == nil {
		c.log = slog.New(slog.DiscardHandler)
	}
	if c.now == nil {
		c.now = time.Now
	}
	return c, nil
}

// Name gives the configured name.
func (c *Client) Name() string { return c.cfg.Name }

// Complete makes one call; see model.Provider. The answer is streamed from the
// service when onDelta is not nil. A request that the service refuses for an
// option that it does not know is made again without the option, which is
// remembered for the model.
func (c *Client) Complete(ctx context.Context, r *model.Request, onDelta func(model.Delta)) (*model.Answer, error) {
	r = c.withDefaults(r)
	const options = 4 // that quirks know of
	for tries := 0; ; tries++ {
		q := c.quirks.of(r.Model)
		answer, err := c.call(ctx, r, q, onDelta)
		if err == nil {
			return answer, nil
		}
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if tries == options || !c.learn(q, err, r) {
			return nil, err
		}
	}
}

// withDefaults gives the request with what it leaves to the client filled in.
func (c *Client) withDefaults(r *model.Request) *model.Request {
	full := *r
	if full.Model == "" {
		full.Model = c.cfg.Model
	}
	if full.MaxTokens == 0 {
		full.MaxTokens = c.cfg.MaxTokens
	}
	return &full
}

// learn remembers the option that the service refused, and tells whether there
// was one.
func (c *Client) learn(q quirks, err error, r *model.Request) bool {
	learned, what := q.learn(err, r)
	if what == "" {
		return false
	}
	c.quirks.set(r.Model, learned)
	c.log.Info("model refuses an option; calling again without it", "provider", c.cfg.Name, "model", r.Model, "option", what)
	return true
}

// call makes one HTTP request and reads its answer.
func (c *Client) call(ctx context.Context, r *model.Request, q quirks, onDelta func(model.Delta)) (*model.Answer, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	first := c.limits.FirstByte
	if onDelta == nil {
		first = c.limits.Call // nothing comes before the whole answer
	}
	w := newWatch(cancel, first, c.limits)
	defer w.stop()
	resp, err := c.send(ctx, r, q, onDelta != nil)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, c.statusFailure(resp, w, r)
	}
	kind, err := c.contentType(resp)
	if err != nil {
		return nil, err
	}
	in, a := w.reader(resp.Body), newAssembly(&c.limits)
	if onDelta != nil && kind != "application/json" {
		err = readStream(in, a, onDelta)
	} else {
		err = readWhole(in, a, onDelta)
	}
	if err == nil {
		err = a.flush(onDelta)
	}
	if err != nil {
		return nil, c.readFailure(ctx, err, a, r)
	}
	drain(in)
	return c.finish(a, r)
}

// send makes the HTTP request and gives the response, whatever its status.
func (c *Client) send(ctx context.Context, r *model.Request, q quirks, stream bool) (*http.Response, error) {
	body, err := c.encode(r, q, stream)
	if err != nil {
		return nil, c.fail(model.Other, 0, err, "the request to %s could not be written as JSON; this is a defect of hermes", c.cfg.Name)
	}
	resp, err := c.transport.RoundTrip(c.request(ctx, body, stream))
	if err != nil {
		return nil, c.netFailure(ctx, err)
	}
	body.release()
	return resp, nil
}

// contentType gives the media type of a response; a web page is an error.
func (c *Client) contentType(resp *http.Response) (string, error) {
	kind, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	if kind == "text/html" {
		return "", c.fail(model.Malformed, resp.StatusCode, nil, "%s answered with a web page in place of an answer: "+
			"the base_url %s is probably not that of its API; many end in /v1", c.cfg.Name, c.where)
	}
	return kind, nil
}

// request builds the HTTP request. Its address and header are shared by all
// requests: a RoundTripper must not change them.
func (c *Client) request(ctx context.Context, body *payload, stream bool) *http.Request {
	req := &http.Request{Method: http.MethodPost, URL: c.endpoint, Host: c.endpoint.Host, Header: c.whole, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Body: body.open(), GetBody: func() (io.ReadCloser, error) { return body.open(), nil }, ContentLength: body.size}
	if stream {
		req.Header = c.stream
	}
	return req.WithContext(ctx)
}

// newHeader makes the header of every request that accepts a media type. user
// is that of the base URL.
func newHeader(cfg *Config, user *url.Userinfo, accept string) http.Header {
	h := http.Header{}
	h.Set("Content-Type", "application/json")
	h.Set("User-Agent", "hermes")
	h.Set("Accept", accept)
	switch {
	case cfg.Key.IsSet():
		h.Set("Authorization", "Bearer "+cfg.Key.Reveal())
	case user != nil:
		password, _ := user.Password()
		h.Set("Authorization", "Basic "+base64.StdEncoding.EncodeToString([]byte(user.Username()+":"+password)))
	}
	for k, v := range cfg.Headers {
		h.Set(k, v)
	}
	// An empty value sends nothing and lets net/http repeat the request on a
	// fresh connection when a kept-alive one turns out to be dead.
	h["Idempotency-Key"] = []string{}
	return h
}

// finish checks a complete answer and gives it.
func (c *Client) finish(a *assembly, r *model.Request) (*model.Answer, error) {
	answer := a.answer(c.cfg.Name)
	answer.Provider = c.cfg.Name
	if answer.Model == "" {
		answer.Model = r.Model
	}
	answer.Usage = usageOf(a, r)
	var e *model.Error
	switch {
	case answer.Finish == finishError:
		e = c.fail(model.Unavailable, 0, nil, "%s broke the answer off because of an error of its own; trying again later usually helps", c.cfg.Name)
	case a.nameless():
		e = c.fail(model.Malformed, 0, nil, "%s asked for a tool without naming it, so that the answer cannot be used", c.cfg.Name)
	case len(answer.ToolCalls) > 0 || strings.TrimSpace(answer.Text) != "":
		return answer, nil
	case answer.Finish == model.FinishFilter:
		e = c.fail(model.Empty, 0, nil, "%s's content filter withheld the whole answer; put the question differently or choose another model", c.cfg.Name)
	case answer.Finish == model.FinishLength:
		e = c.fail(model.Empty, 0, nil, "%s used up its token limit before it said anything: raise model.max_tokens in config.yaml", c.cfg.Name)
	default:
		e = c.fail(model.Empty, 0, nil, "%s gave an empty answer", c.cfg.Name)
	}
	e.Usage = answer.Usage
	return nil, e
}

// usageOf gives the usage that the service reported, or an estimate.
func usageOf(a *assembly, r *model.Request) domain.Usage {
	u := domain.Usage{Calls: 1}
	if a.usage != nil {
		u.InputTokens, u.OutputTokens, u.CachedTokens = a.usage.Prompt, a.usage.Completion, a.usage.cached()
		return u
	}
	u.InputTokens = int64(model.EstimateRequest(r))
	u.OutputTokens = int64(model.EstimateTokens(a.text.String()) + model.EstimateTokens(a.reasoning.String()))
	for _, c := range a.calls {
		u.OutputTokens += int64(model.EstimateTokens(c.args.String()))
	}
	return u
}

// fail makes an error of this provider.
func (c *Client) fail(kind model.Kind, status int, cause error, format string, args ...any) *model.Error {
	return &model.Error{Kind: kind, Provider: c.cfg.Name, Status: status, Message: fmt.Sprintf(format, args...), Cause: c.scrubbed(cause)}
}
