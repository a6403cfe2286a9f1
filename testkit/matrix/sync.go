package matrix

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

// event is https://spec.matrix.org/v1.15/client-server-api/#room-event-format.
type event struct {
	Type     string         `json:"type"`
	ID       string         `json:"event_id,omitempty"`
	Sender   string         `json:"sender"`
	StateKey *string        `json:"state_key,omitempty"`
	TS       int64          `json:"origin_server_ts,omitempty"`
	Content  map[string]any `json:"content"`
	Unsigned map[string]any `json:"unsigned,omitempty"`

	at     int    // in the stream
	device string // that sent it, and its transaction
	txn    string
}

// room is a room and its events, in order. It is guarded by Server.mu.
type room struct {
	id        string
	events    []*event
	state     map[string]*event // by type and key
	read      int               // position of Next
	forbidden bool
	typing    bool
	typed     int // times that the account was shown as writing
	receipt   string
}

func stateKey(kind, key string) string { return kind + "\x00" + key }

func (r *room) get(kind, key string) map[string]any {
	if e := r.state[stateKey(kind, key)]; e != nil {
		return e.Content
	}
	return nil
}

// membership is that of a user; "" for a stranger.
func (r *room) membership(user string) string {
	s, _ := r.get("m.room.member", user)["membership"].(string)
	return s
}

// filter is https://spec.matrix.org/v1.15/client-server-api/#filtering.
type filter struct {
	Types   []string `json:"types"` // nil: all
	Senders []string `json:"senders"`
	Limit   *int     `json:"limit"`
}

func (f filter) takes(e *event) bool {
	match := func(p string) bool {
		return p == e.Type || strings.HasSuffix(p, "*") && strings.HasPrefix(e.Type, strings.TrimSuffix(p, "*"))
	}
	return (f.Types == nil || slices.ContainsFunc(f.Types, match)) && (f.Senders == nil || slices.Contains(f.Senders, e.Sender))
}

type syncFilter struct {
	AccountData filter `json:"account_data"`
	Room        struct {
		State    filter `json:"state"`
		Timeline filter `json:"timeline"`
	} `json:"room"`
}

// token names a place in the stream; prev_batch tokens look otherwise.
func (s *Server) token(kind string, at int) string { return fmt.Sprintf("%s%d_%d", kind, s.epoch, at) }

// place reads a token; ok is false for one that this server did not give.
func (s *Server) place(token string) (at int, ok bool) {
	if len(token) < 2 || token[0] != 's' && token[0] != 't' {
		return 0, false
	}
	epoch, n, found := strings.Cut(token[1:], "_")
	at, err := strconv.Atoi(n)
	return at, found && err == nil && epoch == strconv.Itoa(s.epoch)
}

// sync is https://spec.matrix.org/v1.15/client-server-api/#get_matrixclientv3sync.
// It waits without holding s.mu.
func (s *Server) sync(c *caller) (any, *apiError) {
	q := c.r.URL.Query()
	var f syncFilter
	if err := json.Unmarshal([]byte(q.Get("filter")), &f); q.Get("filter") != "" && err != nil {
		return nil, refuse(http.StatusBadRequest, "M_INVALID_PARAM", "Invalid filter JSON")
	}
	timeout, _ := strconv.Atoi(q.Get("timeout"))
	ctx, cancel := context.WithTimeout(c.r.Context(), time.Duration(timeout)*time.Millisecond)
	defer cancel()
	var out map[string]any
	var refusal *apiError
	look := func() bool {
		if refusal = s.admit(c); refusal != nil {
			return true
		}
		since, full := 0, q.Get("since") == ""
		if !full {
			var ok bool
			if since, ok = s.place(q.Get("since")); !ok || q.Get("since")[0] != 's' {
				refusal = refuse(http.StatusBadRequest, "M_INVALID_PARAM", "Invalid sync token")
				return true
			}
		}
		var some bool
		out, some = s.news(&f, since, full)
		return some || full
	}
	_ = s.Until(ctx, look) // what there is when it is over is the answer
	return out, refusal
}

