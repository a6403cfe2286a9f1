package matrix

import (
	"cmp"
	"context"
	"encoding/json"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"

	"hermes/internal/platform"
	"hermes/internal/platform/clean"
	"hermes/internal/platform/recall"
)

// room is what is known of a room.
type room struct {
	name, alias string
	encrypted   bool
	direct      bool // between two
}

// matches tells whether a list of ids, aliases and names has the room.
func (r room) matches(list []string, id string) bool {
	return slices.ContainsFunc(list, func(s string) bool {
		bare := strings.TrimPrefix(s, "#")
		local, _, _ := strings.Cut(strings.TrimPrefix(r.alias, "#"), ":")
		return s == "*" || s == id || r.alias != "" && s == r.alias || bare != "" && (strings.EqualFold(bare, local) || strings.EqualFold(bare, r.name))
	})
}

// rooms remembers rooms, people and threads, so that not every message costs a
// request. The zero value is usable; its methods are safe for concurrent use.
type rooms struct {
	mu      sync.Mutex
	known   recall.Table[room]
	users   recall.Table[string] // names by user id
	threads recall.Table[bool]   // by first event: the account has written there
	aliases recall.Table[string] // room ids
	directs map[string][]string  // m.direct: rooms by user; nil when it was not read
}

func (r *rooms) get(id string) (room, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.known.Get(id)
}

func (r *rooms) set(id string, to room) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.known.Set(id, to)
}

func (r *rooms) drop(id string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.known.Drop(id)
}

func (r *rooms) user(id string) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	s, _ := r.users.Get(id)
	return s
}

func (r *rooms) setUser(id, name string) {
	if name = clean.Name(name); name == "" {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.users.Set(id, name)
}

func (r *rooms) thread(root string) (joined, known bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.threads.Get(root)
}

func (r *rooms) setThread(root string, joined bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if was, _ := r.threads.Get(root); !was { // joined meanwhile stays joined
		r.threads.Set(root, joined)
	}
}

// directRooms gives what m.direct says; nil when it was not read.
func (r *rooms) directRooms() map[string][]string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.directs
}

// setDirects replaces what m.direct says. Rooms are looked at anew for which it
// says something else than before.
func (r *rooms) setDirects(d map[string][]string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	was := map[string]bool{}
	for _, ids := range r.directs {
		for _, id := range ids {
			was[id] = true
		}
	}
	for _, ids := range d {
		for _, id := range ids {
			if !was[id] {
				r.known.Drop(id)
			}
			delete(was, id)
		}
	}
	for id := range was {
		r.known.Drop(id)
	}
	r.directs = d
}

// apply takes note of a state event of a room. It tells whether names of rooms
// are not what they were.
func (r *rooms) apply(id string, ev *event, timeline bool) (renamed bool) {
	if ev.StateKey == nil {
		return false
	}
	c := contentOf(ev)
	if ev.Type == typeMember {
		if isUser(*ev.StateKey) {
			r.setUser(*ev.StateKey, c.DisplayName)
		}
		was := ev.Unsigned.Prev.Membership
		if known, ok := r.get(id); timeline && ok && was != c.Membership && (known.direct || known.name == "" && known.alias == "") {
			r.drop(id) // how many there are decides whether it is a direct one
		}
		return false
	}
	known, ok := r.get(id)
	switch ev.Type {
	case typeName:
		known.name, renamed = clean.Name(c.Name), true
	case typeAlias:
		known.alias, renamed = cleanAlias(c.Alias), true
	case typeCrypto:
		known.encrypted = true // which no event takes back
	default:
		return false
	}
	if ok {
		r.set(id, known)
	}
	return renamed
}

func cleanAlias(s string) string {
	if !isAlias(s) {
		return ""
	}
	return clean.Name(s)
}

// state reads one state event of a room into out; found is false when there is none,
// https://spec.matrix.org/v1.15/client-server-api/#get_matrixclientv3roomsroomidstateeventtypestatekey.
func (a *Adapter) state(ctx context.Context, id, kind, key string, out *content) (found bool, e *platform.Error) {
	var raw json.RawMessage
	_, e = a.get(ctx, "/v3/rooms/"+url.PathEscape(id)+"/state/"+kind+"/"+url.PathEscape(key), nil, &raw)
	if e != nil && e.Code == codeAbsent {
		return false, nil
	}
	if e != nil {
		return false, harmless(e, "the homeserver did not say what room it is")
	}
	lenient(raw, out)
	return true, nil
}

