package matrix

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"path"
	"slices"
	"strconv"
	"strings"
)

// Send is the pattern of sending an event, for Fail and Calls.
const Send = "PUT /v3/rooms/{room}/send/{type}/{txn}"

// maxEvent bounds an event, in bytes,
// https://spec.matrix.org/v1.15/client-server-api/#size-limits.
const maxEvent = 65536

func (s *Server) routes() {
	s.mux = http.NewServeMux()
	s.mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		answer(w, nil, refuse(http.StatusNotFound, "M_UNRECOGNIZED", "Unrecognized request"))
	})
	s.route("GET /v3/sync", false, nil)
	s.route("POST /v3/login", true, s.login)
	s.route("POST /v3/logout", false, func(c *caller) (any, *apiError) {
		delete(s.devices, c.token)
		s.Touch()
		return struct{}{}, nil
	})
	s.route("GET /v3/account/whoami", false, func(c *caller) (any, *apiError) {
		return map[string]any{"user_id": s.self.ID, "device_id": c.device}, nil
	})
	s.route("GET /v3/profile/{user}/displayname", false, s.displayName)
	s.route("GET /v3/user/{user}/account_data/{type}", false, s.getData)
	s.route("PUT /v3/user/{user}/account_data/{type}", false, s.putData)
	s.route("POST /v3/join/{room}", false, s.join)
	s.route("GET /v3/directory/room/{alias}", false, s.alias)
	s.route("GET /v3/rooms/{room}/state/{type}/{key...}", false, s.getState)
	s.route("GET /v3/rooms/{room}/joined_members", false, s.members)
	s.route("GET /v3/rooms/{room}/messages", false, s.messages)
	s.route("GET /v3/rooms/{room}/event/{event}", false, s.getEvent)
	s.route(Send, false, s.send)
	s.route("PUT /v3/rooms/{room}/typing/{user}", false, s.setTyping)
	s.route("POST /v3/rooms/{room}/receipt/{kind}/{event}", false, s.setReceipt)
	s.route("POST /_matrix/media/v3/upload", false, s.upload)
	if s.o.Old {
		s.route("GET /_matrix/media/v3/config", false, s.mediaConfig)
		s.route("GET /_matrix/media/v3/download/{server}/{id}", true, s.download)
		return
	}
	s.route("GET /v1/media/config", false, s.mediaConfig)
	s.route("GET /v1/media/download/{server}/{id}", false, s.download)
}

// login is https://spec.matrix.org/v1.15/client-server-api/#post_matrixclientv3login.
// A device that logs in again loses the token that it had.
func (s *Server) login(c *caller) (any, *apiError) {
	var in struct {
		Type       string `json:"type"`
		Identifier struct {
			Type string `json:"type"`
			User string `json:"user"`
		} `json:"identifier"`
		Password string `json:"password"`
		Device   string `json:"device_id"`
	}
	if json.Unmarshal(c.body, &in) != nil || in.Type != "m.login.password" || in.Identifier.Type != "m.id.user" {
		return nil, refuse(http.StatusBadRequest, "M_UNKNOWN", "Unknown login type")
	}
	if u := in.Identifier.User; u != s.self.ID && u != s.o.Name || in.Password != s.o.Password {
		return nil, errForbidden("Invalid username or password")
	}
	if in.Device == "" {
		in.Device = "DEVICE" + s.newID()
	}
	maps.DeleteFunc(s.devices, func(_, device string) bool { return device == in.Device })
	token := "syt_login_" + s.newID()
	s.devices[token] = in.Device
	return map[string]any{"user_id": s.self.ID, "access_token": token, "device_id": in.Device, "home_server": Domain}, nil
}

func (s *Server) displayName(c *caller) (any, *apiError) {
	if u := s.users[c.path("user")]; u != nil {
		return map[string]string{"displayname": u.Name}, nil
	}
	return nil, errAbsent("Profile was not found")
}

func (s *Server) getData(c *caller) (any, *apiError) {
	if d, ok := s.account[c.path("type")]; ok {
		return d, nil
	}
	return nil, errAbsent("Account data not found")
}

