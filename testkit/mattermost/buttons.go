package mattermost

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
)

// attachment is the part of a post's props that holds buttons,
// https://developers.mattermost.com/integrate/plugins/interactive-messages/.
type attachment struct {
	Fallback string   `json:"fallback,omitempty"`
	Actions  []button `json:"actions,omitempty"`
}

type button struct {
	ID          string       `json:"id"`
	Type        string       `json:"type"`
	Name        string       `json:"name"`
	Integration *integration `json:"integration,omitempty"`
}

// integration is what the server keeps to itself.
type integration struct {
	URL     string         `json:"url"`
	Context map[string]any `json:"context"`
}

// keepActions takes what clients must not see out of a post that is being made;
// the caller holds s.mu.
func (s *Server) keepActions(p *post) {
	b, err := json.Marshal(p.Props["attachments"])
	if err != nil {
		return
	}
	var all []attachment
	if json.Unmarshal(b, &all) != nil || len(all) == 0 {
		return
	}
	for i := range all {
		p.buttons = append(p.buttons, all[i].Actions...)
		shown := make([]button, len(all[i].Actions))
		for k, a := range all[i].Actions {
			shown[k] = a
			shown[k].Integration = nil
		}
		all[i].Actions = shown
	}
	p.Props["attachments"] = all
}

// Call is what the server sends to an integration when a button is pressed.
type Call struct {
	URL  string
	Body map[string]any
}

// CallOf gives the call that a press of the n-th button means, for tests that
// change it before it is sent.
func (s *Server) CallOf(by User, post string, n int) Call {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.posts[post]
	a := p.buttons[n]
	return Call{URL: a.Integration.URL, Body: map[string]any{
		"user_id": by.ID, "user_name": by.Username, "channel_id": p.ChannelID, "channel_name": s.channels[p.ChannelID].Name,
		"team_id": "", "team_domain": "", "post_id": p.ID, "trigger_id": s.newID("t"), "type": "", "data_source": "", "context": a.Integration.Context,
	}}
}

// Make makes the call, as the server does it: it knows no key of the
// integration. It gives the status and the body of the answer.
func (c Call) Make(ctx context.Context) (status int, answer string, err error) {
	b, err := json.Marshal(c.Body)
	if err != nil {
		return 0, "", err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.URL, bytes.NewReader(b))
	if err != nil {
		return 0, "", err
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, "", fmt.Errorf("the integration cannot be reached: %w", err)
	}
	defer resp.Body.Close()
	said, err := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
	return resp.StatusCode, string(said), err
}
