package slack

import (
	"encoding/json"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

func (s *Server) routes() {
	s.mux = http.NewServeMux()
	s.mux.HandleFunc("/link/", s.websocket)
	s.mux.HandleFunc("POST /upload/{id}", s.upload)
	s.mux.HandleFunc("GET /files-pri/{id}/{name}", s.download)
	s.mux.HandleFunc("/api/", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json; charset=utf-8")
		json.NewEncoder(w).Encode(refuse("unknown_method", "")) //nolint:errcheck // the client may be gone
	})
	s.route("apps.connections.open", "connections:write", s.openConnection)
	s.route("auth.test", "", s.authTest)
	s.route("bots.info", "users:read", s.botsInfo)
	s.route("users.info", "users:read", s.usersInfo)
	s.route("users.list", "users:read", s.usersList)
	s.route("users.conversations", "", s.listConversations)
	s.route("conversations.list", "", s.listConversations)
	s.route("conversations.info", "channels:read", s.conversationInfo)
	s.route("conversations.open", "im:write", s.conversationOpen)
	s.route("conversations.history", "channels:history", s.history)
	s.route("conversations.replies", "channels:history", s.replies)
	s.route("chat.postMessage", "chat:write", s.postMessage)
	s.route("chat.postEphemeral", "chat:write", s.postEphemeral)
	s.route("chat.update", "chat:write", s.updateMessage)
	s.route("reactions.add", "reactions:write", s.addReaction)
	s.route("reactions.remove", "reactions:write", s.removeReaction)
	s.route("files.info", "files:read", s.fileInfo)
	s.route("files.getUploadURLExternal", "files:write", s.uploadURL)
	s.route("files.completeUploadExternal", "files:write", s.completeUpload)
	s.route("assistant.threads.setStatus", "assistant:write", s.setStatus)
}

func (s *Server) authTest(url.Values) (answer, string) {
	return answer{"url": "https://acme.slack.com/", "team": s.o.Team, "team_id": teamID, "user": s.self.Name, "user_id": s.self.ID, "bot_id": botID}, ""
}

func (s *Server) botsInfo(q url.Values) (answer, string) {
	if q.Get("bot") != botID {
		return nil, "bot_not_found"
	}
	return answer{"bot": map[string]any{"id": botID, "app_id": appID, "name": s.self.Name, "user_id": s.self.ID}}, ""
}

// userObject is https://docs.slack.dev/reference/objects/user-object.
func userObject(u *User) map[string]any {
	return map[string]any{"id": u.ID, "team_id": teamID, "name": strings.ToLower(u.Name), "is_bot": u.IsBot, "real_name": u.Name,
		"profile": map[string]any{"display_name": u.Name, "real_name": u.Name}}
}

func (s *Server) usersInfo(q url.Values) (answer, string) {
	u := s.users[q.Get("user")]
	if u == nil {
		return nil, "user_not_found"
	}
	return answer{"user": userObject(u)}, ""
}

func (s *Server) usersList(url.Values) (answer, string) {
	members := []any{}
	for _, u := range s.users {
		members = append(members, userObject(u))
	}
	return answer{"members": members, "response_metadata": map[string]any{"next_cursor": ""}}, ""
}

// object is https://docs.slack.dev/reference/objects/conversation-object.
func (c *channelState) object() map[string]any {
	o := map[string]any{"id": c.ID, "is_im": c.Kind == "im", "is_mpim": c.Kind == "mpim", "is_private": c.Kind != "public_channel",
		"is_channel": c.Kind == "public_channel", "is_archived": c.Archived, "is_member": !c.outside}
	if c.Kind == "im" {
		o["user"] = c.user
	} else {
		o["name"] = c.Name
	}
	return o
}

// scopes are the permissions to see each kind of conversation.
var scopes = map[string]string{"im": "im:read", "mpim": "mpim:read", "public_channel": "channels:read", "private_channel": "groups:read"}

// listConversations is https://docs.slack.dev/reference/methods/users.conversations.
func (s *Server) listConversations(q url.Values) (answer, string) {
	kinds := strings.Split(q.Get("types"), ",")
	if q.Get("types") == "" {
		kinds = []string{"public_channel"}
	}
	for _, k := range kinds {
		if s.noScope[scopes[k]] {
			return nil, "missing_scope:" + scopes[k]
		}
	}
	all := []any{}
	for _, id := range s.order {
		c := s.channels[id]
		if slices.Contains(kinds, c.Kind) && !c.outside && !(c.Archived && yes(q, "exclude_archived")) {
			all = append(all, c.object())
		}
	}
	from, to, next := pageOf(q, len(all), 100)
	return answer{"channels": all[from:to], "response_metadata": map[string]any{"next_cursor": next}}, ""
}