// roomOf finds out about a room.
func (a *Adapter) roomOf(ctx context.Context, id string) (room, *platform.Error) {
	if known, ok := a.rooms.get(id); ok {
		return known, nil
	}
	var name, alias, crypto content
	var out room
	if _, e := a.state(ctx, id, typeName, "", &name); e != nil {
		return out, e
	}
	if _, e := a.state(ctx, id, typeAlias, "", &alias); e != nil {
		return out, e
	}
	var e *platform.Error
	if out.encrypted, e = a.state(ctx, id, typeCrypto, "", &crypto); e != nil {
		return out, e
	}
	out.name, out.alias = clean.Name(name.Name), cleanAlias(alias.Alias)
	directs, e := a.loadDirects(ctx)
	if e != nil {
		return out, e
	}
	if listed(directs, id) || out.name == "" && out.alias == "" {
		n, e := a.members(ctx, id)
		if e != nil {
			return out, e
		}
		out.direct = n <= 2
	}
	a.rooms.set(id, out)
	return out, nil
}

func listed(directs map[string][]string, id string) bool {
	for _, ids := range directs {
		if slices.Contains(ids, id) {
			return true
		}
	}
	return false
}

// members counts who is in a room, and learns names,
// https://spec.matrix.org/v1.15/client-server-api/#get_matrixclientv3roomsroomidjoined_members.
func (a *Adapter) members(ctx context.Context, id string) (int, *platform.Error) {
	var out struct {
		Joined map[string]struct {
			Name string `json:"display_name"`
		} `json:"joined"`
	}
	if _, e := a.get(ctx, "/v3/rooms/"+url.PathEscape(id)+"/joined_members", nil, &out); e != nil {
		return 0, harmless(e, "the homeserver did not say who is in the room")
	}
	for user, m := range out.Joined {
		if len(out.Joined) <= 100 && isUser(user) {
			a.rooms.setUser(user, m.Name)
		}
	}
	return len(out.Joined), nil
}

// userName is what a user is called in a room; the local part of the id when
// that cannot be found out: a name is not worth a message.
func (a *Adapter) userName(ctx context.Context, room, user string) string {
	if s := a.rooms.user(user); s != "" {
		return s
	}
	local, _, _ := strings.Cut(user[1:], ":")
	var m content
	if _, e := a.state(ctx, room, typeMember, user, &m); e != nil {
		a.log.Debug("a user's name could not be read", "user", user, "error", e)
		return local
	}
	name := clean.Name(m.DisplayName, local, user)
	a.rooms.setUser(user, name)
	return name
}

func directPath(self *identity) string {
	return "/v3/user/" + url.PathEscape(self.user) + "/account_data/" + typeDirect
}

// loadDirects gives which rooms are direct ones, as the account's data say,
// https://spec.matrix.org/v1.15/client-server-api/#direct-messaging.
func (a *Adapter) loadDirects(ctx context.Context) (map[string][]string, *platform.Error) {
	if d := a.rooms.directRooms(); d != nil {
		return d, nil
	}
	self, e := a.identify(ctx)
	if e != nil {
		return nil, e
	}
	d := map[string][]string{}
	var raw json.RawMessage
	if _, e := a.get(ctx, directPath(self), nil, &raw); e != nil && e.Code != codeAbsent {
		return nil, harmless(e, "the homeserver did not say which rooms are direct ones")
	}
	lenient(raw, &d)
	a.rooms.setDirects(d)
	return d, nil
}