// news is what a sync answers, and whether there is any; the caller holds s.mu.
func (s *Server) news(f *syncFilter, since int, full bool) (out map[string]any, some bool) {
	join, invite, leave := map[string]any{}, map[string]any{}, map[string]any{}
	for _, id := range s.order {
		r := s.rooms[id]
		mine := r.state[stateKey("m.room.member", s.self.ID)]
		if mine == nil {
			continue
		}
		switch r.membership(s.self.ID) {
		case "invite":
			if mine.at > since {
				invite[id] = map[string]any{"invite_state": map[string]any{"events": stripped(r, s.self.ID)}}
			}
		case "join":
			if j := s.joined(f, r, since, full || s.enteredAt(r) > since); j != nil {
				join[id] = j
			}
		default:
			if mine.at > since && !full {
				leave[id] = map[string]any{}
			}
		}
	}
	data := []any{}
	for kind, at := range s.dataAt {
		if (full || at > since) && (f.AccountData.takes(&event{Type: kind})) {
			data = append(data, map[string]any{"type": kind, "content": s.account[kind]})
		}
	}
	out = map[string]any{"next_batch": s.token("s", s.stream), "rooms": map[string]any{"join": join, "invite": invite, "leave": leave}, "account_data": map[string]any{"events": data}}
	return out, len(join)+len(invite)+len(leave)+len(data) > 0
}

// enteredAt is where in the stream the account came into a room.
func (s *Server) enteredAt(r *room) int {
	at := 0
	for _, e := range r.events {
		if e.Type == "m.room.member" && *e.StateKey == s.self.ID && e.Content["membership"] == "join" {
			if prev, _ := e.Unsigned["prev_content"].(map[string]any); prev["membership"] != "join" {
				at = e.at
			}
		}
	}
	return at
}

// joined is what is new in a room; whole tells of the room as if of a new one.
func (s *Server) joined(f *syncFilter, r *room, since int, whole bool) any {
	var timeline []*event
	for _, e := range r.events {
		if (e.at > since || whole) && f.Room.Timeline.takes(e) {
			timeline = append(timeline, e)
		}
	}
	limit := 10
	if n := f.Room.Timeline.Limit; n != nil {
		limit = *n
	}
	limited := len(timeline) > limit
	from := s.stream
	if limited {
		timeline = timeline[len(timeline)-limit:]
	}
	if len(timeline) > 0 {
		from = timeline[0].at
	}
	senders := map[string]bool{}
	shown := []*event{}
	for _, e := range timeline {
		senders[e.Sender] = true
		shown = append(shown, s.seen(e))
	}
	state := []*event{}
	for _, e := range r.state {
		before := e.at < from || len(timeline) == 0
		switch {
		case !f.Room.State.takes(e), !before && e.Type != "m.room.member":
		case e.Type == "m.room.member" && senders[*e.StateKey] && before: // loaded lazily
			state = append(state, s.seen(e))
		case e.Type != "m.room.member" && (whole || e.at > since):
			state = append(state, s.seen(e))
		}
	}
	slices.SortFunc(state, func(x, y *event) int { return x.at - y.at })
	if len(shown) == 0 && !whole && !slices.ContainsFunc(state, func(e *event) bool { return e.at > since }) {
		return nil
	}
	return map[string]any{
		"state":    map[string]any{"events": state},
		"timeline": map[string]any{"events": shown, "limited": limited, "prev_batch": s.token("t", from-1)},
	}
}

// seen is an event as it is shown: with what is known of its thread.
func (s *Server) seen(e *event) *event {
	out := *e
	out.Unsigned = map[string]any{}
	for k, v := range e.Unsigned {
		out.Unsigned[k] = v
	}
	if e.txn != "" {
		out.Unsigned["transaction_id"] = e.txn
	}
	n, mine := 0, false
	for _, r := range s.rooms {
		for _, o := range r.events {
			if rel, _ := o.Content["m.relates_to"].(map[string]any); rel["rel_type"] == "m.thread" && rel["event_id"] == e.ID {
				n++
				mine = mine || o.Sender == s.self.ID
			}
		}
	}
	if n > 0 {
		out.Unsigned["m.relations"] = map[string]any{"m.thread": map[string]any{"count": n, "current_user_participated": mine}}
	}
	return &out
}

// stripped is the state that an invitation shows,
// https://spec.matrix.org/v1.15/client-server-api/#stripped-state.
func stripped(r *room, user string) []any {
	out := []any{}
	for _, e := range r.state {
		switch {
		case e.Type == "m.room.member" && *e.StateKey != user:
		case slices.Contains([]string{"m.room.create", "m.room.name", "m.room.canonical_alias", "m.room.encryption", "m.room.member"}, e.Type):
			out = append(out, map[string]any{"type": e.Type, "state_key": *e.StateKey, "sender": e.Sender, "content": e.Content})
		}
	}
	return out
}