// pageOf finds the page that a cursor and a limit ask for,
// https://docs.slack.dev/apis/web-api/pagination.
func pageOf(q url.Values, n, limit int) (from, to int, next string) {
	if l, err := strconv.Atoi(q.Get("limit")); err == nil && l > 0 {
		limit = min(l, 999)
	}
	from, _ = strconv.Atoi(strings.TrimPrefix(q.Get("cursor"), "page:"))
	from = min(max(from, 0), n)
	to = min(from+limit, n)
	if to < n {
		next = "page:" + itoa(to)
	}
	return from, to, next
}

// channel finds a conversation that the bot can see.
func (s *Server) channel(id string) (*channelState, string) {
	c := s.channels[id]
	if c == nil || c.outside && c.Kind != "public_channel" {
		return nil, "channel_not_found"
	}
	return c, ""
}

func (s *Server) conversationInfo(q url.Values) (answer, string) {
	c, e := s.channel(q.Get("channel"))
	if e != "" {
		return nil, e
	}
	return answer{"channel": c.object()}, ""
}

func (s *Server) conversationOpen(q url.Values) (answer, string) {
	u := s.users[q.Get("users")]
	switch {
	case u == nil:
		return nil, "user_not_found"
	case u.IsBot:
		return nil, "cannot_dm_bot"
	}
	id := s.direct(u.ID)
	s.channels[id].outside = false
	return answer{"channel": map[string]any{"id": id}}, ""
}

// history is https://docs.slack.dev/reference/methods/conversations.history:
// newest first, without what was said in threads only.
func (s *Server) history(q url.Values) (answer, string) {
	c, e := s.channel(q.Get("channel"))
	switch {
	case e != "":
		return nil, e
	case c.outside:
		return nil, "not_in_channel"
	}
	var found []*message
	for _, m := range slices.Backward(c.shown) {
		if m.deleted || m.Thread != "" && m.Thread != m.TS && m.Subtype != "thread_broadcast" || !within(q, m.TS) {
			continue
		}
		found = append(found, m)
	}
	from, to, next := pageOf(q, len(found), 100)
	return answer{"messages": s.objects(found[from:to], q), "has_more": next != "", "pin_count": 0, "response_metadata": map[string]any{"next_cursor": next}}, ""
}

// replies is https://docs.slack.dev/reference/methods/conversations.replies:
// oldest first, the first message of the thread always among them.
func (s *Server) replies(q url.Values) (answer, string) {
	c, e := s.channel(q.Get("channel"))
	if e != "" {
		return nil, e
	}
	root := q.Get("ts")
	if m := c.find(root); m == nil || m.deleted {
		return nil, "thread_not_found"
	}
	var found []*message
	for _, m := range c.shown {
		if !m.deleted && (m.TS == root || m.Thread == root && within(q, m.TS)) {
			found = append(found, m)
		}
	}
	from, to, next := pageOf(q, len(found), 1000)
	return answer{"messages": s.objects(found[from:to], q), "has_more": next != "", "response_metadata": map[string]any{"next_cursor": next}}, ""
}

// within tells whether a ts lies between oldest and latest, which are left out
// themselves unless inclusive. Within one epoch of seconds texts order as numbers.
func within(q url.Values, ts string) bool {
	inclusive := yes(q, "inclusive")
	oldest, latest := q.Get("oldest"), q.Get("latest")
	return (oldest == "" || ts > oldest || inclusive && ts == oldest) && (latest == "" || ts < latest || inclusive && ts == latest)
}

// yes reads a flag, which clients write in two ways.
func yes(q url.Values, name string) bool { return q.Get(name) == "true" || q.Get(name) == "1" }

func (s *Server) objects(messages []*message, q url.Values) []any {
	out := []any{}
	for _, m := range messages {
		o := s.object(m)
		if yes(q, "include_all_metadata") && m.Metadata != nil {
			o["metadata"] = m.Metadata
		}
		out = append(out, o)
	}
	return out
}

// maxPosted is where Slack cuts a message's text, and maxEdited what
// chat.update takes, in characters.
const (
	maxPosted = 40_000
	maxEdited = 4_000
)

