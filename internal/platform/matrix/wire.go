package matrix

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"hermes/internal/platform"
	"hermes/internal/platform/httpcall"
	"hermes/internal/secret"
)

const (
	apiPath      = "/_matrix/client"
	maxReply     = 64 << 20 // bytes of an answer; the first sync of an account in thousands of rooms is below
	maxErrorBody = 64 << 10 // bytes kept of a refusal
)

// request is one request to be made.
type request struct {
	method, path string // path from the API's version on, escaped
	query        url.Values
	in           any           // sent as JSON, unless nil
	body         io.Reader     // in place of in
	size         int64         // of body
	contentType  string        // of body
	timeout      time.Duration // 0 means the configured one
	public       bool          // needs no token
}

// call is what became of one request.
type call struct {
	httpcall.Call
	what   string   // for people: "GET /v3/sync"
	reply  apiError // of an answer that is a refusal
	isJSON bool     // reply was in the API's form
	token  secret.Value
}

// apiError is how a homeserver refuses,
// https://spec.matrix.org/v1.15/client-server-api/#standard-error-response.
type apiError struct {
	Code       string `json:"errcode"`
	Message    string `json:"error"`
	RetryAfter int64  `json:"retry_after_ms"`
	SoftLogout bool   `json:"soft_logout"`
	Consent    string `json:"consent_uri"`
	Admin      string `json:"admin_contact"`
}

// get reads from the homeserver.
func (a *Adapter) get(ctx context.Context, path string, query url.Values, out any) (*call, *platform.Error) {
	return a.call(ctx, request{method: http.MethodGet, path: path, query: query}, out)
}

// call makes a request and reads its answer into out, unless it is nil. A token
// that the homeserver has forgotten is replaced once where there is a password.
func (a *Adapter) call(ctx context.Context, r request, out any) (*call, *platform.Error) {
	c, e := a.once(ctx, r, out)
	if e == nil || r.public || r.body != nil || !c.forgotten() || !a.canLogIn() {
		return c, e
	}
	if e := a.renew(ctx, c.token); e != nil {
		return c, e
	}
	return a.once(ctx, r, out)
}

func (a *Adapter) once(ctx context.Context, r request, out any) (*call, *platform.Error) {
	if r.in != nil {
		b, err := json.Marshal(r.in)
		if err != nil {
			return &call{}, &platform.Error{Kind: platform.GiveUp, Code: "matrix_request", Reason: "the request could not be written", Cause: err}
		}
		r.body, r.contentType = bytes.NewReader(b), "application/json"
	}
	if r.timeout == 0 {
		r.timeout = a.cfg.SendTimeout
	}
	ctx, cancel := context.WithTimeout(ctx, r.timeout)
	defer cancel()
	resp, c, e := a.do(ctx, r)
	if e != nil {
		return c, e
	}
	defer resp.Body.Close()
	body, err := httpcall.ReadAll(resp.Body, maxReply)
	if err == nil && out != nil && !lenient(body, out) {
		c.isJSON = json.Valid(body)
		err = errors.New("the answer is not what the API answers")
	}
	if err != nil {
		c.Err = err
		return c, a.classify(c)
	}
	return c, nil
}

// do makes a request. The answer's body is the caller's when it succeeded.
func (a *Adapter) do(ctx context.Context, r request) (*http.Response, *call, *platform.Error) {
	c := &call{what: r.method + " " + pathForPeople(r.path)}
	if !r.public {
		var e *platform.Error
		if c.token, e = a.token(ctx); e != nil {
			return nil, c, e
		}
	}
	address := a.cfg.Homeserver + r.path
	if !strings.HasPrefix(r.path, "/_matrix/") {
		address = a.cfg.Homeserver + apiPath + r.path
	}
	if len(r.query) > 0 {
		address += "?" + r.query.Encode()
	}
	req, err := http.NewRequestWithContext(ctx, r.method, address, r.body)
	if err != nil {
		c.Err = errors.New("the request could not be made")
		return nil, c, a.classify(c)
	}
	if r.size > 0 {
		req.ContentLength = r.size
	}
	if r.contentType != "" {
		req.Header.Set("Content-Type", r.contentType)
	}
	if c.token.IsSet() {
		req.Header.Set("Authorization", "Bearer "+c.token.Reveal())
	}
	resp := c.Do(a.http, req)
	if resp == nil {
		return nil, c, a.classify(c)
	}
	if c.OK() {
		return resp, c, nil
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxErrorBody))
	resp.Body.Close()
	c.Err = err
	c.isJSON = json.Unmarshal(body, &c.reply) == nil && c.reply.Code != ""
	return nil, c, a.classify(c)
}

// pathForPeople leaves of a path what says which request it was.
func pathForPeople(path string) string {
	if s, err := url.PathUnescape(path); err == nil {
		path = s
	}
	var kept []string
	for _, s := range strings.Split(strings.TrimPrefix(path, "/_matrix"), "/") {
		if s != "" && !strings.ContainsAny(s[:1], "!$#@") {
			kept = append(kept, s)
		}
	}
	return "/" + strings.Join(kept[:min(len(kept), 5)], "/")
}
