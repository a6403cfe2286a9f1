// Package webhook plays both ends of a webhook: services that call (GitHub,
// GitLab, a sender of Standard Webhooks), and a receiver of what is posted. It
// makes and checks signatures on its own, from the services' documentation:
//
//   - https://docs.github.com/en/webhooks/using-webhooks/validating-webhook-deliveries
//   - https://docs.gitlab.com/user/project/integrations/webhooks/
//   - https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
package webhook

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"hermes/testkit/wire"
)

// Call is one call of a route.
type Call struct {
	URL    string
	Body   string
	Header http.Header
}

// GitHub is a call as GitHub makes it.
func GitHub(url, secret, event, delivery, body string) Call {
	h := http.Header{"Content-Type": {"application/json"}}
	h.Set("X-GitHub-Event", event)
	h.Set("X-GitHub-Delivery", delivery)
	h.Set("X-Hub-Signature-256", "sha256="+hex.EncodeToString(sum(secret, body)))
	return Call{url, body, h}
}

// GitLab is a call as GitLab makes it: its token is the secret itself.
func GitLab(url, secret, event, id, body string) Call {
	h := http.Header{"Content-Type": {"application/json"}}
	h.Set("X-Gitlab-Event", event)
	h.Set("X-Gitlab-Event-UUID", id)
	h.Set("X-Gitlab-Token", secret)
	return Call{url, body, h}
}

// Standard is a call as Standard Webhooks lays it down, made at an instant.
func Standard(url, secret, id string, at time.Time, body string) Call {
	h := http.Header{"Content-Type": {"application/json"}}
	stamp := strconv.FormatInt(at.Unix(), 10)
	h.Set("webhook-id", id)
	h.Set("webhook-timestamp", stamp)
	h.Set("webhook-signature", "v1,"+base64.StdEncoding.EncodeToString(sum(key(secret), id+"."+stamp+"."+body)))
	return Call{url, body, h}
}

// Plain is a call whose signature covers the body alone.
func Plain(url, secret, body string) Call {
	h := http.Header{"Content-Type": {"application/json"}}
	h.Set("X-Webhook-Signature", hex.EncodeToString(sum(secret, body)))
	return Call{url, body, h}
}

// Answer is what a call was answered.
type Answer struct {
	Status int
	Header http.Header
	Body   map[string]string
}

// Send makes the call, on a connection of its own.
func (c Call) Send(ctx context.Context) (Answer, error) {
	return c.SendOver(ctx, (&net.Dialer{}).DialContext)
}

// SendOver makes the call on a connection that dial makes.
func (c Call) SendOver(ctx context.Context, dial func(ctx context.Context, network, addr string) (net.Conn, error)) (Answer, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.URL, strings.NewReader(c.Body))
	if err != nil {
		return Answer{}, err
	}
	req.Header = c.Header.Clone()
	t := &http.Transport{DisableKeepAlives: true, DialContext: dial}
	defer t.CloseIdleConnections()
	res, err := (&http.Client{Transport: t}).Do(req)
	if err != nil {
		return Answer{}, err
	}
	defer res.Body.Close()
	a := Answer{Status: res.StatusCode, Header: res.Header}
	text, err := io.ReadAll(io.LimitReader(res.Body, 1<<20))
	if err == nil && strings.HasPrefix(res.Header.Get("Content-Type"), "application/json") {
		err = json.Unmarshal(text, &a.Body)
	}
	return a, err
}

// Post is what a receiver got.
type Post struct {
	ID      string // of the header
	Signed  bool   // with the receiver's secret, at a time within five minutes
	Route   string
	Event   string
	Text    string
	Raw     string
	Dropped bool // its id was known
}

// Receiver takes posts and checks their signatures. Its faults are those of "post".
type Receiver struct {
	*wire.Server
	secret string

	mu    sync.Mutex
	posts []Post
}

// NewReceiver starts a receiver on a port of its own, or on l where it is not nil.
func NewReceiver(secret string, l net.Listener) (*Receiver, error) {
	r := &Receiver{secret: secret}
	var err error
	r.Server, err = wire.New(wire.Options{Name: "webhook", Listener: l, State: &r.mu})
	if err != nil {
		return nil, err
	}
	return r, r.Start(http.HandlerFunc(r.serve))
}

// URL is where posts go.
func (r *Receiver) URL() string { return r.Server.URL() + "/in" }

// serve takes one post.
func (r *Receiver) serve(w http.ResponseWriter, req *http.Request) {
	body, err := io.ReadAll(io.LimitReader(req.Body, 4<<20))
	if err != nil {
		return
	}
	r.Serve(w, req, "post", "", func(http.ResponseWriter) { r.take(req.Header, string(body)) })
}

func (r *Receiver) take(h http.Header, body string) {
	var in struct {
		ID   string `json:"id"`
		Data struct {
			Route   string `json:"route"`
			EventID string `json:"event_id"`
			Text    string `json:"text"`
		} `json:"data"`
	}
	_ = json.Unmarshal([]byte(body), &in)
	id := h.Get("webhook-id")
	p := Post{ID: id, Signed: in.ID == id && r.signed(h, body), Route: in.Data.Route, Event: in.Data.EventID, Text: in.Data.Text, Raw: body}
	r.mu.Lock()
	defer r.mu.Unlock()
	p.Dropped = slices.ContainsFunc(r.posts, func(before Post) bool { return before.ID == id })
	r.posts = append(r.posts, p)
	r.Touch()
}

func (r *Receiver) signed(h http.Header, body string) bool {
	stamp := h.Get("webhook-timestamp")
	n, err := strconv.ParseInt(stamp, 10, 64)
	if err != nil || time.Since(time.Unix(n, 0)).Abs() > 5*time.Minute {
		return false
	}
	want := "v1," + base64.StdEncoding.EncodeToString(sum(key(r.secret), h.Get("webhook-id")+"."+stamp+"."+body))
	for _, one := range strings.Fields(h.Get("webhook-signature")) {
		if hmac.Equal([]byte(one), []byte(want)) {
			return true
		}
	}
	return false
}

// Posts are those that were taken.
func (r *Receiver) Posts() []Post {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]Post(nil), r.posts...)
}

// WaitFor waits for a post.
func (r *Receiver) WaitFor(ctx context.Context, ok func(Post) bool) (found Post, err error) {
	err = r.Until(ctx, func() bool {
		i := slices.IndexFunc(r.posts, ok)
		if i >= 0 {
			found = r.posts[i]
		}
		return i >= 0
	})
	if err != nil {
		err = fmt.Errorf("no such post among %d: %w", len(r.Posts()), err)
	}
	return found, err
}

// key is what a secret signs with: one that begins with whsec_ is base64.
func key(secret string) string {
	if text, ok := strings.CutPrefix(secret, "whsec_"); ok {
		if b, err := base64.StdEncoding.DecodeString(text); err == nil {
			return string(b)
		}
	}
	return secret
}

func sum(key, text string) []byte {
	h := hmac.New(sha256.New, []byte(key))
	_, _ = io.WriteString(h, text)
	return h.Sum(nil)
}

// With adds a header.
func (c Call) With(name, value string) Call {
	c.Header = c.Header.Clone()
	c.Header.Set(name, value)
	return c
}
