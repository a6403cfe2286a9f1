package mattermost

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strings"

	"hermes/internal/platform"
	"hermes/internal/platform/httpcall"
	"hermes/internal/secret"
)

const (
	maxReply     = 32 << 20 // bytes of an answer; a thousand posts are far below
	maxErrorBody = 64 << 10 // bytes kept of a refusal
)

// wire makes requests to one server as one account.
type wire struct {
	http  *http.Client
	base  string // of the API, without a trailing slash
	token secret.Value
}

func newWire(c *http.Client, server string, token secret.Value) *wire {
	return &wire{http: c, base: server + "/api/v4", token: token}
}

// call is what became of one request.
type call struct {
	httpcall.Call
	what   string   // for people: "GET /users/me"
	reply  apiError // of an answer that is a refusal
	isJSON bool     // reply was in the API's form
}

// apiError is how the server refuses, https://api.mattermost.com/#tag/errors.
type apiError struct {
	ID      string `json:"id"`
	Message string `json:"message"`
	Status  int    `json:"status_code"`
}

// request is one request to be made.
type request struct {
	method, path string
	body         io.Reader // what can be written again has a type that net/http knows
	size         int64     // of a body that net/http cannot measure
	contentType  string
}

// do makes a request. The answer's body is the caller's when it succeeded.
func (w *wire) do(ctx context.Context, r request) (*http.Response, *call) {
	path, _, _ := strings.Cut(r.path, "?")
	c := &call{what: r.method + " " + path}
	req, err := http.NewRequestWithContext(ctx, r.method, w.base+r.path, r.body)
	if err != nil {
		c.Err = errors.New("the request could not be made")
		return nil, c
	}
	if r.size > 0 {
		req.ContentLength = r.size
	}
	if r.contentType != "" {
		req.Header.Set("Content-Type", r.contentType)
	}
	req.Header.Set("Authorization", "Bearer "+w.token.Reveal())
	req.Header.Set("X-Requested-With", "XMLHttpRequest") // without it some requests are taken for forged ones
	resp := c.Do(w.http, req)
	if resp == nil {
		return nil, c
	}
	if c.OK() {
		return resp, c
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxErrorBody))
	resp.Body.Close()
	c.Err = err
	c.isJSON = json.Unmarshal(body, &c.reply) == nil && (c.reply.ID != "" || c.reply.Message != "")
	return nil, c
}

// call makes a request of JSON and reads its answer into out, unless it is nil.
func (a *Adapter) call(ctx context.Context, method, path string, in, out any) (*call, *platform.Error) {
	ctx, cancel := context.WithTimeout(ctx, a.cfg.SendTimeout)
	defer cancel()
	r := request{method: method, path: path}
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			return nil, &platform.Error{Kind: platform.GiveUp, Code: "mattermost_request", Reason: "the request could not be written", Cause: err}
		}
		r.body, r.contentType = bytes.NewReader(b), "application/json"
	}
	resp, c := a.wire.do(ctx, r)
	if resp == nil {
		return c, a.classify(c)
	}
	return c, a.decode(c, resp, out)
}

// decode reads a successful answer.
func (a *Adapter) decode(c *call, resp *http.Response, out any) *platform.Error {
	defer resp.Body.Close()
	body, err := httpcall.ReadAll(resp.Body, maxReply)
	if err == nil && out != nil {
		err = json.Unmarshal(body, out)
		if err != nil {
			c.isJSON = json.Valid(body)
			err = errors.New("the answer is not what the API answers")
		}
	}
	if err != nil {
		c.Err = err
		return a.classify(c)
	}
	return nil
}

// user is a user, https://api.mattermost.com/#tag/users.
type user struct {
	ID        string `json:"id"`
	Username  string `json:"username"`
	Nickname  string `json:"nickname"`
	FirstName string `json:"first_name"`
	LastName  string `json:"last_name"`
	IsBot     bool   `json:"is_bot"`
}

// channel is a channel, https://api.mattermost.com/#tag/channels.
type channel struct {
	ID          string `json:"id"`
	TeamID      string `json:"team_id"` // "" for D and G
	Type        string `json:"type"`    // D direct, G group, O open, P private
	Name        string `json:"name"`
	DisplayName string `json:"display_name"`
	LastPostAt  int64  `json:"last_post_at"` // milliseconds
	DeleteAt    int64  `json:"delete_at"`
}

// post is a post, https://api.mattermost.com/#tag/posts.
type post struct {
	ID        string         `json:"id"`
	CreateAt  int64          `json:"create_at"` // milliseconds
	DeleteAt  int64          `json:"delete_at"`
	UserID    string         `json:"user_id"`
	ChannelID string         `json:"channel_id"`
	RootID    string         `json:"root_id"`
	Message   string         `json:"message"`
	Type      string         `json:"type"` // "" for what people write
	Props     map[string]any `json:"props"`
	FileIDs   []string       `json:"file_ids"`
	Metadata  struct {
		Files []fileInfo `json:"files"`
	} `json:"metadata"`
}

// fileInfo describes a file, https://api.mattermost.com/#tag/files.
type fileInfo struct {
	ID       string `json:"id"`
	Name     string `json:"name"`
	Size     int64  `json:"size"` // bytes
	MIMEType string `json:"mime_type"`
}

// postList is how posts are listed; Order has the newest first.
type postList struct {
	Order []string         `json:"order"`
	Posts map[string]*post `json:"posts"`
}

// isID tells whether s looks like one of the server's ids, which are put into
// paths: 26 letters and digits.
func isID(s string) bool {
	if len(s) != 26 {
		return false
	}
	for _, r := range s {
		if !(r >= 'a' && r <= 'z' || r >= '0' && r <= '9') {
			return false
		}
	}
	return true
}