func (s *Server) putData(c *caller) (any, *apiError) {
	if c.path("user") != s.self.ID {
		return nil, errForbidden("Cannot add account data for other users.")
	}
	if !json.Valid(c.body) {
		return nil, refuse(http.StatusBadRequest, "M_NOT_JSON", "Content not JSON.")
	}
	s.stream++
	s.account[c.path("type")], s.dataAt[c.path("type")] = slices.Clone(c.body), s.stream
	s.Touch()
	return struct{}{}, nil
}

// join is https://spec.matrix.org/v1.15/client-server-api/#post_matrixclientv3joinroomidoralias.
func (s *Server) join(c *caller) (any, *apiError) {
	id := c.path("room")
	if to, ok := s.aliases[id]; ok {
		id = to
	}
	r := s.rooms[id]
	if r == nil {
		return nil, errAbsent("No known servers")
	}
	switch rule, _ := r.get("m.room.join_rules", "")["join_rule"].(string); {
	case r.forbidden, r.membership(s.self.ID) == "ban":
		return nil, errForbidden("You are banned from this room")
	case r.membership(s.self.ID) == "join":
	case r.membership(s.self.ID) != "invite" && rule != "public":
		return nil, errForbidden("You are not invited to this room.")
	default:
		s.member(r, s.self, s.self, "join", nil)
	}
	return map[string]string{"room_id": id}, nil
}

func (s *Server) alias(c *caller) (any, *apiError) {
	if id, ok := s.aliases[c.path("alias")]; ok {
		return map[string]any{"room_id": id, "servers": []string{Domain}}, nil
	}
	return nil, errAbsent("Room alias " + c.path("alias") + " not found")
}

// in finds a room that the account is in; the caller holds s.mu.
func (s *Server) in(id string) (*room, *apiError) {
	r := s.rooms[id]
	if r == nil || r.membership(s.self.ID) != "join" {
		return nil, errForbidden(fmt.Sprintf("User %s not in room %s", s.self.ID, id))
	}
	return r, nil
}

func (s *Server) getState(c *caller) (any, *apiError) {
	r, e := s.in(c.path("room"))
	if e != nil {
		return nil, e
	}
	if content := r.get(c.path("type"), c.path("key")); content != nil {
		return content, nil
	}
	return nil, errAbsent("Event not found.")
}

func (s *Server) members(c *caller) (any, *apiError) {
	r, e := s.in(c.path("room"))
	if e != nil {
		return nil, e
	}
	out := map[string]any{}
	for _, ev := range r.state {
		if ev.Type == "m.room.member" && ev.Content["membership"] == "join" {
			out[*ev.StateKey] = map[string]any{"display_name": ev.Content["displayname"]}
		}
	}
	return map[string]any{"joined": out}, nil
}

// messages is https://spec.matrix.org/v1.15/client-server-api/#get_matrixclientv3roomsroomidmessages,
// backwards.
func (s *Server) messages(c *caller) (any, *apiError) {
	r, e := s.in(c.path("room"))
	if e != nil {
		return nil, e
	}
	q := c.r.URL.Query()
	var f filter
	if err := json.Unmarshal([]byte(q.Get("filter")), &f); q.Get("filter") != "" && err != nil || q.Get("dir") != "b" {
		return nil, refuse(http.StatusBadRequest, "M_INVALID_PARAM", "Invalid parameter")
	}
	from, to := s.stream, 0
	for name, at := range map[string]*int{"from": &from, "to": &to} {
		if v := q.Get(name); v != "" {
			var ok bool
			if *at, ok = s.place(v); !ok {
				return nil, refuse(http.StatusBadRequest, "M_INVALID_PARAM", "Invalid pagination token")
			}
		}
	}
	limit, err := strconv.Atoi(q.Get("limit"))
	if err != nil {
		limit = 10
	}
	chunk, end := []*event{}, ""
	for i := len(r.events) - 1; i >= 0; i-- {
		ev := r.events[i]
		if ev.at > from || !f.takes(ev) {
			continue
		}
		if ev.at <= to {
			break
		}
		if len(chunk) == limit {
			end = s.token("t", chunk[limit-1].at-1)
			break
		}
		chunk = append(chunk, s.seen(ev))
	}
	out := map[string]any{"chunk": chunk, "start": s.token("t", from)}
	if end != "" {
		out["end"] = end
	}
	return out, nil
}

