package discord

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/netip"
	"net/url"
	"time"

	"github.com/bwmarrin/discordgo"

	"hermes/internal/network"
	"hermes/internal/platform"
	"hermes/internal/platform/httpcall"
	"hermes/internal/secret"
)

const maxReply = 16 << 20 // bytes of an answer; a hundred messages are far below

// newFileClient makes the client for attachments, whose addresses the service
// gives: it connects to no private address, unless the service itself has one.
// Through a proxy the proxy decides.
func newFileClient(c Config) *http.Client {
	control := network.PublicOnly
	if c.Proxy != "" || privateHost(c.BaseURL) {
		control = nil
	}
	return &http.Client{Transport: httpcall.NewTransport(c.Proxy, control)}
}

// privateHost tells whether the API itself is configured at a private address.
func privateHost(base string) bool {
	u, err := url.Parse(base)
	if err != nil {
		return false
	}
	ip, err := netip.ParseAddr(u.Hostname())
	return u.Hostname() == "localhost" || err == nil && !network.Public(ip)
}

// call is what is known of one request.
type call struct {
	httpcall.Call
	what   string   // in words, for people
	reply  apiError // of an answer that is no success
	isJSON bool     // reply was in the API's form
}

// apiError is the body of an error,
// https://discord.com/developers/docs/reference#error-messages, and of a 429,
// https://discord.com/developers/docs/topics/rate-limits#exceeding-a-rate-limit.
type apiError struct {
	Code       int             `json:"code"`
	Message    string          `json:"message"`
	Errors     json.RawMessage `json:"errors"`
	RetryAfter float64         `json:"retry_after"` // seconds
	Global     bool            `json:"global"`
}

type callKey struct{}

// wire is the transport under discordgo. It notes in the request's call what
// became of it and bounds the answer. The rate limit headers are taken out of
// what the library sees, because its limiter sleeps where nothing cancels it;
// limits does that work.
type wire struct{ next *http.Client }

// RoundTrip sends a request.
func (w *wire) RoundTrip(req *http.Request) (*http.Response, error) {
	c, _ := req.Context().Value(callKey{}).(*call)
	if c == nil {
		c = &call{}
	}
	resp := c.Do(w.next, req)
	if resp == nil {
		return nil, c.Err
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxReply))
	resp.Body.Close()
	if err != nil {
		c.Status, c.Err = 0, err // half an answer is none
		return nil, err
	}
	if !c.OK() {
		c.isJSON = json.Unmarshal(body, &c.reply) == nil && c.reply.Message != ""
	}
	resp.Body, resp.Header = io.NopCloser(bytes.NewReader(body)), http.Header{}
	return resp, nil
}

// request is one call of the API.
type request struct {
	what        string // in words, for people
	method      string
	route       string // of the rate limit: the path without its minor ids
	path        string // under the API's root
	contentType string // "" means JSON
	body        any    // []byte with a contentType, else what is to be JSON; nil for none
	timeout     time.Duration
}

// do makes a request. What its rate limit asks for is waited for where it is
// short, and else answered with RetryAfter before anything is sent.
func (a *Adapter) do(ctx context.Context, r request) ([]byte, *call, *platform.Error) {
	c := &call{what: r.what}
	if wait, global := a.limits.wait(r.method + r.route); wait > a.pause.inner {
		return nil, c, limited(r.what, wait, global)
	} else if !platform.Sleep(ctx, wait) {
		c.Err = ctx.Err()
		return nil, c, a.classify(c)
	}
	body, contentType := []byte(nil), "application/json"
	switch b := r.body.(type) {
	case nil:
	case []byte:
		body, contentType = b, r.contentType
	default:
		var err error
		if body, err = json.Marshal(b); err != nil {
			return nil, c, &platform.Error{Kind: platform.GiveUp, Code: "discord_request", Reason: "the request cannot be written", Cause: err}
		}
	}
	if r.timeout == 0 {
		r.timeout = a.cfg.SendTimeout
	}
	ctx, cancel := context.WithTimeout(context.WithValue(ctx, callKey{}, c), r.timeout)
	defer cancel()
	// The library's own limiter is used for one request only: it would hold a
	// lock over it, and keep a bucket for every URL for ever.
	bucket := discordgo.NewRatelimiter().LockBucket(r.route)
	answer, err := a.rest.RequestWithLockedBucket(r.method, a.cfg.BaseURL+apiPath+r.path, contentType, body, bucket, 0, discordgo.WithContext(ctx))
	a.limits.note(r.method+r.route, c)
	if c.OK() {
		return answer, c, nil
	}
	if c.Err == nil && c.Status == 0 {
		c.Err = err
	}
	return nil, c, a.classify(c)
}

// get makes a GET request and decodes its answer.
func (a *Adapter) get(ctx context.Context, what, route, path string, into any) *platform.Error {
	body, _, perr := a.do(ctx, request{what: what, method: http.MethodGet, route: route, path: path})
	if perr != nil {
		perr.Uncertain = false // it repeats no harm
		return perr
	}
	if err := json.Unmarshal(body, into); err != nil {
		return &platform.Error{Kind: platform.Retry, Code: "discord_garbled", Reason: "Discord's answer to " + what + " could not be read: it is asked again", Cause: err}
	}
	return nil
}

// scrub takes the token out of an error's text.
func (a *Adapter) scrub(err error) error { return secret.HideIn(err, secret.Value(a.cfg.token())) }

// scrubText takes the token out of a text.
func (a *Adapter) scrubText(s string) string { return secret.Hide(s, secret.Value(a.cfg.token())) }