// markDirect puts a room among those that are direct.
func (a *Adapter) markDirect(ctx context.Context, user, id string) *platform.Error {
	was, e := a.loadDirects(ctx)
	if e != nil {
		return e
	}
	if slices.Contains(was[user], id) {
		return nil
	}
	self, e := a.identify(ctx)
	if e != nil {
		return e
	}
	d := maps.Clone(was)
	d[user] = append(slices.Clone(d[user]), id)
	if _, e := a.call(ctx, request{method: http.MethodPut, path: directPath(self), in: d}, nil); e != nil {
		return harmless(e, "the room could not be marked as a direct one")
	}
	a.rooms.setDirects(d)
	return nil
}

// resolve gives the id of the room to write to: of an alias, or of the direct room
// with a user.
func (a *Adapter) resolve(ctx context.Context, id string) (string, *platform.Error) {
	switch {
	case isRoom(id):
		return id, nil
	case isAlias(id):
		a.rooms.mu.Lock()
		known, _ := a.rooms.aliases.Get(id)
		a.rooms.mu.Unlock()
		if known != "" {
			return known, nil
		}
		var out struct {
			ID string `json:"room_id"`
		}
		// https://spec.matrix.org/v1.15/client-server-api/#get_matrixclientv3directoryroomroomalias
		if _, e := a.get(ctx, "/v3/directory/room/"+url.PathEscape(id), nil, &out); e != nil {
			return "", harmless(e, "the homeserver did not say which room "+id+" is")
		}
		if !isRoom(out.ID) {
			return "", notMatrix(http.StatusOK)
		}
		a.rooms.mu.Lock()
		a.rooms.aliases.Set(id, out.ID)
		a.rooms.mu.Unlock()
		return out.ID, nil
	case isUser(id):
		d, e := a.loadDirects(ctx)
		if e != nil {
			return "", e
		}
		if ids := slices.DeleteFunc(slices.Clone(d[id]), func(s string) bool { return !isRoom(s) }); len(ids) > 0 {
			return ids[len(ids)-1], nil
		}
		return "", &platform.Error{Kind: platform.GiveUp, Code: codeAbsent, Reason: "there is no direct room with " + id + " yet: they have to write to the account first"}
	}
	return "", &platform.Error{Kind: platform.GiveUp, Code: "matrix_address",
		Reason: "the room " + quoted(id) + " is not one of Matrix': write its id, such as !abc:example.org (in the room's settings under Advanced), or its alias, such as #room:example.org"}
}

// Channels lists the rooms that the account is in and that have a name or an
// alias. It is a sync of its own, of nothing but those.
func (a *Adapter) Channels(ctx context.Context) ([]platform.Channel, error) {
	nothing := map[string]any{"types": []string{}}
	filter, _ := json.Marshal(map[string]any{ // strings and numbers only
		"presence": nothing, "account_data": nothing,
		"room": map[string]any{"account_data": nothing, "ephemeral": nothing, "timeline": map[string]any{"limit": 1, "types": []string{typeName, typeAlias}},
			"state": map[string]any{"types": []string{typeName, typeAlias}, "lazy_load_members": true}},
	})
	var s syncReply
	q := url.Values{"filter": {string(filter)}, "timeout": {"0"}, "set_presence": {"offline"}}
	if _, e := a.get(ctx, "/v3/sync", q, &s); e != nil {
		return nil, harmless(e, "the homeserver did not say which rooms the account is in")
	}
	directs, e := a.loadDirects(ctx)
	if e != nil {
		return nil, e
	}
	out := []platform.Channel{}
	for _, id := range slices.Sorted(maps.Keys(s.Rooms.Join)) {
		if len(out) == platform.MaxChannels || !isRoom(id) || s.Rooms.Join[id] == nil || listed(directs, id) {
			continue
		}
		var name, alias string
		for _, ev := range slices.Concat(s.Rooms.Join[id].State.Events, s.Rooms.Join[id].Timeline.Events) {
			c := contentOf(ev)
			switch ev.Type {
			case typeName:
				name = clean.Name(c.Name)
			case typeAlias:
				alias = cleanAlias(c.Alias)
			}
		}
		local, server, _ := strings.Cut(strings.TrimPrefix(alias, "#"), ":")
		if one := (platform.Channel{ID: id, Name: cmp.Or(local, name), Title: name, Space: server, Type: "room"}); one.Name != "" {
			out = append(out, one)
		}
	}
	return out, nil
}