func (s *Server) getEvent(c *caller) (any, *apiError) {
	r, e := s.in(c.path("room"))
	if e != nil {
		return nil, e
	}
	if ev := find(r, c.path("event")); ev != nil {
		return s.seen(ev), nil
	}
	return nil, errAbsent("Event not found.")
}

func find(r *room, id string) *event {
	for _, e := range r.events {
		if e.ID == id {
			return e
		}
	}
	return nil
}

// send is https://spec.matrix.org/v1.15/client-server-api/#put_matrixclientv3roomsroomidsendeventtypetxnid.
func (s *Server) send(c *caller) (any, *apiError) {
	r, e := s.in(c.path("room"))
	if e != nil {
		return nil, e
	}
	key := strings.Join([]string{c.device, r.id, c.path("type"), c.path("txn")}, "\x00")
	if id, ok := s.txns[key]; ok {
		return map[string]string{"event_id": id}, nil
	}
	if r.forbidden || r.get("m.room.tombstone", "") != nil {
		return nil, errForbidden("You don't have permission to post that to the room. user_level (0) < send_level (50)")
	}
	if len(c.body) > maxEvent {
		return nil, refuse(http.StatusRequestEntityTooLarge, "M_TOO_LARGE", "event too large")
	}
	ev := &event{Type: c.path("type"), Sender: s.self.ID, device: c.device, txn: c.path("txn")}
	if json.Unmarshal(c.body, &ev.Content) != nil {
		return nil, refuse(http.StatusBadRequest, "M_NOT_JSON", "Content not JSON.")
	}
	rel, _ := ev.Content["m.relates_to"].(map[string]any)
	to, _ := rel["event_id"].(string)
	if to != "" && find(r, to) == nil {
		return nil, refuse(http.StatusBadRequest, "M_UNKNOWN", "Can't send relation to unknown event")
	}
	for _, o := range r.events {
		if was, _ := o.Content["m.relates_to"].(map[string]any); ev.Type == "m.reaction" && o.Type == ev.Type && o.Sender == ev.Sender && was["event_id"] == to && was["key"] == rel["key"] {
			return nil, refuse(http.StatusBadRequest, "M_DUPLICATE_ANNOTATION", "Can't send same reaction twice")
		}
	}
	s.add(r, ev)
	s.txns[key] = ev.ID
	return map[string]string{"event_id": ev.ID}, nil
}

func (s *Server) setTyping(c *caller) (any, *apiError) {
	r, e := s.in(c.path("room"))
	if e != nil {
		return nil, e
	}
	var in struct {
		Typing bool `json:"typing"`
	}
	if json.Unmarshal(c.body, &in) != nil || c.path("user") != s.self.ID {
		return nil, refuse(http.StatusBadRequest, "M_BAD_JSON", "Invalid body")
	}
	r.typing = in.Typing
	if in.Typing {
		r.typed++
	}
	s.Touch()
	return struct{}{}, nil
}

func (s *Server) setReceipt(c *caller) (any, *apiError) {
	r, e := s.in(c.path("room"))
	if e != nil {
		return nil, e
	}
	if c.path("kind") != "m.read" || find(r, c.path("event")) == nil {
		return nil, refuse(http.StatusBadRequest, "M_INVALID_PARAM", "Invalid receipt")
	}
	r.receipt = c.path("event")
	s.Touch()
	return struct{}{}, nil
}

func (s *Server) mediaConfig(*caller) (any, *apiError) {
	return map[string]any{"m.upload.size": s.o.MaxFileSize}, nil
}

func (s *Server) upload(c *caller) (any, *apiError) {
	if int64(len(c.body)) > s.o.MaxFileSize {
		return nil, refuse(http.StatusRequestEntityTooLarge, "M_TOO_LARGE", "Upload request body is too large")
	}
	return map[string]string{"content_uri": s.keep(File{Name: path.Base(c.r.URL.Query().Get("filename")), MIME: c.r.Header.Get("Content-Type"), Data: c.body})}, nil
}

// keep stores a file and gives its address; the caller holds s.mu.
func (s *Server) keep(f File) string {
	id := "media" + s.newID()
	f.URI = "mxc://" + Domain + "/" + id
	s.files[id] = &f
	return f.URI
}

func (s *Server) download(c *caller) (any, *apiError) {
	if f := s.files[c.path("id")]; f != nil && c.path("server") == Domain {
		return f, nil
	}
	return nil, errAbsent("Not found")
}
