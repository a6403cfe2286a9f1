package matrix

import (
	"context"
	"encoding/json"
	"net/url"
	"slices"
	"strconv"

	"hermes/internal/platform"
)

const (
	historyPage = 100 // events of one page
	gapPages    = 20  // of one gap
	maxInvites  = 64  // that wait
	maxTold     = 256 // rooms that were told that they are encrypted
)

// position is how far the account has been read, and what has to be remembered
// over a restart.
type position struct {
	Since   string   `json:"since"`             // token of the next sync; "" begins anew
	From    int64    `json:"from"`              // since when the account listens, ms; 0: never yet
	Last    int64    `json:"last,omitempty"`    // when the newest event that is committed was sent, ms
	Invites []invite `json:"invites,omitempty"` // that were not accepted (yet): a homeserver tells of each once
	Told    []string `json:"told,omitempty"`    // rooms that were told that encryption cannot be read
}

// invite is an invitation into a room.
type invite struct {
	Room   string `json:"room"`
	By     string `json:"by"`
	Direct bool   `json:"direct,omitempty"`
}

// parsePosition reads a stored position; what is none begins anew.
func parsePosition(s string) (p position) {
	if json.Unmarshal([]byte(s), &p) != nil || p.From < 0 || p.Last < 0 {
		return position{}
	}
	if p.From == 0 {
		p.Since = ""
	}
	p.Invites = slices.DeleteFunc(p.Invites, func(i invite) bool { return !isRoom(i.Room) || !isUser(i.By) })
	p.Told = slices.DeleteFunc(p.Told, func(id string) bool { return !isRoom(id) })
	return p
}

// String gives the position as it is stored.
func (p position) String() string {
	b, _ := json.Marshal(p) // strings and numbers only
	return string(b)
}

// hold remembers an invitation.
func (p *position) hold(i invite) {
	p.forgetInvite(i.Room)
	p.Invites = append(p.Invites, i)
	if n := len(p.Invites); n > maxInvites {
		p.Invites = slices.Clone(p.Invites[n-maxInvites:])
	}
}

func (p *position) forgetInvite(room string) {
	p.Invites = slices.DeleteFunc(slices.Clone(p.Invites), func(i invite) bool { return i.Room == room })
}

// floor is the instant, in ms, before which no gap is filled.
func (r *receiver) floor() int64 {
	f := max(r.at.From, r.a.now().Add(-r.a.cfg.CatchUp).UnixMilli())
	if r.at.Since == "" {
		// Begun anew: from a little before the last that was taken, since the
		// servers' clocks differ; the inbox drops what it knows.
		f = max(f, r.at.Last-maxSkew)
	}
	return f
}

// maxSkew is how far the clocks of servers are taken to differ, in ms.
const maxSkew = 5 * 60 * 1000

// gap reads what a room's timeline left out, oldest first, from its history,
// https://spec.matrix.org/v1.15/client-server-api/#get_matrixclientv3roomsroomidmessages.
// It goes back to where the last sync stood, or to where the account came into
// the room.
func (r *receiver) gap(ctx context.Context, id, from string) (events, *platform.Error) {
	if from == "" {
		return nil, nil
	}
	self, floor := r.a.self.Load(), r.floor()
	filter, _ := json.Marshal(map[string]any{"types": timelineTypes, "lazy_load_members": true}) // strings only
	q := url.Values{"dir": {"b"}, "from": {from}, "limit": {strconv.Itoa(historyPage)}, "filter": {string(filter)}}
	if r.at.Since != "" {
		q.Set("to", r.at.Since)
	}
	var out events
	for range gapPages {
		var page struct {
			Chunk events `json:"chunk"`
			State events `json:"state"`
			End   string `json:"end"`
		}
		_, e := r.a.get(ctx, "/v3/rooms/"+url.PathEscape(id)+"/messages", q, &page)
		if e != nil && e.Kind == platform.GiveUp {
			r.a.log.Warn("what a room's news left out cannot be read", "room", id, "reason", e.Reason)
			break
		}
		if e != nil {
			return nil, harmless(e, "a room's history could not be read")
		}
		for _, ev := range page.State {
			r.a.rooms.apply(id, ev, false)
		}
		old := 0
		for _, ev := range page.Chunk {
			if ev.TS < floor { // or its server's clock is wrong, so that one alone means nothing
				old++
				continue
			}
			out = append(out, ev)
			if m, prev := membership(ev, self); m == "invite" || m == "join" && prev != "invite" && prev != "join" {
				slices.Reverse(out)
				return out, nil
			}
		}
		if old > 0 && old == len(page.Chunk) || page.End == "" || page.End == q.Get("from") || page.End == q.Get("to") {
			slices.Reverse(out)
			return out, nil
		}
		q.Set("from", page.End)
	}
	r.a.log.Warn("more was written in a room than is read at once; the oldest is left out", "room", id, "read", len(out))
	slices.Reverse(out)
	return out, nil
}

// membership is what an event says of the account's own membership, and what it
// was before; "" when it says nothing.
func membership(ev *event, self *identity) (now, before string) {
	if ev.Type != typeMember || ev.StateKey == nil || *ev.StateKey != self.user {
		return "", ""
	}
	return contentOf(ev).Membership, ev.Unsigned.Prev.Membership
}

// sinceInvited leaves of a timeline in which the account came into the room what
// was said since it was invited.
func sinceInvited(timeline events, self *identity) (rest events, entered bool) {
	join := -1
	for i, ev := range timeline {
		if m, prev := membership(ev, self); m == "join" && prev != "join" {
			join = i
		}
	}
	if join < 0 {
		return timeline, false
	}
	for i := join; i >= 0; i-- {
		switch m, _ := membership(timeline[i], self); m {
		case "invite":
			return timeline[i:], true
		case "leave", "ban":
			return timeline[join:], true
		}
	}
	return timeline[join:], true
}