// postMessage is https://docs.slack.dev/reference/methods/chat.postMessage.
func (s *Server) postMessage(q url.Values) (answer, string) {
	c, e := s.writable(q.Get("channel"))
	if e != "" {
		return nil, e
	}
	text := q.Get("text")
	attachments, ok := jsonList(q.Get("attachments"))
	if _, blocksOK := jsonList(q.Get("blocks")); !ok || !blocksOK {
		return nil, "invalid_blocks"
	}
	if text == "" && len(attachments) == 0 && q.Get("blocks") == "" {
		return nil, "no_text"
	}
	if thread := q.Get("thread_ts"); thread != "" {
		if root := c.find(thread); root == nil || root.deleted {
			return nil, "thread_not_found"
		}
	}
	if utf8.RuneCountInString(text) > maxPosted {
		text = string([]rune(text)[:maxPosted])
	}
	m := &message{User: s.self.ID, BotID: botID, Text: text, Thread: q.Get("thread_ts"), attachments: attachments, plain: q.Get("mrkdwn") == "false"}
	if raw := q.Get("metadata"); raw != "" {
		if json.Unmarshal([]byte(raw), &m.Metadata) != nil {
			return nil, "invalid_metadata_format"
		}
	}
	s.show(c, m)
	return answer{"channel": c.ID, "ts": m.TS, "message": s.object(m)}, ""
}

// writable finds a conversation that the bot may write to.
func (s *Server) writable(id string) (*channelState, string) {
	c, e := s.channel(id)
	switch {
	case e != "":
		return nil, e
	case c.outside:
		return nil, "not_in_channel"
	case c.Archived:
		return nil, "is_archived"
	}
	return c, ""
}

func jsonList(s string) (list []any, ok bool) {
	return list, s == "" || json.Unmarshal([]byte(s), &list) == nil
}

// postEphemeral is https://docs.slack.dev/reference/methods/chat.postEphemeral.
func (s *Server) postEphemeral(q url.Values) (answer, string) {
	c, e := s.writable(q.Get("channel"))
	if e != "" {
		return nil, e
	}
	u := s.users[q.Get("user")]
	if u == nil {
		return nil, "user_not_in_channel"
	}
	ts := s.stamp()
	c.ephemeral = append(c.ephemeral, Message{TS: ts, Channel: c.ID, FromBot: true, From: s.self.Name, Text: q.Get("text"), Only: u.ID})
	s.Touch()
	return answer{"message_ts": ts}, ""
}

// updateMessage is https://docs.slack.dev/reference/methods/chat.update.
func (s *Server) updateMessage(q url.Values) (answer, string) {
	c, e := s.writable(q.Get("channel"))
	if e != "" {
		return nil, e
	}
	m := c.find(q.Get("ts"))
	switch {
	case m == nil || m.deleted:
		return nil, "message_not_found"
	case m.User != s.self.ID:
		return nil, "cant_update_message"
	case utf8.RuneCountInString(q.Get("text")) > maxEdited:
		return nil, "msg_too_long"
	}
	m.edits = append(m.edits, m.Text)
	m.Text = q.Get("text")
	if q.Has("attachments") { // what is not named stays
		m.attachments, _ = jsonList(q.Get("attachments"))
	}
	s.Touch()
	return answer{"channel": c.ID, "ts": m.TS, "text": m.Text}, ""
}

// addReaction is https://docs.slack.dev/reference/methods/reactions.add.
func (s *Server) addReaction(q url.Values) (answer, string) {
	c, e := s.channel(q.Get("channel"))
	if e != "" {
		return nil, e
	}
	m := c.find(q.Get("timestamp"))
	switch {
	case m == nil:
		return nil, "message_not_found"
	case slices.Contains(m.reactions, q.Get("name")):
		return nil, "already_reacted"
	}
	m.reactions = append(m.reactions, q.Get("name"))
	s.Touch()
	return nil, ""
}

func (s *Server) removeReaction(q url.Values) (answer, string) {
	c, e := s.channel(q.Get("channel"))
	if e != "" {
		return nil, e
	}
	m := c.find(q.Get("timestamp"))
	if m == nil || !slices.Contains(m.reactions, q.Get("name")) {
		return nil, "no_reaction"
	}
	m.reactions = slices.DeleteFunc(m.reactions, func(r string) bool { return r == q.Get("name") })
	return nil, ""
}

// setStatus is https://docs.slack.dev/reference/methods/assistant.threads.setStatus.
func (s *Server) setStatus(q url.Values) (answer, string) {
	c, e := s.channel(q.Get("channel_id"))
	if e != "" {
		return nil, e
	}
	if c.find(q.Get("thread_ts")) == nil {
		return nil, "invalid_thread_ts"
	}
	c.typing++
	s.Touch()
	return nil, ""
}
