// Package recall gives the agent session_search: finding what was said in
// earlier sessions. It shows a person their own conversations only.
package recall

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"hermes/internal/domain"
	"hermes/internal/ledger"
	"hermes/internal/tool"
)

const (
	defaultLimit = 10
	maxLimit     = 30
	maxSnippet   = 600 // characters
)

// Sessions is the part of the ledger that is searched.
type Sessions interface {
	Search(ctx context.Context, query string, limit int) ([]ledger.Hit, error)
	Session(ctx context.Context, id domain.SessionID) (domain.Session, error)
}

type args struct {
	Query string `json:"query"`
	Limit int    `json:"limit"`
}

// New gives the tool session_search. zone is the profile's timezone, in which
// times are shown; nil means UTC.
func New(sessions Sessions, zone func() *time.Location) tool.Tool {
	return tool.Tool{
		Name: "session_search", Toolset: "session_search", ReadOnly: true,
		Description: "Search earlier conversations with this user by words, best first. Use it when something from another day is referred to that is not in your memory.",
		Schema: json.RawMessage(`{"type":"object","properties":{
			"query":{"type":"string","description":"Words that were said."},
			"limit":{"type":"integer","description":"Messages to show; 10 when left out, at most 30."}},
			"required":["query"]}`),
		Label: func(raw json.RawMessage) string {
			var a args
			if tool.Decode(raw, &a) != nil {
				return "search conversations"
			}
			return "search conversations: " + a.Query
		},
		Run: func(ctx context.Context, env tool.Env, raw json.RawMessage) (tool.Result, error) {
			var a args
			if err := tool.Decode(raw, &a, "query"); err != nil {
				return tool.Result{}, err
			}
			if a.Limit <= 0 {
				a.Limit = defaultLimit
			}
			a.Limit = min(a.Limit, maxLimit)
			// Hits of other people's sessions are left out afterwards, so more
			// are asked for than are shown.
			hits, err := sessions.Search(ctx, a.Query, 8*a.Limit)
			if err != nil {
				return tool.Result{}, err
			}
			mine, err := visible(ctx, sessions, env, hits, a.Limit)
			if err != nil {
				return tool.Result{}, err
			}
			return tool.Result{Content: show(a.Query, mine, zone())}, nil
		},
	}
}

// visible keeps the hits of sessions that the person behind this turn took part
// in or owns.
func visible(ctx context.Context, sessions Sessions, env tool.Env, hits []ledger.Hit, limit int) ([]ledger.Hit, error) {
	judged := map[domain.SessionID]bool{}
	var out []ledger.Hit
	for _, h := range hits {
		ok, known := judged[h.Session]
		if !known {
			s, err := sessions.Session(ctx, h.Session)
			if err != nil && !domain.IsCode(err, domain.NotFound) {
				return nil, err
			}
			ok = err == nil && h.Session != env.SessionID && mayRead(env, s)
			judged[h.Session] = ok
		}
		if ok && h.Message.Role != domain.RoleSystem {
			if out = append(out, h); len(out) == limit {
				break
			}
		}
	}
	return out, nil
}

// mayRead: the owner's own doors (command line, API, scheduled jobs) read all.
// A chat reads what was said in the same place; a direct chat also reads the
// same person's other direct chats. A group never reads a direct chat.
func mayRead(env tool.Env, s domain.Session) bool {
	switch env.Source.Platform {
	case domain.PlatformCLI, domain.PlatformAPI, domain.PlatformCron:
		return true
	}
	if s.Key == env.SessionKey {
		return true
	}
	return env.Source.ChatType == domain.ChatDM && s.Source.ChatType == domain.ChatDM && env.Source.UserID != "" &&
		s.Source.Platform == env.Source.Platform && s.Source.UserID == env.Source.UserID
}

func show(query string, hits []ledger.Hit, zone *time.Location) string {
	if len(hits) == 0 {
		return fmt.Sprintf("Nothing was found for %q. Try other or fewer words.", query)
	}
	var b strings.Builder
	for _, h := range hits {
		text := h.Snippet
		if text == "" {
			text = h.Message.Content
		}
		if r := []rune(text); len(r) > maxSnippet {
			text = string(r[:maxSnippet]) + "…"
		}
		title := h.Title
		if title == "" {
			title = "untitled"
		}
		fmt.Fprintf(&b, "[%s, session %s (%s), %s]\n%s\n\n", h.Message.At.In(zone).Format("2006-01-02 15:04 MST"), h.Session, title, h.Message.Role, strings.TrimSpace(text))
	}
	return strings.TrimSpace(b.String())
}
