package recall

import (
	"context"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"hermes/internal/domain"
	"hermes/internal/ledger"
	"hermes/internal/tool"
)

// archive is a set of sessions with one message each.
type archive map[domain.SessionID]domain.Session

func (a archive) Session(_ context.Context, id domain.SessionID) (domain.Session, error) {
	s, ok := a[id]
	if !ok {
		return s, domain.E(domain.NotFound, nil, "no such session")
	}
	return s, nil
}

func (a archive) Search(_ context.Context, query string, limit int) ([]ledger.Hit, error) {
	var out []ledger.Hit
	for _, id := range []domain.SessionID{"now", "mine", "mine2", "group", "theirs", "gone"} {
		out = append(out, ledger.Hit{Session: id, Title: "t", Snippet: query + " in " + string(id),
			Message: domain.Message{Role: domain.RoleUser, At: time.Date(2026, 3, 1, 23, 30, 0, 0, time.UTC)}})
	}
	return out[:min(limit, len(out))], nil
}

func TestSearchShowsOnlyOwnConversations(t *testing.T) {
	source := func(kind domain.ChatType, chat, user string) domain.Source {
		return domain.Source{Address: domain.Address{Platform: "telegram", ChatID: chat}, ChatType: kind, UserID: user}
	}
	session := func(s domain.Source) domain.Session {
		return domain.Session{Key: domain.KeyFor(s, false, false), Source: s}
	}
	me, group := source(domain.ChatDM, "1", "1"), source(domain.ChatGroup, "-5", "1")
	a := archive{"now": session(me), "mine": session(me), "mine2": session(source(domain.ChatDM, "7", "1")), "group": session(group), "theirs": session(source(domain.ChatDM, "2", "2"))}
	x := New(a, func() *time.Location { return time.FixedZone("KST", 9*3600) })
	if _, err := tool.NewRegistry(x); err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		env  tool.Env
		want string
	}{
		"a direct chat": {tool.Env{Source: me, SessionKey: domain.KeyFor(me, false, false), SessionID: "now"}, "mine mine2"},
		"a group":       {tool.Env{Source: group, SessionKey: domain.KeyFor(group, false, false), SessionID: "now"}, "group"},
		"the owner":     {tool.Env{Source: domain.Source{Address: domain.Address{Platform: domain.PlatformCLI}}, SessionID: "now"}, "mine mine2 group theirs"},
	} {
		res, err := x.Run(t.Context(), tt.env, json.RawMessage(`{"query":"atlas"}`))
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, id := range []string{"now", "mine", "mine2", "group", "theirs", "gone"} {
			if strings.Contains(res.Content, "session "+id+" ") {
				got = append(got, id)
			}
		}
		if strings.Join(got, " ") != tt.want || !strings.Contains(res.Content, "2026-03-02 08:30 KST") {
			t.Errorf("%s: got %v, want %s:\n%s", name, got, tt.want, res.Content)
		}
	}
	res, err := x.Run(t.Context(), tool.Env{Source: source(domain.ChatDM, "9", "9")}, json.RawMessage(`{"query":"atlas","limit":"3"}`))
	if err != nil || !strings.Contains(res.Content, "Nothing was found") {
		t.Errorf("a stranger: %q, %v", res.Content, err)
	}
	if _, err := x.Run(t.Context(), tool.Env{}, json.RawMessage(`{}`)); domain.CodeOf(err) != domain.Invalid {
		t.Errorf("no query: %v", err)
	}
}
